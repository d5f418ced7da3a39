//! `bench compare`: verify, measure in turns, print.

use std::path::PathBuf;
use std::time::Duration;

use crate::Failure;
use crate::args::Args;
use crate::contender::{Contender, Door, Running};
use crate::machine::{Machine, load_average};
use crate::measure::{self, Figures, Kind, TESTS, Test};
use crate::process;
use crate::stage::Stage;
use crate::table::{self, Rounds};
use crate::verify::verify;

const USUAL: &str = "keep64,keep256,post,h2,new,rate,big,idle";

/// Runs the whole comparison.
pub fn main(mut args: Args) -> Result<(), Failure> {
    let proxy: PathBuf = args.parse("proxy")?;
    let work: PathBuf = args.parse("work")?;
    let rounds: usize = args.or("rounds", 5)?;
    let seconds: f64 = args.or("seconds", 3.0)?;
    let tests = select(&args.or("tests", USUAL.to_owned())?)?;
    let forward = tests.iter().any(|test| test.door == Door::Forward);
    let gateway = tests.iter().any(|test| test.door == Door::Gateway);
    let usual = match (gateway, forward) {
        (true, true) => "countersign,nginx,haproxy,mitmproxy,squid",
        (false, true) => "countersign,mitmproxy,squid",
        (_, false) => "countersign,nginx,haproxy",
    };
    let contenders: Vec<Contender> =
        args.or("contenders", usual.to_owned())?.split(',').map(|text| Contender::read(text, &proxy)).collect();
    let verifying = args.or("verify", "yes".to_owned())? != "no";
    args.end()?;
    if !(0.1..=60.0).contains(&seconds) || !(1..=100).contains(&rounds) {
        return Err("0.1 to 60 --seconds and 1 to 100 --rounds make sense".into());
    }
    let windows = (tests.len() * contenders.len() * rounds) as f64;
    let limit = Duration::from_secs_f64(120.0 + 30.0 * contenders.len() as f64 + windows * (seconds + 4.0) * 1.5);
    process::bound(limit)?;

    println!("{}", Machine::look().line());
    for contender in &contenders {
        println!("- {}: {}", contender.name, contender.version()?);
    }
    let stage = Stage::set(work)?;
    introduce(&stage, rounds, seconds);
    for door in [Door::Gateway, Door::Forward] {
        let tests: Vec<&Test> = tests.iter().copied().filter(|test| test.door == door).collect();
        let Some(first) = tests.first() else { continue };
        let able: Vec<Contender> = contenders.iter().filter(|contender| contender.kind.serves(door)).cloned().collect();
        if able.is_empty() {
            return Err(format!("none of these contenders can take part in `{}`", first.name).into());
        }
        for contender in able.iter().filter(|_| verifying) {
            let checked = verify(&stage, contender, door)?;
            println!("- {} does the job: {checked}", contender.name);
        }
        let running = able.iter().map(|contender| contender.start(&stage, door, stage.origin));
        let running = running.collect::<Result<Vec<_>, _>>()?;
        for test in tests {
            let taken = in_turns(&stage, test, &able, &running, rounds, seconds)?;
            table::print(test, &able, &taken);
        }
    }
    println!("\nload average at the end: {}", load_average());
    Ok(())
}

fn select(names: &str) -> Result<Vec<&'static Test>, Failure> {
    names
        .split(',')
        .map(|name| {
            TESTS.iter().find(|test| test.name == name).ok_or_else(|| {
                let known: Vec<&str> = TESTS.iter().map(|test| test.name).collect();
                format!("there is no test `{name}`; there are {}", known.join(", ")).into()
            })
        })
        .collect()
}

/// Measures every contender in every round; each round begins with another one.
fn in_turns(
    stage: &Stage,
    test: &Test,
    contenders: &[Contender],
    running: &[Running],
    rounds: usize,
    seconds: f64,
) -> Result<Rounds, Failure> {
    let mut taken: Rounds = vec![Vec::new(); contenders.len()];
    // Counts do not vary with the machine's mood.
    let rounds = if test.kind == Kind::Syscalls { 1 } else { rounds };
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let at = (turn + round) % contenders.len();
            let figures: Figures = match test.kind {
                Kind::Idle => measure::idle(stage, &contenders[at], test)?,
                Kind::Syscalls => measure::syscalls(stage, &running[at], test, seconds)?,
                Kind::Allocations | Kind::Bytes | Kind::Latency | Kind::Requests | Kind::Tunnels => {
                    measure::measure(stage, &running[at], test, seconds)?
                }
            };
            taken[at].push(figures);
            std::thread::sleep(Duration::from_millis(150));
        }
    }
    Ok(taken)
}

fn introduce(stage: &Stage, rounds: usize, seconds: f64) {
    println!(
        "proxy on core {}, origin and generator on {} ({} threads each); {rounds} rounds of {seconds} s in turns",
        stage.proxy_core, stage.other_cores, stage.threads
    );
    if let Some(caveat) = stage.caveat {
        println!("note: {caveat}");
    }
    println!("load average at the start: {}", load_average());
}

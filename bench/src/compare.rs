//! `bench compare`: verify, measure in turns, print.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::Failure;
use crate::args::Args;
use crate::contender::{Contender, Door, Kind as Of, Running, Size};
use crate::machine::{Machine, load_average};
use crate::measure::{self, Figures, Kind, TESTS, Test};
use crate::process;
use crate::report::Report;
use crate::stage::Stage;
use crate::table::{self, Rounds};
use crate::verify::verify;

const USUAL: &str = "keep64,keep256,post,h2,new,rate,big,idle";

/// Time after which a quick run repeats no window, so that it stays under five minutes.
const QUICK_REPEATS: Duration = Duration::from_secs(120);

/// The amount of measuring.
#[derive(Clone, Copy)]
struct Settings {
    quick: bool,
    rounds: usize,
    seconds: f64,
    /// Repetitions, at most, of a window that steal disturbed.
    again: u32,
    /// The end of such repetitions.
    until: Option<Instant>,
}

impl Settings {
    fn take(args: &mut Args) -> Result<Self, Failure> {
        let quick = args.take("quick").is_some();
        let (rounds, seconds, again) = if quick { (3, 1.0, 1) } else { (5, 3.0, 3) };
        let (rounds, seconds) = (args.or("rounds", rounds)?, args.or("seconds", seconds)?);
        if !(0.1..=60.0).contains(&seconds) || !(1..=100).contains(&rounds) {
            return Err("0.1 to 60 --seconds and 1 to 100 --rounds make sense".into());
        }
        let until = quick.then(|| Instant::now() + QUICK_REPEATS);
        Ok(Self { quick, rounds, seconds, again, until })
    }
}

/// Runs the whole comparison.
pub fn main(mut args: Args) -> Result<(), Failure> {
    let proxy: PathBuf = args.parse("proxy")?;
    let work: PathBuf = args.parse("work")?;
    let settings = Settings::take(&mut args)?;
    let json: Option<PathBuf> = args.take("json").map(PathBuf::from);
    let tests = select(&args.or("tests", USUAL.to_owned())?)?;
    let forward = tests.iter().any(|test| test.door == Door::Forward);
    let gateway = tests.iter().any(|test| test.door == Door::Gateway && !grows(test));
    let usual = match (gateway, forward) {
        (true, true) => "countersign,nginx,haproxy,mitmproxy,squid",
        (false, true) => "countersign,mitmproxy,squid",
        (true, false) => "countersign,nginx,haproxy",
        (false, false) => "countersign",
    };
    let contenders: Vec<Contender> =
        args.or("contenders", usual.to_owned())?.split(',').map(|text| Contender::read(text, &proxy)).collect();
    let verifying = args.or("verify", "yes".to_owned())? != "no";
    args.end()?;
    // Tokens of many keys are fetched before.
    let fills = tests.iter().filter(|test| matches!(test.kind, Kind::Growth(Size { keys: 3.., .. }))).count();
    let rows: usize = tests.iter().map(|test| test.kind.sizes(test.name).len().max(1)).sum();
    let windows = (rows * contenders.len() * settings.rounds) as f64 * f64::from(1 + settings.again);
    let each = (settings.seconds + 4.0) * 1.5;
    process::bound(Duration::from_secs_f64(
        120.0 + 30.0 * contenders.len() as f64 + windows * each + 600.0 * fills as f64,
    ))?;

    let machine = Machine::look();
    println!("{}", machine.line());
    let mut versions = Vec::new();
    for contender in &contenders {
        let version = contender.version()?;
        println!("- {}: {version}", contender.name);
        versions.push(json!({ "name": contender.name, "program": contender.program, "version": version }));
    }
    let stage = Stage::set(work)?;
    introduce(&stage, settings);
    let mut report = Report::new(
        json,
        json!({
            "date": machine.date,
            "commit": machine.commit,
            "machine": machine.json(),
            "settings": {
                "quick": settings.quick,
                "rounds": settings.rounds,
                "seconds": settings.seconds,
                "repeats_at_most": settings.again,
                "stolen_at_most": measure::STOLEN,
                "proxy_core": stage.proxy_core,
                "other_cores": stage.other_cores,
                "threads": stage.threads,
                "tests": tests.iter().map(|test| test.name).collect::<Vec<_>>(),
            },
            "contenders": versions,
            "load_average_at_the_start": load_average(),
        }),
    );
    for door in [Door::Gateway, Door::Forward] {
        let (growing, tests): (Vec<&Test>, Vec<&Test>) =
            tests.iter().copied().filter(|test| test.door == door).partition(|test| grows(test));
        let Some(first) = tests.first().or(growing.first()) else { continue };
        let able: Vec<Contender> = contenders
            .iter()
            .filter(|contender| contender.kind.serves(door) && (!tests.is_empty() || contender.kind == Of::Countersign))
            .cloned()
            .collect();
        if able.is_empty() {
            return Err(format!("none of these contenders can take part in `{}`", first.name).into());
        }
        for contender in able.iter().filter(|_| verifying) {
            let checked = verify(&stage, contender, door)?;
            println!("- {} does the job: {checked}", contender.name);
        }
        if !tests.is_empty() {
            let running = start(&stage, door, &able)?;
            for test in tests {
                let taken = in_turns(&stage, test, &able, &running, settings)?;
                table::print(test.name, test, &able, &taken);
                report.add(test.name, test.what, &able, &taken)?;
            }
        }
        let (neighbours, growing): (Vec<&Test>, Vec<&Test>) =
            growing.into_iter().partition(|test| test.kind == Kind::Neighbour);
        for tests in [growing, neighbours] {
            let Some(first) = tests.first() else { continue };
            let (name, grown) = grow(&tests, &able)?;
            let running = start(&stage, door, &grown)?;
            let taken = in_turns(&stage, first, &grown, &running, settings)?;
            table::print(&name, first, &grown, &taken);
            report.add(&name, first.what, &grown, &taken)?;
        }
    }
    println!("\nload average at the end: {}", load_average());
    Ok(())
}

fn start(stage: &Stage, door: Door, contenders: &[Contender]) -> Result<Vec<Running>, Failure> {
    contenders.iter().map(|contender| contender.start(stage, door, stage.origin)).collect()
}

/// Tells whether a test compares countersign with itself at another size.
fn grows(test: &Test) -> bool {
    !test.kind.sizes(test.name).is_empty()
}

/// Makes one contender of each build of countersign and each size, so that all sizes are measured in turns; and the name of
/// the tests together.
fn grow(tests: &[&Test], contenders: &[Contender]) -> Result<(String, Vec<Contender>), Failure> {
    let mut grown = Vec::new();
    for contender in contenders.iter().filter(|contender| contender.kind == Of::Countersign) {
        for test in tests {
            for (word, size) in test.kind.sizes(test.name) {
                grown.push(Contender { name: format!("{}-{word}", contender.name), size, ..contender.clone() });
            }
        }
    }
    let names = tests.iter().map(|test| test.name).collect::<Vec<_>>().join(", ");
    if grown.is_empty() { Err(format!("{names}: countersign alone can take part").into()) } else { Ok((names, grown)) }
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
    settings: Settings,
) -> Result<Rounds, Failure> {
    let mut taken: Rounds = vec![Vec::new(); contenders.len()];
    // Counts do not vary with the machine's mood.
    let rounds = if test.kind == Kind::Syscalls { 1 } else { settings.rounds };
    let seconds = settings.seconds;
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let at = (turn + round) % contenders.len();
            let again = if settings.until.is_some_and(|until| Instant::now() > until) { 0 } else { settings.again };
            let figures: Figures = match test.kind {
                Kind::Idle | Kind::Stall => measure::memory(stage, &contenders[at], test)?,
                Kind::Peak => measure::peak(stage, &contenders[at], test)?,
                Kind::Syscalls => measure::syscalls(stage, &running[at], test, seconds)?,
                Kind::Allocations
                | Kind::Bytes
                | Kind::Growth(_)
                | Kind::Latency
                | Kind::Neighbour
                | Kind::Requests
                | Kind::Tunnels => measure::undisturbed(stage, &running[at], test, seconds, again)?,
            };
            taken[at].push(figures);
            std::thread::sleep(Duration::from_millis(150));
        }
    }
    Ok(taken)
}

fn introduce(stage: &Stage, settings: Settings) {
    let Settings { rounds, seconds, .. } = settings;
    println!(
        "proxy on core {}, origin and generator on {} ({} threads each); {rounds} rounds of {seconds} s in turns",
        stage.proxy_core, stage.other_cores, stage.threads
    );
    if let Some(caveat) = stage.caveat {
        println!("note: {caveat}");
    }
    println!("load average at the start: {}", load_average());
}

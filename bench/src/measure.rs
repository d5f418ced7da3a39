//! The tests, and one measurement of each.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::contender::{Beside, Contender, Door, Running, SigningAlgorithm, Size};
use crate::machine::Steal;
use crate::process::{Process, Start, cpu_seconds, memory_kib, tell, tree};
use crate::stage::{Stage, count};
use crate::{Failure, access_log};

/// What a test looks at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Allocations per request; of `countersign-counted` alone.
    Allocations,
    /// Bytes per processor second.
    Bytes,
    /// Requests per processor second of countersign alone, at this size.
    Growth(Size),
    /// Memory of idle connections.
    Idle,
    /// Latency at a fixed rate.
    Latency,
    /// The same of countersign alone, without and with calls on another route of it.
    Neighbour,
    /// Memory at its highest while one large body passes.
    Peak,
    /// Requests per processor second.
    Requests,
    /// Memory of connections or streams whose readers stall.
    Stall,
    /// Kernel calls per request, by strace.
    Syscalls,
    /// New tunnels, each with one request, per processor second.
    Tunnels,
}

impl Kind {
    /// The sizes of countersign that are compared with each other, and what is added to the name of each; empty, if countersign
    /// is compared with others.
    pub fn sizes(self, test: &'static str) -> Vec<(&'static str, Size)> {
        match self {
            Self::Growth(size) => vec![(test, size)],
            Self::Neighbour => {
                let size = |beside: Beside| (beside.word(), Size { beside: Some(beside), ..Size::USUAL });
                Beside::ALL.map(size).to_vec()
            }
            Self::Allocations
            | Self::Bytes
            | Self::Idle
            | Self::Latency
            | Self::Peak
            | Self::Requests
            | Self::Stall
            | Self::Syscalls
            | Self::Tunnels => Vec::new(),
        }
    }
}

/// One row of [`TESTS`].
#[derive(Debug)]
pub struct Test {
    pub name: &'static str,
    pub what: &'static str,
    pub kind: Kind,
    pub door: Door,
    pub options: &'static str,
    /// Options of a second generator meanwhile, and how many connections it must hold; none, if it calls. Empty for no other
    /// generator.
    pub beside: (&'static str, u64),
}

const fn test(name: &'static str, kind: Kind, options: &'static str, what: &'static str) -> Test {
    Test { name, what, kind, door: Door::Gateway, options, beside: ("", 0) }
}

/// h1 keep-alive on 64 connections.
const fn growth(name: &'static str, size: Size, what: &'static str) -> Test {
    test(name, Kind::Growth(size), "--mode keep --connections 64", what)
}

const fn forward(name: &'static str, kind: Kind, options: &'static str, what: &'static str) -> Test {
    Test { name, what, kind, door: Door::Forward, options, beside: ("", 0) }
}

/// Every test, in the order of the report.
pub const TESTS: &[Test] = &[
    test("keep64", Kind::Requests, "--mode keep --connections 64", "h1 keep-alive, 64 connections"),
    test("keep256", Kind::Requests, "--mode keep --connections 256", "h1 keep-alive, 256 connections"),
    test("post", Kind::Requests, "--mode keep --connections 64 --post 1024", "POST of 1 KiB, 64 connections"),
    test("h2", Kind::Requests, "--mode h2 --connections 16 --streams 8", "h2, 16 connections of 8 streams"),
    test("new", Kind::Requests, "--mode new --connections 32", "a new TLS connection for each request"),
    test("resumed", Kind::Requests, "--mode resumed --connections 32", "the same with a resumed TLS session"),
    test("rate", Kind::Latency, "--mode rate --rate 4000 --connections 64", "4,000 requests/s, 64 connections"),
    test("big", Kind::Bytes, "--mode keep --connections 4 --path /v1/big", "10 MiB download, 4 connections"),
    test("idle", Kind::Idle, "--mode idle --connections 2000", "2,000 idle connections"),
    test("idle10k", Kind::Idle, "--mode idle --connections 10000", "10,000 idle connections"),
    test(
        "newpq",
        Kind::Requests,
        "--mode new --connections 32 --groups all",
        "new connections, X25519MLKEM768 offered",
    ),
    test("stall", Kind::Stall, "--mode stall --connections 200", "200 readers that stall in a download of 10 MiB, h1"),
    test(
        "stallh2",
        Kind::Stall,
        "--mode stallh2 --connections 20 --streams 10",
        "readers that stall in downloads of 10 MiB, 20 connections of 10 h2 streams",
    ),
    Test {
        beside: ("--mode stall --connections 100", 100),
        ..test(
            "slow",
            Kind::Latency,
            "--mode rate --rate 4000 --connections 64",
            "4,000 requests/s, 64 connections, beside 100 readers that stall in a download",
        )
    },
    Test {
        beside: ("--mode keep --connections 200 --path /v1/late", 0),
        ..test(
            "late",
            Kind::Latency,
            "--mode rate --rate 4000 --connections 64",
            "4,000 requests/s, 64 connections, beside 200 calls that the bank answers after half a second",
        )
    },
    test(
        "neighbour",
        Kind::Neighbour,
        "--mode rate --rate 4000 --connections 64",
        "4,000 requests/s, 64 connections, beside nothing, about as many plain calls as signed ones, and 1,000 calls at once \
         that a key service signs within 5 ms",
    ),
    test("down1g", Kind::Peak, "--mode keep --connections 1 --path /v1/bulk", "one download of 1 GiB after the other"),
    test("up1g", Kind::Peak, "--mode keep --connections 1 --path /v1/bulk --post 1073741824", "uploads of 1 GiB"),
    growth("routes1", Size::USUAL, "on the last of so many routes"),
    growth("routes10k", Size { routes: 10_000, ..Size::USUAL }, "on the last of so many routes"),
    growth("keys2", Size { keys: 2, ..Size::USUAL }, "with so many live tokens in turns"),
    growth("keys100k", Size { keys: 100_000, ..Size::USUAL }, "with so many live tokens in turns"),
    growth("signed0", Size::USUAL, "with calls that are signed by so much"),
    growth(
        "signedhs512",
        Size { signs: Some(SigningAlgorithm::Hs512), ..Size::USUAL },
        "with calls that are signed by so much",
    ),
    growth(
        "signedes256",
        Size { signs: Some(SigningAlgorithm::Es256), ..Size::USUAL },
        "with calls that are signed by so much",
    ),
    growth(
        "signededdsa",
        Size { signs: Some(SigningAlgorithm::EdDsa), ..Size::USUAL },
        "with calls that are signed by so much",
    ),
    growth("workers1", Size::USUAL, "by so many workers; two share the cores of bank and clients"),
    growth(
        "workers2",
        Size { workers: 2, ..Size::USUAL },
        "by so many workers; two share the cores of bank and clients",
    ),
    test("syscalls", Kind::Syscalls, "--mode keep --connections 64", "kernel calls per request, h1 keep-alive"),
    test("syscalls1", Kind::Syscalls, "--mode keep --connections 1", "the same, one connection"),
    test("allocs", Kind::Allocations, "--mode keep --connections 64", "allocations per request, h1 keep-alive"),
    test("allocspost", Kind::Allocations, "--mode keep --connections 64 --post 1024", "allocations per POST of 1 KiB"),
    test("allocsh2", Kind::Allocations, "--mode h2 --connections 16 --streams 8", "allocations per request, h2"),
    forward("intercept", Kind::Requests, "--mode keep --connections 64", "h1 keep-alive in 64 intercepted tunnels"),
    forward(
        "tunnels",
        Kind::Tunnels,
        "--mode new --connections 32",
        "TCP, CONNECT with credentials, TLS and one request each time",
    ),
];

/// What one measurement found.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Requests, or MiB, a second.
    pub rate: f64,
    /// The same per processor second of the contender.
    pub per_cpu: f64,
    /// Processor time of one request in user and in system mode, µs.
    pub user_us: f64,
    pub system_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Share of the core that the contender used.
    pub busy: f64,
    /// Failed requests and calls that were not dressed as they must be.
    pub wrong: u64,
    /// Connections that the contender opened to the bank, for each request.
    pub opened: f64,
    /// Named figures of the special tests.
    pub more: Vec<(String, f64)>,
    /// The generator's own report.
    pub told: Value,
    /// Share of the window that the host stole from the cores.
    pub stolen: f64,
    /// Repetitions of the window for that reason.
    pub repeats: u32,
}

impl Figures {
    /// A figure of the special ones; 0 if there is none of that name.
    pub fn named(&self, name: &str) -> f64 {
        self.more.iter().find(|(known, _)| known == name).map_or(0.0, |(_, value)| *value)
    }

    /// Tells all of it to programs.
    pub fn json(&self) -> Value {
        json!({
            "rate": self.rate,
            "per_cpu_second": self.per_cpu,
            "user_us": self.user_us,
            "system_us": self.system_us,
            "p50_us": self.p50_us,
            "p99_us": self.p99_us,
            "busy": self.busy,
            "wrong": self.wrong,
            "bank_connections_per_request": self.opened,
            "more": self.more.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "generator": self.told,
            "stolen": self.stolen,
            "repeats": self.repeats,
        })
    }
}

/// The share of a window that may be stolen.
pub const STOLEN: f64 = 0.01;

/// Measures, and again while too much of the window was stolen, at most so many times. The window that lost least counts,
/// with the failures of all.
pub fn undisturbed(
    stage: &Stage,
    running: &Running,
    test: &Test,
    seconds: f64,
    again: u32,
) -> Result<Figures, Failure> {
    let mut best = measure(stage, running, test, seconds)?;
    let mut repeats = 0;
    while best.stolen > STOLEN && repeats < again {
        repeats += 1;
        let other = measure(stage, running, test, seconds)?;
        let wrong = best.wrong + other.wrong;
        if other.stolen < best.stolen {
            best = other;
        }
        best.wrong = wrong;
    }
    best.repeats = repeats;
    Ok(best)
}

/// Measures once.
fn measure(stage: &Stage, running: &Running, test: &Test, seconds: f64) -> Result<Figures, Failure> {
    let id = running.process.id();
    stage.reset()?;
    // It ends with this function.
    let mut beside = Meanwhile::begin(stage, running, test, seconds)?;
    let mut load = running.load(stage, &format!("{} --warm 0.5 --seconds {seconds}", test.options))?;
    expect(&load.line()?, "begin")?;
    let opened = Steal::read(&stage.cores);
    let logged = if test.kind == Kind::Neighbour { access_log::end(&running.access_log)? } else { 0 };
    let (before, allocated) = (cpu_seconds(id), counts(running, test)?);
    expect(&load.line()?, "end")?;
    let (after, now_allocated) = (cpu_seconds(id), counts(running, test)?);
    let stolen = Steal::read(&stage.cores).since(&opened);
    let told: Value = serde_json::from_str(&load.line()?)?;
    load.wait()?;
    let number = |name: &str| told.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let done = number("done");
    let (user, system) = (after.0 - before.0, after.1 - before.1);
    let amount = if test.kind == Kind::Bytes { number("bytes") / f64::from(1 << 20) } else { done };
    let mut more = beside.end()?;
    if test.kind == Kind::Neighbour {
        let durations = access_log::durations(&running.access_log, logged, PLAIN)?;
        more.push((LOGGED_P50.to_owned(), access_log::quantile(&durations, 0.50)));
        more.push((LOGGED_P99.to_owned(), access_log::quantile(&durations, 0.99)));
    }
    if test.kind == Kind::Allocations {
        more.push(("allocations/request".to_owned(), (now_allocated.0 - allocated.0) / done.max(1.0)));
        more.push(("bytes/request".to_owned(), (now_allocated.1 - allocated.1) / done.max(1.0)));
    }
    let seen = stage.seen()?;
    Ok(Figures {
        rate: amount / number("seconds"),
        per_cpu: if user + system > 0.0 { amount / (user + system) } else { 0.0 },
        user_us: user * 1e6 / done.max(1.0),
        system_us: system * 1e6 / done.max(1.0),
        p50_us: number("p50_us"),
        p99_us: number("p99_us"),
        busy: (user + system) / number("seconds"),
        wrong: count(&told, "errors") + count(&seen, "violations"),
        opened: count(&seen, "connections") as f64 / count(&seen, "requests").max(1) as f64,
        more,
        stolen,
        told,
        ..Figures::default()
    })
}

/// The second generator of a test.
enum Meanwhile {
    Nothing,
    /// It holds connections until it is dropped.
    Holds {
        _load: Process,
    },
    /// It calls, a little longer than is measured.
    Calls(Process),
}

impl Meanwhile {
    /// Starts it, and waits until it holds all of its connections or calls on all of them.
    fn begin(stage: &Stage, running: &Running, test: &Test, seconds: f64) -> Result<Self, Failure> {
        let (options, wanted) = running.beside.map_or(test.beside, |beside| (beside.options(), 0));
        if options.is_empty() {
            return Ok(Self::Nothing);
        }
        if wanted == 0 {
            let mut load = running.load(stage, &format!("{options} --warm 1 --seconds {}", seconds + 2.0))?;
            expect(&load.line()?, "begin")?;
            return Ok(Self::Calls(load));
        }
        let mut load = running.load(stage, &format!("{options} --seconds 600"))?;
        let told: Value = serde_json::from_str(&load.line()?)?;
        if count(&told, "held") < wanted {
            return Err(format!("{}: only {} of {wanted} readers stall", test.name, count(&told, "held")).into());
        }
        std::thread::sleep(Duration::from_millis(500));
        Ok(Self::Holds { _load: load })
    }

    /// What its calls came to.
    fn end(&mut self) -> Result<Vec<(String, f64)>, Failure> {
        let Self::Calls(load) = self else { return Ok(Vec::new()) };
        if !load.runs() {
            return Err("the calls beside the measured ones ended before them".into());
        }
        expect(&load.line()?, "end")?;
        let told: Value = serde_json::from_str(&load.line()?)?;
        load.wait()?;
        let seconds = told.get("seconds").and_then(Value::as_f64).unwrap_or(1.0);
        let unsigned = count(&told, "unsigned");
        Ok(vec![
            (BESIDE_RATE.to_owned(), count(&told, "done") as f64 / seconds),
            (BESIDE_UNSIGNED.to_owned(), unsigned as f64),
            (BESIDE_FAILED.to_owned(), count(&told, "errors").saturating_sub(unsigned) as f64),
        ])
    }
}

/// Figures of the calls that a second generator makes: answered with 200 a second, refused as `signer-unavailable`, and failed
/// otherwise.
pub const BESIDE_RATE: &str = "calls/s beside";
pub const BESIDE_UNSIGNED: &str = "refused beside";
pub const BESIDE_FAILED: &str = "failed beside";

/// The route of calls that are not signed.
const PLAIN: &str = "scb";
/// Figures of the calls on that route by the clock of countersign.
pub const LOGGED_P50: &str = "p50 in the access log, µs";
pub const LOGGED_P99: &str = "p99 in the access log, µs";

fn expect(line: &str, wanted: &str) -> Result<(), Failure> {
    if line == wanted { Ok(()) } else { Err(format!("the generator said `{line}` instead of `{wanted}`").into()) }
}

/// Allocations and bytes since the start, as `countersign-counted` tells them.
fn counts(running: &Running, test: &Test) -> Result<(f64, f64), Failure> {
    if test.kind != Kind::Allocations {
        return Ok((0.0, 0.0));
    }
    let mut text = String::new();
    TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, running.counts)))
        .map_err(|_| "this contender does not count its allocations")?
        .read_to_string(&mut text)?;
    let (allocations, bytes) = text.split_once(' ').ok_or("counts that make no sense")?;
    Ok((allocations.parse()?, bytes.parse()?))
}

/// Memory at its highest while large bodies pass one after the other, and before.
pub fn peak(stage: &Stage, contender: &Contender, test: &Test) -> Result<Figures, Failure> {
    let running = contender.start(stage, test.door, stage.origin)?;
    let id = running.process.id();
    let mut warm = running.load(stage, "--mode keep --connections 1 --warm 0 --seconds 0.3")?;
    for _ in 0..3 {
        warm.line()?;
    }
    warm.wait()?;
    let before = memory_kib(id);
    stage.reset()?;
    let mut load = running.load(stage, &format!("{} --warm 0 --seconds 20", test.options))?;
    let mut highest = before;
    while load.runs() {
        highest = highest.max(memory_kib(id));
        std::thread::sleep(Duration::from_millis(20));
    }
    expect(&load.line()?, "begin")?;
    expect(&load.line()?, "end")?;
    let told: Value = serde_json::from_str(&load.line()?)?;
    let (done, wrong) = (count(&told, "done"), count(&told, "errors") + count(&stage.seen()?, "violations"));
    if done == 0 || wrong > 0 {
        return Err(format!("{}: {done} bodies passed, {wrong} calls failed", test.name).into());
    }
    let more = vec![
        ("bodies passed".to_owned(), done as f64),
        ("MiB before".to_owned(), before / 1024.0),
        ("MiB at the highest".to_owned(), highest / 1024.0),
    ];
    Ok(Figures { more, told, ..Figures::default() })
}

/// Memory: of a fresh process, and for each idle connection, or for each connection or stream whose reader stalls.
pub fn memory(stage: &Stage, contender: &Contender, test: &Test) -> Result<Figures, Failure> {
    let running = contender.start(stage, test.door, stage.origin)?;
    let id = running.process.id();
    std::thread::sleep(Duration::from_millis(500));
    let fresh = memory_kib(id);
    // The busy moment of a few connections is not what this is about: it has left its mark before.
    let mut warm = running.load(stage, "--mode keep --connections 16 --warm 0 --seconds 0.3")?;
    for _ in 0..3 {
        warm.line()?;
    }
    warm.wait()?;
    std::thread::sleep(Duration::from_millis(300));
    let before = memory_kib(id);
    let mut load = running.load(stage, &format!("{} --seconds 600", test.options))?;
    let told: Value = serde_json::from_str(&load.line()?)?;
    let held = count(&told, "held");
    std::thread::sleep(Duration::from_millis(1500));
    let after = memory_kib(id);
    drop(load);
    if held < 100 {
        return Err(format!("{}: only {held} of them could be held by {}", test.name, contender.name).into());
    }
    let each = if test.options.contains("--streams") { "KiB/stream" } else { "KiB/connection" };
    let more = vec![
        (each.to_owned(), (after - before) / held as f64),
        ("fresh process MiB".to_owned(), fresh / 1024.0),
        ("with all of them MiB".to_owned(), after / 1024.0),
        ("held".to_owned(), held as f64),
    ];
    Ok(Figures { more, told, ..Figures::default() })
}

/// Kernel calls per request, by name. strace attaches before the first connection and leaves after the last, so that the
/// origin's count of requests is the right divisor.
pub fn syscalls(stage: &Stage, running: &Running, test: &Test, seconds: f64) -> Result<Figures, Failure> {
    let table = stage.work.join("strace.table");
    let mut args = vec!["-f".to_owned(), "-c".to_owned(), "-o".to_owned(), table.display().to_string()];
    for id in tree(running.process.id()) {
        args.extend(["-p".to_owned(), id.to_string()]);
    }
    stage.reset()?;
    let mut strace = Process::start(Start {
        what: "strace",
        program: Path::new("strace"),
        args,
        cores: &stage.other_cores,
        env: Vec::new(),
        log: &stage.work.join("strace.log"),
        listen: false,
    })?;
    std::thread::sleep(Duration::from_millis(500));
    let mut load = running.load(stage, &format!("{} --warm 0.1 --seconds {seconds}", test.options))?;
    for _ in 0..3 {
        load.line()?;
    }
    load.wait()?;
    let requests = count(&stage.seen()?, "requests").max(1) as f64;
    tell("-INT", &[strace.id()]);
    // It ends with the status of the signal that told it to.
    let _ = strace.wait();
    let text = std::fs::read_to_string(&table)?;
    let mut calls: Vec<(String, f64)> = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(number), Some(name)) = (fields.get(3), fields.last()) else { continue };
        let Ok(number) = number.parse::<f64>() else { continue };
        if *name != "total" && number / requests >= 0.01 {
            calls.push(((*name).to_owned(), number / requests));
        }
    }
    calls.sort_by(|one, other| other.1.total_cmp(&one.1));
    calls.push(("requests seen".to_owned(), requests));
    Ok(Figures { more: calls, ..Figures::default() })
}

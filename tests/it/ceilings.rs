//! Ceilings on the cost of a request and of an idle connection, in figures that a busy machine does not change:
//! instructions, allocations, system calls and bytes of the real process, with TLS on both legs, the access log in a
//! file, and everything else as it is by default.
//!
//! **When a ceiling is exceeded**, find the change that costs, best by the figures of the commit before it: a failing
//! test tells all of its figures. `callgrind_annotate` shows the functions in a file that valgrind wrote, and strace's
//! log shows the calls in their order. Raise a ceiling only with a reason, in the commit message; lower it with a
//! change that saves. Instructions are those of an unoptimised build, so a new compiler may change them, too.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use bytes::Bytes;
use countersign::base::secret::{hex, sha256};
use countersign::base::time::Clock;
use countersign::sim::{Bank, LeafSpec, Sim, SimAuthority, SimHandle, SimOptions};
use http::{Request, Version};
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Client, PATIENCE, Whole, converse, converse_within, get, post, request};
use crate::harness::KEY;
use crate::life::Proxy;

/// One request on a connection that is kept. Instructions: as measured and a tenth. Allocations: as measured and one.
const REQUEST_CEILINGS: [(Shape, Cost); 3] = [
    (Shape::Get, Cost { instructions: 860_000.0, allocations: 23.1 }),
    (Shape::Post, Cost { instructions: 940_000.0, allocations: 32.8 }),
    (Shape::Http2, Cost { instructions: 1_420_000.0, allocations: 26.0 }),
];

/// The same for one batch of access lines: there is one for each 20 ms, so a slow machine has more of them for a
/// request.
const BATCH_COST: Cost = Cost { instructions: 100_000.0, allocations: 1.5 };

/// The system calls of one GET on a connection that is kept, as measured and a tenth of a call, and those of one batch
/// of access lines.
const CALL_CEILINGS: [(CallKind, f64, f64); 6] = [
    (CallKind::Send, 2.1, 0.0),
    (CallKind::Receive, 3.1, 0.0),
    (CallKind::Wait, 2.1, 0.0),
    (CallKind::Wake, 0.2, 3.0),
    (CallKind::Other, 0.2, 0.0),
    (CallKind::OtherThread, 1.0, 5.0),
];

/// KiB of one connection at rest.
const IDLE_CEILING: f64 = 10.0;

/// Requests that warm up, and requests that are counted.
const WARM: usize = 20;
const COUNTED: usize = 100;
/// Connections that warm up, and connections that are counted.
const WARM_CONNECTIONS: u32 = 20;
const IDLE_CONNECTIONS: u32 = 300;

/// The function that hands a batch of access lines to the log's thread.
const BATCH: &str = "countersign::observe::gather::Gathered<O>::flush";
/// The functions of the allocator that give memory.
const ALLOCATORS: [&str; 5] = ["aligned_alloc", "calloc", "malloc", "posix_memalign", "realloc"];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Shape {
    Get,
    /// With a body of 1 KiB.
    Post,
    /// A GET over HTTP/2.
    Http2,
}

impl Shape {
    fn request(self) -> Request<Full<Bytes>> {
        match self {
            Self::Get => get("/meed/download?bytes=1024", KEY),
            Self::Post => post("/meed/echo/1", KEY, vec![b'x'; 1024]),
            Self::Http2 => {
                let mut request = request("GET", "https://localhost/meed/download?bytes=1024", KEY, &[], "");
                request.headers_mut().remove("host");
                *request.version_mut() = Version::HTTP_2;
                request
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    instructions: f64,
    allocations: f64,
}

impl Cost {
    /// Adds another cost so many times.
    fn and(self, times: f64, other: Self) -> Self {
        Self {
            instructions: times.mul_add(other.instructions, self.instructions),
            allocations: times.mul_add(other.allocations, self.allocations),
        }
    }
}

/// The worker's calls by kind, and all calls of other threads.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum CallKind {
    Send,
    Receive,
    /// It ended with an event of a socket. Those that a timer or a wake ended go by time, not by requests.
    Wait,
    /// Of another thread, or of the worker itself.
    Wake,
    Other,
    OtherThread,
}

/// A bank, and a folder for a process and the programs that look at it.
struct Stage {
    folder: tempfile::TempDir,
    ca: String,
    _bank: SimHandle,
}

impl Stage {
    fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bank = Sim::start(Bank::Meed, SimOptions::default()).expect("a simulator");
        let now = Clock::System.now();
        let authority = SimAuthority::new("ceilings CA", now).expect("a CA");
        let leaf = authority.issue(&LeafSpec::server(now)).expect("a leaf");
        let log = toml::Value::from(folder.path().join("access.log").to_str().expect("a path in UTF-8"));
        let config = format!(
            "[[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:0\"\n\
             tls = {{ cert = \"server.crt\", key = \"server.key\" }}\n\
             [runtime]\nworkers = 1\n[log]\naccess = {log}\n\
             [client.erp]\nkey_sha256 = [\"{}\"]\n{}\
             [[route]]\nname = \"meed\"\npath = \"/meed\"\nprovider = \"meed\"\n{more}\n",
            hex(&sha256(KEY.as_bytes())),
            bank.settings_toml_as("meed", "meed.crt"),
        );
        // In a folder of its own: the process is told of every change beside its config, and logs change all the time.
        fs::create_dir(folder.path().join("config")).expect("a folder");
        let put = |name: &str, text: &str| fs::write(folder.path().join("config").join(name), text).expect("written");
        put("server.crt", &leaf.cert_pem);
        put("server.key", &leaf.key_pem);
        put("meed.crt", &bank.ca_pem());
        put("proxy.toml", &config);
        Self { folder, ca: authority.pem(), _bank: bank }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a file")
    }

    /// Starts the process by the words of another program, or by none.
    fn start(&self, tool: &[&str]) -> Proxy {
        let words = [tool, &[env!("CARGO_BIN_EXE_countersign"), "run", "-c", "config/proxy.toml"]].concat();
        self.spawn(&words)
    }

    fn spawn(&self, words: &[&str]) -> Proxy {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(self.folder.path());
        Proxy::start(command)
    }

    async fn client(&self, proxy: &Proxy) -> Client {
        Client::new(proxy.address("gateway").await, self.ca.as_str())
    }

    /// Tells valgrind something.
    async fn tell(&self, valgrind: &Proxy, words: &[&str]) {
        let process = format!("--pid={}", valgrind.id());
        let words = [&["vgdb", PIPE, process.as_str()], words].concat();
        self.spawn(&words).succeeded().await;
    }
}

/// Valgrind's pipes lie in the stage's folder.
const PIPE: &str = "--vgdb-prefix=pipe";

/// A client's connection, by the version of HTTP.
enum Kept {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Kept {
    async fn open(client: &Client, shape: Shape) -> Self {
        if shape == Shape::Http2 { Self::Http2(client.http2().await) } else { Self::Http1(client.http1().await) }
    }

    /// Sends so many requests, one after the other.
    async fn send(&mut self, shape: Shape, requests: usize) {
        for _ in 0..requests {
            let exchange = async {
                let answer = match self {
                    Self::Http1(sender) => sender.send_request(shape.request()).await,
                    Self::Http2(sender) => sender.send_request(shape.request()).await,
                };
                Whole::read(answer.expect("an answer")).await.expect("a whole answer")
            };
            let answer = timeout(PATIENCE, exchange).await.expect("no answer comes");
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
}

/// A figure for each request.
fn share(total: usize) -> f64 {
    let number = |count: usize| f64::from(u32::try_from(count).expect("a small number"));
    number(total) / number(COUNTED)
}

/// Judges figures, each with its name and its ceiling.
fn judge(figures: &[(String, f64, f64)]) {
    let line = |(name, measured, ceiling): &(String, f64, f64)| {
        let verdict = if measured > ceiling { "  EXCEEDED" } else { "" };
        format!("{name}: {measured:.2}, ceiling {ceiling:.2}{verdict}")
    };
    let lines: Vec<String> = figures.iter().map(line).collect();
    let good = figures.iter().all(|(_, measured, ceiling)| measured <= ceiling);
    assert!(good, "see the head of tests/it/ceilings.rs:\n{}", lines.join("\n"));
}

/// Reads what a file of callgrind says of one request: its cost, and its share of a batch of access lines.
fn cost(file: &str) -> (Cost, f64) {
    let number = |text: &str| text.split(' ').next().and_then(|text| text.parse::<usize>().ok()).expect("a number");
    let (mut instructions, mut allocations, mut batches) = (0, 0, 0);
    // A function has its name where it first occurs, and its number alone from then on.
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut called = "";
    for line in file.lines() {
        if let Some(total) = line.strip_prefix("summary: ") {
            instructions = number(total);
        } else if let Some(function) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            let (id, name) = function.split_once(' ').unwrap_or((function, ""));
            called = names.entry(id).or_insert(name);
        } else if let Some(calls) = line.strip_prefix("calls=") {
            allocations += if ALLOCATORS.contains(&called) { number(calls) } else { 0 };
            batches += if called.starts_with(BATCH) { number(calls) } else { 0 };
        }
    }
    let found = [instructions, allocations, batches];
    assert!(!found.contains(&0), "instructions, allocations, batches: {found:?}; is a function renamed?");
    (Cost { instructions: share(instructions), allocations: share(allocations) }, share(batches))
}

#[test]
fn a_request_takes_no_more_instructions_and_allocations_than_before() {
    let stage = Stage::new("");
    let callgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=counts", "--log-file=valgrind.log", PIPE];
    // The start is not counted, so it is five times as fast.
    let proxy = stage.start(&[&callgrind[..], &["--instr-atstart=no"]].concat());
    let mut figures = Vec::new();
    converse_within(PATIENCE * 6, async {
        let client = stage.client(&proxy).await;
        stage.tell(&proxy, &["instrumentation", "on"]).await;
        for (at, (shape, ceiling)) in REQUEST_CEILINGS.into_iter().enumerate() {
            let mut kept = Kept::open(&client, shape).await;
            kept.send(shape, WARM).await;
            // Each dump is a file of its own, and counts from the one before.
            stage.tell(&proxy, &["dump"]).await;
            kept.send(shape, COUNTED).await;
            stage.tell(&proxy, &["dump"]).await;
            let (cost, batches) = cost(&stage.text(&format!("counts.{}", 2 * at + 2)));
            let ceiling = ceiling.and(batches, BATCH_COST);
            figures.push((format!("{shape:?}, instructions"), cost.instructions, ceiling.instructions));
            figures.push((format!("{shape:?}, allocations"), cost.allocations, ceiling.allocations));
        }
    });
    judge(&figures);
}

/// A system call that has ended.
struct Call<'a> {
    thread: &'a str,
    name: &'a str,
    text: &'a str,
}

impl<'a> Call<'a> {
    /// Reads a line of strace's log.
    fn read(line: &'a str) -> Option<Self> {
        let (thread, text) = line.split_once(' ')?;
        let text = text.trim_start();
        let name = text.strip_prefix("<... ").unwrap_or(text);
        let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        let ended = text.contains(" = ") && thread.bytes().all(|digit| digit.is_ascii_digit());
        ended.then_some(Self { thread, name, text })
    }

    fn receives(&self) -> bool {
        ["read", "readv", "recvfrom", "recvmsg"].contains(&self.name)
    }

    fn waits(&self) -> bool {
        self.name.starts_with("epoll_") && self.name.contains("wait")
    }

    /// True if a wait ended with an event of a socket; the event of a wake has the number 0.
    fn has_news(&self) -> bool {
        self.text.matches("events=").count() > self.text.matches("data={u32=0,").count()
    }

    fn kind(&self, worker: &str) -> Option<CallKind> {
        Some(match self.name {
            _ if self.thread != worker => CallKind::OtherThread,
            _ if self.waits() => return self.has_news().then_some(CallKind::Wait),
            _ if self.receives() => CallKind::Receive,
            "sendmsg" | "sendto" | "writev" => CallKind::Send,
            "futex" | "write" => CallKind::Wake,
            _ => CallKind::Other,
        })
    }
}

/// Counts the calls in strace's log by kind. The worker is the thread that receives most.
fn calls(log: &str) -> BTreeMap<CallKind, usize> {
    let calls: Vec<Call> = log.lines().filter_map(Call::read).collect();
    let mut receivers: BTreeMap<&str, usize> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.receives()) {
        *receivers.entry(call.thread).or_default() += 1;
    }
    let worker = receivers.into_iter().max_by_key(|(_, calls)| *calls).expect("a worker").0;
    let mut kinds = BTreeMap::new();
    for kind in calls.iter().filter_map(|call| call.kind(worker)) {
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

#[test]
fn a_request_takes_no_more_system_calls_than_before() {
    let stage = Stage::new("");
    let proxy = stage.start(&["strace", "-D", "-f", "-o", "calls"]);
    let log = converse(async {
        let client = stage.client(&proxy).await;
        let mut kept = Kept::open(&client, Shape::Get).await;
        kept.send(Shape::Get, WARM).await;
        let begin = stage.text("calls").len();
        kept.send(Shape::Get, COUNTED).await;
        stage.text("calls").split_off(begin)
    });
    let calls = calls(&log);
    // The log's thread writes each batch by one call.
    let batches = share(log.lines().filter(|line| line.contains("write(") && line.contains(r#""{\"time\""#)).count());
    let figure = |(kind, request, batch): (CallKind, f64, f64)| {
        let measured = share(calls.get(&kind).copied().unwrap_or(0));
        (format!("{kind:?}"), measured, batches.mul_add(batch, request))
    };
    judge(&CALL_CEILINGS.map(figure));
}

#[test]
fn an_idle_connection_takes_no_more_memory_than_before() {
    let stage = Stage::new("[limits]\nconnections_per_peer = 0\nhandshakes = 0\n");
    let proxy = stage.start(&[]);
    // Private memory in KiB; the pages of the binary do not count.
    let memory = || {
        let status = fs::read_to_string(format!("/proc/{}/status", proxy.id())).expect("it runs");
        let size = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
        size.and_then(|size| size.parse::<f64>().ok()).expect("a size")
    };
    let measured = converse(async {
        let client = stage.client(&proxy).await;
        let mut open = Vec::new();
        let mut before = 0.0;
        for at in 0..WARM_CONNECTIONS + IDLE_CONNECTIONS {
            if at == WARM_CONNECTIONS {
                before = memory();
            }
            let mut kept = Kept::open(&client, Shape::Get).await;
            kept.send(Shape::Get, 1).await;
            open.push(kept);
        }
        // A connection gives back the state of HTTP a moment after its request.
        let deadline = Instant::now() + PATIENCE / 6;
        loop {
            let measured = (memory() - before) / f64::from(IDLE_CONNECTIONS);
            if measured <= IDLE_CEILING || Instant::now() > deadline {
                return measured;
            }
            sleep(PATIENCE / 1000).await;
        }
    });
    judge(&[("KiB of an idle connection".to_owned(), measured, IDLE_CEILING)]);
}

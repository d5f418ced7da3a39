//! The load generator: a process of its own, on cores of its own.
//!
//! It prints `begin` when everything is warm and the window opens, and one line of JSON the moment the window closes,
//! so that whoever started it can read the proxy's processor time at both ends.
//!
//! Modes: `keep` (closed loop over kept connections), `new` and `resumed` (a TLS connection for each request, with a
//! full and with an abbreviated handshake), `h2` (closed loop, several streams a connection), `rate` (open loop;
//! latency counts from the moment a request was *meant* to start), `idle` (one request each, then silence), `stall` and `stallh2` (a download each,
//! of which the head and the first bytes are read and then nothing). With
//! `--connect HOST:PORT` each connection begins with a `CONNECT`, and TLS is spoken inside of its tunnel.

mod exchange;
mod histogram;
mod loops;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{NamedGroup, RootCertStore};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;

use crate::args::Args;
use crate::{Failure, job};
use histogram::Histogram;

/// What to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    H2,
    Idle,
    Keep,
    New,
    Rate,
    Resumed,
    Stall,
    StallH2,
}

impl Mode {
    /// Tells whether connections are opened and then held.
    const fn holds(self) -> bool {
        matches!(self, Self::Idle | Self::Stall | Self::StallH2)
    }
}

/// One thread's instructions; shared by its tasks.
pub struct Plan {
    pub address: SocketAddr,
    pub name: ServerName<'static>,
    pub tls: Arc<ClientConfig>,
    pub mode: Mode,
    /// Host and port to ask a forward proxy for, on each connection.
    pub connect: Option<String>,
    /// Credentials for that.
    pub basic: String,
    pub path: String,
    pub post: usize,
    /// Keys of tokens that are named in turns.
    pub keys: u64,
    pub connections: usize,
    pub streams: usize,
    /// The rest of a stream after each answer, in [`Mode::H2`].
    pub pause: Duration,
    /// Requests per second of this thread, in [`Mode::Rate`].
    pub rate: f64,
    pub tally: Arc<Tally>,
}

/// What all threads have counted.
#[derive(Default)]
pub struct Tally {
    pub done: AtomicU64,
    pub errors: AtomicU64,
    /// The errors that say `signer-unavailable`; over h2 alone.
    pub unsigned: AtomicU64,
    pub bytes: AtomicU64,
    pub held: AtomicU64,
    /// Latencies are taken down only while the window is open.
    pub open: AtomicBool,
}

/// `bench load --address A --work DIR --mode M …`
pub fn main(mut args: Args) -> Result<(), Failure> {
    let mode = match args.text("mode")?.as_str() {
        "h2" => Mode::H2,
        "idle" => Mode::Idle,
        "keep" => Mode::Keep,
        "new" => Mode::New,
        "rate" => Mode::Rate,
        "resumed" => Mode::Resumed,
        "stall" => Mode::Stall,
        "stallh2" => Mode::StallH2,
        other => return Err(format!("there is no mode `{other}`").into()),
    };
    let address: SocketAddr = args.parse("address")?;
    if !address.ip().is_loopback() {
        return Err("the generator calls loopback addresses only".into());
    }
    let work = args.text("work")?;
    let stalls = matches!(mode, Mode::Stall | Mode::StallH2);
    let path = args.or("path", if stalls { job::BIG } else { job::ITEM }.to_owned())?;
    let post = args.or("post", 0)?;
    let keys = args.or("keys", 1)?;
    let connections: usize = args.or("connections", 64)?;
    let streams: usize = args.or("streams", 1)?;
    let pause = Duration::from_millis(args.or("pause", 0)?);
    let rate: f64 = args.or("rate", 0.0)?;
    let threads: usize = args.or("threads", 1)?;
    let warm: f64 = args.or("warm", 0.5)?;
    let seconds: f64 = args.or("seconds", 3.0)?;
    let connect = args.take("connect");
    let basic = args.or("basic", job::CLIENT_BASIC.to_owned())?;
    let post_quantum = args.or("groups", "x25519".to_owned())? == "all";
    args.end()?;
    // An open loop is paced by one thread that never sleeps.
    let threads = if mode == Mode::Rate { 1 } else { threads };
    // Inside a tunnel only the proxy's own CA is trusted: the bank's certificate would mean that nobody intercepts.
    let roots = Path::new(&work).join(if connect.is_some() { "intercept.crt" } else { "ca.crt" });
    let tls = tls(&roots, mode, post_quantum)?;
    let tally = Arc::new(Tally::default());
    let (stop, stopped) = watch::channel(());
    let mut running = Vec::new();
    for index in 0..threads {
        let plan = Plan {
            address,
            name: ServerName::try_from("localhost")?,
            tls: tls.clone(),
            mode,
            connect: connect.clone(),
            basic: basic.clone(),
            path: path.clone(),
            post,
            keys,
            connections: (connections + threads - 1 - index) / threads,
            streams,
            pause,
            rate: rate / threads as f64,
            tally: tally.clone(),
        };
        let stopped = stopped.clone();
        running.push(std::thread::spawn(move || run(plan, stopped)));
    }
    if mode.holds() {
        let each = if mode == Mode::StallH2 { streams } else { 1 };
        return hold(&tally, (connections * each) as u64, seconds);
    }
    std::thread::sleep(Duration::from_secs_f64(warm));
    say("begin")?;
    tally.open.store(true, Relaxed);
    let (begun, before, bytes) = (Instant::now(), tally.done.load(Relaxed), tally.bytes.load(Relaxed));
    let (errors, unsigned) = (tally.errors.load(Relaxed), tally.unsigned.load(Relaxed));
    std::thread::sleep(Duration::from_secs_f64(seconds));
    tally.open.store(false, Relaxed);
    let took = begun.elapsed().as_secs_f64();
    let (done, bytes) = (tally.done.load(Relaxed) - before, tally.bytes.load(Relaxed) - bytes);
    let (errors, unsigned) = (tally.errors.load(Relaxed) - errors, tally.unsigned.load(Relaxed) - unsigned);
    say("end")?;
    drop(stop);
    let mut latency = Histogram::default();
    for thread in running {
        latency.add(&thread.join().map_err(|_| "a thread of the generator panicked")??);
    }
    let told = serde_json::json!({
        "seconds": took,
        "done": done,
        "bytes": bytes,
        "errors": errors,
        "unsigned": unsigned,
        "p50_us": latency.quantile(0.50) / 1000.0,
        "p90_us": latency.quantile(0.90) / 1000.0,
        "p99_us": latency.quantile(0.99) / 1000.0,
        "p999_us": latency.quantile(0.999) / 1000.0,
    });
    say(&told.to_string())
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Waits until all connections are open, or all streams, says so, and keeps them.
fn hold(tally: &Tally, wanted: u64, seconds: f64) -> Result<(), Failure> {
    let patience = Instant::now() + Duration::from_secs(60);
    while tally.held.load(Relaxed) + tally.errors.load(Relaxed) < wanted && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(20));
    }
    say(&serde_json::json!({ "held": tally.held.load(Relaxed) }).to_string())?;
    std::thread::sleep(Duration::from_secs_f64(seconds));
    Ok(())
}

fn run(plan: Plan, mut stopped: watch::Receiver<()>) -> Result<Histogram, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let plan = std::rc::Rc::new(plan);
    let latency = std::rc::Rc::new(std::cell::RefCell::new(Histogram::default()));
    runtime.block_on(async {
        loops::spawn(&plan, &latency);
        let _ = stopped.changed().await;
    });
    drop(runtime);
    Ok(latency.take())
}

/// X25519 and AES-256 for everyone, so that each contender does the same handshake.
fn tls(trusted: &Path, mode: Mode, post_quantum: bool) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(trusted)? {
        roots.add(certificate?)?;
    }
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    if !post_quantum {
        provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption =
        if mode == Mode::Resumed { Resumption::in_memory_sessions(4096) } else { Resumption::disabled() };
    let protocol: &[u8] = if matches!(mode, Mode::H2 | Mode::StallH2) { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

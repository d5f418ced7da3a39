//! Child processes: pinned, watched, measured, and ended by their own id, whatever happens.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::Failure;

/// Clock ticks of `/proc/PID/stat` a second: 100 on every Linux that we run on.
pub const TICKS: f64 = 100.0;

/// Ids of the children that still run.
static LIVE: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// A child that ends with its owner.
pub struct Process {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
    what: String,
}

/// How a child is started.
pub struct Start<'a> {
    pub what: &'a str,
    pub program: &'a Path,
    pub args: Vec<String>,
    /// As `taskset -c` reads it.
    pub cores: &'a str,
    pub env: Vec<(&'a str, String)>,
    pub log: &'a Path,
    /// Whether its standard output is read.
    pub listen: bool,
}

impl Process {
    pub fn start(start: Start<'_>) -> Result<Self, Failure> {
        let mut command = Command::new("taskset");
        command.args(["-c", start.cores]);
        if root() {
            command.args(["nice", "-n", "-10"]);
        }
        command.arg(start.program).args(start.args).envs(start.env).stdin(Stdio::null());
        let log = fs::File::options().create(true).append(true).open(start.log)?;
        command.stderr(log.try_clone()?);
        command.stdout(if start.listen { Stdio::piped() } else { log.into() });
        let mut child = command.spawn().map_err(|error| format!("cannot start {}: {error}", start.what))?;
        live().push(child.id());
        let out = child.stdout.take().map(BufReader::new);
        Ok(Self { child, out, what: start.what.to_owned() })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its output; empty at the end.
    pub fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if let Some(out) = &mut self.out {
            out.read_line(&mut line)?;
        }
        Ok(line.trim_end().to_owned())
    }

    /// Waits until it listens.
    pub fn listens(&mut self, port: u16, log: &Path) -> Result<(), Failure> {
        let patience = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_err() {
            if self.child.try_wait()?.is_some() || Instant::now() > patience {
                let said = fs::read_to_string(log).unwrap_or_default();
                let tail: Vec<&str> = said.lines().rev().take(8).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                return Err(format!("{} does not listen:\n{}", self.what, tail.join("\n")).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Tells whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its own end.
    pub fn wait(&mut self) -> Result<(), Failure> {
        let status = self.child.wait()?;
        forget(self.id());
        if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", self.what).into()) }
    }

    /// Asks it to end, then insists.
    fn end(&mut self) {
        let family = tree(self.id());
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            tell("-TERM", &[self.id()]);
            let patience = Instant::now() + Duration::from_secs(3);
            while matches!(self.child.try_wait(), Ok(None)) {
                if Instant::now() > patience {
                    tell("-KILL", &family);
                    let _ = self.child.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        forget(self.id());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn live() -> std::sync::MutexGuard<'static, Vec<u32>> {
    LIVE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn forget(id: u32) {
    live().retain(|known| *known != id);
}

/// Sends a signal to these processes and to no other.
pub fn tell(signal: &str, ids: &[u32]) {
    let mut command = Command::new("kill");
    command.arg(signal).args(ids.iter().map(u32::to_string)).stderr(Stdio::null());
    let _ = command.status();
}

/// Ends every child that still runs.
pub fn end_all() {
    let ids = std::mem::take(&mut *live());
    if ids.is_empty() {
        return;
    }
    let family: Vec<u32> = ids.iter().flat_map(|id| tree(*id)).collect();
    tell("-TERM", &ids);
    std::thread::sleep(Duration::from_millis(500));
    let left: Vec<u32> = family.into_iter().filter(|id| Path::new(&format!("/proc/{id}")).exists()).collect();
    if !left.is_empty() {
        tell("-KILL", &left);
    }
}

/// Ends everything after this time, or when this process is told to end.
pub fn bound(limit: Duration) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        let why = runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut terminate), Ok(mut interrupt)) =
                (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
            else {
                return "signals cannot be heard";
            };
            tokio::select! {
                _ = terminate.recv() => "told to end",
                _ = interrupt.recv() => "told to end",
                () = tokio::time::sleep(limit) => "it took too long",
            }
        });
        eprintln!("bench: {why}");
        end_all();
        std::process::exit(3);
    });
    Ok(())
}

/// A process and its descendants.
pub fn tree(id: u32) -> Vec<u32> {
    let mut found = vec![id];
    let Ok(threads) = fs::read_dir(format!("/proc/{id}/task")) else { return found };
    for thread in threads.flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|text| text.parse().ok()) {
            found.extend(tree(child));
        }
    }
    found
}

/// Processor seconds, in user and in system mode, of a process and its descendants with all their threads.
pub fn cpu_seconds(id: u32) -> (f64, f64) {
    let (mut user, mut system) = (0.0, 0.0);
    for id in tree(id) {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The name may hold anything, so fields are counted from its closing bracket (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        user += field(11) / TICKS;
        system += field(12) / TICKS;
    }
    (user, system)
}

/// Proportional set size of a process and its descendants, in KiB.
pub fn memory_kib(id: u32) -> f64 {
    let of = |id: u32| {
        let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0)
    };
    tree(id).into_iter().map(of).sum()
}

/// A port that is free now.
pub fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The cores that this process may use.
pub fn cores() -> Result<Vec<usize>, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    let mut cores = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>()?..=last.parse::<usize>()?);
    }
    Ok(cores)
}

/// Whether priorities may be raised.
pub fn root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    ids.split_whitespace().nth(1) == Some("0")
}

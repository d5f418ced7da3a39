//! `countersign run`: serve until told to stop, then drain; or until another process has taken our place.

use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::check::CheckOutput;
use super::{check, complain};
use crate::app::boot::{BootOptions, Running};
use crate::app::inherited::Inherited;
use crate::app::reload::ConfigSource;
use crate::app::supervisor;
use crate::app::upgrade::{self, SuccessorProcess, UpgradeImage};
use crate::config::{AsRead, Loaded, LogConfig, LogFormat, LogOverride, MachineFiles, STANDARD_INPUT_PATH, load};
use crate::observe::log_queue::LogQueue;
use crate::observe::logging;

/// Requester name of a reload that SIGHUP triggers.
const BY_SIGNAL: &str = "signal";

#[derive(Debug)]
enum StopReason {
    /// A part of us ended unasked.
    Failed(Arc<str>),
    /// Another process serves in our place.
    Succeeded,
    /// A signal asked for the end: SIGTERM or SIGINT.
    Told,
}

/// Data for starting a process that takes over from this one.
struct Succession {
    image: io::Result<UpgradeImage>,
    /// The reason for which no process may take over; `None`: one may. The text is for a person.
    obstacle: Option<&'static str>,
}

/// A form of log lines, as a word of the command line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormatWord {
    /// One JSON object a line
    Json,
    /// Text for people
    Text,
}

impl LogFormatWord {
    /// Returns the form that is meant.
    pub const fn format(self) -> LogFormat {
        match self {
            Self::Json => LogFormat::Json,
            Self::Text => LogFormat::Text,
        }
    }
}

/// Serves with this config file. `log` stands in place of what its `[log]` says, after each reload, too.
pub fn run(path: &Path, log: LogOverride) -> ExitCode {
    if let Some(level) = log.level.as_deref().filter(|level| !LogConfig::is_level(level)) {
        let known = LogConfig::LEVELS.join(", ");
        complain(&format!("`{}` is not a log level; write one of {known}", level.escape_debug()));
        return ExitCode::from(2);
    }
    if path == Path::new(STANDARD_INPUT_PATH) {
        complain(
            "`run` reads its config anew for each reload, which standard input cannot give: name a file with `-c`",
        );
        return ExitCode::from(2);
    }
    // Before anything else: there are no threads yet, and nothing at our path was replaced.
    let inherited = match Inherited::from_env() {
        Ok(inherited) => inherited,
        Err(error) => {
            complain(&error);
            return ExitCode::from(1);
        }
    };
    let image = UpgradeImage::of_this_process();
    let snapshot = match check::load_or_report(path, CheckOutput::Text) {
        Ok(snapshot) => snapshot.with_log(&log),
        Err(code) => return code,
    };
    let text = logging::is_text(snapshot.log.format.map(|format| format == LogFormat::Text));
    if let Err(error) = logging::start_logging(&snapshot.log.level, text) {
        complain(&error.to_string());
        return ExitCode::from(1);
    }
    // What the start says is exported, too.
    LogQueue::of_process().set(snapshot.otlp.logs.is_some());
    let (runtime, mut signals) = match catch() {
        Ok(caught) => caught,
        Err(error) => {
            complain(&format!("cannot wait for signals: {error}"));
            return ExitCode::from(1);
        }
    };
    let succession = Succession { image, obstacle: upgrade::obstacle(&snapshot) };
    let source = Some(source(path.to_owned(), log));
    let options = BootOptions { text_access_log: text, source, watches: true, inherited, ..BootOptions::default() };
    let mut running = match Running::start(snapshot, options) {
        Ok(running) => running,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(1);
        }
    };
    if let Some(url) = dashboard_url(&running).filter(|_| io::stderr().is_terminal()) {
        complain(&format!("dashboard at {url}"));
    }
    let end = runtime.block_on(attend(&mut running, &succession, &mut signals));
    // After a succession, a manager that stops the whole service tells us what we are doing already.
    let patience = match end {
        StopReason::Succeeded => 2,
        StopReason::Failed(_) | StopReason::Told => 1,
    };
    if let Err(error) = end_at_once_after(patience, signals.ends, runtime) {
        tracing::warn!(%error, "another signal will not end this at once");
    }
    let limits = running.reloads.current().limits;
    match end {
        StopReason::Failed(what) => {
            supervisor::stopping();
            tracing::error!(%what, limit = ?limits.drain, "a part of the process ended unexpectedly; draining");
            running.drain(Duration::ZERO, limits.drain);
            tracing::error!("stopped after a failure");
            return ExitCode::from(1);
        }
        StopReason::Succeeded => {
            tracing::info!(limit = ?limits.drain, "draining; another process has taken over");
            running.make_way(limits.drain);
        }
        StopReason::Told => {
            supervisor::stopping();
            tracing::info!(delay = ?limits.drain_delay, limit = ?limits.drain, "draining");
            running.drain(limits.drain_delay, limits.drain);
        }
    }
    tracing::info!("stopped");
    ExitCode::SUCCESS
}

/// Returns the URL of the dashboard; `None`: there is no admin listener.
pub(super) fn dashboard_url(running: &Running) -> Option<String> {
    let has_tls = running.reloads.current().admin.as_ref().is_some_and(|admin| admin.tls.is_some());
    running.admin.map(|address| browsable(address, has_tls))
}

/// An address as a browser on this machine takes it.
fn browsable(address: SocketAddr, has_tls: bool) -> String {
    let scheme = if has_tls { "https" } else { "http" };
    if address.ip().is_unspecified() {
        return format!("{scheme}://localhost:{}/", address.port());
    }
    format!("{scheme}://{address}/")
}

/// Reads this file anew for each reload.
fn source(path: PathBuf, log: LogOverride) -> ConfigSource {
    Arc::new(move |before| {
        let loaded = match before {
            None => load(&path, &MachineFiles),
            Some(before) => load(&path, &AsRead { sources: &before.sources, files: &MachineFiles }),
        };
        match loaded {
            Loaded::Fine(snapshot, warnings) => {
                for warning in warnings {
                    tracing::warn!("{}", warning.one_line());
                }
                Ok(Box::new(snapshot.with_log(&log)))
            }
            Loaded::Mistaken(found) => {
                let shown: Vec<String> = found.iter().map(|mistake| mistake.render(false)).collect();
                Err(shown.join("\n\n"))
            }
            Loaded::Unreadable(why) => Err(why),
        }
    })
}

/// Catches signals from now on; one that comes before somebody attends to it waits.
fn catch() -> io::Result<(Runtime, ProcessSignals)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _entered = runtime.enter();
        ProcessSignals {
            ends: Ends::catch()?,
            hang_up: signal(SignalKind::hangup())?,
            replace: signal(SignalKind::user_defined2())?,
        }
    };
    Ok((runtime, signals))
}

/// Says that we serve, and does what signals ask for until one ends us.
async fn attend(running: &mut Running, succession: &Succession, signals: &mut ProcessSignals) -> StopReason {
    let ProcessSignals { ends, hang_up, replace } = signals;
    let mut outcomes = running.reloads.outcomes();
    let config = running.reloads.current();
    supervisor::ready(config.listeners.len(), &config.digest);
    drop(config);
    if let Err(error) = running.take_over() {
        tracing::warn!(%error, "the previous process cannot be notified");
    }
    let mut failure = std::pin::pin!(running.failure());
    let mut successor = None;
    let mut reload: Pin<Box<dyn Future<Output = ()>>> = Box::pin(std::future::pending());
    loop {
        tokio::select! {
            what = &mut failure => {
                if let Some(mut successor) = successor.take() {
                    give_up(&mut successor).await;
                }
                return StopReason::Failed(what);
            }
            () = ends.next() => {
                if let Some(mut successor) = successor.take() {
                    tracing::warn!("told to end while new process started: that one ends, too");
                    give_up(&mut successor).await;
                }
                return StopReason::Told;
            }
            _ = hang_up.recv() => {
                supervisor::reloading();
                let reloads = running.reloads.clone();
                // The outcome is logged, and published to `outcomes`.
                reload = Box::pin(async move { drop(reloads.reload(BY_SIGNAL).await) });
            }
            () = &mut reload => reload = Box::pin(std::future::pending()),
            Ok(()) = outcomes.changed() => {
                let outcome = outcomes.borrow_and_update().clone();
                if &*outcome.by != BY_SIGNAL {
                    supervisor::reloading();
                }
                supervisor::reloaded(running.reloads.current().listeners.len(), &outcome);
            }
            _ = replace.recv() => {
                if successor.is_some() {
                    tracing::warn!("an upgrade is already in progress");
                } else {
                    successor = succeed(running, succession);
                }
            }
            ready = waited(&mut successor) => match ready {
                Ok(process) => {
                    tracing::info!(process, "another process has taken over");
                    supervisor::succeeded_by(process);
                    return StopReason::Succeeded;
                }
                Err(why) => {
                    successor = None;
                    tracing::error!(%why, "not replaced: the new process does not serve; this one goes on");
                }
            },
        }
    }
}

/// Starts a process in our place, if that is possible.
fn succeed(running: &Running, succession: &Succession) -> Option<SuccessorProcess> {
    if let Some(obstacle) = succession.obstacle {
        tracing::error!("not replaced: {obstacle}");
        return None;
    }
    let image = match &succession.image {
        Ok(image) => image,
        Err(error) => {
            tracing::error!(%error, "not replaced: the program file is not known");
            return None;
        }
    };
    let sockets = running.sockets_for_a_successor();
    match sockets.and_then(|sockets| SuccessorProcess::start(image, sockets, upgrade::PATIENCE)) {
        Ok(successor) => {
            tracing::info!(process = successor.process(), "new process started");
            Some(successor)
        }
        Err(error) => {
            tracing::error!(%error, "not replaced: the new process cannot be started; this one goes on");
            None
        }
    }
}

/// Waits for the new process, if there is one.
async fn waited(successor: &mut Option<SuccessorProcess>) -> Result<u32, String> {
    match successor {
        Some(successor) => successor.ready().await.map(|()| successor.process()),
        None => std::future::pending().await,
    }
}

async fn give_up(successor: &mut SuccessorProcess) {
    if let Err(error) = successor.end().await {
        tracing::warn!(%error, "the new process cannot be ended");
    }
}

/// The signals that this process reacts to.
struct ProcessSignals {
    ends: Ends,
    hang_up: Signal,
    replace: Signal,
}

/// The signals that ask for the end.
struct Ends {
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    fn catch() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Blocks until SIGTERM, SIGINT or SIGHUP, for commands that have nothing to reload. Another SIGTERM or SIGINT ends the
/// process at once.
pub fn wait_for_the_end() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ends = runtime.block_on(async {
        let (mut ends, mut hang_up) = (Ends::catch()?, signal(SignalKind::hangup())?);
        tokio::select! {
            () = ends.next() => {}
            _ = hang_up.recv() => {}
        }
        Ok::<_, io::Error>(ends)
    })?;
    end_at_once_after(1, ends, runtime)
}

/// Ends the process when it is told to so many times more.
fn end_at_once_after(times: u32, mut ends: Ends, runtime: Runtime) -> io::Result<()> {
    let watch = move || {
        runtime.block_on(async {
            for _ in 0..times {
                ends.next().await;
            }
        });
        std::process::exit(130);
    };
    std::thread::Builder::new().name("second-signal".to_owned()).spawn(watch).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dashboards_address_can_be_opened_here() {
        let shown = |text: &str, has_tls| browsable(text.parse().expect("an address"), has_tls);
        assert_eq!(shown("127.0.0.1:9901", false), "http://127.0.0.1:9901/");
        assert_eq!(shown("[::1]:9901", true), "https://[::1]:9901/");
        assert_eq!(shown("0.0.0.0:9901", true), "https://localhost:9901/");
    }
}

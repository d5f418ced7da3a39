//! `countersign run`: serve until told to stop, then drain; or until another process has taken our place.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::boot::{Options, Running};
use super::inherited::Inherited;
use super::upgrade::{self, Image, Successor};
use super::{check, complain, supervisor};
use crate::config::LogFormat;
use crate::observe::logging;

/// Why we stop serving.
#[derive(Debug)]
enum End {
    /// We were told to.
    Told,
    /// Another process serves in our place.
    Succeeded,
}

/// Serves with this config file.
pub fn run(path: &Path) -> ExitCode {
    // Before anything else: there are no threads yet, and nothing at our path was replaced.
    let (inherited, image) = match (Inherited::from_env(), Image::of_this_process()) {
        (Ok(inherited), image) => (inherited, image),
        (Err(error), _) => {
            complain(&error);
            return ExitCode::from(1);
        }
    };
    let snapshot = match check::load_or_report(path) {
        Ok(snapshot) => snapshot,
        Err(code) => return code,
    };
    let text = logging::is_text(snapshot.log.format.map(|format| format == LogFormat::Text));
    if let Err(error) = logging::start(&snapshot.log.level, text) {
        complain(&error);
        return ExitCode::from(1);
    }
    let options = Options { text_access_log: text, inherited, ..Options::default() };
    let mut running = match Running::start(snapshot, options) {
        Ok(running) => running,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(1);
        }
    };
    let (runtime, end) = match attend(&mut running, image) {
        Ok(attended) => attended,
        Err(error) => {
            complain(&format!("cannot wait for signals: {error}"));
            return ExitCode::from(1);
        }
    };
    let limits = running.reloads.current().limits;
    // Who waits for our end is told that it has begun by the one signal; after a succession a manager that stops the
    // whole service tells us once what we are doing already.
    let patience = match end {
        End::Succeeded => 2,
        End::Told => 1,
    };
    if let Err(error) = end_at_once_after(patience, runtime) {
        complain(&format!("cannot wait for signals: {error}"));
    }
    match end {
        End::Succeeded => {
            tracing::info!(limit = ?limits.drain, "draining; another process serves");
            running.make_way(limits.drain);
        }
        End::Told => {
            supervisor::stopping();
            tracing::info!(delay = ?limits.drain_delay, limit = ?limits.drain, "draining");
            running.drain(limits.drain_delay, limits.drain);
        }
    }
    tracing::info!("stopped");
    ExitCode::SUCCESS
}

/// Says that we serve, and does what signals ask for until one ends us.
fn attend(running: &mut Running, image: io::Result<Image>) -> io::Result<(Runtime, End)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let end = runtime.block_on(async {
        let mut ends = Ends::catch()?;
        let mut replace = signal(SignalKind::user_defined2())?;
        let mut reloads = running.reloads.outcomes();
        let config = running.reloads.current();
        supervisor::ready(config.listeners.len(), &config.digest);
        drop(config);
        if let Some(predecessor) = running.predecessor.take()
            && let Err(error) = predecessor.relieve()
        {
            tracing::warn!(%error, "the process before this one cannot be told that it may go");
        }
        let mut successor = None;
        loop {
            tokio::select! {
                () = ends.next() => {
                    if let Some(mut successor) = successor.take() {
                        tracing::warn!("told to end while a new process starts: that one ends, too");
                        give_up(&mut successor).await;
                    }
                    return Ok(End::Told);
                }
                _ = replace.recv() => match (&successor, &image) {
                    (Some(_), _) => tracing::warn!("a new process is being started already"),
                    (None, Ok(image)) => successor = succeed(running, image),
                    (None, Err(error)) => tracing::error!(%error, "not replaced: nobody knows what was started"),
                },
                ready = waited(&mut successor) => match ready {
                    Ok(process) => {
                        tracing::info!(process, "another process serves in this one's place");
                        supervisor::succeeded_by(process);
                        return Ok(End::Succeeded);
                    }
                    Err(why) => {
                        successor = None;
                        tracing::error!(%why, "not replaced: the new process does not serve; this one goes on");
                    }
                },
                Ok(()) = reloads.changed() => {
                    let outcome = reloads.borrow_and_update().clone();
                    supervisor::reloading();
                    supervisor::reloaded(running.reloads.current().listeners.len(), &outcome);
                }
            }
        }
    });
    end.map(|end| (runtime, end))
}

/// Starts a process in our place, if that is possible.
fn succeed(running: &Running, image: &Image) -> Option<Successor> {
    if let Some(obstacle) = upgrade::obstacle(&running.reloads.current()) {
        tracing::error!("not replaced: {obstacle}");
        return None;
    }
    let started =
        running.sockets_for_a_successor().and_then(|sockets| Successor::start(image, sockets, upgrade::PATIENCE));
    match started {
        Ok(successor) => {
            tracing::info!(process = successor.process(), "a new process starts");
            Some(successor)
        }
        Err(error) => {
            tracing::error!(%error, "not replaced: the new process cannot be started; this one goes on");
            None
        }
    }
}

/// Waits for the new process, if there is one.
async fn waited(successor: &mut Option<Successor>) -> Result<u32, String> {
    match successor {
        Some(successor) => successor.ready().await.map(|()| successor.process()),
        None => std::future::pending().await,
    }
}

async fn give_up(successor: &mut Successor) {
    if let Err(error) = successor.end().await {
        tracing::warn!(%error, "the new process cannot be ended");
    }
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

/// Blocks until SIGTERM or SIGINT. A second one ends the process at once.
pub fn wait_for_the_end() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        Ends::catch()?.next().await;
        Ok::<_, io::Error>(())
    })?;
    end_at_once_after(1, runtime)
}

/// Ends the process when it is told to so many times more.
fn end_at_once_after(times: u32, runtime: Runtime) -> io::Result<()> {
    let watch = move || {
        let impatient = runtime.block_on(async {
            let mut ends = Ends::catch()?;
            for _ in 0..times {
                ends.next().await;
            }
            Ok::<_, io::Error>(())
        });
        if impatient.is_ok() {
            std::process::exit(130);
        }
    };
    std::thread::Builder::new().name("second-signal".to_owned()).spawn(watch).map(drop)
}

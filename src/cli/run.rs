//! `countersign run`: serve until told to stop, then drain.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::boot::{Options, Running};
use super::reload::Source;
use super::{check, complain};
use crate::config::{AsRead, Disk, Loaded, LogFormat, load};
use crate::control::Reloads;
use crate::observe::logging;

/// Serves with this config file.
pub fn run(path: &Path) -> ExitCode {
    let snapshot = match check::load_or_report(path) {
        Ok(snapshot) => snapshot,
        Err(code) => return code,
    };
    let text = logging::is_text(snapshot.log.format.map(|format| format == LogFormat::Text));
    if let Err(error) = logging::start(&snapshot.log.level, text) {
        complain(&error);
        return ExitCode::from(1);
    }
    let source = source(path.to_owned());
    let options = Options { text_access_log: text, source: Some(source), watches: true, ..Options::default() };
    let running = match Running::start(snapshot, options) {
        Ok(running) => running,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(1);
        }
    };
    if let Err(error) = wait_for_the_end(Some(&running.reloads)) {
        complain(&format!("cannot wait for signals: {error}"));
        return ExitCode::from(1);
    }
    let limits = running.reloads.current().limits;
    let (drain_delay, drain) = (limits.drain_delay, limits.drain);
    tracing::info!(delay = ?drain_delay, limit = ?drain, "draining");
    running.drain(drain_delay, drain);
    tracing::info!("stopped");
    ExitCode::SUCCESS
}

/// Reads this file anew for each reload.
fn source(path: PathBuf) -> Source {
    Arc::new(move |before| {
        let loaded = match before {
            None => load(&path, &Disk),
            Some(before) => load(&path, &AsRead { sources: &before.sources, files: &Disk }),
        };
        match loaded {
            Loaded::Fine(snapshot, warnings) => {
                for warning in warnings {
                    tracing::warn!("{}", warning.one_line());
                }
                Ok(snapshot)
            }
            Loaded::Mistaken(found) => {
                let shown: Vec<String> = found.iter().map(|mistake| mistake.render(false)).collect();
                Err(shown.join("\n\n"))
            }
            Loaded::Unreadable(why) => Err(why),
        }
    })
}

/// Blocks until SIGTERM or SIGINT; SIGHUP reloads, where there is something to reload. A second one ends the process at once.
pub fn wait_for_the_end(reloads: Option<&Reloads>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => match reloads {
                    // What comes of it is in the log.
                    Some(reloads) => drop(reloads.reload("signal").await),
                    None => break,
                },
            }
        }
        Ok::<_, std::io::Error>(())
    })?;
    std::thread::Builder::new().name("second-signal".to_owned()).spawn(move || {
        let impatient = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            Ok::<_, std::io::Error>(())
        });
        if impatient.is_ok() {
            std::process::exit(130);
        }
    })?;
    Ok(())
}

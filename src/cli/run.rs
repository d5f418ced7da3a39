//! `countersign run`: serve until told to stop, then drain.

use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::boot::{Options, Running};
use super::{check, complain};
use crate::config::LogFormat;
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
    let (drain_delay, drain) = (snapshot.limits.drain_delay, snapshot.limits.drain);
    let running = match Running::start(snapshot, Options { text_access_log: text, ..Options::default() }) {
        Ok(running) => running,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(1);
        }
    };
    if let Err(error) = wait_for_the_end() {
        complain(&format!("cannot wait for signals: {error}"));
        return ExitCode::from(1);
    }
    tracing::info!(delay = ?drain_delay, limit = ?drain, "draining");
    running.drain(drain_delay, drain);
    tracing::info!("stopped");
    ExitCode::SUCCESS
}

/// Blocks until SIGTERM or SIGINT. A second one ends the process at once.
pub fn wait_for_the_end() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
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

//! Notifications to a service manager such as systemd, by sd_notify(3). None are sent if there is no manager
//! (`NOTIFY_SOCKET`).

use std::env;
use std::future::Future;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt as _;
#[cfg(target_os = "linux")]
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use sd_notify::NotifyState as State;

use crate::base::counted::counted;
use crate::control::{ReloadOutcome, Reloaded};

/// A manager that does not read for so long is not told.
const PATIENCE: Duration = Duration::from_secs(1);
/// So much of a config's digest tells it from others.
const DIGEST: usize = 12;

/// We serve so many listeners, by the config with this digest.
pub fn ready(listeners: usize, digest: &str) {
    tell_supervisor(&[State::Ready, State::Status(&serving(listeners, digest))]);
}

/// Reports that a reload begins. The caller must call [`reloaded`] next, for any outcome.
pub fn reloading() {
    // Without the moment systemd would not know which reload is meant.
    match State::monotonic_usec_now() {
        Ok(moment) => tell_supervisor(&[State::Reloading, moment]),
        Err(error) => tracing::warn!(%error, "no clock for the service manager"),
    }
}

/// A reload is over, and this many listeners are served.
pub fn reloaded(listeners: usize, outcome: &Reloaded) {
    let status = serving(listeners, &outcome.digest);
    let status = match &outcome.outcome {
        ReloadOutcome::Applied(_) => status,
        // The reason may have several lines, and a status has one.
        ReloadOutcome::Refused(_) => format!("{status}; the last reload was refused, see the log"),
    };
    tell_supervisor(&[State::Ready, State::Status(&status)]);
}

/// Reports that the process drains and then ends.
pub fn stopping() {
    tell_supervisor(&[State::Stopping, State::Status("draining")]);
}

/// This process has taken our place. It may speak for itself from then on.
pub fn succeeded_by(process: u32) {
    tell_supervisor(&[State::MainPid(process), State::Ready]);
}

/// Says again and again that we live, where the service manager wants to hear it (`WATCHDOG_USEC`): twice in the time
/// that it allows. To be run where it would stop if we hung.
pub fn heartbeat() -> Option<impl Future<Output = ()>> {
    let allowed = sd_notify::watchdog_enabled().filter(|allowed| *allowed > Duration::ZERO)?;
    Some(async move {
        loop {
            // A beat that the manager has no room for is not the only one.
            let _missed = send(&[State::Watchdog], None);
            tokio::time::sleep(allowed / 2).await;
        }
    })
}

fn serving(listeners: usize, digest: &str) -> String {
    let config = digest.get(..DIGEST).unwrap_or(digest);
    format!("serving {}, config {config}", counted(listeners, "listener"))
}

fn tell_supervisor(state: &[State<'_>]) {
    if let Err(error) = send(state, Some(PATIENCE)) {
        tracing::warn!(%error, "the service manager cannot be notified; check NOTIFY_SOCKET");
    }
}

/// Sends one message. A manager that does not read blocks the caller for at most `patience`, or not at all without
/// `patience`.
fn send(state: &[State<'_>], patience: Option<Duration>) -> io::Result<()> {
    let Some(place) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    match place.as_encoded_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        _ => socket.connect(&place)?,
    }
    match patience {
        Some(patience) => socket.set_write_timeout(Some(patience))?,
        None => socket.set_nonblocking(true)?,
    }
    let lines: String = state.iter().map(|line| format!("{line}\n")).collect();
    socket.send(lines.as_bytes()).map(drop)
}

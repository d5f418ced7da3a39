//! The proxy that `exec` starts if none is running: the config's forward listener, for the lifetime of one command.
//!
//! It listens on loopback only, on a free port that the system chooses. Unless the listener admits anyone, the command
//! authenticates with a key that is generated for it and passed to it only. Warnings go to standard error, unless it is
//! quiet; access lines go only to a file that the config names.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::rand;
use secrecy::SecretString;

use super::gateway::{ForwardArguments, Gateway};
use crate::app::boot::{BootOptions, Running};
use crate::base::secret::{hex, sha256};
use crate::cli::check::{self, CheckOutput};
use crate::config::{ListenerAccess, Snapshot};
use crate::observe::logging;
use crate::route::ClientId;

/// Calls that are under way when the command has ended get this long.
const DRAIN: Duration = Duration::from_secs(1);

/// A proxy of one's own, which ends when it is dropped.
pub struct Private {
    running: Option<Running>,
    /// Address and credentials with which the command uses the proxy.
    pub gateway: Gateway,
}

impl Private {
    /// Starts one from this config. `gateway` is what the config says of its forward listener. `None`: there is none,
    /// and it was said why.
    pub fn start(config: &Path, wanted: &ForwardArguments, gateway: Gateway) -> Result<Option<Self>, String> {
        let (output, level) = if wanted.quiet { (CheckOutput::Quiet, "error") } else { (CheckOutput::Text, "warn") };
        let Ok(mut snapshot) = check::load_or_report(config, output) else { return Ok(None) };
        logging::start_logging(level, true).map_err(|error| error.to_string())?;
        let listener = snapshot.keep_forward_listener().ok_or("the config has no forward listener")?;
        let (name, asks) = (listener.name.clone(), listener.access != ListenerAccess::Anyone);
        if snapshot.audit.as_ref().is_some_and(|audit| audit.path.is_none()) {
            return Err("[audit] goes to standard output, which is the command's: name a file".to_owned());
        }
        let credentials = if asks { Some(admit(&mut snapshot, wanted.client.as_deref())?) } else { None };
        let running = Running::start(snapshot, BootOptions::default()).map_err(|error| error.to_string())?;
        let address = running.address(&name).ok_or("the proxy has no address")?;
        let gateway =
            Gateway { scheme: "http", host: address.ip().to_string(), port: address.port(), credentials, ..gateway };
        Ok(Some(Self { running: Some(running), gateway }))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.drain(Duration::ZERO, DRAIN);
        }
    }
}

/// Makes a key for the client, good here alone, from this machine alone.
fn admit(snapshot: &mut Snapshot, client: Option<&str>) -> Result<(String, SecretString), String> {
    let names: Vec<&str> = snapshot.clients.all.iter().map(|client| &*client.name).collect();
    let at = match (client, names.as_slice()) {
        (Some(client), _) => names.iter().position(|name| *name == client).ok_or_else(|| {
            format!("no client is called `{}`; there are: {}", client.escape_debug(), names.join(", "))
        })?,
        (None, [_]) => 0,
        (None, _) => return Err(format!("say as whom to call, with `--client`; there are: {}", names.join(", "))),
    };
    let mut random = [0; 32];
    rand::fill(&mut random).map_err(|_| "the system gives no randomness".to_owned())?;
    let key = hex(&random);
    let id = u16::try_from(at).map(ClientId).map_err(|_| "there are too many clients".to_owned())?;
    let name = snapshot.add_client_key(id, sha256(key.as_bytes())).ok_or("the client is gone")?;
    Ok((name.to_string(), SecretString::from(key)))
}

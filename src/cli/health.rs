//! `countersign health`: for container probes. One `GET /readyz` at the admin listener of a running instance; for a liveness
//! probe `GET /livez`, which answers while it drains, too.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::admin_client::AdminAddress;
use super::{complain, print};

/// An admin listener on loopback that takes longer than this is not healthy.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the admin listener, at `admin` or at the address in the config, whether it is ready, or merely `live`. Exit
/// code 0: it is, 1: it is not, 2: its address is not known.
pub fn check_health(live: bool, admin: Option<&str>, ca: Option<&Path>, config: &Path) -> ExitCode {
    let (path, part, word) = if live { ("/livez", "livez", "live") } else { ("/readyz", "readyz", "ready") };
    let place = match AdminAddress::find(admin, config, ca) {
        Ok(place) => place,
        Err(why) => {
            complain(&why);
            return ExitCode::from(2);
        }
    };
    let address = place.address;
    match place.exchange("GET", path, "", PATIENCE) {
        Ok((200, _)) => {
            print(&format!("{word}\n"));
            ExitCode::SUCCESS
        }
        Ok((503, _)) => {
            complain(&format!("{address} is not {word}"));
            ExitCode::from(1)
        }
        Ok((401, _)) => {
            complain(&format!("{address} wants a token; write `open = [\"{part}\"]` into [admin]"));
            ExitCode::from(1)
        }
        Ok((status, _)) => {
            complain(&format!("{address} answers {status} to {path}; is it the admin listener?"));
            ExitCode::from(1)
        }
        Err(error) => {
            complain(&format!("{address} does not answer: {error}; is it running?"));
            ExitCode::from(1)
        }
    }
}

//! `countersign health`: for container probes. One `GET /readyz` at the admin door of a running instance.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::door::Place;
use super::{complain, print};

/// A door on loopback that takes longer than this is not healthy.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the admin door, at `admin` or where the config says. 0: ready, 1: not, 2: nobody knows where to ask.
pub fn run(admin: Option<&str>, ca: Option<&Path>, config: &Path) -> ExitCode {
    let place = match Place::find(admin, config, ca) {
        Ok(place) => place,
        Err(why) => {
            complain(&why);
            return ExitCode::from(2);
        }
    };
    let address = place.address;
    match place.exchange("GET", "/readyz", "", PATIENCE) {
        Ok((200, _)) => {
            print("ready\n");
            ExitCode::SUCCESS
        }
        Ok((503, _)) => {
            complain(&format!("{address} is not ready"));
            ExitCode::from(1)
        }
        Ok((401, _)) => {
            complain(&format!("{address} wants a token; write `open = [\"readyz\"]` into [admin]"));
            ExitCode::from(1)
        }
        Ok((status, _)) => {
            complain(&format!("{address} answers {status} to /readyz; is it the admin door?"));
            ExitCode::from(1)
        }
        Err(error) => {
            complain(&format!("{address} does not answer: {error}; is it running?"));
            ExitCode::from(1)
        }
    }
}

//! `countersign health`: for container probes. One `GET /readyz` at the admin listener of a running instance; for a liveness
//! probe `GET /livez`, which answers while it drains, too.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::admin_client::AdminAddress;
use super::{complain, print};

/// An admin listener on loopback that takes longer than this is not healthy.
const PATIENCE: Duration = Duration::from_secs(3);

/// The form of what `health` prints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HealthOutput {
    /// One document, for a program.
    Json,
    /// Nothing.
    Quiet,
    /// A word, or on standard error what is wrong.
    Text,
}

/// What was found: whether it holds, the status of the response if there was one, and what is wrong.
struct HealthFinding {
    status: Option<u16>,
    wrong: Option<String>,
}

/// Asks the admin listener, at `admin` or at the address in the config, whether it is ready, or merely `live`. Exit
/// code 0: it is, 1: it is not, 2: its address is not known.
pub fn check_health(
    live: bool,
    admin: Option<&str>,
    ca: Option<&Path>,
    config: &Path,
    output: HealthOutput,
) -> ExitCode {
    let (path, part, word) = if live { ("/livez", "livez", "live") } else { ("/readyz", "readyz", "ready") };
    let place = match AdminAddress::find(admin, config, ca) {
        Ok(place) => place,
        Err(why) => {
            complain(&why);
            return ExitCode::from(2);
        }
    };
    let address = place.address;
    let found = match place.exchange("GET", path, "", PATIENCE) {
        Ok((200, _)) => HealthFinding { status: Some(200), wrong: None },
        Ok((status, _)) => {
            let wrong = match status {
                503 => format!("{address} is not {word}"),
                401 => format!("{address} wants a token; write `open = [\"{part}\"]` into [admin]"),
                _ => format!("{address} answers {status} to {path}; is it the admin listener?"),
            };
            HealthFinding { status: Some(status), wrong: Some(wrong) }
        }
        Err(error) => {
            HealthFinding { status: None, wrong: Some(format!("{address} does not answer: {error}; is it running?")) }
        }
    };
    let HealthFinding { status, wrong } = found;
    match (output, &wrong) {
        (HealthOutput::Json, wrong) => {
            let answer = json!({
                "address": address.to_string(), "probe": part, "ok": wrong.is_none(), "status": status, "detail": wrong,
            });
            print(&format!("{answer}\n"));
        }
        (HealthOutput::Quiet, _) => {}
        (HealthOutput::Text, None) => print(&format!("{word}\n")),
        (HealthOutput::Text, Some(wrong)) => complain(wrong),
    }
    ExitCode::from(u8::from(wrong.is_some()))
}

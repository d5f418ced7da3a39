//! `countersign log-level`: the level of a running instance's log, for a while.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::admin_client::{AdminCallError, AdminClient};
use super::print;
use super::status::{ended, word};
use super::table::moment;
use crate::base::time::{Clock, Now};

/// The path of the admin API.
const PATH: &str = "/api/v1/log-level";

/// The arguments of `countersign log-level`.
#[derive(Args, Debug)]
pub struct LogLevelArguments {
    /// The level from now on: error, warn, info, debug or trace; default: only show it
    #[arg(value_name = "LEVEL", conflicts_with = "restore")]
    level: Option<String>,
    /// How long it is in force; then the config's level is again [default: 15m]
    #[arg(long = "for", value_name = "DURATION", requires = "level")]
    span: Option<String>,
    /// Go back to the config's level now
    #[arg(long)]
    restore: bool,
    #[command(flatten)]
    admin_listener: AdminClient,
}

/// Shows or sets the level. Exit code 0: done; 1: refused; 2: no instance was reached.
pub fn run(arguments: &LogLevelArguments) -> ExitCode {
    ended(set_or_show(arguments))
}

fn set_or_show(arguments: &LogLevelArguments) -> Result<ExitCode, AdminCallError> {
    let LogLevelArguments { level, span, restore, admin_listener } = arguments;
    let answer = match (level, restore) {
        (Some(level), _) => {
            let mut body = json!({ "level": level });
            if let Some(span) = span {
                body["for"] = span.as_str().into();
            }
            admin_listener.ask("POST", PATH, Some(&body))?
        }
        (None, true) => admin_listener.ask("DELETE", PATH, None)?,
        (None, false) => admin_listener.ask("GET", PATH, None)?,
    };
    print(&if admin_listener.json { format!("{answer:#}\n") } else { told(&answer, Clock::System.now()) });
    Ok(ExitCode::SUCCESS)
}

/// The answer for a person: `debug until in 15 min (2026-11-21T08:30:00Z), then info`.
fn told(answer: &Value, now: Now) -> String {
    let level = word(answer, "level");
    match answer.get("until").and_then(Value::as_str) {
        Some(until) => {
            let (until, by) = (moment(until, now), word(answer, "by"));
            format!("{level}, set by {by}; {until} {} again\n", word(answer, "configured"))
        }
        None => format!("{level}, as the config says\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_told_with_its_end() {
        let now = Now::at(0, 1_709_164_800_000);
        let answer =
            json!({ "level": "debug", "configured": "info", "until": "2024-02-29T00:15:00.000Z", "by": "admin" });
        assert_eq!(told(&answer, now), "debug, set by admin; in 15 min (2024-02-29T00:15:00Z) info again\n");
        assert_eq!(told(&json!({ "level": "info", "configured": "info" }), now), "info, as the config says\n");
    }
}

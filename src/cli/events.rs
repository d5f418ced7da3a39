//! `countersign events`: what happens in a running instance, as it happens.

use std::io;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::admin_client::{AdminCallError, AdminClient};
use super::color::{self, Tone};
use super::instance_patience::{InstancePatience, end_on_signals, tell_reader};
use super::status::{ended, word};

/// The arguments of `countersign events`.
#[derive(Args, Debug)]
pub struct EventsArguments {
    /// End after so many events
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Go on until stopped, as without it: events are not kept, so there is nothing else to show
    #[arg(short, long)]
    follow: bool,
    /// Show events of this kind alone, such as token-failed; may be repeated
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
    /// Show events of this provider alone; may be repeated
    #[arg(long, value_name = "NAME")]
    provider: Vec<String>,
    #[command(flatten)]
    admin_listener: AdminClient,
}

/// Prints events until it is stopped. Exit code 0: stopped, or all were shown; 1: refused; 2: no instance was reached.
pub fn run(arguments: &EventsArguments) -> ExitCode {
    end_on_signals();
    ended(follow(arguments))
}

fn follow(arguments: &EventsArguments) -> Result<ExitCode, AdminCallError> {
    let mut patience = InstancePatience::default();
    let mut left = arguments.count;
    loop {
        let lost = match arguments.admin_listener.events("/api/v1/events") {
            Ok(mut events) => loop {
                patience.answered();
                match events.next_event() {
                    Ok(Some(data)) => {
                        let event: Value = serde_json::from_str(&data).unwrap_or_default();
                        if !arguments.wants(&event) {
                            continue;
                        }
                        let told = match arguments.admin_listener.json {
                            true => format!("{data}\n"),
                            false => line(&event, color::stdout_is_colored()),
                        };
                        left = left.map(|left| left - 1);
                        if let Err(end) = tell_reader(&told) {
                            return Ok(end);
                        }
                        if left == Some(0) {
                            return Ok(ExitCode::SUCCESS);
                        }
                    }
                    Ok(None) => break (2, "the instance has ended the stream of events".to_owned()),
                    Err(error) => break (2, format!("the stream of events broke off: {}", reason(&error))),
                }
            },
            Err(error) => error,
        };
        patience.lost(lost)?;
    }
}

/// Describes an error of the connection.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "nothing came for too long".to_owned(),
        _ => error.to_string(),
    }
}

impl EventsArguments {
    fn wants(&self, event: &Value) -> bool {
        let fits = |wanted: &[String], key: &str| wanted.is_empty() || wanted.iter().any(|one| one == word(event, key));
        fits(&self.kind, "kind") && fits(&self.provider, "provider")
    }
}

/// One event for a person: `2026-11-21T08:30:00.123Z  token-fetched         scb gave a token for 1800 s`.
fn line(event: &Value, color: bool) -> String {
    let kind = word(event, "kind");
    let tone = match (kind, word(event, "outcome")) {
        ("key-service-gone" | "lagged" | "token-failed", _) | ("reload", "refused") => Some(Tone::Bad),
        ("credentials-promoted" | "provider-closed" | "replay" | "token-refused", _) => Some(Tone::Warning),
        ("key-service-back" | "provider-open", _) => Some(Tone::Good),
        _ => None,
    };
    let shown = tone.map_or_else(|| kind.to_owned(), |tone| tone.paint(kind, color));
    let blanks = " ".repeat(20_usize.saturating_sub(kind.len()));
    // A config that was refused is told in several lines.
    let text = word(event, "text").replace('\n', "\n    ");
    format!("{}  {shown}{blanks}  {text}\n", word(event, "at"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_a_line_with_its_time_kind_and_text() {
        let event = json!({ "kind": "token-failed", "at": "2026-11-21T08:30:00.123Z", "text": "no\nluck" });
        assert_eq!(line(&event, false), "2026-11-21T08:30:00.123Z  token-failed          no\n    luck\n");
        assert!(line(&event, true).contains("\x1b[31mtoken-failed\x1b[0m        "));
    }
}

//! `countersign requests`: the last requests of a running instance, and those that follow.

use std::collections::HashSet;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use form_urlencoded::Serializer;
use serde_json::Value;

use super::admin_client::{AdminCallError, AdminClient};
use super::color::{self, Tone};
use super::instance_patience::{InstancePatience, end_on_signals, tell_reader};
use super::status::{ended, list, word};
use crate::base::time::{Clock, millis, of_rfc3339, rfc3339};
use crate::syntax::byte_size::duration;

/// The instance is asked this often.
const PAUSE: Duration = Duration::from_secs(1);
/// The most that the API gives at once.
const MOST: u64 = 1000;
/// A request is listed when it has ended, by its beginning: those that took this long are still found, in milliseconds.
const OVERLAP: u64 = 300_000;

/// The arguments of `countersign requests`.
#[derive(Args, Debug)]
pub struct RequestsArguments {
    /// Words that each must be found in a request: its path, id, client, route, provider or error
    #[arg(value_name = "WORD")]
    words: Vec<String>,
    /// Requests of this client alone; `-`: of none
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    client: Option<String>,
    /// Requests with this error alone, such as rate-limited; `-`: without one
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    error: Option<String>,
    /// Go on with those that follow, until stopped
    #[arg(short, long)]
    follow: bool,
    /// Show so many of the last ones
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    count: u64,
    /// Requests to this provider alone; `-`: to none
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    provider: Option<String>,
    /// Requests of this route alone; `-`: of none
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    route: Option<String>,
    /// Requests since then alone: as long ago as in `15m`, or a time such as 2026-11-21T08:30:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    #[command(flatten)]
    admin_listener: AdminClient,
}

/// Prints requests, the newest last. Exit code 0: printed, or stopped; 1: refused; 2: no instance was reached, or
/// `--since` is no time.
pub fn run(arguments: &RequestsArguments) -> ExitCode {
    ended(show(arguments))
}

fn show(arguments: &RequestsArguments) -> Result<ExitCode, AdminCallError> {
    let since = match &arguments.since {
        Some(text) => Some(moment_of(text, Clock::System.now().wall).ok_or_else(|| {
            let help = "write how long ago, as in `15m`, or a time, as in `2026-11-21T08:30:00Z`";
            (2, format!("`{}` is no time: {help}", text.escape_debug()))
        })?),
        None => None,
    };
    if arguments.follow {
        end_on_signals();
    }
    let mut seen = SeenRequests { since, ids: HashSet::new(), newest: 0 };
    let mut patience = InstancePatience::default();
    let mut limit = arguments.count;
    loop {
        match arguments.admin_listener.ask("GET", &arguments.path(seen.begin(), limit), None) {
            Ok(answer) => {
                patience.answered();
                for request in seen.add(list(&answer, "requests")) {
                    let told = match arguments.admin_listener.json {
                        true => format!("{request}\n"),
                        false => line(request, color::stdout_is_colored()),
                    };
                    if let Err(end) = tell_reader(&told) {
                        return Ok(end);
                    }
                }
                if !arguments.follow {
                    return Ok(ExitCode::SUCCESS);
                }
                if limit != MOST {
                    // What was there before and is not among the newest is not shown.
                    (limit, seen.since) = (MOST, Some(seen.begin().unwrap_or_default().max(seen.newest)));
                }
                sleep(PAUSE);
            }
            Err(error) => patience.lost(error)?,
        }
    }
}

/// Milliseconds since 1970 of a time, or of as long ago as a duration says.
fn moment_of(text: &str, now: u64) -> Option<u64> {
    duration(text).map(|ago| now.saturating_sub(millis(ago))).or_else(|| of_rfc3339(text))
}

impl RequestsArguments {
    /// The path with the query that asks for them.
    fn path(&self, since: Option<u64>, limit: u64) -> String {
        let mut query = Serializer::new(String::new());
        query.append_pair("limit", &limit.to_string());
        let (words, since) = (self.words.join(" "), since.map(rfc3339));
        let parts = [
            ("q", (!words.is_empty()).then_some(&words)),
            ("client", self.client.as_ref()),
            ("error", self.error.as_ref()),
            ("provider", self.provider.as_ref()),
            ("route", self.route.as_ref()),
            ("since", since.as_ref()),
        ];
        for (name, value) in parts {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        format!("/api/v1/requests?{}", query.finish())
    }
}

/// The requests that were shown already.
struct SeenRequests {
    /// No earlier ones are wanted, in milliseconds since 1970.
    since: Option<u64>,
    ids: HashSet<String>,
    /// The beginning of the newest one; 0: none was seen.
    newest: u64,
}

impl SeenRequests {
    /// The time from which to ask: some that began before others may have ended after them.
    fn begin(&self) -> Option<u64> {
        match self.newest {
            0 => self.since,
            newest => Some(newest.saturating_sub(OVERLAP).max(self.since.unwrap_or_default())),
        }
    }

    /// Returns those that are new, the oldest first. `answer` has the newest first.
    fn add<'a>(&mut self, answer: &'a [Value]) -> Vec<&'a Value> {
        let fresh = answer.iter().rev().filter(|one| !self.ids.contains(word(one, "request_id"))).collect();
        self.ids = answer.iter().map(|one| word(one, "request_id").to_owned()).collect();
        let newest = answer.iter().filter_map(|one| of_rfc3339(word(one, "time"))).max();
        self.newest = self.newest.max(newest.unwrap_or_default());
        fresh
    }
}

/// One request for a person: time, status, method and path, client, route, provider, what was wrong, how long it took.
fn line(request: &Value, color: bool) -> String {
    let status = request.get("http.response.status_code").and_then(Value::as_u64);
    let shown = status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    let error = word(request, "error.type");
    let tone = match status {
        None => Tone::Warning,
        Some(_) if error != "-" => Tone::Bad,
        Some(500..) => Tone::Bad,
        Some(400..500) => Tone::Warning,
        Some(_) => Tone::Good,
    };
    let blanks = " ".repeat(3_usize.saturating_sub(shown.len()));
    let took = request.get("duration_ms").and_then(Value::as_f64).unwrap_or_default();
    let mut text = format!(
        "{}  {}{blanks}  {} {}  client={} route={} provider={}",
        word(request, "time"),
        tone.paint(&shown, color),
        word(request, "http.request.method"),
        word(request, "url.path"),
        word(request, "countersign.client"),
        word(request, "http.route"),
        word(request, "countersign.provider"),
    );
    for (name, key) in [("error", "error.type"), ("reason", "countersign.reason"), ("replay", "countersign.replay")] {
        if word(request, key) != "-" {
            text += &format!(" {name}={}", word(request, key));
        }
    }
    format!("{text} {took:.1} ms {}\n", word(request, "request_id"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(id: &str, time: &str) -> Value {
        json!({ "request_id": id, "time": time, "http.request.method": "GET", "url.path": "/a", "duration_ms": 1.26,
                "http.response.status_code": 502, "error.type": "connection-refused", "http.route": "scb" })
    }

    #[test]
    fn each_request_is_shown_once_and_the_oldest_first() {
        let mut seen = SeenRequests { since: None, ids: HashSet::new(), newest: 0 };
        let (a, b) = (one("a", "2026-11-21T08:30:00.000Z"), one("b", "2026-11-21T08:40:00.000Z"));
        let ids = |found: Vec<&Value>| found.iter().map(|one| word(one, "request_id").to_owned()).collect::<Vec<_>>();
        assert_eq!(seen.begin(), None);
        assert_eq!(ids(seen.add(&[b.clone(), a])), ["a", "b"]);
        assert_eq!(seen.begin().map(rfc3339).as_deref(), Some("2026-11-21T08:35:00.000Z"));
        // It began before the newest one, and has ended since.
        let late = one("c", "2026-11-21T08:39:00.000Z");
        assert_eq!(ids(seen.add(&[b.clone(), late.clone()])), ["c"]);
        assert_eq!(ids(seen.add(&[b, late])), [""; 0]);
    }

    #[test]
    fn a_request_is_a_line() {
        let text = line(&one("a", "2026-11-21T08:30:00.000Z"), false);
        let wanted = "2026-11-21T08:30:00.000Z  502  GET /a  client=- route=scb provider=- error=connection-refused \
                      1.3 ms a\n";
        assert_eq!(text, wanted);
        assert!(line(&one("a", "-"), true).contains("\x1b[31m502\x1b[0m"));
    }

    #[test]
    fn a_time_is_a_moment_or_a_duration_before_now() {
        assert_eq!(moment_of("1m", 100_000), Some(40_000));
        assert_eq!(moment_of("1970-01-01T00:00:01Z", 100_000), Some(1000));
        assert_eq!(moment_of("yesterday", 100_000), None);
    }
}

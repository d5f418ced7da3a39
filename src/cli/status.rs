//! `countersign status` and `countersign reload`: the running instance as a whole.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use super::admin_client::{AdminCallError, AdminClient};
use super::color::{self, Tone};
use super::instance_patience::{InstancePatience, end_on_signals, tell_reader};
use super::table::{length, moment, painted_table, table};
use super::{complain, print};
use crate::base::counted::counted;
use crate::base::time::{Clock, Now};

/// Prints the status. Exit code 0: printed; 1: refused; 2: no instance was reached.
pub fn run(admin_listener: &AdminClient) -> ExitCode {
    ended(status(admin_listener))
}

/// Makes the instance read its config again. Exit code 0: the config is valid; 1: it has mistakes, or the request was
/// refused; 2: no instance was reached.
pub fn reload(admin_listener: &AdminClient) -> ExitCode {
    ended(reloaded(admin_listener))
}

/// The exit code of a command that speaks to the admin listener.
pub(super) fn ended(done: Result<ExitCode, AdminCallError>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err((code, why)) => {
            complain(&why);
            ExitCode::from(code)
        }
    }
}

/// A text of an answer; `-` where there is none.
pub(super) fn word<'a>(of: &'a Value, key: &str) -> &'a str {
    of.get(key).and_then(Value::as_str).unwrap_or("-")
}

pub(super) fn number(of: &Value, key: &str) -> u64 {
    of.get(key).and_then(Value::as_u64).unwrap_or(0)
}

pub(super) fn list<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn status(admin_listener: &AdminClient) -> Result<ExitCode, AdminCallError> {
    let status = admin_listener.ask("GET", "/api/v1/status", None)?;
    if admin_listener.json {
        print(&format!("{status:#}\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let providers = admin_listener.ask("GET", "/api/v1/providers", None)?;
    print(&told(&status, &providers, Clock::System.now(), color::stdout_is_colored()));
    Ok(ExitCode::SUCCESS)
}

/// Prints the status again and again until it is stopped. Exit code 0: stopped; 1: refused; 2: no instance was reached.
pub fn watch(admin_listener: &AdminClient, seconds: u64) -> ExitCode {
    end_on_signals();
    let mut patience = InstancePatience::default();
    loop {
        match shown(admin_listener) {
            Ok(text) => {
                patience.answered();
                if let Err(end) = tell_reader(&text) {
                    return end;
                }
                sleep(Duration::from_secs(seconds));
            }
            Err(error) => {
                if let Err(error) = patience.lost(error) {
                    return ended(Err(error));
                }
            }
        }
    }
}

/// One screen, or one line of JSON.
fn shown(admin_listener: &AdminClient) -> Result<String, AdminCallError> {
    let status = admin_listener.ask("GET", "/api/v1/status", None)?;
    if admin_listener.json {
        return Ok(format!("{status}\n"));
    }
    let providers = admin_listener.ask("GET", "/api/v1/providers", None)?;
    let text = told(&status, &providers, Clock::System.now(), color::stdout_is_colored());
    // A terminal is cleared; elsewhere an empty line separates one from the next.
    Ok(if io::stdout().is_terminal() { format!("\x1b[H\x1b[2J{text}") } else { format!("{text}\n") })
}

fn told(status: &Value, providers: &Value, now: Now, color: bool) -> String {
    let mut text = String::new();
    let (version, instance) = (word(status, "version"), word(status, "instance"));
    let up = length(number(status, "uptime_seconds"));
    let draining = if status.get("draining") == Some(&Value::Bool(true)) { ", draining" } else { "" };
    let _ = writeln!(text, "countersign {version}, instance {instance}, up {up}{draining}");
    let reload = status.get("last_reload").unwrap_or(&Value::Null);
    let at = moment(word(reload, "at"), now);
    let digest = word(status, "config_digest").get(..12).unwrap_or("-").to_owned();
    let _ = writeln!(text, "config {digest}, {} {at} by {}", word(reload, "outcome"), word(reload, "by"));
    if let Some(error) = reload.get("error").and_then(Value::as_str) {
        let _ = writeln!(text, "the config on the disk was refused:\n{error}");
    }
    let level = status.get("log_level").unwrap_or(&Value::Null);
    if let Some(until) = level.get("until").and_then(Value::as_str) {
        let (now_in_force, later) = (word(level, "level"), word(level, "configured"));
        let _ =
            writeln!(text, "log level {now_in_force}, by {}; {later} again {}", word(level, "by"), moment(until, now));
    }
    let store = status.get("store").unwrap_or(&Value::Null);
    match store.get("error").and_then(Value::as_str) {
        None => drop(writeln!(text, "store {}", word(store, "kind"))),
        Some(error) => {
            let unhealthy = Tone::Bad.paint("NOT HEALTHY", color);
            let _ = writeln!(text, "store {}, {unhealthy}: {error}", word(store, "kind"));
        }
    }
    if let Some(audit) = status.get("audit") {
        let head = word(audit, "head").split_once(':').map_or("-", |(seq, _)| seq);
        let failing = audit.get("failing") == Some(&Value::Bool(true));
        let failing =
            if failing { format!(", {}", Tone::Bad.paint("CANNOT BE WRITTEN", color)) } else { String::new() };
        let lost = match number(audit, "files_lost") {
            0 => String::new(),
            _ => format!(", {}: the log says when", Tone::Bad.paint("WAS DELETED OR REPLACED", color)),
        };
        let _ = writeln!(text, "audit log {}, up to record {head}{failing}{lost}", word(audit, "to"));
    }
    let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    let listeners: Vec<Vec<String>> = list(status, "listeners")
        .iter()
        .map(|one| {
            let tls = if one.get("tls") == Some(&Value::Bool(true)) { "yes" } else { "no" };
            row(&[word(one, "name"), word(one, "mode"), word(one, "address"), tls])
        })
        .collect();
    let _ = write!(text, "\n{}", table(&["LISTENER", "MODE", "ADDRESS", "TLS"], &listeners));
    let shadows: Vec<Vec<String>> = list(providers, "providers")
        .iter()
        .filter_map(|one| {
            let shadow = one.get("shadow")?;
            let seen = list(shadow, "parts").iter();
            let seen = seen.map(|part| format!("{} ({})", word(part, "part"), number(part, "count")));
            let unseen = list(shadow, "unseen").iter().filter_map(Value::as_str).map(ToOwned::to_owned);
            let parts: Vec<String> = seen.chain(unseen).collect();
            let calls = format!("{} of {}", number(shadow, "differing"), number(shadow, "compared"));
            Some(row(&[word(one, "name"), word(shadow, "profile"), &calls, &parts.join(", ")]))
        })
        .collect();
    let providers: Vec<Vec<String>> = list(providers, "providers")
        .iter()
        .map(|one| {
            let until = one.get("rests_until").or_else(|| one.get("closed_until")).and_then(Value::as_str);
            let fails = matches!(word(one, "state"), "closed" | "failing" | "resting");
            let why = one.get("last_failure").filter(|_| fails).map_or_else(String::new, |failure| {
                let cure = failure.get("cure").and_then(Value::as_str);
                let reason = word(failure, "reason");
                cure.map_or_else(|| reason.to_owned(), |cure| format!("{reason}; {cure}"))
            });
            let by_calendar = one.get("hours").is_some_and(|hours| hours.get("open") == Some(&Value::Bool(false)));
            let why = if by_calendar { "outside its hours".to_owned() } else { why };
            let live = format!("{} of {}", number(one, "live_tokens"), number(one, "token_keys"));
            let until = match until {
                Some(until) => moment(until, now),
                None if fails => "with the next call".to_owned(),
                None => "-".to_owned(),
            };
            row(&[word(one, "name"), word(one, "profile"), word(one, "state"), &live, &until, &why])
        })
        .collect();
    let heads = ["PROVIDER", "PROFILE", "STATE", "LIVE TOKENS", "ASKED AGAIN", "WHY"];
    let tone = |column: usize, cell: &str| match (heads.get(column), cell) {
        (Some(&"STATE"), "failing" | "resting") => Some(Tone::Bad),
        (Some(&"STATE"), "closed") => Some(Tone::Warning),
        (Some(&"STATE"), "live" | "ready") => Some(Tone::Good),
        _ => None,
    };
    let _ = write!(text, "\n{}", painted_table(&heads, &providers, &|at, cell| tone(at, cell).filter(|_| color)));
    if !shadows.is_empty() {
        let head = ["PROVIDER", "SHADOW", "CALLS THAT DIFFER", "IN"];
        let _ = write!(text, "\n{}", table(&head, &shadows));
    }
    let services: Vec<Vec<String>> = list(status, "key_services")
        .iter()
        .map(|one| {
            let since = one.get("since").and_then(Value::as_str).map_or("-".to_owned(), |since| moment(since, now));
            let reason = one.get("reason").and_then(Value::as_str).unwrap_or_default();
            let counts = format!("{} and {}", number(one, "signed"), number(one, "failed"));
            row(&[word(one, "service"), word(one, "state"), &counts, &since, reason])
        })
        .collect();
    if !services.is_empty() {
        let head = ["KEY SERVICE", "BREAKER", "SIGNED, FAILED", "SINCE", "WHY"];
        let _ = write!(text, "\n{}", table(&head, &services));
    }
    let sources: Vec<Vec<String>> = list(status, "secret_sources")
        .iter()
        .map(|one| {
            let since = one.get("since").and_then(Value::as_str).map_or("-".to_owned(), |since| moment(since, now));
            let reason = one.get("reason").and_then(Value::as_str).unwrap_or_default();
            let counts = format!("{} of {}", number(one, "failing"), number(one, "secrets"));
            row(&[word(one, "name"), word(one, "kind"), &counts, &since, reason])
        })
        .collect();
    if !sources.is_empty() {
        let head = ["SECRET SOURCE", "KIND", "NOT READ", "SINCE", "WHY"];
        let _ = write!(text, "\n{}", table(&head, &sources));
    }
    let certificates: Vec<Vec<String>> = list(status, "certificates")
        .iter()
        .map(|one| vec![word(one, "what").to_owned(), moment(word(one, "expires_at"), now)])
        .collect();
    if !certificates.is_empty() {
        let _ = write!(text, "\n{}", table(&["CERTIFICATE", "ENDS"], &certificates));
    }
    text
}

fn reloaded(admin_listener: &AdminClient) -> Result<ExitCode, AdminCallError> {
    let answer = admin_listener.ask("POST", "/api/v1/reload", None)?;
    if admin_listener.json {
        print(&format!("{answer:#}\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let changes = list(&answer, "changes");
    print(&format!(
        "reloaded: {}\n",
        if changes.is_empty() { "nothing has changed".to_owned() } else { counted(changes.len(), "change") }
    ));
    for change in changes {
        print(&format!("  {}\n", change.as_str().unwrap_or("-")));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_told_in_tables() {
        let status = json!({
            "version": "1.2.3", "instance": "00ff00ff", "uptime_seconds": 3700, "draining": false,
            "config_digest": "0123456789abcdef", "store": { "kind": "memory" },
            "audit": { "to": "var/audit.log", "head": "4711:9f2c", "failing": true, "files_lost": 1 },
            "log_level": { "level": "debug", "configured": "info", "until": "2024-02-29T00:10:00.000Z", "by": "admin:oncall" },
            "last_reload": { "outcome": "refused", "at": "2024-02-28T23:59:00.000Z", "by": "signal", "error": "line 3" },
            "listeners": [{ "name": "gateway", "mode": "reverse", "address": "127.0.0.1:1", "tls": true }],
            "key_services": [
                { "service": "kms:eu-central-1", "state": "closed", "signed": 7, "failed": 0 },
                { "service": "pkcs11:bank", "state": "open", "signed": 1, "failed": 2,
                  "since": "2024-02-28T23:59:00.000Z", "reason": "the process has ended" },
            ],
            "secret_sources": [
                { "name": "corp", "kind": "vault", "secrets": 3, "failing": 2, "since": "2024-02-28T23:59:00.000Z",
                  "reason": "Vault is sealed" },
            ],
            "certificates": [{ "what": "server.crt", "expires_at": "2024-03-10T00:00:00.000Z", "days_left": 10 }],
        });
        let providers = json!({ "providers": [{
            "name": "scb", "profile": "scb", "state": "resting", "live_tokens": 0, "token_keys": 1,
            "rests_until": "2024-02-29T00:00:30.000Z", "last_failure": { "reason": "401 with code=9300", "cause": "clock", "cure": "set the clock" },
        }, {
            "name": "meed", "profile": "meed", "state": "resting", "live_tokens": 0, "token_keys": 1,
            "last_failure": { "reason": "503" },
            "shadow": { "profile": "ours/meed", "compared": 12, "differing": 3, "unseen": ["token request url"],
                        "parts": [{ "part": "header x-a", "count": 3 }] },
        }, {
            "name": "night", "profile": "oauth2", "state": "closed", "live_tokens": 1, "token_keys": 1,
            "closed_until": "2024-02-29T01:00:00.000Z", "last_failure": { "reason": "503" },
            "hours": { "open": false, "changes_at": "2024-02-29T01:00:00.000Z" },
        }] });
        let colored = told(&status, &providers, Now::at(0, 1_709_164_800_000), true);
        assert!(colored.contains("scb       scb      \x1b[31mresting\x1b[0m  0 of 1"), "{colored}");
        let text = told(&status, &providers, Now::at(0, 1_709_164_800_000), false);
        for wanted in [
            "countersign 1.2.3, instance 00ff00ff, up 1 h 1 min\n",
            "config 0123456789ab, refused 1 min ago (2024-02-28T23:59:00Z) by signal\n",
            "was refused:\nline 3\n",
            "audit log var/audit.log, up to record 4711, CANNOT BE WRITTEN, WAS DELETED OR REPLACED: the log says when\n",
            "log level debug, by admin:oncall; info again in 10 min (2024-02-29T00:10:00Z)\n",
            "gateway   reverse  127.0.0.1:1  yes\n",
            "scb       scb      resting  0 of 1       in 30 s (2024-02-29T00:00:30Z)  401 with code=9300; set the clock\n",
            "meed      meed     resting  0 of 1       with the next call              503\n",
            "meed      ours/meed  3 of 12            header x-a (3), token request url\n",
            "night     oauth2   closed   1 of 1       in 1 h (2024-02-29T01:00:00Z)   outside its hours\n",
            "kms:eu-central-1  closed   7 and 0         -\n",
            "pkcs11:bank       open     1 and 2         1 min ago (2024-02-28T23:59:00Z)  the process has ended\n",
            "corp           vault  2 of 3    1 min ago (2024-02-28T23:59:00Z)  Vault is sealed\n",
            "server.crt   in 10 d (2024-03-10T00:00:00Z)\n",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
        }
    }
}

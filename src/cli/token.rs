//! `countersign token list|refresh|purge`: tokens of a running instance, by their keys. No token is ever shown.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::admin_client::{AdminCallError, AdminClient};
use super::print;
use super::status::{ended, list, number, word};
use super::table::{moment, table};
use crate::base::time::{Clock, Now};

/// A fetch is waited for so often, with so long in between.
const LOOKS: u32 = 150;
const LOOK: Duration = Duration::from_millis(200);

/// Subcommands of `countersign token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// List all tokens that were asked for
    List {
        #[command(flatten)]
        admin_listener: AdminClient,
    },
    /// Fetch a new token now, and wait for it; the old one serves meanwhile
    Refresh {
        /// The token's key or its beginning, as `token list` shows it; or a provider, for all tokens of it
        #[arg(value_name = "KEY|PROVIDER")]
        token: String,
        #[command(flatten)]
        admin_listener: AdminClient,
    },
    /// Forget a token and its failures; the next call fetches another
    Purge {
        /// The token's key or its beginning, as `token list` shows it; or a provider, for all tokens of it
        #[arg(value_name = "KEY|PROVIDER")]
        token: String,
        #[command(flatten)]
        admin_listener: AdminClient,
    },
}

/// Runs the subcommand. Exit code 0: done; 1: refused, not fetched, or there is no such token; 2: no instance was
/// reached.
pub fn run(command: &TokenCommand) -> ExitCode {
    ended(match command {
        TokenCommand::List { admin_listener } => show(admin_listener),
        TokenCommand::Refresh { token, admin_listener } => refresh(token, admin_listener),
        TokenCommand::Purge { token, admin_listener } => purge(token, admin_listener),
    })
}

fn show(admin_listener: &AdminClient) -> Result<ExitCode, AdminCallError> {
    let answer = admin_listener.ask("GET", "/api/v1/tokens", None)?;
    if admin_listener.json {
        print(&format!("{answer:#}\n"));
    } else if list(&answer, "tokens").is_empty() {
        print("no token was asked for yet\n");
    } else {
        print(&told(list(&answer, "tokens"), Clock::System.now()));
    }
    Ok(ExitCode::SUCCESS)
}

fn told(tokens: &[Value], now: Now) -> String {
    let at = |of: &Value, key: &str| {
        of.get(key).and_then(Value::as_str).map_or_else(|| "-".to_owned(), |at| moment(at, now))
    };
    let row = |one: &Value| {
        let generation =
            one.get("generation").and_then(Value::as_u64).map_or_else(|| "-".to_owned(), |g| g.to_string());
        let until = if one.get("rests_until").is_some() { at(one, "rests_until") } else { at(one, "renews_at") };
        let why = one.get("last_failure").map_or_else(String::new, |failure| {
            format!("{} {}: {}", word(failure, "class"), at(failure, "at"), word(failure, "reason"))
        });
        let state = if is_superseded(one) { "superseded" } else { word(one, "state") };
        let (key, provider) = (word(one, "key"), word(one, "provider"));
        let cells = [key, provider, state, &generation, word(one, "fingerprint"), &at(one, "expires_at"), &until, &why];
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    };
    let rows: Vec<Vec<String>> = tokens.iter().map(row).collect();
    table(&["KEY", "PROVIDER", "STATE", "GENERATION", "FINGERPRINT", "EXPIRES", "NEXT FETCH", "LAST FAILURE"], &rows)
}

/// The keys that are meant: this one, the one that begins so, or all of this provider's secrets that are in force.
fn meant(admin_listener: &AdminClient, token: &str) -> Result<Vec<String>, AdminCallError> {
    let answer = admin_listener.ask("GET", "/api/v1/tokens", None)?;
    choose(list(&answer, "tokens"), token).map_err(|why| (1, why))
}

/// Returns whether a token is one of a former secret.
fn is_superseded(token: &Value) -> bool {
    token.get("superseded") == Some(&Value::Bool(true))
}

fn choose(tokens: &[Value], token: &str) -> Result<Vec<String>, String> {
    let of = |test: &dyn Fn(&Value) -> bool| -> Vec<String> {
        tokens.iter().filter(|one| test(one)).map(|one| word(one, "key").to_owned()).collect()
    };
    let by_key = of(&|one| token.len() >= 4 && word(one, "key").starts_with(token));
    let by_provider = of(&|one| word(one, "provider") == token && !is_superseded(one));
    let shown = token.escape_debug();
    match (by_key.as_slice(), by_provider.is_empty()) {
        (_, false) => Ok(by_provider),
        ([_], true) => Ok(by_key),
        ([], true) => {
            Err(format!("no token that was asked for has the key or provider `{shown}`; see `countersign token list`"))
        }
        (_, true) => Err(format!("several keys begin with `{shown}`: {}", by_key.join(", "))),
    }
}

fn refresh(token: &str, admin_listener: &AdminClient) -> Result<ExitCode, AdminCallError> {
    let mut fetched = Vec::new();
    let mut good = true;
    for key in meant(admin_listener, token)? {
        let before = admin_listener.ask("POST", &format!("/api/v1/tokens/{key}/refresh"), None)?;
        let after = settled(admin_listener, &key, before.clone())?;
        let newer = after.get("generation").is_some() && number(&after, "generation") != number(&before, "generation");
        good &= newer || number(&before, "generation") == 0 && after.get("generation").is_some();
        if !admin_listener.json {
            print(&told_of_refresh(&after, newer));
        }
        fetched.push(after);
    }
    if admin_listener.json {
        print(&format!("{:#}\n", json!({ "tokens": fetched })));
    }
    Ok(ExitCode::from(u8::from(!good)))
}

fn told_of_refresh(after: &Value, newer: bool) -> String {
    let (key, provider) = (word(after, "key"), word(after, "provider"));
    let failure = after.get("last_failure").map_or("-", |failure| word(failure, "reason"));
    if newer {
        format!("{key}  {provider}  generation {}, token {}\n", number(after, "generation"), word(after, "fingerprint"))
    } else {
        format!("{key}  {provider}  no newer token: {failure}\n")
    }
}

/// The token once nothing is under way for it any more.
fn settled(admin_listener: &AdminClient, key: &str, first: Value) -> Result<Value, AdminCallError> {
    let mut seen = first;
    for _ in 0..LOOKS {
        if !matches!(word(&seen, "state"), "fetching" | "renewing") {
            return Ok(seen);
        }
        sleep(LOOK);
        let answer = admin_listener.ask("GET", "/api/v1/tokens", None)?;
        let found = list(&answer, "tokens").iter().find(|one| word(one, "key") == key);
        seen = found.cloned().ok_or_else(|| (1, format!("the token {key} was forgotten meanwhile")))?;
    }
    Err((1, format!("the token {key} is still being fetched")))
}

fn purge(token: &str, admin_listener: &AdminClient) -> Result<ExitCode, AdminCallError> {
    let mut purged = Vec::new();
    for key in meant(admin_listener, token)? {
        let answer = admin_listener.ask("DELETE", &format!("/api/v1/tokens/{key}"), None)?;
        if !admin_listener.json {
            print(&format!("{key}  forgotten\n"));
        }
        purged.push(answer);
    }
    if admin_listener.json {
        print(&format!("{:#}\n", json!({ "tokens": purged })));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_named_by_its_key_or_its_provider() {
        let one = |key: &str, provider: &str| json!({ "key": key, "provider": provider });
        let tokens = [one("00ff00ff", "scb"), one("00ff11ff", "scb"), one("abcd0000", "meed")];
        assert_eq!(choose(&tokens, "00ff00"), Ok(vec!["00ff00ff".to_owned()]));
        assert_eq!(choose(&tokens, "scb").map(|keys| keys.len()), Ok(2));
        assert_eq!(choose(&tokens, "meed"), Ok(vec!["abcd0000".to_owned()]));
        let former = json!({ "key": "dddd0000", "provider": "meed", "superseded": true });
        let tokens = [tokens.as_slice(), &[former]].concat();
        assert_eq!(
            choose(&tokens, "meed"),
            Ok(vec!["abcd0000".to_owned()]),
            "the bank does not see an old secret again"
        );
        assert_eq!(choose(&tokens, "dddd"), Ok(vec!["dddd0000".to_owned()]));
        assert!(choose(&tokens, "00ff").is_err_and(|why| why.contains("several")));
        assert!(choose(&tokens, "abc").is_err() && choose(&tokens, "nobody").is_err() && choose(&tokens, "").is_err());
    }
}

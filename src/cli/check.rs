//! `countersign check`: every mistake in the config at once.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::check_live::{self, Finding, TrialOptions, TrialReport as Tried, TrialSubject};
use super::{complain, print};
use crate::base::counted::counted;
use crate::base::time::Clock;
use crate::config::{Loaded, MachineFiles, STANDARD_INPUT_PATH, Snapshot, displayed_path, load};
use crate::syntax::{Diagnostic, Severity};

/// How to come by a first config.
const FIRST_CONFIG: &str =
    "none yet? `countersign init BANK` writes one for a bank, `countersign sim --write .` one for simulated banks";

/// Reads the config, its certificates and its secrets, and reports. Opens no listener.
pub fn run_check(path: &Path, json: bool) -> ExitCode {
    let loaded = load(path, &MachineFiles);
    let status = loaded.exit_status();
    if json {
        print(&format!("{}\n", as_json(&loaded)));
        return ExitCode::from(status);
    }
    if let Ok(snapshot) = report(path, loaded) {
        summarise(path, &snapshot);
    }
    ExitCode::from(status)
}

/// The same, and then tries what the config names. `vars`: values of route variables, as `NAME=VALUE`.
pub fn check_live(path: &Path, json: bool, vars: &[String]) -> ExitCode {
    let loaded = load(path, &MachineFiles);
    let status = loaded.exit_status();
    let mut answer = as_json(&loaded);
    if json && !matches!(loaded, Loaded::Fine(..)) {
        answer["live"] = json!([]);
        print(&format!("{answer}\n"));
        return ExitCode::from(status);
    }
    let snapshot = match (loaded, json) {
        (Loaded::Fine(snapshot, _), true) => *snapshot,
        (loaded, _) => match report(path, loaded) {
            Ok(snapshot) => snapshot,
            Err(()) => return ExitCode::from(status),
        },
    };
    if !json {
        summarise(path, &snapshot);
    }
    let mut tell = |subject: &TrialSubject, findings: &[Finding]| {
        if !json {
            print(&check_live::block(subject, findings));
        }
    };
    let tried = match tried(&snapshot, vars, &mut tell) {
        Ok(tried) => tried,
        Err(why) => {
            complain(&why);
            return ExitCode::from(2);
        }
    };
    if json {
        answer["ok"] = Value::Bool(tried.holds());
        answer["live"] = tried.json();
        print(&format!("{answer}\n"));
    } else {
        print(&tried.verdict());
    }
    ExitCode::from(u8::from(!tried.holds()))
}

/// Tries what the config names; `tell` gets each subject as soon as its trial has ended.
fn tried(
    snapshot: &Snapshot,
    vars: &[String],
    tell: &mut dyn FnMut(&TrialSubject, &[Finding]),
) -> Result<Tried, String> {
    let known = check_live::known_vars(snapshot);
    let mut given = Vec::new();
    for var in vars {
        let Some((name, value)) = var.split_once('=') else {
            return Err(format!("`{var}` is no value of a variable: write `--var NAME=VALUE`"));
        };
        if !known.iter().any(|known| **known == *name) {
            let names: Vec<&str> = known.iter().map(|name| &**name).collect();
            let those = if names.is_empty() { "no variable".to_owned() } else { names.join(", ") };
            return Err(format!("no provider's token depends on `{name}`, but on {those}: correct `--var`"));
        }
        given.push((name.to_owned(), value.to_owned()));
    }
    check_live::check_live_telling(snapshot, TrialOptions::of_this_process(given), tell)
        .map_err(|error| format!("the system gives no runtime: {error}"))
}

/// Loads the config for a command that looks at it, or reports why not. Warnings are for `check` and `run` to tell.
pub fn load_quietly(path: &Path) -> Result<Snapshot, ExitCode> {
    match load(path, &MachineFiles) {
        Loaded::Fine(snapshot, _) => Ok(*snapshot),
        loaded @ (Loaded::Mistaken(_) | Loaded::Unreadable(_)) => {
            let status = loaded.exit_status();
            report(path, loaded).map_err(|()| ExitCode::from(status))
        }
    }
}

/// Loads the config for a command that needs it, or reports why not.
pub fn load_or_report(path: &Path) -> Result<Snapshot, ExitCode> {
    let loaded = load(path, &MachineFiles);
    let status = loaded.exit_status();
    report(path, loaded).map_err(|()| ExitCode::from(status))
}

#[expect(clippy::print_stderr, reason = "mistakes are shown to a person on standard error")]
fn report(path: &Path, loaded: Loaded) -> Result<Snapshot, ()> {
    let color = std::io::stderr().is_terminal();
    let show = |diagnostics: &[Diagnostic]| {
        for diagnostic in diagnostics {
            eprintln!("{}\n", diagnostic.render(color));
        }
    };
    match loaded {
        Loaded::Fine(snapshot, warnings) => {
            show(&warnings);
            Ok(*snapshot)
        }
        Loaded::Mistaken(found) => {
            show(&found);
            let errors = found.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
            complain(&format!("{} has {}", displayed_path(path).display(), counted(errors, "mistake")));
            Err(())
        }
        Loaded::Unreadable(why) => {
            // On standard input there is no file that could be missing.
            let is_missing = path != Path::new(STANDARD_INPUT_PATH) && path.try_exists().is_ok_and(|exists| !exists);
            complain(&if is_missing { format!("{why}; {FIRST_CONFIG}") } else { why });
            Err(())
        }
    }
}

fn summarise(path: &Path, snapshot: &Snapshot) {
    print(&format!(
        "{} is fine: {}, {}, {}, {}\n",
        displayed_path(path).display(),
        counted(snapshot.listeners.len(), "listener"),
        counted(snapshot.providers.len(), "provider"),
        counted(snapshot.routes.len(), "route"),
        counted(snapshot.clients.all.len(), "client"),
    ));
    let now = Clock::System.now();
    for provider in &snapshot.providers {
        let Some(hours) = &provider.hours else { continue };
        let span = hours.span(now);
        let state = if span.is_open { "open" } else { "closed" };
        let until = span.until.map(|until| format!(" until {}", hours.calendar().zone().text(until)));
        print(&format!("provider {} is {state} now{}\n", provider.name, until.unwrap_or_default()));
    }
    if let Some(admin) = snapshot.admin.as_ref().filter(|admin| admin.tokens.is_empty()) {
        print(&format!(
            "note: the admin listener at {} asks for no token: every user and program of this machine may use it; \
             [admin.token.NAME] closes it\n",
            admin.bind.address()
        ));
    }
}

fn as_json(loaded: &Loaded) -> Value {
    let view = |diagnostic: &Diagnostic| {
        let (line, column) = diagnostic.source.position(diagnostic.span.start);
        json!({
            "severity": match diagnostic.severity { Severity::Error => "error", Severity::Warning => "warning" },
            "file": diagnostic.source.name,
            "line": line,
            "column": column,
            "message": diagnostic.title,
            "help": diagnostic.help,
        })
    };
    let (ok, found, unreadable) = match loaded {
        Loaded::Fine(_, warnings) => (true, warnings.iter().map(view).collect(), None),
        Loaded::Mistaken(found) => (false, found.iter().map(view).collect(), None),
        Loaded::Unreadable(why) => (false, Vec::new(), Some(why)),
    };
    json!({ "ok": ok, "diagnostics": found, "unreadable": unreadable })
}

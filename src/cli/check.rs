//! `countersign check`: every mistake in the config at once.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use tracing::Level;

use super::check_live::{self, Finding, Mark, TrialObserver, TrialOptions, TrialReport as Tried, TrialSubject};
use super::color::{self, Tone};
use super::{complain, config_path, print};
use crate::base::counted::counted;
use crate::base::time::Clock;
use crate::config::{Loaded, MachineFiles, Snapshot, displayed_path, load, load_without_mistaken_providers};
use crate::observe::journal::for_stderr;
use crate::syntax::{Diagnostic, Severity};

/// The form of what `check` prints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CheckOutput {
    /// One document, for a program.
    Json,
    /// Mistakes and failed trials alone.
    Quiet,
    /// Everything, for a person.
    Text,
}

/// Reads the config, its certificates and its secrets, and reports. Opens no listener.
pub fn run_check(path: &Path, output: CheckOutput) -> ExitCode {
    let loaded = load(path, &MachineFiles);
    let status = loaded.exit_status();
    if output == CheckOutput::Json {
        print(&format!("{}\n", as_json(&loaded)));
        return ExitCode::from(status);
    }
    if let Ok(snapshot) = report(path, loaded, output)
        && output == CheckOutput::Text
    {
        summarise(path, &snapshot);
    }
    ExitCode::from(status)
}

/// The same, and then tries what the config names, but for providers that have mistakes. `vars`: values of route
/// variables, as `NAME=VALUE`.
pub fn check_live(path: &Path, output: CheckOutput, vars: &[String]) -> ExitCode {
    let loaded = load(path, &MachineFiles);
    let status = loaded.exit_status();
    let mut answer = as_json(&loaded);
    let part = match &loaded {
        Loaded::Mistaken(mistakes) => load_without_mistaken_providers(path, &MachineFiles, mistakes),
        Loaded::Fine(..) | Loaded::Unreadable(_) => None,
    };
    let whole = match (loaded, output) {
        (Loaded::Fine(snapshot, _), CheckOutput::Json) => Some(*snapshot),
        (_, CheckOutput::Json) => None,
        (loaded, CheckOutput::Quiet | CheckOutput::Text) => report(path, loaded, output).ok(),
    };
    let (snapshot, left_out) = match (whole, part) {
        (Some(snapshot), _) => (snapshot, Vec::new()),
        (None, Some(part)) => (part.snapshot, part.left_out),
        (None, None) => {
            if output == CheckOutput::Json {
                answer["live"] = json!([]);
                print(&format!("{answer}\n"));
            }
            return ExitCode::from(status);
        }
    };
    if output == CheckOutput::Text && left_out.is_empty() {
        summarise(path, &snapshot);
    }
    let mut shown = TrialScreen::new(output);
    let mut tried = match tried(&snapshot, vars, &mut shown) {
        Ok(tried) => tried,
        Err(why) => {
            complain(&why);
            return ExitCode::from(2);
        }
    };
    tried.left_out = left_out;
    match output {
        CheckOutput::Json => {
            answer["ok"] = Value::Bool(tried.holds());
            answer["live"] = tried.json();
            print(&format!("{answer}\n"));
        }
        CheckOutput::Quiet if tried.holds() => {}
        CheckOutput::Quiet | CheckOutput::Text => print(&tried.verdict(color::stdout_is_colored())),
    }
    ExitCode::from(u8::from(!tried.holds()))
}

/// What a person sees while trials are under way: each subject when its trial has ended, and on a terminal, how many.
struct TrialScreen {
    output: CheckOutput,
    /// The line of progress stands on the terminal.
    has_line: bool,
    is_terminal: bool,
}

impl TrialScreen {
    fn new(output: CheckOutput) -> Self {
        Self { output, has_line: false, is_terminal: output == CheckOutput::Text && io::stderr().is_terminal() }
    }

    /// Takes the line of progress away.
    fn clear(&mut self) {
        if self.has_line {
            // Whoever has closed standard error sees no progress.
            let _ = write!(io::stderr(), "\r\x1b[K");
            self.has_line = false;
        }
    }
}

/// The line of progress: one trial more is under way than have ended.
fn progress_line(ended: usize, total: usize) -> Option<String> {
    (ended < total).then(|| format!("trying {} of {total} …", ended + 1))
}

impl TrialObserver for TrialScreen {
    fn progress(&mut self, ended: usize, total: usize) {
        self.clear();
        if let Some(line) = progress_line(ended, total).filter(|_| self.is_terminal) {
            let mut stderr = io::stderr();
            self.has_line = write!(stderr, "{line}").and_then(|()| stderr.flush()).is_ok();
        }
    }

    fn ended(&mut self, subject: &TrialSubject, findings: &[Finding]) {
        self.clear();
        let is_shown = match self.output {
            CheckOutput::Json => false,
            CheckOutput::Quiet => findings.iter().any(|finding| finding.mark == Mark::Failed),
            CheckOutput::Text => true,
        };
        if is_shown {
            print(&check_live::block(subject, findings, color::stdout_is_colored()));
        }
    }
}

/// Tries what the config names; `tell` gets each subject as soon as its trial has ended.
fn tried(snapshot: &Snapshot, vars: &[String], tell: &mut dyn TrialObserver) -> Result<Tried, String> {
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
            report(path, loaded, CheckOutput::Text).map_err(|()| ExitCode::from(status))
        }
    }
}

/// Loads the config for a command that needs it, or reports why not. Warnings are told unless `output` is quiet.
pub fn load_or_report(path: &Path, output: CheckOutput) -> Result<Snapshot, ExitCode> {
    let loaded = load(path, &MachineFiles);
    let status = loaded.exit_status();
    report(path, loaded, output).map_err(|()| ExitCode::from(status))
}

#[expect(clippy::print_stderr, reason = "mistakes are shown to a person on standard error")]
fn report(path: &Path, loaded: Loaded, output: CheckOutput) -> Result<Snapshot, ()> {
    let color = color::stderr_is_colored();
    let show = |diagnostics: &[Diagnostic]| {
        let is_shown = |one: &&Diagnostic| output != CheckOutput::Quiet || one.severity == Severity::Error;
        for diagnostic in diagnostics.iter().filter(is_shown) {
            let level = match diagnostic.severity {
                Severity::Error => Level::ERROR,
                Severity::Warning => Level::WARN,
            };
            eprintln!("{}\n", for_stderr(level, &diagnostic.render(color)));
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
            complain(&config_path::with_first_config(why, path));
            Err(())
        }
    }
}

fn summarise(path: &Path, snapshot: &Snapshot) {
    print(&format!(
        "{} is {}: {}, {}, {}, {}\n",
        displayed_path(path).display(),
        Tone::Good.paint("fine", color::stdout_is_colored()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_the_trial_that_is_under_way() {
        assert_eq!(progress_line(0, 7).as_deref(), Some("trying 1 of 7 …"));
        assert_eq!(progress_line(6, 7).as_deref(), Some("trying 7 of 7 …"));
        assert_eq!(progress_line(7, 7), None);
    }
}

//! The findings, and their output: for people, in columns, and for programs.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::base::counted::counted;
use crate::cli::color::Tone;

/// The longest name of a step is `certificate`.
const STEP_WIDTH: usize = 11;

/// The subject of a trial: an issuer, a provider or the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TrialSubject {
    /// An issuer that signs clients' tokens, by its name.
    Issuer(Arc<str>),
    /// A provider with its next credentials, by its name.
    NextCredentials(Arc<str>),
    /// A provider, by its name.
    Provider(Arc<str>),
    /// The store that `[store]` configures.
    Store,
}

/// The result of a step in a trial.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mark {
    /// The step failed; the help of the finding says what to do.
    Failed,
    /// The step succeeded, and needs no attention.
    Fine,
    /// It was not tried; the detail says why.
    Skipped,
    /// It works, but somebody should look.
    Warned,
}

impl Mark {
    const fn word(self) -> &'static str {
        match self {
            Mark::Failed => "error",
            Mark::Fine => "ok",
            Mark::Skipped => "-",
            Mark::Warned => "warning",
        }
    }

    const fn tone(self) -> Option<Tone> {
        match self {
            Mark::Failed => Some(Tone::Bad),
            Mark::Fine => Some(Tone::Good),
            Mark::Skipped => None,
            Mark::Warned => Some(Tone::Warning),
        }
    }
}

/// One step and what came of it. None of its texts holds a secret, or free text of the other side.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Host and port, and their purpose; absent if the step belongs to no single place.
    pub place: Option<Arc<str>>,
    /// The step: `dns`, `tcp`, `proxy`, `tls`, `certificate`, `http`, `token`, `clock`, …
    pub step: &'static str,
    /// Result of the step: failed, fine, skipped or warned.
    pub mark: Mark,
    /// Description of the observation, for a person.
    pub detail: String,
    /// Advice about the finding, if there is any.
    pub help: Option<String>,
    /// The same for a program.
    pub figures: Map<String, Value>,
}

impl Finding {
    fn new(step: &'static str, mark: Mark, detail: impl Into<String>, help: Option<String>) -> Self {
        Self { place: None, step, mark, detail: detail.into(), help, figures: Map::new() }
    }

    /// Builds a finding about a step that failed, with advice.
    pub fn failed(step: &'static str, detail: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(step, Mark::Failed, detail, Some(help.into()))
    }

    /// Builds a finding about a step that succeeded.
    pub fn fine(step: &'static str, detail: impl Into<String>) -> Self {
        Self::new(step, Mark::Fine, detail, None)
    }

    /// Builds a finding about a step that was not tried; `detail` gives the reason.
    pub fn skipped(step: &'static str, detail: impl Into<String>, help: Option<String>) -> Self {
        Self::new(step, Mark::Skipped, detail, help)
    }

    /// It works, but somebody should look.
    pub fn warned(step: &'static str, detail: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(step, Mark::Warned, detail, Some(help.into()))
    }

    /// Adds a figure for programs under this name.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.figures.insert(name.to_owned(), value.into());
        self
    }
}

/// Everything that was found, in the order of the config.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialReport {
    /// Subjects that were tried, each with the results of its steps.
    pub groups: Vec<(TrialSubject, Vec<Finding>)>,
    /// The providers that were not tried, because the config has mistakes in them.
    pub left_out: Vec<Arc<str>>,
}

impl TrialReport {
    /// Returns whether everything was tried, and no step has failed.
    pub fn holds(&self) -> bool {
        self.count(Mark::Failed) == 0 && self.left_out.is_empty()
    }

    fn count(&self, mark: Mark) -> usize {
        self.groups.iter().flat_map(|(_, findings)| findings).filter(|finding| finding.mark == mark).count()
    }

    /// For a person: a block for each subject, a line for each step, and what to do below those that need it.
    pub fn text(&self) -> String {
        let blocks: String = self.groups.iter().map(|(subject, findings)| block(subject, findings, false)).collect();
        blocks + &self.verdict(false)
    }

    /// Returns the lines below the blocks: the token calls that were made, and whether everything works.
    pub fn verdict(&self, color: bool) -> String {
        let mut text = String::new();
        let called: Vec<&str> = self.called().collect();
        if !called.is_empty() {
            let _ = writeln!(
                text,
                "\nOne token call was made to each of: {}. Each run makes another; a bank may lock an application\n\
                 that shows a wrong secret too often.",
                called.join(", ")
            );
        }
        let (failed, warned) = (self.count(Mark::Failed), self.count(Mark::Warned));
        let verdict = match failed {
            0 => format!("everything that was tried {}", Tone::Good.paint("works", color)),
            failed => format!("{} {}", counted(failed, "step"), Tone::Bad.paint("failed", color)),
        };
        let warned = if warned == 0 { String::new() } else { format!(", {}", counted(warned, "warning")) };
        let _ = writeln!(text, "\n{verdict}{warned}");
        if !self.left_out.is_empty() {
            let _ = writeln!(text, "not tried, because the config has mistakes in them: {}", self.left_out.join(", "));
        }
        text
    }

    /// The providers whose token endpoint was called.
    fn called(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().filter_map(|(subject, findings)| match subject {
            TrialSubject::Provider(name) if findings.iter().any(|finding| finding.figures.contains_key("calls")) => {
                Some(&**name)
            }
            TrialSubject::Issuer(_)
            | TrialSubject::NextCredentials(_)
            | TrialSubject::Provider(_)
            | TrialSubject::Store => None,
        })
    }

    /// For a program: one object for each step. `ok` is null for what was not tried.
    pub fn json(&self) -> Value {
        let steps = self.groups.iter().flat_map(|(subject, findings)| {
            findings.iter().map(move |finding| {
                let (of, name) = match subject {
                    TrialSubject::Issuer(name) => ("issuer", Value::from(&**name)),
                    TrialSubject::NextCredentials(name) => ("next credentials", Value::from(&**name)),
                    TrialSubject::Provider(name) => ("provider", Value::from(&**name)),
                    TrialSubject::Store => ("store", Value::Null),
                };
                let ok = match finding.mark {
                    Mark::Failed => Value::Bool(false),
                    Mark::Fine | Mark::Warned => Value::Bool(true),
                    Mark::Skipped => Value::Null,
                };
                let provider = if matches!(of, "next credentials" | "provider") { name.clone() } else { Value::Null };
                json!({
                    "provider": provider,
                    "of": of,
                    "name": name,
                    "place": finding.place.as_deref(),
                    "step": finding.step,
                    "ok": ok,
                    "warning": finding.mark == Mark::Warned,
                    "detail": finding.detail,
                    "help": finding.help,
                    "figures": finding.figures,
                })
            })
        });
        let left_out = self.left_out.iter().map(|name| {
            json!({
                "provider": &**name,
                "of": "provider",
                "name": &**name,
                "place": null,
                "step": "config",
                "ok": null,
                "warning": false,
                "detail": "not tried, because the config has mistakes in it",
                "help": "see `diagnostics`",
                "figures": {},
            })
        });
        Value::Array(steps.chain(left_out).collect())
    }
}

/// Returns the block of one subject, for a person: a line for each step, and what to do below those that need it.
pub fn block(subject: &TrialSubject, findings: &[Finding], color: bool) -> String {
    let mut text = match subject {
        TrialSubject::Issuer(name) => format!("\nissuer {name}\n"),
        TrialSubject::NextCredentials(name) => format!("\nprovider {name}, next credentials\n"),
        TrialSubject::Provider(name) => format!("\nprovider {name}\n"),
        TrialSubject::Store => "\nstore\n".to_owned(),
    };
    let mut here = &None;
    for Finding { place, step, mark, detail, help, .. } in findings {
        if let (true, Some(place)) = (place != here, place) {
            let _ = writeln!(text, "  {place}");
        }
        here = place;
        let word = mark.tone().map_or_else(|| mark.word().to_owned(), |tone| tone.paint(mark.word(), color));
        let blanks = " ".repeat(7_usize.saturating_sub(mark.word().len()));
        let _ = writeln!(text, "    {word}{blanks}  {step:<STEP_WIDTH$}  {detail}");
        if let Some(help) = help {
            let _ = writeln!(text, "    {:<7}  {:<STEP_WIDTH$}  -> {help}", "", "");
        }
    }
    text
}

/// A span of time for a person: `45 s`, `12 min`, `3 h`, `40 days`.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => match seconds % 60 {
            0 => format!("{} min", seconds / 60),
            rest => format!("{} min {rest} s", seconds / 60),
        },
        7200..172_800 => format!("{} h", seconds / 3600),
        172_800.. => format!("{} days", seconds / 86_400),
    }
}

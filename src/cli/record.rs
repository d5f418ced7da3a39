//! `countersign record`: what has changed between two recordings.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::{complain, print};
use crate::base::counted::counted;
use crate::record::{DriftReport, RecordedCall, RecordedConversation, conversation_files, drift};

#[derive(Debug, Subcommand)]
pub enum RecordCommand {
    /// Say what has changed from one recording to another: statuses, header names, JSON members and types, error codes, token lives
    Diff {
        /// A recording, a folder of recordings, or the conversations of a profile
        #[arg(value_name = "OLD")]
        old: PathBuf,
        /// What is compared with it
        #[arg(value_name = "NEW")]
        new: PathBuf,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs a command about recordings. 0: no difference, 1: there are some, 2: something cannot be read.
pub fn run(command: &RecordCommand) -> ExitCode {
    let RecordCommand::Diff { old, new, json } = command;
    match (calls(old), calls(new)) {
        (Ok(old), Ok(new)) => {
            let report = drift(&old, &new);
            print(&if *json { as_json(&report) } else { as_text(&report) });
            ExitCode::from(u8::from(!report.lines.is_empty()))
        }
        (Err(why), _) | (_, Err(why)) => {
            complain(&why);
            ExitCode::from(2)
        }
    }
}

/// The calls of a file, or of all files of a folder.
fn calls(path: &Path) -> Result<Vec<RecordedCall>, String> {
    let conversations = conversations(path)?;
    let calls: Vec<RecordedCall> = conversations.into_iter().flat_map(|(_, found)| found.calls).collect();
    if calls.is_empty() { Err(format!("{} has no answers to compare", path.display())) } else { Ok(calls) }
}

/// The conversations of a file, or of all files of a folder, with their paths. The error is for a person.
pub(super) fn conversations(path: &Path) -> Result<Vec<(PathBuf, RecordedConversation)>, String> {
    let unreadable = |path: &Path, why: &dyn std::fmt::Display| format!("{} cannot be read: {why}", path.display());
    let files = match path.is_dir() {
        true => conversation_files(path).map_err(|error| unreadable(path, &error))?,
        false => vec![path.to_owned()],
    };
    if files.is_empty() {
        return Err(format!("{} has no conversations (*.toml)", path.display()));
    }
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
        let found = RecordedConversation::parse(&text).map_err(|error| unreadable(&file, &error))?;
        Ok((file, found))
    };
    files.into_iter().map(read).collect()
}

fn as_text(report: &DriftReport) -> String {
    let mut text = String::new();
    for line in &report.lines {
        let _ = writeln!(text, "changed  {line}");
    }
    for line in &report.alone {
        let _ = writeln!(text, "alone    {line}");
    }
    let lines = report.lines.len();
    text + &format!("\n{} in {}.\n", counted(lines, "difference"), counted(report.compared, "call"))
}

fn as_json(report: &DriftReport) -> String {
    let DriftReport { lines, compared, alone } = report;
    format!("{:#}\n", json!({ "ok": lines.is_empty(), "differences": lines, "compared": compared, "alone": alone }))
}

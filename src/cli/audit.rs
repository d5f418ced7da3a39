//! `countersign audit verify`: whether the audit log is whole, and if not, where it is broken first.

use std::ffi::OsStr;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;

use super::check::load_quietly;
use super::examples::AUDIT_EXAMPLES;
use super::{complain, config_path, print};
use crate::base::counted::counted;
use crate::base::secret::SecretString;
use crate::config::{Files as _, MachineFiles};
use crate::observe::audit::verify::{Anchor, Break, ChainVerdict, ChainVerifier, WholeChain};
use crate::observe::audit::{ChainKey, Seal, is_mark_of_rotation};

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Verify the chain of an audit log, and name the first record that does not hold
    #[command(after_help = AUDIT_EXAMPLES)]
    Verify(VerifyArguments),
}

#[derive(Args, Debug)]
pub struct VerifyArguments {
    /// Its files, the oldest first: they are one chain; of a file named alone, those that were rotated count, too.
    /// Without any, the file of the config
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Look at the named files alone, without those that were rotated
    #[arg(long)]
    alone: bool,
    /// A file with the key; may be repeated, where the key was replaced
    #[arg(long, value_name = "FILE")]
    key_file: Vec<PathBuf>,
    /// An environment variable with the key; may be repeated
    #[arg(long, value_name = "NAME")]
    key_env: Vec<String>,
    /// Take the key of this config, too, and its file if none is named
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A head that the log told of: the record of this number must be there, with this hash; may be repeated
    #[arg(long, value_name = "SEQ:HASH", value_parser = anchor)]
    head: Vec<Anchor>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Runs one of the commands.
pub fn run(command: &AuditCommand) -> ExitCode {
    match command {
        AuditCommand::Verify(arguments) => verify(arguments),
    }
}

fn anchor(text: &str) -> Result<Anchor, String> {
    Anchor::parse(text).ok_or_else(|| "write it as in the log: SEQ:HASH, a number and 64 hexadecimal digits".to_owned())
}

/// 0: whole; 1: broken; 2: it cannot be judged.
fn verify(arguments: &VerifyArguments) -> ExitCode {
    let (files, keys) = match material(arguments) {
        Ok(material) => material,
        Err(code) => return code,
    };
    match look_through(arguments, &files, keys) {
        Ok(whole) => {
            if arguments.json {
                print(&format!("{}\n", view(&whole)));
            } else {
                print(&summary(&whole));
            }
            ExitCode::SUCCESS
        }
        Err(ChainVerdict::Broken(broken)) => {
            let Break { file, line, seq, flaw, told } = &broken;
            if arguments.json {
                let found = json!({ "file": file, "line": line, "seq": seq, "flaw": flaw.as_str(), "message": told });
                print(&format!("{}\n", json!({ "whole": false, "broken": found })));
            } else {
                complain(&format!("{file}:{line}: broken at record {seq}: {told}"));
            }
            ExitCode::from(1)
        }
        Err(ChainVerdict::Unjudged(why)) => {
            if arguments.json {
                print(&format!("{}\n", json!({ "whole": null, "unjudged": why })));
            } else {
                complain(&why);
            }
            ExitCode::from(2)
        }
    }
}

fn look_through(
    arguments: &VerifyArguments,
    files: &[PathBuf],
    keys: Vec<Arc<ChainKey>>,
) -> Result<WholeChain, ChainVerdict> {
    let mut verifier = ChainVerifier::new(keys, arguments.head.clone());
    let files = chain_files(files, arguments.alone);
    if files.is_empty() {
        return Err(ChainVerdict::Unjudged("no file has such a name: name the audit log itself".to_owned()));
    }
    for path in &files {
        let name = path.display().to_string();
        let file =
            File::open(path).map_err(|error| ChainVerdict::Unjudged(format!("{name} cannot be read: {error}")))?;
        verifier.file(&name, BufReader::with_capacity(1 << 20, file))?;
    }
    verifier.finish()
}

/// Lists the files of the chain. A pattern that the shell found no file for, and left as it is, stands for none; of a
/// file that is named alone, those that were rotated come first.
fn chain_files(named: &[PathBuf], alone: bool) -> Vec<PathBuf> {
    let is_pattern = |path: &Path| path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.contains('*'));
    let files: Vec<PathBuf> = named.iter().filter(|path| path.exists() || !is_pattern(path)).cloned().collect();
    match &files[..] {
        [only] if !alone => rotated(only).into_iter().chain([only.clone()]).collect(),
        _ => files,
    }
}

/// Lists the files that were moved aside when this log was full, the oldest first.
fn rotated(log: &Path) -> Vec<PathBuf> {
    let Some(name) = log.file_name().and_then(OsStr::to_str) else { return Vec::new() };
    let prefix = format!("{name}.");
    let mut found = MachineFiles.list(log.parent().unwrap_or(Path::new(""))).unwrap_or_default();
    found.retain(|path| {
        let mark = path.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_prefix(&prefix));
        mark.is_some_and(is_mark_of_rotation)
    });
    found.sort();
    found
}

/// The files that are named, or that of the config, and the keys.
fn material(arguments: &VerifyArguments) -> Result<(Vec<PathBuf>, Vec<Arc<ChainKey>>), ExitCode> {
    let refuse = |why: String| {
        complain(&why);
        ExitCode::from(2)
    };
    let mut keys = Vec::new();
    for path in &arguments.key_file {
        let key = key_file(path).map_err(|why| refuse(format!("the key in {}: {why}", path.display())))?;
        keys.push(Arc::new(ChainKey::new(&key)));
    }
    for name in &arguments.key_env {
        let key = MachineFiles.env(name).filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| refuse("the environment variable of --key-env is not set, or empty".to_owned()))?;
        keys.push(Arc::new(ChainKey::new(&SecretString::from(key))));
    }
    let mut files = arguments.files.clone();
    let named = arguments.config.clone().or_else(config_path::before);
    let Some(config) = named.or_else(|| files.is_empty().then(config_path::usual)) else { return Ok((files, keys)) };
    let audit = load_quietly(&config)?.audit.clone();
    if files.is_empty() {
        let path = audit.as_ref().and_then(|audit| audit.path.clone());
        let none = || refuse(format!("{} names no file as `to` of [audit]: name the log's files", config.display()));
        files.push(path.ok_or_else(none)?);
    }
    if let Some(Seal::Keyed(key)) = audit.map(|audit| audit.seal) {
        keys.push(key);
    }
    Ok((files, keys))
}

/// One newline at its end is dropped, as in a config.
fn key_file(path: &Path) -> Result<SecretString, String> {
    let bytes = MachineFiles.read(path).map_err(|error| error.to_string())?;
    let mut text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() { Err("the file is empty".to_owned()) } else { Ok(SecretString::from(text)) }
}

fn summary(whole: &WholeChain) -> String {
    let count = |number: u64, noun: &str| counted(usize::try_from(number).unwrap_or(usize::MAX), noun);
    let vouched = if whole.keyed { "sealed under a key" } else { "not sealed under a key" };
    let mut text = format!(
        "whole: {} in {}, {} to {}, {vouched}; {}\nhead: {}\n",
        count(whole.records, "record"),
        count(whole.files, "file"),
        whole.first,
        whole.last.seq,
        count(whole.calls, "call"),
        whole.last
    );
    if whole.first > 1 {
        text += "the chain begins before these files\n";
    }
    if whole.recovered > 0 {
        text += &format!("{} left by a crash, as the records after them tell\n", count(whole.recovered, "torn piece"));
    }
    if whole.lost > 0 {
        text += &format!("{} lost before they could be written, as gaps tell\n", count(whole.lost, "record"));
    }
    text
}

fn view(whole: &WholeChain) -> serde_json::Value {
    json!({
        "whole": true,
        "files": whole.files,
        "records": whole.records,
        "calls": whole.calls,
        "first": whole.first,
        "last": whole.last.seq,
        "head": whole.last.to_string(),
        "keyed": whole.keyed,
        "recovered": whole.recovered,
        "lost": whole.lost,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rotated_files_of_a_log_are_found_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let log = at("audit.log");
        let only = std::slice::from_ref(&log);
        assert_eq!(chain_files(&[at("audit.log.*"), log.clone()], false), only, "nothing was rotated yet");
        let names =
            ["audit.log.000000000306", "audit.log.000000000012", "audit.log.broken", "audit.log.1", "other.log"];
        for name in names {
            std::fs::write(at(name), "").unwrap();
        }
        let whole = [at("audit.log.000000000012"), at("audit.log.000000000306"), log.clone()];
        assert_eq!(chain_files(only, false), whole);
        assert_eq!(chain_files(only, true), only);
        // Several files are a chain that somebody put together.
        assert_eq!(chain_files(&[at("audit.log.1"), log.clone()], false), [at("audit.log.1"), log]);
    }
}

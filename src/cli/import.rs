//! `countersign import`: another gateway's config becomes a `proxy.toml`, with a line for each thing that does not.
//!
//! Files of others are untrusted: they are read within bounds, nothing in them is executed or fetched, and files that they
//! include are read from their own folder alone. Credentials are never copied: the config names where they are to be.

mod agentgateway;
mod config_text;
mod credential;
mod directive;
mod draft;
mod envoy;
mod httpd;
mod kind;
mod kong;
mod krakend;
mod nginx;
mod place;
mod spring;
mod words;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueHint};
use secrecy::SecretString;

use self::draft::Draft;
use self::kind::{ImportKind, IncludedFiles, read_source};
use super::init::put;
use super::{complain, print};
use crate::base::counted::counted;
use crate::base::time::Clock;
use crate::config::{Files, build};
use crate::sim::{LeafSpec, SimAuthority};
use crate::syntax::{Diagnostic, Severity};

/// Largest file, and most bytes of all files of an import together.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// The arguments of `countersign import`.
#[derive(Args, Debug)]
pub struct ImportArguments {
    /// Files of the other gateway
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The gateway that they are of; default: found out by their content
    #[arg(long, value_name = "KIND", value_enum)]
    from: Option<ImportKind>,
    /// Folder to write into; default: print the config
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
}

/// Reads the files, writes or prints the config, and tells what it does not have. Exit code 0: all was carried over; 1:
/// something was not, or the config has mistakes; 2: nothing could be read or written.
pub fn run(arguments: &ImportArguments) -> ExitCode {
    match import(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            complain(&why);
            ExitCode::from(2)
        }
    }
}

/// Answers whether all was carried over.
fn import(arguments: &ImportArguments) -> Result<bool, String> {
    let mut draft = Draft::default();
    let mut origins = Vec::new();
    let budget = Cell::new(MAX_BYTES);
    for path in &arguments.files {
        let text = read_bounded(path, &budget)?;
        draft.file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = fs::canonicalize(folder).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        read_source(&text, arguments.from, &OwnFolder { folder, budget: &budget }, &mut draft)?;
        origins.push(draft.file.clone());
    }
    if draft.routes.is_empty() {
        tell_losses(&draft);
        return Err("no route could be carried over, so nothing is written".to_owned());
    }
    if draft.routes.len() * draft.clients.len() > 100_000 {
        return Err("too many routes and clients for one config; import parts of it".to_owned());
    }
    draft.finish();
    let config = draft.config_text(&origins.join(", "));
    let mistakes = mistakes(&draft, &config)?;
    match &arguments.out {
        Some(folder) => write(folder, &draft, &config)?,
        None => print(&printed(&draft, &config)),
    }
    tell_losses(&draft);
    tell_mistakes(&mistakes);
    Ok(draft.losses.is_empty() && mistakes.is_empty())
}

#[expect(clippy::print_stderr, reason = "what is not carried over is told on standard error")]
fn tell_losses(draft: &Draft) {
    for loss in &draft.losses {
        eprintln!("{}", loss.line());
    }
    if !draft.losses.is_empty() {
        complain(&format!(
            "{} not carried over; docs/import.md says what can be",
            counted(draft.losses.len(), "thing")
        ));
    }
}

#[expect(clippy::print_stderr, reason = "mistakes are shown to a person on standard error")]
fn tell_mistakes(mistakes: &[Diagnostic]) {
    for mistake in mistakes {
        eprintln!("{}\n", mistake.render(false));
    }
    if !mistakes.is_empty() {
        complain(&format!("the config has {}; correct it before a start", counted(mistakes.len(), "mistake")));
    }
}

/// The config and, as remarks, the files that belong beside it.
fn printed(draft: &Draft, config: &str) -> String {
    let mut text = config.to_owned();
    for (path, profile) in &draft.profiles {
        let _ = writeln!(text, "\n# Put this into {path}:");
        for line in profile.lines() {
            let _ = writeln!(text, "#   {line}");
        }
    }
    text
}

/// Writes the config and what belongs beside it. Nothing that exists is replaced.
fn write(folder: &Path, draft: &Draft, config: &str) -> Result<(), String> {
    let mut files: Vec<(PathBuf, &str)> =
        draft.profiles.iter().map(|(name, text)| (folder.join(name), text.as_str())).collect();
    files.push((folder.join("proxy.toml"), config));
    for (path, _) in &files {
        if fs::symlink_metadata(path).is_ok() {
            return Err(format!(
                "{} is there already and stays as it is; name another folder with --out",
                path.display()
            ));
        }
    }
    for (path, text) in &files {
        put(path, &SecretString::from((*text).to_owned()), 0o644)?;
    }
    let names: Vec<String> = files.iter().map(|(path, _)| path.display().to_string()).collect();
    let mut text = format!("Written: {}\n", names.join(", "));
    if !draft.needed.is_empty() {
        text.push_str("\nTo be there before a start:\n\n");
        for (what, why) in &draft.needed {
            let _ = writeln!(text, "  {what}    # {why}");
        }
    }
    let _ = writeln!(text, "\nNext:\n\n  countersign check --live -c {}", folder.join("proxy.toml").display());
    print(&text);
    Ok(())
}

/// The mistakes that `countersign check` would find once every variable and every file is there.
fn mistakes(draft: &Draft, config: &str) -> Result<Vec<Diagnostic>, String> {
    let files = Promised::of(draft)?;
    let (_, found) = build(Path::new("proxy.toml"), config.to_owned(), &files);
    Ok(found.into_iter().filter(|diagnostic| diagnostic.severity == Severity::Error).collect())
}

/// Files and variables that a config names and that are not looked at: each is taken to be there and in order.
struct Promised<'a> {
    profiles: &'a BTreeMap<String, String>,
    /// Paths of certificates and keys.
    pem_paths: Vec<String>,
    /// A certificate of a CA, one of its leaves, and the leaf's key.
    pem: String,
}

impl<'a> Promised<'a> {
    fn of(draft: &'a Draft) -> Result<Self, String> {
        let day = Duration::from_secs(24 * 3600);
        let now = Clock::System.now();
        let authority = SimAuthority::lasting("placeholder", now, day)?;
        let mut spec = LeafSpec::server(now);
        spec.valid_until = now.plus(day).wall;
        let leaf = authority.issue(&spec)?;
        let of_tls = |value: &String| {
            toml::from_str::<toml::Table>(&format!("p = {value}")).ok()?.get("p")?.as_str().map(str::to_owned)
        };
        let mut pem_paths: Vec<String> =
            draft.providers.iter().flat_map(|provider| provider.tls.values().filter_map(of_tls)).collect();
        for listener in &draft.listeners {
            pem_paths.extend(listener.tls.iter().flat_map(|(cert, key)| [cert.clone(), key.clone()]));
            pem_paths.extend(listener.client_ca.clone());
        }
        Ok(Self { profiles: &draft.profiles, pem_paths, pem: format!("{}{}", leaf.cert_pem, leaf.key_pem) })
    }
}

impl Files for Promised<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let profile = self.profiles.iter().find(|(name, _)| path.ends_with(name));
        let is_pem = self.pem_paths.iter().any(|known| path.ends_with(known));
        Ok(match profile {
            Some((_, text)) => text.clone().into_bytes(),
            None if is_pem => self.pem.clone().into_bytes(),
            None => b"placeholder".to_vec(),
        })
    }

    fn env(&self, _name: &str) -> Option<String> {
        Some("placeholder".to_owned())
    }
}

/// Reads a file of text, within what is left of the bytes of the whole import.
fn read_bounded(path: &Path, budget: &Cell<u64>) -> Result<String, String> {
    let told = |why: String| format!("{} cannot be read: {why}", path.display());
    let file = File::open(path).map_err(|error| told(error.to_string()))?;
    if !file.metadata().is_ok_and(|known| known.is_file()) {
        return Err(told("it is no file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(budget.get() + 1).read_to_end(&mut bytes).map_err(|error| told(error.to_string()))?;
    let left = budget.get().checked_sub(bytes.len() as u64);
    budget.set(left.ok_or_else(|| told(format!("an import has at most {} MiB", MAX_BYTES / 1024 / 1024)))?);
    String::from_utf8(bytes).map_err(|_| told("it is not UTF-8 text".to_owned()))
}

/// The folder of a file: what it includes is read from there and below, and from nowhere else.
struct OwnFolder<'a> {
    folder: PathBuf,
    budget: &'a Cell<u64>,
}

/// The reason for which an included file is not read.
const OUTSIDE: &str = "it is not below the folder of its file, so it was not read; import it as well";

impl OwnFolder<'_> {
    fn one(&self, path: &Path) -> Result<(String, String), String> {
        let real = fs::canonicalize(path)
            .map_err(|_| "there is no such file, so it was not read; import it as well".to_owned())?;
        let Ok(below) = real.strip_prefix(&self.folder) else { return Err(OUTSIDE.to_owned()) };
        let text =
            read_bounded(&real, self.budget).map_err(|_| "it cannot be read as text, or is too large".to_owned())?;
        Ok((below.display().to_string(), text))
    }
}

impl IncludedFiles for OwnFolder<'_> {
    fn read(&self, name: &str) -> Result<Vec<(String, String)>, String> {
        let path = self.folder.join(name);
        if !name.contains(['*', '?', '[']) {
            return self.one(&path).map(|found| vec![found]);
        }
        let (Some(folder), Some(pattern)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Err(OUTSIDE.to_owned());
        };
        let real = fs::canonicalize(folder).map_err(|_| OUTSIDE.to_owned())?;
        let pattern = glob::Pattern::new(pattern).map_err(|_| "its name is no pattern".to_owned())?;
        if !real.starts_with(&self.folder) {
            return Err(OUTSIDE.to_owned());
        }
        let listed = fs::read_dir(&real).map_err(|_| OUTSIDE.to_owned())?;
        let mut names: Vec<PathBuf> = listed
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| pattern.matches(name)))
            .take(1000)
            .collect();
        names.sort();
        names.iter().map(|path| self.one(path)).collect()
    }
}

#[cfg(test)]
mod tests;

//! The files behind a config, kept to detect changes, and to read the config again with new secrets only.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::command_output::CommandError;
use super::files::Files;
use crate::base::secret::sha256;
use crate::base::time::Now;
use crate::key_service::KeyServices;
use crate::secret_source::{SecretName, SecretSource, SecretSources};
use crate::syntax::{Kind, Node};

/// The files behind a snapshot. `Debug` shows no contents.
#[derive(Clone, Default)]
pub struct Sources {
    /// Digest of everything that was read, secrets and private keys included: equal ones mean equal configs.
    pub fingerprint: [u8; 32],
    /// The config itself, what it includes, profiles and packs of them; in the order of reading.
    pub texts: Vec<(PathBuf, Vec<u8>)>,
    /// Certificates, keys and secrets, each with a digest.
    pub secrets: Vec<(PathBuf, [u8; 32])>,
    /// Commands that secrets came from.
    pub commands: Vec<SourceCommand>,
    /// Secrets that came from sources.
    pub remotes: Vec<RemoteSecret>,
    /// Folders that `include` looked into, and those of packs, each with a digest of the names there.
    pub folders: Vec<(PathBuf, [u8; 32])>,
    /// The sections of the config, by what a person calls them, each with a digest.
    pub outline: Vec<(String, [u8; 32])>,
}

/// A command that a secret comes from. `Debug` shows its program alone: an argument may be a secret.
#[derive(Clone, Eq, PartialEq)]
pub struct SourceCommand {
    /// The program: a name that is looked for in `PATH`, or a path.
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// It is run again after this long; `None`: only with a reload.
    pub ttl: Option<Duration>,
    /// It is ended when it takes longer.
    pub timeout: Duration,
    /// Digest of what it wrote.
    pub digest: [u8; 32],
}

impl SourceCommand {
    /// Returns whether it is the same command, whatever it wrote.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.program, &self.arguments) == (&other.program, &other.arguments)
    }
}

impl fmt::Debug for SourceCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SourceCommand").field(&self.program).finish()
    }
}

/// A secret that came from a source.
#[derive(Clone, Debug)]
pub struct RemoteSecret {
    pub source: Arc<SecretSource>,
    pub name: SecretName,
    /// It is read again after this long, unless it has a lease.
    pub ttl: Duration,
    /// Digest of all of its fields.
    pub digest: [u8; 32],
}

impl RemoteSecret {
    /// Returns whether it is the same secret, whatever it holds.
    pub fn is_same(&self, other: &Self) -> bool {
        self.source.name() == other.source.name() && self.name == other.name
    }
}

impl fmt::Display for RemoteSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` of [secret_source.{}]", self.name, self.source.name())
    }
}

impl Sources {
    /// Lists the differences between the config read before and this one, one line per change. The lines show no
    /// contents.
    pub fn changes(&self, before: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        compare(&before.outline, &self.outline, String::clone, &mut lines);
        let texts = |sources: &Self| -> Vec<(PathBuf, [u8; 32])> {
            // The first is the config itself, whose sections tell what has changed.
            sources.texts.iter().skip(1).map(|(path, bytes)| (path.clone(), sha256(bytes))).collect()
        };
        let shown = |path: &PathBuf| path.display().to_string();
        compare(&texts(before), &texts(self), shown, &mut lines);
        compare(&before.secrets, &self.secrets, shown, &mut lines);
        for command in &self.commands {
            let known = before.commands.iter().find(|known| known.is_same(command));
            if known.is_some_and(|known| known.digest != command.digest) {
                lines.push(format!("changed output of `{}`", command.program.display()));
            }
        }
        for secret in &self.remotes {
            let known = before.remotes.iter().find(|known| known.is_same(secret));
            if known.is_some_and(|known| known.digest != secret.digest) {
                lines.push(format!("changed {secret}"));
            }
        }
        if lines.is_empty() && before.fingerprint != self.fingerprint {
            lines.push("something that no section shows: an order, a comment, an environment variable".to_owned());
        }
        lines
    }
}

fn compare<K: PartialEq>(
    before: &[(K, [u8; 32])],
    after: &[(K, [u8; 32])],
    shown: impl Fn(&K) -> String,
    lines: &mut Vec<String>,
) {
    for (key, digest) in after {
        match before.iter().find(|(known, _)| known == key) {
            None => lines.push(format!("added {}", shown(key))),
            Some((_, old)) if old != digest => lines.push(format!("changed {}", shown(key))),
            Some(_) => {}
        }
    }
    for (key, _) in before.iter().filter(|(key, _)| after.iter().all(|(known, _)| known != key)) {
        lines.push(format!("removed {}", shown(key)));
    }
}

/// The sections of a config.
pub(super) fn outline(root: &Node) -> Vec<(String, [u8; 32])> {
    let mut sections = Vec::new();
    for entry in root.as_table().iter().flat_map(|table| &table.entries) {
        match (entry.key.as_str(), &entry.value.kind) {
            (key @ ("client" | "profile_pack" | "provider" | "secret_source"), Kind::Table(table)) => {
                let named = table.entries.iter();
                sections.extend(named.map(|named| (format!("[{key}.{}]", named.key), digest(&named.value))));
            }
            (key, Kind::Array(items)) if items.iter().all(|item| item.as_table().is_some()) => {
                for (at, item) in (1..).zip(items) {
                    let name = item.as_table().and_then(|table| table.find("name")?.value.as_str());
                    let name = name.map_or_else(|| format!("{key} number {at}"), |name| format!("{key} `{name}`"));
                    sections.push((name, digest(item)));
                }
            }
            (key, Kind::Table(_)) => sections.push((format!("[{key}]"), digest(&entry.value))),
            (key, Kind::Array(_) | Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_)) => {
                sections.push((format!("`{key}`"), digest(&entry.value)));
            }
        }
    }
    sections
}

fn digest(node: &Node) -> [u8; 32] {
    let mut inputs = Vec::new();
    gather(node, &mut inputs);
    sha256(&inputs)
}

fn gather(node: &Node, inputs: &mut Vec<u8>) {
    let mut note = |kind: u8, bytes: &[u8]| {
        inputs.push(kind);
        inputs.extend(sha256(bytes));
    };
    match &node.kind {
        Kind::Array(items) => {
            note(0, &(items.len() as u64).to_be_bytes());
            items.iter().for_each(|item| gather(item, inputs));
        }
        Kind::Boolean(yes) => note(1, &[u8::from(*yes)]),
        Kind::Float(number) => note(2, &number.to_bits().to_be_bytes()),
        Kind::Integer(number) => note(3, &number.to_be_bytes()),
        Kind::String(text) => note(4, text.as_bytes()),
        Kind::Table(table) => {
            note(5, &(table.entries.len() as u64).to_be_bytes());
            let mut entries: Vec<_> = table.entries.iter().collect();
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            for entry in entries {
                inputs.extend(sha256(entry.key.as_bytes()));
                gather(&entry.value, inputs);
            }
        }
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

/// The world as it is now, but for the texts of a config, which are as they were read before.
#[derive(Clone, Copy)]
pub struct AsRead<'a> {
    /// Sources of the config as read before.
    pub sources: &'a Sources,
    /// Access to everything else, as it is now.
    pub files: &'a dyn Files,
}

impl Files for AsRead<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.sources.texts.iter().find(|(known, _)| known == path) {
            Some((_, bytes)) => Ok(bytes.clone()),
            None => self.files.read(path),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let texts = self.sources.texts.iter().map(|(path, _)| path);
        Ok(texts.filter(|path| path.parent() == Some(folder)).cloned().collect())
    }

    fn env(&self, name: &str) -> Option<String> {
        self.files.env(name)
    }

    fn now(&self) -> Option<Now> {
        self.files.now()
    }

    fn command(&self, command: &SourceCommand) -> Result<Zeroizing<Vec<u8>>, CommandError> {
        self.files.command(command)
    }

    fn key_services(&self) -> Option<&KeyServices> {
        self.files.key_services()
    }

    fn secret_sources(&self) -> Option<&SecretSources> {
        self.files.secret_sources()
    }

    fn appendable(&self, path: &Path) -> io::Result<()> {
        self.files.appendable(path)
    }

    fn creatable(&self, path: &Path) -> io::Result<()> {
        self.files.creatable(path)
    }
}

/// Record of everything read so far, from which `Sources` are made.
#[derive(Default)]
pub(super) struct Gathering {
    inputs: Vec<u8>,
    texts: Vec<(PathBuf, Vec<u8>)>,
    secrets: Vec<(PathBuf, [u8; 32])>,
    commands: Vec<SourceCommand>,
    remotes: Vec<RemoteSecret>,
    folders: Vec<(PathBuf, [u8; 32])>,
}

/// A digest of the names in a folder.
pub fn names_digest(paths: &[PathBuf]) -> [u8; 32] {
    let mut names: Vec<&[u8]> = paths.iter().map(|path| path.as_os_str().as_encoded_bytes()).collect();
    names.sort_unstable();
    sha256(&names.into_iter().flat_map(sha256).collect::<Vec<u8>>())
}

impl Gathering {
    pub(super) fn folder(&mut self, path: &Path, names: &[PathBuf]) {
        self.folders.push((path.to_owned(), names_digest(names)));
    }

    pub(super) fn text(&mut self, path: &Path, bytes: &[u8]) {
        self.note(path.as_os_str().as_encoded_bytes(), bytes);
        if self.texts.iter().all(|(known, _)| known != path) {
            self.texts.push((path.to_owned(), bytes.to_vec()));
        }
    }

    pub(super) fn secret(&mut self, path: &Path, bytes: &[u8]) {
        self.note(path.as_os_str().as_encoded_bytes(), bytes);
        if self.secrets.iter().all(|(known, _)| known != path) {
            self.secrets.push((path.to_owned(), sha256(bytes)));
        }
    }

    pub(super) fn command(&mut self, command: SourceCommand) {
        self.note(command.program.as_os_str().as_encoded_bytes(), &command.digest);
        match self.commands.iter_mut().find(|known| known.is_same(&command)) {
            // The shortest of its lives counts.
            Some(known) => known.ttl = [known.ttl, command.ttl].into_iter().flatten().min(),
            None => self.commands.push(command),
        }
    }

    pub(super) fn remote(&mut self, secret: RemoteSecret) {
        self.note(secret.to_string().as_bytes(), &secret.digest);
        match self.remotes.iter_mut().find(|known| known.is_same(&secret)) {
            Some(known) => known.ttl = known.ttl.min(secret.ttl),
            None => self.remotes.push(secret),
        }
    }

    pub(super) fn variable(&mut self, name: &str, value: &str) {
        self.note(name.as_bytes(), value.as_bytes());
    }

    fn note(&mut self, name: &[u8], value: &[u8]) {
        self.inputs.extend(sha256(name));
        self.inputs.extend(sha256(value));
    }

    pub(super) fn finish(&self, root: &Node) -> Sources {
        let fingerprint = sha256(&self.inputs);
        let (texts, secrets) = (self.texts.clone(), self.secrets.clone());
        let (commands, remotes) = (self.commands.clone(), self.remotes.clone());
        let folders = self.folders.clone();
        Sources { fingerprint, texts, secrets, commands, remotes, folders, outline: outline(root) }
    }
}

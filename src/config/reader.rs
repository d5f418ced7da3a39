//! Reading what a config points at: files, secrets, profiles.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::base::counted::counted;
use crate::base::secret::{SecretString, sha256};
use crate::base::time::{Clock, Now};
use crate::key_service::KeyServices;
use crate::provider::{FileContent, PackDemand, PackFault, Profile, ProfilePack, ReadValue, RemoteKind};
use crate::secret_source::{SecretDocument, SecretName, SecretSources, SourceProblem};
use crate::signing::algorithm::SigningAlgorithm;
use crate::signing::signer::Signer;
use crate::syntax::{Diagnostics, Fields, FromNode, Kind, Node, SourceText, suggest};
use crate::tls::{self, ForeignForm, TlsConfigError};

use super::files::Files;
use super::profile_pack::PackFiles;
use super::redact::{expansion, is_variable};
use super::secret_source::{self, NamedSecretSource, SourceReference};
use super::service_key;
use super::snapshot::CertificateEnd;
use super::sources::{Gathering, RemoteSecret, SourceCommand, Sources};
use super::spanned_text::{Position, SpannedText};

/// The places that a value may come from, besides the config itself.
const SOURCES_HELP: &str = "write `{ env = \"NAME\" }`, `{ file = \"path\" }`, `{ command = [\"program\", \"argument\"] }` or \
                            `{ source = \"NAME\", name = \"…\" }`";
/// A command for a value may take this long unless the config says otherwise.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// A command is run again, or a source asked, no sooner than after this long.
pub(super) const LEAST_TTL: Duration = Duration::from_secs(1);

/// Seconds of a day.
const DAY: i64 = 86_400;
/// A certificate that ends within this time, in seconds, is warned of.
const SOON: i64 = 30 * DAY;

/// A command that was run, with its output, or the reason for which there is none.
type RunCommand = (SourceCommand, Result<Zeroizing<Vec<u8>>, String>);
/// The sources of secrets of a config by their names; `None`: one that was reported.
type KnownSources = Vec<(String, Option<Rc<NamedSecretSource>>)>;
/// A secret that a source was asked for, once in a reading.
type AskedSecret = (Rc<NamedSecretSource>, SecretName, Result<Arc<SecretDocument>, SourceProblem>);

/// One reading of one config: its place on disk, the world around it, the mistakes found so far.
pub(super) struct Reader<'a> {
    pub(super) report: &'a Diagnostics,
    files: &'a dyn Files,
    directory: PathBuf,
    profiles: RefCell<HashMap<PathBuf, Option<Arc<Profile>>>>,
    /// The packs by the names that the config gives them; `None`: one that could not be read, which was reported.
    packs: RefCell<HashMap<String, Option<Arc<ProfilePack>>>>,
    /// The profiles of packs by `PACK/NAME`.
    pack_profiles: RefCell<HashMap<String, Option<Arc<Profile>>>>,
    /// Settings for outgoing TLS, by a digest of all that went into them: reading the system's CAs takes its time.
    transports: RefCell<HashMap<[u8; 32], Arc<rustls::ClientConfig>>>,
    /// Contents read besides the config itself that are not secret, for the digest.
    texts: RefCell<Vec<Vec<u8>>>,
    certificates: RefCell<Vec<CertificateEnd>>,
    /// The outputs of commands, each of which is run once.
    outputs: RefCell<Vec<RunCommand>>,
    /// The sources of secrets by their names; absent: they are not known yet.
    secret_sources: RefCell<Option<KnownSources>>,
    /// The secrets of sources, each of which is read once.
    documents: RefCell<Vec<AskedSecret>>,
    gathering: RefCell<Gathering>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(files: &'a dyn Files, config: &Path, report: &'a Diagnostics) -> Self {
        let directory = config.parent().unwrap_or(Path::new("")).to_owned();
        Self {
            report,
            files,
            directory,
            profiles: RefCell::default(),
            packs: RefCell::default(),
            pack_profiles: RefCell::default(),
            transports: RefCell::default(),
            texts: RefCell::default(),
            certificates: RefCell::default(),
            outputs: RefCell::default(),
            secret_sources: RefCell::default(),
            documents: RefCell::default(),
            gathering: RefCell::default(),
        }
    }

    /// A path as the config writes it, seen from where we run.
    pub(super) fn resolve(&self, written: &str) -> PathBuf {
        self.directory.join(written)
    }

    /// Returns the contents read besides the config itself, except secrets and private keys.
    pub(super) fn texts(&self) -> Vec<Vec<u8>> {
        self.texts.borrow().clone()
    }

    /// Returns the sources that were read so far.
    pub(super) fn sources(&self, root: &Node) -> Sources {
        self.gathering.borrow().finish(root)
    }

    /// Takes note of a text of the config that somebody else has read.
    pub(super) fn read_text(&self, path: &Path, bytes: &[u8]) {
        self.gathering.borrow_mut().text(path, bytes);
    }

    /// Takes note of a folder that was looked into.
    pub(super) fn looked_into(&self, folder: &Path, names: &[PathBuf]) {
        self.gathering.borrow_mut().folder(folder, names);
    }

    /// Takes note of a file that the config includes.
    pub(super) fn included(&self, path: &Path, bytes: &[u8]) {
        self.texts.borrow_mut().push(bytes.to_vec());
        self.read_text(path, bytes);
    }

    /// The bytes of the file that `word` names.
    pub(super) fn private_file(&self, word: &SpannedText) -> Option<Vec<u8>> {
        let path = self.resolve(&word.text);
        let bytes = self.file(word, &path)?;
        self.gathering.borrow_mut().secret(&path, &bytes);
        Some(bytes)
    }

    /// The text of the file that `word` names, which is no secret.
    pub(super) fn text_file(&self, word: &SpannedText) -> Option<String> {
        let bytes = self.private_file(word)?;
        self.texts.borrow_mut().push(bytes.clone());
        match utf8(bytes) {
            Ok(text) => Some(text),
            Err(why) => {
                word.place.error(self.report, format!("`{}` {why}", word.text), "it is read as lines of text");
                None
            }
        }
    }

    /// Returns the current time; `None` where there is no clock.
    pub(super) fn now(&self) -> Option<Now> {
        self.files.now()
    }

    fn file(&self, word: &SpannedText, path: &Path) -> Option<Vec<u8>> {
        match self.files.read(path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let title = format!("`{}` cannot be read: {}", path.display(), reason(&error));
                word.place.error(self.report, title, "relative paths start at the config file");
                None
            }
        }
    }

    /// The key services of the machine; absent if none are reached.
    pub(super) fn key_services(&self) -> Option<&KeyServices> {
        self.files.key_services()
    }

    /// An environment variable by a name that the config does not spell; `None` if it is not set, or empty.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let value = self.files.env(name).filter(|value| !value.trim().is_empty())?;
        self.gathering.borrow_mut().variable(name, &value);
        Some(value)
    }

    /// Checks whether a file at this path could be appended to or created.
    pub(super) fn appendable(&self, path: &Path) -> std::io::Result<()> {
        self.files.appendable(path)
    }

    /// Reports a file that could not be appended to or created in its folder. `what` begins the sentence, as in "audit
    /// records".
    pub(super) fn demand_appendable(&self, what: &str, path: &Path, place: &Position) {
        if let Err(error) = self.files.appendable(path) {
            let title = format!("{what} cannot be written to `{}`: {}", path.display(), unwritable(&error));
            place.error(self.report, title, "make the folder, writable for the user who runs countersign");
        }
    }

    /// Checks whether a file at this path could be written to, or made together with its folders. The error continues a
    /// sentence.
    pub(super) fn creatable(&self, path: &Path) -> Result<(), String> {
        self.files.creatable(path).map_err(|error| unwritable(&error))
    }

    /// The bytes of a certificate and its chain: it ends when the first of them does.
    pub(super) fn public_file(&self, word: &SpannedText) -> Option<Vec<u8>> {
        self.certificate_file(word, tls::first_expiry)
    }

    /// The bytes of a file of CAs, which is of use as long as one of them is valid.
    pub(super) fn ca_file(&self, word: &SpannedText) -> Option<Vec<u8>> {
        self.certificate_file(word, tls::last_expiry)
    }

    fn certificate_file(&self, word: &SpannedText, useful_until: fn(&[u8]) -> Option<i64>) -> Option<Vec<u8>> {
        let bytes = self.private_file(word)?;
        self.texts.borrow_mut().push(bytes.clone());
        if let Some(at) = tls::first_expiry(&bytes) {
            self.certificate_end(word, at, useful_until(&bytes));
        }
        Some(bytes)
    }

    /// Takes note of the certificates of a PKCS#12 file.
    pub(super) fn container_certificates(&self, word: &SpannedText, certificates: &[Vec<u8>]) {
        self.texts.borrow_mut().extend(certificates.iter().cloned());
        if let Some(at) = tls::der_expiries(certificates).into_iter().min() {
            self.certificate_end(word, at, Some(at));
        }
    }

    fn certificate_end(&self, word: &SpannedText, at: i64, useful_until: Option<i64>) {
        let end = CertificateEnd { what: word.text.clone(), at };
        let mut certificates = self.certificates.borrow_mut();
        if !certificates.contains(&end) {
            certificates.push(end);
            drop(certificates);
            let help = "put a new certificate into this file; a running instance takes it up";
            self.warn_of_end(&word.place, &format!("`{}`", word.text), (useful_until, help));
        }
    }

    /// Warns of what has ended, or soon will.
    fn warn_of_end(&self, place: &Position, what: &str, (end, help): (Option<i64>, &str)) {
        let (Some(end), Some(now)) = (end, self.files.now()) else { return };
        let left = end.saturating_sub(i64::try_from(now.wall / 1000).unwrap_or(i64::MAX));
        let span = |seconds: i64| {
            let (unit, noun) = match seconds {
                DAY.. => (DAY, "day"),
                3600..DAY => (3600, "hour"),
                _ => (60, "minute"),
            };
            counted(usize::try_from(seconds / unit).unwrap_or(usize::MAX), noun)
        };
        let title = match left {
            ..=0 => format!("{what} expired {} ago", span(left.saturating_neg())),
            1..SOON => format!("{what} expires in {}", span(left)),
            SOON.. => return,
        };
        place.warning(self.report, title, help);
    }

    /// Takes note of the end of credentials, in seconds since 1970, as of that of a certificate.
    pub(super) fn credentials_end(&self, place: &Position, what: &str, end: u64) {
        let at = i64::try_from(end).unwrap_or(i64::MAX);
        self.certificates.borrow_mut().push(CertificateEnd { what: what.to_owned(), at });
        let help = "order new ones, and put them into `[provider.NAME.next]`";
        self.warn_of_end(place, what, (Some(at), help));
    }

    /// When the certificates that were read end, a file each, and the credentials whose end the config tells.
    pub(super) fn certificates(&self) -> Vec<CertificateEnd> {
        self.certificates.borrow().clone()
    }

    /// A value that is a literal, or comes from an environment variable, a file or a command. The flag says whether it was
    /// a literal.
    pub(super) fn value(&self, node: &Node, report: &Diagnostics) -> Option<(SecretString, bool)> {
        match &node.kind {
            Kind::String(text) => {
                if let Some(name) = expansion(text) {
                    let help = format!("write `{{ env = \"{name}\" }}`");
                    Position::of(node).redacted().error(report, "variables are not expanded in a text", help);
                    return None;
                }
                Some((SecretString::from(text.clone()), true))
            }
            Kind::Table(table) => {
                let fields = Fields::new(node, "a secret value", report);
                let (env, file) = (fields.opt::<SpannedText>("env"), fields.opt::<SpannedText>("file"));
                let command = fields.take("command").map(|node| self.source_command(node, &fields));
                let source = fields.opt::<SpannedText>("source");
                let source = source.map(|source| SourceReference::read(&source, &fields, self));
                let places = ["env", "file", "command", "source"];
                let named = places.iter().filter(|key| table.find(key).is_some()).count();
                let has_unknown = fields.has_unknown();
                fields.finish();
                match (env, file, command) {
                    _ if named > 1 => {
                        let help = "keep one of `env`, `file`, `command` and `source`";
                        Position::of(node).error(report, "a value comes from one place only", help);
                        None
                    }
                    (Some(name), None, None) => self.env_value(&name, report),
                    (None, Some(path), None) => self.file_value(&path, report),
                    (None, None, Some(command)) => self.command_value(command?, node, report),
                    (None, None, None) if source.is_some() => self.source_value(&source??, node, report),
                    // The unknown key is the mistake.
                    _ if named == 0 && has_unknown => None,
                    _ if named == 0 => {
                        Position::of(node).error(report, "this says not where the value comes from", SOURCES_HELP);
                        None
                    }
                    _ => None,
                }
            }
            Kind::Array(_) | Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) => {
                let help = format!("write a string, or {}", SOURCES_HELP.trim_start_matches("write "));
                Position::of(node).error(report, format!("expected a value, found {}", node.kind_name()), help);
                None
            }
        }
    }

    /// Reads `command`, with `ttl` and `timeout` beside it.
    fn source_command(&self, node: &Node, fields: &Fields<'_>) -> Option<SourceCommand> {
        let (ttl, timeout) = (fields.opt::<Duration>("ttl"), fields.or("timeout", COMMAND_TIMEOUT));
        let words = Vec::<String>::from_node(node, fields.report())?;
        for (key, value, least) in [("ttl", ttl, LEAST_TTL), ("timeout", Some(timeout), Duration::from_millis(1))] {
            if let (true, Some(node)) = (value.is_some_and(|value| value < least), fields.take(key)) {
                let help = format!("{} ms is the least", least.as_millis());
                Position::of(node).error(fields.report(), format!("`{key}` is too short"), help);
            }
        }
        let mut words = words.into_iter();
        let Some(program) = words.next().filter(|program| !program.is_empty()) else {
            let help = "write the program and its arguments, as in `[\"vault\", \"read\", \"…\"]`";
            Position::of(node).error(fields.report(), "this names no program", help);
            return None;
        };
        // A name is looked for in PATH; a path starts at the config file, as every path does.
        let program = if program.contains('/') { self.resolve(&program) } else { PathBuf::from(program) };
        Some(SourceCommand { program, arguments: words.collect(), ttl, timeout, digest: [0; 32] })
    }

    /// Runs a command, once for each reading of the config.
    fn command_value(&self, command: SourceCommand, node: &Node, report: &Diagnostics) -> Option<(SecretString, bool)> {
        // An argument may be a secret.
        let place = Position::of(node).redacted();
        let shown = format!("`{}`", command.program.display());
        let known =
            self.outputs.borrow().iter().find(|(known, _)| known.is_same(&command)).map(|(_, told)| told.clone());
        let told = known.unwrap_or_else(|| {
            let told = self.files.command(&command).map_err(|error| error.to_string());
            self.outputs.borrow_mut().push((command.clone(), told.clone()));
            told
        });
        let bytes = match told {
            Ok(bytes) => bytes,
            Err(why) => {
                let help = "run it by hand, as the user of this process, to see what it says";
                place.error(report, format!("{shown} {why}"), help);
                return None;
            }
        };
        let digest = sha256(&bytes);
        self.gathering.borrow_mut().command(SourceCommand { digest, ..command });
        text_of(&bytes, &format!("the output of {shown}"), &place, report)
    }

    fn source_value(
        &self,
        source: &SourceReference,
        node: &Node,
        report: &Diagnostics,
    ) -> Option<(SecretString, bool)> {
        let place = Position::of(node).redacted();
        source.value(self, report, |bytes, shown| text_of(bytes, shown, &place, report))
    }

    /// Makes the sources of secrets known. Until then no value comes from one.
    pub(super) fn add_sources(&self, sources: KnownSources) {
        *self.secret_sources.borrow_mut() = Some(sources);
    }

    /// Finds a source of secrets; reports that there is none.
    pub(super) fn named_source(&self, word: &SpannedText, report: &Diagnostics) -> Option<Rc<NamedSecretSource>> {
        match &*self.secret_sources.borrow() {
            Some(known) => secret_source::find(word, known, report),
            None => {
                let help = "take it from `env`, `file` or `command`";
                let title = "what a source of secrets is asked with cannot come from a source itself";
                word.place.redacted().error(report, title, help);
                None
            }
        }
    }

    /// Returns a secret of a source, which is asked once in a reading. `None`: the source had failed before, which was
    /// reported.
    pub(super) fn document(
        &self,
        source: &Rc<NamedSecretSource>,
        name: &SecretName,
    ) -> Option<Result<Arc<SecretDocument>, SourceProblem>> {
        let is_same = |known: &&AskedSecret| Rc::ptr_eq(&known.0, source) && known.1 == *name;
        let known = self.documents.borrow().iter().find(is_same).map(|(.., told)| told.clone());
        if let Some(told) = known {
            return (!told.as_ref().is_err_and(SourceProblem::is_of_source)).then_some(told);
        }
        let told = source.ask(name)?;
        self.documents.borrow_mut().push((source.clone(), name.clone(), told.clone()));
        Some(told)
    }

    /// Takes note of a secret that came from a source.
    pub(super) fn read_remote(&self, secret: RemoteSecret) {
        self.gathering.borrow_mut().remote(secret);
    }

    /// The sources of secrets of the machine; absent if none are reached.
    pub(super) fn secret_sources(&self) -> Option<&SecretSources> {
        self.files.secret_sources()
    }

    fn env_value(&self, name: &SpannedText, report: &Diagnostics) -> Option<(SecretString, bool)> {
        if !is_variable(&name.text) && self.files.env(&name.text).is_none() {
            // Likely the secret itself.
            let help = "write the variable's name: capital letters, digits and `_`; the secret stands in the variable";
            name.place.redacted().error(report, "there is no environment variable of this name", help);
            return None;
        }
        match self.files.env(&name.text) {
            Some(value) if !value.is_empty() => {
                warn_of_blank_ends(&value, &format!("the environment variable `{}`", name.text), &name.place, report);
                self.gathering.borrow_mut().variable(&name.text, &value);
                Some((SecretString::from(value), false))
            }
            Some(_) => {
                let title = format!("the environment variable `{}` is empty", name.text);
                name.place.error(report, title, "give it a value before starting");
                None
            }
            None => {
                let title = format!("the environment variable `{}` is not set", name.text);
                name.place.error(report, title, "set it before starting, or use `{ file = \"path\" }`");
                None
            }
        }
    }

    fn file_value(&self, path: &SpannedText, report: &Diagnostics) -> Option<(SecretString, bool)> {
        let bytes = Zeroizing::new(self.private_file(path)?);
        text_of(&bytes, &format!("`{}`", path.text), &path.place, report)
    }

    /// The settings for outgoing TLS that `digest` stands for, made once.
    pub(super) fn client_tls(
        &self,
        digest: [u8; 32],
        make: impl FnOnce() -> Result<Arc<rustls::ClientConfig>, TlsConfigError>,
    ) -> Result<Arc<rustls::ClientConfig>, TlsConfigError> {
        if let Some(known) = self.transports.borrow().get(&digest) {
            return Ok(known.clone());
        }
        let made = make()?;
        self.transports.borrow_mut().insert(digest, made.clone());
        Ok(made)
    }

    /// Reports that there can be no TLS settings: at the file of CAs where that is at fault, or else at `otherwise`.
    pub(super) fn tls_mistake(&self, error: &TlsConfigError, ca: Option<&SpannedText>, otherwise: &Position) {
        match ca.filter(|_| error.is_about_ca()) {
            Some(ca) => {
                let help = "it must hold CA certificates, as PEM, whole and unchanged";
                ca.place.error(self.report, format!("`{}`: {error}", ca.text), help);
            }
            None => otherwise.error(self.report, error.to_string(), "check the files that are named here"),
        }
    }

    /// The bytes of the file that `word` names, which are no secret, nor of a kind that ends.
    pub(super) fn open_file(&self, word: &SpannedText) -> Option<Vec<u8>> {
        let path = self.resolve(&word.text);
        self.file(word, &path).inspect(|bytes| self.included(&path, bytes))
    }

    /// Reads and verifies the pack in a folder. Its files are texts of the config.
    pub(super) fn open_pack(&self, folder: &Path, demand: &PackDemand<'_>) -> Result<ProfilePack, Vec<PackFault>> {
        let pack = ProfilePack::open(&PackFiles { files: self.files, path: folder }, demand)?;
        for (name, bytes) in pack.contents() {
            self.included(&folder.join(name), bytes);
        }
        if let Ok(names) = self.files.list(folder) {
            self.looked_into(folder, &names);
        }
        Ok(pack)
    }

    /// Makes a pack known under the name that the config gives it; `None` if it could not be read.
    pub(super) fn add_pack(&self, name: &str, pack: Option<Arc<ProfilePack>>) {
        self.packs.borrow_mut().insert(name.to_owned(), pack);
    }

    /// Returns whether a `profile` of the config means one of a pack.
    pub(super) fn names_pack(&self, profile: &str) -> bool {
        profile.split_once('/').is_some_and(|(pack, _)| self.packs.borrow().contains_key(pack))
    }

    /// A built-in profile by name, one of a pack by `PACK/NAME`, or one's own by path. A text is read once, so its mistakes
    /// are told once.
    pub(super) fn profile(&self, word: &SpannedText) -> Option<Arc<Profile>> {
        if !word.text.contains('/') && !word.text.ends_with(".toml") {
            return Profile::builtin(&word.text).or_else(|| {
                let names = Profile::builtin_names();
                let help = match suggest(&word.text, names.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("built in are {}; a file of your own is named by its path", names.join(", ")),
                };
                word.place.error(self.report, format!("there is no profile called `{}`", word.text), help);
                None
            });
        }
        if let Some((pack, name)) = word.text.split_once('/').filter(|_| self.names_pack(&word.text)) {
            let known = self.pack_profiles.borrow().get(&word.text).cloned();
            return known.unwrap_or_else(|| {
                let profile = self.pack_profile(word, pack, name);
                self.pack_profiles.borrow_mut().insert(word.text.clone(), profile.clone());
                profile
            });
        }
        let path = self.resolve(&word.text);
        if let Some(known) = self.profiles.borrow().get(&path) {
            return known.clone();
        }
        let bytes = match self.unknown_pack(&word.text, &path) {
            Some((title, help)) => {
                word.place.error(self.report, title, help);
                None
            }
            None => self.file(word, &path),
        };
        let profile = bytes.inspect(|bytes| self.included(&path, bytes)).and_then(|bytes| match utf8(bytes) {
            Ok(text) => Profile::parse(&SourceText::new(path.display().to_string(), text), self.report),
            Err(why) => {
                word.place.error(self.report, format!("`{}` {why}", word.text), "a profile is a TOML file");
                None
            }
        });
        self.profiles.borrow_mut().insert(path, profile.clone());
        profile
    }

    /// The profile of a pack that is there.
    fn pack_profile(&self, word: &SpannedText, pack: &str, name: &str) -> Option<Arc<Profile>> {
        let pack = self.packs.borrow().get(pack).cloned()??;
        if pack.text(name).is_none() {
            let help = match suggest(name, pack.names()) {
                Some(near) => format!("did you mean `{}/{near}`?", pack.name()),
                None => format!("it has {}", pack.names().collect::<Vec<_>>().join(", ")),
            };
            let title = format!("the pack `{}` has no profile called `{}`", pack.name(), name.escape_debug());
            word.place.error(self.report, title, help);
        }
        pack.profile(name, self.report)
    }

    /// The mistake of a text like `PACK/NAME` that is neither the path of a file nor of a known pack.
    fn unknown_pack(&self, text: &str, path: &Path) -> Option<(String, String)> {
        let (pack, name) = text.split_once('/')?;
        let looks_so = !pack.starts_with('.') && !pack.is_empty() && !name.contains(['/', '.']);
        if !looks_so || self.files.read(path).is_ok() {
            return None;
        }
        let packs = self.packs.borrow();
        let help = match suggest(pack, packs.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}/{name}`?"),
            None => format!("add [profile_pack.{pack}] with its `path`, or name the file of a profile"),
        };
        Some((format!("`{text}` is no file, and there is no pack called `{pack}`"), help))
    }
}

/// Settings are read from files and variables; relative paths start at the config file.
impl ReadValue for Reader<'_> {
    fn value(&self, node: &Node, report: &Diagnostics) -> Option<(SecretString, bool)> {
        Reader::value(self, node, report)
    }

    fn file(&self, node: &Node, content: FileContent, report: &Diagnostics) -> Option<Zeroizing<Vec<u8>>> {
        let word = SpannedText::from_node(node, report)?;
        let bytes = match content {
            FileContent::Public => self.public_file(&word),
            FileContent::Secret => self.private_file(&word),
        };
        bytes.map(Zeroizing::new)
    }

    fn remote_key(
        &self,
        kind: RemoteKind,
        node: &Node,
        algorithms: &[SigningAlgorithm],
        report: &Diagnostics,
    ) -> Option<Arc<dyn Signer>> {
        service_key::read(kind, node, algorithms, self, report)
    }

    fn unix_seconds(&self) -> u64 {
        Clock::System.now().unix_seconds()
    }
}

/// A secret as a source writes it: without a byte order mark, which some editors write, and without the last line break.
/// `what` is the source, for messages.
fn text_of(bytes: &[u8], what: &str, place: &Position, report: &Diagnostics) -> Option<(SecretString, bool)> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        place.error(report, format!("{what} is not UTF-8 text"), "a secret is text");
        return None;
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    warn_of_blank_ends(text, what, place, report);
    if text.is_empty() {
        place.error(report, format!("{what} is empty"), "put the secret into it");
        return None;
    }
    Some((SecretString::from(text), false))
}

/// Warns of a secret that begins or ends with a blank, which is hardly ever a part of it.
fn warn_of_blank_ends(secret: &str, what: &str, place: &Position, report: &Diagnostics) {
    let edge = match (secret.trim_start() == secret, secret.trim_end() == secret) {
        (true, true) => return,
        (false, _) => "begins",
        (true, false) => "ends",
    };
    let help = "the blank is taken as a part of the secret; remove it unless it is";
    place.warning(report, format!("{what} {edge} with a blank or an empty line"), help);
}

/// Reads a text that is no secret. The error continues a sentence that begins with the file's name.
pub(super) fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    // ASCII in UTF-16 is UTF-8, too, with a NUL in each other place.
    if matches!(bytes.as_slice(), [(1..), 0, (1..), 0, ..] | [0, (1..), 0, (1..), ..]) {
        return Err("looks like UTF-16 text, not UTF-8: save it as UTF-8".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let bytes = error.as_bytes();
        if matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
            return "is UTF-16 text, not UTF-8: save it as UTF-8".to_owned();
        }
        let at = error.utf8_error().valid_up_to();
        let well = String::from_utf8_lossy(bytes.get(..at).unwrap_or_default());
        let line = 1 + well.matches('\n').count();
        let column = 1 + well.rsplit('\n').next().unwrap_or_default().chars().count();
        let byte = bytes.get(at).copied().unwrap_or_default();
        // The upper half of Latin-1 is the same in Unicode; below it are control characters.
        let latin = if byte >= 0xa0 { format!(", `{}` in Latin-1", char::from(byte)) } else { String::new() };
        format!("is not UTF-8 text: line {line}, column {column} has the byte 0x{byte:02X}{latin}; save it as UTF-8")
    })
}

/// Says what to do about a file that was expected to be PEM. `tool` is the part of openssl that reads one of its kind:
/// `x509` or `pkey`.
pub(super) fn pem_help(bytes: &[u8], name: &str, tool: &str, otherwise: &str) -> String {
    match tls::foreign_form(bytes) {
        Some(ForeignForm::Der) => {
            format!("it is in DER form; `openssl {tool} -inform der -in {name} -out NEW` writes it as PEM")
        }
        Some(ForeignForm::Pkcs12) => format!(
            "it is in PKCS#12 form; a key with its certificates may be named so: `{{ pkcs12 = \"{name}\", password = … }}`, \
             and `openssl pkcs12 -in {name} -nokeys -out NEW` writes its certificates as PEM"
        ),
        None => otherwise.to_owned(),
    }
}

/// Describes the reason for which a file could not be read, without naming a system call.
pub(super) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        std::io::ErrorKind::Other => error.to_string(),
        other => other.to_string(),
    }
}

/// Describes the reason for which a file could not be written.
fn unwritable(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "its folder does not exist".to_owned(),
        ErrorKind::PermissionDenied => "this user may not write there".to_owned(),
        ErrorKind::IsADirectory => "it is a folder".to_owned(),
        ErrorKind::NotADirectory => "a file stands where its folder should be".to_owned(),
        _ => reason(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf_16_is_recognised_with_and_without_a_mark() {
        for bytes in [&b"\xff\xfe[\0a\0"[..], b"[\0a\0]\0", b"\0[\0a\0]"] {
            let why = utf8(bytes.to_vec()).unwrap_err();
            assert!(why.contains("UTF-16"), "{why}");
        }
        assert_eq!(utf8(b"[a]\0".to_vec()).as_deref(), Ok("[a]\0"));
    }

    #[test]
    fn a_text_that_is_not_utf8_is_told_with_its_line_and_byte() {
        assert_eq!(
            utf8(b"a\nb\n# caf\xe9\n".to_vec()).unwrap_err(),
            "is not UTF-8 text: line 3, column 6 has the byte 0xE9, `é` in Latin-1; save it as UTF-8"
        );
        assert_eq!(
            utf8(b"\xc3\xa9 \x80".to_vec()).unwrap_err(),
            "is not UTF-8 text: line 1, column 3 has the byte 0x80; save it as UTF-8"
        );
        assert!(utf8(b"\xff\xfea\0".to_vec()).unwrap_err().contains("UTF-16"));
    }
}

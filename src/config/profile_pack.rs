//! `[profile_pack.NAME]`: profiles in a folder outside the program, and the grounds on which they are believed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::{Table as PlainTable, Value};

use crate::provider::{PackDemand, PackFault, PackFolder, PackKey, PackTrust, PackVersion, ProfilePack};
use crate::syntax::{Fields, TableEntry};

use super::files::Files;
use super::reader::{Reader, pem_help};
use super::schema::{MAY, MUST, SchemaSection, SchemaShape};
use super::spanned_text::{Position, SpannedText};

pub(super) const KEYS: SchemaSection = (
    "profile_pack",
    &[
        ("min_version", SchemaShape::Text, MAY, "an older version is refused, as in 2026.11.30"),
        ("path", SchemaShape::Text, MUST, "its folder"),
        ("public_key", SchemaShape::Text, MAY, "path of the Ed25519 key that verifies its signature, PEM"),
        ("unsigned", SchemaShape::Flag, MAY, "true: it has no signature that is verified; instead of public_key"),
    ],
);

/// A pack's folder as [`Files`] have it.
#[derive(Clone, Copy)]
pub struct PackFiles<'a> {
    pub files: &'a dyn Files,
    pub path: &'a Path,
}

impl PackFolder for PackFiles<'_> {
    fn names(&self) -> io::Result<Vec<String>> {
        let paths = self.files.list(self.path)?;
        Ok(paths.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.files.read(&self.path.join(name))
    }

    fn shown(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

/// Reads all packs into `reader`, whose profiles they are from now on.
pub(super) fn read(root: &Fields<'_>, reader: &Reader<'_>) {
    let Some(node) = root.take("profile_pack") else { return };
    let table = Fields::new(node, "[profile_pack]", reader.report);
    for entry in table.rest() {
        let pack = read_one(entry, reader);
        reader.add_pack(&entry.key, pack.map(Arc::new));
    }
    table.finish();
}

fn read_one(entry: &TableEntry, reader: &Reader<'_>) -> Option<ProfilePack> {
    let report = reader.report;
    let position = Position::new(&entry.value.source, entry.key_span.clone());
    SpannedText { text: entry.key.clone(), place: position.clone() }.judge_name(report);
    let what = format!("[profile_pack.{}]", entry.key);
    let fields = Fields::new(&entry.value, what.clone(), report);
    let path = fields.req::<SpannedText>("path", "\"packs/our-banks\"");
    let min_version = fields.opt::<PackVersion>("min_version");
    let (key, unsigned) = (fields.opt::<SpannedText>("public_key"), fields.or("unsigned", false));
    let errors = report.errors();
    let trust = match (&key, unsigned) {
        (Some(word), false) => public_key(word, reader).map(PackTrust::Signed),
        (None, true) => Some(PackTrust::Unsigned),
        (Some(word), true) => {
            word.place.error(report, format!("{what} is signed and unsigned at once"), "keep one of the two keys");
            None
        }
        (None, false) if fields.take("public_key").is_some() => None,
        (None, false) => {
            let help = "add `public_key = \"pack.pub\"`, or `unsigned = true` if access to the folder is enough";
            position.error(report, format!("{what} says not why it is to be believed"), help);
            None
        }
    };
    let unread_version = fields.take("min_version").is_some() && min_version.is_none();
    fields.finish();
    let path = path?;
    let folder = reader.resolve(&path.text);
    let demand = PackDemand { trust: &trust?, name: Some(&entry.key), min_version: min_version.as_ref() };
    if unread_version || report.errors() > errors {
        return None;
    }
    match reader.open_pack(&folder, &demand) {
        Ok(pack) => Some(pack),
        Err(faults) => {
            for fault in faults {
                path.place.error(report, format!("the pack `{}` cannot be used: {fault}", path.text), fault.help());
            }
            None
        }
    }
}

fn public_key(word: &SpannedText, reader: &Reader<'_>) -> Option<PackKey> {
    let bytes = reader.open_file(word)?;
    PackKey::from_pem(&bytes)
        .map_err(|error| {
            let help =
                pem_help(&bytes, &word.text, "pkey -pubin", "`openssl pkey -in KEY -pubout` writes a public key");
            word.place.error(reader.report, format!("`{}`: {error}", word.text), help);
        })
        .ok()
}

/// The pack of this name in the plain contents of a config in `folder`, for commands that read no whole config. It is
/// verified as the config demands. `None`: the config has no such pack. The error is for a person.
pub fn sketched_pack(
    config: &PlainTable,
    folder: &Path,
    name: &str,
    files: &dyn Files,
) -> Option<Result<ProfilePack, String>> {
    let pack = config.get("profile_pack")?.get(name)?.as_table()?;
    Some(open_sketched(pack, folder, name, files))
}

fn open_sketched(pack: &PlainTable, folder: &Path, name: &str, files: &dyn Files) -> Result<ProfilePack, String> {
    let text = |key: &str| pack.get(key).and_then(Value::as_str);
    let wrong = || format!("[profile_pack.{name}] has mistakes: `countersign check` tells them");
    let path: PathBuf = folder.join(text("path").ok_or_else(wrong)?);
    let unsigned = pack.get("unsigned").and_then(Value::as_bool).unwrap_or(false);
    let trust = match (text("public_key"), unsigned) {
        (Some(key), false) => {
            let pem = files.read(&folder.join(key)).map_err(|error| format!("{key} cannot be read: {error}"))?;
            PackTrust::Signed(PackKey::from_pem(&pem).map_err(|error| format!("{key}: {error}"))?)
        }
        (None, true) => PackTrust::Unsigned,
        (Some(_), true) | (None, false) => return Err(wrong()),
    };
    let min_version = text("min_version").map(PackVersion::parse).transpose().map_err(|_| wrong())?;
    let demand = PackDemand { trust: &trust, name: Some(name), min_version: min_version.as_ref() };
    ProfilePack::open(&PackFiles { files, path: &path }, &demand).map_err(|faults| faults_text(&path, &faults))
}

/// Writes the faults of a pack on one line each, with the advice.
pub fn faults_text(path: &Path, faults: &[PackFault]) -> String {
    let line = |fault: &PackFault| format!("the pack {} cannot be used: {fault}; {}", path.display(), fault.help());
    faults.iter().map(line).collect::<Vec<_>>().join("\n")
}

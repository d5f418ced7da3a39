//! A pack: profiles in a folder outside the program, with a manifest and a signature over it.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::base::secret::sha256;
use crate::provider::pack_manifest::{MANIFEST_FILE, MOST_PROFILES, PackManifest, PackVersion, is_profile};
use crate::provider::profile::Profile;
use crate::signing::algorithm::{KeyType, SigningAlgorithm};
use crate::signing::encoding::TextEncoding;
use crate::signing::key::KeyError;
use crate::signing::pkcs;
use crate::signing::public_key::{PublicKey, VerifyingKey};
use crate::syntax::{Diagnostics, SourceText};

/// The name of the signature in a pack's folder: Ed25519 (RFC 8032) over the bytes of the manifest, in base64 or as it
/// is.
pub const SIGNATURE_FILE: &str = "pack.sig";

/// Bytes of an Ed25519 signature.
const SIGNATURE_LENGTH: usize = 64;
/// The longest manifest, and the longest signature file, in bytes.
const LONGEST_MANIFEST: usize = 64 << 10;
/// The longest profile of a pack, in bytes.
const LONGEST_PROFILE: usize = 256 << 10;

/// The folder of a pack, as far as the pack is concerned.
pub trait PackFolder {
    /// Lists the names of the files in it.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Reads a file of it.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Returns the path of a file of it, as messages show it.
    fn shown(&self, name: &str) -> String;
}

/// The key that verifies the signature of a pack.
#[derive(Debug)]
pub struct PackKey(VerifyingKey);

impl PackKey {
    /// Reads an Ed25519 public key, or a certificate with one, in PEM.
    pub fn from_pem(pem: &[u8]) -> Result<Self, PackKeyError> {
        let key = PublicKey::from_pem(pem)?;
        match key.key_type() {
            KeyType::Ed25519 => Ok(Self(VerifyingKey::Public(key))),
            other @ (KeyType::P256 | KeyType::P384 | KeyType::Rsa | KeyType::Secret) => Err(PackKeyError::Kind(other)),
        }
    }

    fn verifies(&self, manifest: &[u8], signature: &[u8]) -> bool {
        self.0.verify(SigningAlgorithm::EdDsa, manifest, signature)
    }
}

/// The reason for which a key neither makes nor verifies the signature of a pack.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum PackKeyError {
    #[error("{0}, and packs are signed with an Ed25519 key")]
    Kind(KeyType),
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Signs a manifest with an Ed25519 private key in PEM. Returns the content of [`SIGNATURE_FILE`].
pub fn sign_manifest(manifest: &[u8], private_key: &[u8]) -> Result<String, PackKeyError> {
    let key = pkcs::private_key(private_key, None)?;
    let signature = key.sign(SigningAlgorithm::EdDsa, manifest).map_err(|_| PackKeyError::Kind(key.key_type()))?;
    Ok(TextEncoding::Base64.encode(signature.bytes()) + "\n")
}

/// The grounds on which a pack is believed.
#[derive(Debug)]
pub enum PackTrust {
    /// A signature that this key verifies.
    Signed(PackKey),
    /// Access to the folder alone.
    Unsigned,
}

/// The demands on a pack.
#[derive(Debug)]
pub struct PackDemand<'a> {
    pub trust: &'a PackTrust,
    /// The name that it must have.
    pub name: Option<&'a str>,
    /// Its least version.
    pub min_version: Option<&'a PackVersion>,
}

/// The demands on a pack that is read by its author: none.
impl PackDemand<'_> {
    pub const NONE: PackDemand<'static> = PackDemand { trust: &PackTrust::Unsigned, name: None, min_version: None };
}

/// Something that is wrong with a pack. The text continues a sentence that begins with its folder.
#[derive(Debug, Eq, Error, PartialEq)]
pub enum PackFault {
    #[error("its `{0}` is not the one of its manifest: the SHA-256 differs")]
    Altered(String),
    #[error(
        "its signature cannot be read: `{SIGNATURE_FILE}` is neither the 64 bytes of an Ed25519 signature nor their base64"
    )]
    BadSignatureForm,
    #[error("it cannot be looked into: {0}")]
    Closed(String),
    #[error("its `{file}` is longer than {most} bytes")]
    Long { file: String, most: usize },
    #[error("its manifest has mistakes: {0}")]
    Malformed(String),
    #[error("its manifest names `{0}`, and there is no such file")]
    Missing(String),
    #[error("its name is `{found}`, and `{wanted}` is expected")]
    Name { found: String, wanted: String },
    #[error("its `{0}` is not UTF-8 text")]
    NoText(String),
    #[error("it has no `{MANIFEST_FILE}`, so it is no pack")]
    NoManifest,
    #[error("it is not signed: there is no `{SIGNATURE_FILE}`")]
    NotSigned,
    #[error("its version is {found}, older than {least}")]
    Old { found: PackVersion, least: PackVersion },
    #[error("it has more than {MOST_PROFILES} profiles")]
    TooMany,
    #[error("its `{0}` is not in its manifest")]
    Unlisted(String),
    #[error("its `{file}` cannot be read: {reason}")]
    Unreadable { file: String, reason: String },
    #[error("its signature is not the key's over this `{MANIFEST_FILE}`")]
    WrongSignature,
}

impl PackFault {
    /// The advice.
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Altered(_) | Self::Missing(_) | Self::Unlisted(_) => {
                "put the pack there again, whole; its author runs `countersign profiles pack FOLDER` after each change"
            }
            Self::BadSignatureForm | Self::NotSigned => {
                "`countersign profiles pack FOLDER --key KEYFILE` signs a pack; without `public_key`, say `unsigned = true`"
            }
            Self::Closed(_) | Self::Unreadable { .. } => "this user must be able to read the folder and its files",
            Self::Long { .. } | Self::TooMany => "make smaller files, or more packs, of it",
            Self::Malformed(_) => "`countersign profiles pack FOLDER` writes the manifest",
            Self::Name { .. } => "name the pack as its manifest does, or put the right one there",
            Self::NoManifest => "name the folder of a pack; `countersign profiles pack FOLDER` makes one of a folder",
            Self::NoText(_) => "a profile is a TOML file; save it as UTF-8",
            Self::Old { .. } => "put a newer version there, or lower `min_version` if the older one is meant",
            Self::WrongSignature => {
                "the pack was changed after it was signed, or signed with another key: get it, or the key, again"
            }
        }
    }
}

/// A pack whose signature, if one is demanded, and digests were verified.
#[derive(Debug)]
pub struct ProfilePack {
    manifest: PackManifest,
    texts: Vec<(String, Arc<SourceText>)>,
    /// Manifest and signature as they were read, by file name.
    papers: Vec<(&'static str, Vec<u8>)>,
}

impl ProfilePack {
    /// Reads and verifies a pack. The signature is verified before anything in the manifest is looked at.
    pub fn open(folder: &dyn PackFolder, demand: &PackDemand<'_>) -> Result<Self, Vec<PackFault>> {
        let mut names = folder.names().map_err(|error| vec![PackFault::Closed(reason(&error))])?;
        names.sort();
        let has = |name: &str| names.iter().any(|known| known == name);
        if !has(MANIFEST_FILE) {
            return Err(vec![PackFault::NoManifest]);
        }
        let manifest = read(folder, MANIFEST_FILE, LONGEST_MANIFEST).map_err(|fault| vec![fault])?;
        let mut papers = vec![(MANIFEST_FILE, manifest)];
        if let PackTrust::Signed(key) = demand.trust {
            if !has(SIGNATURE_FILE) {
                return Err(vec![PackFault::NotSigned]);
            }
            let written = read(folder, SIGNATURE_FILE, LONGEST_MANIFEST).map_err(|fault| vec![fault])?;
            let signature = signature(&written).ok_or_else(|| vec![PackFault::BadSignatureForm])?;
            if !papers.iter().all(|(_, manifest)| key.verifies(manifest, &signature)) {
                return Err(vec![PackFault::WrongSignature]);
            }
            papers.push((SIGNATURE_FILE, written));
        }
        let manifest = papers.first().map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        let manifest = parse_manifest(folder, manifest).map_err(|fault| vec![fault])?;
        let mut faults = judge(&manifest, demand);
        let files: Vec<&String> = names.iter().filter(|name| is_profile(name)).collect();
        if files.len() > MOST_PROFILES {
            faults.push(PackFault::TooMany);
        }
        let listed = |file: &str| manifest.profiles.iter().any(|(name, _)| file.strip_suffix(".toml") == Some(name));
        faults.extend(files.iter().filter(|file| !listed(file)).map(|file| PackFault::Unlisted((*file).clone())));
        let mut texts = Vec::new();
        for (name, digest) in &manifest.profiles {
            match listed_text(folder, &format!("{name}.toml"), *digest, has) {
                Ok(text) => texts.push((name.clone(), text)),
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() { Ok(Self { manifest, texts, papers }) } else { Err(faults) }
    }

    /// Returns the name that its manifest gives it.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    pub const fn version(&self) -> &PackVersion {
        &self.manifest.version
    }

    /// The names of its profiles, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(|(name, _)| name.as_str())
    }

    /// Returns the text of a profile of it.
    pub fn text(&self, name: &str) -> Option<&Arc<SourceText>> {
        self.texts.iter().find(|(known, _)| known == name).map(|(_, text)| text)
    }

    /// Reads a profile of it. Every mistake goes to `report`; `None` when there was one, or there is no such profile.
    pub fn profile(&self, name: &str, report: &Diagnostics) -> Option<Arc<Profile>> {
        Profile::parse_in(self.text(name)?, Some(self), report)
    }

    /// The bytes of all its files by name: manifest, signature, profiles.
    pub fn contents(&self) -> impl Iterator<Item = (String, &[u8])> {
        let papers = self.papers.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.as_slice()));
        papers.chain(self.texts.iter().map(|(name, text)| (format!("{name}.toml"), text.text.as_bytes())))
    }
}

/// The pack that a folder would be, with the digests of the profiles as they are now. `papers` are left out.
pub fn describe_folder(folder: &dyn PackFolder, name: String, version: PackVersion) -> Result<ProfilePack, PackFault> {
    let mut names = folder.names().map_err(|error| PackFault::Closed(reason(&error)))?;
    names.retain(|name| is_profile(name));
    names.sort();
    if names.len() > MOST_PROFILES {
        return Err(PackFault::TooMany);
    }
    let (mut profiles, mut texts) = (Vec::new(), Vec::new());
    for file in names {
        let bytes = read(folder, &file, LONGEST_PROFILE)?;
        let stem = file.trim_end_matches(".toml").to_owned();
        profiles.push((stem.clone(), sha256(&bytes)));
        texts.push((stem, text(folder, &file, bytes)?));
    }
    Ok(ProfilePack { manifest: PackManifest { name, version, profiles }, texts, papers: Vec::new() })
}

impl ProfilePack {
    pub const fn manifest(&self) -> &PackManifest {
        &self.manifest
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such folder".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        other => other.to_string(),
    }
}

fn read(folder: &dyn PackFolder, file: &str, most: usize) -> Result<Vec<u8>, PackFault> {
    let bytes = folder
        .read(file)
        .map_err(|error| PackFault::Unreadable { file: file.to_owned(), reason: error.kind().to_string() })?;
    if bytes.len() > most { Err(PackFault::Long { file: file.to_owned(), most }) } else { Ok(bytes) }
}

fn text(folder: &dyn PackFolder, file: &str, bytes: Vec<u8>) -> Result<Arc<SourceText>, PackFault> {
    let text = String::from_utf8(bytes).map_err(|_| PackFault::NoText(file.to_owned()))?;
    Ok(SourceText::new(folder.shown(file), text))
}

/// The text of a file that the manifest lists.
fn listed_text(
    folder: &dyn PackFolder,
    file: &str,
    digest: [u8; 32],
    has: impl Fn(&str) -> bool,
) -> Result<Arc<SourceText>, PackFault> {
    if !has(file) {
        return Err(PackFault::Missing(file.to_owned()));
    }
    let bytes = read(folder, file, LONGEST_PROFILE)?;
    if sha256(&bytes) != digest {
        return Err(PackFault::Altered(file.to_owned()));
    }
    text(folder, file, bytes)
}

/// The bytes of a signature, which may be written in base64.
fn signature(written: &[u8]) -> Option<Vec<u8>> {
    if written.len() == SIGNATURE_LENGTH {
        return Some(written.to_vec());
    }
    let text = std::str::from_utf8(written.trim_ascii()).ok()?;
    TextEncoding::Base64.decode(text).filter(|bytes| bytes.len() == SIGNATURE_LENGTH)
}

fn parse_manifest(folder: &dyn PackFolder, bytes: Vec<u8>) -> Result<PackManifest, PackFault> {
    let source = text(folder, MANIFEST_FILE, bytes)?;
    let report = Diagnostics::new();
    PackManifest::parse(&source, &report).ok_or_else(|| {
        let found = report.into_diagnostics();
        PackFault::Malformed(found.iter().map(|one| one.one_line()).collect::<Vec<_>>().join(" · "))
    })
}

fn judge(manifest: &PackManifest, demand: &PackDemand<'_>) -> Vec<PackFault> {
    let mut faults = Vec::new();
    if let Some(wanted) = demand.name.filter(|wanted| *wanted != manifest.name) {
        faults.push(PackFault::Name { found: manifest.name.clone(), wanted: wanted.to_owned() });
    }
    if let Some(least) = demand.min_version.filter(|least| **least > manifest.version) {
        faults.push(PackFault::Old { found: manifest.version.clone(), least: least.clone() });
    }
    faults
}

#[cfg(test)]
mod tests;

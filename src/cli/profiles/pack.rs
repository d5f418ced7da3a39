//! `countersign profiles pack` and `verify`: packs are made, and looked at as a proxy would.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use zeroize::Zeroizing;

use super::found_profile::{Unusable, mistakes, unreadable};
use super::{complain, list_table, one_line_json, print};
use crate::base::counted::counted;
use crate::cli::tell;
use crate::config::{MachineFiles, PackFiles, faults_text};
use crate::provider::{
    MANIFEST_FILE, PackDemand, PackKey, PackManifest, PackTrust, PackVersion, Profile, ProfilePack, SIGNATURE_FILE,
    describe_folder, sign_manifest,
};
use crate::syntax::{Diagnostics, SourceText};

/// The arguments of `profiles pack`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PackArguments {
    /// The folder with the profiles
    #[arg(value_name = "FOLDER")]
    folder: std::path::PathBuf,
    /// Sign it with this key: Ed25519, PEM, as `openssl genpkey -algorithm ed25519` makes it
    #[arg(long, value_name = "KEYFILE")]
    key: Option<std::path::PathBuf>,
    /// Name of the pack, as in [profile_pack.NAME]; default: the name it has, or that of the folder
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Version of the pack, such as 2026.11.30; default: the version it has, if no profile differs
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
}

/// Writes manifest and signature. 0: done, 1: a profile has mistakes, 2: nothing could be written.
pub(super) fn pack(arguments: &PackArguments) -> ExitCode {
    tell(make(arguments))
}

fn make(arguments: &PackArguments) -> Result<String, Unusable> {
    let folder = &arguments.folder;
    let known = known_manifest(folder)?;
    let own = || {
        let whole = fs::canonicalize(folder).ok()?;
        Some(whole.file_name()?.to_str()?.to_owned())
    };
    let named = arguments.name.clone().or_else(|| known.as_ref().map(|known| known.name.clone())).or_else(own);
    let name = named.ok_or_else(|| (format!("{} has no name: say --name", folder.display()), 2))?;
    let version = arguments.version.as_deref().map(PackVersion::parse).transpose();
    let version = version.map_err(|help| (format!("--version: {help}"), 2))?;
    let version = version.or_else(|| known.as_ref().map(|known| known.version.clone()));
    let version = version.ok_or_else(|| ("the pack has no version yet: say --version 2026.11.30".to_owned(), 2))?;
    let files = PackFiles { files: &MachineFiles, path: folder };
    let pack = describe_folder(&files, name, version).map_err(|fault| (faults_text(folder, &[fault]), 2))?;
    let manifest = pack.manifest();
    if manifest.profiles.is_empty() {
        return Err((format!("there are no profiles (*.toml) in {}", folder.display()), 2));
    }
    if let Some(known) = known.filter(|known| known.profiles != manifest.profiles && manifest.version <= known.version)
    {
        let why = format!(
            "the profiles are not those of version {}: say --version with a newer one, so that it cannot be mistaken for them",
            known.version
        );
        return Err((why, 2));
    }
    let text = manifest.to_toml();
    let report = Diagnostics::new();
    if PackManifest::parse(&SourceText::new(MANIFEST_FILE, text.clone()), &report).is_none() {
        return Err((mistakes("the manifest", report, false), 2));
    }
    let profiles = parsed(&pack, false)?;
    let signature = arguments.key.as_ref().map(|path| {
        let pem = fs::read(path).map(Zeroizing::new).map_err(|error| (unreadable(path, &error), 2))?;
        sign_manifest(text.as_bytes(), &pem).map_err(|error| (format!("{}: {error}", path.display()), 2))
    });
    let signature = signature.transpose()?;
    // The old signature goes first: a manifest never lies beside one that is not its own.
    let stale = fs::remove_file(folder.join(SIGNATURE_FILE)).is_ok();
    put(&folder.join(MANIFEST_FILE), &text)?;
    let mut told = list_table(&profiles);
    told += &format!("\n{} {}: {}, ", manifest.name, manifest.version, counted(profiles.len(), "profile"));
    match signature {
        Some(signature) => {
            put(&folder.join(SIGNATURE_FILE), &signature)?;
            told += "signed.\n";
        }
        None if stale => told += "not signed. The signature of before was removed: say --key to sign it anew.\n",
        None => told += "not signed.\n",
    }
    Ok(told)
}

/// The manifest that the folder has already.
fn known_manifest(folder: &Path) -> Result<Option<PackManifest>, Unusable> {
    let path = folder.join(MANIFEST_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err((unreadable(&path, &error), 2)),
    };
    let (shown, report) = (path.display().to_string(), Diagnostics::new());
    let manifest = PackManifest::parse(&SourceText::new(shown.clone(), text), &report);
    manifest.map(Some).ok_or_else(|| (mistakes(&shown, report, false) + "\n\ncorrect it, or remove it", 2))
}

/// Writes a file beside its place first, so that none is ever there in part.
fn put(path: &Path, text: &str) -> Result<(), Unusable> {
    let told = |error: io::Error| (format!("{} cannot be written: {error}", path.display()), 2);
    let beside = path.with_file_name(format!(".{}.new", path.file_name().unwrap_or_default().to_string_lossy()));
    fs::write(&beside, text).map_err(told)?;
    fs::rename(&beside, path).map_err(told)
}

/// All profiles of a pack, read.
fn parsed(pack: &ProfilePack, as_json: bool) -> Result<Vec<(String, Arc<Profile>)>, Unusable> {
    let one = |name: &str| {
        let report = Diagnostics::new();
        let profile = pack.profile(name, &report);
        profile.map(|profile| (name.to_owned(), profile)).ok_or_else(|| (mistakes(name, report, as_json), 1))
    };
    pack.names().map(one).collect()
}

/// The arguments of `profiles verify`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct VerifyPackArguments {
    /// The folder of the pack
    #[arg(value_name = "FOLDER")]
    folder: std::path::PathBuf,
    /// The Ed25519 public key that must have signed it, PEM
    #[arg(long, value_name = "FILE")]
    public_key: std::path::PathBuf,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Verifies a pack as a proxy does, and reads each of its profiles. 0: it holds, 1: it does not, 2: it cannot be tried.
pub(super) fn verify(arguments: &VerifyPackArguments) -> ExitCode {
    let path = &arguments.public_key;
    let key = fs::read(path).map_err(|error| unreadable(path, &error));
    let key = key.and_then(|pem| PackKey::from_pem(&pem).map_err(|error| format!("{}: {error}", path.display())));
    let key = match key {
        Ok(key) => key,
        Err(why) => {
            complain(&why);
            return ExitCode::from(2);
        }
    };
    let folder = &arguments.folder;
    if !folder.is_dir() {
        complain(&format!("{} is no folder; name that of a pack", folder.display()));
        return ExitCode::from(2);
    }
    let trust = PackTrust::Signed(key);
    let demand = PackDemand { trust: &trust, ..PackDemand::NONE };
    let opened = ProfilePack::open(&PackFiles { files: &MachineFiles, path: folder }, &demand);
    let opened = opened.map_err(|faults| faults_text(folder, &faults));
    let held = opened.and_then(|pack| match parsed(&pack, arguments.json) {
        Ok(profiles) => Ok((pack, profiles)),
        Err((why, _)) => Err(why),
    });
    match held {
        Ok((pack, profiles)) => {
            let listed: Vec<_> = profiles.iter().map(|(name, profile)| one_line_json(name, profile)).collect();
            let (name, version) = (pack.name(), pack.version().to_string());
            print(&if arguments.json {
                format!("{:#}\n", json!({ "ok": true, "name": name, "version": version, "profiles": listed }))
            } else {
                let count = counted(profiles.len(), "profile");
                format!("{}\n{name} {version}: {count}, as the key has signed them.\n", list_table(&profiles))
            });
            ExitCode::SUCCESS
        }
        Err(why) => {
            if arguments.json {
                print(&format!("{:#}\n", json!({ "ok": false, "why": why.lines().collect::<Vec<_>>() })));
            } else {
                complain(&why);
            }
            ExitCode::from(1)
        }
    }
}

/// The profiles of the folder of a pack, as they are now.
pub(super) fn profiles_in(folder: &Path) -> Result<Vec<(String, Arc<Profile>)>, Unusable> {
    let files = PackFiles { files: &MachineFiles, path: folder };
    let opened = ProfilePack::open(&files, &PackDemand::NONE).map_err(|faults| (faults_text(folder, &faults), 1))?;
    parsed(&opened, false)
}

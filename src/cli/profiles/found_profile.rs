//! The profile that an argument names: a built-in one, a file, or one of a pack.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::nearest;
use crate::config::{MachineFiles, PackFiles, sketch, sketched_pack};
use crate::provider::{MANIFEST_FILE, PackVersion, Profile, ProfilePack, ProfileText, describe_folder};
use crate::syntax::{Diagnostics, SourceText};

/// The reason for which a command cannot go on, and its exit status.
pub(in crate::cli) type Unusable = (String, u8);

/// A profile's text that was found, unread.
pub(in crate::cli) struct FoundProfile {
    pub(super) source: Arc<SourceText>,
    /// The pack that it stands in.
    pub(super) pack: Option<Arc<ProfilePack>>,
    /// The folder in which its conversations belong.
    pub(super) home: PathBuf,
}

impl FoundProfile {
    /// Finds a built-in profile by name, a file by path, one of a pack by `FOLDER/NAME`, or by `PACK/NAME` where the
    /// config at `config` has such a pack.
    pub(super) fn find(named: &str, config: Option<&Path>) -> Result<Self, Unusable> {
        if let Some(text) = Profile::builtin_text(named) {
            let source = SourceText::new(format!("profile {named}"), text);
            return Ok(Self { source, pack: None, home: Path::new("tests/fixtures/provider").join(named) });
        }
        let path = Path::new(named);
        if path.is_file() {
            return Self::of_file(path);
        }
        let beside = path.with_file_name(format!("{}.toml", path.file_name().unwrap_or_default().to_string_lossy()));
        if is_pack(path.parent().unwrap_or(Path::new(""))) && beside.is_file() {
            return Self::of_file(&beside);
        }
        if let (Some((pack, name)), Some(config)) = (named.split_once('/'), config)
            && let Some(found) = Self::of_config(pack, name, config)?
        {
            return Ok(found);
        }
        if !named.contains('/') && path.extension().is_none() {
            let why = format!("no built-in profile is called `{}`; {}", named.escape_debug(), nearest(named));
            return Err((why + "; a file is named by its path", 2));
        }
        Self::of_file(path)
    }

    /// A file. If it stands in a pack, its neighbours can be its parents; they are taken as they are now.
    pub(super) fn of_file(path: &Path) -> Result<Self, Unusable> {
        let text = fs::read_to_string(path).map_err(|error| (unreadable(path, &error), 2))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let pack = is_pack(folder).then(|| {
            let files = PackFiles { files: &MachineFiles, path: folder };
            PackVersion::parse("0").ok().and_then(|version| describe_folder(&files, String::new(), version).ok())
        });
        let source = SourceText::new(path.display().to_string(), text);
        Ok(Self { source, pack: pack.flatten().map(Arc::new), home: path.with_extension("") })
    }

    /// One of a pack of the config, verified as that demands. `None`: the config has no such pack, or there is none.
    fn of_config(pack: &str, name: &str, config: &Path) -> Result<Option<Self>, Unusable> {
        let Ok(plain) = sketch(config, &MachineFiles) else { return Ok(None) };
        let folder = config.parent().unwrap_or(Path::new(""));
        let Some(opened) = sketched_pack(&plain, folder, pack, &MachineFiles) else { return Ok(None) };
        let opened = opened.map_err(|why| (why, 2))?;
        let Some(source) = opened.text(name).cloned() else {
            let names: Vec<&str> = opened.names().collect();
            return Err((format!("the pack `{pack}` has no profile `{name}`; it has {}", names.join(", ")), 2));
        };
        let home = Path::new(&source.name).with_extension("");
        Ok(Some(Self { source, pack: Some(Arc::new(opened)), home }))
    }

    /// Reads the profile.
    pub(super) fn parse(&self, as_json: bool) -> Result<Arc<Profile>, Unusable> {
        let report = Diagnostics::new();
        let parsed = Profile::parse_in(&self.source, self.pack.as_deref(), &report);
        parsed.ok_or_else(|| (mistakes(&self.source.name, report, as_json), 1))
    }

    pub(super) fn text(&self) -> ProfileText<'_> {
        ProfileText { source: &self.source, pack: self.pack.as_deref() }
    }
}

/// Returns whether a folder is that of a pack.
pub(super) fn is_pack(folder: &Path) -> bool {
    folder.join(MANIFEST_FILE).is_file()
}

/// Tells the mistakes of a profile.
pub(super) fn mistakes(name: &str, report: Diagnostics, as_json: bool) -> String {
    let found = report.into_diagnostics();
    let shown = found.iter().map(|one| if as_json { one.one_line() } else { one.render(false) });
    let shown: Vec<String> = shown.collect();
    format!("{name} has mistakes:\n\n{}", shown.join("\n\n"))
}

pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}

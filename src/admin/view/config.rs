//! `GET /api/v1/config`: the config in force, without secrets.

use std::collections::HashSet;
use std::path::{Path, absolute};

use serde::Serialize;

use super::{LogLevelView, ReloadView};
use crate::config::{ConfigSection, Sources};

/// The response body of `GET /api/v1/config`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ConfigView {
    /// Digest of what the config was read from, without secrets.
    pub config_digest: String,
    /// Files and commands that it was read from: the config itself first, then what it includes, profiles, and
    /// certificates, keys and secrets.
    pub files: Vec<ConfigFileView>,
    /// Its sections, in the order of the files.
    pub sections: Vec<ConfigSectionView>,
    pub last_reload: ReloadView,
    pub log_level: LogLevelView,
}

/// A file or a command that the config was read from.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct ConfigFileView {
    /// Kind of the file: `config`, `included`, `profile`, `credential` (a certificate, a key or a secret) or `command`.
    pub kind: &'static str,
    /// Its absolute path; of a command its program as the config names it.
    pub path: String,
}

impl ConfigFileView {
    /// Lists the sources of a config with these sections.
    pub(crate) fn of(sources: &Sources, sections: &[ConfigSection]) -> Vec<Self> {
        let shown = |path: &Path| absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
        let named: HashSet<&str> = sections.iter().map(|section| section.file.as_str()).collect();
        let texts = sources.texts.iter().enumerate().map(|(at, (path, _))| {
            let name = path.display().to_string();
            let kind = match at {
                0 => "config",
                _ if named.contains(name.as_str()) => "included",
                _ => "profile",
            };
            Self { kind, path: shown(path) }
        });
        let secrets = sources.secrets.iter().map(|(path, _)| Self { kind: "credential", path: shown(path) });
        let program = |path: &Path| path.display().to_string();
        let commands = sources.commands.iter().map(|command| Self { kind: "command", path: program(&command.program) });
        texts.chain(secrets).chain(commands).collect()
    }
}

/// A section of the config.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ConfigSectionView {
    /// Its name in messages, such as `[provider.scb]`.
    pub name: String,
    /// The file that it stands in, as messages name it.
    pub file: String,
    /// Number of its first line there.
    pub line: usize,
    /// Its keys as TOML, with `***` in place of secrets.
    pub text: String,
}

impl ConfigSectionView {
    pub(crate) fn of(section: &ConfigSection) -> Self {
        let ConfigSection { name, file, line, text } = section.clone();
        Self { name, file, line, text }
    }
}

//! The path of the config where a command names none.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::config::STANDARD_INPUT_PATH;

/// Name of the environment variable that names the config.
const VARIABLE: &str = "COUNTERSIGN_CONFIG";

/// The path that stands before the command, as in `countersign -c proxy.toml check`.
static BEFORE: OnceLock<PathBuf> = OnceLock::new();

/// Takes note of the path that stands before the command. It has to be known before the command line is parsed, because
/// it is the default of what stands behind the command.
pub(super) fn note_global(words: impl IntoIterator<Item = OsString>) {
    if let Some(path) = before_command(words) {
        let _ = BEFORE.set(path);
    }
}

/// The value of `-c` or `--config` before the first word that is no option of the whole command line.
fn before_command(words: impl IntoIterator<Item = OsString>) -> Option<PathBuf> {
    let mut words = words.into_iter().skip(1);
    let mut found = None;
    while let Some(word) = words.next() {
        let text = word.to_str()?;
        let inline = text.strip_prefix("--config=").or_else(|| text.strip_prefix("-c").filter(|rest| !rest.is_empty()));
        match text {
            "-c" | "--config" => found = words.next(),
            "--color" => drop(words.next()),
            _ if inline.is_some() => found = inline.map(OsString::from),
            _ if text.starts_with("--color=") => {}
            _ => break,
        }
    }
    found.map(PathBuf::from)
}

/// Returns the path before the command, if one stands there.
pub(super) fn before() -> Option<PathBuf> {
    BEFORE.get().cloned()
}

/// Returns the path before the command, or in `COUNTERSIGN_CONFIG`, or else `proxy.toml` in the current directory.
pub(super) fn usual() -> PathBuf {
    named().unwrap_or_else(|| PathBuf::from("proxy.toml"))
}

/// Returns the path before the command, or in `COUNTERSIGN_CONFIG`; `None` if neither is there, or the variable is empty.
pub(super) fn named() -> Option<PathBuf> {
    let by_environment = || std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    before().or_else(by_environment)
}

/// How to come by a first config.
const FIRST_CONFIG: &str =
    "none yet? `countersign init BANK` writes one for a bank, `countersign sim --write .` one for simulated banks";

/// The reason for which a config cannot be read, and how to come by a first one where there is no file at all.
pub(super) fn with_first_config(why: String, path: &Path) -> String {
    // On standard input there is no file that could be missing.
    let is_missing = path != Path::new(STANDARD_INPUT_PATH) && path.try_exists().is_ok_and(|exists| !exists);
    if is_missing { format!("{why}; {FIRST_CONFIG}") } else { why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_before_the_command_is_found() {
        let found = |line: &str| before_command(line.split(' ').map(OsString::from));
        for line in [
            "countersign -c a.toml check",
            "countersign -ca.toml check",
            "countersign --color never --config a.toml check -c b.toml",
            "countersign --color=never --config=a.toml check",
        ] {
            assert_eq!(found(line), Some(PathBuf::from("a.toml")), "{line}");
        }
        for line in ["countersign check -c a.toml", "countersign exec -- sh -c a.toml", "countersign", "countersign -c"]
        {
            assert_eq!(found(line), None, "{line}");
        }
    }
}

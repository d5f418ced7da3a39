//! The path of the config where a command names none.

use std::path::PathBuf;

/// Name of the environment variable that names the config.
const VARIABLE: &str = "COUNTERSIGN_CONFIG";

/// Returns the path in `COUNTERSIGN_CONFIG`, or else `proxy.toml` in the current directory.
pub(super) fn usual() -> PathBuf {
    named_by_environment().unwrap_or_else(|| PathBuf::from("proxy.toml"))
}

/// Returns the path in `COUNTERSIGN_CONFIG`; `None` if it is not set, or empty.
pub(super) fn named_by_environment() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

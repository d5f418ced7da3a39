//! `countersign version`: which build this is.

use std::process::ExitCode;

use serde_json::json;

use super::print;

/// The commit that this was built from, as the build's environment says it in `COUNTERSIGN_COMMIT`.
const COMMIT: &str = match option_env!("COUNTERSIGN_COMMIT") {
    Some(commit) if !commit.is_empty() => commit,
    Some(_) | None => "unknown",
};

/// The C library that it is linked with.
const LIBRARY: &str = if cfg!(target_env = "musl") {
    "musl"
} else if cfg!(target_env = "gnu") {
    "gnu"
} else {
    ""
};

/// Optional parts of the code, and whether this build has them.
const FEATURES: [(&str, bool); 2] = [("fuzzing", cfg!(feature = "fuzzing")), ("otlp", cfg!(feature = "otlp"))];

/// Prints version, commit, target and features of this build.
pub fn print_version(json: bool) -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    let target: Vec<&str> =
        [std::env::consts::ARCH, std::env::consts::OS, LIBRARY].into_iter().filter(|part| !part.is_empty()).collect();
    let target = target.join("-");
    let features: Vec<&str> = FEATURES.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    if json {
        let answer = json!({ "version": version, "commit": COMMIT, "target": target, "features": features });
        print(&format!("{answer}\n"));
    } else {
        let listed = if features.is_empty() { "none".to_owned() } else { features.join(", ") };
        print(&format!("countersign {version}\ncommit:   {COMMIT}\ntarget:   {target}\nfeatures: {listed}\n"));
    }
    ExitCode::SUCCESS
}

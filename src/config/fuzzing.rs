//! Invariants of every text that is given as a config, checked by fuzzing.

use std::io;
use std::path::Path;
use std::sync::LazyLock;

use toml::{Table, Value};

use super::{Files, Snapshot, build};
use crate::syntax::{Diagnostic, Severity};

/// Stands in every secret that a variable or a file holds.
const HIDDEN: &str = "h1dd3n";

/// A literal secret of a config has it, so that it can be told from the rest.
const MARK: &str = "c4n4ry";

/// A machine with any secret that is asked for and one certificate; every other file is absent.
struct FuzzMachine;

/// A certificate, and its key.
static PAPER: LazyLock<(String, String)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(vec!["gateway.example".to_owned()]).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
});

impl Files for FuzzMachine {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt" | "pem") => Ok(PAPER.0.clone().into_bytes()),
            Some("key") => Ok(PAPER.1.clone().into_bytes()),
            Some("b64") => Ok(b"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n".to_vec()),
            Some("secret" | "token") => Ok(format!("{HIDDEN}-in-a-file-of-32-characters\n").into_bytes()),
            Some(_) | None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn env(&self, name: &str) -> Option<String> {
        let set = name.contains("SECRET") || name.contains("KEY") || name.contains("TOKEN");
        set.then(|| format!("{HIDDEN}-in-a-variable-of-36-characters"))
    }
}

/// Builds a config from the text and checks the invariants.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let path = Path::new("proxy.toml");
    let (snapshot, found) = build(path, text, &FuzzMachine);
    let fine = found.iter().all(|found| found.severity == Severity::Warning);
    assert_eq!(snapshot.is_some(), fine, "there is a config exactly when there is no mistake");
    let shown = shown(&found);
    let plain = text.parse::<Table>().ok();
    hides(text, plain.as_ref(), &shown, snapshot.as_ref());
    if let Some(snapshot) = &snapshot {
        assert!(plain.is_some(), "it is TOML");
        assert!(!snapshot.listeners.is_empty());
    }
    // It takes its time, so not every text is read twice.
    if !text.len().is_multiple_of(4) {
        return;
    }
    let (again, found_again) = build(path, text, &FuzzMachine);
    assert_eq!(shown, self::shown(&found_again), "the same text, the same mistakes");
    let digests = |snapshot: &Option<Snapshot>| {
        snapshot.as_ref().map(|snapshot| (snapshot.digest.clone(), snapshot.sources.fingerprint))
    };
    assert_eq!(digests(&snapshot), digests(&again), "the same text, the same config");
}

fn shown(found: &[Diagnostic]) -> String {
    let lines = found.iter().map(|found| {
        assert!(!found.title.is_empty() && found.span.start <= found.span.end);
        format!("{}\n{}\n", found.render(false), found.one_line())
    });
    lines.collect()
}

/// No secret is shown: neither where a mistake is told, nor where a programmer prints the config.
fn hides(text: &str, plain: Option<&Table>, shown: &str, snapshot: Option<&Snapshot>) {
    let debug = snapshot.map_or_else(String::new, |snapshot| format!("{snapshot:?}"));
    if !text.contains(HIDDEN) {
        assert!(!shown.contains(HIDDEN) && !debug.contains(HIDDEN), "a secret is shown:\n{shown}{debug}");
    }
    let marks = |text: &str| text.matches(MARK).count();
    let literals: usize = plain.map(literals).unwrap_or_default().into_iter().map(marks).sum();
    // If the mark also occurs outside the literal secrets, it is no secret.
    if literals > 0 && literals == marks(text) {
        assert!(marks(shown) == 0 && marks(&debug) == 0, "a secret is shown:\n{shown}{debug}");
    }
}

/// The literal secrets of a config.
fn literals(config: &Table) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for provider in members(config.get("provider")) {
        found.extend(["application_secret", "client_secret"].iter().filter_map(|key| provider.get(key)?.as_str()));
    }
    let tokens = config.get("admin").and_then(|admin| admin.get("token"));
    found.extend(members(tokens).filter_map(|token| token.get("value")?.as_str()));
    found.extend(config.get("audit").and_then(|audit| audit.get("key")?.as_str()));
    let keys = config.get("store").and_then(|store| store.get("keys")?.as_array());
    found.extend(keys.into_iter().flatten().filter_map(Value::as_str));
    found
}

/// The values in a table, if it is one.
fn members(table: Option<&Value>) -> impl Iterator<Item = &Value> {
    table.and_then(Value::as_table).into_iter().flatten().map(|(_, value)| value)
}

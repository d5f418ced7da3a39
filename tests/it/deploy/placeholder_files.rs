//! Stand-ins for the files that a configuration expects on the machine where it will run.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::base::secret::sha256;
use countersign::base::time::Clock;
use countersign::sim::{LeafSpec, SimAuthority};
use tempfile::TempDir;

use super::tools::told;

/// Where a deployed configuration points: everything below these folders is given a stand-in.
const PLACES: [&str; 4] = ["/run/", "/etc/countersign/", "/var/lib/countersign/", "/var/log/countersign/"];

/// What may stand in a certificate's place: our own authority, and a certificate of it.
struct Papers {
    ca: String,
    cert: String,
    key: String,
}

fn papers() -> &'static Papers {
    static MADE: OnceLock<Papers> = OnceLock::new();
    MADE.get_or_init(|| {
        let now = Clock::System.now();
        let authority = SimAuthority::new("stand-in", now).expect("a CA");
        let leaf = authority.issue(&LeafSpec::server(now)).expect("a leaf");
        Papers { ca: authority.pem(), cert: leaf.cert_pem.clone(), key: leaf.key_pem.clone() }
    })
}

/// Puts a configuration before `countersign check`, in a folder with everything that it points at. Answers the paths that
/// it wanted.
pub fn checked(about: &str, config: &str) -> Vec<String> {
    let folder = TempDir::new().expect("a folder");
    let mut moved = config.to_owned();
    let mut wanted = Vec::new();
    for place in PLACES {
        let there = format!("{}{place}", folder.path().display());
        fs::create_dir_all(&there).expect("a folder");
        for opening in ["\"", "\"file:"] {
            moved = moved.replace(&format!("{opening}{place}"), &format!("{opening}{there}"));
        }
    }
    for path in config.split('"').filter(|path| PLACES.iter().any(|place| path.starts_with(place))) {
        let file = folder.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        make(&file, path);
        wanted.push(path.to_owned());
    }
    let file = folder.path().join("proxy.toml");
    fs::write(&file, moved).expect("written");
    let mut check = Command::new(env!("CARGO_BIN_EXE_countersign"));
    let said = told(check.args(["check", "-c"]).arg(&file), "");
    // The stand-ins live for a month, of which a check warns.
    let warns = |line: &str| line.contains("warning") && !line.contains(" expires in ");
    assert!(!said.err.lines().any(warns), "{about}: {}", said.err);
    said.content(about);
    wanted
}

/// What a file of this name holds.
fn make(file: &Path, name: &str) {
    if name.starts_with("/run/interception/") {
        if !file.exists() {
            let mut new = Command::new(env!("CARGO_BIN_EXE_countersign"));
            new.args(["ca", "new", "--permit", "scb", "--cert"]).arg(file.with_file_name("tls.crt"));
            told(new.arg("--key").arg(file.with_file_name("tls.key")), "").content(name);
        }
        return;
    }
    let text = if name.ends_with("ca.crt") {
        papers().ca.clone()
    } else if name.ends_with(".crt") {
        papers().cert.clone()
    } else if name.contains("store") {
        // 32 bytes, others for each name.
        STANDARD.encode(sha256(name.as_bytes()))
    } else if name.ends_with(".key") {
        papers().key.clone()
    } else {
        format!("stand-in-for{}\n", name.replace('/', "-"))
    };
    fs::write(file, text).expect("written");
}

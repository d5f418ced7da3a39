//! Signed messages, verified by libraries that others wrote.
//!
//! The conversations in `tests/fixtures/provider` say byte by byte how countersign signs, and the test run holds it to
//! them. `tests/signatures/verify.py` verifies those bytes, and sees each of them refused once it is changed.

use std::path::Path;
use std::process::Command;

/// The forms that are verified, by their conversations.
const VERIFIED: [&str; 7] = [
    "client-secret-jwt",
    "http-message-signature",
    "jws-detached",
    "jws-unencoded",
    "jwt-per-request",
    "oauth1",
    "private-key-jwt",
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

//! `countersign key new`: a client's key, shown once.

use std::process::ExitCode;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::complain;
use crate::base::secret::{hex, sha256};

/// Makes a key of 256 random bits and prints it with the config lines that hold its hash.
#[expect(clippy::print_stdout, reason = "the key is this command's result")]
pub fn new(name: &str) -> ExitCode {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(plain) {
        complain("a client's name is letters, digits, `-` and `_`");
        return ExitCode::from(2);
    }
    let mut bytes = [0; 32];
    if rand::fill(&mut bytes).is_err() {
        complain("the system gives no randomness");
        return ExitCode::from(1);
    }
    let key = format!("csk_{}", URL_SAFE_NO_PAD.encode(bytes));
    println!("{key}\n");
    println!("# This key is shown once. Give it to the client; paste these lines into proxy.toml:");
    println!("[client.{name}]");
    println!("key_sha256 = [\"{}\"]", hex(&sha256(key.as_bytes())));
    ExitCode::SUCCESS
}

//! `countersign key new`: a client's key, shown once.

use std::process::ExitCode;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::{complain, print};
use crate::base::secret::{hex, sha256};

/// Makes a key of 256 random bits and prints it with the config lines that hold its hash.
pub fn new_key(name: &str, as_json: bool) -> ExitCode {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        complain("a client's name is 1 to 64 letters, digits, `-` and `_`");
        return ExitCode::from(2);
    }
    let mut bytes = [0; 32];
    if rand::fill(&mut bytes).is_err() {
        complain("the system gives no randomness");
        return ExitCode::from(1);
    }
    let key = format!("csk_{}", URL_SAFE_NO_PAD.encode(bytes));
    let hash = hex(&sha256(key.as_bytes()));
    print(&if as_json {
        format!("{}\n", json!({ "client": name, "key": key, "key_sha256": hash }))
    } else {
        format!(
            "{key}\n\n\
             # The key above is shown this once; give it to the client. These lines go into proxy.toml:\n\
             [client.{name}]\n\
             key_sha256 = [\"{hash}\"]\n"
        )
    });
    ExitCode::SUCCESS
}

//! `countersign key new`: a client's key, shown once.

use std::process::ExitCode;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::{complain, print};
use crate::base::secret::{hex, sha256};

/// What is wrong with a name that [`is_client_name`] refuses.
pub(super) const BAD_NAME: &str = "a client's name is 1 to 64 letters, digits, `-` and `_`";

/// Returns whether a client can have this name.
pub(super) fn is_client_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !name.is_empty() && name.len() <= 64 && name.chars().all(plain)
}

/// Draws a key of 256 random bits; answers it and its SHA-256 in hexadecimal digits. `None`: the system gives no
/// randomness.
pub(super) fn client_key() -> Option<(String, String)> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).ok()?;
    let key = format!("csk_{}", URL_SAFE_NO_PAD.encode(bytes));
    let hash = hex(&sha256(key.as_bytes()));
    Some((key, hash))
}

/// Makes a key of 256 random bits and prints it with the config lines that hold its hash.
pub fn new_key(name: &str, as_json: bool) -> ExitCode {
    if !is_client_name(name) {
        complain(BAD_NAME);
        return ExitCode::from(2);
    }
    let Some((key, hash)) = client_key() else {
        complain("the system gives no randomness");
        return ExitCode::from(1);
    };
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

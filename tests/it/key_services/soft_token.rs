//! A PKCS#11 token: SoftHSM, with its token in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The module, as Debian's `softhsm2` installs it.
pub const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub const LABEL: &str = "bank-token";
pub const PIN: &str = "canary-pin-4Xs8";

/// A token with keys; it is gone when this is dropped.
pub struct SoftToken {
    folder: TempDir,
}

impl SoftToken {
    /// A token with these keys, each a label and a PEM file in PKCS#8 form.
    pub fn with(keys: &[(&str, &str)]) -> Self {
        let token = Self { folder: tempfile::tempdir().expect("a folder") };
        let tokens = token.folder.path().join("tokens");
        fs::create_dir(&tokens).expect("made");
        fs::write(token.config(), format!("directories.tokendir = {}\n", tokens.display())).expect("written");
        token.run(&["--init-token", "--free", "--label", LABEL, "--so-pin", "an-so-pin", "--pin", PIN]);
        for (number, (label, pem)) in keys.iter().enumerate() {
            let path = token.folder.path().join("key.pem");
            fs::write(&path, pem).expect("written");
            let id = format!("{:02x}", number + 1);
            let path = path.display().to_string();
            token.run(&["--import", &path, "--token", LABEL, "--label", label, "--id", &id, "--pin", PIN]);
            fs::remove_file(path).expect("removed");
        }
        token
    }

    /// The value of `SOFTHSM2_CONF`.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("softhsm2.conf")
    }

    /// The key setting of one of its keys, with the PIN in a file beside the config.
    pub fn setting(folder: &Path, label: &str) -> String {
        fs::write(folder.join("pin"), PIN).expect("written");
        format!(
            "pkcs11 = {{ module = \"{MODULE}\", token = \"{LABEL}\", label = \"{label}\", pin = {{ file = \"pin\" }} }}"
        )
    }

    fn run(&self, arguments: &[&str]) {
        let mut command = Command::new("softhsm2-util");
        let command = command.args(arguments).env("SOFTHSM2_CONF", self.config()).stdout(Stdio::null());
        let status =
            command.status().expect("softhsm2-util is missing: install Debian's `softhsm2`, as tests/run does");
        assert!(status.success(), "{arguments:?}");
    }
}

//! AWS KMS: moto, in a process of its own (`tests/kms/server.py`).

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use countersign::base::time::Clock;
use countersign::sim::{LeafSpec, SimAuthority};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// A running server with some keys. It can be killed, stopped and started again at the same port.
pub struct KmsServer {
    folder: TempDir,
    keys: Vec<String>,
    ca: String,
    port: u16,
    child: Option<Child>,
}

impl KmsServer {
    /// Starts one with these keys, each an alias and a PEM file.
    pub fn with(keys: &[(&str, &str)]) -> Self {
        Self::with_files(keys, &[])
    }

    /// Starts one without keys of ours. It has a secret `bank` with this text, and a role for this web identity.
    pub fn with_secret(secret: &str, web_identity: &str) -> Self {
        Self::with_files(&[], &[("bank.secret", secret), ("web-identity", web_identity)])
    }

    fn with_files(keys: &[(&str, &str)], files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Clock::System.now();
        let authority = SimAuthority::new("KMS CA", now).expect("a CA");
        let leaf = authority.issue(&LeafSpec::server(now)).expect("a leaf");
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        put("tls.crt", &leaf.cert_pem);
        put("tls.key", &leaf.key_pem);
        files.iter().for_each(|(name, text)| put(name, text));
        let keys = keys.iter().map(|(alias, pem)| {
            put(&format!("{alias}.pem"), pem);
            format!("{alias}={alias}.pem")
        });
        let keys = keys.collect();
        let mut server = Self { folder, keys, ca: authority.pem(), port: 0, child: None };
        server.start();
        server
    }

    /// Starts it again; at the port that it had.
    pub fn start(&mut self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(root.join("target/clients/venv/bin/python"));
        command.arg(root.join("tests/kms/server.py")).arg(self.port.to_string()).args(["tls.crt", "tls.key"]);
        command.args(&self.keys).current_dir(self.folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("target/clients/venv is missing: tests/run makes it");
        let mut said = String::new();
        let out = child.stdout.as_mut().expect("piped");
        BufReader::new(out).read_line(&mut said).expect("a line");
        self.port = said.trim().rsplit(' ').next().and_then(|port| port.parse().ok()).expect("a port");
        self.child = Some(child);
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("it is gone");
    }

    /// Stops its threads where they are (`SIGSTOP`), or lets them go on.
    pub fn freeze(&self, frozen: bool) {
        let id = self.child.as_ref().expect("it runs").id();
        let id = Pid::from_raw(id.cast_signed()).expect("a process");
        kill_process(id, if frozen { Signal::STOP } else { Signal::CONT }).expect("signalled");
    }

    /// A data key, and the same wrapped by `alias/store`, both in base64.
    pub fn data_key(&self) -> (String, String) {
        let read = |name: &str| fs::read_to_string(self.folder.path().join(name)).expect("written before it listens");
        (read("data-key"), read("data-key.wrapped"))
    }

    /// The CA of its certificate, as PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The key setting of one of its keys, with what it needs in files beside the config.
    pub fn setting(&self, folder: &Path, alias: &str) -> String {
        for (name, text) in [("kms.crt", &*self.ca), ("kms-id", ACCESS_KEY), ("kms-secret", SECRET)] {
            fs::write(folder.join(name), text).expect("written");
        }
        format!(
            "kms = {{ provider = \"aws\", key = \"alias/{alias}\", region = \"eu-central-1\", \
             endpoint = \"https://127.0.0.1:{}\", ca = \"kms.crt\", access_key_id = {{ file = \"kms-id\" }}, \
             secret_access_key = {{ file = \"kms-secret\" }} }}",
            self.port
        )
    }
}

impl Drop for KmsServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

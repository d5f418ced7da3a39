//! A real Redis for the tests: Debian's redis-server, one process per test, on a free port; and a relay that stands
//! before one and misbehaves.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::base::time::Stopwatch;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::client::PATIENCE;

/// A running server; it ends when this is dropped, and after five minutes in any case.
pub struct RedisServer {
    child: Child,
    folder: TempDir,
    pub port: u16,
    /// What `redis-cli` needs to be let in.
    login: Vec<String>,
    /// What its log says once it is ready.
    ready: &'static str,
    /// True for a Sentinel.
    is_sentinel: bool,
}

/// What a server says once it is ready, and what a Sentinel says once it watches a master.
const READY: &str = "Ready to accept connections";
const WATCHES: &str = "+monitor master";

impl RedisServer {
    /// A server without any rules.
    pub fn start() -> Self {
        Self::with("", &[])
    }

    /// A server with more lines of config. With `login` its own tools are let in.
    pub fn with(config: &str, login: &[&str]) -> Self {
        Self::of_kind(config, login, READY)
    }

    /// A Sentinel with more lines of config.
    pub fn sentinel(config: &str, login: &[&str]) -> Self {
        Self::of_kind(config, login, WATCHES)
    }

    fn of_kind(config: &str, login: &[&str], ready: &'static str) -> Self {
        for _ in 0..20 {
            if let Some(started) = Self::attempt(config, login, ready) {
                return started;
            }
        }
        panic!("redis-server does not start");
    }

    /// `{port}` and `{bus}` in the config are free ports.
    fn attempt(config: &str, login: &[&str], ready: &'static str) -> Option<Self> {
        // Somebody may take the port before redis-server does; then it ends, and another is tried.
        let free = || TcpListener::bind("127.0.0.1:0").ok()?.local_addr().map(|at| at.port()).ok();
        let (port, bus) = (free()?, free()?);
        let folder = tempfile::tempdir().expect("a folder");
        let shown = folder.path().display();
        let listens = if config.contains("tls-port") { String::new() } else { format!("port {port}\n") };
        let config = config.replace("{port}", &port.to_string()).replace("{bus}", &bus.to_string());
        let is_sentinel = ready == WATCHES;
        let keeps = if is_sentinel { "" } else { "save \"\"\nappendonly no\n" };
        let text = format!("bind 127.0.0.1\n{listens}dir \"{shown}\"\nlogfile \"{shown}/log\"\n{keeps}{config}\n");
        fs::write(folder.path().join("redis.conf"), text).expect("written");
        let child = spawn(folder.path(), is_sentinel);
        let login = login.iter().map(|word| (*word).to_owned()).collect();
        let mut server = Self { child, folder, port, login, ready, is_sentinel };
        if server.gets_ready() {
            return Some(server);
        }
        let missing = Command::new("redis-server").arg("--version").output().is_err();
        assert!(!missing, "redis-server is missing: install Debian's `redis-server`, as tests/run does");
        None
    }

    fn gets_ready(&mut self) -> bool {
        while matches!(self.child.try_wait(), Ok(None)) {
            // Its own word for it: somebody else may listen at the port.
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            if log.contains(self.ready) {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        let told = self.cli(&["INFO", "server"]);
        let id = told.lines().find_map(|line| line.strip_prefix("process_id:")).expect("its id");
        let id = Pid::from_raw(id.trim().parse().expect("a number")).expect("a process");
        kill_process(id, Signal::KILL).expect("killed");
        self.child.wait().expect("it is gone");
    }

    /// Starts it again where it was, with what it kept.
    pub fn revive(&mut self) {
        for _ in 0..100 {
            fs::remove_file(self.folder.path().join("log")).expect("its log");
            self.child = spawn(self.folder.path(), self.is_sentinel);
            if self.gets_ready() {
                return;
            }
        }
        panic!("somebody has taken port {}", self.port);
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until a command in it answers what is wanted.
    pub fn until(&self, words: &[&str], wanted: impl Fn(&str) -> bool) {
        let watch = Stopwatch::start();
        while !wanted(&self.cli(words)) {
            assert!(watch.elapsed() < PATIENCE, "{words:?}: {}", self.cli(words));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a command in it and says what it answers.
    pub fn cli(&self, words: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string(), "--no-auth-warning"]).args(&self.login).args(words);
        let told = command.output().expect("redis-cli is there");
        String::from_utf8_lossy(&told.stdout).trim().to_owned()
    }

    /// All that it holds, as it would write it to a disk.
    pub fn dump(&self) -> Vec<u8> {
        assert_eq!(self.cli(&["CONFIG", "SET", "rdbcompression", "no"]), "OK");
        assert_eq!(self.cli(&["SAVE"]), "OK");
        fs::read(self.folder().join("dump.rdb")).expect("it was saved")
    }
}

fn spawn(folder: &Path, is_sentinel: bool) -> Child {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", "300", "redis-server"]).arg(folder.join("redis.conf"));
    command.args(is_sentinel.then_some("--sentinel"));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("`timeout` is there")
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // `timeout` passes it on, and ends when the server has.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// What a [`Relay`] does with a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mood {
    /// Answers what no Redis would.
    Garbage,
    /// Carries what is asked, and no answer.
    Mute,
    /// Carries both ways.
    Pass,
    /// Closes at once.
    Refuse,
    /// Accepts, and says nothing.
    Silent,
}

/// Stands before a server.
pub struct Relay {
    pub address: SocketAddr,
    mood: watch::Sender<Mood>,
    /// Connections so far.
    pub accepted: Arc<Mutex<usize>>,
}

impl Relay {
    /// Must be called inside a `LocalSet`.
    pub async fn before(port: u16, mood: Mood) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (mood, moods) = watch::channel(mood);
        let accepted = Arc::new(Mutex::new(0));
        let count = accepted.clone();
        tokio::task::spawn_local(async move {
            while let Ok((client, _)) = listener.accept().await {
                *count.lock().expect("unpoisoned") += 1;
                tokio::task::spawn_local(carry(client, port, moods.clone()));
            }
        });
        Self { address, mood, accepted }
    }

    /// From now on. Connections that are there end, or fall silent.
    pub fn turn(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }
}

async fn carry(mut client: tokio::net::TcpStream, port: u16, mut moods: watch::Receiver<Mood>) {
    loop {
        let mood = *moods.borrow_and_update();
        match mood {
            Mood::Refuse => return,
            Mood::Mute | Mood::Silent => {
                let _ = moods.changed().await;
                return;
            }
            Mood::Garbage => {
                let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                // Until the other side has had enough.
                let _ = client.read(&mut [0; 1024]).await;
                return;
            }
            Mood::Pass => {
                let Ok(mut server) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else { return };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
                    _ = moods.changed() => match *moods.borrow() {
                        Mood::Silent => continue,
                        Mood::Mute => {}
                        Mood::Garbage | Mood::Pass | Mood::Refuse => return,
                    }
                }
                let ((mut asked, _), (mut answers, mut to)) = (client.split(), server.split());
                let mut nobody = tokio::io::sink();
                tokio::select! {
                    _ = tokio::io::copy(&mut asked, &mut to) => return,
                    _ = tokio::io::copy(&mut answers, &mut nobody) => return,
                    _ = moods.changed() => return,
                }
            }
        }
    }
}

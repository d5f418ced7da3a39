//! A real corporate proxy for the tests: Debian's tinyproxy, one process per test, on a free port.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A running proxy; it ends when this is dropped.
pub struct TinyProxy {
    child: Child,
    folder: TempDir,
    pub port: u16,
}

impl TinyProxy {
    /// Starts one. With `credentials` it wants these; with `ports` it opens tunnels to no others.
    pub fn start(credentials: Option<(&str, &str)>, ports: &[u16]) -> Self {
        for _ in 0..20 {
            if let Some(started) = Self::attempt(credentials, ports) {
                return started;
            }
        }
        panic!("tinyproxy does not start");
    }

    fn attempt(credentials: Option<(&str, &str)>, ports: &[u16]) -> Option<Self> {
        // Somebody may take the port before tinyproxy does; then it ends, and another is tried.
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let mut config = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 100\nLogLevel Info\nLogFile \"{}\"\n",
            log.display()
        );
        if let Some((user, password)) = credentials {
            config += &format!("BasicAuth {user} {password}\n");
        }
        for port in ports {
            config += &format!("ConnectPort {port}\n");
        }
        let file = folder.path().join("tinyproxy.conf");
        fs::write(&file, config).expect("written");
        let spawned = Command::new("tinyproxy").arg("-d").arg("-c").arg(&file).stdout(Stdio::null()).spawn();
        let child = spawned.expect("tinyproxy is missing: install Debian's `tinyproxy-bin`, as tests/run does");
        let mut proxy = Self { child, folder, port };
        while matches!(proxy.child.try_wait(), Ok(None)) {
            // Its own word for it: somebody else may listen at the port.
            if proxy.log().contains("Accepting connections") {
                return Some(proxy);
            }
            std::thread::yield_now();
        }
        None
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// How many tunnels to this port were asked for.
    pub fn tunnels_to(&self, port: u16) -> usize {
        self.log().lines().filter(|line| line.contains(": CONNECT ") && line.contains(&format!(":{port} "))).count()
    }
}

impl Drop for TinyProxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

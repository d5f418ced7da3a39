//! Simulated banks and a real proxy in one process, for the tests.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use countersign::app::boot::{BootOptions, Running};
use countersign::base::secret::{hex, sha256};
use countersign::base::time::{Clock, Now};
use countersign::config::{InMemory, Snapshot, build};
use countersign::control::modules_in_force;
use countersign::sim::{self, Bank, LeafSpec, Sim, SimAuthority, SimHandle};

use crate::client::Client;

/// The key of client `erp` on every stage.
pub const KEY: &str = "erp-key-e2e";
/// The key of client `treasury`, where a stage has it.
pub const OTHER_KEY: &str = "treasury-key-e2e";

/// What a stage is made of. `config` is added to the listener, the clients and the providers.
pub struct Plan {
    pub files: InMemory,
    pub config: String,
    pub listener: String,
    pub clients: String,
    pub workers: usize,
    pub clock: Clock,
    pub limits: String,
    /// The lines of `[admin]`.
    pub admin: String,
}

impl Default for Plan {
    fn default() -> Self {
        let clients = format!("[client.erp]\nkey_sha256 = [\"{}\"]\n", hex(&sha256(KEY.as_bytes())));
        Self {
            files: InMemory::new(),
            config: String::new(),
            listener: String::new(),
            clients,
            workers: 2,
            clock: Clock::System,
            limits: String::new(),
            admin: "bind = \"127.0.0.1:0\"".to_owned(),
        }
    }
}

impl Plan {
    /// Adds a simulator as a provider, `more` lines for it, and a route of the same name to it.
    pub fn with(mut self, sim: &SimHandle, name: &str, more: &str, route: &str) -> Self {
        let ca = format!("{name}-ca.crt");
        self.files = self.files.with_file(format!("stage/{ca}"), sim.ca_pem().into_bytes());
        self.config += &sim.settings_toml_as(name, &ca);
        let _ = write!(
            self.config,
            "{more}\n[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nprovider = \"{name}\"\n{route}\n"
        );
        self
    }

    /// Adds a simulator as the provider `bank`, with this profile, which extends `oauth2`, in place of that.
    pub fn with_profile(mut self, sim: &SimHandle, profile: &str, more: &str, route: &str) -> Self {
        self.files = self.files.with_file("stage/own.toml", profile.as_bytes());
        let mut plan = self.with(sim, "bank", more, route);
        plan.config = plan.config.replace("profile = \"oauth2\"", "profile = \"./own.toml\"");
        plan
    }

    /// Adds the second client.
    pub fn with_two_clients(mut self) -> Self {
        let _ = write!(self.clients, "[client.treasury]\nkey_sha256 = [\"{}\"]\n", hex(&sha256(OTHER_KEY.as_bytes())));
        self
    }

    /// Starts the proxy.
    pub fn start(self) -> Harness {
        let now = Clock::System.now();
        let authority = SimAuthority::new("stage CA", now).expect("a CA");
        let leaf = authority.issue(&LeafSpec::server(now)).expect("a leaf");
        let files = self
            .files
            .with_file("stage/server.crt", leaf.cert_pem.into_bytes())
            .with_file("stage/server.key", leaf.key_pem.into_bytes());
        let config = format!(
            "[[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:0\"\n\
             tls = {{ cert = \"server.crt\", key = \"server.key\" }}\n{}\n{}\n\
             [admin]\n{}\n[runtime]\nworkers = {}\n[limits]\n{}\n{}",
            self.listener, self.clients, self.admin, self.workers, self.limits, self.config
        );
        let papers = Papers(Arc::new(Mutex::new((config.clone(), files))));
        let snapshot = papers.read().unwrap_or_else(|told| panic!("{told}\n{config}"));
        let source = papers.clone();
        let log = SharedLog::default();
        let options = BootOptions {
            clock: self.clock,
            access_sink: Some(Box::new(log.clone())),
            source: Some(Arc::new(move |_| source.read())),
            ..BootOptions::default()
        };
        let running = Running::start(*snapshot, options).expect("started");
        let address = running.address("gateway").expect("a listener");
        Harness { running, client: Client::new(address, authority.pem()), log, address, papers, authority }
    }
}

/// A running proxy.
pub struct Harness {
    pub running: Running,
    pub client: Client,
    pub log: SharedLog,
    pub address: SocketAddr,
    /// What a reload reads.
    pub papers: Papers,
    /// Who vouches for the listeners' certificates.
    pub authority: SimAuthority,
}

/// A config and its files, which a test may change.
#[derive(Clone)]
pub struct Papers(Arc<Mutex<(String, InMemory)>>);

impl Papers {
    /// Rewrites the config.
    pub fn edit(&self, change: impl FnOnce(&str) -> String) {
        let mut papers = self.0.lock().expect("not poisoned");
        papers.0 = change(&papers.0);
    }

    /// Replaces a file, named from the config's folder.
    pub fn put(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        let mut papers = self.0.lock().expect("not poisoned");
        papers.1 = papers.1.clone().with_file(format!("stage/{name}"), bytes);
    }

    /// A file as it is now.
    pub fn file(&self, name: &str) -> Vec<u8> {
        let papers = self.0.lock().expect("not poisoned");
        countersign::config::Files::read(&papers.1, &Path::new("stage").join(name)).expect("a file")
    }

    fn read(&self) -> Result<Box<Snapshot>, String> {
        let (config, files) = self.0.lock().expect("not poisoned").clone();
        let (snapshot, found) = build(Path::new("stage/proxy.toml"), config, &files);
        let told: Vec<String> = found.iter().map(|found| found.one_line()).collect();
        snapshot.map(Box::new).ok_or_else(|| told.join("\n"))
    }
}

impl Harness {
    /// Stops the proxy and returns every access line that it wrote.
    pub fn stop(self) -> Vec<serde_json::Value> {
        let Harness { running, log, .. } = self;
        drop(running);
        log.lines()
    }

    /// Ends all rests, as a reload of the same config does.
    pub fn forgive(&self) {
        self.running.leases.reloaded(modules_in_force(&self.running.reloads.current()));
    }

    /// `GET` on the admin listener.
    pub async fn admin(&self, path: &str) -> crate::client::Whole {
        self.ask_admin(http::Request::get(path), Bytes::new()).await
    }

    /// `POST` of JSON on the admin listener.
    pub async fn admin_post(&self, path: &str, body: &str) -> crate::client::Whole {
        let request = http::Request::post(path).header("content-type", "application/json");
        self.ask_admin(request, Bytes::from(body.to_owned())).await
    }

    pub async fn admin_delete(&self, path: &str) -> crate::client::Whole {
        self.ask_admin(http::Request::delete(path), Bytes::new()).await
    }

    async fn ask_admin(&self, request: http::request::Builder, body: Bytes) -> crate::client::Whole {
        let address = self.running.admin.expect("an admin listener");
        let stream = tokio::net::TcpStream::connect(address).await.expect("connected");
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP");
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        let request = request.header("host", address.to_string());
        let request = request.body(http_body_util::Full::new(body)).expect("a request");
        crate::client::Whole::read(sender.send_request(request).await.expect("an answer")).await.expect("whole")
    }
}

/// An access log in memory.
#[derive(Clone, Default)]
pub struct SharedLog(Arc<Mutex<Vec<u8>>>);

impl SharedLog {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned()
    }

    /// The lines in the order in which their requests began: each worker writes its own in batches.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        let text = self.text();
        let mut lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
        lines.sort_by_key(|line| line["time"].as_str().map(str::to_owned));
        lines
    }
}

impl io::Write for SharedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The machine's clocks, for certificates.
pub fn now() -> Now {
    Clock::System.now()
}

/// A simulator with default options.
pub fn bank(bank: Bank) -> SimHandle {
    Sim::start(bank, sim::SimOptions::default()).expect("a simulator")
}

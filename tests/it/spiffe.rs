//! Certificates from a SPIFFE Workload API: an agent that the libraries of others make (`tests/spiffe`), the real binary, and
//! a bank that wants a certificate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use countersign::base::time::Stopwatch;
use countersign::sim::{Bank, Sim, SimHandle, SimOptions};
use countersign::tls::{ClientIdentity, ClientTls, Identity, client};
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustix::process::{Signal, kill_process};
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::{Whole, converse, get};
use crate::key_services::admin;
use crate::outside_server::{OutsideServer, prepared};
use crate::reload::until;
use crate::secrets::{Canary, Outputs, Process};

/// An agent, and its folder, which lives as long.
struct Agent {
    server: OutsideServer,
    folder: PathBuf,
}

impl Agent {
    fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().to_owned();
        let mut command = Command::new(prepared("venv/bin/python"));
        command.env("PYTHONPATH", prepared("spiffe")).env("PYTHONWARNINGS", "ignore");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spiffe/agent.py"));
        Self { server: OutsideServer::start(command, folder), folder: path }
    }

    fn ca(&self) -> String {
        fs::read_to_string(self.folder.join("ca.crt")).expect("a CA")
    }

    fn fault(&mut self, name: &str) {
        self.server.tell(&format!("fault {name}"));
    }

    /// The serial number of the certificate that it gives first.
    fn serial(&mut self) -> String {
        self.server.tell("serial").as_str().expect("text").to_owned()
    }

    /// A certificate of a SPIFFE ID.
    fn issue(&mut self, id: &str) -> Identity {
        self.server.tell(&format!("issue {id} issued"));
        let read = |name: &str| fs::read(self.folder.join(name)).expect("written");
        Identity::from_pem(&read("issued.crt"), &read("issued.key")).expect("an identity")
    }

    /// The lines of every private key that it has given so far, and of what it writes itself.
    fn canaries(&mut self, keys: &[String]) -> Vec<Canary> {
        let keys = keys.iter().flat_map(|key| {
            let bytes = base64::prelude::BASE64_STANDARD.decode(key).expect("base64");
            // The private number of a key on P-256 in PKCS#8 (RFC 5915).
            let number = bytes.get(36..68).expect("a number").to_vec();
            [key.get(48..88).expect("long").to_owned(), base64::prelude::BASE64_STANDARD.encode(number)]
        });
        let keys: Vec<Canary> = keys.map(|key| Canary::new("a private key", &key)).collect();
        keys.into_iter().chain([Canary::new("words", "canary of an agent's own")]).collect()
    }

    fn key(&mut self) -> String {
        self.server.tell("key").as_str().expect("text").to_owned()
    }
}

/// A config whose listener and whose provider have their certificates of the agent, and whose client is one of its
/// identities.
fn config(agent: &Agent, sim: &SimHandle) -> String {
    let provider = sim.settings_toml_as("bank", "bank.crt");
    let with_key =
        "tls = { client_key = { source = \"workload\", name = \"spiffe://corp.example/bank-client\" }, ca = ";
    let provider = provider.replace("tls = { ca = ", with_key);
    assert!(provider.contains("bank-client"), "{provider}");
    format!(
        "[secret_source.workload]\nkind = \"spiffe\"\naddress = \"unix://{}\"\ntimeout = \"1s\"\nttl = \"1s\"\n\
         [[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:0\"\n\
         tls = {{ key = {{ source = \"workload\" }}, client_ca = {{ source = \"workload\" }} }}\n\
         [client.erp]\ncertificate = \"spiffe://corp.example/erp\"\n[runtime]\nworkers = 2\n[log]\nlevel = \"trace\"\n\
         [admin]\nbind = \"127.0.0.1:0\"\n{provider}[[route]]\nname = \"bank\"\npath = \"/bank\"\nprovider = \"bank\"\n",
        agent.folder.join("agent.sock").display()
    )
}

/// A bank that wants a certificate of the agent's CA.
fn bank(agent: &Agent) -> SimHandle {
    Sim::start(Bank::OAuth2, SimOptions { client_ca: Some(agent.ca()), ..SimOptions::default() }).expect("a bank")
}

struct Proxy {
    process: Process,
    folder: TempDir,
}

impl Proxy {
    async fn start(agent: &Agent, sim: &SimHandle) -> Self {
        let folder = TempDir::new().expect("a folder");
        fs::write(folder.path().join("bank.crt"), sim.ca_pem()).expect("written");
        fs::write(folder.path().join("proxy.toml"), config(agent, sim)).expect("written");
        let process = Process::start(&["run", "-c", "proxy.toml"], folder.path());
        process.address("gateway").await;
        Self { process, folder }
    }

    /// Connects with a certificate, or without one. Returns the serial number of the certificate that the listener shows.
    async fn connect(
        &self,
        ca: &str,
        identity: Option<Identity>,
    ) -> Result<(SendRequest<Full<Bytes>>, String), String> {
        let identity = identity.map(ClientIdentity::Local);
        let settings = ClientTls { ca: Some(ca.as_bytes()), identity, only_http1: true, ..ClientTls::default() };
        let settings = client(settings).map_err(|error| error.to_string())?;
        let stream = TcpStream::connect(self.process.address("gateway").await).await.expect("connected");
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(settings).connect(name, stream).await.map_err(|error| error.to_string())?;
        let shown = stream.get_ref().1.peer_certificates().expect("certificates").first().expect("one").to_vec();
        let (_, shown) = x509_parser::parse_x509_certificate(&shown).expect("a certificate");
        let serial = format!("{:x}", shown.tbs_certificate.serial);
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        Ok((sender, serial))
    }

    /// One call on a connection of its own, with the serial number of the listener's certificate.
    async fn call(&self, agent: &mut Agent, id: &str) -> Result<(u16, String), String> {
        let (mut sender, serial) = self.connect(&agent.ca(), Some(agent.issue(id))).await?;
        let answer = sender.send_request(get("/bank/echo/a", "")).await.map_err(|error| error.to_string())?;
        Ok((answer.status().as_u16(), serial))
    }

    async fn failing(&self, count: usize) {
        let line = format!("countersign_secrets_failing{{kind=\"spiffe\"}} {count}\n");
        until(&line, async || admin(&self.process, "/metrics").await.contains(&line)).await;
    }
}

const ERP: &str = "spiffe://corp.example/erp";

#[test]
fn listener_client_and_provider_are_who_the_agent_says_and_new_certificates_fail_no_call() {
    let mut agent = Agent::start();
    let sim = bank(&agent);
    converse(async {
        let mut keys = vec![agent.key()];
        let proxy = Proxy::start(&agent, &sim).await;
        let first = agent.serial();
        assert_eq!(proxy.call(&mut agent, ERP).await, Ok((200, first.clone())));
        let stranger = proxy.call(&mut agent, "spiffe://corp.example/other").await;
        assert_eq!(stranger.map(|(status, _)| status), Ok(401), "it is known to the CA, and no client");
        let nobody = async {
            let (mut sender, _) = proxy.connect(&agent.ca(), None).await?;
            sender.send_request(get("/bank/echo/a", "")).await.map(|_| ()).map_err(|error| error.to_string())
        };
        assert!(nobody.await.is_err(), "no certificate, no connection");

        // A connection that stays open while the certificates change.
        let (mut sender, _) = proxy.connect(&agent.ca(), Some(agent.issue(ERP))).await.expect("TLS");
        for round in 0..3 {
            agent.server.tell("rotate");
            keys.push(agent.key());
            let (wanted, began) = (agent.serial(), Stopwatch::start());
            loop {
                let (status, serial) = proxy.call(&mut agent, ERP).await.expect("a call");
                assert_eq!(status, 200, "round {round}");
                sender.ready().await.expect("it stays open");
                let kept = sender.send_request(get("/bank/echo/a", "")).await.expect("an answer");
                assert_eq!(Whole::read(kept).await.expect("a body").status, 200);
                if serial == wanted {
                    break;
                }
                assert!(began.elapsed() < Duration::from_secs(20), "the listener has not changed its certificate");
            }
        }
        assert_eq!(agent.server.tell("calls"), 1, "one stream brought all of them");
        until("the log tells", async || {
            proxy.process.stderr().contains("changed `default` of [secret_source.workload]")
        })
        .await;
        let status = admin(&proxy.process, "/api/v1/status").await;
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        assert_eq!(status["secret_sources"][0]["kind"], "spiffe", "{status}");

        // Another CA: clients with its certificates are let in, and those of before are, too.
        let before = agent.issue(ERP);
        agent.server.tell("ca");
        keys.push(agent.key());
        let wanted = agent.serial();
        until(
            "clients of the new CA are let in",
            async || matches!(proxy.call(&mut agent, ERP).await, Ok((_, serial)) if serial == wanted),
        )
        .await;
        proxy.connect(&agent.ca(), Some(before)).await.expect("the old CA counts until it is taken away");

        let mut outputs = Outputs::default();
        for page in ["/metrics", "/api/v1/status", "/api/v1/providers", "/"] {
            outputs.add(page, admin(&proxy.process, page).await);
        }
        proxy.process.finish(&mut outputs);
        let found = outputs.search(&agent.canaries(&keys));
        assert!(found.is_empty(), "{found:#?}");
        drop(proxy.folder);
    });
}

#[test]
fn the_last_certificates_stay_in_use_whatever_an_agent_does() {
    let mut agent = Agent::start();
    let sim = bank(&agent);
    converse(async {
        let key = agent.key();
        let proxy = Proxy::start(&agent, &sim).await;
        let first = agent.serial();
        proxy.failing(0).await;
        for (fault, words) in [
            ("refuses", "the Workload API has no identity for this process"),
            ("hangs", "no answer within 1 s"),
            ("megabytes", "answers `out_of_range`"),
            ("broken", "breaks the rules of X.509-SVID"),
            ("empty", "has no proper `X509SVIDResponse.svids`"),
        ] {
            agent.fault(fault);
            agent.server.tell("hang-up");
            proxy.failing(2).await;
            until(words, async || admin(&proxy.process, "/api/v1/status").await.contains(words)).await;
            assert_eq!(proxy.call(&mut agent, ERP).await, Ok((200, first.clone())), "{fault}");
            // A config that is read meanwhile gets the last ones.
            let read = proxy.process.stderr().matches("the config was reloaded").count();
            let config = proxy.folder.path().join("proxy.toml");
            let text = fs::read_to_string(&config).expect("read");
            fs::write(&config, format!("{text}# {fault}\n")).expect("written");
            kill_process(proxy.process.pid(), Signal::HUP).expect("sent");
            until("it is reloaded", async || proxy.process.stderr().matches("the config was reloaded").count() > read)
                .await;
            assert_eq!(proxy.call(&mut agent, ERP).await, Ok((200, first.clone())), "{fault}, reloaded");
            agent.fault("none");
            proxy.failing(0).await;
        }
        agent.server.tell("rotate");
        let wanted = agent.serial();
        until("it goes on with new certificates", async || {
            proxy.call(&mut agent, ERP).await == Ok((200, wanted.clone()))
        })
        .await;
        let mut outputs = Outputs::default();
        proxy.process.finish(&mut outputs);
        let found = outputs.search(&agent.canaries(&[key]));
        assert!(found.is_empty(), "{found:#?}");
    });
}

#[test]
fn a_config_without_its_agent_says_what_is_missing() {
    let mut agent = Agent::start();
    let sim = bank(&agent);
    let folder = TempDir::new().expect("a folder");
    fs::write(folder.path().join("bank.crt"), sim.ca_pem()).expect("written");
    let good = config(&agent, &sim);
    let check = |text: &str, variable: &str| {
        fs::write(folder.path().join("proxy.toml"), text).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.args(["check", "-c", "proxy.toml"]).current_dir(folder.path()).env("SPIFFE_ENDPOINT_SOCKET", variable);
        let output = command.output().expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let socket = format!("unix://{}", agent.folder.join("agent.sock").display());
    let (fine, said) = check(&good, "");
    assert!(fine, "{said}");
    let by_variable = good.replace(&format!("address = \"{socket}\"\n"), "");
    assert!(check(&by_variable, &socket).0, "the variable names the agent, too");
    for (text, words) in [
        (by_variable, "has no `address`"),
        (good.replace("agent.sock", "none.sock"), "does not answer: entity not found"),
        (good.replace(&socket, "https://corp.example"), "is no socket of a Workload API"),
        (good.replace("/bank-client", "/nobody"), "`spiffe://corp.example/countersign`"),
        (good.replace("spiffe://corp.example/bank-client", "bank-client"), "write a SPIFFE ID"),
        (good.replace("timeout = \"1s\"", "ca = \"bank.crt\""), "`ca` is of no use with `kind = \"spiffe\"`"),
        (
            good.replace("{ source = \"workload\" },", "{ source = \"workload\", field = \"key\" },"),
            "`field` is of no use here",
        ),
        (good.replace("tls = { key", "tls = { cert = \"bank.crt\", key"), "`cert` is of no use here"),
    ] {
        let (fine, said) = check(&text, "");
        assert!(!fine && said.contains(words), "{words}: {said}");
    }
    agent.fault("refuses");
    let (fine, said) = check(&good, "");
    assert!(!fine && said.contains("see that an entry of the server has selectors"), "{said}");
    assert!(!said.contains("canary"), "{said}");
}

//! A new config under a running proxy: what changes, what stays, and that nobody's request is lost over it.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use countersign::base::secret::{ExposeSecret, hex, sha256};
use countersign::control::ReloadOutcome;
use countersign::sim::{Bank, LeafSpec, ResponseFault, SimAuthority, SimEndpoint, SimFault, SimHandle};
use http_body_util::Full;
use rustix::process::{Signal, kill_process};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{Client, PATIENCE, Whole, converse, get, post};
use crate::harness::{Harness, KEY, OTHER_KEY, Plan, bank, now};
use crate::secrets::Process;

/// Reloads; what changed, or what is wrong.
async fn reload(stage: &Harness) -> Result<Vec<String>, String> {
    match stage.running.reloads.reload("test").await.expect("an answer").outcome {
        ReloadOutcome::Applied(changes) => Ok(changes.to_vec()),
        ReloadOutcome::Refused(why) => Err(why.to_string()),
    }
}

async fn gauge(stage: &Harness) -> String {
    let metrics = stage.admin("/metrics").await;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    text.lines().find(|line| line.starts_with("countersign_config_last_reload_successful")).expect("a gauge").to_owned()
}

#[test]
fn routes_come_and_go_and_the_tokens_of_unchanged_providers_stay() {
    let (meed, abx) = (bank(Bank::Meed), bank(Bank::AbbeyCross));
    let stage = Plan::default().with(&meed, "meed", "", "").with(&abx, "abbeycross", "", "").start();
    converse(async {
        let mut line = stage.client.http1::<Full<Bytes>>().await;
        let mut call = async |path: &str| {
            line.ready().await.expect("the connection is kept");
            Whole::read(line.send_request(get(path, KEY)).await.expect("an answer")).await.expect("whole")
        };
        assert_eq!(call("/meed/echo/a").await.status, 200);
        assert_eq!(call("/abbeycross/echo/a").await.status, 200);
        let connections = meed.connections();
        stage.papers.edit(|config| {
            let config = config.replace("path = \"/abbeycross\"", "path = \"/fx\"");
            config + "[[route]]\nname = \"more\"\npath = \"/more\"\nprovider = \"meed\"\n"
        });
        let changes = reload(&stage).await.expect("a good config");
        assert_eq!(changes, ["changed route `abbeycross`", "added route `more`"]);
        assert_eq!(call("/more/echo/b").await.status, 200);
        assert_eq!(call("/meed/echo/b").await.status, 200);
        assert_eq!(call("/fx/echo/b").await.status, 200);
        assert_eq!(call("/abbeycross/echo/b").await.error(), "route-not-found");
        assert_eq!((meed.token_calls(), abx.token_calls()), (1, 1), "nothing about their tokens has changed");
        assert!(meed.connections() <= connections + 1, "connections to unchanged places are kept");
        assert_eq!(reload(&stage).await, Ok(Vec::new()), "the same config again");
    });
}

#[test]
fn a_bad_config_changes_nothing_and_is_shown_until_a_good_one_comes() {
    let meed = bank(Bank::Meed);
    let stage = Plan::default().with(&meed, "meed", "", "").start();
    converse(async {
        assert_eq!(gauge(&stage).await, "countersign_config_last_reload_successful 1");
        let digest = stage.running.reloads.current().digest.clone();
        stage.papers.edit(|config| config.replace("path = \"/meed\"", "path = \"/elsewhere\"\npahts = 1"));
        let why = reload(&stage).await.expect_err("a bad config");
        assert!(why.contains("pahts") && why.contains("proxy.toml:"), "{why}");
        assert_eq!(stage.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        assert_eq!(stage.client.send(get("/elsewhere/echo/a", KEY)).await.error(), "route-not-found");
        assert_eq!(gauge(&stage).await, "countersign_config_last_reload_successful 0");
        assert_eq!(stage.running.reloads.current().digest, digest);
        assert!(!stage.running.reloads.last().outcome.is_applied());
        stage.papers.edit(|config| config.replace("\npahts = 1", ""));
        reload(&stage).await.expect("a good config");
        assert_eq!(stage.client.send(get("/elsewhere/echo/a", KEY)).await.status, 200);
        assert_eq!(gauge(&stage).await, "countersign_config_last_reload_successful 1");
    });
}

/// Waits until something holds, looking every few milliseconds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("{what}"));
}

fn with_secret(sim: &SimHandle, to: &str) -> impl FnOnce(&str) -> String {
    let from = sim.credentials().secret().expose_secret().to_owned();
    let to = to.to_owned();
    move |config| config.replace(&from, &to)
}

#[test]
fn a_changed_secret_fetches_first_and_the_old_token_serves_until_then() {
    for kind in [Bank::Scb, Bank::Meed, Bank::AbbeyCross, Bank::OAuth2] {
        let sim = bank(kind);
        let name = kind.name();
        let stage = Plan::default().with(&sim, name, "", "").start();
        let path = format!("/{name}/echo/a");
        converse(async {
            assert_eq!(stage.client.send(get(&path, KEY)).await.status, 200, "{name}");
            let first = sim.issued().pop().expect("a token");
            // The new secret's fetch hangs for a while.
            sim.change(|faults| faults.token = SimFault { delay: Some(Duration::from_secs(1)), ..SimFault::default() });
            let second = sim.second_secret().expose_secret().to_owned();
            stage.papers.edit(with_secret(&sim, &second));
            let changes = reload(&stage).await.expect("a good config");
            assert_eq!(changes, [format!("changed [provider.{name}]")], "{name}");
            until("it fetches without being asked", async || sim.token_calls() == 2).await;
            for _ in 0..5 {
                assert_eq!(stage.client.send(get(&path, KEY)).await.status, 200, "{name}");
            }
            let spent = |sim: &SimHandle| {
                let received = sim.received();
                let last = received.iter().rfind(|arrival| arrival.endpoint == SimEndpoint::Resource).expect("a call");
                last.bearer().expect("a token").to_owned()
            };
            assert_eq!(spent(&sim), first.expose_secret(), "{name}: the old token serves");
            until("the new token serves", async || {
                assert_eq!(stage.client.send(get(&path, KEY)).await.status, 200, "{name}");
                spent(&sim) != first.expose_secret()
            })
            .await;
            assert_eq!(sim.token_calls(), 2, "{name}: one fetch");
        });
        assert_eq!(sim.violations(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_wrong_new_secret_lets_the_old_token_serve_until_the_bank_refuses_it() {
    let sim = bank(Bank::Meed);
    let stage = Plan::default().with(&sim, "meed", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        stage.papers.edit(with_secret(&sim, "this-is-not-the-secret"));
        reload(&stage).await.expect("a good config");
        until("it fetches without being asked", async || sim.token_calls() == 2).await;
        for _ in 0..5 {
            assert_eq!(stage.client.send(post("/meed/echo/a", KEY, "{}")).await.status, 200);
        }
        assert_eq!(sim.token_calls(), 2, "a secret that was refused is not tried at every call");
        // A second reload changes something else: the old token goes on serving.
        stage.papers.edit(|config| config.to_owned() + "[log]\nlevel = \"warn\"\n");
        reload(&stage).await.expect("a good config");
        assert_eq!(stage.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        sim.revoke_all();
        let answer = stage.client.send(get("/meed/echo/a", KEY)).await;
        assert_eq!(answer.error(), "provider-credentials-rejected", "{answer:?}");
        let calls = sim.resource_calls();
        assert_eq!(stage.client.send(get("/meed/echo/a", KEY)).await.error(), "provider-credentials-rejected");
        assert_eq!(sim.resource_calls(), calls, "the refused token is not sent again");
        stage
            .papers
            .edit(|config| config.replace("this-is-not-the-secret", sim.credentials().secret().expose_secret()));
        reload(&stage).await.expect("a good config");
        assert_eq!(stage.client.send(get("/meed/echo/a", KEY)).await.status, 200, "a new secret is tried at once");
    });
}

#[test]
fn a_refused_old_token_is_replayed_once_with_one_of_the_new_secret() {
    for kind in [Bank::Scb, Bank::Rakbank] {
        let sim = bank(kind);
        let name = kind.name();
        let stage = Plan::default().with(&sim, name, "", "").start();
        let path = format!("/{name}/echo/pay");
        converse(async {
            assert_eq!(stage.client.send(get(&path, KEY)).await.status, 200);
            // The fetch ahead fails, so the old token stands in.
            sim.change(|faults| faults.token = SimFault::once(ResponseFault::ResetBeforeAnswer));
            stage.papers.edit(with_secret(&sim, sim.second_secret().expose_secret()));
            reload(&stage).await.expect("a good config");
            until("it fetches without being asked", async || sim.token_calls() == 2).await;
            let fails =
                async || stage.running.leases.ledger().await.lines.iter().any(|line| line.last_failure.is_some());
            until("the failure is known", fails).await;
            sim.revoke_all();
            stage.forgive();
            let answer = stage.client.send(post(&path, KEY, "{\"amount\":1}")).await;
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            assert!(answer.header("proxy-status").contains("replayed") || sim.token_calls() == 3, "{name}: {answer:?}");
        });
        assert_eq!(sim.violations(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_renewed_certificate_serves_new_handshakes_and_old_connections_go_on() {
    let sim = bank(Bank::Meed);
    let stage = Plan::default().with(&sim, "meed", "", "").start();
    converse(async {
        let mut old = stage.client.http1::<Full<Bytes>>().await;
        let shown = async || -> CertificateDer<'static> {
            let stream = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
            stream.get_ref().1.peer_certificates().expect("a chain")[0].clone()
        };
        let before = shown().await;
        let leaf = stage.authority.issue(&LeafSpec::server(now())).expect("a leaf");
        stage.papers.put("server.crt", leaf.cert_pem.into_bytes());
        let why = reload(&stage).await.expect_err("the key is the old one's");
        assert!(why.contains("server.key"), "{why}");
        assert_eq!(shown().await, before);
        stage.papers.put("server.key", leaf.key_pem.into_bytes());
        let changes = reload(&stage).await.expect("a pair");
        assert_eq!(changes, ["changed stage/server.crt", "changed stage/server.key"]);
        assert_ne!(shown().await, before);
        let answer = old.send_request(get("/meed/echo/a", KEY)).await.expect("the old connection is kept");
        assert_eq!(answer.status(), 200);
    });
}

#[test]
fn a_request_under_way_ends_in_the_world_that_it_began_in() {
    let sim = bank(Bank::Meed);
    let stage = Plan::default().with(&sim, "meed", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        sim.change(|faults| {
            faults.resource = SimFault { delay: Some(Duration::from_millis(600)), ..SimFault::default() }
        });
        let calls = sim.resource_calls();
        let slow = stage.client.send(post("/meed/echo/slow", KEY, "{}"));
        let meanwhile = async {
            until("it is at the bank", async || sim.resource_calls() > calls).await;
            stage.papers.edit(|config| config.replace("path = \"/meed\"", "path = \"/gone\""));
            reload(&stage).await.expect("a good config");
            assert_eq!(stage.client.send(get("/meed/echo/b", KEY)).await.error(), "route-not-found");
        };
        let (answer, ()) = tokio::join!(slow, meanwhile);
        assert_eq!(answer.status, 200, "{answer:?}");
    });
}

#[test]
fn a_client_that_is_removed_is_a_stranger_on_its_open_connection() {
    let sim = bank(Bank::Meed);
    let stage = Plan::default().with_two_clients().with(&sim, "meed", "", "clients = [\"erp\", \"treasury\"]").start();
    converse(async {
        let mut line = stage.client.http1::<Full<Bytes>>().await;
        let answer = line.send_request(get("/meed/echo/a", OTHER_KEY)).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        drop(Whole::read(answer).await);
        stage.papers.edit(|config| {
            let gone = format!("[client.treasury]\nkey_sha256 = [\"{}\"]\n", hex(&sha256(OTHER_KEY.as_bytes())));
            config.replace(&gone, "").replace(", \"treasury\"", "")
        });
        reload(&stage).await.expect("a good config");
        let answer = line.send_request(get("/meed/echo/a", OTHER_KEY)).await.expect("an answer");
        assert_eq!(Whole::read(answer).await.expect("whole").error(), "client-unidentified");
        assert_eq!(stage.client.send(get("/meed/echo/a", KEY)).await.status, 200);
    });
}

#[test]
fn a_listener_that_is_removed_lets_nobody_in_until_it_comes_back() {
    let sim = bank(Bank::Meed);
    let more = "[[listener]]\nname = \"second\"\nbind = \"127.0.0.1:0\"\n";
    let stage = Plan { listener: more.to_owned(), ..Plan::default() }.with(&sim, "meed", "", "").start();
    let second = stage.running.address("second").expect("an address");
    let knock = async || -> bool {
        let Ok(stream) = tokio::net::TcpStream::connect(second).await else { return false };
        let io = hyper_util::rt::TokioIo::new(stream);
        let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(io).await else { return false };
        tokio::task::spawn_local(async move { drop(connection.await) });
        sender.send_request(get("/meed/echo/a", KEY)).await.is_ok_and(|answer| answer.status() == 200)
    };
    converse(async {
        assert!(knock().await);
        stage.papers.edit(|config| config.replace(more, ""));
        assert_eq!(reload(&stage).await.expect("a good config"), ["removed listener `second`"]);
        assert!(!knock().await);
        assert_eq!(stage.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        stage.papers.edit(|config| config.to_owned() + more);
        reload(&stage).await.expect("a good config");
        assert!(knock().await);
        stage.papers.edit(|config| config.to_owned() + "[[listener]]\nname = \"third\"\nbind = \"127.0.0.1:0\"\n");
        let changes = reload(&stage).await.expect("a good config");
        assert_eq!(changes, ["added listener `third`", "listener `third` is served only after a restart"]);
    });
}

#[test]
fn two_hundred_reloads_under_load_lose_nothing_and_mix_nothing() {
    let (meed, abx) = (bank(Bank::Meed), bank(Bank::AbbeyCross));
    let stage = Plan::default().with(&meed, "meed", "", "").with(&abx, "abbeycross", "", "").start();
    let (going, failures, answers) = (Rc::new(Cell::new(true)), Rc::new(RefCell::new(Vec::new())), Cell::new(0_u32));
    converse(async {
        let callers = (0..8).map(|number| {
            let (going, failures, answers, stage) = (going.clone(), failures.clone(), &answers, &stage);
            async move {
                let mut line = stage.client.http1::<Full<Bytes>>().await;
                let mut sent = 0_u32;
                while going.get() {
                    sent += 1;
                    if sent.is_multiple_of(50) {
                        line = stage.client.http1().await;
                    }
                    let name = if (sent + number).is_multiple_of(2) { "meed" } else { "abbeycross" };
                    let request = match sent % 3 {
                        0 => post(&format!("/{name}/echo/pay"), KEY, "{\"amount\":1}"),
                        _ => get(&format!("/{name}/echo/a"), KEY),
                    };
                    let told = async {
                        line.ready().await.map_err(|error| error.to_string())?;
                        let answer = line.send_request(request).await.map_err(|error| error.to_string())?;
                        let answer = Whole::read(answer).await.map_err(|error| error.to_string())?;
                        if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
                    };
                    match told.await {
                        Ok(()) => answers.set(answers.get() + 1),
                        Err(error) => failures.borrow_mut().push(error),
                    }
                }
            }
        });
        let reloading = async {
            let base = Cell::new(String::new());
            stage.papers.edit(|config| {
                base.set(config.to_owned());
                config.to_owned()
            });
            let base = base.take();
            for round in 0..200_u32 {
                let good = round % 2 == 0;
                stage.papers.edit(|_| match (good, round % 4) {
                    (false, _) => format!("{base}[[route]]\nname = \"bad\"\nprovider = \"nobody\"\n"),
                    // The two routes change places in the file, and so do their positions.
                    (true, 0) => {
                        format!("{base}[[route]]\nname = \"r{round}\"\npath = \"/r{round}\"\nprovider = \"meed\"\n")
                    }
                    (true, _) => format!(
                        "[[route]]\nname = \"r{round}\"\npath = \"/r{round}\"\nprovider = \"abbeycross\"\n{base}"
                    ),
                });
                assert_eq!(reload(&stage).await.is_ok(), good, "round {round}");
            }
            going.set(false);
        };
        tokio::join!(futures_util::future::join_all(callers), reloading);
    });
    assert_eq!(failures.borrow().as_slice(), &[] as &[String]);
    assert!(answers.get() > 200, "{} answers", answers.get());
    for sim in [&meed, &abx] {
        let own: HashSet<String> = sim.issued().iter().map(|token| token.expose_secret().to_owned()).collect();
        let received = sim.received();
        let resources = received.iter().filter(|arrival| arrival.endpoint == SimEndpoint::Resource);
        for arrival in resources {
            assert!(arrival.bearer().is_some_and(|token| own.contains(token)), "a token of another bank");
        }
        assert_eq!(sim.token_calls(), 1);
        assert_eq!(sim.violations(), Vec::<String>::new());
    }
}

/// A proxy as a process of its own: its config and files in a folder, its secret where Kubernetes would put it.
pub struct Pod {
    pub folder: tempfile::TempDir,
    pub process: Process,
    pub client: Client,
}

impl Pod {
    async fn start(sim: &SimHandle, more: &str) -> Self {
        Self::start_with(sim, more, "{ file = \"secrets/meed\" }").await
    }

    /// The same with another source of the secret.
    async fn start_with(sim: &SimHandle, more: &str, source: &str) -> Self {
        Self::start_with_files(sim, more, source, &[]).await
    }

    /// The same with more files beside the config.
    pub async fn start_with_files(sim: &SimHandle, more: &str, source: &str, files: &[(&str, &str)]) -> Self {
        let (folder, authority) = Self::folder(sim, more, source, files);
        Self::run(folder, &authority).await
    }

    /// Starts it in its folder.
    pub async fn run(folder: tempfile::TempDir, authority: &SimAuthority) -> Self {
        let process = Process::start(&["run", "-c", "proxy.toml"], folder.path());
        let client = Client::new(process.address("gateway").await, authority.pem());
        Self { folder, process, client }
    }

    /// Writes its folder.
    pub fn folder(
        sim: &SimHandle,
        more: &str,
        source: &str,
        files: &[(&str, &str)],
    ) -> (tempfile::TempDir, SimAuthority) {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = SimAuthority::new("pod CA", now()).expect("a CA");
        let leaf = authority.issue(&LeafSpec::server(now())).expect("a leaf");
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        put("server.crt", &leaf.cert_pem);
        put("server.key", &leaf.key_pem);
        put("bank.crt", &sim.ca_pem());
        files.iter().for_each(|(name, text)| put(name, text));
        let secret = sim.credentials().secret().expose_secret();
        let provider = sim.settings_toml_as("meed", "bank.crt");
        let provider = provider.replace(&format!("\"{secret}\""), source);
        put(
            "proxy.toml",
            &format!(
                "{more}[[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:0\"\n\
             tls = {{ cert = \"server.crt\", key = \"server.key\" }}\n\
             [client.erp]\nkey_sha256 = [\"{}\"]\n[runtime]\nworkers = 2\n[admin]\nbind = \"127.0.0.1:0\"\n{provider}\
             [[route]]\nname = \"meed\"\npath = \"/meed\"\nprovider = \"meed\"\n",
                hex(&sha256(KEY.as_bytes()))
            ),
        );
        fs::create_dir(folder.path().join("secrets")).expect("made");
        mount(folder.path(), "1", secret);
        symlink("..data/meed", folder.path().join("secrets/meed")).expect("linked");
        let script = folder.path().join("secret.sh");
        fs::write(&script, format!("#!/bin/sh\nexec cat '{}'\n", folder.path().join("secrets/meed").display()))
            .expect("written");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).expect("may be run");
        (folder, authority)
    }

    pub async fn says(&self, what: &str) {
        until(what, async || self.process.stderr().contains(what)).await;
    }
}

/// Puts a version of a secret in place as the kubelet does: a folder of its own, then one rename of the link to it.
fn mount(folder: &Path, version: &str, secret: &str) {
    let secrets = folder.join("secrets");
    let data = secrets.join(format!("..{version}"));
    fs::create_dir(&data).expect("made");
    fs::write(data.join("meed"), secret).expect("written");
    symlink(format!("..{version}"), secrets.join("..data_tmp")).expect("linked");
    fs::rename(secrets.join("..data_tmp"), secrets.join("..data")).expect("renamed");
}

#[test]
fn a_secret_that_kubernetes_swaps_is_noticed_and_the_config_beside_it_is_not() {
    let sim = bank(Bank::Meed);
    converse(async {
        let pod = Pod::start(&sim, "").await;
        assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        // An edit that nobody has asked to be read yet.
        let config = pod.folder.path().join("proxy.toml");
        let edited = fs::read_to_string(&config).expect("read").replace("path = \"/meed\"", "path = \"/new\"");
        fs::write(&config, edited).expect("written");
        mount(pod.folder.path(), "2", sim.second_secret().expose_secret());
        pod.says("the config was reloaded").await;
        assert!(pod.process.stderr().contains("changed secrets/meed"), "{}", pod.process.stderr());
        until("the new secret is fetched with", async || sim.token_calls() == 2).await;
        assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        assert_eq!(pod.client.send(get("/new/echo/a", KEY)).await.error(), "route-not-found");
        kill_process(pod.process.pid(), Signal::HUP).expect("sent");
        until("SIGHUP reads everything", async || pod.client.send(get("/new/echo/a", KEY)).await.status == 200).await;
    });
}

#[test]
fn a_command_for_a_secret_is_run_again_and_its_last_value_stays_while_it_fails() {
    let sim = bank(Bank::Meed);
    converse(async {
        let source = "{ command = [\"./secret.sh\"], ttl = \"1s\", timeout = \"5s\" }";
        let pod = Pod::start_with(&sim, "", source).await;
        let failing = async || {
            let address = pod.process.address("admin listening").await;
            let mut stream = TcpStream::connect(address).await.expect("connected");
            let head = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            stream.write_all(head.as_bytes()).await.expect("written");
            let mut text = String::new();
            stream.read_to_string(&mut text).await.expect("text");
            text.lines()
                .find(|line| line.starts_with("countersign_secrets_failing{kind=\"command\"}"))
                .map(str::to_owned)
        };
        assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        assert_eq!(failing().await.as_deref(), Some("countersign_secrets_failing{kind=\"command\"} 0"));
        fs::remove_file(pod.folder.path().join("secrets/meed")).expect("removed");
        pod.says("the last value stays in use").await;
        until("the metric tells", async || {
            failing().await.as_deref() == Some("countersign_secrets_failing{kind=\"command\"} 1")
        })
        .await;
        assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        let second = sim.second_secret().expose_secret();
        fs::write(pod.folder.path().join("secrets/meed"), second).expect("written");
        pod.says("changed output of `./secret.sh`").await;
        until("the new secret is fetched with", async || sim.token_calls() == 2).await;
        assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        assert!(!pod.process.stderr().contains(second) && !pod.process.stdout().contains(second));
    });
}

#[test]
fn a_config_that_is_watched_as_a_whole_is_read_when_it_changes() {
    let sim = bank(Bank::Meed);
    converse(async {
        let pod = Pod::start(&sim, "reload = { watch = \"all\" }\n").await;
        let config = pod.folder.path().join("proxy.toml");
        let text = fs::read_to_string(&config).expect("read");
        fs::write(&config, text.replace("path = \"/meed\"", "path = \"/new\"\nnonsense = 1")).expect("written");
        pod.says("the new config is rejected").await;
        assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        fs::write(&config, text.replace("path = \"/meed\"", "path = \"/new\"")).expect("written");
        until("the config is read", async || pod.client.send(get("/new/echo/a", KEY)).await.status == 200).await;
    });
}

#[test]
fn a_pack_that_is_put_in_place_is_noticed() {
    let sim = bank(Bank::Meed);
    converse(async {
        let pod = Pod::start(&sim, "reload = { watch = \"all\" }\n").await;
        let folder = pod.folder.path().join("banks");
        fs::create_dir(&folder).expect("made");
        let builtin = countersign::provider::Profile::builtin_text("meed").expect("a profile");
        let put = |version: &str, text: &str| {
            fs::write(folder.join("meed.toml"), text).expect("written");
            let digest = hex(&sha256(text.as_bytes()));
            let manifest =
                format!("name = \"banks\"\nversion = \"{version}\"\n[files]\n\"meed.toml\" = \"{digest}\"\n");
            fs::write(folder.join("pack.toml"), manifest).expect("written");
        };
        put("1", builtin);
        let config = pod.folder.path().join("proxy.toml");
        let text = fs::read_to_string(&config).expect("read").replace("profile = \"meed\"", "profile = \"banks/meed\"");
        fs::write(&config, text + "[profile_pack.banks]\npath = \"banks\"\nunsigned = true\n").expect("written");
        pod.says("added banks/pack.toml").await;
        let carries = async |value: &str| {
            assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200);
            sim.received().last().is_some_and(|call| call.header("x-pack") == Some(value))
        };
        assert!(!carries("two").await);
        let injected = "inject = [{ header = \"x-pack\", value = \"two\" }, { header";
        put("2", &builtin.replace("inject = [{ header", injected));
        until("the new version is used", async || carries("two").await).await;
        // A file that the manifest does not name is a mistake, and the old version goes on.
        fs::write(folder.join("other.toml"), builtin).expect("written");
        pod.says("its `other.toml` is not in its manifest").await;
        assert!(carries("two").await);
    });
}

#[test]
fn a_connection_from_before_other_cas_of_clients_counted_is_made_anew() {
    let sim = bank(Bank::Meed);
    let stage = Plan::default().with(&sim, "meed", "", "").start();
    converse(async {
        let mut old = stage.client.http1::<Full<Bytes>>().await;
        drop(Whole::read(old.send_request(get("/meed/echo/a", KEY)).await.expect("an answer")).await);
        stage.papers.edit(|config| {
            config.replacen(
                "key = \"server.key\"",
                "key = \"server.key\", client_ca = \"meed-ca.crt\", client_auth = \"optional\"",
                1,
            )
        });
        reload(&stage).await.expect("a good config");
        match old.send_request(get("/meed/echo/a", KEY)).await {
            Err(error) => {
                assert!(error.is_canceled() || error.is_closed() || error.is_incomplete_message(), "{error:?}")
            }
            Ok(answer) => assert_eq!(answer.status(), 421, "to be asked again on another connection"),
        }
        assert_eq!(stage.client.send(get("/meed/echo/a", KEY)).await.status, 200);
    });
}

#[test]
fn access_lines_go_where_the_new_config_says() {
    let sim = bank(Bank::Meed);
    let stage = Plan::default().with(&sim, "meed", "", "").start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    converse(async {
        assert_eq!(stage.client.send(get("/meed/echo/before", KEY)).await.status, 200);
        until("the first line", async || stage.log.text().contains("/meed/echo/before")).await;
        stage.papers.edit(|config| format!("{config}[log]\nformat = \"text\"\naccess = \"{}\"\n", path.display()));
        let changes = reload(&stage).await.expect("a good config");
        assert_eq!(changes, ["added [log]", "the format of the log itself changes only after a restart"]);
        assert_eq!(stage.client.send(get("/meed/echo/after", KEY)).await.status, 200);
        until("the second line", async || {
            fs::read_to_string(&path).is_ok_and(|text| text.contains(" 200 GET /meed/echo/after client=erp"))
        })
        .await;
        stage.papers.edit(|config| config.replace(&path.display().to_string(), "/nowhere/access.log"));
        let why = reload(&stage).await.expect_err("no such folder");
        assert!(why.contains("the access log cannot be opened"), "{why}");
        stage.papers.edit(|config| config.replace("/nowhere/access.log", "off"));
        reload(&stage).await.expect("a good config");
        assert_eq!(stage.client.send(get("/meed/echo/silent", KEY)).await.status, 200);
    });
    let before = stage.stop();
    assert_eq!(before.len(), 1);
    assert!(!fs::read_to_string(&path).expect("read").contains("silent"));
}

#[test]
fn a_new_key_of_the_store_seals_what_is_written_from_then_on() {
    let (meed, abx) = (bank(Bank::Meed), bank(Bank::AbbeyCross));
    let folder = tempfile::tempdir().expect("a folder");
    let key = |name: &str| STANDARD.encode(sha256(name.as_bytes()));
    let keys = |keys: &[String]| {
        format!("keys = [{}]", keys.iter().map(|key| format!("\"{key}\"")).collect::<Vec<_>>().join(", "))
    };
    let (old, new) = (keys(&[key("old")]), keys(&[key("new"), key("old")]));
    let begin = |keys: &str| {
        let url = folder.path().join("store.redb");
        let mut plan = Plan::default().with(&meed, "meed", "", "").with(&abx, "abbeycross", "", "");
        plan.config += &format!("[store]\nurl = \"file:{}\"\n{keys}\n", url.display());
        plan.start()
    };
    let stage = begin(&old);
    converse(async {
        assert_eq!(stage.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        stage.papers.edit(|config| config.replace(&old, &new));
        assert_eq!(reload(&stage).await.expect("a good config"), ["changed [store]"]);
        assert_eq!(stage.client.send(get("/abbeycross/echo/a", KEY)).await.status, 200);
    });
    drop(stage.stop());
    let stage = begin(&keys(&[key("new")]));
    converse(async {
        assert_eq!(stage.client.send(get("/abbeycross/echo/a", KEY)).await.status, 200);
        assert_eq!(abx.token_calls(), 1, "sealed under the new key");
        assert_eq!(stage.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        assert_eq!(meed.token_calls(), 2, "sealed under the old one, which is gone");
    });
}

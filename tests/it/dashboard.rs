//! The dashboard in a real browser: headless Chromium, driven by the programs in `tests/dashboard`.
//!
//! Such a program says on its standard output what it wants done (a call, a revocation, a reload), and hears on its
//! standard input what came of it. `tests/run` sets the browser and its libraries up; where they are missing, the tests
//! fail.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use countersign::base::secret::{ExposeSecret, hex, sha256};
use countersign::sim::{Bank, ResponseFault, SimFault, SimHandle};
use countersign::tls::mint::{Constraints, KeyKind, MintAuthority, NameConstraint};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::client::{converse, get, post, request};
use crate::harness::{Harness, KEY, Plan, bank, now};

/// No program takes longer, on a slow machine either.
const PATIENCE: Duration = Duration::from_secs(180);
const CALLBACK: &str = "https://app.example/.countersign/consent/scb/callback";

/// A bank with users, two others, every kind of listener.
struct House {
    banks: Vec<SimHandle>,
    folder: tempfile::TempDir,
    stage: Option<Harness>,
    admin: String,
}

impl House {
    fn new(admin: &str) -> Self {
        let banks = vec![bank(Bank::Scb), bank(Bank::Meed), bank(Bank::AbbeyCross)];
        banks[0].change(|faults| {
            faults.scb.callback_url = Some(CALLBACK.to_owned());
        });
        let mut house =
            Self { banks, folder: tempfile::tempdir().expect("a folder"), stage: None, admin: admin.to_owned() };
        house.open("127.0.0.1:0");
        house
    }

    fn open(&mut self, admin: &str) {
        let consent = "[provider.scb.consent]\npublic_url = \"https://app.example\"\n\
                       params = { endState = \"mobile_app\", response-channel = \"mobile\" }\n";
        let permits = [NameConstraint::parse("127.0.0.1").expect("a domain")];
        let constraints = Constraints::only(&permits).expect("something");
        let (_, ca, key) = MintAuthority::new(KeyKind::EcdsaP256, &constraints, now(), 1).expect("a CA");
        let [scb, meed, abx] = &self.banks[..] else { panic!("three banks") };
        let mut plan = Plan::default()
            .with_two_clients()
            .with(scb, "scb", consent, "clients = [\"erp\", \"treasury\"]")
            .with(meed, "meed", "", "clients = [\"erp\"]\nenforce = false")
            .with(abx, "abbeycross", "", "clients = [\"treasury\"]");
        plan.clients = plan.clients.replace("[client.erp]", "[client.erp]\nusers = [\"*\"]");
        plan.files = plan
            .files
            .with_file("stage/ca.crt", ca.into_bytes())
            .with_file("stage/ca.key", key.expose_secret().as_bytes().to_vec());
        plan.config += &format!(
            "[[route]]\nname = \"scb-users\"\npath = \"/scb-users\"\nprovider = \"scb\"\nclients = [\"erp\"]\nlisteners = [\"gateway\"]\nas = \"user\"\n\
             [[listener]]\nname = \"callback\"\nmode = \"callback\"\nbind = \"127.0.0.1:0\"\n\
             tls = {{ cert = \"server.crt\", key = \"server.key\" }}\n\
             [[listener]]\nname = \"egress\"\nmode = \"forward\"\nbind = \"127.0.0.1:0\"\n\
             intercept = {{ ca_cert = \"ca.crt\", ca_key = \"ca.key\" }}\n\
             [store]\nurl = \"file:{}\"\nkeys = [\"{}\"]\n",
            self.folder.path().join("users.redb").display(),
            STANDARD.encode([7; 32])
        );
        plan.admin = format!("bind = \"{admin}\"\n{}", self.admin);
        self.stage = Some(plan.start());
    }

    fn stage(&self) -> &Harness {
        self.stage.as_ref().expect("a running proxy")
    }

    /// Does what a program asks.
    fn does(&mut self, asked: &Value) -> Value {
        let text = |at: usize| asked[at].as_str().unwrap_or_default().to_owned();
        match &*text(0) {
            "agree" => {
                let back = self.banks[0].consent_callback(text(1).rsplit('/').next().expect("a login"), Some(&text(2)));
                let query = back.expect("a callback").split_once('?').expect("a query").1.to_owned();
                let path = format!("/.countersign/consent/scb/callback?{query}");
                let request = Request::get(path).header("host", "localhost").body(Full::default()).expect("a request");
                let browser = self.stage().client.at(self.stage().running.address("callback").expect("a listener"));
                converse(async move { browser.send(request).await }).status.into()
            }
            "begin" => {
                let (client, body) = (self.stage().client.clone(), json!({ "user": text(1) }).to_string());
                let start = post("/.countersign/consent/scb/start", KEY, body);
                converse(async move { client.send(start).await }).json()["consent_url"].clone()
            }
            "call" => {
                let client = self.stage().client.clone();
                converse(async move { client.send(get(&text(1), KEY)).await }).status.into()
            }
            "call-as" => {
                let client = self.stage().client.clone();
                let call = request("GET", &text(1), KEY, &[("countersign-user", &text(2))], Bytes::new());
                converse(async move { client.send(call).await }).status.into()
            }
            "mend" => {
                self.stage().papers.edit(|config| config.replace("[runtime]\nnoway = 1\n", "[runtime]\n"));
                self.reload()
            }
            "revoke" => self.banks[0].revoke_all().into(),
            "spoil" => {
                self.stage().papers.edit(|config| config.replace("[runtime]\n", "[runtime]\nnoway = 1\n"));
                true.into()
            }
            "start" => {
                let admin = text(1);
                self.open(&admin);
                true.into()
            }
            "stop" => {
                self.stage = None;
                true.into()
            }
            "traffic" => self.traffic(),
            "withdraw" => {
                let other = hex(&sha256(b"another"));
                self.stage().papers.edit(|config| config.replace("for-everything-00001", &other));
                self.reload()
            }
            other => panic!("what is {other}?"),
        }
    }

    fn reload(&self) -> Value {
        let reloads = self.stage().running.reloads.clone();
        converse(async move { reloads.reload("test").await.expect("an answer").outcome.is_applied() }).into()
    }

    /// Something to look at: calls that go well and calls that do not, by everybody's fault.
    fn traffic(&self) -> Value {
        let client = self.stage().client.clone();
        let user = "Zoë \u{202e}gnp.exe <b>";
        let banks = &self.banks;
        converse(async {
            for turn in 0..40 {
                let path = format!("/scb/echo/payments/{turn}?secret={turn}");
                assert_eq!(client.send(get(&path, KEY)).await.status, 200);
                if turn % 4 == 0 {
                    assert_eq!(client.send(post("/meed/echo/orders", KEY, "{}")).await.status, 200);
                }
                if turn == 20 {
                    banks[0].revoke_all();
                }
            }
            assert_eq!(client.send(get("/nowhere/'\"{&lt;script&gt;}/\u{202e}gnp.exe", KEY)).await.status, 400);
            assert_eq!(client.send(get("/abbeycross/echo/x", KEY)).await.status, 403);
            banks[1].change(|faults| faults.resource = SimFault::new(ResponseFault::HtmlError(503)));
            assert_eq!(client.send(get("/meed/echo/orders", KEY)).await.status, 503);
            banks[2].change(|faults| faults.token = SimFault::new(ResponseFault::HtmlError(500)));
            let refused = client.send(get("/abbeycross/echo/x", crate::harness::OTHER_KEY)).await;
            assert!(refused.status >= 500, "{refused:?}");
            let started =
                client.send(post("/.countersign/consent/scb/start", KEY, json!({ "user": user }).to_string())).await;
            let url = started.json()["consent_url"].as_str().expect("a URL").to_owned();
            let code = banks[0].consent(url.rsplit('/').next().expect("a login"), user).expect("a code");
            let body = json!({ "user": user, "state": started.json()["state"], "code": code });
            let done = client.send(post("/.countersign/consent/scb/code", KEY, body.to_string())).await;
            assert_eq!(done.status, 200, "{done:?}");
        });
        true.into()
    }
}

/// Runs a program to its end.
fn play(program: &str, mut house: House) {
    let admin = house.stage().running.admin.expect("an admin listener");
    drive(program, admin, "", |asked| house.does(asked));
}

/// Runs a program at this dashboard to its end, with the words that it reads, and does what it asks.
pub fn drive(program: &str, admin: SocketAddr, words: &str, mut does: impl FnMut(&Value) -> Value) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = root.join("target/clients/dashboard/node_modules");
    assert!(modules.join("playwright-core").exists(), "{} is missing: run tests/run once", modules.display());
    let mut child = Command::new("node")
        .arg(root.join("tests/dashboard").join(program))
        .env("DASHBOARD_BROWSER", browser())
        .env("DASHBOARD_MODULES", &modules)
        .env("DASHBOARD_PICTURES", root.join("target/dashboard"))
        .env("DASHBOARD_URL", format!("http://{admin}"))
        .env("DASHBOARD_WORDS", words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("node runs");
    let mut says = child.stdin.take().expect("a pipe");
    let hears = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut complains = BufReader::new(child.stderr.take().expect("a pipe"));
    let complaint = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut complains, &mut text).map(|_| text).unwrap_or_default()
    });
    let (ended, watched) = watch(child);
    for line in hears.lines() {
        let line = line.expect("text");
        let asked: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{program} says {line}"));
        let answer = does(&asked);
        writeln!(says, "{answer}").expect("it listens");
    }
    drop(ended);
    let success = watched.join().expect("watched");
    let complaint = complaint.join().expect("read");
    assert!(success, "{program}:\n{complaint}");
}

/// Waits for the end of a program, and ends it where it takes too long.
fn watch(mut child: Child) -> (std::sync::mpsc::Sender<()>, std::thread::JoinHandle<bool>) {
    let (ended, waits) = channel::<()>();
    let thread = std::thread::spawn(move || {
        if waits.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = child.kill();
        }
        child.wait().expect("a status").success()
    });
    (ended, thread)
}

fn browser() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("chromium")).find(|program| program.exists());
    found.expect("chromium is missing: run tests/run once")
}

#[test]
fn what_happens_is_seen_at_once() {
    play("live.mjs", House::new(""));
}

#[test]
fn every_page_is_readable_wide_and_narrow_light_and_dark() {
    play("look.mjs", House::new(""));
}

#[test]
fn every_page_works_without_a_script() {
    play("plain.mjs", House::new(""));
}

#[test]
fn charts_lead_on_and_moments_are_local() {
    play("figures.mjs", House::new(""));
}

#[test]
fn the_keyboard_reaches_everything() {
    play("keyboard.mjs", House::new(""));
}

#[test]
fn who_logs_in_may_do_what_the_token_may() {
    let token =
        |name: &str, value: &str, role: &str| format!("[admin.token.{name}]\nvalue = \"{value}\"\nrole = \"{role}\"\n");
    let tokens = token("eyes", "only-for-reading-0001", "read") + &token("hands", "for-everything-00001", "operate");
    play("login.mjs", House::new(&tokens));
}

//! Keys that stay elsewhere: a PKCS#11 token (SoftHSM) and AWS KMS (moto), used by the real binary.

mod client_certificates;
mod interception;
pub mod kms_server;
mod memory;
mod soft_token;
mod wrapped_keys;

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use countersign::base::secret::{hex, sha256};
use countersign::base::time::{Clock, Stopwatch};
use countersign::sim::{Bank, LeafSpec, SimAuthority, SimHandle};
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Client, Whole, converse, converse_within};
use crate::harness::{KEY, bank};
use crate::secrets::{Canary, Outputs, Process};
use crate::signing::{PROFILE, RSA_KEY, Received, SECRET, SigningBank, pay};
use kms_server::KmsServer;
use memory::KeyTraces;
use soft_token::{LABEL, MODULE, PIN, SoftToken};

const P384_KEY: &str = include_str!("../fixtures/signing/p384-pkcs8.pem");

/// A key in a file, for comparison.
const FILE: &str = "file = \"sign.pem\"";

/// The real binary, in front of a bank that verifies its signatures.
struct Gateway {
    _folder: TempDir,
    process: Process,
    client: Client,
    bank: SigningBank,
}

/// Writes a config with providers, each a name and its key; a route is called like its provider.
fn write_config(folder: &Path, sim: &SimHandle, bank: &str, providers: &[(&str, &str)]) -> SimAuthority {
    let now = Clock::System.now();
    let authority = SimAuthority::new("listener's CA", now).expect("a CA");
    let leaf = authority.issue(&LeafSpec::server(now)).expect("a leaf");
    let put = |name: &str, text: &str| fs::write(folder.join(name), text).expect("written");
    put("server.crt", &leaf.cert_pem);
    put("server.key", &leaf.key_pem);
    put("bank-ca.crt", &sim.ca_pem());
    put("signed.toml", PROFILE);
    put("secret", SECRET);
    let provider = |(name, key): &(&str, &str)| {
        format!(
            "[provider.{name}]\nprofile = \"./signed.toml\"\nbase_url = \"{bank}\"\nhttp = \"1.1\"\n\
             client_id = \"the-client\"\nclient_secret = {{ file = \"secret\" }}\n\
             signing_key = {{ {key}, id = \"key-1\" }}\ntls = {{ ca = \"bank-ca.crt\" }}\n\
             [[route]]\nname = \"{name}\"\npath = \"/{name}\"\nprovider = \"{name}\"\n"
        )
    };
    put(
        "proxy.toml",
        &format!(
            "[[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:0\"\n\
             tls = {{ cert = \"server.crt\", key = \"server.key\" }}\n[client.erp]\nkey_sha256 = [\"{}\"]\n\
             [runtime]\nworkers = 1\n[admin]\nbind = \"127.0.0.1:0\"\n{}",
            hex(&sha256(KEY.as_bytes())),
            providers.iter().map(provider).collect::<String>()
        ),
    );
    authority
}

impl Gateway {
    /// Starts it with a key that `setting` describes, given the folder of the config, at `/bank`; and if that is wanted
    /// with the same one in a file, at `/plain`.
    async fn start(sim: &SimHandle, softhsm: &Path, plain: bool, setting: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = setting(folder.path());
        let bank = SigningBank::start(sim).await;
        let providers = [("bank", &*key), ("plain", FILE)];
        let providers = if plain { &providers[..] } else { &providers[..1] };
        let authority = write_config(folder.path(), sim, &bank.script.base_url, providers);
        if plain || key == FILE {
            fs::write(folder.path().join("sign.pem"), RSA_KEY).expect("written");
        }
        let process = Process::start_with(&["run", "-c", "proxy.toml"], folder.path(), &[("SOFTHSM2_CONF", softhsm)]);
        let client = Client::new(process.address("gateway").await, authority.pem());
        let gateway = Self { _folder: folder, process, client, bank };
        // The bank refuses its first token once. That is over before calls are made side by side.
        gateway.pay(3, 1).await;
        assert_eq!(gateway.bank.calls().len(), 4, "one was refused and sent again");
        gateway
    }

    /// Makes so many calls on so many connections, each of which must succeed.
    async fn pay(&self, calls: usize, connections: usize) {
        let (mut tasks, failed) = (Vec::new(), Rc::<RefCell<Vec<Whole>>>::default());
        for _ in 0..connections {
            let (mut connection, failed) = (self.client.http1().await, failed.clone());
            tasks.push(tokio::task::spawn_local(async move {
                for _ in 0..calls.div_ceil(connections) {
                    let answer = call(&mut connection, "/bank").await;
                    if answer.status != 200 {
                        failed.borrow_mut().push(answer);
                    }
                }
            }));
        }
        for task in tasks {
            task.await.expect("no panic");
        }
        let failed = failed.take();
        assert!(failed.is_empty(), "{}: {:?}\n{}", failed.len(), failed.first(), self.process.stderr());
    }

    async fn admin(&self, path: &str) -> String {
        admin(&self.process, path).await
    }

    async fn tells(&self, line: &str) {
        tells(&self.process, line).await;
    }
}

/// The processes that a process has started.
fn children(process: &Process) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).expect("readable");
    let listed = tasks.map(|task| fs::read_to_string(task.expect("a task").path().join("children")).expect("read"));
    let listed: String = listed.collect();
    listed.split_ascii_whitespace().map(|id| id.parse().expect("a number")).collect()
}

/// Sends a signal to the one process that has the module.
fn signal_module(process: &Process, signal: Signal) {
    let children = children(process);
    assert_eq!(children.len(), 1, "one process has the module");
    kill_process(Pid::from_raw(children[0].cast_signed()).expect("a process"), signal).expect("signalled");
}

/// The body of an answer of the admin listener.
pub async fn admin(process: &Process, path: &str) -> String {
    let address = process.address("admin listening").await;
    let stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP");
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    let request = http::Request::get(path).header("host", address.to_string()).body(Full::new(Bytes::new()));
    let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
    String::from_utf8(Whole::read(answer).await.expect("whole").body.to_vec()).expect("text")
}

/// Waits for a line of the metrics.
async fn tells(process: &Process, line: &str) {
    for _ in 0..200 {
        if admin(process, "/metrics").await.contains(line) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{line} is not in\n{}", admin(process, "/metrics").await);
}

async fn call(connection: &mut SendRequest<Full<Bytes>>, route: &str) -> Whole {
    let mut request = pay("{ \"amount\" : 1 }");
    *request.uri_mut() = format!("{route}/v1/payments?dry=1").parse().expect("a URI");
    let answer = connection.send_request(request).await.expect("an answer");
    Whole::read(answer).await.expect("a whole answer")
}

/// The number of signatures: few, or as many as the environment says.
fn signatures() -> usize {
    std::env::var("COUNTERSIGN_SIGNATURES").ok().and_then(|number| number.parse().ok()).unwrap_or(100)
}

#[test]
fn keys_that_stay_elsewhere_sign_and_are_never_in_the_memory() {
    let (sim, token) = (bank(Bank::OAuth2), SoftToken::with(&[("rsa", RSA_KEY)]));
    let kms = KmsServer::with(&[("rsa", RSA_KEY)]);
    let (traces, calls) = (KeyTraces::of_rsa(RSA_KEY), signatures());
    for kind in ["file", "kms", "pkcs11"] {
        let setting = |folder: &Path| match kind {
            "file" => FILE.to_owned(),
            "kms" => kms.setting(folder, "rsa"),
            _ => SoftToken::setting(folder, "rsa"),
        };
        converse_within(Duration::from_secs(600), async {
            let gateway = Gateway::start(&sim, &token.config(), false, setting).await;
            gateway.pay(calls, 8).await;
            gateway.bank.seen.borrow().iter().for_each(Received::verify);
            assert!(gateway.bank.calls().len() >= calls);
            let (found, seen) = traces.in_process(gateway.process.id());
            tell(&format!("{kind}: {calls} calls; {found} pieces of the key in {} MiB of memory", seen >> 20));
            assert!(seen > 1 << 20);
            // The scan finds a key that was read from a file, so it would find the others.
            assert_eq!(found > 0, kind == "file", "{kind}: {found} pieces of the key");
            if kind != "file" {
                let line = format!(",outcome=\"ok\"}} {}", gateway.bank.seen.borrow().len());
                gateway.tells(&line).await;
                assert!(gateway.admin("/metrics").await.contains("countersign_key_service_up{"));
            }
            let mut outputs = Outputs::default();
            gateway.process.finish(&mut outputs);
            let canaries = [Canary::new("PIN", PIN), Canary::new("secret access key", kms_server::SECRET)];
            assert_eq!(outputs.search(&canaries), Vec::<String>::new());
        });
    }
}

/// The outcome of calls while a signer is away.
#[derive(Debug, Default)]
struct Outage {
    /// Answers with 200 and with 503.
    good: usize,
    refused: usize,
    /// The longest that a refused call took.
    slowest_refusal: Duration,
    /// From the signer's return to the first good answer after a refusal.
    back: Duration,
    /// The longest time without a good answer.
    gap: Duration,
    /// When the last good answer came.
    last_good: Duration,
    /// The longest that a call of the other route took meanwhile.
    slowest_neighbour: Duration,
}

impl Outage {
    /// Notes an answer that took so long and came so long after the beginning. Says whether the outage is over.
    fn note(&mut self, answer: &Whole, took: Duration, at: Duration, mended: Option<Duration>) -> bool {
        match answer.status {
            200 => {
                self.good += 1;
                self.gap = self.gap.max(at.saturating_sub(self.last_good));
                self.last_good = at;
                let is_over = mended.is_some() && self.refused > 0;
                if let (Some(mended), true, true) = (mended, is_over, self.back.is_zero()) {
                    self.back = at.saturating_sub(mended);
                }
                is_over
            }
            503 => {
                assert!(answer.error().contains("signer-unavailable"), "{answer:?}");
                self.refused += 1;
                self.slowest_refusal = self.slowest_refusal.max(took);
                false
            }
            other => panic!("{other}: {answer:?}"),
        }
    }

    fn neighbour(&mut self, took: Duration) {
        self.slowest_neighbour = self.slowest_neighbour.max(took);
    }
}

/// Calls on four connections, and beside them on the other route, while `fail` is done to the signer and `mend` undoes it.
async fn outage(client: &Client, away: Duration, fail: impl FnOnce(), mend: impl FnOnce() + Send + 'static) -> Outage {
    let (state, began) = (Rc::new(RefCell::new(Outage::default())), Stopwatch::start());
    let (mended, ended) = (Rc::new(Cell::new(None::<Duration>)), Rc::new(Cell::new(false)));
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (state, mended, ended) = (state.clone(), mended.clone(), ended.clone());
        let mut connection = client.http1().await;
        tasks.push(tokio::task::spawn_local(async move {
            while !ended.get() {
                let took = Stopwatch::start();
                let answer = call(&mut connection, "/bank").await;
                let is_over = state.borrow_mut().note(&answer, took.elapsed(), began.elapsed(), mended.get());
                ended.set(ended.get() || is_over);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }));
    }
    let (noted, over, mut neighbour) = (state.clone(), ended.clone(), client.http1().await);
    tasks.push(tokio::task::spawn_local(async move {
        while !over.get() {
            let took = Stopwatch::start();
            assert_eq!(call(&mut neighbour, "/plain").await.status, 200);
            noted.borrow_mut().neighbour(took.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }));
    tokio::time::sleep(Duration::from_millis(300)).await;
    fail();
    tokio::time::sleep(away).await;
    tokio::task::spawn_blocking(mend).await.expect("mended");
    mended.set(Some(began.elapsed()));
    for task in tasks {
        task.await.expect("no panic");
    }
    state.take()
}

/// Shows a figure, with `--nocapture`.
#[expect(clippy::print_stdout, reason = "figures are for a person who runs the test by hand")]
fn tell(figure: &str) {
    println!("{figure}");
}

/// Bounds of an outage, with what a busy machine adds.
fn judge(what: &str, outage: &Outage) {
    tell(&format!("{what}: {outage:?}"));
    assert!(
        outage.good > 0 && outage.refused > 0 && outage.slowest_refusal < Duration::from_millis(1500),
        "{what}: {outage:?}"
    );
    assert!(outage.back < Duration::from_secs(5), "{what}: {outage:?}");
    assert!(outage.slowest_neighbour < Duration::from_millis(700), "{what}: {outage:?}");
}

#[test]
fn a_kms_that_is_gone_is_refused_within_a_second_and_used_again_within_five() {
    let (sim, kms) = (bank(Bank::OAuth2), Arc::new(Mutex::new(KmsServer::with(&[("rsa", RSA_KEY)]))));
    let server = |kms: &Arc<Mutex<KmsServer>>, work: fn(&mut KmsServer)| {
        let kms = kms.clone();
        move || work(&mut kms.lock().expect("not poisoned"))
    };
    converse(async {
        let setting = |folder: &Path| kms.lock().expect("not poisoned").setting(folder, "rsa");
        let gateway = Gateway::start(&sim, Path::new(""), true, setting).await;
        let away = Duration::from_secs(3);
        let (freeze, thaw) = (server(&kms, |kms| kms.freeze(true)), server(&kms, |kms| kms.freeze(false)));
        judge("a silent KMS", &outage(&gateway.client, away, freeze, thaw).await);
        let (kill, start) = (server(&kms, KmsServer::kill), server(&kms, KmsServer::start));
        judge("a dead KMS", &outage(&gateway.client, away, kill, start).await);
        gateway.tells("countersign_key_service_up{service=\"kms:eu-central-1\"} 1").await;
        let status: Value = serde_json::from_str(&gateway.admin("/api/v1/status").await).expect("JSON");
        let service = &status["key_services"][0];
        assert_eq!((&service["service"], &service["state"]), (&"kms:eu-central-1".into(), &"closed".into()));
        assert!(service["failed"].as_u64() > Some(0), "{service}");
        let said = gateway.process.stderr();
        assert!(said.contains("the key service is gone") && said.contains("answers again"), "{said}");
        gateway.bank.seen.borrow().iter().for_each(Received::verify);
    });
}

#[test]
fn a_module_process_that_is_killed_or_hangs_is_replaced() {
    let (sim, token) = (bank(Bank::OAuth2), SoftToken::with(&[("rsa", RSA_KEY)]));
    converse(async {
        let gateway = Gateway::start(&sim, &token.config(), true, |folder| SoftToken::setting(folder, "rsa")).await;
        let signal = |signal: Signal| signal_module(&gateway.process, signal);
        // A service manager sends this to all processes of a service; the parent still drains.
        let before = children(&gateway.process);
        signal(Signal::TERM);
        signal(Signal::INT);
        gateway.pay(20, 2).await;
        assert_eq!(children(&gateway.process), before);
        let killed = outage(&gateway.client, Duration::ZERO, || signal(Signal::KILL), || {}).await;
        judge("a killed module process", &killed);
        let hung = outage(&gateway.client, Duration::ZERO, || signal(Signal::STOP), || {}).await;
        judge("a module process that hangs", &hung);
        // The token is taken out, and put in again.
        let (there, gone) = (token.config().with_file_name("tokens"), token.config().with_file_name("gone"));
        let taken = outage(
            &gateway.client,
            Duration::from_secs(2),
            || {
                fs::rename(&there, &gone).expect("renamed");
                signal(Signal::KILL);
            },
            {
                let (there, gone) = (there.clone(), gone.clone());
                move || fs::rename(&gone, &there).expect("renamed")
            },
        )
        .await;
        judge("a token that is taken out", &taken);
        gateway.tells(&format!("countersign_key_service_up{{service=\"pkcs11:{LABEL}\"}} 1")).await;
        gateway.bank.seen.borrow().iter().for_each(Received::verify);
    });
}

/// What `check` says of a config, one line each.
fn checked(folder: &Path, softhsm: &Path) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    let output = command.args(["check", "proxy.toml"]).current_dir(folder).env("SOFTHSM2_CONF", softhsm).output();
    let output = output.expect("the binary starts");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

#[test]
fn check_says_what_is_wrong_with_a_key_that_stays_elsewhere() {
    let weak = include_str!("../fixtures/signing/rsa-1024.pem");
    let keys = [("rsa", RSA_KEY), ("p384", P384_KEY), ("twice", RSA_KEY), ("twice", P384_KEY), ("weak", weak)];
    let (sim, token) = (bank(Bank::OAuth2), SoftToken::with(&keys));
    let kms = KmsServer::with(&[("rsa", RSA_KEY), ("p384", P384_KEY)]);
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("sign.pem"), RSA_KEY).expect("written");
    let (soft, aws) = (SoftToken::setting(folder.path(), "rsa"), kms.setting(folder.path(), "rsa"));
    fs::write(folder.path().join("other"), "another-secret").expect("written");
    let cases = [
        (soft.clone(), None),
        (aws.clone(), None),
        (soft.replace("label = \"rsa\"", "id = \"01\""), None),
        (soft.replace(MODULE, "/usr/lib/none.so"), Some("the PKCS#11 module cannot be loaded: there is no such file")),
        (soft.replace(MODULE, "sign.pem"), Some("the PKCS#11 module cannot be loaded: ")),
        (soft.replace(LABEL, "none"), Some("the module has no token called `none`")),
        (soft.replace("token = \"bank-token\"", "slot = 77"), Some("the module has no token in slot 77")),
        (soft.replace("\"rsa\"", "\"none\""), Some("the token has no private key with label `none`")),
        (soft.replace("\"rsa\"", "\"twice\""), Some("the token has 2 private keys with label `twice`")),
        (soft.replace("\"rsa\"", "\"weak\""), Some("an RSA key below 2048 bits is too weak")),
        (soft.replace("\"rsa\"", "\"p384\""), Some("RS256 needs an RSA key, and this is an EC key on P-384")),
        (soft.replace("\"pin\"", "\"other\""), Some("the token refuses the PIN")),
        (soft.replace("label = \"rsa\"", "id = \"xyz\""), Some("`xyz` is no id of a key")),
        (soft.replace("label = \"rsa\", ", ""), Some("has no `label`")),
        (aws.replace("alias/rsa", "alias/none"), Some("AWS KMS answers 400 with NotFoundException")),
        (aws.replace("alias/rsa", "alias/p384"), Some("RS256 needs an RSA key, and this is an EC key on P-384")),
        (aws.replace("alias/rsa", "alias/encrypting"), Some("AWS KMS keeps this key for another use than signing")),
        (aws.replace("\"kms-secret\"", "\"other\""), Some("AWS KMS answers 403 with ")),
        (aws.replace("\"aws\"", "\"gcp\""), Some("there is no key management service called `gcp`")),
        (aws.replace("\"kms.crt\"", "\"bank-ca.crt\""), Some("the key service `kms:eu-central-1` does not answer: ")),
        (format!("{aws}, {soft}"), Some("a key comes from one place")),
    ];
    for (key, mistake) in cases {
        write_config(folder.path(), &sim, "https://bank.example", &[("bank", &key)]);
        let (is_fine, said) = checked(folder.path(), &token.config());
        match mistake {
            None => assert!(is_fine, "{key}\n{said}"),
            Some(mistake) => {
                assert!(!is_fine && said.contains(mistake), "{mistake}\n{said}");
                let line = fs::read_to_string(folder.path().join("proxy.toml")).expect("read");
                let line = 1 + line.lines().position(|line| line.contains("signing_key")).expect("a line");
                assert!(said.contains(&format!("proxy.toml:{line}:")), "no line {line} in\n{said}");
                assert!(said.contains("help: "), "no cure in\n{said}");
            }
        }
        assert!(
            !said.contains(PIN) && !said.contains(kms_server::SECRET) && !said.contains("another-secret"),
            "{said}"
        );
    }
}

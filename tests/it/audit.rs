//! The audit log, end to end: what real calls leave in it, and what the real command says of it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use bytes::Bytes;
use countersign::base::secret::ExposeSecret;
use countersign::sim::{Bank, ResponseFault, SimFault, SimHandle};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::{converse, get, post, request};
use crate::harness::{Harness, KEY, Plan, bank};
use crate::secrets::Process;
use crate::users::{agree, begin, call, finish};

const AUDIT_KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// A folder for a log, with its key in a file.
struct AuditFiles(tempfile::TempDir);

impl AuditFiles {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("key"), format!("{AUDIT_KEY}\n")).expect("written");
        Self(folder)
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("audit.log")
    }

    fn section(&self, more: &str) -> String {
        format!("[audit]\nto = \"{}\"\nkey = {{ env = \"AUDIT_KEY\" }}\n{more}\n", self.log().display())
    }

    /// One worker: the records of several need not stand in the order of the calls.
    fn plan(&self, more: &str) -> Plan {
        let plan = Plan { config: self.section(more), workers: 1, ..Plan::default() };
        Plan { files: plan.files.with_env("AUDIT_KEY", AUDIT_KEY), ..plan }
    }

    /// The records; a piece of one, or one that is being written, is none.
    fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.log()).expect("text");
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn of_kind(&self, kind: &str) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["kind"] == kind).collect()
    }

    fn verify(&self, more: &[&str]) -> Output {
        let key = self.0.path().join("key");
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.args(["audit", "verify"]).arg(self.log()).arg("--key-file").arg(key).args(more);
        command.output().expect("it runs")
    }

    fn whole(&self) -> Value {
        let verified = self.verify(&["--json"]);
        assert!(verified.status.success(), "{verified:?}");
        serde_json::from_slice(&verified.stdout).expect("JSON")
    }
}

fn stage(files: &AuditFiles, sim: &SimHandle, more: &str) -> Harness {
    files.plan(more).with(sim, "scb", "", "").start()
}

#[test]
fn every_call_that_used_a_credential_has_one_record() {
    let files = AuditFiles::new();
    let sim = bank(Bank::Scb);
    let stage = stage(&files, &sim, "");
    converse(async {
        let client = &stage.client;
        assert_eq!(client.send(post("/scb/echo/v1/x?account=12", KEY, "{}")).await.status, 200);
        sim.revoke_all();
        let replayed = client.send(get("/scb/echo/v1/y", KEY)).await;
        assert!(replayed.header("proxy-status").contains("replayed"), "{replayed:?}");
        // None of these gets so far.
        assert_eq!(client.send(get("/scb/echo/v1/y", "wrong")).await.status, 401);
        assert_eq!(client.send(get("/nowhere", KEY)).await.status, 404);
        assert_eq!(client.send(get("/scb/v1/oauth/token", KEY)).await.status, 403);
        // The bank breaks off: the token was out all the same.
        sim.change(|faults| faults.resource = SimFault::once(ResponseFault::ResetBeforeAnswer));
        assert_eq!(client.send(post("/scb/echo/v1/z", KEY, "{}")).await.error(), "upstream-protocol");
        // The client hangs up while the bank thinks.
        sim.change(|faults| faults.resource.delay = Some(Duration::from_secs(20)));
        let arrivals = sim.resource_calls();
        let mut sender = client.http1().await;
        let waiting = tokio::task::spawn_local(async move { sender.send_request(get("/scb/echo/v1/hung", KEY)).await });
        while sim.resource_calls() == arrivals {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        waiting.abort();
        for _ in 0..2000 {
            if stage.log.text().contains("/hung") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let lines = stage.stop();
    assert_eq!(lines.len(), 7, "the access log has all");
    let calls = files.of_kind("call");
    let paths: Vec<&str> = calls.iter().filter_map(|call| call["path"].as_str()).collect();
    assert_eq!(paths, ["/scb/echo/v1/x", "/scb/echo/v1/y", "/scb/echo/v1/z", "/scb/echo/v1/hung"]);
    let same = |call: &Value, key: &str, line: &str| {
        let line = lines.iter().find(|known| known["request_id"] == call["request_id"]).expect("a line")[line].clone();
        assert!(!line.is_null() && call[key] == line, "{key}: {call}");
    };
    for (key, line) in [
        ("time", "time"),
        ("client", "countersign.client"),
        ("route", "http.route"),
        ("provider", "countersign.provider"),
        ("listener", "countersign.listener"),
        ("method", "http.request.method"),
        ("address", "client.address"),
        ("token", "countersign.token"),
        ("generation", "countersign.token_generation"),
        ("provider_request_id", "countersign.provider_request_id"),
    ] {
        calls.iter().for_each(|call| same(call, key, line));
    }
    let [first, second, third, hung] = &calls[..] else { panic!("{calls:#?}") };
    assert_eq!((&first["status"], &first["replayed"], &first["refused"]), (&json!(200), &json!(false), &Value::Null));
    assert_eq!((&second["status"], &second["replayed"], &second["generation"]), (&json!(200), &json!(true), &json!(2)));
    assert_eq!((&second["refused"]["token"], &second["refused"]["generation"]), (&first["token"], &json!(1)));
    let sent = sim.received();
    for (id, what) in [(&second["refused"]["provider_request_id"], "refused"), (&second["provider_request_id"], "sent")]
    {
        assert!(sent.iter().any(|call| call.header("requestuid") == id.as_str()), "the bank knows what was {what}");
    }
    assert_eq!((&third["status"], &third["error"]), (&json!(502), &json!("upstream-protocol")));
    assert_eq!((&hung["status"], &hung["complete"]), (&Value::Null, &json!(false)));
    let start = &files.of_kind("start")[0];
    for call in &calls {
        assert_eq!(call["instance"], start["instance"]);
        let digest = start["config"].as_str().expect("a digest");
        assert!(digest.starts_with(call["config"].as_str().expect("a digest")) && digest.len() == 64);
    }
    let text = fs::read_to_string(files.log()).expect("text");
    assert!(!text.contains("account=12"));
    for token in sim.issued() {
        assert!(!text.contains(token.expose_secret()));
    }
    let whole = files.whole();
    assert_eq!((&whole["calls"], &whole["keyed"], &whole["lost"]), (&json!(4), &json!(true), &json!(0)));
}

#[test]
fn variables_can_be_compared_and_not_read() {
    let files = AuditFiles::new();
    let sim = bank(Bank::Rakbank);
    let route = "vars = { account = { header = \"x-account-id\", pattern = \"[0-9]{13}\" } }";
    let stage =
        files.plan("").with(&sim, "rakbank", "oauth_metadata = { account_id = { var = \"account\" } }", route).start();
    converse(async {
        for account in ["0188000049916", "0188000049917", "0188000049916"] {
            let call = request("GET", "/rakbank/echo/x", KEY, &[("x-account-id", account)], Bytes::new());
            assert_eq!(stage.client.send(call).await.status, 200);
        }
    });
    drop(stage);
    let calls = files.of_kind("call");
    let hashes: Vec<&str> = calls.iter().filter_map(|call| call["vars"]["account"].as_str()).collect();
    assert_eq!((hashes.len(), hashes[0].len()), (3, 16), "{calls:#?}");
    assert!(hashes[0] == hashes[2] && hashes[0] != hashes[1]);
    assert!(!fs::read_to_string(files.log()).expect("text").contains("018800004991"));
}

#[test]
fn consents_and_calls_in_users_names_say_whose_they_are() {
    let files = AuditFiles::new();
    let sim = bank(Bank::Scb);
    let store = tempfile::tempdir().expect("a folder");
    let extra = files.plan("").files;
    let stage = crate::users::start_with(&sim, store.path(), &files.section(""), extra);
    converse(async {
        let client = &stage.client;
        assert_eq!(call(client, KEY, "alice").await.error(), "consent-required");
        let started = begin(client, KEY, &json!({ "user": "alice" })).await;
        let code = agree(&sim, &started, "alice");
        assert_eq!(finish(client, KEY, "alice", &started, &code).await.status, 200);
        assert_eq!(finish(client, KEY, "alice", &started, &code).await.status, 400, "used before");
        assert_eq!(call(client, KEY, "alice").await.status, 200);
        // The bank has forgotten the token: the refresh token brings another.
        sim.revoke_all();
        assert_eq!(call(client, KEY, "alice").await.status, 200);
        let revoke = json!({ "provider": "scb", "client": "erp", "user": "alice" }).to_string();
        assert_eq!(stage.admin_post("/api/v1/consents/revoke", &revoke).await.status, 200);
        assert_eq!(stage.admin_post("/api/v1/consents/revoke", &revoke).await.status, 200);
    });
    drop(stage);
    let told: Vec<(String, String, String)> = files
        .of_kind("action")
        .iter()
        .map(|action| {
            let text = |key: &str| action[key].as_str().expect("text").to_owned();
            assert_eq!(action["target"], json!({ "provider": "scb", "client": "erp", "user": "alice" }));
            (text("actor"), text("action"), text("outcome"))
        })
        .collect();
    let told: Vec<(&str, &str, &str)> = told.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str())).collect();
    assert_eq!(
        told,
        [
            ("client:erp", "consent.start", "ok"),
            ("client:erp", "consent.finish", "ok"),
            ("client:erp", "consent.finish", "rejected: used before"),
            ("keeper", "token.renew", "ok"),
            ("admin", "consent.revoke", "ok"),
            ("admin", "consent.revoke", "nothing to revoke"),
        ]
    );
    let calls = files.of_kind("call");
    assert_eq!(calls.len(), 2, "a call without a consent spends nothing: {calls:#?}");
    assert!(calls.iter().all(|call| call["user"] == "alice" && call["status"] == 200), "{calls:#?}");
    // Two workers may have served them, and each hands over its own records.
    assert_eq!(calls.iter().filter(|call| call["replayed"] == true).count(), 1, "{calls:#?}");
    files.whole();
}

#[test]
fn what_an_operator_does_to_a_token_is_recorded() {
    let files = AuditFiles::new();
    let sim = bank(Bank::Scb);
    let stage = stage(&files, &sim, "");
    let key = converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        let tokens = stage.admin("/api/v1/tokens").await.json();
        let key = tokens["tokens"][0]["key"].as_str().expect("a key").to_owned();
        let refreshed = stage.admin_post(&format!("/api/v1/tokens/{key}/refresh"), "{}").await;
        assert_eq!(refreshed.status, 202, "{refreshed:?}");
        let unknown = stage.admin_post("/api/v1/tokens/0000000000000000/refresh", "{}").await;
        assert_eq!(unknown.status, 404, "nothing was done");
        key
    });
    drop(stage);
    let actions = files.of_kind("action");
    assert_eq!(actions.len(), 1, "{actions:#?}");
    assert_eq!(actions[0]["target"], json!({ "token_key": key }));
    let told = ["actor", "action", "outcome"].map(|member| actions[0][member].as_str().expect("text"));
    assert_eq!(told, ["admin", "token.refresh", "ok"]);
    files.whole();
}

#[test]
fn who_logs_in_at_the_dashboard_is_recorded_and_who_fails_is_not_let_in() {
    let files = AuditFiles::new();
    let sim = bank(Bank::Meed);
    let more = "[admin.token.ops]\nvalue = \"an-operators-long-token\"\nrole = \"operate\"\n";
    let stage = stage(&files, &sim, more);
    let address = stage.running.admin.expect("an admin listener");
    let login = async |token: &str| -> String {
        let form = format!("token={token}");
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
        let request = format!(
            "POST /ui/login HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        );
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    };
    converse(async {
        let answer = login("a-guess").await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        let answer = login("an-operators-long-token").await;
        assert!(answer.starts_with("HTTP/1.1 303 ") && answer.to_ascii_lowercase().contains("set-cookie"), "{answer}");
    });
    drop(stage);
    let actions = files.of_kind("action");
    assert_eq!(actions.len(), 1, "{actions:#?}");
    let told = ["actor", "action", "outcome"].map(|member| actions[0][member].as_str().expect("text"));
    assert_eq!(told, ["admin:ops", "login", "ok"]);
    assert_eq!(actions[0]["target"], json!({ "peer": "127.0.0.1" }));
    files.whole();
}

#[test]
fn no_credential_is_used_while_nothing_can_be_recorded() {
    let files = AuditFiles::new();
    let sim = bank(Bank::Scb);
    std::os::unix::fs::symlink("/dev/full", files.log()).expect("a link");
    let stage = stage(&files, &sim, "");
    converse(async {
        let metrics = stage.admin("/metrics").await.body;
        assert!(String::from_utf8_lossy(&metrics).contains("countersign_audit_failing 1"));
        let refused = stage.client.send(get("/scb/echo/x", KEY)).await;
        assert_eq!((refused.status, refused.error().as_str()), (503, "overloaded"));
        assert_eq!((sim.token_calls(), sim.resource_calls()), (0, 0));
        assert_eq!(stage.client.send(get("/nowhere", KEY)).await.status, 404, "what needs none is answered");
        // The operator makes room.
        fs::remove_file(files.log()).expect("removed");
        while stage.client.send(get("/scb/echo/x", KEY)).await.status == 503 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(sim.resource_calls(), 1);
    });
    drop(stage);
    assert_eq!((files.of_kind("call").len(), files.of_kind("start").len(), files.of_kind("gap").len()), (1, 1, 0));
    files.whole();
}

#[test]
fn calls_go_on_where_that_is_wished() {
    let files = AuditFiles::new();
    let sim = bank(Bank::Scb);
    std::os::unix::fs::symlink("/dev/full", files.log()).expect("a link");
    let stage = stage(&files, &sim, "on_failure = \"continue\"");
    converse(async {
        for _ in 0..3 {
            assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        }
    });
    drop(stage);
    assert_eq!(sim.resource_calls(), 3);
}

#[test]
fn the_command_says_what_is_wrong_and_where() {
    let files = AuditFiles::new();
    let sim = bank(Bank::Scb);
    let stage = stage(&files, &sim, "");
    converse(async {
        for _ in 0..3 {
            assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        }
    });
    drop(stage);
    let head = files.whole()["head"].as_str().expect("a head").to_owned();
    let text = fs::read_to_string(files.log()).expect("text");
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let told = |text: &str, more: &[&str]| {
        fs::write(files.log(), text).expect("written");
        let ended = files.verify(more);
        let (code, out, err) = (ended.status.code(), ended.stdout, ended.stderr);
        (code.expect("a code"), String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"))
    };
    let (code, out, err) = told(&text, &["--head", &head]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("whole: 6 records in 1 file, 1 to 6, sealed under a key; 3 calls\n"), "{out}");
    assert!(out.contains(&format!("head: {head}")), "{out}");
    let (code, out, err) = told(&text.replacen("\"status\":200", "\"status\":201", 1), &[]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("audit.log:3: broken at record 3: the record is not as it was written"), "{err}");
    let (code, out, _) = told(&[&lines[..3], &lines[4..]].concat().concat(), &["--json"]);
    let broken: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &broken["whole"]), (1, &json!(false)));
    assert_eq!(
        (&broken["broken"]["line"], &broken["broken"]["seq"], &broken["broken"]["flaw"]),
        (&json!(4), &json!(4), &json!("missing"))
    );
    assert!(broken["broken"]["message"].as_str().is_some_and(|told| told.contains("4 is missing")), "{broken}");
    let (code, _, err) = told(&lines[..5].concat(), &["--head", &head]);
    assert_eq!(code, 1);
    assert!(err.contains("record 6 is missing after it"), "{err}");
    assert_eq!(told(&text, &["--head", "6:12"]).0, 2);
    fs::write(files.log(), &text).expect("written");
    for (key, wanted) in [(None, "is sealed under a key"), (Some("x".repeat(32)), "is none of those given")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.args(["audit", "verify"]).arg(files.log());
        if let Some(key) = key {
            command.env("OTHER_KEY", key).args(["--key-env", "OTHER_KEY"]);
        }
        let ended = command.output().expect("it runs");
        assert_eq!(ended.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&ended.stderr).contains(wanted), "{ended:?}");
    }
}

/// A folder for a process of its own, which anybody may call without TLS.
fn furnish(files: &AuditFiles, sim: &SimHandle, to: &str) {
    let put = |name: &str, text: &str| fs::write(files.0.path().join(name), text).expect("written");
    put("ca.crt", &sim.ca_pem());
    let config = format!(
        "[[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:0\"\nclients = \"anyone\"\n{}\n\
         [[route]]\npath = \"/scb\"\nprovider = \"scb\"\n[audit]\nto = \"{to}\"\nkey = {{ file = \"key\" }}\n",
        sim.settings_toml_as("scb", "ca.crt")
    );
    put("proxy.toml", &config);
}

async fn plain_call(address: SocketAddr) {
    let stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.expect("HTTP");
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    let answer = sender.send_request(get("/scb/echo/x", "")).await.expect("an answer");
    assert_eq!(answer.status(), 200);
}

fn signal(name: &str, process: u32) {
    let sent = Command::new("kill").args([format!("-{name}"), process.to_string()]).status().expect("kill");
    assert!(sent.success());
}

#[test]
fn log_rotation_from_outside_is_followed_by_sighup() {
    let files = AuditFiles::new();
    let sim = bank(Bank::Scb);
    furnish(&files, &sim, "audit.log");
    let moved = files.0.path().join("audit.log.1");
    converse(async {
        let process = Process::start(&["run"], files.0.path());
        plain_call(process.address("gateway").await).await;
        while files.of_kind("call").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        fs::rename(files.log(), &moved).expect("moved");
        signal("HUP", process.id());
        while !files.log().exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        plain_call(process.address("gateway").await).await;
        process.finish(&mut crate::secrets::Outputs::default());
    });
    let reloads: Vec<Value> = [fs::read_to_string(&moved), fs::read_to_string(files.log())]
        .into_iter()
        .flat_map(|text| text.expect("text").lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .filter(|record| record["kind"] == "action")
        .collect();
    assert_eq!(reloads.len(), 1, "{reloads:?}");
    assert_eq!((&reloads[0]["actor"], &reloads[0]["outcome"]), (&json!("signal"), &json!("ok")));
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(["audit", "verify", "audit.log.1", "audit.log", "-c", "proxy.toml", "--json"]);
    let ended = command.current_dir(files.0.path()).output().expect("it runs");
    let whole: Value = serde_json::from_slice(&ended.stdout).expect("JSON");
    assert_eq!((&whole["whole"], &whole["files"], &whole["calls"]), (&json!(true), &json!(2), &json!(2)), "{ended:?}");
}

/// Waits for up to two seconds: that is how soon a lost log is noticed.
async fn within_two_seconds(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..100 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}");
}

async fn admin_text(address: SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let ask = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    answer
}

#[test]
fn a_log_that_is_deleted_or_replaced_is_noticed_and_the_gap_shows() {
    let replaced = |files: &AuditFiles| {
        // What `sed -i` and editors do: another file with one record altered takes the name.
        let text = fs::read_to_string(files.log()).expect("text").replacen("/scb/echo/x", "/scb/echo/y", 1);
        let other = files.0.path().join("other");
        fs::write(&other, text).expect("written");
        fs::rename(other, files.log()).expect("renamed");
    };
    let deleted = |files: &AuditFiles| fs::remove_file(files.log()).expect("removed");
    for (deed, flaw) in [(&deleted as &dyn Fn(&AuditFiles), "missing"), (&replaced, "altered")] {
        let files = AuditFiles::new();
        let sim = bank(Bank::Scb);
        furnish(&files, &sim, "audit.log");
        let config = fs::read_to_string(files.0.path().join("proxy.toml")).expect("text");
        let config = format!("{config}[admin]\nbind = \"127.0.0.1:0\"\n");
        fs::write(files.0.path().join("proxy.toml"), config).expect("written");
        converse(async {
            let process = Process::start(&["run"], files.0.path());
            let (gateway, admin) = (process.address("gateway").await, process.address("admin").await);
            plain_call(gateway).await;
            plain_call(gateway).await;
            while files.of_kind("call").len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(admin_text(admin, "/metrics").await.contains("countersign_audit_files_lost_total 0"));
            deed(&files);
            within_two_seconds("a new file", || {
                fs::read_to_string(files.log()).is_ok_and(|text| text.contains("\"why\":\"lost\""))
            })
            .await;
            within_two_seconds("a line in the log", || process.stderr().contains("was deleted or replaced")).await;
            assert!(admin_text(admin, "/metrics").await.contains("countersign_audit_files_lost_total 1"));
            let status = admin_text(admin, "/api/v1/status").await;
            assert!(status.contains("\"files_lost\": 1") && status.contains("\"failing\": false"), "{status}");
            // Calls go on, and are recorded.
            plain_call(gateway).await;
            process.finish(&mut crate::secrets::Outputs::default());
        });
        assert_eq!(files.of_kind("call").len(), 1, "the third one");
        let ended = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .args(["audit", "verify", "-c", "proxy.toml", "--json"])
            .current_dir(files.0.path())
            .output()
            .expect("it runs");
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let verdict: Value = serde_json::from_slice(&ended.stdout).expect("JSON");
        assert_eq!((&verdict["whole"], &verdict["broken"]["flaw"]), (&json!(false), &json!(flaw)), "{verdict}");
    }
}

#[test]
fn standard_output_may_be_the_log() {
    let files = AuditFiles::new();
    let sim = bank(Bank::Scb);
    furnish(&files, &sim, "stdout");
    converse(async {
        let process = Process::start(&["run"], files.0.path());
        plain_call(process.address("gateway").await).await;
        signal("TERM", process.id());
        while !process.stdout().contains("\"kind\":\"stop\"") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        fs::write(files.log(), process.stdout()).expect("written");
    });
    let whole = files.whole();
    assert_eq!((&whole["first"], &whole["records"]), (&json!(1), &json!(4)));
}

#[test]
fn a_process_that_was_killed_goes_on_where_its_log_ends() {
    let files = AuditFiles::new();
    let sim = bank(Bank::Scb);
    let folder = files.0.path();
    furnish(&files, &sim, "audit.log");
    converse(async {
        for round in 1..=3 {
            let process = Process::start(&["run"], folder);
            let address = process.address("gateway").await;
            for _ in 0..3 {
                plain_call(address).await;
            }
            while files.of_kind("call").len() < 3 * round {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // Killed where it stands; and the disk kept half of what it was writing.
            drop(process);
            let mut text = fs::read(files.log()).expect("bytes");
            text.extend_from_slice(b"{\"seq\":6,\"kind\":\"ca");
            fs::write(files.log(), text).expect("written");
            let torn = files.verify(&[]);
            assert_eq!(torn.status.code(), Some(1), "{torn:?}");
        }
        let process = Process::start(&["run"], folder);
        process.address("gateway").await;
        while files.whole_or_not().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(process);
    });
    let whole = files.whole();
    assert_eq!((&whole["calls"], &whole["recovered"], &whole["first"]), (&json!(9), &json!(3), &json!(1)));
    // The key may come from the config, too.
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(["audit", "verify", "audit.log", "-c", "proxy.toml"]).current_dir(folder);
    assert!(command.status().expect("it runs").success());
}

impl AuditFiles {
    fn whole_or_not(&self) -> Option<Value> {
        let verified = self.verify(&["--json"]);
        verified.status.success().then(|| serde_json::from_slice(&verified.stdout).expect("JSON"))
    }
}

/// The page promises that anybody can check a log with twenty lines of Python. These are the lines.
#[test]
fn the_pages_own_python_agrees() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/audit.md")).expect("the page");
    let (_, rest) = page.split_once("```python\n").expect("a program");
    let (program, _) = rest.split_once("```").expect("its end");
    let files = AuditFiles::new();
    let script = files.0.path().join("verify.py");
    fs::write(&script, program).expect("written");
    let sim = bank(Bank::Scb);
    for _ in 0..2 {
        let stage = stage(&files, &sim, "");
        converse(async { assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200) });
        drop(stage);
        // A crash before the second round.
        let mut text = fs::read(files.log()).expect("bytes");
        text.extend_from_slice(b"{\"seq\":5,\"kin\n{");
        fs::write(files.log(), text).expect("written");
    }
    drop(stage(&files, &sim, ""));
    let python = |key: &Path| {
        let mut command = Command::new("python3");
        command.arg(&script).arg(key).arg(files.log()).output().expect("python3 is there")
    };
    let key = files.0.path().join("key");
    let whole = python(&key);
    let said = String::from_utf8_lossy(&whole.stdout).into_owned();
    assert!(whole.status.success(), "{whole:?}");
    assert_eq!(said.trim(), format!("whole, up to {}", files.whole()["head"].as_str().expect("a head")));
    assert!(!python(Path::new("-")).status.success(), "not without the key");
    let text = fs::read(files.log()).expect("bytes");
    // Without its first record, and with one that says that those before it were lost.
    let first = text.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    fs::write(files.log(), &text[first..]).expect("written");
    let headless = python(&key);
    assert_eq!((headless.status.code(), headless.stdout.len()), (Some(1), 0), "{headless:?}");
    assert!(String::from_utf8_lossy(&headless.stderr).ends_with(":1: broken\n"), "{headless:?}");
    for at in (0..text.len()).step_by(text.len() / 12) {
        let mut altered = text.clone();
        altered[at] ^= 1;
        fs::write(files.log(), altered).expect("written");
        assert!(!python(&key).status.success(), "byte {at}");
        assert!(!files.verify(&[]).status.success(), "byte {at}");
    }
}

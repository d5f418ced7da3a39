//! Recordings: written from live traffic through the whole proxy, played, simulated and compared; and searched for every
//! secret and every personal value that went through.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use countersign::base::secret::{ExposeSecret, hex};
use countersign::control::ReloadOutcome;
use countersign::provider::{Profile, fixture};
use countersign::record::{CallPurpose, RecordedConversation};
use countersign::sim::{Bank, BankFile, ResponseFault, SimFault, SimHandle, Verbatim};
use http_body_util::Full;
use hyper::Request;

use crate::client::{PATIENCE, converse, get, post, request};
use crate::harness::{Harness, KEY, Plan, bank};

/// Values of a person, as they stand in answers and requests.
const PERSONAL: [&str; 12] = [
    "DE89370400440532013000",
    "4111111111111111",
    "Canary Jane Doe",
    "canary.jane@bank-mail.com",
    "+49 170 7654321",
    "1984-02-29",
    "0188000049916",
    "85230887-e643-4fa4-84b2-4e56709c4ac4",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlLW9mLWEtY2FuYXJ5",
    "95-1234567-X",
    "q7GmZk2vT9xLw0Pd",
    "1520.77",
];

/// The recordings of a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Waits until a recording of the folder has so many calls; returns its path and what it says.
async fn recorded(folder: &Path, calls: usize) -> (PathBuf, RecordedConversation) {
    let waited = async {
        loop {
            for path in files(folder).into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "toml")) {
                let read = RecordedConversation::parse(&fs::read_to_string(&path).expect("readable"));
                let read = read.expect("a conversation");
                if read.calls.len() >= calls {
                    return (path, read);
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.expect("it is recorded in time")
}

fn body() -> String {
    let [iban, card, name, mail, phone, born, account, id, jwt, tax, opaque, amount] = PERSONAL;
    format!(
        r#"{{"status":{{"code":1000,"description":"{name}"}},"data":[{{"iban":"{iban}","card":{card},"holder":{{"name":"{name}",
        "mail":"{mail}","phone":"{phone}","born":"{born}","taxId":"{tax}"}},"currency":"EUR","account":{account_number},
        "id":"{id}","session":"{jwt}","error":"{opaque}","amount":{amount},"{iban}":true,"open":null}}]}}"#,
        account_number = account.trim_start_matches('0'),
    )
}

fn answers(sim: &SimHandle, answer: Option<Verbatim>) {
    sim.change(|faults| {
        faults.resource = answer.map_or_else(SimFault::default, |answer| SimFault::new(ResponseFault::Verbatim(answer)))
    });
}

fn stage(sim: &SimHandle, folder: &Path) -> Harness {
    let more = format!("record = {{ folder = \"{}\" }}", folder.display());
    Plan::default().with(sim, "bank", &more, "").start()
}

async fn metrics(stage: &Harness) -> String {
    String::from_utf8_lossy(&stage.admin("/metrics").await.body).into_owned()
}

#[test]
fn no_secret_and_nothing_personal_reaches_the_disk() {
    let sim = bank(Bank::OAuth2);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("deep").join("recordings");
    let stage = stage(&sim, &folder);
    let [iban, _, name, mail, _, _, account, id, jwt, _, opaque, _] = PERSONAL;
    let (path, text) = converse(async {
        let call = async |request: Request<Full<Bytes>>| stage.client.send(request).await.status;
        answers(&sim, Some(Verbatim::json(200, body())));
        let target = format!("/bank/v1/accounts/{iban}/transactions?from=1984-02-29&user={mail}&token={opaque}");
        assert_eq!(call(get(&target, KEY)).await, 200);
        let payment = format!(r#"{{"to":"{iban}","name":"{name}","amount":"1520.77","reference":"{account}"}}"#);
        let mut request = post("/bank/v1/payments", KEY, payment);
        request.headers_mut().insert("content-type", "application/json".parse().expect("a value"));
        request.headers_mut().insert("x-session", jwt.parse().expect("a value"));
        assert_eq!(call(request).await, 200);
        let mut denied =
            Verbatim::json(403, format!(r#"{{"error":"insufficient_scope","error_description":"{name} {account}"}}"#));
        denied.headers.push(("x-customer".to_owned(), STANDARD.encode(account)));
        denied.headers.push(("set-cookie".to_owned(), format!("s={opaque}")));
        answers(&sim, Some(denied));
        assert_eq!(call(get(&format!("/bank/v1/customers/{id}"), KEY)).await, 403);
        let xml = Verbatim {
            status: 200,
            headers: vec![("content-type".to_owned(), "application/xml".to_owned())],
            body: format!("<Document id=\"{id}\"><Status>OK</Status><Nm>{name}</Nm><IBAN>{iban}</IBAN></Document>")
                .into(),
        };
        answers(&sim, Some(xml));
        assert_eq!(call(get("/bank/v1/statements", KEY)).await, 200);
        // Tells the whole request back, the token included.
        answers(&sim, None);
        assert_eq!(call(get(&format!("/bank/echo/{opaque}"), KEY)).await, 200);
        let (path, read) = recorded(&folder, 6).await;
        assert_eq!(read.calls.len(), 6, "{read:?}");
        assert_eq!(read.calls.iter().filter(|call| call.purpose == CallPurpose::Token).count(), 1);
        let patterns: Vec<&str> =
            read.calls.iter().filter_map(|call| Some(call.asked.as_ref()?.pattern.as_str())).collect();
        for pattern in
            ["/v1/accounts/{}/transactions", "/v1/payments", "/v1/customers/{}", "/v1/statements", "/echo/{}"]
        {
            assert!(patterns.iter().any(|known| known.ends_with(pattern)), "{pattern} in {patterns:?}");
        }
        let shown = metrics(&stage).await;
        let written = r#"countersign_recorded_exchanges_total{provider="bank",outcome="written"} 6"#;
        assert!(shown.contains(written), "{shown}");
        (path.clone(), fs::read_to_string(&path).expect("readable"))
    });
    for kept in ["insufficient_scope", "\"currency\":\"EUR\"", "\"code\":1000", "Bearer {token}", "<Status>OK</Status>"]
    {
        assert!(text.contains(kept), "{kept} in {text}");
    }
    let settings = sim.settings_toml();
    let secrets: Vec<String> = settings
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .filter(|(name, _)| ["client_id", "client_secret"].contains(&name.trim()))
        .map(|(_, value)| value.trim_matches('"').to_owned())
        .collect();
    assert_eq!(secrets.len(), 2, "{settings}");
    let personal = PERSONAL.map(str::to_owned);
    for path in files(&folder) {
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        let text = fs::read_to_string(&path).expect("readable").to_lowercase();
        for secret in personal.iter().chain(&secrets).chain([&KEY.to_owned(), &"canary".to_owned()]) {
            for spelling in [
                secret.clone(),
                STANDARD.encode(secret).trim_end_matches('=').to_owned(),
                URL_SAFE_NO_PAD.encode(secret),
                hex(secret.as_bytes()),
                secret.trim_start_matches('0').to_owned(),
                secret.replace(' ', "%20"),
                secret.replace(' ', "+"),
            ] {
                assert!(!text.contains(&spelling.to_lowercase()), "{spelling} in {text}");
            }
        }
        for request in sim.received() {
            for (_, value) in request.headers.iter().filter(|(name, _)| *name == "authorization") {
                let value = value.to_str().expect("text").to_lowercase();
                let credential = value.split_once(' ').map_or(value.as_str(), |(_, credential)| credential);
                assert!(!text.contains(credential), "{credential} in {text}");
            }
        }
    }
    assert_eq!(fs::metadata(&folder).expect("a folder").permissions().mode() & 0o777, 0o700);
    let profile = Profile::builtin("oauth2").expect("a profile");
    assert_eq!(fixture::play(&path.display().to_string(), &text, Some(&profile)), Vec::<String>::new(), "{text}");
    drop(stage);
}

#[test]
fn a_reload_switches_it_on_and_off_and_equal_calls_are_recorded_a_few_times() {
    let sim = bank(Bank::OAuth2);
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("recordings");
    let stage = Plan::default().with(&sim, "bank", "", "").start();
    let line = format!("record = {{ folder = \"{}\", per_call = 2 }}", folder.display());
    converse(async {
        let call = async |path: &str| assert_eq!(stage.client.send(get(path, KEY)).await.status, 200);
        let reload = async || {
            let outcome = stage.running.reloads.reload("test").await.expect("an answer").outcome;
            assert!(matches!(outcome, ReloadOutcome::Applied(_)), "{outcome:?}");
        };
        call("/bank/echo/accounts").await;
        assert!(files(&folder).is_empty());
        stage.papers.edit(|config| config.replace("[provider.bank]\n", &format!("[provider.bank]\n{line}\n")));
        reload().await;
        for _ in 0..5 {
            call("/bank/echo/accounts").await;
        }
        let (path, read) = recorded(&folder, 2).await;
        assert_eq!(read.calls.len(), 2, "two of a kind are enough");
        // Another change of the config leaves the recording as it is.
        stage
            .papers
            .edit(|config| config.to_owned() + "[[route]]\nname = \"more\"\npath = \"/more\"\nprovider = \"bank\"\n");
        reload().await;
        call("/more/echo/balances").await;
        assert_eq!(recorded(&folder, 3).await.0, path);
        stage.papers.edit(|config| config.replace(&line, ""));
        reload().await;
        call("/bank/echo/payments").await;
        let before = fs::read(&path).expect("readable");
        call("/bank/echo/payments").await;
        assert_eq!(fs::read(&path).expect("readable"), before);
        assert_eq!(files(&folder), [path]);
    });
}

#[test]
fn an_answer_of_another_shape_is_counted() {
    let sim = bank(Bank::OAuth2);
    let home = tempfile::tempdir().expect("a folder");
    let stage = stage(&sim, home.path());
    converse(async {
        for (calls, answer) in [(2, r#"{"a":1}"#), (3, r#"{"a":2}"#), (3, r#"{"a":"x","b":{"c":1}}"#)] {
            answers(&sim, Some(Verbatim::json(200, answer)));
            assert_eq!(stage.client.send(get("/bank/accounts", KEY)).await.status, 200);
            recorded(home.path(), calls).await;
        }
        let counted = async {
            // `/a` is a text, and `/b` is new.
            while !metrics(&stage).await.contains(r#"countersign_recording_changes_total{provider="bank"} 2"#) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, counted).await.expect("the changes are counted");
    });
}

#[test]
fn a_recording_stands_in_for_its_bank() {
    let original = bank(Bank::OAuth2);
    let home = tempfile::tempdir().expect("a folder");
    let first = stage(&original, home.path());
    let (path, read) = converse(async {
        let list = r#"{"accounts":[{"id":"0188000049916","currency":"EUR"}]}"#;
        for (calls, path, answer) in [
            (2, "/bank/v1/accounts", Verbatim::json(200, list)),
            (3, "/bank/v1/accounts/0188000049916/balances", Verbatim::json(200, r#"{"amount":"1520.77"}"#)),
            (4, "/bank/v1/cards", Verbatim::json(403, r#"{"error":"insufficient_scope"}"#)),
        ] {
            answers(&original, Some(answer));
            first.client.send(get(path, KEY)).await;
            recorded(home.path(), calls).await;
        }
        // A dead token is recorded as well: the refusal, the second token, and the answer to that.
        answers(&original, None);
        original.revoke_all();
        assert_eq!(first.client.send(get("/bank/echo/again", KEY)).await.status, 200);
        recorded(home.path(), 7).await
    });
    drop(first);
    let profile = Profile::builtin("oauth2").expect("a profile");
    let text = fs::read_to_string(&path).expect("readable");
    assert_eq!(fixture::play("recorded", &text, Some(&profile)), Vec::<String>::new(), "{text}");
    assert!(read.calls.iter().any(|call| call.verdict.as_deref() == Some("refused")), "{text}");
    let twin = bank(Bank::of_recordings("oauth2", &[&read]).expect("a bank"));
    let second = Plan::default().with(&twin, "bank", "", "").start();
    converse(async {
        let call = async |path: &str| second.client.send(get(path, KEY)).await;
        let accounts = call("/bank/v1/accounts").await;
        assert_eq!((accounts.status, accounts.header("content-type")), (200, "application/json"));
        let account = accounts.json()["accounts"][0]["id"].as_str().expect("an id").to_owned();
        assert!(account.len() == 13 && account != "0188000049916", "{account}");
        for id in [account.as_str(), "77"] {
            let balance = call(&format!("/bank/v1/accounts/{id}/balances")).await;
            assert_eq!(balance.json()["amount"].as_str().map(str::len), Some(7), "{balance:?}");
        }
        let denied = call("/bank/v1/cards").await;
        assert_eq!((denied.status, denied.json()["error"].as_str()), (403, Some("insufficient_scope")));
        let unknown = call("/bank/v1/loans").await;
        assert_eq!(unknown.status, 404);
        let said = unknown.json();
        assert!(
            said["error"].as_str().is_some_and(|error| error.contains("/v1/loans is not in the recording")),
            "{said}"
        );
        assert!(said["recorded"].to_string().contains("/v1/accounts/{}/balances"), "{said}");
        assert_eq!(twin.token_calls(), 1);
        twin.revoke_all();
        assert_eq!(call("/bank/v1/accounts").await.status, 200);
        assert_eq!(twin.token_calls(), 2, "the recorded refusal is one: the token is replaced");
    });
}

#[test]
fn check_warns_of_a_recording_and_sim_writes_a_config_for_one() {
    let home = tempfile::tempdir().expect("a folder");
    let path = |name: &str| home.path().join(name).display().to_string();
    let config = "[[listener]]\nname = \"g\"\nbind = \"127.0.0.1:0\"\nclients = \"anyone\"\n\
                  [[route]]\nname = \"r\"\npath = \"/r\"\nprovider = \"p\"\n\
                  [provider.p]\nprofile = \"meed\"\nbase_url = \"https://meed.example\"\nclient_id = \"i\"\n\
                  client_secret = { env = \"SECRET\" }\nrecord = { folder = \"recordings\" }\n";
    fs::write(path("proxy.toml"), config).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    let output = command.args(["check", "-c", &path("proxy.toml")]).env("SECRET", "s").output().expect("it runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("traffic is recorded in `recordings`"), "{said}");
    assert!(!home.path().join("recordings").exists(), "check records nothing");
    fs::write(path("proxy.toml"), config.replace("folder = \"recordings\"", "per_call = 0")).expect("written");
    let (_, said) = told(&["check", "-c", &path("proxy.toml")]);
    assert!(said.contains("`per_call` is a number from 1 to 2000") && said.contains("folder"), "{said}");
    fs::write(path("bare.toml"), "about = \"x\"\n").expect("written");
    let (code, said) = told(&["sim", "--from", &path("bare.toml")]);
    assert!(code == 2 && said.contains("was not recorded"), "{said}");
}

/// A proxy before a simulated bank, with its keys.
fn keyed(sim: &SimHandle, more: &str) -> Harness {
    let mut plan = Plan { workers: 1, ..Plan::default() };
    for (name, content) in sim.key_files("bank") {
        plan.files = plan.files.with_file(format!("stage/{name}"), content.expose_secret().as_bytes());
    }
    // Settings may end in a table, so that more of the provider comes first.
    let mut plan = plan.with(sim, "bank", "", "");
    plan.config = plan.config.replace("[provider.bank]\n", &format!("[provider.bank]\n{more}\n"));
    plan.start()
}

/// Every bank that a file describes is recorded, its recording played, and the recording takes its place.
#[test]
fn every_described_bank_is_recorded_played_and_replaced_by_its_recording() {
    let mut wrong = Vec::new();
    let mut twins = 0;
    for file in BankFile::all() {
        let Some(demo) = file.demo() else { continue };
        let sim = bank(Bank::Described(file));
        let home = tempfile::tempdir().expect("a folder");
        let first = keyed(&sim, &format!("record = {{ folder = \"{}\" }}", home.path().display()));
        let headers: Vec<(&str, &str)> =
            demo.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let call = || request(&demo.method, &format!("/bank{}", demo.path), KEY, &headers, demo.body.clone());
        let (name, calls) = (file.name(), 1 + file.token_calls());
        let (path, read, status) = converse(async {
            let status = first.client.send(call()).await.status;
            let (path, read) = recorded(home.path(), calls).await;
            (path, read, status)
        });
        drop(first);
        let text = fs::read_to_string(&path).expect("readable").to_lowercase();
        for secret in sim.issued() {
            assert!(!text.contains(&secret.expose_secret().to_lowercase()), "{name}: a token in {text}");
        }
        let text = fs::read_to_string(&path).expect("readable");
        let profile = Profile::builtin(name).expect("a profile");
        let found = fixture::play(&path.display().to_string(), &text, Some(&profile));
        if !found.is_empty() {
            wrong.push(format!("{name} is not played: {found:?}\n{text}"));
            continue;
        }
        let twin = match Bank::of_recordings(name, &[&read]) {
            Ok(twin) => bank(twin),
            Err(why) => {
                wrong.push(format!("{name} is not simulated: {why}\n{text}"));
                continue;
            }
        };
        let second = keyed(&twin, "");
        let answer = converse(async { second.client.send(call()).await });
        if answer.status != status {
            wrong.push(format!("{name}: {status} became {}: {:?}\n{text}", answer.status, answer.body));
        }
        twins += 1;
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n\n"));
    assert!(twins > 30, "{twins}");
}

fn told(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    let output = command.args(arguments).stdin(Stdio::null()).output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn two_recordings_are_compared_and_drift_is_an_exit_code() {
    let home = tempfile::tempdir().expect("a folder");
    let path = |name: &str| home.path().join(name).display().to_string();
    let asked = "asked = { method = \"GET\", path = \"/a/x\", pattern = \"/a/{}\" }";
    let old =
        format!("about = \"x\"\n[[resource]]\n{asked}\nstatus = 200\njson = {{ a = 1 }}\nverdict = \"accepted\"\n");
    fs::write(path("old.toml"), &old).expect("written");
    fs::write(path("new.toml"), old.replace("a = 1", "a = \"1\", b = true")).expect("written");
    fs::create_dir(path("same")).expect("a folder");
    fs::write(path("same/one.toml"), old.replace("a = 1", "a = 77")).expect("written");
    let (code, said) = told(&["record", "diff", &path("old.toml"), &path("same")]);
    assert_eq!((code, said.trim()), (0, "0 differences in 1 call."));
    let (code, said) = told(&["record", "diff", &path("old.toml"), &path("new.toml")]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("changed  GET /a/{}: 200: `/a` was number and is string"), "{said}");
    assert!(said.contains("changed  GET /a/{}: 200: `/b` (boolean) is new"), "{said}");
    let (code, said) = told(&["record", "diff", "--json", &path("old.toml"), &path("new.toml")]);
    let found: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &found["ok"], &found["compared"]), (1, &false.into(), &1.into()));
    let (code, said) = told(&["record", "diff", &path("old.toml"), &path("none")]);
    assert!(code == 2 && said.contains("cannot be read"), "{said}");
}

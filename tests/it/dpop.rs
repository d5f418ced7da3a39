//! Tokens that are bound to a key (RFC 9449), end to end: a bank that wants a proof with a nonce on every call, and an
//! application that knows of neither.

use std::collections::BTreeMap;
use std::process::Command;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use countersign::provider::Profile;
use countersign::sim::{Bank, DpopManner, ResponseFault, SimEndpoint, SimFault, SimHandle, Verbatim};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::client::{Client, Whole, converse, post, request};
use crate::harness::{Harness, KEY, Plan, bank};

const DPOP_KEY: &str = include_str!("../fixtures/signing/p256-sec1.pem");

const PROFILE: &str = r#"
name = "bound"
extends = "oauth2"

[settings.dpop_key]
kind = "key"

[ids.payment]
kind   = "numeric"
length = 18
fresh  = "call"

[dpop]
key       = "dpop_key"
algorithm = "ES256"

[token.response]
token_types = "DPoP"

[request]
inject = [
  { header = "authorization", value = "DPoP {token}" },
  { header = "x-payment-id", value = "{id.payment}" },
]

[[refusal.match]]
status           = 401
challenge_error  = "invalid_token"
challenge_scheme = "DPoP"
"#;

/// A bank that wants proofs, with these nonces, at the token endpoint and at the API.
fn demand(sim: &SimHandle, token: &[&str], resource: &[&str]) {
    let owned = |nonces: &[&str]| nonces.iter().map(|nonce| (*nonce).to_owned()).collect();
    let manner = DpopManner { token_nonces: owned(token), resource_nonces: owned(resource) };
    sim.change(|faults| faults.oauth2.dpop = Some(manner));
}

fn stage(sim: &SimHandle, route: &str) -> Harness {
    let mut plan = Plan { workers: 1, ..Plan::default() };
    plan.files = plan.files.with_file("stage/dpop.pem", DPOP_KEY);
    plan.with_profile(sim, PROFILE, "dpop_key = { file = \"dpop.pem\" }\n", route).start()
}

fn pay(id: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post(format!("/bank/payments/{id}?dry=1")).header("host", "localhost");
    let request = request.header("authorization", format!("Bearer {KEY}")).header("content-type", "application/json");
    let request = request.header("dpop", "forged").header("d_pop", "forged");
    request.body(Full::new(body.into())).expect("a request")
}

/// The claims of the proof on each call that the bank received, by half.
fn claims(sim: &SimHandle, endpoint: SimEndpoint) -> Vec<Value> {
    let received = sim.received();
    let calls = received.iter().filter(|call| call.endpoint == endpoint);
    calls
        .map(|call| {
            assert_eq!(call.count("dpop"), 1, "one proof");
            let proof = call.header("dpop").expect("a proof");
            let part = proof.split('.').nth(1).expect("claims");
            serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
        })
        .collect()
}

fn all(claims: &[Value], name: &str) -> Vec<String> {
    claims.iter().map(|claims| claims[name].as_str().unwrap_or("none").to_owned()).collect()
}

fn payment_ids(sim: &SimHandle) -> Vec<String> {
    let received = sim.received();
    let calls = received.iter().filter(|call| call.endpoint == SimEndpoint::Resource);
    calls.map(|call| call.header("x-payment-id").expect("an id").to_owned()).collect()
}

fn paid_once(sim: &SimHandle, ids: &[&str]) {
    let expected: BTreeMap<String, u64> = ids.iter().map(|id| ((*id).to_owned(), 1)).collect();
    assert_eq!(sim.payments(), expected);
    assert_eq!(sim.violations(), Vec::<String>::new());
}

#[test]
fn a_nonce_that_is_wanted_is_learned_and_the_call_is_made_once_more() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        demand(&sim, &["t1"], &["r1"]);
        let stage = stage(&sim, "");
        let answer = stage.client.send(pay("1", "{}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.headers["proxy-status"], "countersign; received-status=401; details=\"challenged\"");
        let (tokens, calls) = (claims(&sim, SimEndpoint::Token), claims(&sim, SimEndpoint::Resource));
        assert_eq!(
            (all(&tokens, "nonce"), all(&calls, "nonce")),
            (vec!["none".into(), "t1".into()], vec!["none".into(), "r1".into()])
        );
        assert_eq!(all(&calls, "htu"), vec![format!("{}/payments/1", sim.base_url()); 2]);
        assert_eq!((all(&calls, "htm"), all(&tokens, "ath")), (vec!["POST".to_owned(); 2], vec!["none".to_owned(); 2]));
        let jtis = [all(&tokens, "jti"), all(&calls, "jti")].concat();
        let mut distinct = jtis.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 4, "every proof is its own: {jtis:?}");
        let ids = payment_ids(&sim);
        assert_eq!(ids[0], ids[1], "the replay is the same payment");
        assert_eq!(sim.tokens_issued(), 1, "no new token");

        // From now on it is known, also from answers that are successes.
        demand(&sim, &["t1"], &["r1", "r2"]);
        let answer = stage.client.send(pay("2", "{}")).await;
        assert_eq!((answer.status, answer.headers.get("proxy-status")), (200, None));
        demand(&sim, &["t1"], &["r2"]);
        let answer = stage.client.send(pay("3", "{}")).await;
        assert_eq!((answer.status, sim.resource_calls()), (200, 4), "learned from a 200");
        paid_once(&sim, &["1", "2", "3"]);
        let lines = stage.stop();
        let replays: Vec<_> = lines.iter().map(|line| line["countersign.replay"].as_str()).collect();
        assert_eq!(replays, [Some("challenged"), None, None]);
    });
}

#[test]
fn a_refused_token_and_a_nonce_make_one_replay_together() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        demand(&sim, &["t1"], &["r1"]);
        let stage = stage(&sim, "");
        assert_eq!(stage.client.send(pay("1", "{}")).await.status, 200);
        sim.forget_received();

        // Challenged first: the replay's token turns out to be refused, and there is no third attempt.
        demand(&sim, &["t2"], &["r2"]);
        sim.revoke_all();
        let answer = stage.client.send(pay("2", "{}")).await;
        assert_eq!(answer.status, 401);
        assert_eq!(all(&claims(&sim, SimEndpoint::Resource), "nonce"), ["r1", "r2"]);
        // That token is out of use: the next call fetches another one, whose nonce has changed, too.
        let answer = stage.client.send(pay("3", "{}")).await;
        assert_eq!((answer.status, sim.resource_calls()), (200, 5));
        assert_eq!(all(&claims(&sim, SimEndpoint::Token), "nonce"), ["t1", "t2"]);

        // Refused first: the replay with a new token is challenged, and that is the answer.
        sim.forget_received();
        sim.revoke_all();
        let refusal = Verbatim::bare(401, &[("www-authenticate", "DPoP error=\"invalid_token\"")]);
        sim.change(|faults| faults.resource = SimFault::once(ResponseFault::Verbatim(refusal)));
        demand(&sim, &["t2"], &["r3"]);
        sim.change(|faults| faults.oauth2.dpop.as_mut().expect("a manner").resource_nonces = vec!["r3".to_owned()]);
        let answer = stage.client.send(pay("4", "{}")).await;
        assert_eq!(answer.status, 401);
        assert!(answer.headers["www-authenticate"].to_str().expect("text").contains("use_dpop_nonce"));
        assert_eq!(all(&claims(&sim, SimEndpoint::Resource), "nonce"), ["r2", "r2"]);
        // The token was not the reason: it serves the next call, with the nonce that was learned.
        let issued = sim.tokens_issued();
        let answer = stage.client.send(pay("5", "{}")).await;
        assert_eq!((answer.status, sim.tokens_issued()), (200, issued));
        paid_once(&sim, &["1", "3", "5"]);
    });
}

#[test]
fn a_refused_token_is_replaced_and_the_replay_has_a_proof_of_its_own() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        demand(&sim, &[], &[]);
        let stage = stage(&sim, "");
        assert_eq!(stage.client.send(pay("1", "{}")).await.status, 200);
        sim.revoke_all();
        let answer = stage.client.send(pay("2", "{}")).await;
        assert_eq!((answer.status, sim.tokens_issued()), (200, 2));
        let calls = claims(&sim, SimEndpoint::Resource);
        let (refused, replayed) = (&calls[1], &calls[2]);
        for changed in ["jti", "ath"] {
            assert_ne!(refused[changed], replayed[changed], "{changed}");
        }
        let ids = payment_ids(&sim);
        assert_eq!(ids[1], ids[2]);
        paid_once(&sim, &["1", "2"]);
        let shown = format!("{} {}", stage.log.text(), stage.admin("/v1/status").await.json());
        let proofs: Vec<String> =
            sim.received().iter().filter_map(|call| call.header("dpop").map(str::to_owned)).collect();
        assert!(proofs.iter().all(|proof| !shown.contains(proof)), "{shown}");
    });
}

#[test]
fn a_body_that_was_not_kept_is_not_sent_again_for_a_nonce() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        demand(&sim, &[], &["r1"]);
        let stage = stage(&sim, "replay_limit = \"1KiB\"");
        let answer = stage.client.send(pay("1", "x".repeat(5000))).await;
        assert_eq!((answer.status, sim.resource_calls()), (401, 1));
        let note = answer.headers["proxy-status"].to_str().expect("text");
        assert!(note.contains("not-replayed: body-too-large"), "{note}");
        let answer = stage.client.send(pay("2", "x".repeat(5000))).await;
        assert_eq!((answer.status, sim.tokens_issued()), (200, 1), "it was learned all the same");
        paid_once(&sim, &["2"]);
    });
}

#[test]
fn a_token_endpoint_that_asks_for_ever_other_nonces_is_asked_twice_and_no_more() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        demand(&sim, &[], &[]);
        let asks = Verbatim {
            headers: vec![
                ("dpop-nonce".to_owned(), "again".to_owned()),
                ("content-type".to_owned(), "application/json".to_owned()),
            ],
            ..Verbatim::json(400, "{\"error\":\"use_dpop_nonce\"}")
        };
        sim.change(|faults| faults.token = SimFault::new(ResponseFault::Verbatim(asks)));
        let stage = stage(&sim, "");
        let answer = stage.client.send(pay("1", "{}")).await;
        assert_eq!((answer.status, answer.error().as_str()), (503, "token-unavailable"));
        assert_eq!((sim.token_calls(), sim.resource_calls()), (2, 0));
    });
}

#[test]
fn a_bearer_token_does_not_pass_for_one_that_is_bound() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let stage = stage(&sim, "");
        let answer = stage.client.send(pay("1", "{}")).await;
        assert_eq!((answer.status, answer.error().as_str()), (503, "token-unavailable"));
        assert_eq!(sim.resource_calls(), 0);
    });
}

/// What a profile adds for users who consent by FAPI 2.0.
const PUSHING: &str = r#"
[settings.issuer]

[consent.push]
encoding    = "form"
client_auth = { mechanism = "{client_auth}", id = "{client_id}", secret = "{client_secret}", form_encode = true }
[consent.push.body]
response_type         = "code"
client_id             = "{client_id}"
redirect_uri          = "{consent.redirect_uri}"
state                 = "{consent.state}"
code_challenge        = "{consent.challenge}"
code_challenge_method = "S256"
authorization_details = { json = [{ type = "payment_initiation" }] }
"#;

/// `[consent.authorize]` cannot be thinned by extending, so the profile is a whole one.
fn pushing_profile() -> String {
    let own = PROFILE.split_once("extends = \"oauth2\"").expect("a profile").1;
    let oauth2 = Profile::builtin_text("oauth2").expect("oauth2");
    let mut text = oauth2.replace("name  = \"oauth2\"", "name = \"bound\"");
    for (section, end) in [("[consent.authorize.body]", "[consent.exchange]"), ("[request]", "# User tokens.")] {
        let (before, rest) = text.split_once(section).expect("a section");
        let (_, after) = rest.split_once(end).expect("its end");
        text = format!("{before}{end}{after}");
    }
    let text = text.replace("[token.response]", "[token.response]\ntoken_types = \"DPoP\"");
    let own = own.replace("[token.response]\ntoken_types = \"DPoP\"\n", "");
    format!(
        "{text}{own}{PUSHING}[consent.authorize.body]\nclient_id = \"{{client_id}}\"\n\
         request_uri = \"{{consent.request_uri}}\"\n[consent.callback]\nissuer = \"{{issuer}}\"\n"
    )
}

/// A user's browser at the bank: where it is sent back to, with the query.
async fn browse(sim: &SimHandle, started: &Whole) -> String {
    let url = started.json()["consent_url"].as_str().expect("a URL").to_owned();
    let target = url.strip_prefix(&format!("https://{}", sim.address())).expect("a URL of the bank").to_owned();
    let browser = Client::new(sim.address(), sim.ca_pem());
    let back = browser.send(request("GET", &target, KEY, &[], Bytes::new())).await;
    assert_eq!(back.status, 302, "{back:?}");
    back.header("location").strip_prefix("https://app.example").expect("our callback").to_owned()
}

fn parameter(target: &str, name: &str) -> String {
    let query = target.split_once('?').expect("a query").1;
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(known, _)| known == name).expect("a parameter").1.into_owned()
}

#[test]
fn a_user_consents_by_a_pushed_request_and_the_tokens_are_bound_to_the_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let sim = bank(Bank::OAuth2);
    demand(&sim, &["t1"], &["r1"]);
    sim.change(|faults| {
        faults.oauth2.only_pushed = true;
        faults.oauth2.issuer = Some("https://bank.example".to_owned());
    });
    let consent = format!(
        "dpop_key = {{ file = \"dpop.pem\" }}\nissuer = \"https://bank.example\"\n\
         [provider.bank.consent]\npublic_url = \"https://app.example\"\nauthorize_url = \"{0}/authorize\"\n\
         par_url = \"{0}/par\"\n",
        sim.base_url()
    );
    let mut plan = Plan { workers: 1, ..Plan::default() };
    plan.files = plan.files.with_file("stage/bound.toml", pushing_profile()).with_file("stage/dpop.pem", DPOP_KEY);
    let mut plan = plan.with(&sim, "bank", &consent, "clients = [\"erp\"]\nas = \"user\"");
    plan.clients = plan.clients.replace("[client.erp]", "[client.erp]\nusers = [\"*\"]");
    plan.config = plan.config.replace("profile = \"oauth2\"", "profile = \"./bound.toml\"");
    plan.config += &format!(
        "[[listener]]\nname = \"callback\"\nmode = \"callback\"\nbind = \"127.0.0.1:0\"\n\
         tls = {{ cert = \"server.crt\", key = \"server.key\" }}\n[store]\nurl = \"file:{}\"\nkeys = [\"{}\"]\n",
        folder.path().join("users.redb").display(),
        BASE64_STANDARD.encode([7; 32])
    );
    let stage = plan.start();
    converse(async {
        let start = async |user: &str| {
            let body = json!({ "user": user }).to_string();
            let started = stage.client.send(post("/.countersign/consent/bank/start", KEY, body)).await;
            assert_eq!(started.status, 200, "{started:?}");
            started
        };
        let call = async |user: &str| {
            let fields = [("countersign-user", user)];
            stage.client.send(request("GET", "/bank/v1/accounts", KEY, &fields, Bytes::new())).await
        };
        // The request was pushed, with the nonce that was wanted, and the browser carries its name alone.
        let started = start("alice").await;
        let url = started.json()["consent_url"].as_str().expect("a URL").to_owned();
        let names: Vec<String> = form_urlencoded::parse(url.split_once('?').expect("a query").1.as_bytes())
            .map(|(name, _)| name.into_owned())
            .collect();
        assert_eq!(names, ["client_id", "request_uri"]);
        // An application that received the code says whose it is; another issuer's is not exchanged.
        let back = browse(&sim, &started).await;
        let posted = async |user: &str, back: &str, issuer: Option<&str>| {
            let body = json!({ "user": user, "state": parameter(back, "state"), "code": parameter(back, "code"), "iss": issuer });
            stage.client.send(post("/.countersign/consent/bank/code", KEY, body.to_string())).await.status
        };
        let token_calls = sim.token_calls();
        assert_eq!(posted("alice", &back, Some("https://evil.example")).await, 400);
        let back = browse(&sim, &start("alice").await).await;
        assert_eq!(posted("alice", &back, None).await, 400);
        assert_eq!(sim.token_calls(), token_calls, "no code was sent");
        let back = browse(&sim, &start("alice").await).await;
        assert_eq!(posted("alice", &back, Some("https://bank.example")).await, 200);
        // A browser brings it itself.
        let back = browse(&sim, &start("bob").await).await;
        let callback = stage.client.at(stage.running.address("callback").expect("a listener"));
        let forged = back.replace("iss=https%3A%2F%2Fbank", "iss=https%3A%2F%2Fevil");
        assert_ne!(forged, back);
        assert_eq!(callback.send(request("GET", &forged, KEY, &[], Bytes::new())).await.status, 400);
        let back = browse(&sim, &start("bob").await).await;
        let ended = callback.send(request("GET", &back, KEY, &[], Bytes::new())).await;
        assert_eq!(ended.status, 200, "{ended:?}");
        for user in ["alice", "bob"] {
            assert_eq!(call(user).await.status, 200, "{user}");
        }
        // The refresh carries a proof, too, and meets another nonce.
        demand(&sim, &["t2"], &["r2"]);
        sim.revoke_all();
        assert_eq!(call("alice").await.status, 401, "one replay, and the nonce had that");
        let answer = call("alice").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(all(&claims(&sim, SimEndpoint::Token), "nonce").last().map(String::as_str), Some("t2"));
        assert_eq!(sim.violations(), Vec::<String>::new());
    });
}

/// The binary explains a call of this config; answers its exit code and what it prints.
#[test]
fn explain_shows_that_a_proof_is_made_and_nothing_of_the_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n[client.erp]\n\
                  key_sha256 = [\"0000000000000000000000000000000000000000000000000000000000000001\"]\n\
                  [provider.bank]\nprofile = \"./bound.toml\"\nbase_url = \"https://bank.example\"\n\
                  token_url = \"https://bank.example/token\"\nclient_id = \"c\"\nclient_secret = \"hush-hush\"\n\
                  dpop_key = { file = \"dpop.pem\" }\n[[route]]\nname = \"bank\"\npath = \"/bank\"\nprovider = \"bank\"\n";
    for (name, text) in [("proxy.toml", config), ("bound.toml", PROFILE), ("dpop.pem", DPOP_KEY)] {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let explained = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["explain", "-c", "proxy.toml", "-m", "POST", "-H", "dpop: forged", "/bank/payments"])
        .current_dir(folder.path())
        .output()
        .expect("the binary");
    let text = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.status.success(), "{text}{}", String::from_utf8_lossy(&explained.stderr));
    for line in [
        "authorization: DPoP ‹token›",
        "dpop: ‹proof of possession: for this method, this address and this token, with the API's nonce›",
        "from https://bank.example/token, bound to the key of [dpop]",
    ] {
        assert!(text.contains(line), "{line}\nin\n{text}");
    }
    assert!(!text.contains("hush") && !text.contains("forged"), "{text}");
}

//! Several real processes on one Redis, and one that is killed again and again: what is fetched and rotated once, what
//! goes on without the store, and what a crash may cost.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use countersign::base::secret::{ExposeSecret, hex, sha256};
use countersign::base::time::Clock;
use countersign::sim::{Bank, LeafSpec, SimAuthority, SimEndpoint, SimFault, SimHandle};
use countersign::token::consent::{ConsentOwner, UserKey, UserName};
use futures_util::future::join_all;
use http::{Request, Version};
use http_body_util::Full;
use hyper::client::conn::http2;
use serde_json::json;

use crate::client::{Client, PATIENCE, Whole, converse, get, post};
use crate::harness::{Harness, KEY, OTHER_KEY, Plan, bank};
use crate::redis_server::RedisServer;
use crate::secrets::{Canary, Outputs, Process};
use crate::users::{agree, begin, call, finish};

const CALLBACK: &str = "https://app.example/.countersign/consent/scb/callback";

pub fn store_key() -> String {
    STANDARD.encode(sha256(b"the store of the replicas"))
}

pub fn on_redis(redis: &RedisServer) -> String {
    format!("[store]\nurl = \"redis://127.0.0.1:{}/0\"\nkeys = [\"{}\"]\n", redis.port, store_key())
}

/// What every replica is told, in a folder.
pub struct Fleet {
    pub folder: tempfile::TempDir,
    ca: String,
}

/// A process, and ways to it.
pub struct Replica {
    pub process: Process,
    pub client: Client,
    browser: Client,
}

pub type Line = http2::SendRequest<Full<Bytes>>;

impl Fleet {
    /// Two clients, users at SCB and OAuth2, applications everywhere. `more` names the store.
    pub fn new(banks: &[&SimHandle], more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Clock::System.now();
        let authority = SimAuthority::new("fleet CA", now).expect("a CA");
        let leaf = authority.issue(&LeafSpec::server(now)).expect("a leaf");
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        put("server.crt", &leaf.cert_pem);
        put("server.key", &leaf.key_pem);
        let tls = "tls = { cert = \"server.crt\", key = \"server.key\" }";
        let mut config = format!(
            "[[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:0\"\n{tls}\n\
             [[listener]]\nname = \"callback\"\nmode = \"callback\"\nbind = \"127.0.0.1:0\"\n{tls}\n\
             [client.erp]\nkey_sha256 = [\"{}\"]\nusers = [\"*\"]\n\
             [client.treasury]\nkey_sha256 = [\"{}\"]\nusers = [\"alice\"]\n\
             [runtime]\nworkers = 2\n{more}\n",
            hex(&sha256(KEY.as_bytes())),
            hex(&sha256(OTHER_KEY.as_bytes()))
        );
        for sim in banks {
            let (name, ca) = (sim.bank().name(), format!("{}.crt", sim.bank().name()));
            put(&ca, &sim.ca_pem());
            config += &sim.settings_toml_as(name, &ca);
            let consent = match sim.bank() {
                Bank::OAuth2 => format!("authorize_url = \"{}\"\n", sim.authorize_url()),
                Bank::Scb => "params = { endState = \"mobile_app\", response-channel = \"mobile\" }\n".to_owned(),
                Bank::AbbeyCross | Bank::Described(_) | Bank::Meed | Bank::Rakbank => String::new(),
            };
            let mut route = format!(
                "[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nprovider = \"{name}\"\n\
                 clients = [\"erp\", \"treasury\"]\n"
            );
            if !consent.is_empty() {
                let _ = write!(
                    config,
                    "[provider.{name}.consent]\npublic_url = \"https://app.example\"\n\
                     return_to = [\"https://app.example/*\"]\n{consent}"
                );
                route += "as = \"user\"\n";
            }
            config += &route;
        }
        put("proxy.toml", &config);
        Self { folder, ca: authority.pem() }
    }

    pub async fn replica(&self) -> Replica {
        let process = Process::start(&["run", "-c", "proxy.toml"], self.folder.path());
        let client = Client::new(process.address("gateway").await, self.ca.clone());
        let browser = client.at(process.address("callback").await);
        Replica { process, client, browser }
    }

    /// Three of them, each connected to the Redis that they share.
    pub async fn three(&self, redis: &RedisServer) -> Vec<Replica> {
        let replicas = vec![self.replica().await, self.replica().await, self.replica().await];
        // Each has one connection for records and one for news.
        until("three replicas on Redis", async || {
            redis.cli(&["CLIENT", "LIST"]).lines().filter(|line| !line.contains("cmd=client")).count() >= 6
        })
        .await;
        replicas
    }
}

/// Asks again and again until it is so.
pub async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let patience = tokio::time::timeout(PATIENCE, async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    patience.await.unwrap_or_else(|_| panic!("never came: {what}"));
}

pub async fn lines(replicas: &[Replica]) -> Vec<Line> {
    join_all(replicas.iter().map(|replica| replica.client.http2())).await
}

/// One call over a connection that others use, too; without a user, in the application's name.
pub async fn ask(line: Line, path: &str, user: &str) -> Whole {
    attempt(line, path, user).await.expect("an answer")
}

/// The same with a process that may die.
async fn attempt(mut line: Line, path: &str, user: &str) -> Result<Whole, hyper::Error> {
    let mut request = Request::get(format!("https://localhost{path}"))
        .version(Version::HTTP_2)
        .header("authorization", format!("Bearer {KEY}"));
    if !user.is_empty() {
        request = request.header("countersign-user", user);
    }
    line.ready().await?;
    Whole::read(line.send_request(request.body(Full::default()).expect("a request")).await?).await
}

/// So many calls at once, spread over the lines.
async fn storm(lines: &[Line], calls: usize, path: &str) {
    let calls = lines.iter().cycle().take(calls).map(|line| ask(line.clone(), path, ""));
    for answer in join_all(calls).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

pub async fn consent(client: &Client, key: &str, sim: &SimHandle, user: &str, at_the_bank: &str) {
    let started = begin(client, key, &json!({ "user": user })).await;
    assert_eq!(started.status, 200, "{started:?}");
    let code = agree(sim, &started, at_the_bank);
    let done = finish(client, key, user, &started, &code).await;
    assert_eq!(done.status, 200, "{done:?}");
}

/// The user opens the page of an OAuth2 provider and agrees: the path and query with which the browser comes back.
async fn authorize(sim: &SimHandle, started: &Whole, user: &str) -> String {
    let url = started.json()["consent_url"].as_str().expect("a URL").to_owned();
    let (_, place) = url.split_once("://").expect("a scheme");
    let path = &place[place.find('/').expect("a path")..];
    sim.change(|faults| faults.oauth2.user = Some(user.to_owned()));
    let page = Client::new(sim.address(), sim.ca_pem()).send(get(path, "")).await;
    page.header("location").strip_prefix("https://app.example").expect("our own callback").to_owned()
}

/// A parameter of a query.
fn parameter(path: &str, name: &str) -> String {
    let (_, query) = path.split_once('?').expect("a query");
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(known, _)| known == name).expect("the parameter").1.into_owned()
}

fn start_at(provider: &str, key: &str, user: &str) -> Request<Full<Bytes>> {
    post(&format!("/.countersign/consent/{provider}/start"), key, json!({ "user": user }).to_string())
}

fn code_at(provider: &str, key: &str, user: &str, state: &str, code: &str) -> Request<Full<Bytes>> {
    let body = json!({ "user": user, "state": state, "code": code });
    post(&format!("/.countersign/consent/{provider}/code"), key, body.to_string())
}

#[test]
fn a_consent_begun_at_one_replica_ends_at_another_for_its_own_user_alone() {
    let (redis, scb, oauth2) = (RedisServer::start(), bank(Bank::Scb), bank(Bank::OAuth2));
    scb.change(|faults| faults.scb.callback_url = Some(CALLBACK.to_owned()));
    let fleet = Fleet::new(&[&scb, &oauth2], &on_redis(&redis));
    converse(async {
        let replicas = fleet.three(&redis).await;
        let [a, b, c] = [&replicas[0], &replicas[1], &replicas[2]];
        // By callback: a browser knows nothing of where it began.
        let started = begin(&a.client, KEY, &json!({ "user": "alice", "return_to": "https://app.example/done" })).await;
        let url = started.json()["consent_url"].as_str().expect("a URL").to_owned();
        let back = scb.consent_callback(url.rsplit('/').next().expect("a login"), Some("alice")).expect("a callback");
        let back = back.strip_prefix("https://app.example").expect("ours");
        let answer = b.browser.send(get(back, "")).await;
        assert_eq!((answer.status, answer.header("location")), (303, "https://app.example/done"), "{answer:?}");
        assert_eq!(c.browser.send(get(back, "")).await.status, 400, "once, wherever");
        // By posted code: another user, and another client's user of the same name.
        for (key, user, at_the_bank) in [(KEY, "bob", "bob"), (OTHER_KEY, "alice", "the other alice")] {
            let started = begin(&b.client, key, &json!({ "user": user })).await;
            let code = agree(&scb, &started, at_the_bank);
            assert_eq!(finish(&c.client, key, user, &started, &code).await.status, 200);
        }
        scb.forget_received();
        for replica in &replicas {
            for (key, user) in [(KEY, "alice"), (KEY, "bob"), (OTHER_KEY, "alice")] {
                assert_eq!(call(&replica.client, key, user).await.status, 200);
            }
            assert_eq!(call(&replica.client, OTHER_KEY, "bob").await.error(), "client-not-allowed");
            assert_eq!(call(&replica.client, KEY, "carol").await.error(), "consent-required");
        }
        let received = scb.received();
        let owners: Vec<_> = received.iter().map(|call| call.header("resourceownerid").unwrap_or("")).collect();
        let expected = ["alice", "bob", "the other alice"].map(|user| scb.known_as(user));
        assert_eq!(owners, [&expected[..], &expected, &expected].concat(), "everybody's own token everywhere");
        assert_eq!(scb.token_calls(), 3, "tokens are fetched once and found by all");

        // A state is good for its own user and client alone, wherever it is brought; whoever tries has used it up.
        let tokens = scb.token_calls();
        for (key, user) in [(KEY, "bob"), (OTHER_KEY, "alice")] {
            let started = begin(&a.client, KEY, &json!({ "user": "alice" })).await;
            let code = agree(&scb, &started, "mallory");
            assert_eq!(finish(&b.client, key, user, &started, &code).await.error(), "malformed-request");
            assert_eq!(finish(&c.client, KEY, "alice", &started, &code).await.error(), "malformed-request");
        }
        assert_eq!(scb.token_calls(), tokens, "no code was sent");

        // Somebody else's code with one's own state: PKCE gives it away at the bank.
        let victim = a.client.send(start_at("oauth2", KEY, "alice")).await;
        let attacker = b.client.send(start_at("oauth2", KEY, "mallory")).await;
        let stolen = parameter(&authorize(&oauth2, &attacker, "mallory").await, "code");
        let state = parameter(&authorize(&oauth2, &victim, "alice").await, "state");
        let fixed = c.client.send(code_at("oauth2", KEY, "alice", &state, &stolen)).await;
        assert_eq!((fixed.status, fixed.error().as_str()), (403, "consent-required"), "{fixed:?}");
        let path = "/oauth2/echo/x";
        for replica in &replicas {
            let line = replica.client.http2().await;
            assert_eq!(ask(line, path, "alice").await.error(), "consent-required", "nobody's money is alice's");
        }
        // The right one, by callback at a third replica.
        let started = a.client.send(start_at("oauth2", KEY, "alice")).await;
        let back = authorize(&oauth2, &started, "alice").await;
        assert_eq!(b.browser.send(get(&back, "")).await.status, 200);
        let line = c.client.http2().await;
        until("alice's calls at the third", async || ask(line.clone(), path, "alice").await.status == 200).await;
    });
    assert_eq!(scb.violations(), Vec::<String>::new());
    assert_eq!(oauth2.violations(), Vec::<String>::new());
}

#[test]
fn three_replicas_fetch_once_and_rotate_once() {
    let (redis, scb, meed) = (RedisServer::start(), bank(Bank::Scb), bank(Bank::Meed));
    let fleet = Fleet::new(&[&scb, &meed], &on_redis(&redis));
    let replicas = converse(async {
        let replicas = fleet.three(&redis).await;
        let lines = lines(&replicas).await;
        // Long enough for all of them to want it at once.
        meed.change(|faults| {
            faults.token = SimFault { delay: Some(Duration::from_millis(200)), ..SimFault::default() }
        });
        storm(&lines, 300, "/meed/echo/x").await;
        assert_eq!(meed.token_calls(), 1, "a cold herd");
        meed.revoke_all();
        storm(&lines, 300, "/meed/echo/x").await;
        assert_eq!(meed.token_calls(), 2, "a storm of refusals");
        replicas
    });
    converse(async {
        consent(&replicas[0].client, KEY, &scb, "alice", "alice").await;
        let lines = lines(&replicas).await;
        let before = scb.token_calls();
        for round in 0..100 {
            scb.revoke_all();
            for answer in join_all(lines.iter().map(|line| ask(line.clone(), "/scb/echo/x", "alice"))).await {
                assert_eq!(answer.status, 200, "round {round}: {answer:?}");
            }
        }
        assert_eq!(scb.token_calls() - before, 100, "one rotation a round");
    });
    assert_eq!(scb.violations(), Vec::<String>::new());
    assert_eq!(meed.violations(), Vec::<String>::new());
}

#[test]
fn a_redis_that_dies_under_load_stops_renewals_of_users_alone() {
    let mut redis = RedisServer::with("appendonly yes\nappendfsync always", &[]);
    let (scb, meed) = (bank(Bank::Scb), bank(Bank::Meed));
    let fleet = Fleet::new(&[&scb, &meed], &on_redis(&redis));
    converse(async {
        let replicas = fleet.three(&redis).await;
        consent(&replicas[0].client, KEY, &scb, "alice", "alice").await;
        let lines = lines(&replicas).await;
        for line in &lines {
            assert_eq!(ask(line.clone(), "/scb/echo/x", "alice").await.status, 200);
        }
        let (calls, stop) = (Rc::new(Cell::new(0_u32)), Rc::new(Cell::new(false)));
        let load: Vec<_> = lines
            .iter()
            .flat_map(|line| [("/meed/echo/x", ""), ("/scb/echo/x", "alice")].map(|what| (line.clone(), what)))
            .map(|(line, (path, user))| {
                let (calls, stop) = (calls.clone(), stop.clone());
                tokio::task::spawn_local(async move {
                    while !stop.get() {
                        let answer = ask(line.clone(), path, user).await;
                        assert_eq!(answer.status, 200, "{path}: {answer:?}");
                        calls.set(calls.get() + 1);
                    }
                })
            })
            .collect();
        let more = async || {
            let goal = calls.get() + 150;
            until("more calls", async || calls.get() >= goal || load.iter().any(|task| task.is_finished())).await;
        };
        more().await;
        redis.kill();
        more().await;
        // Applications' tokens are fetched without a store; each replica for itself.
        let before = meed.token_calls();
        meed.revoke_all();
        more().await;
        stop.set(true);
        for task in load {
            task.await.expect("every call was served");
        }
        assert!((1..=3).contains(&(meed.token_calls() - before)), "{}", meed.token_calls() - before);

        // What must not be done without the store is not done.
        let rotations = scb.token_calls();
        scb.revoke_all();
        for line in &lines {
            let answer = ask(line.clone(), "/scb/echo/x", "alice").await;
            assert_eq!((answer.status, answer.error().as_str()), (503, "token-unavailable"), "{answer:?}");
        }
        assert_eq!(scb.token_calls(), rotations);
        redis.revive();
        for line in &lines {
            until("the user's calls again", async || {
                let answer = ask(line.clone(), "/scb/echo/x", "alice").await;
                assert!(answer.status == 200 || answer.error() == "token-unavailable", "{answer:?}");
                answer.status == 200
            })
            .await;
        }
        assert_eq!(scb.token_calls(), rotations + 1, "one rotation for all");
        drop(replicas);
    });
    assert_eq!(scb.violations(), Vec::<String>::new());
}

/// A replica in this process.
fn stage(scb: &SimHandle, redis: &RedisServer) -> Harness {
    let consent = "[provider.scb.consent]\npublic_url = \"https://app.example\"\nreturn_to = []\n\
                   params = { endState = \"mobile_app\", response-channel = \"mobile\" }\n";
    let mut plan = Plan::default().with(scb, "scb", consent, "clients = [\"erp\"]\nas = \"user\"");
    plan.clients += "users = [\"*\"]\n";
    plan.config += "[[listener]]\nname = \"callback\"\nmode = \"callback\"\nbind = \"127.0.0.1:0\"\n\
                    tls = { cert = \"server.crt\", key = \"server.key\" }\n";
    plan.config += &on_redis(redis);
    plan.start()
}

#[test]
fn what_one_replica_revokes_or_is_given_the_others_know_within_a_second() {
    let (redis, scb) = (RedisServer::start(), bank(Bank::Scb));
    let stages = [stage(&scb, &redis), stage(&scb, &redis)];
    let [here, there] = [&stages[0].client, &stages[1].client];
    let key = |user: &str| UserKey {
        owner: ConsentOwner::Client("erp".into()),
        provider: "scb".into(),
        user: UserName::parse(user).expect("a name"),
    };
    converse(async {
        until("both listen", async || redis.cli(&["PUBSUB", "NUMSUB", "countersign:changes"]).ends_with('2')).await;
        for round in 0..5 {
            // Both rest because there is no consent; the one who hears of it must not sit that out.
            for client in [here, there] {
                assert_eq!(call(client, KEY, "alice").await.error(), "consent-required", "round {round}");
            }
            consent(here, KEY, &scb, "alice", "alice").await;
            consent(there, KEY, &scb, "bob", "bob").await;
            assert_eq!(call(here, KEY, "alice").await.status, 200);
            let soon = tokio::time::timeout(
                Duration::from_secs(1),
                until("the consent is known there", async || call(there, KEY, "alice").await.status == 200),
            );
            soon.await.expect("within a second");
            assert_eq!(call(here, KEY, "bob").await.status, 200);
            assert_eq!(stages[0].running.consents.revoke(key("alice"), "test").await, Ok(true));
            assert_eq!(call(here, KEY, "alice").await.error(), "consent-required", "at once");
            let soon = tokio::time::timeout(
                Duration::from_secs(1),
                until("the revocation is known there", async || {
                    call(there, KEY, "alice").await.error() == "consent-required"
                }),
            );
            soon.await.expect("within a second");
            let received = scb.resource_calls();
            assert_eq!(call(there, KEY, "alice").await.error(), "consent-required");
            assert_eq!(scb.resource_calls(), received, "nothing went out");
            assert_eq!(call(there, KEY, "bob").await.status, 200, "the other user does not feel it");
            assert_eq!(stages[1].running.consents.revoke(key("bob"), "test").await, Ok(true));
        }
        assert_eq!(stages[0].running.consents.revoke(key("alice"), "test").await, Ok(false));
        // What was said while nobody could hear it is looked for.
        consent(here, KEY, &scb, "alice", "alice").await;
        assert_eq!(call(there, KEY, "alice").await.status, 200);
        for listener in redis.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]).lines() {
            let id = listener.split_whitespace().find_map(|word| word.strip_prefix("id=")).expect("an id").to_owned();
            redis.cli(&["CLIENT", "KILL", "ID", &id]);
        }
        assert_eq!(stages[0].running.consents.revoke(key("alice"), "test").await, Ok(true));
        until("the revocation was looked for", async || call(there, KEY, "alice").await.error() == "consent-required")
            .await;
    });
    assert_eq!(scb.violations(), Vec::<String>::new());
}

#[test]
fn fifty_kills_in_the_middle_of_rotations_lose_no_user_who_was_answered() {
    let (scb, oauth2) = (bank(Bank::Scb), bank(Bank::OAuth2));
    // This bank takes a refresh token until the one that it brought is used; SCB kills it with its first use.
    oauth2.change(|faults| faults.oauth2.refresh_grace = true);
    let store = format!("[store]\nurl = \"file:users.redb\"\nkeys = [\"{}\"]\n", store_key());
    let fleet = Fleet::new(&[&scb, &oauth2], &store);
    let paths = ["/scb/echo/x", "/oauth2/echo/x"];
    let mut lost = 0;
    converse(async {
        let replica = fleet.replica().await;
        consent(&replica.client, KEY, &scb, "alice", "alice").await;
        let started = replica.client.send(start_at("oauth2", KEY, "alice")).await;
        let back = authorize(&oauth2, &started, "alice").await;
        assert_eq!(replica.browser.send(get(&back, "")).await.status, 200);
    });
    for round in 0..50_u64 {
        converse(async {
            let replica = fleet.replica().await;
            let line = replica.client.http2().await;
            let answer = ask(line.clone(), paths[1], "alice").await;
            assert_eq!(answer.status, 200, "round {round}: {answer:?}\n{}", replica.process.stderr());
            let answer = ask(line.clone(), paths[0], "alice").await;
            if answer.status != 200 {
                // The bank's answer was on its way when the process died: nothing can bring the token back. It is
                // said at once, and not tried again.
                assert_eq!(answer.error(), "consent-required", "round {round}: {answer:?}");
                lost += 1;
                // One attempt, one line that says so.
                let told = replica.process.stderr();
                assert_eq!(told.matches("the user must consent again").count(), 1, "round {round}: {told}");
                assert_eq!(ask(line.clone(), paths[0], "alice").await.error(), "consent-required");
                consent(&replica.client, KEY, &scb, "alice", "alice").await;
                assert_eq!(ask(line.clone(), paths[0], "alice").await.status, 200, "a new consent works at once");
            }
            assert_eq!(scb.violations().len(), lost, "round {round}: {:?}", scb.violations());
            // A loop in which every token is refused.
            let rotations = async || {
                loop {
                    scb.revoke_all();
                    oauth2.revoke_all();
                    let calls = paths.map(|path| attempt(line.clone(), path, "alice"));
                    for answer in join_all(calls).await {
                        assert_eq!(answer?.status, 200, "round {round}");
                    }
                    if round % 2 == 0 {
                        // Killed as soon as it has answered.
                        return Ok::<_, hyper::Error>(());
                    }
                }
            };
            let moment = Duration::from_micros(round * 2_357 % 60_000);
            if round % 2 == 0 {
                rotations().await.expect("answered");
            } else if let Ok(ended) = tokio::time::timeout(moment, rotations()).await {
                panic!("it ended by itself: {ended:?}");
            }
            let before = lost;
            drop(replica);
            if round % 2 == 0 {
                let again = fleet.replica().await;
                let answer = ask(again.client.http2().await, paths[0], "alice").await;
                assert_eq!((answer.status, lost), (200, before), "who was answered is in the store");
            }
        });
    }
    assert_eq!(oauth2.violations(), Vec::<String>::new());
}

/// A user whose name must not be read in a store.
const USER: &str = "canary-user-4Gt8";
const PASSWORD: &str = "canary-redis-password-2Wd6";

/// All that the banks and we have made in a life, and all that was put in.
fn canaries(banks: &[&SimHandle], states: &[String]) -> Vec<Canary> {
    let mut all: Vec<Canary> = [OTHER_KEY, PASSWORD, USER, &store_key()].map(|text| Canary::new(text, text)).into();
    all.extend(states.iter().map(|state| Canary::new("a state", state)));
    let mut seen = std::collections::BTreeSet::new();
    for sim in banks {
        let name = sim.bank().name();
        all.push(Canary::new(format!("the secret of {name}"), sim.credentials().secret().expose_secret()));
        for token in sim.issued() {
            all.push(Canary::new(format!("an access token of {name}"), token.expose_secret()));
        }
        for call in sim.received().iter().filter(|call| call.endpoint == SimEndpoint::Token) {
            let mut fields: Vec<(String, String)> = form_urlencoded::parse(&call.body).into_owned().collect();
            if let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(&call.body) {
                fields = object.into_iter().filter_map(|(n, value)| Some((n, value.as_str()?.to_owned()))).collect();
            }
            for (what, value) in fields {
                let secret = ["authCode", "refreshToken", "code", "refresh_token", "code_verifier"];
                if secret.contains(&what.as_str()) {
                    seen.insert(what.clone());
                    all.push(Canary::new(format!("{what} of {name}"), &value));
                }
            }
        }
    }
    assert_eq!(seen.len(), 5, "codes, refresh tokens and a verifier of both manners: {seen:?}");
    all
}

/// Consents, calls and rotations of a user at both banks, here and there. Their states.
async fn consent_and_call(here: &Replica, there: &Replica, scb: &SimHandle, oauth2: &SimHandle) -> Vec<String> {
    let state = |started: &Whole| started.json()["state"].as_str().expect("a state").to_owned();
    let at_scb = begin(&here.client, KEY, &json!({ "user": USER })).await;
    let code = agree(scb, &at_scb, "alice");
    let at_oauth2 = here.client.send(start_at("oauth2", KEY, USER)).await;
    let back = authorize(oauth2, &at_oauth2, "alice").await;
    // These stay pending, and one is answered wrongly.
    let pending = here.client.send(start_at("oauth2", KEY, USER)).await;
    let refused = begin(&here.client, KEY, &json!({ "user": USER })).await;
    assert_eq!(finish(&there.client, OTHER_KEY, "alice", &refused, &code).await.error(), "malformed-request");
    assert_eq!(finish(&there.client, KEY, USER, &at_scb, &code).await.status, 200);
    assert_eq!(there.browser.send(get(&back, "")).await.status, 200);
    assert_eq!(there.browser.send(get(&back, "")).await.status, 400);
    rotate(here, there, scb, oauth2).await;
    [&at_scb, &at_oauth2, &pending, &refused].map(state).into()
}

async fn rotate(here: &Replica, there: &Replica, scb: &SimHandle, oauth2: &SimHandle) {
    for replica in [here, there] {
        let line = replica.client.http2().await;
        for path in ["/scb/echo/x", "/oauth2/echo/x", "/meed/echo/x"] {
            let user = if path.starts_with("/meed") { "" } else { USER };
            let answer = ask(line.clone(), path, user).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
        }
        scb.revoke_all();
        oauth2.revoke_all();
    }
}

const TALKATIVE: &str = "[log]\nformat = \"text\"\naccess = \"stderr\"\n\
                         level = \"trace,redis=trace,hyper=trace,h2=trace,rustls=trace\"\n";

#[test]
fn no_secret_is_read_in_redis_or_in_a_log_of_those_who_use_it() {
    let redis = RedisServer::with(&format!("requirepass {PASSWORD}"), &["-a", PASSWORD]);
    let (scb, oauth2, meed) = (bank(Bank::Scb), bank(Bank::OAuth2), bank(Bank::Meed));
    let store = format!("{}password = \"{PASSWORD}\"\n{TALKATIVE}", on_redis(&redis));
    let fleet = Fleet::new(&[&scb, &oauth2, &meed], &store);
    let mut outputs = Outputs::default();
    let (replicas, states) = converse(async {
        let replicas = fleet.three(&redis).await;
        let states = consent_and_call(&replicas[0], &replicas[1], &scb, &oauth2).await;
        // What lies there now is known in full once it was used.
        outputs.add("a dump of Redis", redis.dump());
        let names = redis.cli(&["--scan"]);
        assert!(names.lines().filter(|name| name.starts_with("countersign:user:")).count() == 2, "{names}");
        assert!(names.contains("countersign:pending:") && names.contains("countersign:application:"), "{names}");
        for name in names.lines().filter(|name| name.is_ascii()) {
            outputs.add(format!("the value of {name}"), redis.cli(&["GET", name]));
        }
        outputs.add("the names in Redis", names);
        rotate(&replicas[1], &replicas[2], &scb, &oauth2).await;
        (replicas, states)
    });
    for replica in replicas {
        replica.process.finish(&mut outputs);
    }
    assert!(outputs.bytes("standard error") > 5_000, "it says {} bytes", outputs.bytes("standard error"));
    outputs.add("the log of Redis", fs::read(redis.folder().join("log")).expect("its log"));
    assert_eq!(outputs.search(&canaries(&[&scb, &oauth2, &meed], &states)), Vec::<String>::new());
}

#[test]
fn no_secret_is_read_in_a_store_file_or_in_the_log_beside_it() {
    let (scb, oauth2, meed) = (bank(Bank::Scb), bank(Bank::OAuth2), bank(Bank::Meed));
    let store = format!("[store]\nurl = \"file:users.redb\"\nkeys = [\"{}\"]\n{TALKATIVE}", store_key());
    let fleet = Fleet::new(&[&scb, &oauth2, &meed], &store);
    let mut outputs = Outputs::default();
    let (replica, states) = converse(async {
        let replica = fleet.replica().await;
        let states = consent_and_call(&replica, &replica, &scb, &oauth2).await;
        let file = fs::read(fleet.folder.path().join("users.redb")).expect("the file");
        assert!(file.len() > 1000);
        outputs.add("the store's file", file);
        rotate(&replica, &replica, &scb, &oauth2).await;
        (replica, states)
    });
    replica.process.finish(&mut outputs);
    outputs.add("the store's file in the end", fs::read(fleet.folder.path().join("users.redb")).expect("the file"));
    assert_eq!(outputs.search(&canaries(&[&scb, &oauth2, &meed], &states)), Vec::<String>::new());
}

//! Users' renewals on bad days: banks that are silent or odd, processes that end, configs and replicas that change.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::base::time::{Clock, ManualClock, Stopwatch};
use countersign::sim::{Bank, Expiry, SimHandle};
use countersign::token::consent::{ConsentOwner, UserKey, UserName};
use serde_json::json;

use crate::client::{Client, converse};
use crate::harness::{Harness, KEY, Plan, bank};
use crate::redis_server::{Mood, RedisServer, Relay};
use crate::replicas::{on_redis, until};
use crate::users::{agree, begin, call, finish};

const CONSENT: &str = "[provider.scb.consent]\npublic_url = \"https://app.example\"\nreturn_to = []\n\
                       params = { endState = \"mobile_app\", response-channel = \"mobile\" }\n";

fn in_file(folder: &Path) -> String {
    let key = STANDARD.encode([7; 32]);
    format!("[store]\nurl = \"file:{}\"\nkeys = [\"{key}\"]\n", folder.join("users.redb").display())
}

/// A proxy for SCB with users. A token call may take this long.
fn start(sim: &SimHandle, store: &str, token: &str, clock: Clock) -> Harness {
    let provider = format!("timeouts = {{ token = \"{token}\" }}\n{CONSENT}");
    let mut plan = Plan { clock, ..Plan::default() }.with(sim, "scb", &provider, "clients = [\"erp\"]\nas = \"user\"");
    plan.clients += "users = [\"*\"]\n";
    plan.config += "[[listener]]\nname = \"callback\"\nmode = \"callback\"\nbind = \"127.0.0.1:0\"\n\
                    tls = { cert = \"server.crt\", key = \"server.key\" }\n";
    plan.config += store;
    plan.start()
}

async fn consent(client: &Client, sim: &SimHandle, user: &str) {
    let started = begin(client, KEY, &json!({ "user": user })).await;
    assert_eq!(started.status, 200, "{started:?}");
    let code = agree(sim, &started, user);
    let done = finish(client, KEY, user, &started, &code).await;
    assert_eq!(done.status, 200, "{done:?}");
}

/// Every answer of the token endpoint comes this late, its work done.
fn delay(sim: &SimHandle, delay: Option<Duration>) {
    sim.change(|faults| faults.token.delay = delay);
}

#[test]
fn a_bank_that_never_answers_is_given_up_by_the_deadline() {
    let (folder, sim) = (tempfile::tempdir().expect("a folder"), bank(Bank::Scb));
    let stage = start(&sim, &in_file(folder.path()), "1s", Clock::System);
    converse(async {
        let client = &stage.client;
        consent(client, &sim, "alice").await;
        assert_eq!(call(client, KEY, "alice").await.status, 200);
        let open = sim.open_connections();
        delay(&sim, Some(Duration::from_secs(60)));
        // A refresh.
        sim.revoke_all();
        let watch = Stopwatch::start();
        let answer = call(client, KEY, "alice").await;
        assert_eq!((answer.status, answer.error().as_str()), (503, "token-unavailable"), "{answer:?}");
        assert!(watch.elapsed() < Duration::from_secs(10), "{:?}", watch.elapsed());
        // Long before the bank would have answered. Connections of the pool may idle for a while.
        until("its connection is closed", async || sim.open_connections() <= open).await;
        assert!(watch.elapsed() < Duration::from_secs(45), "{:?}", watch.elapsed());
        // The exchange of a code.
        let started = begin(client, KEY, &json!({ "user": "bob" })).await;
        let code = agree(&sim, &started, "bob");
        let watch = Stopwatch::start();
        let answer = finish(client, KEY, "bob", &started, &code).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(watch.elapsed() < Duration::from_secs(10), "{:?}", watch.elapsed());
    });
}

#[test]
fn a_process_that_ends_finishes_the_renewals_that_it_has_begun() {
    let (folder, sim) = (tempfile::tempdir().expect("a folder"), bank(Bank::Scb));
    let stage = start(&sim, &in_file(folder.path()), "10s", Clock::System);
    converse(async {
        for user in ["alice", "bob"] {
            consent(&stage.client, &sim, user).await;
        }
    });
    stage.stop();
    // 35 minutes later: keep-alive renews both at once, before the first request. Nothing waits for them.
    let late = ManualClock::at(Clock::System.now().plus(Duration::from_secs(35 * 60)));
    let calls = sim.token_calls();
    delay(&sim, Some(Duration::from_millis(1500)));
    let stage = start(&sim, &in_file(folder.path()), "10s", Clock::Manual(late.clone()));
    converse(until("both were asked for", async || sim.token_calls() == calls + 2));
    let watch = Stopwatch::start();
    stage.running.drain(Duration::ZERO, Duration::from_secs(20));
    assert!(watch.elapsed() < Duration::from_secs(10), "it ends when they have: {:?}", watch.elapsed());
    // What they brought was saved.
    delay(&sim, None);
    sim.revoke_all();
    let stage = start(&sim, &in_file(folder.path()), "10s", Clock::Manual(late));
    converse(async {
        for user in ["alice", "bob"] {
            let answer = call(&stage.client, KEY, user).await;
            assert_eq!(answer.status, 200, "{user}: {answer:?}");
        }
    });
    stage.stop();
    assert_eq!(sim.violations(), Vec::<String>::new(), "a spent refresh token was sent");
}

#[test]
fn a_process_that_ends_begins_no_renewal_that_it_cannot_finish() {
    let (folder, sim) = (tempfile::tempdir().expect("a folder"), bank(Bank::Scb));
    let stage = start(&sim, &in_file(folder.path()), "10s", Clock::System);
    let calls = converse(async {
        let client = &stage.client;
        consent(client, &sim, "alice").await;
        assert_eq!(call(client, KEY, "alice").await.status, 200);
        sim.change(|faults| faults.resource.delay = Some(Duration::from_millis(500)));
        sim.revoke_all();
        sim.token_calls()
    });
    // A call is under way, and will find its token refused when less is left of the drain than a token call may take.
    let (client, received) = (stage.client.clone(), sim.resource_calls());
    let caller = std::thread::spawn(move || converse(async { call(&client, KEY, "alice").await }));
    converse(until("it is under way", async || sim.resource_calls() > received));
    stage.running.drain(Duration::ZERO, Duration::from_secs(8));
    let answer = caller.join().expect("no panic");
    assert_eq!((answer.status, answer.error().as_str()), (503, "token-unavailable"), "{answer:?}");
    assert_eq!(sim.token_calls(), calls, "nothing was begun");
    assert_eq!(sim.violations(), Vec::<String>::new());
}

#[test]
fn a_refresh_token_is_kept_whatever_is_wrong_with_the_access_token_beside_it() {
    let (folder, sim) = (tempfile::tempdir().expect("a folder"), bank(Bank::Scb));
    let stage = start(&sim, &in_file(folder.path()), "10s", Clock::System);
    converse(async {
        let client = &stage.client;
        // The first answer of all: the code is spent, and so the user has consented.
        sim.change(|faults| (faults.issue.expires_in, faults.issue.expires_at) = odd());
        consent(client, &sim, "alice").await;
        for _ in 0..2 {
            let answer = call(client, KEY, "alice").await;
            assert_eq!((answer.status, answer.error().as_str()), (503, "token-unavailable"), "{answer:?}");
        }
        sim.change(|faults| (faults.issue.expires_in, faults.issue.expires_at) = <_>::default());
        until("alice is served", async || call(client, KEY, "alice").await.status == 200).await;
        // A refresh.
        sim.change(|faults| (faults.issue.expires_in, faults.issue.expires_at) = odd());
        sim.revoke_all();
        assert_eq!(call(client, KEY, "alice").await.error(), "token-unavailable");
        sim.change(|faults| (faults.issue.expires_in, faults.issue.expires_at) = <_>::default());
        until("alice is served again", async || call(client, KEY, "alice").await.status == 200).await;
    });
    assert_eq!(sim.violations(), Vec::<String>::new(), "a spent refresh token was sent");
}

/// A life of nothing.
fn odd() -> (Expiry, Expiry) {
    (Expiry::Raw("0".to_owned()), Expiry::Absent)
}

#[test]
fn a_token_of_one_bank_never_goes_to_the_one_that_a_reload_names() {
    let (folder, old, new) = (tempfile::tempdir().expect("a folder"), bank(Bank::Scb), bank(Bank::Scb));
    let stage = start(&old, &in_file(folder.path()), "10s", Clock::System);
    converse(async {
        let client = &stage.client;
        consent(client, &old, "alice").await;
        assert_eq!(call(client, KEY, "alice").await.status, 200);
        let (before, after) = (old.settings_toml_as("scb", "scb-ca.crt"), new.settings_toml_as("scb", "scb-ca.crt"));
        stage.papers.put("scb-ca.crt", new.ca_pem());
        stage.papers.edit(|text| {
            assert!(text.contains(&before));
            text.replace(&before, &after)
        });
        let reloaded = stage.running.reloads.reload("test").await.expect("an outcome");
        assert!(reloaded.outcome.is_applied(), "{reloaded:?}");
        let answer = call(client, KEY, "alice").await;
        assert_eq!((answer.status, answer.error().as_str()), (403, "consent-required"), "{answer:?}");
        assert_eq!(new.received().len(), 0, "the other bank saw nothing of it");
        // Whoever consents there is served there; the way back finds that bank's token no more either.
        consent(client, &new, "alice").await;
        assert_eq!(call(client, KEY, "alice").await.status, 200);
    });
    assert_eq!(new.violations(), Vec::<String>::new());
}

#[test]
fn a_revocation_is_heard_by_a_replica_that_the_store_was_out_of_reach_for() {
    let (redis, sim) = (RedisServer::start(), bank(Bank::Scb));
    converse(async {
        let relay = Relay::before(redis.port, Mood::Pass).await;
        let here = start(&sim, &on_redis(&redis), "10s", Clock::System);
        let behind = on_redis(&redis).replace(&redis.port.to_string(), &relay.address.port().to_string());
        let there = start(&sim, &behind, "10s", Clock::System);
        until("both listen", async || redis.cli(&["PUBSUB", "NUMSUB", "countersign:changes"]).ends_with('2')).await;
        for user in ["alice", "bob", "carol"] {
            consent(&here.client, &sim, user).await;
            until("it is known there", async || call(&there.client, KEY, user).await.status == 200).await;
            relay.turn(Mood::Refuse);
            until("the link is down", async || redis.cli(&["PUBSUB", "NUMSUB", "countersign:changes"]).ends_with('1'))
                .await;
            // The link for records finds that out by itself, and rests.
            tokio::time::sleep(Duration::from_millis(700)).await;
            let key = UserKey {
                owner: ConsentOwner::Client("erp".into()),
                provider: "scb".into(),
                user: UserName::parse(user).expect("a name"),
            };
            assert_eq!(here.running.consents.revoke(key, "test").await, Ok(true));
            assert_eq!(call(&there.client, KEY, user).await.status, 200, "it cannot know");
            relay.turn(Mood::Pass);
            until("the revocation is known there", async || {
                call(&there.client, KEY, user).await.error() == "consent-required"
            })
            .await;
        }
    });
    assert_eq!(sim.violations(), Vec::<String>::new());
}

#[test]
fn a_lock_outlives_the_longest_call_made_under_it() {
    let (redis, sim) = (RedisServer::start(), bank(Bank::Scb));
    let stage = start(&sim, &on_redis(&redis), "90s", Clock::System);
    let (client, calls) = converse(async {
        consent(&stage.client, &sim, "alice").await;
        assert_eq!(call(&stage.client, KEY, "alice").await.status, 200);
        delay(&sim, Some(Duration::from_secs(2)));
        sim.revoke_all();
        (stage.client.clone(), sim.token_calls())
    });
    let caller = std::thread::spawn(move || converse(async { call(&client, KEY, "alice").await }));
    converse(until("the refresh is under way", async || sim.token_calls() > calls));
    let left = redis.cli(&["EVAL", "return redis.call('PTTL', redis.call('KEYS', 'countersign:lock:*')[1])", "0"]);
    let left: u64 = left.trim_start_matches("(integer) ").parse().unwrap_or_else(|_| panic!("{left}"));
    assert!(left > 100_000, "{left} ms are left of the lock, of a call that may take 90 s");
    assert_eq!(caller.join().expect("no panic").status, 200);
}

#[test]
fn renewals_outlive_a_store_that_is_away_for_a_moment() {
    let (redis, sim) = (RedisServer::start(), bank(Bank::Scb));
    converse(async {
        let relay = Relay::before(redis.port, Mood::Pass).await;
        let store = on_redis(&redis).replace(&redis.port.to_string(), &relay.address.port().to_string());
        let stage = start(&sim, &store, "10s", Clock::System);
        for user in ["alice", "bob"] {
            consent(&stage.client, &sim, user).await;
        }
        stage.stop();
        let late = ManualClock::at(Clock::System.now().plus(Duration::from_secs(35 * 60)));
        let calls = sim.token_calls();
        delay(&sim, Some(Duration::from_millis(700)));
        let stage = start(&sim, &store, "10s", Clock::Manual(late));
        until("both were asked for", async || sim.token_calls() == calls + 2).await;
        // The answers come while nothing can be saved.
        relay.turn(Mood::Refuse);
        tokio::time::sleep(Duration::from_millis(1200)).await;
        relay.turn(Mood::Pass);
        delay(&sim, None);
        sim.revoke_all();
        for user in ["alice", "bob"] {
            until("the user is served", async || {
                let answer = call(&stage.client, KEY, user).await;
                assert_ne!(answer.error(), "consent-required", "{answer:?}");
                answer.status == 200
            })
            .await;
        }
    });
    assert_eq!(sim.violations(), Vec::<String>::new(), "a spent refresh token was sent");
}

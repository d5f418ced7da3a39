//! Budgets of token calls and quotas of requests: what is refused, for how long, and what goes on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign::base::time::{Clock, ManualClock, Now, of_rfc3339};
use countersign::sim::{Bank, SimHandle};

use crate::client::{Whole, converse, get, request};
use crate::harness::{Harness, KEY, OTHER_KEY, Plan, bank};
use crate::redis_server::RedisServer;
use crate::replicas::on_redis;

/// A proxy in front of one bank, and its clock.
fn stage(sim: &SimHandle, more: &str, route: &str, store: &str) -> (Harness, Arc<ManualClock>) {
    let boot = Clock::System.now().boot;
    let hand = ManualClock::at(Now::at(boot, of_rfc3339("2026-12-04T12:00:00Z").expect("a time")));
    let mut plan = Plan { clock: Clock::Manual(hand.clone()), ..Plan::default() }.with_two_clients();
    plan = plan.with(sim, "bank", more, &format!("clients = [\"erp\", \"treasury\"]\n{route}"));
    plan.config += store;
    (plan.start(), hand)
}

async fn refused(stage: &Harness, limit: &str) -> u64 {
    let metrics = String::from_utf8(stage.admin("/metrics").await.body.to_vec()).expect("text");
    let name = format!("countersign_provider_limited_total{{provider=\"bank\",limit=\"{limit}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |number| number.parse().expect("a number"))
}

/// A 429 of ours, with its `Retry-After` in seconds.
fn wait(answer: &Whole) -> u64 {
    assert_eq!((answer.status, answer.error().as_str()), (429, "rate-limited"));
    answer.header("retry-after").parse().expect("seconds")
}

#[test]
fn a_budget_of_token_calls_refuses_what_needs_one_and_nothing_else() {
    let sim = bank(Bank::OAuth2);
    let (stage, hand) = stage(&sim, "token_budget = { calls = 1, per = \"1h\" }", "", "");
    converse(async {
        for _ in 0..3 {
            assert_eq!(stage.client.send(get("/bank/echo/x", KEY)).await.status, 200, "a live token goes on");
        }
        hand.advance(Duration::from_secs(60));
        let tokens = stage.admin("/api/v1/tokens").await.json();
        let key = tokens["tokens"][0]["key"].as_str().expect("a key").to_owned();
        // A renewal is a token call, too.
        assert_eq!(stage.admin_post(&format!("/api/v1/tokens/{key}/refresh"), "").await.status, 202);
        assert_eq!(stage.client.send(get("/bank/echo/x", KEY)).await.status, 200);
        assert_eq!(stage.admin_delete(&format!("/api/v1/tokens/{key}")).await.status, 200);
        assert_eq!(wait(&stage.client.send(get("/bank/echo/x", KEY)).await), 3540);
        hand.advance(Duration::from_secs(3539));
        assert_eq!(wait(&stage.client.send(get("/bank/echo/x", KEY)).await), 1);
        assert_eq!((sim.token_calls(), refused(&stage, "token_budget").await), (1, 2));
        hand.advance(Duration::from_secs(1));
        assert_eq!(stage.client.send(get("/bank/echo/x", KEY)).await.status, 200);
        assert_eq!(sim.token_calls(), 2);
    });
}

#[test]
fn a_quota_counts_by_client_and_variable_and_outlives_a_reload() {
    let sim = bank(Bank::OAuth2);
    let quotas = "[[provider.bank.quota]]\nrequests = 2\nper = \"1h\"\nby = [\"client\", \"var:account\"]\n\
                  [[provider.bank.quota]]\nrequests = 5\nper = \"1d\"\nzone = \"Asia/Bangkok\"\n";
    let (stage, hand) = stage(&sim, quotas, "vars = { account = { header = \"x-account\" } }", "");
    converse(async {
        let call = async |key: &str, account: &str| {
            let call = request("GET", "/bank/echo/x", key, &[("x-account", account)], Bytes::new());
            stage.client.send(call).await
        };
        hand.advance(Duration::from_secs(600));
        for _ in 0..2 {
            assert_eq!(call(KEY, "a").await.status, 200);
        }
        assert_eq!(wait(&call(KEY, "a").await), 3000, "until the hour is over");
        assert_eq!(sim.resource_calls(), 2, "the bank was not called");
        stage.papers.edit(|config| format!("{config}\n# another text\n"));
        assert_eq!(stage.admin_post("/api/v1/reload", "").await.status, 200);
        assert_eq!(wait(&call(KEY, "a").await), 3000, "a reload gives nothing back");
        assert_eq!(call(KEY, "b").await.status, 200, "another account");
        assert_eq!(call(OTHER_KEY, "a").await.status, 200, "another client");
        assert_eq!(call(OTHER_KEY, "b").await.status, 200);
        // Five in all: the day of Bangkok ends at 17:00 UTC.
        assert_eq!(wait(&call(OTHER_KEY, "c").await), 17_400);
        // The hour of that count was given back.
        hand.advance(Duration::from_secs(17_400));
        for _ in 0..2 {
            assert_eq!(call(KEY, "a").await.status, 200);
        }
        assert_eq!(wait(&call(KEY, "a").await), 3600);
        assert_eq!(refused(&stage, "quota").await, 4);
    });
    assert!(stage.stop().iter().any(|line| line["error.type"] == "rate-limited"));
}

#[test]
fn replicas_share_a_quota_through_redis_and_count_alone_without_it() {
    let sim = bank(Bank::OAuth2);
    let mut redis = RedisServer::start();
    let quota = "[[provider.bank.quota]]\nrequests = 40\nper = \"1m\"\n";
    let stages = [(); 2].map(|()| stage(&sim, quota, "", &on_redis(&redis)));
    converse(async {
        let mut passed = [0, 0];
        for turn in 0..60 {
            let answer = stages[turn % 2].0.client.send(get("/bank/echo/x", KEY)).await;
            match answer.status {
                200 => passed[turn % 2] += 1,
                _ => assert_eq!(wait(&answer), 60),
            }
        }
        assert!(passed.iter().sum::<u64>() <= 40, "{passed:?}");
        assert!(passed.iter().all(|passed| *passed >= 15), "{passed:?}");
        assert_eq!(sim.resource_calls(), passed.iter().sum::<u64>());
        // Without the store each counts alone.
        redis.kill();
        for (_, hand) in &stages {
            hand.advance(Duration::from_secs(60));
        }
        for (stage, _) in &stages {
            let mut alone = 0;
            for _ in 0..45 {
                alone += u64::from(stage.client.send(get("/bank/echo/x", KEY)).await.status == 200);
            }
            assert_eq!(alone, 40);
        }
        // What was taken meanwhile is counted once the store is back.
        redis.revive();
        let mut refusals = 0;
        for _ in 0..200 {
            for (stage, hand) in &stages {
                hand.advance(Duration::from_millis(10));
                refusals += u64::from(stage.client.send(get("/bank/echo/x", KEY)).await.status == 429);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(refusals, 400, "the window has none left");
    });
}

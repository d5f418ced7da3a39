//! Tokens in their first moments, at banks whose servers learn of them late.

use std::sync::Arc;
use std::time::Duration;

use countersign::base::secret::{hex, sha256};
use countersign::base::time::{Clock, ManualClock};
use countersign::sim::{Bank, ResponseFault, SimFault, Verbatim};
use countersign::token::state::PhaseKind;

use crate::client::{converse, get, post};
use crate::harness::{Harness, KEY, Plan, bank};

/// A plan under a clock that the test moves.
pub fn by_hand() -> (Plan, Arc<ManualClock>) {
    let hand = ManualClock::at(Clock::System.now());
    (Plan { clock: Clock::Manual(hand.clone()), ..Plan::default() }, hand)
}

/// Waits until a token settles, and lets that time pass.
pub async fn settle(stage: &Harness, hand: &ManualClock) {
    let leases = &stage.running.leases;
    while !leases.ledger().await.lines.iter().any(|line| line.phase == PhaseKind::Settling) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    hand.advance(Duration::from_secs(3));
    leases.tick().await;
}

/// SCB's refusal, for the next so many calls.
fn refusals(times: u64) -> SimFault {
    let refusal = Verbatim::json(401, r#"{"status":{"code":9300,"description":"x"}}"#);
    SimFault { times: Some(times), ..SimFault::new(ResponseFault::Verbatim(refusal)) }
}

#[test]
fn a_call_whose_token_is_not_known_yet_is_replayed_with_it_a_moment_later() {
    let sim = bank(Bank::Scb);
    sim.change(|faults| faults.resource = refusals(1));
    let (plan, hand) = by_hand();
    let stage = plan.with(&sim, "scb", "", "").start();
    let body: Vec<u8> = (0..200 * 1024_u32).map(|n| n as u8).collect();
    converse(async {
        let request = stage.client.send(post("/scb/echo/x", KEY, body.clone()));
        let (answer, ()) = tokio::join!(request, settle(&stage, &hand));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["body"]["sha256"], hex(&sha256(&body)), "the body of a first call is kept, too");
        assert!(answer.header("proxy-status").contains("replayed"));
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        assert_eq!((sim.token_calls(), sim.resource_calls()), (1, 3));
        // It is known now: what is refused from here on is dead.
        sim.revoke_all();
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        assert_eq!(sim.token_calls(), 2);
    });
    assert_eq!(sim.violations(), Vec::<String>::new());
}

#[test]
fn a_storm_of_calls_with_a_token_that_is_not_known_yet_is_replayed_once_each() {
    let sim = bank(Bank::Scb);
    let (plan, hand) = by_hand();
    let stage = plan.with(&sim, "scb", "", "").start();
    converse(async {
        // All of them have the token before the first refusal is back.
        let slow = SimFault { delay: Some(Duration::from_millis(300)), ..refusals(20) };
        sim.change(|faults| faults.resource = slow);
        let calls: Vec<_> = (0..20)
            .map(|_| {
                let client = stage.client.clone();
                tokio::task::spawn_local(async move { client.send(post("/scb/echo/x", KEY, "{}")).await })
            })
            .collect();
        let waiting = async || stage.running.leases.ledger().await.lines.first().map_or(0, |line| line.waiters);
        while sim.resource_calls() < 20 || waiting().await < 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        settle(&stage, &hand).await;
        for call in calls {
            let answer = call.await.expect("answered");
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        assert_eq!((sim.token_calls(), sim.resource_calls()), (1, 40));
    });
}

#[test]
fn the_old_token_serves_while_its_renewed_one_is_not_known_yet() {
    let sim = bank(Bank::Scb);
    let (plan, hand) = by_hand();
    let stage = plan.with(&sim, "scb", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        let leases = &stage.running.leases;
        let key = leases.ledger().await.lines.first().expect("a key").key;
        assert!(leases.refresh(key).await);
        while sim.token_calls() < 2 || leases.ledger().await.lines.iter().any(|line| line.phase != PhaseKind::Live) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        sim.change(|faults| faults.resource = refusals(1));
        let answer = stage.client.send(post("/scb/echo/x", KEY, "{}")).await;
        assert_eq!(answer.status, 200, "at once: {answer:?}");
        settle(&stage, &hand).await;
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        assert_eq!((sim.token_calls(), sim.resource_calls()), (2, 4));
    });
}

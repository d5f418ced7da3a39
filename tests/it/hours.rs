//! Providers with working hours: closed without a call, open on the minute, and what is under way at the closing.

use std::time::Duration;

use countersign::base::time::{Clock, ManualClock, Now, of_rfc3339};
use countersign::sim::{Bank, SimFault, SimHandle};

use crate::client::{converse, get};
use crate::harness::{Harness, KEY, Plan, bank};

const HOURS: &str = "[provider.bank.hours]\nzone = \"Asia/Bangkok\"\nopen = [\"mon-fri 08:00-20:00\"]\n\
                     holidays = \"holidays.txt\"\nprewarm = \"2m\"\n";
const HOLIDAYS: &str = "# of this year\n\n2026-12-07   # a Monday\n";

/// A proxy in front of one bank, at a moment.
fn stage(sim: &SimHandle, at: &str) -> (Harness, std::sync::Arc<ManualClock>) {
    let boot = Clock::System.now().boot;
    let hand = ManualClock::at(Now::at(boot, of_rfc3339(at).expect("a time")));
    let mut plan = Plan { clock: Clock::Manual(hand.clone()), ..Plan::default() }.with(sim, "bank", HOURS, "");
    plan.files = plan.files.with_file("stage/holidays.txt", HOLIDAYS.as_bytes());
    (plan.start(), hand)
}

#[test]
fn a_closed_provider_is_not_called_and_says_when_it_opens() {
    let sim = bank(Bank::OAuth2);
    let (stage, hand) = stage(&sim, "2026-12-04T20:00:00+07:00");
    converse(async {
        let closed = stage.client.send(get("/bank/echo/x", KEY)).await;
        assert_eq!((closed.status, closed.error().as_str()), (503, "provider-closed"));
        assert_eq!(closed.header("retry-after"), "302400", "Friday evening to Tuesday morning: Monday is a holiday");
        assert_eq!((sim.token_calls(), sim.resource_calls()), (0, 0));
        assert_eq!(
            stage.client.send(get("/bank/echo/x", "wrong")).await.status,
            401,
            "not before it is known who asks"
        );
        let providers = stage.admin("/api/v1/providers").await.json();
        let view = &providers["providers"][0];
        assert_eq!((view["state"].as_str(), view["hours"]["open"].as_bool()), (Some("closed"), Some(false)));
        assert_eq!(view["closed_until"], "2026-12-08T01:00:00.000Z");
        assert_eq!(view["hours"]["changes_at"], "2026-12-08T01:00:00.000Z");

        hand.advance(Duration::from_millis(302_399_500));
        let closed = stage.client.send(get("/bank/echo/x", KEY)).await;
        assert_eq!(closed.header("retry-after"), "1", "rounded up");
        hand.advance(Duration::from_millis(500));
        assert_eq!(stage.client.send(get("/bank/echo/x", KEY)).await.status, 200);
        assert_eq!((sim.token_calls(), sim.resource_calls()), (1, 1));
        let view = &stage.admin("/api/v1/providers").await.json()["providers"][0];
        assert_eq!((view["state"].as_str(), view["hours"]["open"].as_bool()), (Some("live"), Some(true)));
    });
    // Lines of different workers are in no strict order.
    let told: Vec<_> = stage.stop().iter().map(|line| line["error.type"].clone()).collect();
    assert_eq!(told.iter().filter(|error| **error == "provider-closed").count(), 2, "{told:?}");
}

#[test]
fn a_call_that_is_under_way_at_the_closing_goes_on() {
    let sim = bank(Bank::OAuth2);
    let (stage, hand) = stage(&sim, "2026-12-04T19:59:00+07:00");
    converse(async {
        assert_eq!(stage.client.send(get("/bank/echo/x", KEY)).await.status, 200);
        let slow = SimFault { delay: Some(Duration::from_millis(500)), ..SimFault::default() };
        sim.change(|faults| faults.resource = slow);
        let (under_way, late) = tokio::join!(stage.client.send(get("/bank/echo/x", KEY)), async {
            while sim.resource_calls() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            hand.advance(Duration::from_secs(60));
            stage.client.send(get("/bank/echo/x", KEY)).await
        });
        assert_eq!((under_way.status, late.status), (200, 503));
        assert_eq!(sim.resource_calls(), 2);
    });
}

#[test]
fn a_reload_takes_a_new_calendar() {
    let sim = bank(Bank::OAuth2);
    let (stage, _) = stage(&sim, "2026-12-07T12:00:00+07:00");
    converse(async {
        assert_eq!(stage.client.send(get("/bank/echo/x", KEY)).await.status, 503);
        stage.papers.put("holidays.txt", "2027-01-01\n");
        assert_eq!(stage.admin_post("/api/v1/reload", "").await.status, 200);
        assert_eq!(stage.client.send(get("/bank/echo/x", KEY)).await.status, 200);
    });
}

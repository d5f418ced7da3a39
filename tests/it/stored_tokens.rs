//! Application tokens that outlive the process.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::sim::{Bank, ResponseFault, SimFault, SimHandle};

use crate::client::{converse, get};
use crate::harness::{Harness, KEY, Plan, bank};

/// A proxy with a store in this folder.
fn start(sim: &SimHandle, folder: &Path, key: u8) -> Harness {
    let mut plan = Plan::default().with(sim, "meed", "", "");
    plan.config += &format!(
        "[store]\nurl = \"file:{}\"\nkeys = [\"{}\"]\n",
        folder.join("tokens.redb").display(),
        STANDARD.encode([key; 32])
    );
    plan.start()
}

#[test]
fn a_restart_fetches_nothing_and_a_refused_token_does_not_come_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let sim = bank(Bank::Meed);
    let call = |stage: &Harness| {
        let client = stage.client.clone();
        converse(async move { client.send(get("/meed/echo/x", KEY)).await.status })
    };
    for _ in 0..2 {
        let stage = start(&sim, folder.path(), 7);
        assert_eq!(call(&stage), 200);
        assert_eq!(sim.token_calls(), 1, "the second life found the first one's token");
        stage.stop();
    }
    // While nobody runs, the bank forgets it.
    sim.revoke_all();
    let stage = start(&sim, folder.path(), 7);
    assert_eq!(call(&stage), 200, "an adopted token that is refused is replayed with a new one");
    assert_eq!((sim.token_calls(), sim.resource_calls()), (2, 4));
    let leases = stage.running.leases.clone();
    converse(async {
        let key = leases.ledger().await.lines.first().expect("a key").key;
        assert!(leases.purge(key).await);
    });
    stage.stop();
    // What was purged is gone from the store, too; what another key sealed is not believed.
    for (key, expected) in [(7, 3), (8, 4), (8, 4)] {
        let stage = start(&sim, folder.path(), key);
        assert_eq!(call(&stage), 200);
        assert_eq!(sim.token_calls(), expected, "key {key}");
        stage.stop();
    }
    assert_eq!(sim.violations(), Vec::<String>::new());
}

/// The bank refuses the stored token, and has no other.
#[test]
fn a_token_that_was_refused_is_not_found_by_the_next_life() {
    let folder = tempfile::tempdir().expect("a folder");
    let sim = bank(Bank::Meed);
    let call = |stage: &Harness| {
        let client = stage.client.clone();
        converse(async move { client.send(get("/meed/echo/x", KEY)).await.status })
    };
    let stage = start(&sim, folder.path(), 7);
    assert_eq!(call(&stage), 200);
    sim.revoke_all();
    sim.change(|faults| faults.token = SimFault::new(ResponseFault::HtmlError(503)));
    assert_eq!(call(&stage), 503, "no replay without a token");
    let calls = sim.resource_calls();
    stage.stop();
    let stage = start(&sim, folder.path(), 7);
    assert_eq!(call(&stage), 503);
    assert_eq!(sim.resource_calls(), calls, "what was refused is not sent again");
    sim.change(|faults| faults.token = SimFault::default());
    stage.forgive();
    assert_eq!(call(&stage), 200);
    stage.stop();
}

#[test]
fn what_lies_in_the_file_shows_no_token() {
    use countersign::base::secret::ExposeSecret as _;
    let folder = tempfile::tempdir().expect("a folder");
    let sim = bank(Bank::Meed);
    let stage = start(&sim, folder.path(), 7);
    converse(async { assert_eq!(stage.client.send(get("/meed/echo/x", KEY)).await.status, 200) });
    stage.stop();
    let bytes = std::fs::read(folder.path().join("tokens.redb")).expect("the file");
    assert!(bytes.len() > 100);
    for token in sim.issued() {
        let token = token.expose_secret().as_bytes().to_vec();
        assert!(!bytes.windows(token.len()).any(|window| window == token), "a token is in the clear");
    }
}

//! Credentials that change at the bank while calls go on: the next ones stand ready, are tried once on a refusal, and
//! promoted.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use countersign::base::secret::ExposeSecret;
use countersign::control::{LedgerLine, ReloadOutcome};
use countersign::sim::{Bank, LeafSpec, Sim, SimAuthority, SimHandle, SimOptions};
use countersign::token::state::PhaseKind;
use http_body_util::Full;

use crate::client::{Whole, converse, get, post};
use crate::harness::{Harness, KEY, Plan, bank, now};

const SECOND: &str = "the-second-secret-0123456789abcdef";
const THIRD: &str = "the-third-secret-0123456789abcdef0";

/// The name of the secret among a bank's settings.
fn setting(kind: Bank) -> &'static str {
    match kind {
        Bank::Scb => "application_secret",
        _ => "client_secret",
    }
}

/// The lines of a provider's next secret, as they end the provider's table.
fn next(kind: Bank, secret: &str) -> String {
    format!("next = {{ {} = \"{secret}\" }}", setting(kind))
}

async fn reload(stage: &Harness) {
    let outcome = stage.running.reloads.reload("test").await.expect("an answer").outcome;
    assert!(matches!(outcome, ReloadOutcome::Applied(_)), "{outcome:?}");
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..400 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("in ten seconds: {what}");
}

/// The slot of a provider's credentials that calls use, as the admin API tells it.
async fn slot(stage: &Harness, name: &str) -> String {
    let told: serde_json::Value = serde_json::from_slice(&stage.admin("/api/v1/providers").await.body).expect("JSON");
    let providers = told["providers"].as_array().expect("a list");
    let provider = providers.iter().find(|provider| provider["name"] == name).expect("the provider");
    provider["credentials"].as_str().unwrap_or("").to_owned()
}

/// The metric of promotions to this slot.
async fn metric(stage: &Harness, slot: &str) -> String {
    let metrics = stage.admin("/metrics").await;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let counts = |line: &&str| {
        line.starts_with("countersign_credential_promotions_total") && line.contains(&format!("\"{slot}\""))
    };
    text.lines().find(counts).unwrap_or("").to_owned()
}

fn first_secret(sim: &SimHandle) -> String {
    sim.credentials().secret().expose_secret().to_owned()
}

#[test]
fn a_refused_secret_is_followed_by_the_next_one_and_the_call_succeeds() {
    for kind in [Bank::Meed, Bank::Scb, Bank::Rakbank, Bank::OAuth2] {
        let (sim, name) = (bank(kind), kind.name());
        let first = first_secret(&sim);
        sim.rotate_secrets(&[&first]);
        let stage = Plan::default().with(&sim, name, &next(kind, SECOND), "").start();
        let path = format!("/{name}/echo/pay");
        converse(async {
            assert_eq!(stage.client.send(get(&path, KEY)).await.status, 200);
            assert_eq!((sim.token_calls(), &*slot(&stage, name).await), (1, "current"));
            // The bank changes, and takes the old tokens back.
            sim.rotate_secrets(&[SECOND]);
            sim.revoke_all();
            let answer = stage.client.send(post(&path, KEY, "{\"amount\":1}")).await;
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            assert_eq!(sim.token_calls(), 3, "{name}: one of each secret");
            assert_eq!(slot(&stage, name).await, "next");
            assert_eq!(
                metric(&stage, "next").await,
                format!("countersign_credential_promotions_total{{provider=\"{name}\",credentials=\"next\"}} 1"),
            );
            let page = stage.admin("/api/v1/status").await;
            assert!(!String::from_utf8_lossy(&page.body).contains(SECOND));
            for _ in 0..3 {
                assert_eq!(stage.client.send(get(&path, KEY)).await.status, 200);
            }
            assert_eq!(sim.token_calls(), 3, "{name}: the secret that was refused is not tried again");
            // The operator writes what has become true. The token is known by its secret, wherever that stands.
            stage.papers.edit(|config| config.replace(&next(kind, SECOND), "").replace(&first, SECOND));
            reload(&stage).await;
            assert_eq!(stage.client.send(post(&path, KEY, "{\"amount\":2}")).await.status, 200);
            assert_eq!((sim.token_calls(), &*slot(&stage, name).await), (3, ""), "{name}");
        });
        assert_eq!(sim.violations(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_bank_that_goes_back_is_followed_and_one_that_accepts_neither_is_not_asked_for_ever() {
    let sim = bank(Bank::Meed);
    let first = first_secret(&sim);
    let stage = Plan::default().with(&sim, "meed", &next(Bank::Meed, SECOND), "").start();
    converse(async {
        let change = |accepted: &[&str]| {
            sim.rotate_secrets(accepted);
            sim.revoke_all();
        };
        let call = async || stage.client.send(post("/meed/echo/pay", KEY, "{}")).await;
        for (accepted, in_use) in [(SECOND, "next"), (&*first, "current"), (SECOND, "next"), (&*first, "current")] {
            change(&[accepted]);
            assert_eq!(call().await.status, 200, "{accepted}");
            assert_eq!(slot(&stage, "meed").await, in_use);
        }
        change(&[THIRD]);
        let calls = sim.token_calls();
        for _ in 0..5 {
            assert_eq!(call().await.error(), "provider-credentials-rejected");
        }
        assert_eq!(sim.token_calls(), calls + 2, "each once, then both rest");
        // What is right again after a reload is tried at once.
        stage.papers.edit(|config| config.replace(SECOND, THIRD));
        reload(&stage).await;
        assert_eq!(call().await.status, 200);
        assert_eq!(slot(&stage, "meed").await, "next");
    });
    assert_eq!(sim.violations(), Vec::<String>::new());
}

#[test]
fn a_reload_that_leaves_the_credentials_alone_keeps_what_was_promoted() {
    let sim = bank(Bank::Meed);
    sim.rotate_secrets(&[SECOND]);
    let stage = Plan::default().with(&sim, "fx", &next(Bank::Meed, SECOND), "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/fx/echo/a", KEY)).await.status, 200, "from the first call on");
        let calls = sim.token_calls();
        stage.papers.edit(|config| config.to_owned() + "[log]\nlevel = \"warn\"\n");
        reload(&stage).await;
        assert_eq!(slot(&stage, "fx").await, "next");
        assert_eq!(stage.client.send(get("/fx/echo/a", KEY)).await.status, 200);
        assert_eq!(sim.token_calls(), calls);
    });
}

/// A renewal comes before the end of the token: the change is known, and made, before any call waits for it.
#[test]
fn a_refused_renewal_tries_the_next_secret_while_the_old_token_serves() {
    let sim = bank(Bank::OAuth2);
    let first = first_secret(&sim);
    sim.change(|faults| faults.issue.life = Some(Duration::from_secs(4)));
    let stage = Plan::default().with(&sim, "plain", &next(Bank::OAuth2, SECOND), "").start();
    converse(async {
        sim.rotate_secrets(&[&first]);
        assert_eq!(stage.client.send(get("/plain/echo/a", KEY)).await.status, 200);
        sim.rotate_secrets(&[SECOND]);
        until("the next secret is promoted", async || {
            // A token is renewed only if it is used.
            stage.client.send(get("/plain/echo/a", KEY)).await.status == 200 && slot(&stage, "plain").await == "next"
        })
        .await;
        assert_eq!(stage.client.send(post("/plain/echo/a", KEY, "{}")).await.status, 200);
    });
    assert_eq!(sim.violations(), Vec::<String>::new());
}

/// The bank's handshake refuses a certificate of a CA that it no longer trusts.
#[test]
fn a_refused_certificate_is_followed_by_the_next_one() {
    for only_http1 in [false, true] {
        refuse_certificate(only_http1);
    }
}

fn refuse_certificate(only_http1: bool) {
    let now = now();
    let (old, new) = (SimAuthority::new("old CA", now).expect("a CA"), SimAuthority::new("new CA", now).expect("a CA"));
    let sim = Sim::start(Bank::OAuth2, SimOptions { client_ca: Some(new.pem()), only_http1, ..SimOptions::default() })
        .expect("started");
    let leaf = |authority: &SimAuthority| authority.issue(&LeafSpec::client("erp", now)).expect("a certificate");
    let (current, following) = (leaf(&old), leaf(&new));
    let mut plan = Plan::default().with(
        &sim,
        "plain",
        "next = { tls = { client_cert = \"next.crt\", client_key = \"next.key\" } }",
        "",
    );
    plan.config = plan.config.replace(
        "tls = { ca = \"plain-ca.crt\" }",
        "tls = { ca = \"plain-ca.crt\", client_cert = \"own.crt\", client_key = \"own.key\" }",
    );
    for (name, leaf) in [("own", current), ("next", following)] {
        plan.files = plan
            .files
            .with_file(format!("stage/{name}.crt"), leaf.cert_pem.into_bytes())
            .with_file(format!("stage/{name}.key"), leaf.key_pem.into_bytes());
    }
    let stage = plan.start();
    converse(async {
        let answer = stage.client.send(post("/plain/echo/a", KEY, "{}")).await;
        let told = stage.admin("/api/v1/providers").await;
        assert_eq!(answer.status, 200, "{answer:?} {told:?}");
        assert_eq!(slot(&stage, "plain").await, "next");
    });
}

/// Bank and operator change secrets at random while eight clients call: only the order is bound, by which at least one
/// secret of the config is one that the bank accepts.
#[test]
fn rotations_at_random_under_load_fail_no_call() {
    let sim = bank(Bank::Meed);
    let first = first_secret(&sim);
    let names = [first.clone(), SECOND.to_owned(), THIRD.to_owned()];
    sim.rotate_secrets(&[&first]);
    let stage = Plan::default().with(&sim, "meed", "", "").start();
    let (going, failures, answers) =
        (Rc::new(Cell::new(true)), Rc::new(RefCell::new(Vec::new())), [const { Cell::new(0_u32) }; 8]);
    let promotions = RefCell::new(String::new());
    let history = RefCell::new(Vec::new());
    converse(async {
        let callers = answers.iter().map(|answers| {
            let (going, failures, stage) = (going.clone(), failures.clone(), &stage);
            async move {
                let mut line = stage.client.http1::<Full<Bytes>>().await;
                while going.get() {
                    let answer = async {
                        line.ready().await.map_err(|error| error.to_string())?;
                        let answer = line.send_request(post("/meed/echo/pay", KEY, "{\"amount\":1}")).await;
                        let answer = Whole::read(answer.map_err(|error| error.to_string())?).await;
                        let answer = answer.map_err(|error| error.to_string())?;
                        if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
                    };
                    match answer.await {
                        Ok(()) => answers.set(answers.get() + 1),
                        Err(error) => failures.borrow_mut().push(error),
                    }
                }
            }
        });
        let rotating = async {
            let base = Cell::new(String::new());
            stage.papers.edit(|config| {
                base.set(config.to_owned());
                config.to_owned()
            });
            let base = base.take();
            let mut dice = Dice(0x2545_f491_4f6c_dd1d);
            // Which secrets the bank accepts; the config's current and next one.
            let (mut accepted, mut current, mut following) = (vec![0_usize], 0_usize, None::<usize>);
            for _ in 0..150 {
                if !failures.borrow().is_empty() {
                    break;
                }
                match dice.roll(3) {
                    // The bank accepts one more, or one less; what it takes back ends the tokens, too.
                    0 => {
                        let secret = dice.roll(3);
                        let mut wish = accepted.clone();
                        match wish.iter().position(|known| *known == secret) {
                            Some(at) => drop(wish.remove(at)),
                            None => wish.push(secret),
                        }
                        if wish.contains(&current) || following.is_some_and(|next| wish.contains(&next)) {
                            accepted = wish;
                            sim.rotate_secrets(&accepted.iter().map(|at| names[*at].as_str()).collect::<Vec<_>>());
                        }
                    }
                    1 => {
                        sim.revoke_all();
                        history.borrow_mut().push((Vec::new(), 9, None));
                    }
                    // The operator writes another pair.
                    _ => {
                        let wish = (dice.roll(3), Some(dice.roll(3)).filter(|_| dice.roll(4) > 0));
                        let works = |secret: usize| accepted.contains(&secret);
                        if wish.1 != Some(wish.0) && (works(wish.0) || wish.1.is_some_and(works)) {
                            (current, following) = wish;
                            let lines = following.map_or(String::new(), |at| next(Bank::Meed, &names[at]));
                            let written = format!("client_secret = \"{}\"\n{lines}\n", names[current]);
                            let old = format!("client_secret = \"{first}\"\n");
                            stage.papers.edit(|_| base.replace(&old, &written));
                            reload(&stage).await;
                        }
                    }
                }
                history.borrow_mut().push((accepted.clone(), current, following));
                // A token is not taken back before it was used.
                let generations = async || {
                    let lines = stage.running.leases.ledger().await.lines;
                    let is_fetched =
                        |line: &LedgerLine| matches!(line.phase, PhaseKind::Fetching | PhaseKind::Renewing);
                    (!lines.iter().any(is_fetched))
                        .then(|| lines.iter().filter_map(|line| Some(line.token.as_ref()?.generation)).sum::<u64>())
                };
                let mut known = None;
                loop {
                    // A call meets one change at most: each client has begun another one and ended it.
                    let before: Vec<u32> = answers.iter().map(Cell::get).collect();
                    while answers.iter().zip(&before).any(|(now, before)| now.get() < before + 2)
                        && failures.borrow().is_empty()
                    {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    let now = generations().await;
                    if !failures.borrow().is_empty() || now.is_some() && now == known {
                        break;
                    }
                    known = now;
                }
            }
            promotions.replace(metric(&stage, "next").await);
            going.set(false);
        };
        tokio::join!(futures_util::future::join_all(callers), rotating);
    });
    let calls: u32 = answers.iter().map(Cell::get).sum();
    let history = history.into_inner();
    let last = &history[history.len().saturating_sub(12)..];
    assert!(failures.borrow().is_empty(), "{:?}, of {} calls, after {last:?}", failures.borrow().first(), calls);
    assert!(calls > 1000, "{calls} calls");
    assert!(!promotions.borrow().ends_with(" 0"), "nothing was ever promoted");
    assert_eq!(sim.violations(), Vec::<String>::new());
}

/// Numbers that look random, the same in every run (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides).unwrap_or(0)
    }
}

//! The keeper with a bank on a string and a clock in the hand: nothing here waits for real time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local, yield_now};

use super::*;
use crate::base::calendar::{Calendar, OpeningRule, Zone};
use crate::base::secret::Fingerprint;
use crate::base::time::{Deadline, ManualClock};
use crate::base::working_hours::WorkingHours;
use crate::control::{
    FetchContext, FetchCounts, FetchProcedure, Issued, LedgerFailure, LedgerRest, LedgerToken, TokenSearch,
};
use crate::token::grant::CallPlace;
use crate::token::key::KeyBuilder;

const LIFE: Duration = Duration::from_secs(1800);

/// The bank's behaviour on the next call. Without a script it returns a token at once.
enum Call {
    Fail(Failure),
    Gate(Arc<Notify>),
    Hang,
    Panic,
}

#[derive(Default)]
struct Bank {
    manual: Arc<ManualClock>,
    calls: AtomicUsize,
    /// Calls whose future is alive: an abandoned one must be dropped.
    alive: Arc<()>,
    script: Mutex<VecDeque<Call>>,
    hours: Option<WorkingHours>,
}

impl Bank {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn alive(&self) -> usize {
        Arc::strong_count(&self.alive) - 1
    }

    fn next(&self, call: Call) {
        self.script.lock().expect("one thread").push_back(call);
    }
}

struct ScriptedSource {
    bank: Arc<Bank>,
    account: &'static str,
}

/// The key of the record of an account's token.
fn record(account: &str) -> TokenKey {
    KeyBuilder::new(account).finish()
}

impl FetchProcedure for ScriptedSource {
    fn record(&self) -> Option<TokenKey> {
        Some(record(self.account))
    }

    fn hours(&self) -> Option<&WorkingHours> {
        self.bank.hours.as_ref()
    }

    fn fetch(&self, _: FetchContext) -> Pin<Box<dyn Future<Output = Result<Fetched, Failure>>>> {
        let call = self.bank.script.lock().expect("one thread").pop_front();
        let number = self.bank.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let (bank, account, alive) = (Arc::clone(&self.bank), self.account, Arc::clone(&self.bank.alive));
        Box::pin(async move {
            let _alive = alive;
            match call {
                Some(Call::Fail(failure)) => return Err(failure),
                Some(Call::Gate(gate)) => gate.notified().await,
                Some(Call::Hang) => std::future::pending().await,
                Some(Call::Panic) => panic!("a bug of ours"),
                None => {}
            }
            let mut value = http::HeaderValue::from_str(&format!("Bearer {account}-{number}")).expect("ASCII");
            value.set_sensitive(true);
            Ok(Fetched {
                adopted: false,
                record: 0,
                young: true,
                issued: bank.manual.now(),
                expires: Deadline::after(bank.manual.now(), LIFE),
                credentials: Box::new([(CallPlace::Header(http::header::AUTHORIZATION), value)]),
                fingerprint: Fingerprint::of(format!("{account}-{number}").as_bytes()),
            })
        })
    }
}

/// The record of one fetch as an observer receives it: provider, outcome and duration.
type Note = (String, Result<(), Class>, Duration);

/// Writes down what an observer is told.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<Note>>>);

impl Observer for Notes {
    fn fetched(&self, provider: &str, outcome: Result<(), Class>, took: Duration) {
        self.0.lock().expect("one thread").push((provider.to_owned(), outcome, took));
    }
}

/// The key of the module of an account.
fn module(account: &str) -> TokenKey {
    let mut key = KeyBuilder::new("module");
    key.field("account", account.as_bytes());
    key.finish()
}

/// The modules of a config that has these accounts.
fn in_force(accounts: &[&str]) -> KeyMap<()> {
    accounts.iter().map(|account| (module(account), ())).collect()
}

struct KeeperHarness {
    bank: Arc<Bank>,
    manual: Arc<ManualClock>,
    leases: TokenHandle,
    notes: Notes,
}

impl KeeperHarness {
    fn spec(&self, account: &'static str) -> Arc<TokenSpec> {
        let mut key = KeyBuilder::new("bank");
        key.field("account", account.as_bytes());
        Arc::new(TokenSpec {
            key: key.finish(),
            module: Some(module(account)),
            serial: 0,
            provider: "bank".into(),
            refresh_before: Duration::from_secs(60),
            fetch_timeout: Duration::from_secs(10),
            procedure: Box::new(ScriptedSource { bank: Arc::clone(&self.bank), account }),
        })
    }

    async fn need(&self, account: &'static str) -> Result<Issued, Unavailable> {
        self.leases.need(self.spec(account)).await
    }

    async fn line(&self, account: &'static str) -> LedgerLine {
        self.leases.ledger().await.line(&self.spec(account).key).expect("a known key").clone()
    }

    /// Moves the clock and lets everything that follows from it happen.
    async fn pass(&self, seconds: u64) {
        self.manual.advance(Duration::from_secs(seconds));
        self.leases.tick().await;
        settle().await;
        self.leases.tick().await;
    }

    /// A lease of the account, live until its renewal is due, and then renewing as the script says.
    async fn due(&self, account: &'static str) -> Issued {
        let issued = self.need(account).await.expect("a token");
        self.pass(1740).await;
        issued
    }
}

/// Lets every task run until it waits for something.
async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

fn run<F: Future<Output = ()>>(limits: Limits, test: impl FnOnce(KeeperHarness) -> F) {
    run_with(limits, None, test);
}

/// The same with a bank that has hours.
fn run_with<F: Future<Output = ()>>(
    limits: Limits,
    hours: Option<WorkingHours>,
    test: impl FnOnce(KeeperHarness) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let manual = ManualClock::at(Now::at(1_000_000, 1_700_000_000_000));
    let notes = Notes::default();
    let (leases, mut keeper) = Keeper::new(Clock::Manual(Arc::clone(&manual)), limits, Box::new(notes.clone()));
    keeper.jitter = || 0;
    let bank = Arc::new(Bank { manual: Arc::clone(&manual), hours, ..Bank::default() });
    LocalSet::new().block_on(&runtime, async {
        spawn_local(keeper.run());
        // A watchdog, so that a lost answer fails a test instead of hanging it.
        let test = tokio::time::timeout(Duration::from_secs(60), test(KeeperHarness { bank, manual, leases, notes }));
        test.await.expect("everybody is answered");
    });
}

fn header(issued: &Issued) -> &str {
    issued.lease.credentials.first().expect("a header").1.to_str().expect("ASCII")
}

fn failure(class: Class) -> Call {
    Call::Fail(Failure::new(class, "because"))
}

#[test]
fn the_way_to_a_keeper_is_there_before_it_and_on_every_thread() {
    fn assert_send<T: Send>(_: &T) {}
    let (leases, inbox) = TokenHandle::open();
    assert_send(&inbox);
    assert_send(&leases);
}

#[test]
fn it_works_by_the_clock_of_the_machine_too() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let manual = ManualClock::at(Clock::System.now());
        let bank = Arc::new(Bank { manual: Arc::clone(&manual), ..Bank::default() });
        let leases = Keeper::start(Limits::default(), Box::new(()));
        let harness = KeeperHarness { bank, manual, leases, notes: Notes::default() };
        let issued = harness.need("a").await.expect("a token");
        assert!(issued.token_slot.take(Clock::System.now()).is_some());
        assert_eq!(harness.line("a").await.phase, PhaseKind::Live);
    });
}

/// T26
#[test]
fn a_thousand_concurrent_needs_cause_exactly_one_fetch() {
    run(Limits::default(), |harness| async move {
        let gate = Arc::new(Notify::new());
        harness.bank.next(Call::Gate(Arc::clone(&gate)));
        let spec = harness.spec("a");
        let waiting: Vec<_> = (0..1000)
            .map(|_| {
                let (leases, spec) = (harness.leases.clone(), Arc::clone(&spec));
                spawn_local(async move { leases.need(spec).await.expect("a token").lease.generation })
            })
            .collect();
        settle().await;
        assert_eq!(harness.line("a").await.waiters, 1000);
        gate.notify_one();
        for task in waiting {
            assert_eq!(task.await.expect("answered"), 1);
        }
        assert_eq!(harness.bank.calls(), 1);
    });
}

#[test]
fn a_revocation_during_a_fetch_takes_what_it_brings_out_of_use() {
    run(Limits::default(), |harness| async move {
        let gate = Arc::new(Notify::new());
        harness.bank.next(Call::Gate(Arc::clone(&gate)));
        let spec = harness.spec("a");
        let (leases, key) = (harness.leases.clone(), record("a"));
        let waiting = spawn_local(async move { leases.need(spec).await });
        settle().await;
        harness.leases.record_changed(key, None).await;
        gate.notify_one();
        let Err(denied) = waiting.await.expect("answered") else { panic!("what it read may be what was revoked") };
        assert_eq!(denied.class, Class::Consent);
        settle().await;
        harness.need("a").await.expect("the user has consented anew");
        // A record that is newer than what is known is fetched; one that is not, is not.
        let calls = harness.bank.calls();
        harness.leases.record_changed(key, Some(0)).await;
        settle().await;
        assert_eq!(harness.bank.calls(), calls);
        harness.leases.record_changed(key, Some(1)).await;
        settle().await;
        assert_eq!(harness.bank.calls(), calls + 1);
    });
}

/// T26
#[test]
fn a_thousand_concurrent_refusals_of_one_generation_cause_exactly_one_fetch() {
    run(Limits::default(), |harness| async move {
        let first = harness.need("a").await.expect("a token");
        harness.pass(4).await;
        let gate = Arc::new(Notify::new());
        harness.bank.next(Call::Gate(Arc::clone(&gate)));
        let spec = harness.spec("a");
        let refuse = || {
            let (leases, spec) = (harness.leases.clone(), Arc::clone(&spec));
            spawn_local(async move { leases.refused(spec, 1).await.expect("a newer token").lease.generation })
        };
        let mut waiting: Vec<_> = (0..500).map(|_| refuse()).collect();
        settle().await;
        assert!(first.token_slot.take(harness.manual.now()).is_none(), "withdrawn at once");
        gate.notify_one();
        settle().await;
        waiting.extend((0..500).map(|_| refuse()));
        for task in waiting {
            assert_eq!(task.await.expect("answered"), 2);
        }
        assert_eq!(harness.bank.calls(), 2);
        assert_eq!(first.token_slot.take(harness.manual.now()).map(|lease| lease.generation), Some(2), "same shelf");
    });
}

/// T30
#[test]
fn a_caller_who_hangs_up_cancels_nobodys_wait() {
    run(Limits::default(), |harness| async move {
        let gate = Arc::new(Notify::new());
        harness.bank.next(Call::Gate(Arc::clone(&gate)));
        let (leases, spec) = (harness.leases.clone(), harness.spec("a"));
        let leader = spawn_local(async move { leases.need(spec).await });
        settle().await;
        let (leases, spec) = (harness.leases.clone(), harness.spec("a"));
        let follower = spawn_local(async move { leases.need(spec).await });
        settle().await;
        leader.abort();
        settle().await;
        gate.notify_one();
        assert_eq!(follower.await.expect("not cancelled").expect("a token").lease.generation, 1);
        assert_eq!(harness.bank.calls(), 1);
    });
}

#[test]
fn a_fetch_that_everybody_left_still_completes() {
    run(Limits::default(), |harness| async move {
        let gate = Arc::new(Notify::new());
        harness.bank.next(Call::Gate(Arc::clone(&gate)));
        let (leases, spec) = (harness.leases.clone(), harness.spec("a"));
        let leader = spawn_local(async move { leases.need(spec).await });
        settle().await;
        leader.abort();
        gate.notify_one();
        settle().await;
        assert_eq!(harness.line("a").await.phase, PhaseKind::Live);
        harness.need("a").await.expect("the token of the one who left");
        assert_eq!(harness.bank.calls(), 1);
    });
}

/// T28
#[test]
fn a_hung_fetch_ends_by_its_deadline() {
    run(Limits::default(), |harness| async move {
        harness.bank.next(Call::Hang);
        let (leases, spec) = (harness.leases.clone(), harness.spec("a"));
        let waiting = spawn_local(async move { leases.need(spec).await });
        settle().await;
        harness.pass(9).await;
        assert!(!waiting.is_finished());
        harness.pass(1).await;
        let error = waiting.await.expect("answered").expect_err("no token");
        assert_eq!((error.class, error.retry_after), (Class::Transient, Duration::from_secs(1)));
        assert_eq!(harness.bank.alive(), 0, "the hung task is gone");
        harness.pass(1).await;
        harness.need("a").await.expect("and the key works again");
        let told = harness.notes.0.lock().expect("one thread").clone();
        assert_eq!(
            told,
            [
                ("bank".to_owned(), Err(Class::Transient), Duration::from_secs(10)),
                ("bank".to_owned(), Ok(()), Duration::ZERO)
            ]
        );
    });
}

#[test]
fn a_fetch_that_panics_has_failed() {
    run(Limits::default(), |harness| async move {
        harness.bank.next(Call::Panic);
        let error = harness.need("a").await.expect_err("no token");
        assert_eq!(error.class, Class::Transient);
        harness.pass(1).await;
        harness.need("a").await.expect("and the key works again");
    });
}

/// T27
#[test]
fn a_failed_renewal_keeps_the_old_token_until_it_expires() {
    run(Limits::default(), |harness| async move {
        let first = harness.need("a").await.expect("a token");
        for _ in 0..60 {
            harness.bank.next(failure(Class::Transient));
        }
        harness.pass(1740).await;
        let line = harness.line("a").await;
        assert_eq!((line.phase, line.failures), (PhaseKind::Holding, 1));
        for _ in 0..59 {
            harness.pass(1).await;
            assert_eq!(first.token_slot.take(harness.manual.now()).map(|lease| lease.generation), Some(1));
        }
        let probes = harness.bank.calls();
        assert!(probes <= 8, "few probes: {probes}");
        harness.pass(1).await;
        assert!(first.token_slot.take(harness.manual.now()).is_none(), "expired");
        let error = harness.need("a").await.expect_err("nothing to give");
        assert_eq!(error.class, Class::Transient);
    });
}

#[test]
fn a_used_token_is_renewed_in_the_background_and_an_unused_one_is_not() {
    run(Limits::default(), |harness| async move {
        let first = harness.due("a").await;
        assert_eq!(harness.bank.calls(), 2, "the need that fetched it was a use");
        assert_eq!(first.token_slot.take(harness.manual.now()).map(|lease| lease.generation), Some(2));
        harness.pass(1740).await;
        assert_eq!(harness.bank.calls(), 3, "that take was a use");
        for _ in 0..1800 {
            harness.pass(10).await;
        }
        assert_eq!(harness.bank.calls(), 3, "nobody used the third");
        assert!(first.token_slot.retired(), "and after hours the key is forgotten");
        let again = harness.need("a").await.expect("a token");
        assert_eq!(again.lease.generation, 4, "generations go on where they stopped");
    });
}

#[test]
fn rests_are_answered_at_once_with_the_time_left() {
    for (class, pause) in [(Class::Fatal, 300), (Class::Closed, 300), (Class::RateLimited, 30), (Class::Transient, 1)] {
        run(Limits::default(), |harness| async move {
            harness.bank.next(failure(class));
            let error = harness.need("a").await.expect_err("no token");
            assert_eq!((error.class, error.retry_after), (class, Duration::from_secs(pause)));
            assert_eq!(&*error.inside, "because");
            if pause > 1 {
                harness.pass(pause - 1).await;
                let error = harness.need("a").await.expect_err("resting");
                assert_eq!((error.class, error.retry_after), (class, Duration::from_secs(1)));
            }
            assert_eq!(harness.bank.calls(), 1);
            harness.pass(1).await;
            harness.need("a").await.expect("a token");
        });
    }
}

#[test]
fn a_token_refused_at_birth_rests() {
    run(Limits::default(), |harness| async move {
        let first = harness.need("a").await.expect("a token");
        harness.pass(4).await;
        harness.leases.refused_at_birth(harness.spec("a"), 1);
        let error = harness.need("a").await.expect_err("resting");
        assert_eq!((error.class, error.retry_after), (Class::Transient, Duration::from_secs(1)));
        assert!(first.token_slot.take(harness.manual.now()).is_none());
        assert_eq!(harness.bank.calls(), 1);
    });
}

#[test]
fn a_token_that_was_taken_out_of_use_stays_so_when_another_one_comes() {
    run(Limits::default(), |harness| async move {
        let first = harness.need("a").await.expect("a token");
        harness.leases.suspect(harness.spec("a"), 1);
        settle().await;
        harness.pass(1).await;
        // The second is refused in its first moments; the first serves meanwhile, as a generation of its own.
        harness.leases.withdrawn(harness.spec("a"), 2, false);
        settle().await;
        let again = first.token_slot.take(harness.manual.now()).expect("a token");
        assert_eq!((again.generation, again.fingerprint), (3, first.lease.fingerprint));
        assert!(first.token_slot.bears(3));
        // A late answer refuses it by its first generation, and the second gets its second trial.
        let news = harness.leases.refused(harness.spec("a"), 1);
        harness.pass(5).await;
        assert!(news.await.expect("a token").lease.generation > 3);
        assert!(!first.token_slot.bears(3), "no request that holds it may send it");
    });
}

#[test]
fn news_that_nobody_waits_out_renews_in_the_background() {
    run(Limits::default(), |harness| async move {
        let first = harness.need("a").await.expect("a token");
        harness.leases.suspect(harness.spec("a"), 1);
        settle().await;
        assert_eq!(first.token_slot.take(harness.manual.now()).map(|lease| lease.generation), Some(2));
        harness.pass(5).await;
        harness.leases.withdrawn(harness.spec("a"), 2, false);
        settle().await;
        let next = first.token_slot.take(harness.manual.now()).expect("a token");
        assert_eq!((next.generation, harness.bank.calls()), (4, 3), "after the old one had served once more");
        harness.leases.withdrawn(harness.spec("b"), 1, false);
        settle().await;
        assert_eq!(harness.leases.ledger().await.lines.len(), 1, "news of an unknown key makes no key");
    });
}

#[test]
fn two_keys_never_mix() {
    run(Limits::default(), |harness| async move {
        let (gate_a, gate_b) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        harness.bank.next(Call::Gate(Arc::clone(&gate_a)));
        harness.bank.next(Call::Gate(Arc::clone(&gate_b)));
        let answers = RefCell::new(Vec::new());
        let ask = async |account| {
            let issued = harness.need(account).await.expect("a token");
            answers.borrow_mut().push((account, header(&issued).to_owned(), issued.lease.key));
        };
        let open = async {
            settle().await;
            gate_b.notify_one();
            settle().await;
            harness.pass(4).await;
            harness.leases.refused_at_birth(harness.spec("b"), 1);
            settle().await;
            gate_a.notify_one();
        };
        tokio::join!(ask("a"), ask("b"), open);
        let (key_a, key_b) = (harness.spec("a").key, harness.spec("b").key);
        assert_eq!(
            answers.into_inner(),
            [("b", "Bearer b-2".to_owned(), key_b), ("a", "Bearer a-1".to_owned(), key_a)]
        );
        assert_eq!(harness.line("a").await.phase, PhaseKind::Live);
        assert_eq!(harness.line("b").await.phase, PhaseKind::Resting);
    });
}

#[test]
fn the_least_recently_used_key_makes_room_and_its_shelf_is_retired() {
    run(Limits { keys: 2, ..Limits::default() }, |harness| async move {
        let a = harness.need("a").await.expect("a token");
        harness.pass(2).await;
        let b = harness.need("b").await.expect("a token");
        harness.pass(2).await;
        assert!(a.token_slot.take(harness.manual.now()).is_some(), "used on the shelf alone");
        let c = harness.need("c").await.expect("a token");
        assert!(b.token_slot.retired() && b.token_slot.take(harness.manual.now()).is_none());
        assert!(!a.token_slot.retired() && !c.token_slot.retired());
        assert_eq!(harness.leases.ledger().await.lines.len(), 2);
        harness.leases.refused_at_birth(harness.spec("b"), 1);
        harness.pass(2).await;
        let b = harness.need("b").await.expect("a token");
        assert!(b.lease.generation > 1, "not the number of its former life");
    });
}

#[test]
fn the_oldest_go_first_although_they_are_looked_for_once_in_a_while() {
    run(Limits { keys: 64, ..Limits::default() }, |harness| async move {
        let names: Vec<&'static str> = (0..80).map(|number: u8| &*Box::leak(number.to_string().into())).collect();
        let mut issued = Vec::new();
        for name in &names[..64] {
            issued.push(harness.need(name).await.expect("a token"));
            harness.pass(1).await;
        }
        // One more, and the four oldest are known; two of those are then used again.
        harness.need(names[64]).await.expect("a token");
        assert!(issued[0].token_slot.retired());
        for again in [1, 3] {
            assert!(issued[again].token_slot.take(harness.manual.now()).is_some());
        }
        harness.pass(1).await;
        for name in &names[65..70] {
            harness.need(name).await.expect("a token");
            harness.pass(1).await;
        }
        let gone: Vec<usize> = (0..64).filter(|number| issued[*number].token_slot.retired()).collect();
        assert_eq!(gone, [0, 2, 4, 5, 6, 7]);
        assert_eq!(harness.leases.ledger().await.lines.len(), 64);
    });
}

/// The accounts of a page, in its order, with the states of their tokens.
async fn page(harness: &KeeperHarness, query: TokenPageQuery) -> (TokenPage, Vec<(TokenKey, PhaseKind)>) {
    let page = harness.leases.page(query).await;
    let rows = page.rows.iter().map(|(line, _)| (line.key, line.state())).collect();
    (page, rows)
}

#[test]
fn failing_tokens_come_first_and_then_those_that_end_soonest() {
    run(Limits { keys: 6, ..Limits::default() }, |harness| async move {
        for account in ["early", "late", "renewing", "purged"] {
            harness.need(account).await.expect("a token");
            harness.pass(1).await;
        }
        harness.leases.purge(harness.spec("purged").key).await;
        harness.bank.next(Call::Hang);
        harness.leases.refresh(harness.spec("renewing").key).await;
        for (account, is_refreshed) in [("resting", false), ("holding", true)] {
            if is_refreshed {
                harness.need(account).await.expect("a token");
            }
            harness.bank.next(Call::Fail(Failure::new(Class::Transient, "no")));
            if is_refreshed {
                harness.leases.refresh(harness.spec(account).key).await;
                settle().await;
            } else {
                harness.need(account).await.expect_err("no token");
            }
        }
        let key = |account| harness.spec(account).key;
        let all = TokenPageQuery { search: None, number: 1, size: 10 };
        let (_, rows) = page(&harness, all.clone()).await;
        let wanted = [
            (key("holding"), PhaseKind::Holding),
            (key("resting"), PhaseKind::Resting),
            (key("early"), PhaseKind::Live),
            (key("late"), PhaseKind::Live),
            (key("renewing"), PhaseKind::Renewing),
            (key("purged"), PhaseKind::Empty),
        ];
        assert_eq!(rows, wanted);
        // What changes changes its place, and what makes room for another leaves none.
        harness.leases.refresh(key("holding")).await;
        settle().await;
        harness.need("new").await.expect("a token");
        let (page, rows) = page(&harness, all).await;
        assert_eq!(rows[0], (key("resting"), PhaseKind::Resting));
        assert_eq!(rows.iter().find(|(of, _)| *of == key("holding")).expect("a row").1, PhaseKind::Live);
        assert_eq!((rows.len(), page.found, page.all), (6, 6, 6));
        let known: KeyMap<PhaseKind> = rows.into_iter().collect();
        assert_eq!(known.len(), 6, "each once");
    });
}

#[test]
fn a_page_of_many_tokens_copies_its_own_rows_alone() {
    run(Limits::default(), |harness| async move {
        for number in 0..300_u16 {
            harness.need(Box::leak(number.to_string().into())).await.expect("a token");
        }
        let lines = || token_entry::LINES.with(|lines| lines.replace(0));
        let search = |text| TokenSearch::parse(text, PhaseKind::as_str);
        for (search, number, wanted) in [
            (None, 1, (50, 1, 6, 300)),
            (None, 6, (50, 6, 6, 300)),
            (None, usize::MAX, (50, 6, 6, 300)),
            (search("live"), 2, (50, 2, 6, 300)),
            (search("resting"), 2, (0, 1, 1, 0)),
            (search(&harness.spec("7").key.to_string()), 1, (1, 1, 1, 1)),
        ] {
            lines();
            let (page, rows) = page(&harness, TokenPageQuery { search, number, size: 50 }).await;
            assert_eq!((rows.len(), page.number, page.pages, page.found), wanted);
            assert_eq!(page.all, 300);
            assert_eq!(lines(), rows.len(), "no other row is copied");
        }
        let key = harness.spec("42").key;
        assert_eq!(harness.leases.line(&key.to_string()).await.map(|line| line.key), Some(key));
        assert_eq!(lines(), 1);
        let token = harness.leases.line(&key.to_string()).await.and_then(|line| line.token).expect("a token");
        lines();
        let sent = (token.fingerprint, token.generation);
        assert_eq!(harness.leases.key_of("bank".into(), sent).await, Some(key));
        assert_eq!(harness.leases.key_of("other".into(), sent).await, None);
        assert_eq!(lines(), 0);
        let summary = harness.leases.summary().await;
        let tokens = summary.get("bank").expect("a provider");
        assert_eq!((tokens.keys, tokens.live, tokens.fetches.ok), (300, 300, 300));
        assert!(tokens.has_any(&[PhaseKind::Resting, PhaseKind::Live]) && !tokens.has_any(&[PhaseKind::Empty]));
    });
}

#[test]
fn a_rest_that_people_run_into_is_not_forgotten() {
    run(Limits { keys: 2, ..Limits::default() }, |harness| async move {
        harness.bank.next(failure(Class::Fatal));
        harness.need("a").await.expect_err("no token");
        harness.pass(2).await;
        harness.need("b").await.expect("a token");
        harness.pass(2).await;
        harness.need("a").await.expect_err("resting");
        harness.need("c").await.expect("a token");
        harness.need("a").await.expect_err("still resting");
        assert_eq!(harness.bank.calls(), 3);
    });
}

#[test]
fn a_key_that_is_waited_for_is_never_evicted() {
    run(Limits { keys: 1, ..Limits::default() }, |harness| async move {
        let gate = Arc::new(Notify::new());
        harness.bank.next(Call::Gate(Arc::clone(&gate)));
        let (leases, spec) = (harness.leases.clone(), harness.spec("a"));
        let waiting = spawn_local(async move { leases.need(spec).await });
        settle().await;
        let error = harness.need("b").await.expect_err("no room");
        assert_eq!((error.class, error.retry_after), (Class::Transient, Duration::from_secs(1)));
        gate.notify_one();
        waiting.await.expect("answered").expect("a token");
        harness.need("b").await.expect("room now");
    });
}

#[test]
fn waiters_are_bounded_and_those_who_hung_up_do_not_count() {
    run(Limits { waiters: 2, ..Limits::default() }, |harness| async move {
        let gate = Arc::new(Notify::new());
        harness.bank.next(Call::Gate(Arc::clone(&gate)));
        let ask = || {
            let (leases, spec) = (harness.leases.clone(), harness.spec("a"));
            spawn_local(async move { leases.need(spec).await })
        };
        let (first, second) = (ask(), ask());
        settle().await;
        let error = harness.need("a").await.expect_err("one too many");
        assert_eq!((error.class, error.retry_after), (Class::Transient, Duration::from_secs(1)));
        second.abort();
        settle().await;
        let third = ask();
        settle().await;
        gate.notify_one();
        first.await.expect("answered").expect("a token");
        third.await.expect("answered").expect("a token");
    });
}

#[test]
fn the_operator_refreshes_purges_and_forgives() {
    run(Limits::default(), |harness| async move {
        let key = harness.spec("a").key;
        assert!(!harness.leases.refresh(key).await && !harness.leases.purge(key).await, "unknown");
        harness.bank.next(failure(Class::Fatal));
        harness.need("a").await.expect_err("no token");
        assert!(harness.leases.refresh(key).await);
        settle().await;
        let issued = harness.need("a").await.expect("a token");
        assert!(harness.leases.purge(key).await);
        assert!(issued.token_slot.take(harness.manual.now()).is_none());
        harness.bank.next(failure(Class::Fatal));
        harness.need("a").await.expect_err("no token");
        harness.leases.reloaded(in_force(&["a"]));
        harness.need("a").await.expect("a token");
        assert_eq!(harness.bank.calls(), 4);
    });
}

#[test]
fn a_former_secret_is_not_told_as_a_failure_and_never_shown_again() {
    run(Limits::default(), |harness| async move {
        // Two secrets: one was wrong from the start, one has a token.
        harness.bank.next(failure(Class::Fatal));
        harness.need("wrong").await.expect_err("no token");
        let served = harness.need("former").await.expect("a token");
        harness.leases.reloaded(in_force(&["cured"]));
        harness.need("cured").await.expect("a token");
        let summary = harness.leases.summary().await;
        let tokens = summary.get("bank").expect("a provider");
        assert_eq!((tokens.keys, tokens.live, tokens.failing_since), (1, 1, None), "one secret is in force");
        assert_eq!(tokens.last_failure, None);
        let (_, rows) = page(&harness, TokenPageQuery { search: None, number: 1, size: 10 }).await;
        let wrong = (harness.spec("wrong").key, PhaseKind::Empty);
        assert_eq!(rows.last(), Some(&wrong), "it does not come first, as what fails does");
        let lines = harness.leases.ledger().await.lines;
        let told: Vec<(TokenKey, bool)> = lines.iter().map(|line| (line.key, line.superseded)).collect();
        let wanted = [("wrong", true), ("former", true), ("cured", false)];
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(wanted.iter().all(|(account, is)| told.contains(&(harness.spec(account).key, *is))), "{told:?}");
        // A request that began before takes its token; when that ends, no other is fetched.
        assert!(served.token_slot.take(harness.manual.now()).is_some());
        let calls = harness.bank.calls();
        for _ in 0..4 {
            harness.pass(LIFE.as_secs() / 4 + 1).await;
            if let Some(slot) = harness.leases.at_hand(harness.spec("former").key).await {
                let _used = slot.token_slot.take(harness.manual.now());
            }
        }
        assert_eq!(harness.line("former").await.token, None, "it has ended");
        assert_eq!(harness.bank.calls() - calls, 0, "neither secret is used ahead of need");
        // A request that is so old asks for it by itself: it counts as one of a former secret all the same.
        harness.need("former").await.expect("a token");
        assert!(harness.line("former").await.superseded);
        // The secret comes back.
        harness.leases.reloaded(in_force(&["cured", "former"]));
        assert!(!harness.line("former").await.superseded);
    });
}

#[test]
fn a_purge_during_a_renewal_drops_the_fetch() {
    run(Limits::default(), |harness| async move {
        harness.need("a").await.expect("a token");
        harness.bank.next(Call::Hang);
        assert!(harness.leases.refresh(harness.spec("a").key).await);
        settle().await;
        assert_eq!((harness.line("a").await.phase, harness.bank.alive()), (PhaseKind::Renewing, 1));
        assert!(harness.leases.purge(harness.spec("a").key).await);
        settle().await;
        assert_eq!((harness.line("a").await.phase, harness.bank.alive()), (PhaseKind::Empty, 0));
        assert_eq!(harness.need("a").await.expect("a token").lease.generation, 2);
    });
}

#[test]
fn the_ledger_tells_ages_and_reasons_and_no_secret() {
    run(Limits::default(), |harness| async move {
        let issued = harness.need("a").await.expect("a token");
        let line = harness.line("a").await;
        let wall = 1_700_000_000_000;
        let token = LedgerToken {
            generation: 1,
            fingerprint: Fingerprint::of(b"a-1"),
            issued: wall,
            expires: wall + 1_800_000,
            renews: Some(wall + 1_740_000),
        };
        assert_eq!((line.phase, line.token, line.rest.clone()), (PhaseKind::Live, Some(token), None));
        harness.bank.next(failure(Class::Closed));
        harness.pass(1740).await;
        let line = harness.line("a").await;
        let at = wall + 1_740_000;
        assert_eq!(line.phase.as_str(), "holding");
        assert_eq!(line.rest, Some(LedgerRest { class: Class::Closed, until: at + 300_000 }));
        let (class, cause) = (Class::Closed, None);
        assert_eq!(line.last_failure, Some(LedgerFailure { class, cause, inside: "because".into(), at }));
        assert_eq!((line.failures, line.fetches), (0, FetchCounts { ok: 1, closed: 1, ..FetchCounts::default() }));
        let ledger = harness.leases.ledger().await;
        assert_eq!(
            harness.leases.line(&issued.lease.key.to_string()).await.map(|line| line.key),
            Some(issued.lease.key)
        );
        let shown = format!("{ledger:?} {issued:?}");
        assert!(!shown.contains("Bearer") && !shown.contains("a-1"), "{shown}");
    });
}

#[test]
fn who_asks_a_keeper_that_has_stopped_is_told_so() {
    run(Limits::default(), |harness| async move {
        let issued = harness.need("a").await.expect("a token");
        harness.bank.next(Call::Hang);
        let (leases, spec) = (harness.leases.clone(), harness.spec("b"));
        let waiting = spawn_local(async move { leases.need(spec).await });
        settle().await;
        harness.leases.shutdown();
        let error = waiting.await.expect("answered").expect_err("no token");
        assert_eq!((error.class, error.retry_after), (Class::Transient, Duration::from_secs(1)));
        assert_eq!(harness.need("b").await.expect_err("gone"), error);
        settle().await;
        assert_eq!(harness.bank.alive(), 0);
        assert!(issued.token_slot.take(harness.manual.now()).is_some(), "what lies on the shelves may drain");
        assert_eq!(harness.leases.ledger().await, TokenTable::default());
    });
}

#[test]
fn timers_are_served_under_a_steady_stream_of_messages() {
    run(Limits::default(), |harness| async move {
        harness.need("a").await.expect("a token");
        harness.manual.set_wall(1_700_000_000_000 + 1_750_000);
        harness.manual.advance(LOOK);
        for _ in 0..100 {
            harness.leases.ledger().await;
        }
        assert_eq!(harness.bank.calls(), 2, "renewed by the wall clock, without being told to look");
    });
}

/// T29
#[test]
fn a_jump_of_the_wall_clock_costs_one_fetch() {
    run(Limits::default(), |harness| async move {
        let issued = harness.need("a").await.expect("a token");
        harness.manual.set_wall(1_700_000_000_000 + 86_400_000);
        assert!(issued.token_slot.take(harness.manual.now()).is_none(), "expired by the wall clock, before any tick");
        for _ in 0..100 {
            harness.need("a").await.expect("a token");
        }
        harness.manual.set_wall(1_700_000_000_000);
        for _ in 0..100 {
            harness.pass(1).await;
            harness.need("a").await.expect("a token");
        }
        assert_eq!(harness.bank.calls(), 2);
    });
}

#[test]
fn a_token_that_is_refused_when_new_comes_back_after_a_moment_for_all_who_wait() {
    run(Limits::default(), |harness| async move {
        let first = harness.need("a").await.expect("a token");
        assert!(first.lease.is_newly_issued(harness.manual.now()));
        let refuse = || {
            let (leases, spec) = (harness.leases.clone(), harness.spec("a"));
            spawn_local(async move { leases.refused(spec, 1).await.expect("the token again") })
        };
        let replays: Vec<_> = (0..100).map(|_| refuse()).collect();
        settle().await;
        assert!(first.token_slot.take(harness.manual.now()).is_none(), "not sent meanwhile");
        assert_eq!(harness.line("a").await.phase, PhaseKind::Settling);
        harness.pass(2).await;
        assert!(replays.iter().all(|replay| !replay.is_finished()));
        harness.pass(1).await;
        for replay in replays {
            let again = replay.await.expect("answered");
            assert_eq!((again.lease.generation, header(&again)), (2, header(&first)), "the same token");
            assert!(again.fresh && !again.lease.is_newly_issued(harness.manual.now()), "a second refusal is final");
        }
        assert_eq!(harness.bank.calls(), 1);
    });
}

#[test]
fn an_accepted_token_that_is_refused_is_replaced_at_once_however_young() {
    run(Limits::default(), |harness| async move {
        let first = harness.need("a").await.expect("a token");
        first.lease.prove();
        let second = harness.leases.refused(harness.spec("a"), 1).await.expect("a new token");
        assert_ne!(header(&second), header(&first));
    });
}

#[test]
fn the_old_token_serves_until_its_successor_is_accepted() {
    run(Limits::default(), |harness| async move {
        let old = harness.due("a").await;
        let new = harness.need("a").await.expect("a token");
        assert_ne!(header(&new), header(&old), "renewed early");
        let back = harness.leases.refused(harness.spec("a"), new.lease.generation).await.expect("at once");
        assert_eq!((header(&back), back.lease.expires), (header(&old), old.lease.expires));
        harness.pass(3).await;
        let again = harness.need("a").await.expect("a token");
        assert_eq!(header(&again), header(&new), "tried again");
        again.lease.prove();
        harness.pass(1).await;
        harness.need("a").await.expect("a token");
        assert!(old.token_slot.load().as_ref().is_some_and(|lease| lease.fingerprint == new.lease.fingerprint));
        assert_eq!(Arc::strong_count(&back.lease), 1, "nothing keeps the old one any more");
        assert_eq!(harness.bank.calls(), 2);
    });
}

#[test]
fn a_request_that_began_under_an_earlier_config_takes_no_spec_back() {
    run(Limits::default(), |harness| async move {
        let spec = |serial, account| {
            let spec = Arc::into_inner(harness.spec(account)).expect("ours alone");
            Arc::new(TokenSpec { serial, key: harness.spec("a").key, ..spec })
        };
        let need = async |serial, account| harness.leases.need(spec(serial, account)).await.expect("a token");
        need(1, "old").await;
        harness.pass(5).await;
        need(2, "new").await;
        need(1, "old").await;
        let issued = harness.leases.refused(spec(1, "old"), 1).await.expect("a token");
        assert_eq!(header(&issued), "Bearer new-2", "fetched with what the newest config says");
    });
}

#[test]
fn fetches_are_bounded_over_all_keys_and_each_provider_has_its_share() {
    let limits = Limits { fetches: 3, fetches_per_provider: 2, ..Limits::default() };
    run(limits, |harness| async move {
        let gate = Arc::new(Notify::new());
        let need = |provider: &'static str, account| {
            let spec = Arc::into_inner(harness.spec(account)).expect("ours alone");
            let (leases, spec) = (harness.leases.clone(), Arc::new(TokenSpec { provider: provider.into(), ..spec }));
            spawn_local(async move { leases.need(spec).await.expect("a token").lease.key })
        };
        for _ in 0..6 {
            harness.bank.next(Call::Gate(Arc::clone(&gate)));
        }
        let mut first: Vec<_> = ["a", "b", "c", "d"].map(|account| need("slow", account)).into();
        settle().await;
        assert_eq!(harness.bank.alive(), 2, "its share");
        let others: Vec<_> = ["e", "f"].map(|account| need("other", account)).into();
        settle().await;
        assert_eq!(harness.bank.alive(), 3, "and no more than that in all");
        for left in (0..6).rev() {
            gate.notify_one();
            settle().await;
            assert_eq!(harness.bank.alive(), left.min(3));
        }
        first.extend(others);
        for waiting in first {
            waiting.await.expect("answered");
        }
        // A fetch in the queue ends by its deadline like any other.
        for _ in 0..2 {
            harness.bank.next(Call::Hang);
        }
        let hung: Vec<_> = ["g", "h", "i"].map(|account| harness.spec(account)).into();
        let hung = hung.into_iter().map(|spec| {
            let leases = harness.leases.clone();
            spawn_local(async move { leases.need(spec).await.expect_err("no token") })
        });
        let hung: Vec<_> = hung.collect();
        settle().await;
        assert_eq!((harness.bank.calls(), harness.bank.alive()), (8, 2));
        harness.pass(10).await;
        for waiting in hung {
            waiting.await.expect("answered");
        }
        assert_eq!((harness.bank.calls(), harness.bank.alive()), (8, 0), "who was sent away in the queue asks nothing");
    });
}

/// The span of a request that was rejected must not become the parent of the next fetch's span.
#[test]
fn a_fetch_is_told_as_the_child_of_no_stranger() {
    let (tracer, spans) = Tracer::open();
    tracer.set(Some(1.0));
    let stranger = tracer.begin(None).expect("traced");
    let limits = Limits { waiters: 0, ..Limits::default() };
    let (leases, inbox) = TokenHandle::open();
    let manual = ManualClock::at(Now::at(1_000_000, 1_700_000_000_000));
    let mut keeper =
        Keeper::behind(inbox, Clock::Manual(Arc::clone(&manual)), limits, Box::new(()), None).traced(tracer.clone());
    keeper.jitter = || 0;
    let bank = Arc::new(Bank { manual: Arc::clone(&manual), ..Bank::default() });
    let harness = KeeperHarness { bank, manual, leases, notes: Notes::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        spawn_local(keeper.run());
        let sent_away = harness.leases.need_for(harness.spec("a"), Some(stranger)).await;
        assert!(sent_away.is_err(), "there is no room to wait");
        assert!(harness.leases.refresh(harness.spec("a").key).await);
        settle().await;
        assert_eq!(harness.bank.calls(), 1);
    });
    let told: Vec<_> = spans.take(10).into_iter().map(|span| (span.name, span.parent)).collect();
    assert_eq!(told, [("token fetch".into(), None)], "a trace of its own");
}

/// A user's token of one realm.
struct UserTeller {
    bank: ScriptedSource,
    record: TokenKey,
}

impl FetchProcedure for UserTeller {
    fn fetch(&self, aid: FetchContext) -> Pin<Box<dyn Future<Output = Result<Fetched, Failure>>>> {
        let fetch = self.bank.fetch(aid);
        Box::pin(async move { Ok(Fetched { record: 7, ..fetch.await? }) })
    }

    fn record(&self) -> Option<TokenKey> {
        Some(self.record)
    }
}

#[test]
fn news_of_a_users_record_reach_its_tokens_of_every_realm() {
    run(Limits::default(), |harness| async move {
        let record = record("alice");
        let spec = |account| {
            let TokenSpec { key, serial, provider, refresh_before, fetch_timeout, .. } =
                Arc::into_inner(harness.spec(account)).expect("ours");
            let bank = ScriptedSource { bank: Arc::clone(&harness.bank), account };
            Arc::new(TokenSpec {
                key,
                module: None,
                serial,
                provider,
                refresh_before,
                fetch_timeout,
                procedure: Box::new(UserTeller { bank, record }),
            })
        };
        let old = harness.leases.need(spec("old")).await.expect("a token");
        let new = harness.leases.need(spec("new")).await.expect("a token");
        let other = harness.need("other").await.expect("a token");
        assert!(harness.leases.users().await.contains(&record));
        assert!(harness.leases.heard(record).await, "what is not contested needs no look");
        harness.manual.advance(Duration::from_secs(60));
        new.token_slot.take(harness.manual.now());
        harness.manual.advance(Duration::from_secs(5));
        assert_eq!(harness.leases.idle_users().await.get(&record), Some(&Duration::from_secs(5)), "the one used last");
        harness.leases.record_changed(record, None).await;
        let now = harness.manual.now();
        assert!(
            old.token_slot.take(now).is_none()
                && new.token_slot.take(now).is_none()
                && other.token_slot.take(now).is_some()
        );
    });
}

/// Seconds from the start of a test, at 22:13:20, to the closing of [`evenings`] and to its opening on the next day.
const CLOSES: u64 = 2800;
const OPENS: u64 = 78_400;
const PREWARM: u64 = 120;

/// Three hours of each evening.
fn evenings() -> Option<WorkingHours> {
    let rule = OpeningRule::parse("daily 20:00-23:00").expect("a rule");
    let calendar = Calendar::new(Zone::utc(), &[rule], std::collections::BTreeSet::new());
    Some(WorkingHours::new(calendar, Duration::from_secs(PREWARM)))
}

#[test]
fn no_token_is_fetched_outside_the_hours_and_one_is_there_at_the_opening() {
    run_with(Limits::default(), evenings(), |harness| async move {
        let start = harness.manual.now();
        let passed = || harness.manual.now().since(start).as_secs();
        let until = async |second: u64| harness.pass(second - passed()).await;
        harness.need("a").await.expect("a token");
        until(1740).await;
        assert_eq!(harness.bank.calls(), 2, "renewed while it is open");
        harness.need("a").await.expect("the new token");
        until(CLOSES + 680).await;
        let line = harness.line("a").await;
        let warm = start.wall + (OPENS - PREWARM) * 1000;
        assert_eq!((harness.bank.calls(), line.phase), (2, PhaseKind::Holding), "not renewed while it is closed");
        assert_eq!(line.rest, Some(LedgerRest { class: Class::Closed, until: warm }));
        assert_eq!(
            line.fetches,
            FetchCounts { ok: 2, ..FetchCounts::default() },
            "no call was made, so none is counted"
        );
        until(CLOSES + 3600).await;
        let denied = harness.need("a").await.expect_err("closed");
        assert_eq!((denied.class, denied.retry_after.as_secs()), (Class::Closed, OPENS - passed()));
        assert!(denied.inside.contains("it opens at 2023-11-15T20:00:00+00:00"), "{denied}");
        assert!(harness.leases.refresh(harness.spec("a").key).await, "an operator's wish does not open a bank");
        until(OPENS - PREWARM - 1).await;
        assert_eq!(harness.bank.calls(), 2);
        until(OPENS - PREWARM).await;
        assert_eq!((harness.bank.calls(), harness.line("a").await.phase), (3, PhaseKind::Live));
        until(OPENS).await;
        harness.need("a").await.expect("a token that is there already");
        assert_eq!(harness.bank.calls(), 3);
    });
}

#[test]
fn only_tokens_that_were_in_use_are_fetched_before_the_opening() {
    run_with(Limits::default(), evenings(), |harness| async move {
        harness.need("a").await.expect("a token");
        harness.pass(OPENS - PREWARM).await;
        assert_eq!(harness.bank.calls(), 2);
        // Nobody called on the second evening.
        harness.pass(86_400).await;
        assert_eq!(harness.bank.calls(), 2);
        assert!(harness.leases.ledger().await.lines.is_empty(), "it is forgotten");
    });
}

#[test]
fn a_bank_that_is_not_open_yet_is_asked_again_at_the_opening() {
    run_with(Limits::default(), evenings(), |harness| async move {
        harness.need("a").await.expect("a token");
        let start = harness.manual.now();
        harness.bank.next(failure(Class::Closed));
        harness.pass(OPENS - PREWARM).await;
        let until = start.wall + OPENS * 1000;
        assert_eq!(harness.line("a").await.rest, Some(LedgerRest { class: Class::Closed, until }));
        harness.pass(PREWARM - 1).await;
        assert_eq!((harness.bank.calls(), harness.need("a").await.is_err()), (2, true));
        harness.pass(1).await;
        harness.need("a").await.expect("a token");
        // Another failure is repeated after its own rest.
        harness.pass(86_400 - PREWARM - 1).await;
        harness.bank.next(failure(Class::Transient));
        harness.pass(1).await;
        assert_eq!((harness.bank.calls(), harness.line("a").await.phase), (4, PhaseKind::Resting));
        harness.pass(2).await;
        assert_eq!((harness.bank.calls(), harness.line("a").await.phase), (5, PhaseKind::Live));
    });
}

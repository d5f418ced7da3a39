//! Stored tokens under clocks of every kind, and fetches beside other replicas' and a provider's own pace.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use proptest::prelude::*;
use tokio::task::LocalSet;

use super::*;
use crate::base::time::{Clock, ManualClock};
use crate::store::{KeyRing, Patience, SealingKey, StoreSettings};
use crate::token::key::KeyBuilder;

const START: Now = Now::at(1_000_000_000, 1_700_000_000_000);
const LIFE: Duration = seconds(60);

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn grant(token: &str, life: Duration) -> Grant {
    Grant { access_token: SecretString::from(token), life, captured: Vec::new(), odd_type: None }
}

fn of(token: &str) -> Fingerprint {
    Fingerprint::of(token.as_bytes())
}

fn ended() -> Failure {
    Failure { ended: true, ..Failure::new(Class::Transient, "nothing is left of it") }
}

/// A provider that gives what was written down, and counts.
struct Bank {
    manual: Arc<ManualClock>,
    asked: Cell<u32>,
    looked: Cell<u32>,
    slept: Cell<Duration>,
    script: RefCell<VecDeque<Result<Grant, Failure>>>,
}

impl Bank {
    fn new(now: Now, script: impl IntoIterator<Item = Result<Grant, Failure>>) -> Self {
        let script = RefCell::new(script.into_iter().collect());
        Self { manual: ManualClock::at(now), asked: Cell::new(0), looked: Cell::new(0), slept: Cell::default(), script }
    }
}

impl TokenSource for Bank {
    async fn ask(&self) -> Result<(Grant, Now), Failure> {
        self.asked.set(self.asked.get() + 1);
        let answer = self.script.borrow_mut().pop_front().expect("an answer");
        answer.map(|grant| (grant, self.manual.now()))
    }

    fn credentials(&self, _: &Grant) -> CallCredentials {
        Box::default()
    }

    fn key(&self) -> TokenKey {
        KeyBuilder::new("bank").finish()
    }

    fn provider(&self) -> &'static str {
        "bank"
    }

    fn is_contested(&self) -> bool {
        false
    }

    fn now(&self) -> Now {
        self.looked.set(self.looked.get() + 1);
        self.manual.now()
    }

    /// Everybody else gets a turn meanwhile.
    async fn sleep(&self, pause: Duration) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        self.manual.advance(pause);
        self.slept.set(self.slept.get() + pause);
    }
}

fn aid(known: Option<KnownToken>) -> FetchContext {
    FetchContext { known, patience: seconds(10), refresh_before: seconds(5), ..FetchContext::default() }
}

/// A token that ends so long from `START` on.
fn known(token: &str, left: Duration) -> KnownToken {
    let expires = START.plus(left).wall;
    KnownToken { fingerprint: of(token), issued: START.wall - 10_000, expires, record: 0 }
}

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), test)
}

async fn memory(manual: &Arc<ManualClock>) -> Store {
    Store::open(&StoreSettings::Memory, Patience::default(), Clock::Manual(Arc::clone(manual))).await.expect("a store")
}

fn ring() -> KeyRing {
    let key = SecretString::from("c2V2ZW5zZXZlbnNldmVuc2V2ZW5zZXZlbnNldmVuISE=");
    KeyRing::new(SealingKey::from_base64(&key).expect("a key"), Vec::new())
}

/// A token that was issued at `START` and lives for a minute, as found at `now`.
fn found(now: Now) -> Option<Stored> {
    open(seal(&grant("t", LIFE), START).expose_secret(), now)
}

#[test]
fn a_stored_token_ends_at_one_moment_whatever_the_uptime() {
    for uptime in [0, 1, 2_000, 24_000, 34_000, 36_000, 1_000_000_000] {
        let now = Now::at(uptime, START.wall + 35_000);
        let stored = found(now).expect("it lives");
        let last = seconds(25) - Duration::from_millis(1);
        assert_eq!(stored.expires.remaining(now), seconds(25), "{uptime}");
        assert!(!stored.expires.passed(now.plus(last)) && stored.expires.passed(now.plus(seconds(25))), "{uptime}");
        assert_eq!(stored.expires.life_since(stored.issued), LIFE, "{uptime}: its whole life is known still");
    }
    assert!(found(Now::at(2_000, START.wall + 60_000)).is_none(), "over");
    assert!(found(Now::at(2_000, START.wall + 86_400_000)).is_none(), "long over");
}

#[test]
fn a_clock_that_is_set_after_a_token_was_found_gains_it_nothing() {
    let now = Now::at(2_000, START.wall + 35_000);
    let expires = found(now).expect("it lives").expires;
    let back = Now::at(now.boot + 25_000, START.wall - 86_400_000);
    assert!(expires.passed(back), "the boot clock goes on");
    assert!(expires.passed(Now::at(now.boot, now.wall + 25_000)), "set forward, it is over");
}

#[test]
fn a_token_from_the_future_lives_its_life_from_now_on_and_not_beyond_its_written_end() {
    for behind in [1, 1_000, 30_000, SKEW] {
        let now = Now::at(5_000, START.wall - behind);
        let stored = found(now).expect("another replica's clock is ahead");
        assert_eq!(stored.expires.remaining(now), LIFE, "{behind}: no more than its life");
        assert!(stored.expires.wall() <= START.plus(LIFE).wall, "{behind}: nor beyond its end");
        assert_eq!(stored.issued.wall, now.wall, "{behind}: nothing was issued later than now");
    }
    assert!(found(Now::at(5_000, START.wall - SKEW - 1)).is_none(), "no clock is that far ahead");
}

proptest! {
    /// Under all readings of the clocks: the remaining life is the written one, less the time since, and the deadline
    /// that is checked is the one that is published.
    #[test]
    fn what_is_left_is_told_by_the_wall_clock(uptime in 0..1_000_000_000_000_u64, ago in -120_000..200_000_i64) {
        let now = Now::at(uptime, START.wall.saturating_add_signed(ago));
        let left = (60_000 - ago).clamp(0, 60_000).unsigned_abs();
        match found(now) {
            Some(stored) => {
                prop_assert_eq!(stored.expires.remaining(now), Duration::from_millis(left));
                prop_assert!(!stored.expires.passed(now));
                prop_assert!(stored.issued.wall <= now.wall && stored.issued.boot <= now.boot);
            }
            None => prop_assert!(left == 0 || ago < -60_000),
        }
    }
}

async fn bring(aid: FetchContext, bank: &Bank) -> Result<Fetched, Failure> {
    let (tell, told) = oneshot::channel();
    aid.bring(bank, tell).await;
    told.await.expect("an outcome")
}

/// A process that stored a token is gone, and one on a machine that booted a second ago finds it.
#[test]
fn a_machine_that_has_just_booted_serves_what_is_stored() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let ring = Arc::new(ring());
    let open = async |now: Now| {
        let wish = StoreSettings::File { path: folder.path().join("tokens.redb"), ring: Arc::clone(&ring) };
        let clock = Clock::Manual(ManualClock::at(now));
        Store::open(&wish, Patience::default(), clock).await.expect("a store")
    };
    LocalSet::new().block_on(&runtime, async {
        let store = open(START).await;
        let bank = Bank::new(START, [Ok(grant("t", LIFE))]);
        let fetched = bring(FetchContext { store: Some(store), ..aid(None) }, &bank).await.expect("a token");
        assert!(!fetched.adopted);

        let now = Now::at(1_000, START.wall + 35_000);
        let store = open(now).await;
        let bank = Bank::new(now, []);
        let adopt = async |refused: Vec<Fingerprint>| {
            bring(FetchContext { store: Some(store.clone()), refused, ..aid(None) }, &bank).await
        };
        let found = adopt(Vec::new()).await.expect("the stored one");
        assert!(found.adopted && !found.young && !found.expires.passed(now));
        assert_eq!((found.fingerprint, bank.asked.get()), (of("t"), 0));

        // A refused token is not adopted, and the record of another token is left alone.
        let key = bank.key();
        invalidate(&store, &key, of("another")).await.expect("nothing to do");
        assert!(adopt(Vec::new()).await.is_ok(), "it is still there");
        bank.script.borrow_mut().push_back(Err(Failure::new(Class::Transient, "down")));
        assert!(adopt(vec![of("t")]).await.is_err(), "not while the store may still hold it");
        invalidate(&store, &key, of("t")).await.expect("removed");
        invalidate(&store, &key, of("t")).await.expect("once is enough");
        bank.script.borrow_mut().push_back(Err(Failure::new(Class::Transient, "down")));
        assert!(adopt(Vec::new()).await.is_err(), "nor after a restart");
    });
}

#[test]
fn the_same_token_with_nothing_left_is_waited_out_and_asked_for_once_it_has_ended() {
    run(async {
        for (left, waits) in [(0, 1_000), (700, 1_000), (1_600, 1_600)] {
            let bank = Bank::new(START, [Err(ended()), Ok(grant("new", LIFE))]);
            let known = known("old", Duration::from_millis(left));
            let (grant, _) = aid(Some(known)).ask(&bank).await.expect("its successor");
            assert_eq!((grant.fingerprint(), bank.asked.get()), (of("new"), 2));
            assert_eq!(bank.slept.get().as_millis(), waits, "{left} ms left");
        }
    });
}

#[test]
fn a_token_with_nothing_left_is_a_failure_far_from_the_end_of_the_last_one_and_after_a_few_tries() {
    run(async {
        let far = [
            None,
            Some(known("old", seconds(30))),
            Some(KnownToken { expires: START.wall - 10_000, ..known("old", LIFE) }),
        ];
        for known in far {
            let bank = Bank::new(START, [Err(ended())]);
            assert!(aid(known).ask(&bank).await.is_err());
            assert_eq!(bank.asked.get(), 1);
        }
        let bank = Bank::new(START, (0..10).map(|_| Err(ended())));
        assert!(aid(Some(known("old", Duration::ZERO))).ask(&bank).await.is_err());
        assert_eq!(bank.asked.get(), 1 + MOST_ENDINGS);
        let bank = Bank::new(START, [Err(Failure::new(Class::Transient, "down"))]);
        assert!(aid(Some(known("old", Duration::ZERO))).ask(&bank).await.is_err());
        assert_eq!(bank.asked.get(), 1, "any other failure is one at once");
    });
}

#[test]
fn whoever_waits_for_another_replica_takes_over_when_that_one_gives_up() {
    run(async {
        let bank = Bank::new(START, []);
        let store = memory(&bank.manual).await;
        let key = RecordKey::from(&bank.key());
        let lock = store.lock(&key, seconds(60)).await.expect("a store").expect("free");
        let (aid, attempt) = (aid(None), store.lock_attempt(&key, seconds(60), 2));
        let (turn, ()) = tokio::join!(aid.wait(&store, &key, &attempt, &bank), async {
            while bank.slept.get() < seconds(1) {
                tokio::task::yield_now().await;
            }
            store.unlock(lock).await.expect("given back");
        });
        assert!(matches!(turn, Some(PeerWait::Lock(_))), "nothing was brought");
        assert!(bank.slept.get() <= seconds(1) + LOOK, "{:?}", bank.slept.get());
    });
}

#[test]
fn whoever_waits_for_another_replica_finds_what_that_one_brings_and_is_woken_by_nothing_else() {
    run(async {
        let bank = Bank::new(START, []);
        let store = memory(&bank.manual).await;
        let key = RecordKey::from(&bank.key());
        let _lock = store.lock(&key, seconds(60)).await.expect("a store").expect("free");
        let put = async |token: &str| {
            let sealed = seal(&grant(token, LIFE), START);
            store.put(Kind::Application, &key, &sealed, None).await.expect("kept");
        };
        // The known token is looked at, and not adopted.
        put("old").await;
        let aid = aid(Some(known("old", LIFE)));
        let attempt = store.lock_attempt(&key, seconds(60), 2);
        let (turn, ()) = tokio::join!(aid.wait(&store, &key, &attempt, &bank), async {
            tokio::task::yield_now().await;
            for number in 0..30 {
                let other = RecordKey::from(format!("other-{number}").as_str());
                store.announce(Kind::Application, &other).await.expect("told");
                store.announce(Kind::User, &key).await.expect("told");
                tokio::task::yield_now().await;
            }
            assert!(bank.looked.get() <= 2, "{} looks", bank.looked.get());
            put("new").await;
            store.announce(Kind::Application, &key).await.expect("told");
        });
        let Some(PeerWait::Found(found)) = turn else { panic!("it was brought") };
        assert_eq!((found.fingerprint, bank.looked.get()), (of("new"), 2));
    });
}

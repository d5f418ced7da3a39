//! DNS answers, cached for a short time, with one shared query per name.
//!
//! The system's resolver (`getaddrinfo`) does not report the TTL of an answer, so each is kept for [`FRESH`], and a
//! failure for [`FAILED`] from the moment it arrived. Requests that need the same name at the same time share one
//! query. If a known name can no longer be resolved, its last addresses stay in use: the certificate proves the
//! server's identity, so an old address can fail but not deceive. That also holds for a resolver that does not respond:
//! a request for a name with old addresses waits at most [`NEWS`] for new ones, counted from the query.
//!
//! The resolver is `getaddrinfo` because operators test with it (`getent hosts`): `/etc/hosts`, search domains,
//! nsswitch and its plug-ins all count. It cannot be cancelled, and a name server that does not respond blocks it for
//! 20 seconds or more, each time on a thread of its own. So names that clients send, of which there may be any number,
//! are kept apart from those of the config, of which there are few: in another cache, and with [`SLOTS`] queries at a
//! time.
//!
//! Each thread that dials has one of both caches.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::base::time::{Deadline, Now, Stopwatch};

/// An answer serves this long.
const FRESH: Duration = Duration::from_secs(30);
/// More names than this, and all but the open questions are forgotten; more open questions, and none is added.
const MOST: usize = 4096;
/// A failure is not asked about again for this long.
const FAILED: Duration = Duration::from_secs(1);
/// Old addresses serve when there are no new ones by then.
const NEWS: Duration = Duration::from_millis(300);
/// Questions about names that clients say, at a time.
const SLOTS: usize = 64;

/// The addresses of a name in the resolver's order, or why there are none.
pub(super) type Resolution = Result<Rc<[IpAddr]>, Rc<str>>;

type Lookup = dyn Fn(Rc<str>) -> Pin<Box<dyn Future<Output = LookupResult>>>;

/// The result of a query, and its duration.
struct LookupResult {
    found: io::Result<Vec<IpAddr>>,
    took: Duration,
}

/// A cache of resolved names and open queries.
pub(super) struct NameCache {
    lookup: Box<Lookup>,
    known: RefCell<HashMap<Rc<str>, KnownName>>,
    /// Questions that may be asked at a time; absent: one for each name.
    slots: Option<Semaphore>,
    patience: Duration,
}

/// The cache entry of one name.
struct KnownName {
    /// The last addresses that it had.
    last: Option<Rc<[IpAddr]>>,
    state: State,
}

enum State {
    /// The question was asked then; the answer comes here.
    Asked(watch::Receiver<Option<Resolution>>, Now),
    /// Answered, and when to ask again.
    Told(Resolution, Deadline),
}

thread_local! {
    static CONFIGURED: Rc<NameCache> = NameCache::new(system, None, NEWS);
    static OF_CLIENTS: Rc<NameCache> = NameCache::new(system, Some(SLOTS), NEWS);
}

/// Resolves a name with the system's resolver (`getaddrinfo`).
async fn system(host: Rc<str>) -> LookupResult {
    let watch = Stopwatch::start();
    // The port is of no meaning here, yet the call wants one.
    let found = tokio::net::lookup_host((&*host, 0)).await;
    let found = found.map(|addresses| addresses.map(|address| address.ip()).collect());
    LookupResult { found, took: watch.elapsed() }
}

impl NameCache {
    /// This thread's names of the config: providers, their proxies, and the like.
    pub(super) fn configured() -> Rc<Self> {
        CONFIGURED.with(Rc::clone)
    }

    /// This thread's names that clients say.
    pub(super) fn of_clients() -> Rc<Self> {
        OF_CLIENTS.with(Rc::clone)
    }

    fn new<F>(lookup: impl Fn(Rc<str>) -> F + 'static, slots: Option<usize>, patience: Duration) -> Rc<Self>
    where
        F: Future<Output = LookupResult> + 'static,
    {
        let lookup = Box::new(move |host| Box::pin(lookup(host)) as Pin<Box<dyn Future<Output = LookupResult>>>);
        Rc::new(Self { lookup, known: RefCell::default(), slots: slots.map(Semaphore::new), patience })
    }

    /// The addresses of `host`, which may be an address itself. Never empty.
    pub(super) async fn resolve(self: &Rc<Self>, host: &str, now: Now) -> Resolution {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Rc::new([address]));
        }
        let (mut asked, since, last) = match self.known.borrow().get(host) {
            Some(KnownName { state: State::Told(answer, until), .. }) if !until.passed(now) => return answer.clone(),
            // A question whose task is gone, as its runtime is, will never be answered.
            Some(KnownName { state: State::Asked(asked, since), last }) if asked.has_changed().is_ok() => {
                (Some(asked.clone()), *since, last.clone())
            }
            Some(KnownName { last, .. }) => (None, now, last.clone()),
            None => (None, now, None),
        };
        let asked = match &mut asked {
            Some(asked) => asked,
            None => asked.insert(self.ask(host, last.clone(), now)?),
        };
        let news = async {
            match asked.wait_for(Option::is_some).await {
                Ok(answer) => answer.clone().unwrap_or_else(|| Err("no answer".into())),
                Err(_) => Err("the question was abandoned".into()),
            }
        };
        let Some(last) = last else { return news.await };
        match self.patience.checked_sub(now.since(since)) {
            Some(left) if !left.is_zero() => timeout(left, news).await.unwrap_or(Ok(last)),
            Some(_) | None => Ok(last),
        }
    }

    /// Queries in a task of its own, so that a disconnecting client does not cancel the query of the others. The age of
    /// addresses counts from the query, that of a failure from the answer.
    fn ask(
        self: &Rc<Self>,
        host: &str,
        last: Option<Rc<[IpAddr]>>,
        now: Now,
    ) -> Result<watch::Receiver<Option<Resolution>>, Rc<str>> {
        let (tell, asked) = watch::channel(None);
        let host: Rc<str> = host.into();
        {
            let mut known = self.known.borrow_mut();
            if known.len() >= MOST {
                known.retain(|_, known| matches!(known.state, State::Asked(..)));
            }
            if known.len() >= MOST {
                return Err("too many names are being asked for".into());
            }
            known.insert(host.clone(), KnownName { last: last.clone(), state: State::Asked(asked.clone(), now) });
        }
        let names = self.clone();
        tokio::task::spawn_local(async move {
            let slot = match &names.slots {
                Some(slots) => slots.acquire().await.ok(),
                None => None,
            };
            // The last receiver is that of the map: no request waits any more for a query that has not been sent yet.
            if slot.is_some() && tell.receiver_count() <= 1 {
                names.known.borrow_mut().remove(&host);
                return;
            }
            let LookupResult { found, took } = (names.lookup)(host.clone()).await;
            let looked: Resolution = match found {
                Ok(addresses) if addresses.is_empty() => Err("the name has no address".into()),
                Ok(addresses) => Ok(addresses.into()),
                Err(error) => Err(error.to_string().into()),
            };
            let until = match &looked {
                Ok(_) => Deadline::after(now, FRESH.max(took)),
                Err(_) => Deadline::after(now.plus(took), FAILED),
            };
            let answer = looked.or_else(|failure| last.ok_or(failure));
            let reported = KnownName { last: answer.clone().ok(), state: State::Told(answer.clone(), until) };
            names.known.borrow_mut().insert(host, reported);
            let _ = tell.send(Some(answer));
        });
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::Ipv4Addr;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::upstream::race::tests::converse;

    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    /// Names that answer as `good` says, and how often they were asked.
    fn names() -> (Rc<NameCache>, Rc<Cell<bool>>, Rc<Cell<u32>>) {
        let (names, good, asked, _) = slow_names(Duration::ZERO);
        (names, good, asked)
    }

    /// A switch of a test's resolver.
    type Switch = Rc<Cell<bool>>;

    /// The same, with a failure that comes after this time; and a switch that makes the resolver silent.
    fn slow_names(took: Duration) -> (Rc<NameCache>, Switch, Rc<Cell<u32>>, Switch) {
        let (good, asked, silent) = (Rc::new(Cell::new(true)), Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let (answers, counter, quiet) = (good.clone(), asked.clone(), silent.clone());
        let lookup = move |_| {
            counter.set(counter.get() + 1);
            let (good, silent) = (answers.get(), quiet.get());
            async move {
                tokio::task::yield_now().await;
                if silent {
                    std::future::pending::<()>().await;
                }
                if good {
                    LookupResult { found: Ok(vec![THERE]), took: Duration::ZERO }
                } else {
                    LookupResult { found: Err(io::Error::other("no such host")), took }
                }
            }
        };
        (NameCache::new(lookup, None, NEWS), good, asked, silent)
    }

    fn at(seconds: u64) -> Now {
        Now::at(seconds * 1000, seconds * 1000)
    }

    #[test]
    fn many_who_need_a_name_share_one_question_and_its_answer() {
        converse(async {
            let (names, _, asked) = names();
            let (first, second) = tokio::join!(names.resolve("bank", at(0)), names.resolve("bank", at(0)));
            assert_eq!((first.unwrap()[0], second.unwrap()[0]), (THERE, THERE));
            assert!(names.resolve("bank", at(29)).await.is_ok());
            assert_eq!(asked.get(), 1);
            assert!(names.resolve("bank", at(30)).await.is_ok());
            assert_eq!(asked.get(), 2, "answers age");
            assert!(names.resolve("other", at(30)).await.is_ok());
            assert_eq!(asked.get(), 3);
        });
    }

    #[test]
    fn a_failure_is_kept_for_a_second_and_an_old_answer_outlives_it() {
        converse(async {
            let (names, good, asked) = names();
            good.set(false);
            assert_eq!(&*names.resolve("bank", at(0)).await.unwrap_err(), "no such host");
            assert!(names.resolve("bank", at(0)).await.is_err());
            assert_eq!(asked.get(), 1);
            good.set(true);
            assert!(names.resolve("bank", at(1)).await.is_ok());
            good.set(false);
            assert_eq!(names.resolve("bank", at(40)).await.unwrap()[0], THERE, "the last answer serves on");
            assert_eq!(asked.get(), 3);
            assert!(names.resolve("bank", at(40)).await.is_ok() && asked.get() == 3);
            assert!(names.resolve("bank", at(41)).await.is_ok() && asked.get() == 4);
        });
    }

    #[test]
    fn a_failure_that_was_long_in_coming_is_kept_from_the_moment_it_came() {
        converse(async {
            let (names, good, asked, _) = slow_names(Duration::from_secs(10));
            good.set(false);
            assert!(names.resolve("bank", at(0)).await.is_err());
            assert!(names.resolve("bank", at(10)).await.is_err() && asked.get() == 1);
            assert!(names.resolve("bank", at(11)).await.is_err() && asked.get() == 2);
        });
    }

    #[test]
    fn before_a_silent_resolver_the_last_addresses_serve_without_delay() {
        converse(async {
            let (names, _, asked, silent) = slow_names(Duration::ZERO);
            assert!(names.resolve("bank", at(0)).await.is_ok());
            silent.set(true);
            let first = names.resolve("bank", at(30));
            // It waits for news until the clock of the others says that it has waited long enough.
            let others = async {
                tokio::task::yield_now().await;
                for second in 31..40 {
                    assert_eq!(names.resolve("bank", at(second)).await.unwrap()[0], THERE);
                }
                assert_eq!(asked.get(), 2, "one question is open");
            };
            tokio::pin!(first);
            tokio::select! {
                biased;
                answer = &mut first => panic!("it does not wait for news: {answer:?}"),
                () = others => {}
            }
            assert!(names.resolve("other", at(40)).now_or_never().is_none(), "there is nothing to serve");
        });
    }

    #[test]
    fn questions_of_clients_are_asked_a_few_at_a_time_and_dropped_when_nobody_waits() {
        converse(async {
            let asked = Rc::new(RefCell::new(Vec::new()));
            let kept = asked.clone();
            let (open, gate) = watch::channel(false);
            let lookup = move |host: Rc<str>| {
                kept.borrow_mut().push(host.to_string());
                let mut gate = gate.clone();
                async move {
                    let _ = gate.wait_for(|open| *open).await;
                    LookupResult { found: Ok(vec![THERE]), took: Duration::ZERO }
                }
            };
            let names = NameCache::new(lookup, Some(2), NEWS);
            let ask = |host: &'static str| {
                let names = names.clone();
                tokio::task::spawn_local(async move { names.resolve(host, at(0)).await })
            };
            let (one, two, three, four) = (ask("one"), ask("two"), ask("three"), ask("four"));
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
            assert_eq!(*asked.borrow(), ["one", "two"]);
            // Their client gives up: the first question goes on, the third is never asked.
            one.abort();
            three.abort();
            open.send(true).unwrap();
            assert!(two.await.unwrap().is_ok() && four.await.unwrap().is_ok());
            assert_eq!(*asked.borrow(), ["one", "two", "four"]);
            assert!(names.resolve("three", at(0)).await.is_ok(), "it can be asked for again");
        });
    }

    #[test]
    fn whoever_hangs_up_takes_no_answer_from_the_others() {
        converse(async {
            let (names, _, asked) = names();
            let mut leader = Box::pin(names.resolve("bank", at(0)));
            tokio::select! {
                biased;
                _ = leader.as_mut() => panic!("nobody answers that fast"),
                () = std::future::ready(()) => {}
            }
            drop(leader);
            assert!(names.resolve("bank", at(0)).await.is_ok());
            assert_eq!(asked.get(), 1);
        });
    }

    #[test]
    fn an_address_needs_no_question() {
        converse(async {
            let (names, _, asked) = names();
            assert_eq!(names.resolve("::1", at(0)).await.unwrap()[0].to_string(), "::1");
            assert_eq!(asked.get(), 0);
        });
    }
}

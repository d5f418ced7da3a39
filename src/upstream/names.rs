//! DNS answers, kept for a moment and asked for once.
//!
//! The system's resolver (`getaddrinfo`) does not tell how long an answer holds, so each is kept for [`FRESH`], and a
//! failure for [`FAILED`]. Requests that need the same name at the same time share one question. When a name that was
//! known cannot be resolved any more, its last addresses are used on and asked about again after [`FAILED`]: the
//! certificate decides who answers there, so an old address can fail but not deceive.
//!
//! There is one of these per thread that dials.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;

use crate::base::time::{Deadline, Now};

/// An answer serves this long.
const FRESH: Duration = Duration::from_secs(30);
/// Names that clients name are known here, too: more than this, and all but the open questions are forgotten.
const MOST: usize = 4096;
/// A failure is not asked about again for this long.
const FAILED: Duration = Duration::from_secs(1);

/// The addresses of a name in the resolver's order, or why there are none.
pub(super) type Answer = Result<Rc<[IpAddr]>, Rc<str>>;

type Lookup = dyn Fn(&str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>>>>;

/// What is known of names.
pub(super) struct Names {
    lookup: Box<Lookup>,
    known: RefCell<HashMap<Box<str>, Known>>,
}

enum Known {
    /// Somebody asked; the answer comes here.
    Asked(watch::Receiver<Option<Answer>>),
    /// Answered, and when to ask again.
    Told(Answer, Deadline),
}

thread_local! {
    static NAMES: Rc<Names> = Names::new(|host| {
        // The port is of no meaning here, yet the call wants one.
        let host = (host.to_owned(), 0);
        async move { Ok(tokio::net::lookup_host(host).await?.map(|address| address.ip()).collect()) }
    });
}

impl Names {
    /// The names of this thread.
    pub(super) fn here() -> Rc<Self> {
        NAMES.with(Rc::clone)
    }

    fn new<F>(lookup: impl Fn(&str) -> F + 'static) -> Rc<Self>
    where
        F: Future<Output = io::Result<Vec<IpAddr>>> + 'static,
    {
        Rc::new(Self { lookup: Box::new(move |host| Box::pin(lookup(host))), known: RefCell::default() })
    }

    /// The addresses of `host`, which may be an address itself. Never empty.
    pub(super) async fn resolve(self: &Rc<Self>, host: &str, now: Now) -> Answer {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Rc::new([address]));
        }
        let mut asked = match self.known.borrow().get(host) {
            Some(Known::Told(answer, until)) if !until.passed(now) => return answer.clone(),
            // A question whose task is gone, as its runtime is, will never be answered.
            Some(Known::Asked(asked)) if asked.has_changed().is_ok() => Some(asked.clone()),
            Some(Known::Asked(_) | Known::Told(..)) | None => None,
        };
        let asked = asked.get_or_insert_with(|| self.ask(host, now));
        match asked.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().unwrap_or_else(|| Err("no answer".into())),
            Err(_) => Err("the question was abandoned".into()),
        }
    }

    /// Asks in a task of its own, so that nobody's hanging up takes the answer from the others. Its age counts from
    /// the question.
    fn ask(self: &Rc<Self>, host: &str, now: Now) -> watch::Receiver<Option<Answer>> {
        let (tell, asked) = watch::channel(None);
        if self.known.borrow().len() >= MOST {
            self.known.borrow_mut().retain(|_, known| matches!(known, Known::Asked(_)));
        }
        let before = match self.known.borrow_mut().insert(host.into(), Known::Asked(asked.clone())) {
            Some(Known::Told(Ok(addresses), _)) => Some(addresses),
            Some(Known::Asked(_) | Known::Told(Err(_), _)) | None => None,
        };
        let looking = (self.lookup)(host);
        let (names, host) = (self.clone(), Box::<str>::from(host));
        tokio::task::spawn_local(async move {
            let looked = match looking.await {
                Ok(addresses) if addresses.is_empty() => Err("the name has no address".into()),
                Ok(addresses) => Ok(addresses.into()),
                Err(error) => Err(error.to_string().into()),
            };
            let life = if looked.is_ok() { FRESH } else { FAILED };
            let answer = looked.or_else(|failure| before.ok_or(failure));
            let told = Known::Told(answer.clone(), Deadline::after(now, life));
            names.known.borrow_mut().insert(host, told);
            let _ = tell.send(Some(answer));
        });
        asked
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::upstream::race::tests::converse;

    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    /// Names that answer as `good` says, and how often they were asked.
    fn names() -> (Rc<Names>, Rc<Cell<bool>>, Rc<Cell<u32>>) {
        let (good, asked) = (Rc::new(Cell::new(true)), Rc::new(Cell::new(0)));
        let (answers, counter) = (good.clone(), asked.clone());
        let names = Names::new(move |_| {
            counter.set(counter.get() + 1);
            let good = answers.get();
            async move {
                tokio::task::yield_now().await;
                if good { Ok(vec![THERE]) } else { Err(io::Error::other("no such host")) }
            }
        });
        (names, good, asked)
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

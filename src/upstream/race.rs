//! A race between the addresses of a name (RFC 8305, "Happy Eyeballs").
//!
//! Families take turns, beginning with the one that the resolver put first. The next address is tried when the one
//! before failed, or after [`STAGGER`]; the first that connects wins and the other attempts are dropped.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::task::JoinSet;

/// The pause between two attempts (RFC 8305 section 5).
pub(super) const STAGGER: Duration = Duration::from_millis(250);

/// The addresses with their families taking turns; order within a family stays.
pub(super) fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (mut first, mut second): (Vec<IpAddr>, Vec<IpAddr>) =
        addresses.iter().partition(|address| address.is_ipv6() == first_is_v6);
    first.reverse();
    second.reverse();
    let mut turns = Vec::with_capacity(addresses.len());
    while !(first.is_empty() && second.is_empty()) {
        turns.extend(first.pop());
        turns.extend(second.pop());
    }
    turns
}

/// The first of `addresses` that connects. Without any that does, the error of the last one to fail; `None` when there
/// was no address at all.
pub(super) async fn race<T, F>(
    addresses: Vec<IpAddr>,
    stagger: Duration,
    connect: impl Fn(IpAddr) -> F,
) -> Result<T, Option<io::Error>>
where
    T: 'static,
    F: Future<Output = io::Result<T>> + 'static,
{
    let mut waiting = addresses.into_iter();
    let mut running = JoinSet::new();
    let mut last = None;
    loop {
        if let Some(next) = waiting.next() {
            running.spawn_local(connect(next));
        }
        let more = waiting.len() > 0;
        tokio::select! {
            ended = running.join_next() => match ended {
                Some(Ok(Ok(connected))) => return Ok(connected),
                Some(Ok(Err(error))) => last = Some(error),
                Some(Err(_)) => last = Some(io::Error::other("the attempt was abandoned")),
                None => return Err(last),
            },
            () = tokio::time::sleep(stagger), if more => {}
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// Runs a test's conversation on a runtime of its own.
    pub(in crate::upstream) fn converse<T>(conversation: impl Future<Output = T>) -> T {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default()).unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), conversation).await.unwrap() })
    }

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let turns = interleave(&addresses(&["::1", "::2", "::3", "10.0.0.1", "10.0.0.2"]));
        assert_eq!(turns, addresses(&["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"]));
        let turns = interleave(&addresses(&["10.0.0.1", "10.0.0.2", "::1"]));
        assert_eq!(turns, addresses(&["10.0.0.1", "::1", "10.0.0.2"]));
        assert!(interleave(&[]).is_empty());
    }

    #[test]
    fn a_refused_address_is_followed_by_the_next_at_once() {
        let never = Duration::from_secs(3600);
        let won = converse(race(addresses(&["::1", "10.0.0.1", "10.0.0.2"]), never, |address| async move {
            if address.to_string() == "10.0.0.2" { Ok(address) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
        }));
        assert_eq!(won.unwrap().to_string(), "10.0.0.2");
    }

    #[test]
    fn a_silent_address_is_overtaken_and_then_dropped() {
        let tried = Rc::new(RefCell::new(Vec::new()));
        let won = converse(race(addresses(&["10.0.0.1", "::1"]), Duration::from_millis(1), |address| {
            tried.borrow_mut().push(address);
            async move {
                if address.is_ipv4() {
                    std::future::pending::<()>().await;
                }
                Ok(address)
            }
        }));
        assert_eq!(won.unwrap().to_string(), "::1");
        assert_eq!(*tried.borrow(), addresses(&["10.0.0.1", "::1"]));
    }

    #[test]
    fn when_all_fail_the_last_failure_is_told() {
        let lost: Result<(), _> = converse(race(addresses(&["10.0.0.1", "::1"]), STAGGER, |address| async move {
            Err(io::Error::other(address.to_string()))
        }));
        assert_eq!(lost.unwrap_err().unwrap().to_string(), "::1");
        let none: Result<(), _> = converse(race(Vec::new(), STAGGER, |_| async { Ok(()) }));
        assert!(none.unwrap_err().is_none());
    }
}

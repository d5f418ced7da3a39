//! Sentinels, which know the master of a service.
//!
//! The `redis` crate has a client for them. It is not used: it connects by itself, with TLS settings of its own instead
//! of ours, and takes the first answer. Here all Sentinels are asked at once, and an address counts for more the more of
//! them name it: one that was cut off may still name a former master.

use std::rc::Rc;
use std::time::Duration;

use ::redis::{Value, cmd};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::redis_settings::RedisAddress;
use super::redis_target::RedisTarget;
use super::verdict::RedisVerdict;

/// After an answer, the others are waited for so long each.
const LATE: Duration = Duration::from_millis(200);

/// The addresses that Sentinels name, with the number of those that do; most first.
pub(super) type SentinelMasters = Vec<(RedisAddress, usize)>;

/// Asks all Sentinels for the master. An error if none knows one. The caller bounds the time.
pub(super) async fn masters(
    target: &Rc<RedisTarget>,
    sentinels: &[RedisAddress],
    service: &str,
) -> Result<SentinelMasters, RedisVerdict> {
    let mut asked = JoinSet::new();
    for sentinel in sentinels {
        let (target, sentinel, service) = (target.clone(), sentinel.clone(), service.to_owned());
        asked.spawn_local(async move { ask(&target, &sentinel, &service).await });
    }
    let mut named = SentinelMasters::new();
    let mut failure = None;
    loop {
        let pause = if named.is_empty() { target.patience.connect } else { LATE };
        match timeout(pause, asked.join_next()).await {
            Ok(Some(Ok(Ok(master)))) => {
                count(&mut named, master);
                if named.first().is_some_and(|(_, votes)| votes * 2 > sentinels.len()) {
                    break;
                }
            }
            Ok(Some(Ok(Err(why)))) => failure = Some(why),
            Ok(Some(Err(_))) => {}
            Ok(None) | Err(_) => break,
        }
    }
    if named.is_empty() {
        let silent = || RedisVerdict::Broken(format!("none of the Sentinels of `{service}` answers"));
        return Err(failure.unwrap_or_else(silent));
    }
    Ok(named)
}

/// Counts a vote, and keeps those with most votes first.
fn count(named: &mut SentinelMasters, master: RedisAddress) {
    match named.iter_mut().find(|(known, _)| *known == master) {
        Some((_, votes)) => *votes += 1,
        None => named.push((master, 1)),
    }
    named.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
}

async fn ask(target: &RedisTarget, sentinel: &RedisAddress, service: &str) -> Result<RedisAddress, RedisVerdict> {
    let mut question = cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(service);
    let answer: Value = target.ask_once(sentinel, &target.sentinel_greeting(), &question).await?;
    match &answer {
        Value::Nil => {
            let what = format!("the Sentinel at {sentinel} knows no master of this name: see `url` in [store]");
            Err(RedisVerdict::Broken(what))
        }
        answer => address(answer)
            .ok_or_else(|| RedisVerdict::Broken(format!("the server at {sentinel} does not speak as a Sentinel does"))),
    }
}

/// Reads a host and a port.
fn address(answer: &Value) -> Option<RedisAddress> {
    let Value::Array(parts) = answer else { return None };
    let [Value::BulkString(host), Value::BulkString(port)] = parts.as_slice() else { return None };
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let (host, port) = (text(host)?, text(port)?.parse().ok()?);
    (!host.is_empty()).then_some(RedisAddress { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_that_most_name_comes_first() {
        let at = |port| RedisAddress { host: "h".to_owned(), port };
        let mut named = SentinelMasters::new();
        for port in [1, 2, 2] {
            count(&mut named, at(port));
        }
        assert_eq!(named, [(at(2), 2), (at(1), 1)]);
    }

    #[test]
    fn an_answer_is_a_host_and_a_port() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let found = address(&Value::Array(vec![text("::1"), text("6379")]));
        assert_eq!(found, Some(RedisAddress { host: "::1".to_owned(), port: 6379 }));
        for other in [
            Value::Okay,
            Value::Array(vec![text("h")]),
            Value::Array(vec![text(""), text("1")]),
            Value::Array(vec![text("h"), text("99999")]),
            Value::Array(vec![text("h"), Value::Int(1)]),
        ] {
            assert_eq!(address(&other), None, "{other:?}");
        }
    }
}

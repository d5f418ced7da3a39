//! Reception of the announcements of other instances.
//!
//! News are hints, so they are neither sealed nor trusted: a listener that receives one looks into the store.
//! Announcements made while the connection is broken are lost; therefore every new connection makes listeners look at
//! everything.

use std::rc::Rc;
use std::time::Duration;

use ::redis::aio::PubSub;
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::super::changes::{Change, ChangeNotifier};
use super::super::record::{Kind, RecordKey, RecordName};
use super::super::redis_settings::RedisAddress;
use super::redis_target::RedisTarget;
use super::verdict::{RedisVerdict, judge};

/// In silence the connection is tried this often.
const TRIED: Duration = Duration::from_secs(10);

/// The channel on which an instance is heard.
pub(super) fn channel(namespace: &str) -> String {
    format!("{namespace}:changes")
}

/// Builds the announcement of a record: its kind, a colon, its key.
pub(super) fn news(name: &RecordName) -> Vec<u8> {
    [name.kind.name().as_bytes(), b":", name.key.as_bytes()].concat()
}

/// Returns the record that was announced; `None` if the announcement names none that is known.
fn heard(news: &[u8]) -> Option<RecordName> {
    let colon = news.iter().position(|byte| *byte == b':')?;
    let kind = Kind::named(std::str::from_utf8(news.get(..colon)?).ok()?)?;
    Some(RecordName { kind, key: RecordKey::new(news.get(colon + 1..)?) })
}

/// Subscribes where news are told, and passes announcements on, without end; retries after each failure, and at once
/// when they are told elsewhere.
pub(super) async fn listen(
    target: Rc<RedisTarget>,
    mut places: watch::Receiver<Option<RedisAddress>>,
    notifier: ChangeNotifier,
) {
    let mut failures = 0_u32;
    loop {
        let at = places.wait_for(Option::is_some).await.ok().and_then(|at| at.clone());
        let Some(at) = at else { return };
        let round = async {
            match timeout(target.patience.connect, subscribe(&target, &at)).await {
                Ok(Ok(subscription)) => {
                    failures = 0;
                    notifier.notify(Change::Everything);
                    tokio::select! {
                        () = pass_on(&target, subscription, &notifier) => {}
                        // A subscribed connection cannot show fresh credentials.
                        () = sleep(target.patience.authenticated), if target.settings.login.ends() => return,
                    }
                }
                Ok(Err(error)) => tracing::debug!(error = %error.into_error(), "no news from the store"),
                Err(_) => tracing::debug!("no news from the store: it does not answer"),
            }
            failures = failures.saturating_add(1);
            sleep(target.rest(failures)).await;
        };
        tokio::select! {
            () = round => {}
            _ = places.wait_for(|now| now.as_ref() != Some(&at)) => failures = 0,
        }
    }
}

async fn subscribe(target: &RedisTarget, at: &RedisAddress) -> Result<PubSub, RedisVerdict> {
    let judged = |error| judge(at, &error);
    let mut subscription = PubSub::new(&target.greeting(), target.dial(at).await?).await.map_err(judged)?;
    subscription.subscribe(channel(&target.settings.namespace)).await.map_err(judged)?;
    Ok(subscription)
}

/// Until the connection ends, or is silent when it should not be.
async fn pass_on(target: &RedisTarget, subscription: PubSub, notifier: &ChangeNotifier) {
    let (mut sink, mut stream) = subscription.split();
    loop {
        match timeout(TRIED, stream.next()).await {
            Ok(Some(message)) => {
                if let Some(name) = heard(message.get_payload_bytes()) {
                    notifier.notify(Change::Record(name));
                }
            }
            Ok(None) => return,
            Err(_) => match timeout(target.patience.connect, sink.ping::<::redis::Value>()).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_read_back_and_others_are_ignored() {
        let name = RecordName { kind: Kind::User, key: RecordKey::from("a:b") };
        assert_eq!(heard(&news(&name)), Some(name));
        for other in [b"".as_slice(), b"user", b"nobody:a", b"\xff:a"] {
            assert_eq!(heard(other), None);
        }
    }
}

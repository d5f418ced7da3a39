//! What just happened to tokens, providers, consents and the config, for whoever listens.
//!
//! Events are told as they happen and kept nowhere. The queue is bounded: a listener who is too slow is told how many he
//! has missed. Nothing here is on a request's way; what a worker reports to the keeper is told from there.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;

use super::Reloaded;
use crate::base::secret::Fingerprint;
use crate::base::time::Clock;
use crate::token::failure::Class;
use crate::token::key::TokenKey;

/// Events that a listener may be behind.
const MOST_WAITING: usize = 256;

/// One event.
#[derive(Clone, Debug)]
pub struct ControlEvent {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// What happened.
    pub what: EventKind,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// A user has consented.
    ConsentGiven(Consenter),
    /// A user's tokens were forgotten.
    ConsentRevoked(Consenter),
    /// A consent was started.
    ConsentStarted(Consenter),
    /// A provider said that it is outside its working hours.
    ProviderClosed {
        /// Its name.
        provider: Arc<str>,
        /// It is asked again after this long.
        rest: Duration,
    },
    /// A provider that was closed issued a token.
    ProviderOpen {
        /// Its name.
        provider: Arc<str>,
    },
    /// The config was read anew.
    Reload(Arc<Reloaded>),
    /// A request is sent again with a newer token, since the provider refused the one that it had.
    Replay(Generation),
    /// There is no token, or no newer one.
    TokenFailed {
        /// Whose.
        provider: Arc<str>,
        /// Which.
        key: TokenKey,
        /// What kind of failure.
        class: Class,
        /// What happened; no secrets.
        inside: Arc<str>,
        /// It is asked for again after this long.
        rest: Duration,
    },
    /// A token is there that was not there before.
    TokenFetched {
        /// Which.
        token: Generation,
        /// Enough to recognise it in a log.
        fingerprint: Fingerprint,
        /// How long it lives from now.
        life: Duration,
        /// Whether it replaces a valid one.
        renewed: bool,
    },
    /// The provider refused the token that was served.
    TokenRefused(Generation),
}

/// One generation of a token.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Whose.
    pub provider: Arc<str>,
    /// Its name.
    pub key: TokenKey,
    /// Which one.
    pub number: u64,
}

/// To whom a consent is given, and for which provider. The user is not told.
#[derive(Clone, Debug)]
pub struct Consenter {
    /// The provider's name.
    pub provider: Arc<str>,
    /// The client's name, or that of its group.
    pub owner: Arc<str>,
}

/// Where events are told, and heard. Clones are the same place.
#[derive(Clone)]
pub struct Events(Arc<EventBuffer>);

struct EventBuffer {
    out: broadcast::Sender<Arc<ControlEvent>>,
    clock: Clock,
    /// Providers that are closed, as far as their tokens tell.
    closed: Mutex<BTreeSet<Arc<str>>>,
}

impl Events {
    /// A place that nobody listens to yet.
    pub fn open(clock: Clock) -> Self {
        let (out, _) = broadcast::channel(MOST_WAITING);
        Self(Arc::new(EventBuffer { out, clock, closed: Mutex::default() }))
    }

    /// Tells what happened. Costs next to nothing when nobody listens.
    pub fn tell(&self, what: EventKind) {
        let follows = self.follows(&what);
        for what in std::iter::once(what).chain(follows) {
            // Nobody listens: that is no news.
            let _ = self.0.out.send(Arc::new(ControlEvent { at: self.0.clock.now().wall, what }));
        }
    }

    /// Hears everything from now on.
    pub fn listen(&self) -> broadcast::Receiver<Arc<ControlEvent>> {
        self.0.out.subscribe()
    }

    /// What a token's fortune says of its provider's hours.
    fn follows(&self, what: &EventKind) -> Option<EventKind> {
        let mut closed = self.0.closed.lock().unwrap_or_else(PoisonError::into_inner);
        match what {
            EventKind::TokenFailed { provider, class: Class::Closed, rest, .. } => closed
                .insert(provider.clone())
                .then(|| EventKind::ProviderClosed { provider: provider.clone(), rest: *rest }),
            EventKind::TokenFetched { token: Generation { provider, .. }, .. } => {
                closed.remove(provider).then(|| EventKind::ProviderOpen { provider: provider.clone() })
            }
            EventKind::ConsentGiven(_)
            | EventKind::ConsentRevoked(_)
            | EventKind::ConsentStarted(_)
            | EventKind::ProviderClosed { .. }
            | EventKind::ProviderOpen { .. }
            | EventKind::Reload(_)
            | EventKind::Replay(_)
            | EventKind::TokenFailed { .. }
            | EventKind::TokenRefused(_) => None,
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::key::KeyBuilder;

    fn failed(class: Class) -> EventKind {
        let (key, rest) = (KeyBuilder::new("bank").finish(), Duration::from_secs(60));
        EventKind::TokenFailed { provider: "bank".into(), key, class, inside: "shut".into(), rest }
    }

    fn fetched() -> EventKind {
        let token = Generation { provider: "bank".into(), key: KeyBuilder::new("bank").finish(), number: 1 };
        let (fingerprint, life) = (Fingerprint::of(b"token"), Duration::from_secs(60));
        EventKind::TokenFetched { token, fingerprint, life, renewed: false }
    }

    #[test]
    fn a_provider_closes_once_and_opens_once() {
        let events = Events::open(Clock::System);
        let mut heard = events.listen();
        for what in [failed(Class::Transient), failed(Class::Closed), failed(Class::Closed), fetched(), fetched()] {
            events.tell(what);
        }
        let mut told = Vec::new();
        while let Ok(event) = heard.try_recv() {
            told.push(match &event.what {
                EventKind::ProviderClosed { .. } => "closed",
                EventKind::ProviderOpen { .. } => "open",
                EventKind::TokenFailed { .. } => "failed",
                EventKind::TokenFetched { .. } => "fetched",
                _ => "another",
            });
        }
        assert_eq!(told, ["failed", "failed", "closed", "failed", "fetched", "open", "fetched"]);
    }
}

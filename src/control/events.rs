//! Events of tokens, providers, consents and the config, for subscribers.
//!
//! Events are sent as they happen and are not stored. The queue is bounded: a subscriber that is too slow receives the
//! number of events that it missed. No event is sent on the path of a request; the keeper publishes the events that
//! follow from workers' reports.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;

use super::Reloaded;
use crate::base::secret::Fingerprint;
use crate::base::time::Clock;
use crate::token::credential_slots::CredentialSlot;
use crate::token::failure::Class;
use crate::token::key::TokenKey;

/// Events that a listener may be behind.
const MOST_WAITING: usize = 256;

/// One event, with the time at which it happened.
#[derive(Clone, Debug)]
pub struct ControlEvent {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Kind of the event, with its details.
    pub what: EventKind,
}

/// The kind of an event, with its details.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// A user has given a consent.
    ConsentGiven(ConsentSubject),
    /// A user's tokens were forgotten.
    ConsentRevoked(ConsentSubject),
    /// A user's consent was started, and is not given yet.
    ConsentStarted(ConsentSubject),
    /// A provider refused the credentials in use, and accepts those of the other slot.
    CredentialsPromoted {
        /// Name of the provider.
        provider: Arc<str>,
        /// The slot that calls use from now on.
        slot: CredentialSlot,
    },
    /// A key service answers again.
    KeyServiceBack {
        /// Title of the service.
        service: Arc<str>,
    },
    /// A key service does not answer, and is not asked.
    KeyServiceGone {
        /// Title of the service.
        service: Arc<str>,
        /// Description of the failure, without secrets.
        inside: Arc<str>,
    },
    /// A provider said that it is outside its working hours.
    ProviderClosed {
        /// Name of the provider that is closed.
        provider: Arc<str>,
        /// It is asked again after this long.
        rest: Duration,
    },
    /// A provider that was closed issued a token.
    ProviderOpen {
        /// Name of the provider that is open again.
        provider: Arc<str>,
    },
    /// The config was read anew.
    Reload(Arc<Reloaded>),
    /// A request is sent again with a newer token, since the provider refused the one that it had.
    Replay(Generation),
    /// There is no token, or no newer one.
    TokenFailed {
        /// Name of the token's provider.
        provider: Arc<str>,
        /// Key of the token that the failure concerns.
        key: TokenKey,
        /// Class of the failure, as in logs and metrics.
        class: Class,
        /// Description of the failure, without secrets.
        inside: Arc<str>,
        /// It is asked for again after this long.
        rest: Duration,
    },
    /// A token is there that was not there before.
    TokenFetched {
        /// The generation that was published.
        token: Generation,
        /// Enough to recognise it in a log.
        fingerprint: Fingerprint,
        /// Remaining life at the time of the event.
        life: Duration,
        /// True if it replaces a token that was still valid.
        renewed: bool,
    },
    /// The provider refused the token that was served.
    TokenRefused(Generation),
}

/// One generation of a token.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Name of the provider that issued the token.
    pub provider: Arc<str>,
    /// Key under which the keeper holds the token.
    pub key: TokenKey,
    /// Number of the generation; a later one is larger.
    pub number: u64,
}

/// To whom a consent is given, and for which provider. The user is not told.
#[derive(Clone, Debug)]
pub struct ConsentSubject {
    /// Name of the provider to which the consent applies.
    pub provider: Arc<str>,
    /// The client's name, or that of its group.
    pub owner: Arc<str>,
}

/// The channel for events. Clones share the same channel.
#[derive(Clone)]
pub struct Events(Arc<EventBuffer>);

struct EventBuffer {
    out: broadcast::Sender<Arc<ControlEvent>>,
    clock: Clock,
    /// Providers that are closed, as far as their tokens tell.
    closed: Mutex<BTreeSet<Arc<str>>>,
}

impl Events {
    /// Creates a channel without subscribers.
    pub fn open(clock: Clock) -> Self {
        let (out, _) = broadcast::channel(MOST_WAITING);
        Self(Arc::new(EventBuffer { out, clock, closed: Mutex::default() }))
    }

    /// Publishes an event. Costs almost nothing while there are no subscribers.
    pub fn tell(&self, what: EventKind) {
        let follows = self.follows(&what);
        for what in std::iter::once(what).chain(follows) {
            // An error means that there are no subscribers: it is ignored.
            let _ = self.0.out.send(Arc::new(ControlEvent { at: self.0.clock.now().wall, what }));
        }
    }

    /// Hears everything from now on.
    pub fn listen(&self) -> broadcast::Receiver<Arc<ControlEvent>> {
        self.0.out.subscribe()
    }

    /// Returns the change of a provider's opening state that a token's success or failure implies.
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
            | EventKind::CredentialsPromoted { .. }
            | EventKind::KeyServiceBack { .. }
            | EventKind::KeyServiceGone { .. }
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

//! The tap of a recording: what passes between a provider and the proxy is copied here, within bounds, and handed to the
//! thread that scrubs and writes it (`record/`).
//!
//! Nothing here waits: a full channel, too many copies at once or a busy gate make an exchange be left out and counted.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, TryLockError};

use http::{HeaderMap, Method, StatusCode};
use prometheus_client::metrics::counter::Counter;
use zeroize::Zeroizing;

use crate::base::secret::{ExposeSecret, SecretString};
use crate::base::time::Now;
use crate::provider::module::Module;
use crate::provider::refusal::Verdict;
use crate::provider::setting::Setting;
use crate::provider::setting::SettingMember;
use crate::provider::setting::SettingValue;
use crate::signing::algorithm::KeyType;
use crate::signing::key_material::KeyStatement;
use crate::token::lease::Lease;

/// The most bytes of a body that are copied. A longer body is left out.
pub const MOST_RECORDED_BODY: usize = 64 * 1024;
/// The most exchanges of a provider that are copied at once.
const MOST_OPEN: usize = 32;
/// The most exchanges of a provider that wait for the thread that writes.
const MOST_WAITING: usize = 64;
/// So many exchanges of one route, method and status are taken at once; then one a second.
const FIRST: u32 = 64;
/// The pause between two exchanges after that, in milliseconds.
const PAUSE: u64 = 1000;
/// The most combinations of route, method and status that are told apart.
const MOST_SHAPES: usize = 1024;

/// `[provider.NAME.record]`: where a provider's exchanges are recorded, and how many.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecordSettings {
    /// The folder of the recordings.
    pub folder: PathBuf,
    /// The most exchanges that are kept of one call with one kind of answer.
    pub per_call: usize,
    /// The most exchanges that are kept in all.
    pub exchanges: usize,
    /// Path segments, and names of members whose plain values are kept, beside the usual ones.
    pub keep: Vec<String>,
}

/// The recording of one provider. Nothing is recorded before a channel is put in.
pub struct Recording {
    /// The settings.
    pub settings: RecordSettings,
    channel: OnceLock<RecordingChannel>,
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Recording {
    /// A recording with these settings, to which nothing listens yet.
    pub const fn new(settings: RecordSettings) -> Self {
        Self { settings, channel: OnceLock::new() }
    }

    /// Connects it with the thread that writes. The first channel stays.
    pub fn connect(&self, channel: RecordingChannel) {
        let _already = self.channel.set(channel);
    }

    /// Begins to copy an exchange; `None` if it is not to be recorded.
    pub fn begin(&self, route: &str, method: &Method, status: StatusCode, now: Now) -> Option<RecordingTurn> {
        let channel = self.channel.get()?;
        if !channel.gate.admits((route, method.as_str(), status.as_u16()), now) {
            return None;
        }
        if channel.open.fetch_add(1, Ordering::Relaxed) >= MOST_OPEN {
            channel.open.fetch_sub(1, Ordering::Relaxed);
            channel.dropped.inc();
            return None;
        }
        Some(RecordingTurn { channel: channel.clone() })
    }
}

/// The way to the thread that writes a provider's recording.
#[derive(Clone)]
pub struct RecordingChannel {
    sender: SyncSender<Box<RecordedExchange>>,
    gate: Arc<RecordingGate>,
    open: Arc<AtomicUsize>,
    dropped: Counter,
}

impl fmt::Debug for RecordingChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingChannel").finish_non_exhaustive()
    }
}

impl RecordingChannel {
    /// A channel and its end. `dropped` counts exchanges that found no room.
    pub fn open(dropped: Counter) -> (Self, Receiver<Box<RecordedExchange>>) {
        let (sender, receiver) = sync_channel(MOST_WAITING);
        (Self { sender, gate: Arc::default(), open: Arc::default(), dropped }, receiver)
    }
}

/// Permission to copy one exchange. It counts as open until this is dropped.
pub struct RecordingTurn {
    channel: RecordingChannel,
}

impl RecordingTurn {
    /// Hands the exchange over, or counts it as dropped.
    fn hand_over(&self, exchange: Box<RecordedExchange>) {
        if self.channel.sender.try_send(exchange).is_err() {
            self.channel.dropped.inc();
        }
    }
}

impl Drop for RecordingTurn {
    fn drop(&mut self) {
        self.channel.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Decides which exchanges are copied at all: the first of each route, method and status, then one a second.
#[derive(Default)]
struct RecordingGate(Mutex<HashMap<u64, Admissions>>);

#[derive(Default)]
struct Admissions {
    taken: u32,
    last: u64,
}

impl RecordingGate {
    fn admits(&self, shape: impl Hash, now: Now) -> bool {
        let mut hasher = DefaultHasher::new();
        shape.hash(&mut hasher);
        let mut known = match self.0.try_lock() {
            Ok(known) => known,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Another worker looks: this request does not wait for it.
            Err(TryLockError::WouldBlock) => return false,
        };
        let shape = hasher.finish();
        if known.len() >= MOST_SHAPES && !known.contains_key(&shape) {
            return false;
        }
        let admissions = known.entry(shape).or_default();
        let admits = admissions.taken < FIRST || now.boot.saturating_sub(admissions.last) >= PAUSE;
        if admits {
            admissions.taken = admissions.taken.saturating_add(1);
            admissions.last = now.boot;
        }
        admits
    }
}

/// The kind of a recorded exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RecordedKind {
    /// A call of a login: the token request, or one of the steps before it.
    Token {
        /// The number of steps that were answered before.
        step: usize,
    },
    /// A call of the application, and what its answer proved.
    Resource(Verdict),
}

/// One exchange as it happened, with all its secrets. It lives in memory only.
pub struct RecordedExchange {
    /// The module that made or judged it.
    pub module: Arc<Module>,
    pub kind: RecordedKind,
    pub method: Method,
    /// Path and query.
    pub target: SecretString,
    pub request_headers: HeaderMap,
    /// The request's body; `None`: it is too long or was not kept.
    pub request_body: Option<Zeroizing<Vec<u8>>>,
    /// The credentials that it carried.
    pub credentials: Vec<SecretString>,
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The answer's body as it came; `None`: it is too long or broke off.
    pub body: Option<Zeroizing<Vec<u8>>>,
    /// When the answer began.
    pub at: Now,
}

impl fmt::Debug for RecordedExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedExchange")
            .field("kind", &self.kind)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// An exchange that is being copied while its answer streams.
pub struct RecordingCopy {
    turn: RecordingTurn,
    exchange: Box<RecordedExchange>,
}

impl RecordingCopy {
    /// Begins with an empty body.
    pub fn new(turn: RecordingTurn, mut exchange: Box<RecordedExchange>) -> Self {
        exchange.body = Some(Zeroizing::default());
        Self { turn, exchange }
    }

    /// Copies a piece of the answer's body. A body that grows too long is given up.
    pub fn piece(&mut self, piece: &[u8]) {
        if let Some(body) = &mut self.exchange.body {
            if body.len() + piece.len() > MOST_RECORDED_BODY {
                self.exchange.body = None;
            } else {
                body.extend_from_slice(piece);
            }
        }
    }

    /// Hands the whole exchange over.
    pub fn finish(self) {
        self.turn.hand_over(self.exchange);
    }
}

/// The credentials of a lease, whole and without their scheme.
pub fn credentials_of(lease: &Lease) -> Vec<SecretString> {
    let values = lease.credentials.iter().filter_map(|(_, value)| value.to_str().ok());
    values
        .flat_map(|value| [Some(value), value.split_once(' ').map(|(_, token)| token)])
        .flatten()
        .map(SecretString::from)
        .collect()
}

/// A setting of a module, for a recording.
#[derive(Debug)]
pub struct RecordedSetting {
    /// Its name.
    pub name: Arc<str>,
    pub value: RecordedValue,
}

/// What a recording has to know of a setting's value.
#[derive(Debug)]
pub enum RecordedValue {
    /// A private key.
    Key {
        kind: KeyType,
        /// Its name at the bank.
        id: Option<SecretString>,
        /// True if there is a certificate.
        certificate: bool,
    },
    Text {
        value: SecretString,
        /// True if the profile says that it is secret.
        secret: bool,
        /// The pattern that the value must match.
        pattern: Option<String>,
        default: Option<String>,
    },
    /// Anything else: it has no stand-in.
    Other,
}

impl Module {
    /// The module's settings.
    pub fn recorded_settings(&self) -> Vec<RecordedSetting> {
        let value = |declared: &Setting| match self.settings.find(&declared.name)? {
            SettingValue::Key(key) => Some(RecordedValue::Key {
                kind: key.key_type(),
                id: key.id().map(SecretString::from),
                certificate: key.statement(KeyStatement::Serial).is_some(),
            }),
            SettingValue::PublicKeys(_) | SettingValue::Table(_) => Some(RecordedValue::Other),
            SettingValue::Text(value) => Some(RecordedValue::Text {
                value: value.clone(),
                secret: declared.secret,
                pattern: declared.pattern.as_ref().map(|pattern| pattern.text.clone()),
                default: declared.default.clone(),
            }),
        };
        let recorded =
            |declared: &Setting| Some(RecordedSetting { name: declared.name.clone(), value: value(declared)? });
        self.profile.settings.iter().filter_map(recorded).collect()
    }

    /// All settings that are texts, and whether each is secret. Defaults of the profile are not among them.
    pub fn setting_texts(&self) -> Vec<(SecretString, bool)> {
        let mut found: Vec<_> = self.secrets.iter().map(|secret| (secret.clone(), true)).collect();
        for declared in &self.profile.settings {
            match self.settings.find(&declared.name) {
                Some(SettingValue::Text(value)) if declared.default.as_deref() != Some(value.expose_secret()) => {
                    found.push((value.clone(), declared.secret));
                }
                Some(SettingValue::Table(members)) => {
                    found.extend(members.iter().filter_map(|(_, member)| match member {
                        SettingMember::Text(text) => Some((text.clone(), true)),
                        SettingMember::Var { .. } => None,
                    }));
                }
                Some(SettingValue::Key(key)) => found.extend(key.id().map(|id| (SecretString::from(id), false))),
                Some(_) | None => {}
            }
        }
        found
    }

    /// The number of steps before the token request.
    pub fn login_steps(&self) -> usize {
        self.steps.len()
    }

    /// Returns whether a `token_url` must be configured.
    pub fn wants_token_url(&self) -> bool {
        self.profile.wants_token_url()
    }

    /// The name of its profile.
    pub fn profile_name(&self) -> &str {
        self.profile.name()
    }

    /// The lifetime of tokens whose answer does not say it.
    pub fn default_life(&self) -> Option<std::time::Duration> {
        self.default_ttl
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(ms: u64) -> Now {
        Now::at(ms, 0)
    }

    #[test]
    fn the_gate_takes_the_first_then_one_a_second_of_each_shape() {
        let gate = RecordingGate::default();
        let admitted = (0..1000).filter(|_| gate.admits(("route", "GET", 200), now(5))).count();
        assert_eq!(admitted, FIRST as usize);
        assert!(gate.admits(("route", "GET", 404), now(5)), "another shape has its own count");
        assert!(!gate.admits(("route", "GET", 200), now(1004)));
        assert!(gate.admits(("route", "GET", 200), now(1005)));
        assert!(!gate.admits(("route", "GET", 200), now(1006)));
    }

    #[test]
    fn without_a_channel_nothing_is_recorded_and_turns_are_bounded() {
        let settings = RecordSettings { folder: "r".into(), per_call: 1, exchanges: 1, keep: Vec::new() };
        let recording = Recording::new(settings);
        let begin = |recording: &Recording| recording.begin("r", &Method::GET, StatusCode::OK, now(0));
        assert!(begin(&recording).is_none());
        let dropped = Counter::default();
        let (channel, _receiver) = RecordingChannel::open(dropped.clone());
        recording.connect(channel);
        let turns: Vec<_> = (0..MOST_OPEN + 3).map(|_| begin(&recording)).collect();
        assert_eq!(turns.iter().flatten().count(), MOST_OPEN);
        assert_eq!(dropped.get(), 3);
        drop(turns);
        assert!(begin(&recording).is_some(), "ended turns make room");
    }
}

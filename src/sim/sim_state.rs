//! The state of one simulator, shared between its own thread and the handle.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::secret::{ExposeSecret, SecretString};
use crate::base::time::{Clock, Now};
use crate::sim::bank_file::{BankFile, DrawnSettings};
use crate::sim::call::{Bearer, SimCall, SimEndpoint};
use crate::sim::credentials::Credentials;
use crate::sim::faults::{Faults, Spell};
use crate::sim::issued_tokens::{Binding, IssuedTokens, TokenStanding};
use crate::sim::member::BankSpec;
use crate::sim::received::{ReceivedLog, ReceivedRequest};

/// The most connections whose bytes are kept, and the most bytes of each.
const WIRES: usize = 256;
const WIRE_BYTES: usize = 256 << 10;

/// The most names that each of a bank's own memories holds.
const NAMES: usize = 100_000;

/// Event counts of one simulator, which the handle reads.
#[derive(Default)]
pub(super) struct Counters {
    pub connections: AtomicU64,
    pub open_connections: AtomicU64,
    pub failed_handshakes: AtomicU64,
    pub token_calls: AtomicU64,
    pub resource_calls: AtomicU64,
}

/// All state of one simulator, shared between its thread and the handle.
pub(super) struct SimState {
    pub member: &'static BankSpec,
    pub credentials: Credentials,
    /// The file of a bank that one describes.
    pub described: Option<&'static BankFile>,
    /// The settings of such a bank.
    pub drawn: DrawnSettings,
    pub clock: Clock,
    pub counters: Counters,
    /// Signs tokens, where they are signed.
    pub signing_key: aws_lc_rs::hmac::Key,
    faults: Mutex<Arc<Spell>>,
    ledger: Mutex<IssuedTokens>,
    log: Mutex<ReceivedLog>,
    payments: Mutex<BTreeMap<String, u64>>,
    violations: Mutex<Vec<String>>,
    records: Mutex<HashMap<String, BankRecord>>,
    rates: Mutex<HashMap<String, (u64, u32)>>,
    visits: Mutex<HashMap<String, u64>>,
    wires: Option<Mutex<BTreeMap<u64, Vec<u8>>>>,
}

/// A token as it is handed out.
pub(super) struct Issued {
    pub token: String,
    /// Its true life, in whole seconds.
    pub life: u64,
}

/// Something a bank remembers by an identifier of its own making.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum BankRecord {
    /// An authorization code, with whose it is, when it was given and on which terms.
    Code { user: String, given: Now, terms: Terms },
    /// A consent that was asked for and not yet given, with the query that was asked with.
    Consent { query: String },
    /// A refresh token, with whose it is, when it was given and on which terms.
    Refresh { user: String, given: Now, terms: Terms },
    /// A code or refresh token that was used, with whose it was.
    Used { user: String },
    /// A transaction that a status call may ask for.
    Transaction,
}

/// The data that an authorization code is bound to (RFC 6749 section 4.1.3, RFC 7636 section 4.4).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Terms {
    /// The scope of the authorization request; `None` if it named none.
    pub scope: Option<String>,
    /// The redirect URI to which the code was sent.
    pub redirect_uri: String,
    /// The S256 challenge; empty: none.
    pub challenge: String,
    /// The refresh token that this one came for, where that is good until this one is used; empty: none.
    pub came_for: String,
}

impl SimState {
    pub(super) fn new(
        member: &'static BankSpec,
        credentials: Credentials,
        (described, drawn): (Option<&'static BankFile>, DrawnSettings),
        clock: Clock,
        faults: Faults,
        received_limit: usize,
        record_wire: bool,
    ) -> Self {
        Self {
            member,
            credentials,
            described,
            drawn,
            clock,
            counters: Counters::default(),
            signing_key: aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()),
            faults: Mutex::new(Arc::new(Spell::new(faults))),
            ledger: Mutex::default(),
            log: Mutex::new(ReceivedLog::new(received_limit)),
            payments: Mutex::default(),
            violations: Mutex::default(),
            records: Mutex::default(),
            rates: Mutex::default(),
            visits: Mutex::default(),
            wires: record_wire.then(Mutex::default),
        }
    }

    pub(super) fn faults(&self) -> Arc<Spell> {
        held(&self.faults).clone()
    }

    /// Replaces the faults; counting of those who meet them starts anew.
    pub(super) fn set(&self, faults: Faults) {
        *held(&self.faults) = Arc::new(Spell::new(faults));
    }

    pub(super) fn count(&self, endpoint: SimEndpoint) {
        let count = match endpoint {
            SimEndpoint::Resource => &self.counters.resource_calls,
            SimEndpoint::Token => &self.counters.token_calls,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Files a new token; `fresh` makes its text from the moment and its life in seconds.
    pub(super) fn issue(&self, call: &SimCall, binding: Binding, fresh: impl FnOnce(u64) -> String) -> Issued {
        let issue = &call.faults.issue;
        let life = issue.life.unwrap_or(self.member.life);
        let token =
            issue.token.as_ref().map_or_else(|| fresh(life.as_secs()), |token| token.expose_secret().to_owned());
        held(&self.ledger).issue(&token, binding, call.now, life, issue.single);
        Issued { token, life: life.as_secs() }
    }

    /// Returns the standing of the token on a call.
    pub(super) fn standing(&self, call: &SimCall) -> PresentedToken {
        self.standing_of(call, call.bearer())
    }

    /// The same of a token that was presented under any scheme.
    pub(super) fn standing_of(&self, call: &SimCall, presented: Bearer<'_>) -> PresentedToken {
        match presented {
            Bearer::Absent => PresentedToken::Nothing,
            Bearer::Malformed => PresentedToken::Malformed,
            Bearer::Token(token) => PresentedToken::Token(held(&self.ledger).standing(token, call.now)),
        }
    }

    pub(super) fn revoke_all(&self) -> usize {
        held(&self.ledger).revoke_all(self.clock.now())
    }

    /// A user's tokens, codes and refresh tokens die at once. Answers how many access tokens did.
    pub(super) fn withdraw(&self, user: &str) -> usize {
        held(&self.records).retain(|_, record| match record {
            BankRecord::Code { user: whose, .. }
            | BankRecord::Refresh { user: whose, .. }
            | BankRecord::Used { user: whose } => whose != user,
            BankRecord::Consent { .. } | BankRecord::Transaction => true,
        });
        held(&self.ledger).revoke_user(user, self.clock.now())
    }

    pub(super) fn issued(&self) -> Vec<SecretString> {
        held(&self.ledger).issued()
    }

    pub(super) fn issued_count(&self) -> u64 {
        held(&self.ledger).count()
    }

    pub(super) fn record(&self, received: ReceivedRequest) {
        held(&self.log).push(received);
    }

    pub(super) fn received(&self) -> Vec<Arc<ReceivedRequest>> {
        held(&self.log).all()
    }

    pub(super) fn forget_received(&self) {
        held(&self.log).clear();
    }

    /// Books a payment. Answers how often this one has been booked now.
    pub(super) fn pay(&self, id: &str) -> u64 {
        let mut payments = held(&self.payments);
        if payments.len() >= NAMES && !payments.contains_key(id) {
            payments.pop_first();
        }
        let count = payments.entry(id.to_owned()).or_default();
        *count += 1;
        *count
    }

    pub(super) fn payments(&self) -> BTreeMap<String, u64> {
        held(&self.payments).clone()
    }

    /// Notes that the caller did what the bank's rules forbid although the bank serves it.
    pub(super) fn violation(&self, what: &str) {
        let mut violations = held(&self.violations);
        if violations.len() < 1000 {
            violations.push(what.to_owned());
        }
    }

    pub(super) fn violations(&self) -> Vec<String> {
        held(&self.violations).clone()
    }

    pub(super) fn remember(&self, id: String, record: BankRecord) {
        let mut records = held(&self.records);
        if records.len() >= NAMES {
            records.clear();
        }
        records.insert(id, record);
    }

    pub(super) fn recall(&self, id: &str) -> Option<BankRecord> {
        held(&self.records).get(id).cloned()
    }

    pub(super) fn forget(&self, id: &str) -> Option<BankRecord> {
        held(&self.records).remove(id)
    }

    /// Counts a call and reports whether it stays within so many per second for its path.
    pub(super) fn within_rate(&self, path: &str, per_second: u32, now: Now) -> bool {
        let mut rates = held(&self.rates);
        if rates.len() >= NAMES {
            rates.clear();
        }
        let (second, count) = rates.entry(path.to_owned()).or_default();
        if *second != now.unix_seconds() {
            (*second, *count) = (now.unix_seconds(), 0);
        }
        *count = count.saturating_add(1);
        *count <= per_second
    }

    /// Counts a call of this path and returns its number, from 1.
    pub(super) fn nth(&self, path: &str) -> u64 {
        let mut visits = held(&self.visits);
        if visits.len() >= NAMES {
            visits.clear();
        }
        let count = visits.entry(path.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Keeps bytes that a connection brought, if that was asked for.
    pub(super) fn tap(&self, connection: u64, bytes: &[u8]) {
        let Some(wires) = &self.wires else { return };
        let mut wires = held(wires);
        if wires.len() >= WIRES && !wires.contains_key(&connection) {
            wires.pop_first();
        }
        let wire = wires.entry(connection).or_default();
        let room = WIRE_BYTES.saturating_sub(wire.len());
        wire.extend(bytes.iter().take(room));
    }

    pub(super) fn wire(&self, connection: u64) -> Vec<u8> {
        self.wires.as_ref().and_then(|wires| held(wires).get(&connection).cloned()).unwrap_or_default()
    }

    /// `text` without any secret of this bank.
    pub(super) fn mask(&self, text: &str) -> String {
        held(&self.ledger).mask(&self.drawn.mask(&self.credentials.mask(text)))
    }
}

/// The token that a call presents, or its absence.
pub(super) enum PresentedToken {
    /// Something that is not a bearer token.
    Malformed,
    /// No `Authorization` field, or one with another scheme.
    Nothing,
    /// A token, and what it is worth.
    Token(TokenStanding),
}

impl PresentedToken {
    /// Returns the data that a live token was issued for; `None` for any other.
    pub(super) fn alive(self) -> Option<Binding> {
        match self {
            PresentedToken::Token(TokenStanding::Alive(binding)) => Some(binding),
            PresentedToken::Token(TokenStanding::Expired | TokenStanding::Revoked | TokenStanding::Unknown)
            | PresentedToken::Malformed
            | PresentedToken::Nothing => None,
        }
    }
}

/// Locks the mutex, even if a holder panicked: the guarded value is whole between any two statements.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

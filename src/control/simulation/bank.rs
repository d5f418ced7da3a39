//! The banks' books: which tokens, refresh tokens, codes and consents there are, and what is known of each.
//!
//! It knows the whole truth, so most promises are checked here: on each call that comes in, and on each token that is
//! sent.

use std::collections::BTreeMap;

/// The outcome of one simulated call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// It is answered as it should be.
    Fine,
    /// Done; the answer is no JSON.
    Garbage,
    /// Done; the answer breaks off in the middle.
    Half,
    /// Done; the access token has no life.
    Lifeless,
    /// Done; the access token is of an unknown type.
    OddType,
    /// Not done: 401 or 403.
    Rejected,
    /// Done; the connection breaks before the answer.
    ResetAfter,
    /// Not done: the connection breaks.
    ResetBefore,
    /// Not carried out: the response is a 500.
    ServerError,
    /// Carried out, but no response ever follows.
    SilentAfter,
    /// Not carried out, and no response ever follows.
    SilentBefore,
    /// Done and answered after some seconds.
    Slow,
    /// Not done: 429, with or without `Retry-After`.
    TooMany,
    /// Not done: 503, with or without `Retry-After`.
    Unavailable,
}

impl Fate {
    /// All fates but the good one. Fates that cost only time are listed more than once.
    pub(super) const FAULTS: [Self; 16] = [
        Self::Garbage,
        Self::Half,
        Self::Lifeless,
        Self::OddType,
        Self::Rejected,
        Self::ResetAfter,
        Self::ResetBefore,
        Self::ServerError,
        Self::SilentAfter,
        Self::SilentBefore,
        Self::SilentBefore,
        Self::Slow,
        Self::Slow,
        Self::TooMany,
        Self::TooMany,
        Self::Unavailable,
    ];
}

/// So much later than it was issued a token may be taken over from the store, in milliseconds.
const TAKEN_OVER: u64 = 5_000;

/// To whom an access token was issued.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TokenOwner {
    Application,
    /// A user, by a consent.
    User {
        user: usize,
        consent: usize,
    },
}

/// An access token that a bank issued.
#[derive(Debug)]
pub(super) struct BankToken {
    pub(super) host: String,
    pub(super) owner: TokenOwner,
    /// The process that asked for it, and by how much its wall clock was wrong then.
    pub(super) process: u32,
    pub(super) error: i64,
    /// When all of the bank's servers know it, and when it dies, in milliseconds of the run.
    pub(super) known: u64,
    pub(super) expires: u64,
    /// True if the bank refuses the token.
    pub(super) revoked: bool,
    /// True if the bank refused it once, even before it knew it: then another one may be asked for.
    pub(super) doubted: bool,
    /// When it was issued, in milliseconds of the run, and what it was asked for with.
    pub(super) issued: u64,
    pub(super) asked_with: String,
}

/// The delivery state of the response that carried a refresh token's successor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum RefreshDelivery {
    /// It is on its way.
    Awaited,
    /// This process had it, at this moment.
    Delivered { process: u32, at: u64 },
    /// No process ever had it.
    Lost,
}

#[derive(Debug)]
pub(super) struct BankRefreshToken {
    pub(super) consent: usize,
    pub(super) expires: u64,
    /// Calls with it that are on the wire.
    pub(super) flying: u32,
    /// Once it is spent: what became of the answer.
    pub(super) spent: Option<RefreshDelivery>,
    /// The last refresh that was made with it, answered and good.
    pub(super) renewed: Option<Renewed>,
}

/// A refresh that was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renewed {
    /// When, in milliseconds of the run.
    pub(super) at: u64,
    /// The access token that it brought.
    pub(super) access: Option<usize>,
    /// The process that was told, and when.
    pub(super) process: u32,
    pub(super) told: u64,
}

/// A user's consent, as the bank sees it.
#[derive(Debug)]
pub(super) struct BankConsent {
    pub(super) user: usize,
    pub(super) host: String,
    pub(super) alive: bool,
    /// The refresh token that was issued last.
    pub(super) refresh: Option<usize>,
    /// Reason for which it may be lost without an error of the code under test.
    pub(super) excuse: Option<&'static str>,
}

/// An authorization code that a bank issued.
#[derive(Debug)]
pub(super) struct BankCode {
    pub(super) user: usize,
    pub(super) host: String,
    pub(super) spent: bool,
}

/// Until when a process must not ask again, and what for.
#[derive(Clone, Debug)]
pub(super) struct Floor {
    pub(super) since: u64,
    pub(super) until: u64,
    pub(super) why: String,
}

/// The records of all simulated banks.
#[derive(Debug, Default)]
pub(super) struct SimulatedBanks {
    pub(super) tokens: Vec<BankToken>,
    pub(super) refreshes: Vec<BankRefreshToken>,
    pub(super) consents: Vec<BankConsent>,
    pub(super) codes: Vec<BankCode>,
    /// Fetches of applications' tokens on the wire, by process and what they ask for.
    pub(super) fetching: BTreeMap<(u32, String), u32>,
    /// Rests that were asked for, likewise.
    pub(super) floors: BTreeMap<(u32, String), Floor>,
    /// Number of calls that are on the wire now.
    pub(super) flying: u32,
    /// Number of calls since the run began.
    pub(super) calls: u32,
}

impl SimulatedBanks {
    /// Records an access token and returns its name, `access-N`.
    pub(super) fn issue(&mut self, token: BankToken) -> String {
        self.tokens.push(token);
        format!("access-{}", self.tokens.len() - 1)
    }

    /// Records a refresh token as the latest of its consent, and returns its name, `refresh-N`.
    pub(super) fn issue_refresh(&mut self, consent: usize, expires: u64) -> String {
        self.refreshes.push(BankRefreshToken { consent, expires, flying: 0, spent: None, renewed: None });
        let number = self.refreshes.len() - 1;
        self.consents[consent].refresh = Some(number);
        format!("refresh-{number}")
    }

    /// Gives a code to a user who agreed.
    pub(super) fn agree(&mut self, user: usize, host: &str) -> String {
        self.codes.push(BankCode { user, host: host.to_owned(), spent: false });
        format!("code-{}", self.codes.len() - 1)
    }

    /// Ends a consent, with all that came of it.
    pub(super) fn kill(&mut self, consent: usize) {
        self.consents[consent].alive = false;
        for token in &mut self.tokens {
            let of = matches!(token.owner, TokenOwner::User { consent: other, .. } if other == consent);
            token.revoked = token.revoked || of;
        }
    }

    /// Takes the tokens of the application away.
    pub(super) fn revoke_applications(&mut self, host: &str) {
        for token in self.tokens.iter_mut().filter(|token| token.host == host && token.owner == TokenOwner::Application)
        {
            token.revoked = true;
        }
    }

    /// A process must not ask again before this moment.
    pub(super) fn rest(&mut self, process: u32, key: String, floor: Floor) {
        let known = self.floors.entry((process, key)).or_insert_with(|| floor.clone());
        if known.until < floor.until {
            *known = floor;
        }
    }

    /// Returns whether another process was given a token for this credential since shortly before the rest began. A process
    /// that took it over, sent or not, has seen that the credential is good.
    pub(super) fn cured(&self, process: u32, key: &str, floor: &Floor) -> bool {
        self.tokens
            .iter()
            .rev()
            .take_while(|token| token.issued + TAKEN_OVER >= floor.since)
            .any(|token| token.process != process && token.asked_with == key)
    }

    /// A process sends this token: if it was given to another, that ends a rest as well.
    pub(super) fn held(&mut self, token: usize, process: u32) {
        let BankToken { process: given, asked_with, .. } = &self.tokens[token];
        if *given != process {
            self.floors.remove(&(process, asked_with.clone()));
        }
    }

    /// Returns whether a token is valid for a call to this host now.
    pub(super) fn accepts(&self, token: usize, host: &str, now: u64) -> bool {
        let found = self.tokens.get(token);
        found.is_some_and(|token| token.host == host && !token.revoked && (token.known..token.expires).contains(&now))
    }
}

/// The number behind a name such as `access-7`.
pub(super) fn number(text: &str, kind: &str) -> Option<usize> {
    text.strip_prefix(kind)?.strip_prefix('-')?.parse().ok()
}

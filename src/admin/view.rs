//! What the admin API says, in types of its own: a change inside never changes the API by accident.

use serde::Serialize;

use crate::base::time::{Now, rfc3339};
use crate::control::{Ledger, LedgerLine, Line};

/// `GET /api/v1/tokens`.
#[derive(Serialize)]
pub struct Tokens {
    tokens: Vec<Token>,
}

/// `GET /api/v1/consents`.
#[derive(Serialize)]
pub struct ConsentList {
    consents: Vec<ConsentLine>,
}

/// One user's consent. Moments are RFC 3339.
#[derive(Serialize)]
struct ConsentLine {
    provider: String,
    /// `client` or `group`.
    owner_kind: &'static str,
    owner: String,
    user: String,
    state: &'static str,
    consented_at: String,
    access_expires_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_expires_at: Option<String>,
}

/// The consents as the API shows them.
pub fn consents(lines: &[Line]) -> ConsentList {
    let shown = |line: &Line| ConsentLine {
        provider: line.key.provider.to_string(),
        owner_kind: line.key.owner.kind(),
        owner: line.key.owner.name().to_owned(),
        user: line.key.user.to_string(),
        state: if line.alive { "live" } else { "consent-required" },
        consented_at: rfc3339(line.consented),
        access_expires_at: rfc3339(line.access_expires),
        refresh_expires_at: line.refresh_expires.map(rfc3339),
    };
    ConsentList { consents: lines.iter().map(shown).collect() }
}

/// One token key. Moments are RFC 3339; ages are whole seconds.
#[derive(Serialize)]
struct Token {
    key: String,
    provider: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    renews_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rests_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<Failure>,
    failures: u32,
    waiters: usize,
    fetches: Fetches,
}

#[derive(Serialize)]
struct Failure {
    class: &'static str,
    reason: String,
    at: String,
}

#[derive(Serialize)]
struct Fetches {
    ok: u64,
    closed: u64,
    fatal: u64,
    rate_limited: u64,
    transient: u64,
}

/// The ledger as the API shows it.
pub fn tokens(ledger: &Ledger, now: Now) -> Tokens {
    Tokens { tokens: ledger.lines.iter().map(|line| token(line, now)).collect() }
}

fn token(line: &LedgerLine, now: Now) -> Token {
    let token = line.token.as_ref();
    Token {
        key: line.key.to_string(),
        provider: line.provider.to_string(),
        state: line.phase.as_str(),
        generation: token.map(|token| token.generation),
        fingerprint: token.map(|token| token.fingerprint.to_string()),
        issued_at: token.map(|token| rfc3339(token.issued)),
        age_seconds: token.map(|token| now.wall.saturating_sub(token.issued) / 1000),
        renews_at: token.and_then(|token| token.renews).map(rfc3339),
        expires_at: token.map(|token| rfc3339(token.expires)),
        rests_until: line.rest.as_ref().map(|rest| rfc3339(rest.until)),
        last_failure: line.last_failure.as_ref().map(|failure| Failure {
            class: failure.class.as_str(),
            reason: failure.inside.to_string(),
            at: rfc3339(failure.at),
        }),
        failures: line.failures,
        waiters: line.waiters,
        fetches: Fetches {
            ok: line.fetches.ok,
            closed: line.fetches.closed,
            fatal: line.fetches.fatal,
            rate_limited: line.fetches.rate_limited,
            transient: line.fetches.transient,
        },
    }
}

//! `GET /api/v1/tokens`: the tokens that were asked for.

use serde::Serialize;

use super::provider::FailureView;
use crate::base::time::{Now, rfc3339};
use crate::control::{FetchCounts, LedgerLine, TokenTable};

/// The response body of `GET /api/v1/tokens`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TokensView {
    pub tokens: Vec<TokenView>,
    /// Number of tokens that fit; there may be more than are listed.
    pub matching: usize,
    /// Number of all tokens.
    pub total: usize,
}

impl TokensView {
    pub(crate) fn of(ledger: &TokenTable, now: Now) -> Self {
        let (tokens, total) = (ledger.lines.iter().map(|line| TokenView::of(line, now)), ledger.lines.len());
        Self { tokens: tokens.collect(), matching: total, total }
    }
}

/// One token key. Moments are RFC 3339; ages are whole seconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TokenView {
    /// Name of the token: a digest of all that goes into fetching it. The paths of `refresh` and `purge` take it.
    pub key: String,
    pub provider: String,
    /// Phase of the token: `empty`, `fetching`, `live`, `renewing`, `holding`, `resting` or `settling`.
    pub state: &'static str,
    /// True if it is one of a former secret: calls that began before may still take it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub superseded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renews_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rests_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailureView>,
    /// Number of consecutive fetches that failed.
    pub failures: u32,
    /// Requests that wait for it now.
    pub waiters: usize,
    pub fetches: Fetches,
}

impl TokenView {
    pub(crate) fn of(line: &LedgerLine, now: Now) -> Self {
        let token = line.token.as_ref();
        Self {
            key: line.key.to_string(),
            provider: line.provider.to_string(),
            state: line.state().as_str(),
            superseded: line.superseded,
            generation: token.map(|token| token.generation),
            fingerprint: token.map(|token| token.fingerprint.to_string()),
            issued_at: token.map(|token| rfc3339(token.issued)),
            age_seconds: token.map(|token| now.wall.saturating_sub(token.issued) / 1000),
            renews_at: token.and_then(|token| token.renews).map(rfc3339),
            expires_at: token.map(|token| rfc3339(token.expires)),
            expires_in_seconds: token.map(|token| token.expires.saturating_sub(now.wall) / 1000),
            rests_until: line.rest.as_ref().map(|rest| rfc3339(rest.until)),
            last_failure: line.last_failure.as_ref().map(FailureView::of),
            failures: line.failures,
            waiters: line.waiters,
            fetches: Fetches::of(&line.fetches),
        }
    }
}

/// Fetches by how they ended.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Fetches {
    pub ok: u64,
    pub closed: u64,
    pub consent_required: u64,
    pub fatal: u64,
    pub rate_limited: u64,
    pub transient: u64,
}

impl Fetches {
    pub(crate) const fn of(tally: &FetchCounts) -> Self {
        let FetchCounts { ok, closed, consent, fatal, rate_limited, transient } = *tally;
        Self { ok, closed, consent_required: consent, fatal, rate_limited, transient }
    }
}

/// The response body of `DELETE /api/v1/tokens/{key}`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Purged {
    pub key: String,
    pub purged: bool,
}

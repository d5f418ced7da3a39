//! `GET /api/v1/providers`: the banks, and how their token endpoints are.

use serde::Serialize;

use super::token::Fetches;
use crate::base::time::{Now, rfc3339};
use crate::base::working_hours::WorkingHours;
use crate::control::LedgerFailure;
use crate::provider::ShadowCounts;
use crate::token::failure::FailureCause;

/// The response body of `GET /api/v1/providers`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProvidersView {
    pub providers: Vec<ProviderView>,
}

/// One provider, in the order of the config.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProviderView {
    pub name: String,
    pub profile: String,
    /// The origin that it is reached at, without the path: `https://api.bank.example`.
    pub base_url: String,
    /// The routes that use it.
    pub routes: Vec<String>,
    /// State of its token endpoint, judged by the tokens that were requested: `idle` (none was), `live`, `fetching`,
    /// `failing` (tokens are served, but a renewal failed), `resting` (no token, and none is requested for now), or
    /// `closed` (outside its working hours).
    pub state: &'static str,
    /// Tokens that can be spent now.
    pub live_tokens: usize,
    pub token_keys: usize,
    /// When the first of its live tokens expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_expiry: Option<String>,
    /// When its token endpoint is asked again after a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rests_until: Option<String>,
    /// When it opens by its calendar, or is asked again after it said that it is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_until: Option<String>,
    /// The hours that its config says; absent: it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<HoursView>,
    /// The latest failure of its token endpoint, cured or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailureView>,
    /// When its token endpoint began to fail; absent where the last token call for each key brought a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<String>,
    /// Number of fetches by outcome, over all tokens of the provider.
    pub fetches: Fetches,
    /// True if users can give a consent at this provider.
    pub consents: bool,
    /// The credentials that calls use, if the config has next ones: `current` or `next`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<&'static str>,
    /// When the certificate ends that we show to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_expires_at: Option<String>,
    /// Likewise, in whole days from now; negative once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_days_left: Option<i64>,
    /// What was found of the profile that is compared with its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowView>,
}

/// What was found of a provider's shadow since the config was read.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ShadowView {
    pub profile: String,
    /// Calls that both profiles dressed.
    pub compared: u64,
    /// Those of them in which something differs.
    pub differing: u64,
    /// The parts that differ, sorted by name.
    pub parts: Vec<ShadowPartView>,
    /// Differing parts that no call shows: of the token request, and signatures.
    pub unseen: Vec<String>,
}

/// A part of calls in which a shadow differs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ShadowPartView {
    /// Its name, as in `header x-request-id`.
    pub part: String,
    pub count: u64,
}

impl ShadowView {
    pub(crate) fn of(counts: &ShadowCounts) -> Self {
        let (compared, differing) = counts.calls();
        let (profile, unseen) = (counts.profile().to_string(), counts.unseen().to_vec());
        let parts = counts.parts().into_iter().map(|(part, count)| ShadowPartView { part, count }).collect();
        Self { profile, compared, differing, parts, unseen }
    }
}

/// The state of a provider by its calendar.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HoursView {
    pub open: bool,
    /// When it opens or closes next; absent if that is not within a year.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes_at: Option<String>,
}

impl HoursView {
    pub(crate) fn of(hours: &WorkingHours, now: Now) -> Self {
        let span = hours.span(now);
        Self { open: span.is_open, changes_at: span.until.map(rfc3339) }
    }
}

/// A failed call of a token endpoint.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FailureView {
    /// `closed`, `consent-required`, `fatal`, `rate-limited` or `transient`.
    pub class: &'static str,
    /// Cause of the failure, with the provider's own code if it gave one.
    pub reason: String,
    /// `clock`, `credentials`, `key` or `signature`: the part of the request that was at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    /// A sentence on what to do about that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<&'static str>,
    pub at: String,
}

impl FailureView {
    /// The reason, and the cure if one is known.
    pub(crate) fn told(&self) -> String {
        self.cure.map_or_else(|| self.reason.clone(), |cure| format!("{}; {cure}", self.reason))
    }

    pub(crate) fn of(failure: &LedgerFailure) -> Self {
        Self {
            class: failure.class.as_str(),
            reason: failure.inside.to_string(),
            cause: failure.cause.map(FailureCause::as_str),
            cure: failure.cause.map(FailureCause::cure),
            at: rfc3339(failure.at),
        }
    }
}

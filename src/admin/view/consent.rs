//! `GET /api/v1/consents`, and what starting and revoking one answers.

use serde::Serialize;

use crate::base::time::rfc3339;
use crate::control::{ConsentSummary, PendingSummary};

/// The response body of `GET /api/v1/consents`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ConsentsView {
    pub consents: Vec<ConsentView>,
    /// Consents that were started and wait for their users; those that end first come first.
    pub pending: Vec<PendingConsentView>,
}

impl ConsentsView {
    pub(crate) fn of(lines: &[ConsentSummary], pending: &[PendingSummary]) -> Self {
        Self {
            consents: lines.iter().map(ConsentView::of).collect(),
            pending: pending.iter().map(PendingConsentView::of).collect(),
        }
    }
}

/// A consent that was started and waits for its user. Moments are RFC 3339.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PendingConsentView {
    pub provider: String,
    /// Kind of the owner: `client` or `group`.
    pub owner_kind: &'static str,
    pub owner: String,
    /// The client for which it was started.
    pub client: String,
    /// As the application calls it: any text.
    pub user: String,
    pub started_at: String,
    /// When it is too late.
    pub expires_at: String,
}

impl PendingConsentView {
    fn of(pending: &PendingSummary) -> Self {
        Self {
            provider: pending.key.provider.to_string(),
            owner_kind: pending.key.owner.kind(),
            owner: pending.key.owner.name().to_owned(),
            client: pending.client.to_string(),
            user: pending.key.user.to_string(),
            started_at: rfc3339(pending.started),
            expires_at: rfc3339(pending.expires),
        }
    }
}

/// One user's consent. Moments are RFC 3339.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ConsentView {
    pub provider: String,
    /// Kind of the owner: `client` or `group`.
    pub owner_kind: &'static str,
    pub owner: String,
    /// As the application calls it: any text.
    pub user: String,
    /// State of the consent: `live` or `consent-required`.
    pub state: &'static str,
    pub consented_at: String,
    pub access_expires_at: String,
    /// Absent: the provider does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_expires_at: Option<String>,
}

impl ConsentView {
    fn of(line: &ConsentSummary) -> Self {
        Self {
            provider: line.key.provider.to_string(),
            owner_kind: line.key.owner.kind(),
            owner: line.key.owner.name().to_owned(),
            user: line.key.user.to_string(),
            state: if line.alive { "live" } else { "consent-required" },
            consented_at: rfc3339(line.consented),
            access_expires_at: rfc3339(line.access_expires),
            refresh_expires_at: line.refresh_expires.map(rfc3339),
        }
    }
}

/// The response body of `POST /api/v1/consents/start`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StartedView {
    pub consent_url: String,
    pub state: String,
    pub expires_at: String,
}

/// The response body of `POST /api/v1/consents/revoke`.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Revoked {
    /// True if there was a consent to revoke.
    pub revoked: bool,
}

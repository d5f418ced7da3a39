//! `GET /api/v1/status`: the process as a whole.

use serde::Serialize;

use super::LogLevelView;
use crate::base::time::{Now, rfc3339};
use crate::config::CertificateEnd;
use crate::control::{ReloadOutcome, Reloaded};
use crate::key_service::ServiceReport;
use crate::observe::audit::AuditReport;
use crate::secret_source::SourceReport;

/// The response body of `GET /api/v1/status`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StatusView {
    pub version: &'static str,
    /// This process among its replicas: drawn at each start.
    pub instance: String,
    /// The clock that everything else here was judged by.
    pub now: String,
    pub started_at: String,
    pub uptime_seconds: u64,
    /// True once the process has begun to end, also because a part of it has failed.
    pub draining: bool,
    /// The config in force: a digest of what it was read from, without secrets.
    pub config_digest: String,
    pub last_reload: ReloadView,
    pub log_level: LogLevelView,
    pub listeners: Vec<ListenerView>,
    pub counts: Counts,
    pub store: StoreView,
    /// The audit log; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditView>,
    /// Those that end first come first.
    pub certificates: Vec<CertificateView>,
    /// Tokens and key management services that hold keys.
    pub key_services: Vec<KeyServiceView>,
    /// Servers that secrets come from.
    pub secret_sources: Vec<SecretSourceView>,
}

/// A server that secrets come from.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SecretSourceView {
    /// Its name in the config.
    pub name: String,
    /// Its kind: `aws`, `kubernetes` or `vault`.
    pub kind: &'static str,
    /// Number of its secrets in use.
    pub secrets: usize,
    /// Those that could not be read again; their last values are in use.
    pub failing: usize,
    /// When the first of them could not be read; absent if none is failing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Reason for the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl SecretSourceView {
    pub(crate) fn of(report: SourceReport) -> Self {
        Self {
            name: report.name,
            kind: report.kind,
            secrets: report.secrets,
            failing: report.failing,
            since: report.failing_since.map(|since| rfc3339(since.wall)),
            reason: report.failure,
        }
    }
}

/// A key service.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct KeyServiceView {
    /// Its name, as in the metrics.
    pub service: String,
    /// State of its breaker: `closed`, `halted` or `open`.
    pub state: &'static str,
    /// When it opened; absent while it is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Reason for which it is not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Signatures since the start.
    pub signed: u64,
    /// Signatures that were asked for and not made.
    pub failed: u64,
}

impl KeyServiceView {
    pub(crate) fn of(report: ServiceReport) -> Self {
        let state = match (report.open_since, report.is_halted) {
            (None, _) => "closed",
            (Some(_), true) => "halted",
            (Some(_), false) => "open",
        };
        Self {
            service: report.title,
            state,
            since: report.open_since.map(|since| rfc3339(since.wall)),
            reason: report.failure,
            signed: report.signed,
            failed: report.failed,
        }
    }
}

/// The result of the last reload, or of the start.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReloadView {
    /// Result of the reload: `applied` or `refused`.
    pub outcome: &'static str,
    pub at: String,
    /// `start`, `signal`, `files`, `secrets`, `admin` or `admin:` and the name of a token.
    pub by: String,
    /// The config that holds since then.
    pub config_digest: String,
    /// Differences from the config before; empty if there are none, or if the config was refused.
    pub changes: Vec<String>,
    /// Mistakes in the config that was refused, for a person to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl ReloadView {
    pub(crate) fn of(reloaded: &Reloaded) -> Self {
        let (changes, error) = match &reloaded.outcome {
            ReloadOutcome::Applied(changes) => (changes.to_vec(), None),
            ReloadOutcome::Refused(error) => (Vec::new(), Some(error.to_string())),
        };
        Self {
            outcome: if reloaded.outcome.is_applied() { "applied" } else { "refused" },
            at: rfc3339(reloaded.at),
            by: reloaded.by.to_string(),
            config_digest: reloaded.digest.to_string(),
            changes,
            error,
        }
    }
}

/// A listener of the config, with its bound address.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ListenerView {
    pub name: String,
    /// Mode of the listener: `reverse`, `forward` or `callback`.
    pub mode: &'static str,
    /// Address that it is really bound to: `127.0.0.1:8443`, or `unix:/path`.
    pub address: String,
    pub tls: bool,
}

/// Numbers of configured items, of tokens and of workers.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Counts {
    pub listeners: usize,
    pub routes: usize,
    pub providers: usize,
    pub clients: usize,
    /// Names of tokens that were asked for, with a token or without.
    pub token_keys: usize,
    /// Tokens that can be spent now.
    pub live_tokens: usize,
    pub workers: usize,
}

/// The store of records and its health.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StoreView {
    /// Kind of the store: `memory`, `file` or `redis`.
    pub kind: &'static str,
    /// True if other instances see the records that are written here.
    pub shared: bool,
    pub healthy: bool,
    /// Reason for which it is not healthy; absent if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The audit log.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AuditView {
    /// The file, or `standard output`.
    pub to: String,
    /// Number and head of the last record that this process has on the disk; absent while there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// True while records cannot be written.
    pub failing: bool,
    /// Files that were deleted or replaced while this process wrote to them.
    pub files_lost: u64,
}

impl AuditView {
    pub(crate) fn of(report: AuditReport) -> Self {
        let AuditReport { to, head, failing, files_lost } = report;
        Self { to, head: head.map(|head| head.to_string()), failing, files_lost }
    }
}

/// A certificate file of the config, and its expiry.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CertificateView {
    /// The file as the config writes it.
    pub what: String,
    pub expires_at: String,
    /// Whole days from now; negative once it has ended.
    pub days_left: i64,
}

impl CertificateView {
    pub(crate) fn of(end: &CertificateEnd, now: Now) -> Self {
        let seconds = i64::try_from(now.unix_seconds()).unwrap_or(i64::MAX);
        let wall = u64::try_from(end.at).unwrap_or(0).saturating_mul(1000);
        let days_left = end.at.saturating_sub(seconds).div_euclid(86_400);
        Self { what: end.what.clone(), expires_at: rfc3339(wall), days_left }
    }
}

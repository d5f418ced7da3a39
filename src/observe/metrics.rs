//! Counters and histograms, resolved before a request comes and bumped without a lock.
//!
//! Names are a promise (see `docs/metrics.md`). Label values come from the config alone, never from a client.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

/// Upper bounds of the buckets, in seconds.
const BOUNDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Makes a struct of metrics. Each row is one metric: its field, type with labels, name and help text. They are
/// encoded in this order.
macro_rules! metrics {
    ($($field:ident: $kind:ty = $name:literal, $help:literal;)+) => {
        struct MetricTable {
            $($field: $kind,)+
        }

        impl MetricTable {
            /// Registers every metric, with the value zero.
            fn register(registry: &mut Registry) -> Self {
                $(
                    let $field = <$kind>::default();
                    registry.register($name, $help, $field.clone());
                )+
                Self { $($field,)+ }
            }
        }
    };
}

metrics! {
    requests: Family<RequestLabels, Counter> = "requests", "Requests answered";
    request_seconds: Family<RouteLabel, Histogram> =
        "request_duration_seconds", "From a request's head to its answer's end";
    upstream_seconds: Family<RouteLabel, Histogram> =
        "upstream_duration_seconds", "From sending a request on to the head of the provider's answer";
    replays: Family<OutcomeLabels, Counter> = "replays", "Requests whose token the provider refused, or whose proof lacked a nonce";
    unknown_refusals: Family<ProviderLabel, Counter> =
        "unknown_refusals", "401 answers that the profile does not know";
    reflections: Family<ProviderLabel, Counter> = "reflections", "Answers that held a credential";
    unopened: Family<ProviderLabel, Counter> =
        "unopened_answers", "Answers that were withheld, since they could not be decrypted or verified";
    shadow_calls: Family<ProviderLabel, Counter> =
        "shadow_calls", "Calls that were dressed by the shadow of a provider's profile, too";
    shadow_differences: Family<ShadowLabels, Counter> =
        "shadow_differences", "Parts of calls that the shadow of a provider's profile makes or judges differently";
    provider_limited: Family<ProviderLimitLabels, Counter> =
        "provider_limited", "Requests that were refused by a limit of their provider: hours, quota or token_budget";
    token_fetches: Family<OutcomeLabels, Counter> = "token_fetches", "Calls of token endpoints";
    token_seconds: Family<ProviderLabel, Histogram> = "token_fetch_duration_seconds", "Duration of token calls";
    promotions: Family<SlotLabels, Counter> =
        "credential_promotions", "Changes between a provider's current and next credentials, by those used since";
    token_expiry: Family<ProviderLabel, Gauge> =
        "token_expiry_timestamp_seconds", "When the provider's first live token expires";
    tokens: Family<ProviderLabel, Gauge> = "tokens", "Live tokens";
    consent_expiry: Family<ProviderLabel, Gauge> =
        "consent_expiry_timestamp_seconds", "When the first of a provider's users must consent again";
    connections: Family<ListenerLabel, Gauge> = "connections", "Open client connections";
    upstream_connections: Family<ProviderLabel, Gauge> = "upstream_connections", "Open connections to a provider";
    certificate_expiry: Family<WhatLabel, Gauge> =
        "certificate_expiry_timestamp_seconds", "When a configured certificate ends, or credentials whose end is written";
    blind_tunnels: Family<ListenerLabel, Gauge> = "blind_tunnels", "Open blind tunnels";
    tunnels: Family<TunnelLabels, Counter> = "tunnels", "CONNECT requests, by what became of them";
    reload_successful: Gauge =
        "config_last_reload_successful", "Whether the config was read without mistakes when last read";
    reload_time: Gauge =
        "config_last_reload_success_timestamp_seconds", "When the config in force was put in force";
    secrets_failing: Family<KindLabel, Gauge> =
        "secrets_failing", "Secrets that could not be had again when they were last looked for";
    limited: Family<LimitLabel, Counter> = "limited", "Connections and answers that ended at a limit";
    spans: Family<ExportLabels, Counter> = "spans", "Finished spans of traces, by what became of them";
    metric_points: Family<ExportLabels, Counter> =
        "metric_points", "Data points of exported metrics, by what became of them";
    log_records: Family<ExportLabels, Counter> =
        "log_records", "Lines of the log that are exported, by what became of them";
    key_service_up: Family<ServiceLabel, Gauge> =
        "key_service_up", "Whether a key service is asked for signatures";
    key_service_signatures: Family<ServiceOutcomeLabels, Counter> =
        "key_service_signatures", "Signatures that a key service was asked for";
    webhooks: Family<WebhookLabels, Counter> = "webhooks", "Calls of webhooks, by what became of them";
    recorded_exchanges: Family<OutcomeLabels, Counter> =
        "recorded_exchanges", "Exchanges of providers that are recorded, by what became of them";
    recording_changes: Family<ProviderLabel, Counter> =
        "recording_changes", "Differences between an answer and the recording of its call";
    audit_records: Counter = "audit_records", "Audit records that are on the disk";
    audit_lost: Counter = "audit_records_lost", "Audit records that were lost";
    audit_files_lost: Counter =
        "audit_files_lost", "Audit logs that were deleted or replaced while they were written to";
    audit_failing: Gauge = "audit_failing", "1 while audit records cannot be written";
}

/// Every metric of the process.
pub struct Metrics {
    registry: Registry,
    table: MetricTable,
    /// Providers that no config names any more.
    gone: Mutex<BTreeSet<String>>,
    /// The counters of `requests` that exist, since a family does not tell which.
    answers: Mutex<Vec<Answers>>,
}

/// One counter of finished requests.
struct Answers {
    labels: RequestLabels,
    counter: Counter,
}

/// The counters of one provider's recording.
#[derive(Clone, Debug, Default)]
pub struct RecordingMeters {
    /// Exchanges that are in the recording.
    pub written: Counter,
    /// Exchanges of which there were enough.
    pub known: Counter,
    /// Exchanges that might have told a secret.
    pub withheld: Counter,
    /// Exchanges that found no room.
    pub dropped: Counter,
    /// Differences between an answer and the recording of its call.
    pub changes: Counter,
}

/// The metrics of the audit log.
#[derive(Clone, Debug, Default)]
pub struct AuditMeters {
    /// Records that are on the disk.
    pub records: Counter,
    /// Records that were lost before they were written.
    pub lost: Counter,
    /// Files that were deleted or replaced while they were written to.
    pub files_lost: Counter,
    /// 1 while records cannot be written.
    pub failing: Gauge,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RequestLabels {
    listener: String,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RouteLabel {
    route: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ProviderLabel {
    provider: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ShadowLabels {
    provider: String,
    part: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct WhatLabel {
    what: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ListenerLabel {
    listener: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct WebhookLabels {
    webhook: String,
    outcome: &'static str,
}

/// The outcome of a call of a webhook.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WebhookOutcome {
    /// It was verified, and the application took it.
    Delivered,
    /// It was not looked at: its method, form or size, or a limit.
    Refused,
    /// It was verified, and the application answered with an error.
    Rejected,
    /// It was verified, and the application did not answer.
    Undelivered,
    /// Its signature did not hold.
    Unverified,
}

impl WebhookOutcome {
    /// Every outcome, once.
    pub const ALL: [WebhookOutcome; 5] = [
        WebhookOutcome::Delivered,
        WebhookOutcome::Refused,
        WebhookOutcome::Rejected,
        WebhookOutcome::Undelivered,
        WebhookOutcome::Unverified,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            WebhookOutcome::Delivered => "delivered",
            WebhookOutcome::Refused => "refused",
            WebhookOutcome::Rejected => "rejected",
            WebhookOutcome::Undelivered => "undelivered",
            WebhookOutcome::Unverified => "unverified",
        }
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct TunnelLabels {
    listener: String,
    kind: &'static str,
}

/// The outcome of a CONNECT request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TunnelKind {
    /// A tunnel whose bytes are passed through unread.
    Blind,
    /// Answered in the bank's stead.
    Intercepted,
    /// Refused: no tunnel was opened.
    Refused,
}

impl TunnelKind {
    const fn as_str(self) -> &'static str {
        match self {
            TunnelKind::Blind => "blind",
            TunnelKind::Intercepted => "intercepted",
            TunnelKind::Refused => "refused",
        }
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct LimitLabel {
    limit: &'static str,
}

/// A limit on what a peer may cost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// Connections to the admin listener.
    Admin,
    /// A client that takes nothing of an answer.
    ClientStalled,
    /// The setting `connections`: client connections of the whole process.
    Connections,
    /// The setting `connections_per_peer`: client connections of one peer.
    ConnectionsPerPeer,
    /// The setting `handshakes`: TLS handshakes in progress with clients.
    Handshakes,
    /// The setting `header_timeout`: a handshake or a request's head that took too long.
    HeaderTimeout,
    /// Tunnels that are being opened.
    Tunnels,
}

impl Limit {
    const ALL: [Limit; 7] = [
        Limit::Admin,
        Limit::ClientStalled,
        Limit::Connections,
        Limit::ConnectionsPerPeer,
        Limit::Handshakes,
        Limit::HeaderTimeout,
        Limit::Tunnels,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Limit::Admin => "admin",
            Limit::ClientStalled => "client_stalled",
            Limit::Connections => "connections",
            Limit::ConnectionsPerPeer => "connections_per_peer",
            Limit::Handshakes => "handshakes",
            Limit::HeaderTimeout => "header_timeout",
            Limit::Tunnels => "tunnels",
        }
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ExportLabels {
    outcome: &'static str,
}

/// The kinds of things that are sent to a collector.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExportedKind {
    LogRecords,
    MetricPoints,
    Spans,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ServiceLabel {
    service: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ServiceOutcomeLabels {
    service: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OutcomeLabels {
    provider: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct SlotLabels {
    provider: String,
    credentials: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ProviderLimitLabels {
    provider: String,
    limit: &'static str,
}

/// A limit that the config sets to calls of a provider.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProviderLimit {
    /// Its `hours`.
    Hours,
    /// One of its `quota`.
    Quota,
    /// Its `token_budget`.
    TokenBudget,
}

impl ProviderLimit {
    const fn as_str(self) -> &'static str {
        match self {
            ProviderLimit::Hours => "hours",
            ProviderLimit::Quota => "quota",
            ProviderLimit::TokenBudget => "token_budget",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Creates all metrics, with the value zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("countersign");
        let table = MetricTable::register(&mut registry);
        for limit in Limit::ALL {
            table.limited.get_or_create_owned(&LimitLabel { limit: limit.as_str() });
        }
        registry.register("build", "The running version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        Self { registry, table, gone: Mutex::default(), answers: Mutex::default() }
    }

    /// Everything in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        self.prune();
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut out, &self.registry);
        out
    }

    /// The meters of one route on one listener, for one worker.
    pub fn route(self: &Arc<Self>, listener: &str, route: &str, provider: &str) -> RouteMeters {
        let label = RouteLabel { route: route.to_owned() };
        let outcome = |outcome| {
            let labels = OutcomeLabels { provider: provider.to_owned(), outcome };
            self.table.replays.get_or_create_owned(&labels)
        };
        RouteMeters {
            metrics: self.clone(),
            listener: listener.to_owned(),
            route: route.to_owned(),
            by_status: RefCell::default(),
            duration: self.table.request_seconds.get_or_create_owned(&label),
            upstream: self.table.upstream_seconds.get_or_create_owned(&label),
            challenged: outcome("challenged"),
            replayed: outcome("replayed"),
            refused_again: outcome("refused-again"),
            not_replayed: outcome("not-replayed"),
            unknown_refusals: self
                .table
                .unknown_refusals
                .get_or_create_owned(&ProviderLabel { provider: provider.to_owned() }),
        }
    }

    /// Finished requests since the start: by route (empty: none was found), and the status that the client got (0: it
    /// hung up before). A pair comes once for each listener.
    pub fn answers(&self) -> Vec<(String, u16, u64)> {
        let known = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|Answers { labels, counter }| (labels.route.clone(), labels.status, counter.get())).collect()
    }

    /// The counter of these requests.
    fn answered(&self, labels: RequestLabels) -> Counter {
        let counter = self.table.requests.get_or_create_owned(&labels);
        let mut known = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.iter().any(|answers| answers.labels == labels) {
            known.push(Answers { labels, counter: counter.clone() });
        }
        counter
    }

    /// 401 answers of a provider that its profile does not know.
    pub fn unknown_refusals(&self, provider: &str) -> u64 {
        self.table.unknown_refusals.get_or_create_owned(&ProviderLabel { provider: provider.to_owned() }).get()
    }

    /// The counters of a provider's recording.
    pub fn recording(&self, provider: &str) -> RecordingMeters {
        let of = |outcome| {
            let labels = OutcomeLabels { provider: provider.to_owned(), outcome };
            self.table.recorded_exchanges.get_or_create_owned(&labels)
        };
        let changes =
            self.table.recording_changes.get_or_create_owned(&ProviderLabel { provider: provider.to_owned() });
        let (written, known) = (of("written"), of("known"));
        RecordingMeters { written, known, withheld: of("withheld"), dropped: of("dropped"), changes }
    }

    /// Returns handles to the audit log's metrics.
    pub fn audit(&self) -> AuditMeters {
        let MetricTable { audit_records, audit_lost, audit_files_lost, audit_failing, .. } = &self.table;
        AuditMeters {
            records: audit_records.clone(),
            lost: audit_lost.clone(),
            files_lost: audit_files_lost.clone(),
            failing: audit_failing.clone(),
        }
    }

    /// The gauge of one listener's open connections.
    pub fn connections(&self, listener: &str) -> Gauge {
        self.table.connections.get_or_create_owned(&ListenerLabel { listener: listener.to_owned() })
    }

    /// The gauge of the open connections to one provider.
    pub fn upstream_connections(&self, provider: &str) -> Gauge {
        self.table.upstream_connections.get_or_create_owned(&ProviderLabel { provider: provider.to_owned() })
    }

    /// The gauge of one forward listener's blind tunnels.
    pub fn tunnels(&self, listener: &str) -> Gauge {
        self.table.blind_tunnels.get_or_create_owned(&ListenerLabel { listener: listener.to_owned() })
    }

    /// Counts a CONNECT request of this listener by its outcome.
    pub fn tunnelled(&self, listener: &str, kind: TunnelKind) {
        let labels = TunnelLabels { listener: listener.to_owned(), kind: kind.as_str() };
        self.table.tunnels.get_or_create_owned(&labels).inc();
    }

    /// A connection or an answer ended at this limit.
    pub fn limited(&self, limit: Limit) {
        self.table.limited.get_or_create_owned(&LimitLabel { limit: limit.as_str() }).inc();
    }

    /// The config was read: when its certificates end, and that it is in force.
    pub fn configured<'a>(&self, certificates: impl IntoIterator<Item = (&'a str, i64)>) {
        self.table.certificate_expiry.clear();
        for (what, at) in certificates {
            self.table.certificate_expiry.get_or_create_owned(&WhatLabel { what: what.to_owned() }).set(at);
        }
        self.table.reload_successful.set(1);
    }

    /// A config was put in force at this moment, in milliseconds since 1970.
    pub fn config_in_force(&self, at: u64) {
        self.table.reload_time.set(i64::try_from(at / 1000).unwrap_or(i64::MAX));
    }

    /// A key service is asked for signatures, or is not because it does not answer.
    pub fn key_service(&self, service: &str, is_up: bool) {
        let label = ServiceLabel { service: service.to_owned() };
        self.table.key_service_up.get_or_create_owned(&label).set(i64::from(is_up));
    }

    /// No config names a key service of this title any more.
    pub fn key_service_goes(&self, service: &str) {
        self.table.key_service_up.remove(&ServiceLabel { service: service.to_owned() });
    }

    /// So many signatures of a key service were made, or failed, since the last call.
    pub fn signatures(&self, service: &str, made: u64, failed: u64) {
        for (outcome, count) in [("ok", made), ("failed", failed)] {
            let labels = ServiceOutcomeLabels { service: service.to_owned(), outcome };
            self.table.key_service_signatures.get_or_create_owned(&labels).inc_by(count);
        }
    }

    /// So many spans, data points or log records were `exported`, `dropped` because too many waited, or `failed` because no
    /// collector took them.
    pub fn exported(&self, what: ExportedKind, outcome: &'static str, count: u64) {
        if count > 0 {
            let counters = match what {
                ExportedKind::LogRecords => &self.table.log_records,
                ExportedKind::MetricPoints => &self.table.metric_points,
                ExportedKind::Spans => &self.table.spans,
            };
            counters.get_or_create_owned(&ExportLabels { outcome }).inc_by(count);
        }
    }

    /// A config with these providers is about to hold: what was forgotten of them counts again.
    pub fn providers_come<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let mut gone = self.gone();
        for name in names {
            gone.remove(name);
        }
    }

    /// No config names these providers any more. Their gauges end, also those that somebody sets who has not heard of
    /// it yet; their counters stay where they are.
    pub fn providers_go<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        self.gone().extend(names.into_iter().map(str::to_owned));
        self.prune();
    }

    fn prune(&self) {
        for name in self.gone().iter() {
            let label = ProviderLabel { provider: name.clone() };
            let MetricTable { tokens, token_expiry, consent_expiry, upstream_connections, .. } = &self.table;
            for gauges in [tokens, token_expiry, consent_expiry, upstream_connections] {
                gauges.remove(&label);
            }
        }
    }

    fn gone(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many secrets from commands, or from one kind of source, could not be had when they were last looked for; the
    /// values from before stay in use.
    pub fn secrets_fail(&self, kind: &'static str, count: usize) {
        let gauge = self.table.secrets_failing.get_or_create_owned(&KindLabel { kind });
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A new config could not be used.
    pub fn reload_failed(&self) {
        self.table.reload_successful.set(0);
    }

    /// Sets the time at which the first of a provider's users must consent again, in seconds since 1970; `None` removes
    /// it: no such time is known.
    pub fn consents_expire(&self, provider: &str, first: Option<i64>) {
        let label = ProviderLabel { provider: provider.to_owned() };
        match first {
            Some(first) => drop(self.table.consent_expiry.get_or_create_owned(&label).set(first)),
            None => drop(self.table.consent_expiry.remove(&label)),
        }
    }

    /// A request was refused by a limit of its provider.
    pub fn provider_limited(&self, provider: &str, limit: ProviderLimit) {
        let labels = ProviderLimitLabels { provider: provider.to_owned(), limit: limit.as_str() };
        self.table.provider_limited.get_or_create_owned(&labels).inc();
    }

    /// The counter of a provider's answers that held a credential.
    pub fn reflections(&self, provider: &str) -> Counter {
        self.table.reflections.get_or_create_owned(&ProviderLabel { provider: provider.to_owned() })
    }

    /// The counter of a provider's answers that could not be decrypted or verified.
    pub fn unopened(&self, provider: &str) -> Counter {
        self.table.unopened.get_or_create_owned(&ProviderLabel { provider: provider.to_owned() })
    }

    /// Counts a call that was dressed by a shadow, too.
    pub fn shadow_call(&self, provider: &str) {
        self.table.shadow_calls.get_or_create_owned(&ProviderLabel { provider: provider.to_owned() }).inc();
    }

    /// Counts a part of a call in which a shadow differs. Its name comes of the profiles.
    pub fn shadow_difference(&self, provider: &str, part: &str) {
        let labels = ShadowLabels { provider: provider.to_owned(), part: part.to_owned() };
        self.table.shadow_differences.get_or_create_owned(&labels).inc();
    }

    /// The counter of a webhook's calls with this outcome.
    pub fn webhooks(&self, webhook: &str, outcome: WebhookOutcome) -> Counter {
        let labels = WebhookLabels { webhook: webhook.to_owned(), outcome: outcome.as_str() };
        self.table.webhooks.get_or_create_owned(&labels)
    }

    /// Counts one token call: `outcome` is `ok` or a failure class.
    pub fn token_fetched(&self, provider: &str, outcome: &'static str, took: Duration) {
        let labels = OutcomeLabels { provider: provider.to_owned(), outcome };
        self.table.token_fetches.get_or_create_owned(&labels).inc();
        self.table.token_seconds.get_or_create_owned(&ProviderLabel { provider: provider.to_owned() }).observe(took);
    }

    /// Has a provider's token calls counted from zero, for each of these outcomes: `increase()` in Prometheus does not see
    /// a counter's first value.
    pub fn token_calls_begin(&self, provider: &str, outcomes: impl IntoIterator<Item = &'static str>) {
        for outcome in outcomes {
            let labels = OutcomeLabels { provider: provider.to_owned(), outcome };
            self.table.token_fetches.get_or_create_owned(&labels);
        }
    }

    /// Counts a change between a provider's credentials. `credentials`: the slot that calls use since then.
    pub fn credentials_promoted(&self, provider: &str, credentials: &'static str) {
        self.table.promotions.get_or_create_owned(&SlotLabels { provider: provider.to_owned(), credentials }).inc();
    }

    /// A provider has next credentials: what is counted of them begins at zero.
    pub fn credentials_wait(&self, provider: &str) {
        for credentials in ["current", "next"] {
            let labels = SlotLabels { provider: provider.to_owned(), credentials };
            self.table.promotions.get_or_create_owned(&labels);
        }
    }

    /// Sets a provider's live tokens and the first expiry among them (seconds since 1970).
    pub fn tokens(&self, provider: &str, live: i64, first_expiry: Option<i64>) {
        let label = ProviderLabel { provider: provider.to_owned() };
        self.table.tokens.get_or_create_owned(&label).set(live);
        match first_expiry {
            Some(at) => {
                self.table.token_expiry.get_or_create_owned(&label).set(at);
            }
            None => {
                self.table.token_expiry.remove(&label);
            }
        }
    }
}

/// One worker's counters for one route: nothing to look up but the status.
pub struct RouteMeters {
    metrics: Arc<Metrics>,
    listener: String,
    route: String,
    by_status: RefCell<Vec<(u16, Counter)>>,
    duration: Histogram,
    upstream: Histogram,
    /// Replays with a nonce that the provider wanted to see in the proof.
    pub challenged: Counter,
    /// Replays whose answer was not another refusal.
    pub replayed: Counter,
    /// Replays that were refused too.
    pub refused_again: Counter,
    /// Refusals that could not be replayed.
    pub not_replayed: Counter,
    /// 401 answers that the profile does not know.
    pub unknown_refusals: Counter,
}

impl RouteMeters {
    /// Counts a finished request. `status` is 0 when the client hung up before an answer.
    pub fn finished(&self, status: u16, took: Duration) {
        self.duration.observe(took);
        let mut known = self.by_status.borrow_mut();
        if let Some((_, counter)) = known.iter().find(|(code, _)| *code == status) {
            counter.inc();
            return;
        }
        let labels = RequestLabels { listener: self.listener.clone(), route: self.route.clone(), status };
        let counter = self.metrics.answered(labels);
        counter.inc();
        known.push((status, counter));
    }

    /// Notes how long the provider took to answer.
    pub fn answered(&self, took: Duration) {
        self.upstream.observe(took);
    }
}

/// A histogram of durations: fixed buckets, relaxed atomics, no lock.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    /// Adds one duration to the histogram.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let index = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(count) = self.0.counts.get(index) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let counts: Vec<u64> = self.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let bounds = BOUNDS.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        #[expect(clippy::cast_precision_loss, reason = "a sum of microseconds fits a double for centuries")]
        let sum = self.0.sum_micros.load(Ordering::Relaxed) as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

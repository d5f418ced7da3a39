//! The views of the admin API, gathered when they are requested.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::request_filter::RequestFilter;
use super::view::{
    AuditView, CertificateView, ConfigFileView, ConfigSectionView, ConfigView, ConsentsView, Counts, FailureView,
    Fetches, HoursView, KeyServiceView, ListenerView, ProviderView, ProvidersView, ReloadView, RequestDetailView,
    RequestView, RequestsView, RouteView, RoutesView, SecretSourceView, ShadowView, StatusClasses, StatusView,
    StoreView, TokensView,
};
use super::{Admin, request_cause};
use crate::base::time::{Now, rfc3339};
use crate::config::{Bind, ListenerConfig, ProviderConfig, Route, Snapshot};
use crate::control::ProviderTokens;
use crate::key_service::KeyServices;
use crate::observe::stats::RequestSample;
use crate::route::{ClientId, Opens, RouteRule};
use crate::secret_source::SecretSources;
use crate::token::credential_slots::CredentialSlot;
use crate::token::state::PhaseKind;

impl Admin {
    /// The process as a whole.
    pub(crate) async fn status(&self) -> StatusView {
        let (snapshot, now, summary) = (self.reloads.current(), self.clock.now(), self.leases.summary().await);
        let mut certificates: Vec<_> = snapshot.certificates.iter().collect();
        certificates.sort_by_key(|end| end.at);
        let unhealthy = self.store.reach(Duration::ZERO).await.err();
        StatusView {
            version: env!("CARGO_PKG_VERSION"),
            instance: self.instance.to_string(),
            now: rfc3339(now.wall),
            started_at: rfc3339(self.started.wall),
            uptime_seconds: now.since(self.started).as_secs(),
            draining: self.draining.get(),
            config_digest: snapshot.digest.clone(),
            last_reload: ReloadView::of(&self.reloads.last()),
            log_level: self.log_level(),
            listeners: snapshot.listeners.iter().map(|listener| listener_view(listener, &self.addresses)).collect(),
            counts: Counts {
                listeners: snapshot.listeners.len(),
                routes: snapshot.routes.len(),
                providers: snapshot.providers.len(),
                clients: snapshot.clients.all.len(),
                token_keys: summary.values().map(|tokens| tokens.keys).sum(),
                live_tokens: summary.values().map(|tokens| tokens.live).sum(),
                workers: snapshot.workers,
            },
            store: StoreView {
                kind: self.store.kind(),
                shared: self.store.is_shared(),
                healthy: unhealthy.is_none(),
                error: unhealthy.map(|error| error.to_string()),
            },
            audit: self.audit.report().map(AuditView::of),
            certificates: certificates.into_iter().map(|end| CertificateView::of(end, now)).collect(),
            key_services: KeyServices::of_process().reports().into_iter().map(KeyServiceView::of).collect(),
            secret_sources: SecretSources::of_process().reports().into_iter().map(SecretSourceView::of).collect(),
        }
    }

    /// Lists the routes, with the clients and upstreams of each and the requests counted so far.
    pub(crate) fn routes(&self) -> RoutesView {
        let (snapshot, answers) = (self.reloads.current(), self.metrics.answers());
        let routes = snapshot.routes.iter().enumerate().map(|(index, route)| {
            let mut view = route_view(index, route, &snapshot);
            for (_, status, count) in answers.iter().filter(|(name, ..)| *name == view.name) {
                view.requests.add(*status, *count);
            }
            view
        });
        RoutesView { routes: routes.collect() }
    }

    /// Lists the providers, with the state of their token endpoints.
    pub(crate) async fn providers(&self) -> ProvidersView {
        let (snapshot, now, mut summary) = (self.reloads.current(), self.clock.now(), self.leases.summary().await);
        let providers = snapshot.providers.iter().map(|provider| {
            provider_view(provider, &snapshot, summary.remove(&provider.name).unwrap_or_default(), now)
        });
        ProvidersView { providers: providers.collect() }
    }

    /// Some of the last requests that fit a filter, the newest first, and at most so many.
    pub(super) fn requests(&self, filter: &RequestFilter, limit: usize) -> RequestsView {
        let request_stats = self.dashboard.request_stats.borrow();
        let mut found: Vec<&RequestSample> = request_stats.recent().filter(|sample| filter.fits(sample)).collect();
        // Workers hand over in turns; a reader wants them as they came.
        found.sort_by_key(|sample| Reverse(sample.record.start.wall));
        RequestsView {
            matching: found.len(),
            requests: found.into_iter().take(limit).map(RequestView::of).collect(),
            kept: request_stats.recent().count(),
            total: request_stats.total(),
        }
    }

    /// The kept request of an id, with or without `urn:uuid:`; `None` if there is none.
    pub(super) fn sample(&self, id: &str) -> Option<RequestSample> {
        let id = Uuid::try_parse(&percent_decode_str(id).decode_utf8().ok()?).ok()?;
        self.dashboard.request_stats.borrow().recent().find(|sample| sample.record.id == id).cloned()
    }

    /// One of the last requests, by its id, with the cause of its failure.
    pub(super) async fn request(&self, id: &str) -> Option<RequestDetailView> {
        let sample = self.sample(id)?;
        let providers = self.providers().await.providers;
        let sent = sample.record.provider.clone().zip(sample.record.token);
        let token_key = match sent {
            Some((provider, token)) => self.leases.key_of(provider, token).await,
            None => None,
        };
        let provider = providers.iter().find(|view| Some(&*view.name) == sample.record.provider.as_deref());
        Some(RequestDetailView {
            cause: request_cause::request_cause(&sample, provider),
            runbook: request_cause::runbook(&sample),
            token_key: token_key.map(|key| key.to_string()),
            explain: request_cause::explain(&sample),
            request: RequestView::of(&sample),
        })
    }

    /// Every token that was asked for.
    pub(crate) async fn tokens(&self) -> TokensView {
        TokensView::of(&self.leases.ledger().await, self.clock.now())
    }

    /// Every consent in the store.
    pub(crate) async fn consents(&self) -> ConsentsView {
        ConsentsView::of(&self.consents.list().await, &self.consents.pending().await)
    }

    /// The config in force, without secrets.
    pub(crate) fn config(&self) -> ConfigView {
        let snapshot = self.reloads.current();
        ConfigView {
            config_digest: snapshot.digest.clone(),
            files: ConfigFileView::of(&snapshot.sources, &snapshot.sections),
            sections: snapshot.sections.iter().map(ConfigSectionView::of).collect(),
            last_reload: ReloadView::of(&self.reloads.last()),
            log_level: self.log_level(),
        }
    }
}

fn listener_view(listener: &ListenerConfig, addresses: &[(Arc<str>, SocketAddr)]) -> ListenerView {
    let bound = addresses.iter().find(|(name, _)| *name == listener.name).map(|(_, address)| *address);
    let address = match (&listener.bind, bound) {
        (Bind::Tcp(_), Some(address)) => address.to_string(),
        (Bind::Tcp(_) | Bind::Unix(_), _) => listener.bind.to_string(),
    };
    let mode = listener.mode.word();
    ListenerView { name: listener.name.to_string(), mode, address, tls: listener.tls.is_some() }
}

fn route_view(index: usize, route: &Route, snapshot: &Snapshot) -> RouteView {
    let mut view = RouteView {
        name: route.name.to_string(),
        listeners: Vec::new(),
        host: None,
        path: None,
        methods: Vec::new(),
        open_to_everyone: false,
        clients: Vec::new(),
        provider: route.provider.name.to_string(),
        upstream: route.upstream.to_string(),
        r#as: if route.user.is_some() { "user" } else { "application" },
        mode: if route.enforce { "enforce" } else { "observe" },
        variables: Vec::new(),
        replay_limit: route.replay_limit,
        requests: StatusClasses::default(),
    };
    for listener in &snapshot.listeners {
        let Some(rule) = listener.mode.rules().into_iter().find(|rule| rule.route == index) else { continue };
        view.listeners.push(listener.name.to_string());
        tell(&mut view, rule, snapshot);
        if listener.mode.routes_by_path() {
            view.host = rule.host.as_deref().map(str::to_owned);
            view.path = Some(if rule.prefix.is_empty() { "/".to_owned() } else { rule.prefix.to_string() });
        }
    }
    view
}

/// Fills in the parts of a rule that are the same on every listener.
fn tell(view: &mut RouteView, rule: &RouteRule, snapshot: &Snapshot) {
    view.methods = rule.methods.iter().map(ToString::to_string).collect();
    view.variables = rule.vars.iter().map(|var| var.name().to_string()).collect();
    match &rule.opens {
        Opens::Everyone => view.open_to_everyone = true,
        Opens::Only(clients) => {
            let name = |ClientId(at): &ClientId| snapshot.clients.all.get(usize::from(*at)).map(|c| c.name.to_string());
            view.clients = clients.iter().filter_map(name).collect();
        }
    }
}

fn provider_view(provider: &ProviderConfig, snapshot: &Snapshot, tokens: ProviderTokens, now: Now) -> ProviderView {
    let routes = snapshot.routes.iter().filter(|route| route.provider.index == provider.index);
    let credentials = provider.slots.as_ref().map(|slots| slots.active(now));
    let shown = if credentials == Some(CredentialSlot::Next) { provider.next.as_deref() } else { None };
    let certificate = shown.unwrap_or(provider).certificate.as_ref().map(|end| CertificateView::of(end, now));
    let hours = provider.hours.as_deref().map(|hours| HoursView::of(hours, now));
    let closed = hours.as_ref().filter(|hours| !hours.open);
    ProviderView {
        name: provider.name.to_string(),
        profile: provider.profile.to_string(),
        base_url: format!("https://{}", provider.base_url.authority()),
        routes: routes.map(|route| route.name.to_string()).collect(),
        state: if closed.is_some() { "closed" } else { state(&tokens) },
        live_tokens: tokens.live,
        token_keys: tokens.keys,
        first_expiry: tokens.first_expiry.map(rfc3339),
        rests_until: tokens.rests_until.map(rfc3339),
        closed_until: closed.map_or_else(|| tokens.closed_until.map(rfc3339), |hours| hours.changes_at.clone()),
        hours,
        last_failure: tokens.last_failure.as_ref().map(FailureView::of),
        failing_since: tokens.failing_since.map(rfc3339),
        fetches: Fetches::of(&tokens.fetches),
        consents: provider.consents.is_some(),
        credentials: credentials.map(CredentialSlot::as_str),
        shadow: provider.shadow.as_deref().map(ShadowView::of),
        client_certificate_days_left: certificate.as_ref().map(|certificate| certificate.days_left),
        client_certificate_expires_at: certificate.map(|certificate| certificate.expires_at),
    }
}

/// Judges the state of a token endpoint by its tokens: the worst of their states.
fn state(tokens: &ProviderTokens) -> &'static str {
    if tokens.closed_until.is_some() {
        "closed"
    } else if tokens.has_any(&[PhaseKind::Resting]) {
        "resting"
    } else if tokens.has_any(&[PhaseKind::Holding]) {
        "failing"
    } else if tokens.has_any(&[PhaseKind::Live, PhaseKind::Renewing]) {
        "live"
    } else if tokens.has_any(&[PhaseKind::Fetching, PhaseKind::Settling]) {
        "fetching"
    } else {
        "idle"
    }
}

//! One worker's view of the world: the snapshot, with this worker's own pools, shelves and meters beside it.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::base::planted::{PlantedFault, planted};
use crate::base::resource_usage::ResourceUsage;
use crate::base::time::{Clock, Now};
use crate::base::vars::Vars;
use crate::config::{ListenerConfig, Reflection, Route, Snapshot, Timeouts};
use crate::control::{
    ConsentHandle as Arrangements, CountedQuota, Issued, Issuers, QuotaBook, StatsSender, TokenHandle, TokenSlot,
    TokenSpec, token_spec,
};
use crate::observe::access::Lines;
use crate::observe::audit::{AuditLines, Auditor};
use crate::observe::metrics::{Metrics, RouteMeters};
use crate::observe::record::AccessRecord;
use crate::observe::stats::Blame;
use crate::observe::trace::Tracer;
use crate::route::{Caller, Guard};
use crate::serve::connections::connection_limits::ConnectionLimits;
use crate::serve::exchanges::credential_scanner::{CredentialPatterns, SecretPatterns};
use crate::serve::exchanges::kept::Budget;
use crate::serve::exchanges::replay_body::RequestBody;
use crate::serve::page::ForwardPage;
use crate::serve::reports::stats_collector::StatsCollector;
use crate::serve::requests::permit::Permit;
use crate::serve::requests::webhook::WebhookState;
use crate::token::credential_slots::{CredentialSlot, by_slot, is_refusal};
use crate::token::failure::Class;
use crate::token::key::{KeyMap, TokenKey};
use crate::token::lease::Lease;
use crate::upstream::{ConnectionPool, Destination};

/// The same for what is looked for in answers, per route.
const MOST_NEEDLES: usize = 256;

/// The state that all workers share.
#[derive(Clone)]
pub struct ProcessState {
    /// The configuration that requests are served by.
    pub snapshot: Arc<Snapshot>,
    /// The way to the keeper.
    pub leases: TokenHandle,
    /// The source of the boot time and the wall-clock time.
    pub clock: Clock,
    /// All metrics of the process.
    pub metrics: Arc<Metrics>,
    /// The tracer, which decides which requests are traced and takes their spans.
    pub tracer: Tracer,
    /// Memory for bodies kept for replays, in bytes.
    pub buffered: Arc<ResourceUsage>,
    /// Number of open client connections, in all workers.
    pub connections: Arc<ResourceUsage>,
    /// The limits on what peers may take up before they are identified.
    pub connection_limits: Arc<ConnectionLimits>,
    /// The keys of those who sign clients' tokens.
    pub issuers: Issuers,
    /// The way to users' consents.
    pub consents: Arrangements,
    /// The check of hosts that tunnels may lead to.
    pub guard: Arc<Guard>,
    /// The listeners, by the position of their sockets: that does not change as long as we run. None: the config has
    /// none of that name any more.
    pub listeners: Arc<[Option<Arc<ListenerConfig>>]>,
    /// The forward listeners' own pages, by position.
    pub pages: Arc<[Option<ForwardPage>]>,
    /// The channel for the dashboard's statistics; `None` if there is no dashboard.
    pub stats_sender: Option<StatsSender>,
    /// The way to the audit log.
    pub audit: Auditor,
    /// The counts of quotas.
    pub quotas: QuotaBook,
    /// Counts the configs of this process.
    pub serial: u64,
}

/// The state of one worker under one configuration.
pub struct WorkerState {
    pub shared: ProcessState,
    /// The state of each route, by position in the configuration.
    routes: Vec<Rc<RouteState>>,
    unrouted: Vec<RouteMeters>,
    webhooks: Vec<Rc<WebhookState>>,
    endpoints: Vec<Pool>,
    token_slots: RefCell<KeyMap<Arc<TokenSlot>>>,
    /// The slots that hold the leases of routes' predecessors.
    previous_slots: RefCell<KeyMap<Arc<TokenSlot>>>,
    lines: Lines,
    stats: Option<StatsCollector>,
    /// This worker's end of the audit log.
    pub audit: Option<AuditLines>,
}

/// The connections to one place, and all that decides whether they can be used for another route.
struct Pool {
    place: PoolKey,
    endpoint: Rc<ConnectionPool<RequestBody>>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct PoolKey {
    /// Connections are counted by it.
    provider: Arc<str>,
    transport: u64,
    authority: String,
    connect: Duration,
    idle: Duration,
}

impl PoolKey {
    fn of(route: &Route) -> Self {
        let Timeouts { connect, idle, .. } = route.timeouts;
        let (provider, transport) = (route.provider.name.clone(), route.provider.transport_id);
        Self { provider, transport, authority: route.upstream.authority(), connect, idle }
    }
}

/// One route on one worker.
pub struct RouteState {
    pub route: Arc<Route>,
    /// Its position in the configuration.
    pub index: usize,
    /// The same route with the provider's next credentials.
    next: Option<Rc<RouteState>>,
    /// The pool of its connections to the provider.
    pub endpoint: Rc<ConnectionPool<RequestBody>>,
    /// The `Host` field of its requests.
    pub host: http::HeaderValue,
    /// The destination of its WebSockets, over HTTP/1.1 alone; `None` if it takes none.
    pub websocket: Option<Destination>,
    /// Counts connections to the provider.
    pub gauge: Gauge,
    /// The token of a route without variables.
    fixed: Arc<TokenSpec>,
    /// The static credential of a provider that has no tokens.
    standing: Option<Arc<Lease>>,
    meters: Vec<RouteMeters>,
    /// The quotas of its provider.
    pub quotas: Vec<CountedQuota>,
    reflections: Counter,
    unopened: Counter,
    /// The same route before a secret was changed, until there is a token of the new one.
    previous_route: RefCell<Option<Rc<RouteState>>>,
    /// True once there was a token of this route, not of its predecessor.
    issued: Cell<bool>,
    /// The credentials to look for in responses, with their generation, by the key of the token that was spent.
    patterns: RefCell<KeyMap<(u64, Rc<CredentialPatterns>)>>,
    /// The secrets of its settings, to look for in answers; made with the first of them.
    secrets: OnceCell<Rc<SecretPatterns>>,
}

impl WorkerState {
    /// A worker's view of a snapshot.
    pub fn new(shared: ProcessState, lines: Lines) -> Rc<Self> {
        Self::build(shared, lines, None)
    }

    /// The view of the snapshot after this one. Connections to unchanged places go on; others are let go.
    pub fn succeed(before: &Self, shared: ProcessState) -> Rc<Self> {
        let after = Self::build(shared, before.lines.clone(), Some(before));
        for pool in &before.endpoints {
            if after.endpoints.iter().all(|kept| !Rc::ptr_eq(&kept.endpoint, &pool.endpoint)) {
                pool.endpoint.retire();
            }
        }
        after
    }

    fn build(shared: ProcessState, lines: Lines, before: Option<&Self>) -> Rc<Self> {
        let name =
            |listener: &Option<Arc<ListenerConfig>>| listener.as_ref().map_or_else(|| "".into(), |l| l.name.clone());
        let listeners: Vec<Arc<str>> = shared.listeners.iter().map(name).collect();
        let mut pools: Vec<Pool> = Vec::new();
        let mut state = |route: &Arc<Route>, index: usize, next: Option<Rc<RouteState>>| {
            let place = PoolKey::of(route);
            let older = before.iter().flat_map(|before| &before.endpoints);
            let known = pools.iter().find(|pool| pool.place == place).map(|pool| pool.endpoint.clone());
            let endpoint = known.unwrap_or_else(|| {
                let kept = older.into_iter().find(|pool| pool.place == place).map(|pool| pool.endpoint.clone());
                let gauge = || shared.metrics.upstream_connections(&route.provider.name);
                let endpoint = kept
                    .unwrap_or_else(|| Rc::new(ConnectionPool::new(destination(route), route.timeouts.idle, gauge())));
                pools.push(Pool { place: place.clone(), endpoint: endpoint.clone() });
                endpoint
            });
            let meters =
                listeners.iter().map(|name| shared.metrics.route(name, &route.name, &route.provider.name)).collect();
            let host = http::HeaderValue::try_from(place.authority).unwrap_or(http::HeaderValue::from_static(""));
            let fixed = token_spec(route, Vars::none(), &shared.clock, shared.serial);
            let previous_route = before.and_then(|before| before.previous_route(route));
            Rc::new(RouteState {
                previous_route: RefCell::new(previous_route),
                issued: Cell::new(false),
                route: route.clone(),
                index,
                next,
                endpoint,
                host,
                websocket: route.websocket.then(|| over_http1(destination(route))),
                gauge: shared.metrics.upstream_connections(&route.provider.name),
                fixed,
                standing: route.module.standing_lease(shared.clock.now()).map(Arc::new),
                meters,
                quotas: route.provider.quotas.iter().map(|rule| shared.quotas.counted(rule)).collect(),
                reflections: shared.metrics.reflections(&route.provider.name),
                unopened: shared.metrics.unopened(&route.provider.name),
                patterns: RefCell::default(),
                secrets: OnceCell::new(),
            })
        };
        let routes = shared.snapshot.routes.iter().enumerate().map(|(index, route)| {
            let next = route.next.as_ref().map(|next| state(next, index, None));
            state(route, index, next)
        });
        let routes: Vec<Rc<RouteState>> = routes.collect();
        let unrouted = listeners.iter().map(|name| shared.metrics.route(name, "", "")).collect();
        // Leases are asked for anew, so that the keeper learns what they are fetched with now.
        let (token_slots, previous_slots) = (RefCell::default(), RefCell::default());
        let names = shared.snapshot.routes.iter().map(|route| route.name.clone());
        let stats = shared.stats_sender.clone().map(|stats_sender| StatsCollector::open(stats_sender, names));
        let audit = match before {
            Some(before) => before.audit.clone(),
            None => shared.audit.lines(),
        };
        let webhooks = shared.snapshot.webhooks.iter();
        let webhooks = webhooks.map(|webhook| Rc::new(WebhookState::new(webhook, &shared.metrics))).collect();
        Rc::new(Self {
            shared,
            routes,
            unrouted,
            webhooks,
            endpoints: pools,
            token_slots,
            previous_slots,
            lines,
            stats,
            audit,
        })
    }

    /// Returns the route whose tokens may stand in for those of this route of the next config: the two may differ only
    /// in the values of secrets.
    fn previous_route(&self, next: &Route) -> Option<Rc<RouteState>> {
        let known = self.routes.iter().find(|known| known.route.name == next.name)?.active(self.now());
        let alike = known.route.module.identity() == next.module.identity()
            && known.route.upstream.to_string() == next.upstream.to_string()
            && known.route.user.is_none()
            && next.user.is_none();
        let earlier = known.previous_route.borrow().clone().filter(|_| !known.issued.get());
        let same = known.route.module.key() == next.module.key();
        match earlier {
            _ if !alike => None,
            Some(earlier) => Some(earlier),
            None if same => None,
            None => {
                // One predecessor is enough: an older one is dropped.
                known.previous_route.take();
                Some(known.clone())
            }
        }
    }

    /// The listener whose socket has this position.
    #[inline]
    pub fn listener(&self, at: usize) -> Option<&Arc<ListenerConfig>> {
        self.shared.listeners.get(at)?.as_ref()
    }

    /// Returns the digest of the settings that this listener's connections rely on from their first byte; `None` if
    /// there is no such listener.
    pub fn footing(&self, at: usize) -> Option<[u8; 32]> {
        self.listener(at).map(|listener| listener.footing)
    }

    /// A token of this route from before a secret was changed, as long as there was none of this key since: the route as
    /// it was, and a valid lease.
    pub async fn previous_lease(
        &self,
        route: &RouteState,
        vars: &Vars,
        key: &TokenKey,
    ) -> Option<(Rc<RouteState>, Arc<Lease>)> {
        let before = route.previous_route.borrow().clone()?;
        if self.token_slots.borrow().contains_key(key) {
            return None;
        }
        let old = before.route.module.key_for(vars);
        let known = self.previous_slots.borrow().get(&old).cloned();
        let slot = match known {
            Some(slot) => slot,
            None => {
                let slot = self.shared.leases.at_hand(old).await?.token_slot;
                self.previous_slots.borrow_mut().insert(old, slot.clone());
                slot
            }
        };
        Some((before, slot.cached(self.now())?))
    }

    /// The lease of a predecessor was refused: it is of no use to anybody.
    pub fn drop_previous(&self, lease: &Lease) {
        if let Some(slot) = self.previous_slots.borrow().get(&lease.key) {
            slot.distrust(lease.generation);
        }
        self.shared.leases.discard(lease.key, lease.generation);
    }

    /// Returns the current moment on both clocks.
    #[inline]
    pub fn now(&self) -> Now {
        self.shared.clock.now()
    }

    /// The allowance for kept bodies.
    pub fn budget(&self) -> Budget {
        let limit = match self.shared.snapshot.limits.buffered_bytes {
            0 => u64::MAX,
            limit => limit,
        };
        Budget { usage: self.shared.buffered.clone(), limit }
    }

    /// A route by its permit, with the credentials that calls use now.
    #[inline]
    pub fn route(&self, index: usize) -> Option<&Rc<RouteState>> {
        let route = self.routes.get(index)?;
        Some(if route.next.is_none() { route } else { route.active(self.now()) })
    }

    /// Returns the route with the credentials of the other slot, if the provider has refused those of this one. A user's
    /// token has both in its renewal.
    pub fn other_credentials(&self, route: &RouteState, refused: Class) -> Option<Rc<RouteState>> {
        let current = self.routes.get(route.index).filter(|_| is_refusal(refused) && route.route.user.is_none())?;
        let next = current.next.as_ref()?;
        match route.route.provider.slot {
            CredentialSlot::Current => Some(next.clone()),
            CredentialSlot::Next => Some(current.clone()),
        }
    }

    /// The provider gave a token for the credentials of this route after it had refused those of the other slot: calls
    /// use them from now on.
    pub fn promote(&self, route: &RouteState) {
        self.shared.leases.promote(&route.route.provider);
    }

    /// Returns a valid lease if this worker knows one: no lock, no message.
    #[inline]
    pub fn cached_lease(&self, permit: &Permit, now: Now) -> Option<Arc<Lease>> {
        if let Some(standing) = permit.standing() {
            return Some(standing.clone());
        }
        self.token_slots.borrow().get(&permit.spec().key)?.take(now)
    }

    /// Returns whether a lease that was taken a while ago may still be sent. A lease whose slot is not known here may
    /// not: the keeper has to be asked.
    #[inline]
    pub fn may_send(&self, lease: &Lease, now: Now) -> bool {
        let bears = |token_slots: &RefCell<KeyMap<Arc<TokenSlot>>>| {
            token_slots.borrow().get(&lease.key).is_some_and(|slot| slot.bears(lease.generation))
        };
        if lease.is_standing() {
            return true;
        }
        (lease.valid(now) || planted(PlantedFault::ExpiresUnseen))
            && (bears(&self.token_slots) || bears(&self.previous_slots) || planted(PlantedFault::RefusedUnseen))
    }

    /// Remembers where a key's leases will lie.
    pub fn remember(&self, issued: &Issued) {
        let mut token_slots = self.token_slots.borrow_mut();
        // The keeper holds no more; the rest can be found again.
        if self.shared.snapshot.limits.tokens.is_some_and(|most| token_slots.len() >= most) {
            token_slots.clear();
            self.previous_slots.borrow_mut().clear();
        }
        token_slots.insert(issued.lease.key, issued.token_slot.clone());
    }

    /// This generation was refused, and the keeper knows: no worker is to take it again.
    pub fn distrust(&self, key: &TokenKey, generation: u64) {
        if let Some(slot) = self.token_slots.borrow().get(key) {
            slot.distrust(generation);
        }
    }

    /// Returns the webhook that is received at this path of the listener whose socket has this position.
    #[inline]
    pub fn webhook(&self, listener: usize, path: &str) -> Option<&Rc<WebhookState>> {
        if self.webhooks.is_empty() {
            return None;
        }
        let listener = self.listener(listener)?;
        self.webhooks.iter().find(|webhook| webhook.is_at(&listener.name, path))
    }

    /// The counters of requests that found no route.
    pub fn unrouted(&self, listener: usize) -> Option<&RouteMeters> {
        self.unrouted.get(listener)
    }

    /// The name of an identified client.
    pub fn name_of(&self, caller: Caller) -> Option<Arc<str>> {
        match caller {
            Caller::Anyone => None,
            Caller::Client(id) => {
                let client = self.shared.snapshot.clients.all.get(usize::from(id.0));
                client.map(|client| client.name.clone())
            }
        }
    }

    /// Appends the record to this worker's access lines.
    pub fn write(&self, record: &AccessRecord) {
        self.lines.push(record);
    }

    /// Counts a finished request for the dashboard, if there is one.
    #[inline]
    pub fn see(&self, route: Option<&RouteState>, record: &AccessRecord, blame: Blame) {
        if let Some(stats) = &self.stats {
            stats.see(route.map(|route| route.index), record, blame);
        }
    }

    /// Closes provider connections that were idle for too long.
    pub fn sweep(&self) {
        let now = self.now();
        for pool in &self.endpoints {
            pool.endpoint.sweep(now);
        }
    }

    /// Hands over what has gathered for the logs and for the dashboard.
    pub fn flush(&self) {
        self.lines.flush();
        if let Some(stats) = &self.stats {
            stats.hand_over();
        }
        if let Some(audit) = &self.audit {
            audit.flush();
        }
    }
}

impl RouteState {
    /// The route with the credentials that calls use now.
    fn active(self: &Rc<Self>, now: Now) -> &Rc<Self> {
        by_slot(self.route.provider.slots.as_deref(), self, self.next.as_ref(), now).0
    }

    /// The token that a request with these variables needs.
    pub fn token(&self, vars: &Vars, clock: &Clock) -> Arc<TokenSpec> {
        if vars.is_empty() {
            return self.fixed.clone();
        }
        token_spec(&self.route, vars.clone(), clock, self.fixed.serial)
    }

    /// Returns the lease of a static credential; `None`: the provider has tokens.
    pub const fn standing(&self) -> Option<&Arc<Lease>> {
        self.standing.as_ref()
    }

    /// There was a token of it now.
    pub fn was_issued(&self) {
        self.issued.set(true);
    }

    /// Returns the credentials to look for in the response to a call with this token; `None` if the route does not
    /// search responses.
    pub fn patterns(&self, lease: &Lease) -> Option<Rc<CredentialPatterns>> {
        if self.route.reflection == Reflection::Off {
            return None;
        }
        let mut known = self.patterns.borrow_mut();
        if let Some((generation, patterns)) = known.get(&lease.key)
            && *generation == lease.generation
        {
            return Some(patterns.clone());
        }
        if known.len() >= MOST_NEEDLES {
            known.clear();
        }
        let secrets = || Rc::new(SecretPatterns::new(self.route.module.secrets().map(str::as_bytes)));
        let patterns = Rc::new(CredentialPatterns::of(lease, self.secrets.get_or_init(secrets)));
        known.insert(lease.key, (lease.generation, patterns.clone()));
        Some(patterns)
    }

    /// Tells the operator that the provider echoed a credential.
    pub fn report_reflection(&self, what: &'static str) {
        self.reflections.inc();
        let (provider, route) = (&self.route.provider.name, &self.route.name);
        tracing::warn!(%provider, %route, "the provider's answer holds a live credential: {what}");
    }

    /// Tells the operator that an answer was withheld, and why.
    pub fn report_unopened(&self, why: &dyn std::error::Error) {
        self.unopened.inc();
        let (provider, route) = (&self.route.provider.name, &self.route.name);
        tracing::error!(%provider, %route, "the provider's answer was withheld: {why}");
    }

    /// This route's counters on a listener.
    pub fn meters(&self, listener: usize) -> Option<&RouteMeters> {
        self.meters.get(listener)
    }
}

/// The same place, where h2 is not offered: it has no WebSockets for us.
fn over_http1(mut destination: Destination) -> Destination {
    let mut tls = (*destination.tls).clone();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    destination.tls = Arc::new(tls);
    destination
}

/// Builds the destination of a route's requests.
fn destination(route: &Route) -> Destination {
    Destination {
        host: route.upstream.bare_host().into(),
        port: route.upstream.port(),
        tls: route.provider.tls.clone(),
        server_name: route.provider.server_name.as_ref().unwrap_or(route.upstream.server_name()).clone(),
        path: route.provider.way.clone(),
        connect_timeout: route.timeouts.connect,
    }
}

//! Telling a request once, however it ends.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use crate::base::secret::Fingerprint;
use crate::base::time::{Clock, Stopwatch};
use crate::base::vars::Vars;
use crate::observe::audit::AuditContext;
use crate::observe::metrics::Limit;
use crate::observe::record::{AccessRecord, ErrorText, Spent};
use crate::observe::stats::Blame;
use crate::observe::trace::Context;
use crate::provider::Verdict;
use crate::serve::exchanges::replay_body::ReplayBody;
use crate::serve::fault::{Fault, Refusal};
use crate::serve::reports::request_spans::RequestSpans;
use crate::serve::worker_state::{RouteState, WorkerState};

/// The error name in the record of a response that its client did not take.
const CLIENT_STALLED: &str = "client-stalled";
/// The status in logs and metrics for a request whose client hung up before the response.
const HUNG_UP: u16 = 499;

/// A request being told. Dropping it writes the access line and bumps the counters: exactly once, also when the client
/// hangs up and hyper drops the whole request.
pub struct RequestLog {
    record: Box<AccessRecord>,
    worker: Rc<WorkerState>,
    route: Option<Rc<RouteState>>,
    listener: usize,
    request: Option<Rc<ReplayBody>>,
    /// Details for the audit log alone; `None` if there is no audit log or the call has no such details.
    subject: Option<Box<CallSubject>>,
    watch: Stopwatch,
    blame: Option<Blame>,
    /// Its spans, where traces are on.
    trail: Option<Box<RequestSpans>>,
}

/// The user and the variables of a call.
struct CallSubject {
    user: Option<String>,
    /// Variables by name, with their values hidden by the audit log's seal.
    vars: Vec<(Arc<str>, String)>,
}

impl RequestLog {
    /// Begins to tell a request that came in on the listener at this position.
    pub fn begin(worker: &Rc<WorkerState>, listener: usize, record: AccessRecord) -> Self {
        let mut record = Box::new(record);
        let watch = Stopwatch::start();
        let trail = RequestSpans::begin(&worker.shared.tracer, &mut record, watch);
        let (worker, blame) = (worker.clone(), None);
        Self { record, worker, route: None, listener, request: None, subject: None, watch, blame, trail }
    }

    pub fn record(&mut self) -> &mut AccessRecord {
        &mut self.record
    }

    /// Returns the position of the listener that received the request.
    pub const fn listener(&self) -> usize {
        self.listener
    }

    /// The clocks it is told by.
    pub fn clock(&self) -> Clock {
        self.worker.shared.clock.clone()
    }

    /// From here on it is told under this route.
    pub fn follow(&mut self, route: &Rc<RouteState>) {
        self.record.route = Some(route.route.name.clone());
        self.record.provider = Some(route.route.provider.name.clone());
        self.route = Some(route.clone());
    }

    /// It passes although this would have refused it, were its route's rules enforced.
    pub fn tolerate(&mut self, fault: Fault) {
        let record = &mut self.record;
        record.tolerated = Some(fault.name());
        tracing::warn!(
            route = record.route.as_deref(), client = record.client.as_deref(), method = %record.method,
            path = record.path.escape_debug().to_string(), request_id = %record.id, would_be = fault.name(),
            "passes, though the route's rules would refuse it: they are not enforced"
        );
    }

    /// It goes out to the provider: a traced one says so in its head.
    #[inline]
    pub fn set_out(&mut self, route: &RouteState, method: &Method, target: &Uri, headers: &mut HeaderMap) {
        if let Some(trail) = &mut self.trail {
            trail.set_out(route, method, target, headers);
        }
    }

    /// The head of the provider's answer is there, and judged.
    #[inline]
    pub fn came_back(&mut self, status: StatusCode, verdict: Verdict) {
        if let Some(trail) = &mut self.trail {
            trail.came_back(status.as_u16(), verdict, self.record.upstream);
        }
    }

    /// Notes that the request begins to wait for something of this provider. If the request is traced, work that the
    /// wait causes may name the returned context as its parent.
    pub fn wait_for(&mut self, what: &'static str, provider: &Arc<str>) -> Option<Context> {
        self.trail.as_mut().and_then(|trail| trail.wait_for(what, provider))
    }

    /// Notes that the wait is over. A wait that is never over ends with the request.
    pub fn waited(&mut self) {
        if let Some(trail) = &mut self.trail {
            trail.waited();
        }
    }

    /// It is answered with this fault.
    pub fn fail(&mut self, fault: Fault) {
        if let Some(Refusal { route, cause }) = fault.refusal() {
            let routes = &self.worker.shared.snapshot.routes;
            let meant = route.and_then(|route| routes.get(usize::try_from(route).ok()?));
            let record = &mut self.record;
            record.reason = Some(cause.as_str());
            record.route = record.route.take().or_else(|| meant.map(|route| route.name.clone()));
        }
        let row = fault.row();
        self.record.error = Some(row.name);
        self.record.told = Some(ErrorText { title: row.title, detail: row.detail });
        self.blame = Some(fault.blame());
    }

    /// It fails because of this, should it fail: a sentence for the operator.
    pub fn because(&mut self, cause: Arc<str>) {
        self.record.cause = Some(cause);
    }

    /// It exceeds this limit, should it be refused.
    pub fn exceeds(&mut self, limit: &'static str) {
        self.record.reason = Some(limit);
    }

    /// Its answer is given up: the client takes nothing of it.
    pub fn stalled(&mut self) {
        self.record.complete = false;
        self.record.error.get_or_insert(CLIENT_STALLED);
        self.blame.get_or_insert(Blame::Client);
        let shared = &self.worker.shared;
        shared.metrics.limited(Limit::ClientStalled);
        if let Some(count) = shared.connection_limits.stalls.note(self.worker.now()) {
            let record = &self.record;
            let peer = record.peer.map(tracing::field::display);
            tracing::warn!(
                listener = %record.listener, peer, client = record.client.as_deref(), request_id = %record.id, count,
                "response aborted: the client does not read it"
            );
        }
    }

    /// It is made in the name of this user, with these variables.
    pub fn speak_of(&mut self, user: Option<&str>, vars: &Vars) {
        if let Some(audit) = &self.worker.audit
            && (user.is_some() || !vars.is_empty())
        {
            let seal = audit.seal();
            let vars = vars.iter().map(|(name, value)| (name.into(), seal.hide(name, value))).collect();
            self.subject = Some(Box::new(CallSubject { user: user.map(str::to_owned), vars }));
        }
    }

    /// A token goes out with it, under this request id of the provider's. Another one before it was refused.
    pub fn spend(&mut self, token: (Fingerprint, u64), id: Option<HeaderValue>) {
        let before = std::mem::replace(&mut self.record.provider_id, id);
        let refused = self.record.token.replace(token).filter(|earlier| *earlier != token);
        self.record.refused = refused.map(|token| Spent { token, id: before });
    }

    /// Another token goes out with it than was said: the first was not sent.
    pub fn spend_instead(&mut self, token: (Fingerprint, u64), id: Option<HeaderValue>) {
        self.record.provider_id = id;
        self.record.token = Some(token);
    }

    /// Returns its request body; `None` if no part of the proxy has taken it in.
    pub const fn body(&self) -> Option<&Rc<ReplayBody>> {
        self.request.as_ref()
    }

    /// Its request body is counted at the end.
    pub fn watch_body(&mut self, request: &Rc<ReplayBody>) {
        self.request = Some(request.clone());
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        if let Some(request) = &self.request {
            self.record.request_bytes = request.forwarded();
        }
        let status = self.record.status.unwrap_or(HUNG_UP);
        let took = self.watch.elapsed();
        self.record.took = took;
        let meters = match &self.route {
            Some(route) => route.meters(self.listener),
            None => self.worker.unrouted(self.listener),
        };
        if let Some(meters) = meters {
            meters.finished(status, took);
        }
        let blame = self.blame.unwrap_or(Blame::of_status(status));
        self.worker.see(self.route.as_deref(), &self.record, blame);
        if let Some(trail) = self.trail.take() {
            trail.end(&self.record);
        }
        self.worker.write(&self.record);
        if let Some(audit) = self.worker.audit.as_ref().filter(|_| self.record.token.is_some()) {
            let subject = self.subject.as_deref();
            let user = subject.and_then(|subject| subject.user.as_deref());
            let vars = subject.map_or(&[][..], |subject| &subject.vars);
            audit.push(&self.record, AuditContext { user, vars, config: &self.worker.shared.snapshot.digest });
        }
    }
}

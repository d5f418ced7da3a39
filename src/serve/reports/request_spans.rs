//! A request's spans: its own, and one for each thing that it waits for.
//!
//! They exist only if traces are on. A request does one thing at a time, so at most one span is open besides its own;
//! one that is open when the request ends is closed with it. The attributes are names of the config and the data of the
//! access line: no header values, no queries.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method, Uri};

use crate::base::time::Stopwatch;
use crate::observe::record::AccessRecord;
use crate::observe::trace::{AttributeValue, Context, Kind, Span, TRACEPARENT, TRACESTATE, Tracer};
use crate::provider::Verdict;
use crate::serve::worker_state::RouteState;

/// `error.type` where the client hung up first.
const CANCELLED: &str = "cancelled";

/// The spans of one traced request.
pub struct RequestSpans {
    tracer: Tracer,
    own: Context,
    parent: Option<Context>,
    start: u64,
    watch: Stopwatch,
    step: Option<Span>,
    tries: u64,
}

impl RequestSpans {
    /// Begins the span of a request and puts its context into the record; `None` if traces are off.
    pub fn begin(tracer: &Tracer, record: &mut AccessRecord, watch: Stopwatch) -> Option<Box<Self>> {
        let own = tracer.begin(record.trace)?;
        let parent = record.trace.replace(own);
        let start = record.start.wall.saturating_mul(1_000_000);
        Some(Box::new(Self { tracer: tracer.clone(), own, parent, start, watch, step: None, tries: 0 }))
    }

    /// The request goes out to a provider: its head says on whose behalf, unless the provider is not to hear of it.
    pub fn set_out(&mut self, route: &RouteState, method: &Method, target: &Uri, headers: &mut HeaderMap) {
        let context = self.own.sibling();
        let provider = &route.route.provider;
        if provider.trace_context {
            headers.insert(TRACEPARENT, context.header());
            if self.parent.is_none() {
                // It belongs to a trace that this is not part of.
                headers.remove(TRACESTATE);
            }
        }
        let again = self.tries;
        self.tries += 1;
        if !context.sampled() {
            return;
        }
        let place = &route.route.upstream;
        let mut span = self.child(context, Kind::Client, spoken(method));
        span.tell("http.request.method", method.as_str().to_owned());
        span.tell("url.full", format!("https://{}{}", place.authority(), target.path()));
        span.tell("server.address", place.bare_host().to_owned());
        span.tell("server.port", place.port());
        span.tell("countersign.provider", &provider.name);
        if again > 0 {
            span.tell("http.request.resend_count", again);
        }
        self.step = Some(span);
    }

    /// The head of the provider's answer is there.
    pub fn came_back(&mut self, status: u16, verdict: Verdict, peer: Option<IpAddr>) {
        let Some(step) = &mut self.step else { return };
        let judged = match verdict {
            Verdict::Accepted => "accepted",
            Verdict::Challenged => "challenged",
            Verdict::Refused => "refused",
            Verdict::Unknown => "unknown",
        };
        step.tell("http.response.status_code", status);
        if let Some(peer) = peer {
            step.tell("network.peer.address", peer.to_string());
        }
        step.tell("countersign.verdict", judged);
        if status >= 400 {
            step.tell("error.type", status.to_string());
            step.failed = true;
        }
        self.close();
    }

    /// Begins a span for a wait inside the proxy. Work that the wait causes may name the returned context as its
    /// parent.
    pub fn wait_for(&mut self, what: &'static str, provider: &Arc<str>) -> Option<Context> {
        let context = Some(self.own.sibling()).filter(|context| context.sampled())?;
        let mut span = self.child(context, Kind::Internal, what);
        span.tell("countersign.provider", provider);
        self.step = Some(span);
        Some(context)
    }

    /// Closes the span of the wait.
    pub fn waited(&mut self) {
        self.close();
    }

    /// Closes the request's spans and passes them to the tracer.
    pub fn end(mut self, record: &AccessRecord) {
        if !self.own.sampled() {
            return;
        }
        let why = record.error.or(if record.status.is_none() { Some(CANCELLED) } else { None });
        if let Some(step) = &mut self.step {
            step.tell("error.type", why.unwrap_or(CANCELLED));
            step.failed = true;
            self.close();
        }
        let mut span = Span { attributes: Vec::with_capacity(20), ..self.child(self.own, Kind::Server, "") };
        span.start = self.start;
        span.parent = self.parent.map(|parent| parent.span);
        span.remote = self.parent.is_some();
        let method = spoken(&record.method);
        span.name = match &record.route {
            Some(route) => format!("{method} {route}").into(),
            None => method.into(),
        };
        describe(record, &mut span);
        match (why, record.status) {
            (Some(why), _) => span.tell("error.type", why),
            (None, Some(status)) if status >= 500 => span.tell("error.type", status.to_string()),
            (None, _) => {}
        }
        // A refusal of the caller is not our failure.
        span.failed = record.status.is_none_or(|status| status >= 500);
        self.tracer.tell(span);
    }

    fn child(&self, context: Context, kind: Kind, name: &'static str) -> Span {
        let now = self.now();
        Span {
            context,
            parent: Some(self.own.span),
            remote: false,
            kind,
            name: name.into(),
            start: now,
            end: now,
            attributes: Vec::with_capacity(8),
            links: Vec::new(),
            failed: false,
        }
    }

    fn close(&mut self) {
        if let Some(mut step) = self.step.take() {
            step.end = self.now();
            self.tracer.tell(step);
        }
    }

    fn now(&self) -> u64 {
        self.start.saturating_add(u64::try_from(self.watch.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Adds the data of the access line to a span.
fn describe(record: &AccessRecord, span: &mut Span) {
    span.tell("http.request.method", record.method.as_str().to_owned());
    span.tell("url.path", record.path.clone());
    let names = [
        ("http.route", &record.route),
        ("countersign.provider", &record.provider),
        ("countersign.client", &record.client),
    ];
    for (key, name) in names {
        if let Some(name) = name {
            span.tell(key, name);
        }
    }
    span.tell("countersign.listener", &record.listener);
    span.tell("countersign.request_id", record.id.to_string());
    let mut maybe = |key, value: Option<AttributeValue>| {
        if let Some(value) = value {
            span.tell(key, value);
        }
    };
    maybe("client.address", record.peer.map(|peer| peer.to_string().into()));
    maybe("user_agent.original", record.user_agent.map(|agent| agent.as_str().to_owned().into()));
    maybe("tls.protocol.version", record.tls.map(AttributeValue::from));
    maybe("http.response.status_code", record.status.map(AttributeValue::from));
    let provider_id = record.provider_id.as_ref().and_then(|id| id.to_str().ok());
    maybe("countersign.provider_request_id", provider_id.map(|id| id.to_owned().into()));
    maybe("countersign.token", record.token.map(|(fingerprint, _)| fingerprint.to_string().into()));
    maybe("countersign.token_generation", record.token.map(|(_, generation)| generation.into()));
    maybe("countersign.tolerated", record.tolerated.map(AttributeValue::from));
    maybe("countersign.replay", record.replay.as_str().map(AttributeValue::from));
    span.tell("http.request.body.size", record.request_bytes);
    span.tell("http.response.body.size", record.response_bytes);
    span.tell("countersign.complete", record.complete);
}

/// A method as the name of a span says it: a client could make up any number of others.
fn spoken(method: &Method) -> &'static str {
    match method.as_str() {
        "CONNECT" => "CONNECT",
        "DELETE" => "DELETE",
        "GET" => "GET",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        "POST" => "POST",
        "PUT" => "PUT",
        _ => "HTTP",
    }
}

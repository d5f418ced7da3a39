//! A request's way to the provider and back: send, judge, at most one replay.
//!
//! The decision about what may be sent twice is made here and in no other place. See [`UpstreamCall::send`] and
//! [`UpstreamCall::run`].

use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::base::id::RandomIds;
use crate::base::secret::is_wordy_secret;
use crate::base::time::{Now, Stopwatch, Within};
use crate::control::{Issued, Unavailable};
use crate::observe::record::Replay;
use crate::observe::trace::Context;
use crate::provider::{
    CallInputs, DpopServer, JoseBody, MOST_RECORDED_BODY, RecordedExchange, RecordedKind, Recording, RecordingCopy,
    SentIds, SignatureFailure, SignedRequestHead, UnsignedCall, Verdict, credentials_of,
};
use crate::serve::exchanges::cleared_request::ClearedRequest;
use crate::serve::exchanges::open_response::open;
use crate::serve::exchanges::peek::{decode, peek};
use crate::serve::exchanges::replay_body::{ReplayBody, RequestBody, Ungathered};
use crate::serve::exchanges::response_body::Lent;
use crate::serve::exchanges::upgrade::{self, Turning};
use crate::serve::exchanges::upstream_response::UpstreamResponse;
use crate::serve::fault::Fault;
use crate::serve::reports::request_log::RequestLog;
use crate::serve::requests::dress::{dress_body, dressed_target};
use crate::serve::requests::headers;
use crate::serve::requests::hop_options::HopOptions;
use crate::serve::requests::permit::Permit;
use crate::serve::requests::shadow;
use crate::serve::worker_state::{RouteState, WorkerState};
use crate::signing::jwe::LibraryEntropy;
use crate::token::lease::Lease;
use crate::upstream::{Connection, NoConnection, ReceivedBody, RequestHead, Resend, Sent};

/// A request that fresh connections or the provider turned away unprocessed is tried so often in all.
const MOST_TRIES: u32 = 3;

/// The name of the wait for a token in traces.
pub const TOKEN_WAIT: &str = "token wait";

/// A request on its way to the provider.
pub struct UpstreamCall<'a> {
    pub worker: &'a Rc<WorkerState>,
    /// Its route; one from before a change of a secret, as long as a token of that stands in.
    pub route: Rc<RouteState>,
    pub method: Method,
    /// The URI that is requested from the provider, without what the proxy puts into its query.
    pub target: Uri,
    /// The same with that, where there is any: it may hold a credential, and is shown nowhere.
    pub dressed_target: Option<Box<Uri>>,
    /// Its header fields, including those that carry the token.
    pub headers: HeaderMap,
    /// The client's spelling of field names, as hyper keeps it; empty if the provider is not to see it.
    pub spelling: Extensions,
    /// Its body, if it has one.
    pub replay_body: Option<Rc<ReplayBody>>,
    /// The hop-by-hop options that the client's request asked for.
    pub hop: HopOptions,
}

/// The token that is being spent on it.
pub struct TokenInUse {
    pub permit: Permit,
    /// The generation that is spent.
    pub lease: Arc<Lease>,
    /// The request ids that went out.
    pub ids: SentIds,
    /// When it was taken for the first attempt.
    pub taken: Now,
    /// It was fetched for this very request: once it is old enough, a refusal of it is not tried again.
    pub fetched_for_this: bool,
    /// The route that the permit belongs to, if the token is one of an old secret.
    pub current_route: Option<Rc<RouteState>>,
}

struct JudgedResponse {
    upstream_response: UpstreamResponse,
    verdict: Verdict,
}

impl UpstreamCall<'_> {
    /// Sends it, and once more if the provider proves that it refused the token, or that it only wants a nonce or a
    /// signature over its challenge.
    pub async fn run(mut self, mut in_use: TokenInUse, log: &mut RequestLog) -> Result<UpstreamResponse, Fault> {
        if self.route.route.module.signs() {
            Box::pin(self.sign(&in_use)).await?;
        }
        let first = self.attempt(&mut in_use, log).await?;
        let leases = &self.worker.shared.leases;
        let meters = self.route.meters_of(log);
        let generation = in_use.lease.generation;
        let refused_with = first.upstream_response.response.status();
        match first.verdict {
            Verdict::Accepted => {
                prove(&in_use.lease, refused_with);
                if let Some(lent) = &first.upstream_response.lent {
                    lent.connection.reuse(self.headers);
                }
                return Ok(first.upstream_response);
            }
            Verdict::Unknown => {
                self.suspect(&first.upstream_response, &in_use, log);
                return Ok(first.upstream_response);
            }
            Verdict::Challenged | Verdict::Refused => {}
        }
        let is_refused = first.verdict == Verdict::Refused;
        // A token may be refused because the provider does not know it yet: the keeper sees to that. One that another call
        // was answered with has been taken back since.
        let was_usable = in_use.lease.proved() || in_use.lease.is_newly_issued(self.worker.now());
        if is_refused && in_use.fetched_for_this && !was_usable && !self.lost_to_another(&in_use).await {
            leases.refused_at_birth(in_use.permit.spec().clone(), generation);
            self.worker.distrust(&in_use.permit.spec().key, generation);
            if let Some(meters) = meters {
                meters.not_replayed.inc();
            }
            return Ok(first.upstream_response);
        }
        if let Some(why) = self.replay_body.as_ref().and_then(|replay_body| replay_body.not_replayable()) {
            if is_refused {
                self.withdraw(&in_use);
            }
            return Ok(self.not_replayed(first.upstream_response, why, log));
        }
        // The rare case has its own future, so that no other request needs room for it.
        Box::pin(self.again(first, in_use, log)).await
    }

    /// The one replay, after a challenge or a refusal.
    async fn again(
        self,
        first: JudgedResponse,
        in_use: TokenInUse,
        log: &mut RequestLog,
    ) -> Result<UpstreamResponse, Fault> {
        match first.verdict {
            Verdict::Challenged => self.answer_challenge(first.upstream_response, in_use, log).await,
            Verdict::Accepted | Verdict::Refused | Verdict::Unknown => {
                self.replace_token(first.upstream_response, in_use, log).await
            }
        }
    }

    /// The replay after a challenge: the same call with the same token, dressed and signed anew, with the nonce or the
    /// challenge that the provider gave. Whatever its answer is, no other attempt follows.
    async fn answer_challenge(
        mut self,
        challenge: UpstreamResponse,
        mut in_use: TokenInUse,
        log: &mut RequestLog,
    ) -> Result<UpstreamResponse, Fault> {
        let challenged_with = challenge.response.status();
        let module = &self.route.route.module;
        module.take_challenge(challenged_with, challenge.response.headers(), &mut self.headers);
        challenge.discard();
        self.dress_again(&mut in_use).await?;
        log.record().replay = Replay::Challenged;
        let mut second = self.attempt(&mut in_use, log).await?;
        second.upstream_response.note = Some(note(challenged_with, "challenged"));
        let meters = self.route.meters_of(log);
        match second.verdict {
            Verdict::Accepted => prove(&in_use.lease, second.upstream_response.response.status()),
            Verdict::Challenged => {}
            Verdict::Refused => {
                self.withdraw(&in_use);
                if let Some(meters) = meters {
                    meters.refused_again.inc();
                }
                return Ok(second.upstream_response);
            }
            Verdict::Unknown => self.suspect(&second.upstream_response, &in_use, log),
        }
        if let Some(meters) = meters {
            meters.challenged.inc();
        }
        Ok(second.upstream_response)
    }

    /// Takes a token that was refused out of use. The request at hand is not sent again with its successor.
    fn withdraw(&self, in_use: &TokenInUse) {
        match in_use.current_route {
            Some(_) => self.worker.drop_previous(&in_use.lease),
            None => {
                let (spec, generation) = (in_use.permit.spec(), in_use.lease.generation);
                self.worker.shared.leases.withdrawn(spec.clone(), generation, false);
                self.worker.distrust(&spec.key, generation);
            }
        }
    }

    /// Has a token renewed in the background after a 401 that the profile does not know.
    fn suspect(&self, upstream_response: &UpstreamResponse, in_use: &TokenInUse, log: &RequestLog) {
        self.log_unknown(upstream_response);
        if let Some(meters) = self.route.meters_of(log) {
            meters.unknown_refusals.inc();
        }
        if in_use.current_route.is_none() {
            self.worker.shared.leases.suspect(in_use.permit.spec().clone(), in_use.lease.generation);
        }
    }

    /// The provider's answer to a request that cannot be sent again, with the reason.
    fn not_replayed(&self, mut answer: UpstreamResponse, why: Ungathered, log: &mut RequestLog) -> UpstreamResponse {
        log.record().replay = Replay::Impossible;
        if let Some(meters) = self.route.meters_of(log) {
            meters.not_replayed.inc();
        }
        answer.note = Some(note(answer.response.status(), not_replayed(why)));
        answer
    }

    /// The replay after a refusal: with a new token, or after a pause with the same one if it was refused in its first moments.
    async fn replace_token(
        mut self,
        refusal: UpstreamResponse,
        mut in_use: TokenInUse,
        log: &mut RequestLog,
    ) -> Result<UpstreamResponse, Fault> {
        let refused_with = refusal.response.status();
        let generation = in_use.lease.generation;
        let is_newly_issued = in_use.lease.is_newly_issued(self.worker.now());
        let replaced = is_newly_issued && self.lost_to_another(&in_use).await;
        // The refusal is dropped here; its connection goes back if both messages ended, and is closed if not.
        refusal.discard();
        let leases = &self.worker.shared.leases;
        let cause = log.wait_for(TOKEN_WAIT, &self.route.route.provider.name);
        let issued = match in_use.current_route {
            None => {
                let newer = leases.refused_for(in_use.permit.spec().clone(), generation, replaced, cause);
                self.worker.distrust(&in_use.permit.spec().key, generation);
                newer.await
            }
            Some(_) => {
                self.worker.drop_previous(&in_use.lease);
                leases.need_since(in_use.permit.spec().clone(), Some(in_use.taken), cause).await
            }
        };
        let issued = match issued {
            Ok(issued) => issued,
            Err(refused) => self.obtain_other(&mut in_use, &refused, cause, log).await?,
        };
        log.waited();
        self.worker.remember(&issued);
        self.redress(&mut in_use, issued.lease).await?;
        log.record().replay = Replay::Replayed;
        let mut second = self.attempt(&mut in_use, log).await?;
        second.upstream_response.note = Some(note(refused_with, "replayed"));
        let refused_again = second.verdict == Verdict::Refused;
        if second.verdict == Verdict::Accepted {
            prove(&in_use.lease, second.upstream_response.response.status());
        }
        if refused_again {
            let leases = &self.worker.shared.leases;
            if self.lost_to_another(&in_use).await {
                leases.withdrawn(in_use.permit.spec().clone(), in_use.lease.generation, true);
            } else {
                leases.refused_at_birth(in_use.permit.spec().clone(), in_use.lease.generation);
            }
            self.worker.distrust(&in_use.permit.spec().key, in_use.lease.generation);
        }
        if let Some(meters) = self.route.meters_of(log) {
            if refused_again {
                meters.refused_again.inc()
            } else {
                meters.replayed.inc()
            };
        }
        Ok(second.upstream_response)
    }

    /// Requests a token with the credentials of the other slot, after those of the token in use were refused.
    async fn obtain_other(
        &self,
        in_use: &mut TokenInUse,
        refused: &Unavailable,
        cause: Option<Context>,
        log: &mut RequestLog,
    ) -> Result<Issued, Fault> {
        log.because(refused.inside.clone());
        let current = in_use.current_route.take().unwrap_or_else(|| self.route.clone());
        let refused = (refused, Some(in_use.taken));
        let (issued, other) = in_use.permit.obtain_other(self.worker, &current, refused, cause).await?;
        in_use.current_route = Some(other);
        Ok(issued)
    }

    /// Puts another token on the request, and signs it anew.
    async fn redress(&mut self, in_use: &mut TokenInUse, lease: Arc<Lease>) -> Result<(), Fault> {
        in_use.lease = lease;
        if let Some(current_route) = in_use.current_route.take() {
            current_route.was_issued();
            // All that the old one put on has the same names.
            self.route = current_route;
        }
        self.dress_again(in_use).await
    }

    /// Dresses the request for one more attempt: what belongs to the call stays, all else is made anew, signatures too.
    async fn dress_again(&mut self, in_use: &mut TokenInUse) -> Result<(), Fault> {
        let with = CallInputs { lease: &in_use.lease, vars: in_use.permit.vars(), now: self.worker.now() };
        let route = &self.route.route;
        in_use.ids = route.module.redress(&mut self.headers, with, &in_use.ids, &mut RandomIds);
        self.dressed_target = dressed_target(&self.target, route, with, &in_use.ids, &mut RandomIds)?;
        if let Some(body) = &self.replay_body {
            dress_body(body, &mut self.headers, route, with, &in_use.ids, &mut RandomIds)?;
        }
        if self.route.route.module.signs() { self.sign(in_use).await } else { Ok(()) }
    }

    /// Signs and encrypts the request as it is dressed. Every attempt has signatures and messages of its own.
    async fn sign(&mut self, in_use: &TokenInUse) -> Result<(), Fault> {
        let route = self.route.clone();
        let module = &route.route.module;
        let failed = |failure: SignatureFailure| {
            tracing::warn!(provider = %route.route.provider.name, %failure, "a request cannot be signed");
            Fault::from(&failure)
        };
        let with = CallInputs { lease: &in_use.lease, vars: in_use.permit.vars(), now: self.worker.now() };
        let within = Within(route.route.timeouts.response);
        let target = self.dressed_target.as_deref().unwrap_or(&self.target);
        let mut path_and_query = target.path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
        let before = path_and_query.len();
        let authority = route.host.to_str().unwrap_or_default();
        if let Some(replay_body) =
            self.replay_body.as_ref().filter(|body| module.protects_body() && body.kept_bytes() > 0)
        {
            let content = Zeroizing::new(replay_body.content());
            let (method, headers) = (&self.method, &mut self.headers);
            let call = UnsignedCall {
                method,
                authority,
                path_and_query: &mut path_and_query,
                headers: &mut *headers,
                body: &content,
                nonce: None,
            };
            let made = module.protect(call, with, &in_use.ids, (&mut RandomIds, &LibraryEntropy), within).await;
            let JoseBody { content, content_type } = made.map_err(failed)?;
            if !replay_body.replace(&Bytes::copy_from_slice(&content), content_type, headers) {
                return Err(Fault::Overloaded);
            }
        }
        let body = match &self.replay_body {
            Some(body) if module.signs_body() => body.content(),
            Some(_) | None => Vec::new(),
        };
        let nonces = Some(&route.route.provider.nonces).filter(|_| module.proves());
        let nonce = nonces.and_then(|nonces| nonces.find(DpopServer::Resource, authority));
        let call = UnsignedCall {
            method: &self.method,
            authority,
            path_and_query: &mut path_and_query,
            headers: &mut self.headers,
            body: &body,
            nonce: nonce.as_deref(),
        };
        module.sign(call, with, &in_use.ids, &mut RandomIds, within).await.map_err(failed)?;
        if path_and_query.len() > before {
            let target = PathAndQuery::from_maybe_shared(Bytes::from(path_and_query)).map_err(|_| Fault::UriTooLong)?;
            self.dressed_target = Some(Box::new(Uri::from(target)));
        }
        Ok(())
    }

    /// Puts another token on a request that was not sent because the token on it has ended in the meantime. Returns
    /// whether the connection already acquired can still be used: there was no other wait.
    async fn redress_late(
        &mut self,
        in_use: &mut TokenInUse,
        log: &mut RequestLog,
        late: &mut u32,
    ) -> Result<bool, Fault> {
        *late += 1;
        if *late > MOST_TRIES {
            tracing::warn!(provider = %self.route.route.provider.name, "tokens expire before a connection is ready");
            return Err(Fault::TokenUnavailable(Duration::from_secs(1)));
        }
        // Another route may have another place.
        let mut waited = in_use.current_route.is_some();
        let lease = match self.worker.cached_lease(&in_use.permit, self.worker.now()) {
            Some(lease) => {
                in_use.fetched_for_this = false;
                lease
            }
            None => {
                waited = true;
                let cause = log.wait_for(TOKEN_WAIT, &self.route.route.provider.name);
                let issued = match self.worker.shared.leases.need_for(in_use.permit.spec().clone(), cause).await {
                    Ok(issued) => issued,
                    // Its own future, so that no other request needs room for it.
                    Err(refused) => Box::pin(self.obtain_other(in_use, &refused, cause, log)).await?,
                };
                log.waited();
                self.worker.remember(&issued);
                in_use.fetched_for_this = issued.fresh;
                issued.lease
            }
        };
        self.redress(in_use, lease).await?;
        let id = in_use.ids.iter().next().map(|(_, id)| id.clone());
        log.spend_instead((in_use.lease.fingerprint, in_use.lease.generation), id);
        Ok(!waited)
    }

    /// Returns whether a token was refused because another replica has fetched one since, at a provider that then
    /// invalidates this replica's token. Such a refusal does not show that fetching is useless.
    async fn lost_to_another(&self, in_use: &TokenInUse) -> bool {
        let (spec, lease) = (in_use.permit.spec(), &in_use.lease);
        spec.procedure.is_contested()
            && Box::pin(self.worker.shared.leases.is_replaced(spec.key, lease.generation)).await
    }

    /// One exchange with the provider: send, wait for the head, judge it.
    async fn attempt(&mut self, in_use: &mut TokenInUse, log: &mut RequestLog) -> Result<JudgedResponse, Fault> {
        let id = in_use.ids.iter().next().map(|(_, id)| id.clone());
        log.spend((in_use.lease.fingerprint, in_use.lease.generation), id);
        log.set_out(&self.route, &self.method, &self.target, &mut self.headers);
        let watch = Stopwatch::start();
        let (mut response, connection, turning) = if self.hop.websocket && self.route.websocket.is_some() {
            let (response, turning) = Box::pin(self.send_alone(in_use, log)).await?;
            (response, None, Some(turning))
        } else {
            let (response, connection) = self.send(in_use, log).await?;
            (response, Some(connection), None)
        };
        if !headers::settle_framing(response.headers_mut()) {
            return Err(Fault::UpstreamProtocol);
        }
        let took = watch.elapsed();
        log.record().upstream_took = Some(took);
        if let Some(meters) = self.route.meters_of(log) {
            meters.answered(took);
        }
        let lent = connection.map(|connection| Lent {
            endpoint: self.route.endpoint.clone(),
            connection,
            request: self.replay_body.clone(),
            clock: self.worker.shared.clock.clone(),
        });
        let module = &self.route.route.module;
        if module.proves() {
            let authority = self.route.host.to_str().unwrap_or_default();
            self.route.route.provider.nonces.learn(DpopServer::Resource, authority, response.headers());
        }
        let patience = self.route.route.timeouts.body_idle;
        let status = response.status();
        let mut peeked = None;
        if let Some(opener) = module.opener(status).filter(|_| self.method != Method::HEAD) {
            let opened = Box::pin(open(opener, &mut response, self.sent(), &self.route, self.worker.now())).await;
            peeked = Some(opened.inspect_err(|_| log.came_back(status, Verdict::Accepted))?);
        }
        let wants_body = module.wants_body(status, response.headers());
        if wants_body && peeked.is_none() {
            let patience = patience.min(self.route.route.timeouts.response);
            peeked = Some(Box::pin(peek(&mut response, patience)).await);
        }
        let body = peeked.as_ref().filter(|_| wants_body).and_then(|peeked| decode(response.headers(), peeked));
        let verdict = module.judge(status, response.headers(), body.as_deref());
        log.came_back(status, verdict);
        if let Some(known) = &self.route.route.shadow {
            let part = known.verdict_difference(status, response.headers(), body.as_deref(), verdict);
            known.counts().note_parts(part.as_slice());
            shadow::tell(self.worker, &self.route.route, known, part.as_slice(), self.worker.now());
        }
        let mut upstream_response = UpstreamResponse {
            response,
            peeked,
            lent,
            turning,
            note: None,
            patience,
            hop: self.hop,
            route: self.route.clone(),
            patterns: self.route.patterns(&in_use.lease),
            screen: None,
            copy: None,
        };
        if let Some(recording) = &self.route.route.provider.recording {
            upstream_response.copy =
                self.copy(recording, in_use, verdict, upstream_response.response.headers(), status);
        }
        Ok(JudgedResponse { upstream_response, verdict })
    }

    /// Sends the request over a connection and returns the head of its response.
    ///
    /// A request that was certainly not sent or, as the provider reports, not processed goes on another connection. GET
    /// and HEAD without a body are sent once more if a *reused* connection broke before any byte of a response: the
    /// provider may have closed it while it was idle. No other request is sent twice.
    async fn send(
        &mut self,
        in_use: &mut TokenInUse,
        log: &mut RequestLog,
    ) -> Result<(Response<ReceivedBody>, Connection<RequestBody>), Fault> {
        let provider = self.route.route.provider.name.clone();
        let mut body = self.body();
        // It may have been seen: a signature that its reader accepts once has to be made anew.
        let mut may_be_seen = false;
        let mut late = 0;
        let mut acquired = None;
        let mut may_resend = self.replay_body.is_none() && (self.method == Method::GET || self.method == Method::HEAD);
        let mut tries = 1;
        loop {
            if std::mem::take(&mut may_be_seen) && self.route.route.module.signs() {
                Box::pin(self.dress_for_resending(in_use, log)).await?;
                body = self.body();
            }
            let risk = if may_resend { Resend::Bearable } else { Resend::Unbearable };
            let mut connection = match acquired.take() {
                Some(connection) => connection,
                None => {
                    self.route.endpoint.acquire(self.worker.now(), risk).await.map_err(|refusal| match refusal {
                        NoConnection::Dial(error) => {
                            tracing::warn!(%provider, %error, "cannot connect");
                            log.because(error.to_string().into());
                            Fault::from(&*error)
                        }
                        NoConnection::Full => Fault::Overloaded,
                    })?
                }
            };
            let reused = connection.reused;
            let Some(cleared) = ClearedRequest::check(self.worker, &in_use.lease, self.head(), body) else {
                acquired = Box::pin(self.redress_late(in_use, log, &mut late)).await?.then_some(connection);
                body = self.body();
                continue;
            };
            let waited = self.wait(pin!(cleared.send(&mut connection))).await;
            let sent = match waited {
                Ok(sent) => sent,
                Err(fault) => {
                    connection.distrust();
                    return Err(fault);
                }
            };
            match sent {
                // No other protocol was requested, and the bytes that follow would not be HTTP.
                Sent::Answered(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    return Err(Fault::UpstreamProtocol);
                }
                Sent::Answered(response) => {
                    log.record().upstream = connection.peer();
                    return Ok((response, connection));
                }
                Sent::Unsent(unsent) if reused || tries < MOST_TRIES => {
                    tries += u32::from(!reused);
                    body = unsent;
                }
                Sent::Unsent(_) => return Err(Fault::UpstreamUnreachable),
                Sent::Refused(error) => {
                    let retellable = self.replay_body.as_ref().is_none_or(|replay_body| replay_body.retellable());
                    if tries >= MOST_TRIES || !retellable {
                        tracing::warn!(%provider, %error, "the request was turned away unprocessed");
                        log.because(error.to_string().into());
                        return Err(Fault::UpstreamUnreachable);
                    }
                    tries += 1;
                    body = self.body();
                    may_be_seen = true;
                }
                Sent::Broken { error, closed } => {
                    if reused && may_resend && closed {
                        may_resend = false;
                        body = self.body();
                        may_be_seen = true;
                        continue;
                    }
                    if let Some(ungathered) = self.replay_body.as_ref().and_then(|replay_body| replay_body.fault()) {
                        return Err(Fault::from(ungathered));
                    }
                    tracing::warn!(%provider, %error, "exchange broke off");
                    log.because(error.to_string().into());
                    return Err(Fault::UpstreamProtocol);
                }
            }
        }
    }

    /// Dresses and signs the request anew for one more connection.
    async fn dress_for_resending(&mut self, in_use: &mut TokenInUse, log: &mut RequestLog) -> Result<(), Fault> {
        self.dress_again(in_use).await?;
        let id = in_use.ids.iter().next().map(|(_, id)| id.clone());
        log.spend_instead((in_use.lease.fingerprint, in_use.lease.generation), id);
        Ok(())
    }

    /// Sends the request over a connection of its own, which may become a WebSocket. Never sends a request twice.
    async fn send_alone(
        &mut self,
        in_use: &mut TokenInUse,
        log: &mut RequestLog,
    ) -> Result<(Response<ReceivedBody>, Turning), Fault> {
        let mut late = 0;
        let mut connected = None;
        loop {
            let route = self.route.clone();
            let place = route.websocket.as_ref().ok_or(Fault::Internal)?;
            let alone = match connected.take() {
                Some(alone) => alone,
                None => upgrade::connect(place, route.gauge.clone(), self.worker.now()).await?,
            };
            let Some(cleared) = ClearedRequest::check(self.worker, &in_use.lease, self.head(), self.body()) else {
                connected = self.redress_late(in_use, log, &mut late).await?.then_some(alone);
                continue;
            };
            let peer = alone.peer;
            let answered = alone.send(cleared, route.route.timeouts.response).await?;
            log.record().upstream = peer;
            return Ok(answered);
        }
    }

    /// Waits for an answer's head: the clock starts anew whenever the request's body moves, so a slow upload is not the
    /// provider's fault. Interim answers (1xx) do not move it: however many there are, they end with it.
    async fn wait(
        &self,
        mut sending: Pin<&mut impl Future<Output = Sent<RequestBody>>>,
    ) -> Result<Sent<RequestBody>, Fault> {
        let patience = self.route.route.timeouts.response;
        let mut left = patience;
        loop {
            if let Ok(sent) = timeout(left, &mut sending).await {
                return Ok(sent);
            }
            // Without a body, nothing could have moved since.
            let Some(moved) = self.replay_body.as_ref().map(|replay_body| replay_body.moved()) else {
                return Err(Fault::UpstreamResponseTimeout);
            };
            left = match patience.checked_sub(self.worker.now().since(moved)) {
                Some(left) if !left.is_zero() => left,
                Some(_) | None => return Err(Fault::UpstreamResponseTimeout),
            };
        }
    }

    /// Begins to copy the exchange for a recording, if that wants it. What is not whole of the request's body is left out.
    fn copy(
        &self,
        recording: &Recording,
        in_use: &TokenInUse,
        verdict: Verdict,
        headers: &HeaderMap,
        status: StatusCode,
    ) -> Option<Box<RecordingCopy>> {
        let now = self.worker.now();
        let turn = recording.begin(&self.route.route.name, &self.method, status, now)?;
        let target = self.dressed_target.as_deref().unwrap_or(&self.target);
        let body = self.replay_body.as_ref().filter(|body| {
            body.arrived() && body.not_replayable().is_none() && body.kept_bytes() <= MOST_RECORDED_BODY as u64
        });
        let exchange = RecordedExchange {
            module: self.route.route.module.clone(),
            kind: RecordedKind::Resource(verdict),
            method: self.method.clone(),
            target: target.path_and_query().map_or("", PathAndQuery::as_str).into(),
            request_headers: self.headers.clone(),
            request_body: body.map(|body| Zeroizing::new(body.content())),
            credentials: credentials_of(&in_use.lease),
            status,
            headers: headers.clone(),
            body: None,
            at: now,
        };
        Some(Box::new(RecordingCopy::new(turn, Box::new(exchange))))
    }

    /// The request that went out, as signatures of its answer cover it.
    fn sent(&self) -> SignedRequestHead {
        let target = self.dressed_target.as_deref().unwrap_or(&self.target);
        SignedRequestHead {
            method: self.method.clone(),
            authority: self.route.host.to_str().unwrap_or_default().to_owned(),
            path_and_query: target.path_and_query().map_or("", PathAndQuery::as_str).to_owned(),
            headers: self.headers.clone(),
        }
    }

    fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            target: self.dressed_target.as_deref().unwrap_or(&self.target),
            headers: &self.headers,
            spelling: &self.spelling,
        }
    }

    /// Its body from the beginning; what was sent of it before ends.
    fn body(&self) -> RequestBody {
        match &self.replay_body {
            Some(replay_body) => RequestBody::View(replay_body.tell()),
            None => RequestBody::Empty,
        }
    }

    /// A 401 that the profile does not know, by shape: nothing of its values, and of its names only what reads like one,
    /// since a provider may repeat a token even there.
    fn log_unknown(&self, upstream_response: &UpstreamResponse) {
        let headers = upstream_response.response.headers();
        let shown = |name: &str| if is_wordy_secret(name) { name.to_owned() } else { "…".to_owned() };
        let names: Vec<String> = headers.keys().map(|name| shown(name.as_str())).collect();
        let body = upstream_response.peeked.as_ref().and_then(|peeked| decode(headers, peeked));
        let value: Option<serde_json::Value> = body.and_then(|body| serde_json::from_slice(&body).ok());
        let keys: Vec<String> = match &value {
            Some(serde_json::Value::Object(object)) => object.keys().map(|key| shown(key)).collect(),
            Some(_) | None => Vec::new(),
        };
        tracing::warn!(
            provider = %self.route.route.provider.name,
            route = %self.route.route.name,
            status = 401,
            headers = ?names,
            json_keys = ?keys,
            "a 401 that the profile does not know passes through"
        );
    }
}

impl RouteState {
    fn meters_of(&self, log: &RequestLog) -> Option<&crate::observe::metrics::RouteMeters> {
        self.meters(log.listener())
    }
}

/// An answer that is no error proves its token: an error may come from before anybody looked at that.
fn prove(lease: &Lease, status: StatusCode) {
    if status.as_u16() < 400 {
        lease.prove();
    }
}

/// Returns the details of `Proxy-Status` for a request that was not sent again after its token was refused.
const fn not_replayed(why: Ungathered) -> &'static str {
    match why {
        Ungathered::Broken => "not-replayed: body-broken-off",
        Ungathered::Crowded => "not-replayed: buffers-full",
        Ungathered::TooLarge => "not-replayed: body-too-large",
        Ungathered::TooSlow => "not-replayed: body-too-slow",
    }
}

/// A `Proxy-Status` member (RFC 9209) on an answer that passes through after a refusal.
fn note(refused_with: StatusCode, details: &'static str) -> HeaderValue {
    let text = format!("countersign; received-status={}; details=\"{details}\"", refused_with.as_u16());
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("countersign"))
}

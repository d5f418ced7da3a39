//! Token calls, carried out over one connection each, which is closed after the response.
//!
//! Token calls are rare, so they need no pool, and a fresh connection can never be stale. Redirects are not followed.
//! The module interprets the response.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::Full;
use thiserror::Error;
use tokio::sync::oneshot;

use super::recorded_token_request::RecordedTokenRequest;
use super::token_source::{self, TokenSource};
use super::{FetchContext, FetchProcedure, Fetched, TokenSpec, Work};
use crate::base::backoff::Backoff;
use crate::base::id::RandomIds;
use crate::base::origin::BaseUrl;
#[cfg(test)]
use crate::base::planted::{PlantedFault, planted};
use crate::base::secret::{ExposeSecret, Fingerprint};
use crate::base::time::{Clock, Now, Stopwatch, Within};
use crate::base::vars::Vars;
use crate::base::working_hours::WorkingHours;
use crate::config::{ProviderConfig, Route, Snapshot};
use crate::provider::{DpopServer, LoginProgress, Module, SignatureFailure, TokenRequest, date, is_whole, lacks_nonce};
use crate::signing::signer::SigningError;
use crate::store::{Error as StoreError, Store};
use crate::token::call_budget::CallBudget;
use crate::token::failure::{Class, Failure, FailureCause};
use crate::token::grant::{CallCredentials, Grant};
use crate::token::key::{KeyMap, TokenKey};
use crate::upstream::{AskError, Destination};

/// The `User-Agent` of the proxy's own calls, unless a profile or the config sets another.
pub const AGENT: &str = concat!("countersign/", env!("CARGO_PKG_VERSION"));

/// More of a token answer than this is not read.
pub(super) const MOST_ANSWER: usize = 64 * 1024;
/// The same for an answer to a code exchange or a refresh: what it brings cannot be asked for again.
pub(super) const MOST_GRANT: usize = 1024 * 1024;

/// The rest when a request could not be signed: no provider was asked, and a key service tells by itself when it is back.
const SIGNER_REST: Backoff = Backoff { first: Duration::from_secs(1), ceiling: Duration::from_secs(1) };

/// The keys of the modules by which a config's routes get tokens of applications, with current and with next credentials.
pub fn modules_in_force(snapshot: &Snapshot) -> KeyMap<()> {
    let routes = snapshot.routes.iter().flat_map(|route| [Some(route), route.next.as_ref()]).flatten();
    routes.map(|route| (route.module.key(), ())).collect()
}

/// The token that a route of the config with this number needs for these variables.
pub fn token_spec(route: &Arc<Route>, vars: Vars, clock: &Clock, serial: u64) -> Arc<TokenSpec> {
    let provider = route.provider.clone();
    Arc::new(TokenSpec {
        key: route.module.key_for(&vars),
        module: Some(route.module.key()),
        serial,
        provider: provider.name.clone(),
        refresh_before: provider.refresh_before,
        fetch_timeout: provider.timeouts.token,
        procedure: Box::new(TokenCall {
            key: route.module.key_for(&vars),
            module: route.module.clone(),
            provider,
            vars,
            clock: clock.clone(),
        }),
    })
}

/// The call that fetches one token.
#[derive(Clone)]
pub(super) struct TokenCall {
    key: TokenKey,
    module: Arc<Module>,
    provider: Arc<ProviderConfig>,
    vars: Vars,
    clock: Clock,
}

impl FetchProcedure for TokenCall {
    fn vars(&self) -> Option<&Vars> {
        Some(&self.vars)
    }

    fn fetch(&self, aid: FetchContext) -> Pin<Box<dyn Future<Output = Result<Fetched, Failure>>>> {
        let call = self.clone();
        Box::pin(async move {
            let (tell, told) = oneshot::channel();
            if !aid.outlives() {
                aid.bring(&call, tell).await;
                return told.await.unwrap_or_else(|_| Err(abandoned()));
            }
            let work = Work { what: "token.fetch", provider: call.provider.name.clone() };
            let tasks = aid.tasks.clone();
            // The task continues when the fetch is given up: it holds a lock, and its token may have invalidated others.
            if !tasks.spawn(work, async move { aid.bring(&call, tell).await }) {
                return Err(transient("the process ends, and begins no fetch".to_owned()));
            }
            told.await.unwrap_or_else(|_| Err(abandoned()))
        })
    }

    fn is_contested(&self) -> bool {
        self.module.coexistence().is_contested()
    }

    fn hours(&self) -> Option<&WorkingHours> {
        self.provider.hours.as_deref()
    }

    fn is_replaced(&self, aid: FetchContext) -> Pin<Box<dyn Future<Output = Option<bool>>>> {
        let call = self.clone();
        Box::pin(async move { aid.has_newer(&call).await })
    }

    fn invalidate(&self, store: Store, token: Fingerprint) -> Pin<Box<dyn Future<Output = Result<(), StoreError>>>> {
        let key = self.key;
        Box::pin(async move { token_source::invalidate(&store, &key, token).await })
    }
}

impl TokenSource for TokenCall {
    async fn ask(&self) -> Result<(Grant, Now), Failure> {
        let mut login = LoginProgress::default();
        let began = self.clock.now();
        let mut step = 0;
        loop {
            let sent = self.clock.now();
            let request = login.request(&self.module, &self.vars, &mut RandomIds, sent);
            let request = request.ok_or_else(|| transient("the provider has no token".to_owned()))?;
            // All requests of a login share the time that one has.
            let within = Within(self.provider.timeouts.token.saturating_sub(sent.since(began)));
            let about = self.provider.recording.as_ref().map(|_| RecordedTokenRequest::of(&request));
            let (head, body) = exchange(&self.provider, request, MOST_ANSWER, within, sent).await?.into_parts();
            if let (Some(recording), Some(about)) = (&self.provider.recording, about) {
                about.record(recording, &self.module, step, (&head, &body), self.clock.now());
            }
            step += 1;
            let granted = login.answer(&self.module, head.status, &head.headers, &body, sent, self.clock.now())?;
            if let Some(grant) = granted {
                note_type(&self.provider, &grant);
                return Ok((grant, sent));
            }
        }
    }

    fn credentials(&self, grant: &Grant) -> CallCredentials {
        self.module.credentials(grant)
    }

    fn key(&self) -> TokenKey {
        self.key
    }

    fn provider(&self) -> &str {
        &self.provider.name
    }

    fn is_contested(&self) -> bool {
        FetchProcedure::is_contested(self)
    }

    fn budget(&self) -> Option<CallBudget> {
        self.provider.token_budget
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    async fn sleep(&self, pause: Duration) {
        tokio::time::sleep(pause).await;
    }
}

/// One call of a provider's own endpoints: token, authorize, refresh. At most `most` bytes of its answer are read.
pub(super) async fn exchange(
    provider: &ProviderConfig,
    request: TokenRequest,
    most: usize,
    within: Within,
    now: Now,
) -> Result<Response<Bytes>, Failure> {
    call(provider, request, most, within, now).await.map_err(|error| match error {
        // It may be a server that has not heard of the certificate yet: it is asked again as soon as one that is down.
        TokenCallError::Ask(error) if error.refuses_certificate() && provider.certificate.is_some() => Failure {
            cause: Some(FailureCause::Key),
            backoff: Some(Class::Transient.backoff()),
            ..Failure::new(Class::Fatal, format!("token endpoint: {error}"))
        },
        TokenCallError::Ask(error) => transient(format!("token endpoint: {error}")),
        TokenCallError::Malformed(failure) => failure,
    })
}

/// The reason why a call has no answer.
enum TokenCallError {
    Ask(AskError),
    /// The request could not be built, so none was sent.
    Malformed(Failure),
}

/// Calls an endpoint; once more if the server only wants a nonce in the proof of possession. It has done nothing then (RFC
/// 9449 section 8). A second such answer is the answer.
async fn call(
    provider: &ProviderConfig,
    request: TokenRequest,
    most: usize,
    within: Within,
    now: Now,
) -> Result<Response<Bytes>, TokenCallError> {
    let (watch, repeatable) = (Stopwatch::start(), request.repeatable());
    let answer = attempt(provider, request, most, within, now).await?;
    let Some(repeatable) = repeatable.filter(|_| lacks_nonce(answer.status(), answer.headers(), answer.body())) else {
        return Ok(answer);
    };
    let took = watch.elapsed();
    let (now, within) = (now.plus(took), Within(within.0.saturating_sub(took)));
    attempt(provider, repeatable.again(&mut RandomIds, now), most, within, now).await
}

/// One attempt of a call. What its answer says of nonces is learned.
async fn attempt(
    provider: &ProviderConfig,
    request: TokenRequest,
    most: usize,
    within: Within,
    now: Now,
) -> Result<Response<Bytes>, TokenCallError> {
    let destination = destination(provider, &request.url);
    let authority = request.repeatable().map(|_| request.url.authority());
    let nonce = authority.as_deref().and_then(|authority| provider.nonces.find(DpopServer::Authorization, authority));
    let signed = request.signed(nonce.as_deref(), &mut RandomIds, within).await;
    let signed = signed.map_err(|failure| unsigned(&failure));
    let request = signed.and_then(|signed| assemble(provider, signed)).map_err(TokenCallError::Malformed)?;
    let answer =
        ask(&destination, request, most, within, now).await.or_else(told_whole).map_err(TokenCallError::Ask)?;
    if let Some(authority) = authority {
        provider.nonces.learn(DpopServer::Authorization, &authority, answer.headers());
    }
    Ok(answer)
}

/// The failure of a request that cannot be signed. A key service that is gone may be back soon.
fn unsigned(failure: &SignatureFailure) -> Failure {
    let told = transient(format!("token request: {failure}"));
    match failure {
        SignatureFailure::Signer(SigningError::Unavailable(_)) => Failure { backoff: Some(SIGNER_REST), ..told },
        SignatureFailure::Signer(
            SigningError::Failed | SigningError::ShortSecret { .. } | SigningError::WrongKey { .. },
        )
        | SignatureFailure::Unfit(_) => told,
    }
}

/// Takes an answer that ended without TLS's close_notify where nothing can be missing: JSON tells its own end.
pub(super) fn told_whole(error: AskError) -> Result<Response<Bytes>, AskError> {
    match error {
        AskError::Unclosed(unclosed) if is_whole(unclosed.answer().headers(), unclosed.answer().body()) => {
            Ok(unclosed.into_answer())
        }
        other => Err(other),
    }
}

/// Logs a token type that is not known here, once for each word. The profile determines how a call carries the token.
pub(super) fn note_type(provider: &ProviderConfig, grant: &Grant) {
    if let Some(word) = grant.odd_type.as_deref().filter(|word| provider.odd_types.first(word)) {
        tracing::warn!(provider = %provider.name, token_type = word, "the token's type is not Bearer; it is used all the same");
    }
}

/// Asks over the network, or over a simulated one.
async fn ask(
    destination: &Destination,
    request: Request<Full<Bytes>>,
    most: usize,
    within: Within,
    now: Now,
) -> Result<Response<Bytes>, AskError> {
    #[cfg(test)]
    if let Some(network) = super::simulation::network() {
        if planted(PlantedFault::NoDeadline) {
            return network.ask(destination, request).await;
        }
        return tokio::time::timeout(within.0, network.ask(destination, request))
            .await
            .unwrap_or(Err(AskError::Timeout(within)));
    }
    destination.ask(request, most, within, now).await
}

/// Returns the destination of a call to this URL. The provider's own `server_name` applies to its own origin only.
pub fn destination(provider: &ProviderConfig, url: &BaseUrl) -> Destination {
    let at_home = url.same_origin(&provider.base_url);
    let own = provider.server_name.as_ref().filter(|_| at_home);
    Destination {
        host: url.bare_host().into(),
        port: url.port(),
        tls: provider.tls.clone(),
        server_name: own.unwrap_or(url.server_name()).clone(),
        path: provider.way.clone(),
        connect_timeout: provider.timeouts.connect,
    }
}

/// One token call, told in full: for a trial, on which no request waits.
#[derive(Debug)]
pub struct TokenCallReport {
    /// Time at which the last request was sent.
    pub sent: Now,
    /// When its answer was there.
    pub received: Now,
    /// HTTP status code of the response.
    pub status: u16,
    /// The `Date` of the answer, in milliseconds since 1970 (RFC 9110 section 6.6.1).
    pub date: Option<u64>,
    /// The life of the token and what to recognise it by; or why there is none.
    pub outcome: Result<(Duration, Fingerprint), Failure>,
}

/// The reason why a token call has no response.
#[derive(Debug, Error)]
pub enum TokenTrialError {
    /// The exchange failed on the way.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The request could not be built, so none was sent.
    #[error(transparent)]
    Malformed(#[from] Failure),
    /// It took longer than the provider's `timeouts.token`.
    #[error("no answer within `timeouts.token`")]
    Timeout,
}

/// Calls the token endpoint once, and drops the token.
pub async fn try_token(
    provider: &ProviderConfig,
    module: &Module,
    vars: &Vars,
    clock: &Clock,
) -> Result<TokenCallReport, TokenTrialError> {
    let mut login = LoginProgress::default();
    let began = clock.now();
    loop {
        let sent = clock.now();
        let request = login.request(module, vars, &mut RandomIds, sent);
        let request = request.ok_or_else(|| transient("the provider has no token".to_owned()))?;
        let within = Within(provider.timeouts.token.saturating_sub(sent.since(began)));
        let answer = call(provider, request, MOST_ANSWER, within, sent).await.map_err(|error| match error {
            TokenCallError::Ask(AskError::Timeout(_)) => TokenTrialError::Timeout,
            TokenCallError::Ask(error) => TokenTrialError::Ask(error),
            TokenCallError::Malformed(failure) => TokenTrialError::Malformed(failure),
        })?;
        let (head, body) = answer.into_parts();
        let received = clock.now();
        let outcome = match login.answer(module, head.status, &head.headers, &body, sent, received) {
            Ok(None) => continue,
            Ok(Some(grant)) => Ok((grant.life, grant.fingerprint())),
            Err(failure) => Err(failure),
        };
        return Ok(TokenCallReport {
            sent,
            received,
            status: head.status.as_u16(),
            date: date(&head.headers),
            outcome,
        });
    }
}

/// The module's request as a message for the wire.
fn assemble(provider: &ProviderConfig, request: TokenRequest) -> Result<Request<Full<Bytes>>, Failure> {
    let mut target = request.url.path().to_owned();
    if target.is_empty() {
        target.push('/');
    }
    if let Some(query) = &request.query {
        target.push('?');
        target.push_str(query.expose_secret());
    }
    let body = Bytes::copy_from_slice(request.body.expose_secret());
    let mut message = Request::new(Full::new(body));
    *message.method_mut() = request.method;
    // Not the parser's error text: the query may hold a secret.
    *message.uri_mut() = target.parse().map_err(|_| transient("token endpoint: its URL is malformed".to_owned()))?;
    *message.headers_mut() = request.headers;
    say_who(message.headers_mut(), provider.user_agent.as_ref());
    let host = HeaderValue::try_from(request.url.authority());
    let host = host.map_err(|_| transient("token endpoint: its host is malformed".to_owned()))?;
    message.headers_mut().insert(HOST, host);
    let length = request.body.expose_secret().len();
    if length > 0 || message.method() != http::Method::GET {
        message.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(message)
}

/// Adds the fields that every call of the proxy itself carries: firewalls refuse calls without `User-Agent`, and a
/// response without content coding need not be decoded. A profile's own fields stay; `agent`, set by the operator,
/// overrides their `User-Agent`.
pub(super) fn say_who(headers: &mut HeaderMap, agent: Option<&HeaderValue>) {
    match agent {
        Some(agent) => {
            headers.insert(USER_AGENT, agent.clone());
        }
        None => {
            headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        }
    }
    headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
}

fn abandoned() -> Failure {
    transient("the fetch was abandoned".to_owned())
}

fn transient(inside: String) -> Failure {
    Failure::new(Class::Transient, inside)
}

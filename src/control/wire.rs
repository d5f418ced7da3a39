//! Token calls, carried out: one connection each, closed after the answer.
//!
//! Token calls are rare, so they need no pool, and a fresh connection can never be a stale one. Redirects are not
//! followed. What the answer means is the module's business.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderValue, Request, Response};
use http_body_util::Full;

use super::{Aid, Fetched, Order, TokenSpec};
use crate::base::id::RandomIds;
use crate::base::secret::ExposeSecret;
use crate::base::time::{Clock, Now};
use crate::base::vars::Vars;
use crate::config::{Provider, Route};
use crate::provider::{Module, TokenRequest};
use crate::token::failure::{Class, Failure};
use crate::token::grant::Grant;
use crate::token::key::TokenKey;
use crate::upstream::Destination;

/// More of a token answer than this is not read.
const MOST_ANSWER: usize = 64 * 1024;

/// The token that a route needs for these variables.
pub fn token_spec(route: &Arc<Route>, vars: Vars, clock: &Clock) -> Arc<TokenSpec> {
    let provider = route.provider.clone();
    Arc::new(TokenSpec {
        key: route.module.key_for(&vars),
        provider: provider.name.clone(),
        refresh_before: provider.refresh_before,
        fetch_timeout: provider.timeouts.token,
        order: Box::new(Call {
            key: route.module.key_for(&vars),
            module: route.module.clone(),
            provider,
            vars,
            clock: clock.clone(),
        }),
    })
}

/// One token's call.
#[derive(Clone)]
pub(super) struct Call {
    key: TokenKey,
    module: Arc<Module>,
    provider: Arc<Provider>,
    vars: Vars,
    clock: Clock,
}

impl Order for Call {
    fn fetch(&self, aid: Aid) -> Pin<Box<dyn Future<Output = Result<Fetched, Failure>>>> {
        let call = self.clone();
        Box::pin(async move { aid.bring(&call).await })
    }

    fn is_contested(&self) -> bool {
        self.module.coexistence().is_contested()
    }

    fn is_replaced(&self, aid: Aid) -> Pin<Box<dyn Future<Output = bool>>> {
        let call = self.clone();
        Box::pin(async move { aid.has_newer(&call).await })
    }
}

impl Call {
    /// Asks the provider. Says when the request was sent, too.
    pub(super) async fn ask(&self) -> Result<(Grant, Now), Failure> {
        let sent = self.clock.now();
        let request = self.module.token_request(&self.vars, &mut RandomIds, sent);
        let (head, body) = exchange(&self.provider, request, sent).await?.into_parts();
        let grant = self.module.token_answer(head.status, &head.headers, &body, sent, self.clock.now())?;
        Ok((grant, sent))
    }

    /// A grant as the keeper takes it.
    pub(super) fn fetched(&self, (grant, sent): (Grant, Now), adopted: bool) -> Fetched {
        let headers = self.module.credentials(&grant);
        Fetched { sent, life: grant.life, headers, fingerprint: grant.fingerprint(), adopted, record: 0 }
    }

    pub(super) const fn key(&self) -> TokenKey {
        self.key
    }

    /// Whose token it is, for logs.
    pub(super) fn provider(&self) -> &str {
        &self.provider.name
    }

    pub(super) fn now(&self) -> Now {
        self.clock.now()
    }
}

/// One call of a provider's own endpoints: token, authorize, refresh.
pub(super) async fn exchange(provider: &Provider, request: TokenRequest, now: Now) -> Result<Response<Bytes>, Failure> {
    let destination = destination(provider, &request);
    let answer = destination.ask(assemble(request)?, MOST_ANSWER, now).await;
    answer.map_err(|error| transient(format!("token endpoint: {error}")))
}

/// Where to connect. The provider's own `server_name` counts for its own origin only.
fn destination(provider: &Provider, request: &TokenRequest) -> Destination {
    let at_home = request.url.same_origin(&provider.base_url);
    let own = provider.server_name.as_ref().filter(|_| at_home);
    Destination {
        host: request.url.bare_host().into(),
        port: request.url.port(),
        tls: provider.tls.clone(),
        server_name: own.unwrap_or(request.url.server_name()).clone(),
        way: provider.way.clone(),
        connect_timeout: provider.timeouts.connect,
    }
}

/// The module's request as a message for the wire.
fn assemble(request: TokenRequest) -> Result<Request<Full<Bytes>>, Failure> {
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
    let host = HeaderValue::try_from(request.url.authority());
    let host = host.map_err(|_| transient("token endpoint: its host is malformed".to_owned()))?;
    message.headers_mut().insert(HOST, host);
    let length = request.body.expose_secret().len();
    if length > 0 || message.method() != http::Method::GET {
        message.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(message)
}

fn transient(inside: String) -> Failure {
    Failure::new(Class::Transient, inside)
}

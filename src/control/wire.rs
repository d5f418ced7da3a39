//! Token calls, carried out: one connection each, closed after the answer.
//!
//! Token calls are rare, so they need no pool, and a fresh connection can never be a stale one. Redirects are not
//! followed. What the answer means is the module's business.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};

use super::{Fetched, Order, TokenSpec};
use crate::base::id::RandomIds;
use crate::base::secret::ExposeSecret;
use crate::base::time::Clock;
use crate::base::vars::Vars;
use crate::config::{Provider, Route};
use crate::provider::{Module, TokenRequest};
use crate::token::failure::{Class, Failure};
use crate::upstream::{Destination, Sent};

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
        order: Box::new(Call { module: route.module.clone(), provider, vars, clock: clock.clone() }),
    })
}

#[derive(Clone)]
struct Call {
    module: Arc<Module>,
    provider: Arc<Provider>,
    vars: Vars,
    clock: Clock,
}

impl Order for Call {
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Fetched, Failure>>>> {
        let call = self.clone();
        Box::pin(async move { call.run().await })
    }
}

impl Call {
    async fn run(self) -> Result<Fetched, Failure> {
        let sent = self.clock.now();
        let request = self.module.token_request(&self.vars, &mut RandomIds, sent);
        let (status, headers, body) = self.exchange(request).await?;
        let grant = self.module.token_answer(status, &headers, &body, sent, self.clock.now())?;
        let headers = self.module.credentials(&grant);
        Ok(Fetched { sent, life: grant.life, headers, fingerprint: grant.fingerprint() })
    }

    async fn exchange(&self, request: TokenRequest) -> Result<(StatusCode, HeaderMap, Bytes), Failure> {
        let opened = self.destination(&request).open(self.clock.now()).await;
        let mut connection = opened.map_err(|error| transient(format!("token endpoint: {error}")))?;
        let response = match connection.send(assemble(request)?).await {
            Sent::Answered(response) => response,
            Sent::Broken { error, .. } | Sent::Refused(error) => {
                return Err(transient(format!("token endpoint: {error}")));
            }
            Sent::Unsent(_) => return Err(transient("token endpoint: it hung up".to_owned())),
        };
        let (head, body) = response.into_parts();
        match Limited::new(body, MOST_ANSWER).collect().await {
            Ok(body) => {
                connection.close();
                Ok((head.status, head.headers, body.to_bytes()))
            }
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                Err(transient(format!("token endpoint: HTTP {}, more than 64 KiB", head.status.as_u16())))
            }
            Err(_) => Err(transient(format!("token endpoint: HTTP {}, the body broke off", head.status.as_u16()))),
        }
    }

    /// Where to connect. The provider's own `server_name` counts for its own origin only.
    fn destination(&self, request: &TokenRequest) -> Destination {
        let at_home = request.url.same_origin(&self.provider.base_url);
        let own = self.provider.server_name.as_ref().filter(|_| at_home);
        Destination {
            host: request.url.bare_host().into(),
            port: request.url.port(),
            tls: self.provider.tls.clone(),
            server_name: own.unwrap_or(request.url.server_name()).clone(),
            way: self.provider.way.clone(),
            connect_timeout: self.provider.timeouts.connect,
        }
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

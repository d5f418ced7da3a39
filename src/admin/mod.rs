//! The operator's door: health, metrics, tokens, consents. Lives on the control thread.
//!
//! It binds to loopback, yet a web page in a browser on the same machine can reach that: so the `Host` field must name
//! the address itself or `localhost`, and nothing changes by GET. What it shows are view types of its own, made from
//! fingerprints; no token is within its reach.

mod consent;
mod survey;
pub(crate) mod view;

use std::cell::Cell;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::base::time::{Clock, Now};
use crate::control::{Consents, Leases, Ledger, Reloads};
use crate::observe::metrics::Metrics;
use crate::store::Store;

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the door shows.
pub struct Admin {
    /// The tokens.
    pub leases: Leases,
    /// Every metric.
    pub metrics: Arc<Metrics>,
    /// The clocks.
    pub clock: Clock,
    /// Whether we are draining.
    pub draining: Rc<Cell<bool>>,
    /// Users' consents.
    pub consents: Consents,
    /// The configuration, and how reloads went.
    pub reloads: Reloads,
    /// Where records are kept.
    pub store: Store,
    /// Each listener's real address.
    pub addresses: Vec<(Arc<str>, SocketAddr)>,
    /// This process among its replicas.
    pub instance: Arc<str>,
    /// When it started.
    pub started: Now,
}

/// Serves until its task is dropped.
pub async fn serve(admin: Rc<Admin>, listener: TcpListener) {
    let own = listener.local_addr().ok();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = admin.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| {
                let admin = admin.clone();
                async move { Ok::<_, Infallible>(admin.answer(own, request).await) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            // A broken operator's connection is the operator's news, not ours.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Admin {
    async fn answer(&self, own: Option<SocketAddr>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if !names_us(own, request.headers().get(HOST)) {
            return text(StatusCode::MISDIRECTED_REQUEST, "the Host field must name this address or localhost\n");
        }
        // Pages for people come in here: `/`, `/ui/…`, from `dashboard/`.
        let path = request.uri().path().to_owned();
        if path == consent::START || path == consent::REVOKE {
            return consent::answer(self, request).await;
        }
        if !matches!(
            &*path,
            "/livez"
                | "/readyz"
                | "/metrics"
                | "/api/v1/status"
                | "/api/v1/routes"
                | "/api/v1/providers"
                | "/api/v1/tokens"
                | "/api/v1/consents"
        ) {
            let here = "here are /livez, /readyz, /metrics and /api/v1/{status,routes,providers,tokens,consents}\n";
            return text(StatusCode::NOT_FOUND, here);
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "read only\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match &*path {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready(request.uri().query()),
            "/metrics" => self.metrics().await,
            "/api/v1/status" => json(&self.status().await),
            "/api/v1/routes" => json(&self.routes()),
            "/api/v1/providers" => json(&self.providers().await),
            "/api/v1/consents" => json(&self.consents().await),
            _ => json(&self.tokens().await),
        }
    }

    fn ready(&self, query: Option<&str>) -> Response<Full<Bytes>> {
        let draining = self.draining.get();
        let status = if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        if !query.is_some_and(|query| query.split('&').any(|key| key == "verbose" || key.starts_with("verbose="))) {
            return text(status, if draining { "draining\n" } else { "ok\n" });
        }
        let drain = if draining { "[-]drain under way" } else { "[+]drain not begun" };
        let verdict = if draining { "readyz check failed" } else { "readyz check passed" };
        text(
            status,
            &format!("[+]config {} loaded\n[+]listeners bound\n{drain}\n{verdict}\n", self.reloads.current().digest),
        )
    }

    async fn metrics(&self) -> Response<Full<Bytes>> {
        let ledger = self.leases.ledger().await;
        for provider in &self.reloads.current().providers {
            let (live, first) = live(&ledger, &provider.name);
            self.metrics.tokens(&provider.name, live, first);
        }
        typed(StatusCode::OK, OPENMETRICS, self.metrics.encode().into_bytes())
    }
}

/// A provider's live tokens, and when the first of them expires (seconds since 1970).
fn live(ledger: &Ledger, provider: &str) -> (i64, Option<i64>) {
    let tokens = ledger.lines.iter().filter(|line| *line.provider == *provider).filter_map(|line| line.token);
    let (mut count, mut first) = (0, None::<i64>);
    for token in tokens {
        count += 1;
        let at = i64::try_from(token.expires / 1000).unwrap_or(i64::MAX);
        first = Some(first.map_or(at, |known| known.min(at)));
    }
    (count, first)
}

/// Whether the `Host` field is this address or `localhost`: a foreign name that resolves to us is an attack.
fn names_us(own: Option<SocketAddr>, host: Option<&HeaderValue>) -> bool {
    let Some(host) = host.and_then(|host| host.to_str().ok()) else { return false };
    if let Ok(address) = host.parse::<SocketAddr>() {
        return own.is_some_and(|own| same(own.ip(), address.ip()));
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return own.is_some_and(|own| same(own.ip(), address));
    }
    name.eq_ignore_ascii_case("localhost")
}

fn same(own: IpAddr, named: IpAddr) -> bool {
    own == named || (own.is_unspecified() && named.is_loopback())
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", text.as_bytes().to_vec())
}

fn json(view: &impl serde::Serialize) -> Response<Full<Bytes>> {
    typed(StatusCode::OK, "application/json", serde_json::to_vec_pretty(view).unwrap_or_default())
}

fn typed(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_must_be_the_address_itself_or_localhost() {
        let own = Some("127.0.0.1:9901".parse().unwrap());
        let named = |host: &str| names_us(own, Some(&HeaderValue::from_str(host).unwrap()));
        assert!(named("127.0.0.1:9901") && named("localhost:9901") && named("LOCALHOST") && named("127.0.0.1"));
        for foreign in ["evil.example", "evil.example:9901", "localhost.evil.example", "10.0.0.1:9901", "[::1]:9901"] {
            assert!(!named(foreign), "{foreign}");
        }
        assert!(!names_us(own, None));
    }
}

//! Fetching an issuer's keys: one connection each, no redirects, little patience.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use serde::Deserialize;

use super::super::token_call::{say_who, told_whole};
use super::keys::KeySet;
use crate::base::coding::without_coding;
use crate::base::origin::BaseUrl;
use crate::base::time::{Now, Within};
use crate::config::{Issuer, IssuerKeys};
use crate::upstream::{AskError, Destination, EgressPath};

/// More of an answer than this is not read.
const MOST_ANSWER: usize = 256 * 1024;
/// For DNS, TCP and TLS of one connection.
const CONNECT: Duration = Duration::from_secs(5);
/// For one exchange, connecting included.
const EXCHANGE: Within = Within(Duration::from_secs(10));

/// The members of a discovery document that are used here (OpenID Connect Discovery 1.0 section 3).
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

/// Fetches the keys. The error is for the log.
pub async fn fetch(issuer: &Issuer, now: Now) -> Result<KeySet, String> {
    let (url, query) = match &issuer.keys {
        IssuerKeys::At(url) => (url.clone(), None),
        IssuerKeys::Discovered(url) => discover(issuer, url, now).await?,
    };
    let json = get(issuer, &url, url.path(), query.as_deref(), now).await?;
    KeySet::parse(&json).map_err(|error| format!("{url}: {error}"))
}

/// Reads the URL and the query of the issuer's key set from its discovery document.
async fn discover(issuer: &Issuer, url: &BaseUrl, now: Now) -> Result<(BaseUrl, Option<String>), String> {
    let path = format!("{}/.well-known/openid-configuration", url.path());
    let json = get(issuer, url, &path, None, now).await?;
    let found: Discovered =
        serde_json::from_slice(&json).map_err(|_| format!("{url}: its discovery document cannot be read"))?;
    if found.issuer != issuer.name {
        // Section 4.3: else one issuer could speak for another.
        return Err(format!("{url}: its discovery document is that of another issuer, `{}`", found.issuer));
    }
    let (place, query) = match found.jwks_uri.split_once('?') {
        Some((place, query)) => (place, Some(query.to_owned())),
        None => (&*found.jwks_uri, None),
    };
    let place = BaseUrl::parse(place).map_err(|error| format!("{url}: its `jwks_uri`: {error}"))?;
    Ok((place, query))
}

/// Returns the destination to connect to for an issuer's URL.
pub fn place(issuer: &Issuer, url: &BaseUrl) -> Destination {
    Destination {
        host: url.bare_host().into(),
        port: url.port(),
        tls: issuer.tls.clone(),
        server_name: url.server_name().clone(),
        path: EgressPath::default(),
        connect_timeout: CONNECT,
    }
}

async fn get(issuer: &Issuer, url: &BaseUrl, path: &str, query: Option<&str>, now: Now) -> Result<Bytes, String> {
    let mut target = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    let request = Request::get(&target).header(ACCEPT, HeaderValue::from_static("application/json"));
    let request = request.header(HOST, url.authority()).body(Full::<Bytes>::default());
    let mut request = request.map_err(|_| format!("{url}: this is no URL to ask"))?;
    say_who(request.headers_mut(), None);
    let destination = place(issuer, url);
    match destination.ask(request, MOST_ANSWER, EXCHANGE, now).await.or_else(told_whole) {
        Ok(answer) if answer.status() == StatusCode::OK => {
            let plain =
                without_coding(answer.headers(), answer.body(), MOST_ANSWER).map_err(|why| format!("{url}: {why}"))?;
            Ok(plain.into_owned().into())
        }
        Ok(answer) => Err(format!("{url}: HTTP {}", answer.status().as_u16())),
        Err(AskError::Timeout(_)) => Err(format!("{url}: no answer in time")),
        Err(error) => Err(format!("{url}: {error}")),
    }
}

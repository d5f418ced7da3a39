//! Fetching an issuer's keys: one connection each, no redirects, little patience.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use thiserror::Error;

use super::super::token_call::{say_who, told_whole};
use super::keys::{KeySet, KeySetError};
use crate::base::coding::{Undecodable, without_coding};
use crate::base::origin::BaseUrl;
use crate::base::time::{Now, Within};
use crate::config::{Issuer, IssuerKeys};
use crate::secret_source::{SourceProblem, bearer_of_file};
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

/// The reason for which an issuer's keys could not be fetched from this URL. It is for the log.
#[derive(Debug, Error)]
#[error("{url}: {cause}")]
pub struct KeyFetchError {
    url: BaseUrl,
    #[source]
    cause: KeyFetchCause,
}

/// The cause of a [`KeyFetchError`].
#[derive(Debug, Error)]
enum KeyFetchCause {
    #[error(transparent)]
    Ask(AskError),
    #[error(transparent)]
    Coding(#[from] Undecodable),
    #[error("its discovery document cannot be read")]
    Discovery,
    /// The text says what is wrong with the URL.
    #[error("its `jwks_uri`: {0}")]
    JwksUri(String),
    #[error(transparent)]
    Keys(#[from] KeySetError),
    /// Its name for itself.
    #[error("its discovery document is that of another issuer, `{0}`")]
    OtherIssuer(String),
    #[error("HTTP {}", .0.as_u16())]
    Status(StatusCode),
    #[error("no answer in time")]
    Timeout,
    #[error("{}; {}", .0.what, .0.cure)]
    Token(SourceProblem),
    #[error("this is no URL to ask")]
    Url(#[source] http::Error),
}

impl From<AskError> for KeyFetchCause {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Timeout(_) => KeyFetchCause::Timeout,
            other => KeyFetchCause::Ask(other),
        }
    }
}

/// Fetches the keys.
pub async fn fetch(issuer: &Issuer, now: Now) -> Result<KeySet, KeyFetchError> {
    let (url, query) = match &issuer.keys {
        IssuerKeys::At(url) => (url.clone(), None),
        IssuerKeys::Discovered(url) => {
            let found = discover(issuer, url, now).await;
            found.map_err(|cause| KeyFetchError { url: url.clone(), cause })?
        }
    };
    let json = get(issuer, &url, url.path(), query.as_deref(), now).await;
    let keys = json.and_then(|json| Ok(KeySet::parse(&json)?));
    keys.map_err(|cause| KeyFetchError { url, cause })
}

/// Reads the URL and the query of the issuer's key set from its discovery document.
async fn discover(issuer: &Issuer, url: &BaseUrl, now: Now) -> Result<(BaseUrl, Option<String>), KeyFetchCause> {
    let path = format!("{}/.well-known/openid-configuration", url.path());
    let json = get(issuer, url, &path, None, now).await?;
    let found: Discovered = serde_json::from_slice(&json).map_err(|_| KeyFetchCause::Discovery)?;
    if found.issuer != issuer.name {
        // Section 4.3: else one issuer could speak for another.
        return Err(KeyFetchCause::OtherIssuer(found.issuer));
    }
    let (place, query) = match found.jwks_uri.split_once('?') {
        Some((place, query)) => (place, Some(query.to_owned())),
        None => (&*found.jwks_uri, None),
    };
    let place = BaseUrl::parse(place).map_err(KeyFetchCause::JwksUri)?;
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

/// Returns whether the config names this host and port: a discovery document may lead elsewhere, and no token goes there.
fn is_its_own(issuer: &Issuer, url: &BaseUrl) -> bool {
    let (IssuerKeys::At(named) | IssuerKeys::Discovered(named)) = &issuer.keys;
    named.authority() == url.authority()
}

async fn get(
    issuer: &Issuer,
    url: &BaseUrl,
    path: &str,
    query: Option<&str>,
    now: Now,
) -> Result<Bytes, KeyFetchCause> {
    let mut target = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    let request = Request::get(&target).header(ACCEPT, HeaderValue::from_static("application/json"));
    let request = request.header(HOST, url.authority()).body(Full::<Bytes>::default());
    let mut request = request.map_err(KeyFetchCause::Url)?;
    if let Some(path) = issuer.token_file.as_deref().filter(|_| is_its_own(issuer, url)) {
        let token = bearer_of_file(path, "the token for the issuer").map_err(KeyFetchCause::Token)?;
        request.headers_mut().insert(AUTHORIZATION, token);
    }
    say_who(request.headers_mut(), None);
    let destination = place(issuer, url);
    let answer = destination.ask(request, MOST_ANSWER, EXCHANGE, now).await.or_else(told_whole)?;
    if answer.status() != StatusCode::OK {
        return Err(KeyFetchCause::Status(answer.status()));
    }
    let plain = without_coding(answer.headers(), answer.body(), MOST_ANSWER)?;
    Ok(plain.into_owned().into())
}

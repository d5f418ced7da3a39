//! Grants: successful responses of token endpoints, and the credentials of calls that are made from them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::base::secret::{ExposeSecret, Fingerprint, SecretString};

/// The longest token life that is accepted, regardless of the value that the provider sends.
pub const LIFE_CAP: Duration = Duration::from_secs(24 * 3600);

/// A successful answer of a token endpoint, read and bounded (RFC 6749 section 5.1).
pub struct Grant {
    pub access_token: SecretString,
    /// Life of the access token, counted from when its request was *sent*. Never zero in a token endpoint's response,
    /// never above [`LIFE_CAP`].
    pub life: Duration,
    /// Response headers that the profile captures, by capture name.
    pub captured: Vec<(Arc<str>, HeaderValue)>,
    /// The token's type as it was told, where that is not `Bearer`, as far as it may be shown.
    pub odd_type: Option<Box<str>>,
}

impl Grant {
    /// Enough to recognise the token in a log.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.access_token.expose_secret().as_bytes())
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("token", &self.fingerprint()).field("life", &self.life).finish_non_exhaustive()
    }
}

/// A successful answer to a code exchange or a refresh: an access token of one user, and what renews it.
#[derive(Debug)]
pub struct UserGrant {
    /// The access token, with what the answer's headers say about the user.
    pub grant: Grant,
    /// The refresh token. `None`: the provider issued none, or the one that was used stays valid (RFC 6749 section 6).
    pub refresh: Option<RefreshGrant>,
}

/// A refresh token as it was answered.
pub struct RefreshGrant {
    pub token: SecretString,
    /// Life of the refresh token, counted from when its request was *sent*; `None`: unknown until the provider refuses
    /// it.
    pub life: Option<Duration>,
}

impl fmt::Debug for RefreshGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshGrant").field("life", &self.life).finish_non_exhaustive()
    }
}

/// The place of a call at which the proxy puts a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CallPlace {
    /// The field of the body to which this JSON pointer leads.
    Body(Arc<str>),
    /// The cookie of this name.
    Cookie(Arc<str>),
    /// The header of this name.
    Header(HeaderName),
    /// The parameter of this name in the query of the URL.
    Query(Arc<str>),
    /// None: the value is signed, and not sent.
    Signature,
}

impl CallPlace {
    /// Returns the pointer to the field of the body; `None` if it is none.
    pub const fn as_body(&self) -> Option<&Arc<str>> {
        match self {
            CallPlace::Body(pointer) => Some(pointer),
            CallPlace::Cookie(_) | CallPlace::Header(_) | CallPlace::Query(_) | CallPlace::Signature => None,
        }
    }

    /// Returns the name of the cookie; `None` if it is none.
    pub const fn as_cookie(&self) -> Option<&Arc<str>> {
        match self {
            CallPlace::Cookie(name) => Some(name),
            CallPlace::Body(_) | CallPlace::Header(_) | CallPlace::Query(_) | CallPlace::Signature => None,
        }
    }

    /// Returns the name of the header; `None` if it is none.
    pub const fn as_header(&self) -> Option<&HeaderName> {
        match self {
            CallPlace::Header(name) => Some(name),
            CallPlace::Body(_) | CallPlace::Cookie(_) | CallPlace::Query(_) | CallPlace::Signature => None,
        }
    }

    /// Returns the name of the query parameter; `None` if it is none.
    pub const fn as_query(&self) -> Option<&Arc<str>> {
        match self {
            CallPlace::Query(name) => Some(name),
            CallPlace::Body(_) | CallPlace::Cookie(_) | CallPlace::Header(_) | CallPlace::Signature => None,
        }
    }

    /// Returns whether its name says that it identifies a payment to the provider: two calls with one value are one
    /// payment (draft-ietf-httpapi-idempotency-key-header).
    pub fn names_payment(&self) -> bool {
        let name = match self {
            CallPlace::Body(name) | CallPlace::Cookie(name) | CallPlace::Query(name) => name.to_ascii_lowercase(),
            CallPlace::Header(name) => name.as_str().to_owned(),
            CallPlace::Signature => return false,
        };
        name.contains("idempoten") || name == "paypal-request-id"
    }
}

impl fmt::Display for CallPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallPlace::Body(pointer) => write!(f, "body {pointer}"),
            CallPlace::Cookie(name) => write!(f, "cookie {name}"),
            CallPlace::Header(name) => write!(f, "{name}"),
            CallPlace::Query(name) => write!(f, "query {name}"),
            CallPlace::Signature => f.write_str("signature"),
        }
    }
}

/// The texts that carry a credential, built once so that a request only clones them. Every value is marked sensitive.
pub type CallCredentials = Box<[(CallPlace, HeaderValue)]>;

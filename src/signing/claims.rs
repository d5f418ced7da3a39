//! Claims of JSON Web Tokens (RFC 7519), in the order in which they are added.

use serde_json::{Map, Value};

use super::jws::JwsError;
use super::jws::JwsHeader;
use super::jws::PayloadForm;
use super::jws::UnsignedJws;

/// The claims of a token. Moments are in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims(Map<String, Value>);

impl Claims {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a claim; one of the same name is replaced and keeps its place.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Adds `iat`, the moment of issue.
    #[must_use]
    pub fn issued_at(self, seconds: u64) -> Self {
        self.with("iat", seconds)
    }

    /// Adds `exp`, the moment from which on it is refused.
    #[must_use]
    pub fn expires_at(self, seconds: u64) -> Self {
        self.with("exp", seconds)
    }

    /// Adds `nbf`, the moment before which it is refused.
    #[must_use]
    pub fn not_before(self, seconds: u64) -> Self {
        self.with("nbf", seconds)
    }

    /// Adds `jti`, the identifier that makes it unique.
    #[must_use]
    pub fn id(self, id: &str) -> Self {
        self.with("jti", id)
    }

    /// Returns the claims as JSON without whitespace, in their order.
    pub fn to_json(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// Puts the claims behind a header; the token awaits its signature.
    pub fn under(&self, header: &JwsHeader) -> Result<UnsignedJws, JwsError> {
        header.over(self.to_json().as_bytes(), PayloadForm::Attached)
    }
}

impl From<Map<String, Value>> for Claims {
    fn from(claims: Map<String, Value>) -> Self {
        Self(claims)
    }
}

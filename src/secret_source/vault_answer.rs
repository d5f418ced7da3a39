//! The answers of a Vault, read without a connection.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::secret_document::SecretDocument;
use super::source_problem::{SourcePart, SourceProblem};
use crate::base::secret::SecretString;

/// The lease of a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SecretLease {
    pub(super) id: String,
    pub(super) life: Duration,
    pub(super) renewable: bool,
}

/// A token that a login gave, or the next life of one.
pub(super) struct VaultAuth {
    pub(super) token: SecretString,
    /// Zero: it does not end.
    pub(super) life: Duration,
    pub(super) renewable: bool,
}

/// A refusal, by its status and the texts that are known here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum VaultRefusal {
    /// 400, with an answer to a login or a renewal.
    Bad,
    /// 404 of a version that was deleted.
    Deleted,
    /// 403: the token ended, or may not.
    Forbidden,
    /// 404, or 405 of a path that cannot be read.
    Missing,
    /// 404 with the hint that the path lacks `data/`.
    NotVersioned,
    /// Another status.
    Other(StatusCode),
    /// 503: it is sealed or in maintenance.
    Sealed,
    /// 2xx with a body that is no answer of a Vault.
    Unreadable,
}

#[derive(Deserialize)]
struct VaultAnswer {
    #[serde(default)]
    lease_id: String,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
    #[serde(default)]
    data: Option<Map<String, Value>>,
    #[serde(default)]
    auth: Option<AuthBody>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct AuthBody {
    client_token: String,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

fn body(status: StatusCode, bytes: &[u8]) -> Result<VaultAnswer, VaultRefusal> {
    let read: Option<VaultAnswer> = serde_json::from_slice(bytes).ok();
    match status {
        StatusCode::OK | StatusCode::NO_CONTENT => read.ok_or(VaultRefusal::Unreadable),
        StatusCode::BAD_REQUEST => Err(VaultRefusal::Bad),
        StatusCode::FORBIDDEN => Err(VaultRefusal::Forbidden),
        StatusCode::METHOD_NOT_ALLOWED => Err(VaultRefusal::Missing),
        StatusCode::NOT_FOUND => {
            let hints = read.as_ref().and_then(|read| read.warnings.as_deref()).unwrap_or_default();
            let is_hinted = hints.iter().any(|hint| hint.contains("versioned K/V"));
            let is_deleted = read.as_ref().is_some_and(|read| read.data.as_ref().is_some_and(is_versioned));
            Err(match (is_hinted, is_deleted) {
                (true, _) => VaultRefusal::NotVersioned,
                (false, true) => VaultRefusal::Deleted,
                (false, false) => VaultRefusal::Missing,
            })
        }
        StatusCode::SERVICE_UNAVAILABLE => Err(VaultRefusal::Sealed),
        other => Err(VaultRefusal::Other(other)),
    }
}

/// Returns whether `data` is that of the key-value engine, version 2: the secret stands in it, beside its metadata.
fn is_versioned(data: &Map<String, Value>) -> bool {
    let is_metadata =
        data.get("metadata").and_then(Value::as_object).is_some_and(|known| known.contains_key("version"));
    is_metadata && data.len() == 2 && data.get("data").is_some_and(|inner| inner.is_object() || inner.is_null())
}

/// Reads a secret, with its lease if it has one.
pub(super) fn secret(status: StatusCode, bytes: &[u8]) -> Result<(SecretDocument, Option<SecretLease>), VaultRefusal> {
    let body = body(status, bytes)?;
    let mut data = body.data.filter(|data| !data.is_empty()).ok_or(VaultRefusal::Unreadable)?;
    if is_versioned(&data) {
        data = match data.remove("data") {
            Some(Value::Object(inner)) if !inner.is_empty() => inner,
            // A deleted version may be told with 200, too.
            _ => return Err(VaultRefusal::Deleted),
        };
    }
    Ok((SecretDocument::of_object(data), lease(body.lease_id, body.lease_duration, body.renewable)))
}

/// Reads the answer to the renewal of a lease.
pub(super) fn renewed_lease(status: StatusCode, bytes: &[u8]) -> Result<Option<SecretLease>, VaultRefusal> {
    let body = body(status, bytes)?;
    Ok(lease(body.lease_id, body.lease_duration, body.renewable))
}

fn lease(id: String, seconds: u64, renewable: bool) -> Option<SecretLease> {
    // A static secret has a length of time and no lease: it is a hint for caches.
    (!id.is_empty() && seconds > 0).then(|| SecretLease { id, life: Duration::from_secs(seconds), renewable })
}

/// Reads the answer to a login or to the renewal of a token.
pub(super) fn auth(status: StatusCode, bytes: &[u8]) -> Result<VaultAuth, VaultRefusal> {
    let auth = body(status, bytes)?.auth.ok_or(VaultRefusal::Unreadable)?;
    let life = Duration::from_secs(auth.lease_duration);
    Ok(VaultAuth { token: SecretString::from(auth.client_token), life, renewable: auth.renewable })
}

/// Reads what a token is told about itself: the rest of its life, zero if it does not end, and whether it is renewable.
pub(super) fn own_token(status: StatusCode, bytes: &[u8]) -> Result<(Duration, bool), VaultRefusal> {
    let data = body(status, bytes)?.data.unwrap_or_default();
    let ttl = data.get("ttl").and_then(Value::as_u64).unwrap_or_default();
    let renewable = data.get("renewable").and_then(Value::as_bool).unwrap_or_default();
    Ok((Duration::from_secs(ttl), renewable))
}

impl VaultRefusal {
    /// Says it of a secret that was read. `path` is that of the API.
    pub(super) fn of_secret(self, path: &str) -> SourceProblem {
        let (what, cure) = match self {
            VaultRefusal::Bad => ("Vault answers 400".to_owned(), format!("see whether `vault read {path}` works")),
            VaultRefusal::Deleted => {
                ("this version of it is deleted".to_owned(), "write a new one, or name another `version`".to_owned())
            }
            VaultRefusal::Forbidden => (
                "Vault answers 403: the token may not read it, or has ended".to_owned(),
                format!("its policy needs `path \"{path}\" {{ capabilities = [\"read\"] }}`"),
            ),
            VaultRefusal::Missing => {
                ("there is no such secret".to_owned(), format!("see whether `vault read {path}` finds it"))
            }
            VaultRefusal::NotVersioned => (
                "this engine keeps versions, so its secrets are read below `data/`".to_owned(),
                "write it as in `name = \"secret/data/bank\"`".to_owned(),
            ),
            VaultRefusal::Other(_) | VaultRefusal::Sealed | VaultRefusal::Unreadable => return self.of_server(),
        };
        SourceProblem::new(SourcePart::Secret, what, cure)
    }

    /// Says it of a login. `method` is its name.
    pub(super) fn of_login(self, method: &str) -> SourceProblem {
        let (what, cure) = match self {
            VaultRefusal::Bad | VaultRefusal::Forbidden => (
                format!("Vault refuses the login by {method}"),
                "see the role and what it is proven with; the audit log of Vault has the reason",
            ),
            VaultRefusal::Deleted | VaultRefusal::Missing | VaultRefusal::NotVersioned => {
                (format!("Vault has no login by {method} there"), "enable it, or correct its `mount`")
            }
            VaultRefusal::Other(_) | VaultRefusal::Sealed | VaultRefusal::Unreadable => return self.of_server(),
        };
        SourceProblem::new(SourcePart::Credentials, what, cure)
    }

    fn of_server(self) -> SourceProblem {
        match self {
            VaultRefusal::Sealed => SourceProblem::server("Vault is sealed or in maintenance", "unseal it"),
            VaultRefusal::Other(status) if status.is_redirection() => SourceProblem::server(
                format!("the server answers {}: it is a standby of Vault", status.as_u16()),
                "name the address of the active one, or of a load balancer that finds it",
            ),
            VaultRefusal::Other(status) => {
                let what = format!("the server answers {}", status.as_u16());
                SourceProblem::server(what, "it is asked again; see its log")
            }
            VaultRefusal::Bad
            | VaultRefusal::Deleted
            | VaultRefusal::Forbidden
            | VaultRefusal::Missing
            | VaultRefusal::NotVersioned
            | VaultRefusal::Unreadable => {
                SourceProblem::server("the answer is none of Vault's", "see whether `address` is that of a Vault")
            }
        }
    }
}

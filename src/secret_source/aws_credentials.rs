//! Credentials for AWS: those of the config, or temporary ones for a web identity, a container or an instance.
//!
//! A web identity is a token that a cluster writes into a file (IAM roles for service accounts). The Security Token
//! Service gives keys for it by `AssumeRoleWithWebIdentity`, whose request is not signed and whose answer is XML.
//! Containers (ECS, EKS Pod Identity) and instances (IMDSv2) get theirs from an address of their own link, as JSON.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Response, StatusCode};
use quick_xml::Reader;
use quick_xml::events::Event;
use serde::Deserialize;

use super::source_client::{encoded, file_text};
use super::source_problem::{SourcePart, SourceProblem};
use super::source_settings::digest_of;
use super::vault_client::sensitive;
use crate::base::http_call::{HttpCall, HttpWay};
use crate::base::secret::{ExposeSecret, SecretString, is_wordy_secret};
use crate::base::time::{Now, of_rfc3339};

/// Temporary keys are replaced this long before their end, in milliseconds.
const MARGIN: u64 = 5 * 60 * 1000;

/// Keys of an account.
#[derive(Clone)]
pub struct AwsCredentials {
    pub access_key_id: String,
    pub secret_access_key: SecretString,
    /// The token of temporary keys.
    pub session_token: Option<SecretString>,
}

impl fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwsCredentials")
    }
}

/// The proof of the account.
#[derive(Clone, Debug)]
pub enum AwsIdentity {
    /// The credentials endpoint of a container.
    Container {
        path: String,
        authorization: Option<ContainerToken>,
        host: String,
        http: Arc<dyn HttpWay>,
    },
    /// The metadata service of an instance, version 2.
    Instance {
        host: String,
        http: Arc<dyn HttpWay>,
    },
    Keys(AwsCredentials),
    Web {
        role: String,
        /// The file of the token, which the cluster renews.
        token: PathBuf,
        /// The authority of the Security Token Service.
        host: String,
        http: Arc<dyn HttpWay>,
    },
}

/// The value of `Authorization` for the credentials endpoint of a container.
#[derive(Clone)]
pub enum ContainerToken {
    /// It is read from its file for each question.
    File(PathBuf),
    Text(SecretString),
}

impl fmt::Debug for ContainerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContainerToken")
    }
}

impl AwsIdentity {
    pub(super) fn digest(&self) -> [u8; 32] {
        match self {
            AwsIdentity::Container { path, authorization, host, .. } => match authorization {
                Some(ContainerToken::File(file)) => digest_of(&["file", path, host, &file.display().to_string()]),
                Some(ContainerToken::Text(text)) => digest_of(&["text", path, host, text.expose_secret()]),
                None => digest_of(&["open", path, host]),
            },
            AwsIdentity::Instance { host, .. } => digest_of(&["instance", host]),
            AwsIdentity::Keys(keys) => {
                let token = keys.session_token.as_ref().map_or("", |token| token.expose_secret());
                digest_of(&["keys", &keys.access_key_id, keys.secret_access_key.expose_secret(), token])
            }
            AwsIdentity::Web { role, token, host, .. } => digest_of(&["web", role, &token.display().to_string(), host]),
        }
    }
}

/// The keys in use, with those that a web identity was given last.
pub(super) struct AwsKeyRing {
    identity: AwsIdentity,
    http: Option<Box<dyn HttpCall>>,
    /// Temporary keys, and their end in milliseconds since 1970.
    given: Option<(AwsCredentials, u64)>,
}

impl AwsKeyRing {
    pub(super) fn new(identity: AwsIdentity) -> Self {
        let http = match &identity {
            AwsIdentity::Keys(_) => None,
            AwsIdentity::Container { http, .. }
            | AwsIdentity::Instance { http, .. }
            | AwsIdentity::Web { http, .. } => Some(http.client()),
        };
        Self { identity, http, given: None }
    }

    /// Forgets temporary keys that were refused. Returns whether there may be others.
    pub(super) fn forget(&mut self) -> bool {
        self.given.take().is_some()
    }

    pub(super) async fn current(&mut self, now: Now) -> Result<AwsCredentials, SourceProblem> {
        let http = match (&self.identity, &self.http) {
            (AwsIdentity::Keys(keys), _) => return Ok(keys.clone()),
            (_, Some(http)) => http,
            (_, None) => return Err(unread()),
        };
        if let Some((keys, _)) = self.given.as_ref().filter(|(_, end)| now.wall + MARGIN < *end) {
            return Ok(keys.clone());
        }
        let (keys, end) = match &self.identity {
            AwsIdentity::Container { path, authorization, host, .. } => {
                let token = match authorization {
                    Some(ContainerToken::File(file)) => Some(file_text(file, "the token of the container")?),
                    Some(ContainerToken::Text(text)) => Some(text.clone()),
                    None => None,
                };
                let token = token.as_ref().map(|token| ("authorization", token.expose_secret()));
                let answer = ask_link(http.as_ref(), host, "GET", path, token).await?;
                link_keys(answer.status(), answer.body())?
            }
            AwsIdentity::Instance { host, .. } => {
                let life = Some(("x-aws-ec2-metadata-token-ttl-seconds", "300"));
                let session = ask_link(http.as_ref(), host, "PUT", "/latest/api/token", life).await?;
                let session = SecretString::from(link_text(session.status(), session.body())?);
                let session = Some(("x-aws-ec2-metadata-token", session.expose_secret()));
                let named = ask_link(http.as_ref(), host, "GET", ROLES, session).await?;
                let role = encoded(&link_text(named.status(), named.body())?);
                let answer = ask_link(http.as_ref(), host, "GET", &format!("{ROLES}{role}"), session).await?;
                link_keys(answer.status(), answer.body())?
            }
            AwsIdentity::Keys(keys) => return Ok(keys.clone()),
            AwsIdentity::Web { role, token, host, .. } => {
                let token = file_text(token, "the web identity")?;
                let request = assume_role(host, role, &token).map_err(|_| unread())?;
                let answer = http.call(request).await;
                let answer =
                    answer.map_err(|error| SourceProblem::server(format!("`{host}` does not answer: {error}"), ""))?;
                assumed_role(answer.status(), answer.body())?
            }
        };
        self.given = Some((keys.clone(), end));
        Ok(keys)
    }
}

/// The path below which an instance is told its role.
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// Asks an address of the machine's own link, with one more field.
async fn ask_link(
    http: &dyn HttpCall,
    host: &str,
    method: &str,
    path: &str,
    field: Option<(&'static str, &str)>,
) -> Result<Response<Bytes>, SourceProblem> {
    let mut request = Request::builder().method(method).uri(path).header(HOST, host);
    if let Some((name, value)) = field {
        request = request.header(name, sensitive(value)?);
    }
    let request = request.body(Bytes::new()).map_err(|_| unlinked())?;
    let answer = http.call(request).await;
    answer.map_err(|error| SourceProblem::server(format!("`{host}` does not answer: {error}"), ""))
}

fn refused_link(status: StatusCode) -> SourceProblem {
    let what = format!("the address that gives the machine's credentials answers {}", status.as_u16());
    if status.is_server_error() {
        return SourceProblem::server(what, "it is asked again");
    }
    SourceProblem::new(SourcePart::Credentials, what, "see that the container or instance has a role")
}

/// Reads one line of text.
fn link_text(status: StatusCode, body: &[u8]) -> Result<String, SourceProblem> {
    if status != StatusCode::OK {
        return Err(refused_link(status));
    }
    let line = std::str::from_utf8(body).ok().and_then(|text| text.lines().next());
    line.filter(|line| !line.is_empty() && line.len() <= 512).map(str::to_owned).ok_or_else(unlinked)
}

#[derive(Deserialize)]
struct LinkKeys {
    #[serde(rename = "AccessKeyId")]
    id: String,
    #[serde(rename = "SecretAccessKey")]
    secret: String,
    #[serde(rename = "Token")]
    token: String,
    #[serde(rename = "Expiration")]
    end: String,
}

/// Reads the keys of a container or instance, and their end in milliseconds since 1970.
pub(super) fn link_keys(status: StatusCode, body: &[u8]) -> Result<(AwsCredentials, u64), SourceProblem> {
    if status != StatusCode::OK {
        return Err(refused_link(status));
    }
    let read: LinkKeys = serde_json::from_slice(body).map_err(|_| unlinked())?;
    let end = of_rfc3339(&read.end).ok_or_else(unlinked)?;
    let keys = AwsCredentials {
        access_key_id: read.id,
        secret_access_key: SecretString::from(read.secret),
        session_token: Some(SecretString::from(read.token)),
    };
    Ok((keys, end))
}

fn unlinked() -> SourceProblem {
    SourceProblem::server("the address that gives the machine's credentials gave an answer that is not understood", "")
}

fn assume_role(host: &str, role: &str, token: &SecretString) -> http::Result<Request<Bytes>> {
    let body = form_urlencoded::Serializer::new(String::new())
        .append_pair("Action", "AssumeRoleWithWebIdentity")
        .append_pair("Version", "2011-06-15")
        .append_pair("RoleArn", role)
        .append_pair("RoleSessionName", "countersign")
        .append_pair("WebIdentityToken", token.expose_secret())
        .finish();
    let request = Request::post("/").header(HOST, host).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    request.body(Bytes::from(body))
}

/// Reads the answer of the Security Token Service: keys, and their end in milliseconds since 1970.
pub(super) fn assumed_role(status: StatusCode, body: &[u8]) -> Result<(AwsCredentials, u64), SourceProblem> {
    let text = std::str::from_utf8(body).map_err(|_| unread())?;
    let [id, secret, token, end, code] =
        texts(text, ["AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration", "Code"]).ok_or_else(unread)?;
    if status != StatusCode::OK {
        let name = code.as_deref().filter(|name| is_wordy_secret(name)).unwrap_or("no error name");
        let what = format!("the Security Token Service answers {} with {name}", status.as_u16());
        if status.is_server_error() {
            return Err(SourceProblem::server(what, "it is asked again"));
        }
        let cure = "see that the role trusts the cluster's identity provider and this service account";
        return Err(SourceProblem::new(SourcePart::Credentials, what, cure));
    }
    let end = end.and_then(|end| of_rfc3339(&end)).ok_or_else(unread)?;
    let (Some(access_key_id), Some(secret), Some(token)) = (id, secret, token) else { return Err(unread()) };
    let keys = AwsCredentials {
        access_key_id,
        secret_access_key: SecretString::from(secret),
        session_token: Some(SecretString::from(token)),
    };
    Ok((keys, end))
}

/// The texts of the first elements with these names. `None`: it is no XML.
fn texts<const N: usize>(xml: &str, names: [&str; N]) -> Option<[Option<String>; N]> {
    let mut found = [const { None }; N];
    let mut reader = Reader::from_str(xml);
    let mut open = None;
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => {
                open = names.iter().position(|name| *name == start.local_name().into_inner());
            }
            Event::Text(text) => {
                if let Some(slot) = open.and_then(|at| found.get_mut(at)).filter(|slot| slot.is_none()) {
                    *slot = Some(text.xml10_content().trim().to_owned());
                }
            }
            Event::End(_) => open = None,
            Event::Eof => return Some(found),
            Event::DocType(_) => return None,
            Event::CData(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::Empty(_)
            | Event::GeneralRef(_)
            | Event::PI(_) => {}
        }
    }
}

fn unread() -> SourceProblem {
    SourceProblem::server("the answer is none of the Security Token Service", "see `sts_endpoint`")
}

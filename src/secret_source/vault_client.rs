//! A session with a Vault or OpenBao: logins, renewals, readings.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response};
use serde_json::json;

use super::source_client::{FetchedSecret, encoded, file_text};
use super::source_problem::{SourcePart, SourceProblem};
use super::source_settings::{HttpServer, SecretName, digest_of};
use super::vault_answer::{SecretLease, VaultAuth, VaultRefusal, auth, own_token, renewed_lease, secret};
use crate::base::http_call::HttpCall;
use crate::base::secret::{ExposeSecret, SecretString};
use crate::base::time::{Clock, Now};

/// A session that could not be renewed is tried again after this long.
const RENEW_AGAIN: Duration = Duration::from_secs(10);
/// Renewals come no closer than this.
const LEAST_LIFE: Duration = Duration::from_secs(1);

/// The settings of a Vault.
#[derive(Clone, Debug)]
pub struct VaultSettings {
    /// The path before `/v1/`, mostly empty.
    pub base_path: String,
    pub namespace: Option<String>,
    pub login: VaultLogin,
}

/// The way to a token.
#[derive(Clone)]
pub enum VaultLogin {
    AppRole {
        mount: String,
        role_id: SecretString,
        secret_id: Option<SecretString>,
    },
    /// The service account's token is read from its file at each login.
    Kubernetes {
        mount: String,
        role: String,
        jwt: PathBuf,
    },
    Token(SecretString),
}

impl fmt::Debug for VaultLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.method())
    }
}

impl VaultLogin {
    const fn method(&self) -> &'static str {
        match self {
            VaultLogin::AppRole { .. } => "AppRole",
            VaultLogin::Kubernetes { .. } => "Kubernetes",
            VaultLogin::Token(_) => "token",
        }
    }

    /// Returns whether there can be another token when one has ended.
    const fn repeats(&self) -> bool {
        match self {
            VaultLogin::AppRole { .. } | VaultLogin::Kubernetes { .. } => true,
            VaultLogin::Token(_) => false,
        }
    }
}

impl VaultSettings {
    pub(super) fn digest(&self) -> [u8; 32] {
        let shared = [self.base_path.as_str(), self.namespace.as_deref().unwrap_or_default(), self.login.method()];
        let jwt_path;
        let own = match &self.login {
            VaultLogin::AppRole { mount, role_id, secret_id } => {
                let secret_id = secret_id.as_ref().map_or("", |id| id.expose_secret());
                [mount.as_str(), role_id.expose_secret(), secret_id]
            }
            VaultLogin::Kubernetes { mount, role, jwt } => {
                jwt_path = jwt.display().to_string();
                [mount.as_str(), role.as_str(), jwt_path.as_str()]
            }
            VaultLogin::Token(token) => [token.expose_secret(), "", ""],
        };
        digest_of(&[shared, own].concat())
    }
}

/// A client of one Vault.
pub(super) struct VaultClient {
    settings: VaultSettings,
    host: String,
    clock: Clock,
    http: Box<dyn HttpCall>,
    session: Option<VaultSession>,
    /// Number of tokens so far.
    sessions: u64,
}

/// A token that is in use.
struct VaultSession {
    token: SecretString,
    renewable: bool,
    /// The life that it was given first.
    first_life: Duration,
    /// Time of its renewal; `None`: it needs none, or cannot have one.
    renew_at: Option<Now>,
}

impl VaultSession {
    fn new(told: VaultAuth, repeats: bool, now: Now) -> Self {
        let VaultAuth { token, life, renewable } = told;
        let ends = !life.is_zero() && (renewable || repeats);
        Self { token, renewable, first_life: life, renew_at: ends.then(|| now.plus(renewal_after(life))) }
    }
}

/// Returns the time after which something with this life is renewed: two thirds of it.
pub(super) fn renewal_after(life: Duration) -> Duration {
    (life * 2 / 3).max(LEAST_LIFE)
}

/// Returns whether a renewal gave so little that what was renewed is near its last end.
fn is_near_end(renewed: Duration, first: Duration) -> bool {
    renewed < first / 3
}

impl VaultClient {
    pub(super) fn new(settings: VaultSettings, server: &HttpServer, clock: &Clock) -> Self {
        let (host, clock, http) = (server.host.clone(), clock.clone(), server.http.client());
        Self { settings, host, clock, http, session: None, sessions: 0 }
    }

    /// Reads a secret. A token that was given by a login and is refused is replaced once.
    pub(super) async fn read(&mut self, name: &SecretName) -> Result<FetchedSecret, SourceProblem> {
        let version = name.version.as_deref().map(|version| format!("?version={}", encoded(version)));
        let path = format!("{}{}", encoded(&name.name), version.unwrap_or_default());
        loop {
            let is_new = self.begin().await?;
            let answer = self.call(Method::GET, &path, None).await?;
            match secret(answer.status(), answer.body()) {
                Ok((document, lease)) => return Ok(FetchedSecret { document, lease }),
                Err(VaultRefusal::Forbidden) if !is_new && self.settings.login.repeats() => self.session = None,
                Err(refusal) => return Err(refusal.of_secret(&name.name)),
            }
        }
    }

    /// Renews a lease. `None`: it has none any more, or is near its last end, so that the secret is to be read anew.
    pub(super) async fn renew(
        &mut self,
        lease: &SecretLease,
        first_life: Duration,
    ) -> Result<Option<SecretLease>, SourceProblem> {
        self.begin().await?;
        let answer =
            self.call(Method::PUT, "sys/leases/renew", Some(json!({ "lease_id": lease.id }).to_string())).await?;
        match renewed_lease(answer.status(), answer.body()) {
            Ok(renewed) => Ok(renewed.filter(|renewed| !is_near_end(renewed.life, first_life))),
            Err(VaultRefusal::Sealed) => Err(VaultRefusal::Sealed.of_secret("")),
            Err(_) => Ok(None),
        }
    }

    /// Logs in if there is no token. Returns whether there was none.
    async fn begin(&mut self) -> Result<bool, SourceProblem> {
        if self.session.is_some() {
            return Ok(false);
        }
        let told = self.log_in().await?;
        self.set_session(told);
        Ok(true)
    }

    fn set_session(&mut self, told: VaultAuth) {
        self.session = Some(VaultSession::new(told, self.settings.login.repeats(), self.clock.now()));
        self.sessions += 1;
    }

    /// Returns the number of the token in use. The leases of a token end with it.
    pub(super) const fn session(&self) -> u64 {
        self.sessions
    }

    async fn log_in(&self) -> Result<VaultAuth, SourceProblem> {
        let (mount, question) = match &self.settings.login {
            VaultLogin::AppRole { mount, role_id, secret_id } => {
                let mut question = json!({ "role_id": role_id.expose_secret() });
                if let (Some(object), Some(id)) = (question.as_object_mut(), secret_id) {
                    object.insert("secret_id".to_owned(), id.expose_secret().into());
                }
                (mount, question)
            }
            VaultLogin::Kubernetes { mount, role, jwt } => {
                let token = file_text(jwt, "the token of the service account")?;
                (mount, json!({ "role": role, "jwt": token.expose_secret() }))
            }
            VaultLogin::Token(token) => return self.given_token(token.clone()).await,
        };
        let path = format!("auth/{}/login", encoded(mount));
        // A login carries no token.
        let answer = self.call_with(None, Method::POST, &path, Some(question.to_string())).await?;
        auth(answer.status(), answer.body()).map_err(|refusal| refusal.of_login(self.settings.login.method()))
    }

    /// Asks about the life of a token that was given. One that may not ask about itself is taken as it is.
    async fn given_token(&self, token: SecretString) -> Result<VaultAuth, SourceProblem> {
        let answer = self.call_with(Some(&token), Method::GET, "auth/token/lookup-self", None).await?;
        match own_token(answer.status(), answer.body()) {
            Ok((life, renewable)) => Ok(VaultAuth { token, life, renewable }),
            Err(refusal @ (VaultRefusal::Sealed | VaultRefusal::Unreadable | VaultRefusal::Other(_))) => {
                Err(refusal.of_login("token"))
            }
            Err(_) => Ok(VaultAuth { token, life: Duration::ZERO, renewable: false }),
        }
    }

    /// Returns the time until the token is to be renewed; `None`: never.
    pub(super) fn renewal_in(&self, now: Now) -> Option<Duration> {
        Some(self.session.as_ref()?.renew_at?.since(now))
    }

    /// Renews the token, or gets another.
    pub(super) async fn renew_session(&mut self) -> Result<(), SourceProblem> {
        let now = self.clock.now();
        let Some(session) = &mut self.session else { return Ok(()) };
        // Until it is known to have been renewed.
        session.renew_at = Some(now.plus(RENEW_AGAIN));
        let (first_life, repeats) = (session.first_life, self.settings.login.repeats());
        if session.renewable {
            let answer = self.call(Method::PUT, "auth/token/renew-self", Some("{}".to_owned())).await?;
            match auth(answer.status(), answer.body()) {
                Ok(told) if !repeats || !is_near_end(told.life, first_life) => {
                    let next = VaultSession::new(told, repeats, self.clock.now());
                    self.session = Some(VaultSession { first_life, ..next });
                    return Ok(());
                }
                Ok(_) => {}
                Err(refusal @ (VaultRefusal::Sealed | VaultRefusal::Unreadable | VaultRefusal::Other(_))) => {
                    return Err(refusal.of_login(self.settings.login.method()));
                }
                Err(_) if repeats => {}
                Err(_) => {
                    if let Some(session) = &mut self.session {
                        session.renew_at = None;
                    }
                    let cure = "give it a new one before it ends";
                    return Err(SourceProblem::new(SourcePart::Credentials, "Vault does not renew the token", cure));
                }
            }
        }
        let told = self.log_in().await?;
        self.set_session(told);
        Ok(())
    }

    async fn call(&self, method: Method, path: &str, body: Option<String>) -> Result<Response<Bytes>, SourceProblem> {
        self.call_with(self.session.as_ref().map(|session| &session.token), method, path, body).await
    }

    async fn call_with(
        &self,
        token: Option<&SecretString>,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Response<Bytes>, SourceProblem> {
        let uri = format!("{}/v1/{path}", self.settings.base_path);
        let mut request = Request::builder().method(method).uri(uri).header(HOST, &*self.host);
        request = request.header("x-vault-request", "true");
        if let Some(namespace) = &self.settings.namespace {
            request = request.header("x-vault-namespace", &**namespace);
        }
        if let Some(token) = token {
            request = request.header("x-vault-token", sensitive(token.expose_secret())?);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(body.map(Bytes::from).unwrap_or_default());
        let request =
            request.map_err(|_| SourceProblem::server("the request cannot be written", "see its settings"))?;
        let answer = self.http.call(request).await;
        answer.map_err(|error| SourceProblem::server(format!("`{}` does not answer: {error}", self.host), ""))
    }
}

/// Makes a header value of a secret, which is shown nowhere.
pub(super) fn sensitive(secret: &str) -> Result<HeaderValue, SourceProblem> {
    let mut value = HeaderValue::try_from(secret).map_err(|_| {
        let cure = "a token is one line of letters and digits";
        SourceProblem::new(SourcePart::Credentials, "the token has characters that no header can carry", cure)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

//! A small Vault and the API server of a cluster, behind TLS: the paths that are asked for, tokens and leases that end,
//! and faults on demand.

use std::cell::RefCell;
use std::rc::Rc;

use countersign::sim::SimHandle;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::scripted_server::{Line, ScriptedSource};

pub const ROLE_ID: &str = "canary-vault-role-id-2Kd8";
pub const SECRET_ID: &str = "canary-vault-secret-id-7Pw3";
pub const GIVEN_TOKEN: &str = "hvs.canary-given-token-9Zc4";
pub const ACCOUNT_TOKEN: &str = "canary.account-token.5Ty1";
pub const NAMESPACE: &str = "team-a";
const TOKEN: &str = "hvs.canary-login-token-3Xr6";

/// The way in which the server fails.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SourceFault {
    Forbidden,
    HangUp,
    Hangs,
    Html,
    Megabytes,
    #[default]
    None,
    Sealed,
}

/// The state of the server.
pub struct SecretWorld {
    pub fault: SourceFault,
    /// The value of the one field of every secret.
    pub value: String,
    /// The life of a leased secret, in seconds.
    pub lease: u64,
    /// Whether leases are renewed.
    pub renews: bool,
    /// The life of tokens, in seconds.
    pub token_life: u64,
    /// Number of the token that is valid.
    pub login: usize,
    /// Method and path of each request.
    pub asked: Vec<String>,
}

impl SecretWorld {
    pub fn count(&self, line: &str) -> usize {
        self.asked.iter().filter(|asked| asked.starts_with(line)).count()
    }

    /// Every secret that must not come out.
    pub fn canaries(&self) -> Vec<(String, String)> {
        let tokens = (0..=self.login).map(|at| ("a token".to_owned(), format!("{TOKEN}-{at}")));
        let fixed = [("secret id", SECRET_ID), ("given token", GIVEN_TOKEN), ("account token", ACCOUNT_TOKEN)];
        tokens.chain(fixed.map(|(name, text)| (name.to_owned(), text.to_owned()))).collect()
    }

    fn token(&self) -> String {
        format!("{TOKEN}-{}", self.login)
    }

    fn answer(&mut self, head: &str, body: &Value) -> (u16, Value) {
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
        self.asked.push(format!("{method} {path}"));
        let field = |name: &str| {
            head.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        if path.starts_with("/api/") {
            let known = field("authorization").as_deref() == Some(&format!("Bearer {ACCOUNT_TOKEN}"));
            return match (known, path.as_str()) {
                (false, _) => (401, json!({ "kind": "Status", "code": 401 })),
                (true, "/api/v1/namespaces/pay/secrets/bank") => {
                    use base64::Engine as _;
                    let value = base64::engine::general_purpose::STANDARD.encode(&self.value);
                    (
                        200,
                        json!({ "kind": "Secret", "apiVersion": "v1", "data": { "password": value }, "type": "Opaque" }),
                    )
                }
                (true, "/api/v1/namespaces/pay/secrets/other") => (403, json!({ "kind": "Status", "code": 403 })),
                (true, _) => (404, json!({ "kind": "Status", "code": 404 })),
            };
        }
        assert_eq!(field("x-vault-namespace").as_deref(), Some(NAMESPACE));
        assert_eq!(field("x-vault-request").as_deref(), Some("true"));
        let denied = || (403, json!({ "errors": ["1 error occurred:\n\t* permission denied\n\n"] }));
        let auth = |world: &Self| {
            let auth = json!({ "client_token": world.token(), "lease_duration": world.token_life, "renewable": true });
            (200, json!({ "auth": auth, "data": null }))
        };
        if method == "POST" && path.starts_with("/v1/auth/") {
            let is_right = match path.as_str() {
                "/v1/auth/approle/login" => *body == json!({ "role_id": ROLE_ID, "secret_id": SECRET_ID }),
                "/v1/auth/k8s/login" => *body == json!({ "role": "countersign", "jwt": ACCOUNT_TOKEN }),
                _ => return (404, json!({ "errors": [] })),
            };
            if !is_right {
                return (400, json!({ "errors": ["invalid role or secret ID"] }));
            }
            self.login += 1;
            return auth(self);
        }
        let token = field("x-vault-token").unwrap_or_default();
        if token != GIVEN_TOKEN && token != self.token() {
            return denied();
        }
        let secret = json!({ "password": self.value });
        match (method, path.as_str()) {
            ("GET", "/v1/auth/token/lookup-self") => (200, json!({ "data": { "ttl": 0, "renewable": false } })),
            ("PUT", "/v1/auth/token/renew-self") => auth(self),
            ("GET", "/v1/secret/data/bank") => {
                let metadata = json!({ "version": 3, "created_time": "2026-01-01T00:00:00Z", "destroyed": false });
                (200, json!({ "lease_id": "", "lease_duration": 0, "data": { "data": secret, "metadata": metadata } }))
            }
            ("GET", "/v1/secret/bank") => {
                let hint = "Invalid path for a versioned K/V secrets engine. See the API docs.";
                (404, json!({ "errors": [], "warnings": [hint] }))
            }
            ("GET", "/v1/kv/bank") => (200, json!({ "lease_id": "", "lease_duration": 2_764_800, "data": secret })),
            ("GET", "/v1/database/creds/bank") => {
                let id = format!("database/creds/bank/{}", self.asked.len());
                (200, json!({ "lease_id": id, "lease_duration": self.lease, "renewable": true, "data": secret }))
            }
            ("PUT", "/v1/sys/leases/renew") if self.renews => {
                (200, json!({ "lease_id": body["lease_id"], "lease_duration": self.lease, "renewable": true }))
            }
            ("PUT", "/v1/sys/leases/renew") => (400, json!({ "errors": ["lease is not renewable"] })),
            ("GET", "/v1/secret/data/other") => denied(),
            _ => (404, json!({ "errors": [] })),
        }
    }
}

/// A running server.
pub struct SecretServer {
    pub address: String,
    pub world: Rc<RefCell<SecretWorld>>,
}

impl SecretServer {
    /// Starts it on the calling runtime. Its certificate is of the simulator's CA.
    pub async fn start(sim: &SimHandle, value: &str) -> Self {
        let world = Rc::new(RefCell::new(SecretWorld {
            fault: SourceFault::None,
            value: value.to_owned(),
            lease: 60,
            renews: true,
            token_life: 3600,
            login: 0,
            asked: Vec::new(),
        }));
        let shared = world.clone();
        let script = move |head: String, line: Line| {
            let world = shared.clone();
            async move { serve(&world, &head, line).await }
        };
        let server = ScriptedSource::start(sim, script).await;
        Self { address: server.base_url, world }
    }
}

async fn serve(world: &RefCell<SecretWorld>, head: &str, mut line: Line) -> Option<Line> {
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    line.read_exact(&mut body).await.ok()?;
    let fault = world.borrow().fault;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let (status, text) = match fault {
        SourceFault::Forbidden => (403, json!({ "errors": ["permission denied"] }).to_string()),
        SourceFault::HangUp => return None,
        SourceFault::Hangs => std::future::pending().await,
        SourceFault::Html => (200, "<html>a page for people</html>".to_owned()),
        SourceFault::Megabytes => (200, format!("{{\"data\":{{\"password\":\"{}\"}}}}", "x".repeat(3 << 20))),
        SourceFault::None => {
            let (status, answer) = world.borrow_mut().answer(head, &body);
            (status, answer.to_string())
        }
        SourceFault::Sealed => (503, json!({ "errors": ["Vault is sealed"] }).to_string()),
    };
    let answer = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    line.write_all(answer.as_bytes()).await.ok()?;
    line.flush().await.ok()?;
    Some(line)
}

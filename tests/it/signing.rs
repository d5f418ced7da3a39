//! Signed calls, end to end: a bank that verifies what it receives, and a proxy that signs anew when it sends again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use countersign::base::secret::{hex, sha256};
use countersign::config::{InMemory, build};
use countersign::sim::{Bank, SimHandle};
use http::Request;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::converse;
use crate::harness::{Harness, KEY, Plan, bank};
use crate::scripted_server::ScriptedSource;

pub const SECRET: &str = "canary-secret-of-the-bank-0123456789";
pub const RSA_KEY: &str = include_str!("../fixtures/signing/rsa-pkcs8.pem");
const RSA_PUBLIC: &str = include_str!("../fixtures/signing/rsa-public-pkcs1.pem");

/// In the manner of SNAP BI, and with a detached signature of the body besides.
pub const PROFILE: &str = r#"
name = "signed"

[settings.client_id]
[settings.client_secret]
secret = true
[settings.signing_key]
kind = "key"

[times.stamp]
format = "epoch-ms"
[ids.payment]
kind   = "numeric"
length = 18
fresh  = "call"
[ids.nonce]
kind  = "uuid"
fresh = "attempt"

[token.request]
path     = "/token"
encoding = "json"
headers  = { x-timestamp = "{time.stamp}" }
body     = { grantType = "client_credentials" }
[[token.request.sign]]
key       = "signing_key"
algorithm = "RS256"
text      = "{client_id}|{time.stamp}"
header    = "x-signature"
[token.response]
access_token = "/accessToken"
expires_in   = "/expiresIn"

[request]
inject = [
  { header = "authorization", value = "Bearer {token}" },
  { header = "x-timestamp", value = "{time.stamp}" },
  { header = "x-nonce", value = "{id.nonce}" },
  { header = "x-payment-id", value = "{id.payment}" },
]
[[request.sign]]
key       = "client_secret"
algorithm = "HS512"
text      = "{method}:{path_and_query}:{token}:{body_digest}:{header.x-nonce}:{time.stamp}"
digest    = { algorithm = "sha-256", encoding = "hex", minified = true }
header    = "x-signature"
[[request.sign]]
key         = "signing_key"
algorithm   = "RS256"
form        = "jws-detached"
jose_header = { kid = "{signing_key.id}", nonce = "{id.nonce}" }
header      = "x-jws-signature"

[[refusal.match]]
status = 401
challenge_error = "invalid_token"
"#;

/// A request as the bank received it.
#[derive(Clone, Debug)]
pub struct Received {
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn token(&self) -> &str {
        self.header("authorization").strip_prefix("Bearer ").expect("a bearer")
    }

    /// Verifies both signatures of a call, and that of a token call.
    pub fn verify(&self) {
        let rsa = pem(RSA_PUBLIC);
        let rsa = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, rsa.as_slice());
        if self.target == "/token" {
            let text = format!("the-client|{}", self.header("x-timestamp"));
            let made = BASE64_STANDARD.decode(self.header("x-signature")).expect("base64");
            rsa.verify(text.as_bytes(), &made).expect("the token call's signature");
            return;
        }
        let minified: Vec<u8> = self.body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let text = format!(
            "{}:{}:{}:{}:{}:{}",
            self.method,
            self.target,
            self.token(),
            hex(&sha256(&minified)),
            self.header("x-nonce"),
            self.header("x-timestamp")
        );
        let key = hmac::Key::new(hmac::HMAC_SHA512, SECRET.as_bytes());
        let made = BASE64_STANDARD.decode(self.header("x-signature")).expect("base64");
        hmac::verify(&key, text.as_bytes(), &made).expect("the authentication code");
        let jws = self.header("x-jws-signature");
        let (head, made) = jws.split_once("..").expect("a detached signature");
        let input = format!("{head}.{}", BASE64_URL_SAFE_NO_PAD.encode(&self.body));
        let made = BASE64_URL_SAFE_NO_PAD.decode(made).expect("base64url");
        rsa.verify(input.as_bytes(), &made).expect("the detached signature");
        let head = BASE64_URL_SAFE_NO_PAD.decode(head).expect("base64url");
        let head: serde_json::Value = serde_json::from_slice(&head).expect("JSON");
        assert_eq!((&head["alg"], &head["kid"]), (&"RS256".into(), &"key-1".into()));
        assert_eq!(head["nonce"], self.header("x-nonce"));
    }
}

fn pem(text: &str) -> Vec<u8> {
    let inner: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    BASE64_STANDARD.decode(inner).expect("base64")
}

/// A bank that hands out `token-1`, `token-2` and so on, and refuses the first of them from the second call on.
pub struct SigningBank {
    pub script: ScriptedSource,
    pub seen: Rc<RefCell<Vec<Received>>>,
}

impl SigningBank {
    pub async fn start(sim: &SimHandle) -> Self {
        let seen: Rc<RefCell<Vec<Received>>> = Rc::default();
        let noted = seen.clone();
        let script = ScriptedSource::start(sim, move |head, mut line| {
            let noted = noted.clone();
            async move {
                let mut lines = head.lines();
                let mut first = lines.next()?.split(' ');
                let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
                let fields = lines.filter_map(|line| line.split_once(": "));
                let headers: BTreeMap<String, String> =
                    fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
                let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
                let mut body = vec![0; length];
                line.read_exact(&mut body).await.ok()?;
                let received = Received { method, target, headers, body };
                let answer = {
                    let mut noted = noted.borrow_mut();
                    noted.push(received.clone());
                    let calls = |is_token: bool| noted.iter().filter(|one| (one.target == "/token") == is_token).count();
                    let json = |status: &str, more: &str, body: &str| {
                        let length = body.len();
                        format!("HTTP/1.1 {status}\r\n{more}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
                    };
                    if received.target == "/token" {
                        let body = format!("{{\"accessToken\":\"token-{}\",\"expiresIn\":900}}", calls(true));
                        json("200 OK", "", &body)
                    } else if received.token() == "token-1" && calls(false) > 1 {
                        json("401 Unauthorized", "www-authenticate: Bearer error=\"invalid_token\"\r\n", "{}")
                    } else {
                        json("200 OK", "", "{\"ok\":true}")
                    }
                };
                line.write_all(answer.as_bytes()).await.ok()?;
                line.flush().await.ok()?;
                Some(line)
            }
        })
        .await;
        Self { script, seen }
    }

    /// The calls that it received, without those for tokens.
    pub fn calls(&self) -> Vec<Received> {
        self.seen.borrow().iter().filter(|one| one.target != "/token").cloned().collect()
    }

    fn stage(&self, sim: &SimHandle, route: &str) -> Harness {
        let config = format!(
            "[provider.bank]\nprofile = \"./signed.toml\"\nbase_url = \"{}\"\nhttp = \"1.1\"\nclient_id = \"the-client\"\n\
             client_secret = {{ env = \"BANK_SECRET\" }}\nsigning_key = {{ file = \"sign.pem\", id = \"key-1\" }}\n\
             tls = {{ ca = \"bank-ca.crt\" }}\n[[route]]\nname = \"bank\"\npath = \"/bank\"\nprovider = \"bank\"\n{route}\n",
            self.script.base_url
        );
        let files = InMemory::new()
            .with_file("stage/signed.toml", PROFILE)
            .with_file("stage/sign.pem", RSA_KEY)
            .with_file("stage/bank-ca.crt", sim.ca_pem())
            .with_env("BANK_SECRET", SECRET);
        Plan { files, config, workers: 1, ..Plan::default() }.start()
    }
}

pub fn pay(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post("/bank/v1/payments?dry=1").header("host", "localhost");
    let request = request.header("authorization", format!("Bearer {KEY}")).header("content-type", "application/json");
    let request = request.header("x-signature", "forged").header("x_jws_signature", "forged");
    request.body(Full::new(body.into())).expect("a request")
}

#[test]
fn a_replay_is_signed_anew_and_stays_the_same_payment() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let bank = SigningBank::start(&sim).await;
        let stage = bank.stage(&sim, "");
        let body = "{ \"amount\" : 1 }";
        for _ in 0..2 {
            let answer = stage.client.send(pay(body)).await;
            assert_eq!((answer.status, answer.body.as_ref()), (200, &b"{\"ok\":true}"[..]));
        }
        bank.seen.borrow().iter().for_each(Received::verify);
        let calls = bank.calls();
        let [_, refused, replayed] = calls.as_slice() else { panic!("{} calls", calls.len()) };
        assert_eq!((refused.token(), replayed.token()), ("token-1", "token-2"));
        for changed in ["x-timestamp", "x-nonce", "x-signature", "x-jws-signature"] {
            assert_ne!(refused.header(changed), replayed.header(changed), "{changed}");
        }
        assert_eq!(refused.header("x-payment-id"), replayed.header("x-payment-id"));
        assert_ne!(calls[0].header("x-payment-id"), refused.header("x-payment-id"), "another payment");
        for call in &calls {
            assert_eq!((call.body.as_slice(), call.target.as_str()), (body.as_bytes(), "/v1/payments?dry=1"));
            assert!(!call.headers.values().any(|value| value.contains("forged")), "{call:?}");
        }
        let shown = format!("{} {}", stage.log.text(), stage.admin("/v1/status").await.json());
        for secret in [SECRET, "token-1", "token-2", &RSA_KEY[60..90], replayed.header("x-signature")] {
            assert!(!shown.contains(secret), "{shown}");
        }
    });
}

#[test]
fn a_body_that_is_signed_is_gathered_within_the_limit() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let bank = SigningBank::start(&sim).await;
        let stage = bank.stage(&sim, "replay_limit = \"1KiB\"");
        let answer = stage.client.send(pay(format!("\"{}\"", "x".repeat(2000)))).await;
        assert_eq!((answer.status, answer.error().as_str()), (413, "malformed-request"));
        let answer = stage.client.send(pay("no JSON")).await;
        assert_eq!((answer.status, answer.error().as_str()), (400, "malformed-request"));
        assert_eq!(bank.calls().len(), 0, "nothing was sent");
        let answer = stage.client.send(pay("")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        bank.seen.borrow().iter().for_each(Received::verify);
    });
}

/// What a config with this key setting is told.
fn told(setting: &str) -> String {
    let fixture = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/signing").join(name);
        std::fs::read(path).expect("a fixture")
    };
    let mut files = InMemory::new().with_file("stage/signed.toml", PROFILE).with_env("P", "open sesame");
    files = files.with_env("WRONG", "canary-password");
    let names = [
        "rsa-pkcs8.pem",
        "rsa-encrypted.pem",
        "rsa-1024.pem",
        "rsa-public.pem",
        "p256-sec1.pem",
        "certificate.pem",
        "key.p12",
        "rfc7638.jwk.json",
    ];
    for name in names {
        files = files.with_file(format!("stage/{name}"), fixture(name));
    }
    let config = format!(
        "[provider.bank]\nprofile = \"./signed.toml\"\nbase_url = \"https://bank.example\"\nclient_id = \"c\"\n\
         client_secret = \"a secret of the bank\"\nsigning_key = {setting}\n"
    );
    let (_, found) = build(Path::new("stage/proxy.toml"), config, &files);
    let about = |line: &String| line.starts_with("stage/proxy.toml:6:");
    let shown: String = found.iter().map(|found| found.render(false)).collect();
    assert!(!shown.contains("canary-password"), "{shown}");
    found.iter().map(|found| found.one_line()).filter(about).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_key_that_cannot_sign_is_told_with_its_line_and_its_cure() {
    for good in [
        "{ file = \"rsa-pkcs8.pem\" }",
        "{ file = \"rsa-encrypted.pem\", password = { env = \"P\" } }",
        "{ pkcs12 = \"key.p12\", password = { env = \"P\" }, id = \"k\" }",
    ] {
        assert_eq!(told(good), "", "{good}");
    }
    for (setting, title) in [
        ("\"rsa-pkcs8.pem\"", "`signing_key` is a key, which is read from a file"),
        ("{ file = \"none.pem\" }", "there is no such file"),
        ("{ id = \"k\" }", "names no file"),
        ("{ file = \"rsa-pkcs8.pem\", jwk = \"rsa-pkcs8.pem\" }", "a key comes from one place"),
        ("{ file = \"rsa-encrypted.pem\" }", "is encrypted, and its password is not given"),
        ("{ file = \"rsa-encrypted.pem\", password = { env = \"WRONG\" } }", "its password is wrong"),
        ("{ file = \"rsa-encrypted.pem\", password = \"canary-password\" }", "its password is wrong"),
        ("{ pkcs12 = \"key.p12\", password = { env = \"WRONG\" } }", "its password is wrong"),
        ("{ file = \"rsa-1024.pem\" }", "below 2048 bits"),
        ("{ file = \"rsa-public.pem\" }", "a public key"),
        ("{ file = \"p256-sec1.pem\" }", "RS256 needs an RSA key, and this is an EC key on P-256"),
        ("{ jwk = \"rfc7638.jwk.json\" }", "its private key is needed to sign"),
        ("{ file = \"p256-sec1.pem\", certificate = \"certificate.pem\" }", "RS256 needs an RSA key"),
        ("{ file = \"rsa-pkcs8.pem\", certificate = \"rsa-public.pem\" }", "no certificate found"),
        ("{ file = \"rsa-pkcs8.pem\", kid = \"k\" }", "unknown key `kid`"),
    ] {
        let told = told(setting);
        assert!(told.contains(title), "{setting}: {title}\nin\n{told}");
    }
}

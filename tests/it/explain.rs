//! `countersign explain` of calls that are signed: what is signed is shown, and nothing that is secret.

use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

const RSA_KEY: &str = include_str!("../fixtures/signing/rsa-pkcs8.pem");
const DPOP_KEY: &str = include_str!("../fixtures/signing/p256-sec1.pem");

/// Secrets with characters that each encoding writes in its own way.
const SECRETS: [(&str, &str); 4] = [
    ("api_key", "c4n4ry&+/=%~api"),
    ("pin", "c4n4ry\"\\ +pin"),
    ("password", "c4n4ry:+&password"),
    ("hmac_secret", "c4n4ry+/hmac-0123456789-0123456789"),
];
const ROUTE_SECRET: &str = "c4n4ry-of-the-route";

/// Every place of a secret, and a signature over each of them.
const PROFILE: &str = r#"
name = "shown"
[settings.client_id]
[settings.api_key]
secret = true
[settings.pin]
secret = true
[settings.password]
secret = true
[settings.hmac_secret]
secret = true
[settings.signing_key]
kind = "key"
[settings.dpop_key]
kind = "key"
[settings.bank_key]
kind = "public-key"
[ids.nonce]
kind = "alphanumeric"
length = 20
fresh = "attempt"
[dpop]
key = "dpop_key"
algorithm = "ES256"
[token.request]
path = "/token"
encoding = "none"
[token.response]
access_token = "/access_token"
token_type = "/token_type"
token_types = "DPoP"
[request]
inject = [
  { header = "authorization", value = "DPoP {token}" },
  { header = "x-basic", basic = { id = "{client_id}", secret = "{password}" } },
  { header = "x-nonce", value = "{id.nonce}" },
  { cookie = "session", value = "{api_key}" },
  { query = "key", value = "{api_key}" },
  { body = "/auth/pin", value = "{pin}" },
  { body = "/auth/client", value = "{client_id}" },
]
[[request.sign]]
key = "hmac_secret"
algorithm = "HS512"
text = "{method}|{path_and_query}|{token}|{api_key}|{body_digest}|{id.nonce}"
digest = { algorithm = "sha-256", encoding = "hex" }
header = "x-signature"
[[request.sign]]
key = "signing_key"
algorithm = "RS256"
form = "jwt"
header = "x-jwt"
claims = { pin = "{pin}", token = "{token}", basic = "{header.x-basic}", body = "{body}" }
[[request.sign]]
key = "signing_key"
algorithm = "PS256"
form = "http"
client_headers = ["cookie", "x-route"]
components = ["@method", "@query", "cookie", "x-basic", "x-signature", "x-route", "dpop"]
params = { created = true, nonce = true, keyid = "{client_id}" }
[[request.sign]]
key = "hmac_secret"
algorithm = "HS256"
text = "{query}"
query = "sig"
[[request.sign]]
key = "hmac_secret"
algorithm = "HS256"
text = "{path_and_query}"
header = "x-last"
[[request.sign]]
key = "signing_key"
algorithm = "RS256"
form = "oauth1"
consumer_key = "{client_id}"
header = "x-oauth"
[[request.jose]]
form = "jws"
key = "hmac_secret"
algorithm = "HS256"
from = "/auth"
to = "/sealed~1auth"
[[request.jose]]
form = "jwe"
key = "bank_key"
algorithm = "ECDH-ES"
encryption = "A128GCM"
[[refusal.match]]
status = 401
challenge_error = "invalid_token"
challenge_scheme = "DPoP"
"#;

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n[client.erp]\n\
                      key_sha256 = [\"0000000000000000000000000000000000000000000000000000000000000001\"]\n\
                      [[route]]\nname = \"bank\"\npath = \"/bank\"\nprovider = \"bank\"\n\
                      headers = { x-route = { env = \"ROUTE_SECRET\" } }\n\
                      [provider.bank]\nprofile = \"./shown.toml\"\nbase_url = \"https://bank.example/api\"\n\
                      client_id = \"me\"\nsigning_key = { file = \"sign.pem\" }\ndpop_key = { file = \"dpop.pem\" }\n\
                      bank_key = { file = \"bank.pem\" }\n"
        .to_owned();
    for (name, _) in SECRETS {
        config += &format!("{name} = {{ env = \"{}\" }}\n", name.to_uppercase());
    }
    for (name, text) in [
        ("proxy.toml", &*config),
        ("shown.toml", PROFILE),
        ("sign.pem", RSA_KEY),
        ("dpop.pem", DPOP_KEY),
        ("bank.pem", include_str!("../fixtures/signing/p256-public.pem")),
    ] {
        fs::write(folder.path().join(name), text).expect("written");
    }
    folder
}

/// Explains a payment with these arguments besides; answers the exit code and what is printed.
fn explain(folder: &TempDir, more: &[&str]) -> (Option<i32>, String) {
    let explained = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["explain", "-c", "proxy.toml", "-m", "POST", "-H", "content-type: application/json", "/bank/pay?x=1"])
        .args(more)
        .envs(SECRETS.map(|(name, value)| (name.to_uppercase(), value)))
        .env("ROUTE_SECRET", ROUTE_SECRET)
        .current_dir(folder.path())
        .output()
        .expect("the binary");
    let shown = String::from_utf8(explained.stdout).expect("UTF-8");
    (explained.status.code(), shown + &String::from_utf8_lossy(&explained.stderr))
}

/// The texts under which a secret may hide: in base64 at each of the three offsets, percent-encoded, in hexadecimal.
fn disguises(secret: &str) -> Vec<String> {
    let mut disguises = vec![secret.to_owned(), countersign::base::secret::hex(secret.as_bytes())];
    for offset in 0..3 {
        let padded = [&[b' '; 3][..offset], secret.as_bytes()].concat();
        let whole = BASE64_STANDARD.encode(&padded[..padded.len() / 3 * 3]);
        disguises.push(whole[if offset == 0 { 0 } else { 4 }..].to_owned());
    }
    disguises.push(form_urlencoded::byte_serialize(secret.as_bytes()).collect());
    disguises
}

#[test]
fn explain_shows_what_is_signed_and_no_secret() {
    let folder = folder();
    let body = "{\"amount\":1}";
    let (code, told) = explain(&folder, &["--json", "-d", body]);
    assert_eq!(code, Some(0), "{told}");
    let found: Value = serde_json::from_str(&told).expect("JSON");
    let outlines: Vec<String> = found["signatures"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| ["place", "form", "algorithm"].map(|key| one[key].as_str().expect("text")).join(" "))
        .collect();
    let expected = [
        "dpop dpop ES256",
        "x-signature text HS512",
        "x-jwt jwt RS256",
        "signature http PS256",
        "query sig text HS256",
        "x-last text HS256",
        "x-oauth oauth1 RS256",
    ];
    assert_eq!(outlines, expected);
    let messages = [
        json!({"form": "jws", "algorithms": "HS256", "from": "/auth", "to": "/sealed~1auth"}),
        json!({"form": "jwe", "algorithms": "ECDH-ES, A128GCM", "from": "", "to": ""}),
    ];
    assert_eq!(found["messages"], Value::from(messages.to_vec()));
    let text = |at: usize| found["signatures"][at]["text"].as_str().expect("text");
    assert_eq!(
        text(1),
        "POST|/api/pay?x=1&key=‹secret: api_key›|‹token›|‹secret: api_key›|‹digest of the body›|‹id: nonce›"
    );
    assert_eq!(text(4), "x=1&key=‹secret: api_key›");
    assert_eq!(text(5), "/api/pay?x=1&key=‹secret: api_key›&sig=‹signature›");
    for (at, parts) in [
        (
            0,
            &[
                "base64url({\"typ\":\"dpop+jwt\",\"alg\":\"ES256\",\"jwk\":",
                "\"htm\":\"POST\",\"htu\":\"https://bank.example/api/pay\"",
                "\"jti\":\"‹fresh uuid›\"",
                "\"ath\":\"‹hash of the token›\"",
                "\"nonce\":\"‹nonce of the API›\"",
            ][..],
        ),
        (
            2,
            &[
                "base64url({\"alg\":\"RS256\",\"typ\":\"JWT\"}).base64url(",
                "\"pin\":\"‹secret: pin›\"",
                "\"token\":\"‹token›\"",
                "\"basic\":\"Basic me:‹secret: password›\"",
                "\\\"amount\\\":1",
            ],
        ),
        (
            3,
            &[
                "\"@method\": POST\n",
                "\"@query\": ?x=1&key=‹secret: api_key›\n",
                "\"cookie\": session=‹secret: api_key›\n",
                "\"x-basic\": Basic me:‹secret: password›\n",
                "\"x-signature\": ‹signature›\n",
                "\"x-route\": ‹secret: headers.x-route›\n",
                "\"dpop\": ‹proof of possession›\n",
                ";nonce=\"‹fresh uuid, 32 hex digits›\"",
                ";keyid=\"me\"",
            ],
        ),
        (
            6,
            &[
                "POST&https%3A%2F%2Fbank.example%2Fapi%2Fpay&key%3D‹secret: api_key›%26oauth_body_hash%3D‹digest of the body›%26",
                "%26oauth_nonce%3D‹fresh uuid, 32 hex digits›%26",
                "%26sig%3D‹signature›%26",
            ],
        ),
    ] {
        for part in parts {
            assert!(text(at).contains(part), "{part}\nin\n{}", text(at));
        }
    }
    let fields: Vec<(&str, &str)> = found["body_fields"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|field| (field["pointer"].as_str().expect("text"), field["value"].as_str().expect("text")))
        .collect();
    assert_eq!(fields, [("/auth/pin", "‹secret: pin›"), ("/auth/client", "me")]);

    let (code, lines) = explain(&folder, &["-d", body]);
    assert_eq!(code, Some(0), "{lines}");
    for line in [
        "\nFields put into the body:\n  /auth/pin: ‹secret: pin›\n",
        "  x-signature (text, HS512):\n    POST|/api/pay?x=1",
        "  signature (http, PS256):\n    \"@method\": POST\n    \"@query\":",
    ] {
        assert!(lines.contains(line), "{line}\nin\n{lines}");
    }
    for (name, secret) in SECRETS.into_iter().chain([("headers.x-route", ROUTE_SECRET)]) {
        for disguise in disguises(secret) {
            assert!(!told.contains(&disguise) && !lines.contains(&disguise), "{name} shows as {disguise}\n{told}");
        }
    }
    assert!(!told.contains("c4n4ry") && !lines.contains("c4n4ry"), "{told}\n{lines}");
}

/// What a real request would be refused for is said here, too.
#[test]
fn explain_says_that_a_body_cannot_take_its_fields() {
    let folder = folder();
    let (code, told) = explain(&folder, &["-d", "[1]"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("would be refused: malformed-request (400)") && told.contains("no JSON object"), "{told}");
    // Without a body there is none to put fields into.
    let (code, told) = explain(&folder, &[]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("/auth/pin: ‹secret: pin›"), "{told}");
}

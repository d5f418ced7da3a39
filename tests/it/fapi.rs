//! FAPI 2.0 with an authorization server that others wrote (npm `oidc-provider`) and an API that verifies with `jose`:
//! each way to authenticate with each way to bind a token, for an application that knows of none.

use bytes::Bytes;
use countersign::sim::{LeafSpec, SimAuthority};
use http::Request;
use http_body_util::Full;
use serde_json::Value;

use crate::client::converse;
use crate::harness::{Harness, KEY, Plan, now};
use crate::outside_server::{OutsideServer, node, server_folder};

const SIGNING_KEY: &str = include_str!("../fixtures/signing/rsa-pkcs8.pem");
const SIGNING_PUBLIC: &str = include_str!("../fixtures/signing/rsa-public.pem");
const DPOP_KEY: &str = include_str!("../fixtures/signing/p256-sec1.pem");

/// The payments of one run; they come four at a time.
const PAYMENTS: usize = 40;

/// The way in which the client authenticates, and the binding of its tokens.
#[derive(Clone, Copy)]
struct Combination {
    name: &'static str,
    client_auth: &'static str,
    is_dpop: bool,
}

/// What the built-in profile has, with the id that the test's API counts payments by, and for a server whose clock is ahead.
const BUILT_IN: &str = r#"
name    = "fapi"
extends = "fapi2"
[ids.payment]
kind  = "uuid"
fresh = "call"
[token.request.client_auth]
life = "10m"
[request]
inject = [
  { header = "authorization", value = "DPoP {token}" },
  { header = "x-payment-id", value = "{id.payment}" },
]
"#;

impl Combination {
    fn profile(self, issuer: &str) -> String {
        if self.is_built_in() {
            return BUILT_IN.to_owned();
        }
        let (dpop, scheme, kind) = match self.is_dpop {
            true => (
                "[settings.dpop_key]\nkind = \"key\"\n[dpop]\nkey = \"dpop_key\"\nalgorithm = \"ES256\"\n",
                "DPoP",
                "DPoP",
            ),
            false => ("", "Bearer", "Bearer"),
        };
        format!(
            r#"
name = "fapi"
[settings.client_id]
[settings.signing_key]
kind = "key"
{dpop}
[ids.payment]
kind   = "uuid"
fresh  = "call"
[token.request]
path        = "/token"
encoding    = "form"
body        = {{ grant_type = "client_credentials" }}
client_auth = {client_auth}
[token.response]
access_token = "/access_token"
token_type   = "/token_type"
token_types  = "{kind}"
expires_in   = "/expires_in"
[request]
inject = [
  {{ header = "authorization", value = "{scheme} {{token}}" }},
  {{ header = "x-payment-id", value = "{{id.payment}}" }},
]
[[refusal.match]]
status           = 401
challenge_error  = "invalid_token"
challenge_scheme = "{scheme}"
"#,
            client_auth = self.client_auth.replace("AUDIENCE", issuer)
        )
    }

    /// Returns whether the built-in profile `fapi2` is this one.
    fn is_built_in(self) -> bool {
        self.is_dpop && self.client_auth == SIGNS
    }
}

fn start(authority: &SimAuthority) -> OutsideServer {
    let folder = server_folder(authority);
    std::fs::write(folder.path().join("client-ca.crt"), authority.pem()).expect("written");
    std::fs::write(folder.path().join("client-public.pem"), SIGNING_PUBLIC).expect("written");
    let command = node("tests/fapi/server.mjs", folder.path());
    OutsideServer::start(command, folder)
}

fn stage(server: &OutsideServer, authority: &SimAuthority, combination: Combination) -> Harness {
    let leaf = authority.issue(&LeafSpec::client("erp", now())).expect("a leaf");
    let origin = format!("https://127.0.0.1:{}", server.port);
    let dpop_key = if combination.is_dpop { "dpop_key = { file = \"dpop.pem\" }\n" } else { "" };
    let issuer = if combination.is_built_in() { format!("issuer = \"{origin}\"\n") } else { String::new() };
    let config = format!(
        "[provider.bank]\nprofile = \"./fapi.toml\"\nbase_url = \"{origin}/api\"\ntoken_url = \"{origin}/token\"\n\
         client_id = \"{}\"\nsigning_key = {{ file = \"sign.pem\", id = \"key-1\" }}\n{dpop_key}{issuer}\
         tls = {{ ca = \"ca.crt\", client_cert = \"erp.crt\", client_key = \"erp.key\" }}\n\
         [[route]]\nname = \"bank\"\npath = \"/bank\"\nprovider = \"bank\"\n",
        combination.name
    );
    let mut plan = Plan { config, ..Plan::default() };
    plan.files = plan
        .files
        .with_file("stage/fapi.toml", combination.profile(&origin))
        .with_file("stage/sign.pem", SIGNING_KEY)
        .with_file("stage/dpop.pem", DPOP_KEY)
        .with_file("stage/ca.crt", authority.pem())
        .with_file("stage/erp.crt", leaf.cert_pem)
        .with_file("stage/erp.key", leaf.key_pem);
    plan.start()
}

async fn pay(stage: &Harness, id: usize) -> (u16, String) {
    let request = Request::post(format!("/bank/payments/{id}")).header("host", "localhost");
    let request = request.header("authorization", format!("Bearer {KEY}")).header("content-type", "application/json");
    let answer = stage.client.send(request.body(Full::new(Bytes::from("{}"))).expect("a request")).await;
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

/// Fetches, renews, meets other nonces at both servers, and has tokens refused, while payments are made.
fn run(combination: Combination) {
    converse(async move {
        let authority = SimAuthority::new("bank CA", now()).expect("a CA");
        let mut server = start(&authority);
        let stage = stage(&server, &authority, combination);
        let mut failed = Vec::new();
        for first in (0..PAYMENTS).step_by(4) {
            // Every few payments something happens at the bank.
            match first / 4 % 5 {
                1 => drop(server.tell("nonce")),
                2 => drop(server.tell("revoke")),
                3 => drop(server.tell("shift")),
                4 => {
                    let keys = stage.admin("/api/v1/tokens").await.json();
                    let key = keys["tokens"][0]["key"].as_str().expect("a key").to_owned();
                    let renewed = stage.admin_post(&format!("/api/v1/tokens/{key}/refresh"), "").await;
                    assert!(renewed.status < 300, "{renewed:?}");
                }
                _ => {}
            }
            let made = tokio::join!(
                pay(&stage, first),
                pay(&stage, first + 1),
                pay(&stage, first + 2),
                pay(&stage, first + 3)
            );
            failed.extend(<[_; 4]>::from(made).into_iter().filter(|(status, _)| *status != 200));
        }
        let seen = server.tell("state");
        assert!(failed.is_empty(), "{}: {failed:?} {seen}", combination.name);
        assert_eq!(seen["wrong"], Value::Array(Vec::new()), "{}", combination.name);
        let payments = seen["payments"].as_object().expect("payments");
        assert_eq!(payments.len(), PAYMENTS, "{}", combination.name);
        assert!(
            payments.values().all(|attempts| attempts.as_array().is_some_and(|one| one.len() == 1)),
            "{payments:?}"
        );
        let count = |what: &str| seen[what].as_u64().expect("a number");
        assert!(count("issued") >= 4 && count("refused") >= 2, "{}: {seen}", combination.name);
        if combination.is_dpop {
            assert!(count("challenged") >= 3 && count("tokenNonces") >= 2, "{}: {seen}", combination.name);
        }
    });
}

const SIGNS: &str = "{ mechanism = \"private_key_jwt\", id = \"{client_id}\", key = \"signing_key\", algorithm = \"PS256\", \
                     header = { kid = \"{signing_key.id}\" }, life = \"10m\", audience = \"AUDIENCE\" }";
const SHOWS: &str = "{ mechanism = \"tls_client_auth\", id = \"{client_id}\" }";

#[test]
fn a_signed_assertion_and_tokens_bound_to_a_key() {
    run(Combination { name: "jwt-dpop", client_auth: SIGNS, is_dpop: true });
}

#[test]
fn a_signed_assertion_and_tokens_bound_to_a_certificate() {
    run(Combination { name: "jwt-mtls", client_auth: SIGNS, is_dpop: false });
}

#[test]
fn a_certificate_and_tokens_bound_to_a_key() {
    run(Combination { name: "tls-dpop", client_auth: SHOWS, is_dpop: true });
}

#[test]
fn a_certificate_and_tokens_bound_to_a_certificate() {
    run(Combination { name: "tls-mtls", client_auth: SHOWS, is_dpop: false });
}

//! Bodies that are signed and encrypted on their way to the bank, and answers that are decrypted and verified on their way
//! back: the application sends and reads plain JSON.

use bytes::Bytes;
use countersign::signing::algorithm::SigningAlgorithm;
use countersign::signing::jwe::{
    ContentEncryption, DecryptionKey, EncryptionKey, JweRecipe, KeyManagement, LibraryEntropy, decrypt, encrypt,
};
use countersign::signing::jws::{JwsHeader, PayloadForm};
use countersign::signing::key::{PrivateKey, SigningKey};
use countersign::signing::pkcs;
use countersign::signing::public_key::VerifyingKey;
use countersign::signing::verify::{JwsCheck, verify_attached};
use countersign::sim::{Bank, Faults, ResponseFault, SimEndpoint, SimFault, SimHandle, Verbatim};
use http::Request;
use http_body_util::Full;
use serde_json::{Map, Value, json};

use crate::client::{Whole, converse, request};
use crate::harness::{Harness, KEY, Plan, bank};

const OURS: &[u8] = include_bytes!("../fixtures/signing/rsa-pkcs8.pem");
const BANKS: &[u8] = include_bytes!("../fixtures/signing/p256-sec1.pem");

const PROFILE: &str = r#"
name = "sealed"
extends = "oauth2"

[settings.signing_key]
kind = "key"
[settings.bank_key]
kind = "public-key"

[ids.payment]
kind   = "uuid"
fresh  = "call"
[ids.message]
kind   = "uuid"

[request]
inject = [
  { header = "authorization", value = "Bearer {token}" },
  { body = "/paymentId", value = "{id.payment}" },
]

[[request.jose]]
form        = "jws"
key         = "signing_key"
algorithm   = "PS256"
jose_header = { kid = "{signing_key.id}", jti = "{id.message}" }

[[request.jose]]
form        = "jwe"
key         = "bank_key"
algorithm   = "ECDH-ES+A128KW"
encryption  = "A256GCM"
jose_header = { cty = "JWT" }

[[response.jose]]
form       = "jwe"
key        = "signing_key"
algorithm  = "RSA-OAEP-256"
encryption = "A128CBC-HS256"

[[response.jose]]
form      = "jws"
key       = "bank_key"
algorithm = "ES256"
"#;

const TO_BANK: JweRecipe =
    JweRecipe { management: KeyManagement::EcdhEsA128Kw, encryption: ContentEncryption::A256Gcm };
const FROM_BANK: JweRecipe =
    JweRecipe { management: KeyManagement::RsaOaep256, encryption: ContentEncryption::A128CbcHs256 };

fn stage(sim: &SimHandle, route: &str) -> Harness {
    let mut plan = Plan { workers: 1, ..Plan::default() };
    plan.files = plan.files.with_file("stage/ours.pem", OURS);
    plan.files = plan.files.with_file("stage/bank.jwks", include_str!("../fixtures/signing/bank.jwks"));
    let settings = "signing_key = { file = \"ours.pem\", id = \"ours-1\" }\nbank_key = { jwks = \"bank.jwks\" }\n";
    plan.with_profile(sim, PROFILE, settings, route).start()
}

fn pay(id: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post(format!("/bank/payments/{id}")).header("host", "localhost");
    let request = request.header("authorization", format!("Bearer {KEY}")).header("content-type", "application/json");
    request.body(Full::new(body.into())).expect("a request")
}

fn key(pem: &[u8]) -> PrivateKey {
    pkcs::private_key(pem, None).expect("a key")
}

fn members(value: &Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

/// An answer of the bank's: signed by it, encrypted for us.
fn sealed(payload: &str) -> String {
    let bank = SigningKey::Private(key(BANKS));
    let header = JwsHeader::new(SigningAlgorithm::Es256, members(&json!({"kid": "bank-1"}))).expect("a header");
    let unsigned = header.over(payload.as_bytes(), PayloadForm::Attached).expect("a message");
    let signature = bank.sign(SigningAlgorithm::Es256, unsigned.input()).expect("a signature");
    encrypted(&unsigned.complete(&signature).expect("a message"))
}

fn encrypted(content: &str) -> String {
    let ours = key(OURS);
    let header = members(&json!({"kid": "ours-1", "cty": "JWT"}));
    encrypt(FROM_BANK, &header, content.as_bytes(), EncryptionKey::Public(ours.public()), &mut LibraryEntropy)
        .expect("a message")
}

fn answers(sim: &SimHandle, status: u16, body: impl Into<Bytes>, headers: &[(&str, &str)]) {
    let mut answer = Verbatim::bare(status, headers);
    answer.body = body.into();
    sim.change(|faults| faults.resource = SimFault::new(ResponseFault::Verbatim(answer)));
}

/// The bodies that the bank received: each opened and verified, with the header of its signature.
fn received(sim: &SimHandle) -> Vec<(Map<String, Value>, Value)> {
    let (bank, ours) = (key(BANKS), VerifyingKey::Public(key(OURS).public().clone()));
    let check = JwsCheck { algorithm: SigningAlgorithm::Ps256, understood: &[], most: 10_000 };
    let calls = sim.received();
    let calls = calls.iter().filter(|call| call.endpoint == SimEndpoint::Resource);
    calls
        .map(|call| {
            assert_eq!((call.count("content-type"), call.header("content-type")), (1, Some("application/jose")));
            assert_eq!(call.header("content-length"), Some(call.body_length.to_string().as_str()));
            let text = std::str::from_utf8(&call.body).expect("text");
            let opened = decrypt(text, TO_BANK, DecryptionKey::Private(&bank), 10_000).expect("for the bank");
            assert_eq!((&opened.header["kid"], &opened.header["cty"]), (&json!("bank-2"), &json!("JWT")));
            let inner = std::str::from_utf8(&opened.plaintext).expect("text");
            let verified = verify_attached(inner, &check, &ours).expect("signed by us");
            assert_eq!(verified.header["kid"], "ours-1");
            (verified.header, serde_json::from_slice(&verified.payload).expect("JSON"))
        })
        .collect()
}

fn text(answer: &Whole) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

fn assert_withheld(answer: &Whole) {
    assert_eq!((answer.status, answer.error().as_str()), (502, "upstream-unopened"), "{answer:?}");
}

#[test]
fn an_application_sends_and_reads_plain_json() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let stage = stage(&sim, "");
        let plain = r#"{"status":"ACCEPTED","amount":100.10}"#;
        answers(&sim, 201, sealed(plain), &[("content-type", "application/jose"), ("etag", "\"a\"")]);
        let answer = stage.client.send(pay("1", r#"{"amount":7.50}"#)).await;
        assert_eq!((answer.status, text(&answer).as_str()), (201, plain));
        assert_eq!(answer.headers["content-type"], "application/json");
        assert_eq!(answer.headers["content-length"], plain.len().to_string());
        assert!(!answer.headers.contains_key("etag"));
        let [(_, body)] = received(&sim).try_into().expect("one call");
        assert_eq!(body["amount"], 7.5);
        assert!(body["paymentId"].is_string());
        // Errors pass as they come.
        answers(&sim, 422, "{\"error\":\"no\"}", &[("content-type", "application/json")]);
        let answer = stage.client.send(pay("2", "{}")).await;
        assert_eq!((answer.status, text(&answer).as_str()), (422, "{\"error\":\"no\"}"));
        // What has no body has nothing that could be opened.
        answers(&sim, 204, "", &[]);
        assert_eq!(stage.client.send(request("DELETE", "/bank/payments/1", KEY, &[], "")).await.status, 204);
    });
}

#[test]
fn a_replay_is_sealed_anew_from_what_the_client_sent_and_is_the_same_payment() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let stage = stage(&sim, "");
        answers(&sim, 200, sealed("{}"), &[]);
        let answer = stage.client.send(pay("1", r#"{"amount":7.50}"#)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        sim.set(Faults::default());
        sim.revoke_all();
        let answer = stage.client.send(pay("2", r#"{"amount":8.25}"#)).await;
        assert_withheld(&answer);
        let calls = received(&sim);
        let [_, (first, refused), (second, paid)] = calls.as_slice() else { panic!("three calls: {calls:?}") };
        assert_eq!((&paid["amount"], refused), (&json!(8.25), paid), "the same call");
        assert_ne!(first["jti"], second["jti"], "another message");
        let sent: Vec<Bytes> = sim.received().iter().map(|call| call.body.clone()).collect();
        assert_ne!(sent[sent.len() - 2], sent[sent.len() - 1]);
        assert_eq!(sim.payments().get("2"), Some(&1), "{:?}", sim.payments());
        assert_eq!(sim.violations(), Vec::<String>::new());
    });
}

#[test]
fn an_answer_that_cannot_be_opened_is_withheld_and_told() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let stage = stage(&sim, "replay_limit = \"4KiB\"\n");
        let good = sealed("{\"secret\":1}");
        let large = sealed(&format!("{{\"a\":\"{}\"}}", "x".repeat(4000)));
        let tampered = [
            "{\"status\":\"ACCEPTED\"}".to_owned(),
            good[..good.len() - 5].to_owned(),
            encrypted("{\"status\":\"ACCEPTED\"}"),
            String::new(),
            large,
        ];
        for body in &tampered {
            answers(&sim, 200, body.clone(), &[("content-type", "application/jose")]);
            let answer = stage.client.send(pay("1", "{}")).await;
            assert_withheld(&answer);
            assert!(!text(&answer).contains("ACCEPTED"), "{answer:?}");
        }
        answers(&sim, 200, good, &[("content-encoding", "br")]);
        assert_withheld(&stage.client.send(pay("1", "{}")).await);
        let metrics = String::from_utf8_lossy(&stage.admin("/metrics").await.body).into_owned();
        assert!(metrics.contains("countersign_unopened_answers_total{provider=\"bank\"} 6"), "{metrics}");
        assert_eq!(sim.payments().get("1"), Some(&6), "none was sent twice");
    });
}

#[test]
fn a_body_that_cannot_be_sealed_is_refused_before_anything_is_sent() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let stage = stage(&sim, "replay_limit = \"1KiB\"\n");
        let mut coded = pay("1", "{}");
        coded.headers_mut().insert("content-encoding", "gzip".parse().expect("a value"));
        for (call, status) in [(coded, 400), (pay("1", vec![b'x'; 2000]), 413), (pay("1", vec![0xff; 10]), 400)] {
            let answer = stage.client.send(call).await;
            assert_eq!((answer.status, answer.error().as_str()), (status, "malformed-request"));
        }
        assert_eq!(sim.resource_calls(), 0);
    });
}

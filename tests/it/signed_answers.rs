//! Answers that their bank has signed by header fields: one whose signature does not hold is withheld.

use bytes::Bytes;
use countersign::base::time::Clock;
use countersign::signing::algorithm::SigningAlgorithm;
use countersign::signing::digest::DigestAlgorithm;
use countersign::signing::http_signature::{
    CoveredComponent, HttpMessage, SignatureParameter, SignatureParameters, UnsignedHttpSignature,
};
use countersign::signing::key::SigningKey;
use countersign::signing::pkcs;
use countersign::signing::request_parts::RequestParts;
use countersign::sim::{Bank, ResponseFault, SimFault, SimHandle, Verbatim};
use http::HeaderMap;

use crate::client::{converse, get, request};
use crate::harness::{Harness, KEY, Plan, bank};

const BANKS: &[u8] = include_bytes!("../fixtures/signing/p256-sec1.pem");

const PROFILE: &str = r#"
name = "signed-answers"
extends = "oauth2"

[settings.bank_key]
kind = "public-key"

[[response.signature]]
form       = "http"
key        = "bank_key"
algorithm  = "ES256"
components = ["@status", "content-digest", "@method;req", "@path;req"]
max_age    = "1m"
"#;

fn stage(sim: &SimHandle) -> Harness {
    let mut plan = Plan { workers: 1, ..Plan::default() };
    plan.files = plan.files.with_file("stage/bank.jwks", include_str!("../fixtures/signing/bank.jwks"));
    plan.with_profile(sim, PROFILE, "bank_key = { jwks = \"bank.jwks\" }\n", "").start()
}

/// The signed headers of an answer to a GET of this path, made so many seconds ago.
fn signed(sim: &SimHandle, path: &str, body: &[u8], age: u64) -> HeaderMap {
    let digest = DigestAlgorithm::Sha256.field(body);
    let mut headers: HeaderMap = HeaderMap::new();
    headers.insert("content-digest", digest.parse().expect("a value"));
    let components = ["@status", "content-digest", "@method;req", "@path;req"];
    let components = components.iter().map(|one| CoveredComponent::parse(one).expect("a component")).collect();
    let created = Clock::System.now().unix_seconds() - age;
    let stated = vec![SignatureParameter::Created(created), SignatureParameter::KeyId("bank-1".to_owned())];
    let parameters = SignatureParameters::new(components, stated);
    let none = HeaderMap::new();
    let base = sim.base_url();
    let below = base.trim_start_matches("https://").find('/').map_or("", |at| &base["https://".len() + at..]);
    let path = &format!("{below}{path}");
    let asked = RequestParts { method: "GET", scheme: "https", authority: "bank", path, query: None, headers: &none };
    let message = HttpMessage::Response { status: 200, headers: &headers, request: Some(asked) };
    let unsigned = UnsignedHttpSignature::new(&message, "sig", &parameters, SigningAlgorithm::Es256).expect("a base");
    let key = SigningKey::Private(pkcs::private_key(BANKS, None).expect("a key"));
    let made = unsigned.sign(&key).expect("a signature");
    headers.insert("signature-input", made.input.parse().expect("a value"));
    headers.insert("signature", made.signature.parse().expect("a value"));
    headers
}

fn answers(sim: &SimHandle, status: u16, headers: &HeaderMap, body: impl Into<Bytes>) {
    let fields: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
    let mut answer = Verbatim::bare(status, &fields);
    answer.body = body.into();
    sim.change(|faults| faults.resource = SimFault::new(ResponseFault::Verbatim(answer)));
}

#[test]
fn an_answer_goes_on_if_the_bank_signed_it_for_this_request_and_not_otherwise() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let stage = stage(&sim);
        let (body, path) = (&b"{\"status\":\"BOOKED\"}"[..], "/payments/1");
        let good = signed(&sim, path, body, 0);
        answers(&sim, 200, &good, body);
        let answer = stage.client.send(get("/bank/payments/1", KEY)).await;
        assert_eq!((answer.status, &*answer.body), (200, body), "{answer:?}");
        assert_eq!(answer.headers["content-digest"], good["content-digest"], "nothing is taken off");
        assert_eq!(answer.headers["content-length"], body.len().to_string());
        let mut unsigned = good.clone();
        unsigned.remove("signature");
        for (kind, status, headers, content) in [
            ("unsigned", 200, unsigned, body),
            ("another body", 200, good.clone(), &b"{\"status\":\"REFUSED\"}"[..]),
            ("another status", 202, good.clone(), body),
            ("an answer to another request", 200, signed(&sim, "/payments/2", body, 0), body),
            ("an old answer", 200, signed(&sim, path, body, 100), body),
            ("nothing at all", 204, HeaderMap::new(), b""),
        ] {
            answers(&sim, status, &headers, content);
            let answer = stage.client.send(get("/bank/payments/1", KEY)).await;
            assert_eq!((answer.status, answer.error().as_str()), (502, "upstream-unopened"), "{kind}: {answer:?}");
        }
        let metrics = String::from_utf8_lossy(&stage.admin("/metrics").await.body).into_owned();
        assert!(metrics.contains("countersign_unopened_answers_total{provider=\"bank\"} 6"), "{metrics}");
        // Errors pass as they come, and what answers another method is not an answer to this one.
        answers(&sim, 422, &HeaderMap::new(), "{}");
        assert_eq!(stage.client.send(get("/bank/payments/1", KEY)).await.status, 422);
        answers(&sim, 200, &good, body);
        let answer = stage.client.send(request("DELETE", "/bank/payments/1", KEY, &[], "")).await;
        assert_eq!(answer.status, 502, "{answer:?}");
    });
}

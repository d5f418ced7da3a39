//! One-time challenges: an answer that asks for the same call once more, with a signature over the value that it gives.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use countersign::provider::Profile;
use countersign::signing::algorithm::SigningAlgorithm;
use countersign::signing::pkcs;
use countersign::signing::public_key::VerifyingKey;
use countersign::sim::{Bank, ResponseFault, SimEndpoint, SimFault, SimHandle, Verbatim};
use countersign::syntax::{Diagnostic, Diagnostics, SourceText};

use crate::client::{Whole, converse, request};
use crate::harness::{Harness, KEY, Plan, bank};

const SIGNING_KEY: &[u8] = include_bytes!("../fixtures/signing/rsa-pkcs8.pem");

const PROFILE: &str = r#"
name = "step-up"
extends = "oauth2"

[settings.signing_key]
kind = "key"

[ids.payment]
kind  = "uuid"
fresh = "call"

[challenge]
status    = 403
header    = "x-2fa-approval"
confirmed = true

[request]
inject = [
  { header = "authorization", value = "Bearer {token}" },
  { header = "x-payment-id", value = "{id.payment}" },
]

[[request.sign]]
key       = "signing_key"
algorithm = "RS256"
text      = "{header.x-2fa-approval}"
header    = "x-signature"
"#;

fn stage(sim: &SimHandle, route: &str) -> Harness {
    let mut plan = Plan { workers: 1, ..Plan::default() };
    plan.files = plan.files.with_file("stage/sign.pem", SIGNING_KEY);
    plan.with_profile(sim, PROFILE, "signing_key = { file = \"sign.pem\" }\n", route).start()
}

async fn pay(stage: &Harness, id: &str, body: &str) -> Whole {
    let own = [("x-2fa-approval", "forged"), ("x-signature", "forged"), ("content-type", "application/json")];
    stage.client.send(request("POST", &format!("/bank/payments/{id}"), KEY, &own, body.to_owned())).await
}

fn asks(sim: &SimHandle, status: u16, headers: &[(&str, &str)]) {
    sim.change(|faults| faults.resource = SimFault::once(ResponseFault::Verbatim(Verbatim::bare(status, headers))));
}

/// The challenge and the signature on each call, with the payment's id.
fn calls(sim: &SimHandle) -> Vec<(Option<String>, Option<String>, String)> {
    let received = sim.received();
    let calls = received.iter().filter(|call| call.endpoint == SimEndpoint::Resource);
    calls
        .map(|call| {
            let own = |name: &str| call.header(name).map(ToOwned::to_owned);
            assert!(call.count("x-2fa-approval") <= 1 && call.count("x-signature") <= 1);
            (own("x-2fa-approval"), own("x-signature"), own("x-payment-id").expect("an id"))
        })
        .collect()
}

#[test]
fn a_challenge_is_signed_and_the_same_call_is_made_once_more() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let stage = stage(&sim, "");
        assert_eq!(pay(&stage, "1", "{}").await.status, 200);
        asks(&sim, 403, &[("x-2fa-approval", "one-time-1")]);
        let answer = pay(&stage, "2", "{}").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.headers["proxy-status"], "countersign; received-status=403; details=\"challenged\"");
        assert_eq!(pay(&stage, "3", "{}").await.status, 200);
        let calls = calls(&sim);
        let [first, challenged, answered, last] = calls.as_slice() else { panic!("four calls: {calls:?}") };
        for (challenge, signature, _) in [first, challenged, last] {
            assert_eq!((challenge, signature), (&None, &None), "nothing to answer, and nothing of the client's");
        }
        assert_eq!(answered.0.as_deref(), Some("one-time-1"));
        let signature = BASE64_STANDARD.decode(answered.1.as_ref().expect("a signature")).expect("base64");
        let key = pkcs::private_key(SIGNING_KEY, None).expect("a key");
        let key = VerifyingKey::Public(key.public().clone());
        assert!(key.verify(SigningAlgorithm::Rs256, b"one-time-1", &signature));
        assert_eq!(challenged.2, answered.2, "the same payment");
        assert_eq!((sim.tokens_issued(), sim.violations()), (1, Vec::new()), "the token was not the reason");
        assert!(sim.payments().values().all(|count| *count == 1), "{:?}", sim.payments());
        let metrics = String::from_utf8_lossy(&stage.admin("/metrics").await.body).into_owned();
        assert!(metrics.contains("countersign_replays_total{provider=\"bank\",outcome=\"challenged\"} 1"), "{metrics}");
    });
}

#[test]
fn a_second_challenge_and_other_refusals_pass() {
    converse(async {
        let sim = bank(Bank::OAuth2);
        let stage = stage(&sim, "replay_limit = \"1KiB\"\n");
        let asks_always = Verbatim::bare(403, &[("x-2fa-approval", "again")]);
        sim.change(|faults| faults.resource = SimFault::new(ResponseFault::Verbatim(asks_always)));
        let answer = pay(&stage, "1", "{}").await;
        assert_eq!((answer.status, calls(&sim).len()), (403, 2), "one replay, and no more");
        assert_eq!(answer.headers["x-2fa-approval"], "again");
        for headers in [&[][..], &[("x-2fa-approval", "a"), ("x-2fa-approval", "b")], &[("x-2fa-approval", "")]] {
            let before = calls(&sim).len();
            asks(&sim, 403, headers);
            assert_eq!((pay(&stage, "2", "{}").await.status, calls(&sim).len()), (403, before + 1), "{headers:?}");
        }
        let before = calls(&sim).len();
        asks(&sim, 401, &[("x-2fa-approval", "a")]);
        assert_eq!((pay(&stage, "3", "{}").await.status, calls(&sim).len()), (401, before + 1));
        // A body that was not kept cannot be sent again.
        let before = calls(&sim).len();
        asks(&sim, 403, &[("x-2fa-approval", "a")]);
        let answer = pay(&stage, "4", &format!("{{\"a\":\"{}\"}}", "x".repeat(2000))).await;
        assert_eq!((answer.status, calls(&sim).len()), (403, before + 1));
        assert!(answer.header("proxy-status").contains("not-replayed: body-too-large"), "{answer:?}");
    });
}

#[test]
fn mistakes_in_a_challenge_are_told() {
    for (wrong, text, title) in [
        ("confirmed = true", "", "a call that may have been carried out must not be made again"),
        ("status    = 403", "status = [403, 500]", "only a 4xx asks for the same call once more"),
        ("header    = \"x-2fa-approval\"", "", "has no `header`"),
        ("\"x-payment-id\"", "\"x-2fa-approval\"", "takes back the challenge of an answer"),
        ("confirmed = true", "confirmed = true\nheaders = 1", "unknown key `headers`"),
    ] {
        let report = Diagnostics::new();
        let profile = Profile::parse(&SourceText::new("bank.toml", PROFILE.replacen(wrong, text, 1)), &report);
        let found: Vec<String> = report.into_diagnostics().iter().map(Diagnostic::one_line).collect();
        assert!(profile.is_none() && found.iter().any(|line| line.contains(title)), "{title}\nin\n{found:#?}");
    }
}

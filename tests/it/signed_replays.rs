//! The replay of a call in every form of signature: a new proof, and the same payment.

use countersign::sim::{Bank, SimEndpoint, SimHandle};

use crate::client::{converse, request};
use crate::harness::{Harness, KEY, Plan, bank};

const KEYS: [(&str, &str); 2] = [
    ("rsa.pem", include_str!("../fixtures/signing/rsa-pkcs8.pem")),
    ("bank.pem", include_str!("../fixtures/signing/rsa-public.pem")),
];

/// The forms with their rules, and the header field that has the proof; without one, the body has it.
const FORMS: [(&str, &str, &str); 10] = [
    ("text", "text = \"{id.payment}{token}{time.stamp}\"\nheader = \"x-signature\"", "x-signature"),
    (
        "text over the body",
        "text = \"{body_digest}{id.nonce}\"\ndigest = { field = \"digest\" }\nheader = \"x-signature\"",
        "x-signature",
    ),
    ("jws", "form = \"jws\"\njose_header = { jti = \"{id.nonce}\" }\nheader = \"x-jws\"", "x-jws"),
    ("jws-detached", "form = \"jws-detached\"\njose_header = { jti = \"{id.nonce}\" }\nheader = \"x-jws\"", "x-jws"),
    (
        "jws-unencoded",
        "form = \"jws-unencoded\"\njose_header = { iat = \"{time.stamp}\", nonce = \"{id.nonce}\" }\nheader = \"x-jws\"",
        "x-jws",
    ),
    ("jwt", "form = \"jwt\"\nclaims = { iss = \"us\" }\nheader = \"x-jwt\"", "x-jwt"),
    (
        "http",
        "form = \"http\"\ncomponents = [\"@method\", \"@path\", \"authorization\", \"x-payment-id\"]\n\
         params = { created = true, nonce = true }",
        "signature",
    ),
    (
        "cavage",
        "form = \"cavage\"\nkey_id = \"k\"\nfields = [\"(request-target)\", \"authorization\", \"x-payment-id\"]",
        "signature",
    ),
    ("oauth1", "form = \"oauth1\"\nconsumer_key = \"k\"\nalgorithm = \"RS256\"\nheader = \"x-oauth\"", "x-oauth"),
    ("jose", "", ""),
];

const JOSE: &str = "[[request.jose]]\nform = \"jws\"\nkey = \"signing_key\"\nalgorithm = \"RS256\"\n\
                    jose_header = { jti = \"{id.nonce}\" }\n[[request.jose]]\nform = \"jwe\"\nkey = \"bank_key\"\n\
                    algorithm = \"RSA-OAEP-256\"\nencryption = \"A256GCM\"\n";

fn profile(rules: &str) -> String {
    let algorithm = if rules.contains("algorithm") { "" } else { "algorithm = \"RS256\"\n" };
    let sign = match rules {
        "" => JOSE.to_owned(),
        rules => format!("[[request.sign]]\nkey = \"signing_key\"\n{algorithm}{rules}\n"),
    };
    format!(
        "name = \"signed\"\nextends = \"oauth2\"\n[settings.signing_key]\nkind = \"key\"\n[settings.bank_key]\n\
         kind = \"public-key\"\n[times.stamp]\nformat = \"epoch-ms\"\n[ids.payment]\nkind = \"uuid\"\nfresh = \"call\"\n\
         [ids.nonce]\nkind = \"uuid\"\n[request]\ninject = [\n\
         {{ header = \"authorization\", value = \"Bearer {{token}}\" }},\n\
         {{ header = \"x-payment-id\", value = \"{{id.payment}}\" }},\n]\n{sign}"
    )
}

fn stage(sim: &SimHandle, rules: &str) -> Harness {
    let mut plan = Plan { workers: 1, ..Plan::default() };
    for (name, pem) in KEYS {
        plan.files = plan.files.with_file(format!("stage/{name}"), pem);
    }
    let settings = "signing_key = { file = \"rsa.pem\" }\nbank_key = { file = \"bank.pem\" }\n";
    plan.with_profile(sim, &profile(rules), settings, "").start()
}

#[test]
fn a_replay_has_a_new_proof_and_is_the_same_payment_in_every_form() {
    for (form, rules, field) in FORMS {
        converse(async {
            let sim = bank(Bank::OAuth2);
            let stage = stage(&sim, rules);
            let json = [("content-type", "application/json")];
            let pay = |id: &str| request("POST", &format!("/bank/payments/{id}"), KEY, &json, "{\"amount\":1}");
            assert_eq!(stage.client.send(pay("1")).await.status, 200, "{form}");
            sim.revoke_all();
            let answer = stage.client.send(pay("2")).await;
            assert_eq!(answer.status, 200, "{form}: {answer:?}");
            let received = sim.received();
            let calls: Vec<_> = received.iter().filter(|call| call.endpoint == SimEndpoint::Resource).collect();
            let [first, refused, replayed] = calls.as_slice() else { panic!("{form}: {} calls", calls.len()) };
            if field.is_empty() {
                assert_ne!(refused.body, replayed.body, "{form}");
            } else {
                let (before, after) = (refused.header(field), replayed.header(field));
                assert!(before.is_some() && after.is_some() && before != after, "{form}: {before:?}, {after:?}");
            }
            assert_ne!(refused.header("authorization"), replayed.header("authorization"), "{form}");
            assert_eq!(refused.header("x-payment-id"), replayed.header("x-payment-id"), "{form}");
            assert_ne!(first.header("x-payment-id"), replayed.header("x-payment-id"), "{form}");
            assert_eq!(sim.payments().get("2"), Some(&1), "{form}");
            assert_eq!(sim.violations(), Vec::<String>::new(), "{form}");
        });
    }
}

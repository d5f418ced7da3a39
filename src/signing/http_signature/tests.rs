use std::time::Duration;

use http::HeaderMap;
use proptest::prelude::*;
use serde_json::Value;
use zeroize::Zeroizing;

use super::super::encoding::TextEncoding;
use super::super::jwk;
use super::super::pkcs;
use super::super::public_key::{PublicKey, VerifyingKey};
use super::super::shared_secret::SharedSecret;
use super::*;
use crate::base::time::Now;

fn vectors() -> Vec<Value> {
    serde_json::from_str(include_str!("../../../tests/fixtures/signing/rfc9421.json")).unwrap()
}

fn headers(message: &Value, more: &[(&str, &str)]) -> HeaderMap {
    let fields = message["headers"].as_array().unwrap().iter();
    let fields = fields.map(|field| (field[0].as_str().unwrap(), field[1].as_str().unwrap()));
    fields.chain(more.iter().copied()).map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn message<'a>(vector: &'a Value, headers: &'a HeaderMap) -> HttpMessage<'a> {
    let text = |member: &str| vector[member].as_str().unwrap();
    match vector["status"].as_u64() {
        Some(status) => HttpMessage::Response { status: status as u16, headers, request: None },
        None => HttpMessage::Request(RequestParts {
            method: text("method"),
            scheme: "https",
            authority: text("authority"),
            path: text("path"),
            query: vector["query"].as_str(),
            headers,
        }),
    }
}

fn secret(text: &str) -> SharedSecret {
    SharedSecret::new(Zeroizing::new(TextEncoding::Base64.decode(text).unwrap())).unwrap()
}

fn verifying(vector: &Value) -> VerifyingKey {
    match vector["public"].as_str() {
        Some(pem) => VerifyingKey::Public(PublicKey::from_pem(pem.as_bytes()).unwrap()),
        None => VerifyingKey::Secret(secret(vector["secret"].as_str().unwrap())),
    }
}

const fn check(algorithm: SigningAlgorithm) -> HttpSignatureCheck<'static> {
    HttpSignatureCheck {
        label: None,
        algorithm,
        required: &[],
        tag: None,
        oldest: Duration::from_secs(60),
        undated: false,
        now: Now::at(0, 1_618_884_500_000),
    }
}

fn parameters(input: &str) -> SignatureParameters {
    let members = structured_field::dictionary(&format!("sig={input}")).unwrap();
    let Some((_, structured_field::Member::InnerList(items, parameters))) = members.into_iter().next() else {
        panic!("an inner list")
    };
    SignatureParameters::read(items, parameters).unwrap()
}

#[test]
fn the_signatures_of_rfc_9421_verify_and_the_deterministic_ones_are_reproduced() {
    let mut reproduced = 0;
    for vector in vectors() {
        let text = |member: &str| vector[member].as_str().unwrap();
        let algorithm = SigningAlgorithm::parse(text("alg")).unwrap();
        let (label, input) = (text("label"), text("input"));
        let (field, signature) = (format!("{label}={input}"), format!("{label}=:{}:", text("signature")));
        let signed = headers(&vector["message"], &[("signature-input", &field), ("signature", &signature)]);
        let key = verifying(&vector);
        let signed = message(&vector["message"], &signed);
        let read = verify(&signed, &check(algorithm), &key).unwrap_or_else(|_| panic!("{}", text("name")));
        assert_eq!(read.label, label);
        assert!(verify(&signed, &HttpSignatureCheck { label: Some("other"), ..check(algorithm) }, &key).is_err());
        let later = HttpSignatureCheck { now: Now::at(0, 1_618_884_541_000), ..check(algorithm) };
        assert!(verify(&signed, &later, &key).is_err(), "too old, or expired");

        let unsigned = headers(&vector["message"], &[]);
        let unsigned = message(&vector["message"], &unsigned);
        let unsigned = UnsignedHttpSignature::new(&unsigned, label, &parameters(input), algorithm).unwrap();
        let key = match (vector["private"].as_str(), vector["secret"].as_str()) {
            (Some(pem), _) => SigningKey::Private(pkcs::private_key(pem.as_bytes(), None).unwrap()),
            (None, Some(text)) => SigningKey::Secret(secret(text)),
            (None, None) => continue,
        };
        assert_eq!(unsigned.sign(&key), Ok(HttpSignatureFields { input: field, signature }));
        reproduced += 1;
    }
    assert_eq!(reproduced, 2);
}

const BARE: &[(&str, &str)] = &[
    ("host", "www.example.com"),
    ("x-ows-header", "  Leading and trailing whitespace.   "),
    ("cache-control", "max-age=60"),
    ("cache-control", "   must-revalidate"),
    ("x-empty-header", ""),
];

fn value(component: &str, target: (&str, &str, Option<&str>)) -> Option<String> {
    let headers = headers(&serde_json::json!({"headers": []}), BARE);
    let (authority, path, query) = target;
    let request = RequestParts { method: "GET", scheme: "HTTPS", authority, path, query, headers: &headers };
    CoveredComponent::parse(component).unwrap().value(&HttpMessage::Request(request))
}

/// The examples of RFC 9421 section 2.
#[test]
fn components_have_the_values_of_the_rfc() {
    let target = ("www.example.com:443", "/path", Some("param=value&foo=bar&baz=bat%2Dman"));
    for (component, expected) in [
        ("host", "www.example.com"),
        ("x-ows-header", "Leading and trailing whitespace."),
        ("cache-control", "max-age=60, must-revalidate"),
        ("\"cache-control\";bs", ":bWF4LWFnZT02MA==:, :bXVzdC1yZXZhbGlkYXRl:"),
        ("x-empty-header", ""),
        ("@method", "GET"),
        ("@authority", "www.example.com"),
        ("@scheme", "https"),
        ("@path", "/path"),
        ("@query", "?param=value&foo=bar&baz=bat%2Dman"),
        ("@request-target", "/path?param=value&foo=bar&baz=bat%2Dman"),
        ("@target-uri", "https://www.example.com/path?param=value&foo=bar&baz=bat%2Dman"),
        ("@query-param;name=\"baz\"", "bat-man"),
        ("@query-param;name=\"param\"", "value"),
    ] {
        assert_eq!(value(component, target).as_deref(), Some(expected), "{component}");
    }
    let odd =
        "var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something&a=1&a=2";
    let target = ("www.example.com", "", Some(odd));
    for (component, expected) in [
        ("\"@query-param\";name=\"var\"", Some("this%20is%20a%20big%0Amultiline%20value")),
        ("\"@query-param\";name=\"bar\"", Some("with%20plus%20whitespace")),
        ("\"@query-param\";name=\"fa%C3%A7ade%22%3A%20\"", Some("something")),
        ("\"@query-param\";name=\"a\"", None),
        ("\"@query-param\";name=\"missing\"", None),
        ("@path", Some("/")),
        ("@status", None),
        ("x-missing", None),
        ("host;req", None),
    ] {
        assert_eq!(value(component, target).as_deref(), expected, "{component}");
    }
    assert_eq!(value("@query", ("h", "/", None)).as_deref(), Some("?"));
}

#[test]
fn identifiers_that_are_not_supported_are_refused_with_what_to_write() {
    for text in [
        "Content-Type",
        "@signature-params",
        "@unknown",
        "date;sf",
        "date;key=\"a\"",
        "date;tr",
        "@query-param",
        "@method;bs",
        "@method;name=\"a\"",
        "@status;req",
        "a b",
        "",
        "\"date",
        "date;name=\"x\"",
        "\"date\" ",
    ] {
        let error = CoveredComponent::parse(text).unwrap_err();
        assert!(error.to_string().contains("@request-target"), "{text}: {error}");
    }
    assert_eq!(CoveredComponent::parse("date;req").unwrap().identifier(), "\"date\";req");
}

#[test]
fn contradictions_are_refused_before_signing() {
    let vectors = vectors();
    let headers = headers(&vectors[0]["message"], &[]);
    let message = message(&vectors[0]["message"], &headers);
    let component = |text: &str| CoveredComponent::parse(text).unwrap();
    let new = |label: &str, components: Vec<CoveredComponent>, all: Vec<SignatureParameter>| {
        let parameters = SignatureParameters::new(components, all);
        UnsignedHttpSignature::new(&message, label, &parameters, SigningAlgorithm::Ps512)
            .map(|made| made.base().to_owned())
    };
    let base = new(
        "s",
        vec![component("date")],
        vec![
            SignatureParameter::Tag("t".into()),
            SignatureParameter::KeyId("a\"b\\".into()),
            SignatureParameter::Alg("rsa-pss-sha512".into()),
            SignatureParameter::Expires(2),
        ],
    );
    let expected = "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\"@signature-params\": \
        (\"date\");tag=\"t\";keyid=\"a\\\"b\\\\\";alg=\"rsa-pss-sha512\";expires=2";
    assert_eq!(base.as_deref(), Ok(expected));
    assert_eq!(new("S", vec![], vec![]), Err(BaseError::Label));
    assert!(matches!(new("s", vec![component("date"), component("\"date\"")], vec![]), Err(BaseError::Duplicate(_))));
    assert!(matches!(new("s", vec![component("x-none")], vec![]), Err(BaseError::Missing(_))));
    assert_eq!(new("s", vec![], vec![SignatureParameter::Alg("ed25519".into())]), Err(BaseError::Algorithm));
    assert_eq!(new("s", vec![], vec![SignatureParameter::Nonce("é".into())]), Err(BaseError::Parameter("nonce")));
    assert_eq!(new("s", vec![], vec![SignatureParameter::Created(u64::MAX)]), Err(BaseError::Parameter("created")));
}

#[test]
fn a_response_can_cover_its_request() {
    let jwks: Vec<Value> = serde_json::from_str(include_str!("../../../tests/fixtures/signing/jws.json")).unwrap();
    let jwk = jwks.iter().find(|vector| vector["alg"] == "ES256").unwrap()["jwk"].to_string();
    let key = jwk::signing_key(jwk.as_bytes()).unwrap();
    let public = VerifyingKey::Public(jwk::public_key(jwk.as_bytes()).unwrap());
    let vectors = vectors();
    let of_request = headers(&vectors[0]["message"], &[]);
    let HttpMessage::Request(request) = message(&vectors[0]["message"], &of_request) else { panic!("a request") };
    let covered = ["@status", "@method;req", "\"content-digest\";req", "content-digest"];
    let covered = covered.map(|text| CoveredComponent::parse(text).unwrap()).to_vec();
    let all = vec![SignatureParameter::Created(1_618_884_473), SignatureParameter::Tag("bank".into())];
    let parameters = SignatureParameters::new(covered.clone(), all);
    let plain = headers(&vectors[3]["message"], &[]);
    let response = HttpMessage::Response { status: 200, headers: &plain, request: Some(request) };
    let unsigned = UnsignedHttpSignature::new(&response, "sig", &parameters, SigningAlgorithm::Es256).unwrap();
    let fields = unsigned.sign(&key).unwrap();
    let signed = [("signature-input", fields.input.as_str()), ("signature", fields.signature.as_str())];
    let signed = headers(&vectors[3]["message"], &signed);
    let response = |status, request| HttpMessage::Response { status, headers: &signed, request };
    let strict = HttpSignatureCheck { required: &covered, tag: Some("bank"), ..check(SigningAlgorithm::Es256) };
    assert!(verify(&response(200, Some(request)), &strict, &public).is_ok());
    assert!(verify(&response(201, Some(request)), &strict, &public).is_err());
    assert!(verify(&response(200, None), &strict, &public).is_err());
    let other = RequestParts { method: "PUT", ..request };
    assert!(verify(&response(200, Some(other)), &strict, &public).is_err());
    let date = [CoveredComponent::parse("date").unwrap()];
    for refused in [
        HttpSignatureCheck { required: &date, ..strict },
        HttpSignatureCheck { tag: Some("other"), ..strict },
        HttpSignatureCheck { algorithm: SigningAlgorithm::EdDsa, ..strict },
        HttpSignatureCheck { now: Now::at(0, 1_618_884_000_000), ..strict },
        HttpSignatureCheck { oldest: Duration::from_secs(5), ..strict },
        HttpSignatureCheck { label: Some("sig2"), ..strict },
    ] {
        assert_eq!(verify(&response(200, Some(request)), &refused, &public), Err(SignatureRefused));
    }
}

#[test]
fn genuine_signatures_that_say_something_else_are_refused() {
    let vectors = vectors();
    let vector = &vectors[5];
    let pem = vector["private"].as_str().unwrap();
    let key = SigningKey::Private(pkcs::private_key(pem.as_bytes(), None).unwrap());
    let plain = headers(&vector["message"], &[]);
    let accepts = |all: Vec<SignatureParameter>, check: &HttpSignatureCheck<'_>| {
        let parameters = SignatureParameters::new(vec![CoveredComponent::parse("date").unwrap()], all);
        let base = signature_base(&message(&vector["message"], &plain), &parameters).unwrap();
        let signature = key.sign(SigningAlgorithm::EdDsa, base.as_bytes()).unwrap();
        let (input, signature) =
            (format!("s={}", parameters.text().unwrap()), format!("s=:{}:", base64(signature.bytes())));
        let signed = headers(&vector["message"], &[("signature-input", &input), ("signature", &signature)]);
        verify(&message(&vector["message"], &signed), check, &verifying(vector)).is_ok()
    };
    let created = SignatureParameter::Created(1_618_884_490);
    let check = check(SigningAlgorithm::EdDsa);
    assert!(accepts(vec![created.clone()], &check));
    assert!(!accepts(vec![], &check), "no moment of signing");
    assert!(!accepts(vec![created.clone(), SignatureParameter::Expires(1_618_884_500)], &check), "expired");
    assert!(accepts(vec![created.clone(), SignatureParameter::Expires(1_618_884_501)], &check));
    assert!(!accepts(vec![created.clone(), SignatureParameter::Alg("hmac-sha256".into())], &check), "other algorithm");
    assert!(accepts(vec![created.clone(), SignatureParameter::Alg("ed25519".into())], &check));
    let tagged = HttpSignatureCheck { tag: Some("bank"), ..check };
    assert!(!accepts(vec![created.clone()], &tagged), "no tag");
    assert!(!accepts(vec![created.clone(), SignatureParameter::Tag("other".into())], &tagged));
    assert!(accepts(vec![created, SignatureParameter::Tag("bank".into())], &tagged));
}

#[test]
fn tampered_fields_are_refused() {
    let vectors = vectors();
    let vector = &vectors[5];
    let (input, signature) = (vector["input"].as_str().unwrap(), vector["signature"].as_str().unwrap());
    let key = verifying(vector);
    let is_accepted = |input: &str, signature: &str| {
        let signed = headers(&vector["message"], &[("signature-input", input), ("signature", signature)]);
        verify(&message(&vector["message"], &signed), &check(SigningAlgorithm::EdDsa), &key).is_ok()
    };
    let (right_input, right) = (format!("s={input}"), format!("s=:{signature}:"));
    assert!(is_accepted(&right_input, &right));
    for wrong in [
        format!("s={input};alg=\"ed448\""),
        format!("s={input};alg=\"ed25519\""),
        format!("s={input};extra=1"),
        format!("s={input};expires=1618884474"),
        format!("s={input}, t={input}"),
        format!("t={input}"),
        format!("s={}", input.replace("created=1618884473", "created=1618884474")),
        format!("s={}", input.replace(";created=1618884473", "")),
        format!("s={}", input.replace("\"date\" ", "")),
        format!("s={}", input.replace("\"date\"", "\"date\" \"date\"")),
        format!("s={}", input.replace("\"date\"", "\"Date\"")),
        format!("s={}", input.replace("\"date\"", "\"date\";sf")),
        format!("s={}", input.replace("\"date\"", "date")),
        "s".to_owned(),
        String::new(),
    ] {
        assert!(!is_accepted(&wrong, &right), "{wrong}");
    }
    for wrong in [
        format!("s=\"{signature}\""),
        format!("t=:{signature}:"),
        format!("s=:{}:", signature.replacen('w', "x", 1)),
        format!("s=:{}:", &signature[..signature.len() - 4]),
        "s=::".to_owned(),
        String::new(),
    ] {
        assert!(!is_accepted(&right_input, &wrong), "{wrong}");
    }
}

proptest! {
    #[test]
    fn any_fields_and_targets_are_read_or_refused(
        input in "[a-z=();,:\"@ ]{0,50}",
        signature in "s=:[A-Za-z0-9+/=]{0,20}:",
        identifier in ".{0,30}",
        path in ".{0,20}",
        query in ".{0,40}",
    ) {
        let vectors = vectors();
        let input = format!("s=({input}");
        let signed = headers(&vectors[0]["message"], &[("signature-input", &input), ("signature", &signature)]);
        let signed = message(&vectors[0]["message"], &signed);
        let _ = verify(&signed, &check(SigningAlgorithm::EdDsa), &verifying(&vectors[5]));
        let _ = CoveredComponent::parse(&identifier);
        let _ = CoveredComponent::parse(&format!("@query-param;name=\"{identifier}\""));
        for component in ["@path", "@query", "@target-uri", "@request-target", "@query-param;name=\"a\""] {
            if let Some(value) = value(component, ("h", &path, Some(&query))) {
                prop_assert!(!value.contains(['\n', '\r']));
            }
        }
    }
}

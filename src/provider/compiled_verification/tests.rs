use zeroize::Zeroizing;

use super::*;
use crate::base::secret::SecretString;
use crate::provider::Profile;
use crate::provider::setting::{FileContent, ReadValue};
use crate::signing::cavage::CavageSignature;
use crate::signing::digest::DigestAlgorithm;
use crate::signing::encoding::base64;
use crate::signing::http_signature::{SignatureParameter, SignatureParameters, UnsignedHttpSignature};
use crate::signing::jwk;
use crate::signing::key::SigningKey;
use crate::signing::pkcs;
use crate::signing::shared_secret::SharedSecret;
use crate::syntax::{Diagnostic, Diagnostics, Fields, FromNode, Node, SourceText};

const AT: u64 = 1_700_000_000;
const NOW: Now = Now::at(77_000, AT * 1000);
const BODY: &[u8] = br#"{"status":"BOOKED","amount":100.10}"#;
const SECRET: &str = "a-webhook-secret-of-the-bank";

struct Beside;

impl ReadValue for Beside {
    fn value(&self, node: &Node, report: &Diagnostics) -> Option<(SecretString, bool)> {
        String::from_node(node, report).map(|text| (SecretString::from(text), false))
    }

    fn file(&self, node: &Node, _: FileContent, report: &Diagnostics) -> Option<Zeroizing<Vec<u8>>> {
        let text = String::from_node(node, report)?;
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/signing").join(text);
        std::fs::read(path).ok().map(Zeroizing::new)
    }

    fn unix_seconds(&self) -> u64 {
        0
    }
}

/// The one signature of a profile, compiled.
fn compiled(entry: &str) -> CompiledVerification {
    let text = format!(
        "name = \"a\"\n[settings.bank]\nkind = \"public-key\"\n[settings.newer]\nkind = \"public-key\"\noptional = true\n\
         [settings.shared]\nsecret = true\n[request]\n\
         inject = [{{ header = \"x-key\", value = \"{{shared}}\" }}]\n{entry}\n"
    );
    let report = Diagnostics::new();
    let profile = Profile::parse(&SourceText::new("bank.toml", text), &report);
    let given = format!("bank = {{ jwks = \"bank.jwks\" }}\nshared = \"{SECRET}\"\n");
    let node = Node::parse(&SourceText::new("proxy.toml", given), &report);
    let fields = Fields::new(&node, "settings", &report);
    let settings = profile.as_ref().and_then(|profile| profile.read_settings(&fields, &Beside));
    fields.finish();
    let (Some(profile), Some(settings)) = (profile, settings) else {
        let found = report.into_diagnostics();
        panic!("{:#?}", found.iter().map(Diagnostic::one_line).collect::<Vec<_>>());
    };
    let rules = profile.webhook.as_ref().unwrap_or(&profile.response);
    CompiledVerification::compile(rules.signatures.first().expect("a signature"), &settings).expect("its keys")
}

fn bank() -> SigningKey {
    SigningKey::Private(
        pkcs::private_key(include_bytes!("../../../tests/fixtures/signing/p256-sec1.pem"), None).unwrap(),
    )
}

/// A key of the same kind that is not the bank's.
fn stranger() -> SigningKey {
    let vectors: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../../../tests/fixtures/signing/jwe.json")).unwrap();
    let jwk = vectors.iter().map(|vector| &vector["jwk"]).find(|jwk| jwk["crv"] == "P-256").unwrap();
    jwk::signing_key(jwk.to_string().as_bytes()).unwrap()
}

fn request(headers: HeaderMap) -> SignedRequestHead {
    let (authority, path_and_query) = ("gateway.example".to_owned(), "/hooks/a?b=1".to_owned());
    SignedRequestHead { method: Method::POST, authority, path_and_query, headers }
}

fn fields(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn answer(headers: HeaderMap) -> SignedHead {
    SignedHead::Answer { status: StatusCode::OK, headers, request: Some(request(HeaderMap::new())) }
}

fn body(bytes: &[u8]) -> SignedBody<'_> {
    SignedBody { raw: bytes, decoded: bytes }
}

const HTTP: &str = "[[response.signature]]\nform = \"http\"\nkey = [\"bank\", \"newer\"]\nalgorithm = \"ES256\"\n\
                    components = [\"@status\", \"content-digest\", \"@path;req\"]\nmax_age = \"1m\"\n";

/// What a bank signs of an answer.
struct Signing<'a> {
    key: SigningKey,
    key_id: Option<&'a str>,
    components: &'a [&'a str],
    created: Option<u64>,
    expires: Option<u64>,
    label: &'a str,
    alg: Option<&'a str>,
}

const COVERED: &[&str] = &["@status", "content-digest", "@path;req"];

fn usual() -> Signing<'static> {
    let (key, key_id, created) = (bank(), Some("bank-1"), Some(AT));
    Signing { key, key_id, components: COVERED, created, expires: None, label: "sig", alg: None }
}

/// The headers of an answer with this signature.
fn signed(signing: &Signing<'_>) -> HeaderMap {
    let digest = DigestAlgorithm::Sha256.field(BODY);
    let mut headers = fields(&[("content-digest", &digest), ("content-type", "application/json")]);
    let components = signing.components.iter().map(|one| CoveredComponent::parse(one).unwrap()).collect();
    let mut parameters = Vec::new();
    parameters.extend(signing.created.map(SignatureParameter::Created));
    parameters.extend(signing.expires.map(SignatureParameter::Expires));
    parameters.extend(signing.key_id.map(|id| SignatureParameter::KeyId(id.to_owned())));
    let parameters = SignatureParameters::new(components, parameters);
    let asked = request(HeaderMap::new());
    let message = HttpMessage::Response { status: 200, headers: &headers, request: Some(asked.parts()) };
    let unsigned = UnsignedHttpSignature::new(&message, signing.label, &parameters, SigningAlgorithm::Es256).unwrap();
    let made = unsigned.sign(&signing.key).unwrap();
    let input = match signing.alg {
        None => made.input,
        Some(alg) => format!("{};alg=\"{alg}\"", made.input),
    };
    headers.insert("signature-input", input.parse().unwrap());
    headers.insert("signature", made.signature.parse().unwrap());
    headers
}

fn with(headers: &HeaderMap, name: &'static str, change: impl Fn(&str) -> String) -> HeaderMap {
    let mut headers = headers.clone();
    let changed = change(headers[name].to_str().unwrap());
    headers.insert(name, changed.parse().unwrap());
    headers
}

fn without(headers: &HeaderMap, name: &str) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(name);
    headers
}

#[test]
fn an_answer_with_a_message_signature_holds_as_it_was_sent() {
    let http = compiled(HTTP);
    assert_eq!(http.verify(&answer(signed(&usual())), body(BODY), NOW), Ok(()));
    let late = Signing { created: Some(AT - 60), ..usual() };
    assert_eq!(http.verify(&answer(signed(&late)), body(BODY), NOW), Ok(()));
    let more = Signing { components: &["content-digest", "@path;req", "content-type", "@status"], ..usual() };
    assert_eq!(http.verify(&answer(signed(&more)), body(BODY), NOW), Ok(()), "more than is demanded");
    let undated = Signing { created: None, ..usual() };
    let lenient = compiled(&format!("{HTTP}undated = true\n"));
    assert_eq!(lenient.verify(&answer(signed(&undated)), body(BODY), NOW), Ok(()));
    let old = Signing { created: Some(AT - 61), ..usual() };
    assert_eq!(lenient.verify(&answer(signed(&old)), body(BODY), NOW), Err(VerificationFailure::Refused));
}

#[test]
fn every_answer_whose_message_signature_was_tampered_with_is_refused() {
    let http = compiled(HTTP);
    let good = signed(&usual());
    let sign = |change: fn(&mut Signing<'static>)| {
        let mut signing = usual();
        change(&mut signing);
        signed(&signing)
    };
    let hmac = {
        let public = serde_json::Value::Object(bank().public().unwrap().to_jwk()).to_string();
        let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public.as_bytes());
        let tag = aws_lc_rs::hmac::sign(&secret, b"base");
        with(&sign(|one| one.alg = Some("hmac-sha256")), "signature", |_| format!("sig=:{}:", base64(tag.as_ref())))
    };
    let two = {
        let mut headers = good.clone();
        headers.append("signature", good["signature"].clone());
        headers.append("signature-input", good["signature-input"].clone());
        headers
    };
    let other_label = {
        let mut headers = good.clone();
        headers.append("signature-input", "other=();created=1".parse().unwrap());
        headers
    };
    let other_body = br#"{"status":"REJECTED","amount":1}"#;
    let other_digest = DigestAlgorithm::Sha256.field(other_body);
    let cases = [
        ("no signature", without(&without(&good, "signature"), "signature-input")),
        ("no value", without(&good, "signature")),
        ("no input", without(&good, "signature-input")),
        ("no digest", without(&good, "content-digest")),
        ("the digest of another body", with(&good, "content-digest", |_| other_digest.clone())),
        ("a weak digest", with(&good, "content-digest", |_| "md5=:AAAA:".to_owned())),
        ("another key of the same name", sign(|one| one.key = stranger())),
        ("another name", sign(|one| one.key_id = Some("bank-9"))),
        ("the name of a key that encrypts", sign(|one| one.key_id = Some("bank-2"))),
        ("a digest that is not covered", sign(|one| one.components = &["@status", "@path;req"])),
        ("a status that is not covered", sign(|one| one.components = &["content-digest", "@path;req"])),
        (
            "the request's digest in its place",
            with(&good, "signature-input", |text| text.replace("digest\"", "digest\";req")),
        ),
        ("nothing covered", sign(|one| one.components = &[])),
        ("too old", sign(|one| one.created = Some(AT - 61))),
        ("of the future", sign(|one| one.created = Some(AT + 61))),
        ("without a time", sign(|one| one.created = None)),
        ("expired", sign(|one| one.expires = Some(AT))),
        ("another time", with(&good, "signature-input", |text| text.replace(&AT.to_string(), &(AT - 1).to_string()))),
        (
            "another order",
            with(&good, "signature-input", |text| {
                text.replace("\"@status\" \"content-digest\"", "\"content-digest\" \"@status\"")
            }),
        ),
        ("a component less", with(&good, "signature-input", |text| text.replace(" \"@path\";req", ""))),
        ("authenticated by the public key", hmac),
        ("an algorithm of its own", with(&good, "signature-input", |text| format!("{text};alg=\"none\""))),
        ("two signatures of one label", two),
        ("two labels", other_label),
        ("a signature of another label", with(&good, "signature", |text| text.replacen("sig", "sog", 1))),
        ("truncated", with(&good, "signature", |text| format!("{}:", &text[..text.len() - 9]))),
        ("empty", with(&good, "signature", |_| "sig=::".to_owned())),
        ("not encoded", with(&good, "signature", |_| "sig=abc".to_owned())),
        ("an unknown parameter", with(&good, "signature-input", |text| format!("{text};x=1"))),
        ("no dictionary", with(&good, "signature-input", |_| "sig".to_owned())),
    ];
    for (kind, headers) in cases {
        assert!(http.verify(&answer(headers), body(BODY), NOW).is_err(), "{kind}");
    }
    assert_eq!(http.verify(&answer(good.clone()), body(other_body), NOW), Err(VerificationFailure::Digest));
    assert_eq!(http.verify(&answer(good.clone()), body(b""), NOW), Err(VerificationFailure::Digest));
    let headers = good;
    let elsewhere = SignedRequestHead { path_and_query: "/hooks/c".to_owned(), ..request(HeaderMap::new()) };
    for (status, request) in [
        (StatusCode::CREATED, Some(request(HeaderMap::new()))),
        (StatusCode::OK, Some(elsewhere)),
        (StatusCode::OK, None),
    ] {
        let head = SignedHead::Answer { status, headers: headers.clone(), request };
        assert_eq!(http.verify(&head, body(BODY), NOW), Err(VerificationFailure::Refused), "{status}");
    }
}

const TEXT: &str = "[[webhook.signature]]\nkey = \"shared\"\nalgorithm = \"HS256\"\nheader = \"x-sig\"\n\
                    text = \"{method}:{path_and_query}:{header.x-time}.{body}\"\nvalue = \"v1={signature}\"\n\
                    encoding = \"hex\"\ntime = { header = \"x-time\", format = \"epoch\" }\nmax_age = \"1m\"\n";

fn webhook(text: &str, at: u64, key: &str) -> HeaderMap {
    let key = SigningKey::Secret(SharedSecret::as_issued(Zeroizing::new(key.as_bytes().to_vec())).unwrap());
    let made = key.sign(SigningAlgorithm::Hs256, text.as_bytes()).unwrap();
    let made = format!("v1={}", made.text(TextEncoding::Hex));
    fields(&[("x-time", &at.to_string()), ("x-sig", &made)])
}

#[test]
fn a_webhook_with_a_signature_over_a_text_holds_as_it_was_sent_alone() {
    let text = compiled(TEXT);
    let (content, sent) = (std::str::from_utf8(BODY).unwrap(), AT - 60);
    let canonical = |at: u64| format!("POST:/hooks/a?b=1:{at}.{content}");
    let good = webhook(&canonical(sent), sent, SECRET);
    let verify = |headers: &HeaderMap, bytes: &[u8]| {
        text.verify(&SignedHead::Request(request(headers.clone())), body(bytes), NOW)
    };
    assert_eq!(verify(&good, BODY), Ok(()));
    let mut twice = good.clone();
    twice.append("x-sig", good["x-sig"].clone());
    let mut two_times = good.clone();
    two_times.append("x-time", AT.to_string().parse().unwrap());
    for (kind, headers, failure) in [
        ("no signature", without(&good, "x-sig"), VerificationFailure::Missing),
        ("two signatures", twice, VerificationFailure::Missing),
        ("no prefix", with(&good, "x-sig", |value| value[3..].to_owned()), VerificationFailure::Missing),
        ("no digits", with(&good, "x-sig", |_| "v1=xyz".to_owned()), VerificationFailure::Missing),
        ("truncated", with(&good, "x-sig", |value| value[..value.len() - 2].to_owned()), VerificationFailure::Refused),
        ("longer", with(&good, "x-sig", |value| format!("{value}00")), VerificationFailure::Refused),
        ("empty", with(&good, "x-sig", |_| "v1=".to_owned()), VerificationFailure::Refused),
        ("another secret", webhook(&canonical(sent), sent, "another-secret"), VerificationFailure::Refused),
        ("another header", with(&good, "x-time", |_| AT.to_string()), VerificationFailure::Refused),
        ("no header", without(&good, "x-time"), VerificationFailure::Part),
        ("two headers", two_times, VerificationFailure::Refused),
        ("too old", webhook(&canonical(AT - 61), AT - 61, SECRET), VerificationFailure::Time),
        ("of the future", webhook(&canonical(AT + 61), AT + 61, SECRET), VerificationFailure::Time),
    ] {
        assert_eq!(verify(&headers, BODY), Err(failure), "{kind}");
    }
    assert_eq!(verify(&good, b"{}"), Err(VerificationFailure::Refused));
    for other in [
        SignedRequestHead { method: Method::PUT, ..request(good.clone()) },
        SignedRequestHead { path_and_query: "/hooks/b?b=1".to_owned(), ..request(good.clone()) },
    ] {
        let head = SignedHead::Request(other);
        assert_eq!(text.verify(&head, body(BODY), NOW), Err(VerificationFailure::Refused), "{head:?}");
    }
}

#[test]
fn texts_are_signed_by_keys_of_every_kind_and_cover_the_content_without_its_coding() {
    let entry = "[[response.signature]]\nkey = \"bank\"\nalgorithm = \"ES256\"\nheader = \"x-sig\"\nder = true\n\
                 text = \"{status}|{body_digest}\"\ndigest = { algorithm = \"sha-512\", minified = true }\n";
    let text = compiled(entry);
    let canonical = format!("200|{}", DigestAlgorithm::Sha512.hex(br#"{"a":1}"#));
    let made = |key: &SigningKey| key.sign(SigningAlgorithm::Es256, canonical.as_bytes()).unwrap();
    let head = |value: String| answer(fields(&[("x-sig", &value), ("content-encoding", "gzip")]));
    let coded = SignedBody { raw: b"\x1f\x8b", decoded: b"{ \"a\": 1 }" };
    assert_eq!(text.verify(&head(base64(&made(&bank()).to_der())), coded, NOW), Ok(()));
    for (kind, value, failure) in [
        ("the form of JOSE", base64(made(&bank()).bytes()), VerificationFailure::Missing),
        ("another key", base64(&made(&stranger()).to_der()), VerificationFailure::Refused),
    ] {
        assert_eq!(text.verify(&head(value), coded, NOW), Err(failure), "{kind}");
    }
    let head = head(base64(&made(&bank()).to_der()));
    let other = SignedBody { raw: b"\x1f\x8b", decoded: b"{ \"a\": 2 }" };
    assert_eq!(text.verify(&head, other, NOW), Err(VerificationFailure::Refused));
    let no_json = SignedBody { raw: b"\x1f\x8b", decoded: b"{" };
    assert_eq!(text.verify(&head, no_json, NOW), Err(VerificationFailure::Part));
}

#[test]
fn a_signature_of_the_older_draft_holds_with_its_digest_alone() {
    let entry = "[[webhook.signature]]\nform = \"cavage\"\nkey = \"bank\"\nalgorithm = \"ES256\"\nkey_id = \"SN=1,CA=b\"\n\
                 fields = [\"(request-target)\", \"date\", \"digest\"]\n\
                 time = { header = \"date\", format = \"http-date\" }\n";
    let cavage = compiled(entry);
    let signed = |key: &SigningKey, key_id: &str, words: &[&str], date: &str| {
        let digest = DigestAlgorithm::Sha256.old_field(BODY);
        let mut headers = fields(&[("date", date), ("digest", &digest)]);
        let covered: Vec<CavageField> = words.iter().map(|word| CavageField::parse(word).unwrap()).collect();
        let stated =
            CavageSignature { key_id, algorithm: Some("hs2019"), created: None, expires: None, fields: &covered };
        let asked = request(headers.clone());
        let unsigned = stated.over(&asked.parts()).unwrap();
        let made = key.sign(SigningAlgorithm::Es256, unsigned.signing_string().as_bytes()).unwrap();
        headers.insert("signature", unsigned.complete(&made).parse().unwrap());
        headers
    };
    let verify =
        |headers: HeaderMap, bytes: &[u8]| cavage.verify(&SignedHead::Request(request(headers)), body(bytes), NOW);
    let (all, date) = (&["(request-target)", "date", "digest"][..], "Tue, 14 Nov 2023 22:13:20 GMT");
    let good = signed(&bank(), "SN=1,CA=b", all, date);
    assert_eq!(verify(good.clone(), BODY), Ok(()));
    assert_eq!(verify(good.clone(), b"{}"), Err(VerificationFailure::Digest));
    for (kind, headers, failure) in [
        ("no signature", without(&good, "signature"), VerificationFailure::Missing),
        ("no digest", without(&good, "digest"), VerificationFailure::Refused),
        ("another key id", signed(&bank(), "SN=2,CA=b", all, date), VerificationFailure::Key),
        ("another key", signed(&stranger(), "SN=1,CA=b", all, date), VerificationFailure::Refused),
        ("an uncovered digest", signed(&bank(), "SN=1,CA=b", &all[..2], date), VerificationFailure::Refused),
        ("another date", with(&good, "date", |_| "Tue, 14 Nov 2023 22:13:21 GMT".into()), VerificationFailure::Refused),
        ("an old date", signed(&bank(), "SN=1,CA=b", all, "Tue, 14 Nov 2023 22:08:19 GMT"), VerificationFailure::Time),
    ] {
        assert_eq!(verify(headers, BODY), Err(failure), "{kind}");
    }
}

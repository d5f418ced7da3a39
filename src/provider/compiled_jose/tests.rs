use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::signing::encoding::base64url;
use crate::signing::jwe::{ContentEncryption, KeyManagement};
use crate::signing::jwk;
use crate::signing::pkcs;

const RECIPE: JweRecipe = JweRecipe { management: KeyManagement::RsaOaep256, encryption: ContentEncryption::A256Gcm };
const PAYLOAD: &str = r#"{"status":"ACCEPTED","amount":100.10}"#;

fn key(pem: &[u8]) -> SigningKey {
    SigningKey::Private(pkcs::private_key(pem, None).expect("a key"))
}

/// Ours, for which answers are encrypted.
fn ours() -> SigningKey {
    key(include_bytes!("../../../tests/fixtures/signing/rsa-pkcs8.pem"))
}

/// The bank's, by which they are signed.
fn bank() -> SigningKey {
    key(include_bytes!("../../../tests/fixtures/signing/p256-sec1.pem"))
}

/// Somebody else's, of the same kinds.
fn strangers() -> (SigningKey, SigningKey) {
    let vectors: Vec<Value> =
        serde_json::from_str(include_str!("../../../tests/fixtures/signing/jwe.json")).expect("JSON");
    let jwk = vectors.iter().map(|vector| &vector["jwk"]).find(|jwk| jwk["crv"] == "P-256").expect("a key");
    let rsa = key(include_bytes!("../../../tests/fixtures/signing/rsa-pss-pkcs8.pem"));
    (rsa, jwk::signing_key(jwk.to_string().as_bytes()).expect("a key"))
}

/// Answers are decrypted by our key, and what is in them verified by the bank's.
fn openings() -> [CompiledJoseOpening; 2] {
    let keys = vec![OpeningKey { name: Some("ours-1".to_owned()), key: Arc::new(ours()) }];
    let set = jwk::public_keys(include_bytes!("../../../tests/fixtures/signing/bank.jwks")).expect("keys");
    let opening = |step| CompiledJoseOpening {
        step,
        places: FieldPlaces::of("", ""),
        is_text: false,
        content_type: HeaderValue::from_static("application/json"),
    };
    let verify = OpenStep::Verify {
        keys: vec![Verifier::Public(Arc::new(set))],
        algorithm: SigningAlgorithm::Es256,
        understood: Vec::new(),
        detached: None,
    };
    [opening(OpenStep::Decrypt { keys, recipe: RECIPE }), opening(verify)]
}

fn members(value: &Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

fn encrypted(content: &str, header: &Value, key: &SigningKey) -> String {
    let public = EncryptionKey::Public(key.public().expect("a public key"));
    jwe::encrypt(RECIPE, &members(header), content.as_bytes(), public, &mut LibraryEntropy).expect("a message")
}

fn signed(payload: &str, header: &Value, key: &SigningKey) -> String {
    let header = JwsHeader::new(SigningAlgorithm::Es256, members(header)).expect("a header");
    let unsigned = header.over(payload.as_bytes(), PayloadForm::Attached).expect("a message");
    let signature = key.sign(SigningAlgorithm::Es256, unsigned.input()).expect("a signature");
    unsigned.complete(&signature).expect("a message")
}

/// A message with another text in one of its parts.
fn with_part(message: &str, at: usize, other: impl Fn(&str) -> String) -> String {
    let parts = message.split('.').enumerate();
    parts.map(|(part, text)| if part == at { other(text) } else { text.to_owned() }).collect::<Vec<_>>().join(".")
}

/// A text with another character in its middle.
fn flipped(text: &str) -> String {
    let middle = text.len() / 2;
    let other = if text[middle..].starts_with('A') { "B" } else { "A" };
    format!("{}{other}{}", &text[..middle], &text[middle + 1..])
}

fn opened(body: &str) -> Result<String, OpenFailure> {
    let opened = open(&openings(), &[None, None], Zeroizing::new(body.into()))?;
    Ok(String::from_utf8(opened.content.to_vec()).expect("text"))
}

#[test]
fn an_answer_is_opened_and_its_digits_stay_as_they_are() {
    let (own, kid) = (json!({"kid": "ours-1", "cty": "JWT"}), json!({"kid": "bank-1"}));
    let message = encrypted(&signed(PAYLOAD, &kid, &bank()), &own, &ours());
    assert_eq!(opened(&message).as_deref(), Ok(PAYLOAD));
    assert_eq!(opened(&format!("{message}\r\n")).as_deref(), Ok(PAYLOAD), "a line break at its end is no part of it");
    let without_names = encrypted(&signed(PAYLOAD, &json!({}), &bank()), &json!({}), &ours());
    assert_eq!(opened(&without_names).as_deref(), Ok(PAYLOAD));
}

#[test]
fn every_answer_that_was_tampered_with_is_withheld() {
    let (own, kid) = (json!({"kid": "ours-1"}), json!({"kid": "bank-1"}));
    let (stranger_rsa, stranger_ec) = strangers();
    let inner = signed(PAYLOAD, &kid, &bank());
    let message = encrypted(&inner, &own, &ours());
    assert_eq!(opened(&message).as_deref(), Ok(PAYLOAD));
    let in_jwe = |inner: &str| encrypted(inner, &own, &ours());
    let header = |json: &Value| base64url(json.to_string().as_bytes());
    let jwe_header = |json: Value| with_part(&message, 0, |_| header(&json));
    let jws_header = |json: Value| in_jwe(&with_part(&inner, 0, |_| header(&json)));
    let parts: Vec<&str> = message.split('.').collect();
    let (jws_head, jws_payload) = (inner.split('.').next().unwrap(), inner.split('.').nth(1).unwrap());
    let hmac = {
        let public = Value::Object(bank().public().unwrap().to_jwk()).to_string();
        let input = format!("{}.{jws_payload}", header(&json!({"alg": "HS256", "kid": "bank-1"})));
        let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public.as_bytes());
        format!("{input}.{}", base64url(aws_lc_rs::hmac::sign(&secret, input.as_bytes()).as_ref()))
    };
    let forged_key = {
        let jwk = Value::Object(stranger_ec.public().unwrap().to_jwk());
        signed(PAYLOAD, &json!({"jwk": jwk}), &stranger_ec)
    };
    let tampered = [
        ("nothing", String::new()),
        ("the content in the clear", PAYLOAD.to_owned()),
        ("the signed message in the clear", inner.clone()),
        ("one character less", message[..message.len() - 1].to_owned()),
        ("half of it", message[..message.len() / 2].to_owned()),
        ("another header", with_part(&message, 0, flipped)),
        ("another encrypted key", with_part(&message, 1, flipped)),
        ("another initialization vector", with_part(&message, 2, flipped)),
        ("another ciphertext", with_part(&message, 3, flipped)),
        ("another tag", with_part(&message, 4, flipped)),
        ("no tag", with_part(&message, 4, |_| String::new())),
        ("a short tag", with_part(&message, 4, |tag| tag[..16].to_owned())),
        ("four parts", parts[..4].join(".")),
        ("six parts", format!("{message}.AAAA")),
        ("two parts in each other's place", [parts[0], parts[2], parts[1], parts[3], parts[4]].join(".")),
        ("no algorithm", jwe_header(json!({"alg": "none", "enc": "A256GCM"}))),
        ("an older algorithm", jwe_header(json!({"alg": "RSA1_5", "enc": "A256GCM"}))),
        ("another encryption", jwe_header(json!({"alg": "RSA-OAEP-256", "enc": "A128GCM"}))),
        ("compressed", jwe_header(json!({"alg": "RSA-OAEP-256", "enc": "A256GCM", "zip": "DEF"}))),
        ("something critical", jwe_header(json!({"alg": "RSA-OAEP-256", "enc": "A256GCM", "crit": ["x"], "x": 1}))),
        ("a header that is no JSON", with_part(&message, 0, |_| base64url(b"alg"))),
        ("padding", format!("{message}=")),
        ("a space in it", message.replacen('.', ". ", 1)),
        ("quotation marks around it", format!("\"{message}\"")),
        ("something behind it", format!("{message}\n{message}")),
        ("encrypted for another key of the same name", encrypted(&inner, &own, &stranger_rsa)),
        ("encrypted under another name", encrypted(&inner, &json!({"kid": "ours-2"}), &ours())),
        ("encrypted, not signed", in_jwe(PAYLOAD)),
        ("encrypted twice", in_jwe(&message)),
        ("signed by another key of the same name", in_jwe(&signed(PAYLOAD, &kid, &stranger_ec))),
        ("signed by a key that it brings along", in_jwe(&forged_key)),
        ("signed under another name", in_jwe(&signed(PAYLOAD, &json!({"kid": "bank-9"}), &bank()))),
        ("signed under the name of a key that encrypts", in_jwe(&signed(PAYLOAD, &json!({"kid": "bank-2"}), &bank()))),
        ("authenticated with the public key as the secret", in_jwe(&hmac)),
        ("signed with no algorithm", jws_header(json!({"alg": "none", "kid": "bank-1"}))),
        ("no signature", in_jwe(&format!("{jws_head}.{jws_payload}."))),
        ("another signature", in_jwe(&with_part(&inner, 2, flipped))),
        ("another payload", in_jwe(&with_part(&inner, 1, |_| base64url(br#"{"status":"REJECTED"}"#)))),
        ("the payload apart", in_jwe(&with_part(&inner, 1, |_| String::new()))),
        ("an unencoded payload", jws_header(json!({"alg": "ES256", "b64": false, "crit": ["b64"]}))),
        ("a signature as JSON", in_jwe(&json!({"payload": jws_payload, "signatures": []}).to_string())),
        (
            "something critical in the signature",
            in_jwe(&signed(PAYLOAD, &json!({"kid": "bank-1", "crit": ["exp"], "exp": 1}), &bank())),
        ),
    ];
    assert!(tampered.len() >= 30);
    for (kind, body) in tampered {
        let found = opened(&body);
        assert!(matches!(found, Err(OpenFailure::Absent | OpenFailure::Refused)), "{kind}: {found:?}");
    }
}

#[test]
fn a_key_of_the_past_opens_what_was_encrypted_for_it() {
    let (other, _) = strangers();
    let [mut decrypt, _] = openings();
    if let OpenStep::Decrypt { keys, .. } = &mut decrypt.step {
        keys.push(OpeningKey { name: Some("ours-0".to_owned()), key: Arc::new(other) });
    }
    let (other, _) = strangers();
    for (header, key, opens) in [
        (json!({"kid": "ours-0"}), &other, true),
        (json!({}), &other, true),
        (json!({}), &ours(), true),
        (json!({"kid": "ours-0"}), &ours(), false),
    ] {
        let message = encrypted("{}", &header, key);
        let opened = open(std::slice::from_ref(&decrypt), &[None], Zeroizing::new(message.into_bytes()));
        assert_eq!(opened.is_ok(), opens, "{header}");
    }
}

proptest! {
    /// No answer causes a panic, and none is opened that was not sealed for us.
    #[test]
    fn any_answer_is_survived(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            r"[A-Za-z0-9_-]{0,40}(\.[A-Za-z0-9_-]{0,40}){0,6}".prop_map(String::into_bytes),
        ],
        from in "(/[ab]){0,2}",
        to in "(/[ab]){0,2}",
    ) {
        let [mut decrypt, mut verify] = openings();
        decrypt.places = FieldPlaces::of(&from, &to);
        verify.places = FieldPlaces::of(&from, &to);
        for opening in [decrypt, verify] {
            prop_assert!(open(&[opening], &[None], Zeroizing::new(bytes.clone())).is_err());
        }
    }
}

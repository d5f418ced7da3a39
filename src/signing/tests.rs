//! Whole messages: the vectors of the RFCs, round trips of every algorithm, and tampered messages.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::algorithm::KeyType;
use super::algorithm::SigningAlgorithm;
use super::claims::Claims;
use super::digest::DigestAlgorithm;
use super::dpop::{DpopError, DpopProof, access_token_hash};
use super::encoding::{TextEncoding, base64, base64url, from_base64url};
use super::jwk;
use super::jwk_thumbprint::jwk_thumbprint;
use super::jws::{JwsError, JwsHeader, PayloadForm};
use super::key::SigningKey;
use super::minified_json::minified_json;
use super::pkcs;
use super::public_key::{PublicKey, VerifyingKey};
use super::shared_secret::SharedSecret;
use super::signature::DigitalSignature;
use super::signer::{Signer, SigningError};
use super::verify::{JwsCheck, JwsRefused, unverified_key_id, verify_attached, verify_detached};
use crate::base::time::Within;

fn fixture(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn vectors() -> Vec<Value> {
    fixture(include_str!("../../tests/fixtures/signing/jws.json")).as_array().unwrap().clone()
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap()
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

const fn check(algorithm: SigningAlgorithm) -> JwsCheck<'static> {
    JwsCheck { algorithm, understood: &[], most: 10_000 }
}

/// A key of the vectors for an algorithm, and the key that verifies.
fn keys(algorithm: SigningAlgorithm) -> (SigningKey, VerifyingKey) {
    let vectors = vectors();
    let vector = vectors.iter().find(|vector| vector["alg"] == algorithm.name()).unwrap();
    both(vector["jwk"].to_string().as_bytes())
}

fn both(jwk: &[u8]) -> (SigningKey, VerifyingKey) {
    match jwk::signing_key(jwk).unwrap() {
        SigningKey::Private(key) => {
            let public = VerifyingKey::Public(key.public().clone());
            assert_eq!(jwk::public_key(jwk).as_ref(), Ok(key.public()));
            (SigningKey::Private(key), public)
        }
        SigningKey::Secret(_) => {
            let SigningKey::Secret(again) = jwk::signing_key(jwk).unwrap() else { panic!("a secret again") };
            (jwk::signing_key(jwk).unwrap(), VerifyingKey::Secret(again))
        }
    }
}

#[test]
fn the_vectors_verify_and_the_deterministic_ones_are_reproduced() {
    let mut reproduced = 0;
    for vector in vectors() {
        let algorithm = SigningAlgorithm::parse(text(&vector, "alg")).unwrap();
        let (signing, verifying) = both(vector["jwk"].to_string().as_bytes());
        let message = text(&vector, "message");
        let (input, signature) = message.rsplit_once('.').unwrap();
        let signed = match vector.get("payload").and_then(Value::as_str) {
            Some(payload) => {
                assert!(verify_detached(message, payload.as_bytes(), &check(algorithm), &verifying).is_ok());
                format!("{input}{payload}")
            }
            None => {
                assert!(verify_attached(message, &check(algorithm), &verifying).is_ok(), "{vector}");
                input.to_owned()
            }
        };
        if vector["deterministic"] == true {
            reproduced += 1;
            let made = signing.sign(algorithm, signed.as_bytes()).unwrap();
            assert_eq!(made.text(TextEncoding::Base64UrlUnpadded), signature, "{vector}");
        }
    }
    assert_eq!(reproduced, 9);
}

#[test]
fn a_header_is_written_in_its_order_and_the_payload_in_its_form() {
    let (key, verifying) = keys(SigningAlgorithm::Hs256);
    let header =
        JwsHeader::new(SigningAlgorithm::Hs256, map(json!({"typ": "JWT", "alg": "HS256", "kid": "k"}))).unwrap();
    let message = Claims::new().with("iss", "me").id("1").issued_at(10).not_before(9).expires_at(20).under(&header);
    let message = message.unwrap().sign(&key).unwrap();
    let parts: Vec<_> = message.split('.').map(|part| from_base64url(part).unwrap()).collect();
    assert_eq!(parts[0], br#"{"typ":"JWT","alg":"HS256","kid":"k"}"#);
    assert_eq!(parts[1], br#"{"iss":"me","jti":"1","iat":10,"nbf":9,"exp":20}"#);
    assert_eq!(unverified_key_id(&message).as_deref(), Some("k"));
    let read = verify_attached(&message, &check(SigningAlgorithm::Hs256), &verifying).unwrap();
    assert_eq!(read.payload, parts[1]);

    // RFC 7515 appendix F: the message of A.1 without its payload.
    let vectors = vectors();
    let whole = text(&vectors[0], "message");
    let mut parts = whole.split('.');
    let (header, payload, signature) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let detached = format!("{header}..{signature}");
    let payload = from_base64url(payload).unwrap();
    assert!(verify_detached(&detached, &payload, &check(SigningAlgorithm::Hs256), &verifying).is_ok());
    assert_eq!(verify_detached(whole, &payload, &check(SigningAlgorithm::Hs256), &verifying), Err(JwsRefused));
    assert!(verify_detached(&detached, b"other", &check(SigningAlgorithm::Hs256), &verifying).is_err());

    // RFC 7797 section 4.2.
    let plain = JwsHeader::new(SigningAlgorithm::Hs256, Map::new()).unwrap();
    let unencoded = plain.over(b"$.02", PayloadForm::Unencoded).unwrap().sign(&key).unwrap();
    let vector = vectors.iter().find(|vector| vector["name"] == "RFC 7797 4.2").unwrap();
    assert_eq!(unencoded, text(vector, "message"));
    let detached = plain.over(b"$.02", PayloadForm::Detached).unwrap().sign(&key).unwrap();
    assert_eq!(detached, "eyJhbGciOiJIUzI1NiJ9..5mvfOroL-g7HyqJoozehmsaqmvTYGEq5jTI1gVvoEoQ");
}

#[test]
fn contradictory_headers_are_refused() {
    let new = |members| JwsHeader::new(SigningAlgorithm::Ps256, map(members));
    assert_eq!(new(json!({"alg": "none"})), Err(JwsError::Algorithm));
    assert_eq!(new(json!({"crit": ["exp"]})), Err(JwsError::Critical));
    assert_eq!(new(json!({"crit": []})), Err(JwsError::Critical));
    assert_eq!(new(json!({"crit": ["a", "a"], "a": 1})), Err(JwsError::Critical));
    assert_eq!(new(json!({"crit": "b64"})), Err(JwsError::Critical));
    let bare = new(json!({"b64": false, "crit": ["b64"]})).unwrap();
    assert_eq!(bare.over(b"p", PayloadForm::Attached), Err(JwsError::Encoding));
    assert!(bare.over(b"p", PayloadForm::Unencoded).is_ok());
    // UK Open Banking lists names of its own, in an order of its own.
    let name = "http://openbanking.org.uk/iat";
    let header = new(json!({"alg": "PS256", "crit": [name, "b64"], name: 1, "b64": false})).unwrap();
    let (key, verifying) = keys(SigningAlgorithm::Ps256);
    let message = header.over(b"body", PayloadForm::Unencoded).unwrap().sign(&key).unwrap();
    let written = from_base64url(message.split('.').next().unwrap()).unwrap();
    let expected = format!(r#"{{"alg":"PS256","crit":["{name}","b64"],"{name}":1,"b64":false}}"#);
    assert_eq!(String::from_utf8(written).unwrap(), expected);
    assert!(verify_detached(&message, b"body", &check(SigningAlgorithm::Ps256), &verifying).is_err());
    let understood = JwsCheck { understood: &[name], ..check(SigningAlgorithm::Ps256) };
    assert!(verify_detached(&message, b"body", &understood, &verifying).is_ok());
    let other = DigitalSignature::new(SigningAlgorithm::Rs256, vec![1]);
    assert_eq!(header.over(b"p", PayloadForm::Unencoded).unwrap().complete(&other), Err(JwsError::Signature));
}

#[test]
fn the_algorithm_is_pinned_and_a_public_key_is_never_a_secret() {
    let (private, public) = keys(SigningAlgorithm::Rs256);
    let header = JwsHeader::new(SigningAlgorithm::Rs256, Map::new()).unwrap();
    let message = header.over(b"{}", PayloadForm::Attached).unwrap().sign(&private).unwrap();
    assert!(verify_attached(&message, &check(SigningAlgorithm::Rs256), &public).is_ok());
    assert!(verify_attached(&message, &check(SigningAlgorithm::Ps256), &public).is_err());
    assert!(verify_attached(&message, &check(SigningAlgorithm::Hs256), &public).is_err());
    let unsigned = format!("{}.{}.", base64url(br#"{"alg":"none"}"#), base64url(b"{}"));
    for algorithm in SigningAlgorithm::ALL {
        assert!(verify_attached(&unsigned, &check(algorithm), &public).is_err());
    }
    let short = JwsCheck { most: message.len() - 1, ..check(SigningAlgorithm::Rs256) };
    assert!(verify_attached(&message, &short, &public).is_err());
    for algorithm in SigningAlgorithm::ALL.into_iter().filter(|algorithm| algorithm.key_type() != KeyType::Rsa) {
        let wrong = private.sign(algorithm, b"m").unwrap_err();
        assert_eq!(wrong, SigningError::WrongKey { algorithm, key: KeyType::Rsa });
    }
    assert_eq!(format!("{private:?}"), "Private(PrivateKey(Rsa))");
}

#[test]
fn the_proofs_of_rfc_9449_verify_and_ours_have_their_members() {
    let vector = fixture(include_str!("../../tests/fixtures/signing/rfc9449.json"));
    let key = jwk::public_key(vector["jwk"].to_string().as_bytes()).unwrap();
    assert_eq!(jwk_thumbprint(&key), text(&vector, "jkt"));
    assert_eq!(access_token_hash(text(&vector, "access_token")), text(&vector, "ath"));
    for proof in ["token_proof", "resource_proof"] {
        let key = VerifyingKey::Public(key.clone());
        let read = verify_attached(text(&vector, proof), &check(SigningAlgorithm::Es256), &key).unwrap();
        assert_eq!(read.header["typ"], "dpop+jwt");
    }
    // The claims of figure 13, from its request.
    let proof = DpopProof {
        method: "GET",
        target: "https://resource.example.org/protectedresource?page=2#end",
        issued_at: 1_562_262_618,
        id: "e1j3V_bKic8-LAEB",
        token_hash: Some(text(&vector, "ath")),
        nonce: None,
    };
    let unsigned = proof.unsigned(SigningAlgorithm::Es256, &key).unwrap();
    let (_, claims) = std::str::from_utf8(unsigned.input()).unwrap().split_once('.').unwrap();
    assert_eq!(claims, text(&vector, "resource_proof").split('.').nth(1).unwrap());

    let fragment = DpopProof { target: "https://resource.example.org/protectedresource#end", ..proof };
    assert_eq!(fragment.unsigned(SigningAlgorithm::Es256, &key).unwrap(), unsigned);

    let (private, public) = keys(SigningAlgorithm::Es256);
    let VerifyingKey::Public(key) = &public else { panic!("a public key") };
    let proof = DpopProof { nonce: Some("n-1"), token_hash: None, ..proof };
    let message = proof.unsigned(SigningAlgorithm::Es256, key).unwrap().sign(&private).unwrap();
    let read = verify_attached(&message, &check(SigningAlgorithm::Es256), &public).unwrap();
    assert_eq!(read.header["jwk"], Value::Object(key.to_jwk()));
    assert!(read.header["jwk"].get("d").is_none());
    let claims: Value = serde_json::from_slice(&read.payload).unwrap();
    assert_eq!(claims["nonce"], "n-1");
    assert_eq!(claims.get("ath"), None);
    assert_eq!(proof.unsigned(SigningAlgorithm::Hs256, key), Err(DpopError::Algorithm));
    assert_eq!(proof.unsigned(SigningAlgorithm::Ps256, key), Err(DpopError::Algorithm));
    for target in ["/path", "ftp://h/", "https://user@h/", ""] {
        let proof = DpopProof { target, ..proof };
        assert_eq!(proof.unsigned(SigningAlgorithm::Es256, key), Err(DpopError::Target), "{target}");
    }
}

#[test]
fn the_canonical_texts_of_snap_bi_are_signed() {
    let vector = fixture(include_str!("../../tests/fixtures/signing/snap-bi.json"));
    let minified = minified_json(text(&vector, "body").as_bytes(), 10_000).unwrap();
    assert_eq!(minified, text(&vector, "minified").as_bytes());
    let string = format!(
        "{}:{}:{}:{}:{}",
        text(&vector, "method"),
        text(&vector, "path"),
        text(&vector, "access_token"),
        DigestAlgorithm::Sha256.hex(&minified),
        text(&vector, "timestamp")
    );
    assert_eq!(string, text(&vector, "string_to_sign"));
    let secret = Zeroizing::new(text(&vector, "client_secret").as_bytes().to_vec());
    let secret = SigningKey::Secret(SharedSecret::as_issued(secret).unwrap());
    let signature = secret.sign(SigningAlgorithm::Hs512, string.as_bytes()).unwrap();
    assert_eq!(base64(signature.bytes()), text(&vector, "signature"));
    let (key, _) = keys(SigningAlgorithm::Rs256);
    let signature = key.sign(SigningAlgorithm::Rs256, text(&vector, "token_string").as_bytes()).unwrap();
    assert_eq!(base64(signature.bytes()), text(&vector, "token_signature"));
}

#[test]
fn a_key_in_memory_is_a_signer() {
    let (key, verifying) = keys(SigningAlgorithm::EdDsa);
    let within = Within(std::time::Duration::ZERO);
    let mut pending = key_signer(&key).sign(SigningAlgorithm::EdDsa, b"message", within);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Ok(signature)) = pending.as_mut().poll(&mut context) else { panic!("ready at once") };
    assert!(verifying.verify(SigningAlgorithm::EdDsa, b"message", signature.bytes()));
    assert_eq!(key_signer(&key).key_type(), KeyType::Ed25519);
    let VerifyingKey::Public(public) = verifying else { panic!("a public key") };
    assert_eq!(key_signer(&key).public_key(), Some(public));
}

fn key_signer(key: &SigningKey) -> &dyn Signer {
    key
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn every_algorithm_verifies_its_own_signatures_only(payload in proptest::collection::vec(any::<u8>(), 0..100)) {
        for algorithm in SigningAlgorithm::ALL {
            let (key, verifying) = keys(algorithm);
            let header = JwsHeader::new(algorithm, Map::new()).unwrap();
            for form in [PayloadForm::Attached, PayloadForm::Detached, PayloadForm::Unencoded] {
                let message = header.over(&payload, form).unwrap().sign(&key).unwrap();
                if form == PayloadForm::Attached {
                    let read = verify_attached(&message, &check(algorithm), &verifying).unwrap();
                    prop_assert_eq!(&read.payload, &payload);
                } else {
                    prop_assert!(verify_detached(&message, &payload, &check(algorithm), &verifying).is_ok());
                    let longer = [&payload[..], b"x"].concat();
                    prop_assert!(verify_detached(&message, &longer, &check(algorithm), &verifying).is_err());
                }
            }
        }
    }

    #[test]
    fn tampered_messages_are_refused(at in any::<prop::sample::Index>(), flip in 1_u8..128) {
        for algorithm in SigningAlgorithm::ALL {
            let (key, verifying) = keys(algorithm);
            let header = JwsHeader::new(algorithm, map(json!({"kid": "k"}))).unwrap();
            let message = header.over(b"payload", PayloadForm::Attached).unwrap().sign(&key).unwrap();
            let mut bytes = message.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let mut tampered = vec![
                message[..message.len() - 1].to_owned(),
                format!("{message}A"),
                format!("{message}="),
                format!("{message}."),
                format!(" {message}"),
                message[..at].to_owned(),
                message.replacen('.', "..", 1),
            ];
            tampered.extend(String::from_utf8(bytes));
            for message in tampered {
                prop_assert_eq!(verify_attached(&message, &check(algorithm), &verifying), Err(JwsRefused));
            }
        }
    }
}

#[test]
fn thirty_forgeries_are_refused() {
    let algorithm = SigningAlgorithm::Es256;
    let (key, verifying) = keys(algorithm);
    let header = JwsHeader::new(algorithm, map(json!({"kid": "k"}))).unwrap();
    let message = header.over(b"{\"a\":1}", PayloadForm::Attached).unwrap().sign(&key).unwrap();
    let parts: Vec<_> = message.split('.').collect();
    let signed = |header: Value| {
        let input = format!("{}.{}", base64url(header.to_string().as_bytes()), parts[1]);
        let signature = key.sign(algorithm, input.as_bytes()).unwrap();
        format!("{input}.{}", base64url(signature.bytes()))
    };
    let signature = from_base64url(parts[2]).unwrap();
    let made = |bytes: &[u8]| format!("{}.{}.{}", parts[0], parts[1], base64url(bytes));
    let der = DigitalSignature::new(algorithm, signature.clone()).to_der();
    let swapped = [&signature[32..], &signature[..32]].concat();
    let mut forgeries = vec![
        String::new(),
        "..".to_owned(),
        "...".to_owned(),
        parts[0].to_owned(),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}..{}", parts[0], parts[2]),
        format!(".{}.{}", parts[1], parts[2]),
        format!("{}.{}.{}", parts[1], parts[0], parts[2]),
        made(&der),
        made(&swapped),
        made(&[0; 64]),
        made(&[0xff; 64]),
        made(&signature[..63]),
        made(&[&signature[..], &[0]].concat()),
        made(&[&[0; 32], &signature[32..]].concat()),
        made(&[&signature[..32], &[0; 32]].concat()),
    ];
    // Genuinely signed, and still nothing that was asked for.
    forgeries.extend(
        [
            json!({}),
            json!({"alg": "none"}),
            json!({"alg": "es256"}),
            json!({"alg": ["ES256"]}),
            json!({"alg": null}),
            json!({"alg": "HS256"}),
            json!({"alg": "ES384"}),
            json!({"alg": "ES256", "crit": ["exp"], "exp": 1}),
            json!({"alg": "ES256", "crit": []}),
            json!({"alg": "ES256", "crit": ["missing"]}),
            json!({"alg": "ES256", "crit": "b64", "b64": true}),
            json!({"alg": "ES256", "b64": false}),
            json!({"alg": "ES256", "b64": false, "crit": ["b64"]}),
            json!({"alg": "ES256", "b64": 1, "crit": ["b64"]}),
            json!(["ES256"]),
        ]
        .map(signed),
    );
    assert!(forgeries.len() >= 30);
    for forgery in forgeries {
        assert_eq!(verify_attached(&forgery, &check(algorithm), &verifying), Err(JwsRefused), "{forgery}");
    }
    assert!(verify_attached(&signed(json!({"alg": "ES256"})), &check(algorithm), &verifying).is_ok());
}

/// RFC 7797 section 6: a reader that does not know `b64` would verify other bytes.
#[test]
fn an_unencoded_payload_must_be_critical() {
    let algorithm = SigningAlgorithm::Es256;
    let (key, verifying) = keys(algorithm);
    for (header, is_accepted) in [
        (json!({"alg": "ES256", "b64": false, "crit": ["b64"]}), true),
        (json!({"alg": "ES256", "b64": false}), false),
        (json!({"alg": "ES256", "b64": false, "crit": ["x"], "x": 1}), false),
        (json!({"alg": "ES256", "b64": "false", "crit": ["b64"]}), false),
    ] {
        let header = base64url(header.to_string().as_bytes());
        let signature = key.sign(algorithm, format!("{header}.payload").as_bytes()).unwrap();
        let message = format!("{header}..{}", base64url(signature.bytes()));
        let check = JwsCheck { understood: &["x"], ..check(algorithm) };
        assert_eq!(verify_detached(&message, b"payload", &check, &verifying).is_ok(), is_accepted);
    }
}

#[test]
fn keys_from_files_sign_alike() {
    let public = PublicKey::from_pem(include_bytes!("../../tests/fixtures/signing/certificate.pem")).unwrap();
    let key = include_bytes!("../../tests/fixtures/signing/rsa-encrypted.pem");
    let key = pkcs::private_key(key, Some(b"open sesame")).unwrap();
    assert_eq!(key.public(), &public);
    let signature = key.sign(SigningAlgorithm::Ps256, b"message").unwrap();
    assert!(VerifyingKey::Public(public).verify(SigningAlgorithm::Ps256, b"message", signature.bytes()));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        near in "[A-Za-z0-9_.-]{0,60}",
        member in "(kty|crv|n|e|x|y|d|k|use|alg)",
        value in "(RSA|EC|OKP|oct|P-256|P-384|Ed25519|[A-Za-z0-9_-]{0,50})",
    ) {
        let (_, verifying) = keys(SigningAlgorithm::Es256);
        let _ = verify_attached(&near, &check(SigningAlgorithm::Es256), &verifying);
        let _ = verify_detached(&near, &bytes, &check(SigningAlgorithm::Es256), &verifying);
        let _ = unverified_key_id(&near);
        let _ = pkcs::private_key(&bytes, Some(b"p"));
        let _ = pkcs::pkcs12(&bytes, "p");
        let _ = PublicKey::from_pem(&bytes);
        let _ = PublicKey::from_spki(&bytes);
        let _ = PublicKey::from_certificate(&bytes);
        let _ = super::certificate::CertificateChain::from_pem(&bytes);
        let mut jwk = map(json!({"kty": "EC", "crv": "P-256", "x": "", "y": ""}));
        jwk.insert(member, Value::from(value));
        let jwk = Value::Object(jwk).to_string();
        let _ = jwk::signing_key(jwk.as_bytes());
        let _ = jwk::public_key(jwk.as_bytes());
        let _ = jwk::public_keys(&bytes);
        let framed = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", base64(&bytes));
        let _ = pkcs::private_key(framed.as_bytes(), None);
        let encrypted = framed.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let _ = pkcs::private_key(encrypted.as_bytes(), Some(b"p"));
    }
}

use proptest::prelude::*;
use serde_json::json;

use super::super::algorithm::SigningAlgorithm;
use super::super::claims::Claims;
use super::super::jwk;
use super::super::jws::JwsHeader;
use super::super::key::SigningKey;
use super::super::public_key::VerifyingKey;
use super::super::verify::{JwsCheck, verify_attached};
use super::*;

const MOST: usize = 10_000;

fn vectors() -> Vec<Value> {
    serde_json::from_str(include_str!("../../../tests/fixtures/signing/jwe.json")).unwrap()
}

fn recipe(alg: &str, enc: &str) -> JweRecipe {
    JweRecipe { management: KeyManagement::parse(alg).unwrap(), encryption: ContentEncryption::parse(enc).unwrap() }
}

fn key(jwk: &Value) -> SigningKey {
    jwk::signing_key(jwk.to_string().as_bytes()).unwrap()
}

const fn opening(key: &SigningKey) -> DecryptionKey<'_> {
    match key {
        SigningKey::Private(key) => DecryptionKey::Private(key),
        SigningKey::Secret(secret) => DecryptionKey::Secret(secret),
    }
}

fn map(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// Hands out known bytes, in order.
struct KnownEntropy(Vec<u8>);

impl Entropy for KnownEntropy {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        if self.0.len() < bytes.len() {
            return Err(NoEntropy);
        }
        let rest = self.0.split_off(bytes.len());
        bytes.copy_from_slice(&self.0);
        self.0 = rest;
        Ok(())
    }
}

#[test]
fn the_vectors_are_opened() {
    for vector in vectors() {
        let recipe = recipe(vector["alg"].as_str().unwrap(), vector["enc"].as_str().unwrap());
        let key = key(&vector["jwk"]);
        let opened = decrypt(vector["message"].as_str().unwrap(), recipe, opening(&key), MOST);
        let opened = opened.unwrap_or_else(|_| panic!("{}", vector["name"]));
        assert_eq!(opened.plaintext.as_slice(), vector["plaintext"].as_str().unwrap().as_bytes());
        assert!(!format!("{opened:?}").contains("live"));
    }
}

#[test]
fn messages_of_the_rfcs_are_reproduced_from_their_random_bytes() {
    let vectors = vectors();
    // RFC 7516 appendix A.3.
    let (vector, shared) = (&vectors[0], key(&vectors[0]["jwk"]));
    let SigningKey::Secret(secret) = &shared else { panic!("a secret") };
    let content_key = [
        4, 211, 31, 197, 84, 157, 252, 254, 11, 100, 157, 250, 63, 170, 106, 206, 107, 124, 212, 45, 111, 107, 9, 219,
        200, 177, 0, 240, 143, 156, 44, 207,
    ];
    let iv = [3, 22, 60, 12, 43, 67, 104, 105, 108, 108, 105, 99, 111, 116, 104, 101];
    let mut entropy = KnownEntropy([&content_key[..], &iv].concat());
    let content = vector["plaintext"].as_str().unwrap().as_bytes();
    let recipe_a3 = recipe("A128KW", "A128CBC-HS256");
    let made = encrypt(recipe_a3, &Map::new(), content, EncryptionKey::Secret(secret), &mut entropy);
    assert_eq!(made.as_deref(), Ok(vector["message"].as_str().unwrap()));
    assert!(entropy.0.is_empty());
    let none = encrypt(recipe_a3, &Map::new(), content, EncryptionKey::Secret(secret), &mut entropy);
    assert_eq!(none, Err(JweError::NoEntropy(NoEntropy)));
    // RFC 7520 section 5.6: the header has an order of its own.
    let (vector, shared) = (&vectors[3], key(&vectors[3]["jwk"]));
    let SigningKey::Secret(secret) = &shared else { panic!("a secret") };
    let mut entropy = KnownEntropy(from_base64url("refa467QzzKx6QAB").unwrap());
    let members = map(&json!({"alg": null, "kid": "77c7e2b8-6e13-45cf-8672-617b5b45243a", "enc": null}));
    let content = vector["plaintext"].as_str().unwrap().as_bytes();
    let made = encrypt(recipe("dir", "A128GCM"), &members, content, EncryptionKey::Secret(secret), &mut entropy);
    assert_eq!(made.as_deref(), Ok(vector["message"].as_str().unwrap()));
}

#[test]
fn a_signed_message_travels_inside_an_encrypted_one() {
    let (recipe, own) = recipes().swap_remove(0);
    let header = JwsHeader::new(SigningAlgorithm::Ps256, map(&json!({"typ": "JWT"}))).unwrap();
    let signed = Claims::new().with("amount", "1.00").under(&header).unwrap().sign(&own).unwrap();
    let message = sealed(recipe, &own, &map(&json!({"cty": "JWT"})), signed.as_bytes()).unwrap();
    let opened = decrypt(&message, recipe, opening(&own), MOST).unwrap();
    assert_eq!(opened.header["cty"], "JWT");
    let inner = std::str::from_utf8(&opened.plaintext).unwrap();
    let check = JwsCheck { algorithm: SigningAlgorithm::Ps256, understood: &[], most: MOST };
    let verified = verify_attached(inner, &check, &VerifyingKey::Public(own.public().unwrap().clone())).unwrap();
    assert_eq!(verified.payload, br#"{"amount":"1.00"}"#);
}

/// Every recipe with a key that fits, and the header's members.
fn recipes() -> Vec<(JweRecipe, SigningKey)> {
    let vectors = vectors();
    let jwk = |alg: &str| vectors.iter().find(|vector| vector["alg"] == alg).unwrap()["jwk"].clone();
    let secret = |length: usize| json!({"kty": "oct", "k": base64url(&vec![7; length])});
    let mut all = Vec::new();
    for enc in ["A128CBC-HS256", "A128GCM", "A256GCM"] {
        for (alg, jwk) in [
            ("RSA-OAEP-256", jwk("RSA-OAEP-256")),
            ("ECDH-ES", jwk("ECDH-ES")),
            ("ECDH-ES", jwk("ECDH-ES+A128KW")),
            ("ECDH-ES+A128KW", jwk("ECDH-ES")),
            ("ECDH-ES+A256KW", jwk("ECDH-ES+A128KW")),
            ("A128KW", secret(16)),
            ("A256KW", secret(32)),
            ("dir", secret(if enc == "A128GCM" { 16 } else { 32 })),
        ] {
            all.push((recipe(alg, enc), key(&jwk)));
        }
    }
    all
}

fn sealed(
    recipe: JweRecipe,
    key: &SigningKey,
    members: &Map<String, Value>,
    content: &[u8],
) -> Result<String, JweError> {
    match key {
        SigningKey::Private(key) => {
            encrypt(recipe, members, content, EncryptionKey::Public(key.public()), &mut LibraryEntropy)
        }
        SigningKey::Secret(secret) => {
            encrypt(recipe, members, content, EncryptionKey::Secret(secret), &mut LibraryEntropy)
        }
    }
}

#[test]
fn thirty_tamperings_of_every_recipe_are_refused() {
    for (recipe, key) in recipes() {
        let message = sealed(recipe, &key, &map(&json!({"kid": "k", "cty": "JWT"})), b"a signed message").unwrap();
        let parts: Vec<Vec<u8>> = message.split('.').map(|part| from_base64url(part).unwrap()).collect();
        let join = |parts: &[Vec<u8>]| parts.iter().map(|part| base64url(part)).collect::<Vec<_>>().join(".");
        let mut tampered = vec![
            String::new(),
            "....".to_owned(),
            format!("{message}."),
            format!("{message}="),
            format!(".{message}"),
            message[..message.len() - 1].to_owned(),
            message.rsplit_once('.').unwrap().0.to_owned(),
        ];
        for at in 0..5 {
            for change in [
                |part: &mut Vec<u8>| part.clear(),
                |part: &mut Vec<u8>| part.push(0),
                |part: &mut Vec<u8>| part.truncate(part.len().saturating_sub(1)),
                |part: &mut Vec<u8>| part.iter_mut().take(1).for_each(|byte| *byte ^= 1),
                |part: &mut Vec<u8>| part.iter_mut().rev().take(1).for_each(|byte| *byte ^= 0x80),
            ] {
                let mut changed = parts.clone();
                change(&mut changed[at]);
                tampered.extend((changed != parts).then(|| join(&changed)));
            }
        }
        let header: Value = serde_json::from_slice(&parts[0]).unwrap();
        for (name, value) in [
            ("alg", json!("RSA1_5")),
            ("alg", json!(null)),
            ("enc", json!("A192GCM")),
            ("zip", json!("DEF")),
            ("crit", json!(["exp"])),
            ("kid", json!("other")),
            ("epk", json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"})),
        ] {
            let mut changed = header.clone();
            changed[name] = value;
            let mut all = parts.clone();
            all[0] = changed.to_string().into_bytes();
            tampered.push(join(&all));
        }
        assert!(tampered.len() >= 30, "{}", tampered.len());
        for tampered in tampered {
            assert!(decrypt(&tampered, recipe, opening(&key), MOST).is_err(), "{recipe:?} {tampered}");
        }
        assert!(decrypt(&message, recipe, opening(&key), MOST).is_ok());
        assert!(decrypt(&message, recipe, opening(&key), message.len() - 1).is_err());
        for (other, _) in recipes() {
            if other != recipe {
                assert!(decrypt(&message, other, opening(&key), MOST).is_err());
            }
        }
    }
}

/// A message put together by hand.
fn composed(header: &Value, encrypted_key: &[u8], encryption: ContentEncryption, content_key: &[u8]) -> String {
    let header = base64url(header.to_string().as_bytes());
    let iv = vec![1; encryption.iv_len()];
    let (ciphertext, tag) = encryption.seal(content_key, &iv, header.as_bytes(), b"content").unwrap();
    let parts = [encrypted_key, &iv, &ciphertext, &tag].map(base64url);
    format!("{header}.{}", parts.join("."))
}

#[test]
fn a_message_by_other_algorithms_is_refused_though_its_key_is_right() {
    let shared = key(&json!({"kty": "oct", "k": base64url(&[7; 32])}));
    let right = json!({"alg": "dir", "enc": "A256GCM"});
    for (header, is_accepted) in [
        (right.clone(), true),
        (json!({"alg": "none", "enc": "A256GCM"}), false),
        (json!({"alg": "dir", "enc": "A128CBC-HS256"}), false),
        (json!({"enc": "A256GCM"}), false),
        (json!({"alg": "dir"}), false),
        (json!({"alg": "dir", "enc": "A256GCM", "zip": "DEF"}), false),
        (json!({"alg": "dir", "enc": "A256GCM", "crit": ["exp"], "exp": 1}), false),
    ] {
        let message = composed(&header, &[], ContentEncryption::A256Gcm, &[7; 32]);
        let opened = decrypt(&message, recipe("dir", "A256GCM"), opening(&shared), MOST);
        assert_eq!(opened.is_ok(), is_accepted, "{header}");
    }
    let with_key = composed(&right, &[1; 40], ContentEncryption::A256Gcm, &[7; 32]);
    assert!(decrypt(&with_key, recipe("dir", "A256GCM"), opening(&shared), MOST).is_err());
}

#[test]
fn the_key_in_place_of_one_that_cannot_be_opened_opens_no_message() {
    for (recipe, key) in recipes() {
        let mut header = json!({"alg": recipe.management.name(), "enc": recipe.encryption.name()});
        let genuine = sealed(recipe, &key, &Map::new(), b"content").unwrap();
        let genuine: Value =
            serde_json::from_slice(&from_base64url(genuine.split('.').next().unwrap()).unwrap()).unwrap();
        if let Some(ephemeral) = genuine.get("epk") {
            header["epk"] = ephemeral.clone();
        }
        let zeros = vec![0; recipe.encryption.key_len()];
        for encrypted_key in [&[][..], &[1], &[1; 24], &[1; 40], &[1; 256]] {
            let message = composed(&header, encrypted_key, recipe.encryption, &zeros);
            assert!(decrypt(&message, recipe, opening(&key), MOST).is_err(), "{recipe:?}");
        }
    }
}

#[test]
fn keys_that_do_not_fit_and_members_that_are_taken_are_refused() {
    let all = recipes();
    for (recipe, key) in &all {
        for (_, other) in &all {
            let made = sealed(*recipe, other, &Map::new(), b"content");
            if other.key_type() != key.key_type() && recipe.management == KeyManagement::RsaOaep256 {
                assert_eq!(made, Err(JweError::Key));
            }
        }
        for taken in [json!({"alg": "dir"}), json!({"enc": "A128GCM"}), json!({"zip": "DEF"}), json!({"epk": {}})] {
            assert_eq!(sealed(*recipe, key, &map(&taken), b"content"), Err(JweError::Header));
        }
    }
    let short = key(&json!({"kty": "oct", "k": base64url(&[7; 24])}));
    for (alg, enc) in [("dir", "A128GCM"), ("A128KW", "A128GCM"), ("A256KW", "A256GCM"), ("RSA-OAEP-256", "A256GCM")] {
        assert_eq!(sealed(recipe(alg, enc), &short, &Map::new(), b"content"), Err(JweError::Key));
    }
    assert!(KeyManagement::parse("RSA1_5").unwrap_err().contains("RSA-OAEP-256"));
    assert!(ContentEncryption::parse("none").unwrap_err().contains("A256GCM"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn every_recipe_opens_what_it_sealed(content in proptest::collection::vec(any::<u8>(), 0..100)) {
        for (recipe, key) in recipes() {
            let members = map(&json!({"apu": "QWxpY2U", "apv": "Qm9i", "cty": "JWT", "kid": "k"}));
            let message = sealed(recipe, &key, &members, &content).unwrap();
            let opened = decrypt(&message, recipe, opening(&key), MOST).unwrap();
            prop_assert_eq!(opened.plaintext.as_slice(), &content[..]);
            prop_assert_eq!(&opened.header["cty"], "JWT");
            prop_assert_eq!(opened.header.keys().next().unwrap(), "alg");
        }
    }
}

proptest! {
    #[test]
    fn any_message_is_read_or_refused(
        message in ".{0,60}",
        epk in "(P-256|P-384|P-521|[a-z]{0,4})",
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 4),
    ) {
        let recipe = recipe("ECDH-ES", "A128CBC-HS256");
        let key = key(&vectors()[2]["jwk"]);
        prop_assert!(decrypt(&message, recipe, opening(&key), MOST).is_err());
        let header = json!({
            "alg": "ECDH-ES", "enc": "A128CBC-HS256",
            "epk": {"kty": "EC", "crv": epk, "x": base64url(&parts[0]), "y": base64url(&parts[1])},
        });
        let parts: Vec<_> = parts.iter().map(|part| base64url(part)).collect();
        let message = format!("{}.{}", base64url(header.to_string().as_bytes()), parts.join("."));
        prop_assert!(decrypt(&message, recipe, opening(&key), MOST).is_err());
    }
}

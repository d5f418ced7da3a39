//! The other side's public keys: one of a file, or a set of JSON Web Keys (RFC 7517 section 5).

use super::algorithm::SigningAlgorithm;
use super::jwe::KeyManagement;
use super::public_key::PublicKey;
use crate::base::secret::sha256;

/// Public keys, with their names.
#[derive(Debug)]
pub struct PublicKeySet(Vec<NamedPublicKey>);

/// A public key with its name and the operations that it is meant for.
#[derive(Debug)]
pub struct NamedPublicKey {
    pub key: PublicKey,
    /// Its name, `kid`.
    pub name: Option<String>,
    /// The only algorithm that it is meant for, `alg`; `None`: any that fits.
    pub algorithm: Option<String>,
    /// `sig` or `enc`, the value of `use`; `None`: both.
    pub purpose: Option<String>,
}

impl NamedPublicKey {
    fn is_meant_for(&self, purpose: &str, algorithm: &str) -> bool {
        self.purpose.as_deref().is_none_or(|known| known == purpose)
            && self.algorithm.as_deref().is_none_or(|known| known == algorithm)
    }

    fn verifies(&self, algorithm: SigningAlgorithm) -> bool {
        self.key.key_type() == algorithm.key_type() && self.is_meant_for("sig", algorithm.name())
    }
}

impl PublicKeySet {
    pub const fn new(keys: Vec<NamedPublicKey>) -> Self {
        Self(keys)
    }

    /// One key. Without a name, it is the key of every message.
    pub fn one(key: PublicKey, name: Option<String>) -> Self {
        Self(vec![NamedPublicKey { key, name, algorithm: None, purpose: None }])
    }

    /// Finds the key of this name for signatures by this algorithm. Without a name, the set must have one such key
    /// alone; a key without a name goes by any.
    pub fn find(&self, name: Option<&str>, algorithm: SigningAlgorithm) -> Option<&PublicKey> {
        let is_it = |key: &NamedPublicKey| match (name, key.name.as_deref()) {
            (Some(name), Some(known)) => known == name,
            (Some(_), None) => self.0.len() == 1,
            (None, _) => true,
        };
        let mut fitting = self.0.iter().filter(|named| named.verifies(algorithm) && is_it(named));
        let found = fitting.next()?;
        fitting.next().is_none().then_some(&found.key)
    }

    /// Returns whether any key verifies signatures by this algorithm.
    pub fn verifies(&self, algorithm: SigningAlgorithm) -> bool {
        self.0.iter().any(|named| named.verifies(algorithm))
    }

    /// Returns the key for which messages are encrypted, with its name: the first that fits.
    pub fn recipient(&self, management: KeyManagement) -> Option<(&PublicKey, Option<&str>)> {
        let fits = |named: &&NamedPublicKey| {
            management.takes(named.key.key_type()) && named.is_meant_for("enc", management.name())
        };
        self.0.iter().find(fits).map(|named| (&named.key, named.name.as_deref()))
    }

    /// Returns what tells the set from others, for digests of settings.
    pub fn mark(&self) -> [u8; 32] {
        let parts = self.0.iter().map(|named| {
            let name = named.name.as_ref().map_or([0; 32], |name| sha256(name.as_bytes()));
            [named.key.mark(), name].concat()
        });
        sha256(&parts.collect::<Vec<_>>().concat())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::jwk;
    use super::*;

    fn public(alg: &str, more: Value) -> Value {
        let vectors: Vec<Value> = serde_json::from_str(include_str!("../../tests/fixtures/signing/jws.json")).unwrap();
        let mut jwk = vectors.iter().find(|vector| vector["alg"] == alg).unwrap()["jwk"].clone();
        let members = jwk.as_object_mut().unwrap();
        for secret in ["d", "p", "q", "dp", "dq", "qi"] {
            members.shift_remove(secret);
        }
        members.extend(more.as_object().unwrap().clone());
        jwk
    }

    fn set(keys: &Value) -> PublicKeySet {
        jwk::public_keys(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_set_gives_the_key_of_a_name_and_an_algorithm() {
        let keys = set(&json!([
            {"kty": "XYZ", "kid": "new"},
            "no key",
            public("ES256", json!({"kid": "a", "use": "sig"})),
            public("RS256", json!({"kid": "b", "alg": "PS256"})),
            public("EdDSA", json!({"kid": "c", "use": "enc"})),
            public("ES384", json!({})),
        ]));
        assert!(keys.find(Some("a"), SigningAlgorithm::Es256).is_some());
        assert!(keys.find(None, SigningAlgorithm::Es256).is_some());
        assert!(keys.find(None, SigningAlgorithm::Es384).is_some());
        assert!(keys.find(Some("b"), SigningAlgorithm::Ps256).is_some());
        for (name, algorithm) in [
            (Some("b"), SigningAlgorithm::Rs256),
            (Some("c"), SigningAlgorithm::EdDsa),
            (Some("a"), SigningAlgorithm::Es384),
            (Some("x"), SigningAlgorithm::Es256),
            (Some("x"), SigningAlgorithm::Es384),
        ] {
            assert!(keys.find(name, algorithm).is_none(), "{name:?} {algorithm}");
        }
        let twice = set(&json!([public("ES256", json!({})), public("ES256", json!({}))]));
        assert!(twice.find(None, SigningAlgorithm::Es256).is_none());
        assert!(twice.verifies(SigningAlgorithm::Es256) && !twice.verifies(SigningAlgorithm::Es384));
        assert!(jwk::public_keys(b"{}").is_err());
    }

    #[test]
    fn messages_are_encrypted_for_a_key_that_is_meant_for_it() {
        let keys = set(&json!([
            public("RS256", json!({"kid": "signs", "use": "sig"})),
            public("RS256", json!({"kid": "old", "use": "enc", "alg": "RSA-OAEP"})),
            public("RS256", json!({"kid": "seals", "use": "enc", "alg": "RSA-OAEP-256"})),
            public("EdDSA", json!({"kid": "ed", "use": "enc"})),
        ]));
        let name =
            |keys: &PublicKeySet, management| keys.recipient(management).map(|(_, name)| name.map(ToOwned::to_owned));
        assert_eq!(name(&keys, KeyManagement::RsaOaep256), Some(Some("seals".to_owned())));
        assert_eq!(name(&keys, KeyManagement::EcdhEs), None, "an Ed25519 key agrees on nothing");
        let key = jwk::public_key(public("ES256", json!({})).to_string().as_bytes()).unwrap();
        let one = PublicKeySet::one(key, None);
        assert_eq!(name(&one, KeyManagement::EcdhEs), Some(None));
        assert!(one.find(Some("whatever"), SigningAlgorithm::Es256).is_some());
    }
}

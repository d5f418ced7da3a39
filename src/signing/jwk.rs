//! JSON Web Keys (RFC 7517, RFC 7518 section 6, RFC 8037): private keys, public keys and sets of public keys.

use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeyPairComponents, PublicKeyComponents};
use serde::Deserialize;
use serde_json::Value;
use zeroize::{Zeroize as _, Zeroizing};

use super::algorithm::KeyType;
use super::encoding::from_base64url;
use super::key::KeyError;
use super::key::PrivateKey;
use super::key::SigningKey;
use super::public_key::PublicKey;
use super::public_key_set::NamedPublicKey;
use super::public_key_set::PublicKeySet;
use super::shared_secret::SharedSecret;

/// The most keys of a set that are looked at.
const MOST_KEYS: usize = 100;

/// The members of a key. The secret ones are erased when it goes.
#[derive(Deserialize)]
struct JwkMembers {
    kty: String,
    #[serde(default)]
    crv: String,
    alg: Option<String>,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    d: Option<String>,
    p: Option<String>,
    q: Option<String>,
    dp: Option<String>,
    dq: Option<String>,
    qi: Option<String>,
    k: Option<String>,
}

impl Drop for JwkMembers {
    fn drop(&mut self) {
        for secret in [&mut self.d, &mut self.p, &mut self.q, &mut self.dp, &mut self.dq, &mut self.qi, &mut self.k] {
            secret.zeroize();
        }
    }
}

impl JwkMembers {
    fn curve(&self) -> Result<KeyType, KeyError> {
        match (self.kty.as_str(), self.crv.as_str()) {
            ("EC", "P-256") => Ok(KeyType::P256),
            ("EC", "P-384") => Ok(KeyType::P384),
            ("OKP", "Ed25519") => Ok(KeyType::Ed25519),
            ("EC" | "OKP", _) => Err(KeyError::Curve),
            (_, _) => Err(KeyError::Jwk),
        }
    }

    /// The point of an EC key, in uncompressed form. Both numbers are as long as the field (RFC 7518 section 6.2.1.2).
    fn point(&self, curve: KeyType) -> Result<Vec<u8>, KeyError> {
        let field = if curve == KeyType::P384 { 48 } else { 32 };
        let (x, y) = (number(&self.x)?, number(&self.y)?);
        if x.len() != field || y.len() != field {
            return Err(KeyError::Broken);
        }
        Ok([&[4][..], &x, &y].concat())
    }

    fn public(&self) -> Result<PublicKey, KeyError> {
        if self.kty == "RSA" {
            return PublicKey::rsa(&number(&self.n)?, &number(&self.e)?);
        }
        match self.curve()? {
            KeyType::Ed25519 => PublicKey::ed25519(&number(&self.x)?),
            curve @ (KeyType::P256 | KeyType::P384) => PublicKey::ec(curve, &self.point(curve)?),
            KeyType::Rsa | KeyType::Secret => Err(KeyError::Jwk),
        }
    }

    fn private(&self) -> Result<PrivateKey, KeyError> {
        let secret = number(self.d.as_deref().ok_or(KeyError::Public)?)?;
        if self.kty == "RSA" {
            return self.private_rsa(&secret);
        }
        match self.curve()? {
            KeyType::Ed25519 => PrivateKey::from_ed25519_parts(&secret, &number(&self.x)?),
            curve @ (KeyType::P256 | KeyType::P384) => PrivateKey::from_ec_parts(curve, &secret, &self.point(curve)?),
            KeyType::Rsa | KeyType::Secret => Err(KeyError::Jwk),
        }
    }

    fn private_rsa(&self, d: &[u8]) -> Result<PrivateKey, KeyError> {
        // A short modulus is told apart here: the library's own error is not.
        PublicKey::rsa(&number(&self.n)?, &number(&self.e)?)?;
        let factor = |text: &Option<String>| number(text.as_deref().ok_or(KeyError::Factors)?);
        let components = KeyPairComponents {
            public_key: PublicKeyComponents { n: number(&self.n)?, e: number(&self.e)? },
            d: Zeroizing::new(d.to_vec()),
            p: factor(&self.p)?,
            q: factor(&self.q)?,
            dP: factor(&self.dp)?,
            dQ: factor(&self.dq)?,
            qInv: factor(&self.qi)?,
        };
        PrivateKey::from_rsa(RsaKeyPair::from_components(&components))
    }
}

/// Reads a key that signs: a private RSA, EC or OKP key, or a secret (`oct`).
pub fn signing_key(json: &[u8]) -> Result<SigningKey, KeyError> {
    let members: JwkMembers = serde_json::from_slice(json).map_err(|_| KeyError::Jwk)?;
    match &members.k {
        Some(secret) if members.kty == "oct" => Ok(SigningKey::Secret(SharedSecret::new(number(secret)?)?)),
        Some(_) | None => members.private().map(SigningKey::Private),
    }
}

/// Reads a public RSA, EC or OKP key. The private members of a private key are not looked at.
pub fn public_key(json: &[u8]) -> Result<PublicKey, KeyError> {
    let members: JwkMembers = serde_json::from_slice(json).map_err(|_| KeyError::Jwk)?;
    members.public()
}

/// Reads a set of public keys (RFC 7517 section 5). Keys of kinds that are not read here are left out, as section 5
/// asks; at most 100 are read.
pub fn public_keys(json: &[u8]) -> Result<PublicKeySet, KeyError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(json).map_err(|_| KeyError::Jwk)?;
    let read = set.keys.into_iter().take(MOST_KEYS).filter_map(|json| {
        let mut members: JwkMembers = serde_json::from_value(json).ok()?;
        let key = members.public().ok()?;
        let (name, algorithm, purpose) = (members.kid.take(), members.alg.take(), members.purpose.take());
        Some(NamedPublicKey { key, name, algorithm, purpose })
    });
    Ok(PublicKeySet::new(read.collect()))
}

/// A number or secret in base64url.
fn number(text: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    from_base64url(text).map(Zeroizing::new).ok_or(KeyError::Broken)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::shared_secret::SecretError;
    use super::*;

    fn vectors() -> Vec<Value> {
        serde_json::from_str(include_str!("../../tests/fixtures/signing/jws.json")).unwrap()
    }

    fn without(mut jwk: Value, member: &str) -> Value {
        jwk.as_object_mut().unwrap().shift_remove(member);
        jwk
    }

    fn refused(jwk: &Value) -> KeyError {
        signing_key(jwk.to_string().as_bytes()).unwrap_err()
    }

    #[test]
    fn keys_that_cannot_sign_are_told_apart() {
        let vectors = vectors();
        let jwk = |alg: &str| vectors.iter().find(|vector| vector["alg"] == alg).unwrap()["jwk"].clone();
        assert_eq!(refused(&without(jwk("RS256"), "d")), KeyError::Public);
        assert_eq!(refused(&without(jwk("RS256"), "qi")), KeyError::Factors);
        assert_eq!(refused(&without(jwk("RS256"), "n")), KeyError::Short);
        assert_eq!(refused(&without(jwk("ES256"), "crv")), KeyError::Curve);
        assert_eq!(refused(&without(jwk("ES256"), "x")), KeyError::Broken);
        assert_eq!(refused(&without(jwk("EdDSA"), "kty")), KeyError::Jwk);
        let mut mixed = jwk("ES256");
        mixed["d"] = jwk("EdDSA")["d"].clone();
        assert_eq!(refused(&mixed), KeyError::Broken, "the public part is another key's");
        let short = json!({"kty": "oct", "k": "AQID"});
        assert_eq!(refused(&short), KeyError::Secret(SecretError::Short));
        assert_eq!(refused(&json!({"kty": "RSA", "k": "AQIDBAUGBwgJ"})), KeyError::Public);
        assert_eq!(refused(&json!([])), KeyError::Jwk);
        let mut n = jwk("RS256");
        n["n"] = json!(super::super::encoding::base64url(&[0x7f; 256]));
        assert_eq!(refused(&n), KeyError::Short, "2047 bits");
    }
}

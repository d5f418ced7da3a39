//! Thumbprints of public keys (RFC 7638).

use serde_json::Value;

use super::encoding::base64url;
use super::public_key::PublicKey;
use crate::base::secret::sha256;

/// Computes the SHA-256 thumbprint of a key, in base64url: `jkt` of DPoP, and a common value of `kid`.
pub fn jwk_thumbprint(key: &PublicKey) -> String {
    // The members are those of RFC 7638 section 3.2, already in its order.
    base64url(&sha256(Value::Object(key.to_jwk()).to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::jwk;
    use super::*;

    #[test]
    fn the_example_of_rfc_7638_has_its_thumbprint() {
        let json = include_bytes!("../../tests/fixtures/signing/rfc7638.jwk.json");
        let key = jwk::public_key(json).unwrap();
        assert_eq!(jwk_thumbprint(&key), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }
}

//! Digests of bodies, as header fields state them (RFC 9530, RFC 3230) and as canonical texts contain them.

use aws_lc_rs::constant_time;
use aws_lc_rs::digest;

use super::encoding::TextEncoding;
use super::encoding::base64;
use super::structured_field;
use super::structured_field::BareItem;
use super::structured_field::Member;
use crate::base::secret::hex;

/// A hash function for digests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DigestAlgorithm {
    Sha256,
    /// SHA-384; it has no name in RFC 9530.
    Sha384,
    Sha512,
}

impl DigestAlgorithm {
    /// Reads `sha-256`, `sha-384` or `sha-512`, in any case. The error says what to write instead.
    pub fn parse(name: &str) -> Result<Self, &'static str> {
        match name.to_ascii_lowercase().as_str() {
            "sha-256" => Ok(DigestAlgorithm::Sha256),
            "sha-384" => Ok(DigestAlgorithm::Sha384),
            "sha-512" => Ok(DigestAlgorithm::Sha512),
            _ => Err("write \"sha-256\", \"sha-384\" or \"sha-512\""),
        }
    }

    /// Computes the digest of `bytes`.
    pub fn of(self, bytes: &[u8]) -> Vec<u8> {
        let function = match self {
            DigestAlgorithm::Sha256 => &digest::SHA256,
            DigestAlgorithm::Sha384 => &digest::SHA384,
            DigestAlgorithm::Sha512 => &digest::SHA512,
        };
        digest::digest(function, bytes).as_ref().to_vec()
    }

    /// Computes the digest of `bytes` as text.
    pub fn text(self, bytes: &[u8], encoding: TextEncoding) -> String {
        encoding.encode(&self.of(bytes))
    }

    /// Computes the digest of `bytes` in lower-case hexadecimal digits.
    pub fn hex(self, bytes: &[u8]) -> String {
        hex(&self.of(bytes))
    }

    /// Returns the value of `Content-Digest` or `Repr-Digest` (RFC 9530): `sha-256=:…:`.
    pub fn field(self, body: &[u8]) -> String {
        format!("{}=:{}:", self.name(), base64(&self.of(body)))
    }

    /// Returns the value of the older `Digest` (RFC 3230, as PSD2 interfaces use it): `SHA-256=…`.
    pub fn old_field(self, body: &[u8]) -> String {
        format!("{}={}", self.name().to_ascii_uppercase(), base64(&self.of(body)))
    }

    const fn name(self) -> &'static str {
        match self {
            DigestAlgorithm::Sha256 => "sha-256",
            DigestAlgorithm::Sha384 => "sha-384",
            DigestAlgorithm::Sha512 => "sha-512",
        }
    }
}

/// Returns whether the value of a `Content-Digest` or `Repr-Digest` is that of a body. It must hold SHA-256 or SHA-512;
/// all such digests in it must be right, and those by other functions are not looked at.
pub fn matches(field: &str, body: &[u8]) -> bool {
    let Some(members) = structured_field::dictionary(field) else { return false };
    let mut is_strong = false;
    for (name, member) in members {
        let algorithm = match name.as_str() {
            "sha-256" => DigestAlgorithm::Sha256,
            "sha-512" => DigestAlgorithm::Sha512,
            _ => continue,
        };
        let Member::Item(item) = member else { return false };
        let BareItem::Bytes(stated) = item.value else { return false };
        if constant_time::verify_slices_are_equal(&stated, &algorithm.of(body)).is_err() {
            return false;
        }
        is_strong = true;
    }
    is_strong
}

/// The same for the older `Digest` (RFC 3230), as in `SHA-256=…`.
pub fn old_matches(field: &str, body: &[u8]) -> bool {
    let mut is_strong = false;
    for member in field.split(',') {
        let Some((name, stated)) = member.trim().split_once('=') else { return false };
        let algorithm = match name.to_ascii_lowercase().as_str() {
            "sha-256" => DigestAlgorithm::Sha256,
            "sha-512" => DigestAlgorithm::Sha512,
            _ => continue,
        };
        let Some(stated) = TextEncoding::Base64.decode(stated) else { return false };
        if constant_time::verify_slices_are_equal(&stated, &algorithm.of(body)).is_err() {
            return false;
        }
        is_strong = true;
    }
    is_strong
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body of the examples of RFC 9421 and RFC 9530.
    const BODY: &[u8] = br#"{"hello": "world"}"#;
    const SHA_512: &str =
        "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";

    #[test]
    fn the_fields_of_the_rfcs_are_reproduced() {
        assert_eq!(DigestAlgorithm::Sha512.field(BODY), SHA_512);
        assert_eq!(DigestAlgorithm::Sha256.field(BODY), "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:");
        assert_eq!(DigestAlgorithm::Sha256.old_field(BODY), "SHA-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=");
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(DigestAlgorithm::Sha256.hex(b""), empty);
    }

    #[test]
    fn a_field_matches_its_body_only() {
        assert!(matches(SHA_512, BODY));
        assert!(matches(&format!("md5=:AAAA:, {SHA_512}"), BODY));
        assert!(!matches(SHA_512, b"{}"));
        assert!(!matches("md5=:AAAA:", BODY));
        assert!(!matches("", BODY));
        assert!(!matches("sha-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=", BODY));
        assert!(!matches(&format!("{SHA_512}, sha-256=:AAAA:"), BODY), "each of the digests must be right");
    }

    #[test]
    fn an_old_field_matches_its_body_only() {
        let good = DigestAlgorithm::Sha256.old_field(BODY);
        assert!(old_matches(&good, BODY) && old_matches(&good.replace("SHA", "sha"), BODY));
        assert!(old_matches(&format!("MD5=AAAA, {good}"), BODY));
        let other = DigestAlgorithm::Sha512.old_field(b"{}");
        for field in [&good[..good.len() - 1], "", "MD5=AAAA", &format!("{good},{other}"), &good.replace('=', ":")] {
            assert!(!old_matches(field, BODY), "{field}");
        }
        assert!(!old_matches(&good, b"{}"));
    }

    proptest! {
        #[test]
        fn a_field_is_that_of_its_body_alone(
            body in proptest::collection::vec(any::<u8>(), 0..50),
            other in proptest::collection::vec(any::<u8>(), 0..50),
            field in "(sha-256|sha-512|md5)[=:A-Za-z0-9, ]{0,40}",
        ) {
            prop_assert!(matches(&DigestAlgorithm::Sha256.field(&body), &body));
            prop_assert_eq!(matches(&DigestAlgorithm::Sha512.field(&body), &other), body == other);
            prop_assert!(!matches(&field, &body));
        }
    }
}

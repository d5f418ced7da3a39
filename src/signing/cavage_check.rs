//! The check of a `Signature` header field of draft-cavage-http-signatures-12 on a message of the other side's.

use std::time::Duration;

use http::HeaderMap;

use super::algorithm::SigningAlgorithm;
use super::cavage::{CavageField, CavageSignature};
use super::encoding::TextEncoding;
use super::public_key::VerifyingKey;
use super::request_parts;
use super::request_parts::RequestParts;
use super::signature::DigitalSignature;
use crate::base::time::{CLOCK_TOLERANCE, Now};

/// The demands on a signature. The algorithm is pinned here, and never taken from the message.
#[derive(Clone, Copy, Debug)]
pub struct CavageCheck<'a> {
    pub algorithm: SigningAlgorithm,
    /// Fields that the signature must cover.
    pub required: &'a [CavageField],
    /// The age beyond which a signature that states `created` is refused.
    pub oldest: Duration,
    pub now: Now,
}

/// A signature as it stands in a message: nothing of it is verified.
#[derive(Clone, Debug)]
pub struct UnverifiedCavage {
    key_id: String,
    algorithm: Option<String>,
    created: Option<u64>,
    expires: Option<u64>,
    fields: Vec<CavageField>,
    signature: Vec<u8>,
}

impl UnverifiedCavage {
    /// Reads the one `Signature` field of a message. `None` if there is none, or it is malformed or ambiguous.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let parameters = parameters(&request_parts::field_value(headers, "signature")?)?;
        let find = |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let moment = |name: &str| match find(name) {
            None => Some(None),
            Some(text) => text.parse::<u64>().ok().map(Some),
        };
        let fields = find("headers")?.split(' ').map(|word| CavageField::parse(word).ok());
        Some(Self {
            key_id: find("keyId")?.to_owned(),
            algorithm: find("algorithm").map(ToOwned::to_owned),
            created: moment("created")?,
            expires: moment("expires")?,
            fields: fields.collect::<Option<_>>()?,
            signature: TextEncoding::Base64.decode(find("signature")?)?,
        })
    }

    /// Returns `keyId`: to find the key, and for no other decision before the signature is verified.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Returns whether it is the key's signature of this message, and says what is asked for. An answer has `headers`
    /// alone and no `request`.
    pub fn is_valid(
        &self,
        headers: &HeaderMap,
        request: Option<&RequestParts<'_>>,
        check: &CavageCheck<'_>,
        key: &VerifyingKey,
    ) -> bool {
        let is_answer = request.is_none();
        if is_answer && self.fields.contains(&CavageField::RequestTarget)
            || !check.required.iter().all(|field| self.fields.contains(field))
            || !self.is_timely(check)
        {
            return false;
        }
        let none = RequestParts { method: "", scheme: "https", authority: "", path: "", query: None, headers };
        let CavageCheck { algorithm, .. } = *check;
        let stated = CavageSignature {
            key_id: &self.key_id,
            algorithm: self.algorithm.as_deref(),
            created: self.created,
            expires: self.expires,
            fields: &self.fields,
        };
        let Ok(unsigned) = stated.over(request.unwrap_or(&none)) else { return false };
        let signing_string = unsigned.signing_string().as_bytes();
        match DigitalSignature::from_der(algorithm, &self.signature) {
            Some(signature) => key.verify(algorithm, signing_string, signature.bytes()),
            None => key.verify(algorithm, signing_string, &self.signature),
        }
    }

    /// Judges the moments that the signature covers; others may have been written by anybody.
    fn is_timely(&self, check: &CavageCheck<'_>) -> bool {
        let now = check.now.unix_seconds();
        self.fields.iter().all(|field| match (field, self.created, self.expires) {
            (CavageField::Created, Some(at), _) => {
                at <= now.saturating_add(CLOCK_TOLERANCE) && now.saturating_sub(at) <= check.oldest.as_secs()
            }
            (CavageField::Expires, _, Some(at)) => now < at,
            (CavageField::Created | CavageField::Expires, _, _) => false,
            (CavageField::Field(_) | CavageField::RequestTarget, _, _) => true,
        })
    }
}

/// The parameters of the field, each once: quoted texts without escapes, and numbers.
fn parameters(value: &str) -> Option<Vec<(String, String)>> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut rest = value.trim();
    loop {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim();
        let (text, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        if name.is_empty() || text.contains('\\') || found.iter().any(|(known, _)| known == name) {
            return None;
        }
        found.push((name.to_owned(), text.trim().to_owned()));
        let after = after.trim_start();
        if after.is_empty() {
            return Some(found);
        }
        rest = after.strip_prefix(',')?.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::key::SigningKey;
    use super::super::pkcs;
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn key() -> SigningKey {
        let pem = include_bytes!("../../tests/fixtures/signing/p256-sec1.pem");
        SigningKey::Private(pkcs::private_key(pem, None).unwrap())
    }

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn check(required: &[CavageField]) -> CavageCheck<'_> {
        let (oldest, now) = (Duration::from_secs(300), Now::at(0, NOW * 1000));
        CavageCheck { algorithm: SigningAlgorithm::Es256, required, oldest, now }
    }

    fn fields(words: &str) -> Vec<CavageField> {
        words.split(' ').map(|word| CavageField::parse(word).unwrap()).collect()
    }

    fn signed(words: &str, created: Option<u64>, algorithm: Option<&str>) -> HeaderMap {
        let mut headers = headers(&[("digest", "SHA-256=abc"), ("x-id", "7")]);
        let parts = RequestParts {
            method: "POST",
            scheme: "https",
            authority: "h",
            path: "/a",
            query: Some("b=1"),
            headers: &headers,
        };
        let covered = fields(words);
        let stated = CavageSignature { key_id: "bank-1", algorithm, created, expires: created, fields: &covered };
        let unsigned = stated.over(&parts).unwrap();
        let made = key().sign(SigningAlgorithm::Es256, unsigned.signing_string().as_bytes()).unwrap();
        headers.insert("signature", unsigned.complete(&made).parse().unwrap());
        headers
    }

    fn is_valid(headers: &HeaderMap, path: Option<&str>, required: &str) -> bool {
        let public = VerifyingKey::Public(key().public().unwrap().clone());
        let required = if required.is_empty() { Vec::new() } else { fields(required) };
        let parts = path.map(|path| RequestParts {
            method: "POST",
            scheme: "https",
            authority: "h",
            path,
            query: Some("b=1"),
            headers,
        });
        let found = UnverifiedCavage::read(headers);
        found.is_some_and(|found| found.is_valid(headers, parts.as_ref(), &check(&required), &public))
    }

    #[test]
    fn a_signature_holds_for_its_message_alone() {
        let good = signed("(request-target) digest", None, None);
        assert!(is_valid(&good, Some("/a"), "digest (request-target)"));
        assert!(!is_valid(&good, Some("/b"), "digest"), "another path");
        assert!(!is_valid(&good, None, "digest"), "an answer has no target");
        assert!(!is_valid(&good, Some("/a"), "x-id"), "a field that it does not cover");
        for (name, value) in [
            ("digest", "SHA-256=abd"),
            ("signature", "keyId=\"bank-1\""),
            ("signature", ""),
            ("signature", "keyId=\"bank-1\",headers=\"digest\",signature=\"AAAA\""),
        ] {
            let mut tampered = good.clone();
            tampered.insert(name, value.parse().unwrap());
            assert!(!is_valid(&tampered, Some("/a"), "digest"), "{name}: {value}");
        }
        let mut twice = good.clone();
        twice.append("signature", good["signature"].clone());
        assert!(!is_valid(&twice, Some("/a"), "digest"), "two signatures");
        assert!(is_valid(&signed("digest", None, None), None, "digest"), "an answer");
    }

    #[test]
    fn moments_count_where_they_are_covered() {
        for (words, at, is_fine) in [
            ("digest (created)", NOW, true),
            ("digest (created)", NOW - 300, true),
            ("digest (created)", NOW - 301, false),
            ("digest (created)", NOW + 61, false),
            ("digest (expires)", NOW + 1, true),
            ("digest (expires)", NOW, false),
            ("digest", NOW - 10_000, true),
        ] {
            assert_eq!(is_valid(&signed(words, Some(at), None), Some("/a"), "digest"), is_fine, "{words} {at}");
        }
        assert!(!is_valid(&signed("digest", Some(NOW), None), Some("/a"), "digest (created)"));
    }

    proptest! {
        #[test]
        fn any_field_is_read_or_refused(text in ".{0,80}", near in "(keyId|headers|signature|[=,\" a]){0,12}") {
            for text in [text, near] {
                let _ = parameters(&text);
            }
        }
    }
}

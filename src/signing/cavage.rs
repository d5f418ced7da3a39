//! The `Signature` header field of draft-cavage-http-signatures-12, which PSD2 interfaces use.

use std::fmt;

use http::HeaderName;
use thiserror::Error;

use super::encoding::base64;
use super::request_parts;
use super::request_parts::RequestParts;
use super::signature::DigitalSignature;

/// A part of a request in the draft's list `headers`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CavageField {
    Created,
    Expires,
    Field(HeaderName),
    /// `(request-target)`: the method in lower case, and the path with the query.
    RequestTarget,
}

impl CavageField {
    /// Reads a word of the list `headers`.
    pub fn parse(word: &str) -> Result<Self, CavageError> {
        match word {
            "(created)" => Ok(CavageField::Created),
            "(expires)" => Ok(CavageField::Expires),
            "(request-target)" => Ok(CavageField::RequestTarget),
            field => HeaderName::try_from(field).map(CavageField::Field).map_err(|_| CavageError::Word),
        }
    }

    fn word(&self) -> &str {
        match self {
            CavageField::Created => "(created)",
            CavageField::Expires => "(expires)",
            CavageField::Field(name) => name.as_str(),
            CavageField::RequestTarget => "(request-target)",
        }
    }
}

/// The reason for which a request has no signing string.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum CavageError {
    #[error("the moment of {0} is needed and not given; algorithms other than hs2019 do not allow it")]
    Moment(&'static str),
    #[error("the request has no header field {0} that can be signed")]
    Missing(HeaderName),
    #[error("the request target has letters outside of visible ASCII")]
    Target,
    #[error("write header field names, \"(request-target)\", \"(created)\" or \"(expires)\"")]
    Word,
    #[error("keyId and algorithm are visible ASCII without quotation marks and backslashes")]
    Quotation,
    #[error("no header fields are listed")]
    Nothing,
}

/// The values of a signature's parameters, and the fields that it covers in their order.
#[derive(Clone, Copy, Debug)]
pub struct CavageSignature<'a> {
    /// `keyId`, for PSD2 of the form `SN=…,CA=…`.
    pub key_id: &'a str,
    /// `algorithm` as the bank names it, such as `rsa-sha256` or `hs2019`; left out if there is none.
    pub algorithm: Option<&'a str>,
    /// `created`, in seconds since 1970.
    pub created: Option<u64>,
    /// `expires`, in seconds since 1970.
    pub expires: Option<u64>,
    pub fields: &'a [CavageField],
}

/// A signature that awaits its value.
#[derive(Clone, Eq, PartialEq)]
pub struct UnsignedCavage {
    start: String,
    signing_string: String,
}

impl CavageSignature<'_> {
    /// Builds the signing string of a request (section 2.3 of the draft).
    pub fn over(&self, request: &RequestParts<'_>) -> Result<UnsignedCavage, CavageError> {
        if self.fields.is_empty() {
            return Err(CavageError::Nothing);
        }
        let mut lines = Vec::with_capacity(self.fields.len());
        for field in self.fields {
            let value = match field {
                CavageField::Created => self.moment(self.created, "created")?,
                CavageField::Expires => self.moment(self.expires, "expires")?,
                CavageField::Field(name) => request_parts::field_value(request.headers, name.as_str())
                    .ok_or_else(|| CavageError::Missing(name.clone()))?,
                CavageField::RequestTarget => {
                    let target = format!("{} {}", request.method.to_ascii_lowercase(), request.origin_form());
                    let is_line = target.bytes().all(|byte| (0x20..0x7f).contains(&byte));
                    if is_line { target } else { return Err(CavageError::Target) }
                }
            };
            lines.push(format!("{}: {value}", field.word()));
        }
        Ok(UnsignedCavage { start: self.start()?, signing_string: lines.join("\n") })
    }

    /// Section 2.3: RSA, HMAC and ECDSA by their older names do not know the moments.
    fn moment(&self, moment: Option<u64>, name: &'static str) -> Result<String, CavageError> {
        let is_old =
            self.algorithm.is_some_and(|name| ["rsa", "hmac", "ecdsa"].iter().any(|old| name.starts_with(old)));
        moment.filter(|_| !is_old).map(|at| at.to_string()).ok_or(CavageError::Moment(name))
    }

    /// The header field up to the signature.
    fn start(&self) -> Result<String, CavageError> {
        let quotable =
            |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\');
        if !quotable(self.key_id) || !self.algorithm.is_none_or(quotable) {
            return Err(CavageError::Quotation);
        }
        let words: Vec<_> = self.fields.iter().map(CavageField::word).collect();
        let mut parameters = vec![format!("keyId=\"{}\"", self.key_id)];
        parameters.extend(self.algorithm.map(|name| format!("algorithm=\"{name}\"")));
        parameters.extend(self.created.map(|at| format!("created={at}")));
        parameters.extend(self.expires.map(|at| format!("expires={at}")));
        parameters.push(format!("headers=\"{}\"", words.join(" ")));
        Ok(parameters.join(","))
    }
}

/// Leaves out the signing string: it may cover header fields with credentials.
impl fmt::Debug for UnsignedCavage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnsignedCavage").field("start", &self.start).finish_non_exhaustive()
    }
}

impl UnsignedCavage {
    /// Returns the signing string: the bytes to sign.
    pub const fn signing_string(&self) -> &str {
        self.signing_string.as_str()
    }

    /// Completes the value of the field `Signature`; ECDSA signatures are written in DER, as the draft's libraries do.
    pub fn complete(&self, signature: &DigitalSignature) -> String {
        format!("{},signature=\"{}\"", self.start, base64(&signature.to_der()))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::algorithm::SigningAlgorithm;
    use super::*;

    /// The request of appendix C of the draft.
    fn headers() -> HeaderMap {
        let fields = [
            ("host", "example.com"),
            ("date", "Sun, 05 Jan 2014 21:31:40 GMT"),
            ("content-type", "application/json"),
            ("digest", "SHA-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE="),
            ("content-length", "18"),
        ];
        fields.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn fields(words: &str) -> Vec<CavageField> {
        words.split(' ').map(|word| CavageField::parse(word).unwrap()).collect()
    }

    fn over(signature: &CavageSignature<'_>) -> Result<UnsignedCavage, CavageError> {
        let headers = headers();
        signature.over(&RequestParts {
            method: "POST",
            scheme: "https",
            authority: "example.com",
            path: "/foo",
            query: Some("param=value&pet=dog"),
            headers: &headers,
        })
    }

    #[test]
    fn the_signing_strings_of_appendix_c_are_reproduced() {
        // The key of the appendix has 1024 bits and is refused here: the strings are compared, not the signatures.
        let covered = fields("(request-target) host date");
        let mut signature = CavageSignature {
            key_id: "Test",
            algorithm: Some("rsa-sha256"),
            created: None,
            expires: None,
            fields: &covered,
        };
        let unsigned = over(&signature).unwrap();
        let basic =
            "(request-target): post /foo?param=value&pet=dog\nhost: example.com\ndate: Sun, 05 Jan 2014 21:31:40 GMT";
        assert_eq!(unsigned.signing_string(), basic);
        let made = DigitalSignature::new(SigningAlgorithm::Rs256, vec![1, 2]);
        assert_eq!(
            unsigned.complete(&made),
            "keyId=\"Test\",algorithm=\"rsa-sha256\",headers=\"(request-target) host date\",signature=\"AQI=\""
        );
        let all = fields("(request-target) (created) (expires) host date content-type digest content-length");
        signature =
            CavageSignature { fields: &all, created: Some(1_402_170_695), expires: Some(1_402_170_699), ..signature };
        assert_eq!(over(&signature).unwrap_err(), CavageError::Moment("created"));
        signature.algorithm = Some("hs2019");
        let string = over(&signature).unwrap().signing_string().to_owned();
        assert!(string.contains("\n(created): 1402170695\n(expires): 1402170699\nhost: example.com\n"), "{string}");
        assert!(string.ends_with("\ndigest: SHA-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=\ncontent-length: 18"));
    }

    #[test]
    fn missing_fields_and_unquotable_identifiers_are_refused() {
        let covered = fields("x-request-id");
        let signature =
            CavageSignature { key_id: "k", algorithm: None, created: None, expires: None, fields: &covered };
        assert!(matches!(over(&signature), Err(CavageError::Missing(_))));
        assert_eq!(over(&CavageSignature { fields: &[], ..signature }), Err(CavageError::Nothing));
        let covered = fields("Date");
        let quoted = CavageSignature { key_id: "SN=1\"", fields: &covered, ..signature };
        assert_eq!(over(&quoted), Err(CavageError::Quotation));
        assert_eq!(CavageField::parse("a b"), Err(CavageError::Word));
        let covered = fields("(request-target)");
        let signature = CavageSignature { fields: &covered, ..signature };
        let headers = headers();
        let request = RequestParts {
            method: "GET",
            scheme: "https",
            authority: "h",
            path: "/a\nhost: b",
            query: None,
            headers: &headers,
        };
        assert_eq!(signature.over(&request), Err(CavageError::Target), "no line of its own");
    }
}

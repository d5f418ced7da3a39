//! OAuth 1.0a (RFC 5849) with RSA-SHA256 or HMAC-SHA256 and the body hash that Mastercard asks for.

use std::fmt;

use http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;
use zeroize::Zeroizing;

use super::algorithm::SigningAlgorithm;
use super::encoding::base64;
use super::key::KeyError;
use super::request_parts;
use super::shared_secret::SharedSecret;
use super::signature::DigitalSignature;
use crate::base::secret::ExposeSecret;
use crate::base::secret::SecretString;
use crate::base::secret::sha256;

/// All letters but the unreserved ones (RFC 5849 section 3.6).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OAuth1Method {
    HmacSha256,
    RsaSha256,
}

impl OAuth1Method {
    /// Returns the algorithm that signs.
    pub const fn algorithm(self) -> SigningAlgorithm {
        match self {
            OAuth1Method::HmacSha256 => SigningAlgorithm::Hs256,
            OAuth1Method::RsaSha256 => SigningAlgorithm::Rs256,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            OAuth1Method::HmacSha256 => "HMAC-SHA256",
            OAuth1Method::RsaSha256 => "RSA-SHA256",
        }
    }
}

/// The reason for which a request cannot be signed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum OAuth1Error {
    #[error("the signature is by another algorithm than oauth_signature_method names")]
    Algorithm,
    #[error("the query or form is not percent-encoded UTF-8")]
    Encoding,
    #[error("the query or form has a parameter whose name starts with oauth_")]
    Reserved,
    #[error("the address is not an absolute one of http or https")]
    Target,
}

/// A request to sign, and all that makes its signature unique.
#[derive(Clone, Copy)]
pub struct OAuth1Request<'a> {
    pub method: &'a str,
    /// The address with its query.
    pub target: &'a str,
    /// The body of a request whose content type is `application/x-www-form-urlencoded`: its parameters are signed.
    pub form: Option<&'a str>,
    /// The body whose hash is signed as `oauth_body_hash`; empty for a request without a body.
    pub hashed_body: Option<&'a [u8]>,
    pub consumer_key: &'a str,
    /// `oauth_token`, if there is one.
    pub token: Option<&'a str>,
    pub nonce: &'a str,
    /// `oauth_timestamp`, in seconds since 1970.
    pub timestamp: u64,
    pub signature_method: OAuth1Method,
    /// `realm`, which is not signed.
    pub realm: Option<&'a str>,
}

/// A request that awaits its signature.
#[derive(Clone, Eq, PartialEq)]
pub struct UnsignedOAuth1 {
    algorithm: SigningAlgorithm,
    base_string: String,
    realm: Option<String>,
    parameters: Vec<(&'static str, String)>,
}

/// Leaves out address and body: they may hold credentials.
impl fmt::Debug for OAuth1Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("OAuth1Request");
        shown.field("method", &self.method).field("nonce", &self.nonce).finish_non_exhaustive()
    }
}

impl OAuth1Request<'_> {
    /// Builds the signature base string (RFC 5849 section 3.4.1).
    pub fn unsigned(&self) -> Result<UnsignedOAuth1, OAuth1Error> {
        let parameters = self.protocol_parameters();
        let uri = Self::base_uri(self.target)?;
        let query = self.target.split_once('#').map_or(self.target, |(before, _)| before).split_once('?');
        let mut sorted: Vec<(String, String)> = Vec::new();
        for text in [query.map(|(_, query)| query), self.form].into_iter().flatten() {
            for (name, value) in request_parts::decoded_pairs(text).ok_or(OAuth1Error::Encoding)? {
                if name.starts_with("oauth_") {
                    return Err(OAuth1Error::Reserved);
                }
                sorted.push((encoded(&name), encoded(&value)));
            }
        }
        sorted.extend(parameters.iter().map(|(name, value)| (encoded(name), encoded(value))));
        // Section 3.4.1.3.2: by bytes of the encoded names, then of the encoded values.
        sorted.sort();
        let normalised: Vec<_> = sorted.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let base_string = format!(
            "{}&{}&{}",
            encoded(&self.method.to_ascii_uppercase()),
            encoded(&uri),
            encoded(&normalised.join("&"))
        );
        Ok(UnsignedOAuth1 {
            algorithm: self.signature_method.algorithm(),
            base_string,
            realm: self.realm.map(ToOwned::to_owned),
            parameters,
        })
    }

    fn protocol_parameters(&self) -> Vec<(&'static str, String)> {
        let mut parameters = Vec::with_capacity(8);
        parameters.extend(self.hashed_body.map(|body| ("oauth_body_hash", base64(&sha256(body)))));
        parameters.push(("oauth_consumer_key", self.consumer_key.to_owned()));
        parameters.push(("oauth_nonce", self.nonce.to_owned()));
        parameters.push(("oauth_signature_method", self.signature_method.name().to_owned()));
        parameters.push(("oauth_timestamp", self.timestamp.to_string()));
        parameters.extend(self.token.map(|token| ("oauth_token", token.to_owned())));
        parameters.push(("oauth_version", "1.0".to_owned()));
        parameters
    }

    /// The base string URI (section 3.4.1.2): without query, fragment and the scheme's own port.
    fn base_uri(target: &str) -> Result<String, OAuth1Error> {
        let end = target.find(['?', '#']).unwrap_or(target.len());
        let uri: Uri = target[..end].parse().map_err(|_| OAuth1Error::Target)?;
        let scheme =
            uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https")).ok_or(OAuth1Error::Target)?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let host = authority.ok_or(OAuth1Error::Target)?.as_str().to_ascii_lowercase();
        let own_port = if scheme == "http" { ":80" } else { ":443" };
        let host = host.strip_suffix(own_port).unwrap_or(&host);
        Ok(format!("{scheme}://{host}{}", if uri.path().is_empty() { "/" } else { uri.path() }))
    }
}

/// Leaves out the base string and the parameters: they may hold credentials.
impl fmt::Debug for UnsignedOAuth1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnsignedOAuth1").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl UnsignedOAuth1 {
    /// Returns the algorithm that has to sign.
    pub const fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// Returns the signature base string: the bytes to sign.
    pub const fn base_string(&self) -> &str {
        self.base_string.as_str()
    }

    /// Completes the value of the field `Authorization` (section 3.5.1).
    pub fn complete(&self, signature: &DigitalSignature) -> Result<String, OAuth1Error> {
        if signature.algorithm() != self.algorithm {
            return Err(OAuth1Error::Algorithm);
        }
        let realm = self.realm.iter().map(|realm| format!("realm=\"{}\"", encoded(realm)));
        let parameters = self.parameters.iter().map(|(name, value)| format!("{name}=\"{}\"", encoded(value)));
        let signature = format!("oauth_signature=\"{}\"", encoded(&base64(signature.bytes())));
        let all: Vec<_> = realm.chain(parameters).chain([signature]).collect();
        Ok(format!("OAuth {}", all.join(",")))
    }
}

/// Builds the key of `HMAC-SHA256` (section 3.4.2): both secrets, encoded and joined by an ampersand.
pub fn hmac_secret(consumer: &SecretString, token: Option<&SecretString>) -> Result<SharedSecret, KeyError> {
    let encoded_secret = |secret: &SecretString| Zeroizing::new(encoded(secret.expose_secret()));
    let consumer = encoded_secret(consumer);
    let token = token.map(encoded_secret);
    let mut key =
        Zeroizing::new(Vec::with_capacity(consumer.len() + token.as_ref().map_or(0, |token| token.len()) + 1));
    key.extend_from_slice(consumer.as_bytes());
    key.push(b'&');
    key.extend_from_slice(token.as_ref().map(|token| token.as_bytes()).unwrap_or_default());
    Ok(SharedSecret::as_issued(key)?)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUEST: OAuth1Request<'static> = OAuth1Request {
        method: "post",
        target: "http://EXAMPLE.COM:80/request?b5=%3D%253D&a3=a&c%40=&a2=r%20b#fragment",
        form: Some("c2&a3=2+q"),
        hashed_body: None,
        consumer_key: "9djdj82h48djs9d2",
        token: Some("kkk9d7dh3k39sjv7"),
        nonce: "7d8f3e4a",
        timestamp: 137_131_201,
        signature_method: OAuth1Method::RsaSha256,
        realm: None,
    };

    #[test]
    fn the_base_string_of_rfc_5849_is_reproduced() {
        // Section 3.4.1.1 signs by HMAC-SHA1 and has no oauth_version.
        let base = REQUEST.unsigned().unwrap().base_string().to_owned();
        let base = base.replace("RSA-SHA256", "HMAC-SHA1").replace("%26oauth_version%3D1.0", "");
        assert_eq!(
            base,
            "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D\
             %26c2%3D%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1\
             %26oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7"
        );
    }

    #[test]
    fn addresses_are_normalised_as_the_rfc_and_mastercard_do() {
        for (target, normal) in [
            ("https://www.example.net:8080", "https://www.example.net:8080/"),
            ("http://EXAMPLE.COM:80/r%20v/X?id=123", "http://example.com/r%20v/X"),
            ("https://api.mastercard.com:443/test?query=param", "https://api.mastercard.com/test"),
            ("https://api.mastercard.com/TEST?a#b", "https://api.mastercard.com/TEST"),
            ("https://www.example.com/api/test%40test", "https://www.example.com/api/test%40test"),
        ] {
            assert_eq!(OAuth1Request::base_uri(target).as_deref(), Ok(normal));
        }
        for target in ["/service?foo=bar", "www.example.net:8080", "ftp://h/", "https://user@h/", ""] {
            assert_eq!(OAuth1Request::base_uri(target), Err(OAuth1Error::Target), "{target}");
        }
    }

    #[test]
    fn the_body_hash_is_signed_and_sent() {
        for (body, hash) in [
            ("", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
            ("{\"foõ\":\"bar\"}", "+Z+PWW2TJDnPvRcTgol+nKO3LT7xm8smnsg+//XMIyI="),
        ] {
            let request = OAuth1Request { hashed_body: Some(body.as_bytes()), realm: Some("a b"), ..REQUEST };
            let unsigned = request.unsigned().unwrap();
            let once = format!("oauth_body_hash={}", encoded(hash));
            assert!(unsigned.base_string().contains(&encoded(&once)), "{}", unsigned.base_string());
            let header = unsigned.complete(&DigitalSignature::new(SigningAlgorithm::Rs256, vec![0xfb, 0xff])).unwrap();
            let start = format!("OAuth realm=\"a%20b\",oauth_body_hash=\"{}\",oauth_consumer_key=", encoded(hash));
            assert!(header.starts_with(&start), "{header}");
            assert!(header.ends_with(",oauth_version=\"1.0\",oauth_signature=\"%2B%2F8%3D\""), "{header}");
        }
    }

    #[test]
    fn a_request_cannot_bring_protocol_parameters_of_its_own() {
        let request = OAuth1Request { form: Some("oauth%5Fnonce=1"), ..REQUEST };
        assert_eq!(request.unsigned(), Err(OAuth1Error::Reserved));
        let request = OAuth1Request { form: Some("a=%ff"), ..REQUEST };
        assert_eq!(request.unsigned(), Err(OAuth1Error::Encoding));
    }

    #[test]
    fn a_signature_by_another_algorithm_does_not_complete_a_request() {
        let unsigned = REQUEST.unsigned().unwrap();
        let other = DigitalSignature::new(SigningAlgorithm::Hs256, vec![1]);
        assert_eq!(unsigned.complete(&other), Err(OAuth1Error::Algorithm));
    }

    #[test]
    fn both_secrets_make_the_hmac_key() {
        let secret = hmac_secret(&"j49sk3j29djd".into(), Some(&"dh893h/asih9".into())).unwrap();
        assert!(secret.with_bytes(|bytes| bytes == b"j49sk3j29djd&dh893h%2Fasih9"));
        let alone = hmac_secret(&"j49sk3j29djd".into(), None).unwrap();
        assert!(alone.with_bytes(|bytes| bytes == b"j49sk3j29djd&"));
    }

    proptest! {
        #[test]
        fn any_address_and_form_are_signed_or_refused(target in ".{0,40}", query in ".{0,40}", form in ".{0,40}") {
            let _ = OAuth1Request { target: &target, ..REQUEST }.unsigned();
            let target = format!("https://bank.example/{query}");
            let _ = OAuth1Request { target: &target, form: Some(&form), ..REQUEST }.unsigned();
        }
    }
}

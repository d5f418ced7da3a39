//! AWS Signature Version 4: of a request with a body and without a query, and of a URL that carries its signature; and the
//! requests of AWS's JSON protocol.
//!
//! The canonical request, the text to sign and the chain of keys are those of the AWS General Reference, "Create a signed
//! AWS API request"; the test vectors are those that AWS publishes. The crate `aws-sigv4` is not taken: it brings twelve
//! crates, a second hash library among them, for these functions.

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

use crate::base::secret::{ExposeSecret, SecretString, hex, sha256};
use crate::base::time::CivilTime;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const JSON: &str = "application/x-amz-json-1.1";
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The account, place and time that a signature is for.
pub struct SigningScope<'a> {
    pub access_key_id: &'a str,
    pub secret_access_key: &'a SecretString,
    pub region: &'a str,
    pub service: &'a str,
    /// The time as [`timestamp`] writes it.
    pub timestamp: &'a str,
}

/// Writes a wall-clock reading in milliseconds as ISO 8601 in its basic form: `20150830T123600Z`.
pub fn timestamp(wall: u64) -> String {
    let time = CivilTime::of(wall, 0);
    let (date, clock) = ((time.year, time.month, time.day), (time.hour, time.minute, time.second));
    format!("{:04}{:02}{:02}T{:02}{:02}{:02}Z", date.0, date.1, date.2, clock.0, clock.1, clock.2)
}

/// Makes a signed request of the JSON protocol: `target` is the service and its action, `token` that of temporary
/// credentials.
pub fn json_request(
    scope: &SigningScope<'_>,
    host: &str,
    target: &str,
    token: Option<&SecretString>,
    body: String,
) -> http::Result<Request<Bytes>> {
    let (time, token) = (scope.timestamp, token.map(ExposeSecret::expose_secret));
    let mut fields = vec![("content-type", JSON), ("host", host), ("x-amz-date", time)];
    fields.extend(token.map(|token| ("x-amz-security-token", token)));
    fields.push(("x-amz-target", target));
    let mut shown = HeaderValue::try_from(authorization(scope, "POST", "/", &fields, body.as_bytes()))?;
    shown.set_sensitive(true);
    let request = Request::post("/").header(CONTENT_TYPE, JSON).header(HOST, host);
    let request = request.header("x-amz-date", time).header("x-amz-target", target).header(AUTHORIZATION, shown);
    let request = match token {
        Some(token) => {
            let mut token = HeaderValue::try_from(token)?;
            token.set_sensitive(true);
            request.header("x-amz-security-token", token)
        }
        None => request,
    };
    request.body(Bytes::from(body))
}

/// Returns the value of `Authorization`. `fields` are in the order of their names, which are lower-case, and their values
/// have no outer spaces; `host` and `x-amz-date` are among them.
pub fn authorization(
    scope: &SigningScope<'_>,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: &[u8],
) -> String {
    let names = fields.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = fields.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical = format!("{method}\n{path}\n\n{lines}\n{names}\n{}", hex(&sha256(body)));
    let (place, signature) = (place(scope), signature(scope, &canonical));
    format!("{ALGORITHM} Credential={}/{place}, SignedHeaders={names}, Signature={signature}", scope.access_key_id)
}

/// Returns the query of a signed `GET` of `path` at `host`, whose only signed field is `host`: the parameters by name, each
/// encoded, and the signature behind them. `parameters` are those of the request itself, `expires` its life in seconds,
/// `payload` the hash of a body as the service wants it written.
pub fn presigned_query(
    scope: &SigningScope<'_>,
    session_token: Option<&SecretString>,
    (host, path): (&str, &str),
    parameters: &[(&str, &str)],
    expires: u32,
    payload: &str,
) -> SecretString {
    let credential = format!("{}/{}", scope.access_key_id, place(scope));
    let expires = expires.to_string();
    let mut all = vec![
        ("X-Amz-Algorithm", ALGORITHM),
        ("X-Amz-Credential", &credential),
        ("X-Amz-Date", scope.timestamp),
        ("X-Amz-Expires", &expires),
        ("X-Amz-SignedHeaders", "host"),
    ];
    all.extend(session_token.map(|token| ("X-Amz-Security-Token", token.expose_secret())));
    all.extend(parameters);
    all.sort_unstable();
    let pairs: Vec<String> = all.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    let query = pairs.join("&");
    let canonical = format!("GET\n{path}\n{query}\nhost:{host}\n\nhost\n{payload}");
    let signature = signature(scope, &canonical);
    SecretString::from(format!("{query}&X-Amz-Signature={signature}"))
}

/// Encodes all but the unreserved characters of RFC 3986, as the canonical request wants it.
fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, UNRESERVED).to_string()
}

fn place(scope: &SigningScope<'_>) -> String {
    format!("{}/{}/{}/aws4_request", date(scope), scope.region, scope.service)
}

fn date<'a>(scope: &SigningScope<'a>) -> &'a str {
    scope.timestamp.get(..8).unwrap_or_default()
}

/// Signs a canonical request.
fn signature(scope: &SigningScope<'_>, canonical: &str) -> String {
    let digest = hex(&sha256(canonical.as_bytes()));
    let text = format!("{ALGORITHM}\n{}\n{}\n{digest}", scope.timestamp, place(scope));
    hex(keyed(signing_key(scope, date(scope)).as_ref(), &text).as_ref())
}

fn signing_key(scope: &SigningScope<'_>, date: &str) -> hmac::Tag {
    let secret = SecretString::from(format!("AWS4{}", scope.secret_access_key.expose_secret()));
    let of_date = keyed(secret.expose_secret().as_bytes(), date);
    let of_region = keyed(of_date.as_ref(), scope.region);
    let of_service = keyed(of_region.as_ref(), scope.service);
    keyed(of_service.as_ref(), "aws4_request")
}

fn keyed(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "20150830T123600Z";

    /// The scope of AWS's published test suite.
    fn signed(method: &str, more: &[(&str, &str)]) -> String {
        let secret = SecretString::from("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        let scope = SigningScope {
            access_key_id: "AKIDEXAMPLE",
            secret_access_key: &secret,
            region: "us-east-1",
            service: "service",
            timestamp: TIME,
        };
        let fields = [&[("host", "example.amazonaws.com"), ("x-amz-date", TIME)], more].concat();
        authorization(&scope, method, "/", &fields, b"")
    }

    #[test]
    fn the_published_vectors_are_signed_as_published() {
        let credential = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request";
        let plain = "SignedHeaders=host;x-amz-date";
        for (method, signature_of_vector) in [
            ("GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ] {
            let expected = format!("{credential}, {plain}, Signature={signature_of_vector}");
            assert_eq!(signed(method, &[]), expected);
        }
        let token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
        let made = signed("GET", &[("x-amz-security-token", token)]);
        let expected = "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8";
        assert!(made.ends_with(&format!("Signature={expected}")), "{made}");
    }

    #[test]
    fn a_time_is_written_in_the_basic_form() {
        assert_eq!(timestamp(1_440_938_160_000), TIME);
    }

    #[test]
    fn a_url_is_signed_as_the_published_example() {
        let secret = SecretString::from("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let scope = SigningScope {
            access_key_id: "AKIAIOSFODNN7EXAMPLE",
            secret_access_key: &secret,
            region: "us-east-1",
            service: "s3",
            timestamp: "20130524T000000Z",
        };
        let place = ("examplebucket.s3.amazonaws.com", "/test.txt");
        let query = presigned_query(&scope, None, place, &[], 86_400, "UNSIGNED-PAYLOAD");
        assert_eq!(
            query.expose_secret(),
            "X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
             &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
        let token = SecretString::from("a/b+c=");
        let query = presigned_query(&scope, Some(&token), place, &[("User", "me"), ("Action", "connect")], 1, "");
        let begins = "Action=connect&User=me&X-Amz-Algorithm=AWS4-HMAC-SHA256&";
        assert!(query.expose_secret().starts_with(begins), "by name");
        assert!(query.expose_secret().contains("&X-Amz-Expires=1&X-Amz-Security-Token=a%2Fb%2Bc%3D&"), "encoded");
    }
}

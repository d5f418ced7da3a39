//! `WWW-Authenticate`: what the challenges of an answer say (RFC 9110 section 11.6.1, RFC 6750 section 3).

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// The scheme of RFC 6750.
pub(super) const BEARER: &str = "Bearer";

/// All schemes under which servers speak of bearer tokens: some name the protocol instead.
pub(super) const KIN: [&str; 3] = [BEARER, "OAuth", "OAuth2"];

/// The `error` of every challenge of these schemes in an answer, unquoted, in order.
pub(super) fn errors<S: AsRef<str>>(headers: &HeaderMap, schemes: &[S]) -> Vec<String> {
    let mut found = Vec::new();
    for value in headers.get_all(WWW_AUTHENTICATE) {
        scan(value.as_bytes(), schemes, &mut found);
    }
    found
}

/// Scans one field value, which may hold several challenges. A comma separates challenges as well as parameters, so a
/// word is a parameter's name if `=` and a value follow, and a scheme otherwise. Text that fits neither (a `token68`, a
/// mistake) is skipped up to the next comma.
fn scan<S: AsRef<str>>(bytes: &[u8], schemes: &[S], found: &mut Vec<String>) {
    let mut cursor = ChallengeScanner { bytes, at: 0 };
    let mut wanted = false;
    while !cursor.done() {
        cursor.skip(|b| matches!(b, b' ' | b'\t' | b','));
        let word = cursor.take(is_token);
        if word.is_empty() {
            cursor.skip_item();
            continue;
        }
        let spaces = cursor.skip(|b| matches!(b, b' ' | b'\t'));
        if cursor.peek() == Some(b'=') {
            cursor.at += 1;
            cursor.skip(|b| matches!(b, b' ' | b'\t'));
            match cursor.value() {
                Some(value) if wanted && word.eq_ignore_ascii_case(b"error") => found.push(value),
                Some(_) => {}
                None => cursor.skip_item(),
            }
        } else if spaces > 0 || matches!(cursor.peek(), None | Some(b',')) {
            wanted = schemes.iter().any(|scheme| word.eq_ignore_ascii_case(scheme.as_ref().as_bytes()));
        } else {
            cursor.skip_item();
        }
    }
}

struct ChallengeScanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> ChallengeScanner<'a> {
    /// A token or a quoted string, unescaped.
    fn value(&mut self) -> Option<String> {
        if self.peek() != Some(b'"') {
            let word = self.take(is_token);
            return (!word.is_empty()).then(|| String::from_utf8_lossy(word).into_owned());
        }
        self.at += 1;
        let mut text = Vec::new();
        loop {
            match self.next()? {
                b'"' => return Some(String::from_utf8_lossy(&text).into_owned()),
                b'\\' => text.push(self.next()?),
                byte => text.push(byte),
            }
        }
    }

    /// Moves to the next comma outside of quotes.
    fn skip_item(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b',' => return,
                b'"' => {
                    let _ = self.value();
                }
                _ => self.at += 1,
            }
        }
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) -> usize {
        self.take(wanted).len()
    }

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().take_while(|b| wanted(**b)).count();
        self.at += len;
        rest.get(..len).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn done(&self) -> bool {
        self.at >= self.bytes.len()
    }
}

/// A `tchar` of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn errors_in(values: &[&str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).expect("a good value"));
        }
        errors(&headers, &[BEARER])
    }

    #[test]
    fn the_error_of_a_bearer_challenge_is_found_among_others() {
        for text in [
            r#"Bearer error="invalid_token""#,
            r"bearer error=invalid_token",
            r#"Bearer realm="a, error=\"no\"", error = "invalid_token", error_description="gone""#,
            r#"Basic realm="x", Bearer realm="y", error="invalid_token""#,
            r#"Negotiate YII/ab+c==, Bearer error="invalid_token""#,
            r#"Negotiate, Bearer , error="invalid_token", Basic error="no""#,
            r#"Bearer error="invalid\_token""#,
        ] {
            assert_eq!(errors_in(&[text]), ["invalid_token"], "{text}");
        }
        assert_eq!(errors_in(&["Basic realm=x", "Bearer error=a", "Bearer error=b"]), ["a", "b"]);
    }

    #[test]
    fn what_is_no_bearer_error_is_not_taken_for_one() {
        for text in [
            r#"Basic error="invalid_token""#,
            r#"Bearer realm="error=invalid_token""#,
            r#"Bearer error="invalid_token"#,
            r"Bearer error=",
            "Bearer",
            r#"error="invalid_token""#,
            r#"Bearer xerror="invalid_token""#,
        ] {
            assert!(errors_in(&[text]).is_empty(), "{text}");
        }
    }

    #[test]
    fn other_schemes_count_where_they_are_named() {
        let text = r#"OAuth2 realm="API", error="invalid_token", Basic error="no", OAuth error="expired""#;
        let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_str(text).expect("a good value"))]);
        assert!(errors(&headers, &[BEARER]).is_empty());
        assert_eq!(errors(&headers, &KIN), ["invalid_token", "expired"]);
        assert_eq!(errors(&headers, &["oauth2"]), ["invalid_token"]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_or_hang(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            scan(&bytes, &KIN, &mut Vec::new());
        }

        #[test]
        fn arbitrary_punctuation_never_panics_or_hangs(text in r#"[Ber =,"\\a]{0,60}"#) {
            scan(text.as_bytes(), &KIN, &mut Vec::new());
        }
    }
}

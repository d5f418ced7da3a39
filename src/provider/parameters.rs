//! Cookies and query parameters that are put on a call: pairs that stand beside a client's own.
//!
//! A client's own pair of the same name never reaches the provider. Names are compared as leniently as any server might
//! read them, and every other byte of a query stays as it came.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use zeroize::Zeroizing;

use crate::provider::template::{Fill, FilledText};
use crate::token::grant::{CallCredentials, CallPlace};

/// All but the unreserved characters of RFC 3986 section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Names with their texts, in the order of the profile. One without a text is made from the token, or has no value.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters(Vec<(Arc<str>, Option<FilledText>)>);

/// Names with their values for one attempt.
pub(super) type RenderedParameters = Vec<(Arc<str>, Zeroizing<String>)>;

impl Parameters {
    /// Adds one.
    pub(super) fn push(&mut self, name: Arc<str>, text: Option<FilledText>) {
        self.0.push((name, text));
    }

    /// Returns whether there is none.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values for one attempt: from `credentials`, or made now. Those that lack a value are left out.
    pub(super) fn render(
        &self,
        fill: &mut Fill<'_>,
        credentials: &CallCredentials,
        named: for<'a> fn(&'a CallPlace) -> Option<&'a Arc<str>>,
    ) -> RenderedParameters {
        let mut rendered = Vec::with_capacity(self.0.len());
        for (name, text) in &self.0 {
            let value = match text {
                Some(text) => text.render(fill),
                None => {
                    let found = credentials.iter().find(|(place, _)| named(place) == Some(name));
                    found.and_then(|(_, value)| Some(Zeroizing::new(value.to_str().ok()?.to_owned())))
                }
            };
            rendered.extend(value.map(|value| (name.clone(), value)));
        }
        rendered
    }

    /// Returns whether a cookie of this name is one of them: some servers ignore the case of letters.
    pub(super) fn has_cookie(&self, name: &[u8]) -> bool {
        self.0.iter().any(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name))
    }

    /// A request target with these parameters at its end, and without others of their names.
    pub(super) fn put_into(&self, path_and_query: &str, rendered: &RenderedParameters) -> Zeroizing<String> {
        let (path, query) = path_and_query.split_once('?').map_or((path_and_query, None), |(a, b)| (a, Some(b)));
        let mut out = Zeroizing::new(String::with_capacity(path_and_query.len() + 256));
        out.push_str(path);
        let mut is_first = true;
        let mut push = |separator: char, out: &mut String| {
            out.push(if is_first { '?' } else { separator });
            is_first = false;
        };
        // Servers that follow HTML 4 also separate at `;`, so a parameter may hide behind one.
        let mut next = query.map(|query| ('&', query));
        while let Some((separator, text)) = next {
            let (pair, behind) = text.find(['&', ';']).map_or((text, None), |at| {
                let (pair, behind) = text.split_at(at);
                (pair, Some((if behind.starts_with(';') { ';' } else { '&' }, behind.get(1..).unwrap_or_default())))
            });
            if !self.has_parameter(pair) {
                push(separator, &mut out);
                out.push_str(pair);
            }
            next = behind;
        }
        for (name, value) in rendered {
            push('&', &mut out);
            out.extend(utf8_percent_encode(name, RESERVED));
            out.push('=');
            out.extend(utf8_percent_encode(value, RESERVED));
        }
        out
    }

    /// Returns whether a pair of a query has the name of one of them, in any reading.
    fn has_parameter(&self, pair: &str) -> bool {
        let name = pair.split('=').next().unwrap_or_default();
        let decoded: Vec<u8> = percent_decode(name.as_bytes()).collect();
        // PHP reads `a.b`, `a b` and `a[b` as `a_b`, and `a[]` as a list of the name `a`; spaces before a name do not count.
        let plain = |byte: u8| if matches!(byte, b'.' | b' ' | b'+' | b'[') { b'_' } else { byte.to_ascii_lowercase() };
        let normal = |name: &[u8]| name.trim_ascii_start().iter().map(|byte| plain(*byte)).collect::<Vec<u8>>();
        let decoded = decoded.strip_prefix(b"+").unwrap_or(&decoded);
        let (whole, base) = (normal(decoded), normal(decoded.split(|byte| *byte == b'[').next().unwrap_or_default()));
        self.0.iter().map(|(known, _)| normal(known.as_bytes())).any(|known| known == whole || known == base)
    }
}

/// Returns whether a cookie can have this value (RFC 6265 section 4.1.1, with quotes and backslashes).
pub(super) fn is_cookie_value(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b';' | b','))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(path_and_query: &str) -> String {
        let mut parameters = Parameters::default();
        parameters.push("access_token".into(), None);
        let rendered = vec![("access_token".into(), Zeroizing::new("t/1".to_owned()))];
        parameters.put_into(path_and_query, &rendered).to_string()
    }

    #[test]
    fn a_parameter_takes_the_place_of_the_clients_and_the_rest_stays() {
        for (sent, out) in [
            ("/a", "/a?access_token=t%2F1"),
            ("/a?", "/a?&access_token=t%2F1"),
            ("/a?x=%2Fy&access_token=forged&z", "/a?x=%2Fy&z&access_token=t%2F1"),
            ("/a?access_token=forged&z=1", "/a?z=1&access_token=t%2F1"),
            ("/a?access_token=forged", "/a?access_token=t%2F1"),
            ("/a?x=1;access_token=forged;y=2", "/a?x=1;y=2&access_token=t%2F1"),
            ("/a?x=1;y=2&z", "/a?x=1;y=2&z&access_token=t%2F1"),
            ("/a?Access%5FToken=forged", "/a?access_token=t%2F1"),
            ("/a?access.token=f&access%20token=f&access+token=f&+access_token=f", "/a?access_token=t%2F1"),
            ("/a?access_token[]=f&access_token%5B0%5D=f", "/a?access_token=t%2F1"),
            ("/a?access_tokens=kept&access=kept", "/a?access_tokens=kept&access=kept&access_token=t%2F1"),
        ] {
            assert_eq!(put(sent), out, "{sent}");
        }
    }

    #[test]
    fn a_cookie_has_no_character_that_ends_it() {
        assert!(is_cookie_value("AbC-1.2_3/=+\"%"));
        for text in ["a;b", "a b", "a,b", "a\u{e9}", "a\r"] {
            assert!(!is_cookie_value(text), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_query_without_the_name_stays_byte_for_byte(query in "[b-z=&;%0-9.+]{0,40}") {
            let out = put(&format!("/p?{query}"));
            prop_assert_eq!(out, format!("/p?{query}&access_token=t%2F1"));
        }
    }
}

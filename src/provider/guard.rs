//! The provider's own endpoints that no route may reach: token, authorize, refresh.
//!
//! A route hands the provider's path on as it came, so the comparison reads a path as leniently as any server might:
//! letters of either case, percent-encoding, doubled slashes, path parameters, a slash at the end.

use crate::base::origin::BaseUrl;

/// The guarded endpoints of one provider.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    /// Base URL of the provider's API.
    pub base: BaseUrl,
    /// Origin and whole path of the token endpoint; `None`: there is none.
    token: Option<(BaseUrl, String)>,
    /// Origins with whole paths of all endpoints, the token endpoint among them.
    endpoints: Vec<(BaseUrl, String)>,
}

impl Guard {
    /// Guards the token endpoint, other endpoints of the provider's `own`, and the profile's `paths`, which lie under
    /// `base`.
    pub(super) fn new(base: BaseUrl, token: Option<&BaseUrl>, own: &[BaseUrl], paths: &[String]) -> Self {
        let whole = |url: &BaseUrl| (url.clone(), normal(url.path()).collect());
        let token = token.map(whole);
        let mut endpoints: Vec<(BaseUrl, String)> = token.iter().cloned().chain(own.iter().map(whole)).collect();
        for path in paths {
            endpoints.push((base.clone(), normal(&format!("{}{path}", base.path())).collect()));
        }
        Self { base, token, endpoints }
    }

    /// Returns whether `path` under `upstream` is the token endpoint.
    pub(super) fn is_token_endpoint(&self, upstream: &BaseUrl, path: &str) -> bool {
        self.token.as_ref().is_some_and(|token| is(token, upstream, path, is_plain(path)))
    }

    /// Returns whether `path` under the provider's base URL is one of them.
    pub(super) fn holds(&self, path: &str) -> bool {
        self.holds_under(&self.base, path)
    }

    /// Returns whether `path` under `upstream` is one of them.
    pub(super) fn holds_under(&self, upstream: &BaseUrl, path: &str) -> bool {
        let plain = is_plain(path);
        self.endpoints.iter().any(|endpoint| is(endpoint, upstream, path, plain))
    }
}

/// Returns whether `path` under `upstream` is this endpoint. A plain path has one reading but for the case of its
/// letters, and a base path is plain.
fn is((origin, endpoint): &(BaseUrl, String), upstream: &BaseUrl, path: &str, plain: bool) -> bool {
    if !origin.same_origin(upstream) {
        return false;
    }
    if plain {
        let (base, endpoint) = (upstream.path().as_bytes(), endpoint.as_bytes());
        return endpoint.len() == base.len() + path.len()
            && endpoint[..base.len()].eq_ignore_ascii_case(base)
            && endpoint[base.len()..].eq_ignore_ascii_case(path.as_bytes());
    }
    let path = path.split(['?', '#']).next().unwrap_or_default();
    normal_pair(upstream.path(), path).eq(endpoint.chars())
}

/// Returns whether a path has nothing to normalize but the case of its letters, and no query follows it.
fn is_plain(path: &str) -> bool {
    let mut before = b' ';
    for byte in path.bytes() {
        match byte {
            b'%' | b';' | b'?' | b'#' | 0x80.. => return false,
            b'/' if before == b'/' => return false,
            _ => before = byte,
        }
    }
    path.starts_with('/') && before != b'/'
}

fn normal(path: &str) -> impl Iterator<Item = char> {
    normal_pair(path, "")
}

/// The characters of `base` + `path`, read as leniently as any server might. No allocation.
fn normal_pair<'a>(base: &'a str, path: &'a str) -> impl Iterator<Item = char> + 'a {
    let mut bytes = Decoded { inner: base.as_bytes(), next: path.as_bytes() }.peekable();
    std::iter::from_fn(move || {
        loop {
            match bytes.next()? {
                b';' => while bytes.next_if(|b| *b != b'/').is_some() {},
                b'/' => {
                    // Slashes and empty segments with parameters in a row are one slash, and none at the end.
                    while let Some(byte) = bytes.next_if(|b| matches!(b, b'/' | b';')) {
                        while byte == b';' && bytes.next_if(|b| *b != b'/').is_some() {}
                    }
                    if bytes.peek().is_some() {
                        return Some('/');
                    }
                }
                byte => return Some(char::from(byte.to_ascii_lowercase())),
            }
        }
    })
}

/// Bytes with `%xx` undone, once.
struct Decoded<'a> {
    inner: &'a [u8],
    next: &'a [u8],
}

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if self.inner.is_empty() {
            self.inner = std::mem::take(&mut self.next);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        if let [b'%', high, low, rest @ ..] = self.inner
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            self.inner = rest;
            return Some(high * 16 + low);
        }
        let (first, rest) = self.inner.split_first()?;
        self.inner = rest;
        Some(*first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guard(base: &str, token: &str) -> Guard {
        let url = |text| BaseUrl::parse(text).expect("a good URL");
        Guard::new(url(base), Some(&url(token)), &[], &["/v2/oauth/authorize".to_owned()])
    }

    #[test]
    fn an_endpoint_is_recognised_in_every_spelling() {
        let guard = guard("https://bank.example/sb/api", "https://bank.example/sb/api/v1/oauth/token");
        for path in [
            "/v1/oauth/token",
            "/v1/oauth/token/",
            "/V1/OAuth/Token",
            "/v1/oauth/%74oken",
            "/v1//oauth/token",
            "/v1/oauth;a=b/token;x",
            "/v1/oauth/;a/token/;b/",
            "/v1/oauth/token?x=/y",
            "/v1%2foauth/token",
            "/v2/oauth/authorize?a=b",
        ] {
            assert!(guard.holds(path), "{path}");
        }
        for path in [
            "",
            "/",
            "/v1/oauth",
            "/v1/oauth/tokens",
            "/v1/oauth/token/refresh",
            "/x/v1/oauth/token",
            "/v1/oauth/%2574oken",
        ] {
            assert!(!guard.holds(path), "{path}");
        }
    }

    #[test]
    fn a_token_url_counts_wherever_a_route_can_reach_it() {
        let url = |text| BaseUrl::parse(text).expect("a good URL");
        let guard = guard("https://bank.example/sb/api", "https://bank.example/rb/api/oauth2/token");
        assert!(!guard.holds("/oauth2/token"), "another base path");
        assert!(guard.holds_under(&url("https://bank.example"), "/rb/api/oauth2/token"));
        assert!(guard.holds_under(&url("https://bank.example/rb"), "/api/oauth2/token"));
        assert!(!guard.holds_under(&url("https://other.example"), "/rb/api/oauth2/token"));
        assert!(!guard.holds_under(&url("https://bank.example:8443"), "/rb/api/oauth2/token"));
    }

    proptest! {
        #[test]
        fn arbitrary_paths_never_panic(path in any::<String>(), odd in "[/;%2fF?a]{0,30}") {
            let guard = guard("https://bank.example", "https://bank.example/token");
            let _ = (guard.holds(&path), guard.holds(&odd));
        }

        #[test]
        fn a_plain_path_is_compared_as_any_other(base in "(/[aA]b?){0,3}", path in "(/|[aA]|b|%61|;|\\?){0,6}", own in "(/[aA]b?){1,4}") {
            let upstream = BaseUrl::parse(&format!("https://bank.example{base}")).unwrap();
            let endpoint = (upstream.clone(), normal(&own).collect::<String>());
            prop_assert_eq!(is(&endpoint, &upstream, &path, is_plain(&path)), is(&endpoint, &upstream, &path, false));
        }
    }
}

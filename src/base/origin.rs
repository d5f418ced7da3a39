//! `https` origins with a base path: where providers live.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::ServerName;

/// An `https` URL without query or fragment, taken apart once: host, port and base path.
///
/// The host is lower-case ASCII (IPv6 in brackets); the base path is empty or starts with `/` and has no `/` at its
/// end. No other URL is representable, so joining a path to it is plain concatenation.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct BaseUrl {
    host: Arc<str>,
    server_name: ServerName<'static>,
    port: u16,
    path: Arc<str>,
}

impl BaseUrl {
    /// Reads `https://host[:port][/base/path]`. The error says what is wrong, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => rest,
            Some((scheme, _)) => {
                return Err(format!("the scheme is `{scheme}`; a token never travels without TLS: write `https://…`"));
            }
            None => return Err("not a URL: write `https://host/path`".to_owned()),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if let Some(bad) = rest.chars().find(|c| matches!(c, '?' | '#')) {
            return Err(format!("a base URL has no `{bad}`"));
        }
        if authority.contains('@') {
            return Err("credentials do not belong in a URL".to_owned());
        }
        let (host, port) = split_port(authority)?;
        if host.is_empty() {
            return Err("the host is missing".to_owned());
        }
        let host = host.to_ascii_lowercase();
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let bare = match bracketed {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok().then_some(inner),
            None => host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)).then_some(&*host),
        };
        let Some(server_name) = bare.and_then(|bare| ServerName::try_from(bare.to_owned()).ok()) else {
            return Err(format!("`{host}` is not a host name or address"));
        };
        let path = path.trim_end_matches('/');
        let plain = path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'%' && b != b';');
        if !plain || path.contains("//") || path.split('/').any(|s| s == "." || s == "..") {
            return Err("the base path must be plain segments".to_owned());
        }
        Ok(Self { host: host.into(), server_name, port, path: path.into() })
    }

    /// The host, as it goes into SNI and `Host` (IPv6 in brackets).
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host without brackets, as a resolver wants it.
    pub fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The name that its certificate must carry.
    pub const fn server_name(&self) -> &ServerName<'static> {
        &self.server_name
    }

    /// Returns the TCP port; 443 if the URL names none.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The base path: empty, or `/like/this`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `host` or `host:port`, as it goes into the `Host` field (RFC 9110 section 7.2).
    pub fn authority(&self) -> String {
        if self.port == 443 { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }

    /// Returns whether both lead to the same host and port.
    pub fn same_origin(&self, other: &Self) -> bool {
        self.host == other.host && self.port == other.port
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority(), self.path)
    }
}

/// The URL of one endpoint: a [`BaseUrl`], and the query that belongs to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointUrl {
    /// Origin and path. Unlike that of an API, the path keeps a slash at its end.
    pub base: BaseUrl,
    /// The query without `?`; `None` if the URL has none.
    pub query: Option<Arc<str>>,
}

impl EndpointUrl {
    /// Reads `https://host[:port][/path][?query]`. The error says what is wrong, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (base, query) = text.split_once('?').map_or((text, None), |(base, query)| (base, Some(query)));
        let fits = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte);
        if query.is_some_and(|query| !query.bytes().all(fits)) {
            return Err("its query has a character that must be percent-encoded".to_owned());
        }
        let query = query.filter(|query| !query.is_empty()).map(Arc::from);
        let mut parsed = BaseUrl::parse(base)?;
        // An endpoint is called as it is written; some servers know it only with the slash at its end.
        if base.ends_with('/') && !parsed.path.is_empty() {
            parsed.path = format!("{}/", parsed.path).into();
        }
        Ok(Self { base: parsed, query })
    }
}

impl From<BaseUrl> for EndpointUrl {
    fn from(base: BaseUrl) -> Self {
        Self { base, query: None }
    }
}

fn split_port(authority: &str) -> Result<(&str, u16), String> {
    let after_bracket = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[after_bracket..].find(':') {
        None => Ok((authority, 443)),
        Some(at) => {
            let (host, port) = authority.split_at(after_bracket + at);
            match port[1..].parse::<u16>() {
                Ok(port) if port != 0 => Ok((host, port)),
                _ => Err(format!("`{}` is not a port", &port[1..])),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_taken_apart() {
        let url = BaseUrl::parse("https://API-sandbox.partners.scb/partners/sandbox/").expect("a good URL");
        assert_eq!((url.host(), url.port(), url.path()), ("api-sandbox.partners.scb", 443, "/partners/sandbox"));
        assert_eq!(url.to_string(), "https://api-sandbox.partners.scb/partners/sandbox");
        let url = BaseUrl::parse("https://[::1]:8443").expect("a good URL");
        assert_eq!((url.host(), url.bare_host(), url.port(), url.path()), ("[::1]", "::1", 8443, ""));
        assert_eq!(url.authority(), "[::1]:8443");
    }

    #[test]
    fn an_endpoint_may_have_a_query_of_its_own() {
        let url = EndpointUrl::parse("https://bank.example/token?version=2&a=%20").expect("a good URL");
        assert_eq!(
            (url.base.to_string().as_str(), url.query.as_deref()),
            ("https://bank.example/token", Some("version=2&a=%20"))
        );
        assert_eq!(EndpointUrl::parse("https://bank.example/token?").expect("a good URL").query, None);
        for text in
            ["https://bank.example/token?a b", "https://bank.example/token?a#b", "https://bank.example?a=\u{e9}"]
        {
            assert!(EndpointUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_https_base_is_refused_with_the_reason() {
        for (text, reason) in [
            ("http://bank.example", "without TLS"),
            ("bank.example", "not a URL"),
            ("https://", "host is missing"),
            ("https://bank.example?x=1", "no `?`"),
            ("https://user:pw@bank.example", "credentials"),
            ("https://bank.example:0", "not a port"),
            ("https://bank.example/a/../b", "plain segments"),
            ("https://bank.example/a%2fb", "plain segments"),
            ("https://ba nk.example", "not a host name"),
        ] {
            let error = BaseUrl::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}

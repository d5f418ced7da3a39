//! URLs to which a browser may be redirected at the end of a consent: `return_to`, and the rules that allow it.
//!
//! The application supplies the URL and a browser follows it; two parsers can read one URL in different ways. So no URL
//! is repaired or resolved: a URL either has exactly one plain reading, or it is refused.

use std::fmt;

use crate::base::origin::BaseUrl;

/// The longest URL, in bytes.
const LONGEST: usize = 2048;

/// One entry of `return_to` in `proxy.toml`: an origin with a path, or with all paths below one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReturnRule {
    site: WebOrigin,
    /// The whole path, or with `below` what it begins with; ends in `/` then.
    path: String,
    below: bool,
}

/// A URL that a rule allowed. Only [`ReturnRule::permit`] creates one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReturnTo(String);

impl ReturnTo {
    /// The URL as the application wrote it: visible ASCII, safe in a `Location` field.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Scheme (`tls`: `https`), host and port of a URL.
#[derive(Clone, Debug, Eq, PartialEq)]
struct WebOrigin {
    tls: bool,
    host: String,
    port: u16,
}

/// The components of a parsed URL.
struct UrlParts<'a> {
    site: WebOrigin,
    path: &'a str,
    query: Option<&'a str>,
}

impl ReturnRule {
    /// Reads `https://host[:port]/path` or `https://host[:port]/path/*`; the path of `https://host` is `/`. Plain
    /// `http` is for loopback names only. The error says what is wrong, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (url, below) = match text.strip_suffix('*') {
            Some(url) if url.ends_with('/') && !url.ends_with("://") => (url, true),
            Some(_) => return Err("`*` stands for whole segments: write it after a `/`, at the end".to_owned()),
            None => (text, false),
        };
        if url.contains('*') {
            return Err("`*` may only stand at the end, after a `/`".to_owned());
        }
        let parts = take_apart(url)?;
        if parts.query.is_some() {
            return Err("a rule has no `?`: what an application asks for may have any query".to_owned());
        }
        Ok(Self { site: parts.site, path: parts.path.to_owned(), below })
    }

    /// The first of these rules that allows `url` makes a [`ReturnTo`] of it. The error is for the application.
    pub fn permit(rules: &[ReturnRule], url: &str) -> Result<ReturnTo, String> {
        let parts = take_apart(url)?;
        let fits = |rule: &ReturnRule| {
            let path = if rule.below { parts.path.starts_with(&rule.path) } else { parts.path == rule.path };
            rule.site == parts.site && path
        };
        if rules.iter().any(fits) {
            Ok(ReturnTo(url.to_owned()))
        } else {
            Err("it is not among the places that `return_to` of this provider allows".to_owned())
        }
    }
}

impl fmt::Display for ReturnRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, path, below } = self;
        let (scheme, usual) = if site.tls { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", site.host)?;
        if site.port != usual {
            write!(f, ":{}", site.port)?;
        }
        write!(f, "{path}{}", if *below { "*" } else { "" })
    }
}

fn take_apart(url: &str) -> Result<UrlParts<'_>, String> {
    if url.is_empty() || url.len() > LONGEST {
        return Err(format!("a URL has 1 to {LONGEST} characters"));
    }
    if let Some(odd) = url.chars().find(|c| !c.is_ascii_graphic() || r#""<>\^`{|}"#.contains(*c)) {
        return Err(format!("a URL has no {odd:?}"));
    }
    if url.contains('#') {
        return Err("it must have no fragment".to_owned());
    }
    let (tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err("it must begin with `https://`".to_owned()),
    };
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.bytes().any(|b| !(b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))) {
        return Err("its host is not plain: no user, no password, no percent-encoding".to_owned());
    }
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let path = if path.is_empty() { "/" } else { path };
    plain(path)?;
    // The one reader of hosts and ports that this project has; a second one would read something differently.
    let base = BaseUrl::parse(&format!("https://{}", with_port(authority, if tls { 443 } else { 80 })))?;
    let host = base.host();
    if host.ends_with('.') || host.starts_with('.') || host.contains("..") {
        return Err("its host has an empty label".to_owned());
    }
    if !tls && !matches!(base.bare_host(), "localhost" | "127.0.0.1" | "::1") {
        return Err("plain `http` is for `localhost` only: write `https://`".to_owned());
    }
    Ok(UrlParts { site: WebOrigin { tls, host: host.to_owned(), port: base.port() }, path, query })
}

/// The authority with the scheme's own port where it names none.
fn with_port(authority: &str, usual: u16) -> String {
    let after_bracket = authority.rfind(']').map_or(0, |at| at + 1);
    let names_one = authority.get(after_bracket..).is_some_and(|rest| rest.contains(':'));
    if names_one { authority.to_owned() } else { format!("{authority}:{usual}") }
}

/// Checks that a path has only one reading; the error names the reason.
fn plain(path: &str) -> Result<(), String> {
    if path.contains("//") {
        return Err("its path has an empty segment".to_owned());
    }
    if path.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | ".."))) {
        return Err("its path has dot segments".to_owned());
    }
    for (at, _) in path.match_indices('%') {
        let code = path.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        // Dots, slashes, backslashes, the percent sign itself, and what no path prints.
        match code {
            Some(b'.' | b'/' | b'\\' | b'%' | b';' | 0..=0x1f | 0x7f) | None => {
                return Err("its path hides something behind percent-encoding".to_owned());
            }
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(texts: &[&str]) -> Vec<ReturnRule> {
        texts.iter().map(|text| ReturnRule::parse(text).expect(text)).collect()
    }

    #[test]
    fn what_a_rule_names_is_allowed() {
        let rules = rules(&[
            "https://app.example/*",
            "https://other.example:8443/a/*",
            "https://third.example/done",
            "http://localhost:3000/*",
        ]);
        for url in [
            "https://app.example",
            "https://app.example/",
            "https://APP.example/done?x=https://evil.example/../#"[..].trim_end_matches('#'),
            "https://app.example:443/a/b%20c",
            "https://app.example/a;b=c/d",
            "https://other.example:8443/a/",
            "https://other.example:8443/a/b",
            "https://third.example/done",
            "https://third.example/done?a=%2f",
            "http://localhost:3000/x",
        ] {
            assert_eq!(ReturnRule::permit(&rules, url).map(|to| to.as_str().to_owned()), Ok(url.to_owned()), "{url}");
        }
    }

    /// Every trick of the open-redirect books that we know of.
    #[test]
    fn what_only_looks_like_it_is_refused() {
        let rules = rules(&["https://app.example/app/*", "https://app.example/done", "https://whole.example/*"]);
        for url in [
            "",
            "/app/x",
            "//app.example/app/x",
            "app.example/app/x",
            "http://app.example/app/x",
            "HTTPS://app.example/app/x",
            "javascript:alert(1)//https://app.example/app/",
            "https:app.example/app/x",
            "https:/app.example/app/x",
            "https:///app.example/app/x",
            "https://app.example.evil.example/app/x",
            "https://evil.example/https://app.example/app/x",
            "https://evil.example?https://app.example/app/x",
            "https://app.example@evil.example/app/x",
            "https://user:pw@app.example/app/x",
            "https://app.example:8443/app/x",
            "https://app.example:0443/app/x/../../evil",
            "https://app.example:/app/x",
            "https://app.example:443:443/app/x",
            "https://app.example./app/x",
            "https://app.example%2eevil.example/app/x",
            "https://evil.example%2fapp.example/app/x",
            "https://app.example\\@evil.example/app/x",
            "https://evil.example\\app.example/app/x",
            "https://app.example/app/../evil",
            "https://app.example/app/..",
            "https://app.example/app/%2e%2e/evil",
            "https://app.example/app/.%2E/evil",
            "https://app.example/app/..;x=y/evil",
            "https://app.example/app/%2e%2e%2fevil",
            "https://app.example/app/%252e%252e/evil",
            "https://app.example/app/..%5cevil",
            "https://app.example/app//evil.example",
            "https://app.example//app/x",
            "https://app.example/APP/x",
            "https://app.example/application",
            "https://app.example/app",
            "https://app.example/done/",
            "https://app.example/app/x#fragment",
            "https://app.example/app/x\r\nLocation: https://evil.example",
            "https://app.example/app/x y",
            "https://app.example/app/\u{202e}x",
            "https://\u{430}pp.example/app/x",
            "https://app\u{3002}example/app/x",
            "https://app.example/app/%",
            "https://app.example/app/%0d%0ax",
            "https://app.example/app/<script>",
            "https://whole.example.evil.example/",
            "https://whole.example@evil.example/",
            "https://whole.example:1/",
            "https://wholeexample/",
        ] {
            assert!(ReturnRule::permit(&rules, url).is_err(), "{url:?}");
        }
        assert!(ReturnRule::permit(&rules, &format!("https://whole.example/{}", "a".repeat(2048))).is_err());
    }

    #[test]
    fn a_rule_that_would_allow_too_much_is_refused_with_the_reason() {
        for (text, reason) in [
            ("https://*", "whole segments"),
            ("https://app.example*", "whole segments"),
            ("https://app.example/app*", "whole segments"),
            ("https://*.example/", "only stand at the end"),
            ("https://*.example/*", "only stand at the end"),
            ("*", "whole segments"),
            ("http://app.example/*", "`localhost` only"),
            ("https://app.example/*?x=y", "only stand at the end"),
            ("https://app.example/?x=y", "no `?`"),
            ("https://app.example/#x", "fragment"),
            ("https://a@app.example/", "not plain"),
            ("app.example/*", "begin with"),
        ] {
            let error = ReturnRule::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert_eq!(
            ReturnRule::parse("https://app.example:443/a/*").expect("a rule").to_string(),
            "https://app.example/a/*"
        );
    }

    /// Reads a URL as a browser does: the WHATWG URL standard, as far as needed for these texts. Backslashes are
    /// slashes, tabs and line breaks are removed, text before the last `@` of the authority is not part of the host,
    /// dot segments are resolved.
    fn browser(url: &str) -> Option<(String, String)> {
        let url: String = url.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect();
        let url = url.trim().replace('\\', "/");
        let (scheme, rest) = url.split_once(':')?;
        if !scheme.eq_ignore_ascii_case("https") {
            return None;
        }
        let rest = rest.trim_start_matches('/');
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        let host = percent_encoding::percent_decode_str(host.strip_suffix(":443").unwrap_or(&host))
            .decode_utf8_lossy()
            .into_owned();
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        let mut segments: Vec<&str> = Vec::new();
        for segment in path.split('/').skip(1) {
            match segment.to_ascii_lowercase().replace("%2e", ".").as_str() {
                "." => {}
                ".." => drop(segments.pop()),
                _ => segments.push(segment),
            }
        }
        Some((host, format!("/{}", segments.join("/"))))
    }

    proptest! {
        #[test]
        fn arbitrary_texts_never_panic(text in any::<String>()) {
            let _ = ReturnRule::parse(&text);
            let _ = ReturnRule::permit(&rules(&["https://app.example/*"]), &text);
        }

        /// For every allowed URL, a browser goes to the allowed origin and below the allowed path.
        #[test]
        fn a_browser_goes_where_the_rule_says(
            tail in r#"(\.\./|%2e%2e/|\.%2E/|\.\.|/|a|evil|app\.example|[@:\\;?#%]|%2f|%5c){0,5}"#,
            middle in "(app\\.example|app\\.example|app\\.example|app\\.example:443|a@app\\.example|app\\.example\\\\|evil)",
            head in "(https://|https://|https://|https://|https:/|//|HTTPS://|https:\\\\\\\\)",
        ) {
            let rules = rules(&["https://app.example/app/*"]);
            for url in [format!("{head}{middle}{tail}"), format!("{head}{middle}/app/{tail}")] {
                if ReturnRule::permit(&rules, &url).is_ok() {
                    let (host, path) = browser(&url).expect("a browser can read it");
                    prop_assert_eq!(host, "app.example", "{}", &url);
                    prop_assert!(path.starts_with("/app/"), "{} leads to {}", &url, path);
                }
            }
        }
    }
}

//! Judgements of single words in other gateways' files: what is a credential, a reference, a duration, a name.

use std::time::Duration;

use super::draft::SecretPlace;

/// Headers that frame a message or that countersign sets itself; what a source says of them has no place in a config.
pub const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-connection",
    ":authority",
    ":path",
    ":method",
    ":scheme",
];

/// Words in names of headers and fields whose values are credentials.
const SECRET_WORDS: &[&str] =
    &["auth", "cookie", "credential", "key", "pass", "secret", "session", "signature", "token", "jwt", "pin", "cert"];

/// Tells whether a header of this name carries a credential.
pub fn is_credential_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Tells whether a value looks like a credential: it has a scheme, or a long word without a meaning.
pub fn is_credential_value(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let schemes = ["bearer ", "basic ", "token ", "digest ", "apikey ", "hmac "];
    schemes.iter().any(|scheme| lower.contains(scheme)) || value.split([' ', ',', ';', '=', ':']).any(is_random_word)
}

/// Twelve characters or more with digits and letters, as keys and tokens are, or a very long word.
fn is_random_word(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let letters = word.bytes().filter(u8::is_ascii_alphabetic).count();
    if word.starts_with("application/") || word.starts_with("text/") {
        return false;
    }
    word.len() >= 12 && digits >= 2 && letters >= 2 || word.len() >= 24
}

/// Tells whether a segment of a path looks like a key or token. Identifiers in the form of a UUID are none.
pub fn is_secret_segment(segment: &str) -> bool {
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let letters = segment.bytes().filter(u8::is_ascii_alphabetic).count();
    segment.len() >= 16 && digits >= 3 && letters >= 3 && !segment.contains(['-', '_', '.'])
}

/// Tells whether a value refers to something of a request or a variable.
pub fn is_dynamic(value: &str) -> bool {
    value.contains(['$', '%', '{', '}'])
}

/// Tells whether this is the name of a header field.
pub fn is_plain_header(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Tells whether this is the name of an environment variable.
pub fn env_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.len() <= 128 && name.bytes().all(plain) && !name.as_bytes()[0].is_ascii_digit()
}

/// Tells whether this may stand as a path in a config: printable, of sensible length, without variables.
pub fn safe_path(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= 1024
        && path != "-"
        && !path.chars().any(|c| c.is_control() || "${}<>|*?".contains(c))
}

/// A name for a provider, route or client: 1 to 64 letters, digits, `-` and `_`.
pub fn proxy_name(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || c == '_' => name.push(c),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
        if name.len() >= 60 {
            break;
        }
    }
    let name = name.trim_end_matches('-');
    if name.is_empty() { "imported".to_owned() } else { name.to_owned() }
}

/// The provider's name that a host suggests: `api.bank.example` is `bank`.
pub fn name_of_host(url: &str) -> String {
    let rest = url.split("://").last().unwrap_or_default();
    let host = rest.split(['/', ':']).next().unwrap_or_default();
    let labels: Vec<&str> = host.split('.').filter(|label| !label.is_empty()).collect();
    let numeric = labels.iter().all(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    match labels.as_slice() {
        [.., name, _] if !numeric => proxy_name(&name.to_lowercase().replace('_', "-")),
        _ => proxy_name(&host.to_lowercase().replace('_', "-")),
    }
}

/// The place of a credential, by the references that gateways know. Whatever is none of them is the value itself.
pub fn secret_place(text: &str) -> SecretPlace {
    let text = text.trim();
    let inner = |prefix: &str, suffix: &str| text.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
    // Kong's references to its vault of environment variables.
    if let Some(vault) = inner("{vault://env/", "}") {
        let name = vault.split('/').next().unwrap_or_default().to_uppercase().replace('-', "_");
        return if env_name(&name) { SecretPlace::Env(name) } else { SecretPlace::Inline };
    }
    // Templates of deck and of KrakenD: {{ env "NAME" }}.
    let template = inner("${{", "}}").or_else(|| inner("{{", "}}")).map(str::trim);
    if let Some(name) = template.and_then(|call| call.strip_prefix("env ")) {
        let name = name.trim().trim_matches(['"', '\'', '`']);
        return if env_name(name) { SecretPlace::Env(name.to_owned()) } else { SecretPlace::Inline };
    }
    let braced = inner("${", "}").map(|name| name.split(':').next().unwrap_or_default().trim_start_matches("env."));
    let httpd = inner("%{", "}e").or_else(|| inner("%ENVIRONMENT(", ")%"));
    let bare = text
        .strip_prefix('$')
        .filter(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'));
    match braced.or(httpd).or(bare) {
        Some(name) if env_name(name) => SecretPlace::Env(name.to_owned()),
        _ => SecretPlace::Inline,
    }
}

/// A duration as a config has it, of `3s`, `1.5s`, `250ms`, `2m`, `1h`, or a number of `unit`s. `None` for zero and what is
/// none.
pub fn duration(text: &str, unit: Duration) -> Option<String> {
    let text = text.trim().trim_matches('"');
    let digits: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let number: f64 = digits.parse().ok()?;
    let seconds = match text.get(digits.len()..)?.trim() {
        "" => number * unit.as_secs_f64(),
        "ms" => number / 1000.0,
        "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return None,
    };
    let millis = seconds * 1000.0;
    if !(1.0..=86_400_000.0).contains(&millis) {
        return None;
    }
    let millis = Duration::from_secs_f64(seconds).as_millis();
    Some(match (millis % 60_000, millis % 1000) {
        (0, _) => format!("{}m", millis / 60_000),
        (_, 0) => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    })
}

/// A route's path of a prefix: no slash at its end. `None` if the text is not a plain path.
pub fn route_path(text: &str) -> Option<String> {
    let trimmed = text.trim_end_matches('/');
    let path = if trimmed.is_empty() && text.starts_with('/') { "/" } else { trimmed };
    crate::route::configured_prefix(path).ok()?;
    Some(path.to_owned())
}

/// A path with variables, such as `/a/{b}/c` or `/a/**`: the plain segments before the first, and the rest as a pattern of
/// `allow`. The flag says whether the pattern matches more than the source did.
pub struct PathPattern {
    pub prefix: String,
    /// The whole as a pattern; `None`: everything below the prefix.
    pub pattern: Option<String>,
    pub wider: bool,
}

/// Reads a path with variables in braces, `*` for one segment or `**` for what is below.
pub fn path_pattern(text: &str) -> Option<PathPattern> {
    let is_variable = |segment: &str| segment.starts_with('{') && segment.ends_with('}') || segment == "*";
    let open = text.strip_suffix("/**").or_else(|| text.strip_suffix("/{*rest}"));
    let body = open.unwrap_or(text);
    let segments: Vec<&str> = body.split('/').skip(1).collect();
    let plain: Vec<&str> = segments.iter().copied().take_while(|segment| !is_variable(segment)).collect();
    let prefix = route_path(&format!("/{}", plain.join("/")))?;
    if plain.len() == segments.len() && open.is_some() {
        return Some(PathPattern { prefix, pattern: None, wider: false });
    }
    let mut pattern = String::new();
    for segment in &segments {
        let word = if is_variable(segment) { "*" } else { segment };
        route_path(&format!("/{}", word.replace('*', "x")))?;
        pattern = format!("{pattern}/{word}");
    }
    let wider = open.is_none() && segments.last().is_some_and(|last| is_variable(last));
    let pattern = if open.is_some() { format!("{pattern}/*") } else { pattern };
    Some(PathPattern { prefix, pattern: Some(pattern), wider })
}

/// The cure of a directive that countersign does not carry over, by the words in its name.
pub fn cure_of(name: &str) -> &'static str {
    let name = name.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if has(&["rate", "limit_req", "throttl", "quota"]) {
        "see rate_limit in docs/config.md#route-what-leads-from-one-to-the-other"
    } else if has(&["cors", "origin"]) {
        "applications call, not browsers; nothing stands for it, docs/identity.md#web-pages"
    } else if has(&["retr", "attempt"]) {
        "what is sent twice is fixed, docs/config.md#providername-whom-we-call"
    } else if has(&["timeout", "interval"]) {
        "see timeouts in docs/config.md#providername-whom-we-call"
    } else if has(&["cache"]) {
        "answers are not cached"
    } else if has(&["lua", "wasm", "script", "js_", "transform", "template", "serverless", "function"]) {
        "scripts do not run; a profile may say it as data, docs/adding-a-provider.md"
    } else if has(&["ip_restriction", "ip-restriction", "allow", "deny", "require", "networks", "rbac", "acl"]) {
        "see networks in docs/config.md#clientname-who-may-call"
    } else if has(&["jwt", "oidc", "openid", "auth", "apikey", "api_key", "consumer"]) {
        "see who may call, docs/identity.md"
    } else if has(&["log", "trac", "metric", "telemetry", "prometheus", "statsd", "otel"]) {
        "see docs/config.md#log, docs/metrics.md and docs/tracing.md"
    } else if has(&["tls", "ssl", "cert", "cipher", "verify"]) {
        "see tls in docs/config.md#providername-whom-we-call"
    } else if has(&["header"]) {
        "see headers in docs/config.md#route-what-leads-from-one-to-the-other"
    } else if has(&["rewrite", "regex", "redirect", "match", "predicate"]) {
        "a route is found by host and whole segments of its path, docs/config.md#route-what-leads-from-one-to-the-other"
    } else if has(&["health", "circuit", "outlier", "balanc", "weight", "hash"]) {
        "a provider has one address by name; nothing is balanced"
    } else if has(&["body", "buffer", "size"]) {
        "see request_buffering and replay_limit in docs/config.md#route-what-leads-from-one-to-the-other"
    } else {
        "nothing stands for it; see docs/import.md"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_from_values() {
        let env = |name: &str| SecretPlace::Env(name.to_owned());
        for (text, place) in [
            ("${SCB_SECRET}", env("SCB_SECRET")),
            ("${SCB_SECRET:dev}", env("SCB_SECRET")),
            ("$SCB_SECRET", env("SCB_SECRET")),
            ("${{ env \"DECK_SECRET\" }}", env("DECK_SECRET")),
            ("{{ env \"SECRET\" }}", env("SECRET")),
            ("{vault://env/scb-secret}", env("SCB_SECRET")),
            ("%{TOKEN}e", env("TOKEN")),
            ("$ecr3t", SecretPlace::Inline),
            ("{vault://aws/scb}", SecretPlace::Inline),
            ("plain", SecretPlace::Inline),
        ] {
            assert_eq!(secret_place(text), place, "{text}");
        }
    }

    #[test]
    fn credentials_are_recognised_by_name_and_value() {
        for name in ["Authorization", "X-Api-Key", "cookie", "x-access-token", "ClientSecret"] {
            assert!(is_credential_header(name), "{name}");
        }
        for value in ["Bearer x", "Basic eA==", "8f1d3c6b5a7e9024", "abcdefghijklmnopqrstuvwx"] {
            assert!(is_credential_value(value), "{value}");
        }
        for value in ["scbeasy", "application/vnd.bank.v1+json; charset=utf-8", "EN", "1.2.3", "mobile, web"] {
            assert!(!is_credential_value(value), "{value}");
        }
    }

    #[test]
    fn durations_paths_and_names_become_ours() {
        for (text, unit, expected) in [
            ("3s", 1, Some("3s")),
            ("0.25s", 1, Some("250ms")),
            ("60", 1, Some("1m")),
            ("5000ms", 1, Some("5s")),
            ("2m", 1, Some("2m")),
            ("0s", 1, None),
            ("x", 1, None),
            ("9999h", 1, None),
            ("-1", 1, None),
        ] {
            assert_eq!(duration(text, Duration::from_secs(unit)).as_deref(), expected, "{text}");
        }
        assert_eq!(duration("60000", Duration::from_millis(1)).as_deref(), Some("1m"));
        assert_eq!(name_of_host("https://api.bank.example/v1"), "bank");
        assert_eq!(name_of_host("https://10.0.0.1:8443"), "10-0-0-1");
        assert_eq!(proxy_name("/a b//c/"), "a-b-c");
        assert_eq!(route_path("/scb/").as_deref(), Some("/scb"));
        assert_eq!(route_path("/").as_deref(), Some("/"));
        assert_eq!(route_path("/a{b}"), None);
        let found = path_pattern("/a/{b}/c").expect("a pattern");
        assert_eq!((found.prefix.as_str(), found.pattern.as_deref(), found.wider), ("/a", Some("/a/*/c"), false));
        let found = path_pattern("/a/**").expect("a pattern");
        assert_eq!((found.prefix.as_str(), found.pattern.as_deref(), found.wider), ("/a", None, false));
        assert!(path_pattern("/a/{b}").expect("a pattern").wider);
        assert!(path_pattern("/a/b{c}/d").is_none());
        assert!(is_secret_segment("hT8xK2mQ9vLw4nR7") && is_secret_segment("0123456789abcdef"));
        assert!(
            !is_secret_segment("9b1f0a52-7c1e-4f0b-8f57-6d2c3f1e5a90")
                && !is_secret_segment("partners-sandbox-2026-v1")
        );
    }
}

//! Masking of secrets in the parts of a file that are shown.
//!
//! A rendered mistake shows its line of the file. A secret on that line is redacted out by the code that knows it as
//! one; a span that one mistake blots out is redacted out in all mistakes of the file, because one line may have
//! several. A misspelt key, or a value of the wrong kind, is not known to any code: so every value that looks like a
//! secret by its key is redacted out as well.

use std::ops::Range;
use std::sync::Arc;

use crate::base::secret::is_wordy_secret;
use crate::syntax::{Diagnostic, SourceText};

/// The same text with stars in `spans`, byte for byte, so that lines and columns stay.
pub(super) fn redacted(source: &Arc<SourceText>, spans: impl IntoIterator<Item = Range<usize>>) -> Arc<SourceText> {
    let mut bytes = source.text.clone().into_bytes();
    for span in spans {
        for byte in bytes.get_mut(span).into_iter().flatten().filter(|byte| **byte != b'\n') {
            *byte = b'*';
        }
    }
    // A span that cuts a character in two would leave no text: then nothing of it is shown.
    let text = String::from_utf8(bytes).unwrap_or_default();
    SourceText::new(source.name.clone(), text)
}

/// Blots out in every mistake the spans that any of them blots out, and every value that looks like a secret by its
/// key. If the file could not be parsed, the end of a value is unknown: then the rest of its line is redacted out with
/// it.
pub(super) fn redact_all(source: &Arc<SourceText>, parsed: bool, diagnostics: &mut [Diagnostic]) {
    let mut spans = suspicious(&source.text, parsed);
    for found in diagnostics.iter().filter(|found| is_version_of(&found.source, source)) {
        let pairs = source.text.bytes().zip(found.source.text.bytes()).enumerate();
        spans.extend(pairs.filter(|(_, (was, is))| was != is).map(|(at, _)| at..at + 1));
    }
    if spans.is_empty() {
        return;
    }
    let redacted = redacted(source, spans);
    for found in diagnostics.iter_mut().filter(|found| is_version_of(&found.source, source)) {
        found.source = redacted.clone();
    }
}

fn is_version_of(version: &Arc<SourceText>, source: &Arc<SourceText>) -> bool {
    version.name == source.name && version.text.len() == source.text.len()
}

/// Words in the names of keys whose values are secrets, likely.
const WORDS: [&str; 5] = ["authorization", "key", "password", "secret", "token"];

/// Keys that have such a word in their names, and no secret in their values.
const PLAIN_KEYS: [&str; 3] = ["key_exchange", "public_key", "token_budget"];

/// Keys of a `[client]` whose values are not secret.
const OPEN: [&str; 8] = ["certificate", "consent_group", "jwt", "networks", "networks_only", "uids", "users", "vars"];

/// Returns whether a key is this word, or nearly so.
fn is_nearly(key: &str, word: &str) -> bool {
    strsim::osa_distance(key, word) <= 1
}

/// The values of keys that speak of a secret, and what stands before the `@` of a URL.
fn suspicious(text: &str, parsed: bool) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let (mut in_client, mut in_named_client, mut in_token) = (false, false, false);
    let has_long_strings = text.contains("\"\"\"") || text.contains("'''");
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(header) = line.trim_start().strip_prefix('[') {
            let name = header.trim_start_matches('[').trim_start();
            let is_jwt = name.split(']').next().is_some_and(|name| name.trim_end().ends_with(".jwt"));
            in_client = name.strip_prefix("client").is_some_and(|rest| rest.starts_with(['.', ']', ' '])) && !is_jwt;
            in_named_client = in_client && name.starts_with("client.");
            in_token = name.replace([' ', '"'], "").starts_with("admin.token");
        }
        for (at, separator) in line.match_indices(['=', ':']) {
            let Some((before, after)) = line.split_at_checked(at) else { continue };
            let after = after.get(1..).unwrap_or_default();
            let key = key_before(before);
            // What a client's `jwt` names is public; a text in the place of that table may be a token.
            let first = key.split('.').next().unwrap_or_default();
            // Below `[client]` itself, a key is the name of a client, whatever the word.
            let is_open_key = in_named_client && OPEN.iter().any(|open| is_nearly(first, open));
            let is_open = is_open_key && (!is_nearly(&key, "jwt") || after.trim_start().starts_with('{'));
            let client = in_client && !is_open && (has_long_strings || !is_in_string(line, at));
            let token = in_token && key != "role";
            let open = (client || token) && (separator == "=" || !parsed) && !before.contains('{') && !key.is_empty();
            let from = start + at + 1;
            // Where a table of credentials belongs, a text is most likely the secret itself.
            let bare = key == "next" && !after.trim_start().starts_with('{');
            if (open || bare || speaks_of_secrets(&key)) && !is_harmless(&key, after) {
                // A colon stands in a comment, or where somebody writes as in YAML.
                if parsed && separator == "=" {
                    spans.extend(secret_parts(text, from, &key).0);
                } else {
                    spans.push(from..value_end(text, from));
                }
            }
        }
        spans.extend(user_information(line).map(|span| start + span.start..start + span.end));
        start += line.len();
    }
    spans
}

/// Returns whether a place in a line is within a string that begins on it.
fn is_in_string(line: &str, at: usize) -> bool {
    let (mut quote, mut escaped) = (None, false);
    for char in line.get(..at).unwrap_or_default().chars() {
        match (quote, char) {
            (None, '"' | '\'') => quote = Some(char),
            (None, '#') => return false,
            (Some(_), _) if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(open), _) if open == char => quote = None,
            (None | Some(_), _) => {}
        }
    }
    quote.is_some()
}

/// Returns whether a key contains one of [`WORDS`], perhaps misspelt.
pub(super) fn speaks_of_secrets(key: &str) -> bool {
    let misspelt = |part: &str, word: &str| part.len() > 4 && strsim::osa_distance(part, word) <= 2;
    let speaks = |word: &&str| key.contains(*word) || key.split(['_', '-', '.']).any(|part| misspelt(part, word));
    !PLAIN_KEYS.contains(&key) && WORDS.iter().any(speaks)
}

/// The key that ends here, in lower case and without quotes.
fn key_before(text: &str) -> String {
    let part = text.trim_end().trim_end_matches(['"', '\'']);
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let length: usize = part.chars().rev().take_while(|c| is_name(*c)).map(char::len_utf8).sum();
    part.get(part.len() - length..).unwrap_or_default().to_ascii_lowercase()
}

/// A value that says where the secret is, or that is the path or URL which its key asks for.
fn is_harmless(key: &str, value: &str) -> bool {
    let value = value.trim();
    let quoted =
        |text: &str| text.trim_start().strip_prefix('"').and_then(|text| Some(text.split_once('"')?.0.to_owned()));
    let is_path = |text: &str| text.contains(['.', '/']) && !text.contains('@');
    let member = |name: &str| {
        let inner = value.strip_prefix('{')?.trim_start().strip_prefix(name)?.trim_start().strip_prefix('=')?;
        let (_, after) = inner.split_once('"')?.1.split_once('"')?;
        let ends = after.trim_start().starts_with('}');
        quoted(inner).filter(|_| ends)
    };
    let by_name = member("env").is_some_and(|name| is_variable(&name)) || member("file").is_some();
    let path = matches!(key, "ca_key" | "client_key" | "key" | "token_endpoint" | "token_url");
    let url = key.rsplit('_').next().is_some_and(|part| part.len() > 1 && is_nearly(part, "url"));
    let is_url = |text: &str| text.starts_with("https://") && !text.contains(['@', '?']);
    let is_meant = |text: String| {
        (path && is_path(&text)) || (url && is_url(&text)) || (key.ends_with("_file") && is_path_of_words(&text))
    };
    by_name || quoted(value).is_some_and(is_meant)
}

/// Returns whether a text can be the name of an environment variable, in capitals; a secret written in its place seldom
/// can.
pub(super) fn is_variable(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text == text.to_ascii_uppercase()
}

/// The variable that a text would have expanded in other programs: `$NAME` or `${NAME}`, perhaps with a default.
pub(super) fn expansion(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    let name = match name.strip_prefix('{') {
        Some(braced) => braced.strip_suffix('}')?.split([':', '-']).next()?,
        None => name,
    };
    (!name.is_empty() && is_variable(name)).then_some(name)
}

/// Returns the end of the value that begins after `from` in a text that is not well-formed: that of its line, or of the
/// line in which its brackets or triple quotes end.
fn value_end(text: &str, from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    let begins = rest.len() - rest.trim_start_matches([' ', '\t']).len();
    let value = rest.get(begins..).unwrap_or_default();
    let line_end = |at: usize| rest.get(at..).and_then(|rest| rest.find('\n')).map_or(rest.len(), |more| at + more);
    let closed = |opens: usize, by: &str| {
        let inner = value.get(opens..).and_then(|inner| inner.find(by));
        inner.map_or(rest.len(), |at| begins + opens + at + by.len())
    };
    let end = match value.as_bytes() {
        [b'"', b'"', b'"', ..] => line_end(closed(3, "\"\"\"")),
        [b'\'', b'\'', b'\'', ..] => line_end(closed(3, "'''")),
        [b'[', ..] => line_end(closed(1, "]")),
        [b'{', ..] => line_end(closed(1, "}")),
        _ => line_end(begins),
    };
    from + end
}

/// The parts of the value behind `from` that may be secret, and the end of the value. The text is well-formed.
///
/// They are the contents of its strings, without the quotes, its numbers, and comments that are more than words. The
/// names in a table stay, and so do the variable and the file that a secret comes from, and a hash: they are what the
/// reader of a message looks for. `key` is the name of the value.
pub(super) fn secret_parts(text: &str, from: usize, key: &str) -> (Vec<Range<usize>>, usize) {
    let bytes = text.as_bytes();
    let at_byte = |at: usize| bytes.get(at).copied();
    let is_key =
        |at: usize| text.get(at..).is_some_and(|rest| rest.trim_start_matches([' ', '\t', '.']).starts_with('='));
    let (mut spans, mut key, mut at, mut depth) = (Vec::new(), key.to_owned(), from, 0_usize);
    let mut has_source = false;
    let end = loop {
        match at_byte(at) {
            None => break at,
            Some(b'\n') if depth == 0 => break at,
            Some(b',') if depth == 0 => break at,
            Some(b' ' | b'\t' | b'\r' | b'\n' | b',' | b'=' | b'.') => at += 1,
            Some(b'#') => {
                let end = line_end(text, at);
                spans.extend(secret_comment(text, at, end));
                at = end;
            }
            Some(b'[' | b'{') => (at, depth) = (at + 1, depth + 1),
            Some(b']' | b'}') => match depth {
                0 => break at,
                1 => break at + 1,
                _ => (at, depth) = (at + 1, depth - 1),
            },
            Some(b'"' | b'\'') => {
                let (content, end) = string_at(text, at);
                let value = text.get(content.clone()).unwrap_or_default();
                if depth > 0 && is_key(end) {
                    key = value.to_ascii_lowercase();
                } else {
                    let is_remote_name = has_source && key == "name" && is_path_of_words(value);
                    spans.extend((!is_public(&key, value) && !is_remote_name).then_some(content));
                }
                at = end;
                if depth == 0 {
                    break at;
                }
            }
            Some(_) => {
                let rest = text.get(at..).unwrap_or_default();
                let ends: &[char] = match depth {
                    // In a comment, it may be several words.
                    0 => &['\n', ',', ']', '}', '#'],
                    _ => &[' ', '\t', '\r', '\n', ',', ']', '}', '=', '#', '"', '\''],
                };
                let word = rest.get(..rest.find(ends).unwrap_or(rest.len())).unwrap_or_default().trim_end();
                let end = at + word.len().max(1);
                if depth > 0 && is_key(end) {
                    key = text.get(at..end).unwrap_or_default().to_ascii_lowercase();
                    has_source |= key == "source";
                } else {
                    spans.push(at..end);
                }
                at = end;
                if depth == 0 {
                    break at;
                }
            }
        }
    };
    // The comment of its line, if one follows.
    let mut at = end;
    while let Some(byte) = at_byte(at).filter(|byte| *byte != b'\n') {
        match byte {
            b'"' | b'\'' => at = string_at(text, at).1,
            b'#' => {
                let end = line_end(text, at);
                spans.extend(secret_comment(text, at, end));
                at = end;
            }
            _ => at += 1,
        }
    }
    (spans, end)
}

/// The content of the string that begins at `at`, and the end of its closing quotes.
pub(super) fn string_at(text: &str, at: usize) -> (Range<usize>, usize) {
    let rest = text.get(at..).unwrap_or_default();
    let quote = if rest.starts_with('"') { '"' } else { '\'' };
    let triple: String = [quote; 3].iter().collect();
    let is_long = rest.starts_with(&triple);
    let length = if is_long { 3 } else { 1 };
    let mut escaped = false;
    let closing = rest.get(length..).unwrap_or_default().char_indices().find(|(inner, char)| {
        let ends = match is_long {
            true => rest.get(length + inner..).is_some_and(|rest| rest.starts_with(&triple)),
            false => *char == quote || *char == '\n',
        };
        let is_end = ends && !escaped;
        escaped = *char == '\\' && !escaped && quote == '"';
        is_end
    });
    let end = closing.map_or(text.len(), |(inner, _)| at + length + inner);
    (at + length..end.max(at + length), (end + length).min(text.len()))
}

fn line_end(text: &str, at: usize) -> usize {
    text.get(at..).and_then(|rest| rest.find('\n')).map_or(text.len(), |more| at + more)
}

/// Returns whether a string of this key is no secret: it says where one comes from, or is a hash. The key may be misspelt.
fn is_public(key: &str, value: &str) -> bool {
    let digest = value.strip_prefix("sha256:");
    let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if expansion(value).is_some() || digest.is_some_and(is_hash) {
        return true;
    }
    match key {
        "file" => true,
        "source" => is_wordy_secret(value),
        "path" => is_path_of_words(value),
        _ if key.contains("sha256") || is_nearly(key, "key_sha256") => is_hash(value),
        _ if is_nearly(key, "env") => is_variable(value),
        _ if is_nearly(key, "file") => is_path_of_words(value),
        _ => false,
    }
}

/// Returns whether a text is a path whose parts are words. A secret has other parts, or none.
fn is_path_of_words(text: &str) -> bool {
    text.contains(['.', '/']) && !text.contains('+') && is_wordy_secret(&text.replace(['#', ':'], "/"))
}

/// A longer word in a comment may be a key.
const LONGEST_WORD: usize = 16;

/// The part of a comment that may be secret: all of it behind the `#`, unless it consists of words, such as those that
/// say whose key it is. A key would be no word.
fn secret_comment(text: &str, start: usize, end: usize) -> Option<Range<usize>> {
    let words = text.get(start..end)?.trim_start_matches('#');
    let is_word = |word: &str| {
        let word = word.trim_matches([',', ';', ':', '.', '(', ')', '!', '?', '"', '`', '\'', '—', '…']);
        let part = |part: &str| part.is_empty() || part.chars().all(char::is_alphabetic) || is_wordy_secret(part);
        word.len() <= LONGEST_WORD && !word.starts_with("csk_") && word.split(['\'', '’']).all(part)
    };
    let readable = words.split_whitespace().all(is_word);
    (!readable).then_some(end - words.len()..end)
}

/// The parts of a URL, which may be malformed, that may be secret: what stands before its last `@`, and its query. A host
/// with something behind a colon that is no port may be a password without its `@`.
pub(super) fn url_credentials(url: &str) -> Vec<Range<usize>> {
    if url.contains('\\') {
        return std::iter::once(0..url.len()).collect();
    }
    let start = url.find("://").map_or(0, |at| at + 3);
    let rest = url.get(start..).unwrap_or_default();
    let query = rest.find(['?', '#']).map(|at| start + at + 1..url.len());
    let user = match rest.rfind('@') {
        Some(at) => Some(start..start + at),
        None => {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let port = authority.rsplit(']').next().and_then(|rest| Some(rest.split_once(':')?.1));
            let is_port = port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
            (!is_port).then_some(start..start + authority.len())
        }
    };
    user.into_iter().chain(query).collect()
}

/// The spans between `://` and `@` in a line.
fn user_information(line: &str) -> impl Iterator<Item = Range<usize>> {
    line.match_indices("://").filter_map(|(at, _)| {
        let from = at + 3;
        let rest = line.get(from..)?;
        let authority = rest.split(['/', '"', '\'', ' ']).next()?;
        Some(from..from + authority.rfind('@')?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_keep_lines_and_columns() {
        let source = SourceText::new("f", "a = 1\nb = \"sëcret\"\n");
        assert_eq!(redacted(&source, Some(10..19)).text, "a = 1\nb = *********\n");
        assert_eq!(redacted(&source, Some(10..13)).text, "", "half a character");
        assert_eq!(redacted(&source, Some(900..901)).text, source.text);
    }

    #[test]
    fn what_looks_like_a_secret_by_its_key_is_found_and_what_says_where_one_is_stays() {
        let redact = |text: &str, parsed| {
            let source = SourceText::new("f", text);
            redacted(&source, suspicious(text, parsed)).text.clone()
        };
        let hash = "8f1d3c6b5a7e90241bd4c0f6a2e8751993d60b4c7fe2a815d03b9c6e47f1a258";
        let hashes = format!("[client.erp]\nkey_sha256 = [\"{hash}\", \"csk_x\"]");
        let shown_hashes = format!("[client.erp]\nkey_sha256 = [\"{hash}\", \"*****\"]");
        for (text, shown) in [
            ("x = 1\nclient_secret = \"abc\"\ny = 2\n", "x = 1\nclient_secret = \"***\"\ny = 2\n"),
            ("a = { secret = \"b\\\"c\", d = 1 }", "a = { secret = \"****\", d = 1 }"),
            ("secret = \"a\" # not b", "secret = \"*\" # not b"),
            ("secret = 'a' # until 2027-03-31, then ask Bob.", "secret = '*' # until 2027-03-31, then ask Bob."),
            ("secret = \"a\" # was: hUnter2-Zx81q9", "secret = \"*\" #********************"),
            ("a = { secret = \"b\" } # Zx81q9Zx81q9", "a = { secret = \"*\" } #*************"),
            ("secret = [\n\"a\",\n]\nx = 1", "secret = [\n\"*\",\n]\nx = 1"),
            ("secret = [\"a]b\", 12] # c", "secret = [\"***\", **] # c"),
            ("secret = \"\"\"\na\n\"\"\"\nx = 1", "secret = \"\"\"\n*\n\"\"\"\nx = 1"),
            ("secret = 12345\nx = 1", "secret = *****\nx = 1"),
            ("# secret = two words # x", "# secret = ********* # x"),
            ("# secret: two words", "# secret:**********"),
            (
                "secret = { command = [\"a\"], file = \"f\", vault = \"v\" }",
                "secret = { command = [\"*\"], file = \"f\", vault = \"*\" }",
            ),
            ("url = \"redis://u:p@h/0\"", "url = \"redis://***@h/0\""),
            ("client_secert = \"a\"", "client_secert = \"*\""),
            ("[client]\nerp = \"k\"", "[client]\nerp = \"*\""),
            ("[client.erp]\njwt = \"ey\"", "[client.erp]\njwt = \"**\""),
            ("[client.erp]\nkey_sha256 = [\"zz\"] # the old one", "[client.erp]\nkey_sha256 = [\"**\"] # the old one"),
            (hashes.as_str(), shown_hashes.as_str()),
            ("[client.erp]\ncertificat = \"CN=erp\"", "[client.erp]\ncertificat = \"CN=erp\""),
            ("[client.erp]\njtw = \"ey\"", "[client.erp]\njtw = \"**\""),
            ("[client]\nuser = \"k\"", "[client]\nuser = \"*\""),
            ("[client]\nusers = \"k\"", "[client]\nusers = \"*\""),
            ("password_file = \"aGVsbG8/d29yGQ\"", "password_file = \"**************\""),
            ("[client.erp]\nkye = \"a=b\" # it's = c", "[client.erp]\nkye = \"***\" #*********"),
            ("x = \"password=abc\"", "x = \"password=****"),
            ("client_secret = { evn = \"s3cret\" }", "client_secret = { evn = \"******\" }"),
            ("client_secret = { flie = \"s3cret\" }", "client_secret = { flie = \"******\" }"),
            (
                "client_secret = { path = \"aGVsbG8/d29y+bGQx.Zm9vYmFyYmF6\" }",
                "client_secret = { path = \"******************************\" }",
            ),
            ("client_secret = { name = \"a/b\" }", "client_secret = { name = \"***\" }"),
            ("token_ulr = \"https://u:p@bank/token\"", "token_ulr = \"**********************\""),
            ("client_secret = \"$3cret\"", "client_secret = \"******\""),
            ("key_sha256 = [\"z\"] # csk_dGhlIGtleTEy", "key_sha256 = [\"*\"] #*****************"),
            ("key_sha256 = [\"z\"] # abcdefghijklmnopqr", "key_sha256 = [\"*\"] #*******************"),
        ] {
            assert_eq!(redact(text, true), shown);
        }
        assert_eq!(redact("secret = \"a, x = 1\ny = 2", false), "secret =**********\ny = 2");
        for plain in [
            "client_secret = { env = \"NAME\" }",
            "client_secret = { file = \"a/b\" }",
            "tls = { cert = \"a.crt\", key = \"a.key\" }",
            "token_url = \"ftp://bank/token\"",
            "token_ulr = \"https://bank/token\"",
            "client_secret = { evn = \"BANK_SECRET\" } # the vault's, \"neu\" — see Bücher",
            "client_secret = { env = \"BANK_SECRET\", file = \"secrets/bank.txt\" }",
            "client_secret = { flie = \"secrets/bank.txt\" }",
            "client_secret = { source = \"vault\", name = \"secret/bank#key\" }",
            "client_secret = \"${BANK_SECRET}\"",
            "[client.erp]\njtw = { issuer = \"https://id.corp\", audience = \"a\", subject = \"s\" }",
            "[client.erp]\njwt = { issuer = \"https://id.corp\", token_file = \"/run/token\" }",
            "[client.erp]\nuser = [\"alice\"]\nnetwork = [\"10.0.0.0/8\"]\nconsent_group = \"a b\"",
            "[client.erp]\nkey_sha265 = [\"8f1d3c6b5a7e90241bd4c0f6a2e8751993d60b4c7fe2a815d03b9c6e47f1a258\"]",
            "[client.erp]\nsha256 = [\"sha256:8f1d3c6b5a7e90241bd4c0f6a2e8751993d60b4c7fe2a815d03b9c6e47f1a258\"]",
            "[client.erp]\nnetworks = [\"10.0.0.1/8\"]",
            "[client.erp]\njwt = { issuer = \"https://id.corp\", audience = \"a\", subject = \"s\" } # CI",
            "[client.erp.jwt]\nissuer = \"https://id.corp\"",
            "[client.erp]\njwt.issuer = \"https://id.corp\"",
            "tls = { key_exchange = [\"x25519\"] }",
            "token_budget = { calls = 3, per = \"1m\" }",
        ] {
            assert_eq!(redact(plain, true), plain);
        }
    }
    #[test]
    fn what_other_programs_would_expand_is_recognised() {
        for (text, name) in [
            ("$BANK_SECRET", Some("BANK_SECRET")),
            ("${BANK_SECRET}", Some("BANK_SECRET")),
            ("${BANK_SECRET:-none}", Some("BANK_SECRET")),
            ("$ecret", None),
            ("pa$$WORD", None),
            ("$", None),
            ("${}", None),
            ("$1A", None),
        ] {
            assert_eq!(expansion(text), name, "{text}");
        }
    }

    #[test]
    fn of_a_url_its_credentials_and_its_query_are_secret() {
        let redact = |url: &str| {
            let source = SourceText::new("f", url);
            redacted(&source, url_credentials(url)).text.clone()
        };
        for (url, shown) in [
            ("postgres://x", "postgres://x"),
            ("redis://h:6379/0", "redis://h:6379/0"),
            ("https://[::1]:8443/a", "https://[::1]:8443/a"),
            ("redis://u:p/w@x@h/0", "redis://*******@h/0"),
            ("https://h/a?key=v", "https://h/a?*****"),
            ("u:p@h", "***@h"),
            ("redis://:password", "redis://*********"),
            ("a\\u0040b", "********"),
        ] {
            assert_eq!(redact(url), shown);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z_ =\"'\\[\\]{}#,\n\\\\é:/@?]{0,40}", parsed in proptest::prelude::any::<bool>()) {
            let text = format!("secret = {text}");
            let source = SourceText::new("f", text.clone());
            let _ = redacted(&source, suspicious(&text, parsed));
            let _ = url_credentials(&text);
        }
    }
}

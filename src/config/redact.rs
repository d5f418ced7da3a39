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

/// Keys of a `[client]` whose values are not secret.
const OPEN: [&str; 5] = ["certificate", "networks", "networks_only", "uids", "users"];

/// The values of keys that speak of a secret, and what stands before the `@` of a URL.
fn suspicious(text: &str, parsed: bool) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let (mut in_client, mut in_token) = (false, false);
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(header) = line.trim_start().strip_prefix('[') {
            let name = header.trim_start_matches('[').trim_start();
            in_client = name.strip_prefix("client").is_some_and(|rest| rest.starts_with(['.', ']', ' ']));
            in_token = name.replace([' ', '"'], "").starts_with("admin.token");
        }
        for (at, _) in line.match_indices(['=', ':']) {
            let Some((before, after)) = line.split_at_checked(at) else { continue };
            let key = key_before(before);
            let client = in_client && !OPEN.contains(&key.as_str());
            let token = in_token && key != "role";
            let open = (client || token) && !before.contains('{') && !key.is_empty();
            let from = start + at + 1;
            // Where a table of credentials belongs, a text is most likely the secret itself.
            let bare = key == "next" && !after.get(1..).unwrap_or_default().trim_start().starts_with('{');
            if (open || bare || speaks_of_secrets(&key)) && !is_harmless(&key, after.get(1..).unwrap_or_default()) {
                let end = value_end(text, from, parsed);
                let note = if key == "key_sha256" && parsed {
                    note_behind(text.get(from..end).unwrap_or_default())
                } else {
                    0
                };
                spans.push(from..end - note);
            }
        }
        spans.extend(user_information(line).map(|span| start + span.start..start + span.end));
        start += line.len();
    }
    spans
}

/// Returns whether a key contains one of [`WORDS`], perhaps misspelt.
pub(super) fn speaks_of_secrets(key: &str) -> bool {
    let misspelt = |part: &str, word: &str| part.len() > 4 && strsim::osa_distance(part, word) <= 2;
    WORDS.iter().any(|word| key.contains(word) || key.split(['_', '-', '.']).any(|part| misspelt(part, word)))
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
    by_name || (path && quoted(value).is_some_and(|text| is_path(&text)))
}

/// Returns whether a text can be the name of an environment variable, in capitals; a secret written in its place seldom
/// can.
pub(super) fn is_variable(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text == text.to_ascii_uppercase()
}

/// Returns the end of the value that begins after `from`.
fn value_end(text: &str, from: usize, parsed: bool) -> usize {
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
        // A plain string of a well-formed file, without a comment behind it, ends with its quote.
        [quote @ (b'"' | b'\''), string @ ..] if parsed => {
            let mut escaped = false;
            let ends = string.iter().position(|byte| {
                let end = byte == quote && !escaped;
                escaped = *byte == b'\\' && !escaped && *quote == b'"';
                end
            });
            let end = ends.map_or(rest.len(), |at| begins + at + 2);
            let line = line_end(begins);
            if rest.get(end..line).is_some_and(|behind| !behind.contains('#')) { end } else { line }
        }
        _ => line_end(begins),
    };
    from + end
}

/// A longer word in a comment may be a key.
const LONGEST_WORD: usize = 16;

/// The length of the comment behind a list of hashes, if it consists of words: it says whose key that is. The key itself
/// would be no word.
fn note_behind(list: &str) -> usize {
    let Some((hashes, note)) = list.split_once(']') else { return 0 };
    let words = note.trim_start().strip_prefix('#').map(str::trim).unwrap_or_default();
    let is_word = |word: &str| word.len() <= LONGEST_WORD && !word.starts_with("csk_") && is_wordy_secret(word);
    let readable = !words.is_empty() && words.split_whitespace().all(is_word);
    if readable && !hashes.contains(['\n', '#']) { note.len() } else { 0 }
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
        for (text, shown) in [
            ("x = 1\nclient_secret = \"abc\"\ny = 2\n", "x = 1\nclient_secret =******\ny = 2\n"),
            ("a = { secret = \"b\\\"c\", d = 1 }", "a = { secret =*******, d = 1 }"),
            ("secret = \"a\" # not b", "secret =************"),
            ("secret = [\n\"a\",\n]\nx = 1", "secret =**\n****\n*\nx = 1"),
            ("secret = \"\"\"\na\n\"\"\"\nx = 1", "secret =****\n*\n***\nx = 1"),
            ("url = \"redis://u:p@h/0\"", "url = \"redis://***@h/0\""),
            ("client_secert = \"a\"", "client_secert =****"),
            ("[client]\nerp = \"k\"", "[client]\nerp =****"),
            ("[client.erp]\nkey_sha256 = [\"zz\"] # the old one", "[client.erp]\nkey_sha256 =******* # the old one"),
            ("key_sha256 = [\"z\"] # csk_dGhlIGtleTEy", "key_sha256 =*************************"),
            ("key_sha256 = [\"z\"] # abcdefghijklmnopqr", "key_sha256 =***************************"),
        ] {
            assert_eq!(redact(text, true), shown);
        }
        assert_eq!(redact("secret = \"a, x = 1\ny = 2", false), "secret =**********\ny = 2");
        for plain in [
            "client_secret = { env = \"NAME\" }",
            "client_secret = { file = \"a/b\" }",
            "tls = { cert = \"a.crt\", key = \"a.key\" }",
            "token_url = \"ftp://bank/token\"",
            "[client.erp]\nnetworks = [\"10.0.0.1/8\"]",
        ] {
            assert_eq!(redact(plain, true), plain);
        }
    }
}

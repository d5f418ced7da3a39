//! Messages about a text that is not well-formed TOML, at the place where the mistake was made.
//!
//! A parser meets the consequences of a mistake: every line behind a bracket that is not closed, every key of a table
//! that stands there twice. Here they become one message about the cause.

use std::ops::Range;
use std::sync::Arc;

use super::diagnostic::{Diagnostics, SourceText};

/// An error of the parser.
pub(super) struct SyntaxError {
    /// The bytes that it is about.
    pub(super) span: Range<usize>,
    /// The parser's words.
    pub(super) message: String,
}

/// Reports the errors of a text, without those that follow from an earlier one.
pub(super) fn report_errors(source: &Arc<SourceText>, mut errors: Vec<SyntaxError>, report: &Diagnostics) {
    let text = source.text.as_str();
    if let Some((span, language)) = other_language(text) {
        let help = "write `key = value`, and `[table]` for what belongs together";
        report.error(
            source,
            span,
            format!("this looks like {language}, but is read as TOML"),
            "",
            Some(help.to_owned()),
        );
        return;
    }
    errors.sort_by_key(|error| error.span.start);
    let unclosed = unclosed(text);
    let judged = unclosed.map_or(text.len() + 1, |at| line_start(text, at));
    // The keys of a table that stands there already are duplicates, too.
    let mut repeated = 0..0;
    for SyntaxError { span, message } in errors.into_iter().take_while(|error| error.span.start < judged) {
        if message != "duplicate key" {
            report.error(source, span, message, "", None);
        } else if !repeated.contains(&span.start) {
            let duplicate = Duplicate::at(source, span.clone());
            report.error(source, span, duplicate.title, "", Some(duplicate.help));
            repeated = duplicate.table;
        }
    }
    if let Some(at) = unclosed {
        let (open, close) = if text.as_bytes().get(at) == Some(&b'{') { ('{', '}') } else { ('[', ']') };
        let title = format!("this `{open}` is not closed");
        report.error(source, at..at + 1, title, "opened here", Some(format!("write the `{close}` that belongs to it")));
    }
}

/// A table or key that stands in the text for the second time.
struct Duplicate {
    title: String,
    help: String,
    /// The bytes of the repeated table, with its keys; empty for a key.
    table: Range<usize>,
}

impl Duplicate {
    fn at(source: &SourceText, span: Range<usize>) -> Self {
        let text = source.text.as_str();
        let start = line_start(text, span.start);
        let before = text.get(..start).unwrap_or_default();
        let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let stands = |name: &str, first: Option<usize>| match first {
            Some(at) => format!("{name} stands at line {} already", at + 1),
            None => format!("{name} stands here twice"),
        };
        if let Some(name) = header(line) {
            let first = before.lines().position(|line| header(line).as_deref() == Some(&name));
            let behind = start + line.len();
            let rest = text.get(behind..).unwrap_or_default();
            let length =
                rest.match_indices('\n').map(|(at, _)| at + 1).find(|at| rest[*at..].trim_start().starts_with('['));
            let help = if name.starts_with("client.") {
                "one client is one table: put the new hash into the list there, as in `key_sha256 = [\"…\", \"…\"]`"
            } else {
                "keep one of them, or give one another name"
            };
            let table = start..behind + length.unwrap_or(rest.len());
            return Self { title: stands(&format!("[{name}]"), first), help: help.to_owned(), table };
        }
        let key = text.get(span).unwrap_or_default();
        let named = |line: &str| line.split_once('=').is_some_and(|(name, _)| name.trim() == key);
        let lines: Vec<&str> = before.lines().collect();
        let table = lines.iter().rposition(|line| header(line).is_some()).map_or(0, |at| at + 1);
        let first = lines.iter().skip(table).position(|line| named(line)).map(|at| table + at);
        Self { title: stands(&format!("`{key}`"), first), help: "keep one of them".to_owned(), table: 0..0 }
    }
}

/// The name in the header of a table, without blanks; `None` for other lines and for `[[…]]`, which may repeat.
fn header(line: &str) -> Option<String> {
    let inner = line.trim_start().strip_prefix('[')?;
    let name = inner.split(']').next()?;
    (!name.starts_with('[')).then(|| name.chars().filter(|c| !c.is_whitespace()).collect())
}

fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1)
}

/// The language that a text is written in, judged by its first line with any content; `None` if that may be TOML.
fn other_language(text: &str) -> Option<(Range<usize>, &'static str)> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim();
        if !content.is_empty() && !content.starts_with('#') {
            let key = content.split([':', '=']).next().unwrap_or_default();
            let behind = content.get(key.len()..).unwrap_or_default();
            let is_word =
                !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
            let yaml = content.starts_with("---") || is_word && (behind == ":" || behind.starts_with(": "));
            let language = if content.starts_with('{') { Some("JSON") } else { yaml.then_some("YAML") };
            return language.map(|language| (start..start + line.trim_end().len(), language));
        }
        start += line.len();
    }
    None
}

/// The place of the first bracket that is not closed before the next table or key begins.
fn unclosed(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut open: Vec<(usize, u8)> = Vec::new();
    // The last byte that is neither blank nor in a comment.
    let mut last = b'\n';
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'#' => {
                at = bytes.iter().skip(at).position(|byte| *byte == b'\n').map_or(bytes.len(), |more| at + more);
                continue;
            }
            b'"' | b'\'' => {
                at = string_end(bytes, at);
                last = byte;
                continue;
            }
            b'[' | b'{' => open.push((at, byte)),
            b']' | b'}' => match open.pop() {
                Some((opened, bracket)) if (bracket == b'{') != (byte == b'}') => return Some(opened),
                Some(_) | None => {}
            },
            b'\n' => {
                let line = text.get(at + 1..).and_then(|rest| rest.lines().next()).unwrap_or_default();
                if let Some((opened, bracket)) = open.last()
                    && begins_anew(line, *bracket, last)
                {
                    return Some(*opened);
                }
            }
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            last = byte;
        }
        at += 1;
    }
    open.last().map(|(opened, _)| *opened)
}

/// Returns whether a line within brackets begins a table or a key that cannot belong into them. `last` is the byte
/// before it.
fn begins_anew(line: &str, bracket: u8, last: u8) -> bool {
    let line = line.trim_start();
    let in_table = bracket == b'{';
    if line.starts_with('[') {
        // In an array, `[a.b]` is no value, but `["a"]` and `[1]` are.
        let name = line.trim_start_matches('[');
        let word = name.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        let is_value =
            matches!(word, "true" | "false" | "inf" | "nan") || !word.starts_with(|c: char| c.is_ascii_alphabetic());
        return if in_table { last != b'=' } else { !is_value };
    }
    let key = line.split('=').next().unwrap_or_default();
    let is_key = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.\"' ".contains(&byte);
    let assigns = key.len() < line.len() && !key.trim().is_empty() && key.bytes().all(is_key);
    assigns && !(in_table && matches!(last, b',' | b'{'))
}

/// The place behind a string that begins here. One that is not closed ends with its line.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let Some(&quote) = bytes.get(at) else { return at };
    let rest = bytes.get(at..).unwrap_or_default();
    let triple = [quote; 3];
    if rest.starts_with(&triple) {
        let inner = rest.get(3..).unwrap_or_default();
        return inner.windows(3).position(|three| three == triple).map_or(bytes.len(), |more| at + 3 + more + 3);
    }
    let mut escaped = false;
    for (more, byte) in rest.iter().enumerate().skip(1) {
        match byte {
            b'\n' => return at + more,
            b'\\' if quote == b'"' && !escaped => escaped = true,
            byte if *byte == quote && !escaped => return at + more + 1,
            _ => escaped = false,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::super::diagnostic::Diagnostic;
    use super::super::node::Node;
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let report = Diagnostics::new();
        let _ = Node::parse(&SourceText::new("f", text), &report);
        report.into_diagnostics().iter().map(Diagnostic::one_line).collect()
    }

    #[test]
    fn a_bracket_that_is_not_closed_is_one_mistake_at_its_place() {
        for text in [
            "a = 1\nb = { c = \"x\"\nd = 2\n[e]\nf = { g = 1 }\n",
            "a = 1\nb = { c = [1, 2 }\nd = 2\n[[e]]\nf = \"x\"\n",
            "a = 1\nb = [\"x\", # ]\nd = 2\n[e.f]\ng = 1\n",
            "a = 1\nb = { c = \"}\",\n[e]\nf = 1\n",
            "a = 1\nb = { c = '''\n}\n''', d = 2",
        ] {
            let told = told(text);
            assert!(matches!(&told[..], [only] if only.contains("f:2:") && only.contains("is not closed")), "{told:?}");
        }
        for fine in
            ["a = [\n[\"x\"],\n[1],\n[true]]\n", "a = { b = 1,\n c = [\n{ d = 1 },\n],\n}\n[e]\n", "a = \"[\" # {\n"]
        {
            assert_eq!(told(fine), [""; 0], "{fine}");
            assert_eq!(unclosed(fine), None, "{fine}");
        }
    }

    #[test]
    fn mistakes_that_are_not_of_brackets_are_all_told() {
        let told = told("a = = 1\nb = \"ok\"\nc = , 1\n");
        for line in ["f:1:", "f:3:"] {
            assert!(told.iter().any(|told| told.starts_with(line)), "{line} is not in {told:?}");
        }
    }

    #[test]
    fn a_second_table_or_key_names_the_place_of_the_first() {
        let text = "[client.erp]\nkey_sha256 = []\n[x]\n[client.erp]\nkey_sha256 = []\n[y]\na = 1\nb = 2\na = 3\n";
        let [client, key] = &told(text)[..] else { panic!("{:?}", told(text)) };
        assert!(client.contains("f:4:") && client.contains("[client.erp] stands at line 1 already"), "{client}");
        assert!(client.contains("key_sha256"), "{client}");
        assert!(key.contains("f:9:") && key.contains("`a` stands at line 7 already"), "{key}");
    }

    #[test]
    fn other_languages_are_named_once() {
        let yaml = told("# a comment\nlistener:\n  - name: gw\n    bind: 127.0.0.1:8443\n");
        assert!(matches!(&yaml[..], [only] if only.contains("f:2:1") && only.contains("YAML")), "{yaml:?}");
        let json = told("{\n  \"listener\": []\n}\n");
        assert!(matches!(&json[..], [only] if only.contains("JSON")), "{json:?}");
    }

    #[test]
    fn dates_and_numbers_beyond_all_bounds_are_mistakes_that_are_not_quoted() {
        let told = told("a = 2026-01-01\nb = 99999999999999999999\n");
        assert!(
            matches!(&told[..], [date, number] if date.contains("quotes") && number.contains("too large")),
            "{told:?}"
        );
        assert!(!told.concat().contains("2026") && !told.concat().contains("9999999999"), "{told:?}");
    }
}

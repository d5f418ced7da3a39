//! Reading XML that a stranger sent, as the tree of values that JSON would be; and writing such a tree.
//!
//! ```text
//! <s:Answer xmlns:s="urn:x" status="ok"><Token life="60">t</Token><Item>1</Item><Item/></s:Answer>
//! { "Answer": { "@status": "ok", "Token": { "@life": "60", "#text": "t" }, "Item": ["1", null] } }
//! ```
//!
//! Names are local ones; an element of text alone is that text, without white space around it; an empty one is `null`.
//! Only XML's own five entities and numbers of characters are replaced, so that no text is longer than it was written.

use quick_xml::Reader;
use quick_xml::escape::{EscapeError, escape, resolve_xml_entity, unescape};
use quick_xml::events::{BytesStart, Event};
use serde_json::map::Entry;
use serde_json::{Map, Value};

use crate::provider::document_error::{DEPTH_CAP, DocumentError};

/// The member of an element that has attributes or other elements for its text.
const TEXT: &str = "#text";

/// The longest index of a repeated element, in digits: no document of the permitted size has more elements.
const INDEX_DIGITS: usize = 4;

const ENTITY: DocumentError = DocumentError::XmlBeyond("an entity that it declares itself");

/// An element whose end is not read yet.
struct OpenElement {
    name: String,
    members: Map<String, Value>,
    text: String,
}

impl OpenElement {
    /// Opens an element with its attributes; `None` if they or the names are not well-formed.
    fn read(tag: &BytesStart<'_>) -> Result<Option<Self>, DocumentError> {
        let name = tag.local_name().into_inner();
        let mut element = Self { name: name.to_owned(), members: Map::new(), text: String::new() };
        // A name that is there twice becomes a list, and is no value for anything.
        for attribute in tag.attributes().with_checks(false) {
            let Ok(attribute) = attribute else { return Ok(None) };
            let value = match unescape(&attribute.value) {
                Ok(value) => value.into_owned(),
                Err(EscapeError::UnrecognizedEntity(..)) => return Err(ENTITY),
                Err(_) => return Ok(None),
            };
            let prefix = attribute.key.prefix().map(|prefix| prefix.into_inner());
            // Bindings of names and remarks on types are no content.
            if attribute.key.as_ref() == "xmlns" || matches!(prefix, Some("xmlns" | "xsi")) {
                continue;
            }
            let name = attribute.key.local_name().into_inner();
            if !is_name(name) {
                return Ok(None);
            }
            put(&mut element.members, format!("@{name}"), Value::String(value));
        }
        Ok(is_name(name).then_some(element))
    }

    fn value(mut self) -> Value {
        let text = self.text.trim_ascii();
        let text = if text.is_empty() { Value::Null } else { Value::String(text.to_owned()) };
        if self.members.is_empty() {
            return text;
        }
        if !text.is_null() {
            self.members.insert(TEXT.to_owned(), text);
        }
        Value::Object(self.members)
    }
}

/// Parses one XML document.
pub(super) fn parse(text: &str) -> Result<Value, DocumentError> {
    if text.trim_ascii().is_empty() {
        return Err(DocumentError::Empty);
    }
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let (mut open, mut whole) = (Vec::<OpenElement>::new(), Map::new());
    let mut is_declared = false;
    loop {
        let start = reader.buffer_position();
        let event = reader.read_event().map_err(|_| not_xml(text, reader.error_position().max(start)))?;
        let wrong = || not_xml(text, start);
        match event {
            Event::Start(tag) => {
                if open.len() >= DEPTH_CAP {
                    return Err(DocumentError::TooDeep);
                }
                let element = OpenElement::read(&tag)?.ok_or_else(wrong)?;
                // A page for people is no answer, even where it is well-formed.
                if open.is_empty() && (!whole.is_empty() || element.name.eq_ignore_ascii_case("html")) {
                    return Err(wrong());
                }
                open.push(element);
            }
            Event::End(_) => {
                let mut element = open.pop().ok_or_else(wrong)?;
                let name = std::mem::take(&mut element.name);
                put(open.last_mut().map_or(&mut whole, |parent| &mut parent.members), name, element.value());
            }
            Event::Text(more) => match open.last_mut() {
                Some(element) => element.text.push_str(&more.xml10_content()),
                None if more.trim_ascii().is_empty() => {}
                None => return Err(wrong()),
            },
            Event::CData(more) => open.last_mut().ok_or_else(wrong)?.text.push_str(&more.xml10_content()),
            Event::GeneralRef(reference) => {
                let text = &mut open.last_mut().ok_or_else(wrong)?.text;
                match reference.resolve_char_ref() {
                    Ok(Some(character)) => text.push(character),
                    Ok(None) => text.push_str(resolve_xml_entity(&reference).ok_or(ENTITY)?),
                    Err(_) => return Err(wrong()),
                }
            }
            Event::Decl(_) if open.is_empty() && whole.is_empty() && !is_declared => is_declared = true,
            Event::Comment(_) => {}
            Event::DocType(_) => return Err(DocumentError::XmlBeyond("a document type declaration")),
            Event::Decl(_) | Event::PI(_) => return Err(DocumentError::XmlBeyond("a processing instruction")),
            Event::Eof if open.is_empty() && !whole.is_empty() => return Ok(Value::Object(whole)),
            Event::Eof => return Err(wrong()),
            // Empty elements are expanded.
            Event::Empty(_) => return Err(wrong()),
        }
    }
}

/// Puts a member; one that is there already becomes a list.
fn put(members: &mut Map<String, Value>, name: String, value: Value) {
    match members.entry(name) {
        Entry::Vacant(free) => drop(free.insert(value)),
        Entry::Occupied(mut known) => match known.get_mut() {
            Value::Array(values) => values.push(value),
            first => *first = Value::Array(vec![first.take(), value]),
        },
    }
}

/// The failure at an offset in bytes.
fn not_xml(text: &str, at: u64) -> DocumentError {
    let at = usize::try_from(at).unwrap_or(usize::MAX).min(text.len());
    let before = text.as_bytes().get(..at).unwrap_or_default();
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    DocumentError::NotXml { line, column }
}

/// Returns whether a text can be the local name of an element or attribute. Characters beyond ASCII all may.
fn is_name(text: &str) -> bool {
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
    text.starts_with(starts) && text.chars().all(|c| starts(c) || c.is_ascii_digit() || matches!(c, '-' | '.'))
}

/// Returns whether a JSON pointer may lead to a text in a document: through elements and indexes of repeated ones, to an
/// element, an attribute or `#text`.
pub(super) fn fits(pointer: &str) -> bool {
    let mut steps = pointer.split('/').skip(1).peekable();
    if !steps.next().is_some_and(is_name) {
        return false;
    }
    let mut may_index = false;
    while let Some(step) = steps.next() {
        let is_last = steps.peek().is_none();
        let is_index = may_index && is_index(step);
        let is_end = step == TEXT || step.strip_prefix('@').is_some_and(is_name);
        if !(is_index || is_name(step) || is_last && is_end) {
            return false;
        }
        may_index = !is_index;
    }
    true
}

fn is_index(step: &str) -> bool {
    let is_canonical = step == "0" || !step.starts_with('0');
    is_canonical && (1..=INDEX_DIGITS).contains(&step.len()) && step.bytes().all(|byte| byte.is_ascii_digit())
}

/// Writes a tree in which texts and numbers stand where pointers that fit lead to them. Members that are named by an
/// index are repeated elements.
pub(super) fn write(whole: &Value) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    for (name, value) in whole.as_object().into_iter().flatten() {
        write_element(&mut out, name, value);
    }
    out
}

fn write_element(out: &mut String, name: &str, value: &Value) {
    let none = Map::new();
    let members = value.as_object().unwrap_or(&none);
    let index = |name: &String| name.parse::<usize>().ok().filter(|_| is_index(name));
    if let Some(last) = members.keys().filter_map(index).max() {
        for at in 0..=last {
            write_element(out, name, members.get(&at.to_string()).unwrap_or(&Value::Null));
        }
        return;
    }
    let content = |value: &Value| match value {
        Value::Null | Value::Object(_) => String::new(),
        Value::String(text) => escape(text).into_owned(),
        Value::Array(_) | Value::Bool(_) | Value::Number(_) => escape(value.to_string()).into_owned(),
    };
    out.push_str(&format!("<{name}"));
    for (name, value) in members.iter().filter_map(|(name, value)| Some((name.strip_prefix('@')?, value))) {
        out.push_str(&format!(" {name}=\"{}\"", content(value)));
    }
    out.push('>');
    out.push_str(&content(value));
    for (name, value) in members.iter().filter(|(name, _)| !name.starts_with('@')) {
        match name.as_str() {
            TEXT => out.push_str(&content(value)),
            _ => write_element(out, name, value),
        }
    }
    out.push_str(&format!("</{name}>"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn elements_and_attributes_are_members() {
        let answer = "<?xml version=\"1.0\"?>\r\n<!-- x --><s:Answer xmlns:s=\"urn:x\" s:status=\"o&amp;k\">\n \
                      <Token xsi:type=\"xsd:string\"> t <!-- -->u\n</Token><T life='60'>t</T><Item>1</Item><Item/></s:Answer> ";
        let read = json!({ "Answer": {
            "@status": "o&k", "Token": "t u", "T": { "@life": "60", "#text": "t" }, "Item": ["1", null],
        } });
        assert_eq!(parse(answer), Ok(read));
        assert_eq!(parse("<a xsi:nil='true'/>"), Ok(json!({ "a": null })));
        assert_eq!(parse("<a x:b='1' b='2'/>"), Ok(json!({ "a": { "@b": ["1", "2"] } })), "twice is no value");
    }

    #[test]
    fn text_is_what_references_and_sections_stand_for() {
        assert_eq!(parse("<a>&lt;&#65;&#x42;<![CDATA[<&amp;]]>&apos;</a>"), Ok(json!({ "a": "<AB<&amp;'" })));
        assert_eq!(parse("<a>x<b>1</b>y</a>"), Ok(json!({ "a": { "b": "1", "#text": "xy" } })));
        assert_eq!(parse("<a>1\r\n2</a>"), Ok(json!({ "a": "1\n2" })));
    }

    #[test]
    fn nothing_is_expanded() {
        let bomb = "<!DOCTYPE a [<!ENTITY x \"y\"><!ENTITY z \"&x;&x;\">]><a>&z;</a>";
        assert_eq!(parse(bomb), Err(DocumentError::XmlBeyond("a document type declaration")));
        for text in ["<a>&z;</a>", "<a b='&z;'/>", "<a>&nbsp;</a>"] {
            assert_eq!(parse(text), Err(ENTITY), "{text}");
        }
        for text in ["<?go now?><a/>", "<a><?go?></a>", "<a/><?go?>", "<a><?xml version='1.0'?></a>"] {
            assert_eq!(parse(text), Err(DocumentError::XmlBeyond("a processing instruction")), "{text}");
        }
    }

    #[test]
    fn what_is_not_one_whole_document_is_refused() {
        assert_eq!(parse(" \n"), Err(DocumentError::Empty));
        assert_eq!(parse("<a>\n </b>"), Err(DocumentError::NotXml { line: 2, column: 2 }));
        for text in [
            "x",
            "<a>",
            "<a></a",
            "<a/><b/>",
            "x<a/>",
            "<a/>x",
            "<a/>&lt;",
            "&lt;<a/>",
            "<![CDATA[ ]]><a/>",
            "<a b/>",
            "<a b='1/>",
            "<a><b></a></b>",
            "</a>",
            "<a>&lt</a>",
            "<a>&</a>",
            "<1/>",
            "<@a/>",
            "<#text/>",
            "</>",
            "<a:/>",
            "<a @b='1'/>",
            "<html><body/></html>",
            "<!-- -->",
            "{\"a\":1}",
            "<a>&#x0;</a>",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |levels: usize| parse(&("<a>".repeat(levels) + &"</a>".repeat(levels)));
        assert!(deep(32).is_ok());
        assert_eq!(deep(33), Err(DocumentError::TooDeep));
        assert_eq!(parse(&"<a>".repeat(20_000)), Err(DocumentError::TooDeep));
    }

    #[test]
    fn pointers_that_fit_lead_to_texts() {
        for pointer in ["/A", "/A/b-1/c", "/A/@b", "/A/#text", "/A/b/0/c", "/A/b/12/@c", "/Ä/b/3/#text", "/_"] {
            assert!(fits(pointer), "{pointer}");
        }
        for pointer in [
            "",
            "/",
            "/A/",
            "/0",
            "/@a",
            "/#text",
            "/A/@b/c",
            "/A/#text/b",
            "/A/b/0/1",
            "/A/b/00",
            "/A/b/12345",
            "/A/-1",
            "/s:A/b",
            "/A/b c",
            "/A/~1",
        ] {
            assert!(!fits(pointer), "{pointer}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let whole = json!({ "A": { "@s": "a\"<", "b": { "1": { "#text": "t&" } }, "n": 60, "c": { "d": "x" } } });
        let read = json!({ "A": { "@s": "a\"<", "b": [null, "t&"], "n": "60", "c": { "d": "x" } } });
        assert_eq!(parse(&write(&whole)), Ok(read));
    }

    /// Texts that are XML more often than others.
    fn nearly_xml() -> impl Strategy<Value = String> {
        const PIECES: [&str; 26] = [
            "<a>",
            "</a>",
            "<b c='",
            "'",
            "\"",
            "/>",
            "<",
            ">",
            "&lt;",
            "&#x3",
            ";",
            "&",
            "<![CDATA[",
            "]]>",
            "<!--",
            "-->",
            "<?xml ",
            "?>",
            "<!DOCTYPE a [",
            "]>",
            "xmlns:",
            "t",
            " ",
            "\n",
            "é",
            "\u{fffd}",
        ];
        proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in prop_oneof![".{0,200}", nearly_xml()]) {
            let _ = parse(&text);
        }

        /// A document that is cut within its root is never read.
        #[test]
        fn a_cut_document_is_never_read(token in "[ -%'-;=-~]{1,40}", at in 0_usize..60) {
            let text = format!("<Answer a=\"b\"><Token>{token}</Token></Answer>");
            prop_assert!(parse(&text).is_ok());
            prop_assert!(parse(text.get(..at.min(text.len() - 1)).unwrap_or_default()).is_err());
        }
    }
}

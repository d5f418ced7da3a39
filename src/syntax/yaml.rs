//! Reading YAML that others wrote, with the line of every value.
//!
//! Files of other programs (configurations, API descriptions) are untrusted: a few lines of aliases can stand for
//! gigabytes, and a few kilobytes of brackets can exhaust a stack. So everything is bounded before it is built: the size of
//! the text, the depth, and how many values and bytes a document has once its aliases are written out. JSON is read by the
//! same code, as the subset of YAML 1.2 that it is.
//!
//! Scalars follow the core schema (YAML 1.2.2, section 10.3.2), with one difference: a number is kept as it is written, so
//! that an identifier such as `0042` or one of thirty digits does not change.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Value};

/// Largest text, in bytes.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Most levels of lists and maps.
pub const MAX_DEPTH: usize = 100;
/// Most values of one text, with those that aliases stand for.
const MAX_NODES: usize = 500_000;
/// Most bytes of scalars of one text, with those that aliases stand for.
const MAX_EXPANDED: usize = 32 * 1024 * 1024;

/// A value with the line on which it begins, counted from 1.
#[derive(Clone, Debug)]
pub struct YamlNode {
    pub line: usize,
    pub content: YamlContent,
}

/// The kinds of values.
#[derive(Clone, Debug)]
pub enum YamlContent {
    Null,
    Bool(bool),
    /// A number as it is written in the file.
    Number(String),
    Text(String),
    List(Vec<YamlNode>),
    Map(Vec<YamlPair>),
}

/// A key of a map with its value; keys are texts, and each is there once.
#[derive(Clone, Debug)]
pub struct YamlPair {
    pub line: usize,
    pub key: String,
    pub value: YamlNode,
}

/// Reads a text with one document. Empty documents beside it do not count.
pub fn read(text: &str) -> Result<Value, String> {
    let mut documents = read_nodes(text)?;
    match (documents.pop(), documents.last()) {
        (Some(only), None) => Ok(only.json()),
        (Some(last), Some(_)) => Err(format!("line {}: the file has a second document; keep one in it", last.line)),
        (None, _) => Err("the file is empty".to_owned()),
    }
}

/// Reads every document of a text that is not empty.
pub fn read_all(text: &str) -> Result<Vec<Value>, String> {
    Ok(read_nodes(text)?.iter().map(YamlNode::json).collect())
}

/// The same with lines.
pub fn read_nodes(text: &str) -> Result<Vec<YamlNode>, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("the file is larger than {} MiB, more than is read", MAX_BYTES / 1024 / 1024));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let untabbed = without_tabs(text);
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(&untabbed);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let place = error.marker();
            format!("line {}, column {}: {}", place.line(), place.col() + 1, error.info())
        })?;
        builder.take(event, span)?;
    }
    Ok(builder.documents)
}

/// JSON may be indented with tabs, YAML may not. No string of JSON has one, so each may become a blank.
fn without_tabs(text: &str) -> Cow<'_, str> {
    let is_json = text.contains('\t') && text.trim_start().starts_with(['{', '[']);
    if is_json && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        Cow::Owned(text.replace('\t', " "))
    } else {
        Cow::Borrowed(text)
    }
}

impl YamlNode {
    /// The value without its lines. A number that JSON does not have, such as `.inf` or `0042`, is a text.
    pub fn json(&self) -> Value {
        match &self.content {
            YamlContent::Null => Value::Null,
            YamlContent::Bool(value) => Value::Bool(*value),
            YamlContent::Number(written) => json_number(written).unwrap_or_else(|| Value::String(written.clone())),
            YamlContent::Text(text) => Value::String(text.clone()),
            YamlContent::List(items) => Value::Array(items.iter().map(Self::json).collect()),
            YamlContent::Map(pairs) => {
                Value::Object(pairs.iter().map(|pair| (pair.key.clone(), pair.value.json())).collect::<Map<_, _>>())
            }
        }
    }

    /// Counts the values of this one, itself among them, and the bytes of their texts.
    fn weight(&self) -> (usize, usize) {
        match &self.content {
            YamlContent::Null | YamlContent::Bool(_) => (1, 0),
            YamlContent::Number(text) | YamlContent::Text(text) => (1, text.len()),
            YamlContent::List(items) => items.iter().map(Self::weight).fold((1, 0), sum),
            YamlContent::Map(pairs) => {
                pairs.iter().map(|pair| sum(pair.value.weight(), (1, pair.key.len()))).fold((1, 0), sum)
            }
        }
    }

    fn depth(&self) -> usize {
        match &self.content {
            YamlContent::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or_default(),
            YamlContent::Map(pairs) => 1 + pairs.iter().map(|pair| pair.value.depth()).max().unwrap_or_default(),
            _ => 0,
        }
    }
}

fn sum(a: (usize, usize), b: (usize, usize)) -> (usize, usize) {
    (a.0 + b.0, a.1 + b.1)
}

fn json_number(written: &str) -> Option<Value> {
    if let Some(octal) = written.strip_prefix("0o") {
        return u64::from_str_radix(octal, 8).ok().map(Value::from);
    }
    if let Some(hexadecimal) = written.strip_prefix("0x") {
        return u64::from_str_radix(hexadecimal, 16).ok().map(Value::from);
    }
    let digits = written.trim_start_matches(['-', '+']);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        if digits.len() > 1 && digits.starts_with('0') {
            return None;
        }
        return written.parse::<u64>().map(Value::from).or_else(|_| written.parse::<i64>().map(Value::from)).ok();
    }
    written.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number)
}

/// A list or a map whose end has not come yet.
struct UnfinishedNode {
    line: usize,
    anchor: usize,
    content: UnfinishedContent,
}

enum UnfinishedContent {
    List(Vec<YamlNode>),
    Map { pairs: Vec<YamlPair>, seen: HashSet<String>, key: Option<(String, usize)> },
}

#[derive(Default)]
struct Builder {
    open: Vec<UnfinishedNode>,
    documents: Vec<YamlNode>,
    anchors: HashMap<usize, YamlNode>,
    nodes: usize,
    bytes: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), String> {
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.charge(line, (1, text.len()))?;
                let content = scalar(text, style, tag.as_deref()).map_err(|why| format!("line {line}: {why}"))?;
                self.close(YamlNode { line, content }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                collection_tag(tag.as_deref(), "seq").map_err(|why| format!("line {line}: {why}"))?;
                self.begin(line, anchor, UnfinishedContent::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                collection_tag(tag.as_deref(), "map").map_err(|why| format!("line {line}: {why}"))?;
                self.begin(line, anchor, UnfinishedContent::Map { pairs: Vec::new(), seen: HashSet::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(UnfinishedNode { line, anchor, content: UnfinishedContent::List(items) }) => {
                    self.close(YamlNode { line, content: YamlContent::List(items) }, anchor)
                }
                Some(UnfinishedNode { line, anchor, content: UnfinishedContent::Map { pairs, .. } }) => {
                    self.close(YamlNode { line, content: YamlContent::Map(merged(pairs)?) }, anchor)
                }
                None => Err(format!("line {line}: an end without a beginning")),
            },
            Event::Alias(anchor) => {
                let Some(meant) = self.anchors.get(&anchor) else {
                    return Err(format!("line {line}: an alias within the value that it stands for"));
                };
                let weight = meant.weight();
                if self.open.len() + meant.depth() > MAX_DEPTH {
                    return Err(too_deep(line));
                }
                self.charge(line, weight)?;
                let node = self.anchors.get(&anchor).cloned();
                node.map_or(Ok(()), |node| self.close(YamlNode { line, ..node }, 0))
            }
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => Ok(()),
        }
    }

    fn begin(&mut self, line: usize, anchor: usize, content: UnfinishedContent) -> Result<(), String> {
        self.charge(line, (1, 0))?;
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(line));
        }
        self.open.push(UnfinishedNode { line, anchor, content });
        Ok(())
    }

    fn charge(&mut self, line: usize, (nodes, bytes): (usize, usize)) -> Result<(), String> {
        self.nodes += nodes;
        self.bytes += bytes;
        if self.nodes > MAX_NODES || self.bytes > MAX_EXPANDED {
            return Err(format!("line {line}: the file stands for more values than are read (aliases count in full)"));
        }
        Ok(())
    }

    /// Puts a whole value where it belongs.
    fn close(&mut self, node: YamlNode, anchor: usize) -> Result<(), String> {
        let line = node.line;
        if anchor > 0 {
            self.charge(line, node.weight())?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None if matches!(node.content, YamlContent::Null) => {}
            None => self.documents.push(node),
            Some(UnfinishedContent::List(items)) => items.push(node),
            Some(UnfinishedContent::Map { pairs, seen, key }) => match key.take() {
                Some((key, line)) => pairs.push(YamlPair { line, key, value: node }),
                None => {
                    let text = key_text(node).ok_or_else(|| format!("line {line}: a key that is no text"))?;
                    if text != MERGE && !seen.insert(text.clone()) {
                        return Err(format!("line {line}: the key `{}` is there twice", text.escape_debug()));
                    }
                    *key = Some((text, line));
                }
            },
        }
        Ok(())
    }
}

fn too_deep(line: usize) -> String {
    format!("line {line}: lists and maps within each other, more than {MAX_DEPTH} deep")
}

/// The key whose value is other maps, as YAML 1.1 has it and many files use it.
const MERGE: &str = "<<";

/// Writes out merge keys: a key of the map itself counts, then the first map that has it.
fn merged(pairs: Vec<YamlPair>) -> Result<Vec<YamlPair>, String> {
    if !pairs.iter().any(|pair| pair.key == MERGE) {
        return Ok(pairs);
    }
    let (merges, mut own): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|pair| pair.key == MERGE);
    let mut seen: HashSet<String> = own.iter().map(|pair| pair.key.clone()).collect();
    for YamlPair { line, value, .. } in merges {
        let maps = match value.content {
            YamlContent::List(items) => items,
            _ => vec![value],
        };
        for map in maps {
            let YamlContent::Map(pairs) = map.content else {
                return Err(format!("line {line}: `<<` stands before a map or a list of maps"));
            };
            own.extend(pairs.into_iter().filter(|pair| seen.insert(pair.key.clone())));
        }
    }
    Ok(own)
}

fn key_text(node: YamlNode) -> Option<String> {
    match node.content {
        YamlContent::Text(text) | YamlContent::Number(text) => Some(text),
        YamlContent::Bool(value) => Some(value.to_string()),
        YamlContent::Null => Some("null".to_owned()),
        YamlContent::List(_) | YamlContent::Map(_) => None,
    }
}

fn collection_tag(tag: Option<&Tag>, usual: &str) -> Result<(), String> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == usual) => Err(unknown_tag(tag)),
        _ => Ok(()),
    }
}

fn unknown_tag(tag: &Tag) -> String {
    format!("the tag `{}` is not understood", format!("{}{}", tag.handle, tag.suffix).escape_debug())
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Result<YamlContent, String> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() && !(tag.handle.is_empty() && tag.suffix == "!") => {
            Err(unknown_tag(tag))
        }
        Some(tag) if matches!(&*tag.suffix, "str" | "!") => Ok(YamlContent::Text(text.into_owned())),
        Some(tag) if matches!(&*tag.suffix, "int" | "float" | "bool" | "null") => Ok(plain(text)),
        Some(tag) => Err(unknown_tag(tag)),
        None if style == ScalarStyle::Plain => Ok(plain(text)),
        None => Ok(YamlContent::Text(text.into_owned())),
    }
}

fn plain(text: Cow<'_, str>) -> YamlContent {
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" => YamlContent::Null,
        "true" | "True" | "TRUE" => YamlContent::Bool(true),
        "false" | "False" | "FALSE" => YamlContent::Bool(false),
        other if is_number(other) => YamlContent::Number(text.into_owned()),
        _ => YamlContent::Text(text.into_owned()),
    }
}

fn is_number(text: &str) -> bool {
    if let Some(octal) = text.strip_prefix("0o") {
        return !octal.is_empty() && octal.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    }
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return !hexadecimal.is_empty() && hexadecimal.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let begins = unsigned.trim_start_matches('.').starts_with(|first: char| first.is_ascii_digit());
    begins
        && unsigned.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte))
        && text.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn values_follow_the_core_schema() {
        let text = "a: 1\nb: -2.5\nc: true\nd: ~\ne: no\nf: '1'\ng: 0x1f\nh: [x, {y: z}]\ni: |\n  two\n  lines\nj: 0042\nk: .inf\nl: 1e3\nm: 123456789012345678901234\nn: !!str 5\n1: one\n";
        let expected = json!({
            "a": 1, "b": -2.5, "c": true, "d": null, "e": "no", "f": "1", "g": 31, "h": ["x", {"y": "z"}],
            "i": "two\nlines\n", "j": "0042", "k": ".inf", "l": 1000.0, "m": "123456789012345678901234", "n": "5",
            "1": "one"
        });
        assert_eq!(read(text).expect("well-formed"), expected);
    }

    #[test]
    fn json_is_read_with_tabs_too() {
        let value = json!({ "a": [1, 2.5, null, { "b": "c\n\u{e9} \"x\" /" }], "d": {} });
        let pretty = serde_json::to_string_pretty(&value).expect("json");
        assert_eq!(read(&pretty).expect("pretty"), value);
        assert_eq!(read(&pretty.replace("  ", "\t")).expect("tabs"), value);
        assert_eq!(read(&value.to_string()).expect("one line"), value);
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let nodes = read_nodes("# remark\na:\n  b: 1\n  c:\n    - d\n").expect("well-formed");
        let YamlContent::Map(pairs) = &nodes[0].content else { panic!("a map") };
        let YamlContent::Map(inner) = &pairs[0].value.content else { panic!("a map") };
        assert_eq!((pairs[0].line, inner[0].line, inner[1].line), (2, 3, 4));
        let YamlContent::List(items) = &inner[1].value.content else { panic!("a list") };
        assert_eq!(items[0].line, 5);
    }

    #[test]
    fn aliases_and_merge_keys_are_written_out() {
        let text = "base: &base {a: 1, b: 2}\nother: &other {b: 3, c: 4}\none:\n  <<: *base\n  b: 5\ntwo:\n  <<: [*base, *other]\nthree: *base\n";
        let value = read(text).expect("well-formed");
        assert_eq!(value["one"], json!({ "a": 1, "b": 5 }));
        assert_eq!(value["two"], json!({ "a": 1, "b": 2, "c": 4 }));
        assert_eq!(value["three"], json!({ "a": 1, "b": 2 }));
    }

    #[test]
    fn several_documents_are_read_or_refused_by_name() {
        let text = "---\na: 1\n---\n# nothing\n---\nb: 2\n...\n";
        assert_eq!(read_all(text).expect("well-formed"), [json!({ "a": 1 }), json!({ "b": 2 })]);
        assert!(read(text).expect_err("two documents").contains("second document"));
        assert_eq!(read("---\na: 1\n---\n").expect("one document"), json!({ "a": 1 }));
        assert!(read("").expect_err("nothing").contains("empty"));
        assert!(read("# only a remark\n").expect_err("nothing").contains("empty"));
    }

    #[test]
    fn bombs_are_refused_in_bounded_memory() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        let mut quadratic = format!("a: &a {}\nb: [", "x".repeat(100_000));
        let mut merges = "m0: &m0 {k0: v}\n".to_owned();
        for level in 1..40 {
            let alias = format!("*a{}", level - 1);
            let _ = writeln!(laughs, "a{level}: &a{level} [{}]", [alias.as_str(); 10].join(", "));
            let _ = writeln!(merges, "m{level}: &m{level} {{a: *m{0}, b: *m{0}, c: {{<<: *m{0}}}}}", level - 1);
        }
        quadratic += &"*a, ".repeat(10_000);
        quadratic += "x]\n";
        for bomb in [laughs, quadratic, merges] {
            let why = read(&bomb).expect_err("a bomb");
            assert!(why.contains("more values") || why.contains("deep"), "{why}");
        }
    }

    #[test]
    fn depth_size_and_loops_are_refused() {
        let in_flow = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let unclosed = "{a: ".repeat(50_000);
        let in_block = "- ".repeat(5_000) + "x";
        let mut anchored = "- &a0 [x]\n".to_owned();
        for level in 1..200 {
            let _ = writeln!(anchored, "- &a{level} [*a{}]", level - 1);
        }
        for deep in [in_flow, unclosed, in_block, anchored] {
            let why = read(&deep).expect_err("too deep");
            assert!(why.contains("deep") || why.contains("limit"), "{why}");
        }
        assert!(read(&"x".repeat(MAX_BYTES + 1)).expect_err("too large").contains("MiB"));
        assert!(read("a: &a [*a]\n").expect_err("a loop").contains("within the value"));
        assert!(read("a: *b\n").is_err());
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        for (text, line, word) in [
            ("a: 1\na: 2\n", "line 2", "`a` is there twice"),
            ("a: 1\nb: !secret x\n", "line 2", "tag"),
            ("a: 1\nb: !!binary aGk=\n", "line 2", "tag"),
            ("a:\n  ? [x, y]\n  : z\n", "line 2", "no text"),
            ("a: 1\n<<: x\n", "line 2", "`<<`"),
            ("a: [1\n", "line 2", ""),
            ("a: \"x\n", "line", ""),
            ("a:\n\tb: 1\n", "line 2", ""),
        ] {
            let why = read(text).expect_err(text);
            assert!(why.starts_with(line) && why.contains(word), "{text:?}: {why}");
        }
    }

    proptest! {
        #[test]
        fn no_text_ends_in_a_panic(text in r#"([-?:,\[\]{}#&*!|>'"%@` \t\na1~<.\\]|\PC|---\n){0,60}"#) {
            let _ = read_all(&text);
        }

        #[test]
        fn what_json_can_say_is_read_alike(keys in proptest::collection::btree_map("[a-z \"\\\\:#é]{0,8}", "\\PC{0,12}", 0..6)) {
            let value = json!({ "map": keys, "list": keys.values().collect::<Vec<_>>() });
            let text = serde_json::to_string_pretty(&value).expect("json");
            prop_assert_eq!(read(&text).expect("well-formed"), value);
        }
    }
}

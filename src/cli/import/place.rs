//! A value of a YAML or JSON file with its path, so that whatever a reader does not know is named.

use super::draft::Draft;
use super::words::cure_of;
use crate::syntax::yaml::{YamlContent, YamlNode};

/// A value and the way that leads to it.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    node: &'a YamlNode,
    line: usize,
    path: String,
}

impl<'a> Place<'a> {
    /// The root of a document.
    pub fn root(node: &'a YamlNode) -> Self {
        Self { node, line: node.line, path: String::new() }
    }

    /// The line of the key that leads here.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The path, as losses name it; at most its last parts.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn below(&self, word: &str) -> String {
        let longest: String = word.chars().take(64).collect();
        let path = if self.path.is_empty() { longest } else { format!("{}.{longest}", self.path) };
        let parts: Vec<&str> = path.split('.').collect();
        parts[parts.len().saturating_sub(4)..].join(".")
    }

    /// The value of a key, if this is a map that has it. Keys are compared without regard to `-`, `_` and case.
    pub fn get(&self, key: &str) -> Option<Place<'a>> {
        let YamlContent::Map(pairs) = &self.node.content else { return None };
        let pair = pairs.iter().find(|pair| alike(&pair.key, key))?;
        Some(Self { node: &pair.value, line: pair.line, path: self.below(&pair.key) })
    }

    /// The value at the end of several keys.
    pub fn at(&self, keys: &[&str]) -> Option<Place<'a>> {
        keys.iter().try_fold(self.clone(), |place, key| place.get(key))
    }

    /// Every key with its value, in the order of the file.
    pub fn entries(&self) -> Vec<(&'a str, Place<'a>)> {
        match &self.node.content {
            YamlContent::Map(pairs) => pairs
                .iter()
                .map(|pair| {
                    let place = Self { node: &pair.value, line: pair.line, path: self.below(&pair.key) };
                    (pair.key.as_str(), place)
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The items of a list; a single value counts as a list of one, nothing as an empty one.
    pub fn items(&self) -> Vec<Place<'a>> {
        match &self.node.content {
            YamlContent::List(items) => {
                items.iter().map(|item| Self { node: item, line: item.line, path: self.path.clone() }).collect()
            }
            YamlContent::Null => Vec::new(),
            _ => vec![self.clone()],
        }
    }

    /// The items of the list behind a key.
    pub fn list(&self, key: &str) -> Vec<Place<'a>> {
        self.get(key).map(|found| found.items()).unwrap_or_default()
    }

    /// A scalar as it is written.
    pub fn text(&self) -> Option<&'a str> {
        match &self.node.content {
            YamlContent::Text(text) | YamlContent::Number(text) => Some(text),
            YamlContent::Bool(true) => Some("true"),
            YamlContent::Bool(false) => Some("false"),
            _ => None,
        }
    }

    /// The scalar behind a key.
    pub fn text_of(&self, key: &str) -> Option<&'a str> {
        self.get(key)?.text()
    }

    /// The scalars of the list behind a key.
    pub fn texts(&self, key: &str) -> Vec<&'a str> {
        self.list(key).iter().filter_map(Place::text).collect()
    }

    /// Tells whether the value is absent, false, or empty: such a field changes nothing.
    fn is_idle(&self) -> bool {
        match &self.node.content {
            YamlContent::Null | YamlContent::Bool(false) => true,
            YamlContent::List(items) => items.is_empty(),
            YamlContent::Map(_) | YamlContent::Bool(true) => false,
            YamlContent::Number(text) => text == "0",
            YamlContent::Text(text) => text.is_empty(),
        }
    }

    /// Names every key that is neither read nor without a meaning here.
    pub fn leftover(&self, known: &[&str], draft: &mut Draft) {
        for (key, place) in self.entries() {
            if !known.iter().any(|known| alike(known, key)) && !place.is_idle() {
                draft.lose(place.line, place.path.clone(), cure_of(key));
            }
        }
    }

    /// Names this value as a whole.
    pub fn lose(&self, draft: &mut Draft, cure: &str) {
        draft.lose(self.line, self.path.clone(), cure);
    }
}

/// Tells whether two keys are the same but for `-`, `_` and case: Envoy, Spring and others take either.
fn alike(a: &str, b: &str) -> bool {
    fn plain(word: &str) -> impl Iterator<Item = u8> {
        word.bytes().filter(|byte| !matches!(byte, b'-' | b'_')).map(|byte| byte.to_ascii_lowercase())
    }
    a == b || plain(a).eq(plain(b))
}

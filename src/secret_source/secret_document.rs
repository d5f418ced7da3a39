//! The content of one secret: a text, or fields with names.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::source_problem::{SourcePart, SourceProblem};
use crate::base::counted::counted;
use crate::base::secret::{is_wordy_secret, sha256};

/// A longer value is no secret, in bytes: 64 KiB.
const LONGEST_VALUE: usize = 64 << 10;
/// So many names of fields are told to a person at most.
const TOLD_NAMES: usize = 8;

/// The bytes of a field; `None`: it is no text but a list or table.
type FieldValue = Option<Zeroizing<Vec<u8>>>;

/// The content of a secret, wiped when it is dropped. `Debug` shows no values.
#[derive(Default, Eq, PartialEq)]
pub struct SecretDocument {
    /// The whole text, where the source has one.
    whole: Option<Zeroizing<Vec<u8>>>,
    fields: BTreeMap<String, FieldValue>,
}

impl SecretDocument {
    /// Makes one of a text, which may be a JSON object.
    pub(super) fn of_text(text: Vec<u8>) -> Self {
        let object: Option<Map<String, Value>> = serde_json::from_slice(&text).ok();
        let fields = object.map(Self::of_object).unwrap_or_default().fields;
        Self { whole: Some(Zeroizing::new(text)), fields }
    }

    /// Makes one of a JSON object. Numbers and truth values are taken as they are written.
    pub(super) fn of_object(object: Map<String, Value>) -> Self {
        let field = |value| match value {
            Value::String(text) => Some(text),
            Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
            Value::Array(_) | Value::Null | Value::Object(_) => None,
        };
        let fields = object.into_iter().map(|(name, value)| (name, field(value).map(String::into_bytes)));
        Self::of_fields(fields)
    }

    /// Makes one of fields with their bytes.
    pub(super) fn of_fields(fields: impl IntoIterator<Item = (String, Option<Vec<u8>>)>) -> Self {
        let fields = fields.into_iter().map(|(name, bytes)| (name, bytes.map(Zeroizing::new))).collect();
        Self { whole: None, fields }
    }

    /// Returns a digest of all values.
    pub fn digest(&self) -> [u8; 32] {
        let mut inputs = sha256(self.whole.as_deref().map_or(&[], Vec::as_slice)).to_vec();
        for (name, value) in &self.fields {
            inputs.extend(sha256(name.as_bytes()));
            inputs.extend(sha256(value.as_deref().map_or(&[], Vec::as_slice)));
        }
        sha256(&inputs)
    }

    /// Returns the bytes of a field; without a name, the whole text or the only field.
    pub fn value(&self, field: Option<&str>) -> Result<&[u8], SourceProblem> {
        let problem = |what: String, cure: String| SourceProblem::new(SourcePart::Field, what, cure);
        let found = match (field, &self.whole) {
            (Some(name), _) => match self.fields.get(name) {
                Some(value) => value.as_ref(),
                None => {
                    return Err(problem(format!("it has no field `{}`", name.escape_debug()), self.names()));
                }
            },
            (None, Some(whole)) => Some(whole),
            (None, None) => match self.fields.len() {
                1 => self.fields.values().next().and_then(Option::as_ref),
                count => {
                    let cure = format!("name one of them, as in `field = \"password\"`; {}", self.names());
                    return Err(problem(format!("it has {}", counted(count, "field")), cure));
                }
            },
        };
        let Some(value) = found else {
            return Err(problem("the field is a list or a table, not a text".to_owned(), self.names()));
        };
        if value.len() > LONGEST_VALUE {
            let what = format!("the value is longer than {} KiB", LONGEST_VALUE >> 10);
            return Err(problem(what, "a secret is shorter".to_owned()));
        }
        Ok(value)
    }

    /// The names of the fields, for a person; those that might be secrets themselves are left out.
    fn names(&self) -> String {
        let names = self.fields.keys().filter(|name| is_wordy_secret(name)).take(TOLD_NAMES);
        let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
        if names.is_empty() { "it has no fields".to_owned() } else { format!("it has {}", names.join(", ")) }
    }
}

impl fmt::Debug for SecretDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretDocument").field("fields", &self.fields.len()).finish_non_exhaustive()
    }
}

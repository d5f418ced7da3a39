//! What simulators draw at random: ports, identifiers, secrets, keys. With the same memory they are the same banks again.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::secret::{ExposeSecret, SecretString};

/// Texts that were drawn, by what they are for: `scb/secret`. Clones are the same memory.
#[derive(Clone, Debug, Default)]
pub struct SimMemory(Arc<Mutex<BTreeMap<String, SecretString>>>);

impl SimMemory {
    /// Reads what [`write`](Self::write) wrote.
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        let texts: BTreeMap<String, String> = serde_json::from_str(text)?;
        let texts = texts.into_iter().map(|(place, text)| (place, SecretString::from(text)));
        Ok(Self(Arc::new(Mutex::new(texts.collect()))))
    }

    /// Returns all of it as a JSON object of texts. They are secrets of simulated banks.
    pub fn write(&self) -> SecretString {
        let texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let texts: BTreeMap<&str, &str> =
            texts.iter().map(|(place, text)| (place.as_str(), text.expose_secret())).collect();
        SecretString::from(serde_json::to_string_pretty(&texts).unwrap_or_default() + "\n")
    }

    /// Returns the text that was drawn for this place, if one was.
    pub fn known(&self, place: &str) -> Option<SecretString> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(place).cloned()
    }

    /// Remembers a text for this place, instead of another one.
    pub fn note(&self, place: &str, text: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(place.to_owned(), SecretString::from(text));
    }

    /// Returns the text that was drawn for this place, or draws it now.
    pub(super) fn recall(&self, place: &str, draw: impl FnOnce() -> String) -> SecretString {
        let Ok(text) = self.try_recall(place, || Ok::<_, Infallible>(draw()));
        text
    }

    /// The same where drawing may fail.
    pub(super) fn try_recall<E>(
        &self,
        place: &str,
        draw: impl FnOnce() -> Result<String, E>,
    ) -> Result<SecretString, E> {
        if let Some(known) = self.known(place) {
            return Ok(known);
        }
        let drawn = draw()?;
        self.note(place, drawn.clone());
        Ok(SecretString::from(drawn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_drawn_is_recalled_also_by_who_reads_it() {
        let memory = SimMemory::default();
        assert_eq!(memory.recall("scb/secret", || "first".to_owned()).expose_secret(), "first");
        assert_eq!(memory.recall("scb/secret", || "second".to_owned()).expose_secret(), "first");
        let again = SimMemory::read(memory.write().expose_secret()).expect("JSON");
        assert_eq!(again.recall("scb/secret", || "third".to_owned()).expose_secret(), "first");
        assert!(SimMemory::read("[1]").is_err());
    }
}

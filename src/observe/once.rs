//! Words that are worth one line in the log each, but not one every time.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// So many different words are told; what a peer makes up beyond that is not.
const MOST: usize = 32;

/// Words of which each is told once.
#[derive(Debug, Default)]
pub struct Once(Mutex<BTreeSet<Box<str>>>);

impl Once {
    /// Returns whether this word occurs for the first time, and is to be logged.
    pub fn first(&self, word: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < MOST && told.insert(word.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_told_once_and_not_without_end() {
        let once = Once::default();
        assert!(once.first("a") && !once.first("a") && once.first("b"));
        let told = (0..1000).filter(|word| once.first(&word.to_string())).count();
        assert_eq!(told, MOST - 2);
    }
}

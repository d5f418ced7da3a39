//! `--name value` arguments, and flags.

use std::str::FromStr;

use crate::Failure;

/// Options without a value.
const FLAGS: &[&str] = &["quick"];

/// What is left of the command line.
pub struct Args(Vec<(String, String)>);

impl Args {
    /// Reads `--name value` pairs and flags.
    pub fn read(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut pairs = Vec::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("`{word}`: an option was expected here"))?;
            let value = if FLAGS.contains(&name) { Some("yes".to_owned()) } else { words.next() };
            let value = value.ok_or_else(|| format!("`--{name}` needs a value"))?;
            pairs.push((name.to_owned(), value));
        }
        Ok(Self(pairs))
    }

    /// Takes an option; the last one counts.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let mut found = None;
        self.0.retain(|(known, value)| {
            if known == name {
                found = Some(value.clone());
            }
            known != name
        });
        found
    }

    /// Takes an option that must be there.
    pub fn text(&mut self, name: &str) -> Result<String, Failure> {
        self.take(name).ok_or_else(|| format!("`--{name}` is missing").into())
    }

    /// Takes and reads an option that must be there.
    pub fn parse<T: FromStr>(&mut self, name: &str) -> Result<T, Failure> {
        let text = self.text(name)?;
        text.parse().map_err(|_| format!("`--{name} {text}` makes no sense").into())
    }

    /// Takes and reads an option.
    pub fn or<T: FromStr>(&mut self, name: &str, default: T) -> Result<T, Failure> {
        if self.0.iter().any(|(known, _)| known == name) { self.parse(name) } else { Ok(default) }
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), Failure> {
        match self.0.first() {
            Some((name, _)) => Err(format!("there is no option `--{name}`").into()),
            None => Ok(()),
        }
    }
}

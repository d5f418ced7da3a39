//! The forms in which secrets may come back, and the search for them.
//!
//! Nearly every answer holds none, and a proxy of a hundred thousand users searches each answer for another token. So a search
//! looks for the first bytes of the forms alone, which are made of the first bytes of a secret. The forms as a whole are made
//! where these are found.

use std::borrow::Cow;
use std::cell::OnceCell;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem::Finder;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

use super::escapes::escape_spellings;

/// The minimum length of a pattern, in bytes: a shorter one would match everywhere.
const SHORTEST: usize = 8;
/// The first bytes of a secret on which the first bytes of each of its forms depend, and some more.
const BEGINNING: usize = 24;
/// The most bytes that a form has for one of the secret: `\u002B`, `&#x2B;`.
const WIDEST: usize = 6;

/// Secrets that are searched for. It has no `Debug`, because it holds them.
pub struct SecretPatterns {
    secrets: Vec<Zeroizing<Vec<u8>>>,
    /// The first bytes of all forms.
    starts: Vec<Finder<'static>>,
    /// The fewest bytes of any form: no form is shorter than its secret.
    pub shortest: usize,
    /// The most bytes of any form.
    longest: usize,
    forms: OnceCell<Vec<Finder<'static>>>,
}

impl SecretPatterns {
    /// Patterns for these secrets. Shorter ones than [`SHORTEST`] are left out.
    pub fn new<'a>(secrets: impl Iterator<Item = &'a [u8]>) -> Self {
        let secrets = secrets.filter(|secret| secret.len() >= SHORTEST);
        let secrets: Vec<_> = secrets.map(|secret| Zeroizing::new(secret.to_vec())).collect();
        let mut starts = Vec::new();
        for secret in &secrets {
            let beginning = secret.get(..BEGINNING).unwrap_or(secret);
            forms_of(beginning, secret, |form| starts.extend(form.get(..SHORTEST).map(<[u8]>::to_vec)));
        }
        starts.sort_unstable();
        starts.dedup();
        Self {
            shortest: secrets.iter().map(|secret| secret.len()).min().unwrap_or(usize::MAX),
            longest: secrets.iter().map(|secret| secret.len() * WIDEST).max().unwrap_or(0),
            secrets,
            starts: starts.iter().map(|start| Finder::new(start).into_owned()).collect(),
            forms: OnceCell::new(),
        }
    }

    /// Returns whether any form occurs in these bytes.
    pub fn found_in(&self, bytes: &[u8]) -> bool {
        bytes.len() >= self.shortest
            && self.begins_in(bytes)
            && self.forms().iter().any(|form| form.find(bytes).is_some())
    }

    /// Returns whether the first bytes of any form occur in these bytes.
    fn begins_in(&self, bytes: &[u8]) -> bool {
        self.starts.iter().any(|start| start.find(bytes).is_some())
    }

    /// The first bytes of all forms, each of [`SHORTEST`] bytes.
    pub fn starts(&self) -> impl Iterator<Item = &[u8]> {
        self.starts.iter().map(Finder::needle)
    }

    /// Puts stars over the places in `bytes` at which a form begins in `original`, before `end`.
    pub fn mask(&self, original: &[u8], bytes: &mut [u8], end: usize) {
        for form in self.forms() {
            for at in form.find_iter(original).take_while(|at| *at < end) {
                if let Some(span) = bytes.get_mut(at..at + form.needle().len()) {
                    span.fill(b'*');
                }
            }
        }
    }

    /// Returns the number of trailing bytes that may be the beginning of a form.
    pub fn begun(&self, bytes: &[u8]) -> usize {
        let tail = bytes.get(bytes.len().saturating_sub(self.longest.saturating_sub(1))..).unwrap_or_default();
        let goes_on = |rest: &[u8]| {
            let begins = |form: &Finder<'_>| form.needle().len() > rest.len() && form.needle().starts_with(rest);
            self.forms().iter().any(begins)
        };
        let begun = self.starts.iter().filter_map(|start| {
            let mut rests = start.find_iter(tail).filter_map(|at| tail.get(at..));
            rests.find(|rest| goes_on(rest)).map(<[u8]>::len)
        });
        let begun_in_short = || {
            let starts = |rest: &[u8]| self.starts.iter().any(|start| start.needle().starts_with(rest));
            let longest = tail.len().min(SHORTEST - 1);
            (1..=longest).rev().find(|length| tail.get(tail.len() - length..).is_some_and(starts))
        };
        begun.max().or_else(begun_in_short).unwrap_or(0)
    }

    fn forms(&self) -> &[Finder<'static>] {
        self.forms.get_or_init(|| {
            let mut forms = Vec::new();
            for secret in &self.secrets {
                forms_of(secret, secret, |form| forms.push(form.to_vec()));
            }
            forms.sort_unstable();
            forms.dedup();
            forms.retain(|form| form.len() >= SHORTEST);
            forms.iter().map(|form| Finder::new(form).into_owned()).collect()
        })
    }
}

/// Gives each form of a secret, or of its beginning. Some may be equal, or short.
fn forms_of(beginning: &[u8], secret: &[u8], mut give: impl FnMut(&[u8])) {
    give(beginning);
    let percent: Cow<'_, str> = percent_encode(beginning, NON_ALPHANUMERIC).into();
    if percent.as_bytes() != beginning {
        give(percent.to_ascii_lowercase().as_bytes());
        give(percent.as_bytes());
        give(form_urlencoded::byte_serialize(beginning).collect::<String>().as_bytes());
    }
    for spelling in escape_spellings(beginning, secret) {
        give(&spelling);
    }
    for lead in 0..3 {
        let padded = [&[0; 2][..lead.min(2)], beginning].concat();
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let text = engine.encode(&padded);
            // The first and last characters hold bits of what stands around the secret.
            let (start, end) = ((lead * 8).div_ceil(6), padded.len() * 8 / 6);
            give(text.as_bytes().get(start..end).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A form whose first bytes were not looked for would pass.
        #[test]
        fn every_form_begins_as_it_is_looked_for(secret in "[ -~]{8,60}|[a-z+/=&<'\"\\\\]{8,60}") {
            let patterns = SecretPatterns::new([secret.as_bytes()].into_iter());
            for form in patterns.forms() {
                let is_there = patterns.starts.iter().any(|start| form.needle().starts_with(start.needle()));
                prop_assert!(is_there, "{:?}", String::from_utf8_lossy(form.needle()));
                prop_assert!((patterns.shortest..=patterns.longest).contains(&form.needle().len()));
            }
        }
    }
}

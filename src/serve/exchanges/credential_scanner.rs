//! Credentials that a provider echoes: found in its responses, and masked or blocked.
//!
//! The scanner searches for the token that was just spent and the secrets of the provider's settings: as they are, in
//! base64 at any alignment, percent-encoded, and with the escapes of JSON and HTML. It searches all header and trailer
//! fields, and the first [`SEARCHED`] bytes of a body that is not compressed. Stars replace a match byte for byte, so
//! lengths do not change. A stream is not buffered: only bytes that may be the beginning of a credential are held back,
//! and only while more bytes are available. Once they were released, the bytes that follow are still searched together
//! with them.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use aho_corasick::packed::Searcher;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};

use crate::token::lease::Lease;

mod escapes;
mod secret_patterns;

pub use secret_patterns::SecretPatterns;

/// The searches after which one pass is prepared, which costs as much as some of them.
const SEARCHES: u32 = 8;
/// So much of a body is searched.
pub const SEARCHED: usize = 64 * 1024;

/// The credentials that are searched for in the answer to one call: its token, and the secrets of the provider's settings.
pub struct CredentialPatterns {
    token: SecretPatterns,
    /// Shared by all calls of a route.
    settings: Rc<SecretPatterns>,
    searches: Cell<u32>,
    /// One pass for the first bytes of all; `None` where there are more than fit into it.
    pass: OnceCell<Option<Searcher>>,
}

/// Searches a body as it passes.
pub struct CredentialScanner {
    patterns: Rc<CredentialPatterns>,
    /// Bytes that are still to be searched.
    left: usize,
    /// Held back: perhaps the beginning of something.
    held: Bytes,
    /// Let go of, though it may be the beginning of something: what follows is searched behind it.
    shown: Bytes,
}

impl CredentialPatterns {
    /// The credentials of one call.
    pub fn of(lease: &Lease, settings: &Rc<SecretPatterns>) -> Self {
        let tokens = lease.credentials.iter().map(|(_, value)| {
            let value = value.as_bytes();
            let scheme = value.iter().position(|byte| *byte == b' ').map_or(0, |at| at + 1);
            value.get(scheme..).unwrap_or_default()
        });
        Self::new(SecretPatterns::new(tokens), settings.clone())
    }

    fn new(token: SecretPatterns, settings: Rc<SecretPatterns>) -> Self {
        Self { token, settings, searches: Cell::default(), pass: OnceCell::new() }
    }

    fn all(&self) -> [&SecretPatterns; 2] {
        [&self.token, &self.settings]
    }

    /// Returns whether any pattern occurs in these bytes.
    pub fn found_in(&self, bytes: &[u8]) -> bool {
        self.is_suspicious(bytes) && self.all().iter().any(|patterns| patterns.found_in(bytes))
    }

    /// Returns whether any pattern may occur. One pass is prepared where the same credentials are searched for again.
    fn is_suspicious(&self, bytes: &[u8]) -> bool {
        if bytes.len() < self.token.shortest.min(self.settings.shortest) {
            return false;
        }
        let searches = self.searches.get();
        if searches < SEARCHES {
            self.searches.set(searches + 1);
            return true;
        }
        let starts = || Searcher::new(self.all().into_iter().flat_map(SecretPatterns::starts));
        self.pass.get_or_init(starts).as_ref().is_none_or(|pass| pass.find(bytes).is_some())
    }

    /// Puts stars in header values. Says whether there was anything to hide.
    pub fn mask_fields(&self, headers: &mut HeaderMap) -> bool {
        let mut found = false;
        for value in headers.values_mut() {
            if self.found_in(value.as_bytes()) {
                let mut bytes = value.as_bytes().to_vec();
                self.mask(&mut bytes, usize::MAX);
                *value = HeaderValue::from_bytes(&bytes).unwrap_or(HeaderValue::from_static("*"));
                found = true;
            }
        }
        found
    }

    /// Puts stars over everything that begins before `end`.
    fn mask(&self, bytes: &mut [u8], end: usize) {
        // All are looked for before any is masked: one may be part of another.
        let original = bytes.to_vec();
        self.all().iter().for_each(|patterns| patterns.mask(&original, bytes, end));
    }

    /// Returns the number of trailing bytes that may be the beginning of a pattern.
    fn begun(&self, bytes: &[u8]) -> usize {
        self.all().iter().map(|patterns| patterns.begun(bytes)).max().unwrap_or(0)
    }
}

impl CredentialScanner {
    /// Searches a body from its first byte.
    pub const fn new(patterns: Rc<CredentialPatterns>) -> Self {
        Self { patterns, left: SEARCHED, held: Bytes::new(), shown: Bytes::new() }
    }

    /// Bytes that are held back now.
    pub const fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns the bytes of those held and of this piece that may be passed on, and whether something was masked.
    /// `last`: no other piece follows.
    pub fn pass(&mut self, piece: Bytes, last: bool) -> (Bytes, bool) {
        let shown = self.shown.len();
        let mut whole = match shown + self.held.len() {
            0 => piece,
            _ => [&*self.shown, &*self.held, &*piece].concat().into(),
        };
        self.shown = Bytes::new();
        self.held = Bytes::new();
        if self.left == 0 {
            return (whole.split_off(shown), false);
        }
        let end = self.left.saturating_add(shown).min(whole.len());
        let searched = whole.get(..end).unwrap_or(&whole);
        let begun = if last || whole.len() - shown >= self.left { 0 } else { self.patterns.begun(searched) };
        let found = self.patterns.found_in(searched);
        let cut = whole.len() - begun;
        if found {
            let mut masked = BytesMut::from(&*whole);
            if let Some(searched) = masked.get_mut(..end) {
                self.patterns.mask(searched, cut);
            }
            whole = masked.freeze();
        }
        // The bytes that may be passed on end at `cut`; those in `shown` were passed on before.
        self.held = whole.split_off(cut.max(shown));
        let passed = whole.split_off(shown);
        self.shown = whole.split_off(cut.min(shown));
        self.left = self.left.saturating_sub(passed.len());
        (passed, found)
    }

    /// Lets go of what is held back, since nothing follows it for now.
    pub fn release(&mut self) -> Bytes {
        let released = std::mem::take(&mut self.held);
        self.left = self.left.saturating_sub(released.len());
        self.shown = if self.shown.is_empty() { released.clone() } else { [&*self.shown, &*released].concat().into() };
        released
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "s3cr3t+/token.with=signs";

    fn patterns() -> Rc<CredentialPatterns> {
        let token = SecretPatterns::new([SECRET.as_bytes(), b"short"].into_iter());
        let settings = Rc::new(SecretPatterns::new([&b"another-secret-0188"[..]].into_iter()));
        Rc::new(CredentialPatterns::new(token, settings))
    }

    /// Returns the output for a body that arrives in pieces of these lengths, and whether something was masked.
    fn sieved(body: &[u8], cuts: &[usize]) -> (Vec<u8>, bool) {
        let mut scanner = CredentialScanner::new(patterns());
        let (mut out, mut found, mut at) = (Vec::new(), false, 0_usize);
        for cut in cuts.iter().chain([&usize::MAX]) {
            let end = at.saturating_add(*cut).min(body.len());
            let (passed, hidden) = scanner.pass(Bytes::copy_from_slice(&body[at..end]), end == body.len());
            out.extend_from_slice(&passed);
            found |= hidden;
            at = end;
            if at == body.len() {
                break;
            }
        }
        assert_eq!(scanner.held(), 0);
        (out, found)
    }

    // T17
    #[test]
    fn a_secret_is_masked_in_each_of_its_forms_and_lengths_stay() {
        let percent = percent_encode(SECRET.as_bytes(), NON_ALPHANUMERIC).to_string();
        let mut forms = vec![SECRET.to_owned(), percent.to_ascii_lowercase(), percent];
        for before in ["", "i", "id", "id:"] {
            forms.push(STANDARD.encode(format!("{before}{SECRET}")));
            forms.push(URL_SAFE_NO_PAD.encode(format!("{before}{SECRET} and more")));
        }
        for form in forms {
            let body = format!("{{\"echo\":\"{form}\",\"n\":1}}");
            let (out, found) = sieved(body.as_bytes(), &[]);
            let out = String::from_utf8(out).expect("text");
            assert!(found, "{form}");
            assert_eq!(out.len(), body.len());
            assert!(out.starts_with("{\"echo\":\"") && out.ends_with("\",\"n\":1}"), "{out}");
            assert!(out.matches('*').count() >= SECRET.len(), "{out}");
        }
        let (out, found) = sieved(b"nothing to hide, in short", &[3, 4]);
        assert_eq!((&out[..], found), (&b"nothing to hide, in short"[..], false), "`short` is too short");
    }

    #[test]
    fn header_values_are_masked_in_their_place() {
        let mut headers = HeaderMap::new();
        headers.insert("location", format!("https://a/?t={SECRET}&x=1").parse().unwrap());
        headers.insert("x-other", "unsuspicious value".parse().unwrap());
        assert!(patterns().mask_fields(&mut headers));
        assert_eq!(headers["location"], format!("https://a/?t={}&x=1", "*".repeat(SECRET.len())));
        assert_eq!(headers["x-other"], "unsuspicious value");
        assert!(!patterns().mask_fields(&mut headers));
    }

    #[test]
    fn a_stream_is_held_back_only_where_something_may_begin() {
        let mut scanner = CredentialScanner::new(patterns());
        assert_eq!(scanner.pass(Bytes::from_static(b"data: hello\n\n"), false).0, "data: hello\n\n");
        assert_eq!(scanner.pass(Bytes::from_static(b"data: s3cr3"), false).0, "data: ");
        assert_eq!(scanner.held(), 5);
        assert_eq!(scanner.pass(Bytes::from_static(b"t! no"), false).0, "s3cr3t! no");
    }

    #[test]
    fn what_was_let_go_of_is_remembered_and_the_rest_of_a_secret_is_masked() {
        let mut scanner = CredentialScanner::new(patterns());
        assert_eq!(scanner.pass(Bytes::from_static(b"data: s3cr3"), false).0, "data: ");
        assert_eq!(scanner.release(), "s3cr3");
        assert_eq!((scanner.held(), scanner.release()), (0, Bytes::new()));
        let (passed, found) = scanner.pass(Bytes::from_static(b"t+/tok"), false);
        assert_eq!((passed, found, scanner.held()), (Bytes::new(), false, 6), "still only a beginning");
        let (passed, found) = scanner.pass(Bytes::from_static(b"en.with=signs!"), true);
        assert_eq!((&passed[..], found), (&b"*******************!"[..], true));
        assert_eq!(scanner.pass(Bytes::from_static(b"more"), true).0, "more");
    }

    #[test]
    fn a_secret_is_masked_with_the_escapes_of_json_and_html() {
        let escaped = |from: &str, to: &str| SECRET.replace(from, to);
        for form in [
            escaped("/", "\\/"),
            escaped("=", "\\u003d"),
            escaped("+", "\\u002B"),
            escaped("+", "\\u002b").replace('/', "\\/"),
            escaped("+", "\\u002B").replace('=', "\\u003D"),
            escaped("+", "&#43;"),
            escaped("+", "&#x2B;"),
            escaped("+", "&#43;").replace('/', "&#47;").replace('=', "&#61;"),
        ] {
            let body = format!("{{\"echo\":\"{form}\",\"n\":1}}");
            let (out, found) = sieved(body.as_bytes(), &[20, 3, 1]);
            let out = String::from_utf8(out).expect("text");
            assert!(found, "{form}");
            assert_eq!(out, format!("{{\"echo\":\"{}\",\"n\":1}}", "*".repeat(form.len())));
        }
    }

    #[test]
    fn beyond_the_first_part_nothing_is_searched() {
        let mut body = vec![b'.'; SEARCHED];
        body.extend_from_slice(SECRET.as_bytes());
        assert_eq!(sieved(&body, &[SEARCHED - 5, 10]), (body, false));
    }

    proptest! {
        /// The one pass, and the search for each, find the same.
        #[test]
        fn the_hundredth_search_finds_what_the_first_does(secret in "[a-z]{8,30}", before in "[a-z]{0,20}") {
            let token = SecretPatterns::new([secret.as_bytes()].into_iter());
            let patterns = CredentialPatterns::new(token, Rc::new(SecretPatterns::new([SECRET.as_bytes()].into_iter())));
            let (with, without) = (format!("{before}{secret}{before}"), format!("{before}{before}"));
            for _ in 0..100 {
                prop_assert!(patterns.found_in(with.as_bytes()) && patterns.found_in(SECRET.as_bytes()));
                prop_assert_eq!(patterns.found_in(without.as_bytes()), without.contains(&secret));
            }
        }

        #[test]
        fn however_it_is_cut_the_same_comes_out(
            cuts in proptest::collection::vec(0_usize..9, 0..40),
            before in "[a-z:s3]{0,12}",
            between in "[s3cr+/]{0,9}",
        ) {
            let body = format!("{before}{SECRET}{between}another-secret-0188{before}");
            let (out, found) = sieved(body.as_bytes(), &cuts);
            let expected = body.replace(SECRET, &"*".repeat(SECRET.len())).replace("another-secret-0188", &"*".repeat(19));
            prop_assert!(found);
            prop_assert_eq!(String::from_utf8(out).expect("text"), expected);
        }
    }
}

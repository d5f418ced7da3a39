//! Credentials that a provider echoes: found in its responses, and masked or blocked.
//!
//! The scanner searches for the token that was just spent and the secrets of the provider's settings: as they are, in
//! base64 at any alignment, percent-encoded, and with the escapes of JSON and HTML. It searches all header and trailer
//! fields, and the first [`SEARCHED`] bytes of a body that is not compressed. Stars replace a match byte for byte, so
//! lengths do not change. A stream is not buffered: only bytes that may be the beginning of a credential are held back,
//! and only while more bytes are available. Once they were released, the bytes that follow are still searched together
//! with them.

use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;

use aho_corasick::packed::Searcher;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue};
use memchr::memchr_iter;
use memchr::memmem::Finder;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

use crate::provider::Module;
use crate::token::lease::Lease;

mod escapes;

/// So much of a body is searched.
pub const SEARCHED: usize = 64 * 1024;
/// The minimum length of a pattern, in bytes: a shorter one would match everywhere.
const SHORTEST: usize = 8;

/// The patterns that are searched for. It has no `Debug`, because it holds secrets.
pub struct CredentialPatterns {
    /// One finder per pattern, sorted by pattern.
    finders: Vec<Finder<'static>>,
    groups: Vec<Group>,
    /// The first bytes of all of them, for one quick pass: nearly every answer ends there.
    beginnings: Option<Searcher>,
}

/// Those that begin with the same byte.
struct Group {
    first: u8,
    finders: Range<usize>,
    longest: usize,
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
    pub fn of(module: &Module, lease: &Lease) -> Self {
        let tokens = lease.credentials.iter().map(|(_, value)| {
            let value = value.as_bytes();
            let scheme = value.iter().position(|byte| *byte == b' ').map_or(0, |at| at + 1);
            value.get(scheme..).unwrap_or_default()
        });
        Self::new(tokens.chain(module.secrets().map(str::as_bytes)))
    }

    fn new<'a>(secrets: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut forms: Vec<Cow<'a, [u8]>> = Vec::new();
        for secret in secrets.filter(|secret| secret.len() >= SHORTEST) {
            forms.push(Cow::Borrowed(secret));
            let percent = percent_encode(secret, NON_ALPHANUMERIC).to_string();
            forms.push(Cow::Owned(percent.to_ascii_lowercase().into_bytes()));
            forms.push(Cow::Owned(percent.into_bytes()));
            forms.push(Cow::Owned(form_urlencoded::byte_serialize(secret).collect::<String>().into_bytes()));
            forms.extend(escapes::escape_spellings(secret).into_iter().map(Cow::Owned));
            for lead in 0..3 {
                for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                    let padded = [&[0; 2][..lead.min(2)], secret].concat();
                    let text = engine.encode(&padded).into_bytes();
                    // The first and last characters hold bits of what stands around the secret.
                    let start = (lead * 8).div_ceil(6);
                    let end = padded.len() * 8 / 6;
                    forms.push(Cow::Owned(text.get(start..end).unwrap_or_default().to_vec()));
                }
            }
        }
        forms.sort_unstable();
        forms.dedup();
        forms.retain(|form| form.len() >= SHORTEST);
        // Absent where there are more than fit into one pass: then each is looked for by itself.
        let mut starts: Vec<&[u8]> = forms.iter().filter_map(|form| form.get(..SHORTEST)).collect();
        starts.dedup();
        let beginnings = Searcher::new(starts);
        let mut groups: Vec<Group> = Vec::new();
        for (at, form) in forms.iter().enumerate() {
            let Some(first) = form.first().copied() else { continue };
            match groups.last_mut().filter(|group| group.first == first) {
                Some(group) => {
                    group.finders.end = at + 1;
                    group.longest = group.longest.max(form.len());
                }
                None => groups.push(Group { first, finders: at..at + 1, longest: form.len() }),
            }
        }
        Self { finders: forms.iter().map(|form| Finder::new(&**form).into_owned()).collect(), groups, beginnings }
    }

    /// Returns whether any pattern occurs in these bytes.
    pub fn found_in(&self, bytes: &[u8]) -> bool {
        if self.beginnings.as_ref().is_some_and(|beginnings| beginnings.find(bytes).is_none()) {
            return false;
        }
        self.finders.iter().any(|finder| finder.needle().len() <= bytes.len() && finder.find(bytes).is_some())
    }

    /// Puts stars in header values. Says whether there was anything to hide.
    pub fn mask_fields(&self, headers: &mut HeaderMap) -> bool {
        let mut found = false;
        for value in headers.values_mut().filter(|value| value.len() >= SHORTEST) {
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
        for finder in self.finders.iter().filter(|finder| finder.needle().len() <= original.len()) {
            for at in finder.find_iter(&original).take_while(|at| *at < end) {
                if let Some(span) = bytes.get_mut(at..at + finder.needle().len()) {
                    span.fill(b'*');
                }
            }
        }
    }

    /// Returns the number of trailing bytes that may be the beginning of a pattern.
    fn begun(&self, bytes: &[u8]) -> usize {
        let begun = |group: &Group| {
            let tail = bytes.get(bytes.len().saturating_sub(group.longest.saturating_sub(1))..).unwrap_or_default();
            let finders = self.finders.get(group.finders.clone()).unwrap_or_default();
            memchr_iter(group.first, tail).find_map(|at| {
                let rest = tail.get(at..)?;
                let begins = |needle: &[u8]| needle.len() > rest.len() && needle.starts_with(rest);
                finders.iter().any(|finder| begins(finder.needle())).then_some(rest.len())
            })
        };
        self.groups.iter().filter_map(begun).max().unwrap_or(0)
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

/// Returns whether a body can be searched as it arrives: it has no content coding.
pub fn is_plain(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "s3cr3t+/token.with=signs";

    fn patterns() -> Rc<CredentialPatterns> {
        Rc::new(CredentialPatterns::new([SECRET.as_bytes(), b"another-secret-0188", b"short"].into_iter()))
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

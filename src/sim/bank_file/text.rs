//! Texts with places that are filled from a call and from what was drawn at the start.

use aws_lc_rs::digest::{self, SHA256, SHA512};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use uuid::Uuid;

use super::DrawnSettings;
use crate::base::secret::{ExposeSecret, hex};
use crate::base::time::rfc3339;
use crate::sim::call::SimCall;
use crate::sim::sim_state::Issued;

/// What places are filled from.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    drawn: &'a DrawnSettings,
}

impl<'a> Values<'a> {
    pub(super) const fn new(drawn: &'a DrawnSettings) -> Self {
        Self { drawn }
    }

    pub(super) const fn drawn(&self) -> &'a DrawnSettings {
        self.drawn
    }

    /// `text` with every `{place}` filled; what is no place stays as it is.
    pub(super) fn fill(&self, text: &str, call: &SimCall, issued: Option<&Issued>) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            filled.push_str(before);
            match behind.split_once('}') {
                Some((name, after)) => match self.value(name, call, issued) {
                    Some(value) => {
                        filled.push_str(&value);
                        rest = after;
                    }
                    None => {
                        filled.push('{');
                        rest = behind;
                    }
                },
                None => {
                    filled.push('{');
                    rest = behind;
                }
            }
        }
        filled + rest
    }

    fn value(&self, name: &str, call: &SimCall, issued: Option<&Issued>) -> Option<String> {
        let now = call.now.wall;
        let end = || issued.map(|issued| now.saturating_add(issued.life.saturating_mul(1000)));
        Some(match name {
            "method" => call.method.to_string(),
            "path" => call.path.clone(),
            "query" => call.query.clone().unwrap_or_default(),
            "path_and_query" => {
                call.query.as_ref().map_or_else(|| call.path.clone(), |query| format!("{}?{query}", call.path))
            }
            "token" => issued.map_or_else(|| presented(call), |issued| issued.token.clone()),
            "life" => issued?.life.to_string(),
            "life_ms" => issued?.life.saturating_mul(1000).to_string(),
            "now_epoch" => (now / 1000).to_string(),
            "now_rfc3339" => rfc3339(now),
            "expires_epoch" => (end()? / 1000).to_string(),
            "expires_epoch_ms" => end()?.to_string(),
            "expires_rfc3339" => rfc3339(end()?),
            "uuid" => Uuid::new_v4().to_string(),
            _ => match name.split_once('.') {
                Some(("header", header)) => call.header(header).unwrap_or_default().to_owned(),
                Some(("body", form)) => digest_of(&call.body, form)?,
                Some(_) => return None,
                None if name == "body" => String::from_utf8_lossy(&call.body).into_owned(),
                None => self.drawn.text(name)?.expose_secret().to_owned(),
            },
        })
    }
}

/// The token of a call's `Authorization` field, whatever its scheme.
fn presented(call: &SimCall) -> String {
    let field = call.header("authorization").unwrap_or_default();
    field.split_once(' ').map_or(field, |(_, token)| token).to_owned()
}

/// `[min.]sha256.hex` and its siblings.
fn digest_of(body: &[u8], form: &str) -> Option<String> {
    let (body, form) = match form.strip_prefix("min.") {
        Some(form) => (minified(body), form),
        None => (body.to_vec(), form),
    };
    let (algorithm, encoding) = match form.split_once('.')? {
        ("sha256", encoding) => (&SHA256, encoding),
        ("sha512", encoding) => (&SHA512, encoding),
        (_, _) => return None,
    };
    let digest = digest::digest(algorithm, &body);
    match encoding {
        "hex" => Some(hex(digest.as_ref())),
        "base64" => Some(BASE64_STANDARD.encode(digest)),
        _ => None,
    }
}

/// JSON without the whitespace between its parts; anything else as it is.
fn minified(body: &[u8]) -> Vec<u8> {
    let mut is_text = false;
    let mut is_escaped = false;
    let mut kept = Vec::with_capacity(body.len());
    for byte in body {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b' ' | b'\t' | b'\r' | b'\n' if !is_text => continue,
            _ => {}
        }
        kept.push(*byte);
    }
    kept
}

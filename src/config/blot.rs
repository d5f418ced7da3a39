//! Keeping secrets out of what is shown of a file.
//!
//! A rendered mistake shows the line that it stands in. A secret on that line is blotted out by whoever knows that it
//! is one; what one mistake blots out, all mistakes of the file do, for several may stand in one line.

use std::ops::Range;
use std::sync::Arc;

use crate::syntax::{Diagnostic, Source};

/// The same text with stars in `spans`, byte for byte, so that lines and columns stay.
pub(super) fn blotted(source: &Arc<Source>, spans: impl IntoIterator<Item = Range<usize>>) -> Arc<Source> {
    let mut bytes = source.text.clone().into_bytes();
    for span in spans {
        for byte in bytes.get_mut(span).into_iter().flatten().filter(|byte| **byte != b'\n') {
            *byte = b'*';
        }
    }
    // A span that cuts a character in two would leave no text: then nothing of it is shown.
    let text = String::from_utf8(bytes).unwrap_or_default();
    Source::new(source.name.clone(), text)
}

/// Blots out in every mistake what any of them blots out; and, where the file could not be parsed, whatever looks like
/// a secret by its key.
pub(super) fn blot_all(source: &Arc<Source>, parsed: bool, diagnostics: &mut [Diagnostic]) {
    let mut spans = if parsed { Vec::new() } else { suspicious(&source.text) };
    for found in diagnostics.iter().filter(|found| is_version_of(&found.source, source)) {
        let pairs = source.text.bytes().zip(found.source.text.bytes()).enumerate();
        spans.extend(pairs.filter(|(_, (was, is))| was != is).map(|(at, _)| at..at + 1));
    }
    if spans.is_empty() {
        return;
    }
    let blotted = blotted(source, spans);
    for found in diagnostics.iter_mut().filter(|found| is_version_of(&found.source, source)) {
        found.source = blotted.clone();
    }
}

fn is_version_of(version: &Arc<Source>, source: &Arc<Source>) -> bool {
    version.name == source.name && version.text.len() == source.text.len()
}

/// The values of lines whose key speaks of a secret.
fn suspicious(text: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(at) = line.find('=') {
            let key = line.get(..at).unwrap_or_default().to_ascii_lowercase();
            if ["secret", "password", "token", "key", "proxy"].iter().any(|word| key.contains(word)) {
                spans.push(start + at + 1..start + line.len());
            }
        }
        start += line.len();
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_keep_lines_and_columns() {
        let source = Source::new("f", "a = 1\nb = \"sëcret\"\n");
        assert_eq!(blotted(&source, Some(10..19)).text, "a = 1\nb = *********\n");
        assert_eq!(blotted(&source, Some(10..13)).text, "", "half a character");
        assert_eq!(blotted(&source, Some(900..901)).text, source.text);
        assert_eq!(suspicious("x = 1\nclient_secret = \"abc\ny = 2").len(), 1);
    }
}

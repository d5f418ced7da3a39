//! The spellings that encoders of JSON and HTML give to a credential.
//!
//! Any character may be escaped, but encoders escape few: PHP `/`, Gson `=`, .NET `+`, all of them `&`, and those of HTML
//! likewise. Each subset of these four is a spelling for JSON; for HTML each of them alone, and all.

/// Characters of credentials that encoders escape although they need not.
const OPTIONAL: [u8; 4] = *b"+=/&";

/// The notation of an escaped character.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Style {
    Decimal,
    Hex { upper: bool },
    Unicode { upper: bool },
}

/// All spellings of a secret, or of its beginning, that differ from the plain one. Some may be equal.
pub fn escape_spellings(beginning: &[u8], secret: &[u8]) -> Vec<Vec<u8>> {
    let escapable = |byte: &u8| OPTIONAL.contains(byte) || b"<>'\"\\".contains(byte);
    if !secret.iter().any(escapable) {
        return Vec::new();
    }
    let present: Vec<u8> = OPTIONAL.into_iter().filter(|special| secret.contains(special)).collect();
    let mut spellings = Vec::new();
    for subset in 0..1_usize << present.len() {
        let escaped: Vec<u8> =
            present.iter().enumerate().filter(|(at, _)| subset >> at & 1 == 1).map(|(_, special)| *special).collect();
        for upper in [false, true] {
            for solidus in [false, true] {
                spellings.push(json(beginning, &escaped, upper, solidus));
            }
        }
        if escaped.len() < 2 || escaped.len() == present.len() {
            for style in [Style::Decimal, Style::Hex { upper: false }, Style::Hex { upper: true }] {
                spellings.push(html(beginning, &escaped, style));
            }
        }
    }
    spellings
}

/// Writes a JSON string (RFC 8259 section 7). `solidus`: `/` becomes `\/`.
fn json(secret: &[u8], escaped: &[u8], upper: bool, solidus: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(secret.len());
    for byte in secret {
        match byte {
            // Encoders that escape more than they must escape these, too.
            b'<' | b'>' | b'\'' | b'"' if !escaped.is_empty() => write(&mut out, *byte, Style::Unicode { upper }),
            _ if escaped.contains(byte) => write(&mut out, *byte, Style::Unicode { upper }),
            b'/' if solidus => out.extend(b"\\/"),
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            _ => out.push(*byte),
        }
    }
    out
}

/// Writes a text in HTML.
fn html(secret: &[u8], escaped: &[u8], style: Style) -> Vec<u8> {
    let mut out = Vec::with_capacity(secret.len());
    for byte in secret {
        match byte {
            b'&' => out.extend(b"&amp;"),
            b'<' => out.extend(b"&lt;"),
            b'>' => out.extend(b"&gt;"),
            b'"' => out.extend(b"&quot;"),
            b'\'' => write(&mut out, *byte, style),
            _ if escaped.contains(byte) => write(&mut out, *byte, style),
            _ => out.push(*byte),
        }
    }
    out
}

fn write(out: &mut Vec<u8>, byte: u8, style: Style) {
    let text = match style {
        Style::Decimal => format!("&#{byte};"),
        Style::Hex { upper: false } => format!("&#x{byte:x};"),
        Style::Hex { upper: true } => format!("&#x{byte:X};"),
        Style::Unicode { upper: false } => format!("\\u{byte:04x}"),
        Style::Unicode { upper: true } => format!("\\u{byte:04X}"),
    };
    out.extend(text.into_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn of(secret: &str) -> BTreeSet<String> {
        escape_spellings(secret.as_bytes(), secret.as_bytes())
            .into_iter()
            .map(|text| String::from_utf8(text).expect("text"))
            .collect()
    }

    #[test]
    fn a_credential_without_special_characters_has_one_spelling() {
        assert!(of("eyJhbGciOiJSUzI1NiJ9.AAAA-BBBB_CCCC").is_empty());
    }

    #[test]
    fn each_encoder_finds_its_own() {
        let made = of("a/b+c=d&e");
        for spelling in [
            "a\\/b+c=d&e",
            "a/b+c\\u003dd\\u0026e",
            "a/b\\u002Bc=d\\u0026e",
            "a\\u002fb\\u002bc\\u003dd\\u0026e",
            "a/b+c=d&amp;e",
            "a/b&#43;c=d&amp;e",
            "a&#x2F;b&#x2B;c&#x3D;d&amp;e",
        ] {
            assert!(made.contains(spelling), "{spelling} in {made:?}");
        }
        assert!(of("a\"b\\c'd<e").contains("a\\\"b\\\\c'd<e"));
        assert!(of("a\"b'd<e>").contains("a&quot;b&#39;d&lt;e&gt;"));
    }

    #[test]
    fn they_are_few() {
        assert!(of("ab/cd+ef==").len() <= 40, "{}", of("ab/cd+ef==").len());
    }
}

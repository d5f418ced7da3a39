//! Tests of texts from examples: those that are plain may stand in a profile, placeholders stand for what is missing.

/// The longest constant that is copied from an example, in bytes.
const LONGEST: usize = 160;

/// Returns whether a text consists of words, short numbers and punctuation, as constants of a request do.
///
/// Keys, tokens, encoded secrets, account numbers and whatever is long and mixed is not plain.
pub fn is_plain_text(text: &str) -> bool {
    let fits = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    let mut mixed = 0;
    fits && words_at_bounds(text).all(|word| match word_kind(word) {
        WordKind::Letters => word.len() <= 24 && changes_of_case(word) <= 4,
        WordKind::Digits => word.len() <= 4,
        WordKind::Mixed => {
            mixed += 1;
            word.len() <= 8 && mixed <= 1
        }
    })
}

/// Returns whether a text may be the name of a header, a field or a member in a profile.
pub fn is_plain_name(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:@$".contains(&b))
        && text.bytes().any(|b| b.is_ascii_alphabetic())
        && is_plain_text(text)
}

enum WordKind {
    Digits,
    Letters,
    Mixed,
}

fn word_kind(word: &str) -> WordKind {
    if word.bytes().all(|b| b.is_ascii_digit()) {
        WordKind::Digits
    } else if word.bytes().all(|b| b.is_ascii_alphabetic()) {
        WordKind::Letters
    } else {
        WordKind::Mixed
    }
}

fn words_at_bounds(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

/// The number of capital letters behind small ones: few in a name, many in encoded bytes.
fn changes_of_case(word: &str) -> usize {
    let bytes = word.as_bytes();
    bytes.iter().zip(bytes.iter().skip(1)).filter(|(a, b)| a.is_ascii_lowercase() && b.is_ascii_uppercase()).count()
}

/// Returns whether a value stands for one that the reader has: `<client id>`, `{{secret}}`, `$TOKEN`, `YOUR_KEY`.
pub(super) fn is_placeholder(value: &str) -> bool {
    let text = value.trim();
    let framed = [("<", ">"), ("{", "}"), ("[", "]"), ("${", "}"), ("$(", ")"), ("%", "%"), ("`", "`"), ("«", "»")];
    let is_framed = |(open, close): &(&str, &str)| {
        text.len() > open.len() + close.len() && text.starts_with(open) && text.ends_with(close)
    };
    let lower = text.to_ascii_lowercase();
    let is_variable = text
        .strip_prefix('$')
        .is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
    let is_told = ["your", "my_", "my-", "enter", "insert", "replace", "xxx", "***", "…"]
        .iter()
        .any(|start| lower.starts_with(start));
    text.is_empty() || framed.iter().any(is_framed) || is_variable || is_told || ["...", "string"].contains(&&*lower)
}

/// Words that say nothing in a placeholder.
const FILLERS: [&str; 14] =
    ["a", "an", "the", "your", "you", "my", "our", "enter", "insert", "replace", "with", "here", "value", "string"];

/// The words of a placeholder or a name, in small letters and without fillers, joined by `_`.
pub(super) fn words_of(text: &str) -> String {
    name_words(text).into_iter().filter(|word| !FILLERS.contains(&word.as_str())).collect::<Vec<_>>().join("_")
}

/// The words of a name, in small letters: `applicationKey`, `X-IBM-Client-Id` and `client_id` have them.
pub fn name_words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for part in words_at_bounds(name) {
        let bytes = part.as_bytes();
        let mut word = String::new();
        for (at, byte) in bytes.iter().enumerate() {
            let before = at.checked_sub(1).and_then(|at| bytes.get(at));
            let behind = bytes.get(at + 1);
            let is_start = byte.is_ascii_uppercase()
                && (before.is_some_and(|b| !b.is_ascii_uppercase())
                    || (before.is_some() && behind.is_some_and(u8::is_ascii_lowercase)));
            if is_start && !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            word.push(char::from(byte.to_ascii_lowercase()));
        }
        words.push(word);
    }
    words
}

/// A name without case and punctuation: `accessToken` and `access_token` are the same.
pub fn squashed(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_plain_and_keys_are_not() {
        for text in [
            "client_credentials",
            "EN",
            "application/json",
            "read:accounts all:remittance",
            "OAUTH2",
            "2.0",
            "scbeasy",
            "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "/authenticationservices/v1",
        ] {
            assert!(is_plain_text(text), "{text}");
        }
        for text in [
            "",
            "b47f8cb732a93dd3",
            "meed_0cb08343fffe",
            "0188000049916",
            "85230887-e643-4fa4-84b2-4e56709c4ac4",
            "aGVsbG8gd29ybGQ",
            "naïve",
            "qWeRtYuIoPaS",
            "correcthorsebatterystaple",
            "s3cret-pa55",
        ] {
            assert!(!is_plain_text(text), "{text}");
        }
        assert!(is_plain_name("Ocp-Apim-Subscription-Key") && is_plain_name("applicationKey"));
        assert!(!is_plain_name("k b") && !is_plain_name("12") && !is_plain_name("x-85230887e643"));
    }

    #[test]
    fn placeholders_are_told_from_values() {
        for text in
            ["<Your API Key>", "{{client_secret}}", "$TOKEN", "${TOKEN}", "$(uuidgen)", "YOUR_KEY", "xxxx", "..."]
        {
            assert!(is_placeholder(text), "{text}");
        }
        for text in ["EN", "client_credentials", "b47f8cb7", "$5.00", "a<b>"] {
            assert!(!is_placeholder(text), "{text}");
        }
        assert_eq!(words_of("<Your API Key>"), "api_key");
        assert_eq!(words_of("<You API Key>"), "api_key");
        assert_eq!(name_words("X-IBM-Client-Id"), ["x", "ibm", "client", "id"]);
        assert_eq!(name_words("resourceOwnerId"), ["resource", "owner", "id"]);
        assert_eq!(name_words("requestUId"), ["request", "u", "id"]);
    }
}

//! Stand-ins: other values of the same shape, drawn by a key that nobody keeps.

use aws_lc_rs::hmac;

/// The most bytes of a value that are replaced one by one; what follows is left out.
pub(super) const LONGEST: usize = 4096;

/// Draws stand-ins. The same value has the same stand-in as long as the key lives.
pub(super) struct StandIns {
    key: hmac::Key,
}

/// A stream of bytes that depends on the key and a value.
struct Stream<'a> {
    key: &'a hmac::Key,
    value: &'a [u8],
    block: u32,
    bytes: Vec<u8>,
}

impl Stream<'_> {
    fn next(&mut self) -> u8 {
        if self.bytes.is_empty() {
            let mut context = hmac::Context::with_key(self.key);
            context.update(&self.block.to_be_bytes());
            context.update(self.value);
            self.bytes = context.sign().as_ref().to_vec();
            self.block = self.block.wrapping_add(1);
        }
        self.bytes.pop().unwrap_or_default()
    }

    /// A number below `most`, nearly even.
    fn below(&mut self, most: u16) -> u16 {
        let wide = u16::from_be_bytes([self.next(), self.next()]);
        wide % most.max(1)
    }

    fn one_of(&mut self, letters: &[u8]) -> char {
        let at = self.below(u16::try_from(letters.len()).unwrap_or(1));
        letters.get(usize::from(at)).map_or('x', |letter| char::from(*letter))
    }
}

impl StandIns {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// A value of the same shape: letters for letters, digits for digits, everything else as it is. Dates stay dates, IBANs
    /// and card numbers keep valid check digits, hexadecimal stays hexadecimal.
    pub(super) fn of(&self, value: &str) -> String {
        let value = cut(value, LONGEST);
        let drawn = (0..4_u32).map(|round| self.draw(value, round << 24));
        // A value of few characters may be drawn for itself; the last try is taken as it is.
        let mut last = String::new();
        for other in drawn {
            if other != value {
                return other;
            }
            last = other;
        }
        last
    }

    fn draw(&self, value: &str, block: u32) -> String {
        let mut stream = Stream { key: &self.key, value: value.as_bytes(), block, bytes: Vec::new() };
        if let Some(date) = date_like(value, &mut stream) {
            return date;
        }
        if is_iban(value) {
            return iban(value, &mut stream);
        }
        let is_hex = is_hexadecimal(value);
        let mut other: String = value.char_indices().map(|(at, c)| like(c, at == 0, is_hex, &mut stream)).collect();
        if is_card_number(value) {
            set_luhn(&mut other);
        }
        other
    }
}

/// The beginning of a text, at a boundary of characters.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= most).last();
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

fn like(c: char, is_first: bool, is_hex: bool, stream: &mut Stream<'_>) -> char {
    match c {
        // Other digits than zero stay so in front: a number keeps its length.
        '1'..='9' if is_first => stream.one_of(b"123456789"),
        '0' if is_first => '0',
        '0'..='9' => stream.one_of(b"0123456789"),
        'a'..='z' if is_hex => stream.one_of(b"abcdef"),
        'A'..='Z' if is_hex => stream.one_of(b"ABCDEF"),
        'a'..='z' => stream.one_of(b"abcdefghijklmnopqrstuvwxyz"),
        'A'..='Z' => stream.one_of(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        _ if c.is_ascii() => c,
        _ if c.is_alphabetic() => 'x',
        _ if c.is_numeric() => '0',
        _ => '_',
    }
}

/// Hexadecimal digits, in one case, with hyphens at most: hashes and UUIDs (RFC 9562).
fn is_hexadecimal(value: &str) -> bool {
    let digits = value.bytes().filter(|b| *b != b'-');
    let one_case = !(value.bytes().any(|b| b.is_ascii_lowercase()) && value.bytes().any(|b| b.is_ascii_uppercase()));
    value.len() >= 8 && one_case && digits.clone().all(|b| b.is_ascii_hexdigit()) && digits.count() >= 8
}

/// A date, or a date with a time, as RFC 3339 and ISO 8601 write them.
fn date_like(value: &str, stream: &mut Stream<'_>) -> Option<String> {
    let bytes = value.as_bytes();
    let shape: String = bytes.iter().map(|b| if b.is_ascii_digit() { '9' } else { char::from(*b) }).take(40).collect();
    if !value.is_ascii() || value.len() > 40 || !shape.starts_with("9999-99-99") {
        return None;
    }
    let rest = shape.get(10..)?;
    let is_time = rest.starts_with("T99:99") || rest.starts_with(" 99:99");
    if !(rest.is_empty() || is_time && rest.bytes().all(|b| b"9:.TZz+- ".contains(&b))) {
        return None;
    }
    let (year, month, day) = (1950 + stream.below(70), 1 + stream.below(12), 1 + stream.below(28));
    let mut other = format!("{year:04}-{month:02}-{day:02}");
    if is_time {
        let (hour, minute) = (stream.below(24), stream.below(60));
        other.push(char::from(*bytes.get(10)?));
        other += &format!("{hour:02}:{minute:02}");
        // Seconds, fractions and the offset from UTC: no more than five in a place is always valid but for the offset's
        // hours, which are below 15.
        let mut is_offset = false;
        let mut first_of_offset = false;
        for b in value.get(16..)?.chars() {
            other.push(match b {
                '+' | '-' => {
                    (is_offset, first_of_offset) = (true, true);
                    b
                }
                '0'..='9' if first_of_offset => {
                    first_of_offset = false;
                    '0'
                }
                '0'..='9' if is_offset => stream.one_of(b"012345"),
                '0'..='9' => stream.one_of(b"012345"),
                other => other,
            });
        }
    }
    Some(other)
}

/// The remainder by 97 of an IBAN's digits in their order for the check (ISO 13616).
fn iban_remainder(value: &str) -> Option<u32> {
    let (head, body) = value.split_at_checked(4)?;
    body.chars().chain(head.chars()).try_fold(0_u32, |rest, c| {
        let number = c.to_digit(36)?;
        Some(if number < 10 { (rest * 10 + number) % 97 } else { (rest * 100 + number) % 97 })
    })
}

/// Returns whether a text is an IBAN with valid check digits.
pub(super) fn is_iban(value: &str) -> bool {
    let bytes = value.as_bytes();
    (15..=34).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        && bytes.iter().take(2).all(u8::is_ascii_uppercase)
        && bytes.iter().skip(2).take(2).all(u8::is_ascii_digit)
        && iban_remainder(value) == Some(1)
}

fn iban(value: &str, stream: &mut Stream<'_>) -> String {
    let country = value.get(..2).unwrap_or("XX");
    let body: String = value.chars().skip(4).map(|c| like(c, false, false, stream)).collect();
    let rest = iban_remainder(&format!("{country}00{body}")).unwrap_or(0);
    format!("{country}{:02}{body}", 98 - rest.min(97))
}

fn luhn(digits: &str) -> u32 {
    let doubled = |digit: u32| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let digits = digits.chars().rev().filter_map(|c| c.to_digit(10));
    digits.enumerate().map(|(at, digit)| if at % 2 == 1 { doubled(digit) } else { digit }).sum::<u32>() % 10
}

/// Returns whether a text is a number with a valid check digit, as cards have them (ISO/IEC 7812).
pub(super) fn is_card_number(value: &str) -> bool {
    (13..=19).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit()) && luhn(value) == 0
}

fn set_luhn(digits: &mut String) {
    digits.pop();
    let check = (10 - luhn(&format!("{digits}0"))) % 10;
    digits.extend(char::from_digit(check, 10));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(value: &str) -> String {
        StandIns::new(&[7; 32]).of(value)
    }

    #[test]
    fn shapes_and_check_digits_are_kept() {
        let iban = of("DE89370400440532013000");
        assert!(is_iban(&iban) && iban.starts_with("DE") && iban != "DE89370400440532013000", "{iban}");
        let card = of("4111111111111111");
        assert!(is_card_number(&card) && card != "4111111111111111", "{card}");
        let uuid = of("85230887-e643-4fa4-84b2-4e56709c4ac4");
        assert!(uuid::Uuid::parse_str(&uuid).is_ok(), "{uuid}");
        for date in ["1984-02-29", "2026-01-31T23:59:59Z", "2026-01-31T23:59:59.123+05:30", "1999-12-31 23:59"] {
            let other = of(date);
            assert_eq!(other.len(), date.len(), "{other}");
            assert!(other != date && other[5..7].parse::<u8>().is_ok_and(|month| (1..=12).contains(&month)), "{other}");
            assert!(other[8..10].parse::<u8>().is_ok_and(|day| (1..=28).contains(&day)), "{other}");
        }
        let mail = of("jane.doe+x@bank.co");
        assert_eq!(mail.match_indices(['@', '.', '+']).map(|(at, _)| at).collect::<Vec<_>>(), [4, 8, 10, 15]);
        assert_eq!(of(""), "");
        assert_eq!(of("--"), "--", "nothing to replace");
        assert_eq!(of("é1"), format!("x{}", of("é1").chars().last().unwrap()));
    }

    #[test]
    fn another_key_draws_others() {
        let value = "0188000049916";
        assert_ne!(StandIns::new(&[1; 32]).of(value), StandIns::new(&[2; 32]).of(value));
    }

    proptest! {
        #[test]
        fn a_stand_in_is_stable_has_the_shape_and_is_another(value in "[ -~]{0,80}") {
            let class = |c: char| match c {
                '0'..='9' => '9',
                'a'..='z' => 'a',
                'A'..='Z' => 'A',
                other => other,
            };
            let other = of(&value);
            prop_assert_eq!(&other, &of(&value));
            let shape = |text: &str| text.chars().map(class).collect::<String>();
            prop_assert_eq!(shape(&other), shape(&value));
            if value.chars().filter(char::is_ascii_alphanumeric).count() >= 3 {
                prop_assert_ne!(other, value);
            }
        }

        #[test]
        fn a_number_keeps_its_length(number in 1_u64..) {
            let other = of(&number.to_string());
            prop_assert_eq!(other.len(), number.to_string().len());
            prop_assert!(!other.starts_with('0'));
        }
    }
}

//! Finding one value in a request's JSON body.
//!
//! The body is walked once, along the pointer, and nothing of it is kept but the value. An object that has a name on
//! the way twice could be read in two ways, by us and by the provider, so it is refused. So is one that has it in other
//! letters: many servers compare names without case, and take the last.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

const CASE: &str = "a variable of the route stands in the body under a name that differs in case alone";
const MISSING: &str = "a variable of the route is missing in the body";
const NOT_JSON: &str = "the body is not JSON, but a variable of the route stands in it";
const NOT_PLAIN: &str = "a variable of the route is neither a text nor a whole number in the body";
const TWICE: &str = "a variable of the route is given more than once in the body";

/// The value at the end of a JSON pointer (RFC 6901), given as its reference tokens. The parser bounds the depth (128);
/// the caller bounds the size.
pub(super) fn seek(body: &[u8], pointer: &[String]) -> Result<String, &'static str> {
    let trouble = Cell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let found = Seek { pointer, trouble: &trouble }.deserialize(&mut deserializer);
    let found = found.and_then(|found| deserializer.end().map(|()| found));
    let value = found.map_err(|_| trouble.get().unwrap_or(NOT_JSON))?.ok_or(MISSING)?;
    if value.chars().any(char::is_control) { Err(NOT_PLAIN) } else { Ok(value) }
}

/// Returns whether servers that compare names without case take the two for equal. Some letters fold to ASCII: `ſ` to
/// `s`, the Kelvin sign to `k`.
pub(super) fn same_but_for_case(one: &str, other: &str) -> bool {
    let fold =
        |text: &str| -> String { text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect() };
    one.eq_ignore_ascii_case(other) || !(one.is_ascii() && other.is_ascii()) && fold(one) == fold(other)
}

/// The reference tokens of a JSON pointer that leads somewhere: it starts with `/`. `~1` is `/`, `~0` is `~`.
pub fn json_pointer(text: &str) -> Option<Vec<String>> {
    let tokens = text.strip_prefix('/')?.split('/').map(|token| {
        let bad = token.match_indices('~').any(|(at, _)| !matches!(token.as_bytes().get(at + 1), Some(b'0' | b'1')));
        (!bad).then(|| token.replace("~1", "/").replace("~0", "~"))
    });
    tokens.collect()
}

#[derive(Clone, Copy)]
struct Seek<'a> {
    pointer: &'a [String],
    trouble: &'a Cell<Option<&'static str>>,
}

impl Seek<'_> {
    fn fail<E: Error>(self, why: &'static str) -> E {
        self.trouble.set(Some(why));
        E::custom(why)
    }

    /// A value that nothing can follow: the end of the way, or a way that leads nowhere.
    fn end<E: Error>(self, value: Option<String>) -> Result<Option<String>, E> {
        match (self.pointer, value) {
            ([], Some(value)) => Ok(Some(value)),
            ([], None) => Err(self.fail(NOT_PLAIN)),
            ([_, ..], _) => Ok(None),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Option<String>, E> {
        self.end(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Option<String>, E> {
        self.end(None)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Option<String>, E> {
        self.end(Some(number.to_string()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Option<String>, E> {
        self.end(Some(number.to_string()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<String>, E> {
        self.end(Some(text.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Option<String>, E> {
        self.end(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<String>, A::Error> {
        let [wanted, rest @ ..] = self.pointer else { return Err(self.fail(NOT_PLAIN)) };
        let mut found = None;
        let mut met = false;
        while let Some(name) = map.next_key::<String>()? {
            if name != *wanted {
                if same_but_for_case(&name, wanted) {
                    return Err(self.fail(CASE));
                }
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if met {
                return Err(self.fail(TWICE));
            }
            met = true;
            found = map.next_value_seed(Seek { pointer: rest, trouble: self.trouble })?;
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Option<String>, A::Error> {
        let [wanted, rest @ ..] = self.pointer else { return Err(self.fail(NOT_PLAIN)) };
        // No leading zeros, no sign (RFC 6901 section 4).
        let plain = wanted == "0" || !wanted.starts_with('0') && wanted.bytes().all(|byte| byte.is_ascii_digit());
        let wanted = wanted.parse::<usize>().ok().filter(|_| plain);
        let mut found = None;
        for at in 0_usize.. {
            let more = if Some(at) == wanted {
                let item = items.next_element_seed(Seek { pointer: rest, trouble: self.trouble })?;
                item.map(|item| found = item).is_some()
            } else {
                items.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                break;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pointer: &str, body: &str) -> Result<String, &'static str> {
        seek(body.as_bytes(), &json_pointer(pointer).expect("a pointer"))
    }

    #[test]
    fn a_text_or_a_whole_number_is_found_where_the_pointer_leads() {
        let body = r#"{"x":[1,{"account":"0188"}],"debit":{"account":123,"a/b":"s","m~n":-5,"":"e"},"big":18446744073709551615}"#;
        for (pointer, value) in [
            ("/debit/account", "123"),
            ("/x/1/account", "0188"),
            ("/x/0", "1"),
            ("/debit/a~1b", "s"),
            ("/debit/m~0n", "-5"),
            ("/debit/", "e"),
            ("/big", "18446744073709551615"),
        ] {
            assert_eq!(at(pointer, body).as_deref(), Ok(value), "{pointer}");
        }
        for pointer in ["/nothing", "/x/2", "/x/00", "/x/-", "/debit/account/deeper", "/x/0/y"] {
            assert_eq!(at(pointer, body), Err(MISSING), "{pointer}");
        }
    }

    #[test]
    fn what_is_no_plain_value_or_stands_twice_is_refused() {
        for value in ["null", "true", "1.5", "1e3", "18446744073709551616", "[]", "{}", "\"a\\nb\""] {
            assert_eq!(at("/a", &format!("{{\"a\":{value}}}")), Err(NOT_PLAIN), "{value}");
        }
        assert_eq!(at("/a", r#"{"a":"1","a":"2"}"#), Err(TWICE));
        assert_eq!(at("/a", r#"{"a":"1","\u0061":"2"}"#), Err(TWICE), "spelled differently");
        assert_eq!(at("/d/a", r#"{"d":{"a":"1"},"d":{}}"#), Err(TWICE));
        for body in ["", "{", "a=1", "{\"a\":\"1\"} x", "{\"a\":\"1\"}{\"a\":\"2\"}", "\u{feff}{}"] {
            assert_eq!(at("/a", body), Err(NOT_JSON), "{body}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(at("/a", &deep), Err(NOT_JSON));
    }

    #[test]
    fn names_on_the_way_that_differ_in_case_alone_are_refused() {
        for body in [
            r#"{"account":"1","Account":"2"}"#,
            r#"{"ACCOUNT":"2","account":"1"}"#,
            r#"{"Account":"2"}"#,
            r#"{"\u0041ccount":"2","account":"1"}"#,
        ] {
            assert_eq!(at("/account", body), Err(CASE), "{body}");
        }
        assert_eq!(at("/user/id", "{\"u\u{17f}er\":{\"id\":\"2\"},\"user\":{\"id\":\"1\"}}"), Err(CASE));
        assert_eq!(at("/\u{212a}ey", "{\"key\":\"2\"}"), Err(CASE));
        assert_eq!(at("/d/a", r#"{"d":{"a":"1"},"D":{"a":"2"}}"#), Err(CASE));
        assert_eq!(at("/d/a", r#"{"d":{"a":"1"},"e":{"A":"2"},"A":"3"}"#).as_deref(), Ok("1"), "not on the way");
    }

    #[test]
    fn pointers_start_with_a_slash_and_escape_two_characters() {
        assert_eq!(json_pointer("/a~1b/c~0d"), Some(vec!["a/b".to_owned(), "c~d".to_owned()]));
        for bad in ["", "a", "/a~", "/a~2"] {
            assert_eq!(json_pointer(bad), None, "{bad}");
        }
    }
}

//! Members of JSON objects, found, put and taken out by a pointer (RFC 6901), as they are written.
//!
//! Everything else in a text stays as it is, digit by digit: an amount that is read as a number and written again may be
//! another text. So only the objects on the way to a member are taken apart.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// The names on the way of a JSON pointer.
pub(super) fn steps(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect()
}

/// The JSON pointer of a way.
pub(super) fn pointer(steps: &[String]) -> String {
    steps.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect()
}

/// Returns a text as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text always serialises")
}

/// Puts a value, which is JSON, into a JSON object. Members of the same name give way, in any case of letters: a reader
/// that ignores it would take one of them. `None`: what the way leads through is no object.
pub(super) fn put(json: &str, steps: &[String], value: &str) -> Option<Zeroizing<String>> {
    let Some((name, rest)) = steps.split_first() else { return Some(Zeroizing::new(value.to_owned())) };
    let members: JsonMembers<'_> = serde_json::from_str(json).ok()?;
    let is_it = |known: &str| if rest.is_empty() { known.eq_ignore_ascii_case(name) } else { known == name };
    let mut out = ObjectWriter::new(json.len() + value.len() + 64);
    let mut placed = false;
    for (known, raw) in &members.0 {
        match (is_it(known), placed) {
            (false, _) => out.member(known, raw.get()),
            (true, false) => {
                placed = true;
                out.member(name, &put(raw.get(), rest, value)?);
            }
            (true, true) => {}
        }
    }
    if !placed {
        out.member(name, &put("{}", rest, value)?);
    }
    Some(out.end())
}

/// Finds a value. `None`: it is not there, or it is there twice, so that readers would differ about it.
pub(super) fn find<'a>(json: &'a str, steps: &[String]) -> Option<&'a str> {
    let Some((name, rest)) = steps.split_first() else { return Some(json.trim_ascii()) };
    let members: JsonMembers<'a> = serde_json::from_str(json).ok()?;
    let mut found = members.0.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
    match (found.next(), found.next()) {
        (Some((known, raw)), None) if known == name => find(raw.get(), rest),
        (_, _) => None,
    }
}

/// Takes a member out of an object; an object on the way that has no other stays, empty. `None`: it is not there, or what
/// the way leads through is no object.
pub(super) fn without(json: &str, steps: &[String]) -> Option<Zeroizing<String>> {
    let (name, rest) = steps.split_first()?;
    let members: JsonMembers<'_> = serde_json::from_str(json).ok()?;
    let mut out = ObjectWriter::new(json.len());
    let mut found = false;
    for (known, raw) in &members.0 {
        if known != name {
            out.member(known, raw.get());
            continue;
        }
        found = true;
        if !rest.is_empty() {
            out.member(known, &without(raw.get(), rest)?);
        }
    }
    found.then(|| out.end())
}

/// A JSON object that grows by a member at a time.
struct ObjectWriter(Zeroizing<String>);

impl ObjectWriter {
    fn new(capacity: usize) -> Self {
        Self(Zeroizing::new(String::with_capacity(capacity)))
    }

    fn member(&mut self, name: &str, value: &str) {
        let before = if self.0.is_empty() { '{' } else { ',' };
        self.0.push(before);
        self.0.push_str(&quoted(name));
        self.0.push(':');
        self.0.push_str(value);
    }

    fn end(mut self) -> Zeroizing<String> {
        let rest = if self.0.is_empty() { "{}" } else { "}" };
        self.0.push_str(rest);
        self.0
    }
}

/// The members of a JSON object, in their order, duplicates among them, with their values as they are written.
struct JsonMembers<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for JsonMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct JsonMembersVisitor;

        impl<'de> Visitor<'de> for JsonMembersVisitor {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<String, &RawValue>()? {
                    members.push(member);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(JsonMembersVisitor).map(JsonMembers)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_member_is_found_and_taken_out_and_the_rest_stays_as_it_is_written() {
        let json = r#"{ "a" : {"b": 1.50, "c/d": [1, 2.0]}, "n": 12345678901234567890 }"#;
        let (b, d) = (steps("/a/b"), steps("/a/c~1d"));
        assert_eq!((find(json, &b), find(json, &d)), (Some("1.50"), Some("[1, 2.0]")));
        assert_eq!(find(" 7 ", &[]), Some("7"));
        for absent in ["/b", "/a/b/c", "/A", "/a/B"] {
            assert_eq!(find(json, &steps(absent)), None, "{absent}");
            assert_eq!(without(json, &steps(absent)), None, "{absent}");
        }
        let taken = without(json, &b).expect("it is there");
        assert_eq!(*taken, r#"{"a":{"c/d":[1, 2.0]},"n":12345678901234567890}"#);
        assert_eq!(*without(r#"{"a":1}"#, &steps("/a")).expect("it is there"), "{}");
    }

    #[test]
    fn a_member_that_is_there_twice_is_not_found() {
        for json in [r#"{"a":1,"a":2}"#, r#"{"a":1,"A":2}"#, r#"{"a":1,"\u0061":2}"#] {
            assert_eq!(find(json, &steps("/a")), None, "{json}");
        }
    }

    proptest! {
        #[test]
        fn what_is_put_is_found_and_what_is_taken_out_is_gone(
            json in r#"[{}\[\]":,ab0.e\\ -]{0,40}"#,
            pointer in "(/[ab]){1,3}",
        ) {
            let way = steps(&pointer);
            if let Some(put) = put(&json, &way, "\"x\"") {
                let value: Value = serde_json::from_str(&put).expect("JSON");
                prop_assert_eq!(value.pointer(&pointer).and_then(Value::as_str), Some("x"));
            }
            if let Some(rest) = without(&json, &way) {
                let value: Value = serde_json::from_str(&rest).expect("JSON");
                prop_assert_eq!(value.pointer(&pointer), None);
            }
        }
    }
}

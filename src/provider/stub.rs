//! The response for an application that insists on logging in: it has the shape of the provider's own token response
//! and holds a worthless token.
//!
//! The shape is derived from the profile: the places of the token, its type and its lifetime in the provider's
//! responses, and the values that mark a response as successful.

use serde_json::{Map, Value, json};

use super::condition::JsonTest;
use super::document::DocumentFormat;
use super::token_response_rules::TokenResponseRules;
use super::xml;
use crate::base::time::Now;

/// The access token of every stub response. Disclosing it reveals no secret.
pub const STUB_TOKEN: &str = "countersign-stub-token-of-no-worth";
/// The lifetime that a stub response states for its token, in seconds.
const LIFE: u64 = 3600;

impl TokenResponseRules {
    /// A successful answer at this moment: its content type and its body.
    pub(super) fn stub(&self, now: Now) -> (&'static str, String) {
        let values = self.values(now);
        match self.format {
            DocumentFormat::Form => {
                let mut form = form_urlencoded::Serializer::new(String::new());
                for (name, value) in values.as_object().into_iter().flatten() {
                    form.append_pair(name, value.as_str().unwrap_or(&value.to_string()));
                }
                ("application/x-www-form-urlencoded", form.finish())
            }
            DocumentFormat::Json => ("application/json", values.to_string()),
            DocumentFormat::Text => ("text/plain", STUB_TOKEN.to_owned()),
            DocumentFormat::Xml => ("application/xml", xml::write(&values)),
        }
    }

    fn values(&self, now: Now) -> Value {
        let mut whole = Value::Object(Map::new());
        for (pointer, value) in self.success.iter().filter_map(JsonTest::example) {
            put(&mut whole, pointer, value);
        }
        for (pointers, value) in [
            (&self.access_token, json!(STUB_TOKEN)),
            (&self.token_type, json!(self.accepted_types.first().map_or("Bearer", String::as_str))),
            (&self.expires_in, json!(LIFE * u64::from(self.expires_in_unit.per_second()))),
            (&self.expires_at, json!(now.unix_seconds().saturating_add(LIFE))),
        ] {
            if let Some(first) = pointers.first() {
                put(&mut whole, first, value);
            }
        }
        whole
    }
}

/// Puts a value where a JSON pointer (RFC 6901) points, making the objects on the way.
fn put(whole: &mut Value, pointer: &str, value: Value) {
    let mut place = whole;
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(members) = place else { return };
        place = members.entry(step).or_insert(Value::Null);
    }
    *place = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_where_pointers_point() {
        let mut whole = json!({});
        put(&mut whole, "/a/b~1c", json!(1));
        put(&mut whole, "/a/d", json!("x"));
        assert_eq!(whole, json!({ "a": { "b/c": 1, "d": "x" } }));
    }
}

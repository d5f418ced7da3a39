//! HAR 1.2: what a browser or a proxy recorded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::bounded_json::{at, items_at, text_at};
use super::example_format::{MOST_EXCHANGES, ReadExample};
use super::observed::{ObservedAnswer, ObservedBody, ObservedExchange, ObservedRequest};

/// Reads a recording.
pub(super) fn read_har(document: &Value) -> Result<ReadExample, String> {
    let entries = items_at(document, &["log", "entries"]);
    if entries.len() > MOST_EXCHANGES {
        return Err(format!("the recording has more than {MOST_EXCHANGES} entries"));
    }
    let exchanges = entries.iter().filter_map(entry).collect();
    Ok(ReadExample { exchanges, remarks: Vec::new() })
}

fn entry(entry: &Value) -> Option<ObservedExchange> {
    let request = at(entry, &["request"])?;
    // Fields of HTTP/2 that begin with a colon are the request line.
    let headers =
        named_values(items_at(request, &["headers"]), "name").filter(|(name, _)| !name.starts_with(':')).collect();
    let mut observed = ObservedRequest::new(text_at(request, &["method"]), text_at(request, &["url"]), headers);
    let text = text_at(request, &["postData", "text"]);
    let params: Vec<(String, String)> = named_values(items_at(request, &["postData", "params"]), "name").collect();
    if !params.is_empty() {
        observed.body = ObservedBody::Form(params);
    } else {
        if observed.header("content-type").is_none() {
            let kind = text_at(request, &["postData", "mimeType"]);
            observed.headers.extend((!kind.is_empty()).then(|| ("content-type".to_owned(), kind.to_owned())));
        }
        observed.take_body(text);
    }
    let response = at(entry, &["response"]);
    let answer = response.and_then(|response| {
        let status = at(response, &["status"]).and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok())?;
        let mut answer = ObservedAnswer {
            status: Some(status).filter(|status| *status >= 100),
            headers: named_values(items_at(response, &["headers"]), "name").collect(),
            label: text_at(entry, &["comment"]).chars().take(200).collect(),
            ..ObservedAnswer::default()
        };
        let text = text_at(response, &["content", "text"]);
        match text_at(response, &["content", "encoding"]) {
            "base64" => {
                let decoded = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                answer.take_body(&decoded.unwrap_or_default());
            }
            _ => answer.take_body(text),
        }
        // A recording without the content says nothing about it.
        let size = at(response, &["content", "size"]).and_then(Value::as_i64).unwrap_or_default();
        answer.is_empty &= size <= 0;
        answer.status.is_some().then_some(answer)
    });
    Some(ObservedExchange { request: observed, answer })
}

/// The names and values of a list of objects; those that are switched off are left out.
pub(super) fn named_values<'a>(items: &'a [Value], name: &'a str) -> impl Iterator<Item = (String, String)> + 'a {
    let is_off = |item: &&Value| item.get("disabled").and_then(Value::as_bool) != Some(true);
    items.iter().filter(is_off).take(1000).filter_map(move |item| {
        let name = text_at(item, &[name]);
        let value = match item.get("value")? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(yes) => yes.to_string(),
            Value::Array(_) | Value::Null | Value::Object(_) => return None,
        };
        (!name.is_empty()).then(|| (name.to_owned(), value))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_is_a_request_with_its_answer() {
        let har = json!({ "log": { "entries": [{
            "request": {
                "method": "post", "url": "https://bank.example/token?a=b",
                "headers": [{ "name": ":authority", "value": "bank.example" }, { "name": "Content-Type", "value": "application/json" }],
                "postData": { "mimeType": "application/json", "text": "{\"k\":1}" },
            },
            "response": { "status": 200, "headers": [], "content": { "size": 9, "encoding": "base64", "text": "eyJhIjoiYiJ9" } },
        }] } });
        let read = read_har(&har).expect("a recording").exchanges;
        assert_eq!((read[0].request.method.as_str(), read[0].request.headers.len()), ("POST", 1));
        assert!(matches!(&read[0].request.body, ObservedBody::Json(json) if json["k"] == 1));
        assert_eq!(read[0].answer.as_ref().and_then(|answer| answer.json.clone()), Some(json!({ "a": "b" })));
        let many = json!({ "log": { "entries": vec![json!({}); MOST_EXCHANGES + 1] } });
        assert!(read_har(&many).is_err());
    }
}

//! Postman collections 2.1, with saved responses. Scripts in them are not looked at.

use std::collections::BTreeMap;

use serde_json::Value;

use super::bounded_json::{at, items_at, text_at};
use super::example_format::{MOST_EXCHANGES, ReadExample};
use super::har::named_values;
use super::observed::{ObservedAnswer, ObservedBody, ObservedExchange, ObservedRequest};

/// The longest text after variables were put in, in bytes.
const LONGEST: usize = 64 << 10;

/// Reads a collection.
pub(super) fn read_postman(document: &Value) -> Result<ReadExample, String> {
    let schema = text_at(document, &["info", "schema"]);
    if schema.contains("/v1.") || schema.contains("/v2.0") {
        return Err("it is a Postman collection of an older version: export it as version 2.1".to_owned());
    }
    let variables =
        named_values(items_at(document, &["variable"]), "key").filter(|(_, value)| !value.is_empty()).collect();
    let mut reader = PostmanReader { variables, read: ReadExample::default() };
    // Depth is bounded by that of the document.
    let mut open: Vec<(&Value, Option<&Value>)> = vec![(document, None)];
    while let Some((folder, inherited)) = open.pop() {
        let auth = folder.get("auth").filter(|auth| auth.is_object()).or(inherited);
        for item in items_at(folder, &["item"]).iter().rev() {
            if item.get("item").is_some() {
                open.push((item, auth));
            } else {
                reader.item(item, auth);
            }
            if reader.read.exchanges.len() > MOST_EXCHANGES || open.len() > MOST_EXCHANGES {
                return Err(format!("the collection has more than {MOST_EXCHANGES} requests"));
            }
        }
    }
    reader.read.exchanges.reverse();
    Ok(reader.read)
}

struct PostmanReader {
    variables: BTreeMap<String, String>,
    read: ReadExample,
}

impl PostmanReader {
    fn item(&mut self, item: &Value, inherited: Option<&Value>) {
        let Some(request) = item.get("request") else { return };
        let responses = items_at(item, &["response"]);
        for response in responses.iter().take(100) {
            // The request that was sent for this answer, if it was kept.
            let sent = response.get("originalRequest").filter(|sent| sent.is_object()).unwrap_or(request);
            let answer = self.answer(response);
            if let Some(request) = self.request(sent, request, inherited) {
                self.read.exchanges.push(ObservedExchange { request, answer: Some(answer) });
            }
        }
        if responses.is_empty()
            && let Some(request) = self.request(request, request, inherited)
        {
            self.read.exchanges.push(ObservedExchange { request, answer: None });
        }
    }

    /// Puts the collection's variables in, once: what they hold is not looked at again.
    fn filled(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("{{") {
            out.push_str(before);
            let Some((name, after)) = behind.split_once("}}") else {
                out.push_str("{{");
                rest = behind;
                continue;
            };
            match self.variables.get(name.trim()) {
                Some(value) if out.len() + value.len() <= LONGEST => out.push_str(value),
                Some(_) | None => {
                    out.push_str("{{");
                    out.push_str(name);
                    out.push_str("}}");
                }
            }
            rest = after;
        }
        out + rest
    }

    fn pairs(&self, items: &[Value]) -> Vec<(String, String)> {
        named_values(items, "key").map(|(name, value)| (self.filled(&name), self.filled(&value))).collect()
    }

    fn request(&self, request: &Value, template: &Value, inherited: Option<&Value>) -> Option<ObservedRequest> {
        // A text alone is the URL of a GET.
        if let Some(url) = request.as_str() {
            return Some(ObservedRequest::new("GET", &self.filled(url), Vec::new()));
        }
        let url = match request.get("url")? {
            Value::String(url) => url.as_str(),
            url => text_at(url, &["raw"]),
        };
        let method = Some(text_at(request, &["method"])).filter(|method| !method.is_empty()).unwrap_or("GET");
        let mut observed = ObservedRequest::new(method, &self.filled(url), self.pairs(items_at(request, &["header"])));
        let auth = [request.get("auth"), template.get("auth")]
            .into_iter()
            .flatten()
            .find(|auth| auth.is_object())
            .or(inherited);
        if let Some(auth) = auth {
            self.authenticate(&mut observed, auth);
        }
        let body = request.get("body").unwrap_or(&Value::Null);
        match text_at(body, &["mode"]) {
            "urlencoded" => observed.body = ObservedBody::Form(self.pairs(items_at(body, &["urlencoded"]))),
            "raw" => observed.take_body(&self.filled(text_at(body, &["raw"]))),
            "formdata" | "file" | "graphql" => observed.body = ObservedBody::Other,
            _ => {}
        }
        Some(observed)
    }

    fn authenticate(&self, request: &mut ObservedRequest, auth: &Value) {
        let kind = text_at(auth, &["type"]);
        let values = self.pairs(items_at(auth, &[kind]));
        let value = |name: &str| values.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        match kind {
            "basic" => {
                request.basic = Some((
                    value("username").unwrap_or_else(|| "<client_id>".to_owned()),
                    value("password").unwrap_or_else(|| "<client_secret>".to_owned()),
                ));
            }
            "bearer" => {
                let token = value("token").unwrap_or_else(|| "<access_token>".to_owned());
                request.headers.push(("Authorization".to_owned(), format!("Bearer {token}")));
            }
            "apikey" => {
                let pair = (
                    value("key").unwrap_or_else(|| "x-api-key".to_owned()),
                    value("value").unwrap_or_else(|| "<api_key>".to_owned()),
                );
                if value("in").as_deref() == Some("query") {
                    request.query.push(pair);
                } else {
                    request.headers.push(pair);
                }
            }
            "oauth2" => request.headers.push(("Authorization".to_owned(), "Bearer <access_token>".to_owned())),
            _ => {}
        }
    }

    fn answer(&self, response: &Value) -> ObservedAnswer {
        let mut answer = ObservedAnswer {
            status: response.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok()),
            headers: named_values(items_at(response, &["header"]), "key").collect(),
            label: text_at(response, &["name"]).chars().take(200).collect(),
            ..ObservedAnswer::default()
        };
        answer.take_body(at(response, &["body"]).and_then(Value::as_str).unwrap_or_default());
        answer
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn folders_variables_and_saved_responses_are_read() {
        let collection = json!({
            "info": { "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json" },
            "auth": { "type": "bearer", "bearer": [{ "key": "token", "value": "{{access_token}}" }] },
            "variable": [{ "key": "base", "value": "https://bank.example" }, { "key": "loop", "value": "{{loop}}{{loop}}" }],
            "item": [{ "name": "folder", "item": [
                { "request": {
                    "method": "POST", "url": { "raw": "{{base}}/token" },
                    "auth": { "type": "basic", "basic": [{ "key": "username", "value": "me" }, { "key": "password", "value": "{{loop}}" }] },
                    "header": [{ "key": "off", "value": "x", "disabled": true }],
                    "body": { "mode": "urlencoded", "urlencoded": [{ "key": "grant_type", "value": "client_credentials" }] },
                }, "response": [{ "name": "fine", "code": 200, "body": "{\"access_token\":\"t\"}" }] },
                { "request": "{{base}}/accounts" },
            ] }],
        });
        let read = read_postman(&collection).expect("a collection").exchanges;
        assert_eq!(read.len(), 2);
        let token = read.iter().find(|exchange| exchange.answer.is_some()).expect("the token call");
        assert_eq!(
            (token.request.origin.as_deref(), token.request.path.as_str()),
            (Some("https://bank.example"), "/token")
        );
        assert_eq!(token.request.basic, Some(("me".to_owned(), "{{loop}}{{loop}}".to_owned())));
        assert!(token.request.headers.is_empty());
        let old = json!({ "info": { "schema": "…/collection/v2.0.0/…" }, "item": [] });
        assert!(read_postman(&old).is_err());
    }
}

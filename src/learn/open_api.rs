//! OpenAPI 3: examples of its operations, or values that stand for what its schemas say.
//!
//! References lead within the document only. Nothing is fetched.

use serde_json::{Map, Value, json};

use super::bounded_json::{at, items_at, text_at};
use super::example_format::{MOST_EXCHANGES, ReadExample};
use super::observed::{ObservedAnswer, ObservedBody, ObservedExchange, ObservedRequest, is_short};

/// The most steps through references and schemas of one document.
const MOST_STEPS: usize = 200_000;
/// The deepest schema of which an example is made; schemas may contain themselves.
const DEEPEST_SCHEMA: usize = 12;
/// The most references that lead from one to the next.
const LONGEST_CHAIN: usize = 16;

/// Reads a document. The error says which bound it breaks.
pub(super) fn read_open_api(document: &Value) -> Result<ReadExample, String> {
    let mut reader = OpenApiReader { document, steps: 0 };
    let mut read = ReadExample::default();
    let server =
        items_at(document, &["servers"]).iter().map(|server| text_at(server, &["url"])).find(|url| !url.is_empty());
    let server = server.unwrap_or_default().trim_end_matches('/').to_owned();
    for (path, item) in at(document, &["paths"]).and_then(Value::as_object).into_iter().flatten() {
        let item = reader.resolved(item)?;
        for method in ["get", "post", "put", "delete"] {
            let Some(operation) = item.get(method) else { continue };
            reader.operation(&server, path, method, (item, operation), &mut read.exchanges)?;
            if read.exchanges.len() > MOST_EXCHANGES {
                return Err(format!("the document has more than {MOST_EXCHANGES} operations and answers"));
            }
        }
    }
    reader.flows(&server, &mut read.exchanges)?;
    Ok(read)
}

/// Makes an example of a schema that stands alone.
pub(super) fn schema_example(schema: &Value) -> Option<Value> {
    OpenApiReader { document: schema, steps: 0 }.example(schema, "", 0).ok().filter(is_short)
}

struct OpenApiReader<'a> {
    document: &'a Value,
    steps: usize,
}

impl<'a> OpenApiReader<'a> {
    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        if self.steps > MOST_STEPS { Err("its references unfold without end".to_owned()) } else { Ok(()) }
    }

    /// Follows references within the document. One that leads elsewhere leads to nothing.
    fn resolved(&mut self, value: &'a Value) -> Result<&'a Value, String> {
        let mut value = value;
        for _ in 0..LONGEST_CHAIN {
            self.step()?;
            let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return Ok(value) };
            let pointer = reference.strip_prefix('#').map(|pointer| pointer.replace("%7B", "{").replace("%7D", "}"));
            value = pointer.and_then(|pointer| self.document.pointer(&pointer)).unwrap_or(&Value::Null);
        }
        Err("a reference in it leads in a circle".to_owned())
    }

    fn operation(
        &mut self,
        server: &str,
        path: &str,
        method: &str,
        (item, operation): (&'a Value, &'a Value),
        into: &mut Vec<ObservedExchange>,
    ) -> Result<(), String> {
        let (mut headers, mut query) = (Vec::new(), Vec::new());
        for parameter in items_at(item, &["parameters"]).iter().chain(items_at(operation, &["parameters"])) {
            let parameter = self.resolved(parameter)?;
            let name = text_at(parameter, &["name"]).to_owned();
            let value = self.example(parameter, &name, 0)?;
            let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            let required = parameter.get("required").and_then(Value::as_bool) == Some(true);
            match text_at(parameter, &["in"]) {
                "header" if required => headers.push((name, value)),
                "query" if required => query.push((name, value)),
                _ => {}
            }
        }
        let basic = self.secure(operation, &mut headers, &mut query)?;
        let mut request = ObservedRequest::new(method, &format!("{server}{path}"), headers);
        request.query.extend(query);
        request.basic = basic.or(request.basic);
        self.body(operation, &mut request)?;
        let mut answered = false;
        for (status, response) in at(operation, &["responses"]).and_then(Value::as_object).into_iter().flatten() {
            let response = self.resolved(response)?;
            let status = match status.as_str() {
                "2XX" | "default" if !answered => Some(200),
                status => status.parse().ok().filter(|status| (200..=599).contains(status)),
            };
            let Some(status) = status else { continue };
            let label: String = text_at(response, &["description"]).chars().take(200).collect();
            for json in self.contents(response)? {
                answered = true;
                let is_empty = json.is_none();
                let answer = ObservedAnswer {
                    status: Some(status),
                    json,
                    is_empty,
                    label: label.clone(),
                    ..ObservedAnswer::default()
                };
                into.push(ObservedExchange { request: request.clone(), answer: Some(answer) });
            }
        }
        if !answered {
            into.push(ObservedExchange { request, answer: None });
        }
        Ok(())
    }

    fn body(&mut self, operation: &'a Value, request: &mut ObservedRequest) -> Result<(), String> {
        let Some(body) = operation.get("requestBody") else { return Ok(()) };
        let body = self.resolved(body)?;
        for (kind, media) in at(body, &["content"]).and_then(Value::as_object).into_iter().flatten() {
            let example = self.examples(media)?.into_iter().find(is_short).unwrap_or(Value::Null);
            if kind.contains("json") {
                request.body = ObservedBody::Json(example);
                return Ok(());
            }
            if kind.contains("urlencoded") {
                let pairs = example.as_object().into_iter().flatten();
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
                request.body = match &example {
                    Value::String(form) => ObservedBody::Form(super::observed::pairs(form)),
                    _ => ObservedBody::Form(pairs.map(|(name, value)| (name.clone(), text(value))).collect()),
                };
                return Ok(());
            }
            request.body = ObservedBody::Other;
        }
        Ok(())
    }

    /// The bodies of a response; one that is `None` if it has no JSON.
    fn contents(&mut self, response: &'a Value) -> Result<Vec<Option<Value>>, String> {
        let media = at(response, &["content"]).and_then(Value::as_object);
        let media = media.and_then(|all| all.iter().find(|(kind, _)| kind.contains("json"))).map(|(_, media)| media);
        let Some(media) = media else { return Ok(vec![None]) };
        Ok(self.examples(media)?.into_iter().filter(is_short).map(Some).collect())
    }

    /// The examples of a media type, or one that its schema gives.
    fn examples(&mut self, media: &'a Value) -> Result<Vec<Value>, String> {
        let mut found = Vec::new();
        for example in at(media, &["examples"]).and_then(Value::as_object).into_iter().flatten().take(50) {
            let example = self.resolved(example.1)?;
            found.extend(example.get("value").cloned());
        }
        if found.is_empty() {
            found.push(self.example(media, "", 0)?);
        }
        Ok(found)
    }

    /// The example of a parameter, a media type or a schema; without one, a placeholder of its name.
    fn example(&mut self, of: &'a Value, name: &str, depth: usize) -> Result<Value, String> {
        let of = self.resolved(of)?;
        if let Some(example) = ["example", "const", "default"].iter().find_map(|key| of.get(*key)) {
            return Ok(example.clone());
        }
        if let Some(first) = items_at(of, &["examples"]).first().or_else(|| items_at(of, &["enum"]).first()) {
            return Ok(first.clone());
        }
        if depth >= DEEPEST_SCHEMA || of.is_null() {
            return Ok(Value::Null);
        }
        if let Some(schema) = of.get("schema") {
            return self.example(schema, name, depth + 1);
        }
        let mut members = Map::new();
        for part in items_at(of, &["allOf"])
            .iter()
            .chain(items_at(of, &["oneOf"]).iter().take(1))
            .chain(items_at(of, &["anyOf"]).iter().take(1))
        {
            if let Value::Object(of_part) = self.example(part, name, depth + 1)? {
                members.extend(of_part);
            }
        }
        for (member, schema) in at(of, &["properties"]).and_then(Value::as_object).into_iter().flatten() {
            let value = self.example(schema, member, depth + 1)?;
            if !value.is_null() {
                members.insert(member.clone(), value);
            }
        }
        if !members.is_empty() || of.get("properties").is_some() {
            return Ok(Value::Object(members));
        }
        Ok(match text_at(of, &["type"]) {
            "integer" | "number" if super::plain_text::squashed(name).contains("expire") => json!(3600),
            "integer" | "number" => json!(0),
            "boolean" => json!(true),
            "array" => json!([]),
            "object" => json!({}),
            _ if name.is_empty() => Value::Null,
            _ => Value::String(format!("<{name}>")),
        })
    }

    /// Puts the first security requirement of an operation on a request. Returns the pair of HTTP Basic.
    fn secure(
        &mut self,
        operation: &'a Value,
        headers: &mut Vec<(String, String)>,
        query: &mut Vec<(String, String)>,
    ) -> Result<Option<(String, String)>, String> {
        let own = operation.get("security").or_else(|| self.document.get("security"));
        let first = own.and_then(Value::as_array).and_then(|all| all.first()).and_then(Value::as_object);
        let mut basic = None;
        for name in first.into_iter().flat_map(Map::keys) {
            let Some(scheme) = at(self.document, &["components", "securitySchemes", name]) else { continue };
            let scheme = self.resolved(scheme)?;
            let key = text_at(scheme, &["name"]).to_owned();
            match (
                text_at(scheme, &["type"]),
                text_at(scheme, &["scheme"]).to_ascii_lowercase().as_str(),
                text_at(scheme, &["in"]),
            ) {
                ("http", "basic", _) => basic = Some(("<client_id>".to_owned(), "<client_secret>".to_owned())),
                ("http", "bearer", _) | ("oauth2" | "openIdConnect", ..) => {
                    headers.push(("Authorization".to_owned(), "Bearer <access_token>".to_owned()));
                }
                ("apiKey", _, "header") => headers.push((key.clone(), format!("<{key}>"))),
                ("apiKey", _, "query") => query.push((key.clone(), format!("<{key}>"))),
                _ => {}
            }
        }
        Ok(basic)
    }

    /// Adds the token call of a `clientCredentials` flow, which no path describes.
    fn flows(&mut self, server: &str, into: &mut Vec<ObservedExchange>) -> Result<(), String> {
        let schemes = at(self.document, &["components", "securitySchemes"]).and_then(Value::as_object);
        for (_, scheme) in schemes.into_iter().flatten() {
            let scheme = self.resolved(scheme)?;
            let url = text_at(scheme, &["flows", "clientCredentials", "tokenUrl"]);
            if url.is_empty() {
                continue;
            }
            let url =
                if url.contains("://") { url.to_owned() } else { format!("{server}/{}", url.trim_start_matches('/')) };
            let mut request = ObservedRequest::new("POST", &url, Vec::new());
            let same_path = |exchange: &ObservedExchange| exchange.request.path == request.path;
            if into.iter().any(same_path) {
                continue;
            }
            let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            request.body = ObservedBody::Form(vec![
                field("grant_type", "client_credentials"),
                field("client_id", "<client_id>"),
                field("client_secret", "<client_secret>"),
            ]);
            // RFC 6749 section 5.1.
            let json = json!({ "access_token": "<access_token>", "token_type": "Bearer", "expires_in": 3600 });
            let answer = ObservedAnswer { status: Some(200), json: Some(json), ..ObservedAnswer::default() };
            into.push(ObservedExchange { request, answer: Some(answer) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_give_examples_and_references_are_bounded() {
        let document = json!({
            "openapi": "3.0.3", "servers": [{ "url": "https://bank.example/v1/" }],
            "paths": { "/token": { "post": {
                "requestBody": { "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Ask" } } } },
                "responses": { "200": { "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Token" } } } } },
            } } },
            "components": { "schemas": {
                "Ask": { "type": "object", "properties": { "client_id": { "type": "string" }, "self": { "$ref": "#/components/schemas/Ask" } } },
                "Token": { "properties": { "access_token": { "type": "string" }, "expires_in": { "type": "integer" } } },
            } },
        });
        let read = read_open_api(&document).expect("a document").exchanges;
        assert_eq!(read[0].request.path, "/v1/token");
        assert!(matches!(&read[0].request.body, ObservedBody::Json(json) if json["client_id"] == "<client_id>"));
        let json = read[0].answer.as_ref().and_then(|answer| answer.json.clone()).expect("JSON");
        assert_eq!(json, json!({ "access_token": "<access_token>", "expires_in": 3600 }));

        let circle = json!({ "openapi": "3.0.0", "paths": { "/a": { "$ref": "#/paths/~1a" } } });
        assert!(read_open_api(&circle).err().expect("a mistake").contains("circle"));
        let wide: Map<String, Value> =
            (0..30).map(|n| (format!("p{n}"), json!({ "$ref": "#/components/schemas/S" }))).collect();
        let bomb = json!({ "openapi": "3.0.0",
            "paths": { "/a": { "post": { "requestBody": { "content": { "application/json": { "schema": { "$ref": "#/components/schemas/S" } } } } } } },
            "components": { "schemas": { "S": { "properties": wide } } } });
        assert!(read_open_api(&bomb).err().expect("a mistake").contains("without end"));
    }
}

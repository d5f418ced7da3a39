//! The token request of the profile, from the one in the examples.

use serde_json::Value;

use super::learned_text::{LearnedPiece, LearnedText};
use super::observed::{ObservedBody, ObservedRequest};
use super::plain_text::{is_placeholder, is_plain_name, is_plain_text, squashed, words_of};
use super::value_meaning::{ValueMeanings, ValuePlace, is_secret_name};

/// The section of the profile, for remarks.
pub(super) const REQUEST: &str = "token.request";

/// The token request as a profile says it.
#[derive(Clone, Debug)]
pub(super) struct LearnedRequest {
    pub method: String,
    /// Behind the base URL.
    pub path: LearnedText,
    pub encoding: LearnedEncoding,
    pub headers: Vec<(String, LearnedText)>,
    pub body: Vec<(String, LearnedField)>,
    /// HTTP Basic: id and secret.
    pub basic: Option<(LearnedText, LearnedText)>,
}

/// The encoding of the request's fields, in the words of a profile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LearnedEncoding {
    Form,
    Json,
    Nothing,
    Query,
}

/// A field of the body.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum LearnedField {
    /// A number, true or false.
    Constant(Value),
    List(Vec<LearnedField>),
    Object(Vec<(String, LearnedField)>),
    Text(LearnedText),
}

/// Headers that belong to a client, a browser or the connection, and say nothing of a bank.
const NOISE: [&str; 24] = [
    "accept-encoding",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "dnt",
    "expect",
    "host",
    "keep-alive",
    "origin",
    "pragma",
    "priority",
    "referer",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "upgrade-insecure-requests",
    "user-agent",
    "via",
    "postman-token",
];

/// Returns whether a header of an example is left out.
pub(super) fn is_noise_header(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let by_browser = name == "accept-language" && value.contains("q=");
    let is_default_accept = name == "accept" && (value.contains("application/json") || value.contains("q="));
    by_browser
        || is_default_accept
        || NOISE.contains(&name.as_str())
        || ["sec-", "proxy-", "x-forwarded", "if-", "access-control", "newrelic", "sentry"]
            .iter()
            .any(|start| name.starts_with(start))
}

/// Fields of a user's consent, which an application's own token does not need.
const OF_CONSENT: [&str; 7] =
    ["authcode", "authorizationcode", "codeverifier", "codechallenge", "redirecturi", "refreshtoken", "state"];

impl LearnedRequest {
    /// Learns from one request; `others` show which values change. `base_path` stands in front of the path.
    pub(super) fn learn(
        from: &ObservedRequest,
        others: &[&ObservedRequest],
        base_path: &str,
        meanings: &mut ValueMeanings,
        omitted: &mut Vec<String>,
    ) -> Result<Self, String> {
        meanings.has_secret_beside = has_secret(from);
        let mut learner = RequestLearner { others, meanings, omitted };
        // The body first: its names are the better ones for settings.
        let (encoding, mut body) = learner.body(from)?;
        let (encoding, path_query) = match (encoding, from.query.is_empty()) {
            (LearnedEncoding::Nothing, false) => {
                body = learner.pairs(&from.query)?;
                (LearnedEncoding::Query, String::new())
            }
            (encoding, true) => (encoding, String::new()),
            (encoding, false) => (encoding, learner.constant_query(from)?),
        };
        let basic = from.basic.as_ref().map(|(id, secret)| learner.basic(id, secret));
        let headers = learner.headers(&from.headers);
        let mut path = learner.path(from.path.strip_prefix(base_path).unwrap_or(&from.path))?;
        if !path_query.is_empty() {
            path.0.push(LearnedPiece::Literal(path_query));
        }
        if !["GET", "POST", "PUT", "DELETE"].contains(&from.method.as_str()) {
            return Err("the token call has another method than GET, POST, PUT and DELETE".to_owned());
        }
        let has_settings = |field: &LearnedField| field.texts().iter().any(|text| text.settings().next().is_some());
        let has_credentials = basic.is_some()
            || body.iter().any(|(_, field)| has_settings(field))
            || headers.iter().any(|(_, text)| text.settings().next().is_some());
        if !has_credentials {
            return Err(
                "the token call shows no credentials: give an example of it with its body or headers, such as a \
                        curl line; what stands for a value there may be `<client secret>`"
                    .to_owned(),
            );
        }
        Ok(Self { method: from.method.clone(), path, encoding, headers, body, basic })
    }

    /// All texts of headers and fields, and of the pair of HTTP Basic.
    pub(super) fn texts(&self) -> Vec<&LearnedText> {
        let mut found: Vec<&LearnedText> = self.headers.iter().map(|(_, text)| text).collect();
        found.extend(self.body.iter().flat_map(|(_, field)| field.texts()));
        found.extend(self.basic.iter().flat_map(|(id, secret)| [id, secret]));
        found
    }
}

impl LearnedField {
    /// The texts in it.
    pub(super) fn texts(&self) -> Vec<&LearnedText> {
        match self {
            LearnedField::Constant(_) => Vec::new(),
            LearnedField::List(items) => items.iter().flat_map(LearnedField::texts).collect(),
            LearnedField::Object(members) => members.iter().flat_map(|(_, member)| member.texts()).collect(),
            LearnedField::Text(text) => vec![text],
        }
    }
}

/// Returns whether a field of a request is called a secret.
fn has_secret(request: &ObservedRequest) -> bool {
    let says = |name: &str| {
        let name = squashed(name);
        ["secret", "password", "passwd"].iter().any(|word| name.contains(word))
    };
    let in_body = match &request.body {
        ObservedBody::Form(pairs) => pairs.iter().any(|(name, _)| says(name)),
        ObservedBody::Json(value) => value.as_object().is_some_and(|members| members.keys().any(|name| says(name))),
        ObservedBody::Nothing | ObservedBody::Other => false,
    };
    in_body || request.headers.iter().chain(&request.query).any(|(name, _)| says(name))
}

struct RequestLearner<'a> {
    others: &'a [&'a ObservedRequest],
    meanings: &'a mut ValueMeanings,
    omitted: &'a mut Vec<String>,
}

impl RequestLearner<'_> {
    fn body(&mut self, from: &ObservedRequest) -> Result<(LearnedEncoding, Vec<(String, LearnedField)>), String> {
        match &from.body {
            ObservedBody::Nothing => Ok((LearnedEncoding::Nothing, Vec::new())),
            ObservedBody::Form(pairs) => Ok((LearnedEncoding::Form, self.pairs(pairs)?)),
            ObservedBody::Json(Value::Object(members)) => {
                let mut fields = Vec::new();
                for (name, value) in members {
                    fields.extend(self.member(name, value)?);
                }
                Ok((LearnedEncoding::Json, fields))
            }
            ObservedBody::Json(_) | ObservedBody::Other => {
                Err("the body of the token call is neither a form nor a JSON object: write this profile by hand"
                    .to_owned())
            }
        }
    }

    fn pairs(&mut self, pairs: &[(String, String)]) -> Result<Vec<(String, LearnedField)>, String> {
        let mut fields: Vec<(String, LearnedField)> = Vec::new();
        for (name, value) in pairs {
            if !self.is_wanted(name)? {
                continue;
            }
            if fields.iter().any(|(known, _)| known == name) {
                self.omitted.push(format!("`{name}` stands twice in the token call; the first is taken"));
                continue;
            }
            let text = self.value(name, value);
            fields.push((name.clone(), LearnedField::Text(text)));
        }
        Ok(fields)
    }

    /// Returns whether a field is part of an application's token call.
    fn is_wanted(&mut self, name: &str) -> Result<bool, String> {
        if !is_plain_name(name) {
            return Err("the token call has a field whose name is no plain word, so it cannot be shown: write this \
                        profile by hand"
                .to_owned());
        }
        if OF_CONSENT.contains(&squashed(name).as_str()) || name == "code" {
            self.omitted.push(format!("`{name}` belongs to a user's consent, and was left out of the token call"));
            return Ok(false);
        }
        let plain = squashed(name);
        if plain.starts_with("clientassertion") {
            self.omitted.push(format!(
                "`{name}` is signed for each request: write `client_auth` by `private_key_jwt` (docs/adding-a-provider.md)"
            ));
            return Ok(false);
        }
        if ["signature", "hmac"].iter().any(|word| plain.contains(word)) || plain == "sign" {
            self.omitted.push(format!(
                "`{name}` is computed for each request: write [[token.request.sign]] (docs/adding-a-provider.md)"
            ));
            return Ok(false);
        }
        Ok(true)
    }

    fn member(&mut self, name: &str, value: &Value) -> Result<Option<(String, LearnedField)>, String> {
        if !self.is_wanted(name)? {
            return Ok(None);
        }
        Ok(self.field(name, value)?.map(|field| (name.to_owned(), field)))
    }

    fn field(&mut self, name: &str, value: &Value) -> Result<Option<LearnedField>, String> {
        Ok(match value {
            Value::Null => None,
            Value::Bool(_) => Some(LearnedField::Constant(value.clone())),
            Value::Number(number) if number.to_string().len() <= 4 => {
                self.meanings.guess(REQUEST, format!("`{name}` has the same number in every request"));
                Some(LearnedField::Constant(value.clone()))
            }
            Value::Number(_) => {
                self.omitted
                    .push(format!("`{name}` is a long number, which no setting can be: write it into the profile"));
                None
            }
            Value::String(text) => Some(LearnedField::Text(self.value(name, text))),
            Value::Array(items) => {
                let mut list = Vec::new();
                for item in items {
                    list.extend(self.field(name, item)?);
                }
                Some(LearnedField::List(list))
            }
            Value::Object(members) => {
                let mut object = Vec::new();
                for (name, value) in members {
                    object.extend(self.member(name, value)?);
                }
                Some(LearnedField::Object(object))
            }
        })
    }

    fn value(&mut self, name: &str, value: &str) -> LearnedText {
        let text = self.meanings.of(name, value, ValuePlace::TokenCall, REQUEST);
        let is_constant = text.0.iter().all(|piece| matches!(piece, LearnedPiece::Literal(_)));
        let seen = self.others.iter().filter_map(|other| other.header(name).or_else(|| other.field(name)));
        if is_constant && seen.into_iter().any(|other| other != value && !is_placeholder(other)) {
            self.meanings.guess(REQUEST, format!("`{name}` is a setting: the examples have several values"));
            return LearnedText::of(LearnedPiece::Setting(self.meanings.settings.setting_with_default(name, value)));
        }
        text
    }

    fn headers(&mut self, headers: &[(String, String)]) -> Vec<(String, LearnedText)> {
        let mut learned: Vec<(String, LearnedText)> = Vec::new();
        for (name, value) in headers {
            let plain = squashed(name);
            if is_noise_header(name, value) {
                if plain == "cookie" {
                    self.omitted.push("a cookie of the token call was left out".to_owned());
                }
                continue;
            }
            if !is_plain_name(name) || http::HeaderName::from_bytes(name.as_bytes()).is_err() {
                self.omitted.push("a header of the token call was left out: its name is no plain word".to_owned());
                continue;
            }
            if ["signature", "digest", "hmac", "jws", "dpop"].iter().any(|word| plain.contains(word)) {
                self.omitted.push(format!(
                    "`{name}` is computed for each request: write [[token.request.sign]] (docs/adding-a-provider.md)"
                ));
                continue;
            }
            if learned.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
                continue;
            }
            let text = self.value(name, value);
            learned.push((name.clone(), text));
        }
        learned
    }

    fn basic(&mut self, id: &str, secret: &str) -> (LearnedText, LearnedText) {
        self.meanings.guess(
            REQUEST,
            "id and secret go into Basic as they are (form_encode = false); RFC 6749 section 2.3.1 encodes them first"
                .to_owned(),
        );
        let name = |value: &str, usual: &str| {
            let words = words_of(value);
            let is_telling = is_placeholder(value) && !words.is_empty() && words.len() <= 32 && is_plain_text(&words);
            if is_telling { words } else { usual.to_owned() }
        };
        let id_name = name(id, "client_id");
        let setting = |book: &mut ValueMeanings, name: &str, value: &str, secret: bool| {
            LearnedText::of(LearnedPiece::Setting(book.settings.setting_for(name, value, secret)))
        };
        // A key alone, as in `-u key:`, is the secret.
        if secret.is_empty() {
            return (setting(self.meanings, "api_key", id, true), LearnedText::default());
        }
        let id = setting(self.meanings, &id_name, id, is_secret_name(&id_name) && id_name.contains("secret"));
        (id, setting(self.meanings, &name(secret, "client_secret"), secret, true))
    }

    /// A query beside a body: it goes out as it stands, so all of it must be plain.
    fn constant_query(&mut self, from: &ObservedRequest) -> Result<String, String> {
        let is_plain = |(name, value): &(String, String)| {
            is_plain_name(name) && is_plain_text(value) && !is_secret_name(name) && !is_placeholder(value)
        };
        if !from.query.iter().all(is_plain) {
            return Err(
                "the token call has a body, and a query that is not constant: write this profile by hand".to_owned()
            );
        }
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&from.query).finish();
        self.meanings.guess(REQUEST, "the query of the token call is the same each time".to_owned());
        Ok(format!("?{query}"))
    }

    /// The path: plain segments as they are, others as settings.
    fn path(&mut self, path: &str) -> Result<LearnedText, String> {
        let (mut text, mut before) = (LearnedText::default(), "path".to_owned());
        for (at, segment) in path.split('/').enumerate() {
            if at > 0 {
                text.0.push(LearnedPiece::Literal("/".to_owned()));
            }
            if segment.is_empty() {
                continue;
            }
            if is_plain_segment(segment) {
                before = segment.to_owned();
                text.0.push(LearnedPiece::Literal(segment.to_owned()));
                continue;
            }
            let words = words_of(segment);
            let is_telling = is_placeholder(segment) && !words.is_empty() && is_plain_text(&words);
            let name = if is_telling { words } else { format!("{before}_id") };
            let setting = self.meanings.settings.setting_for(&name, segment, false);
            if self.meanings.settings.is_secret(&setting) {
                return Err("the token call has a secret in its path, and a profile cannot have that".to_owned());
            }
            self.meanings.guess(REQUEST, format!("the setting `{setting}` is a part of the path, and no secret"));
            text.0.push(LearnedPiece::Setting(setting));
        }
        Ok(text)
    }
}

/// Returns whether a segment of a path may be copied.
pub(super) fn is_plain_segment(segment: &str) -> bool {
    is_plain_text(segment)
        && !is_placeholder(segment)
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
}

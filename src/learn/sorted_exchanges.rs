//! The token call among the exchanges of the examples.

use serde_json::Value;

use super::observed::{ObservedBody, ObservedExchange, ObservedRequest};
use super::plain_text::{is_placeholder, is_plain_name, squashed};
use super::value_meaning::is_secret_name;

/// The exchanges of the token endpoint, and those of the API.
pub(super) struct SortedExchanges<'a> {
    /// The request that tells most.
    pub request: &'a ObservedRequest,
    pub token: Vec<&'a ObservedExchange>,
    pub api: Vec<&'a ObservedExchange>,
    /// All tokens of the answers.
    pub tokens: Vec<&'a str>,
    /// Requests of other grants at the same endpoint.
    pub other_grants: usize,
}

/// A scalar of a document: its JSON pointer, its own name, the value.
pub(super) struct PointedValue<'a> {
    pub pointer: String,
    pub name: &'a str,
    pub value: &'a Value,
}

/// The scalars of a document whose names are all plain, the outermost first. Lists are not looked into.
pub(super) fn pointed_values(document: &Value) -> Vec<PointedValue<'_>> {
    let mut found = Vec::new();
    let mut level: Vec<(String, &Value)> = vec![(String::new(), document)];
    while !level.is_empty() && found.len() < 1000 {
        let mut below = Vec::new();
        for (pointer, value) in level {
            for (name, member) in value.as_object().into_iter().flatten().filter(|(name, _)| is_plain_name(name)) {
                let pointer = format!("{pointer}/{name}");
                match member {
                    Value::Object(_) => below.push((pointer, member)),
                    Value::Array(_) | Value::Null => {}
                    Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                        found.push(PointedValue { pointer, name, value: member });
                    }
                }
            }
        }
        level = below;
    }
    found
}

/// Names of members that hold a token, the likeliest first.
const TOKEN_NAMES: [&str; 9] = [
    "accesstoken",
    "token",
    "bearertoken",
    "authtoken",
    "sessiontoken",
    "jwt",
    "jwttoken",
    "authenticationtoken",
    "idtoken",
];

/// The most tokens that are looked for in other calls.
const MOST_TOKENS: usize = 64;

/// The place of the access token in an answer.
pub(super) fn token_place(document: &Value) -> Option<(String, &str)> {
    let values = pointed_values(document);
    TOKEN_NAMES.iter().find_map(|wanted| {
        let found = values.iter().find(|found| squashed(found.name) == *wanted && found.value.is_string())?;
        Some((found.pointer.clone(), found.value.as_str()?)).filter(|(_, token)| !token.is_empty())
    })
}

fn grant(request: &ObservedRequest) -> Option<&str> {
    ["grant_type", "grantType", "granttype"].iter().find_map(|name| request.field(name))
}

/// Returns whether a request is a user's grant, which an application's own token does not need.
fn is_users_grant(request: &ObservedRequest) -> bool {
    grant(request).is_some_and(|grant| ["authorization_code", "refresh_token", "implicit"].contains(&grant))
}

fn has_credentials(request: &ObservedRequest) -> bool {
    let in_body = match &request.body {
        ObservedBody::Form(pairs) => pairs.iter().any(|(name, _)| is_secret_name(name)),
        ObservedBody::Json(value) => value.as_object().is_some_and(|all| all.keys().any(|name| is_secret_name(name))),
        ObservedBody::Nothing | ObservedBody::Other => false,
    };
    in_body
        || request.basic.is_some()
        || request.headers.iter().chain(&request.query).any(|(name, _)| is_secret_name(name))
}

fn score(exchange: &ObservedExchange, tokens: &[&str]) -> i32 {
    let request = &exchange.request;
    let path = request.path.to_ascii_lowercase();
    let mut score = 0;
    let answer = exchange.answer.as_ref().filter(|answer| answer.is_success());
    if answer.and_then(|answer| answer.json.as_ref()).and_then(token_place).is_some() {
        score += 100;
    }
    match grant(request) {
        Some("client_credentials") => score += 60,
        Some(_) if is_users_grant(request) => score -= 120,
        Some(_) => score += 40,
        None => {}
    }
    if ["token", "oauth"].iter().any(|word| path.contains(word)) {
        score += 30;
    } else if ["login", "auth", "session", "connect"].iter().any(|word| path.contains(word)) {
        score += 15;
    }
    if ["revoke", "introspect", "refresh"].iter().any(|word| path.contains(word)) {
        score -= 80;
    }
    if request.header("authorization").is_some_and(|value| presents(value, tokens)) {
        score -= 60;
    }
    score + if has_credentials(request) { 20 } else { 0 }
}

/// Returns whether a value presents a token of the examples, or a placeholder for one.
pub(super) fn presents(value: &str, tokens: &[&str]) -> bool {
    if tokens.iter().any(|token| value.contains(token)) {
        return true;
    }
    let rest = value.split_once(' ').map_or(value, |(_, rest)| rest).trim();
    let plain = squashed(rest);
    is_placeholder(rest) && (plain.contains("token") || plain.contains("jwt"))
}

/// Sorts exchanges. The error says what is missing.
pub(super) fn sort_exchanges(exchanges: &[ObservedExchange]) -> Result<SortedExchanges<'_>, String> {
    let documents = exchanges.iter().filter_map(|exchange| exchange.answer.as_ref()?.json.as_ref());
    // A short token, such as a word of a schema, is no proof of anything.
    let mut tokens: Vec<&str> = documents
        .filter_map(|json| Some(token_place(json)?.1))
        .filter(|token| token.len() >= 8 && !is_placeholder(token))
        .collect();
    tokens.sort_unstable();
    tokens.dedup();
    tokens.truncate(MOST_TOKENS);
    let best = exchanges.iter().max_by_key(|exchange| (score(exchange, &tokens), exchange.request.weight()));
    let best = best.filter(|exchange| score(exchange, &tokens) >= 30).ok_or(
        "no token call was found: an example must have the request that brings a token, with the answer that has \
         it. A bank without tokens needs a short profile: docs/adding-a-provider.md, \"Without a token\"",
    )?;
    let is_same = |request: &ObservedRequest| {
        let same_origin =
            request.origin == best.request.origin || request.origin.is_none() || best.request.origin.is_none();
        let ends = |long: &str, short: &str| long.ends_with(short) && short.len() > 1;
        let same_path = ends(&request.path, &best.request.path) || ends(&best.request.path, &request.path);
        same_origin && same_path && request.method == best.request.method
    };
    let at_endpoint: Vec<&ObservedExchange> = exchanges.iter().filter(|exchange| is_same(&exchange.request)).collect();
    let (other_grants, token): (Vec<&ObservedExchange>, Vec<&ObservedExchange>) = at_endpoint
        .into_iter()
        .partition(|exchange| grant(&exchange.request).is_some() && grant(&exchange.request) != grant(&best.request));
    // The answer may lie below a sparser form of the same request.
    let request = token.iter().map(|exchange| &exchange.request).max_by_key(|request| request.weight());
    let request = request.unwrap_or(&best.request);
    let carries = |request: &ObservedRequest| {
        let values = request.headers.iter().chain(&request.query);
        let by_token = values.into_iter().any(|(_, value)| presents(value, &tokens));
        let bearer =
            request.header("authorization").is_some_and(|value| value.to_ascii_lowercase().starts_with("bearer "));
        let is_here = request.origin.is_none() || request.origin == best.request.origin;
        by_token || (bearer && is_here)
    };
    let api = exchanges.iter().filter(|exchange| !is_same(&exchange.request) && carries(&exchange.request)).collect();
    Ok(SortedExchanges { request, token, api, tokens, other_grants: other_grants.len() })
}

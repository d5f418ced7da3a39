//! What goes on a call of the API: the token, and the bank's further headers.

use super::learned_request::is_noise_header;
use super::learned_text::{LearnedPiece, LearnedText};
use super::observed::{ObservedExchange, ObservedRequest};
use super::plain_text::{is_placeholder, is_plain_name, squashed};
use super::sorted_exchanges::presents;
use super::value_meaning::{ValueMeanings, ValuePlace};

/// The section of the profile, for remarks.
pub(super) const CALL: &str = "request";

/// The calls of the profile.
#[derive(Clone, Debug, Default)]
pub(super) struct LearnedCall {
    /// Headers, the token's first.
    pub headers: Vec<(String, LearnedText)>,
    /// The parameter of the query with the token.
    pub query: Option<(String, LearnedText)>,
}

impl LearnedCall {
    /// Learns from the calls; without any, the token is a bearer token. `token_headers`: what the token call had.
    pub(super) fn learn(
        calls: &[&ObservedExchange],
        tokens: &[&str],
        token_headers: &[(String, LearnedText)],
        meanings: &mut ValueMeanings,
        omitted: &mut Vec<String>,
    ) -> Self {
        let mut learned = Self::default();
        // The call that tells most.
        let richest = calls.iter().map(|call| &call.request).max_by_key(|request| request.headers.len());
        let Some(request) = richest else {
            meanings
                .guess(CALL, "no example shows a call: the token is taken for a bearer token (RFC 6750)".to_owned());
            learned.headers.push(("authorization".to_owned(), bearer()));
            return learned;
        };
        learned.take_token(request, tokens, meanings);
        for (name, value) in &request.headers {
            learned.take_header(name, value, calls, token_headers, meanings, omitted);
        }
        if request.basic.is_some() {
            omitted.push("calls carry HTTP Basic beside the token: write it into [request] by hand".to_owned());
        }
        learned
    }

    fn take_token(&mut self, request: &ObservedRequest, tokens: &[&str], meanings: &mut ValueMeanings) {
        let is_credential = |name: &str| {
            let name = squashed(name);
            name.contains("token") || name == "authorization"
        };
        let fits = |value: &str| presents(value, tokens);
        let in_header = request.headers.iter().find(|(_, value)| fits(value));
        let in_header =
            in_header.or_else(|| request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization")));
        if let Some((name, value)) =
            in_header.filter(|(name, _)| is_plain_name(name) && !name.eq_ignore_ascii_case("cookie"))
        {
            self.headers.push((name.clone(), token_text(value, tokens)));
            return;
        }
        let in_query =
            request.query.iter().find(|(name, value)| fits(value) && is_plain_name(name) && is_credential(name));
        if let Some((name, value)) = in_query {
            self.query = Some((name.clone(), token_text(value, tokens)));
            return;
        }
        meanings.guess(
            CALL,
            "the examples do not show where a call carries the token: it is taken for a bearer token".to_owned(),
        );
        self.headers.push(("authorization".to_owned(), bearer()));
    }

    fn take_header(
        &mut self,
        name: &str,
        value: &str,
        calls: &[&ObservedExchange],
        token_headers: &[(String, LearnedText)],
        meanings: &mut ValueMeanings,
        omitted: &mut Vec<String>,
    ) {
        if is_noise_header(name, value) || self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return;
        }
        if !is_plain_name(name) || http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            omitted.push("a header of the calls was left out: its name is no plain word".to_owned());
            return;
        }
        let plain = squashed(name);
        if ["signature", "digest", "hmac", "jws", "dpop"].iter().any(|word| plain.contains(word)) {
            omitted.push(format!(
                "`{name}` is computed for each call: write [[request.sign]] (docs/adding-a-provider.md)"
            ));
            return;
        }
        let seen: Vec<&str> = calls.iter().filter_map(|call| call.request.header(name)).collect();
        let everywhere = seen.len() == calls.len();
        let differs = seen.iter().any(|other| *other != value && !is_placeholder(other));
        let text = meanings.of(name, value, ValuePlace::ApiCall, CALL);
        let of_token_call = token_headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let is_constant = text.0.iter().all(|piece| matches!(piece, LearnedPiece::Literal(_)));
        if (is_constant && (!everywhere || differs)) || (!everywhere && !of_token_call && !text.is_fresh()) {
            omitted.push(format!(
                "`{name}` is not the same on all calls: it is left to the application, or to the route's `headers`"
            ));
            return;
        }
        if !text.is_fresh() && !is_constant {
            meanings.guess(CALL, format!("every call carries `{name}`"));
        }
        self.headers.push((name.to_owned(), text));
    }
}

fn bearer() -> LearnedText {
    LearnedText(vec![LearnedPiece::Literal("Bearer ".to_owned()), LearnedPiece::Token])
}

/// A value with the token in it: a scheme in front of it stays.
fn token_text(value: &str, tokens: &[&str]) -> LearnedText {
    let before = tokens.iter().find_map(|token| value.split_once(token)).map(|(before, _)| before);
    let before = before.or_else(|| value.split_once(' ').map(|(scheme, _)| scheme)).unwrap_or_default().trim();
    let is_scheme =
        !before.is_empty() && before.len() <= 20 && before.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-');
    if is_scheme {
        return LearnedText(vec![LearnedPiece::Literal(format!("{before} ")), LearnedPiece::Token]);
    }
    LearnedText::of(LearnedPiece::Token)
}

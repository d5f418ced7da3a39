//! Findings about a profile that `check` cannot call mistakes: rules that fetch tokens for ever, replays that could be
//! taken for another payment, tokens that cannot be renewed in time, facts without a source, secrets that are shown.

use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

use crate::provider::condition::Matcher;
use crate::provider::profile::Profile;
use crate::provider::refusal::{RefusalRules, Verdict};
use crate::provider::setting::{Setting, SettingKind};
use crate::token::grant::CallPlace;

/// One finding about a profile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LintFinding {
    /// The place in the profile, such as `refusal.match 1`.
    pub place: String,
    /// One sentence on what is doubtful.
    pub about: String,
    /// The profile's own reason for it: a `note`. Absent: nobody has looked at it.
    pub reason: Option<String>,
}

/// Codes by which banks say that permission or credentials are missing, not that a token is dead.
const NOT_OF_TOKENS: [&str; 9] = [
    "insufficient_scope",
    "invalid_scope",
    "invalid_client",
    "unauthorized_client",
    "access_denied",
    "forbidden",
    "permission_denied",
    "invalid_credentials",
    "unauthorized",
];

/// Sentences that say the same.
const SENTENCES: [&str; 4] =
    ["insufficient scope", "invalid client id or secret", "access denied", "you do not have permission"];

impl Profile {
    /// Looks the profile through. Findings with a `reason` were considered by whoever wrote it.
    pub fn lint(&self) -> Vec<LintFinding> {
        let mut found = self.unsafe_refusals();
        found.extend(self.doubtful_identities());
        found.extend(self.endless_tokens());
        found.extend(self.unconfirmed_facts());
        found.extend(self.shown_secrets());
        found
    }

    /// Rules that also fit errors which a new token does not mend: each such answer costs a fetch and a replay.
    fn unsafe_refusals(&self) -> Vec<LintFinding> {
        let mut found = Vec::new();
        for (number, matcher) in (1..).zip(&self.refusal.matches) {
            let alone = RefusalRules { exclude: self.refusal.exclude.clone(), matches: vec![matcher.clone()] };
            if let Some(what) = first_misfit(&alone, matcher) {
                found.push(LintFinding {
                    place: format!("refusal.match {number}"),
                    about: format!("it also fits {what}: a token is fetched for every such call, and none helps"),
                    reason: reason(matcher),
                });
            }
        }
        found
    }

    /// Ids that a replay renews, although the bank may know a payment by them, and payments that only a time tells apart.
    fn doubtful_identities(&self) -> Vec<LintFinding> {
        let orders = [
            ("request", Some(&self.orders)),
            ("consent.request", self.consent.as_ref().map(|consent| &consent.orders)),
        ];
        let mut found = Vec::new();
        for (table, orders) in orders.into_iter().filter_map(|(table, orders)| Some((table, orders?))) {
            let mut tell = |about: String| found.push(LintFinding { place: table.to_owned(), about, reason: None });
            for place in orders.renewed_ids().filter(|place| may_name_payment(place)) {
                tell(format!(
                    "the replay has another `{place}`: if the bank knows a payment by it, it may be made twice; declare \
                     the id with `fresh = \"call\"`"
                ));
            }
            for place in orders.timed_identities() {
                tell(format!(
                    "two payments at the same moment have the same `{place}`, and the bank makes one of them: put an \
                     `{{id.NAME}}` with `fresh = \"call\"` into it"
                ));
            }
        }
        found.dedup();
        found
    }

    fn endless_tokens(&self) -> Option<LintFinding> {
        let says_life = !self.answer.expires_in.is_empty() || !self.answer.expires_at.is_empty();
        (!self.is_standing() && !says_life && self.answer.default_ttl.is_none()).then(|| LintFinding {
            place: "token.response".to_owned(),
            about: "no life is read and none is assumed: tokens that are no JWTs are renewed every 5 minutes; say \
                    `expires_in` or `default_ttl`"
                .to_owned(),
            reason: None,
        })
    }

    fn unconfirmed_facts(&self) -> Vec<LintFinding> {
        let fact = |line: String| {
            let (place, note) = line.split_once(": ").map_or((line.as_str(), ""), |(place, note)| (place, note));
            LintFinding {
                place: place.trim_end_matches(':').to_owned(),
                about: "no source confirms it".to_owned(),
                reason: considered(note),
            }
        };
        self.unconfirmed().into_iter().map(fact).collect()
    }

    fn shown_secrets(&self) -> Vec<LintFinding> {
        let in_secret: Vec<Arc<str>> = self
            .logins()
            .filter_map(|request| request.client_auth())
            .flat_map(|auth| auth.secret.settings().cloned().collect::<Vec<_>>())
            .collect();
        let is_shown = |setting: &&Setting| {
            setting.kind == SettingKind::Text
                && !setting.secret
                && (is_name_of_secret(&setting.name) || in_secret.contains(&setting.name))
        };
        let finding = |setting: &Setting| LintFinding {
            place: format!("settings.{}", setting.name),
            about: "its name or its use says that it is a secret: add `secret = true`".to_owned(),
            reason: None,
        };
        self.settings.iter().filter(is_shown).map(finding).collect()
    }
}

/// The profile's reason for a rule.
fn reason(matcher: &Matcher) -> Option<String> {
    considered(&matcher.note)
}

/// A note is a reason, unless it says itself that it is a guess.
fn considered(note: &str) -> Option<String> {
    (!note.is_empty() && !note.starts_with("guessed")).then(|| note.to_owned())
}

/// Names the first answer that is no refusal of a token, and that the rule takes for one.
fn first_misfit(rules: &RefusalRules, matcher: &Matcher) -> Option<String> {
    let pointers: Vec<Vec<&str>> = matcher.json_pointers();
    for status in matcher.statuses.iter().filter_map(|status| StatusCode::from_u16(*status).ok()) {
        let refuses = |headers: &HeaderMap, body: &[u8]| rules.judge(status, headers, Some(body)) == Verdict::Refused;
        let none = HeaderMap::new();
        if refuses(&none, b"") {
            return Some(format!("a {} that says nothing", status.as_u16()));
        }
        if refuses(&none, b"{\"other\":\"x\"}") {
            return Some(format!("a {} whose body has none of its fields", status.as_u16()));
        }
        let code = status.as_u16().to_string();
        for word in NOT_OF_TOKENS.into_iter().chain([code.as_str()]).chain(SENTENCES) {
            let mut body = Value::Object(serde_json::Map::new());
            for pointer in pointers.iter().filter_map(|any| any.first()) {
                put(&mut body, pointer, word);
            }
            let body = if pointers.is_empty() { word.to_owned() } else { body.to_string() };
            if refuses(&none, body.as_bytes()) {
                return Some(format!("`{word}` with {}", status.as_u16()));
            }
        }
        for error in ["insufficient_scope", "invalid_request"] {
            let mut headers = HeaderMap::new();
            let challenge = HeaderValue::try_from(format!("Bearer error=\"{error}\"")).ok()?;
            headers.insert(WWW_AUTHENTICATE, challenge);
            if refuses(&headers, b"") {
                return Some(format!("a challenge with `{error}`"));
            }
        }
    }
    None
}

/// Puts a text at a JSON pointer, and makes the objects on the way.
fn put(body: &mut Value, pointer: &str, text: &str) {
    let mut place = body;
    for name in pointer.split('/').skip(1) {
        if !place.is_object() {
            *place = Value::Object(serde_json::Map::new());
        }
        let Value::Object(members) = place else { return };
        place = members.entry(name.replace("~1", "/").replace("~0", "~")).or_insert(Value::Null);
    }
    *place = text.into();
}

/// Returns whether an id at this place may be that of a payment or an order.
fn may_name_payment(place: &CallPlace) -> bool {
    let name = place.to_string().to_ascii_lowercase();
    let says = [
        "payment",
        "transaction",
        "txn",
        "order",
        "reference",
        "instruction",
        "endtoend",
        "end-to-end",
        "external",
        "unique",
    ];
    place.names_payment() || says.iter().any(|word| name.contains(word))
}

/// Returns whether the name of a setting says that its value is a secret.
fn is_name_of_secret(name: &str) -> bool {
    let parts =
        ["secret", "password", "passwd", "passphrase", "private_key", "api_key", "apikey", "access_token", "api_token"];
    parts.iter().any(|part| name.contains(part))
        || name.split('_').any(|word| ["pin", "mpin", "pwd", "otp"].contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::{Diagnostics, SourceText};

    /// What is found without a reason, place by place.
    fn found(profile: &Profile) -> Vec<String> {
        let open = profile.lint().into_iter().filter(|finding| finding.reason.is_none());
        open.map(|finding| format!("{}: {}", finding.place, finding.about)).collect()
    }

    fn profile(more: &str, inject: &str) -> Arc<Profile> {
        let text = format!(
            "name = \"b\"\n[settings.secret]\nsecret = true\n[token.request]\npath = \"/t\"\nencoding = \"json\"\nbody = {{ s = \"{{secret}}\" }}\n\
             [token.response]\naccess_token = \"/t\"\n{more}\n[request]\ninject = [{{ header = \"authorization\", value = \"Bearer {{token}}\" }}, {inject}]\n"
        );
        let report = Diagnostics::new();
        let parsed = Profile::parse(&SourceText::new("b", text), &report);
        parsed.unwrap_or_else(|| panic!("{:?}", report.into_diagnostics()))
    }

    const LIFE: &str = "expires_in = \"/e\"";

    #[test]
    fn profiles_that_come_with_countersign_have_no_open_findings() {
        for name in Profile::builtin_names() {
            let profile = Profile::builtin(name).expect(name);
            assert_eq!(found(&profile), Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn rules_that_fit_missing_permission_are_found() {
        let rule = |rule: &str| found(&profile(&format!("{LIFE}\n[[refusal.match]]\nstatus = [401, 403]\n{rule}"), ""));
        let doubtful = [
            "bare = true",
            "json = [{ pointer = \"/code\", equals = 401 }]",
            "json = [{ pointer = \"/error\", equals = [\"invalid_token\", \"insufficient_scope\"] }]",
            "json = [{ pointer = \"/error\", matches = \"client\" }]",
            "body = [{ matches = \"(?i)denied\" }]",
            "json = [{ pointer = \"/error\", equals = \"x\", absent = true }]\nnote = \"guessed: it may be so\"",
            "challenge_error = \"insufficient_scope\"",
        ];
        for text in doubtful {
            assert!(
                rule(text).iter().any(|found| found.starts_with("refusal.match 1: it also fits")),
                "{text}: {:?}",
                rule(text)
            );
        }
        for text in [
            "json = [{ pointer = \"/error\", equals = \"invalid_token\" }]",
            "challenge_error = \"invalid_token\"",
            "bare = true\nnote = \"the bank's page says so\"",
        ] {
            assert_eq!(rule(text), Vec::<String>::new(), "{text}");
        }
        let excluded = format!(
            "{LIFE}\n[[refusal.exclude]]\nstatus = 401\njson = [{{ pointer = \"/error\", equals = \"invalid_client\" }}]\n\
             [[refusal.match]]\nstatus = 401\njson = [{{ pointer = \"/error\", equals = [\"invalid_client\", \"invalid_token\"] }}]"
        );
        assert_eq!(found(&profile(&excluded, "")), Vec::<String>::new(), "an exclusion comes first");
    }

    #[test]
    fn renewed_payments_endless_tokens_open_facts_and_shown_secrets_are_found() {
        let renewed = profile(
            LIFE,
            "{ header = \"x-transaction-id\", value = \"{uuid}\" }, { header = \"x-request-id\", value = \"{uuid}\" }",
        );
        assert!(found(&renewed)[0].contains("`x-transaction-id`"), "{:?}", found(&renewed));
        assert_eq!(found(&renewed).len(), 1);
        let times = format!("{LIFE}\n[times.call]\nformat = \"epoch\"\nfresh = \"call\"");
        let timed = found(&profile(&times, "{ header = \"idempotency-key\", value = \"{time.call}\" }"));
        assert_eq!(timed.len(), 1, "{timed:?}");
        assert!(timed[0].starts_with("request: two payments at the same moment"), "{timed:?}");
        assert!(found(&profile("", ""))[0].starts_with("token.response: no life"));
        assert_eq!(found(&profile("default_ttl = \"5m\"", "")).len(), 0);
        let open = |note: &str| {
            format!(
                "{LIFE}\n[[refusal.match]]\nstatus = 401\nchallenge_error = \"invalid_token\"\nconfirmed = false\n{note}"
            )
        };
        assert_eq!(found(&profile(&open(""), "")), ["refusal.match 1: no source confirms it"]);
        assert_eq!(found(&profile(&open("note = \"guessed: RFC 6750\""), "")).len(), 1);
        assert_eq!(found(&profile(&open("note = \"RFC 6750 section 3\""), "")).len(), 0);
        let shown = profile(&format!("{LIFE}\n[settings.user_password]\n[settings.user]"), "");
        assert_eq!(found(&shown).len(), 1);
        assert!(found(&shown)[0].starts_with("settings.user_password"));
    }
}

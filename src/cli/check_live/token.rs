//! One token call: what its outcome means, and what to do.

use serde_json::json;

use super::certificates;
use super::clock;
use super::connect_trial::plain;
use super::finding::{Finding, span};
use crate::control::{TokenCallReport, TokenTrialError};
use crate::provider::SigningKeyFacts;
use crate::token::failure::{Class, Failure, FailureCause};
use crate::upstream::AskError;

/// Facts, besides the outcome of the token call, that the findings depend on.
pub(super) struct TokenTrialContext<'a> {
    /// The settings that begin or end with white space.
    pub padded: &'a [String],
    /// True if the server asked for a client certificate.
    pub asked: bool,
    /// True if a client certificate is configured.
    pub own: bool,
    /// Keys of ours that sign the token call.
    pub keys: &'a [SigningKeyFacts],
    /// Time for which a response is awaited, in seconds.
    pub patience: f64,
}

/// Builds the findings of a token call: its outcome and, if there was a response, the provider's clock as the response
/// shows it.
pub(super) fn judge(
    outcome: &Result<TokenCallReport, TokenTrialError>,
    around: &TokenTrialContext<'_>,
) -> Vec<Finding> {
    match outcome {
        Ok(told) => {
            let found = match &told.outcome {
                Ok((life, fingerprint)) => Finding::fine(
                    "token",
                    format!("HTTP {}: a token {fingerprint} that lives {}", told.status, span(life.as_secs())),
                )
                .with("expires_in", life.as_secs())
                .with("fingerprint", fingerprint.to_string()),
                Err(failure) => refused(failure, told.status, around),
            };
            vec![
                found.with("status", told.status).with("calls", 1),
                clock::judge_clock(told.date, told.sent, told.received),
            ]
        }
        Err(TokenTrialError::Timeout) => vec![
            Finding::failed(
                "token",
                format!("no answer within {} s", around.patience),
                "the connection stands, so the provider is slow: set a longer `timeouts.token`, or ask the provider",
            )
            .with("calls", 1),
        ],
        Err(TokenTrialError::Malformed(failure)) => {
            vec![Finding::failed(
                "token",
                plain(&failure.inside),
                "correct `token_url` and the settings that go into it",
            )]
        }
        Err(TokenTrialError::Ask(error)) => vec![unanswered("token", error, around.asked, around.own).with("calls", 1)],
    }
}

fn refused(failure: &Failure, status: u16, around: &TokenTrialContext<'_>) -> Finding {
    let Failure { class, inside, .. } = failure;
    let detail = format!("{}: {}", class.as_str(), plain(inside));
    let page = inside.contains("text/html");
    let help = match (class, status) {
        (Class::Closed, _) => {
            let help = "run it again in its working hours: whether the credentials hold is not known yet";
            return Finding::warned("token", detail, help).with("class", class.as_str());
        }
        (Class::RateLimited, _) => {
            let wait = failure.retry_after.map_or(String::new(), |after| format!(" for {}", span(after.as_secs())));
            format!("leave the provider alone{wait}, and run it again")
        }
        (Class::Fatal | Class::Consent, _) if !around.padded.is_empty() => format!(
            "the value of {} begins or ends with white space: take that away first",
            around.padded.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ")
        ),
        (Class::Consent | Class::Fatal | Class::Transient, _) if failure.cause.is_some() => {
            let cure = failure.cause.map_or("", FailureCause::cure);
            match failure.cause {
                Some(FailureCause::Key | FailureCause::Signature) => format!("{cure}{}", shown_keys(around.keys)),
                Some(FailureCause::Clock | FailureCause::Credentials) | None => cure.to_owned(),
            }
        }
        (Class::Consent, _) => "a user must consent first".to_owned(),
        (Class::Transient, 300..400) => {
            "it points elsewhere, and that is not followed: write the final URL as `base_url` or `token_url`".to_owned()
        }
        (Class::Fatal | Class::Transient, 404 | 405 | 410) => {
            "there is no token endpoint at that path: correct `base_url` or `token_url`".to_owned()
        }
        (Class::Fatal | Class::Transient, _) if page => {
            "a page for people answers, not a token endpoint: correct `base_url` or `token_url`; a portal or a proxy may \
             stand in the provider's place"
                .to_owned()
        }
        (Class::Fatal, _) if !around.keys.is_empty() => format!(
            "either the bank does not know the key, or it computes another text than we sign (`countersign explain` shows \
             ours), or the other settings are not those that it gave{}",
            shown_keys(around.keys)
        ),
        (Class::Fatal, _) => "compare the settings of this provider with what it gave to the application, letter by \
                              letter; a sandbox's do not hold in production. Correct them before the next run: each \
                              makes one call"
            .to_owned(),
        (Class::Transient, 500..) => "the provider has a fault of its own: run it again later, or ask it".to_owned(),
        (Class::Transient, _) => {
            "this is no answer of a token endpoint as the profile knows it: see `profile`, `base_url` and `token_url`"
                .to_owned()
        }
    };
    let found = Finding::failed("token", detail, help).with("class", class.as_str());
    let found = match failure.cause {
        Some(cause) => found.with("cause", cause.as_str()),
        None => found,
    };
    let facts = |key: &SigningKeyFacts| json!({ "setting": &*key.setting, "id": key.id, "thumbprint": key.thumbprint });
    if around.keys.is_empty() { found } else { found.with("keys", around.keys.iter().map(facts).collect::<Vec<_>>()) }
}

/// Names the keys so that they can be compared with the bank's portal.
fn shown_keys(keys: &[SigningKeyFacts]) -> String {
    let shown = |key: &SigningKeyFacts| {
        let id = key.id.as_ref().map_or_else(|| "no key id".to_owned(), |id| format!("key id `{id}`"));
        let thumbprint = key.thumbprint.as_ref();
        let thumbprint =
            thumbprint.map_or_else(|| "is a secret".to_owned(), |text| format!("thumbprint `{text}` (RFC 7638)"));
        format!("`{}` has {id}, {thumbprint}", key.setting)
    };
    keys.iter().map(|key| format!("; {}", shown(key))).collect()
}

/// Builds the finding for a call that got no usable response on an established connection.
pub(super) fn unanswered(step: &'static str, error: &AskError, asked: bool, own: bool) -> Finding {
    let inner: Option<&(dyn std::error::Error + 'static)> = match error {
        AskError::Broken(error) => Some(error),
        AskError::Dial(crate::upstream::DialError::Http(error)) => Some(error),
        AskError::Dial(_)
        | AskError::Cut(_)
        | AskError::HungUp
        | AskError::Timeout(_)
        | AskError::TooLong(_)
        | AskError::Unclosed(_) => None,
    };
    if let AskError::Broken(error) = error
        && error.is_renegotiation()
    {
        return Finding::failed(
            step,
            "it asked for a second TLS handshake (renegotiation) after the request, which is not supported",
            "ask the provider to want the client certificate in the first handshake, for the whole site instead of for \
             some folders (IIS: \"Negotiate Client Certificate\" on the binding), or to offer TLS 1.3",
        );
    }
    if let Some(alert) = inner.and_then(certificates::alert_in) {
        return certificates::alerted(step, alert, own && asked);
    }
    match (error, asked, own) {
        (AskError::Cut(status), _, _) => Finding::failed(
            step,
            format!("HTTP {status}, and the answer broke off"),
            "run it again; if it stays so, ask the provider, or who runs a proxy on the way",
        ),
        (AskError::Unclosed(_), _, _) => Finding::failed(
            step,
            format!("{error}, and what was read is not a whole JSON document"),
            "run it again; if it stays so, ask the provider, or who runs a proxy on the way",
        ),
        (AskError::TooLong(status), _, _) => Finding::failed(
            step,
            format!("HTTP {status}, and an answer longer than any of a token endpoint"),
            "correct `base_url` or `token_url`: a page or a file answers there",
        ),
        (AskError::Broken(_) | AskError::Dial(_) | AskError::HungUp | AskError::Timeout(_), true, false) => {
            Finding::failed(
                step,
                "it hung up without an answer, after it had asked for a client certificate",
                certificates::NONE,
            )
        }
        (AskError::Broken(_) | AskError::Dial(_) | AskError::HungUp | AskError::Timeout(_), true, true) => {
            Finding::failed(
                step,
                "it hung up without an answer, after it had seen our client certificate",
                certificates::OURS,
            )
        }
        (AskError::Broken(_) | AskError::Dial(_) | AskError::HungUp | AskError::Timeout(_), false, _) => {
            Finding::failed(
                step,
                format!("no answer: {}", plain(&error.to_string())),
                "run it again; if it stays so, see whether a firewall or proxy on the way cuts connections",
            )
        }
    }
}

//! The cause of a failed request in sentences, and what an operator may run to see more. Pure: texts from a sample and
//! from what is known of its provider.

use super::view::ProviderView;
use crate::observe::record::Replay;
use crate::observe::stats::{Blame, RequestSample};

/// The answer for a request that is not kept.
pub(super) const UNKNOWN_REQUEST: &str = "this request is not among those that are kept: it is too long ago, one of very \
                                          many, or another instance's. The access log has every request under its id";

/// Errors that the provider's token endpoint, or our credentials for it, cause.
const OF_TOKENS: [&str; 4] =
    ["consent-required", "provider-closed", "provider-credentials-rejected", "token-unavailable"];

/// Returns what happened and why, the most telling sentence first.
pub(super) fn request_cause(sample: &RequestSample, provider: Option<&ProviderView>) -> Vec<String> {
    let record = &sample.record;
    let mut told = Vec::new();
    if let Some(reason) = record.reason {
        told.push(sentence(reason));
    }
    let failed = sample.blame != Blame::Nobody;
    if let Some(cause) = record.cause.as_deref().filter(|_| failed) {
        told.push(sentence(cause));
    }
    let of_tokens = record.error.is_some_and(|error| OF_TOKENS.contains(&error));
    if let Some(failure) = provider.and_then(|provider| provider.last_failure.as_ref()).filter(|_| of_tokens) {
        let known = record.cause.as_deref() == Some(&*failure.reason);
        match failure.cure {
            Some(cure) if known => told.push(sentence(cure)),
            Some(_) | None if !known => {
                told.push(format!("The last failure of its token endpoint: {}.", failure.told()))
            }
            Some(_) | None => {}
        }
    }
    if let Some(text) = record.told {
        told.push(format!("{}. {}", text.title, text.detail));
    }
    match (record.error, record.status, sample.blame) {
        (Some(error), ..) if record.told.is_none() => {
            told.push(format!("The client did not read the answer, which was given up (`{error}`)."));
        }
        (Some(_), ..) | (None, _, Blame::Nobody | Blame::Ours) => {}
        (None, None, _) => told.push("The client hung up before the answer was there.".to_owned()),
        (None, Some(401), _) => told.push(
            "The provider answered 401 itself, and countersign passed it on: it refused the token in a way that its \
             profile does not know, or the call needs more than a token."
                .to_owned(),
        ),
        (None, Some(status), Blame::Provider) => {
            told.push(format!("The provider answered {status} itself, and countersign passed it on."));
        }
        (None, Some(status), Blame::Client) => told.push(format!(
            "The provider answered {status} itself: it does not take what the client sent. countersign passed it on."
        )),
    }
    if let Some(tolerated) = record.tolerated {
        told.push(format!(
            "The route's rules would refuse it with `{tolerated}`. They are not enforced, so it passed."
        ));
    }
    match record.replay {
        Replay::None => {}
        Replay::Challenged => {
            told.push("The provider wanted a nonce in the proof, so it was sent again with one.".to_owned());
        }
        Replay::Impossible => told.push("The provider refused the token; it could not be sent again.".to_owned()),
        Replay::Replayed => {
            told.push("The provider refused the token, so it was sent again with a new one.".to_owned());
        }
    }
    if told.is_empty() {
        told.push("It went well.".to_owned());
    }
    told
}

/// Returns the page of the documentation about an error.
pub(super) fn runbook(sample: &RequestSample) -> Option<String> {
    // The one name that is not in the table of errors has no page.
    let error = sample.record.error.filter(|_| sample.record.told.is_some())?;
    Some(format!("docs/runbooks/{error}.md"))
}

/// Returns the command that explains such a request. `None` for what it does not know: tunnels, and calls without a
/// client.
pub(super) fn explain(sample: &RequestSample) -> Option<String> {
    let record = &sample.record;
    let client = record.client.as_deref().filter(|_| record.method != http::Method::CONNECT)?;
    let method = if record.method == http::Method::GET { String::new() } else { format!(" -m {}", record.method) };
    let (listener, path) = (quoted(&record.listener), quoted(&record.path));
    Some(format!("countersign explain --client {} --listener {listener}{method} {path}", quoted(client)))
}

/// Quotes a word for a POSIX shell, where that is needed.
pub(super) fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:@%+,=".contains(&byte);
    if !word.is_empty() && !word.starts_with('-') && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// A text with a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    let stop = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{stop}", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::record::{AccessRecord, ErrorText};
    use crate::observe::stats::sample_record;

    fn told(record: AccessRecord, blame: Blame) -> Vec<String> {
        request_cause(&RequestSample::of(&record, blame), None)
    }

    #[test]
    fn the_reason_comes_first_and_the_document_last() {
        let text = ErrorText { title: "Too many requests", detail: "Try again." };
        let record = AccessRecord {
            status: Some(429),
            error: Some("rate-limited"),
            told: Some(text),
            reason: Some("the route's `rate_limit` is reached"),
            ..sample_record("/x")
        };
        let both = ["The route's `rate_limit` is reached.", "Too many requests. Try again."];
        assert_eq!(told(record.clone(), Blame::Client), both);
        let sample = RequestSample::of(&record, Blame::Client);
        assert_eq!(runbook(&sample).as_deref(), Some("docs/runbooks/rate-limited.md"));
        let cause = Some("tls: invalid peer certificate: Expired".into());
        let record = AccessRecord { cause, reason: None, ..record };
        assert_eq!(told(record, Blame::Ours)[0], "Tls: invalid peer certificate: Expired.");
    }

    #[test]
    fn an_answer_of_the_providers_is_told_as_such() {
        let told = |status, blame| told(AccessRecord { status, ..sample_record("/x") }, blame).join(" ");
        assert_eq!(told(Some(200), Blame::Nobody), "It went well.");
        assert!(told(Some(503), Blame::Provider).starts_with("The provider answered 503 itself"));
        assert!(told(Some(401), Blame::Provider).contains("refused the token"));
        assert!(told(Some(422), Blame::Client).contains("does not take what the client sent"));
        assert!(told(None, Blame::Client).starts_with("The client hung up"));
    }

    #[test]
    fn commands_can_be_pasted_whatever_the_path_is() {
        let explained = |path: &str| {
            let record = AccessRecord { client: Some("erp".into()), ..sample_record(path) };
            explain(&RequestSample::of(&record, Blame::Nobody))
        };
        let plain = "countersign explain --client erp --listener gateway /scb/v1";
        assert_eq!(explained("/scb/v1").as_deref(), Some(plain));
        let odd = explained("/$(reboot)'; ls").expect("a command");
        assert!(odd.ends_with(r"'/$(reboot)'\''; ls'"), "{odd}");
        assert_eq!((quoted(""), quoted("-x")), ("''".to_owned(), "'-x'".to_owned()));
    }
}

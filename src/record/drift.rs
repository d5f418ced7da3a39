//! What has changed between two recordings.

use super::answer_shape::{AnswerShape, joined, shapes, shown};
use super::recorded_call::{CallPurpose, RecordedCall};

/// Compares the calls of two recordings, or of a recording and a profile's conversations. One line for each difference;
/// calls that only one of them has are no difference, and are counted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DriftReport {
    /// Differences, each with its call.
    pub lines: Vec<String>,
    /// Calls that both have.
    pub compared: usize,
    /// Calls that only one has.
    pub alone: Vec<String>,
}

/// Compares two sets of calls.
pub fn drift(old: &[RecordedCall], new: &[RecordedCall]) -> DriftReport {
    // Conversations of a profile do not say which request an answer belongs to.
    let by_request = old.iter().chain(new).all(|call| call.asked.is_some());
    let is_step = |call: &&RecordedCall| by_request || !matches!(call.purpose, CallPurpose::Step(_));
    let (old, new) = (shapes(old.iter().filter(is_step), by_request), shapes(new.iter().filter(is_step), by_request));
    let mut report = DriftReport::default();
    for (call, answers) in &new {
        let Some(before) = old.get(call) else {
            report.alone.push(format!("{call}: only in the new one"));
            continue;
        };
        report.compared += 1;
        let mut say = |line: String| report.lines.push(format!("{call}: {line}"));
        for status in answers.keys().filter(|status| !before.contains_key(status)) {
            say(format!("status {status} is new"));
        }
        for status in before.keys().filter(|status| !answers.contains_key(status)) {
            say(format!("status {status} is gone"));
        }
        for (status, shape) in answers {
            let Some(known) = before.get(status) else { continue };
            for line in differences(known, shape) {
                say(format!("{status}: {line}"));
            }
        }
    }
    report
        .alone
        .extend(old.keys().filter(|call| !new.contains_key(*call)).map(|call| format!("{call}: only in the old one")));
    report
}

fn differences(old: &AnswerShape, new: &AnswerShape) -> Vec<String> {
    let mut lines = old.news(new);
    lines.extend(old.fields.difference(&new.fields).map(|name| format!("the header field `{name}` is gone")));
    for (name, types) in &old.members {
        let above = name.rsplit_once('/').map(|(above, _)| above);
        let is_told = above.is_some_and(|above| old.members.contains_key(above) && !new.members.contains_key(above));
        if !new.members.contains_key(name) && !is_told {
            lines.push(format!("`{}` ({}) is gone", shown(name), joined(types)));
        }
    }
    lines.extend(old.codes.difference(&new.codes).map(|code| format!("the code `{code}` is gone")));
    if !old.lives.is_empty() && !new.lives.is_empty() && old.lives.is_disjoint(&new.lives) {
        let all = |lives: &std::collections::BTreeSet<String>| lives.iter().cloned().collect::<Vec<_>>().join(", ");
        lines.push(format!("tokens lived {} and live {}", all(&old.lives), all(&new.lives)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordedConversation;

    fn calls(text: &str) -> Vec<RecordedCall> {
        RecordedConversation::parse(text).expect("a conversation").calls
    }

    const OLD: &str = r#"
[[answer]]
asked = { method = "POST", path = "/token", pattern = "/token" }
status = 200
json = { access_token = "x", expires_in = 900 }
grant = { token = "x", life = "900s" }
[[resource]]
asked = { method = "GET", path = "/a/1", pattern = "/a/{}" }
status = 200
headers = { x-id = "1" }
json = { id = 1, list = [{ a = "x" }], owner = { name = "n" } }
verdict = "accepted"
[[resource]]
asked = { method = "GET", path = "/a/1", pattern = "/a/{}" }
status = 404
json = { code = "E1" }
verdict = "accepted"
"#;

    #[test]
    fn the_same_shape_with_other_values_is_no_drift() {
        let other = OLD.replace("id = 1", "id = 77").replace("\"/a/1\"", "\"/a/2\"").replace("\"n\"", "\"m\"");
        let report = drift(&calls(OLD), &calls(&other));
        assert_eq!((report.lines, report.compared, report.alone), (vec![], 2, vec![]));
    }

    #[test]
    fn every_kind_of_change_is_named() {
        let new = OLD
            .replace("life = \"900s\"", "life = \"60s\"")
            .replace("x-id", "x-other")
            .replace("id = 1,", "id = \"1\", more = { a = 1 },")
            .replace(", owner = { name = \"n\" }", "")
            .replace("E1", "E2")
            + "[[resource]]\nasked = { method = \"PUT\", path = \"/b\", pattern = \"/b\" }\nstatus = 200\nverdict = \"accepted\"\n\
               [[resource]]\nasked = { method = \"GET\", path = \"/a/1\", pattern = \"/a/{}\" }\nstatus = 500\nverdict = \"accepted\"\n";
        let report = drift(&calls(OLD), &calls(&new));
        assert_eq!(
            report.lines,
            [
                "GET /a/{}: status 500 is new",
                "GET /a/{}: 200: the header field `x-other` is new",
                "GET /a/{}: 200: `/id` was number and is string",
                "GET /a/{}: 200: `/more` (object) is new",
                "GET /a/{}: 200: the header field `x-id` is gone",
                "GET /a/{}: 200: `/owner` (object) is gone",
                "GET /a/{}: 404: the code `E2` is new",
                "GET /a/{}: 404: the code `E1` is gone",
                "POST /token: 200: tokens lived 900s and live 60s",
            ]
        );
        assert_eq!(report.alone, ["PUT /b: only in the new one"]);
    }

    #[test]
    fn a_profile_has_no_requests_so_answers_are_compared_by_status() {
        let profile =
            "[[answer]]\nstatus = 200\njson = { access_token = \"y\" }\ngrant = { token = \"y\", life = \"900s\" }\n";
        let report = drift(&calls(profile), &calls(OLD));
        assert_eq!(report.lines, ["the token call: 200: `/expires_in` (number) is new"]);
        assert_eq!(report.alone, ["a call: only in the new one"]);
    }
}

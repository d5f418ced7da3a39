//! Rules that decide which responses prove that the provider refused the token before it did anything else.
//!
//! Exclusions come first: a wrong key or a missing scope yields the same status, and a new token would not help. A
//! response that neither list knows proves nothing.

use http::{HeaderMap, StatusCode};

use crate::provider::condition::{Fit, JudgedBody, Matcher, Statuses, may_be_empty, may_hold_json};
use crate::syntax::{Diagnostics, Fields, Kind, Node};

/// The meaning of a provider's response for the token that was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// A response that proves nothing against the token.
    Accepted,
    /// It proves that the call was refused before anything was processed, and says what the same call lacks: a proof of
    /// possession with the nonce that it gives, or a signature over its challenge.
    Challenged,
    /// It proves that the token was refused before anything was processed.
    Refused,
    /// A 401 that the profile does not know.
    Unknown,
}

impl Verdict {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Challenged => "challenged",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// The `[refusal]` of a profile.
#[derive(Clone, Debug, Default)]
pub(super) struct RefusalRules {
    pub exclude: Vec<Matcher>,
    pub matches: Vec<Matcher>,
}

impl RefusalRules {
    /// Reads the table; absent, no answer proves anything.
    pub(super) fn read(node: Option<&Node>, report: &Diagnostics) -> Self {
        let Some(node) = node else { return Self::default() };
        let fields = Fields::new(node, "[refusal]", report);
        let refusal = Self {
            exclude: matchers(fields.take("exclude"), "[[refusal.exclude]]", Statuses::ClientErrors, report),
            matches: matchers(fields.take("match"), "[[refusal.match]]", Statuses::ClientErrors, report),
        };
        fields.finish();
        refusal
    }

    /// Returns whether any matcher inspects bodies.
    pub(super) fn judges_bodies(&self) -> bool {
        self.all().any(|matcher| matcher.looks_inside() || matcher.wants_emptiness())
    }

    /// Returns whether the body of a response with this status and these headers could change the verdict.
    pub(super) fn wants_body(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        self.all().filter(|matcher| matcher.concerns(status)).any(|matcher| {
            (matcher.looks_inside() && may_hold_json(headers)) || (matcher.wants_emptiness() && may_be_empty(headers))
        })
    }

    /// Judges a response; every status that no rule names is [`Verdict::Accepted`], but for 401.
    pub(super) fn judge(&self, status: StatusCode, headers: &HeaderMap, body: Option<&[u8]>) -> Verdict {
        if status != StatusCode::UNAUTHORIZED && !self.all().any(|matcher| matcher.concerns(status)) {
            return Verdict::Accepted;
        }
        let body = JudgedBody::read(headers, body, self.all().any(Matcher::wants_text));
        let excluded = self.exclude.iter().map(|matcher| matcher.fit(status, headers, &body));
        // An exclusion that could not be evaluated leaves the response unproven, even if a rule of `matches` fits.
        let mut unsure = false;
        for fit in excluded {
            match fit {
                Fit::No => {}
                Fit::Unsure => unsure = true,
                Fit::Yes => return Verdict::Accepted,
            }
        }
        if !unsure && self.matches.iter().any(|matcher| matcher.fit(status, headers, &body) == Fit::Yes) {
            Verdict::Refused
        } else if status == StatusCode::UNAUTHORIZED {
            Verdict::Unknown
        } else {
            Verdict::Accepted
        }
    }

    fn all(&self) -> impl Iterator<Item = &Matcher> {
        self.exclude.iter().chain(&self.matches)
    }
}

fn matchers(node: Option<&Node>, what: &str, statuses: Statuses, report: &Diagnostics) -> Vec<Matcher> {
    tables(node, what, report)
        .map(|node| {
            let fields = Fields::new(node, what, report);
            let matcher = Matcher::read(&fields, statuses);
            fields.finish();
            matcher
        })
        .collect()
}

/// The tables of an array of tables; reports when it is something else.
pub(super) fn tables<'a>(node: Option<&'a Node>, what: &str, report: &Diagnostics) -> impl Iterator<Item = &'a Node> {
    let items: &[Node] = match node.map(|node| (node, &node.kind)) {
        None => &[],
        Some((_, Kind::Array(items))) => items,
        Some((node, Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_) | Kind::Table(_))) => {
            node.error(
                report,
                format!("expected a list of tables, found {}", node.kind_name()),
                "",
                Some(format!("write `{what}`")),
            );
            &[]
        }
    };
    items.iter()
}

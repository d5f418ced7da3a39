//! One-time challenges: an answer that asks for the same call once more, with a value that it gives and a signature over
//! that: `[challenge]` of a profile.
//!
//! ```text
//! [challenge]
//! status    = 403
//! header    = "x-2fa-approval"
//! confirmed = true
//!
//! [[request.sign]]
//! key       = "signing_key"
//! algorithm = "RS256"
//! text      = "{header.x-2fa-approval}"
//! header    = "x-signature"
//! ```

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::provider::values::{FieldName, OneOrManyValues, StatusNumber};
use crate::syntax::{Diagnostics, Fields, Node};

/// `[challenge]` of a profile.
#[derive(Clone, Debug)]
pub(super) struct ChallengeRule {
    statuses: Vec<u16>,
    /// The field that brings the challenge, and takes it back.
    header: HeaderName,
}

impl ChallengeRule {
    /// Reads the table. Every mistake is reported.
    pub(super) fn read(node: &Node, report: &Diagnostics) -> Option<Self> {
        let fields = Fields::new(node, "[challenge]", report);
        let statuses = fields.req::<OneOrManyValues<StatusNumber>>("status", "403");
        let header = fields.req::<FieldName>("header", "\"x-2fa-approval\"");
        if !fields.or("confirmed", false) {
            let help =
                "say `confirmed = true` where the bank's document says that nothing was processed then".to_owned();
            node.error(report, "a call that may have been carried out must not be made again", "", Some(help));
        }
        if let (Some(statuses), Some(node)) = (&statuses, fields.take("status"))
            && !statuses.0.iter().all(|status| (400..500).contains(&status.0))
        {
            node.error(report, "only a 4xx asks for the same call once more", "", None);
        }
        fields.finish();
        Some(Self { statuses: statuses?.0.into_iter().map(|status| status.0).collect(), header: header?.0 })
    }

    /// Returns the field that brings the challenge.
    pub(super) const fn header(&self) -> &HeaderName {
        &self.header
    }

    /// Returns the challenge of an answer, if it brings exactly one.
    pub(super) fn challenge<'a>(&self, status: StatusCode, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let mut values = headers.get_all(&self.header).iter();
        let (Some(one), None) = (values.next(), values.next()) else { return None };
        let is_usable = self.statuses.contains(&status.as_u16()) && one.to_str().is_ok_and(|text| !text.is_empty());
        is_usable.then_some(one)
    }
}

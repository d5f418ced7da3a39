//! Where the facts of a profile come from.

use crate::provider::values::{OneOrManyValues, choice};
use crate::syntax::{Diagnostics, Fields, Node};

/// What a profile says of its own origin: `version`, `basis` and `sources`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Provenance {
    /// The edition of the profile, such as `2026.11.30`; empty: not said.
    pub version: String,
    /// What the facts rest on; `None`: not said.
    pub basis: Option<Basis>,
    /// The documents, one line each.
    pub sources: Vec<String>,
}

/// What the facts of a profile rest on, the strongest first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Basis {
    /// Calls that the bank answered.
    Live,
    /// The bank's own public documents.
    Documents,
    /// A standard that the bank says it follows.
    Standard,
    /// What others write about the bank: their clients, their descriptions.
    ThirdParty,
}

impl Provenance {
    pub(super) fn read(fields: &Fields<'_>, report: &Diagnostics) -> Self {
        Self {
            version: fields.or("version", String::new()),
            basis: fields.take("basis").and_then(|node| Basis::read(node, report)),
            sources: fields.or("sources", OneOrManyValues::<String>(Vec::new())).0,
        }
    }
}

impl Basis {
    const ALL: [Basis; 4] = [Basis::Live, Basis::Documents, Basis::Standard, Basis::ThirdParty];

    fn read(node: &Node, report: &Diagnostics) -> Option<Self> {
        choice(node, report, &Self::ALL.map(|one| (one.as_str(), one)))
    }

    /// The word for it in profiles.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Documents => "documents",
            Self::Standard => "standard",
            Self::ThirdParty => "third-party",
        }
    }
}

//! The effect of a new token on the token before it.

use std::time::Duration;

use crate::provider::values::choice;
use crate::syntax::{Diagnostics, Node};

/// `[token] coexistence` of a profile.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Coexistence {
    /// It lives out its life: each fetch brings a token of its own.
    #[default]
    Many,
    /// It lives for a little longer.
    Overlap,
    /// It becomes invalid at once.
    Single,
}

impl Coexistence {
    pub(super) fn read(node: &Node, report: &Diagnostics) -> Option<Self> {
        choice(node, report, &[Self::Many, Self::Overlap, Self::Single].map(|one| (one.as_str(), one)))
    }

    /// The word for it in profiles.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Many => "many",
            Self::Overlap => "overlap",
            Self::Single => "single",
        }
    }

    /// Returns whether fetching a token invalidates the tokens that others hold.
    pub const fn is_contested(self) -> bool {
        match self {
            Self::Many => false,
            Self::Overlap | Self::Single => true,
        }
    }

    /// Returns the time before expiry at which to renew, if `asked` was configured. A token that becomes invalid with
    /// the issue of its successor is used until the remaining time is needed for the token request itself: calls in
    /// progress with it have to be replayed.
    pub fn margin(self, asked: Duration, token_timeout: Duration) -> Duration {
        match self {
            Self::Many | Self::Overlap => asked,
            Self::Single => asked.min(token_timeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Profile;
    use crate::syntax::{Diagnostic, SourceText};

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_profile_says_it_in_one_of_three_words() {
        let read = |line: &str| {
            let report = Diagnostics::new();
            let text = format!("name = \"mine\"\nextends = \"oauth2\"\n[token]\n{line}\n");
            let profile = Profile::parse(&SourceText::new("mine.toml", text), &report);
            let told: Vec<String> = report.into_diagnostics().iter().map(Diagnostic::one_line).collect();
            profile.map(|profile| profile.coexistence()).ok_or(told.join("\n"))
        };
        assert_eq!(read(""), Ok(Coexistence::Many));
        for one in [Coexistence::Many, Coexistence::Overlap, Coexistence::Single] {
            assert_eq!(read(&format!("coexistence = \"{}\"", one.as_str())), Ok(one));
        }
        let told = read("coexistence = \"singel\"").expect_err("no such word");
        assert!(told.contains("`singel` is not known here"), "{told}");
        assert!(read("coexistence = 1").is_err());
    }

    #[test]
    fn a_token_that_dies_with_its_successor_is_renewed_late() {
        let margins = [Coexistence::Many, Coexistence::Overlap, Coexistence::Single]
            .map(|one| one.margin(seconds(60), seconds(10)));
        assert_eq!(margins, [seconds(60), seconds(60), seconds(10)]);
        assert_eq!(Coexistence::Single.margin(seconds(5), seconds(10)), seconds(5));
    }
}

//! A page of the tokens: what an operator asks the keeper for in place of the whole table.

use super::{LedgerLine, TokenSubject};
use crate::base::vars::Vars;
use crate::token::consent::UserKey;
use crate::token::key::TokenKey;
use crate::token::state::PhaseKind;

/// The page that is wanted. The order is that in which an operator looks at tokens: failing ones first, then those that
/// end soonest, then keys without a token.
#[derive(Clone, Debug)]
pub struct TokenPageQuery {
    /// Only those that fit; absent: all.
    pub search: Option<TokenSearch>,
    /// Number of the page, from 1. One beyond the last stands for the last.
    pub number: usize,
    /// Rows of a page; at least 1.
    pub size: usize,
}

/// Some of the tokens. Only its rows were copied, however many tokens there are.
#[derive(Clone, Debug, Default)]
pub struct TokenPage {
    /// The rows, with the user and the values that each is for.
    pub rows: Vec<(LedgerLine, TokenSubject)>,
    /// Number of this page, from 1.
    pub number: usize,
    /// Number of pages, at least 1.
    pub pages: usize,
    /// Number of tokens that fit.
    pub found: usize,
    /// Number of all tokens.
    pub all: usize,
}

/// A search by provider, state, key, user or the value of a variable.
#[derive(Clone, Debug)]
pub struct TokenSearch {
    /// In lower case, not empty.
    text: String,
    phases: Vec<PhaseKind>,
}

impl TokenSearch {
    /// Reads what a visitor has written; absent if it is blank. `word` names a state to people.
    pub fn parse(text: &str, word: impl Fn(PhaseKind) -> &'static str) -> Option<Self> {
        let text = text.trim().to_lowercase();
        let phases = PhaseKind::ALL.into_iter().filter(|phase| contains(word(*phase), &text)).collect();
        (!text.is_empty()).then_some(Self { text, phases })
    }

    /// Returns whether a token fits. Copies nothing.
    pub(super) fn fits(&self, key: &TokenKey, token: &SearchedToken<'_>) -> bool {
        let has = |text: &str| contains(text, &self.text);
        has(token.provider)
            || self.phases.contains(&token.state)
            || key.begins_with(&self.text)
            || token.user.is_some_and(|user| has(user.user.as_str()) || has(user.owner.name()))
            || token.vars.is_some_and(|vars| vars.iter().any(|(_, value)| has(value)))
    }
}

/// The parts of a token that a search looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct SearchedToken<'a> {
    pub(super) provider: &'a str,
    pub(super) state: PhaseKind,
    pub(super) user: Option<&'a UserKey>,
    pub(super) vars: Option<&'a Vars>,
}

/// Returns whether a text contains another one, which is in lower case.
fn contains(text: &str, wanted: &str) -> bool {
    if !text.is_ascii() {
        return text.to_lowercase().contains(wanted);
    }
    let wanted = wanted.as_bytes();
    wanted.is_empty() || text.as_bytes().windows(wanted.len()).any(|part| part.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::consent::{ConsentOwner, UserName};
    use crate::token::key::KeyBuilder;

    #[test]
    fn a_token_is_found_by_its_user_and_by_its_values() {
        let key = KeyBuilder::new("bank").finish();
        let mut vars = Vars::none();
        vars.push("account".into(), "TH-0042".to_owned());
        let owner = ConsentOwner::Client("erp".into());
        let user = UserKey { owner, provider: "bank".into(), user: UserName::parse("Zoë").unwrap() };
        let state = PhaseKind::Live;
        let token = SearchedToken { provider: "bank", state, user: Some(&user), vars: Some(&vars) };
        let search = |text: &str| TokenSearch::parse(text, PhaseKind::as_str).unwrap();
        for found in ["bank", "live", "th-0042", "zoë", "ZOË", " erp ", &key.to_string()[..6], &key.to_string()] {
            assert!(search(found).fits(&key, &token), "{found}");
        }
        for missed in ["th-0043", "account", "resting", "ö", &format!("{key}0")] {
            assert!(!search(missed).fits(&key, &token), "{missed}");
        }
        assert!(!search("zoë").fits(&key, &SearchedToken { user: None, ..token }));
        assert!(TokenSearch::parse("  ", PhaseKind::as_str).is_none());
    }
}

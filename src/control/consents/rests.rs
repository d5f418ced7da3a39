//! Rests: the users whose renewal failed, and the providers that reject all users, that are not asked for a while.
//!
//! The rests are those of every token call (`token::policy::rest_after`), `Retry-After` included. A provider that
//! reports that it is closed, or that it is asked too often, rests as a whole. Rejected credentials probably concern
//! all users: from then on users of that provider are renewed one at a time, and when the next one is rejected as well,
//! the provider rests as a whole, too.
//!
//! Renewals that a call waits for are recorded here as well. The keeper has their rests, but is not notified of a
//! failure if an older token served all the same: so a call is held up for as long as the provider asked for, and no
//! longer.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::base::backoff::Backoff;
use crate::base::planted::{PlantedFault, planted};
use crate::base::time::{Now, millis};
use crate::token::call_budget::{CallBudget, SpentCalls};
use crate::token::failure::{Class, ExactRest, Failure};
use crate::token::key::{KeyMap, TokenKey};
use crate::token::policy::rest_after;

/// A rest that was over for this long is forgotten, and with it how often its user failed. Longer than the longest rest.
const FORGET: Duration = Duration::from_secs(2 * 3600);

/// Backoff of a call that was held up: no request was sent, so nothing is added to the time that the provider asked
/// for.
const NOT_AGAIN: Backoff = Backoff { first: Duration::from_secs(1), ceiling: Duration::from_secs(1) };

/// Rests of renewals. Clones are the same; they live on the control thread.
#[derive(Clone, Default)]
pub struct Rests(Rc<RefCell<RestState>>);

#[derive(Default)]
struct RestState {
    /// By the key of the record.
    users: KeyMap<ConsentRest>,
    providers: HashMap<Arc<str>, ProviderRests>,
    /// The token calls of providers that have a budget. They outlive a reload.
    spent: HashMap<Box<str>, SpentCalls>,
}

#[derive(Clone, Default)]
struct ConsentRest {
    failures: u32,
    /// Reading of the boot clock, in milliseconds.
    until: u64,
    /// The failure with which the provider itself asked for a rest, and the earliest end of that rest (boot clock,
    /// milliseconds).
    told: Option<(Failure, u64)>,
}

#[derive(Default)]
struct ProviderRests {
    rest: ConsentRest,
    /// The user who was rejected last, with no success since.
    rejected: Option<TokenKey>,
}

impl ConsentRest {
    fn extend(&mut self, failure: &Failure, now: Now, dice: u8) {
        self.failures = self.failures.saturating_add(1);
        let until = now.boot.saturating_add(millis(rest_after(failure, self.failures, dice)));
        self.until = self.until.max(until);
        let ours = matches!(failure.class, Class::Consent | Class::Transient) && failure.retry_after.is_none();
        let until = now.boot.saturating_add(millis(failure.rest(1)));
        if !ours && self.told.as_ref().is_none_or(|(_, before)| *before < until) {
            self.told = Some((failure.clone(), until));
        }
    }
}

impl Rests {
    /// A provider was asked for this user's tokens, and failed.
    pub(super) fn failed(&self, provider: &Arc<str>, user: TokenKey, failure: &Failure, now: Now, dice: u8) {
        let RestState { users, providers, .. } = &mut *self.0.borrow_mut();
        users.entry(user).or_default().extend(failure, now, dice);
        let known = providers.entry(provider.clone()).or_default();
        let whole = match failure.class {
            Class::Closed | Class::RateLimited => true,
            Class::Fatal => known.rejected.replace(user).is_some_and(|before| before != user),
            Class::Consent | Class::Transient => false,
        };
        // Failures of renewals that ran at the same time count as one.
        if whole && known.rest.until <= now.boot {
            known.rest.extend(failure, now, dice);
        }
    }

    /// A provider has answered this user's refresh.
    pub(super) fn answered(&self, provider: &str, user: TokenKey) {
        let mut inner = self.0.borrow_mut();
        inner.users.remove(&user);
        inner.providers.remove(provider);
    }

    /// Returns whether this user's tokens are not to be renewed for upkeep now.
    pub(super) fn rests(&self, provider: &str, user: TokenKey, now: Now) -> bool {
        if planted(PlantedFault::NoRests) {
            return false;
        }
        let inner = self.0.borrow();
        let over = |rest: &ConsentRest| rest.until <= now.boot;
        !inner.users.get(&user).is_none_or(over) || !inner.providers.get(provider).is_none_or(|known| over(&known.rest))
    }

    /// Returns the provider's failure for this user, if it asked for a rest that has not ended yet.
    pub(super) fn told(&self, user: TokenKey, now: Now) -> Option<Failure> {
        let inner = self.0.borrow();
        let (failure, until) = inner.users.get(&user)?.told.as_ref()?;
        let left = until.checked_sub(now.boot).filter(|left| *left > 0)?;
        let retry_after = Some(Duration::from_millis(left));
        Some(Failure { retry_after, backoff: Some(NOT_AGAIN), exact: None, ..failure.clone() })
    }

    /// Returns whether users of this provider are to be renewed one at a time.
    pub(super) fn is_suspect(&self, provider: &str) -> bool {
        self.0.borrow().providers.get(provider).is_some_and(|known| known.rejected.is_some() || known.rest.failures > 0)
    }

    /// Takes a token call out of the provider's budget; the failure says when there is one.
    pub(in crate::control) fn spend(
        &self,
        provider: &str,
        budget: Option<CallBudget>,
        now: Now,
    ) -> Result<(), Failure> {
        let Some(budget) = budget else { return Ok(()) };
        let mut inner = self.0.borrow_mut();
        inner.spent.entry(provider.into()).or_default().take(budget, now).map_err(|left| Failure {
            exact: Some(ExactRest::of(left)),
            ..Failure::new(Class::RateLimited, "the provider's `token_budget` is used up; it was not asked")
        })
    }

    /// Counts a token call that cannot be put off.
    pub(in crate::control) fn note_call(&self, provider: &str, budget: Option<CallBudget>, now: Now) {
        if let Some(budget) = budget {
            self.0.borrow_mut().spent.entry(provider.into()).or_default().note(budget, now);
        }
    }

    /// The world has changed in a way that may have cured failures (a reload): all rests end.
    pub(in crate::control) fn forgive(&self) {
        let mut inner = self.0.borrow_mut();
        (inner.users, inner.providers) = Default::default();
    }

    /// Forgets rests that have long been over.
    pub(super) fn tidy(&self, now: Now) {
        let horizon = now.boot.saturating_sub(millis(FORGET));
        let mut inner = self.0.borrow_mut();
        inner.users.retain(|_, rest| rest.until > horizon);
        inner.providers.retain(|_, known| known.rest.until > horizon || known.rejected.is_some());
    }
}

impl fmt::Debug for Rests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rests").field("users", &self.0.borrow().users.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::key::KeyBuilder;

    const NOW: Now = Now::at(10_000_000, 1_700_000_000_000);

    fn user(name: &str) -> TokenKey {
        KeyBuilder::new(name).finish()
    }

    fn after(seconds: u64) -> Now {
        NOW.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_failure_rests_its_user_as_long_as_the_provider_asks() {
        let (rests, bank): (_, Arc<str>) = (Rests::default(), "bank".into());
        let mut failure = Failure::new(Class::Transient, "503");
        failure.retry_after = Some(Duration::from_secs(3600));
        rests.failed(&bank, user("dave"), &failure, NOW, 0);
        assert!(rests.rests("bank", user("dave"), after(3599)) && !rests.rests("bank", user("dave"), after(3600)));
        assert!(!rests.rests("bank", user("carol"), NOW) && !rests.is_suspect("bank"));
        rests.answered("bank", user("dave"));
        assert!(!rests.rests("bank", user("dave"), NOW));
    }

    #[test]
    fn a_bank_that_turns_everybody_away_rests_as_a_whole() {
        let bank: Arc<str> = "bank".into();
        for class in [Class::Closed, Class::RateLimited] {
            let rests = Rests::default();
            rests.failed(&bank, user("dave"), &Failure::new(class, "no"), NOW, 0);
            assert!(rests.rests("bank", user("carol"), after(29)), "{class:?}");
            assert!(!rests.rests("other", user("carol"), NOW) && !rests.rests("bank", user("carol"), after(301)));
            assert!(rests.is_suspect("bank"), "one at a time until one works");
            rests.answered("bank", user("carol"));
            assert!(!rests.is_suspect("bank"));
        }
    }

    #[test]
    fn a_budget_is_each_providers_own_and_outlives_a_reload() {
        let rests = Rests::default();
        let budget = Some(CallBudget { calls: 1, per: Duration::from_secs(60) });
        assert_eq!(rests.spend("bank", budget, NOW), Ok(()));
        rests.forgive();
        let failure = rests.spend("bank", budget, after(20)).expect_err("it is used up");
        assert_eq!((failure.class, failure.rest(9)), (Class::RateLimited, Duration::from_secs(40)));
        assert_eq!(rests.spend("other", budget, after(20)), Ok(()));
        assert_eq!(rests.spend("bank", None, after(20)), Ok(()), "a reload has taken the budget away");
        rests.note_call("bank", budget, after(50));
        assert!(rests.spend("bank", budget, after(60)).is_err(), "a code exchange counts");
        // A call that was held up by it is held up for the time that is left.
        rests.failed(&"bank".into(), user("dave"), &failure, after(20), 255);
        let told = rests.told(user("dave"), after(50)).map(|told| told.rest(1));
        assert_eq!(told, Some(Duration::from_secs(10)));
    }

    #[test]
    fn rejected_credentials_are_everybodys_once_two_were_rejected() {
        let (rests, bank): (_, Arc<str>) = (Rests::default(), "bank".into());
        let fatal = Failure::new(Class::Fatal, "invalid_client");
        rests.failed(&bank, user("erin"), &fatal, NOW, 0);
        assert!(rests.rests("bank", user("erin"), after(299)));
        assert!(!rests.rests("bank", user("carol"), NOW) && rests.is_suspect("bank"), "carol is the probe");
        rests.failed(&bank, user("erin"), &fatal, after(300), 0);
        assert!(!rests.rests("bank", user("carol"), after(300)), "the same user says nothing of others");
        rests.failed(&bank, user("carol"), &fatal, after(301), 0);
        assert!(rests.rests("bank", user("dave"), after(600)) && !rests.rests("bank", user("dave"), after(602)));
        rests.failed(&bank, user("dave"), &fatal, after(602), 0);
        assert!(rests.rests("bank", user("frank"), after(602 + 599)), "it doubles");
        rests.forgive();
        assert!(!rests.rests("bank", user("frank"), after(602)));
    }

    #[test]
    fn a_call_is_held_up_for_as_long_as_the_provider_asked_for_and_no_longer() {
        let (rests, bank): (_, Arc<str>) = (Rests::default(), "bank".into());
        rests.failed(&bank, user("dave"), &Failure::new(Class::Transient, "no answer"), NOW, 255);
        assert_eq!(rests.told(user("dave"), NOW), None, "a rest of our own");
        let asked = Failure { retry_after: Some(Duration::from_secs(7)), ..Failure::new(Class::Transient, "503") };
        rests.failed(&bank, user("dave"), &asked, NOW, 255);
        let left = |seconds| rests.told(user("dave"), after(seconds)).map(|told| (told.class, told.rest(9)));
        assert_eq!(left(3), Some((Class::Transient, Duration::from_secs(4))));
        assert_eq!(left(7), None);
        rests.failed(&bank, user("dave"), &Failure::new(Class::RateLimited, "429"), after(7), 255);
        assert_eq!(left(8), Some((Class::RateLimited, Duration::from_secs(29))));
        assert_eq!(rests.told(user("carol"), NOW), None);
        rests.answered("bank", user("dave"));
        assert_eq!(left(8), None);
    }

    #[test]
    fn failures_count_over_rests_and_are_forgotten_in_the_end() {
        let (rests, bank): (_, Arc<str>) = (Rests::default(), "bank".into());
        let failure = Failure::new(Class::Transient, "no answer");
        rests.failed(&bank, user("dave"), &failure, NOW, 0);
        rests.tidy(after(60));
        rests.failed(&bank, user("dave"), &failure, after(60), 0);
        assert!(rests.rests("bank", user("dave"), after(61)), "the second rest is two seconds");
        rests.tidy(after(3 * 3600));
        rests.failed(&bank, user("dave"), &failure, after(3 * 3600), 0);
        assert!(!rests.rests("bank", user("dave"), after(3 * 3600 + 1)), "the first again");
    }
}

//! The two slots of a provider's credentials, and the one that its calls use.
//!
//! An operator adds the next credentials before the provider changes; the provider changes when it likes. Calls use one
//! slot until the provider refuses it at the token endpoint. Then the other one is tried, once, and promoted if a token
//! comes of it. The rule is symmetrical: a provider that goes back to the old credentials is followed as well.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::time::Now;
use crate::token::failure::Class;

/// A set of credentials of a provider.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum CredentialSlot {
    /// The settings of `[provider.NAME]` itself.
    #[default]
    Current,
    /// The same with those of `[provider.NAME.next]` put over them.
    Next,
}

impl CredentialSlot {
    /// The word for it in logs, metrics and the admin API.
    pub const fn as_str(self) -> &'static str {
        match self {
            CredentialSlot::Current => "current",
            CredentialSlot::Next => "next",
        }
    }

    /// Returns the other slot.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            CredentialSlot::Current => CredentialSlot::Next,
            CredentialSlot::Next => CredentialSlot::Current,
        }
    }
}

/// The slots of one provider: which was promoted last, and when the certificate of each ends. Shared by all threads.
#[derive(Debug, Default)]
pub struct CredentialSlots {
    is_next: AtomicBool,
    /// When the certificates end, in seconds since 1970: of the current slot, of the next one.
    ends: [Option<u64>; 2],
}

impl CredentialSlots {
    /// The slots as a config has them: the current one is in use. `ends`: when the certificates end, in seconds since
    /// 1970, of the current slot and of the next one.
    pub const fn new(ends: [Option<u64>; 2]) -> Self {
        Self { is_next: AtomicBool::new(false), ends }
    }

    /// Returns the slot that calls use now: the one that was promoted last, unless its certificate has ended and that of
    /// the other has not.
    #[inline]
    pub fn active(&self, now: Now) -> CredentialSlot {
        let promoted = self.promoted();
        if self.has_ended(promoted, now) && !self.has_ended(promoted.other(), now) {
            return promoted.other();
        }
        promoted
    }

    /// The provider has accepted the credentials of this slot: calls use them from now on. Returns whether that is a
    /// change.
    pub fn promote(&self, slot: CredentialSlot) -> bool {
        self.is_next.swap(slot == CredentialSlot::Next, Ordering::Relaxed) != (slot == CredentialSlot::Next)
    }

    /// Takes over what was promoted under an earlier config that had the same credentials.
    pub fn follow(&self, earlier: &Self) {
        self.is_next.store(earlier.is_next.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn promoted(&self) -> CredentialSlot {
        if self.is_next.load(Ordering::Relaxed) { CredentialSlot::Next } else { CredentialSlot::Current }
    }

    fn has_ended(&self, slot: CredentialSlot, now: Now) -> bool {
        let [current, next] = self.ends;
        let end = if slot == CredentialSlot::Current { current } else { next };
        end.is_some_and(|end| end <= now.unix_seconds())
    }
}

/// Puts what calls use now first, and what stands ready second. `current` and `next` are the same thing with the
/// credentials of each slot; without `next` or `slots` there is the current one alone.
#[inline]
pub fn by_slot<'a, T>(
    slots: Option<&CredentialSlots>,
    current: &'a T,
    next: Option<&'a T>,
    now: Now,
) -> (&'a T, Option<&'a T>) {
    match (slots, next) {
        (Some(slots), Some(next)) if slots.active(now) == CredentialSlot::Next => (next, Some(current)),
        _ => (current, next),
    }
}

/// Returns whether a token call that failed so is worth another one with the credentials of the other slot: the provider
/// refused those that it was made with. Nothing else is cured by other credentials.
pub const fn is_refusal(class: Class) -> bool {
    matches!(class, Class::Fatal)
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Now {
        Now::at(0, seconds * 1000)
    }

    #[test]
    fn a_promotion_is_told_once_and_holds_until_the_next() {
        let slots = CredentialSlots::default();
        assert_eq!(slots.active(at(1)), CredentialSlot::Current);
        assert!(!slots.promote(CredentialSlot::Current), "nothing changed");
        assert!(slots.promote(CredentialSlot::Next));
        assert!(!slots.promote(CredentialSlot::Next));
        assert_eq!(slots.active(at(1)), CredentialSlot::Next);
        let reloaded = CredentialSlots::default();
        reloaded.follow(&slots);
        assert_eq!(reloaded.active(at(1)), CredentialSlot::Next);
        assert!(slots.promote(CredentialSlot::Current), "a provider that goes back is followed");
    }

    #[test]
    fn a_certificate_that_has_ended_gives_way_to_one_that_has_not() {
        let slots = CredentialSlots::new([Some(100), Some(200)]);
        assert_eq!(slots.active(at(99)), CredentialSlot::Current);
        assert_eq!(slots.active(at(100)), CredentialSlot::Next);
        assert_eq!(slots.active(at(200)), CredentialSlot::Current, "both have ended: what was promoted counts");
        assert!(slots.promote(CredentialSlot::Next));
        assert_eq!(slots.active(at(300)), CredentialSlot::Next);
        let slots = CredentialSlots::new([Some(100), None]);
        assert_eq!(slots.active(at(100)), CredentialSlot::Next, "one without an end has not ended");
    }
}

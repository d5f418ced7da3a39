//! The values that are generated for one message to a provider: its instant, and its identifiers.
//!
//! They are drawn once for each message, before any text of it is made. So every placeholder of one time shows the same
//! instant and every placeholder of one identifier the same characters, wherever in the message they stand. A message
//! that is sent again, with a new token, gets new values but for those that belong to the call.

use std::sync::Arc;

use crate::base::id::Ids;
use crate::base::time::Now;
use crate::provider::id_rule::IdRule;
use crate::provider::values::choice;
use crate::syntax::Fields;

/// The scope of a generated value: `fresh` of `[ids.NAME]` and `[times.NAME]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fresh {
    /// A new value for each attempt: the replay carries another one.
    Attempt,
    /// One value for the call: the replay carries the same.
    Call,
}

impl Fresh {
    /// Takes the key `fresh` of a declaration.
    pub(super) fn take(fields: &Fields<'_>) -> Option<Self> {
        choice(fields.take("fresh")?, fields.report(), &[("attempt", Fresh::Attempt), ("call", Fresh::Call)])
    }
}

/// The generated values of one message.
#[derive(Clone, Debug)]
pub(super) struct MessageValues {
    /// The instant of this attempt.
    attempt: Now,
    /// The instant of the call's first attempt.
    call: Now,
    /// Declared identifiers by name.
    ids: Box<[(Arc<str>, Box<str>)]>,
}

impl MessageValues {
    /// Draws the values of a call's first attempt, with these identifiers in it.
    pub(super) fn first(rules: &[Arc<IdRule>], ids: &mut dyn Ids, now: Now) -> Self {
        let drawn = rules.iter().map(|rule| (rule.name.clone(), rule.draw(ids))).collect();
        Self { attempt: now, call: now, ids: drawn }
    }

    /// Draws the values of the next attempt. `otherwise`: the scope of identifiers that declare none.
    pub(super) fn again(&self, rules: &[Arc<IdRule>], otherwise: Fresh, ids: &mut dyn Ids, now: Now) -> Self {
        let draw = |rule: &Arc<IdRule>| {
            let kept = match rule.fresh.unwrap_or(otherwise) {
                Fresh::Attempt => None,
                Fresh::Call => self.id(&rule.name).map(Box::from),
            };
            (rule.name.clone(), kept.unwrap_or_else(|| rule.draw(ids)))
        };
        Self { attempt: now, call: self.call, ids: rules.iter().map(draw).collect() }
    }

    /// Returns the instant that times of this scope show.
    pub(super) const fn instant(&self, fresh: Fresh) -> Now {
        match fresh {
            Fresh::Attempt => self.attempt,
            Fresh::Call => self.call,
        }
    }

    /// Returns the value of the identifier of this name; `None` if the message has none of that name.
    pub(super) fn id(&self, name: &str) -> Option<&str> {
        self.ids().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Returns the names and values of its identifiers.
    pub(super) fn ids(&self) -> impl Iterator<Item = (&str, &str)> {
        self.ids.iter().map(|(name, value)| (&**name, &**value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::CountingIds;
    use crate::provider::id_rule::IdKind;

    #[test]
    fn what_belongs_to_the_call_outlives_an_attempt_and_nothing_else_does() {
        let rule = |name: &str, fresh| Arc::new(IdRule { name: name.into(), kind: IdKind::Digits(8), fresh });
        let rules = [rule("payment", Some(Fresh::Call)), rule("request", Some(Fresh::Attempt)), rule("other", None)];
        let mut ids = CountingIds::default();
        let (start, later) = (Now::at(1, 1000), Now::at(2, 2000));
        let first = MessageValues::first(&rules, &mut ids, start);
        let shown = |values: &MessageValues| values.ids().map(|(_, value)| value.to_owned()).collect::<Vec<_>>();
        assert_eq!(shown(&first), ["00000001", "00000002", "00000003"]);
        let second = first.again(&rules, Fresh::Call, &mut ids, later);
        assert_eq!(shown(&second), ["00000001", "00000004", "00000003"]);
        let third = second.again(&rules, Fresh::Attempt, &mut ids, later);
        assert_eq!(shown(&third), ["00000001", "00000005", "00000006"]);
        assert_eq!((third.instant(Fresh::Attempt), third.instant(Fresh::Call)), (later, start));
        assert_eq!(third.id("nobody"), None);
    }
}

//! Faults that were fixed, and that a test can put back: the value of a simulator is measured by the faults that it
//! finds.
//!
//! If fixed code differs from its former version, it asks whether the former behaviour is [planted]. Outside tests the
//! result is a constant, and no trace of it is left in the program.

/// A fault that can be put back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PlantedFault {
    /// A token from the store is shortened on one clock and judged by another.
    AdoptedTwice,
    /// A provider's answer ends where hyper says so, also when its stream was reset.
    AnswerOnTrust,
    /// A page of the store that cannot be read ends the renewals under way.
    BrokenRound,
    /// A record that has expired by the wall clock is removed from the store.
    ClockRemoves,
    /// That a refresh token is dead counts more than the successor that another brought.
    DeadWins,
    /// A client may take nothing of its answer for ever.
    EndlessPatience,
    /// A process ends without waiting for its renewals.
    EndsAtOnce,
    /// A refresh token that is not replaced stays due.
    EverDue,
    /// The expiry of a token is checked when its request is prepared, not when it is sent.
    ExpiresUnseen,
    /// A refusal that breaks off counts as a whole one.
    HalfProof,
    /// Calls of a bank have no deadline.
    NoDeadline,
    /// Rests of consents that could not be kept alive are not kept.
    NoRests,
    /// News that could not be looked at are forgotten.
    OneLook,
    /// A user's token is kept under a name without the realm.
    RealmLess,
    /// A refused token stays in the store.
    RefusedStays,
    /// The refusal of a token is checked when its request is prepared, not when it is sent.
    RefusedUnseen,
    /// `Retry-After` replaces the rest of the class.
    ShortRest,
    /// A refresh token beside an access token that is of no use is thrown away.
    ThrownAway,
    /// A request body that its provider takes no more of stays with a connection that is lent on.
    UploadLeft,
    /// A client's upload ends where hyper says so, also when its stream was reset.
    UploadOnTrust,
}

/// Returns whether this fault was put back; always false outside tests.
#[cfg(not(test))]
#[inline]
pub const fn planted(_: PlantedFault) -> bool {
    false
}

/// Returns whether this fault was put back on this thread.
#[cfg(test)]
pub fn planted(fault: PlantedFault) -> bool {
    bed::PLANTED.get() == Some(fault)
}

/// The fault that is put back on each thread.
#[cfg(test)]
pub(crate) mod bed {
    use std::cell::Cell;

    use super::PlantedFault;

    thread_local! {
        pub(super) static PLANTED: Cell<Option<PlantedFault>> = const { Cell::new(None) };
    }

    /// Puts a fault back on this thread, or takes it out again.
    pub(crate) fn plant(fault: Option<PlantedFault>) {
        PLANTED.set(fault);
    }
}

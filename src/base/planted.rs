//! Faults that were mended, and that a test can put back: a simulator is worth as much as the faults that it finds.
//!
//! Where mended code differs from what it was, it asks whether the old way is [planted]. Outside tests the answer is a
//! constant, and nothing of it is left in the program.

/// A fault that can be put back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PlantedFault {
    /// A token from the store is shortened on one clock and judged by another.
    AdoptedTwice,
    /// A provider's answer ends where hyper says so, also when its stream was reset.
    AnswerOnTrust,
    /// A page of the store that cannot be read ends the renewals under way.
    BrokenRound,
    /// What the wall clock says has ended is removed from the store.
    ClockRemoves,
    /// That a refresh token is dead counts more than the successor that another brought.
    DeadWins,
    /// A client may take nothing of its answer for ever.
    EndlessPatience,
    /// A process ends without waiting for its renewals.
    EndsAtOnce,
    /// A refresh token that is not replaced stays due.
    EverDue,
    /// Whether a token has expired is looked at when its request is dressed, not when it is sent.
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
    /// Whether a token was refused is looked at when its request is dressed, not when it is sent.
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

/// Whether this fault was put back.
#[cfg(not(test))]
#[inline]
pub const fn planted(_: PlantedFault) -> bool {
    false
}

/// Whether this fault was put back, on this thread.
#[cfg(test)]
pub fn planted(fault: PlantedFault) -> bool {
    bed::PLANTED.get() == Some(fault)
}

/// Where faults are put back.
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

//! Fresh identifiers, and where they come from.

use uuid::Uuid;

/// A source of fresh identifiers. Production draws random ones; a test hands out known ones.
pub trait Ids {
    /// Returns a new identifier that has not been used before.
    fn fresh(&mut self) -> Uuid;
}

/// Random version 4 identifiers from a thread-local generator: no lock, no system call.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    #[inline]
    fn fresh(&mut self) -> Uuid {
        Uuid::new_v4()
    }
}

/// Counting identifiers, for tests: `00000000-0000-4000-8000-000000000001` and on.
#[derive(Clone, Debug, Default)]
pub struct CountingIds(pub u64);

impl Ids for CountingIds {
    fn fresh(&mut self) -> Uuid {
        self.0 += 1;
        Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0000 | u128::from(self.0))
    }
}

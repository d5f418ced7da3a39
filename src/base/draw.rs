//! Random draws that decide something: how long a pause is stretched, which number a claim has.
//!
//! Everything that the control plane leaves to chance is drawn here, so that a test can repeat a run by its seed. Keys,
//! nonces and versions of records are drawn where they are made: nothing is decided by their value.

use rand::distr::{Distribution, StandardUniform};

/// Draws a random value; in tests, from the thread's seed if one is set.
pub fn draw<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    #[cfg(test)]
    if let Some(value) = seeded::draw() {
        return value;
    }
    rand::random()
}

/// A generator in place of the thread's own, for tests.
#[cfg(test)]
pub(crate) mod seeded {
    use std::cell::RefCell;
    use std::convert::Infallible;

    use rand::TryRng;
    use rand::distr::{Distribution, StandardUniform};

    /// SplitMix64: small, quick without optimisation, and the same in every version of every crate.
    #[derive(Clone, Debug)]
    pub(crate) struct Generator(u64);

    impl Generator {
        pub(crate) const fn new(seed: u64) -> Self {
            Self(seed)
        }

        pub(crate) const fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }
    }

    impl TryRng for Generator {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            Ok((self.next() >> 32) as u32)
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            Ok(self.next())
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
            for chunk in bytes.chunks_mut(8) {
                chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
            }
            Ok(())
        }
    }

    thread_local! {
        static GENERATOR: RefCell<Option<Generator>> = const { RefCell::new(None) };
    }

    /// Draws come from this seed from now on, on this thread; `None`: by chance again.
    pub(crate) fn set(seed: Option<u64>) {
        GENERATOR.set(seed.map(Generator::new));
    }

    pub(super) fn draw<T>() -> Option<T>
    where
        StandardUniform: Distribution<T>,
    {
        GENERATOR.with_borrow_mut(|generator| Some(StandardUniform.sample(generator.as_mut()?)))
    }

    #[test]
    fn a_seed_repeats_its_draws() {
        let draws = |seed| {
            set(Some(seed));
            let drawn: (u64, [u8; 32], u8) = (super::draw(), super::draw(), super::draw());
            set(None);
            drawn
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }
}

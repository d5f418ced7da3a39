//! The kept bytes of a request's body, and their cost.
//!
//! A piece of a body is a slice of the buffer that it was read into, and keeps all of that buffer. If a client sends
//! one byte at a time, each byte would cost a hundred. Small pieces are therefore copied into separate chunks, and only
//! large ones are kept as they are. The process's budget is charged for the memory behind the bytes, not for their
//! number.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::resource_usage::ResourceUsage;

/// A piece of at least this size is kept as it came.
const LARGE: usize = 4 * 1024;
/// The size of a chunk that small pieces are gathered in, and with which one begins.
const CHUNK: usize = 16 * 1024;
const FIRST: usize = 512;
/// Bytes charged for each chunk besides its memory.
const OVERHEAD: usize = 64;

/// The process's allowance for kept bodies.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Memory charged for kept bodies now, in bytes.
    pub usage: Arc<ResourceUsage>,
    /// Bytes that may be kept.
    pub limit: u64,
}

/// The bytes that were kept of one body.
pub struct Kept {
    chunks: Vec<Bytes>,
    /// Gathers small pieces behind the chunks.
    tail: Vec<u8>,
    bytes: u64,
    /// Bytes charged to the budget so far.
    cost: u64,
    budget: Budget,
}

/// A place in what was kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ReplayCursor {
    chunk: usize,
    at: usize,
}

impl Kept {
    /// Creates a store that holds no bytes yet.
    pub const fn new(budget: Budget) -> Self {
        Self { chunks: Vec::new(), tail: Vec::new(), bytes: 0, cost: 0, budget }
    }

    /// Returns the number of bytes that were kept.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the allowance that it is charged to.
    pub const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Keeps a piece. `false`: the allowance does not suffice, and nothing has changed.
    #[must_use]
    pub fn keep(&mut self, piece: &Bytes) -> bool {
        if piece.len() >= LARGE {
            if !self.pay(piece.len() + OVERHEAD) {
                return false;
            }
            self.freeze();
            self.chunks.push(piece.clone());
        } else if !self.gather(piece) {
            return false;
        }
        self.bytes += piece.len() as u64;
        true
    }

    /// Copies a small piece into the tail, which grows up to the size of a chunk. `false`: the budget does not suffice.
    fn gather(&mut self, piece: &Bytes) -> bool {
        if piece.len() > self.tail.capacity() - self.tail.len() {
            let fits = self.tail.len() + piece.len() <= CHUNK;
            let (filled, capacity) = if fits { (self.tail.len(), self.tail.capacity()) } else { (0, 0) };
            let grown = (capacity * 2).max(filled + piece.len()).clamp(FIRST, CHUNK);
            let overhead = if capacity == 0 { OVERHEAD } else { 0 };
            if !self.pay(grown - capacity + overhead) {
                return false;
            }
            if !fits {
                self.freeze();
            }
            self.tail.reserve_exact(grown - filled);
        }
        self.tail.extend_from_slice(piece);
        true
    }

    /// Makes a chunk of what was gathered.
    fn freeze(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push(Bytes::from(std::mem::take(&mut self.tail)));
        }
    }

    fn pay(&mut self, cost: usize) -> bool {
        let cost = cost as u64;
        let paid = self.budget.usage.try_acquire(cost, self.budget.limit);
        if paid {
            self.cost += cost;
        }
        paid
    }

    /// Keeps nothing of it any more.
    pub fn forget(&mut self) {
        self.chunks = Vec::new();
        self.tail = Vec::new();
        self.bytes = 0;
        self.budget.usage.release(std::mem::take(&mut self.cost));
    }

    /// The piece at this place, which moves behind it. None: it is the end.
    pub fn next(&self, cursor: &mut ReplayCursor) -> Option<Bytes> {
        while let Some(chunk) = self.chunks.get(cursor.chunk) {
            let at = cursor.at;
            *cursor = ReplayCursor { chunk: cursor.chunk + 1, at: 0 };
            if at < chunk.len() {
                return Some(chunk.slice(at..));
            }
        }
        let rest = self.tail.get(cursor.at..).filter(|rest| !rest.is_empty())?;
        cursor.at = self.tail.len();
        Some(Bytes::copy_from_slice(rest))
    }

    /// The place behind all of it.
    pub const fn end(&self) -> ReplayCursor {
        ReplayCursor { chunk: self.chunks.len(), at: self.tail.len() }
    }

    /// Returns whether no kept byte follows this place.
    pub fn ends_at(&self, cursor: ReplayCursor) -> bool {
        let mut cursor = cursor;
        while self.chunks.get(cursor.chunk).is_some_and(|chunk| cursor.at >= chunk.len()) {
            cursor = ReplayCursor { chunk: cursor.chunk + 1, at: 0 };
        }
        cursor.chunk >= self.chunks.len() && cursor.at >= self.tail.len()
    }

    /// All of it in one piece.
    pub fn concat(&self) -> Vec<u8> {
        let mut whole = Vec::with_capacity(self.chunks.iter().map(Bytes::len).sum::<usize>() + self.tail.len());
        self.chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
        whole.extend_from_slice(&self.tail);
        whole
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::base::resource_usage::ResourceUsage;

    fn kept(limit: u64) -> (Kept, Arc<ResourceUsage>) {
        let usage = Arc::new(ResourceUsage::default());
        (Kept::new(Budget { usage: usage.clone(), limit }), usage)
    }

    /// Returns the size of the memory that is really held.
    fn held(kept: &Kept) -> usize {
        kept.chunks.iter().map(Bytes::len).sum::<usize>() + kept.tail.capacity()
    }

    #[test]
    fn a_body_in_single_bytes_costs_little_more_than_it_holds() {
        let (mut kept, usage) = kept(u64::MAX);
        let piece = Bytes::from_static(b"x");
        for _ in 0..1 << 20 {
            assert!(kept.keep(&piece));
        }
        let cost = usage.current();
        assert!((1 << 20..(1 << 20) + (64 << 10)).contains(&cost), "{cost}");
        assert!(held(&kept) as i64 <= cost);
        assert_eq!((kept.bytes(), kept.concat().len()), (1 << 20, 1 << 20));
        drop(kept);
        assert_eq!(usage.current(), 0);
    }

    #[test]
    fn what_the_allowance_cannot_bear_is_not_kept_and_changes_nothing() {
        let (mut kept, usage) = kept(1000);
        assert!(kept.keep(&Bytes::from_static(&[1; 500])));
        assert!(!kept.keep(&Bytes::from_static(&[2; 500])));
        assert!(!kept.keep(&Bytes::from_static(&[3; LARGE])));
        assert_eq!((kept.bytes(), kept.concat()), (500, vec![1; 500]));
        assert_eq!(usage.current(), (FIRST + OVERHEAD) as i64);
        kept.forget();
        assert_eq!(usage.current(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_telling_gives_the_same_bytes_wherever_it_joins(
            sizes in proptest::collection::vec(prop_oneof![1_usize..40, 1_usize..6000], 1..60),
            joins in 0_usize..60,
        ) {
            let (mut kept, usage) = kept(u64::MAX);
            let mut whole: Vec<u8> = Vec::new();
            let (mut early, mut reported) = (ReplayCursor::default(), Vec::new());
            for (n, size) in sizes.iter().enumerate() {
                let piece = Bytes::from(vec![u8::try_from(n % 251).unwrap(); *size]);
                whole.extend_from_slice(&piece);
                prop_assert!(kept.keep(&piece));
                if n == joins {
                    while let Some(piece) = kept.next(&mut early) {
                        reported.extend_from_slice(&piece);
                    }
                    prop_assert!(kept.ends_at(early) && reported == whole);
                }
            }
            while let Some(piece) = kept.next(&mut early) {
                reported.extend_from_slice(&piece);
            }
            prop_assert!(reported == whole && kept.ends_at(early) && kept.ends_at(kept.end()));
            prop_assert_eq!(kept.concat(), whole);
            prop_assert!(held(&kept) as i64 <= usage.current());
        }
    }
}

//! A file that is opened for trial: everything written to it stays in memory.
//!
//! redb writes to a file as soon as it opens it for writing, before its pages are checked; and a damaged file that was
//! written to once is repaired at the next start, by going back to an older commit. So a file is opened here first, and
//! for good only if that succeeded. Until then it is not modified.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// The unit in bytes in which written data is kept: one page for a write, more if it crosses a page boundary.
const PAGE: usize = 4096;

/// A source from which bytes are read.
pub(super) trait Original: Send + Sync + 'static {
    /// Returns the total number of bytes.
    fn size(&self) -> io::Result<u64>;
    /// Those at this place; an error where there are fewer.
    fn bytes_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
}

impl Original for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn bytes_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }
}

/// A storage over an original that it never writes to. Clones are the same one.
pub(super) struct OverlayStorage<O>(Arc<OverlayState<O>>);

struct OverlayState<O> {
    original: O,
    state: Mutex<State>,
}

struct State {
    len: usize,
    /// Of the original no more than this shows: the rest was cut off.
    shown: usize,
    /// The written data, in whole pages, by page number.
    pages: BTreeMap<usize, Box<[u8]>>,
}

impl<O: Original> OverlayStorage<O> {
    /// All of the original, unchanged.
    pub(super) fn of(original: O) -> io::Result<Self> {
        let len = narrowed(original.size()?)?;
        let state = Mutex::new(State { len, shown: len, pages: BTreeMap::new() });
        Ok(Self(Arc::new(OverlayState { original, state })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Any two statements leave it whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads these bytes of the original; zeros beyond the end of its shown part.
    fn fill(&self, shown: usize, from: usize, out: &mut [u8]) -> io::Result<()> {
        let there = shown.saturating_sub(from).min(out.len());
        let (here, beyond) = out.split_at_mut(there);
        beyond.fill(0);
        if here.is_empty() { Ok(()) } else { self.0.original.bytes_at(from as u64, here) }
    }
}

impl<O: Original> StorageBackend for OverlayStorage<O> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().len as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let from = narrowed(offset)?;
        if from.checked_add(out.len()).is_none_or(|end| end > state.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if state.pages.is_empty() {
            return self.fill(state.shown, from, out);
        }
        let mut rest = out;
        for (page, part) in parts(from, rest.len()) {
            let (here, later) = rest.split_at_mut(part.len());
            rest = later;
            match state.pages.get(&page).and_then(|bytes| bytes.get(part.clone())) {
                Some(bytes) => here.copy_from_slice(bytes),
                None => self.fill(state.shown, page * PAGE + part.start, here)?,
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        let len = narrowed(len)?;
        // Data that is cut off is gone: if the file grows again, it holds zeros there.
        for (page, bytes) in state.pages.range_mut(len / PAGE..) {
            let kept = len.saturating_sub(page * PAGE).min(PAGE);
            bytes[kept..].fill(0);
        }
        (state.len, state.shown) = (len, state.shown.min(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let shown = state.shown;
        let mut rest = data;
        for (page, part) in parts(narrowed(offset)?, data.len()) {
            let (here, later) = rest.split_at(part.len());
            rest = later;
            let bytes = match state.pages.entry(page) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let mut bytes = vec![0; PAGE].into_boxed_slice();
                    self.fill(shown, page * PAGE, &mut bytes)?;
                    entry.insert(bytes)
                }
            };
            bytes[part].copy_from_slice(here);
        }
        Ok(())
    }
}

impl<O> Clone for OverlayStorage<O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<O> fmt::Debug for OverlayStorage<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OverlayStorage")
    }
}

fn narrowed(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

/// The pages that a range touches, and which part of each.
fn parts(from: usize, len: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let end = from + len;
    (from / PAGE..end.div_ceil(PAGE)).map(move |page| {
        let start = page * PAGE;
        (page, from.max(start) - start..end.min(start + PAGE) - start)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that lie in memory.
    impl Original for Arc<Vec<u8>> {
        fn size(&self) -> io::Result<u64> {
            Ok(self.len() as u64)
        }

        fn bytes_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let from = narrowed(offset)?;
            out.copy_from_slice(self.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_file_and_leaves_the_original_alone(
            steps in proptest::collection::vec((0_usize..20_000, 0_usize..9_000, any::<Option<u8>>()), 0..20),
        ) {
            let original: Arc<Vec<u8>> = Arc::new((0..10_000_u32).map(|at| at.to_le_bytes()[0] | 1).collect());
            let (rehearsal, mut file) = (OverlayStorage::of(original.clone()).expect("in memory"), original.to_vec());
            for (at, len, byte) in steps {
                match byte {
                    Some(byte) if at + len <= file.len() => {
                        rehearsal.write(at as u64, &vec![byte; len]).expect("written");
                        file[at..at + len].fill(byte);
                    }
                    Some(_) | None => {
                        rehearsal.set_len(at as u64).expect("in memory");
                        file.resize(at, 0);
                    }
                }
                let mut read = vec![7; file.len()];
                rehearsal.read(0, &mut read).expect("readable");
                prop_assert!(read == file);
                prop_assert!(rehearsal.read(1, &mut read).is_err() || read.is_empty(), "beyond its end");
            }
            prop_assert!(original.iter().all(|byte| byte % 2 == 1));
        }
    }
}

//! The last writes of this process to records that must not get lost, to be repeated where Redis has lost them.
//!
//! Redis copies a write to its replicas after it has answered. A master that dies takes its last writes with it, and a
//! Redis that restarts may have lost those of its last second. A write is repeated only over the very record that it
//! replaced: so it undoes nothing that anybody else has written since.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::super::record::{RecordName, Version};

/// So many are kept; of 1.5 KiB each. What was written earlier than these has long been copied.
const KEPT: usize = 1024;

/// A write to a record that was there.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct RecentWrite {
    pub(super) name: RecordName,
    /// What it replaced or removed.
    pub(super) before: Version,
    /// The envelope and its expiry; absent: the record was removed.
    pub(super) written: Option<(Vec<u8>, Option<u64>)>,
}

/// In the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct RecentWrites(RefCell<VecDeque<Rc<RecentWrite>>>);

impl RecentWrites {
    pub(super) fn note(&self, write: RecentWrite) {
        let mut all = self.0.borrow_mut();
        if all.len() == KEPT {
            all.pop_front();
        }
        all.push_back(Rc::new(write));
    }

    pub(super) fn all(&self) -> Vec<Rc<RecentWrite>> {
        self.0.borrow().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::{Kind, RecordKey};

    #[test]
    fn the_last_ones_are_kept_in_their_order() {
        let recent = RecentWrites::default();
        let write = |version| RecentWrite {
            name: RecordName { kind: Kind::User, key: RecordKey::from("alice") },
            before: Version(version),
            written: None,
        };
        for version in 0..KEPT as u64 + 2 {
            recent.note(write(version));
        }
        let all = recent.all();
        assert_eq!((all.len(), all[0].before, all[KEPT - 1].before), (KEPT, Version(2), Version(KEPT as u64 + 1)));
    }
}

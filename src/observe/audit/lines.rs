//! A worker's end of the audit log: calls gather and leave in batches, as access lines do.

use std::sync::Arc;

use super::entry::Story;
use super::{Seal, Way};
use crate::observe::gather::Gather;
use crate::observe::record::Record;

/// One worker's gathering records.
#[derive(Clone)]
pub struct AuditLines(Gather<Arc<Way>>);

impl AuditLines {
    pub(super) fn new(way: Arc<Way>) -> Self {
        let clock = way.clock.clone();
        Self(Gather::new(way, clock))
    }

    /// Adds a finished call.
    pub fn push(&self, record: &Record, story: Story<'_>) {
        let scribe = self.0.outlet().scribe;
        self.0.push(|now, buffer| scribe.call(now, record, story, buffer));
    }

    /// How values are hidden.
    pub fn seal(&self) -> Arc<Seal> {
        self.0.outlet().seal.load_full()
    }

    /// Hands over what has gathered.
    pub fn flush(&self) {
        self.0.flush();
    }
}

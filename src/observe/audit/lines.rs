//! A worker's end of the audit log: calls gather and leave in batches, as access lines do.

use std::sync::Arc;

use super::entry::AuditContext;
use super::{Seal, WriterHandle};
use crate::observe::gather::Gather;
use crate::observe::record::AccessRecord;

/// The records of calls that one worker has gathered and not yet handed to the writer.
#[derive(Clone)]
pub struct AuditLines(Gather<Arc<WriterHandle>>);

impl AuditLines {
    pub(super) fn new(way: Arc<WriterHandle>) -> Self {
        let clock = way.clock.clone();
        Self(Gather::new(way, clock))
    }

    /// Adds the record of a finished call.
    pub fn push(&self, record: &AccessRecord, story: AuditContext<'_>) {
        let scribe = self.0.outlet().scribe;
        self.0.push(|now, buffer| scribe.call(now, record, story, buffer));
    }

    /// Returns the seal in force, which hides the values of variables.
    pub fn seal(&self) -> Arc<Seal> {
        self.0.outlet().seal.load_full()
    }

    /// Hands over what has gathered.
    pub fn flush(&self) {
        self.0.flush();
    }
}

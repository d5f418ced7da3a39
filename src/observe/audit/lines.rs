//! A worker's end of the audit log: calls gather and leave in batches, as access lines do.

use std::sync::Arc;

use super::entry::AuditContext;
use super::{Seal, WriterHandle};
use crate::observe::gather::Gather;
use crate::observe::record::AccessRecord;

/// One worker's gathering records.
#[derive(Clone)]
pub struct AuditLines(Gather<Arc<WriterHandle>>);

impl AuditLines {
    pub(super) fn new(way: Arc<WriterHandle>) -> Self {
        let clock = way.clock.clone();
        Self(Gather::new(way, clock))
    }

    /// Adds a finished call.
    pub fn push(&self, record: &AccessRecord, story: AuditContext<'_>) {
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

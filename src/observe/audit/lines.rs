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
    pub(super) fn new(handle: Arc<WriterHandle>) -> Self {
        let clock = handle.clock.clone();
        Self(Gather::new(handle, clock))
    }

    /// Adds the record of a finished call.
    pub fn push(&self, record: &AccessRecord, context: AuditContext<'_>) {
        let encoder = self.0.outlet().encoder;
        self.0.push(|now, buffer| encoder.call(now, record, context, buffer));
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

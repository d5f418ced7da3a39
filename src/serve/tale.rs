//! Telling a request once, however it ends.

use std::rc::Rc;

use super::fault::Fault;
use super::replay::Recorder;
use super::site::{RouteSite, Site};
use crate::base::time::{Clock, Stopwatch};
use crate::observe::record::Record;
use crate::observe::sight::Blame;

/// What logs and counts call a request whose client hung up before it was answered.
const HUNG_UP: u16 = 499;

/// A request being told. Dropping it writes the access line and bumps the counters: exactly once, also when the client
/// hangs up and hyper drops the whole request.
pub struct Tale {
    record: Box<Record>,
    site: Rc<Site>,
    route: Option<Rc<RouteSite>>,
    listener: usize,
    request: Option<Rc<Recorder>>,
    watch: Stopwatch,
    blame: Option<Blame>,
}

impl Tale {
    /// Begins to tell a request that came in on the listener at this position.
    pub fn begin(site: &Rc<Site>, listener: usize, record: Record) -> Self {
        let record = Box::new(record);
        Self {
            record,
            site: site.clone(),
            route: None,
            listener,
            request: None,
            watch: Stopwatch::start(),
            blame: None,
        }
    }

    /// What is told.
    pub fn record(&mut self) -> &mut Record {
        &mut self.record
    }

    /// The listener, by position.
    pub const fn listener(&self) -> usize {
        self.listener
    }

    /// The clocks it is told by.
    pub fn clock(&self) -> Clock {
        self.site.shared.clock.clone()
    }

    /// From here on it is told under this route.
    pub fn follow(&mut self, route: &Rc<RouteSite>) {
        self.record.route = Some(route.route.name.clone());
        self.record.provider = Some(route.route.provider.name.clone());
        self.route = Some(route.clone());
    }

    /// It passes although this would have refused it, were its route's rules enforced.
    pub fn tolerate(&mut self, fault: Fault) {
        let record = &mut self.record;
        record.tolerated = Some(fault.name());
        tracing::warn!(
            route = record.route.as_deref(), client = record.client.as_deref(), method = %record.method,
            path = record.path.escape_debug().to_string(), request_id = %record.id, would_be = fault.name(),
            "passes, though the route's rules would refuse it: they are not enforced"
        );
    }

    /// It is answered with this fault.
    pub fn fail(&mut self, fault: Fault) {
        self.record.error = Some(fault.name());
        self.blame = Some(fault.blame());
    }

    /// Its request body is counted at the end.
    pub fn watch_body(&mut self, request: &Rc<Recorder>) {
        self.request = Some(request.clone());
    }
}

impl Drop for Tale {
    fn drop(&mut self) {
        if let Some(request) = &self.request {
            self.record.request_bytes = request.forwarded();
        }
        let status = self.record.status.unwrap_or(HUNG_UP);
        let took = self.watch.elapsed();
        let meters = match &self.route {
            Some(route) => route.meters(self.listener),
            None => self.site.unrouted(self.listener),
        };
        if let Some(meters) = meters {
            meters.finished(status, took);
        }
        let blame = self.blame.unwrap_or(Blame::of_status(status));
        self.site.see(self.route.as_deref(), &self.record, blame, took);
        self.site.write(&self.record);
    }
}

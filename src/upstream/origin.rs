//! Origins that take HTTP/2 by ALPN and then want HTTP/1.1 (`HTTP_1_1_REQUIRED`, RFC 9113 section 7).
//!
//! They are remembered for [`REMEMBERED`] by the thread that met them, and HTTP/2 is not offered to them meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::base::time::{Deadline, Now};

/// After this HTTP/2 is offered again: servers change.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// More origins than any config has; beyond, those that have nothing to be remembered are forgotten.
const MOST: usize = 4096;

/// The HTTP version that is remembered for one host and port.
#[derive(Default)]
pub(super) struct Origin {
    http1_until: Cell<Option<Deadline>>,
}

/// Origins by host and port.
type Origins = HashMap<(Arc<str>, u16), Rc<Origin>>;

thread_local! {
    static ORIGINS: RefCell<Origins> = RefCell::default();
}

impl Origin {
    /// Returns this thread's entry for an origin.
    pub(super) fn of(host: &Arc<str>, port: u16) -> Rc<Self> {
        ORIGINS.with_borrow_mut(|origins| {
            if origins.len() >= MOST {
                origins.retain(|_, origin| origin.http1_until.get().is_some());
            }
            origins.entry((host.clone(), port)).or_default().clone()
        })
    }

    /// It has asked for HTTP/1.1.
    pub(super) fn wants_http1(&self, now: Now) {
        self.http1_until.set(Some(Deadline::after(now, REMEMBERED)));
    }

    /// Returns whether HTTP/2 may be offered to the origin.
    pub(super) fn takes_http2(&self, now: Now) -> bool {
        if self.http1_until.get().is_some_and(|until| until.passed(now)) {
            self.http1_until.set(None);
        }
        self.http1_until.get().is_none()
    }

    /// Returns whether the origin requires HTTP/1.1: its open HTTP/2 connections take no new streams.
    pub(super) fn is_http1(&self) -> bool {
        self.http1_until.get().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_that_wants_http_1_is_remembered_for_a_day() {
        let at = |hours: u64| Now::at(hours * 3_600_000, hours * 3_600_000);
        let host: Arc<str> = "bank.example".into();
        assert!(Origin::of(&host, 443).takes_http2(at(0)));
        Origin::of(&host, 443).wants_http1(at(0));
        assert!(!Origin::of(&host, 443).takes_http2(at(23)) && Origin::of(&host, 443).is_http1());
        assert!(Origin::of(&host, 8443).takes_http2(at(23)), "another port is another origin");
        assert!(Origin::of(&host, 443).takes_http2(at(24)) && !Origin::of(&host, 443).is_http1());
    }
}

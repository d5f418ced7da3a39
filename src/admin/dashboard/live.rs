//! `GET /ui/live`: the middle of a page, again and again (server-sent events, WHATWG HTML section 9.2).
//!
//! A page is made only when its reader has taken the one before, so a slow reader costs nothing; and it is sent only if
//! it differs. Something that happened to a token is shown at once, the rest each second.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use tokio::sync::broadcast::Receiver;
use tokio::time::sleep;

use super::super::admin_response::{AdminResponse, event_stream, problem};
use super::super::auth::{StreamSlot, Visitor};
use super::page::{DashboardPage, Query};
use super::{Admin, identify};
use crate::base::secret::sha256;
use crate::control::ControlEvent;

pub(super) const PLACE: &str = "/ui/live";
/// Between two pages, where nothing special happens.
const PACE: Duration = Duration::from_secs(1);
/// After something happened: what follows from it at once is in the same page.
const GATHER: Duration = Duration::from_millis(60);
/// A comment is sent when nothing else was for so many turns.
const SILENT_TURNS: u32 = 15;

struct LiveViewer {
    admin: Rc<Admin>,
    visitor: Visitor,
    headers: HeaderMap,
    page: DashboardPage,
    query: Query,
    events: Receiver<Arc<ControlEvent>>,
    last: Option<[u8; 32]>,
    _place: StreamSlot,
}

/// Begins a stream of a page.
pub(super) fn begin(admin: &Rc<Admin>, visitor: &Visitor, head: &Parts, query: Query) -> AdminResponse {
    let Some(page) = DashboardPage::at(query.word("page")) else {
        return problem(StatusCode::NOT_FOUND, "there is no such page");
    };
    let Some(place) = admin.authorizer.take_stream_slot() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "as many watch as can; close another page first");
    };
    let viewer = LiveViewer {
        admin: admin.clone(),
        visitor: visitor.clone(),
        headers: head.headers.clone(),
        page,
        query,
        events: admin.events.listen(),
        last: None,
        _place: place,
    };
    event_stream(unfold(viewer, LiveViewer::next))
}

impl LiveViewer {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        if self.last.is_none() {
            // The first one tells which process this is: a page of an earlier one is loaded anew.
            let hello = format!("retry: 2000\nevent: hello\ndata: {}\n\n", self.admin.instance);
            self.last = Some([0; 32]);
            return Some((hello.into(), self));
        }
        for turn in 0..SILENT_TURNS {
            if turn > 0 || self.last != Some([0; 32]) {
                self.wait().await;
            }
            // A visitor who has logged out, or whose token was removed from the config, receives no more pages.
            let session = identify(&self.admin, &self.visitor, &self.headers)?;
            let middle = self.page.middle(&self.admin, &session, &self.query).await;
            let digest = sha256(middle.as_bytes());
            if self.last != Some(digest) {
                self.last = Some(digest);
                return Some((event(&middle), self));
            }
        }
        Some((Bytes::from_static(b":\n\n"), self))
    }

    async fn wait(&mut self) {
        tokio::select! {
            // A receiver that has lagged behind gets the latest page all the same.
            _ = self.events.recv() => sleep(GATHER).await,
            () = sleep(PACE) => {}
        }
        while self.events.try_recv().is_ok() {}
    }
}

/// The middle on the wire: a `data` line per line.
fn event(middle: &str) -> Bytes {
    let mut event = String::with_capacity(middle.len() + 64);
    event.push_str("event: page\n");
    for line in middle.split(['\n', '\r']) {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
    event.push('\n');
    event.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_page_ends_an_event() {
        assert_eq!(event("<p>\n\r\n</p>"), "event: page\ndata: <p>\ndata: \ndata: \ndata: </p>\n\n");
    }
}

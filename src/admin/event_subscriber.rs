//! `GET /api/v1/events`: the events of the process as they occur (server-sent events, WHATWG HTML section 9.2).
//!
//! Each stream reads from a bounded queue. A client that reads too slowly is sent the number of events that it missed,
//! and then its stream ends; it may connect again. A comment every 15 seconds keeps idle streams open, and detects
//! clients that have gone.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use http::{HeaderMap, StatusCode};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::Admin;
use super::admin_response::{AdminResponse, event_stream, problem};
use super::auth::{StreamSlot, Visitor, authenticate};
use super::view::EventView;
use crate::base::time::rfc3339;
use crate::config::Role;
use crate::control::{ControlEvent, EventKind};

/// A comment is sent when nothing else was for so long.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A client that reads one stream of events.
struct EventSubscriber {
    admin: Rc<Admin>,
    /// Header fields of the request, whose token is checked again after a reload.
    headers: HeaderMap,
    events: Receiver<Arc<ControlEvent>>,
    heartbeat: Interval,
    ends: bool,
    _place: StreamSlot,
}

/// Begins a stream of events. The response is 503 if too many are open.
pub(super) fn begin(admin: &Rc<Admin>, headers: &HeaderMap) -> AdminResponse {
    let Some(place) = admin.authorizer.take_stream_slot() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "as many listen as can; end another stream first");
    };
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let listener = EventSubscriber {
        admin: admin.clone(),
        headers: headers.clone(),
        events: admin.events.listen(),
        heartbeat,
        ends: false,
        _place: place,
    };
    event_stream(unfold(listener, EventSubscriber::next))
}

impl EventSubscriber {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        if self.ends {
            return None;
        }
        let encoded = tokio::select! {
            biased;
            event = self.events.recv() => match event {
                Ok(event) => {
                    self.ends = matches!(event.what, EventKind::Reload(_)) && !self.may_stay();
                    encode(&EventView::of(&event))
                }
                Err(RecvError::Lagged(missed)) => {
                    self.ends = true;
                    let at = rfc3339(self.admin.clock.now().wall);
                    encode(&EventView {
                        kind: "lagged",
                        at,
                        text: format!("{missed} events were missed; ask again for those to come"),
                        ..EventView::default()
                    })
                }
                Err(RecvError::Closed) => return None,
            },
            // The first one comes at once: so a reader knows that he is heard.
            _ = self.heartbeat.tick() => Bytes::from_static(b":\n\n"),
        };
        Some((encoded, self))
    }

    /// Returns whether the credential sent at the beginning is valid under the current config.
    fn may_stay(&self) -> bool {
        let snapshot = self.admin.reloads.current();
        let admin_listener = snapshot.admin.as_ref();
        admin_listener.is_some_and(|admin_listener| {
            authenticate(admin_listener, &self.headers).is_ok_and(|visitor: Visitor| visitor.may(Role::Read))
        })
    }
}

/// An event on the wire.
fn encode(event: &EventView) -> Bytes {
    // A view is texts and numbers, which can always be written; JSON has no line ends but in strings, escaped.
    let data = serde_json::to_string(event).unwrap_or_default();
    Bytes::from(format!("event: {}\ndata: {data}\n\n", event.kind))
}

//! Interim answers (1xx, RFC 9110 section 15.2) end here; too many of them end the exchange.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::Request;
use tokio::sync::Notify;

/// A provider that sends more than this has something else in mind.
const MOST: u32 = 32;

/// Counts the interim answers to one request. Shared with the parser, which asks for `Send`.
#[derive(Clone, Default)]
pub struct Interim(Arc<Count>);

#[derive(Default)]
struct Count {
    met: AtomicU32,
    too_many: Notify,
}

impl Interim {
    /// Counts what comes in answer to this request.
    pub fn watch<B>(&self, request: &mut Request<B>) {
        let count = self.0.clone();
        hyper::ext::on_informational(request, move |_| {
            if count.met.fetch_add(1, Ordering::Relaxed) == MOST {
                count.too_many.notify_one();
            }
        });
    }

    /// Ends when there were too many.
    pub async fn too_many(&self) {
        self.0.too_many.notified().await;
    }
}

//! The choice of requests to trace, and the queue of finished spans.
//!
//! The queue is a list with a counter: while tracing is off it takes no memory, and its bound is a number. Finishing a
//! span never waits; a span that finds the queue full is dropped and counted.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::context::Context;
use super::span::Span;
use crate::base::resource_usage::ResourceUsage;

/// Finished spans that wait to be sent, at most.
const MOST_QUEUED: u64 = 16_384;
/// The threshold that turns tracing off.
const OFF: u64 = u64::MAX;
/// One more than the greatest [`chance`](super::TraceId::chance) of a trace.
const ALL: u64 = 1 << 56;

/// Decides who is traced, and takes finished spans. Cheap to clone; safe from any thread.
#[derive(Clone)]
pub struct Tracer(Arc<TracerState>);

struct TracerState {
    /// A new trace is recorded if its chance is at least this; [`OFF`]: there is no tracing.
    threshold: AtomicU64,
    queue: Sender<Span>,
    queued: ResourceUsage,
    dropped: AtomicU64,
}

/// The end at which finished spans come out.
pub struct Spans {
    queue: Receiver<Span>,
    tracer: Tracer,
}

impl Tracer {
    /// Creates both ends. No request is traced until [`Tracer::set`] turns tracing on.
    pub fn open() -> (Self, Spans) {
        let (sender, queue) = channel();
        let (queued, dropped) = (ResourceUsage::default(), AtomicU64::new(0));
        let tracer = Self(Arc::new(TracerState { threshold: AtomicU64::new(OFF), queue: sender, queued, dropped }));
        (tracer.clone(), Spans { queue, tracer })
    }

    /// From now on this share of new traces is recorded, between 0 and 1; `None`: there is no tracing.
    pub fn set(&self, sample: Option<f64>) {
        let threshold = sample.map_or(OFF, |share| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a share of 2^56, clamped to it; the last bits do not matter"
            )]
            let kept = (share.clamp(0.0, 1.0) * ALL as f64) as u64;
            ALL - kept.min(ALL)
        });
        self.0.threshold.store(threshold, Ordering::Relaxed);
    }

    /// Begins a span: below `parent`, recorded if that is, or the first of a new trace. `None`: there is no tracing.
    #[inline]
    pub fn begin(&self, parent: Option<Context>) -> Option<Context> {
        let threshold = self.0.threshold.load(Ordering::Relaxed);
        if threshold == OFF {
            return None;
        }
        Some(match parent {
            Some(parent) => parent.sibling(),
            None => {
                let first = Context::new();
                first.recorded(first.trace.chance() >= threshold)
            }
        })
    }

    /// Takes a finished span, or drops it if too many wait. A span that is not recorded is ignored.
    pub fn tell(&self, span: Span) {
        if !span.context.sampled() {
            return;
        }
        if !self.0.queued.try_acquire(1, MOST_QUEUED) || self.0.queue.send(span).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tracer")
    }
}

impl Spans {
    /// The oldest finished spans, `most` at most. Does not wait.
    pub fn take(&self, most: usize) -> Vec<Span> {
        let taken: Vec<Span> = self.queue.try_iter().take(most).collect();
        self.tracer.0.queued.release(taken.len() as u64);
        taken
    }

    /// Returns the number of spans that found the queue full since the last call.
    pub fn dropped(&self) -> u64 {
        self.tracer.0.dropped.swap(0, Ordering::Relaxed)
    }
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spans")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::trace::Kind;

    fn span(context: Context) -> Span {
        Span {
            context,
            parent: None,
            remote: false,
            kind: Kind::Internal,
            name: "test".into(),
            start: 0,
            end: 0,
            attributes: Vec::new(),
            links: Vec::new(),
            failed: false,
        }
    }

    #[test]
    fn a_share_of_new_traces_is_recorded_and_a_parent_decides_for_its_children() {
        let (tracer, _spans) = Tracer::open();
        assert_eq!(tracer.begin(None), None, "off until set");
        let recorded = |share| {
            tracer.set(Some(share));
            (0..4000).filter(|_| tracer.begin(None).unwrap().sampled()).count()
        };
        assert_eq!((recorded(0.0), recorded(1.0)), (0, 4000));
        // Ten standard deviations to either side.
        assert!((720..1280).contains(&recorded(0.25)));
        tracer.set(Some(0.0));
        let parent = Context::new().recorded(true);
        let child = tracer.begin(Some(parent)).unwrap();
        assert!(child.sampled() && child.trace == parent.trace && child.span != parent.span);
        tracer.set(Some(1.0));
        assert!(!tracer.begin(Some(parent.recorded(false))).unwrap().sampled());
        tracer.set(None);
        assert_eq!(tracer.begin(Some(parent)), None);
    }

    #[test]
    fn the_queue_has_a_bound_and_what_is_dropped_is_counted() {
        let (tracer, spans) = Tracer::open();
        let recorded = Context::new().recorded(true);
        for _ in 0..MOST_QUEUED + 5 {
            tracer.tell(span(recorded));
        }
        tracer.tell(span(recorded.recorded(false)));
        assert_eq!((spans.dropped(), spans.dropped()), (5, 0));
        assert_eq!(spans.take(3).len(), 3);
        tracer.tell(span(recorded));
        assert_eq!(spans.take(usize::MAX).len() as u64, MOST_QUEUED - 2);
        assert_eq!(spans.dropped(), 0);
    }
}

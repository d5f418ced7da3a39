//! The span of a fetch.
//!
//! A fetch belongs to the keeper. A fetch that a waiting request starts is recorded as a child of that request's wait,
//! so that the trace shows the cause of the delay; requests that join it later are linked. A fetch that no request
//! waits for when it starts (a renewal) is a trace of its own, with links to the requests that wait for it later.

use std::sync::Arc;

use crate::base::secret::Fingerprint;
use crate::base::time::Now;
use crate::observe::trace::{Context, Kind, Span, Tracer};
use crate::token::failure::Class;
use crate::token::key::TokenKey;

/// Requests that are linked to one fetch. Thousands may wait; a few tell as much.
const MOST_LINKS: usize = 16;

/// The span of a fetch under way, where traces are on.
#[derive(Default)]
pub(super) struct FetchTrace(Option<Box<FetchSpan>>);

struct FetchSpan {
    tracer: Tracer,
    context: Context,
    parent: Option<Context>,
    links: Vec<Context>,
}

impl FetchTrace {
    /// Starts the span of a fetch. `cause` is the wait of the request that started it; absent: no request did.
    pub(super) fn begin(tracer: Option<&Tracer>, cause: Option<Context>) -> Self {
        let begun = tracer.and_then(|tracer| {
            let context = tracer.begin(cause).filter(|context| context.sampled())?;
            Some(Box::new(FetchSpan { tracer: tracer.clone(), context, parent: cause, links: Vec::new() }))
        });
        Self(begun)
    }

    /// A request waits for it, too.
    pub(super) fn wait(&mut self, cause: Context) {
        if let Some(begun) = self.0.as_mut().filter(|begun| begun.links.len() < MOST_LINKS) {
            begun.links.push(cause);
        }
    }

    /// Ends the span and passes it to the tracer.
    pub(super) fn end(
        self,
        key: TokenKey,
        provider: &Arc<str>,
        outcome: Result<Option<Fingerprint>, Class>,
        (started, ended): (Now, Now),
    ) {
        let Some(begun) = self.0 else { return };
        let FetchSpan { tracer, context, parent, links } = *begun;
        let start = started.wall.saturating_mul(1_000_000);
        let took = u64::try_from(ended.since(started).as_nanos()).unwrap_or(u64::MAX);
        let mut span = Span {
            context,
            parent: parent.map(|parent| parent.span),
            remote: false,
            kind: Kind::Internal,
            name: "token fetch".into(),
            start,
            end: start.saturating_add(took),
            attributes: Vec::with_capacity(4),
            links,
            failed: outcome.is_err(),
        };
        span.tell("countersign.provider", provider);
        span.tell("countersign.token_key", key.to_string());
        match outcome {
            Ok(Some(token)) => span.tell("countersign.token", token.to_string()),
            Ok(None) => {}
            Err(class) => span.tell("error.type", class.as_str()),
        }
        tracer.tell(span);
    }
}

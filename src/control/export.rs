//! The export of finished spans to a collector: OTLP over HTTP, in protobuf, in batches.
//!
//! No request waits for it. A batch that the collector does not accept now is offered again a few times; meanwhile
//! spans queue up to their bound, and those that do not fit are dropped and counted. Failures of the collector are
//! logged once a minute at most.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Reloads;
use super::token_call::AGENT;
use crate::base::time::{Clock, Now, Within};
use crate::config::Tracing;
use crate::observe::metrics::Metrics;
use crate::observe::trace::otlp::{MEDIA_TYPE, OtlpResource, encode, rejected};
use crate::observe::trace::{Span, Spans};
use crate::upstream::{AskError, Clear, Destination, EgressPath};

/// Finished spans are looked for this often.
const LOOK: Duration = Duration::from_millis(500);
/// Maximum number of spans in one export request.
const BATCH: usize = 512;
/// A batch is offered so often before it is given up.
const TRIES: u32 = 5;
/// The first pause before a batch is offered again; each one is twice as long as the one before.
const PAUSE: Duration = Duration::from_secs(1);
/// A collector may ask for no longer pause than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Failures are told of this often.
const COMPLAIN: Duration = Duration::from_secs(60);
/// Time allowed for exporting the remaining spans when the process ends.
const LAST: Duration = Duration::from_secs(2);
/// More of an answer than this is not read.
const MOST_ANSWER: usize = 64 * 1024;

/// The exporter of finished spans. Runs on the control thread.
pub struct Exporter {
    spans: Spans,
    reloads: Reloads,
    metrics: Arc<Metrics>,
    clock: Clock,
    instance: String,
    complained: Option<Now>,
    untold: u64,
}

/// The result of offering a batch to the collector.
enum Offered {
    /// It is there; so many spans of it were not wanted.
    Taken { rejected: u64 },
    /// It may be taken later, perhaps after this long.
    Later(String, Option<Duration>),
    /// It will never be taken.
    Never(String),
}

impl Exporter {
    /// Builds an exporter of these spans. The current config determines the collector.
    pub fn new(spans: Spans, reloads: Reloads, metrics: Arc<Metrics>, clock: Clock) -> Self {
        let instance = Uuid::new_v4().to_string();
        Self { spans, reloads, metrics, clock, instance, complained: None, untold: 0 }
    }

    /// Exports until `end`, and then what is left, for two seconds at most.
    pub async fn run(mut self, end: CancellationToken) {
        let grace = async {
            end.cancelled().await;
            sleep(LAST).await;
        };
        tokio::select! {
            () = self.work(&end) => {}
            () = grace => {}
        }
    }

    async fn work(&mut self, end: &CancellationToken) {
        let mut news = self.reloads.news();
        loop {
            let on = news.borrow_and_update().tracing.is_some();
            let last = tokio::select! {
                biased;
                () = end.cancelled() => true,
                () = sleep(LOOK), if on => false,
                changed = news.changed(), if !on => changed.is_err(),
            };
            loop {
                self.metrics.spans("dropped", self.spans.dropped());
                let batch = self.spans.take(BATCH);
                if batch.is_empty() {
                    break;
                }
                self.deliver(&batch, end).await;
            }
            if last {
                return;
            }
        }
    }

    /// Offers a batch until it is taken or given up.
    async fn deliver(&mut self, batch: &[Span], end: &CancellationToken) {
        let count = batch.len() as u64;
        let mut pause = PAUSE;
        for attempt in 1..=TRIES {
            // The config may change meanwhile, and with it the collector.
            let current = self.reloads.current();
            let Some(tracing) = &current.tracing else {
                return self.metrics.spans("dropped", count);
            };
            let offered = self.offer(tracing, batch).await;
            let (why, wished) = match offered {
                Offered::Taken { rejected } => {
                    let rejected = rejected.min(count);
                    self.metrics.spans("exported", count - rejected);
                    self.metrics.spans("failed", rejected);
                    if rejected > 0 {
                        self.complain("it rejected some", rejected);
                    }
                    return;
                }
                Offered::Later(why, wished) if attempt < TRIES && !end.is_cancelled() => (why, wished),
                Offered::Later(why, _) | Offered::Never(why) => {
                    self.metrics.spans("failed", count);
                    return self.complain(&why, count);
                }
            };
            self.complain(&why, 0);
            tokio::select! {
                () = sleep(wished.unwrap_or(pause).min(LONGEST_PAUSE)) => {}
                () = end.cancelled() => {}
            }
            pause *= 2;
        }
    }

    async fn offer(&self, tracing: &Tracing, batch: &[Span]) -> Offered {
        let now = self.clock.now();
        let resource = OtlpResource { service: &tracing.service, instance: &self.instance };
        let request = match request(tracing, encode(resource, batch)) {
            Ok(request) => request,
            Err(error) => return Offered::Never(error.to_string()),
        };
        let url = &tracing.collector.url;
        let connect_timeout = tracing.timeout / 2;
        let within = Within(tracing.timeout);
        let asked = match &tracing.collector.tls {
            None => {
                let place = Clear { host: url.bare_host(), port: url.port(), connect_timeout };
                place.ask(request, MOST_ANSWER, within, now).await
            }
            Some(tls) => {
                let place = Destination {
                    host: url.bare_host().into(),
                    port: url.port(),
                    tls: tls.clone(),
                    server_name: url.server_name().clone(),
                    path: EgressPath::default(),
                    connect_timeout,
                };
                place.ask(request, MOST_ANSWER, within, now).await
            }
        };
        let answer = match asked {
            Ok(answer) => answer,
            Err(AskError::Timeout(_)) => return Offered::Later("it does not answer".to_owned(), None),
            Err(error) => return Offered::Later(error.to_string(), None),
        };
        let status = answer.status();
        match status {
            _ if status.is_success() => Offered::Taken { rejected: rejected(answer.body()) },
            // Those that OTLP calls retryable.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                let wished = answer.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
                Offered::Later(format!("HTTP {}", status.as_u16()), wished.map(Duration::from_secs))
            }
            _ => Offered::Never(format!("HTTP {}", status.as_u16())),
        }
    }

    /// Tells the operator, once a minute at most.
    fn complain(&mut self, why: &str, lost: u64) {
        self.untold += lost;
        let now = self.clock.now();
        if self.complained.is_some_and(|before| now.since(before) < COMPLAIN) {
            return;
        }
        self.complained = Some(now);
        tracing::warn!(why, lost = std::mem::take(&mut self.untold), "trace export failed");
    }
}

fn request(tracing: &Tracing, body: Vec<u8>) -> Result<Request<Full<Bytes>>, http::Error> {
    let url = &tracing.collector.url;
    let host = url.authority();
    let length = body.len();
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(&*tracing.collector.path)
        .header(HOST, host)
        .header(CONTENT_TYPE, MEDIA_TYPE)
        .header(CONTENT_LENGTH, length)
        .header(USER_AGENT, HeaderValue::from_static(AGENT))
        .body(Full::new(Bytes::from(body)))?;
    request.headers_mut().extend(tracing.headers.iter().cloned());
    Ok(request)
}

//! A provider's answer on its way to the client: searched for credentials, stripped of what ends here, streamed.

use std::rc::Rc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRAILER};
use http::{HeaderValue, Response, StatusCode, Version};
use hyper::body::Body;

use crate::base::coding::is_coded;
use crate::config::Reflection;
use crate::provider::RecordingCopy;
use crate::serve::exchanges::credential_scanner::{CredentialPatterns, CredentialScanner};
use crate::serve::exchanges::peek::{Peeked, decode, peek};
use crate::serve::exchanges::response_body::{Lent, Reflected, ResponseBody, ResponseScreen, StreamedBody, Switch};
use crate::serve::exchanges::upgrade::{self, Splice, Turning};
use crate::serve::fault::{Fault, PROXY_STATUS};
use crate::serve::reports::own_response::own_response;
use crate::serve::reports::request_log::RequestLog;
use crate::serve::requests::headers::{self, Trailers};
use crate::serve::requests::hop_options::{HopOptions, ReadsTrailers};
use crate::serve::worker_state::RouteState;
use crate::upstream::ReceivedBody;

/// An answer that goes to the client.
pub struct UpstreamResponse {
    /// Its head, and what was not read of its body.
    pub response: Response<ReceivedBody>,
    /// The part of its body that was read.
    pub peeked: Option<Peeked>,
    /// Absent where the connection is not a pool's.
    pub lent: Option<Lent>,
    /// The source of its connection if that becomes a WebSocket.
    pub turning: Option<Turning>,
    /// `Proxy-Status`, if there is something to say.
    pub note: Option<HeaderValue>,
    /// Longest silence in its body.
    pub patience: Duration,
    /// The hop-by-hop options that the client's request asked for.
    pub hop: HopOptions,
    pub route: Rc<RouteState>,
    /// Credentials that must not be in it.
    pub patterns: Option<Rc<CredentialPatterns>>,
    /// The search for credentials in the part that has yet to be streamed.
    pub screen: Option<ResponseScreen>,
    /// The copy of the exchange for a recording, if it is recorded.
    pub copy: Option<Box<RecordingCopy>>,
}

impl UpstreamResponse {
    /// The answer as the client gets it.
    pub fn into_response(self, mut log: RequestLog) -> Response<ResponseBody> {
        let (mut head, rest) = self.response.into_parts();
        headers::strip_response(&mut head.headers);
        head.extensions.clear();
        head.version = Version::HTTP_11;
        let trailers = match self.hop.trailers {
            ReadsTrailers::Any => Trailers::Any,
            ReadsTrailers::Announced => Trailers::Announced(headers::announced(&head.headers)),
            ReadsTrailers::No => {
                head.headers.remove(TRAILER);
                Trailers::Dropped
            }
        };
        let lengthy =
            !self.hop.http2 && head.status == StatusCode::NOT_MODIFIED && head.headers.contains_key(CONTENT_LENGTH);
        if let Some(note) = self.note {
            head.headers.insert(PROXY_STATUS, note);
        }
        log.record().status = Some(head.status.as_u16());
        let peeked = self.peeked.unwrap_or_default();
        let stream = StreamedBody {
            pieces: peeked.pieces.into(),
            rest,
            lent: self.lent,
            patience: self.patience,
            silence: None,
            broken: peeked.broken,
            peeked_trailers: peeked.trailers,
            trailers,
            screen: self.screen,
            copy: self.copy,
            holding: None,
            waiting: bytes::Bytes::new(),
            cut: None,
            finished: false,
            lengthy,
        };
        Response::from_parts(head, ResponseBody::stream(stream, log))
    }

    /// The answer after which the connection is a WebSocket.
    pub async fn switch(mut self, mut log: RequestLog) -> Response<ResponseBody> {
        let provider = match upgrade::grant(&self.response, self.turning.take()).await {
            Ok(provider) => provider,
            Err(fault) => return own_response(fault, log),
        };
        let (mut head, _) = self.response.into_parts();
        headers::strip_response(&mut head.headers);
        upgrade::put_on(&mut head.headers);
        head.extensions.clear();
        log.record().status = Some(head.status.as_u16());
        let open = upgrade::UpgradeCount::new(self.route.gauge.clone());
        let clock = log.clock();
        let splice = Splice { provider, log, idle: Some(self.patience), lifetime: None, clock, open };
        Response::from_parts(head, ResponseBody::switch(Switch::Splice(Box::new(splice))))
    }

    /// Looks for credentials in the head and in what was read of the body, and sees to it that the rest is searched.
    pub async fn screen(&mut self) -> Result<(), Fault> {
        let Some(patterns) = self.patterns.take() else { return Ok(()) };
        let blocks = self.route.route.reflection == Reflection::Block;
        if patterns.mask_fields(self.response.headers_mut()) {
            self.route.report_reflection(if blocks { "blocked for its head" } else { "masked in the head" });
            if blocks {
                return Err(Fault::UpstreamReflection);
            }
        }
        let plain = !is_coded(self.response.headers());
        if blocks && plain && self.peeked.is_none() && !self.response.body().is_end_stream() {
            self.peeked = Some(Box::pin(peek(&mut self.response, self.patience)).await);
        }
        let echoed = match &self.peeked {
            Some(peeked) if !plain => {
                decode(self.response.headers(), peeked).is_some_and(|body| patterns.found_in(&body))
            }
            Some(peeked) if blocks => patterns.found_in(&peeked.pieces.concat()),
            Some(_) | None => false,
        };
        if echoed {
            // A compressed body cannot be masked without changing its length.
            self.route.report_reflection("blocked for its body");
            return Err(Fault::UpstreamReflection);
        }
        let unread = self.peeked.as_ref().is_some_and(|peeked| !peeked.pieces.is_empty() || peeked.trailers.is_some());
        if !unread && self.response.body().is_end_stream() {
            return Ok(());
        }
        // If the wait for the first part was cut short, the rest of that part can only be masked.
        let unfinished = self.peeked.as_ref().is_some_and(|peeked| !peeked.is_finished());
        let scanner = (plain && (!blocks || unfinished)).then(|| CredentialScanner::new(patterns.clone()));
        let screen = ResponseScreen { patterns, scanner, blocks, route: self.route.clone() };
        // Those that were read already can still be refused as a whole.
        if blocks && let Some(trailers) = self.peeked.as_mut().and_then(|peeked| peeked.trailers.as_mut()) {
            screen.trailers(trailers).map_err(|Reflected| Fault::UpstreamReflection)?;
        }
        self.screen = Some(screen);
        Ok(())
    }

    /// Drops the answer. Its connection is reused only if the whole answer had been read.
    pub fn discard(self) {
        let read = self.response.body().is_end_stream() && self.peeked.as_ref().is_none_or(|peeked| peeked.whole);
        if let Some(mut copy) = self.copy.filter(|_| read) {
            self.peeked.iter().flat_map(|peeked| &peeked.pieces).for_each(|piece| copy.piece(piece));
            copy.finish();
        }
        if let Some(lent) = self.lent.filter(|_| read) {
            lent.settle();
        }
    }
}

//! One request, from its head to the response that leaves: read, record, ask the bank, spoil.

use std::io;
use std::io::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, DATE, HOST, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::base::secret::sha256;
use crate::base::time::Clock;
use crate::sim::call::{SimCall, SimEndpoint};
use crate::sim::faults::{Close, ResponseFault, Spell, Verbatim};
use crate::sim::received::{BODY_KEPT, ReceivedRequest};
use crate::sim::sim_body::{BodyEnding, SimBody};
use crate::sim::sim_response::{Content, SimResponse};
use crate::sim::sim_state::SimState;
use crate::sim::sim_stream::ConnectionControl;
use crate::sim::{control, resource};

/// Serves one request. An error breaks the connection.
pub(super) async fn serve_exchange(
    desk: Arc<SimState>,
    link: Rc<ConnectionControl>,
    connection: u64,
    request: Request<Incoming>,
) -> io::Result<Response<SimBody>> {
    let (head, mut body) = request.into_parts();
    let version = head.version;
    if head.uri.path().starts_with("/_sim/") {
        let body = collect(&mut body).await?;
        let answer = control::answer(&desk, &head.method, head.uri.path(), &body);
        return Ok(response(answer.status, answer.headers, SimBody::new(answer.content, link)));
    }
    // A refresh endpoint behind the token endpoint has its weather.
    let endpoint = match head.uri.path().strip_prefix(desk.member.token_path) {
        Some("" | "/refresh") if !desk.member.token_path.is_empty() => SimEndpoint::Token,
        Some(_) | None if desk.described.is_some_and(|file| file.is_login(head.uri.path())) => SimEndpoint::Token,
        Some(_) | None => SimEndpoint::Resource,
    };
    let faults = desk.faults();
    let (fault, hit) = faults.meet(endpoint);
    desk.count(endpoint);
    let trouble = fault.trouble.as_ref().filter(|_| hit);
    let delay = fault.delay.filter(|_| hit);
    let mut recorder = RequestRecorder::new(desk.clone(), connection, endpoint, head);
    if let Some(ResponseFault::AnswerEarly(verbatim)) = trouble {
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        // The rest of the request is read and recorded while the response is on its way.
        tokio::task::spawn_local(async move {
            if recorder.fill(&mut body).await.is_ok() {
                recorder.finish();
            }
        });
        let answer = verbatim_answer(verbatim);
        return Ok(response(answer.status, answer.headers, SimBody::new(answer.content, link)));
    }
    recorder.fill(&mut body).await?;
    let call = recorder.call(&faults);
    recorder.finish();
    let answer = match trouble {
        Some(trouble) if !trouble.processed() => SimResponse::bare(StatusCode::OK),
        Some(_) | None => work(&desk, &call, endpoint),
    };
    if let Some(delay) = delay {
        tokio::time::sleep(delay).await;
    }
    let answer = replaced(answer, trouble);
    let answer = if fault.compress { compressed(answer, &call.headers) } else { answer };
    let mut headers = answer.headers;
    // A bank whose clock is a test's says so; otherwise hyper does.
    if let Clock::Manual(manual) = &desk.clock
        && headers.iter().all(|(name, _)| name != DATE)
    {
        let wall = UNIX_EPOCH + Duration::from_millis(manual.now().wall);
        headers.extend(HeaderValue::try_from(httpdate::fmt_http_date(wall)).map(|date| (DATE, date)));
    }
    // Over HTTP/1.1 hyper does so.
    let content = if call.method == Method::HEAD && version == Version::HTTP_2 {
        let (length, withheld) = answer.content.withheld();
        headers.extend(length.map(|length| (CONTENT_LENGTH, length.into())));
        withheld
    } else {
        answer.content
    };
    let mut body = SimBody::new(content, link.clone());
    match trouble {
        Some(ResponseFault::CutBody) => body.ending(|total| BodyEnding::Cut(total / 2)),
        Some(ResponseFault::Garbage(bytes)) => link.garbage(bytes.clone()),
        Some(ResponseFault::ResetAfterHead) => body.ending(|_| BodyEnding::Reset),
        Some(ResponseFault::ResetBeforeAnswer) => {
            link.reset();
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Some(ResponseFault::SlowBody { chunk, pause }) => body.drip(*chunk, *pause),
        Some(
            ResponseFault::AnswerEarly(_)
            | ResponseFault::DeepJson(_)
            | ResponseFault::HtmlError(_)
            | ResponseFault::HugeBody(_)
            | ResponseFault::Verbatim(_),
        )
        | None => {}
    }
    match fault.close {
        Close::Announced if version == Version::HTTP_2 => body.closes(),
        Close::Announced => {
            headers.push((CONNECTION, HeaderValue::from_static("close")));
        }
        Close::Never => {}
        Close::Silent => body.closes(),
    }
    Ok(response(answer.status, headers, body))
}

/// The bank's own work on a whole call.
fn work(desk: &SimState, call: &SimCall, endpoint: SimEndpoint) -> SimResponse {
    let below_base = call.path.strip_prefix(desk.member.base_path).is_some_and(|below| below.starts_with('/'));
    match endpoint {
        SimEndpoint::Token if call.path == desk.member.token_path => (desk.member.token)(desk, call),
        SimEndpoint::Resource | SimEndpoint::Token if below_base => resource::answer_resource(desk, call),
        SimEndpoint::Resource | SimEndpoint::Token => (desk.member.missing)(call),
    }
}

/// The answer that stands in the place of the bank's, for troubles that put one there.
fn replaced(answer: SimResponse, trouble: Option<&ResponseFault>) -> SimResponse {
    match trouble {
        Some(ResponseFault::AnswerEarly(verbatim) | ResponseFault::Verbatim(verbatim)) => verbatim_answer(verbatim),
        Some(ResponseFault::DeepJson(depth)) => {
            SimResponse::json(StatusCode::OK, format!("{}{}", "[".repeat(*depth), "]".repeat(*depth)))
        }
        Some(ResponseFault::HtmlError(status)) => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY);
            let reason = status.canonical_reason().unwrap_or("Error");
            let page = format!("<html><head><title>{reason}</title></head><body><h1>{reason}</h1></body></html>\n");
            SimResponse::typed(status, "text/html", page)
        }
        Some(ResponseFault::HugeBody(length)) => {
            let mut answer = SimResponse::json(StatusCode::OK, "");
            answer.content = Content::Filler { length: *length, announced: true };
            answer
        }
        Some(
            ResponseFault::CutBody
            | ResponseFault::Garbage(_)
            | ResponseFault::ResetAfterHead
            | ResponseFault::ResetBeforeAnswer
            | ResponseFault::SlowBody { .. },
        )
        | None => answer,
    }
}

fn verbatim_answer(verbatim: &Verbatim) -> SimResponse {
    let mut answer =
        SimResponse::bare(StatusCode::from_u16(verbatim.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    for (name, value) in &verbatim.headers {
        if let Ok(name) = name.parse::<HeaderName>() {
            answer = answer.with(name, value);
        }
    }
    answer.content = Content::Bytes(verbatim.body.clone());
    answer
}

/// Compresses a response with the first of gzip and deflate that the client accepts; returns it unchanged if there is
/// none.
fn compressed(mut answer: SimResponse, asked: &HeaderMap) -> SimResponse {
    let Content::Bytes(bytes) = &answer.content else { return answer };
    let accepts = |coding: &str| {
        let fields = asked.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        fields.flat_map(|field| field.split(',')).any(|one| {
            let (name, weight) = one.split_once(';').unwrap_or((one, ""));
            name.trim().eq_ignore_ascii_case(coding) && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
        })
    };
    let packed = if accepts("gzip") {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).map(|packed| ("gzip", packed))
    } else if accepts("deflate") {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).map(|packed| ("deflate", packed))
    } else {
        return answer;
    };
    if let Ok((coding, packed)) = packed {
        answer.content = Content::Bytes(packed.into());
        answer.headers.push((CONTENT_ENCODING, HeaderValue::from_static(coding)));
    }
    answer
}

fn response(status: StatusCode, headers: Vec<(HeaderName, HeaderValue)>, body: SimBody) -> Response<SimBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in headers {
        response.headers_mut().append(name, value);
    }
    response
}

/// The body of a control request; what is too long for one is dropped.
async fn collect(body: &mut Incoming) -> io::Result<Bytes> {
    let mut kept = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data()
            && kept.len() < BODY_KEPT
        {
            kept.extend_from_slice(&data);
        }
    }
    Ok(kept.freeze())
}

/// A recorder that gathers one request. The request is recorded when it is whole, or as aborted if the connection
/// breaks and the recorder is dropped.
struct RequestRecorder {
    desk: Arc<SimState>,
    connection: u64,
    endpoint: SimEndpoint,
    head: Parts,
    trailers: HeaderMap,
    body: BytesMut,
    length: u64,
    hash: digest::Context,
    whole: bool,
}

impl RequestRecorder {
    fn new(desk: Arc<SimState>, connection: u64, endpoint: SimEndpoint, head: Parts) -> Self {
        Self {
            desk,
            connection,
            endpoint,
            head,
            trailers: HeaderMap::new(),
            body: BytesMut::new(),
            length: 0,
            hash: digest::Context::new(&digest::SHA256),
            whole: false,
        }
    }

    /// Reads the body to its end.
    ///
    /// The end of a body of known length is seen from its length: once the response has left, hyper tells of the end
    /// only with the next request. A chunked body that outlasts an early answer is therefore recorded as aborted if
    /// its connection brings no other request.
    async fn fill(&mut self, body: &mut Incoming) -> io::Result<()> {
        while !body.is_end_stream() {
            let Some(frame) = body.frame().await else { break };
            match frame.map_err(io::Error::other)?.into_data() {
                Ok(data) => {
                    self.length = self.length.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
                    self.hash.update(&data);
                    let room = BODY_KEPT.saturating_sub(self.body.len()).min(data.len());
                    self.body.extend_from_slice(data.get(..room).unwrap_or_default());
                }
                Err(frame) => self.trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        Ok(())
    }

    fn sha256(&self) -> [u8; 32] {
        if self.length == 0 {
            return sha256(b"");
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(self.hash.clone().finish().as_ref());
        hash
    }

    fn authority(&self) -> Option<String> {
        let host = || self.head.headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        self.head.uri.authority().map(ToString::to_string).or_else(host)
    }

    /// The whole request, for the bank.
    fn call(&mut self, faults: &Arc<Spell>) -> SimCall {
        let path = self.head.uri.path().to_owned();
        let below = path.strip_prefix(self.desk.member.base_path).unwrap_or(&path).to_owned();
        SimCall {
            method: self.head.method.clone(),
            below,
            path,
            query: self.head.uri.query().map(str::to_owned),
            authority: self.authority().unwrap_or_default(),
            headers: self.head.headers.clone(),
            body: Bytes::copy_from_slice(&self.body),
            body_length: self.length,
            body_sha256: self.sha256(),
            now: self.desk.clock.now(),
            faults: faults.clone(),
        }
    }

    /// The body came to its end.
    fn finish(mut self) {
        self.whole = true;
    }
}

impl Drop for RequestRecorder {
    fn drop(&mut self) {
        let pairs = |map: &HeaderMap| map.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        self.desk.record(ReceivedRequest {
            number: 0,
            connection: self.connection,
            at: self.desk.clock.now(),
            endpoint: self.endpoint,
            version: self.head.version,
            method: self.head.method.clone(),
            path: self.head.uri.path().to_owned(),
            query: self.head.uri.query().map(str::to_owned),
            authority: self.authority(),
            headers: pairs(&self.head.headers),
            trailers: pairs(&self.trailers),
            body_length: self.length,
            body_sha256: self.sha256(),
            aborted: !self.whole,
            body: std::mem::take(&mut self.body).freeze(),
        });
    }
}

//! Opening of answers that their profile has decrypted and verified: the whole body is read first, and nothing of it goes
//! to the client unless all of it could be opened.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderName, Response};
use http_body_util::BodyExt as _;
use thiserror::Error;
use tokio::time::timeout;

use crate::base::time::{Now, Within};
use crate::provider::{JoseBody, MessageOpener, OpenFailure, OpenedMessage, SignedHead, SignedRequestHead};
use crate::serve::exchanges::peek::Peeked;
use crate::serve::fault::Fault;
use crate::serve::worker_state::RouteState;
use crate::upstream::ReceivedBody;

/// The header fields that state a digest of the body as the provider sent it (RFC 9530, RFC 3230, RFC 1864).
pub(in crate::serve) const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

/// The reason for which an answer is withheld.
#[derive(Debug, Error)]
enum Unopened {
    #[error("its body broke off")]
    Broken,
    #[error(transparent)]
    Message(#[from] OpenFailure),
    #[error("its body came too slowly")]
    Slow,
    #[error("its body is larger than `replay_limit`")]
    TooLarge,
}

/// Reads an answer's body whole and opens it; the head is then that of what was in it. `request`: the one that it
/// answers.
pub(in crate::serve) async fn open(
    opener: &MessageOpener,
    response: &mut Response<ReceivedBody>,
    request: SignedRequestHead,
    route: &RouteState,
    now: Now,
) -> Result<Peeked, Fault> {
    match read_and_open(opener, response, request, route, now).await {
        Ok(OpenedMessage::Verified(body)) => {
            let pieces = if body.is_empty() { Vec::new() } else { vec![Bytes::from(body)] };
            Ok(Peeked { pieces, whole: true, broken: false, trailers: None })
        }
        Ok(OpenedMessage::Opened(JoseBody { content, content_type })) => {
            let headers = response.headers_mut();
            for name in DIGESTS.iter().chain([&CONTENT_ENCODING, &ETAG]) {
                headers.remove(name);
            }
            if let Some(content_type) = content_type {
                headers.insert(CONTENT_TYPE, content_type);
            }
            headers.insert(CONTENT_LENGTH, content.len().into());
            let pieces = if content.is_empty() { Vec::new() } else { vec![Bytes::copy_from_slice(&content)] };
            Ok(Peeked { pieces, whole: true, broken: false, trailers: None })
        }
        Err(unopened) => {
            route.report_unopened(&unopened);
            Err(Fault::UpstreamUnopened)
        }
    }
}

async fn read_and_open(
    opener: &MessageOpener,
    response: &mut Response<ReceivedBody>,
    request: SignedRequestHead,
    route: &RouteState,
    now: Now,
) -> Result<OpenedMessage, Unopened> {
    let most = usize::try_from(route.route.replay_limit).unwrap_or(usize::MAX);
    let body = read(response.body_mut(), most, route.route.timeouts.body_idle).await?;
    let within = Within(route.route.timeouts.response);
    let (status, headers) = (response.status(), response.headers().clone());
    let head = SignedHead::Answer { status, headers, request: Some(request) };
    Ok(opener.open(head, body, most, now, within).await?)
}

/// Reads a body of at most so many bytes. `patience`: the longest silence in it.
async fn read(body: &mut ReceivedBody, most: usize, patience: Duration) -> Result<Vec<u8>, Unopened> {
    let mut read = Vec::new();
    loop {
        let Some(frame) = timeout(patience, body.frame()).await.map_err(|_| Unopened::Slow)? else { return Ok(read) };
        let Ok(piece) = frame.map_err(|_| Unopened::Broken)?.into_data() else { continue };
        if piece.len() > most - read.len() {
            return Err(Unopened::TooLarge);
        }
        read.extend_from_slice(&piece);
    }
}

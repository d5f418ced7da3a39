//! One exchange as the bank carries it, over HTTP/1.1 or HTTP/2.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio_rustls::server::TlsStream;

use super::message_reader::{Framing, MessageReader, Piece, chunk};
use crate::upstream::simulated::{Cork, End};

/// The manner in which an exchange breaks off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LineBreak {
    /// By what looks like an end: `NO_ERROR`, or close_notify.
    Quiet,
    /// By an error, or a close without close_notify.
    Loud,
    /// The whole connection ends with the exchange.
    Connection,
}

/// The content of a response's head.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) delivery: usize,
    pub(super) media: &'static str,
    /// Of its body; absent: that is not said.
    pub(super) length: Option<usize>,
}

/// One exchange at the bank's end. The methods that report success return `false` once the other side has given up.
pub(super) trait Line {
    /// The next piece of the request's body.
    async fn read(&mut self) -> Piece;
    /// Sends a 103 (Early Hints) before the response.
    async fn interim(&mut self) -> bool;
    /// The head of the answer.
    async fn head(&mut self, answer: Answer) -> bool;
    /// A piece of its body.
    async fn data(&mut self, data: Bytes) -> bool;
    /// Ends the response's body, with or without trailers.
    async fn end(&mut self, trailers: bool) -> bool;
    /// Breaks off; the last piece arrives together with that.
    async fn cut(&mut self, how: LineBreak, last: Bytes);
    /// Says that nothing was done with it. `false`: there is no word for that.
    fn turn_away(&mut self) -> bool;
    /// Says that the connection takes no more requests.
    fn go_away(&mut self);
    /// Takes nothing more of the body, and does not say so.
    async fn hold(&mut self);
}

/// An exchange over HTTP/1.1, alone on its connection.
pub(super) struct Own<'a> {
    reader: &'a mut MessageReader<TlsStream<End>>,
    framing: Framing,
    /// Absent: its answer ends with the connection.
    answers: Option<Framing>,
    /// The connection carries nothing more.
    pub(super) over: bool,
    /// It ends without another word.
    pub(super) broken: bool,
}

impl<'a> Own<'a> {
    pub(super) const fn new(reader: &'a mut MessageReader<TlsStream<End>>, framing: Framing) -> Self {
        Self { reader, framing, answers: None, over: false, broken: false }
    }

    async fn write(&mut self, bytes: &[u8]) -> bool {
        let io = &mut self.reader.io;
        io.write_all(bytes).await.is_ok() && io.flush().await.is_ok()
    }
}

impl Line for Own<'_> {
    async fn read(&mut self) -> Piece {
        self.reader.piece(&mut self.framing).await
    }

    async fn interim(&mut self) -> bool {
        self.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n").await
    }

    async fn head(&mut self, answer: Answer) -> bool {
        let Answer { status, delivery, media, length } = answer;
        self.answers = match length {
            Some(length) => Some(Framing::Length(length)),
            None if delivery % 3 == 0 => None,
            None => Some(Framing::Chunked),
        };
        let framing = match self.answers {
            None => "connection: close".to_owned(),
            Some(Framing::Chunked) => "transfer-encoding: chunked\r\ntrailer: x-sum".to_owned(),
            Some(Framing::Length(length)) => format!("content-length: {length}"),
        };
        let closes = if self.over { "connection: close\r\n" } else { "" };
        let head = format!("HTTP/1.1 {status} Said\r\nx-delivery: {delivery}\r\ncontent-type: {media}\r\n{closes}");
        self.write(format!("{head}{framing}\r\n\r\n").as_bytes()).await
    }

    async fn data(&mut self, data: Bytes) -> bool {
        match self.answers {
            Some(Framing::Chunked) => self.write(&chunk(&data)).await,
            Some(Framing::Length(_)) | None => self.write(&data).await,
        }
    }

    async fn end(&mut self, trailers: bool) -> bool {
        match self.answers {
            Some(Framing::Chunked) if trailers => self.write(b"0\r\nx-sum: 1\r\n\r\n").await,
            Some(Framing::Chunked) => self.write(b"0\r\n\r\n").await,
            Some(Framing::Length(_)) => true,
            None => {
                self.over = true;
                self.reader.io.shutdown().await.is_ok()
            }
        }
    }

    async fn cut(&mut self, how: LineBreak, last: Bytes) {
        if !last.is_empty() {
            self.data(last).await;
        }
        self.broken = true;
        // An answer that ends with the connection would be whole with that word.
        if how == LineBreak::Quiet && self.answers.is_some() {
            let _ = self.reader.io.shutdown().await;
        }
    }

    fn turn_away(&mut self) -> bool {
        false
    }

    fn go_away(&mut self) {
        self.over = true;
    }

    async fn hold(&mut self) {
        tokio::time::sleep(Duration::from_secs(5)).await;
        self.over = true;
    }
}

/// The orders that exchanges give to the bank's HTTP/2 connection.
pub(super) struct StreamOrders {
    pub(super) cork: Cork,
    pub(super) go_away: Notify,
    pub(super) end: Notify,
}

/// An exchange over HTTP/2, which may share its connection.
pub(super) struct Shared {
    pub(super) body: RecvStream,
    pub(super) respond: SendResponse<Bytes>,
    pub(super) answer: Option<SendStream<Bytes>>,
    pub(super) orders: Rc<StreamOrders>,
}

/// Lets the connection's own task write what was queued.
pub(super) async fn let_pass() {
    for _ in 0..4 {
        yield_now().await;
    }
}

impl Line for Shared {
    async fn read(&mut self) -> Piece {
        match self.body.data().await {
            Some(Ok(data)) => {
                let _ = self.body.flow_control().release_capacity(data.len());
                Piece::Data(data)
            }
            Some(Err(_)) => Piece::Cut,
            None => {
                if self.body.trailers().await.is_ok() {
                    Piece::End
                } else {
                    Piece::Cut
                }
            }
        }
    }

    async fn interim(&mut self) -> bool {
        let mut hints = Response::new(());
        *hints.status_mut() = StatusCode::EARLY_HINTS;
        self.respond.send_informational(hints).is_ok()
    }

    async fn head(&mut self, answer: Answer) -> bool {
        let mut head = Response::builder().status(answer.status);
        head = head.header("x-delivery", answer.delivery).header("content-type", answer.media);
        if let Some(length) = answer.length {
            head = head.header("content-length", length);
        }
        let Ok(head) = head.body(()) else { return false };
        self.answer = self.respond.send_response(head, false).ok();
        self.answer.is_some()
    }

    async fn data(&mut self, mut data: Bytes) -> bool {
        let Some(answer) = &mut self.answer else { return false };
        while !data.is_empty() {
            answer.reserve_capacity(data.len());
            let Some(Ok(room)) = poll_fn(|cx| answer.poll_capacity(cx)).await else { return false };
            let piece = data.split_to(room.min(data.len()));
            if answer.send_data(piece, false).is_err() {
                return false;
            }
        }
        true
    }

    async fn end(&mut self, trailers: bool) -> bool {
        let Some(answer) = &mut self.answer else { return false };
        if !trailers {
            return answer.send_data(Bytes::new(), true).is_ok();
        }
        answer.send_trailers(HeaderMap::from_iter([(X_SUM, HeaderValue::from_static("1"))])).is_ok()
    }

    async fn cut(&mut self, how: LineBreak, last: Bytes) {
        // As much of it as fits; that is all, mostly.
        if let Some(answer) = self.answer.as_mut().filter(|_| !last.is_empty()) {
            let_pass().await;
            self.orders.cork.put();
            let _ = answer.send_data(last, false);
            let_pass().await;
        }
        match how {
            LineBreak::Connection => self.orders.end.notify_one(),
            LineBreak::Loud => self.respond.send_reset(Reason::INTERNAL_ERROR),
            LineBreak::Quiet => self.respond.send_reset(Reason::NO_ERROR),
        }
        let_pass().await;
        self.orders.cork.draw();
    }

    fn turn_away(&mut self) -> bool {
        self.respond.send_reset(Reason::REFUSED_STREAM);
        true
    }

    fn go_away(&mut self) {
        self.orders.go_away.notify_one();
    }

    async fn hold(&mut self) {
        // Data that is not released opens no window.
        while let Some(Ok(_)) = self.body.data().await {}
    }
}

const X_SUM: http::HeaderName = http::HeaderName::from_static("x-sum");

//! A question in the clear: to a collector beside us, or to the address of the machine's own link at which a cloud gives
//! temporary keys; never to a provider.
//!
//! Providers are reached through [`super::Destination`], which has no way around TLS; this has no TLS, and no token of a
//! provider is ever near it.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::ask::{AskError, bounded, whole};
use super::dial::{DialError, reach};
use super::h2_connection::LocalExecutor;
use super::received::ReceivedBody;
use crate::base::time::{Now, Within};

/// Bytes of an answer's head over HTTP/2.
const MOST_HEAD: u32 = 16 << 10;

/// The address of a server that accepts HTTP without TLS.
#[derive(Clone, Copy, Debug)]
pub struct Clear<'a> {
    /// Host to resolve; no brackets.
    pub host: &'a str,
    pub port: u16,
    /// For DNS and TCP together.
    pub connect_timeout: Duration,
}

impl Clear<'_> {
    /// Asks over HTTP/1.1, and reads an answer of at most `most` bytes. The connection is closed when `within` is over.
    pub async fn ask(
        &self,
        request: Request<Full<Bytes>>,
        most: usize,
        within: Within,
        now: Now,
    ) -> Result<Response<Bytes>, AskError> {
        bounded(within, self.exchange(request, most, now)).await
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        most: usize,
        now: Now,
    ) -> Result<Response<Bytes>, AskError> {
        let stream = self.connect(now).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| DialError::Http(error.into()))?;
        let response = async { sender.send_request(request).await.map(ReceivedBody::response) };
        answered(connection, response, most).await
    }

    /// The same over HTTP/2, which the server is known to speak (RFC 9113 section 3.3). The target names the scheme `http`
    /// and an authority.
    pub async fn ask_http2(
        &self,
        request: Request<Full<Bytes>>,
        most: usize,
        within: Within,
        now: Now,
    ) -> Result<Response<Bytes>, AskError> {
        bounded(within, self.exchange_http2(request, most, now)).await
    }

    async fn exchange_http2(
        &self,
        request: Request<Full<Bytes>>,
        most: usize,
        now: Now,
    ) -> Result<Response<Bytes>, AskError> {
        let stream = self.connect(now).await?;
        let mut builder = http2::Builder::new(LocalExecutor);
        builder.max_header_list_size(MOST_HEAD);
        let shaken = builder.handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| DialError::Http(error.into()))?;
        let response = async { sender.send_request(request).await.map(ReceivedBody::response) };
        answered(connection, response, most).await
    }

    async fn connect(&self, now: Now) -> Result<TcpStream, DialError> {
        let reached = timeout(self.connect_timeout, reach(self.host, self.port, None, now)).await;
        reached.map_err(|_| DialError::Timeout)?
    }
}

/// Drives a connection until the answer to its one request was read. It ends with the exchange, also when that is given up.
async fn answered(
    connection: impl Future<Output = hyper::Result<()>> + 'static,
    response: impl Future<Output = hyper::Result<Response<ReceivedBody>>>,
    most: usize,
) -> Result<Response<Bytes>, AskError> {
    let mut driven = JoinSet::new();
    driven.spawn_local(async move {
        // The error of the connection is reported to the exchange.
        let _ = connection.await;
    });
    match response.await {
        Ok(response) => whole(response, most).await,
        Err(error) => Err(AskError::Broken(error.into())),
    }
}

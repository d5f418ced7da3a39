//! A question in the clear: to a collector of traces beside us, or to the address of the machine's own link at which a
//! cloud gives temporary keys; never to a provider.
//!
//! Providers are reached through [`super::Destination`], which has no way around TLS; this has no TLS, and no token of a
//! provider is ever near it.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::ask::{AskError, bounded, whole};
use super::dial::{DialError, reach};
use super::received::ReceivedBody;
use crate::base::time::{Now, Within};

/// The address of a server that accepts plain HTTP/1.1.
#[derive(Clone, Copy, Debug)]
pub struct Clear<'a> {
    /// Host to resolve; no brackets.
    pub host: &'a str,
    pub port: u16,
    /// For DNS and TCP together.
    pub connect_timeout: Duration,
}

impl Clear<'_> {
    /// Asks, and reads an answer of at most `most` bytes. The connection is closed when `within` is over.
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
        let reached = timeout(self.connect_timeout, reach(self.host, self.port, None, now)).await;
        let stream = reached.map_err(|_| DialError::Timeout)??;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| DialError::Http(error.into()))?;
        // Ends with this exchange, also when that is given up.
        let mut driven = JoinSet::new();
        driven.spawn_local(async move {
            // The error of the connection is reported to the exchange.
            let _ = connection.await;
        });
        match sender.send_request(request).await {
            Ok(response) => whole(ReceivedBody::response(response), most).await,
            Err(error) => Err(AskError::Broken(error.into())),
        }
    }
}

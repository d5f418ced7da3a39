//! A real HTTPS client for the tests: rustls under hyper, or bare bytes over TLS.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign::tls::{ClientTls, client};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// No single wait of a test is longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test's conversation on a runtime of its own, within [`PATIENCE`] twice over.
pub fn converse<T>(conversation: impl Future<Output = T>) -> T {
    converse_within(PATIENCE * 2, conversation)
}

/// The same within another time, for a process that is made slow.
pub fn converse_within<T>(limit: Duration, conversation: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(limit, conversation).await.expect("the test hangs") })
}

/// An address, and the CA to trust there.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    source: Ipv4Addr,
    ca: String,
    server_name: String,
}

/// An answer with its whole body.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Whole {
    pub async fn read(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Self { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or(serde_json::Value::Null)
    }

    /// The name of our own error, if it is one.
    pub fn error(&self) -> String {
        if self.header("content-type") != "application/problem+json" {
            return String::new();
        }
        let json = self.json();
        assert_eq!(json["status"], self.status, "the document repeats the status");
        assert!(self.header("proxy-status").starts_with("countersign; error="), "{:?}", self.headers);
        json["type"].as_str().unwrap_or("").trim_start_matches("urn:countersign:error:").to_owned()
    }
}

impl Client {
    pub fn new(address: SocketAddr, ca: impl Into<String>) -> Self {
        Self { address, source: Ipv4Addr::LOCALHOST, ca: ca.into(), server_name: "localhost".to_owned() }
    }

    /// The same client, asking TLS for another name.
    pub fn asking_for(&self, server_name: &str) -> Self {
        Self { server_name: server_name.to_owned(), ..self.clone() }
    }

    /// The same client, calling another address.
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { address, ..self.clone() }
    }

    /// The same client, calling from another address of this machine's loopback network.
    pub fn calling_from(&self, host: u8) -> Self {
        Self { source: Ipv4Addr::new(127, 0, 7, host), ..self.clone() }
    }

    /// A TLS stream with these ALPN names.
    pub async fn tls(&self, alpn: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
        let config = client(ClientTls { ca: Some(self.ca.as_bytes()), ..ClientTls::default() }).expect("a good CA");
        let mut config = (*config).clone();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.source, 0).into())?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(self.server_name.clone()).expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// A connection that speaks HTTP/1.1.
    pub async fn http1<B>(&self) -> http1::SendRequest<B>
    where
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = self.tls(&[b"http/1.1"]).await.expect("TLS");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        sender
    }

    /// A connection that speaks HTTP/2.
    pub async fn http2(&self) -> http2::SendRequest<Full<Bytes>> {
        let stream = self.tls(&[b"h2"]).await.expect("TLS");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        sender
    }

    /// One request on a connection of its own.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Whole {
        let mut sender = self.http1().await;
        let response = sender.send_request(request).await.expect("an answer");
        Whole::read(response).await.expect("a whole answer")
    }

    /// Sends bytes as they are and reads until the other side closes, for at most `patience`.
    pub async fn raw(&self, bytes: &[u8], patience: Duration) -> Vec<u8> {
        let mut stream = self.tls(&[b"http/1.1"]).await.expect("TLS");
        stream.write_all(bytes).await.expect("written");
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(patience, stream.read_to_end(&mut answer)).await;
        answer
    }
}

/// A request with this method, path and key.
pub fn request(
    method: &str,
    path: &str,
    key: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut builder = Request::builder().method(method).uri(path).header("host", "localhost");
    if !key.is_empty() {
        builder = builder.header("authorization", format!("Bearer {key}"));
    }
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Full::new(body.into())).expect("a request")
}

pub fn get(path: &str, key: &str) -> Request<Full<Bytes>> {
    request("GET", path, key, &[], Bytes::new())
}

pub fn post(path: &str, key: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    request("POST", path, key, &[("content-type", "application/json")], body)
}

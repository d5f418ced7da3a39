//! Banks that do odd things below HTTP: a TLS server on loopback whose connections a test plays by hand.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use countersign::sim::{LeafSpec, SimHandle};
use countersign::tls::provider;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::harness::now;

/// What a test plays with: a connection inside TLS, its number from 1, and the book that all of them share.
pub type Call = (TlsStream<TcpStream>, usize, Rc<Book>);

/// A request as it arrived over HTTP/2.
#[derive(Clone, Debug)]
pub struct Seen {
    pub connection: usize,
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// What the bank keeps in mind.
#[derive(Default)]
pub struct Book {
    pub connections: Cell<usize>,
    pub peers: RefCell<Vec<SocketAddr>>,
    pub seen: RefCell<Vec<Seen>>,
}

/// A bank whose certificate is of the simulator's CA.
pub struct RawServer {
    pub address: SocketAddr,
    pub book: Rc<Book>,
}

impl RawServer {
    /// Offers these ALPN names and TLS versions, and plays each connection as told.
    pub async fn start<F>(
        sim: &SimHandle,
        alpn: &[&[u8]],
        versions: &[&'static SupportedProtocolVersion],
        play: impl Fn(Call) -> F + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let leaf = sim.authority().issue(&LeafSpec::server(now())).expect("a leaf");
        let identity = leaf.identity().expect("an identity");
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions);
        let config = builder.expect("versions").with_no_client_auth().with_single_cert(identity.chain, identity.key);
        let mut config = config.expect("a config");
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let book = Rc::new(Book::default());
        let (kept, play) = (book.clone(), Rc::new(play));
        tokio::task::spawn_local(async move {
            while let Ok((tcp, peer)) = listener.accept().await {
                kept.peers.borrow_mut().push(peer);
                let (acceptor, book, play) = (acceptor.clone(), kept.clone(), play.clone());
                tokio::task::spawn_local(async move {
                    if let Ok(tls) = acceptor.accept(tcp).await {
                        book.connections.set(book.connections.get() + 1);
                        let number = book.connections.get();
                        play((tls, number, book)).await;
                    }
                });
            }
        });
        Self { address, book }
    }

    /// The line that sends a route here instead.
    pub fn upstream(&self) -> String {
        format!("upstream = \"https://{}\"", self.address)
    }
}

/// Reads a request's body.
pub async fn read(connection: usize, request: Request<h2::RecvStream>) -> Seen {
    let (head, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(Ok(piece)) = body.data().await {
        let _ = body.flow_control().release_capacity(piece.len());
        bytes.extend_from_slice(&piece);
    }
    Seen { connection, method: head.method, uri: head.uri, headers: head.headers, body: bytes }
}

/// Answers 200 with this text.
pub fn respond(mut respond: h2::server::SendResponse<Bytes>, text: &str) {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::OK;
    if let Ok(mut body) = respond.send_response(response, false) {
        let _ = body.send_data(Bytes::copy_from_slice(text.as_bytes()), true);
    }
}

/// An honest HTTP/2 server that keeps and answers everything.
pub async fn honest((tls, number, book): Call) {
    let Ok(mut connection) = h2::server::handshake(tls).await else { return };
    while let Some(Ok((request, answer))) = connection.accept().await {
        let book = book.clone();
        tokio::task::spawn_local(async move {
            let seen = read(number, request).await;
            book.seen.borrow_mut().push(seen);
            respond(answer, "ok");
        });
    }
}

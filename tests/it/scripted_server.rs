//! A provider's API as a script: it answers requests with bytes that no decent server would send.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use countersign::base::time::Clock;
use countersign::sim::{LeafSpec, SimHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What a script gets: the connection, and the first request's head and body bytes as they came.
pub type Line = TlsStream<TcpStream>;

/// A running script. `heads` are the request heads that came, in their order.
pub struct ScriptedSource {
    pub base_url: String,
    pub heads: Rc<RefCell<Vec<String>>>,
    pub connections: Rc<Cell<u32>>,
}

impl ScriptedSource {
    /// Serves each connection by reading request heads and handing each to `script`, on the calling runtime. It stops
    /// with the runtime. Its certificate is of the simulator's CA, so a route's `upstream` may name it.
    pub async fn start<F, G>(sim: &SimHandle, script: F) -> Self
    where
        F: Fn(String, Line) -> G + 'static,
        G: Future<Output = Option<Line>> + 'static,
    {
        let leaf = sim.authority().issue(&LeafSpec::server(Clock::System.now())).expect("a leaf");
        let identity = leaf.identity().expect("an identity");
        let config = rustls::ServerConfig::builder_with_provider(countersign::tls::provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(identity.chain, identity.key)
            .expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let heads: Rc<RefCell<Vec<String>>> = Rc::default();
        let connections: Rc<Cell<u32>> = Rc::default();
        let script = Rc::new(script);
        let (noted, counted) = (heads.clone(), connections.clone());
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.set(counted.get() + 1);
                // A script that hangs up behind its answer must not lose it to Nagle's algorithm.
                let _ = stream.set_nodelay(true);
                let (acceptor, script, noted) = (acceptor.clone(), script.clone(), noted.clone());
                tokio::task::spawn_local(async move {
                    let Ok(mut line) = acceptor.accept(stream).await else { return };
                    while let Some(head) = head(&mut line).await {
                        noted.borrow_mut().push(head.clone());
                        match script(head, line).await {
                            Some(again) => line = again,
                            None => return,
                        }
                    }
                });
            }
        });
        Self { base_url: format!("https://{address}"), heads, connections }
    }

    /// An answer given to every request.
    pub async fn saying(sim: &SimHandle, answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(sim, move |_, mut line| {
            let answer = answer.clone();
            async move {
                line.write_all(&answer).await.ok()?;
                line.flush().await.ok()?;
                Some(line)
            }
        })
        .await
    }
}

/// The next request's head; nothing when the line is closed.
pub async fn head(line: &mut Line) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(line.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

//! The thread of a simulator: accepts, speaks TLS, serves HTTP/1.1 and HTTP/2 by ALPN.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::sim::exchange;
use crate::sim::sim_state::SimState;
use crate::sim::sim_stream::{ConnectionControl, SimStream};
use crate::tls::{Identity, certificates, provider};

/// Connections that may wait to be accepted: a test may bring a thousand at once.
const BACKLOG: i32 = 2048;
/// Time limit for the TLS handshake; a connection that exceeds it is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A listening socket, before anyone serves it.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Builds the settings for TLS 1.2 and 1.3. With `client_ca` (PEM), every client must present a certificate of that CA.
pub(super) fn tls(identity: Identity, client_ca: Option<&str>, only_http1: bool) -> Result<Arc<ServerConfig>, String> {
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(pem.as_bytes()).map_err(|error| error.to_string())? {
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
        }
    };
    let mut config = builder.with_single_cert(identity.chain, identity.key).map_err(|error| error.to_string())?;
    let protocols: &[&[u8]] = if only_http1 { &[b"http/1.1"] } else { &[b"h2", b"http/1.1"] };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Serves until told to stop, on the calling thread. `ready` hears whether it could begin.
pub(super) fn run_server(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    desk: Arc<SimState>,
    ready: &std::sync::mpsc::Sender<io::Result<()>>,
    stop: oneshot::Receiver<()>,
) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            // Only the caller that started this thread waits for this; if it is gone, there is no one else to notify.
            let _ = ready.send(Err(error));
            return;
        }
    };
    runtime.block_on(async move {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        let _ = ready.send(Ok(()));
        tokio::select! {
            () = accept(listener, TlsAcceptor::from(tls), desk) => {}
            // A dropped handle says stop, too.
            _ = stop => {}
        }
    });
}

async fn accept(listener: tokio::net::TcpListener, acceptor: TlsAcceptor, desk: Arc<SimState>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            // Out of descriptors, most likely: some will come free.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let connection = desk.counters.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let (acceptor, desk) = (acceptor.clone(), desk.clone());
        tokio::task::spawn_local(async move {
            desk.counters.open_connections.fetch_add(1, Ordering::Relaxed);
            // The end of a connection is observed at its other end.
            let _ = connected(tcp, acceptor, desk.clone(), connection).await;
            desk.counters.open_connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn connected(tcp: TcpStream, acceptor: TlsAcceptor, desk: Arc<SimState>, connection: u64) -> hyper::Result<()> {
    // Without it, small answers would wait for an acknowledgement; with an error, they do.
    let _ = tcp.set_nodelay(true);
    let Ok(Ok(tls)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(tcp)).await else {
        desk.counters.failed_handshakes.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    };
    let is_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let link = Rc::new(ConnectionControl::default());
    let io = TokioIo::new(SimStream::new(tls, link.clone(), desk.clone(), connection));
    let service = {
        let link = link.clone();
        service_fn(move |request| exchange::serve_exchange(desk.clone(), link.clone(), connection, request))
    };
    if is_h2 {
        let mut builder = http2::Builder::new(SimExecutor);
        builder.timer(TokioTimer::new()).max_concurrent_streams(10_000);
        let mut served = pin!(builder.serve_connection(io, service));
        tokio::select! {
            ended = served.as_mut() => return ended,
            () = link.closing.notified() => served.as_mut().graceful_shutdown(),
        }
        served.await
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new());
        let mut served = pin!(builder.serve_connection(io, service));
        tokio::select! {
            ended = served.as_mut() => return ended,
            () = link.closing.notified() => served.as_mut().graceful_shutdown(),
        }
        served.await
    }
}

/// Runs hyper's tasks on the thread of their connection.
#[derive(Clone, Copy, Debug)]
struct SimExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for SimExecutor
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

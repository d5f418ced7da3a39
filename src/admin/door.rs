//! The door's connections: accepted, encrypted where the config says so, counted, and ended when the process ends.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::auth::MOST_CONNECTIONS;
use super::{Admin, Way, is_local};
use crate::control::What;

/// A handshake, or a request's head, must be there after so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is under way may finish for so long when the process ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves until `end` is cancelled, and a moment longer what is under way.
pub async fn serve(admin: Rc<Admin>, listener: TcpListener, end: CancellationToken) {
    let Ok(own) = listener.local_addr() else { return };
    tokio::task::spawn_local(tell_of_reloads(admin.clone()));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = end.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if connections.len() >= MOST_CONNECTIONS {
            tracing::debug!(%peer, "the admin door has too many connections; this one is closed");
            continue;
        }
        connections.spawn_local(meet(admin.clone(), stream, own, peer, end.clone()));
    }
    drop(listener);
    // Who has not finished by now is cut off.
    let _ = timeout(FAREWELL, async { while connections.join_next().await.is_some() {} }).await;
}

/// Tells whoever listens of every reload.
async fn tell_of_reloads(admin: Rc<Admin>) {
    let mut outcomes = admin.reloads.outcomes();
    outcomes.mark_unchanged();
    while outcomes.changed().await.is_ok() {
        let reloaded = outcomes.borrow_and_update().clone();
        admin.events.tell(What::Reload(reloaded));
    }
}

/// Shakes hands, where there is TLS, and serves one connection.
async fn meet(admin: Rc<Admin>, stream: TcpStream, own: SocketAddr, peer: SocketAddr, end: CancellationToken) {
    let peer = peer.ip().to_canonical();
    let Some(_place) = admin.doorkeeper.enter(peer) else {
        return tracing::debug!(%peer, "a peer has too many connections to the admin door; this one is closed");
    };
    let _ = stream.set_nodelay(true);
    let door = admin.reloads.current().admin.clone();
    match door.and_then(|door| door.tls) {
        Some(tls) => {
            let shaken = timeout(PATIENCE, TlsAcceptor::from(tls).accept(stream)).await;
            if let Ok(Ok(stream)) = shaken {
                speak(admin, stream, Way { own, peer, tls: true }, end).await;
            }
        }
        // What can be reached from elsewhere is never served in the clear, whatever a reload says.
        None if !is_local(own) => {}
        None => speak(admin, stream, Way { own, peer, tls: false }, end).await,
    }
}

async fn speak<S>(admin: Rc<Admin>, stream: S, way: Way, end: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(admin.answer(way, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A broken operator's connection is the operator's news, not ours.
    tokio::select! {
        _ = &mut connection => {}
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

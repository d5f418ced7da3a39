//! The inside of an intercepted tunnel: TLS in the bank's stead, then HTTP as anywhere else.
//!
//! No data is sent in the clear here, and only TLS is accepted. The server name must be the host that the CONNECT
//! named; a client that sends none gets that host's certificate.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustls::{AlertDescription, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::ForwardListener;
use crate::route::Authority;
use crate::serve::connections::connection::{AcceptedProtocol, begin_handshake, serve_http, version_of};
use crate::serve::connections::connection_context::ConnectionContext;
use crate::serve::current_state::CurrentState;
use crate::serve::exchanges::upgrade::Duplex;
use crate::serve::modes::{Ingress, Tunnel};
use crate::serve::requests::identify::Peer;
use crate::serve::worker_state::WorkerState;
use crate::transport::{ClientHello, ServerStream};

/// A client's connection, and what it said before we listened.
pub struct Rewound {
    pub(in crate::serve) early: Bytes,
    pub(in crate::serve) stream: Box<dyn Duplex>,
}

/// Serves a tunnel until it closes.
pub async fn serve(
    current: Rc<CurrentState>,
    outer: Rc<ConnectionContext>,
    tunnel: Tunnel,
    stream: Rewound,
    drain: CancellationToken,
) {
    let worker = current.worker();
    let Some(config) = worker.listener(outer.listener) else { return };
    let Some(forward) = config.forward() else { return };
    let accepted_tls = Box::pin(accept_tls(&worker, &config.name, forward, &tunnel, &outer.peer, stream)).await;
    drop(worker);
    let Some(stream) = accepted_tls else { return };
    let protocol =
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") { AcceptedProtocol::TlsH2 } else { AcceptedProtocol::Tls };
    let ConnectionContext { listener, footing, .. } = *outer;
    let (peer, sent) = (outer.peer.clone(), outer.sent.clone());
    let (entry, tls_version) = (Ingress::Tunnel(tunnel), version_of(stream.get_ref().1));
    let conn = Rc::new(ConnectionContext { listener, footing, peer, entry, tls_version, sent });
    serve_http(current, stream, conn, protocol, drain).await;
}

/// The handshake inside. `None`: there is no connection any more, and the log says why.
async fn accept_tls(
    worker: &WorkerState,
    listener: &str,
    forward: &ForwardListener,
    tunnel: &Tunnel,
    peer: &Peer,
    stream: Rewound,
) -> Option<Box<ServerStream<Rewound>>> {
    let limits = &worker.shared.snapshot.limits;
    let under_way = begin_handshake(worker, listener, peer.address)?;
    let patience = limits.header_timeout.unwrap_or(Duration::MAX);
    let accepted_tls = tokio::select! {
        biased;
        accepted_tls = timeout(patience, handshake(worker, forward, &tunnel.to, stream)) => accepted_tls,
        () = under_way.ended() => return None,
    };
    let why = match accepted_tls {
        Ok(Ok(stream)) => return Some(Box::new(stream)),
        Ok(Err(why)) => why,
        Err(_) => TunnelFailure::Silent,
    };
    let (host, client) = (&tunnel.to, worker.name_of(tunnel.opener.get().1.caller));
    let peer = peer.address.map(tracing::field::display);
    let client = client.as_deref();
    match why {
        TunnelFailure::Distrust(said) => {
            if let Some(count) = worker.shared.connection_limits.distrusts.note(worker.now()) {
                tracing::warn!(
                    listener, %host, peer, client, said, count,
                    "a client does not trust the interception CA: give it the CA's certificate; this listener's own page \
                     and `countersign ca trust` say how"
                );
            }
        }
        TunnelFailure::Mint(error) => tracing::error!(listener, %host, %error, "no certificate for a tunnel"),
        TunnelFailure::NoTls => {
            tracing::info!(listener, %host, peer, client, "tunnel closed: not TLS")
        }
        TunnelFailure::OtherName => {
            tracing::info!(listener, %host, peer, client, "tunnel closed: its server name differs from its CONNECT");
        }
        TunnelFailure::Silent => tracing::info!(listener, %host, peer, client, "tunnel TLS handshake timed out"),
        TunnelFailure::Tls(error) => {
            tracing::info!(listener, %host, peer, client, %error, "tunnel TLS handshake failed")
        }
    }
    None
}

/// The reason for which a tunnel failed.
enum TunnelFailure {
    /// The client refuses our certificate; so its alert says, or its silence.
    Distrust(&'static str),
    /// No certificate could be issued for the host.
    Mint(crate::tls::mint::MintError),
    /// The client's first bytes are not TLS.
    NoTls,
    /// TLS asks for another host than CONNECT.
    OtherName,
    /// The handshake took longer than the limit.
    Silent,
    /// Any other failure of the handshake.
    Tls(io::Error),
}

async fn handshake(
    worker: &WorkerState,
    forward: &ForwardListener,
    to: &Authority,
    stream: Rewound,
) -> Result<ServerStream<Rewound>, TunnelFailure> {
    let hello = ClientHello::read(stream).await;
    let hello = hello.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => TunnelFailure::NoTls,
        _ => TunnelFailure::Tls(error),
    })?;
    let asked = hello.server_name.as_deref();
    let agrees = asked.is_none_or(|asked| to.host().name().is_some_and(|name| name.eq_ignore_ascii_case(asked)));
    if !agrees {
        // Ends in an alert: these settings have no certificate.
        let refusal: Arc<ServerConfig> = forward.interception.refusal();
        let _ = hello.accept(refusal).await;
        return Err(TunnelFailure::OtherName);
    }
    let settings = forward.interception.settings(&to.host().to_string(), worker.now()).await;
    let settings = settings.map_err(TunnelFailure::Mint)?;
    hello.accept(settings).await.map_err(failure)
}

/// Interprets an error that ended the handshake after the client had seen the certificate.
fn failure(error: io::Error) -> TunnelFailure {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return TunnelFailure::Distrust("nothing, it hung up");
    }
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(AlertDescription::UnknownCA)) => TunnelFailure::Distrust("unknown CA"),
        Some(rustls::Error::AlertReceived(AlertDescription::BadCertificate)) => {
            TunnelFailure::Distrust("bad certificate")
        }
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateUnknown)) => {
            TunnelFailure::Distrust("certificate unknown")
        }
        Some(_) | None => TunnelFailure::Tls(error),
    }
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let fits = self.early.len().min(buf.remaining());
        let piece = self.early.split_to(fits);
        buf.put_slice(piece.chunk());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

//! Both sides against the buffered connections of rustls, over pipes that cut and hold bytes as they like.

use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::super::client_hello::ClientHello;
use super::*;

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

type Configs = (Arc<ClientConfig>, Arc<ServerConfig>);

fn configs(versions: &[&'static rustls::SupportedProtocolVersion]) -> Configs {
    let made = rcgen::generate_simple_self_signed(vec!["bank.example".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(client), Arc::new(server))
}

fn name() -> ServerName<'static> {
    "bank.example".try_into().unwrap()
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(std::time::Duration::from_secs(60), test).await.unwrap() });
}

/// A client of ours and a server of rustls.
async fn as_client(
    (client, server): &Configs,
    room: usize,
) -> (ClientStream<DuplexStream>, tokio_rustls::server::TlsStream<DuplexStream>) {
    let (near, far) = duplex(room);
    let (ours, theirs) = tokio::join!(
        ClientStream::connect(client.clone(), name(), None, near),
        TlsAcceptor::from(server.clone()).accept(far)
    );
    (ours.unwrap(), theirs.unwrap())
}

/// A server of ours and a client of rustls.
async fn as_server(
    (client, server): &Configs,
    room: usize,
) -> (ServerStream<DuplexStream>, tokio_rustls::client::TlsStream<DuplexStream>) {
    let (near, far) = duplex(room);
    let ours = async {
        let hello = ClientHello::read(near).await.unwrap();
        assert_eq!(hello.server_name.as_deref(), Some("bank.example"));
        hello.accept(server.clone()).await.unwrap()
    };
    let theirs = async { TlsConnector::from(client.clone()).connect(name(), far).await.unwrap() };
    tokio::join!(ours, theirs)
}

/// Passes so many bytes at a time at most.
struct Narrow<S> {
    io: S,
    most: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Narrow<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut piece = vec![0; self.most.min(buf.remaining())];
        let mut read = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        buf.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Narrow<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let most = self.most.min(buf.len());
        Pin::new(&mut self.io).poll_write(cx, &buf[..most])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn bytes(length: usize, salt: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 / 7 + salt) as u8).collect()
}

/// Sends pieces of every size both ways at once.
async fn exchange(ours: impl AsyncRead + AsyncWrite, theirs: impl AsyncRead + AsyncWrite) {
    let ((mut read, mut write), (mut far_read, mut far_write)) = (tokio::io::split(ours), tokio::io::split(theirs));
    let sizes = [1, 5, 300, 4_096, 16_384, 16_385, 70_000];
    let total: usize = sizes.iter().sum();
    let send = async {
        for (salt, size) in sizes.into_iter().enumerate() {
            write.write_all(&bytes(size, salt)).await.unwrap();
            write.flush().await.unwrap();
        }
        write.shutdown().await.unwrap();
    };
    let far_send = async {
        for (salt, size) in sizes.into_iter().enumerate() {
            far_write.write_all(&bytes(size, salt)).await.unwrap();
            far_write.flush().await.unwrap();
        }
        far_write.shutdown().await.unwrap();
    };
    let expected: Vec<u8> = sizes.into_iter().enumerate().flat_map(|(salt, size)| bytes(size, salt)).collect();
    let receive = async {
        let mut received = Vec::new();
        // Small and large readers.
        for room in [1, 7, 900, 20_000].into_iter().cycle() {
            let mut piece = vec![0; room];
            match read.read(&mut piece).await.unwrap() {
                0 => break,
                count => received.extend_from_slice(&piece[..count]),
            }
        }
        assert_eq!(received.len(), total);
        assert!(received == expected);
    };
    let far_receive = async {
        let mut received = Vec::new();
        far_read.read_to_end(&mut received).await.unwrap();
        assert!(received == expected);
    };
    tokio::join!(send, far_send, receive, far_receive);
}

#[test]
fn bytes_of_every_size_pass_both_ways_over_every_version_and_any_pipe() {
    run(async {
        for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
            let configs = configs(versions);
            for most in [1, 6, 100] {
                // Both sides are ours. A server's handshake ends with tickets, which must find room in the pipe.
                let (near, far) = duplex(1_000);
                let (near, far) = (Narrow { io: near, most }, Narrow { io: far, most });
                let accept = async { ClientHello::read(far).await?.accept(configs.1.clone()).await };
                let connect = ClientStream::connect(configs.0.clone(), name(), None, near);
                let (client, server) = tokio::join!(connect, accept);
                exchange(client.unwrap(), server.unwrap()).await;
            }
            for room in [5_000, 1 << 20] {
                let (ours, theirs) = as_client(&configs, room).await;
                assert_eq!(ours.get_ref().1.protocol_version(), Some(versions[0].version));
                exchange(ours, theirs).await;
                let (ours, theirs) = as_server(&configs, room).await;
                exchange(ours, theirs).await;
            }
        }
    });
}

/// Bytes of memory that the stream keeps besides itself and its session.
fn kept<S, C>(stream: &TlsStream<S, C>) -> usize {
    let TlsStream { incoming, plaintext, gathered, unsent, .. } = stream;
    incoming.capacity() + plaintext.bytes.capacity() + gathered.capacity() + unsent.bytes.capacity()
}

#[test]
fn a_stream_at_rest_keeps_no_memory() {
    run(async {
        let configs = configs(rustls::ALL_VERSIONS);
        let ((mut ours, mut theirs), (mut client, mut far)) =
            (as_server(&configs, 1 << 16).await, as_client(&configs, 1 << 16).await);
        for _ in 0..3 {
            theirs.write_all(&bytes(5_000, 1)).await.unwrap();
            let mut read = vec![0; 5_000];
            ours.read_exact(&mut read).await.unwrap();
            ours.write_all(&read).await.unwrap();
            ours.flush().await.unwrap();
            theirs.read_exact(&mut read).await.unwrap();
            client.write_all(&read).await.unwrap();
            client.flush().await.unwrap();
            far.read_exact(&mut read).await.unwrap();
            assert_eq!((kept(&ours), kept(&client)), (0, 0));
        }
    });
}

#[test]
fn what_is_written_before_a_flush_travels_in_one_record() {
    run(async {
        let configs = configs(&[&rustls::version::TLS13]);
        let (mut ours, theirs) = as_server(&configs, 1 << 20).await;
        for piece in 0..20 {
            let payload = [piece; 100];
            let slices = [IoSlice::new(b"frame "), IoSlice::new(&payload)];
            assert_eq!(poll_fn(|cx| Pin::new(&mut ours).poll_write_vectored(cx, &slices)).await.unwrap(), 106);
        }
        ours.flush().await.unwrap();
        let (mut wire, mut session) = theirs.into_inner();
        let mut header = [0; 5];
        loop {
            wire.read_exact(&mut header).await.unwrap();
            let mut record = header.to_vec();
            record.resize(5 + usize::from(u16::from_be_bytes([header[3], header[4]])), 0);
            wire.read_exact(&mut record[5..]).await.unwrap();
            session.read_tls(&mut record.as_slice()).unwrap();
            let state = session.process_new_packets().unwrap();
            if state.plaintext_bytes_to_read() > 0 {
                // Tickets came before.
                assert_eq!(state.plaintext_bytes_to_read(), 20 * 106);
                break;
            }
        }
    });
}

#[test]
fn an_end_without_close_notify_is_no_end() {
    run(async {
        let configs = configs(rustls::ALL_VERSIONS);
        let (mut ours, mut theirs) = as_client(&configs, 1 << 16).await;
        theirs.write_all(b"half").await.unwrap();
        theirs.flush().await.unwrap();
        drop(theirs.into_inner());
        let mut read = Vec::new();
        assert_eq!(ours.read_to_end(&mut read).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read, b"half");
        let (mut ours, mut theirs) = as_client(&configs, 1 << 16).await;
        theirs.write_all(b"whole").await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut read = Vec::new();
        ours.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"whole");
        // The other half is open still.
        ours.write_all(b"and more").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut read = Vec::new();
        theirs.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"and more");
    });
}

#[test]
fn a_reader_that_takes_nothing_stops_the_writer_within_two_records() {
    run(async {
        let configs = configs(rustls::ALL_VERSIONS);
        let (mut ours, mut theirs) = as_server(&configs, 2_000).await;
        let (piece, mut taken) = (bytes(3_000, 0), 0);
        poll_fn(|cx| {
            while let Poll::Ready(written) = Pin::new(&mut ours).poll_write(cx, &piece) {
                taken += written.unwrap();
                let _ = Pin::new(&mut ours).poll_flush(cx).is_ready();
            }
            Poll::Ready(())
        })
        .await;
        assert!(taken <= 2 * RECORD, "{taken} bytes");
        assert!(kept(&ours) <= 2 * RECORD, "{} bytes", kept(&ours));
        let sent = taken;
        let write = async {
            ours.flush().await.unwrap();
            ours.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let (_, received) = tokio::join!(write, theirs.read_to_end(&mut read));
        assert_eq!(received.unwrap(), sent);
    });
}

#[test]
fn a_failed_handshake_says_why_to_both() {
    run(async {
        let ((client, _), (_, server)) = (configs(rustls::ALL_VERSIONS), configs(rustls::ALL_VERSIONS));
        let (near, far) = duplex(1 << 16);
        let (ours, theirs) = tokio::join!(
            ClientStream::connect(client.clone(), name(), None, near),
            TlsAcceptor::from(server.clone()).accept(far)
        );
        let (ours, theirs) = (ours.err().unwrap(), theirs.err().unwrap());
        let why = |error: &io::Error| error.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap().clone();
        assert_eq!(ours.kind(), io::ErrorKind::InvalidData);
        assert!(matches!(why(&ours), rustls::Error::InvalidCertificate(_)), "{ours}");
        assert!(matches!(why(&theirs), rustls::Error::AlertReceived(_)), "{theirs}");
        // No TLS at all.
        let (near, mut far) = duplex(1 << 16);
        far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let error = ClientHello::read(near).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut alert = Vec::new();
        far.read_to_end(&mut alert).await.unwrap();
        assert_eq!(alert.first(), Some(&21), "an alert (RFC 8446 section 5.1)");
        // A stream that ends in between.
        let (near, far) = duplex(1 << 16);
        drop(far);
        let error = ClientStream::connect(client, name(), None, near).await.err().unwrap();
        assert!(matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe), "{error}");
    });
}

#[test]
fn keys_are_renewed_on_the_way() {
    run(async {
        let configs = configs(&[&rustls::version::TLS13]);
        let (mut ours, mut theirs) = as_server(&configs, 1 << 16).await;
        for round in 0..3 {
            theirs.get_mut().1.refresh_traffic_keys().unwrap();
            theirs.write_all(&bytes(2_000, round)).await.unwrap();
            theirs.flush().await.unwrap();
            let mut read = vec![0; 2_000];
            ours.read_exact(&mut read).await.unwrap();
            assert!(read == bytes(2_000, round));
            ours.write_all(&read).await.unwrap();
            ours.flush().await.unwrap();
            theirs.read_exact(&mut read).await.unwrap();
            assert!(read == bytes(2_000, round));
        }
    });
}

#[test]
fn a_writer_need_not_wait_for_the_reader() {
    run(async {
        let configs = configs(rustls::ALL_VERSIONS);
        let (mut ours, mut theirs) = as_server(&configs, 1 << 16).await;
        for round in 0..10 {
            theirs.write_all(&[round]).await.unwrap();
            theirs.flush().await.unwrap();
        }
        let mut read = [0];
        ours.read_exact(&mut read).await.unwrap();
        assert!(ours.holds_record, "more has arrived than was asked for");
        ours.write_all(b"meanwhile").await.unwrap();
        ours.flush().await.unwrap();
        let mut told = [0; 9];
        theirs.read_exact(&mut told).await.unwrap();
        assert_eq!(&told, b"meanwhile");
        for round in 1..10 {
            ours.read_exact(&mut read).await.unwrap();
            assert_eq!(read, [round]);
        }
    });
}

/// A key that notes on which threads it signs; without an inner key it fails.
#[derive(Debug)]
struct NotingKey {
    inner: Option<Arc<dyn rustls::sign::SigningKey>>,
    scheme: rustls::SignatureScheme,
    threads: Arc<std::sync::Mutex<Vec<std::thread::ThreadId>>>,
}

impl rustls::sign::SigningKey for NotingKey {
    fn choose_scheme(&self, offered: &[rustls::SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        let (inner, threads) = (self.inner.clone(), self.threads.clone());
        offered.contains(&self.scheme).then(|| Box::new(Self { inner, scheme: self.scheme, threads }) as Box<_>)
    }

    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        rustls::SignatureAlgorithm::ECDSA
    }
}

impl rustls::sign::Signer for NotingKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.threads.lock().unwrap().push(std::thread::current().id());
        let inner = self.inner.as_ref().and_then(|inner| inner.choose_scheme(&[self.scheme]));
        inner.ok_or_else(|| rustls::Error::General("the service is gone".to_owned()))?.sign(message)
    }

    fn scheme(&self) -> rustls::SignatureScheme {
        self.scheme
    }
}

/// Settings of both sides, with a client certificate that the server demands, and the threads on which its key signs.
fn mutual(
    version: &'static rustls::SupportedProtocolVersion,
    signs: bool,
) -> (Configs, Arc<std::sync::Mutex<Vec<std::thread::ThreadId>>>) {
    let (client, server) = configs(&[version]);
    let made = rcgen::generate_simple_self_signed(vec!["client.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let inner = signs.then(|| provider().key_provider.load_private_key(key).unwrap());
    let (scheme, threads) = (rustls::SignatureScheme::ECDSA_NISTP256_SHA256, Arc::default());
    let key = NotingKey { inner, scheme, threads: Arc::clone(&threads) };
    let certified = rustls::sign::CertifiedKey::new(vec![made.cert.der().clone()], Arc::new(key));
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let mut client = ClientConfig::clone(&client);
    client.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let demanding = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
    let demanding = demanding.with_client_cert_verifier(verifier.build().unwrap());
    let demanding = demanding.with_cert_resolver(server.cert_resolver.clone());
    ((Arc::new(client), Arc::new(demanding)), threads)
}

#[test]
fn a_handshake_signs_on_the_threads_that_may_wait_and_never_on_the_event_loop() {
    run(async {
        let own = std::thread::current().id();
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            for most in [1, 100, 64 * 1024] {
                let ((client, server), signed_on) = mutual(version, true);
                let ((near, far), threads) = (duplex(5_000), BlockingThreads::new(1));
                let near = Narrow { io: near, most };
                let (ours, theirs) = tokio::join!(
                    ClientStream::connect_on(&threads, client, name(), None, near),
                    TlsAcceptor::from(server).accept(far)
                );
                exchange(ours.unwrap(), theirs.unwrap()).await;
                let signed_on = signed_on.lock().unwrap().clone();
                assert!(signed_on.len() == 1 && signed_on[0] != own, "{version:?}, {most}: {signed_on:?}");
            }
            let ((client, server), _) = mutual(version, false);
            let ((near, far), threads) = (duplex(64 * 1024), BlockingThreads::new(1));
            let (ours, theirs) = tokio::join!(
                ClientStream::connect_on(&threads, client, name(), None, near),
                TlsAcceptor::from(server).accept(far)
            );
            let error = ours.err().unwrap();
            assert!(error.kind() == io::ErrorKind::InvalidData && error.to_string().contains("is gone"), "{error}");
            assert!(theirs.is_err());
        }
    });
}

//! Who may connect and who they are, end to end: certificates, local users, balancers, signed tokens, guesses, limits.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use countersign::app::boot::{BootOptions, Running};
use countersign::app::boot_error::BootError;
use countersign::base::secret::{hex, sha256};
use countersign::base::time::{Clock, ManualClock};
use countersign::config::{InMemory, build};
use countersign::sim::{Bank, LeafSpec, SimAuthority, SimHandle, SimLeaf};
use countersign::tls::{ClientIdentity, ClientTls, client as client_tls};
use http::Request;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::client::{PATIENCE, Whole, converse, get, request};
use crate::harness::{KEY, OTHER_KEY, SharedLog, bank};

/// A bank, a proxy with one listener `gateway`, and the CAs around it.
struct Scene {
    running: Running,
    log: SharedLog,
    /// Signs the listener's certificate.
    authority: SimAuthority,
    sim: SimHandle,
}

/// What a scene is made of.
struct Script {
    /// Lines of the listener, `bind` and `tls` included.
    listener: String,
    /// The tables of the clients.
    clients: String,
    /// Lines of the route.
    route: String,
    limits: String,
    files: InMemory,
    clock: Clock,
}

const TLS: &str = "bind = \"127.0.0.1:0\"\ntls = { cert = \"server.crt\", key = \"server.key\" }";
const PLAIN: &str = "bind = \"127.0.0.1:0\"";

fn script(listener: &str, clients: &str) -> Script {
    Script {
        listener: listener.to_owned(),
        clients: clients.to_owned(),
        route: String::new(),
        limits: String::new(),
        files: InMemory::new(),
        clock: Clock::System,
    }
}

/// A clock that stands still until moved, and its hand.
fn standing() -> (Clock, Arc<ManualClock>) {
    let hand = ManualClock::at(Clock::System.now());
    (Clock::Manual(hand.clone()), hand)
}

fn erp() -> String {
    format!("[client.erp]\nkey_sha256 = [\"{}\"]\n", hex(&sha256(KEY.as_bytes())))
}

fn treasury() -> String {
    format!("[client.treasury]\nkey_sha256 = [\"{}\"]\n", hex(&sha256(OTHER_KEY.as_bytes())))
}

impl Script {
    fn with_file(mut self, name: &str, text: &str) -> Self {
        self.files = self.files.with_file(format!("stage/{name}"), text);
        self
    }

    fn with_limits(mut self, limits: &str) -> Self {
        self.limits = limits.to_owned();
        self
    }

    fn with_route(mut self, route: &str) -> Self {
        self.route = route.to_owned();
        self
    }

    fn with_clock(mut self, clock: &Clock) -> Self {
        self.clock = clock.clone();
        self
    }

    fn play(self) -> Scene {
        self.try_play().expect("started")
    }

    fn try_play(self) -> Result<Scene, BootError> {
        let now = Clock::System.now();
        let authority = SimAuthority::new("stage CA", now).expect("a CA");
        let leaf = authority.issue(&LeafSpec::server(now)).expect("a leaf");
        let sim = bank(Bank::Scb);
        let files = self
            .files
            .with_file("stage/server.crt", leaf.cert_pem)
            .with_file("stage/server.key", leaf.key_pem)
            .with_file("stage/bank.crt", sim.ca_pem().into_bytes());
        let mut config = format!("[[listener]]\nname = \"gateway\"\n{}\n{}\n", self.listener, self.clients);
        config += &sim.settings_toml_as("scb", "bank.crt");
        let _ = write!(
            config,
            "\n[[route]]\nname = \"scb\"\npath = \"/scb\"\nprovider = \"scb\"\n{}\n[runtime]\nworkers = 2\n[limits]\n{}\n",
            self.route, self.limits
        );
        let (snapshot, found) = build(Path::new("stage/proxy.toml"), config.clone(), &files);
        let told: Vec<String> = found.iter().map(|found| found.one_line()).collect();
        let snapshot = snapshot.unwrap_or_else(|| panic!("{told:#?}\n{config}"));
        let log = SharedLog::default();
        let options =
            BootOptions { clock: self.clock, access_sink: Some(Box::new(log.clone())), ..BootOptions::default() };
        let running = Running::start(snapshot, options)?;
        Ok(Scene { running, log, authority, sim })
    }
}

/// A client's wishes for TLS.
#[derive(Default)]
struct PlannedRequest<'a> {
    identity: Option<&'a SimLeaf>,
    ca: Option<String>,
    only_tls12: bool,
}

impl Scene {
    fn address(&self) -> SocketAddr {
        self.running.address("gateway").expect("a listener")
    }

    /// A request over TLS. An error: there was no answer.
    async fn call(&self, wish: PlannedRequest<'_>, message: Request<Full<Bytes>>) -> Result<Whole, String> {
        let ca = wish.ca.unwrap_or_else(|| self.authority.pem());
        let identity = wish.identity.map(|leaf| ClientIdentity::Local(leaf.identity().expect("an identity")));
        let made =
            client_tls(ClientTls { ca: Some(ca.as_bytes()), identity, ..ClientTls::default() }).expect("settings");
        let mut config = http1_only(&made);
        if wish.only_tls12 {
            config = rustls::ClientConfig::builder_with_provider(countersign::tls::provider())
                .with_protocol_versions(&[&rustls::version::TLS12])
                .expect("a version")
                .with_root_certificates({
                    let mut roots = rustls::RootCertStore::empty();
                    let certificates = countersign::tls::certificates(ca.as_bytes()).expect("a CA");
                    roots.add_parsable_certificates(certificates);
                    roots
                })
                .with_no_client_auth();
        }
        let stream = TcpStream::connect(self.address()).await.map_err(|error| error.to_string())?;
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        exchange(stream.map_err(|error| error.to_string())?, message).await
    }

    /// A request in the clear, behind these bytes.
    async fn plain(&self, preface: &[u8], message: Request<Full<Bytes>>) -> Result<Whole, String> {
        let mut stream = TcpStream::connect(self.address()).await.map_err(|error| error.to_string())?;
        stream.write_all(preface).await.map_err(|error| error.to_string())?;
        exchange(stream, message).await
    }

    /// Stops the proxy; its access lines.
    fn lines(self) -> Vec<Value> {
        let Scene { running, log, .. } = self;
        drop(running);
        log.lines()
    }
}

async fn exchange<S>(stream: S, message: Request<Full<Bytes>>) -> Result<Whole, String>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let driver = tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    let response = sender.send_request(message).await.map_err(|error| error.to_string())?;
    let whole = Whole::read(response).await.map_err(|error| error.to_string());
    drop(sender);
    let _ = driver.await;
    whole
}

/// The same settings for a client that speaks HTTP/1.1.
fn http1_only(config: &rustls::ClientConfig) -> rustls::ClientConfig {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Its status, and the name of our own error.
fn seen(answer: Result<Whole, String>) -> (u16, String) {
    let answer = answer.expect("an answer");
    (answer.status, answer.error())
}

fn own(status: u16, error: &str) -> (u16, String) {
    (status, error.to_owned())
}

fn fine() -> (u16, String) {
    own(200, "")
}

const PATH: &str = "/scb/echo/x";

// ---- certificates ----

fn leaf(authority: &SimAuthority, name: &str) -> SimLeaf {
    authority.issue(&LeafSpec::client(name, Clock::System.now())).expect("a leaf")
}

fn common(authority: &SimAuthority, name: &str) -> SimLeaf {
    let mut spec = LeafSpec::client("unused.corp", Clock::System.now());
    spec.common_name = name.to_owned();
    authority.issue(&spec).expect("a leaf")
}

const MTLS_CLIENTS: &str = "[client.erp]\ncertificate = \"spiffe://corp/erp\"\n[client.treasury]\ncertificate = \
                            \"Treasury.corp\"\n[client.audit]\ncertificate = \"CN=audit\"\n";

fn mtls(authority: &SimAuthority, auth: &str) -> Scene {
    let listener = format!(
        "bind = \"127.0.0.1:0\"\ntls = {{ cert = \"server.crt\", key = \"server.key\", client_ca = \"clients.crt\"{auth} }}"
    );
    let keys = format!("{MTLS_CLIENTS}[client.batch]\nkey_sha256 = [\"{}\"]\n", hex(&sha256(KEY.as_bytes())));
    let route = "clients = [\"erp\", \"treasury\", \"batch\"]";
    script(&listener, &keys).with_route(route).with_file("clients.crt", &authority.pem()).play()
}

#[test]
fn a_certificate_identifies_by_uri_dns_name_or_common_name() {
    let authority = SimAuthority::new("clients' CA", Clock::System.now()).expect("a CA");
    let scene = mtls(&authority, "");
    converse(async {
        let call = async |leaf: &SimLeaf| {
            seen(scene.call(PlannedRequest { identity: Some(leaf), ..PlannedRequest::default() }, get(PATH, "")).await)
        };
        assert_eq!(call(&leaf(&authority, "spiffe://corp/erp")).await, fine());
        assert_eq!(call(&leaf(&authority, "treasury.CORP")).await, fine());
        assert_eq!(call(&common(&authority, "audit")).await, own(403, "client-not-allowed"));
        assert_eq!(call(&leaf(&authority, "spiffe://corp/erp2")).await, own(401, "client-unidentified"));
        assert_eq!(call(&leaf(&authority, "erp.corp")).await, own(401, "client-unidentified"));
        // A certificate is stronger than a key, and a foreign Authorization does not hurt.
        let erp = leaf(&authority, "spiffe://corp/erp");
        for key in [KEY, "somebody-elses"] {
            let answer =
                scene.call(PlannedRequest { identity: Some(&erp), ..PlannedRequest::default() }, get(PATH, key)).await;
            assert_eq!(seen(answer), fine());
        }
    });
    let clients: Vec<String> =
        scene.lines().iter().map(|line| line["countersign.client"].as_str().unwrap_or("-").to_owned()).collect();
    assert_eq!(clients, ["erp", "treasury", "audit", "-", "-", "erp", "erp"]);
}

#[test]
fn a_required_certificate_is_asked_for_in_the_handshake() {
    let authority = SimAuthority::new("clients' CA", Clock::System.now()).expect("a CA");
    let scene = mtls(&authority, ", client_auth = \"required\"");
    converse(async {
        let none = scene.call(PlannedRequest::default(), get(PATH, KEY)).await;
        assert!(none.is_err(), "{none:?}");
        let stranger = SimAuthority::new("clients' CA", Clock::System.now()).expect("a CA");
        let forged = leaf(&stranger, "spiffe://corp/erp");
        let refused =
            scene.call(PlannedRequest { identity: Some(&forged), ..PlannedRequest::default() }, get(PATH, KEY)).await;
        assert!(refused.is_err(), "{refused:?}");
        let mut spec = LeafSpec::client("spiffe://corp/erp", Clock::System.now());
        (spec.valid_from, spec.valid_until) = (spec.valid_from - 7_200_000, spec.valid_from - 3_600_000);
        let expired = authority.issue(&spec).expect("a leaf");
        let refused =
            scene.call(PlannedRequest { identity: Some(&expired), ..PlannedRequest::default() }, get(PATH, KEY)).await;
        assert!(refused.is_err(), "{refused:?}");
        let mut spec = LeafSpec::server(Clock::System.now());
        spec.names = vec!["spiffe://corp/erp".to_owned()];
        let server = authority.issue(&spec).expect("a leaf");
        let refused =
            scene.call(PlannedRequest { identity: Some(&server), ..PlannedRequest::default() }, get(PATH, KEY)).await;
        assert!(refused.is_err(), "a server's certificate is no client's: {refused:?}");
    });
    assert_eq!(scene.sim.resource_calls(), 0);
}

#[test]
fn an_optional_certificate_leaves_room_for_keys_but_not_for_forgeries() {
    let authority = SimAuthority::new("clients' CA", Clock::System.now()).expect("a CA");
    let scene = mtls(&authority, ", client_auth = \"optional\"");
    converse(async {
        assert_eq!(seen(scene.call(PlannedRequest::default(), get(PATH, KEY)).await), fine());
        assert_eq!(seen(scene.call(PlannedRequest::default(), get(PATH, "")).await), own(401, "client-unidentified"));
        let erp = leaf(&authority, "spiffe://corp/erp");
        assert_eq!(
            seen(scene.call(PlannedRequest { identity: Some(&erp), ..PlannedRequest::default() }, get(PATH, "")).await),
            fine()
        );
        // Of the same name as the real one, or the client would find nothing to send.
        let stranger = SimAuthority::new("clients' CA", Clock::System.now()).expect("a CA");
        let forged = leaf(&stranger, "spiffe://corp/erp");
        let refused =
            scene.call(PlannedRequest { identity: Some(&forged), ..PlannedRequest::default() }, get(PATH, KEY)).await;
        assert!(refused.is_err(), "{refused:?}");
    });
    assert_eq!(scene.lines().len(), 3);
}

#[test]
fn a_resumed_session_keeps_its_certificate() {
    let authority = SimAuthority::new("clients' CA", Clock::System.now()).expect("a CA");
    let scene = mtls(&authority, "");
    let erp = ClientIdentity::Local(leaf(&authority, "spiffe://corp/erp").identity().expect("an identity"));
    let ca = scene.authority.pem();
    let config = client_tls(ClientTls { ca: Some(ca.as_bytes()), identity: Some(erp), ..ClientTls::default() });
    let config = Arc::new(http1_only(&config.expect("settings")));
    converse(async {
        for kind in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
            let stream = TcpStream::connect(scene.address()).await.expect("connected");
            let name = ServerName::try_from("localhost").expect("a name");
            let stream = TlsConnector::from(config.clone()).connect(name, stream).await.expect("TLS");
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
            assert_eq!(seen(exchange(stream, get(PATH, "")).await), fine());
        }
    });
    assert!(scene.lines().iter().all(|line| line["countersign.client"] == "erp"));
}

#[test]
fn a_listener_may_insist_on_tls_1_3() {
    let old = || PlannedRequest { only_tls12: true, ..PlannedRequest::default() };
    let scene = script(TLS, &erp()).play();
    converse(async { assert_eq!(seen(scene.call(old(), get(PATH, KEY)).await), fine()) });
    let scene = script(&TLS.replace(" }", ", min_version = \"1.3\" }"), &erp()).play();
    converse(async {
        assert!(scene.call(old(), get(PATH, KEY)).await.is_err());
        assert_eq!(seen(scene.call(PlannedRequest::default(), get(PATH, KEY)).await), fine());
    });
}

// ---- Unix sockets ----

fn unix(path: &Path, clients: &str, route: &str) -> Result<Scene, BootError> {
    script(&format!("bind = \"unix:{}\"", path.display()), clients).with_route(route).try_play()
}

async fn over_unix(path: &Path, key: &str) -> (u16, String) {
    let stream = UnixStream::connect(path).await.expect("connected");
    seen(exchange(stream, get(PATH, key)).await)
}

#[test]
fn a_local_user_is_identified_over_a_unix_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let path: PathBuf = dir.path().join("x.sock");
    let me = std::fs::metadata(dir.path()).expect("it is there").uid();
    let scene = unix(&path, &format!("[client.erp]\nuids = [{me}]\n"), "").expect("started");
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    converse(async {
        for _ in 0..8 {
            assert_eq!(over_unix(&path, "").await, fine());
        }
        assert_eq!(over_unix(&path, "somebody-elses").await, fine(), "not ours: ignored");
    });
    match unix(&path, &erp(), "") {
        Err(BootError::Bind(..)) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two listen at one path"),
    }
    let lines = scene.lines();
    assert!(lines.iter().all(|line| line["countersign.client"] == "erp" && line["client.address"].is_null()));
    assert!(!path.exists(), "the socket's file is removed at the end");
}

#[test]
fn another_user_needs_a_key_and_a_network_shuts_out_who_has_no_address() {
    let dir = tempfile::tempdir().expect("a directory");
    let path: PathBuf = dir.path().join("x.sock");
    let me = std::fs::metadata(dir.path()).expect("it is there").uid();
    let clients = format!("[client.other]\nuids = [{}]\n{}networks = [\"127.0.0.0/8\"]\n{}", me + 1, treasury(), erp());
    let route = "clients = [\"other\", \"treasury\", \"erp\"]";
    let _scene = unix(&path, &clients, route).expect("started");
    converse(async {
        assert_eq!(over_unix(&path, "").await, own(401, "client-unidentified"));
        assert_eq!(over_unix(&path, KEY).await, fine());
        assert_eq!(over_unix(&path, OTHER_KEY).await, own(401, "client-unidentified"));
    });
}

// ---- the PROXY protocol ----

const BALANCED: &str = "bind = \"127.0.0.1:0\"\nproxy_protocol = [\"127.0.0.0/8\"]";
const BATCH: &str = "[client.batch]\nnetworks = [\"192.0.2.0/24\", \"2001:db8::/32\"]\nnetworks_only = true\n";

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("short").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &length, body].concat()
}

#[test]
fn a_balancer_says_for_whom_it_speaks() {
    let scene = script(BALANCED, BATCH).play();
    let four = [192, 0, 2, 9, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];
    let mut six = [0; 36];
    six[..6].copy_from_slice(&[0x20, 1, 0x0d, 0xb8, 0, 7]);
    let with_more = [four.as_slice(), &[4, 0, 2, 0, 0]].concat();
    converse(async {
        for preface in [
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec(),
            b"PROXY TCP6 2001:db8::1 ::1 56324 443\r\n".to_vec(),
            v2(0x21, 0x11, &four),
            v2(0x21, 0x11, &with_more),
            v2(0x21, 0x21, &six),
        ] {
            assert_eq!(seen(scene.plain(&preface, get(PATH, "")).await), fine(), "{preface:?}");
        }
        for nobody in [
            b"PROXY TCP4 203.0.113.1 198.51.100.1 56324 443\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            v2(0x20, 0x11, &four),
            v2(0x21, 0x00, &[]),
            v2(0x21, 0x31, &[0; 216]),
        ] {
            let answer = scene.plain(&nobody, get(PATH, "")).await;
            assert_eq!(seen(answer), own(401, "client-unidentified"), "{nobody:?}");
        }
    });
    let mut peers: Vec<String> =
        scene.lines().iter().map(|line| line["client.address"].as_str().unwrap_or("-").to_owned()).collect();
    let mut told = [
        "192.0.2.1",
        "2001:db8::1",
        "192.0.2.9",
        "192.0.2.9",
        "2001:db8:7::",
        "203.0.113.1",
        "-",
        "127.0.0.1",
        "-",
        "-",
    ];
    peers.sort_unstable();
    told.sort_unstable();
    assert_eq!(peers, told);
}

#[test]
fn what_is_no_proxy_protocol_closes_a_balancers_connection() {
    let scene = script(BALANCED, BATCH).with_limits("header_timeout = \"300ms\"").play();
    converse(async {
        for wrong in [
            b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n".to_vec(),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 3]),
            // Too late: these never end.
            b"".to_vec(),
            b"PROXY TCP4 192.0.2.1".to_vec(),
            v2(0x21, 0x11, &[0; 12])[..20].to_vec(),
        ] {
            let mut stream = TcpStream::connect(scene.address()).await.expect("connected");
            stream.write_all(&wrong).await.expect("written");
            let mut answer = Vec::new();
            // A reset is a close, too.
            let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it closes");
            assert_eq!(answer, b"", "{wrong:?}");
        }
    });
    assert!(scene.lines().is_empty());
}

#[test]
fn the_preface_may_come_in_pieces_and_before_tls() {
    let listener = format!("{TLS}\nproxy_protocol = [\"127.0.0.1/32\"]");
    let scene = script(&listener, BATCH).play();
    converse(async {
        let mut stream = TcpStream::connect(scene.address()).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        for byte in b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n" {
            stream.write_all(&[*byte]).await.expect("written");
            tokio::task::yield_now().await;
        }
        let ca = scene.authority.pem();
        let config = client_tls(ClientTls { ca: Some(ca.as_bytes()), ..ClientTls::default() }).expect("settings");
        let config = Arc::new(http1_only(&config));
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(config).connect(name, stream).await.expect("TLS");
        assert_eq!(seen(exchange(stream, get(PATH, "")).await), fine());
    });
}

#[test]
fn nobody_else_may_choose_an_address() {
    let scene = script(&BALANCED.replace("127.0.0.0/8", "10.0.0.0/8"), BATCH).play();
    converse(async {
        let mut stream = TcpStream::connect(scene.address()).await.expect("connected");
        let forged = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n\
                      GET /scb/echo/x HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(forged.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it closes");
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{:?}", String::from_utf8_lossy(&answer));
        assert_eq!(seen(scene.plain(b"", get(PATH, "")).await), own(401, "client-unidentified"));
    });
    assert_eq!(scene.sim.resource_calls(), 0);
}

// ---- signed tokens ----

/// An issuer of tokens over real TLS, in the test's own runtime.
pub(crate) struct Issuer {
    address: SocketAddr,
    pub(crate) authority: SimAuthority,
    keys: RefCell<Vec<Value>>,
    asked: Cell<usize>,
    /// What must be shown to see anything.
    wanted: RefCell<Option<String>>,
    /// What its discovery document calls it.
    name: RefCell<String>,
}

pub(crate) struct Signer {
    id: String,
    algorithm: Algorithm,
    key: EncodingKey,
    public: Value,
}

impl Signer {
    pub(crate) fn new(id: &str, algorithm: Algorithm) -> Self {
        let mut public = None;
        let key = match algorithm {
            Algorithm::ES256 => {
                let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
                EncodingKey::from_ec_der(&pair.serialize_der())
            }
            Algorithm::EdDSA => {
                let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
                let x = URL_SAFE_NO_PAD.encode(rcgen::PublicKeyData::der_bytes(&pair));
                public = Some(json!({ "kty": "OKP", "crv": "Ed25519", "x": x }));
                EncodingKey::from_ed_der(&pair.serialize_der())
            }
            _ => {
                let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("a key");
                let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> =
                    aws_lc_rs::encoding::AsDer::as_der(&pair).expect("PKCS#8");
                let pem = format!(
                    "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
                    base64::engine::general_purpose::STANDARD.encode(der.as_ref())
                );
                EncodingKey::from_rsa_pem(pem.as_bytes()).expect("a key")
            }
        };
        let made = || serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).expect("a JWK")).expect("JSON");
        let mut public = public.unwrap_or_else(made);
        public["kid"] = json!(id);
        Self { id: id.to_owned(), algorithm, key, public }
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.clone());
        jsonwebtoken::encode(&header, claims, &self.key).expect("a token")
    }
}

impl Issuer {
    pub(crate) fn start(keys: &[&Signer]) -> (Rc<Self>, StdTcpListener) {
        let socket = StdTcpListener::bind("127.0.0.1:0").expect("bound");
        socket.set_nonblocking(true).expect("set");
        let address = socket.local_addr().expect("an address");
        let authority = SimAuthority::new("issuer's CA", Clock::System.now()).expect("a CA");
        let keys = RefCell::new(keys.iter().map(|key| key.public.clone()).collect());
        let name = RefCell::new(format!("https://localhost:{}", address.port()));
        (Rc::new(Self { address, authority, keys, asked: Cell::new(0), wanted: RefCell::default(), name }), socket)
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    pub(crate) fn client(&self, more: &str) -> String {
        format!(
            "[client.pod]\njwt = {{ issuer = \"{}\", audience = \"countersign\", subject = \"system:serviceaccount:pay:erp\", ca = \"issuer.crt\"{more} }}\n",
            self.url()
        )
    }

    pub(crate) fn claims(&self) -> Value {
        let now = Clock::System.now().unix_seconds();
        json!({ "iss": self.url(), "aud": ["other", "countersign"], "sub": "system:serviceaccount:pay:erp", "exp": now + 600, "nbf": now - 5 })
    }

    pub(crate) fn serve(self: &Rc<Self>, socket: StdTcpListener) {
        let leaf = self.authority.issue(&LeafSpec::server(Clock::System.now())).expect("a leaf");
        let identity = leaf.identity().expect("an identity");
        let config = rustls::ServerConfig::builder_with_provider(countersign::tls::provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(identity.chain, identity.key)
            .expect("a certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let socket = TcpListener::from_std(socket).expect("a socket");
        let issuer = self.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let (issuer, acceptor) = (issuer.clone(), acceptor.clone());
                tokio::task::spawn_local(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request: Request<hyper::body::Incoming>| {
                        let shown = request.headers().get("authorization").and_then(|value| value.to_str().ok());
                        let admitted = issuer.wanted.borrow().as_ref().is_none_or(|wanted| shown == Some(wanted));
                        let path = if admitted { request.uri().path() } else { "/nothing" };
                        let body = issuer.answer(path);
                        async move { Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from(body)))) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
    }

    fn answer(&self, path: &str) -> String {
        match path {
            "/.well-known/openid-configuration" => {
                json!({ "issuer": *self.name.borrow(), "jwks_uri": format!("{}/keys?v=1", self.url()) }).to_string()
            }
            "/keys" => {
                self.asked.set(self.asked.get() + 1);
                json!({ "keys": *self.keys.borrow() }).to_string()
            }
            _ => "{}".to_owned(),
        }
    }
}

fn token_scene(issuer: &Issuer, more: &str, clock: &Clock) -> Scene {
    let clients = format!("{}{}", issuer.client(more), erp());
    let route = "clients = [\"pod\", \"erp\"]";
    script(TLS, &clients).with_route(route).with_file("issuer.crt", &issuer.authority.pem()).with_clock(clock).play()
}

#[test]
fn a_signed_token_identifies_in_each_algorithm() {
    let signers = [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256, Algorithm::PS256]
        .map(|algorithm| Signer::new(&format!("{algorithm:?}"), algorithm));
    let (issuer, socket) = Issuer::start(&signers.iter().collect::<Vec<_>>());
    let scene = token_scene(&issuer, "", &Clock::System);
    converse(async {
        issuer.serve(socket);
        for signer in &signers {
            let token = signer.sign(&issuer.claims());
            let answer = scene.call(PlannedRequest::default(), get(PATH, &token)).await;
            assert_eq!(seen(answer), fine(), "{}", signer.id);
            let proxy = [("proxy-authorization", format!("Bearer {token}"))];
            let proxy: Vec<(&str, &str)> = proxy.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = scene.call(PlannedRequest::default(), request("GET", PATH, "", &proxy, "")).await;
            assert_eq!(seen(answer), fine(), "{}", signer.id);
        }
        let mut claims = issuer.claims();
        claims["aud"] = json!("countersign");
        assert_eq!(seen(scene.call(PlannedRequest::default(), get(PATH, &signers[0].sign(&claims))).await), fine());
    });
    assert_eq!(issuer.asked.get(), 1, "the keys are fetched once");
    assert!(scene.lines().iter().all(|line| line["countersign.client"] == "pod"));
}

#[test]
fn an_issuer_that_shows_its_keys_to_known_callers_alone_is_shown_a_token() {
    let signer = Signer::new("a", Algorithm::ES256);
    for (shown, expected) in [("secret-of-the-pod", fine()), ("another", (401, "client-unidentified".to_owned()))] {
        let (issuer, socket) = Issuer::start(&[&signer]);
        issuer.wanted.replace(Some("Bearer secret-of-the-pod".to_owned()));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        std::fs::write(&file, format!("{shown}\n")).expect("written");
        let scene = token_scene(&issuer, &format!(", token_file = \"{}\"", file.display()), &Clock::System);
        converse(async {
            issuer.serve(socket);
            let answer = scene.call(PlannedRequest::default(), get(PATH, &signer.sign(&issuer.claims()))).await;
            assert_eq!(seen(answer), expected, "{shown}");
        });
    }
}

#[test]
fn a_token_that_is_not_exactly_right_is_nobodys() {
    let signer = Signer::new("a", Algorithm::ES256);
    let (issuer, socket) = Issuer::start(&[&signer]);
    let scene = token_scene(&issuer, "", &Clock::System);
    let now = Clock::System.now().unix_seconds();
    let changed = |key: &str, value: Value| {
        let mut claims = issuer.claims();
        claims[key] = value;
        signer.sign(&claims)
    };
    let without = |key: &str| {
        let mut claims = issuer.claims();
        claims.as_object_mut().expect("an object").remove(key);
        signer.sign(&claims)
    };
    let good = signer.sign(&issuer.claims());
    let (message, signature) = good.rsplit_once('.').expect("a token");
    let payload = message.split_once('.').expect("a token").1;
    let unsigned = |header: Value| format!("{}.{payload}", URL_SAFE_NO_PAD.encode(header.to_string()));
    // Who knows the public key signs with it as if it were a shared secret.
    let public = signer.public.to_string();
    let mut shared = Header::new(Algorithm::HS256);
    shared.kid = Some("a".to_owned());
    let confused =
        jsonwebtoken::encode(&shared, &issuer.claims(), &EncodingKey::from_secret(public.as_bytes())).expect("a token");
    let forger = Signer::new("a", Algorithm::ES256).sign(&issuer.claims());
    let wrong = [
        ("audience", changed("aud", json!("countersign2"))),
        ("audiences", changed("aud", json!([]))),
        ("subject", changed("sub", json!("system:serviceaccount:pay:erp2"))),
        ("issuer", changed("iss", json!(format!("{}/", issuer.url())))),
        ("expired", changed("exp", json!(now - 61))),
        ("not yet", changed("nbf", json!(now + 120))),
        ("no exp", without("exp")),
        ("no aud", without("aud")),
        ("no sub", without("sub")),
        ("none", format!("{}.", unsigned(json!({ "alg": "none" })))),
        (
            "crit",
            format!("{}.{signature}", unsigned(json!({ "alg": "ES256", "kid": "a", "crit": ["b64"], "b64": false }))),
        ),
        ("another algorithm", format!("{}.{signature}", unsigned(json!({ "alg": "RS256", "kid": "a" })))),
        ("shared secret", confused),
        ("forged", forger),
        ("no signature", format!("{message}.")),
        ("cut", good[..good.len() - 4].to_owned()),
        ("four parts", format!("{good}.x")),
        ("dots", "..".to_owned()),
    ];
    converse(async {
        issuer.serve(socket);
        for (what, token) in &wrong {
            let (status, error) = seen(scene.call(PlannedRequest::default(), get(PATH, token)).await);
            // Guesses are slowed meanwhile: then it is 429, never more.
            let told = [(401, "client-unidentified"), (429, "rate-limited")];
            assert!(told.contains(&(status, error.as_str())), "{what}: {status} {error}");
        }
        assert_eq!(seen(scene.call(PlannedRequest::default(), get(PATH, &good)).await), fine());
    });
    assert_eq!(scene.sim.resource_calls(), 1);
}

#[test]
fn an_unknown_key_is_looked_for_and_a_connection_remembers_a_good_token() {
    let (first, second) = (Signer::new("a", Algorithm::ES256), Signer::new("b", Algorithm::ES256));
    let (issuer, socket) = Issuer::start(&[&first]);
    let (clock, hand) = standing();
    let scene = token_scene(&issuer, &format!(", jwks_url = \"{}/keys\"", issuer.url()), &clock);
    converse(async {
        issuer.serve(socket);
        let sender = &mut crate::client::Client::new(scene.address(), scene.authority.pem()).http1().await;
        let call = async |sender: &mut hyper::client::conn::http1::SendRequest<Full<Bytes>>, token: &str| {
            sender.ready().await.expect("ready");
            let response = sender.send_request(get(PATH, token)).await.expect("an answer");
            seen(Ok(Whole::read(response).await.expect("whole")))
        };
        let token = first.sign(&issuer.claims());
        for _ in 0..3 {
            assert_eq!(call(sender, &token).await, fine());
        }
        assert_eq!(call(sender, &format!("{token}x")).await, own(401, "client-unidentified"));
        // The issuer has a new key; but it was asked a moment ago, and is left alone for a while.
        issuer.keys.borrow_mut().push(second.public.clone());
        assert_eq!(call(sender, &second.sign(&issuer.claims())).await, own(401, "client-unidentified"));
        assert_eq!(issuer.asked.get(), 1);
        assert_eq!(call(sender, &token).await, fine());
        hand.advance(Duration::from_secs(30));
        assert_eq!(call(sender, &second.sign(&issuer.claims())).await, fine());
        assert_eq!(issuer.asked.get(), 2);
        // What a connection remembers ends with the token, a minute's difference forgiven.
        let mut claims = issuer.claims();
        claims["exp"] = json!(hand.now().unix_seconds() + 1);
        let short = first.sign(&claims);
        assert_eq!(call(sender, &short).await, fine());
        hand.advance(Duration::from_secs(60));
        assert_eq!(call(sender, &short).await, fine());
        hand.advance(Duration::from_secs(2));
        assert_eq!(call(sender, &short).await, own(401, "client-unidentified"));
    });
}

#[test]
fn old_keys_serve_while_the_issuer_cannot_be_reached_but_not_for_ever() {
    let signer = Signer::new("a", Algorithm::ES256);
    let (issuer, socket) = Issuer::start(&[&signer]);
    let (clock, hand) = standing();
    let scene = token_scene(&issuer, "", &clock);
    let mut claims = issuer.claims();
    claims["exp"] = json!(hand.now().unix_seconds() + 24 * 3600);
    let token = signer.sign(&claims);
    converse(async {
        issuer.serve(socket);
        let call = async || seen(scene.call(PlannedRequest::default(), get(PATH, &token)).await);
        assert_eq!(call().await, fine());
        let name = issuer.name.replace("https://login.other.example".to_owned());
        hand.advance(Duration::from_secs(11 * 60));
        assert_eq!(call().await, fine());
        assert_eq!(issuer.asked.get(), 1);
        hand.advance(Duration::from_secs(50 * 60));
        assert_eq!(call().await, own(401, "client-unidentified"));
        hand.advance(Duration::from_secs(30));
        *issuer.name.borrow_mut() = name;
        assert_eq!(call().await, fine());
        assert_eq!(issuer.asked.get(), 2);
        // A key that the issuer has withdrawn stops counting.
        issuer.keys.replace(vec![Signer::new("b", Algorithm::ES256).public]);
        hand.advance(Duration::from_secs(11 * 60));
        assert_eq!(call().await, own(401, "client-unidentified"));
    });
}

#[test]
fn without_its_issuer_a_token_is_nobodys_and_everybody_else_is_served() {
    let signer = Signer::new("a", Algorithm::ES256);
    let (issuer, socket) = Issuer::start(&[&signer]);
    // The discovery document of another issuer is none.
    *issuer.name.borrow_mut() = "https://login.other.example".to_owned();
    let scene = token_scene(&issuer, "", &Clock::System);
    converse(async {
        issuer.serve(socket);
        let token = signer.sign(&issuer.claims());
        assert_eq!(
            seen(scene.call(PlannedRequest::default(), get(PATH, &token)).await),
            own(401, "client-unidentified")
        );
        assert_eq!(seen(scene.call(PlannedRequest::default(), get(PATH, KEY)).await), fine());
    });
    assert_eq!(issuer.asked.get(), 0);
}

// ---- keys, guesses, names, web pages ----

#[test]
fn both_keys_pass_while_one_replaces_the_other() {
    let both = format!("[client.erp]\nkey_sha256 = [\"{}\", \"{}\"]\n", hex(&sha256(b"old")), hex(&sha256(b"new")));
    let scene = script(TLS, &both).play();
    converse(async {
        for key in ["old", "new"] {
            assert_eq!(seen(scene.call(PlannedRequest::default(), get(PATH, key)).await), fine());
        }
    });
}

#[test]
fn guessing_is_slowed_and_right_credentials_pass_all_the_while() {
    let (clock, hand) = standing();
    let scene = script(TLS, &erp()).with_clock(&clock).play();
    converse(async {
        let guess = async |n: u32| scene.call(PlannedRequest::default(), get(PATH, &format!("guess-{n}"))).await;
        for n in 0..5 {
            assert_eq!(seen(guess(n).await), own(401, "client-unidentified"));
        }
        for n in 5..15 {
            let slowed = guess(n).await.expect("an answer");
            assert_eq!((slowed.status, slowed.error()), own(429, "rate-limited"));
            assert_eq!(slowed.header("retry-after"), "1");
            assert_eq!(seen(scene.call(PlannedRequest::default(), get(PATH, KEY)).await), fine());
            let none = scene.call(PlannedRequest::default(), get(PATH, "")).await;
            assert_eq!(seen(none), own(401, "client-unidentified"), "asking is not guessing");
        }
        hand.advance(Duration::from_millis(200));
        assert_eq!(seen(guess(15).await), own(401, "client-unidentified"));
        assert_eq!(seen(guess(16).await), own(429, "rate-limited"));
    });
    assert_eq!(scene.sim.token_calls(), 1);
}

#[test]
fn a_listener_answers_to_its_names_only() {
    let listener = format!("{TLS}\nnames = [\"gateway.corp\", \"127.0.0.1\", \"LOCALHOST\"]");
    let scene = script(&listener, &erp()).play();
    converse(async {
        let call = async |host: &str| {
            let mut message = get(PATH, KEY);
            message.headers_mut().insert("host", host.parse().expect("a host"));
            seen(scene.call(PlannedRequest::default(), message).await)
        };
        assert_eq!(call("localhost").await, fine());
        assert_eq!(call("Localhost:8443").await, fine());
        assert_eq!(call("127.0.0.1:8443").await, fine());
        for other in ["evil.example", "localhost.evil.example", "[::1]", "127.0.0.2"] {
            assert_eq!(call(other).await, own(421, "misdirected-request"), "{other}");
        }
    });
    assert_eq!(scene.sim.resource_calls(), 3);
}

#[test]
fn a_web_page_may_not_call_where_anyone_may() {
    let scene = script(&format!("{PLAIN}\nclients = \"anyone\""), "").play();
    converse(async {
        let call = async |method: &str, fields: &[(&str, &str)]| {
            scene.plain(b"", request(method, PATH, "", fields, "")).await.expect("an answer")
        };
        assert_eq!(call("GET", &[]).await.status, 200);
        assert_eq!(call("GET", &[("sec-fetch-site", "none")]).await.status, 200, "typed by a person");
        let preflight = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
        for (method, fields) in [
            ("OPTIONS", &preflight[..]),
            ("POST", &preflight[..1]),
            ("POST", &[("origin", "null")][..]),
            ("GET", &[("sec-fetch-site", "cross-site")][..]),
            ("GET", &[("sec-fetch-site", "same-site")][..]),
            ("GET", &[("sec-fetch-site", "same-origin")][..]),
        ] {
            let answer = call(method, fields).await;
            assert_eq!((answer.status, answer.error()), own(403, "client-not-allowed"), "{method} {fields:?}");
            let cors = answer.headers.keys().find(|name| name.as_str().starts_with("access-control-"));
            assert_eq!(cors, None, "{method} {fields:?}");
        }
    });
    assert_eq!(scene.sim.resource_calls(), 2);
}

// ---- our own CA, and limits ----

#[test]
fn an_internal_certificate_is_trusted_by_who_trusts_the_ca_of_this_start() {
    let scene = script("bind = \"127.0.0.1:0\"\ntls = \"internal\"\nnames = [\"localhost\"]", &erp()).play();
    let ca = scene.running.ca.pem().expect("a CA");
    converse(async {
        let trusting = scene.call(PlannedRequest { ca: Some(ca), ..PlannedRequest::default() }, get(PATH, KEY)).await;
        assert_eq!(seen(trusting), fine());
        assert!(scene.call(PlannedRequest::default(), get(PATH, KEY)).await.is_err(), "another CA does not do");
    });
}

/// Whether the other side closes the connection without a word.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0; 1];
    matches!(tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
}

#[test]
fn a_peer_has_so_many_connections_and_no_more() {
    let scene = script(BALANCED, BATCH).with_limits("connections_per_peer = 2").play();
    let preface = |host: u8| format!("PROXY TCP4 192.0.2.{host} 198.51.100.1 56324 443\r\n");
    converse(async {
        let open = async |host: u8| {
            let mut stream = TcpStream::connect(scene.address()).await.expect("connected");
            let ask = format!("{}GET /scb/echo/x HTTP/1.1\r\nhost: localhost\r\n\r\n", preface(host));
            stream.write_all(ask.as_bytes()).await.expect("written");
            stream
        };
        let answered = async |stream: &mut TcpStream| {
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.expect("an answer");
            assert_eq!(&head, b"HTTP/1.1 200");
        };
        let (mut first, mut second) = (open(1).await, open(1).await);
        answered(&mut first).await;
        answered(&mut second).await;
        assert!(is_closed(&mut open(1).await).await, "the third is closed");
        answered(&mut open(2).await).await;
        // One closes, and its place is free again as soon as that was noticed.
        drop(first);
        loop {
            let mut next = open(1).await;
            let mut head = [0; 12];
            if next.read_exact(&mut head).await.is_ok() {
                break;
            }
        }
        answered(&mut open(3).await).await;
        drop(second);
    });
}

#[test]
fn so_many_handshakes_are_under_way_and_no_more() {
    let scene = script(TLS, &erp()).with_limits("handshakes = 1").play();
    converse(async {
        let silent = TcpStream::connect(scene.address()).await.expect("connected");
        // The silent one may not have been accepted yet; one of the next then takes its place, and is let go again.
        loop {
            let mut next = TcpStream::connect(scene.address()).await.expect("connected");
            let mut byte = [0; 1];
            let read = tokio::time::timeout(Duration::from_millis(500), next.read(&mut byte)).await;
            if matches!(read, Ok(Ok(0) | Err(_))) {
                break;
            }
        }
        drop(silent);
        while scene.call(PlannedRequest::default(), get(PATH, KEY)).await.is_err() {}
    });
}

// ---- the config ----

/// Asks the reader itself which keys it knows: an unknown one makes it list them.
#[test]
fn the_manual_names_every_key_of_jwt() {
    let manual = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.md")).expect("text");
    let (_, found) = build(Path::new("proxy.toml"), "[client.x.jwt]\nqqqqqqqqqqqqqqqqqqqq = 1\n", &InMemory::new());
    let help = found.iter().find(|found| found.title.contains("qqqq")).and_then(|found| found.help.clone());
    let known = help.as_deref().and_then(|help| help.strip_prefix("known here: ")).expect("a list of keys").to_owned();
    assert_eq!(known.split(", ").count(), 6);
    for key in known.split(", ") {
        assert!(manual.contains(&format!("`{key}`")), "docs/config.md does not name {key}");
    }
}

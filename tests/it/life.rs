//! The life of the real process: how it ends under load, how another takes its place, whose sockets it accepts from,
//! and what its manager is told.
//!
//! A request is lost if its connection was accepted and no whole answer came. Clients do what RFC 9112 asks of them: they
//! heed `connection: close`, and open another connection where the last one was closed before they sent anything. Over
//! HTTP/2 they ask again what GOAWAY says was not processed (RFC 9113 section 6.8); here the bank is asked, too. Each request has a
//! path of its own, so it is seen that the bank got none of them twice.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error as _;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream as StdTcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use command_fds::{CommandFdExt, FdMapping};
use countersign::base::secret::{hex, sha256};
use countersign::base::time::Clock;
use countersign::sim::{Bank, LeafSpec, Sim, SimAuthority, SimHandle, SimOptions};
use http::Request;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle as Task;

use crate::client::{Client, PATIENCE, Whole, converse};
use crate::harness::KEY;

/// What a process is told, in a folder of its own.
struct Home {
    folder: tempfile::TempDir,
    ca: String,
    bank: SimHandle,
}

impl Home {
    /// Listeners `gateway` (TLS), `plain` and `local` (a Unix socket), and an admin listener.
    fn new(more: &str) -> Self {
        Self::binding("127.0.0.1:0", "127.0.0.1:0", more)
    }

    fn binding(gateway: &str, plain: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = SimOptions { received_limit: 1 << 20, ..SimOptions::default() };
        let bank = Sim::start(Bank::Meed, options).expect("a simulator");
        let now = Clock::System.now();
        let authority = SimAuthority::new("life CA", now).expect("a CA");
        let leaf = authority.issue(&LeafSpec::server(now)).expect("a leaf");
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        put("server.crt", &leaf.cert_pem);
        put("server.key", &leaf.key_pem);
        put("meed.crt", &bank.ca_pem());
        let config = format!(
            "[[listener]]\nname = \"gateway\"\nbind = \"{gateway}\"\n\
             tls = {{ cert = \"server.crt\", key = \"server.key\" }}\n\
             [[listener]]\nname = \"plain\"\nbind = \"{plain}\"\n\
             [[listener]]\nname = \"local\"\nbind = \"unix:local.sock\"\n\
             [admin]\nbind = \"127.0.0.1:0\"\n[runtime]\nworkers = 2\n\
             [client.erp]\nkey_sha256 = [\"{}\"]\n{}\
             [[route]]\nname = \"meed\"\npath = \"/meed\"\nprovider = \"meed\"\n[log]\naccess = \"off\"\n{more}\n",
            hex(&sha256(KEY.as_bytes())),
            bank.settings_toml_as("meed", "meed.crt"),
        );
        put("proxy.toml", &config);
        Self { folder, ca: authority.pem(), bank }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The process as a user starts it.
    fn start(&self) -> Proxy {
        Proxy::start(self.command(Path::new(env!("CARGO_BIN_EXE_countersign"))))
    }

    fn command(&self, binary: &Path) -> Command {
        let mut command = Command::new(binary);
        command.args(["run", "-c", "proxy.toml"]).current_dir(self.folder.path());
        command
    }

    /// The process as a manager starts it that holds sockets: by number, not by name, as `exec` in a shell keeps it.
    fn activated(&self, names: &str, sockets: Vec<OwnedFd>) -> Command {
        let mut command = Command::new("sh");
        let script = "LISTEN_PID=$$ exec \"$0\" run -c proxy.toml";
        command.args(["-c", script, env!("CARGO_BIN_EXE_countersign")]).current_dir(self.folder.path());
        command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names);
        let mappings = sockets.into_iter().zip(3..);
        let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
        command.fd_mappings(mappings).expect("different numbers");
        command
    }

    /// The binary under a name of ours.
    fn install(&self, name: &str) -> PathBuf {
        let (from, to) = (env!("CARGO_BIN_EXE_countersign"), self.path(name));
        if fs::hard_link(from, &to).is_ok() { to } else { self.copy(name) }
    }

    /// Copies the binary there. By another process: nobody who forks meanwhile may have the copy open for writing.
    fn copy(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_countersign")).arg(&path).status().expect("cp");
        assert!(copied.success());
        path
    }
}

/// A process, its successors, and what all of them said.
pub struct Proxy {
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
    _reader: JoinHandle<()>,
}

impl Proxy {
    pub fn start(mut command: Command) -> Self {
        command.env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let said = Arc::new(Mutex::new(Vec::new()));
        let (mut from, into) = (child.stderr.take().expect("piped"), said.clone());
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 8192];
            while let Ok(read @ 1..) = from.read(&mut piece) {
                into.lock().expect("not poisoned").extend_from_slice(&piece[..read]);
            }
        });
        Self { child, said, _reader: reader }
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().expect("not poisoned")).into_owned()
    }

    /// The lines of the log with these words, as soon as there are so many.
    async fn lines(&self, count: usize, words: &[&str]) -> Vec<serde_json::Value> {
        let search = async {
            loop {
                let log = self.log();
                let fits = |line: &&str| words.iter().all(|word| line.contains(word));
                let found: Vec<_> =
                    log.lines().filter(fits).filter_map(|line| serde_json::from_str(line).ok()).collect();
                if found.len() >= count {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(found) => found,
            Err(_) => panic!("it never said {words:?}:\n{}", self.log()),
        }
    }

    async fn line(&self, words: &[&str]) -> serde_json::Value {
        self.lines(1, words).await.remove(0)
    }

    pub async fn address(&self, listener: &str) -> SocketAddr {
        let line = self.line(&["\"listening\"", &format!("\"{listener}\"")]).await;
        line["address"].as_str().and_then(|address| address.parse().ok()).expect("an address")
    }

    async fn door(&self) -> SocketAddr {
        let line = self.line(&["admin listening"]).await;
        line["address"].as_str().and_then(|address| address.parse().ok()).expect("an address")
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, name: &str) {
        kill(name, self.id());
    }

    async fn ended(&mut self) -> ExitStatus {
        let wait = async {
            loop {
                if let Some(status) = self.child.try_wait().expect("it can be asked") {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(status) => status,
            Err(_) => panic!("it does not end:\n{}", self.log()),
        }
    }

    /// Waits for its end, which must be a good one.
    pub async fn succeeded(mut self) {
        let status = self.ended().await;
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    /// The numbers of those who were started in its place.
    fn successors(&self) -> Vec<u32> {
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains("new process started"));
        let lines = lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter_map(|line| u32::try_from(line["process"].as_u64()?).ok()).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for successor in self.successors() {
            if fs::read(format!("/proc/{successor}/cmdline")).is_ok_and(|line| line.ends_with(b"proxy.toml\0")) {
                kill("KILL", successor);
            }
        }
    }
}

fn kill(signal: &str, process: u32) {
    let _ = Command::new("sh").args(["-c", &format!("kill -{signal} {process}")]).status().expect("a shell");
}

/// Where a client calls.
#[derive(Clone)]
enum Target {
    Plain(SocketAddr),
    Tls(Client),
    Unix(PathBuf),
}

trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Wire for S {}

/// A connection that could not be had.
enum NoConnection {
    /// Nobody listens: the kernel says so, and nobody has accepted anything.
    Refused,
    /// It was accepted, and came to nothing.
    Lost(io::Error),
}

impl Target {
    async fn connect(&self, alpn: &[u8]) -> Result<Box<dyn Wire + Send>, NoConnection> {
        let refused = |error: io::Error| match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => NoConnection::Refused,
            _ => NoConnection::Lost(error),
        };
        Ok(match self {
            Target::Plain(address) => Box::new(TcpStream::connect(address).await.map_err(refused)?),
            Target::Tls(client) => Box::new(client.tls(&[alpn]).await.map_err(refused)?),
            Target::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(refused)?),
        })
    }
}

fn request(path: &str) -> Request<Full<Bytes>> {
    let request = Request::get(path).header("host", "localhost");
    request.header("authorization", format!("Bearer {KEY}")).body(Full::default()).expect("a request")
}

fn request2(path: &str) -> Request<Full<Bytes>> {
    let request = Request::get(format!("https://localhost{path}")).version(http::Version::HTTP_2);
    request.header("authorization", format!("Bearer {KEY}")).body(Full::default()).expect("a request")
}

/// Whether GOAWAY said that this request was not processed.
fn unprocessed(error: &hyper::Error) -> bool {
    let inner = error.source().and_then(|inner| inner.downcast_ref::<h2::Error>());
    inner.is_some_and(|inner| inner.is_go_away() && inner.is_remote() && inner.reason() == Some(h2::Reason::NO_ERROR))
}

/// What came of a load.
#[derive(Default)]
struct Tally {
    answered: Cell<usize>,
    /// Answers that said that they are the last on their connection.
    last: Cell<usize>,
    refused: Cell<usize>,
    lost: RefCell<Vec<String>>,
    /// The paths of those that GOAWAY says were not processed.
    unprocessed: RefCell<Vec<String>>,
    /// The paths of those that were answered.
    paths: RefCell<Vec<String>>,
    next: Cell<usize>,
    stop: Cell<bool>,
}

impl Tally {
    /// A path that no other request has.
    fn path(&self) -> String {
        self.next.set(self.next.get() + 1);
        format!("/meed/echo/{}", self.next.get())
    }

    fn answer(&self, path: String, answer: &Whole) {
        if answer.status == 200 {
            self.answered.set(self.answered.get() + 1);
            self.paths.borrow_mut().push(path);
        } else {
            self.lose(format!("{answer:?}"));
        }
    }

    fn lose(&self, what: impl Into<String>) {
        self.lost.borrow_mut().push(what.into());
    }

    /// Nothing was lost: each answered request reached the bank once, and those that GOAWAY named did not.
    fn judge(&self, bank: &SimHandle) {
        assert_eq!(*self.lost.borrow(), Vec::<String>::new());
        let mut received = HashMap::new();
        for call in bank.received() {
            let number = call.path.rsplit('/').next().unwrap_or_default().to_owned();
            *received.entry(number).or_insert(0) += 1;
        }
        let times = |path: &String| received.get(path.rsplit('/').next().unwrap_or_default()).copied().unwrap_or(0);
        for path in self.paths.borrow().iter() {
            assert_eq!(times(path), 1, "{path}");
        }
        for path in self.unprocessed.borrow().iter() {
            assert_eq!(times(path), 0, "{path} was processed, although GOAWAY says otherwise");
        }
    }
}

/// Clients who call all the time: who open a connection for each request, who keep one, and who share one over HTTP/2.
struct Load {
    tally: Rc<Tally>,
    tasks: Vec<Task<()>>,
}

impl Load {
    /// So many clients of each manner for each target. Whoever is refused stops.
    fn begin(targets: &[Target], clients: usize) -> Self {
        let tally = Rc::<Tally>::default();
        let mut tasks = Vec::new();
        for target in targets {
            for _ in 0..clients {
                tasks.push(tokio::task::spawn_local(fresh(target.clone(), tally.clone())));
                tasks.push(tokio::task::spawn_local(kept(target.clone(), tally.clone())));
            }
            if matches!(target, Target::Tls(_)) {
                tasks.push(tokio::task::spawn_local(shared(target.clone(), tally.clone())));
            }
        }
        Self { tally, tasks }
    }

    /// Waits for so many more answers.
    async fn answers(&self, more: usize) {
        let until = self.tally.answered.get() + more;
        let wait = async {
            while self.tally.answered.get() < until {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let lost = || self.tally.lost.borrow().clone();
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("no more answers come: {:?}", lost()));
    }

    /// Lets the clients finish what they have begun.
    async fn end(self) -> Rc<Tally> {
        self.tally.stop.set(true);
        self.until_all_are_refused().await
    }

    async fn until_all_are_refused(self) -> Rc<Tally> {
        for task in self.tasks {
            tokio::time::timeout(PATIENCE, task).await.expect("a client hangs").expect("no panic");
        }
        self.tally
    }
}

/// One connection for each request. Refused: it is over.
async fn fresh(target: Target, tally: Rc<Tally>) {
    while !tally.stop.get() {
        let stream = match target.connect(b"http/1.1").await {
            Ok(stream) => stream,
            Err(NoConnection::Refused) => return tally.refused.set(tally.refused.get() + 1),
            Err(NoConnection::Lost(error)) => return tally.lose(format!("a connection: {error}")),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        let driver = tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        let path = tally.path();
        match sender.send_request(request(&path)).await {
            Ok(answer) => match Whole::read(answer).await {
                Ok(answer) => tally.answer(path, &answer),
                Err(error) => tally.lose(format!("half an answer on a fresh connection: {error:?}")),
            },
            Err(error) => tally.lose(format!("on a fresh connection: {error:?}")),
        }
        drop(sender);
        let _ = driver.await;
    }
}

/// One connection for as long as it lasts.
async fn kept(target: Target, tally: Rc<Tally>) {
    while !tally.stop.get() {
        let stream = match target.connect(b"http/1.1").await {
            Ok(stream) => stream,
            Err(NoConnection::Refused) => return tally.refused.set(tally.refused.get() + 1),
            Err(NoConnection::Lost(error)) => return tally.lose(format!("a connection: {error}")),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        let _driver = tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        while !tally.stop.get() && sender.ready().await.is_ok() {
            let path = tally.path();
            let answer = match sender.send_request(request(&path)).await {
                Ok(answer) => Whole::read(answer).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => {
                    tally.answer(path, &answer);
                    if answer.header("connection") == "close" {
                        tally.last.set(tally.last.get() + 1);
                        break;
                    }
                }
                Err(error) => {
                    tally.lose(format!("on a kept connection: {error:?}"));
                    break;
                }
            }
        }
    }
}

/// One HTTP/2 connection, a few requests at a time.
async fn shared(target: Target, tally: Rc<Tally>) {
    while !tally.stop.get() {
        let stream = match target.connect(b"h2").await {
            Ok(stream) => stream,
            Err(NoConnection::Refused) => return tally.refused.set(tally.refused.get() + 1),
            Err(NoConnection::Lost(error)) => return tally.lose(format!("a connection: {error}")),
        };
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        let _driver = tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        let streams = (0..4).map(|_| {
            let (mut sender, tally) = (sender.clone(), tally.clone());
            tokio::task::spawn_local(async move {
                while !tally.stop.get() && sender.ready().await.is_ok() {
                    let path = tally.path();
                    match sender.try_send_request(request2(&path)).await {
                        Ok(answer) => match Whole::read(answer).await {
                            Ok(answer) => tally.answer(path, &answer),
                            Err(error) => tally.lose(format!("half an answer over HTTP/2: {error:?}")),
                        },
                        // GOAWAY came first: nothing was sent.
                        Err(error) if error.message().is_some() => return,
                        Err(error) => match error.into_error() {
                            error if unprocessed(&error) => tally.unprocessed.borrow_mut().push(path),
                            error => tally.lose(format!("over HTTP/2: {error:?}")),
                        },
                    }
                }
            })
        });
        for stream in streams.collect::<Vec<_>>() {
            stream.await.expect("no panic");
        }
    }
}

impl Home {
    async fn targets(&self, proxy: &Proxy) -> Vec<Target> {
        vec![
            Target::Plain(proxy.address("plain").await),
            Target::Tls(Client::new(proxy.address("gateway").await, self.ca.clone())),
            Target::Unix(self.path("local.sock")),
        ]
    }
}

#[test]
fn sigterm_under_load_loses_no_request() {
    let home = Home::new("[limits]\ndrain_delay = \"50ms\"");
    converse(async {
        let mut proxy = home.start();
        let load = Load::begin(&home.targets(&proxy).await, 4);
        load.answers(500).await;
        proxy.signal("TERM");
        let status = proxy.ended().await;
        let tally = load.until_all_are_refused().await;
        tally.judge(&home.bank);
        assert!(status.success(), "{status}");
        assert_eq!(tally.refused.get(), 25, "everybody was refused in the end");
        assert!(tally.last.get() >= 12, "who keeps a connection is told: {}", tally.last.get());
        assert!(!home.path("local.sock").exists());
    });
}

#[test]
fn a_binary_that_is_replaced_under_load_loses_no_request_and_refuses_nobody() {
    let home = Home::new("");
    let binary = home.install("countersign");
    converse(async {
        let mut old = Proxy::start(home.command(&binary));
        let load = Load::begin(&home.targets(&old).await, 4);
        load.answers(300).await;
        let before = fs::metadata(&binary).expect("there").ino();
        fs::rename(home.copy("next"), &binary).expect("replaced");
        let now = fs::metadata(&binary).expect("there").ino();
        assert_ne!(now, before);
        old.signal("USR2");
        let status = old.ended().await;
        assert!(status.success(), "{status}: {}", old.log());
        load.answers(300).await;
        let [successor] = old.successors()[..] else { panic!("one successor:\n{}", old.log()) };
        assert_eq!(fs::metadata(format!("/proc/{successor}/exe")).expect("it runs").ino(), now, "it is the new one");
        // And once more: what was inherited is handed on.
        kill("USR2", successor);
        old.lines(2, &["new process started"]).await;
        old.lines(2, &["\"stopped\""]).await;
        load.answers(300).await;
        let tally = load.end().await;
        tally.judge(&home.bank);
        assert_eq!(tally.refused.get(), 0);
        assert!(home.path("local.sock").exists());
        // The last of them is the only one to have them, and ends as any other.
        kill("TERM", old.successors()[1]);
        old.lines(3, &["\"stopped\""]).await;
        assert!(!home.path("local.sock").exists(), "the file goes with its last owner");
    });
}

/// Sockets of the test's own, as a service manager holds them.
struct Held {
    plain: Vec<Socket>,
    gateway: TcpListener,
    local: UnixListener,
}

impl Held {
    /// Three sockets at one address, and one at another.
    fn new(home: &Home) -> Self {
        let open = |address: SocketAddr| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_reuse_port(true).expect("Linux");
            socket.bind(&address.into()).expect("bound");
            socket.listen(128).expect("listening");
            socket
        };
        let first = open(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = first.local_addr().expect("bound").as_socket().expect("TCP");
        Self {
            plain: vec![first, open(address), open(address)],
            gateway: TcpListener::bind("127.0.0.1:0").expect("bound"),
            local: UnixListener::bind(home.path("local.sock")).expect("bound"),
        }
    }

    fn handles(&self) -> Vec<OwnedFd> {
        let plain = self.plain.iter().map(|socket| socket.try_clone().expect("a handle").into());
        let gateway = self.gateway.try_clone().expect("a handle").into();
        plain.chain([gateway, self.local.try_clone().expect("a handle").into()]).collect()
    }
}

#[test]
fn a_restart_on_held_sockets_loses_no_request_and_refuses_nobody() {
    let home = Home::new("");
    let held = Held::new(&home);
    let names = "plain:plain:plain:gateway:whatever";
    converse(async {
        let mut first = Proxy::start(home.activated(names, held.handles()));
        let targets = home.targets(&first).await;
        let gateway = held.gateway.local_addr().expect("bound");
        assert_eq!(first.address("gateway").await, gateway);
        let load = Load::begin(&targets, 4);
        load.answers(300).await;
        first.signal("TERM");
        let status = first.ended().await;
        assert!(status.success(), "{status}: {}", first.log());
        let mut second = Proxy::start(home.activated(names, held.handles()));
        load.answers(300).await;
        let tally = load.end().await;
        tally.judge(&home.bank);
        assert_eq!(tally.refused.get(), 0);
        second.signal("TERM");
        assert!(second.ended().await.success());
        assert!(home.path("local.sock").exists(), "it is the holder's");
    });
}

/// Connections to one of several sockets at an address, over which the kernel spreads them.
#[test]
fn every_inherited_socket_is_accepted_from() {
    let home = Home::new("");
    let held = Held::new(&home);
    converse(async {
        // Three sockets for two workers, and one for both of them.
        let mut proxy = Proxy::start(home.activated("plain:plain:plain:gateway:local", held.handles()));
        let plain = proxy.address("plain").await;
        for _ in 0..100 {
            let mut stream = TcpStream::connect(plain).await.expect("connected");
            let text = format!("GET /meed/echo/x HTTP/1.0\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n\r\n");
            stream.write_all(text.as_bytes()).await.expect("sent");
            let mut answer = String::new();
            let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
            read.expect("somebody accepts").expect("read");
            assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200"), "{answer}");
        }
        proxy.signal("TERM");
        assert!(proxy.ended().await.success());
    });
}

#[test]
fn a_process_that_cannot_accept_at_all_its_sockets_ends_with_a_failure() {
    let home = Home::new("[limits]\ndrain = \"2s\"");
    let held = Held::new(&home);
    converse(async {
        let mut proxy = Proxy::start(home.activated("plain:plain:plain:gateway:local", held.handles()));
        proxy.address("plain").await;
        // One of its sockets stops listening under its hands; the others would serve on.
        held.plain[0].shutdown(std::net::Shutdown::Both).expect("shut");
        let status = proxy.ended().await;
        assert_eq!(status.code(), Some(1), "{}", proxy.log());
        assert!(proxy.log().contains("a part of the process ended unexpectedly"), "{}", proxy.log());
    });
}

#[test]
fn a_connection_without_a_request_yet_is_answered_while_draining() {
    let home = Home::new("");
    converse(async {
        let mut proxy = home.start();
        let plain = proxy.address("plain").await;
        let text = format!("GET /meed/echo/x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n\r\n");
        let mut streams = Vec::new();
        for _ in 0..200 {
            streams.push(TcpStream::connect(plain).await.expect("connected"));
        }
        // One of them had a request already, another has half of one.
        streams[0].write_all(text.as_bytes()).await.expect("sent");
        let mut head = [0; 12];
        streams[0].read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200");
        let half = text.len() / 2;
        streams[1].write_all(&text.as_bytes()[..half]).await.expect("sent");
        proxy.signal("TERM");
        proxy.line(&["\"draining\""]).await;
        for (index, stream) in streams.iter_mut().enumerate() {
            let from = if index == 1 { half } else { 0 };
            stream.write_all(&text.as_bytes()[from..]).await.expect("sent");
        }
        for (index, stream) in streams.iter_mut().enumerate() {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap_or_else(|error| panic!("{index}: {error}"));
            assert!(answer.contains("HTTP/1.1 200"), "{index}: {answer:?}");
            assert!(answer.to_ascii_lowercase().contains("connection: close"), "{index}: {answer:?}");
        }
        assert!(proxy.ended().await.success());
    });
}

#[test]
fn whoever_waits_to_be_accepted_is_answered_before_the_end() {
    let home = Home::new("");
    converse(async {
        let mut proxy = home.start();
        let targets = [Target::Plain(proxy.address("plain").await), Target::Unix(home.path("local.sock"))];
        // While it cannot accept, the system lets clients in.
        proxy.signal("STOP");
        let text = format!("GET /meed/echo/x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n\r\n");
        let mut streams = Vec::new();
        for target in targets.iter().cycle().take(600) {
            let Ok(mut stream) = target.connect(b"").await else { panic!("not let in") };
            stream.write_all(text.as_bytes()).await.expect("sent");
            streams.push(stream);
        }
        proxy.signal("TERM");
        proxy.signal("CONT");
        for (index, stream) in streams.iter_mut().enumerate() {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap_or_else(|error| panic!("{index}: {error}"));
            assert!(answer.contains("HTTP/1.1 200"), "{index}: {answer:?}");
        }
        assert!(proxy.ended().await.success());
    });
}

#[test]
fn a_second_signal_ends_at_once() {
    let home = Home::new("");
    converse(async {
        let mut proxy = home.start();
        let mut slow = TcpStream::connect(proxy.address("plain").await).await.expect("connected");
        let text = "POST /meed/echo/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n";
        slow.write_all(format!("{text}authorization: Bearer {KEY}\r\n\r\n1").as_bytes()).await.expect("sent");
        proxy.signal("TERM");
        proxy.line(&["\"draining\""]).await;
        proxy.signal("TERM");
        assert_eq!(proxy.ended().await.code(), Some(130));
    });
}

#[test]
fn a_successor_that_fails_changes_nothing() {
    let home = Home::new("");
    let binary = home.install("countersign");
    converse(async {
        let mut proxy = Proxy::start(home.command(&binary));
        let targets = home.targets(&proxy).await;
        let config = fs::read_to_string(home.path("proxy.toml")).expect("read");
        fs::write(home.path("proxy.toml"), format!("{config}\n[nonsense]\n")).expect("written");
        proxy.signal("USR2");
        proxy.line(&["not replaced", "does not serve", "exit status: 1"]).await;
        // This one comes as far as to take the sockets over.
        let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
        let more = format!("[[listener]]\nname = \"more\"\nbind = \"{}\"", taken.local_addr().expect("bound"));
        fs::write(home.path("proxy.toml"), format!("{more}\n{config}")).expect("written");
        proxy.signal("USR2");
        proxy.lines(2, &["not replaced", "does not serve", "exit status: 1"]).await;
        fs::write(home.path("proxy.toml"), format!("{config}\n{more}")).expect("written");
        proxy.signal("USR2");
        proxy.lines(3, &["not replaced", "does not serve", "exit status: 1"]).await;
        fs::write(home.path("proxy.toml"), config).expect("written");
        fs::remove_file(&binary).expect("removed");
        proxy.signal("USR2");
        proxy.line(&["not replaced", "cannot be started"]).await;
        let load = Load::begin(&targets, 1);
        load.answers(20).await;
        let tally = load.end().await;
        tally.judge(&home.bank);
        proxy.signal("TERM");
        assert!(proxy.ended().await.success());
    });
}

#[test]
fn a_file_store_is_not_open_to_two_and_the_log_says_what_to_do() {
    use base64::Engine as _;
    let key = base64::engine::general_purpose::STANDARD.encode(sha256(b"a store key"));
    let home = Home::new(&format!("[store]\nurl = \"file:records.redb\"\nkeys = [\"{key}\"]"));
    converse(async {
        let mut proxy = home.start();
        proxy.address("plain").await;
        proxy.signal("USR2");
        proxy.line(&["not replaced", "one process at a time", "systemd"]).await;
        proxy.signal("TERM");
        assert!(proxy.ended().await.success());
        assert_eq!(proxy.successors(), Vec::<u32>::new());
    });
}

/// Where a service manager listens.
struct Manager {
    socket: UnixDatagram,
    heard: RefCell<Vec<String>>,
}

impl Manager {
    fn new(home: &Home) -> Self {
        let socket = UnixDatagram::bind(home.path("notify.sock")).expect("bound");
        socket.set_nonblocking(true).expect("non-blocking");
        Self { socket, heard: RefCell::default() }
    }

    fn command(&self, home: &Home) -> Command {
        let mut command = home.command(Path::new(env!("CARGO_BIN_EXE_countersign")));
        command.env("NOTIFY_SOCKET", home.path("notify.sock"));
        command
    }

    fn listen(&self) {
        let mut message = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut message) {
            self.heard.borrow_mut().push(String::from_utf8_lossy(&message[..length]).into_owned());
        }
    }

    /// Waits for a message with these words.
    async fn hears(&self, words: &[&str]) -> String {
        let wait = async {
            loop {
                self.listen();
                let fits = |message: &&String| words.iter().all(|word| message.contains(word));
                if let Some(found) = self.heard.borrow().iter().find(fits) {
                    return found.clone();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(found) => found,
            Err(_) => panic!("it never heard {words:?}: {:#?}", self.heard.borrow()),
        }
    }
}

#[test]
fn a_service_manager_hears_of_the_start_the_beat_and_the_end() {
    let home = Home::new("");
    let manager = Manager::new(&home);
    converse(async {
        let mut command = manager.command(&home);
        command.env("WATCHDOG_USEC", "40000");
        let mut proxy = Proxy::start(command);
        manager.hears(&["READY=1\n", "STATUS=serving 3 listeners, config "]).await;
        let beats = || manager.heard.borrow().iter().filter(|message| *message == "WATCHDOG=1\n").count();
        while beats() < 5 {
            manager.listen();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxy.signal("TERM");
        manager.hears(&["STOPPING=1\n"]).await;
        assert!(proxy.ended().await.success());
    });
}

#[test]
fn a_service_manager_hears_who_takes_the_place_and_not_that_anything_stops() {
    let home = Home::new("");
    let manager = Manager::new(&home);
    converse(async {
        let mut proxy = Proxy::start(manager.command(&home));
        manager.hears(&["READY=1\n", "STATUS=serving 3 listeners"]).await;
        proxy.signal("USR2");
        let main = manager.hears(&["MAINPID="]).await;
        assert!(proxy.ended().await.success());
        let [successor] = proxy.successors()[..] else { panic!("{}", proxy.log()) };
        assert_eq!(main, format!("MAINPID={successor}\nREADY=1\n"));
        manager.listen();
        assert!(!manager.heard.borrow().iter().any(|message| message.contains("STOPPING")), "{:?}", manager.heard);
        kill("TERM", successor);
        manager.hears(&["STOPPING=1"]).await;
    });
}

#[test]
fn readiness_is_asked_of_the_new_process_alone_once_it_serves() {
    let home = Home::new("[limits]\nbody_min_rate = 0\ndrain = \"5m\"");
    converse(async {
        let mut proxy = home.start();
        let (plain, door) = (proxy.address("plain").await, proxy.door().await);
        // The old process stays for as long as this request lasts.
        let mut slow = TcpStream::connect(plain).await.expect("connected");
        let text = format!(
            "POST /meed/echo/x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\ncontent-length: 2\r\n\r\n1"
        );
        slow.write_all(text.as_bytes()).await.expect("sent");
        proxy.signal("USR2");
        proxy.line(&["another process has taken over"]).await;
        proxy.line(&["draining; another process has taken over"]).await;
        let ask = |path: &str| {
            let answer = probe(door, path).expect("answered");
            assert!(answer.contains(" 200 "), "{answer}");
            answer
        };
        // It may take a moment. Of two who accept, either has its turns.
        let mut in_a_row = 0;
        let answers = async {
            ask("/readyz");
            while in_a_row < 20 {
                let old = ask("/metrics").contains("countersign_connections{listener=\"plain\"} 1");
                in_a_row = if old { 0 } else { in_a_row + 1 };
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, answers).await.expect("the old process goes on answering");
        assert!(proxy.child.try_wait().expect("asked").is_none(), "a request is under way");
        slow.write_all(b"2").await.expect("sent");
        let mut answer = String::new();
        slow.read_to_string(&mut answer).await.expect("read");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(proxy.ended().await.success());
    });
}

/// One request on a connection of its own, from a thread that waits.
fn probe(door: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = StdTcpStream::connect(door)?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn no_probe_is_lost_while_another_process_takes_over() {
    let home = Home::new("");
    converse(async {
        let proxy = home.start();
        let door = proxy.door().await;
        let over = Arc::new(AtomicBool::new(false));
        let probes: Vec<_> = (0..4)
            .map(|_| {
                let over = over.clone();
                std::thread::spawn(move || {
                    let mut count = 0;
                    while !over.load(Ordering::Relaxed) {
                        let answer = probe(door, "/livez").expect("answered");
                        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for handover in 0..8 {
            let process = proxy.successors().last().copied().unwrap_or(proxy.child.id());
            kill("USR2", process);
            proxy.lines(handover + 1, &["new process started"]).await;
            proxy.lines(handover + 1, &["\"stopped\""]).await;
        }
        over.store(true, Ordering::Relaxed);
        for probe in probes {
            assert!(probe.join().expect("no probe fails") > 20);
        }
    });
}

#[test]
fn sockets_of_no_use_are_told_apart() {
    let home = Home::new("");
    converse(async {
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
        let mut refused = Proxy::start(home.activated("plain", vec![datagrams.into()]));
        assert_eq!(refused.ended().await.code(), Some(1));
        while !refused.log().contains("descriptor 3 (`plain`)") || !refused.log().contains("ListenStream=") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }

        let stray = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = stray.local_addr().expect("bound").to_string();
        let mut warned = Proxy::start(home.activated("stray", vec![stray.into()]));
        warned.line(&["belongs to no listener", "stray", &address]).await;
        warned.address("plain").await;
        assert!(StdTcpStream::connect(address).is_err(), "it is closed");
        warned.signal("TERM");
        assert!(warned.ended().await.success());

        let mut command = home.command(Path::new(env!("CARGO_BIN_EXE_countersign")));
        command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
        let mut other = Proxy::start(command);
        other.line(&["meant for process 1"]).await;
        other.address("plain").await;
        other.signal("TERM");
        assert!(other.ended().await.success());
    });
}

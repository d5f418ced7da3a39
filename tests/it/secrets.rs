//! T18: the canary test. Unique secrets in every place, driven through every path by the real binary, with its log at
//! its most talkative; then everything that came out is searched for them, in every disguise that we can think of.
//!
//! The one thing that is not judged here is a bank's own answer on its way through.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use countersign::base::secret::{ExposeSecret, hex, sha256};
use countersign::base::time::Clock;
use countersign::config::{InMemory, Loaded, MachineFiles, build, load};
use countersign::sim::{
    Bank, Credentials, Faults, LeafSpec, ResponseFault, Sim, SimAuthority, SimFault, SimHandle, Verbatim,
};
use countersign::tls::mint::{self, Constraints, KeyKind, NameConstraint};
use countersign::tls::{ClientTls, client};
use http::{Request, Version};
use http_body_util::Full;
use rustix::process::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, Whole, converse, get, post, request};
use crate::collector::Collector;
use crate::harness::bank;

/// The client's own key, and what else a client may send that nobody else should read.
const CLIENT_KEY: &str = "canary-client-key-5Jq2";
const WRONG_KEY: &str = "canary-mistyped-key-8Xw1";
/// What an operator shows at the admin listener.
const OPERATOR: &str = "canary-operator-token-4Vb6";
const COOKIE: &str = "canary-cookie-0Zp7";
const QUERY: &str = "canary-query-3Rt9";
const BODY: &str = "canary-body-6Lk4";
const STATE: &str = "canary=canary-tracestate-2Hv5";
/// What our own exports carry, to a collector that keeps every byte.
const COLLECTOR_KEY: &str = "canary-collector-key-9Ws3";
/// The key of the audit log, which is shown to nobody either.
const AUDIT_KEY: &str = "canary-audit-key-2Hn5-0123456789abcdef";
/// The secret that follows the current one of every provider, and that no bank accepts.
const NEXT_SECRET: &str = "canary-next-secret-4Tr8-0123456789";

/// Something that must not come out, with all its disguises.
pub struct Canary {
    name: String,
    needles: Vec<Vec<u8>>,
}

impl Canary {
    pub fn new(name: impl Into<String>, secret: &str) -> Self {
        let bytes = secret.as_bytes();
        assert!(bytes.len() >= 12, "a short needle is found by chance");
        let list = format!("{bytes:?}");
        let mut needles = vec![
            bytes.to_vec(),
            hex(bytes).into_bytes(),
            form_urlencoded::byte_serialize(bytes).collect::<String>().into_bytes(),
            percent_encoding::percent_encode(bytes, percent_encoding::NON_ALPHANUMERIC).to_string().into_bytes(),
            serde_json::json!(secret).to_string().trim_matches('"').as_bytes().to_vec(),
            secret.escape_default().to_string().into_bytes(),
            // How `Debug` shows bytes.
            list.trim_matches(['[', ']']).as_bytes().to_vec(),
            bytes.escape_ascii().to_string().into_bytes(),
        ];
        // Base64 at each of the three places where it may begin in a longer text, such as `id:secret`.
        for before in 0..3_usize {
            let shifted = [&b"???"[..before], bytes].concat();
            let whole = shifted.len() * 8 / 6;
            for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                let text = engine.encode(&shifted);
                let from = [0, 2, 3][before];
                needles.push(text.as_bytes()[from..whole].to_vec());
            }
        }
        needles.sort();
        needles.dedup();
        Self { name: name.into(), needles }
    }
}

/// Everything that came out, by where.
#[derive(Default)]
pub struct Outputs(Vec<(String, Vec<u8>)>);

impl Outputs {
    pub fn add(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.into(), bytes.into()));
    }

    /// How much came out at a place.
    pub fn bytes(&self, place: &str) -> usize {
        self.0.iter().filter(|(known, _)| known == place).map(|(_, bytes)| bytes.len()).sum()
    }

    /// Each find, with its surroundings: one per canary and place.
    pub fn search(&self, canaries: &[Canary]) -> Vec<String> {
        let needles = canaries.iter().flat_map(|canary| &canary.needles);
        let any: Vec<String> =
            needles.map(|needle| regex::escape(std::str::from_utf8(needle).expect("text"))).collect();
        let any = regex::bytes::RegexBuilder::new(&any.join("|")).unicode(false).size_limit(256 << 20).build();
        let any = any.expect("needles");
        let mut found = BTreeMap::new();
        for (place, bytes) in &self.0 {
            for hit in any.find_iter(bytes) {
                let whose = canaries.iter().find(|canary| canary.needles.iter().any(|needle| needle == hit.as_bytes()));
                let name = whose.map_or("?", |canary| canary.name.as_str());
                let around = &bytes[hit.start().saturating_sub(200)..(hit.end() + 80).min(bytes.len())];
                let shown = format!("{name} in {place}: …{}…", String::from_utf8_lossy(around));
                found.entry((name, place)).or_insert(shown);
            }
        }
        found.into_values().collect()
    }
}

#[test]
fn the_search_itself_finds_every_disguise() {
    let secret = "s3cr3t+/=&%:é-canary";
    let canary = [Canary::new("it", secret)];
    for disguise in [
        format!("x{secret}y"),
        STANDARD.encode(secret),
        STANDARD.encode(format!("id:{secret}")),
        STANDARD.encode(format!("id2:{secret}!")),
        URL_SAFE_NO_PAD.encode(format!("id23:{secret}")),
        format!("grant=x&s={}", form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>()),
        percent_encoding::percent_encode(secret.as_bytes(), percent_encoding::NON_ALPHANUMERIC).to_string(),
        format!("{:?}", secret.as_bytes()),
        format!("{:?}", Bytes::from(secret)),
        format!("{secret:?}"),
        hex(secret.as_bytes()),
        serde_json::json!({ "k": secret }).to_string(),
    ] {
        let mut outputs = Outputs::default();
        outputs.add("here", disguise.clone());
        assert!(!outputs.search(&canary).is_empty(), "{disguise}");
    }
    let mut outputs = Outputs::default();
    outputs.add("here", "s3cr3t-canary, and 5a4b");
    assert_eq!(outputs.search(&canary), Vec::<String>::new());
}

/// The real binary at work, with all that it has said so far.
pub struct Process {
    child: Child,
    said: [Arc<Mutex<Vec<u8>>>; 2],
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    pub fn start(arguments: &[&str], folder: &Path) -> Self {
        Self::start_with(arguments, folder, &[])
    }

    /// Starts it with more environment variables.
    pub fn start_with(arguments: &[&str], folder: &Path, variables: &[(&str, &Path)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .args(arguments)
            .current_dir(folder)
            .env_remove("RUST_LOG")
            .env("RUST_BACKTRACE", "full")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let said: [Arc<Mutex<Vec<u8>>>; 2] = Default::default();
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let readers = vec![collect(out, said[0].clone()), collect(err, said[1].clone())];
        Self { child, said, readers }
    }

    /// What it said on standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.said[1].lock().expect("not poisoned")).into_owned()
    }

    /// What it said on standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.said[0].lock().expect("not poisoned")).into_owned()
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The address after the line that says that `what` listens.
    pub async fn address(&self, what: &str) -> SocketAddr {
        for _ in 0..1500 {
            let said = self.stderr();
            let line = said.lines().find(|line| line.contains("listening") && line.contains(what));
            if let Some((_, rest)) = line.and_then(|line| line.split_once("127.0.0.1:")) {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                return SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{what} never listened:\n{}", self.stderr());
    }

    /// How much memory it has in use, in bytes.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("readable");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).expect("a process has a number")
    }

    /// What the system shows of the process to others of the same user.
    fn outside(&self, outputs: &mut Outputs) {
        for file in ["cmdline", "environ", "status", "limits", "maps"] {
            let bytes = fs::read(format!("/proc/{}/{file}", self.child.id())).expect("readable");
            assert!(!bytes.is_empty(), "{file}");
            outputs.add(format!("/proc/PID/{file}"), bytes);
        }
    }

    /// Asks it to end, waits for it, and adds all that it said.
    pub fn finish(mut self, outputs: &mut Outputs) {
        let ask = format!("kill -TERM {}", self.child.id());
        let asked = Command::new("sh").args(["-c", &ask]).status().expect("a shell");
        assert!(asked.success());
        let status = self.child.wait().expect("it ends");
        for reader in self.readers.drain(..) {
            reader.join().expect("read");
        }
        assert!(status.success(), "{status}: {}", self.stderr());
        let said = |at: usize| self.said[at].lock().expect("not poisoned").clone();
        assert_eq!(String::from_utf8_lossy(&said(0)), "", "nothing belongs on standard output");
        outputs.add("standard error", said(1));
    }
}

impl Drop for Process {
    /// Kills it, and waits until it is gone.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static, into: Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut piece = [0; 8192];
        while let Ok(read @ 1..) = from.read(&mut piece) {
            into.lock().expect("not poisoned").extend_from_slice(&piece[..read]);
        }
    })
}

/// The ways in which a token endpoint may throw our secrets back at us.
fn token_troubles(id: &str, secret: &str, live: &str) -> Vec<ResponseFault> {
    let basic = STANDARD.encode(format!("{id}:{secret}"));
    let mut troubles = Vec::new();
    for (shown, whole) in [
        (secret.to_owned(), true),
        (live.to_owned(), true),
        (format!("invalid: {secret}"), true),
        (STANDARD.encode(secret), false),
        (URL_SAFE_NO_PAD.encode(secret), false),
        (URL_SAFE_NO_PAD.encode(format!("{id}:{secret}")), false),
        (hex(secret.as_bytes()), false),
        (basic.clone(), false),
    ] {
        let body = serde_json::json!({
            "status": { "code": shown, "description": shown }, "error": shown, "error_description": shown,
            "code": shown, "errorId": shown, "text": shown, "response_code": shown, "httpCode": shown,
            "message": shown, "moreInformation": shown, shown.clone(): shown, "nested": { shown.clone(): [shown] },
        })
        .to_string();
        let headers =
            ["x-echo", "www-authenticate", "location", "set-cookie"].map(|name| (name.to_owned(), shown.clone()));
        let headers: Vec<_> =
            headers.into_iter().chain([("content-type".to_owned(), "application/json".to_owned())]).collect();
        for status in if whole { &[200, 400, 401, 409, 500, 503][..] } else { &[400, 503][..] } {
            let (headers, body) = (headers.clone(), Bytes::from(body.clone()));
            troubles.push(ResponseFault::Verbatim(Verbatim { status: *status, headers, body }));
        }
    }
    let headed = |status, name: &str, value: &str, body: String| {
        ResponseFault::Verbatim(Verbatim {
            status,
            headers: vec![(name.to_owned(), value.to_owned())],
            body: body.into(),
        })
    };
    troubles.extend([
        headed(503, "content-type", secret, String::new()),
        headed(503, "content-type", &hex(secret.as_bytes()), String::new()),
        headed(503, "content-type", live, String::new()),
        headed(503, "content-encoding", secret, String::new()),
        headed(503, "retry-after", secret, String::new()),
        headed(302, "location", &format!("https://evil.example/?{secret}"), String::new()),
        headed(200, "content-type", "text/html", format!("<h1>{secret}</h1>")),
        headed(200, "content-type", "application/json", format!("{{\"access_token\":\"{live} {live}\"}}")),
        headed(
            200,
            "content-type",
            "application/json",
            format!("{{\"access_token\":\"{live}\",\"token_type\":\"{secret}\"}}"),
        ),
        headed(
            200,
            "content-type",
            "application/json",
            format!("{{\"access_token\":\"{live}\",\"expires_in\":\"{secret}\"}}"),
        ),
        headed(200, "content-type", "application/json", format!("{{\"access_token\":\"{live}\", {secret}")),
        headed(200, "content-type", "application/json", format!("{{\"data\":{{\"accessToken\":[\"{live}\"]}}}}")),
        ResponseFault::Garbage(format!("{secret} {live}\r\n\r\n").into()),
        ResponseFault::Garbage(format!("HTTP/1.1 200 {secret}\r\n{live} : {secret}\r\n\r\n").into()),
        ResponseFault::Garbage(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{secret}\r\n").into()),
    ]);
    troubles
}

/// The ways in which a resource may do so. All of them leave the token as it is, or renew it.
fn resource_troubles(id: &str, secret: &str, live: &str) -> Vec<ResponseFault> {
    let mut troubles = Vec::new();
    for shown in
        [live.to_owned(), secret.to_owned(), format!("Bearer {live}"), STANDARD.encode(format!("{id}:{secret}"))]
    {
        let body = serde_json::json!({
            "status": { "code": shown, "description": shown }, "error": shown, "code": shown, "response_code": shown,
            shown.clone(): { shown.clone(): shown },
        })
        .to_string();
        for status in [200, 401, 403, 500] {
            let mut headers = vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                ("www-authenticate".to_owned(), format!("Bearer error=\"{shown}\", realm=\"{shown}\"")),
                ("location".to_owned(), format!("https://evil.example/?{shown}")),
                // A name of a header may be anything, too.
                (shown.to_ascii_lowercase(), "1".to_owned()),
                (format!("x-{shown}"), shown.clone()),
                (format!("x-{}", hex(shown.as_bytes())), shown.clone()),
            ];
            troubles.push(ResponseFault::Verbatim(Verbatim {
                status,
                headers: headers.clone(),
                body: body.clone().into(),
            }));
            headers[0].1 = shown.clone();
            troubles.push(ResponseFault::Verbatim(Verbatim { status, headers, body: shown.clone().into() }));
        }
    }
    troubles.extend([
        ResponseFault::Garbage(format!("{live}\r\n\r\n").into()),
        ResponseFault::Garbage(format!("HTTP/1.1 200 {live}\r\n{live} : {secret}\r\n\r\n").into()),
        ResponseFault::Garbage(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{live}\r\n").into()),
        ResponseFault::CutBody,
        ResponseFault::ResetBeforeAnswer,
        ResponseFault::ResetAfterHead,
    ]);
    troubles
}

/// A running process before five banks, and its folders.
struct World {
    process: Process,
    client: Client,
    address: SocketAddr,
    egress: SocketAddr,
    admin: SocketAddr,
    banks: Vec<SimHandle>,
    collector: Collector,
    etc: PathBuf,
    work: PathBuf,
    _folder: tempfile::TempDir,
}

/// One provider and route per trouble, since a failed key rests and nobody here moves the clock.
const SPARE: usize = 64;

impl World {
    async fn start(log: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (etc, work) = (folder.path().join("etc"), folder.path().join("run"));
        fs::create_dir_all(&etc).expect("made");
        fs::create_dir_all(&work).expect("made");
        let now = Clock::System.now();
        let authority = SimAuthority::new("canary CA", now).expect("a CA");
        let leaf = authority.issue(&LeafSpec::server(now)).expect("a leaf");
        let put = |name: &str, text: &str| fs::write(etc.join(name), text).expect("written");
        put("server.crt", &leaf.cert_pem);
        put("server.key", &leaf.key_pem);
        let permits = ["localhost", "127.0.0.1"].map(|host| NameConstraint::parse(host).expect("a host"));
        let constraints = Constraints::only(&permits).expect("something");
        let (_, ca, ca_key) = mint::MintAuthority::new(KeyKind::EcdsaP256, &constraints, now, 1).expect("a CA");
        put("ca.crt", &ca);
        put("audit.key", AUDIT_KEY);
        put("ca.key", ca_key.expose_secret());
        let mut config = format!(
            "[[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:0\"\n\
             tls = {{ cert = \"server.crt\", key = \"server.key\" }}\n\
             [[listener]]\nname = \"egress\"\nmode = \"forward\"\nbind = \"127.0.0.1:0\"\nunmatched = \"tunnel\"\n\
             intercept = {{ ca_cert = \"ca.crt\", ca_key = \"ca.key\" }}\n\
             [client.erp]\nkey_sha256 = [\"{}\"]\n[admin]\nbind = \"127.0.0.1:0\"\n\
             [admin.token.ops]\nvalue = {{ file = \"operator.token\" }}\nrole = \"operate\"\n[runtime]\nworkers = 2\n\
             [audit]\nto = \"../run/audit.log\"\nkey = {{ file = \"audit.key\" }}\n[log]\n{log}\n",
            hex(&sha256(CLIENT_KEY.as_bytes()))
        );
        put("operator.token", OPERATOR);
        put("next.secret", NEXT_SECRET);
        let mut banks = Vec::new();
        for kind in Bank::ALL {
            let sim = bank(kind);
            let (name, ca, secret) = (kind.name(), format!("{}.crt", kind.name()), format!("{}.secret", kind.name()));
            put(&ca, &sim.ca_pem());
            put(&secret, sim.credentials().secret().expose_secret());
            let mut add = |name: &str, more: &str| {
                let mut settings = sim.settings_toml_as(name, &ca);
                let line = settings.lines().find(|line| line.contains("_secret = ")).expect("a secret").to_owned();
                let (key, _) = line.split_once(" = ").expect("a setting");
                let following = format!("next = {{ {key} = {{ file = \"next.secret\" }} }}");
                settings = settings.replace(&line, &format!("{key} = {{ file = \"{secret}\" }}\n{following}"));
                let _ = write!(
                    config,
                    "{settings}timeouts = {{ token = \"2s\", response = \"2s\" }}\n{more}\n\
                     [[route]]\nname = \"{name}\"\npath = \"/{name}\"\nprovider = \"{name}\"\nlisteners = [\"gateway\"]\n"
                );
            };
            add(name, "");
            (0..SPARE).for_each(|n| add(&format!("{name}-{n}"), ""));
            if kind == Bank::OAuth2 {
                add("oauth2-basic", "client_auth = \"basic\"");
            }
            let _ = write!(
                config,
                "[[route]]\nname = \"{name}-egress\"\nprovider = \"{name}\"\nlisteners = [\"egress\"]\n\
                 token_endpoint = \"stub\"\nenforce = false\nallow = [\"GET /none\"]\n"
            );
            banks.push(sim);
        }
        put("collector.key", COLLECTOR_KEY);
        let collector = Collector::start();
        config += &collector.config("headers = { x-api-key = { file = \"collector.key\" } }");
        assert!(banks.iter().all(|sim| !config.contains(sim.credentials().secret().expose_secret())));
        fs::write(etc.join("proxy.toml"), &config).expect("written");
        let process = Process::start(&["run", "-c", "../etc/proxy.toml"], &work);
        let (address, admin) = (process.address("gateway").await, process.address("admin listening").await);
        let egress = process.address("egress").await;
        let client = Client::new(address, authority.pem());
        Self { process, client, address, egress, admin, banks, collector, etc, work, _folder: folder }
    }

    /// One call; what is ours of its answer is kept.
    async fn call(&self, outputs: &mut Outputs, request: Request<Full<Bytes>>) -> u16 {
        let what = format!("answer to {} {}", request.method(), request.uri().path());
        let mut sender = self.client.http1().await;
        let Ok(response) = sender.send_request(request).await else { return 0 };
        ours(outputs, &what, response.status().as_u16(), response.headers());
        let own = response.headers().get("content-type").is_some_and(|kind| kind == "application/problem+json");
        let status = response.status().as_u16();
        if let Ok(whole) = Whole::read(response).await
            && own
        {
            outputs.add(what, whole.body.to_vec());
        }
        status
    }

    async fn admin(&self, outputs: &mut Outputs, request: &str) {
        for (token, refused) in [(OPERATOR, false), (WRONG_KEY, true)] {
            let mut stream = self.knock(request, token).await;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("read");
            assert!(answer.starts_with(b"HTTP/1.1 "), "{request}");
            let status = String::from_utf8_lossy(&answer[9..12]).into_owned();
            assert_eq!(["401", "429"].contains(&status.as_str()), refused, "{request}: {status}");
            outputs.add(format!("admin {request} by {token:.14}"), answer);
        }
    }

    async fn knock(&self, request: &str, token: &str) -> tokio::net::TcpStream {
        let mut stream = tokio::net::TcpStream::connect(self.admin).await.expect("connected");
        let bytes =
            format!("{request}\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
        stream.write_all(bytes.as_bytes()).await.expect("written");
        stream
    }

    /// What the stream of events tells from now on.
    async fn watch(&self) -> Arc<Mutex<Vec<u8>>> {
        let mut stream = self.knock("GET /api/v1/events HTTP/1.1", OPERATOR).await;
        let told = Arc::new(Mutex::new(Vec::new()));
        let into = told.clone();
        tokio::task::spawn_local(async move {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                into.lock().expect("not poisoned").extend_from_slice(&buffer[..read]);
            }
        });
        told
    }
}

/// Everything that can happen at a forward listener, and in its tunnels.
async fn through_the_proxy(world: &World, outputs: &mut Outputs) {
    let right = format!("Basic {}", STANDARD.encode(format!("erp:{CLIENT_KEY}")));
    let wrong = format!("Basic {}", STANDARD.encode(format!("erp:{WRONG_KEY}")));
    for sim in &world.banks {
        let base = sim.base_url();
        let (_, rest) = base.split_once("://").expect("a scheme");
        let (place, path) =
            rest.split_once('/').map_or((rest, String::new()), |(place, path)| (place, format!("/{path}")));
        let fields = format!("cookie: {COOKIE}\r\nauthorization: Bearer {WRONG_KEY}\r\n");
        for (credentials, target) in [
            ("", place.to_owned()),
            (wrong.as_str(), place.to_owned()),
            (right.as_str(), format!("user:{WRONG_KEY}@{place}")),
            (right.as_str(), "127.0.0.1:1".to_owned()),
        ] {
            let head = format!("CONNECT {target} HTTP/1.1\r\nproxy-authorization: {credentials}\r\n{fields}\r\n");
            outputs.add("a refused CONNECT", exchange(world.egress, head.as_bytes()).await);
            let head = format!(
                "POST http://{target}{path}/echo/x?{QUERY} HTTP/1.1\r\nproxy-authorization: {credentials}\r\n\
                 content-length: 0\r\nconnection: close\r\n{fields}\r\n"
            );
            let answer = exchange(world.egress, head.as_bytes()).await;
            assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
            outputs.add("a refused absolute form", answer);
        }
        let ca = fs::read_to_string(world.etc.join("ca.crt")).expect("the CA");
        for (target, expected) in [
            (format!("{path}/echo/x?{QUERY}"), 200),
            (format!("{path}/../x?{QUERY}"), 400),
            (format!("/elsewhere?{QUERY}"), 403),
        ] {
            if path.is_empty() && expected == 403 {
                continue; // All of this bank's paths have a route.
            }
            let mut stream = tokio::net::TcpStream::connect(world.egress).await.expect("connected");
            let head = format!("CONNECT {place} HTTP/1.1\r\nproxy-authorization: {right}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("written");
            let mut accepted = [0; 19];
            stream.read_exact(&mut accepted).await.expect("an answer");
            assert!(accepted.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&accepted));
            let mut rest = Vec::from(&accepted[17..]);
            while !rest.ends_with(b"\r\n\r\n") {
                rest.push(stream.read_u8().await.expect("a head"));
            }
            let config = client(ClientTls { ca: Some(ca.as_bytes()), ..ClientTls::default() }).expect("a good CA");
            let host = place.rsplit_once(':').map_or(place, |(host, _)| host).to_owned();
            let name = rustls::pki_types::ServerName::try_from(host).expect("a name");
            let mut config = (*config).clone();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let mut tls = connector.connect(name, stream).await.expect("TLS");
            let head = format!(
                "POST {target} HTTP/1.1\r\nhost: {place}\r\nproxy-authorization: Basic {WRONG_KEY}\r\n{fields}\
                 connection: close\r\ncontent-length: {}\r\n\r\n{BODY}",
                BODY.len()
            );
            tls.write_all(head.as_bytes()).await.expect("written");
            let mut answer = Vec::new();
            let _ = tls.read_to_end(&mut answer).await;
            assert!(
                answer.starts_with(format!("HTTP/1.1 {expected}").as_bytes()),
                "{}",
                String::from_utf8_lossy(&answer)
            );
            if expected != 200 {
                outputs.add("an answer in a tunnel", answer);
            }
        }
    }
    for path in ["/", "/ca.crt", "/bundle.pem", "/ca.key", "/nowhere"] {
        let head =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nproxy-authorization: {right}\r\nconnection: close\r\n\r\n");
        outputs.add(format!("the page at {path}"), exchange(world.egress, head.as_bytes()).await);
    }
}

/// Says something and reads until the other side closes.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    stream.write_all(bytes).await.expect("written");
    stream.shutdown().await.expect("shut");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(crate::client::PATIENCE, stream.read_to_end(&mut answer)).await;
    answer
}

/// What we add to any answer, and all of the head of our own.
fn ours(outputs: &mut Outputs, what: &str, status: u16, headers: &http::HeaderMap) {
    let own = headers.get("content-type").is_some_and(|kind| kind == "application/problem+json");
    let kept = headers.iter().filter(|(name, _)| own || *name == "proxy-status");
    outputs.add(format!("head of {what}"), format!("{status} {:?}", kept.collect::<Vec<_>>()));
}

/// Everything that can happen, in one life of the process.
async fn live(world: &World, outputs: &mut Outputs) {
    for sim in &world.banks {
        let name = sim.bank().name();
        let (id, secret) = (sim.credentials().id().to_owned(), sim.credentials().secret().expose_secret().to_owned());
        let path = |rest: &str| format!("/{name}/{rest}");
        // First, cached, replayed; a body that cannot be replayed; h2.
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let cookies = [
            ("cookie", COOKIE),
            ("content-type", "application/json"),
            ("traceparent", parent),
            ("tracestate", STATE),
            ("baggage", STATE),
        ];
        let with_all = || request("POST", &path(&format!("echo/x?key={QUERY}")), CLIENT_KEY, &cookies, BODY);
        assert_eq!(world.call(outputs, with_all()).await, 200, "{name}\n{}", world.process.stderr());
        assert_eq!(world.call(outputs, with_all()).await, 200, "{name}");
        sim.revoke_all();
        assert_eq!(world.call(outputs, with_all()).await, 200, "{name}");
        sim.revoke_all();
        let big = post(&path("echo/big"), CLIENT_KEY, vec![b'x'; 1_100_000]);
        assert_eq!(world.call(outputs, big).await, 401, "{name}");
        let mut h2 = world.client.http2().await;
        let over_h2 = Request::post(format!("https://localhost/{name}/echo/h2?key={QUERY}"))
            .version(Version::HTTP_2)
            .header("authorization", format!("Basic {}", STANDARD.encode(format!("erp:{CLIENT_KEY}"))))
            .header("cookie", COOKIE)
            .body(Full::new(Bytes::from(BODY)))
            .expect("a request");
        let answer = h2.send_request(over_h2).await.expect("an answer");
        ours(outputs, "h2", answer.status().as_u16(), answer.headers());
        let live = |sim: &SimHandle| sim.issued().last().expect("a token").expose_secret().to_owned();
        // The token endpoint in all its moods.
        let troubles = token_troubles(&id, &secret, &live(sim));
        assert!(troubles.len() <= SPARE, "{}", troubles.len());
        for (n, trouble) in troubles.into_iter().enumerate() {
            sim.set(Faults { token: SimFault::new(trouble), ..Faults::default() });
            world.call(outputs, get(&format!("/{name}-{n}/echo/x?key={QUERY}"), CLIENT_KEY)).await;
        }
        sim.set(Faults::default());
        // The resources in theirs.
        for trouble in resource_troubles(&id, &secret, &live(sim)) {
            sim.set(Faults { resource: SimFault::new(trouble), ..Faults::default() });
            world.call(outputs, with_all()).await;
        }
        sim.set(Faults::default());
        world.admin(outputs, "GET /api/v1/tokens HTTP/1.1").await;
    }
    let over_basic = get("/oauth2-basic/echo/x", CLIENT_KEY);
    assert_eq!(world.call(outputs, over_basic).await, 200);
    // Refusals of the client, with keys in every wrong place.
    let plain = |more: &[(&str, &str)]| request("GET", &format!("/scb/x?key={QUERY}"), "", more, "");
    let wrong = format!("Bearer {WRONG_KEY}");
    let wrong_basic = format!("Basic {}", STANDARD.encode(format!("erp:{WRONG_KEY}")));
    let right = format!("Bearer {CLIENT_KEY}");
    let other_basic = format!("Basic {}", STANDARD.encode(format!("treasury:{CLIENT_KEY}")));
    for fields in [
        vec![],
        vec![("authorization", wrong.as_str())],
        vec![("authorization", wrong_basic.as_str())],
        vec![("authorization", other_basic.as_str())],
        vec![("authorization", CLIENT_KEY)],
        vec![("proxy-authorization", wrong.as_str()), ("authorization", right.as_str())],
        vec![("proxy-authorization", right.as_str()), ("connection", "a b")],
        vec![("proxy-authorization", right.as_str()), ("expect", WRONG_KEY)],
        vec![("proxy-authorization", right.as_str()), ("cookie", COOKIE), ("x-canary", QUERY)],
    ] {
        world.call(outputs, plain(&fields)).await;
    }
    for path in [format!("/scb/../x?{QUERY}"), format!("/nowhere?{QUERY}"), "/scb/v1/oauth/token".to_owned()] {
        world.call(outputs, request("POST", &path, CLIENT_KEY, &[("cookie", COOKIE)], BODY)).await;
    }
    through_the_proxy(world, outputs).await;
    // Not even HTTP, or not even TLS.
    for bytes in [
        format!(
            "GET /scb/x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {CLIENT_KEY}\r\nx y: {COOKIE}\r\n\r\n"
        ),
        format!("authorization: Bearer {CLIENT_KEY}\r\n\r\n"),
        format!(
            "GET /scb/x?{QUERY} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {CLIENT_KEY}\r\ncookie: {COOKIE}"
        ),
    ] {
        let answer = world.client.raw(bytes.as_bytes(), Duration::from_millis(200)).await;
        outputs.add("bare answer", answer);
        let mut stream = tokio::net::TcpStream::connect(world.address).await.expect("connected");
        stream.write_all(bytes.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_millis(200), stream.read_to_end(&mut answer)).await;
        outputs.add("answer without TLS", answer);
    }
    for request in [
        "GET /metrics HTTP/1.1",
        "GET /livez HTTP/1.1",
        "GET /readyz?verbose HTTP/1.1",
        "GET /api/v1/tokens HTTP/1.1",
        "GET /api/v1/status HTTP/1.1",
        "GET /api/v1/routes HTTP/1.1",
        "GET /api/v1/providers HTTP/1.1",
        "GET /api/v1/consents HTTP/1.1",
        "GET /api/v1/config HTTP/1.1",
        "GET /api/v1/log-level HTTP/1.1",
        "GET /ui/config HTTP/1.1",
        "GET /ui/consents HTTP/1.1",
        "GET /ui/tokens HTTP/1.1",
        "GET /api/v1/requests?limit=1000 HTTP/1.1",
        "GET /ui/requests?each=1 HTTP/1.1",
        "GET /api/v1/openapi.json HTTP/1.1",
        "POST /api/v1/tokens HTTP/1.1",
        "GET /nowhere HTTP/1.1",
        "POST /api/v1/reload HTTP/1.1",
    ] {
        world.admin(outputs, request).await;
    }
    world.process.outside(outputs);
}

/// All that must not be found: what was put in, and what the banks made of it.
fn canaries(world: &World) -> Vec<Canary> {
    let mut all: Vec<Canary> =
        [CLIENT_KEY, WRONG_KEY, OPERATOR, COOKIE, QUERY, BODY, AUDIT_KEY, COLLECTOR_KEY, NEXT_SECRET]
            .map(|text| Canary::new(text, text))
            .into();
    all.push(Canary::new("tracestate", STATE.split_once('=').expect("a value").1));
    for sim in &world.banks {
        let name = sim.bank().name();
        all.push(Canary::new(format!("the secret of {name}"), sim.credentials().secret().expose_secret()));
        for (n, token) in sim.issued().iter().enumerate() {
            all.push(Canary::new(format!("token {n} of {name}"), token.expose_secret()));
        }
    }
    for (name, file) in [("the listener's", "server.key"), ("the CA's", "ca.key")] {
        let key = fs::read_to_string(world.etc.join(file)).expect("the key");
        for line in key.lines().filter(|line| line.len() >= 12 && !line.starts_with("---")) {
            all.push(Canary::new(format!("{name} private key"), line));
        }
    }
    all
}

fn nothing_comes_out(log: &str, access: &str) {
    let mut outputs = Outputs::default();
    let world = converse(async {
        let world = World::start(log).await;
        let events = world.watch().await;
        live(&world, &mut outputs).await;
        let kinds = ["token-fetched", "token-refused", "token-failed", "replay", "reload"];
        let told = || events.lock().expect("not poisoned").clone();
        let tells = |kind: &&str| String::from_utf8_lossy(&told()).contains(&format!("event: {kind}\n"));
        // Events reach their watcher a little later than answers their callers.
        for _ in 0..1000 {
            if kinds.iter().all(tells) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let told = told();
        assert!(kinds.iter().all(tells), "{}", String::from_utf8_lossy(&told));
        outputs.add("events", told);
        world
    });
    let canaries = canaries(&world);
    assert!(canaries.len() > 25, "every bank issued several tokens");
    let World { process, work, collector, _folder, .. } = world;
    process.finish(&mut outputs);
    // The collector's key is its own.
    let exports = collector.bytes();
    let key = regex::bytes::Regex::new(&regex::escape(&format!("x-api-key: {COLLECTOR_KEY}"))).expect("a pattern");
    assert!(key.is_match(&exports), "the exports carry their key");
    outputs.add("the collector", key.replace_all(&exports, &b""[..]));
    assert!(outputs.bytes("the collector") > 100_000, "{} bytes of spans", outputs.bytes("the collector"));
    assert!(collector.spans().len() > 1000);
    for entry in fs::read_dir(&work).expect("the folder") {
        let path = entry.expect("an entry").path();
        outputs.add(path.file_name().expect("a name").to_string_lossy(), fs::read(&path).expect("readable"));
    }
    let told = outputs.0.iter().find(|(place, _)| place == access).map_or(0, |(_, bytes)| bytes.len());
    assert!(told > 100_000, "the access log has {told} bytes");
    let audited = outputs.bytes("audit.log");
    assert!(audited > 50_000, "the audit log has {audited} bytes");
    let found = outputs.search(&canaries);
    assert!(
        found.is_empty(),
        "{} secrets came out, first:\n{}",
        found.len(),
        found[..found.len().min(12)].join("\n\n")
    );
}

#[test]
fn no_secret_comes_out_of_a_talkative_process() {
    nothing_comes_out("level = \"trace\"\nformat = \"json\"\naccess = \"../run/access.log\"", "access.log");
}

#[test]
fn no_secret_comes_out_even_if_every_library_is_told_to_talk() {
    let libraries = "trace,hyper=trace,hyper::proto=trace,hyper_util::client=trace,h2=trace,h2::codec=trace,\
                     h2::hpack=trace,h2::proto=trace,h2::client=trace,rustls=trace,rustls::client=trace,\
                     rustls::conn=trace,tokio_rustls=trace,tokio=trace,mio=trace";
    nothing_comes_out(&format!("level = \"{libraries}\"\nformat = \"text\"\naccess = \"stderr\""), "standard error");
}

/// A config with a mistake somewhere near a secret.
fn mistaken(secret: &str) -> Vec<String> {
    let head = "[[listener]]\nbind = \"127.0.0.1:0\"\n";
    let provider = "[provider.bank]\nprofile = \"meed\"\nbase_url = \"https://bank.example\"\nclient_id = \"id\"\n";
    let route = "[[route]]\nname = \"r\"\npath = \"/r\"\nprovider = \"bank\"\n";
    let client = format!("[client.erp]\nkey_sha256 = [\"{}\"]\n", hex(&sha256(b"x")));
    let with = |line: &str| format!("{head}{client}{provider}{line}\n{route}");
    vec![
        with(&format!("client_secret = \"{secret}\"\nbogus = 1")),
        with(&format!("client_secret = \"{secret}\"\nclient_id = \"again\"")),
        with(&format!("client_secret = \"{secret}\"\nclient_secret = \"{secret}\"")),
        with(&format!("client_secret = \"{secret}")),
        with(&format!("client_secret = '{secret}")),
        with(&format!("client_secret = {secret}")),
        with(&format!("client_secret = \"\"\"\n{secret}")),
        with(&format!("client_secret = \"\\q{secret}\"")),
        with(&format!("client_secret = \"{secret}\" \"{secret}\"")),
        with(&format!("client_secret = \"{secret}\\n{secret}\"")),
        with(&format!("client_secret = [\"{secret}\"]")),
        with(&format!("client_secret = {{ value = \"{secret}\" }}")),
        with(&format!("client_secret = {{ evn = \"{secret}\" }}")),
        with(&format!("client_secret = {{ env = \"{secret}\" }}")),
        with(&format!("client_secret = {{ env = \"{secret}\", file = \"x\" }}")),
        with(&format!("client_secret.literal = \"{secret}\"")),
        with(&format!("client_secrte = \"{secret}\"")),
        with(&format!("client_secrte = \"{secret}\"\nclient_secret = {{ env = \"HOME\" }}")),
        with(&format!("secret = \"{secret}\"")),
        with(&format!("clientsecret = \"{secret}\"")),
        with(&format!("password = \"{secret}\"")),
        with(&format!("token = \"{secret}\"")),
        with(&format!("application_secret = \"{secret}\"")),
        with(&format!("\"client_secret\" = \"{secret}\"\nnope = true")),
        with(&format!("client_secret=\"{secret}\";")),
        with(&format!("client_secret: \"{secret}\"")),
        with(&format!("export CLIENT_SECRET=\"{secret}\"")),
        with(&format!("# comment\nclient_secret = \"{secret}\" # client_secret, the old one: {secret}")),
        with(&format!("scope = \"x\", client_secret = \"{secret}\"")),
        format!(
            "{head}{client}[provider]\nbank = {{ profile = \"meed\", base_url = \"https://bank.example\", \
             client_id = \"id\", client_secret = \"{secret}\", bogus = 1 }}\n{route}"
        ),
        format!(
            "{head}{client}[provider]\nbank = {{ profile = \"nope\", base_url = \"https://bank.example\", \
             client_id = \"id\", client_secret = \"{secret}\" }}\n{route}"
        ),
        format!(
            "{head}{client}[provider]\nbank = {{ profile = \"meed\", base_url = \"ftp://bank\", \
             client_secret = \"{secret}\", client_id = 5 }}\n{route}"
        ),
        format!("{head}{client}[provider.bank]\nprofile = \"nope\"\nclient_secret = \"{secret}\"\n{route}"),
        format!("{head}{client}[provider.bank]\nclient_secret = \"{secret}\"\n{route}"),
        format!("{head}{client}[providr.bank]\nclient_secret = \"{secret}\"\n{route}"),
        format!(
            "{head}{client}{}{route}",
            provider.replace("https://bank.example", &format!("https://id:{secret}@bank.example"))
        ),
        format!("{head}[client.erp]\nkey_sha256 = [\"{secret}\"]\n"),
        format!("{head}[client.erp]\nkey_sha256 = \"{secret}\"\n"),
        format!("{head}[client.erp]\nkey = \"{secret}\"\n"),
        format!("{head}[client.erp]\nkey_sha256 = [{secret}]\n"),
        format!("{head}[client.erp]\nkeys = [\"{secret}\"]\n"),
        format!("{head}[client]\nerp = {{ key_sha256 = [\"{secret}\"], bogus = 1 }}\n"),
        format!("{head}[client]\nerp = \"{secret}\"\n"),
        format!("{head}[store]\nurl = \"redis://:{secret}@host/0\"\n"),
        format!("{head}[store]\npassword = \"{secret}\"\n"),
        format!("{head}[admin]\nbind = \"127.0.0.1:0\"\n[admin.token.ops]\nvalue = \"{secret}\"\nrole = \"read\"\n"),
        format!("{head}[admin]\nbind = \"127.0.0.1:0\"\n[admin.token.ops]\nvalu = \"{secret}\"\nrole = \"read\"\n"),
        format!("{head}[admin]\nbind = \"127.0.0.1:0\"\n[admin.token.ops]\nvalue = [\"{secret}\"]\nrole = \"rule\"\n"),
        format!("{head}[admin]\nbind = \"127.0.0.1:0\"\n[admin.token]\nops = \"{secret}\"\n"),
        format!(
            "{head}[admin]\nbind = \"127.0.0.1:0\"\n[admin.token]\nops = {{ value = \"{secret}\", role = \"rule\" }}\n"
        ),
        format!(
            "{head}[admin]\nbind = \"0.0.0.0:0\"\ntoken = {{ ops = {{ value = \"{secret}\", rol = \"read\" }} }}\n"
        ),
        format!("{head}[admin.token.ops]\nvalue = {{ fil = \"{secret}\" }}\nrole = \"read\"\n"),
        format!("{head}[admin.token.ops]\nvalue = {{ env = \"{secret}\" }}\nrole = \"read\"\n"),
        with(&format!(
            "client_secret = \"x\"\n[[route]]\nname = \"h\"\npath = \"/h\"\nprovider = \"bank\"\nheaders = {{ authorization = \"Bearer {secret}\" }}"
        )),
        with(&format!("client_secret = \"x\"\nhttp_proxy = \"http://user:{secret}@proxy:8080\"")),
        with(&format!("client_secret = \"{secret}\"\nnext = {{ client_secret = \"{secret}\", bogus = 1 }}")),
        with(&format!("client_secret = \"{secret}\"\nnext = {{ client_secrte = \"{secret}\" }}")),
        with(&format!("client_secret = \"{secret}\"\nnext = {{ client_secret = {{ value = \"{secret}\" }} }}")),
        with(&format!("client_secret = \"{secret}\"\nnext = \"{secret}\"")),
        with(&format!("client_secret = \"{secret}\"\nnext = {{ tls = {{ client_key_password = \"{secret}\" }} }}")),
        with(&format!("client_secret = \"{secret}\"\nnext.client_secret = \"{secret}\"\nnext.client_id = 5")),
    ]
}

#[test]
fn no_mistake_in_a_config_shows_the_secret_beside_it() {
    let secret = "canary-literal-Zk81-hunter";
    let canary = [Canary::new("the literal", secret)];
    let mut found = Vec::new();
    for text in mistaken(secret) {
        let (snapshot, diagnostics) = build(Path::new("etc/proxy.toml"), text.clone(), &InMemory::new());
        assert!(!diagnostics.is_empty(), "no mistake found in\n{text}");
        let mut outputs = Outputs::default();
        outputs.add("the snapshot", format!("{snapshot:?}"));
        for one in &diagnostics {
            outputs.add("a rendered mistake", one.render(false));
            outputs.add("a coloured mistake", one.render(true));
            outputs.add("a mistake in one line", one.one_line());
            outputs.add("a mistake's parts", format!("{} {} {:?}", one.title, one.label, one.help));
        }
        found.extend(outputs.search(&canary).into_iter().map(|find| format!("{find}\n--- of\n{text}")).take(1));
    }
    assert!(found.is_empty(), "{} configs show it:\n{}", found.len(), found.join("\n\n"));
}

#[test]
fn neither_check_nor_run_shows_a_literal_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = "canary-literal-Pq55-hunter";
    let mut outputs = Outputs::default();
    for text in mistaken(secret).iter().step_by(5) {
        fs::write(folder.path().join("proxy.toml"), text).expect("written");
        for arguments in [&["check"][..], &["check", "--json"], &["run"]] {
            let done = Command::new(env!("CARGO_BIN_EXE_countersign"))
                .args(arguments)
                .current_dir(folder.path())
                .env("RUST_BACKTRACE", "full")
                .output()
                .expect("the binary starts");
            assert_eq!(done.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
            outputs.add(format!("{arguments:?}"), [done.stdout, done.stderr].concat());
        }
    }
    assert_eq!(outputs.search(&[Canary::new("the literal", secret)]), Vec::<String>::new());
}

#[test]
fn nothing_that_is_loaded_shows_its_secrets_when_printed() {
    let mut files = InMemory::new();
    let mut config = format!(
        "[[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:0\"\n[client.erp]\nkey_sha256 = [\"{}\"]\n",
        hex(&sha256(CLIENT_KEY.as_bytes()))
    );
    let mut canaries = Vec::new();
    let mut sims = Vec::new();
    for (n, kind) in Bank::ALL.into_iter().enumerate() {
        let secret = format!("canary-{}-Vb{n}7-secret", kind.name());
        canaries.push(Canary::new(&secret, &secret));
        let credentials = Some(Credentials::new("the-id", secret));
        let sim =
            Sim::start(kind, countersign::sim::SimOptions { credentials, ..Default::default() }).expect("a simulator");
        files = files.with_file(format!("etc/{n}.crt"), sim.ca_pem().into_bytes());
        config += &sim.settings_toml_as(kind.name(), &format!("{n}.crt"));
        let _ = write!(config, "[[route]]\nname = \"{0}\"\npath = \"/{0}\"\nprovider = \"{0}\"\n", kind.name());
        sims.push(sim);
    }
    let (snapshot, diagnostics) = build(Path::new("etc/proxy.toml"), config.clone(), &files);
    let snapshot = snapshot.unwrap_or_else(|| panic!("{diagnostics:#?}"));
    let mut outputs = Outputs::default();
    outputs.add("Snapshot", format!("{snapshot:?} {snapshot:#?}"));
    outputs.add("warnings", diagnostics.iter().map(|one| one.render(false) + &one.one_line()).collect::<String>());
    for route in &snapshot.routes {
        outputs.add("Route", format!("{route:?} {:?}", route.module));
        let vars = countersign::base::vars::Vars::none();
        let (mut login, mut ids) = (countersign::provider::LoginProgress::default(), countersign::base::id::RandomIds);
        let sent = login.request(&route.module, &vars, &mut ids, Clock::System.now()).expect("a token request");
        outputs.add("TokenRequest", format!("{sent:?}"));
        outputs.add("its sensitive headers", format!("{:?}", sent.headers));
    }
    outputs.add("simulators", format!("{sims:?} {:?}", sims.iter().map(SimHandle::credentials).collect::<Vec<_>>()));
    // From a file, with a file beside it.
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("proxy.toml"), "[provider.x]\nclient_secret = { file = \"s\" }").expect("written");
    fs::write(folder.path().join("s"), "canary-scb-Vb47-secret").expect("written");
    let loaded: Loaded = load(&folder.path().join("proxy.toml"), &MachineFiles);
    outputs.add("Loaded", format!("{loaded:?}"));
    assert_eq!(outputs.search(&canaries), Vec::<String>::new());
}

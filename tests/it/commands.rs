//! The real binary, as a shell sees it: what it prints where, and how it ends.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;

use countersign::base::secret::{ExposeSecret, hex, sha256};
use countersign::base::time::Stopwatch;
use countersign::config::{InMemory, build, schema};
use countersign::provider::Profile;
use countersign::sim::{Bank, LeafSpec, Sim, SimAuthority, SimEndpoint, SimOptions};
use countersign::syntax::Diagnostic;
use serde_json::{Value, json};

use crate::client::PATIENCE;
use crate::harness::{KEY, bank};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    // What the fixtures ask for.
    command.env("SECRET", "from-env").env_remove("RUST_LOG");
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs a command to its end, for at most [`PATIENCE`].
pub fn ended(mut command: Command) -> Ended {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    Running::of(child).end()
}

pub fn told(arguments: &[&str]) -> Ended {
    ended(command(arguments))
}

/// A running command, ended with its test.
pub struct Running {
    child: Ending,
    lines: Receiver<String>,
    seen: Vec<String>,
    out: Option<thread::JoinHandle<String>>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        Self::of(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts"))
    }

    fn of(mut child: Child) -> Self {
        let (mut out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let out = thread::spawn(move || {
            let mut text = String::new();
            let _ = out.read_to_string(&mut text);
            text
        });
        Self { child: Ending(child), lines, seen: Vec::new(), out: Some(out) }
    }

    /// Waits for a line on standard error.
    pub fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let watch = Stopwatch::start();
        loop {
            match self.lines.recv_timeout(PATIENCE.saturating_sub(watch.elapsed())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if wanted(&line) {
                        return line;
                    }
                }
                Err(error) => panic!("{error}; it said {:#?}", self.seen),
            }
        }
    }

    /// The address in its line `listening`, or in another of that kind.
    pub fn address(&mut self, message: &str) -> SocketAddr {
        let line = self.line(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line["message"] == message));
        let line: Value = serde_json::from_str(&line).expect("JSON");
        line["address"].as_str().expect("an address").parse().expect("an address")
    }

    pub fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.0.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    }

    fn runs(&mut self) -> bool {
        self.child.0.try_wait().expect("it can be asked").is_none()
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ended {
        // Standard error closes when the process ends.
        let watch = Stopwatch::start();
        loop {
            match self.lines.recv_timeout(PATIENCE.saturating_sub(watch.elapsed())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; it said {:#?}", self.seen),
            }
        }
        let status: ExitStatus = self.child.0.wait().expect("it ended");
        let out = self.out.take().expect("asked once").join().expect("read");
        Ended { code: status.code().unwrap_or(-1), out, err: self.seen.join("\n") }
    }
}

/// A process that ends with its test, however that ends.
pub struct Ending(pub Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a request over plain HTTP/1.1; answers the connection once the head of the answer is there, and that head.
fn begin(address: SocketAddr, request: &str) -> (BufReader<TcpStream>, String) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).expect("an answer") > 0, "the answer broke off: {head}");
    }
    (stream, head)
}

fn get(address: SocketAddr, path: &str, key: &str) -> String {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nProxy-Authorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    );
    let (mut stream, mut answer) = begin(address, &request);
    stream.read_to_string(&mut answer).expect("the whole answer");
    answer
}

/// A folder with a config for one simulator behind a plain listener.
pub fn folder(sim: &countersign::sim::SimHandle, key: &str, listener: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("sim-ca.crt"), sim.ca_pem()).expect("written");
    let config = format!(
        "[[listener]]\nname = \"gateway\"\nbind = \"{listener}\"\n[client.erp]\nkey_sha256 = [\"{}\"]\n\
         [admin]\nbind = \"127.0.0.1:0\"\n[runtime]\nworkers = 2\n{}\n[[route]]\npath = \"/bank\"\nprovider = \"{}\"\n",
        hex(&sha256(key.as_bytes())),
        sim.settings_toml(),
        sim.bank().name()
    );
    let file = folder.path().join("proxy.toml");
    fs::write(&file, config).expect("written");
    let file = file.to_str().expect("text").to_owned();
    (folder, file)
}

// ── check, key, version ──────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn check_reports_every_mistake_and_says_how_it_went() {
    let file = "tests/fixtures/config/unknown-keys.toml";
    let expected = read("tests/fixtures/config/unknown-keys.expect");
    let mistakes = expected.lines().filter(|line| line.contains(": error: ")).count();
    assert!(mistakes > 5);
    for name in ["check", "validate"] {
        let found = told(&[name, "-c", file]);
        assert_eq!((found.code, found.out.as_str()), (1, ""), "{found:?}");
        assert_eq!(found.err.matches("error: ").count(), mistakes, "{}", found.err);
        assert!(found.err.contains(&format!("has {mistakes} mistakes")), "{}", found.err);
        assert!(found.err.contains("^"), "no caret: {}", found.err);
    }
    let found = told(&["check", "--json", "-c", file]);
    let answer = found.json();
    assert_eq!((found.code, &answer["ok"], found.err.as_str()), (1, &json!(false), ""));
    let listed = answer["diagnostics"].as_array().expect("a list");
    assert_eq!(listed.iter().filter(|one| one["severity"] == "error").count(), mistakes);
    assert!(listed.iter().all(|one| one["line"].is_u64() && one["file"] == file));

    let found = told(&["check", "-c", "tests/fixtures/no-such.toml"]);
    assert_eq!((found.code, found.out.as_str(), found.err.lines().count()), (2, "", 1), "{found:?}");
    assert!(found.err.contains("no-such.toml") && found.err.contains("`-c`"), "{}", found.err);
    assert!(
        found.err.contains("countersign init BANK") && found.err.contains("countersign sim --write ."),
        "{}",
        found.err
    );
    assert_eq!(told(&["check", "--json", "-c", "tests/fixtures/no-such.toml"]).code, 2);

    let sim = bank(Bank::Scb);
    let (_folder, file) = folder(&sim, KEY, "127.0.0.1:0");
    let found = told(&["check", "-c", &file]);
    assert_eq!(found.code, 0, "{found:?}");
    assert!(found.out.contains("is fine: 1 listener, 1 provider, 1 route, 1 client"), "{}", found.out);
    assert!(found.out.contains("the admin listener at 127.0.0.1:0 asks for no token"), "{}", found.out);
    let answer = told(&["check", "-c", &file, "--json"]).json();
    assert_eq!(answer["ok"], true);
    // Its secret is a literal.
    assert_eq!(answer["diagnostics"][0]["severity"], "warning");
}

#[test]
fn a_config_is_named_by_its_path_by_the_environment_or_comes_from_standard_input() {
    let sim = bank(Bank::Scb);
    let (folder, file) = folder(&sim, KEY, "127.0.0.1:0");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let mut named = command(&["check", &file]);
    named.current_dir(elsewhere.path());
    let found = ended(named);
    assert_eq!(found.code, 0, "{found:?}");
    let mut named = command(&["check"]);
    named.current_dir(elsewhere.path()).env("COUNTERSIGN_CONFIG", &file);
    let found = ended(named);
    assert!(found.code == 0 && found.out.starts_with(&file), "{found:?}");
    for arguments in [&["check", "-c", "-"][..], &["check", "-"], &["explain", "-c", "-", "/bank/x", "--client", "erp"]]
    {
        let mut piped = command(arguments);
        piped.current_dir(folder.path()).stdin(fs::File::open(&file).expect("a config"));
        let found = ended(piped);
        assert_eq!(found.code, 0, "{arguments:?}: {found:?}");
    }
    assert_eq!(told(&["check", &file, "-c", &file]).code, 2, "one of them");
    let found = told(&["run", "-c", "-"]);
    assert!(found.code == 2 && found.err.contains("name a file"), "{found:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    for arguments in [
        &["key", "new", "erp"][..],
        &["profiles"],
        &["profiles", "scb"],
        &["schema"],
        &["man"],
        &["--help"],
        &["-h"],
        &["help", "run"],
        &["run", "--help"],
        &["--version"],
    ] {
        let mut full = command(arguments);
        full.stdout(fs::OpenOptions::new().write(true).open("/dev/full").expect("it is there"));
        let found = full.stderr(Stdio::piped()).output().expect("it runs");
        assert_eq!(found.status.code(), Some(1), "{arguments:?}");
        assert!(String::from_utf8_lossy(&found.stderr).contains("standard output"), "{found:?}");
    }
}

#[test]
fn help_names_the_options_of_forward_commands() {
    for name in ["exec", "env"] {
        let help = told(&[name, "--help"]).out;
        assert!(help.contains("--proxy") && help.contains("--ca"), "{help}");
    }
    assert!(told(&["sim", "--help"]).out.contains("sim-ca.crt"));
}

#[test]
fn what_a_start_would_meet_is_told_before() {
    let sim = bank(Bank::Scb);
    let (folder, file) = folder(&sim, KEY, "127.0.0.1:0");
    let good = fs::read_to_string(&file).expect("text");
    let checked = |text: &str| {
        fs::write(&file, text).expect("written");
        told(&["check", &file])
    };
    let found = checked(&good.replacen("bind = \"127.0.0.1:0\"", "bind = \"unix:nowhere/x.sock\"", 1));
    assert!(found.code == 1 && found.err.contains("folder of this socket does not exist"), "{found:?}");
    // The folder of a store is made.
    fs::write(folder.path().join("store.key"), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").expect("written");
    let stored = format!("{good}\n[store]\nurl = \"file:var/deep/store.redb\"\nkeys = [{{ file = \"store.key\" }}]\n");
    assert_eq!(checked(&stored).code, 0);
    let mut proxy = Running::start(command(&["run", "-c", &file]));
    proxy.address("listening");
    assert!(folder.path().join("var/deep/store.redb").exists());
    // A secret with a blank, and one that is meant to be expanded.
    let secret = good.lines().find(|line| line.contains("secret")).expect("a secret").to_owned();
    let key = secret.split('=').next().expect("a key").trim().to_owned();
    fs::write(folder.path().join("s.txt"), "hush-hush-12345 \n").expect("written");
    let found = checked(&good.replacen(&secret, &format!("{key} = {{ file = \"s.txt\" }}"), 1));
    // This one goes into a header, where it could not even stand.
    assert!(found.code == 1 && found.err.contains("ends with a blank") && !found.err.contains("hush"), "{found:?}");
    let found = checked(&good.replacen(&secret, &format!("{key} = \"${{BANK_SECRET}}\""), 1));
    assert!(found.code == 1 && found.err.contains("{ env = \"BANK_SECRET\" }"), "{found:?}");
}

#[test]
fn certificates_that_have_ended_or_soon_will_are_warned_of() {
    let sim = bank(Bank::Scb);
    let (folder, file) = folder(&sim, KEY, "127.0.0.1:0");
    let config = fs::read_to_string(&file).expect("text");
    let mut known = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
    known.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let now = i64::try_from(countersign::base::time::Clock::System.now().unix_seconds()).expect("a moment");
    let ca = config.split("ca = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a CA").to_owned();
    let (hour, day) = (3_600, 86_400);
    for (left, wanted) in [
        (-30 * day, Some("expired 29 days ago")),
        (-2 * hour, Some("expired 1 hour ago")),
        (0, Some("expires in 9 minutes")),
        (5 * hour, Some("expires in 5 hours")),
        (5 * day, Some("expires in 5 days")),
        (60 * day, None),
    ] {
        let at = |left: i64| {
            let seconds = u64::try_from(now + left + 595).expect("after 1970");
            rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds)
        };
        (known.not_before, known.not_after) = (at(-400 * day), at(left));
        let made = known.clone().self_signed(&key).expect("a certificate");
        fs::write(folder.path().join(&ca), made.pem()).expect("written");
        let found = told(&["check", &file]);
        assert_eq!(found.code, 0, "{found:?}");
        match wanted {
            Some(wanted) => assert!(found.err.contains(&format!("`{ca}` {wanted}")), "{found:?}"),
            None => assert!(!found.err.contains("expire"), "{found:?}"),
        }
    }
}

#[test]
fn a_new_key_is_printed_with_its_hash_and_opens_the_door() {
    let found = told(&["key", "new", "erp"]);
    assert_eq!((found.code, found.err.as_str()), (0, ""));
    let key = found.out.lines().next().expect("a key");
    assert!(key.starts_with("csk_") && key.len() > 40, "{key}");
    assert!(found.out.contains(&format!("[client.erp]\nkey_sha256 = [\"{}\"]", hex(&sha256(key.as_bytes())))));
    assert_ne!(found.out, told(&["key", "new", "erp"]).out, "two keys are two");
    let answer = told(&["key", "new", "erp", "--json"]).json();
    let key = answer["key"].as_str().expect("a key");
    assert_eq!((&answer["client"], &answer["key_sha256"]), (&json!("erp"), &json!(hex(&sha256(key.as_bytes())))));
    assert_eq!(told(&["key", "new", "no name"]).code, 2);

    let sim = bank(Bank::Meed);
    let (_folder, file) = folder(&sim, key, "127.0.0.1:0");
    let mut proxy = Running::start(command(&["run", "-c", &file]));
    let address = proxy.address("listening");
    assert!(get(address, "/bank/echo/x", key).starts_with("HTTP/1.1 200 "));
    assert!(get(address, "/bank/echo/x", "csk_another").starts_with("HTTP/1.1 401 "));
}

#[test]
fn the_version_is_the_packages_and_wrong_arguments_are_told() {
    let found = told(&["--version"]);
    assert_eq!((found.code, found.out), (0, format!("countersign {}\n", env!("CARGO_PKG_VERSION"))));
    let version = env!("CARGO_PKG_VERSION");
    let found = told(&["version"]);
    assert!(found.code == 0 && found.out.starts_with(&format!("countersign {version}\ncommit: ")), "{found:?}");
    let answer = told(&["version", "--json"]).json();
    assert_eq!(answer["version"], version);
    assert!(answer["target"].as_str().is_some_and(|target| target.contains(std::env::consts::ARCH)), "{answer}");
    assert!(answer["commit"].is_string() && answer["features"].is_array(), "{answer}");
    let found = told(&["chek"]);
    assert_eq!((found.code, found.out.as_str()), (2, ""));
    assert!(found.err.contains("'check'"), "{}", found.err);
}

// ── run, health, sim, demo ───────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn run_serves_and_drains() {
    let sim = bank(Bank::Scb);
    let (_folder, file) = folder(&sim, KEY, "127.0.0.1:0");
    let mut proxy = Running::start(command(&["run", "-c", &file]));
    let (address, admin) = (proxy.address("listening"), proxy.address("admin listening"));
    let admin = format!("http://{admin}");
    assert_eq!(told(&["health", "--admin", &admin]).code, 0);
    assert!(get(address, "/bank/echo/first", KEY).starts_with("HTTP/1.1 200 "));

    // A second instance on the same address does not start.
    let (_second, taken) = folder(&sim, KEY, &address.to_string());
    let second = told(&["run", "-c", &taken]);
    assert_eq!((second.code, second.out.as_str()), (1, ""), "{second:?}");
    let why = format!("listener `gateway` cannot listen on {address}");
    assert!(second.err.lines().last().is_some_and(|line| line.contains(&why)), "{}", second.err);

    // A request is under way, its body half sent: then SIGTERM.
    let head = format!(
        "POST /bank/echo/slow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 10\r\n\
         Expect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    let (mut stream, asked) = begin(address, &head);
    assert!(asked.starts_with("HTTP/1.1 100 "), "{asked}");
    stream.get_mut().write_all(b"12345").expect("sent");
    proxy.terminate();
    proxy.line(|line| line.contains("\"draining\""));
    let watch = Stopwatch::start();
    while TcpStream::connect(address).is_ok() {
        assert!(watch.elapsed() < PATIENCE, "it still accepts");
    }
    assert!(proxy.runs(), "it ended with a request under way");
    assert_eq!(told(&["health", "--admin", &admin]).code, 1, "it drains");
    assert_eq!(told(&["health", "--live", "--admin", &admin]).code, 0, "and is alive");
    stream.get_mut().write_all(b"67890").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the request under way completes");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).expect("a body");
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!((&body["method"], &body["body"]["sha256"]), (&json!("POST"), &json!(hex(&sha256(b"1234567890")))));

    let end = proxy.end();
    assert_eq!((end.code, end.out.as_str()), (0, ""), "{}", end.err);
    let logged: Vec<Value> = end.err.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let requests: Vec<&Value> = logged.iter().filter(|line| line["message"] == "request").collect();
    let paths: Vec<&str> = requests.iter().filter_map(|line| line["url.path"].as_str()).collect();
    assert_eq!(paths, ["/bank/echo/first", "/bank/echo/slow"], "{}", end.err);
    assert!(end.err.contains("the admin listener asks for no token"), "{}", end.err);
    assert!(!end.err.contains("dashboard at"), "this is no terminal: {}", end.err);
    assert!(requests.iter().all(|line| line["http.response.status_code"] == 200 && line["complete"] == true));
    assert_eq!(told(&["health", "--admin", &admin]).code, 1, "nobody is there any more");
    assert_eq!(told(&["health", "--live", "--admin", &admin]).code, 1, "nobody is there any more");
}

#[test]
fn health_asks_where_the_config_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("proxy.toml");
    let health = |text: &str| {
        fs::write(&file, text).expect("written");
        told(&["health", "-c", file.to_str().expect("text")])
    };
    assert_eq!(health("[admin]\nbind = \"127.0.0.1:0\"").code, 2);
    assert_eq!(health("[log]").code, 2);
    assert_eq!(health("= =").code, 2);
    // Held, but nobody listens there.
    let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
    let address = held.local_addr().expect("bound").as_socket().expect("an address");
    let found = health(&format!("[admin]\nbind = \"{address}\""));
    assert_eq!((found.code, found.err.lines().count()), (1, 1), "{found:?}");

    let answering = |status: &'static str| {
        let door = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = door.local_addr().expect("an address");
        let thread = thread::spawn(move || {
            let (mut stream, _) = door.accept().expect("a probe");
            let (mut reader, mut head) = (BufReader::new(stream.try_clone().expect("a clone")), String::new());
            while !head.ends_with("\r\n\r\n") {
                assert!(reader.read_line(&mut head).expect("a request") > 0, "{head}");
            }
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).expect("answered");
            head
        });
        let found = health(&format!("secrets = 1\n[admin]\nbind = \"{address}\""));
        (found.code, thread.join().expect("answered"), address)
    };
    let (code, request, address) = answering("200 OK");
    assert_eq!(code, 0);
    assert!(request.starts_with(&format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\n")), "{request}");
    assert_eq!(answering("503 Service Unavailable").0, 1);
    assert_eq!(answering("404 Not Found").0, 1);
}

#[test]
fn sim_writes_a_config_that_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let there = folder.path().join("sims");
    let place = there.to_str().expect("text");
    let mut sims = command(&["sim", "scb", "meed", "--write", place, "--bind", "127.0.0.1:0"]);
    let mut sims = Ending(sims.stdout(Stdio::piped()).spawn().expect("it starts"));
    let mut printed = BufReader::new(sims.0.stdout.take().expect("piped"));
    let mut said = String::new();
    while !said.contains("countersign run -c ") {
        assert!(printed.read_line(&mut said).expect("text") > 0, "{said}");
    }
    let file = there.join("proxy.toml");
    let mut proxy = Running::start(command(&["run", "-c", file.to_str().expect("text")]));
    let address = proxy.address("listening");
    for name in ["scb", "meed"] {
        let request = format!("GET /{name}/echo/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert!(begin(address, &request).1.starts_with("HTTP/1.1 200 "), "{name}");
    }
    proxy.terminate();
    assert_eq!(proxy.end().code, 0);
    assert_eq!(told(&["sim", "sbc"]).code, 2);
}

#[test]
fn sim_replaces_its_own_config_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().to_str().expect("text");
    let file = folder.path().join("proxy.toml");
    fs::write(&file, "# of another origin\n").expect("written");
    let found = told(&["sim", "scb", "--write", place]);
    assert_eq!(found.code, 2, "{found:?}");
    assert!(found.err.contains("proxy.toml is not a file that `sim` wrote"), "{}", found.err);
    assert_eq!(fs::read_to_string(&file).expect("text"), "# of another origin\n");
    assert!(!folder.path().join("sim-ca.crt").exists());
    fs::remove_file(&file).expect("removed");
    let mut written: Option<String> = None;
    for _ in 0..2 {
        let mut sims = command(&["sim", "scb", "wise", "--write", place, "--bind", "127.0.0.1:0"]);
        let mut sims = Ending(sims.stdout(Stdio::piped()).spawn().expect("it starts"));
        let mut printed = BufReader::new(sims.0.stdout.take().expect("piped"));
        let mut said = String::new();
        while !said.contains("countersign run -c ") {
            assert!(printed.read_line(&mut said).expect("text") > 0, "{said}");
        }
        let text = fs::read_to_string(&file).expect("text");
        assert!(text.starts_with("# Written by `countersign sim"));
        // Its secrets lie in files, so nothing is to be warned of.
        let checked = told(&["check", "-c", file.to_str().expect("text")]);
        assert!(checked.code == 0 && !(checked.out + &checked.err).contains("warning"), "{text}");
        // The next start has the same ports, secrets and keys: a proxy that runs goes on.
        let before = written.replace(text.clone());
        assert!(before.is_none_or(|before| before == text), "{text}");
    }
}

#[test]
fn a_bank_of_ones_own_is_simulated_with_its_profile() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let (bank, profile, place) = (at("my-bank.toml"), at("delta.toml"), at("sims"));
    fs::write(
        &bank,
        "[settings]\nclient_id = \"{hex32}\"\nclient_secret = { secret = \"{hex32}\" }\n[token]\npath = \"/oauth/token\"\n\
         answer = { json = { access_token = \"{token}\", expires_in = \"{life}\" } }\n[call]\n\
         token = { header = \"authorization\", value = \"Bearer {token}\" }\n\
         refused = { status = 401 }\nanswer = { json = { ok = true } }\n",
    )
    .expect("written");
    fs::write(&profile, "name = \"my-bank\"\nextends = \"oauth2\"\n[token.request]\npath = \"/oauth/token\"\n")
        .expect("written");
    let started = |more: &[&str]| {
        let mut sims = command(&[&["sim", &bank, "--write", &place, "--bind", "127.0.0.1:0"], more].concat());
        let mut sims = Ending(sims.stdout(Stdio::piped()).spawn().expect("it starts"));
        let mut printed = BufReader::new(sims.0.stdout.take().expect("piped"));
        let mut said = String::new();
        while !said.contains("countersign run -c ") {
            assert!(printed.read_line(&mut said).expect("text") > 0, "{said}");
        }
        said
    };
    let said = started(&[]);
    assert!(said.contains("No built-in profile is called `my-bank`") && said.contains("--profile PATH"), "{said}");
    let said = started(&["--profile", &profile]);
    assert!(!said.contains("No built-in profile"), "{said}");
    let config = fs::read_to_string(folder.path().join("sims/proxy.toml")).expect("text");
    assert!(config.contains(&format!("profile = \"{profile}\"")), "{config}");
    for (arguments, why) in [
        (&["sim", &profile][..], "is a profile; a simulator is another file (docs/simulators.md)"),
        (&["sim", "scb", "--write", &place, "--profile", &profile], "`--profile` is for one FILE"),
        (&["sim", "--from", "tests/fixtures/provider/scb"], "write a simulator of it (docs/simulators.md)"),
    ] {
        let found = told(arguments);
        assert!(found.code == 2 && found.err.contains(why), "{found:?}");
    }
}

#[test]
fn demo_shows_every_bank_that_is_simulated() {
    let names: Vec<&str> = Bank::known().map(Bank::name).collect();
    assert!(names.len() >= 50, "{names:?}");
    let failed: Vec<String> = std::thread::scope(|scope| {
        let tried: Vec<_> = (names.chunks(names.len().div_ceil(4)))
            .map(|some| {
                scope.spawn(move || {
                    let show = |name: &&str| (name.to_string(), told(&["demo", "--once", "--provider", name]));
                    some.iter().map(show).filter(|(_, found)| found.code != 0).collect::<Vec<_>>()
                })
            })
            .collect();
        let found = tried.into_iter().flat_map(|thread| thread.join().expect("no panic"));
        found.map(|(name, found)| format!("{name}: {}", found.out + &found.err)).collect()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn demo_shows_every_step_and_ends_well() {
    let found = told(&["demo", "--once", "--provider", "scb"]);
    assert_eq!(found.code, 0, "{found:?}");
    for part in ["resourceownerid: ", "requestuid: ", "token endpoint received", "Every step held.", "replayed"] {
        assert!(found.out.contains(part), "{part}\nin\n{}", found.out);
    }
    assert_eq!(found.out.matches(" held: ").count(), 3, "{}", found.out);
    assert!(!found.out.contains("dashboard"), "it has ended: {}", found.out);
    assert_eq!(told(&["demo", "--once", "--provider", "nobody"]).code, 2);

    let mut stays = command(&["demo", "--provider", "scb"]);
    let mut stays = Ending(stays.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts"));
    let mut printed = BufReader::new(stays.0.stdout.take().expect("piped"));
    let mut said = String::new();
    while !said.contains("countersign init BANK") {
        assert!(printed.read_line(&mut said).expect("text") > 0, "{said}");
    }
    let url = said.split("The dashboard: http://").nth(1).and_then(|rest| rest.split('/').next()).expect("its address");
    let answer = get(url.parse().expect("an address"), "/", "none");
    assert!(answer.contains("<title>"), "{answer}");
}

// ── init ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn init_writes_what_check_takes_and_a_call_passes() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("site");
    let place = dir.to_str().expect("text");
    let made = told(&["init", "paypal", "--dir", place, "--bind", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    assert_eq!(made.code, 0, "{made:?}");
    for part in ["export PAYPAL_CLIENT_SECRET=…", "countersign check --live", "countersign run", "curl ", "csk_"] {
        assert!(made.out.contains(part), "{part}\nin\n{}", made.out);
    }
    let config = dir.join("proxy.toml");
    let path = config.to_str().expect("text");
    // Editors would complain of a schema that is not there.
    let text = fs::read_to_string(&config).expect("a config");
    assert!(text.contains("`#:schema ./proxy.schema.json`") && !text.contains("\n#:schema"), "{text}");
    assert_eq!(told(&["check", path]).code, 1, "the secrets are not there yet");
    let with_secrets = |arguments: &[&str]| {
        let mut command = command(arguments);
        command.env("PAYPAL_CLIENT_ID", "an-id").env("PAYPAL_CLIENT_SECRET", "a-secret");
        command
    };
    let checked = ended(with_secrets(&["check", path]));
    assert_eq!(checked.code, 0, "{checked:?}");

    // The key that was printed opens the door: the bank is simulated at another address, which the config gets.
    let key = made.out.lines().find_map(|line| line.trim().strip_prefix("csk_")).expect("a key");
    let Some(Bank::Described(file)) = Bank::named("paypal") else { panic!("a simulated bank") };
    let sim = Sim::start(Bank::Described(file), SimOptions::default()).expect("a simulator");
    let text = fs::read_to_string(&config).expect("a config");
    let lines = sim.settings_toml();
    let (start, end) = (text.find("[provider.paypal]").expect("it"), text.find("[[route]]").expect("it"));
    fs::write(&config, format!("{}{lines}\n{}", &text[..start], &text[end..])).expect("written");
    fs::write(dir.join("sim-ca.crt"), sim.ca_pem()).expect("written");
    let mut proxy = Running::start(with_secrets(&["run", "-c", path]));
    let address = proxy.address("listening");
    let ca = fs::read_to_string(dir.join("certs/ca.crt")).expect("a CA");
    let demo = file.demo().expect("a call");
    let answer = crate::client::converse(async {
        let request = http::Request::builder().method(demo.method.as_str()).uri(format!("/paypal{}", demo.path));
        let request = request.header("host", address.to_string()).header("authorization", format!("Bearer csk_{key}"));
        let body = http_body_util::Full::new(bytes::Bytes::from(demo.body.clone()));
        crate::client::Client::new(address, ca).send(request.body(body).expect("a request")).await
    });
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(sim.tokens_issued(), 1);
}

#[test]
fn init_overwrites_nothing_and_takes_no_secret_from_the_command_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().to_str().expect("text");
    let refused = told(&["init", "paypal", "--dir", place, "--set", "client_secret=hunter2-hunter2"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("PAYPAL_CLIENT_SECRET") && !refused.err.contains("hunter2"), "{refused:?}");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing is written");
    fs::create_dir(folder.path().join("certs")).expect("a folder");
    fs::write(folder.path().join("certs/server.key"), "mine").expect("written");
    let refused = told(&["init", "paypal", "--dir", place]);
    assert!(refused.code == 2 && refused.err.contains("certs/server.key"), "{refused:?}");
    assert!(!folder.path().join("proxy.toml").exists());
    assert_eq!(fs::read_to_string(folder.path().join("certs/server.key")).expect("it"), "mine");
    for (arguments, part) in [
        (&["init"][..], "say which bank"),
        (&["init", "paypall"], "did you mean `paypal`?"),
        (&["init", "oauth2", "--dir", place], "say --base-url"),
        (&["init", "paypal", "--dir", place, "--environment", "mars"], "there are: sandbox"),
        (&["init", "paypal", "--dir", place, "--set", "colour=red"], "no such setting"),
        (&["init", "paypal", "--dir", place, "--plain", "--bind", "0.0.0.0:1"], "loopback"),
    ] {
        let refused = told(arguments);
        assert!(refused.code == 2 && refused.err.contains(part), "{part}: {refused:?}");
    }
}

#[test]
fn init_knows_what_every_profile_wants() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in Profile::builtin_names() {
        let dir = folder.path().join(name);
        let place = dir.to_str().expect("text");
        let mut arguments = vec!["init", name, "--dir", place, "--plain"];
        let profile = Profile::builtin(name).expect("a profile");
        if profile.environments().is_empty() {
            arguments.extend(["--base-url", "https://api.bank.example"]);
        }
        if profile.wants_token_url() {
            arguments.extend(["--token-url", "https://login.bank.example/token"]);
        }
        let made = told(&arguments);
        assert_eq!(made.code, 0, "{name}: {made:?}");
        // Only what is said to be missing is missing.
        let checked = told(&["check", "--json", dir.join("proxy.toml").to_str().expect("text")]);
        let diagnostics = checked.json()["diagnostics"].as_array().expect("a list").clone();
        let errors = diagnostics.iter().filter(|one| one["severity"] == "error");
        for error in errors {
            let message = error["message"].as_str().expect("text");
            let is_told =
                message.contains("not set") || message.contains("cannot be read") || message.contains("no such file");
            assert!(is_told, "{name}: {error}");
        }
    }
}

// ── examples ─────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn every_example_passes_check_once_its_secrets_and_certificates_are_there() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("certs")).expect("a folder");
    let now = countersign::base::time::Clock::System.now();
    let leaf = SimAuthority::new("test CA", now).and_then(|ca| ca.issue(&LeafSpec::server(now))).expect("a leaf");
    fs::write(folder.path().join("certs/server.crt"), leaf.cert_pem).expect("written");
    fs::write(folder.path().join("certs/server.key"), leaf.key_pem).expect("written");
    fs::write(folder.path().join("store.key"), "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=").expect("written");
    let made = ended({
        let mut command = command(&["ca", "new", "--permit", "paypal.com"]);
        command.args(["--cert", "certs/egress-ca.crt", "--key", "certs/egress-ca.key"]);
        command.current_dir(folder.path());
        command
    });
    assert_eq!(made.code, 0, "{made:?}");
    let mut pages: Vec<PathBuf> =
        fs::read_dir(root("examples")).expect("examples").map(|entry| entry.expect("an entry").path()).collect();
    pages.push(root("proxy.toml"));
    assert!(pages.len() >= 4, "{pages:?}");
    for page in pages {
        let text = fs::read_to_string(&page).expect("text");
        fs::write(folder.path().join("proxy.toml"), &text).expect("written");
        let mut check = command(&["check", "--json", "proxy.toml"]);
        let named = text.split("{ env = \"").skip(1).filter_map(|rest| rest.split('"').next());
        check.current_dir(folder.path()).envs(named.map(|name| (name, "a-value")));
        let found = ended(check);
        let mistakes = found.json();
        assert_eq!(found.code, 0, "{}: {mistakes}", page.display());
    }
}

// ── explain ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A request to one route of the sample.
struct Sample {
    bank: Bank,
    method: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
}

const SAMPLES: [Sample; 6] = [
    Sample {
        bank: Bank::Scb,
        method: "GET",
        path: "/scb/v1/payment/transactions?x=1&y=%20",
        headers: &[("requestuid", "my own id is not one"), ("channel", "mine"), ("via", "1.1 inner")],
    },
    Sample {
        bank: Bank::Scb,
        method: "POST",
        path: "/scb/v1/payment/qrcode/create",
        headers: &[("requestUId", "abc-123"), ("resourceownerid", "forged"), ("content-length", "2")],
    },
    Sample {
        bank: Bank::Meed,
        method: "POST",
        path: "/meed/v1/sales",
        headers: &[("x-forwarded-for", "10.1.1.1"), ("accept-encoding", "br, gzip"), ("x-own", "kept")],
    },
    Sample { bank: Bank::AbbeyCross, method: "GET", path: "/abx/v1/quotes", headers: &[("cookie", "a=1")] },
    Sample {
        bank: Bank::Rakbank,
        method: "DELETE",
        path: "/rak/v1/accounts",
        headers: &[
            ("x-account-id", "0188000049916"),
            ("connection", "x-gone"),
            ("x-gone", "1"),
            ("x_ibm_client_id", "forged"),
        ],
    },
    Sample { bank: Bank::OAuth2, method: "GET", path: "/other/anything", headers: &[("accept", "*/*")] },
];

/// What the simulators received is what `explain` said, header by header, for every route of the sample config.
#[test]
fn explain_says_what_the_bank_then_receives() {
    let banks = [
        (Bank::Scb, "environment        = \"sandbox\"", "", "SCB_APPLICATION_SECRET"),
        (Bank::Meed, "\"https://partner.example/api/partner\"", "meed_0000", "MEED_CLIENT_SECRET"),
        (Bank::AbbeyCross, "\"https://abx.example\"", "abx_0000", "ABX_CLIENT_SECRET"),
        (Bank::Rakbank, "\"https://sandboxapi.rakbank.ae/sb/api\"", "rak_0000", "RAK_CLIENT_SECRET"),
        (Bank::OAuth2, "\"https://api.other.example\"", "other_0000", "OTHER_CLIENT_SECRET"),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("certs")).expect("a folder");
    let now = countersign::base::time::Clock::System.now();
    let authority = SimAuthority::new("test CA", now).expect("a CA");
    let leaf = authority.issue(&LeafSpec::server(now)).expect("a leaf");
    fs::write(folder.path().join("certs/server.crt"), leaf.cert_pem).expect("written");
    fs::write(folder.path().join("certs/server.key"), leaf.key_pem).expect("written");

    // The sample, its placeholders replaced.
    let mut text = read("examples/many-banks.toml");
    let mut replace = |from: &str, to: String| {
        assert!(text.contains(from), "the sample has no {from}");
        text = text.replace(from, &to);
    };
    let mut env: Vec<(&str, String)> = Vec::new();
    let mut sims = Vec::new();
    for (kind, base_url, id, secret) in banks {
        // Over HTTP/2 the host is no header field.
        let options = SimOptions { only_http1: true, ..SimOptions::default() };
        let sim = Sim::start(kind, options).expect("a simulator");
        fs::write(folder.path().join(format!("{}.crt", kind.name())), sim.ca_pem()).expect("written");
        let tls = format!("\"{}\"\ntls = {{ ca = \"{}.crt\" }}", sim.base_url(), kind.name());
        match kind {
            Bank::Scb => {
                replace(base_url, format!("base_url = {tls}"));
                env.push(("SCB_APPLICATION_KEY", sim.credentials().id().to_owned()));
            }
            Bank::AbbeyCross | Bank::Described(_) | Bank::Meed | Bank::OAuth2 | Bank::Rakbank => {
                replace(base_url, tls);
                replace(id, sim.credentials().id().to_owned());
            }
        }
        match kind {
            Bank::Rakbank => replace("https://sandboxapi.rakbank.ae/sb/api/v1/partner_auth/token", sim.token_url()),
            Bank::OAuth2 => replace("https://login.other.example/token", sim.token_url()),
            Bank::AbbeyCross | Bank::Described(_) | Bank::Meed | Bank::Scb => {}
        }
        env.push((secret, sim.credentials().secret().expose_secret().to_owned()));
        sims.push(sim);
    }
    replace("127.0.0.1:8443", "127.0.0.1:0".to_owned());
    replace("127.0.0.1:9901", "127.0.0.1:0".to_owned());
    let hash = |key: &str| hex(&sha256(key.as_bytes()));
    replace("8f1d3c6b5a7e90241bd4c0f6a2e8751993d60b4c7fe2a815d03b9c6e47f1a258", hash("erp-key"));
    replace("27c94e0fb1683ad5720f9be4d81c36a5e90742bd1f65c8830ea9d74b52f6013c", hash("treasury-key"));
    replace("# workers = 4", "workers = 1".to_owned());
    replace("# [runtime]", "[runtime]".to_owned());
    fs::write(folder.path().join("proxy.toml"), &text).expect("written");

    let here = |arguments: &[&str]| {
        let mut command = command(arguments);
        command.current_dir(folder.path()).envs(env.iter().map(|(name, value)| (*name, value.as_str())));
        command
    };
    let mut proxy = Running::start(here(&["run"]));
    let (address, admin) = (proxy.address("listening"), proxy.address("admin listening"));
    let client = crate::client::Client::new(address, authority.pem());
    let mut routes = Vec::new();
    for Sample { bank, method, path, headers } in &SAMPLES {
        let sim = sims.iter().find(|sim| sim.bank() == *bank).expect("a simulator");
        let key = if *bank == Bank::AbbeyCross { "treasury-key" } else { "erp-key" };
        let url = format!("https://localhost:{}{path}", address.port());
        let authorization = format!("Bearer {key}");
        let own: Vec<(&str, &str)> =
            headers.iter().copied().chain([("authorization", authorization.as_str())]).collect();
        let written: Vec<String> = own.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let mut arguments = vec!["explain", "--json", "-m", method, &url];
        arguments.extend(written.iter().flat_map(|header| ["-H", header.as_str()]));
        let found = ended(here(&arguments));
        assert_eq!((found.code, found.err.as_str()), (0, ""), "{found:?}");
        let foreseen = found.json();
        assert!(!found.out.contains(sim.credentials().secret().expose_secret()), "a secret is shown");

        sim.forget_received();
        let host = format!("localhost:{}", address.port());
        let mut request = http::Request::builder().method(*method).uri(*path).header("host", host.as_str());
        for (name, value) in &own {
            request = request.header(*name, *value);
        }
        let body = if headers.iter().any(|(name, _)| *name == "content-length") { "{}" } else { "" };
        let request = request.body(http_body_util::Full::new(bytes::Bytes::from(body))).expect("a request");
        crate::client::converse(async { client.send(request).await });

        let received = sim.received();
        let arrival = received.iter().find(|arrival| arrival.endpoint == SimEndpoint::Resource).expect("it arrived");
        let query = arrival.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let arrived = format!("https://{}{}{query}", sim.address(), arrival.path);
        assert_eq!((&foreseen["upstream"]["url"], &foreseen["upstream"]["method"]), (&json!(arrived), &json!(method)));
        compare(&foreseen["headers"], &own, &host, arrival, path);

        let tokens = get(admin, "/api/v1/tokens", "");
        let line = format!("\"key\": {}", foreseen["token"]["key"]);
        assert!(tokens.contains(&line), "{line} in {tokens}");
        routes.push(foreseen["route"].as_str().expect("a name").to_owned());
    }
    routes.sort();
    routes.dedup();
    assert_eq!(routes, ["abbeycross", "meed", "other", "rak-accounts", "scb"], "every route of the sample");
}

/// Every header that arrived was foreseen, every one foreseen arrived, and nothing that was said to be removed did.
fn compare(
    foreseen: &Value,
    own: &[(&str, &str)],
    host: &str,
    arrival: &countersign::sim::ReceivedRequest,
    path: &str,
) {
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    let pairs = |list: &str| foreseen[list].as_array().expect("a list").clone();
    for one in pairs("added").into_iter().chain(pairs("replaced")) {
        expected.insert(one["name"].as_str().expect("text").into(), one["value"].as_str().expect("text").into());
    }
    let sent: Vec<(&str, &str)> = own.iter().copied().chain([("host", host)]).collect();
    for name in pairs("kept") {
        let name = name.as_str().expect("text");
        let value = sent.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        expected.insert(name.to_owned(), value.expect("a header that was sent").1.to_owned());
    }
    for name in pairs("removed") {
        assert_eq!(arrival.count(name.as_str().expect("text")), 0, "{path}: {name}");
    }
    let arrived: BTreeMap<String, String> = arrival
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let names = |map: &BTreeMap<String, String>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&expected), names(&arrived), "{path}");
    for (name, said) in expected {
        let value = &arrived[&name];
        match (said.split_once('‹'), name.as_str()) {
            (None, _) => assert_eq!(&said, value, "{path}: {name}"),
            (Some(("", "fresh uuid›")), _) => assert_eq!(value.len(), 36, "{path}: {name}"),
            (Some(("", "fresh uuid, 32 hex digits›")), _) => assert_eq!(value.len(), 32, "{path}: {name}"),
            (Some(("Bearer ", "token›")), "authorization") => {
                assert!(value.starts_with("Bearer ") && value.len() > 20, "{path}: {name}");
                assert!(!value.contains("-key"), "the client's own key arrived");
            }
            (Some(_), _) => panic!("{path}: {name}: {said}"),
        }
    }
}

#[test]
fn explain_says_why_a_request_would_be_refused() {
    let sim = bank(Bank::Scb);
    let (folder, file) = folder(&sim, KEY, "127.0.0.1:0");
    let more = format!(
        "allow = [\"GET /v1/*\"]\nclients = [\"erp\"]\nheaders = {{ x-static = {{ file = \"hidden\" }} }}\n\
         [client.treasury]\nkey_sha256 = [\"{}\"]\nnetworks = [\"10.1.0.0/16\"]\n",
        "ab".repeat(32)
    );
    fs::write(folder.path().join("hidden"), "s3cr3t-header\n").expect("written");
    fs::write(&file, fs::read_to_string(&file).expect("the config") + &more).expect("written");
    let explain = |more: &[&str]| {
        let found = told(&[&["explain", "-c", &file], more].concat());
        assert!(!found.out.contains("s3cr3t"), "{}", found.out);
        (found.code, found.out + &found.err)
    };
    for (arguments, code, said) in [
        (&["/bank/v1/x", "--client", "erp"][..], 0, "goes to    GET https://127.0.0.1:"),
        (&["/bank/v1/x", "--client", "erp"], 0, "x-static: ‹secret: headers.x-static›"),
        (&["/bank/v1/x", "-H", "Authorization: Bearer erp-key-e2e"], 0, "erp (by its headers)"),
        (&["/bank/v1/x"], 1, "client-unidentified (401)"),
        (&["/bank/v1/x", "-H", "Authorization: Bearer wrong"], 1, "client-unidentified (401)"),
        (&["/bank/v1/x", "--client", "treasury"], 1, "this request is open to: erp"),
        (&["/bank/v1/x", "--client", "treasury"], 1, "treasury (named with --client; it must call from 10.1.0.0/16)"),
        (&["/bank/v2/x", "--client", "erp"], 1, "lets nobody do this"),
        (&["-m", "POST", "/bank/v1/x", "--client", "erp"], 1, "client-not-allowed (403)"),
        (&["/bank/v1/oauth/token", "--client", "erp"], 1, "token endpoint"),
        (&["/nowhere", "--client", "erp"], 1, "route-not-found (404)"),
        (&["/bank/../x", "--client", "erp"], 1, "malformed-request (400)"),
        (&["-m", "TRACE", "/bank/v1/x", "--client", "erp"], 1, "malformed-request (405)"),
        (&["/bank/v1/x", "--client", "epr"], 2, "did you mean `erp`?"),
        (&["/bank/v1/x", "--listener", "gatewya"], 2, "did you mean `gateway`?"),
        (&["bank x", "--client", "erp"], 2, "neither a URL nor a path"),
        (&["-m", "G T", "/x"], 2, "not a method"),
        (&["-H", "nonsense", "/x"], 2, "a header is written as"),
    ] {
        let (found, text) = explain(arguments);
        assert_eq!(found, code, "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
    let refused = told(&["explain", "-c", &file, "--json", "--client", "treasury", "/bank/v1/x"]).json();
    assert_eq!((&refused["forwarded"], &refused["error"]), (&json!(false), &json!("client-not-allowed")));
    assert_eq!((&refused["route"], &refused["status"]), (&json!("scb"), &json!(403)));
    assert_eq!(told(&["explain", "-c", "no-such.toml", "/x"]).code, 2);
    assert_eq!(told(&["explain", "-c", "tests/fixtures/config/routes.toml", "/x"]).code, 2, "mistakes explain nothing");
}

#[test]
fn explain_asks_the_listener_that_is_meant() {
    let sim = bank(Bank::Scb);
    let (folder, file) = folder(&sim, KEY, "127.0.0.1:7000");
    let now = countersign::base::time::Clock::System.now();
    let leaf = sim.authority().issue(&LeafSpec::server(now)).expect("a leaf");
    fs::write(folder.path().join("server.crt"), leaf.cert_pem).expect("written");
    fs::write(folder.path().join("server.key"), leaf.key_pem).expect("written");
    // None of these addresses is ever bound.
    let more = "[[listener]]\nname = \"open\"\nbind = \"127.0.0.1:7001\"\nclients = \"anyone\"\n\
                [[listener]]\nname = \"secure\"\nbind = \"127.0.0.1:7002\"\n\
                tls = { cert = \"server.crt\", key = \"server.key\" }\n";
    fs::write(&file, fs::read_to_string(&file).expect("the config") + more).expect("written");
    let erp = ["--client", "erp"];
    for (arguments, listener, outcome) in [
        (&["http://gw.example:7001/bank/x"][..], "open", "scb"),
        (&["http://gw.example:7000/bank/x"], "gateway", "client-unidentified"),
        (&["https://gw.example:7002/bank/x"], "secure", "client-unidentified"),
        (&["https://gw.example/bank/x", erp[0], erp[1]], "secure", "scb"),
        (&["http://gw.example/bank/x"], "open", "scb"),
        (&["http://gw.example/bank/x", erp[0], erp[1]], "gateway", "scb"),
        (&["/bank/x"], "open", "scb"),
        (&["/bank/x", "--listener", "secure"], "secure", "client-unidentified"),
        (&["/bank/x", "--listener", "open", "-H", "Origin: https://evil.example"], "open", "client-not-allowed"),
        (
            &["https://gw.example:7002/bank/x", "-H", "Host: other.example", erp[0], erp[1]],
            "secure",
            "misdirected-request",
        ),
    ] {
        let found = told(&[&["explain", "--json", "-c", &file], arguments].concat());
        let answer = found.json();
        let forwarded = answer["forwarded"] == true;
        assert_eq!(found.code, i32::from(!forwarded), "{arguments:?}: {found:?}");
        let came = if forwarded { &answer["route"] } else { &answer["error"] };
        assert_eq!((&answer["listener"], came), (&json!(listener), &json!(outcome)), "{arguments:?}");
        if listener == "open" && forwarded {
            assert_eq!((&answer["open_to"], &answer["client"]), (&json!("anyone"), &Value::Null));
        }
    }
    let found = told(&["explain", "-c", &file, "--listener", "open", "-H", "Origin: https://evil.example", "/bank/x"]);
    assert!(found.out.contains("requests of web pages are refused"), "{}", found.out);
}

// ── profiles ─────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn profiles_are_listed_printed_and_played() {
    let listed = told(&["profiles"]);
    let answer = told(&["profiles", "--json"]).json();
    let names: Vec<&str> =
        answer["profiles"].as_array().expect("a list").iter().filter_map(|p| p["name"].as_str()).collect();
    assert_eq!(names, countersign::provider::Profile::builtin_names());
    assert!(names.iter().all(|name| listed.out.contains(name)), "{}", listed.out);
    assert_eq!(told(&["profiles", "scb"]).out, read("src/provider/profiles/scb.toml"));
    let one = told(&["profiles", "scb", "--json"]).json();
    assert_eq!(one["settings"][1]["name"], "application_secret");
    assert_eq!(one["settings"][1]["secret"], true);
    let found = told(&["profiles", "sbc"]);
    assert_eq!(found.code, 2);
    assert!(found.err.contains("did you mean `scb`?"), "{}", found.err);
    for name in names {
        let played = told(&["profiles", "test", name]);
        assert_eq!(played.code, 0, "{played:?}");
        assert!(played.out.matches("ok ").count() >= 1, "{}", played.out);
    }
}

#[test]
fn a_profile_of_ones_own_is_played_with_the_folder_beside_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let docs = read("docs/adding-a-provider.md");
    let block = |marker: &str| {
        let (_, after) = docs.split_once(marker).expect("the marker");
        after.split_once("```toml\n").and_then(|(_, block)| block.split_once("```")).expect("a block").0
    };
    let profile = folder.path().join("newbank.toml");
    let file = profile.to_str().expect("text");
    fs::write(&profile, block("<!-- test: profile -->")).expect("written");
    let found = told(&["profiles", "test", file]);
    assert_eq!(found.code, 2, "there are no conversations yet: {found:?}");
    assert!(found.err.contains("newbank/"), "{}", found.err);

    let conversation = block("<!-- test: conversation -->");
    fs::create_dir(folder.path().join("newbank")).expect("a folder");
    fs::write(folder.path().join("newbank/good.toml"), conversation).expect("written");
    let found = told(&["profiles", "test", file]);
    assert_eq!(found.code, 0, "{found:?}");

    // Every kind of step fails when it does not go as written.
    let spoilt = [
        ("method  = \"POST\"", "method  = \"PUT\"", "method"),
        ("/open/login\"", "/open/logon\"", "URL"),
        ("\"region\":\"eu\"", "\"region\":\"th\"", "token body"),
        ("life = \"15m\"", "life = \"16m\"", "answer 1: life"),
        ("x-access-token = \"T-1\"", "x-access-token = \"T-2\"", "answer 1: headers"),
        ("class = \"fatal\"", "class = \"transient\"", "answer 2: class"),
        ("\"first-token\"", "\"other-token\"", "call 1: dressed"),
        ("\"second-token\"", "\"other-token\"", "call 1: replayed"),
        ("verdict = \"refused\"", "verdict = \"unknown\"", "resource 1: verdict"),
        ("verdict = \"accepted\"", "verdict = \"refused\"", "resource 2: verdict"),
        (
            "status = 200\njson   = { code = \"0000\"",
            "status = 99\njson   = { code = \"0000\"",
            "answer 1: 99 is no HTTP status",
        ),
        ("secret_key = \"hush-hush\"", "secret_kye = \"x\"", "secret_kye"),
        // The step that mends it holds here: no environment is read.
        (", secret_key = \"hush-hush\"", "", "`secret_key = \"any text\"`"),
        ("about ", "abuot ", "abuot"),
    ];
    for (from, to, what) in spoilt {
        assert!(conversation.contains(from), "{from}");
        let bad = folder.path().join("bad.toml");
        fs::write(&bad, conversation.replacen(from, to, 1)).expect("written");
        let found = told(&["profiles", "test", file, bad.to_str().expect("text")]);
        assert_eq!(found.code, 1, "{what}: {found:?}");
        assert!(found.out.contains("FAILED") && found.out.contains(what), "{what}\nin\n{}", found.out);
    }
    let bad = folder.path().join("bad.toml");
    let bad = bad.to_str().expect("text");
    let answer = told(&["profiles", "test", "--json", file, bad, bad]).json();
    assert_eq!(answer["ok"], false);
    assert_eq!(answer["conversations"].as_array().map(Vec::len), Some(2));

    fs::write(&profile, "name = 7\n").expect("written");
    let found = told(&["profiles", "test", file]);
    assert_eq!(found.code, 1);
    assert!(found.err.contains("newbank.toml:1:8"), "{}", found.err);
    assert_eq!(told(&["profiles", "test", "/no/such.toml"]).code, 2);
    assert_eq!(told(&["profiles", "test", "sbc"]).code, 2);
    let mut elsewhere = command(&["profiles", "test", "scb"]);
    elsewhere.current_dir(folder.path());
    let found = ended(elsewhere);
    assert!(found.code == 2 && found.err.contains("in a checkout of countersign"), "{found:?}");
}

// ── schema, completions, man, docs ───────────────────────────────────────────────────────────────────────────────────

/// Asks the reader which keys it knows, section by section: an unknown one makes it list them.
#[test]
fn the_schema_knows_the_readers_keys() {
    let odd = "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq = 1\n";
    let inline = odd.trim();
    let probe = format!(
        "{odd}[[listener]]\n{odd}tls = {{ {inline} }}\n[provider.x]\nprofile = \"oauth2\"\n{odd}[provider.x.tls]\n{odd}\
         [provider.x.timeouts]\n{odd}[provider.x.hours]\n{odd}[provider.x.token_budget]\n{odd}[[provider.x.quota]]\n{odd}[[route]]\n{odd}[route.vars.v]\n{odd}[route.timeouts]\n{odd}[route.rate_limit]\n{odd}[client.x]\n{odd}[client.x.jwt]\n{odd}\
         [profile_pack.x]\n{odd}[secret_source.x]\nkind = \"vault\"\n{odd}[secret_source.x.app_role]\n{odd}[secret_source.y]\nkind = \"vault\"\n[secret_source.y.kubernetes]\n{odd}\
         [secret_source.z]\nkind = \"aws\"\nregion = \"eu\"\n[secret_source.z.web_identity]\n{odd}[admin]\n{odd}[admin.token.x]\n{odd}[log]\n{odd}[otlp]\n{odd}[tracing]\n{odd}[runtime]\n{odd}[limits]\n{odd}"
    );
    let (_, found) = build(Path::new("proxy.toml"), probe, &InMemory::new());
    let settings: Vec<String> = countersign::provider::Profile::builtin("oauth2")
        .expect("oauth2")
        .declared()
        .iter()
        .map(|setting| setting.name.to_string())
        .collect();
    let sections = [
        ("the file", "file"),
        ("[[listener]]", "listener"),
        ("tls of [[listener]]", "listener_tls"),
        ("[provider.x]", "provider"),
        ("tls of a provider", "provider_tls"),
        ("timeouts of [provider.x]", "timeouts"),
        ("hours of [provider.x]", "hours"),
        ("quota of [provider.x]", "quota"),
        ("token_budget of [provider.x]", "token_budget"),
        ("[[route]]", "route"),
        ("variable `v`", "var"),
        ("timeouts of [[route]]", "timeouts"),
        ("rate_limit of [[route]]", "rate_limit"),
        ("[client.x]", "client"),
        ("jwt of [client]", "jwt"),
        ("[profile_pack.x]", "profile_pack"),
        ("[secret_source.x]", "secret_source"),
        ("`app_role`", "secret_source_app_role"),
        ("`kubernetes`", "secret_source_kubernetes"),
        ("`web_identity`", "secret_source_web_identity"),
        ("[admin]", "admin"),
        ("[admin.token.x]", "admin_token"),
        ("[log]", "log"),
        ("[otlp]", "otlp"),
        ("[tracing]", "tracing"),
        ("[runtime]", "runtime"),
        ("[limits]", "limits"),
    ];
    let told: Vec<String> = found.iter().map(Diagnostic::one_line).collect();
    for (title, section) in sections {
        let title = format!("unknown key `{}` in {title}", inline.split(' ').next().expect("a word"));
        let listed = found.iter().find(|one| one.title == title).unwrap_or_else(|| panic!("{title} in {told:#?}"));
        let listed = listed.help.as_deref().and_then(|help| help.strip_prefix("known here: ")).expect("a list of keys");
        let mut keys: Vec<&str> = listed.split(", ").collect();
        if section == "provider" {
            keys.retain(|key| !settings.iter().any(|own| own == key));
        }
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(
            schema::keys(section),
            keys,
            "{section}: the rows of the schema and the reader in src/config differ"
        );
    }
    assert_eq!(found.iter().filter(|one| one.title.contains("qqqq")).count(), sections.len(), "{told:#?}");
}

#[test]
fn the_sample_fits_the_schema_and_mistakes_do_not() {
    let schema = told(&["schema"]).json();
    assert_eq!(schema, schema::document());
    let wrong = |text: &str| {
        let value: toml::Table = text.parse().expect("TOML");
        misfits(&schema, &schema, &serde_json::to_value(value).expect("JSON"), "")
    };
    let sample = read("examples/many-banks.toml");
    assert_eq!(wrong(&sample), Vec::<String>::new());
    for (from, to) in [
        ("[admin]", "[adnim]"),
        ("bind = \"127.0.0.1:9901\"", "bind = 9901"),
        ("mode = \"reverse\"", "mode = \"revers\""),
        (", key = \"certs/server.key\" }", " }"),
        ("profile            = \"scb\"", ""),
        ("profile            = \"scb\"", "profile            = \"sbc\""),
        ("level  = \"info\"", "level  = \"information\""),
        ("application_secret = { env", "application_secret = { evn"),
        ("application_secret = {", "aplication_secret = {"),
        ("environment        = \"sandbox\"", "environment        = \"sandpit\""),
        ("base_url      = \"https://abx", "base_url      = \"http://abx"),
        ("scope          = \"internal_transfers\"", "scop          = \"internal_transfers\""),
        ("clients  = [\"erp\"]", "clients  = \"erp\""),
        ("vars     = { account = { header", "vars     = { account = { haeder"),
        ("headers  = { channel = \"scbeasy\" }", "headers  = { channel = 1 }"),
        ("level  = \"info\"", "level  = \"info\"\nformat = \"xml\""),
    ] {
        assert!(sample.contains(from), "{from}");
        let spoilt = sample.replacen(from, to, 1);
        assert!(!wrong(&spoilt).is_empty(), "{to} passes");
    }
    for right in ["level  = \"warn,countersign::control=debug\"", "level  = \"WARN\""] {
        assert_eq!(wrong(&sample.replacen("level  = \"info\"", right, 1)), Vec::<String>::new(), "{right}");
    }
    let own = sample.replacen("profile            = \"scb\"", "profile            = \"banks/own.toml\"", 1);
    assert_eq!(wrong(&own), Vec::<String>::new());
    let methods = |list: &str| wrong(&format!("{sample}\n[[route]]\nprovider = \"scb\"\nmethods = {list}\n"));
    assert_eq!(methods("[\"GET\", \"PROPFIND\"]"), Vec::<String>::new());
    assert!(!methods("[\"get\"]").is_empty(), "methods are written in capitals");
    let limits = |text: &str| wrong(&format!("{sample}\n[limits]\n{text}"));
    assert_eq!(
        limits("drain = 0\nheader_bytes = \"1KiB\"\nuri_bytes = 0\nidle_timeout = \"1h30m\""),
        Vec::<String>::new()
    );
    for bad in ["drain = 1", "drain = \"1w\"", "header_bytes = 5", "header_bytes = \"5KB\"", "streams = -1"] {
        assert!(!limits(bad).is_empty(), "{bad} passes");
    }
}

/// As much of JSON Schema as ours uses. A keyword that is not known here fails the test.
fn misfits(whole: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let Some(rules) = schema.as_object() else {
        return if *schema == json!(true) { Vec::new() } else { vec![format!("{at}: {schema}")] };
    };
    let fits = |schema: &Value| misfits(whole, schema, value, at).is_empty();
    let mut wrong = Vec::new();
    let mut require = |holds: bool, keyword: &str| {
        if !holds {
            wrong.push(format!("{at}: {keyword}"));
        }
    };
    let mut more = Vec::new();
    for (keyword, rule) in rules {
        match keyword.as_str() {
            "$defs" | "$id" | "$schema" | "description" | "title" | "then" => {}
            "$ref" => {
                let pointer = rule.as_str().and_then(|rule| rule.strip_prefix('#')).expect("a reference into itself");
                more.extend(misfits(whole, whole.pointer(pointer).expect("its target"), value, at));
            }
            "additionalProperties" => {
                let known = |name: &String| rules.get("properties").is_some_and(|known| known.get(name).is_some());
                for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| !known(name)) {
                    match rule {
                        Value::Bool(false) => more.push(format!("{at}/{name}: unknown")),
                        rule => more.extend(misfits(whole, rule, value, &format!("{at}/{name}"))),
                    }
                }
            }
            "allOf" => {
                more.extend(rule.as_array().into_iter().flatten().flat_map(|rule| misfits(whole, rule, value, at)))
            }
            "anyOf" => require(rule.as_array().expect("a list").iter().any(fits), keyword),
            "const" => require(rule == value, keyword),
            "enum" => require(rule.as_array().expect("a list").contains(value), keyword),
            "if" => {
                if fits(rule) {
                    more.extend(misfits(whole, &rules["then"], value, at));
                }
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    more.extend(misfits(whole, rule, value, &format!("{at}/{index}")));
                }
            }
            "minimum" => require(value.as_i64() >= rule.as_i64(), keyword),
            "pattern" => {
                let pattern = regex::Regex::new(rule.as_str().expect("text")).expect("a pattern");
                require(value.as_str().is_none_or(|text| pattern.is_match(text)), keyword);
            }
            "properties" => {
                for (name, rule) in rule.as_object().expect("a table") {
                    if let Some(value) = value.get(name) {
                        more.extend(misfits(whole, rule, value, &format!("{at}/{name}")));
                    }
                }
            }
            "required" => {
                for name in rule.as_array().expect("a list").iter().filter_map(Value::as_str) {
                    require(value.get(name).is_some(), &format!("{name} is missing"));
                }
            }
            "type" => require(
                match rule.as_str().expect("a type") {
                    "array" => value.is_array(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "object" => value.is_object(),
                    "string" => value.is_string(),
                    other => panic!("type {other}"),
                },
                keyword,
            ),
            other => panic!("the keyword `{other}` is not known to this test"),
        }
    }
    wrong.extend(more);
    wrong
}

/// All commands, as they are typed: `key new`.
fn all_commands(command: &clap::Command, before: &str) -> Vec<String> {
    command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
        .flat_map(|sub| {
            let name = format!("{before}{}", sub.get_name());
            let below = all_commands(sub, &format!("{name} "));
            std::iter::once(name).chain(below)
        })
        .collect()
}

#[test]
fn the_manual_names_every_command_and_option() {
    let manual = read("docs/commands.md");
    let line = countersign::cli::command_line();
    let all = all_commands(&line, "");
    assert!(all.len() >= 13, "{all:?}");
    for name in &all {
        assert!(manual.contains(&format!("countersign {name}")), "docs/commands.md says nothing of `{name}`");
    }
    fn options(command: &clap::Command, manual: &str) {
        for argument in command.get_arguments() {
            let long = argument.get_long().map(|long| format!("--{long}"));
            let fine = long.as_ref().is_none_or(|long| long == "--config" || manual.contains(long.as_str()));
            assert!(fine, "docs/commands.md says nothing of {long:?} of `{}`", command.get_name());
        }
        command.get_subcommands().for_each(|sub| options(sub, manual));
    }
    options(&line, &manual);
}

/// Examples stand below a command's help and in its manual page, and the command line takes them.
#[test]
fn the_examples_of_a_commands_help_parse() {
    fn help<'a>(command: &'a clap::Command, into: &mut Vec<(&'a str, String)>) {
        into.extend(command.get_after_help().map(|text| (command.get_name(), text.to_string())));
        command.get_subcommands().for_each(|sub| help(sub, into));
    }
    let (line, mut all) = (countersign::cli::command_line(), Vec::new());
    help(&line, &mut all);
    assert!(all.len() >= 20, "{all:?}");
    for (name, text) in &all {
        let examples: Vec<&str> = text.lines().filter(|line| line.starts_with("  countersign ")).collect();
        assert!(examples.len() >= 2 && text.contains("\nExit codes:\n  "), "{name}: {text}");
        for example in examples {
            // What stands in single quotes is one word, without them.
            let parts = example.trim().split('\'').enumerate();
            let words = parts.flat_map(|(at, part)| match at % 2 {
                0 => part.split_whitespace().collect(),
                _ => vec![part],
            });
            let parsed = countersign::cli::command_line().try_get_matches_from(words);
            assert!(parsed.is_ok(), "{example}: {parsed:?}");
        }
    }
    let page = told(&["man", "check"]).out;
    assert!(page.contains("EXIT STATUS") && page.contains("account=4711"), "{page}");
}

#[test]
fn completions_and_manual_pages_are_made_for_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let found = told(&["completions", shell]);
        assert_eq!((found.code, found.err.as_str()), (0, ""), "{shell}");
        assert!(found.out.contains("explain") && found.out.contains("countersign"), "{shell}");
        // The scripts of the others have no values.
        if ["bash", "fish", "zsh"].contains(&shell) {
            assert!(found.out.contains("unionbank-ph"), "{shell} offers no profile");
        }
    }
    assert_eq!(told(&["completions", "tcsh"]).code, 2);
    let mut pages = vec![String::new()];
    pages.extend(all_commands(&countersign::cli::command_line(), ""));
    for page in pages {
        let words: Vec<&str> = std::iter::once("man").chain(page.split_whitespace()).collect();
        let found = told(&words);
        assert_eq!((found.code, found.err.as_str()), (0, ""), "{page}");
        let title = format!("countersign {page}").trim().replace(' ', "-");
        assert!(found.out.contains(&format!(".TH {title} 1")), "{page}: {}", found.out);
        assert!(found.out.contains(".SH ENVIRONMENT\n") && !found.out.contains("EXTRA"), "{page}: {}", found.out);
    }
    let page = told(&["man", "exec"]).out;
    assert!(page.contains(".SH EXAMPLES\n") && page.contains(".SH \"EXIT STATUS\"\n"), "{page}");
    assert_eq!(told(&["man", "nothing"]).code, 2);
}

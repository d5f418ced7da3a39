//! `countersign demo`: the whole thing, against simulated banks, in one process.
//!
//! It starts the simulators and a real proxy on loopback, makes three calls per bank (first, cached, after a
//! revocation), and shows what the application sent and what the bank received. Every claim it prints is checked
//! against the simulator's own record. Credentials are shown as fingerprints.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::runtime::{Builder, LocalOptions};

use super::color::{self, Tone};
use super::demo_client::DemoClient;
use super::run::{dashboard_url, wait_for_the_end};
use super::{complain, print};
use crate::app::boot::{BootOptions, Running};
use crate::base::counted::counted;
use crate::base::secret::{ExposeSecret, Fingerprint, hex, sha256};
use crate::base::time::{Clock, rfc3339};
use crate::config::{InMemory, build};
use crate::sim::{Bank, BankFile, LeafSpec, ReceivedRequest, Sim, SimAuthority, SimEndpoint, SimHandle};
use crate::syntax::Severity;

const KEY: &str = "demo-key";

/// Commands to try after the demo.
const NEXT_STEPS: &str = "\
Next, in an empty folder:
  countersign sim --write .    simulated banks and a proxy.toml for them, to be served by `countersign run`
  countersign init BANK        a proxy.toml for a real bank; `countersign profiles` lists them

";

/// One bank of the tour: a path that applications call, and a body that the bank understands.
struct Stop {
    bank: Bank,
    method: Cow<'static, str>,
    call: Cow<'static, str>,
    headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    body: Cow<'static, str>,
    provider: &'static str,
    route: &'static str,
    says: Cow<'static, str>,
    /// The calls that bring a token; none where credentials are static.
    token_calls: usize,
    /// The bank answers each call with a challenge first.
    is_challenged: bool,
}

/// The parts of a stop whose bank is simulated by code of its own.
struct TourStop {
    bank: Bank,
    call: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    provider: &'static str,
    route: &'static str,
    says: &'static str,
}

const TOUR: [TourStop; 4] = [
    TourStop {
        bank: Bank::Scb,
        call: "/scb/v1/payment/qrcode/create",
        headers: &[],
        body: r#"{"qrType":"PP","ppType":"BILLERID","ppId":"123456789012345","amount":"1.00","ref1":"REFERENCE1","ref2":"REFERENCE2","ref3":"SCB"}"#,
        provider: "",
        route: "",
        says: "SCB wants a JSON token call, and requestUId and resourceOwnerId on every request",
    },
    TourStop {
        bank: Bank::Meed,
        call: "/meed/v1/sales",
        headers: &[],
        body: r#"{"amount":"120.00","currency":"THB"}"#,
        provider: "",
        route: "",
        says: "Meed wants a form, and answers a dead token with a challenge",
    },
    TourStop {
        bank: Bank::AbbeyCross,
        call: "/abbeycross/v1/quotes",
        headers: &[],
        body: r#"{"sell":"USD","buy":"EUR","amount":"1000.00"}"#,
        provider: "",
        route: "",
        says: "AbbeyCross wants bare JSON credentials without a grant type",
    },
    TourStop {
        bank: Bank::Rakbank,
        call: "/rakbank/v1/accounts/0188000049916/transfers",
        headers: &[("x-account-id", "0188000049916")],
        body: r#"{"transaction_id":"T-1","amount":"5.00","currency":"AED"}"#,
        provider: "oauth_metadata = { account_id = { var = \"account\" } }\n",
        route: "vars = { account = { header = \"x-account-id\", pattern = \"[0-9]{13}\" } }\n",
        says: "RAKBANK bakes the account into the token: one token per account, never mixed",
    },
];

/// Shown on request only: it is no bank.
const PLAIN: TourStop = TourStop {
    bank: Bank::OAuth2,
    call: "/oauth2/payments/P-1",
    headers: &[],
    body: r#"{"amount":"5.00","currency":"EUR"}"#,
    provider: "",
    route: "",
    says: "a provider by the book: a form, and a challenge for a dead token",
};

impl TourStop {
    fn stop(&self) -> Stop {
        Stop {
            bank: self.bank,
            method: "POST".into(),
            call: self.call.into(),
            headers: self.headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            body: self.body.into(),
            provider: self.provider,
            route: self.route,
            says: self.says.into(),
            token_calls: 1,
            is_challenged: false,
        }
    }
}

impl Stop {
    /// The stop at a bank that a file describes; `None`: the file has no call for it.
    fn described(file: &'static BankFile) -> Option<Self> {
        let demo = file.demo()?;
        Some(Self {
            bank: Bank::Described(file),
            method: demo.method.as_str().into(),
            call: format!("/{}{}", file.name(), demo.path).into(),
            headers: demo.headers.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect(),
            body: demo.body.as_str().into(),
            provider: "",
            route: "",
            says: demo.says.as_str().into(),
            token_calls: file.token_calls(),
            is_challenged: demo.challenged,
        })
    }

    /// All stops that there are, those of the tour first.
    fn all() -> impl Iterator<Item = Self> {
        TOUR.iter().chain([&PLAIN]).map(TourStop::stop).chain(BankFile::all().iter().filter_map(Self::described))
    }
}

/// Gives the tour, and stays up afterwards unless `once`. With `json`, one document tells of all steps when they were made,
/// in place of the text.
pub fn run(once: bool, json: bool, provider: Option<&str>) -> ExitCode {
    let stops: Vec<Stop> = match provider {
        Some(wanted) => Stop::all().filter(|stop| stop.bank.name() == wanted).collect(),
        None => TOUR.iter().map(TourStop::stop).collect(),
    };
    if stops.is_empty() {
        let names: Vec<&str> = Stop::all().map(|stop| stop.bank.name()).collect();
        complain(&format!("no such bank; the demo shows: {}", names.join(", ")));
        return ExitCode::from(2);
    }
    let stage = match DemoStage::set(&stops) {
        Ok(stage) => stage,
        Err(error) => {
            complain(&format!("the demo cannot start: {error}"));
            return ExitCode::from(1);
        }
    };
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("the demo cannot start: {error}"));
            return ExitCode::from(1);
        }
    };
    let told = if json { None } else { Some(color::stdout_is_colored()) };
    let steps = runtime.block_on(stage.tour(&stops, told));
    let held = steps.as_ref().is_some_and(|steps| steps.iter().all(|step| step.held));
    match told {
        Some(color) if held => print(&format!("\nEvery step {}.\n", Tone::Good.paint("held", color))),
        Some(color) => print(&format!("\nA step {}: see above.\n", Tone::Bad.paint("did NOT hold", color))),
        None => print(&format!("{}\n", stage.as_json(&steps.unwrap_or_default(), held, once))),
    }
    if once {
        return if held { ExitCode::SUCCESS } else { ExitCode::from(1) };
    }
    stage.raise_curtain();
    if !json {
        stage.invite(&stops);
    }
    match wait_for_the_end() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("cannot wait for signals: {error}"));
            ExitCode::from(1)
        }
    }
}

/// The simulators and the proxy, running.
struct DemoStage {
    sims: Vec<SimHandle>,
    running: Running,
    ca_pem: String,
    curtain: Arc<OnceLock<String>>,
}

impl DemoStage {
    fn set(stops: &[Stop]) -> Result<Self, String> {
        let now = Clock::System.now();
        let authority = SimAuthority::new("countersign demo CA", now)?;
        let leaf = authority.issue(&LeafSpec::server(now))?;
        let mut files = InMemory::new()
            .with_file("demo/server.crt", leaf.cert_pem.into_bytes())
            .with_file("demo/server.key", leaf.key_pem.into_bytes());
        let mut config = format!(
            "[[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:0\"\ntls = {{ cert = \"server.crt\", key = \"server.key\" }}\n\
             [[listener]]\nname = \"plain\"\nbind = \"127.0.0.1:0\"\n\
             [client.demo]\nkey_sha256 = [\"{}\"]\n[admin]\nbind = \"127.0.0.1:0\"\n[runtime]\nworkers = 1\n\
             [log]\naccess = \"stderr\"\nformat = \"text\"\n",
            hex(&sha256(KEY.as_bytes()))
        );
        let mut sims = Vec::new();
        for stop in stops {
            let sim = Sim::start(stop.bank, crate::sim::SimOptions::default()).map_err(|error| error.to_string())?;
            let name = stop.bank.name();
            files = files.with_file(format!("demo/{name}.crt"), sim.ca_pem().into_bytes());
            for (file, content) in sim.key_files(name) {
                files = files.with_file(format!("demo/{file}"), content.expose_secret().as_bytes().to_vec());
            }
            config.push_str(&sim.settings_toml_as(name, &format!("{name}.crt")));
            config.push_str(stop.provider);
            let _ = write!(
                config,
                "[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nprovider = \"{name}\"\n{}",
                stop.route
            );
            sims.push(sim);
        }
        let (snapshot, found) = build(Path::new("demo/proxy.toml"), config, &files);
        let Some(snapshot) = snapshot else {
            let errors = found.iter().filter(|found| found.severity == Severity::Error);
            return Err(errors.map(|error| error.one_line()).collect::<Vec<_>>().join("\n"));
        };
        let curtain = Arc::new(OnceLock::new());
        let sink = DelayedWriter(curtain.clone());
        let options =
            BootOptions { text_access_log: true, access_sink: Some(Box::new(sink)), ..BootOptions::default() };
        let running = Running::start(snapshot, options).map_err(|error| error.to_string())?;
        Ok(Self { sims, running, ca_pem: authority.pem(), curtain })
    }

    /// Visits every bank; `None`: none can be visited. `told`: whether what is printed is coloured; `None`: nothing is
    /// printed.
    async fn tour(&self, stops: &[Stop], told: Option<bool>) -> Option<Vec<MadeStep>> {
        let address = self.running.address("gateway")?;
        let courier = match DemoClient::new(address, &self.ca_pem) {
            Ok(courier) => courier,
            Err(error) => {
                complain(&error);
                return None;
            }
        };
        if told.is_some() {
            print(
                "countersign demo: the application below knows no bank secret. Credentials are shown as fingerprints.\n",
            );
        }
        let mut steps = Vec::new();
        for (stop, sim) in stops.iter().zip(&self.sims) {
            steps.extend(visit(stop, sim, &courier, told).await);
        }
        Some(steps)
    }

    /// All steps for a program; unless it was `once`, with the addresses that stay up.
    fn as_json(&self, steps: &[MadeStep], held: bool, once: bool) -> Value {
        let view = |step: &MadeStep| {
            json!({
                "bank": step.bank, "step": step.title, "held": step.held, "status": step.status,
                "proxy_status": step.note, "token_calls": step.token_calls, "api_calls": step.api_calls,
            })
        };
        let steps: Vec<Value> = steps.iter().map(view).collect();
        let address = |name| self.running.address(name).filter(|_| !once).map(|address| format!("http://{address}"));
        let admin = self.running.admin.filter(|_| !once).map(|address| format!("http://{address}"));
        json!({ "ok": held, "steps": steps, "listener": address("plain"), "key": KEY, "admin": admin })
    }

    /// Has access lines shown from now on.
    fn raise_curtain(&self) {
        let _ = self.curtain.set(rfc3339(Clock::System.now().wall));
    }

    /// Says how to call by hand.
    fn invite(&self, stops: &[Stop]) {
        let Some(plain) = self.running.address("plain") else { return };
        let mut text =
            String::from("\nStill running; stop with Ctrl-C. Try it, and see the access lines appear below:\n\n");
        for stop in stops {
            let headers: String = stop.headers.iter().map(|(name, value)| format!(" -H '{name}: {value}'")).collect();
            let _ = writeln!(
                text,
                "  curl -i -X {} http://{plain}{} -H 'Authorization: Bearer {KEY}'{headers}{}\n",
                stop.method,
                stop.call,
                if stop.body.is_empty() {
                    String::new()
                } else {
                    format!(" -H 'Content-Type: application/json' -d '{}'", stop.body)
                }
            );
        }
        for sim in &self.sims {
            let _ = writeln!(
                text,
                "  curl -k -X POST https://{}/_sim/revoke     # {}: every token dies now",
                sim.address(),
                sim.bank().name()
            );
        }
        if let Some(admin) = self.running.admin {
            let _ = writeln!(text, "\n  curl http://{admin}/api/v1/tokens\n  curl http://{admin}/metrics\n");
        }
        if let Some(url) = dashboard_url(&self.running) {
            let _ = writeln!(text, "The dashboard: {url}\n");
        }
        text.push_str(NEXT_STEPS);
        print(&text);
    }
}

/// A step that was made, and what came of it.
struct MadeStep {
    bank: &'static str,
    title: &'static str,
    held: bool,
    /// The status that the application got; 0: none.
    status: u16,
    /// The `Proxy-Status` that it got, or why it got nothing; empty: neither.
    note: String,
    token_calls: usize,
    api_calls: usize,
}

/// Three calls to one bank: first, cached, after a revocation.
async fn visit(stop: &Stop, sim: &SimHandle, courier: &DemoClient, told: Option<bool>) -> Vec<MadeStep> {
    let name = stop.bank.name();
    let times = if stop.token_calls == 0 { "twice" } else { "three times" };
    if told.is_some() {
        print(&format!("\n=== {name} ===  {}\n\nThe application sends, {times}:\n", stop.says));
        print(&sketch_application(stop));
    }
    let mut made = Vec::new();
    let steps = [
        ("1. first call: countersign logs in, then forwards", stop.token_calls, false),
        ("2. second call: the token is at hand", 0, false),
        (
            "3. the bank revokes every token, then the third call: refused, new token, replayed once",
            stop.token_calls,
            true,
        ),
    ];
    let static_steps = [
        ("1. first call: the credential is put on, and there is nothing to fetch", 0, false),
        ("2. second call: the same", 0, false),
    ];
    let steps: &[(&'static str, usize, bool)] = if stop.token_calls == 0 { &static_steps } else { &steps };
    for &(title, tokens, is_replayed) in steps {
        let wanted = ExpectedStep { tokens, is_replayed, is_challenged: stop.is_challenged };
        let revoked = if wanted.is_replayed { sim.revoke_all() } else { 0 };
        sim.forget_received();
        let answer = courier.send(request(stop)).await;
        let received = sim.received();
        let step = judge(name, title, &answer, &received, wanted, revoked);
        if let Some(color) = told {
            print(&format!("\n  {title}\n"));
            for arrival in &received {
                print(&sketch_arrival(arrival, sim));
            }
            print(&verdict(&step, color));
        }
        made.push(step);
    }
    made
}

/// What a step should come to.
#[derive(Clone, Copy)]
struct ExpectedStep {
    tokens: usize,
    is_replayed: bool,
    is_challenged: bool,
}

impl ExpectedStep {
    /// The API calls that the bank should see.
    fn calls(self) -> usize {
        1 + usize::from(self.is_replayed) + usize::from(self.is_challenged)
    }
}

/// Judges whether a step went as announced.
fn judge(
    bank: &'static str,
    title: &'static str,
    answer: &io::Result<Response<Bytes>>,
    received: &[Arc<ReceivedRequest>],
    wanted: ExpectedStep,
    revoked: usize,
) -> MadeStep {
    let tokens = received.iter().filter(|arrival| arrival.endpoint == SimEndpoint::Token).count();
    let calls = received.len() - tokens;
    let (status, note) = match answer {
        Ok(answer) => {
            let note = answer.headers().get("proxy-status").and_then(|note| note.to_str().ok()).unwrap_or("");
            (answer.status().as_u16(), note.to_owned())
        }
        Err(error) => (0, error.to_string()),
    };
    let replay_told = wanted.is_replayed == note.contains("details=\"replayed\"")
        && wanted.is_challenged == note.contains("details=\"challenged\"");
    let bodies: Vec<&[u8; 32]> = received
        .iter()
        .filter(|arrival| arrival.endpoint == SimEndpoint::Resource)
        .map(|arrival| &arrival.body_sha256)
        .collect();
    let same_body = bodies.windows(2).all(|pair| pair[0] == pair[1]);
    let success = (200..300).contains(&status);
    let revocation = !wanted.is_replayed || revoked == 1;
    let counts = tokens == wanted.tokens && calls == wanted.calls();
    let held = success && counts && replay_told && same_body && revocation;
    MadeStep { bank, title, held, status, note, token_calls: tokens, api_calls: calls }
}

/// The lines about the result of a step.
fn verdict(step: &MadeStep, color: bool) -> String {
    let MadeStep { held, status, note, token_calls, api_calls, .. } = step;
    let note = if note.is_empty() { String::new() } else { format!(", Proxy-Status: {note}") };
    let word = if *held { Tone::Good.paint("held", color) } else { Tone::Bad.paint("DID NOT HOLD", color) };
    format!(
        "    the application gets {status}{note}\n    {word}: {}, {}\n",
        counted(*token_calls, "token call"),
        counted(*api_calls, "API call")
    )
}

fn request(stop: &Stop) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(Bytes::copy_from_slice(stop.body.as_bytes())));
    *request.method_mut() = stop.method.parse().unwrap_or_default();
    *request.uri_mut() = stop.call.parse().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(HOST, http::HeaderValue::from_static("localhost"));
    headers.insert(AUTHORIZATION, http::HeaderValue::from_static("Bearer demo-key"));
    if !stop.body.is_empty() {
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    }
    for (name, value) in &stop.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<http::HeaderName>(), http::HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    request
}

fn sketch_application(stop: &Stop) -> String {
    let mut text = format!("    {} {}\n    authorization: Bearer ‹its own countersign key›\n", stop.method, stop.call);
    for (name, value) in &stop.headers {
        let _ = writeln!(text, "    {name}: {value}");
    }
    if !stop.body.is_empty() {
        let _ = writeln!(text, "    {}", stop.body);
    }
    text
}

/// Describes a request that a bank received, with secrets as fingerprints.
fn sketch_arrival(arrival: &ReceivedRequest, sim: &SimHandle) -> String {
    let what = match arrival.endpoint {
        SimEndpoint::Token => "token endpoint",
        SimEndpoint::Resource => "bank",
    };
    let mut text = format!("    {what} received: {} {}\n", arrival.method, arrival.path);
    let dull = ["content-length", "accept-encoding", "host", "accept"];
    for (name, value) in arrival.headers.iter().filter(|(name, _)| !dull.contains(&name.as_str())) {
        let value = String::from_utf8_lossy(value.as_bytes());
        let shown = match name.as_str() {
            "authorization" => match value.split_once(' ') {
                Some((scheme, token)) => format!("{scheme} ‹token {}›", Fingerprint::of(token.as_bytes())),
                None => "‹hidden›".to_owned(),
            },
            "x-ibm-client-secret" => format!("‹secret {}›", Fingerprint::of(value.as_bytes())),
            _ => sim.mask(&value),
        };
        let _ = writeln!(text, "      {name}: {shown}");
    }
    match arrival.endpoint {
        SimEndpoint::Token => {
            let body = sim.mask(&String::from_utf8_lossy(&arrival.body));
            let _ = writeln!(text, "      body: {body}");
        }
        SimEndpoint::Resource => {
            let digest = hex(arrival.body_sha256.first_chunk::<6>().unwrap_or(&[0; 6]));
            let _ = writeln!(text, "      body: {} bytes, sha256 {digest}…", arrival.body_length);
        }
    }
    text
}

/// Access lines of requests that came after the curtain rose. Each line begins with its request's time; those of the
/// tour itself may arrive late.
struct DelayedWriter(Arc<OnceLock<String>>);

impl io::Write for DelayedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(rose) = self.0.get() {
            let after = |line: &&[u8]| line.get(..rose.len()).is_some_and(|time| time > rose.as_bytes());
            let shown: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').filter(after).collect();
            io::stderr().write_all(&shown.concat())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

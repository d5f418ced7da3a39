//! `check --live`: what a person finds at the customer's site, case by case, against simulated banks and real proxies.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::base::secret::{ExposeSecret, hex, sha256};
use countersign::base::time::{Clock, ManualClock};
use countersign::cli::check_live::{Finding, Mark, TrialOptions, TrialReport, TrialSubject, check_live};
use countersign::config::{InMemory, build};
use countersign::signing::jwk_thumbprint::jwk_thumbprint;
use countersign::signing::pkcs;
use countersign::sim::{
    self, Bank, LeafSpec, ResponseFault, Sim, SimAuthority, SimEndpoint, SimFault, SimHandle, Verbatim,
};
use countersign::store::{Patience, Store, StoreSettings};
use serde_json::{Value, json};

use crate::client::converse;
use crate::harness::{KEY, bank, now};
use crate::redis_server::RedisServer;
use crate::secrets::{Canary, Outputs};
use crate::tinyproxy::TinyProxy;

const DAY: u64 = 24 * 3600 * 1000;

/// A config with these providers, and its files.
struct Site {
    config: String,
    files: InMemory,
    options: TrialOptions,
}

impl Site {
    fn new() -> Self {
        let config = format!(
            "[[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:0\"\n[client.erp]\nkey_sha256 = [\"{}\"]\n",
            hex(&sha256(KEY.as_bytes()))
        );
        let options =
            TrialOptions { clock: Clock::System, vars: Vec::new(), shell_proxy: false, total: Duration::from_secs(30) };
        Self { config, files: InMemory::new(), options }
    }

    /// A site with this bank alone, and `more` lines for it.
    fn of(sim: &SimHandle, more: &str) -> Self {
        Self::new().with(sim, "bank", more)
    }

    fn with(mut self, sim: &SimHandle, name: &str, more: &str) -> Self {
        self = self.without_route(sim, name, more);
        let _ = write!(self.config, "[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nprovider = \"{name}\"\n");
        self
    }

    fn without_route(mut self, sim: &SimHandle, name: &str, more: &str) -> Self {
        let ca = format!("{name}-ca.crt");
        self = self.file(&ca, sim.ca_pem());
        let _ = writeln!(self.config, "{}{more}", sim.settings_toml_as(name, &ca));
        self
    }

    fn file(mut self, name: &str, text: impl Into<Vec<u8>>) -> Self {
        self.files = self.files.with_file(format!("site/{name}"), text);
        self
    }

    fn edit(mut self, from: &str, to: &str) -> Self {
        assert!(self.config.contains(from), "{from} in {}", self.config);
        self.config = self.config.replace(from, to);
        self
    }

    fn vars(mut self, vars: &[(&str, &str)]) -> Self {
        self.options.vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self
    }

    fn try_it(self) -> TrialReport {
        let (snapshot, found) = build(Path::new("site/proxy.toml"), self.config.clone(), &self.files);
        let told: Vec<String> = found.iter().map(|found| found.one_line()).collect();
        let snapshot = snapshot.unwrap_or_else(|| panic!("{}\n{}", told.join("\n"), self.config));
        check_live(&snapshot, self.options).expect("a runtime")
    }
}

/// What was found of a provider.
fn findings<'a>(report: &'a TrialReport, name: &str) -> &'a [Finding] {
    let group = report.groups.iter().find(|(subject, _)| *subject == TrialSubject::Provider(name.into()));
    &group.expect("a provider").1
}

/// The only finding of a step.
#[track_caller]
fn the<'a>(report: &'a TrialReport, step: &str) -> &'a Finding {
    let mut all = report.groups.iter().flat_map(|(_, findings)| findings).filter(|finding| finding.step == step);
    match (all.next(), all.next()) {
        (Some(one), None) => one,
        _ => panic!("`{step}` is not there once:\n{}", report.text()),
    }
}

/// A step failed, and said this; what to do, that.
#[track_caller]
fn fails(report: &TrialReport, step: &str, detail: &[&str], help: &str) {
    judged(report, step, Mark::Failed, detail, help);
    assert!(!report.holds());
}

#[track_caller]
fn judged(report: &TrialReport, step: &str, mark: Mark, detail: &[&str], help: &str) {
    let found = the(report, step);
    assert_eq!(found.mark, mark, "{}", report.text());
    for piece in detail {
        assert!(found.detail.contains(piece), "{piece:?} is not in {:?}", found.detail);
    }
    let told = found.help.as_deref().unwrap_or_default();
    assert!(told.contains(help), "{help:?} is not in {told:?}");
}

/// Nothing was asked of the bank, and that is said.
#[track_caller]
fn nothing_was_sent(sim: &SimHandle, report: &TrialReport) {
    judged(report, "token", Mark::Skipped, &["no secret is sent"], "");
    assert_eq!((sim.token_calls(), sim.resource_calls(), sim.received().len()), (0, 0, 0));
}

/// A bank with a certificate of these days, for these names.
fn bank_with(change: impl FnOnce(&mut LeafSpec)) -> SimHandle {
    let authority = SimAuthority::new("the bank's CA", now()).expect("a CA");
    let mut spec = LeafSpec::server(now());
    spec.valid_until = now().wall + 90 * DAY;
    change(&mut spec);
    let leaf = authority.issue(&spec).expect("a leaf");
    let options = sim::SimOptions { authority: Some(authority), leaf: Some(leaf), ..sim::SimOptions::default() };
    Sim::start(Bank::OAuth2, options).expect("a simulator")
}

fn good_bank() -> SimHandle {
    bank_with(|_| {})
}

/// A port at which nobody listens. (Somebody else may, later; nobody else of these tests does.)
fn dead_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

#[test]
fn every_bank_is_tried_with_one_token_call_and_all_is_well() {
    let banks = [Bank::AbbeyCross, Bank::Meed, Bank::OAuth2, Bank::Rakbank, Bank::Scb].map(|one| (one, bank(one)));
    let mut site = Site::new();
    for (one, sim) in &banks {
        // One of them is used by no route.
        site = match one {
            Bank::Meed => site.without_route(sim, one.name(), ""),
            Bank::AbbeyCross | Bank::Described(_) | Bank::OAuth2 | Bank::Rakbank | Bank::Scb => {
                site.with(sim, one.name(), "")
            }
        };
    }
    let report = site.try_it();
    assert!(report.holds(), "{}", report.text());
    let issued: Vec<String> =
        banks.iter().flat_map(|(_, sim)| sim.issued()).map(|token| token.expose_secret().to_owned()).collect();
    let text = format!("{}{}", report.text(), report.json());
    for (one, sim) in &banks {
        assert_eq!((sim.token_calls(), sim.tokens_issued(), sim.resource_calls()), (1, 1, 0), "{}", one.name());
        assert!(sim.violations().is_empty(), "{:?}", sim.violations());
        let steps: Vec<&str> = findings(&report, one.name()).iter().map(|finding| finding.step).collect();
        assert_eq!(steps, ["dns", "tcp", "tls", "certificate", "token", "clock"], "{}", report.text());
        let token = &findings(&report, one.name())[4];
        assert!(token.figures["expires_in"].as_u64().is_some_and(|life| life > 0), "{token:?}");
        let print = countersign::base::secret::Fingerprint::of(sim.issued()[0].expose_secret().as_bytes());
        assert_eq!(token.figures["fingerprint"], print.to_string());
    }
    assert!(issued.iter().all(|token| !text.contains(token.as_str())));
    assert!(text.contains("One token call was made to each of: abbeycross, meed, oauth2, rakbank, scb"), "{text}");
    // The order is that of the config, whoever answers first.
    let order: Vec<&TrialSubject> = report.groups.iter().map(|(subject, _)| subject).collect();
    assert_eq!(order[0], &TrialSubject::Provider("abbeycross".into()));
    assert_eq!(order[5], &TrialSubject::Store);
}

/// Before the bank changes it accepts the current credentials alone, and that is no failure; afterwards the next ones.
#[test]
fn both_sets_of_credentials_are_tried() {
    let sim = good_bank();
    let (first, second) = (sim.credentials().secret().expose_secret().to_owned(), "the-next-secret-0123456789");
    for (accepted, holds, of_current, of_next) in [
        (vec![&*first], true, Mark::Fine, Mark::Warned),
        (vec![&*first, second], true, Mark::Fine, Mark::Fine),
        (vec![second], false, Mark::Failed, Mark::Fine),
    ] {
        sim.rotate_secrets(&accepted);
        let report = Site::of(&sim, &format!("next = {{ client_secret = \"{second}\" }}")).try_it();
        let mark = |next: bool| {
            let of = |subject: &TrialSubject| matches!(subject, TrialSubject::NextCredentials(_)) == next;
            let found = report.groups.iter().filter(|(subject, _)| of(subject)).flat_map(|(_, found)| found);
            found.filter(|finding| finding.step == "token").map(|finding| finding.mark).collect::<Vec<_>>()
        };
        assert_eq!(
            (report.holds(), mark(false), mark(true)),
            (holds, vec![of_current], vec![of_next]),
            "{}",
            report.text()
        );
        assert!(report.text().contains(", next credentials\n"), "{}", report.text());
    }
}

// Names and addresses.

#[test]
fn a_name_that_does_not_resolve_is_told() {
    let sim = good_bank();
    let port = sim.address().port();
    let report = Site::of(&sim, "")
        .edit(&format!("https://127.0.0.1:{port}"), &format!("https://nowhere.invalid:{port}"))
        .try_it();
    fails(&report, "dns", &["nowhere.invalid does not resolve"], "getent hosts nowhere.invalid");
    nothing_was_sent(&sim, &report);
}

#[test]
fn a_dead_port_refuses_and_a_silent_one_times_out() {
    let sim = good_bank();
    let here = sim.address().to_string();
    let (dead, silent) = (dead_port(), TcpListener::bind("127.0.0.1:0").expect("a port"));
    let mut site = Site::of(&sim, "").edit(&here, &format!("127.0.0.1:{dead}"));
    site.options.shell_proxy = true;
    let report = site.try_it();
    fails(&report, "tcp", &[&format!("127.0.0.1:{dead} refuses")], "HTTPS_PROXY is set here, but countersign heeds");
    nothing_was_sent(&sim, &report);
    let there = silent.local_addr().expect("an address").to_string();
    let report = Site::of(&sim, "timeouts = { connect = \"300ms\" }").edit(&here, &there).try_it();
    fails(&report, "tls", &["no handshake within 0.3 s (timeout)"], "does not speak TLS");
}

#[test]
fn what_does_not_speak_tls_is_told_apart() {
    let sim = good_bank();
    let plain = TcpListener::bind("127.0.0.1:0").expect("a port");
    let there = plain.local_addr().expect("an address").to_string();
    let answering = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = plain.accept().expect("a connection");
        let mut bytes = [0; 16];
        stream.read_exact(&mut bytes).expect("a hello");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("written");
    });
    let report = Site::of(&sim, "").edit(&sim.address().to_string(), &there).try_it();
    answering.join().expect("answered");
    fails(&report, "tls", &["does not speak TLS"], "host and port");
}

#[test]
fn everything_ends_in_time() {
    let sim = good_bank();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let there = silent.local_addr().expect("an address").to_string();
    let mut site = Site::of(&sim, "timeouts = { connect = \"1h\" }").edit(&sim.address().to_string(), &there);
    site.options.total = Duration::from_millis(300);
    fails(&site.try_it(), "end", &["given up"], "timeouts");
}

// Certificates.

#[test]
fn a_certificate_of_another_ca_is_shown_and_nothing_is_sent() {
    let sim = good_bank();
    let other = SimAuthority::new("another CA", now()).expect("a CA");
    let report = Site::of(&sim, "").file("bank-ca.crt", other.pem()).try_it();
    fails(&report, "tls", &["unknown issuer `the bank's CA`", "`localhost`"], "a proxy opens TLS on the way");
    assert_eq!(the(&report, "tls").figures["issuer"], "the bank's CA");
    nothing_was_sent(&sim, &report);
    assert_eq!(sim.connections(), 2, "one to verify, one to look");
}

#[test]
fn a_certificate_for_another_name_shows_its_names() {
    let sim = bank_with(|spec| spec.names = vec!["api.other.example".to_owned()]);
    let report = Site::of(&sim, "").try_it();
    fails(&report, "tls", &["not for `127.0.0.1`", "api.other.example"], "tls.server_name");
    nothing_was_sent(&sim, &report);
    let named = Site::of(&sim, "").edit("tls = { ca", "tls = { server_name = \"api.other.example\", ca");
    assert!(named.try_it().holds());
}

#[test]
fn days_of_a_certificate_are_told() {
    let ended = bank_with(|spec| spec.valid_until = now().wall - DAY);
    let report = Site::of(&ended, "").try_it();
    fails(&report, "tls", &["has ended", "`localhost`"], "has to renew it");
    nothing_was_sent(&ended, &report);
    let early = bank_with(|spec| spec.valid_from = now().wall + DAY);
    let report = Site::of(&early, "").try_it();
    fails(&report, "tls", &["not valid before"], "this machine's clock is behind");
    nothing_was_sent(&early, &report);
    for (days, mark) in [(29, Mark::Warned), (31, Mark::Fine)] {
        let sim = bank_with(|spec| spec.valid_until = now().wall + days * DAY + DAY / 2);
        let report = Site::of(&sim, "").try_it();
        judged(&report, "certificate", mark, &[&format!("{days} days left")], "");
        assert_eq!(the(&report, "certificate").figures["days_left"], days);
        assert!(report.holds());
    }
}

/// A bank that wants certificates of this CA.
fn strict_bank(clients: &SimAuthority) -> SimHandle {
    let options = sim::SimOptions { client_ca: Some(clients.pem()), ..sim::SimOptions::default() };
    Sim::start(Bank::OAuth2, options).expect("a simulator")
}

/// A site that shows a client certificate of these days.
fn showing(sim: &SimHandle, clients: &SimAuthority, until: u64) -> TrialReport {
    let mut spec = LeafSpec::client("countersign", now());
    spec.valid_until = until;
    let leaf = clients.issue(&spec).expect("a leaf");
    Site::of(sim, "")
        .edit("tls = { ca", "tls = { client_cert = \"app.crt\", client_key = \"app.key\", ca")
        .file("app.crt", leaf.cert_pem)
        .file("app.key", leaf.key_pem)
        .try_it()
}

#[test]
fn a_client_certificate_is_missed_rejected_counted_and_accepted() {
    let clients = SimAuthority::new("client CA", now()).expect("a CA");
    let sim = strict_bank(&clients);
    let report = Site::of(&sim, "").try_it();
    judged(&report, "tls", Mark::Warned, &["asks for a client certificate, and none"], "client_cert");
    fails(&report, "token", &["client certificate"], "client_cert");
    let report = showing(&sim, &clients, now().wall + 90 * DAY);
    assert!(report.holds(), "{}", report.text());
    judged(&report, "client cert", Mark::Fine, &["`countersign`", "`client CA`", "days left"], "");
    judged(&report, "tls", Mark::Fine, &["ours is shown"], "");
    let report = showing(&sim, &clients, now().wall + 10 * DAY + DAY / 2);
    judged(&report, "client cert", Mark::Warned, &["10 days left"], "a new one");
    assert!(report.holds());
    let report = showing(&sim, &clients, now().wall - 10 * DAY);
    fails(&report, "client cert", &["ended 10 days ago"], "a new one");
    fails(&report, "token", &["client certificate"], "has not ended");
    let strangers = SimAuthority::new("stranger", now()).expect("a CA");
    let report = showing(&sim, &strangers, now().wall + 90 * DAY);
    fails(&report, "token", &["our client certificate"], "registered");
    // Two were let in.
    assert_eq!(sim.token_calls(), 2);
}

// Corporate proxies.

#[test]
fn a_proxy_opens_refuses_and_fails_in_words() {
    let sim = good_bank();
    let here = sim.address();
    let open = TinyProxy::start(None, &[]);
    let closed = TinyProxy::start(Some(("corp", "pr0xy-canary-p4ss")), &[]);
    let narrow = TinyProxy::start(None, &[1]);
    let through = |at: &str| format!("http_proxy = \"http://{at}\"");
    let report = Site::of(&sim, &through(&format!("127.0.0.1:{}", open.port))).try_it();
    assert!(report.holds(), "{}", report.text());
    judged(&report, "proxy", Mark::Fine, &["opens a tunnel"], "");
    assert_eq!(open.tunnels_to(here.port()), 2);
    let good = format!("corp:pr0xy-canary-p4ss@127.0.0.1:{}", closed.port);
    assert!(Site::of(&sim, &through(&good)).try_it().holds());
    let calls = sim.token_calls();
    let report = Site::of(&sim, &through(&format!("corp:wr0ng-canary-p4ss@127.0.0.1:{}", closed.port))).try_it();
    // What tinyproxy says to wrong credentials differs by version: 401 or 407.
    fails(&report, "proxy", &["to CONNECT"], "");
    let text = format!("{}{}", report.text(), report.json());
    let canary = [Canary::new("right", "pr0xy-canary-p4ss"), Canary::new("wrong", "wr0ng-canary-p4ss")];
    let mut outputs = Outputs::default();
    outputs.add("report", text);
    assert_eq!(outputs.search(&canary), Vec::<String>::new());
    let report = Site::of(&sim, &through(&format!("127.0.0.1:{}", closed.port))).try_it();
    fails(&report, "proxy", &["answered 407", "wants credentials"], "http://user:password@host:port");
    let report = Site::of(&sim, &through(&format!("127.0.0.1:{}", narrow.port))).try_it();
    fails(&report, "proxy", &["answered 403"], &format!("allow CONNECT to {here}"));
    let report = Site::of(&sim, &through(&format!("127.0.0.1:{}", dead_port()))).try_it();
    fails(&report, "tcp", &["refuses"], "http_proxy");
    let report = Site::of(&sim, &through(&format!("127.0.0.1:{}", open.port)))
        .edit(&here.to_string(), &format!("127.0.0.1:{}", dead_port()))
        .try_it();
    fails(&report, "proxy", &["answered 50", "cannot reach the provider"], "spelling");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let lines = format!("{}\ntimeouts = {{ connect = \"300ms\" }}", through(&silent.local_addr().unwrap().to_string()));
    fails(&Site::of(&sim, &lines).try_it(), "proxy", &["does not answer CONNECT", "(timeout)"], "who runs the proxy");
    assert_eq!(sim.token_calls(), calls);
}

// Clocks.

#[test]
fn a_clock_that_is_off_is_told_with_its_side() {
    for (off, mark, side) in [
        (0_i64, Mark::Fine, ["within", ""]),
        (45, Mark::Warned, ["behind", "4"]),
        (-45, Mark::Warned, ["ahead of", "4"]),
        (630, Mark::Failed, ["behind", "10 min"]),
        (-630, Mark::Failed, ["ahead of", "10 min"]),
    ] {
        let mut there = now();
        there.wall = there.wall.checked_add_signed(off * 1000).expect("a time");
        let options = sim::SimOptions { clock: Clock::Manual(ManualClock::at(there)), ..sim::SimOptions::default() };
        let sim = Sim::start(Bank::OAuth2, options).expect("a simulator");
        let report = Site::of(&sim, "").try_it();
        judged(&report, "clock", mark, &side, if mark == Mark::Fine { "" } else { "NTP" });
        assert_eq!(report.holds(), mark != Mark::Failed, "{}", report.text());
    }
}

// Answers without a token.

#[test]
fn a_secret_with_a_space_at_its_end_is_named() {
    let sim = good_bank();
    let secret = sim.credentials().secret().expose_secret().to_owned();
    let report = Site::of(&sim, "").edit(&secret, &format!("{secret} ")).try_it();
    judged(&report, "settings", Mark::Warned, &["`client_secret`", "white space"], "");
    fails(&report, "token", &["fatal", "401", "invalid_client"], "`client_secret` begins or ends with white space");
    assert_eq!(sim.token_calls(), 1, "once, and never again");
    let wrong = Site::of(&sim, "").edit(&secret, "a-wrong-canary-secret").try_it();
    fails(&wrong, "token", &["fatal", "invalid_client"], "letter by letter");
    assert!(wrong.text().contains("One token call was made to each of: bank"), "{}", wrong.text());
    let mut outputs = Outputs::default();
    outputs.add("text", format!("{}{}{}{}", report.text(), report.json(), wrong.text(), wrong.json()));
    let canaries = [Canary::new("right", &secret), Canary::new("wrong", "a-wrong-canary-secret")];
    assert_eq!(outputs.search(&canaries), Vec::<String>::new());
}

#[test]
fn an_answer_without_a_token_is_told_by_its_shape_and_never_its_words() {
    let sim = good_bank();
    let says = |status, body: &str| ResponseFault::Verbatim(Verbatim::json(status, body.to_owned()));
    let html = Verbatim {
        status: 200,
        headers: vec![("content-type".to_owned(), "text/html".to_owned())],
        body: "<p>canary-page-of-a-portal</p>".into(),
    };
    for (trouble, detail, help) in [
        (ResponseFault::Verbatim(html), "text/html", "a page for people"),
        (ResponseFault::HtmlError(404), "404", "no token endpoint at that path"),
        (says(503, "{}"), "503", "a fault of its own"),
        (says(429, "{}"), "429", "alone"),
        (says(200, "{\"canary-key-of-a-body\": \"canary-page-of-a-portal\"}"), "without a token", "profile"),
        (
            ResponseFault::Verbatim(Verbatim::bare(302, &[("location", "https://canary.page.example/")])),
            "302",
            "points elsewhere",
        ),
        (ResponseFault::CutBody, "broke off", "run it again"),
        (ResponseFault::ResetBeforeAnswer, "no answer", "firewall"),
        (ResponseFault::HugeBody(1 << 20), "longer", "a page or a file"),
    ] {
        let before = sim.token_calls();
        sim.change(|faults| faults.token = SimFault::new(trouble));
        let report = Site::of(&sim, "").try_it();
        fails(&report, "token", &[detail], help);
        assert!(!format!("{}{}", report.text(), report.json()).contains("canary"), "{}", report.text());
        assert_eq!(sim.token_calls(), before + 1, "{detail}");
    }
    let slow = SimFault { delay: Some(Duration::from_secs(20)), ..SimFault::default() };
    sim.change(|faults| faults.token = slow);
    let report = Site::of(&sim, "timeouts = { token = \"300ms\" }").try_it();
    fails(&report, "token", &["no answer within 0.3 s"], "timeouts.token");
}

/// A profile whose token call is signed, and which knows some of its bank's refusals.
const SIGNING: &str = r#"
name = "signing"
[settings.client_id]
[settings.client_secret]
secret = true
[settings.signing_key]
kind = "key"

[token]
codes = ["/error"]
[token.request]
encoding = "form"
body     = { client_id = "{client_id}", client_secret = "{client_secret}" }
[[token.request.sign]]
key       = "signing_key"
algorithm = "RS256"
text      = "{body}"
header    = "x-signature"
[token.response]
access_token = "/access_token"
expires_in   = "/expires_in"
[[token.failure]]
json  = [{ pointer = "/error", equals = "bad_signature" }]
class = "fatal"
cause = "signature"
[[token.failure]]
json  = [{ pointer = "/error", equals = "unknown_key" }]
class = "fatal"
cause = "key"
[[token.failure]]
json  = [{ pointer = "/error", equals = "too_old" }]
class = "transient"
cause = "clock"

[request]
inject = [{ header = "authorization", value = "Bearer {token}" }]
"#;

#[test]
fn a_wrong_key_is_told_from_a_wrong_text_and_both_are_named_where_the_bank_does_not_tell() {
    let sim = good_bank();
    let (key, thumbprint) = {
        let pem = include_bytes!("../fixtures/signing/rsa-pkcs8.pem");
        let key = pkcs::private_key(pem, None).expect("a key");
        (pem.to_vec(), jwk_thumbprint(key.public()))
    };
    for (code, cause, helps) in [
        ("bad_signature", Some("signature"), vec!["knows the key but computes another text", "countersign explain"]),
        ("unknown_key", Some("key"), vec!["does not know the key", "portal"]),
        ("too_old", Some("clock"), vec!["set this machine's clock"]),
        ("denied", None, vec!["either the bank does not know the key, or it computes another text"]),
    ] {
        let body = format!("{{\"error\":\"{code}\"}}");
        sim.change(|faults| faults.token = SimFault::new(ResponseFault::Verbatim(Verbatim::json(401, body))));
        let site = Site::of(&sim, "").file("signing.toml", SIGNING).file("ours.pem", key.clone());
        let config = "profile = \"./signing.toml\"\nsigning_key = { file = \"ours.pem\", id = \"k-7\" }";
        let report = site.edit("profile = \"oauth2\"", config).try_it();
        for help in helps {
            fails(&report, "token", &[code], help);
        }
        let found = the(&report, "token");
        assert_eq!(found.figures.get("cause").and_then(Value::as_str), cause);
        let told = found.help.as_deref().unwrap_or_default();
        let names_key = told.contains("`signing_key` has key id `k-7`") && told.contains(&thumbprint);
        assert_eq!(names_key, cause != Some("clock"), "{told}");
        assert_eq!(found.figures["keys"][0]["thumbprint"], thumbprint.as_str());
    }
}

// What cannot be tried as it stands.

#[test]
fn a_token_that_depends_on_a_variable_is_tried_with_its_value_only() {
    let sim = bank(Bank::Rakbank);
    let site = || {
        let lines = "oauth_metadata = { account_id = { var = \"account\" } }";
        let mut site = Site::of(&sim, lines);
        site.config += "vars = { account = { header = \"x-account\" } }\n";
        site
    };
    let report = site().try_it();
    judged(&report, "token", Mark::Skipped, &["variable `account`"], "--var account=");
    judged(&report, "http", Mark::Fine, &["HEAD"], "");
    judged(&report, "clock", Mark::Fine, &[], "");
    assert!(report.holds() && sim.token_calls() == 0, "{}", report.text());
    let report = site().vars(&[("account", "4711")]).try_it();
    assert!(report.holds() && sim.tokens_issued() == 1, "{}", report.text());
    let asked = sim.received().into_iter().rfind(|received| received.endpoint == SimEndpoint::Token).expect("a call");
    assert!(format!("{asked:?}").contains("4711") || String::from_utf8_lossy(&asked.body).contains("4711"));
}

#[test]
fn a_route_elsewhere_is_visited_without_credentials() {
    let (sim, other) = (good_bank(), good_bank());
    let stranger = SimAuthority::new("two CAs", now()).expect("a CA");
    let mut site = Site::of(&sim, "");
    let _ = writeln!(site.config, "upstream = \"https://{}/x\"", other.address());
    let both = format!("{}{}", sim.ca_pem(), other.ca_pem());
    let report = site.file("bank-ca.crt", both).try_it();
    assert!(report.holds(), "{}", report.text());
    assert_eq!((sim.token_calls(), other.token_calls(), other.received().len()), (1, 0, 1));
    let seen = &other.received()[0];
    assert!(seen.headers.iter().all(|(name, _)| name != "authorization"), "{seen:?}");
    let mut site = Site::of(&sim, "");
    let _ = writeln!(site.config, "upstream = \"https://{}/x\"", other.address());
    let report = site.file("bank-ca.crt", format!("{}{}", sim.ca_pem(), stranger.pem())).try_it();
    assert!(!report.holds(), "{}", report.text());
    assert_eq!(other.received().len(), 1);
}

// Issuers and stores.

#[test]
fn an_issuers_keys_are_fetched() {
    let (sim, issuer) = (good_bank(), good_bank());
    let site = |path: &str| {
        let lines = format!(
            "[client.pod]\njwt = {{ issuer = \"https://issuer.example\", jwks_url = \"https://{}/{path}\", \
             audience = \"c\", subject = \"s\", ca = \"issuer.crt\" }}\n",
            issuer.address()
        );
        let mut site = Site::of(&sim, "").file("issuer.crt", issuer.ca_pem());
        site.config += "clients = [\"erp\", \"pod\"]\n";
        site.config += &lines;
        site
    };
    let key = json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "a",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" });
    let set = json!({ "keys": [key] }).to_string();
    issuer.change(|faults| faults.resource = SimFault::new(ResponseFault::Verbatim(Verbatim::json(200, set))));
    let report = site("keys").try_it();
    assert!(report.holds(), "{}", report.text());
    assert_eq!(the(&report, "keys").detail, "1 key");
    issuer.change(|faults| faults.resource = SimFault::new(ResponseFault::HtmlError(404)));
    fails(&site("keys").try_it(), "keys", &["HTTP 404"], "jwks_url");
    let stranger = SimAuthority::new("stranger", now()).expect("a CA");
    let report = site("keys").file("issuer.crt", stranger.pem()).try_it();
    assert!(!report.holds() && report.text().contains("unknown issuer `the bank's CA`"), "{}", report.text());
}

fn with_store(sim: &SimHandle, url: &str) -> Site {
    let mut site = Site::of(sim, "");
    let _ = writeln!(site.config, "[store]\nurl = \"{url}\"\nkeys = [\"{}\"]", STANDARD.encode([7; 32]));
    site
}

#[test]
fn a_store_is_reached_or_it_is_said_why_not() {
    let sim = good_bank();
    judged(&Site::of(&sim, "").try_it(), "store", Mark::Fine, &["in memory"], "");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s.redb");
    let url = format!("file:{}", path.display());
    judged(&with_store(&sim, &url).try_it(), "store", Mark::Fine, &["the first start makes it"], "");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing was left behind");
    let deep = format!("file:{}/with/its/folder/s.redb", folder.path().display());
    judged(&with_store(&sim, &deep).try_it(), "store", Mark::Fine, &["the first start makes it"], "");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing was left behind");
    // No process may make a file there.
    fails(&with_store(&sim, "file:/proc/none/s.redb").try_it(), "store", &["cannot be made"], "make the folder");
    // A store that is there, alone and then in use.
    let (snapshot, _) = {
        let site = with_store(&sim, &url);
        build(Path::new("site/proxy.toml"), site.config, &site.files)
    };
    let wish: StoreSettings = snapshot.expect("a snapshot").store.settings.clone();
    let wish = &wish;
    let open = async move || Store::open(wish, Patience::default(), Clock::System).await.expect("opened");
    converse(async { drop(open().await) });
    judged(&with_store(&sim, &url).try_it(), "store", Mark::Fine, &["opens, with 0 records"], "");
    let (opened, told) = std::sync::mpsc::channel();
    let (done, waits) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            converse(async {
                let store = open().await;
                opened.send(()).expect("heard");
                // Ends when the test is done with it, or has failed.
                let _ = waits.recv_timeout(crate::client::PATIENCE);
                drop(store);
            });
        });
        told.recv().expect("opened");
        let report = with_store(&sim, &url).try_it();
        drop(done);
        judged(&report, "store", Mark::Fine, &["is in use by", &format!("(pid {})", std::process::id())], "");
        assert!(report.holds());
    });
    fs::write(&path, "no store").expect("written");
    fails(&with_store(&sim, &url).try_it(), "store", &["s.redb"], "[store]");
}

#[test]
fn a_redis_is_reached_or_it_is_said_why_not() {
    let sim = good_bank();
    let redis = RedisServer::start();
    let report = with_store(&sim, &format!("redis://127.0.0.1:{}/0", redis.port)).try_it();
    judged(&report, "store", Mark::Fine, &["it answers"], "");
    assert_eq!(redis.cli(&["DBSIZE"]).trim(), "0", "nothing was written");
    let report = with_store(&sim, &format!("redis://127.0.0.1:{}/0", dead_port())).try_it();
    fails(&report, "store", &[], "[store]");
}

// The whole command.

/// Exit code, standard output, standard error.
fn told(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).env_remove("RUST_LOG");
    let output = command.output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("a code"), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_answers_in_text_and_in_json_and_opens_no_listener() {
    let sim = good_bank();
    let folder = tempfile::tempdir().expect("a folder");
    // Somebody has the listener's address: a start would fail, a check does not.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let there = taken.local_addr().expect("an address").to_string();
    let site = Site::of(&sim, "").edit("127.0.0.1:0", &there);
    fs::write(folder.path().join("proxy.toml"), &site.config).expect("written");
    fs::write(folder.path().join("bank-ca.crt"), sim.ca_pem()).expect("written");
    let (code, out, err) = told(folder.path(), &["check", "--live"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("proxy.toml is fine") && out.contains("\nprovider bank\n"), "{out}");
    assert!(out.ends_with("everything that was tried works\n"), "{out}");
    let (code, out, _) = told(folder.path(), &["check", "--live", "--json"]);
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &answer["ok"]), (0, &json!(true)));
    let live = answer["live"].as_array().expect("a list");
    let token = live.iter().find(|step| step["step"] == "token").expect("a token step");
    assert_eq!(
        (&token["provider"], &token["ok"], &token["figures"]["calls"]),
        (&json!("bank"), &json!(true), &json!(1))
    );
    assert_eq!(sim.token_calls(), 2);
    // Without the word, nothing is called, and nothing is said of it.
    let (code, out, _) = told(folder.path(), &["check", "--json"]);
    assert!(code == 0 && !out.contains("live") && sim.token_calls() == 2, "{out}");
    // A variable that nothing depends on is a slip.
    assert_eq!(told(folder.path(), &["check", "--live", "--var", "acount=1"]).0, 2);
    assert_eq!(told(folder.path(), &["check", "--live", "--var", "account"]).0, 2);
    assert_eq!(told(folder.path(), &["check", "--var", "account=1"]).0, 2);
    // A bank that fails.
    sim.change(|faults| faults.token = SimFault::new(ResponseFault::HtmlError(500)));
    let (code, out, _) = told(folder.path(), &["check", "--live"]);
    assert!(code == 1 && out.ends_with("1 step failed\n"), "{out}");
    let (code, out, _) = told(folder.path(), &["check", "--live", "--json"]);
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &answer["ok"], &answer["diagnostics"]), (1, &json!(false), &answer["diagnostics"]));
    // A bank whose secret is missing does not keep the others from being tried.
    sim.change(|faults| faults.token = SimFault::default());
    let other = "[provider.other]\nprofile = \"oauth2\"\nbase_url = \"https://api.other.example\"\n\
                 token_url = \"https://api.other.example/token\"\nclient_id = \"id\"\n\
                 client_secret = { env = \"NOT_THERE\" }\n[[route]]\npath = \"/other\"\nprovider = \"other\"\n";
    fs::write(folder.path().join("proxy.toml"), format!("{}\n{other}", site.config)).expect("written");
    let calls = sim.token_calls();
    let (code, out, err) = told(folder.path(), &["check", "--live"]);
    assert!(code == 1 && out.contains("\nprovider bank\n") && err.contains("`NOT_THERE` is not set"), "{out}{err}");
    assert!(out.ends_with("not tried, because the config has mistakes in them: other\n"), "{out}");
    assert_eq!(sim.token_calls(), calls + 1);
    let (code, out, _) = told(folder.path(), &["check", "--live", "--json"]);
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    let live = answer["live"].as_array().expect("a list");
    let skipped: Vec<_> = live.iter().filter(|step| step["step"] == "config").map(|step| &step["name"]).collect();
    assert_eq!((code, &answer["ok"], skipped), (1, &json!(false), vec![&json!("other")]));
    assert!(live.iter().any(|step| step["provider"] == "bank" && step["step"] == "token" && step["ok"] == true));
    let (code, out, _) = told(folder.path(), &["check", "--live", "--quiet"]);
    assert!(code == 1 && !out.contains("provider bank"), "{out}");
    // A config with other mistakes tries nothing.
    let calls = sim.token_calls();
    fs::write(folder.path().join("proxy.toml"), site.config.replace("[[route]]", "[[rout]]")).expect("written");
    let (code, out, _) = told(folder.path(), &["check", "--live", "--json"]);
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &answer["ok"], &answer["live"]), (1, &json!(false), &json!([])));
    assert_eq!(told(folder.path(), &["check", "--live", "-c", "none.toml"]).0, 2);
    assert_eq!(sim.token_calls(), calls);
    drop(taken);
}

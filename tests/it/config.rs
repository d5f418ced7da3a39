//! The config, as an operator meets it: good files, bad files, the sample and its manual.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign::config::{self, AccessLogTarget, InMemory, ListenerAccess, Loaded, Snapshot};
use countersign::route::{Caller, ClientId, Denied, RequestTarget};
use countersign::syntax::{Diagnostic, Diagnostics, Kind, Node, Severity, SourceText};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

const LITERAL: &str = "literal-s3cr3t";

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Everything that a config of these tests may point at.
fn world() -> InMemory {
    let made = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate can be made");
    let (server, other) = (made("localhost"), made("other"));
    InMemory::new()
        .with_file("certs/server.crt", server.cert.pem())
        .with_file("certs/server.key", server.signing_key.serialize_pem())
        .with_file("certs/other.key", other.signing_key.serialize_pem())
        .with_file("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .with_file("bank.der", server.cert.der().to_vec())
        .with_file("bank.p12", [&[0x30, 0x82, 9, 0, 0x02, 0x01, 0x03, 0x30][..], &[0; 64]].concat())
        .with_file("empty.txt", "")
        .with_file("latin1.txt", b"caf\xe9".to_vec())
        .with_file("secret.txt", "from-file\r\n")
        .with_file("./broken-profile.toml", "name = 7\n[settings.x]\nkindd = \"text\"\n")
        .with_env("SECRET", "from-env")
        .with_env("EMPTY", "")
        .with_env("SCB_APPLICATION_KEY", "l7key")
        .with_env("SCB_APPLICATION_SECRET", "s")
        .with_env("MEED_CLIENT_SECRET", "s")
        .with_env("ABX_CLIENT_SECRET", "s")
        .with_env("RAK_CLIENT_SECRET", "s")
        .with_env("OTHER_CLIENT_SECRET", "s")
}

fn build(text: &str) -> (Option<Snapshot>, Vec<Diagnostic>) {
    config::build(Path::new("proxy.toml"), text, &world())
}

fn lines(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(|found| format!("{}\n", found.one_line())).collect()
}

fn good(text: &str) -> Snapshot {
    let (snapshot, diagnostics) = build(text);
    snapshot.unwrap_or_else(|| panic!("{}", lines(&diagnostics)))
}

/// A small good file, with a place for more at its end.
const SMALL: &str = r#"
[[listener]]
name = "gateway"
bind = "127.0.0.1:0"

[provider.other]
profile = "oauth2"
base_url = "https://api.other.example/base"
token_url = "https://api.other.example/base/token"
client_id = "id"
client_secret = { env = "SECRET" }

[client.erp]
key_sha256 = ["8f1d3c6b5a7e90241bd4c0f6a2e8751993d60b4c7fe2a815d03b9c6e47f1a258"]

[[route]]
path = "/other"
provider = "other"
"#;

/// The keys in a text with their places, but for those in the headers of tables.
fn keys_of(text: &str) -> Vec<(String, Range<usize>)> {
    fn collect(node: &Node, found: &mut Vec<(String, Range<usize>)>) {
        match &node.kind {
            Kind::Table(table) => {
                for entry in &table.entries {
                    found.push((entry.key.clone(), entry.key_span.clone()));
                    collect(&entry.value, found);
                }
            }
            Kind::Array(items) => items.iter().for_each(|item| collect(item, found)),
            Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_) => {}
        }
    }
    let mut found = Vec::new();
    collect(&Node::parse(&SourceText::new("proxy.toml", text), &Diagnostics::new()), &mut found);
    let is_in_a_header = |span: &Range<usize>| {
        text[..span.start].rsplit('\n').next().is_some_and(|line| line.trim_start().starts_with('['))
    };
    found.retain(|(_, span)| !is_in_a_header(span));
    found
}

/// Keys of the examples that are no keys of countersign: whoever writes the file chooses them.
const NAMES_OF_USERS: [&str; 3] = ["account", "account_id", "channel"];

#[test]
fn a_misspelt_key_is_one_mistake_at_its_place() {
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let key = rcgen::KeyPair::generate().expect("a key can be made");
    let world = world()
        .with_file("certs/egress-ca.crt", ca.self_signed(&key).expect("a CA can be made").pem())
        .with_file("certs/egress-ca.key", key.serialize_pem())
        .with_file("store.key", "A".repeat(43) + "=")
        .with_env("PAYPAL_CLIENT_ID", "id")
        .with_env("PAYPAL_CLIENT_SECRET", "s");
    let errors = |text: &str| {
        let (_, found) = config::build(Path::new("proxy.toml"), text, &world);
        let errors = found.iter().filter(|found| found.severity == Severity::Error);
        errors.map(Diagnostic::one_line).collect::<Vec<String>>()
    };
    let examples = ["many-banks", "forward", "users"].map(|name| read(&format!("examples/{name}.toml")));
    let mut tried = 0;
    for text in examples.into_iter().chain([SMALL.to_owned()]) {
        assert_eq!(errors(&text), Vec::<String>::new());
        for (key, span) in keys_of(&text) {
            let (start, end) = key.split_at(key.len() - 2);
            let typo = format!("{start}{}", end.chars().rev().collect::<String>());
            let mut wrong = text.clone();
            wrong.replace_range(span, &typo);
            let told = errors(&wrong);
            if typo != key && !NAMES_OF_USERS.contains(&&*key) {
                tried += 1;
                let is_told = |line: &String| {
                    line.contains(&format!("unknown key `{typo}`")) && line.ends_with(&format!("did you mean `{key}`?"))
                };
                assert!(told.len() == 1 && told.iter().all(is_told), "{typo}: {told:#?}");
            }
        }
    }
    assert!(tried > 100, "only {tried}");
}

/// Of a line that is shown, stars hide secrets alone.
#[test]
fn stars_stand_for_secrets_and_for_nothing_else() {
    let shown = |text: &str| {
        let (_, found) = build(text);
        found.iter().map(|found| found.render(false)).collect::<Vec<_>>().join("\n")
    };
    let told =
        shown(&SMALL.replace("client_secret = { env = \"SECRET\" }", "client_secret = \"s3cr3t\" # the old one"));
    assert!(told.contains("* # the old one"), "{told}");
    let hash = "8f1d3c6b5a7e90241bd4c0f6a2e8751993d60b4c7fe2a815d03b9c6e47f1a258";
    let told = shown(&SMALL.replace(&format!("[\"{hash}\"]"), &format!("[\"{hash}\", \"csk_s3cr3t\"] # erp")));
    assert!(told.contains(&format!("[\"{hash}\", \"**********\"] # erp")), "{told}");
    let told = shown(&format!("{SMALL}\n[store]\nurl = \"postgres://db.corp/x\"\n"));
    assert!(told.contains("url = \"postgres://db.corp/x\""), "{told}");
    let told = shown(&format!("{SMALL}\n[store]\nurl = \"postgres://u:s3cr3t@db.corp/x\"\n"));
    assert!(told.contains("url = \"postgres://********@db.corp/x\""), "{told}");
    let told = shown(&SMALL.replace("key_sha256", "key_sha265"));
    assert!(told.contains(hash), "{told}");
    let told = shown(&SMALL.replace("{ env = \"SECRET\" }", "{ evn = \"SECRET\" } # the vault's"));
    assert!(told.contains("{ evn = \"SECRET\" } # the vault's"), "{told}");
    let told = shown(&SMALL.replace("{ env = \"SECRET\" }", "{ evn = \"s3cr3t\" }"));
    assert!(told.contains("{ evn = \"******\" }"), "{told}");
    let jwt = "jtw = { issuer = \"https://id.corp\", audience = \"a\", subject = \"s\" }";
    let told = shown(&format!("{SMALL}\n[client.ci]\n{jwt}\n"));
    assert!(told.contains(jwt), "{told}");
    let jwt = "jwt = { issuer = \"no url\", audience = \"a\", subject = \"s\" }";
    let told = shown(&format!("{SMALL}\n[client.ci]\n{jwt}\n"));
    assert!(told.contains(jwt), "{told}");
}

#[test]
fn a_certificate_for_other_addresses_alone_is_warned_of() {
    let warned = |san: &[&str], listener: &str| {
        let names: Vec<String> = san.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate can be made");
        let world =
            world().with_file("own.crt", made.cert.pem()).with_file("own.key", made.signing_key.serialize_pem());
        let tls = "tls = { cert = \"own.crt\", key = \"own.key\" }";
        let text = SMALL.replace("bind = \"127.0.0.1:0\"", &format!("{listener}\n{tls}"));
        let (snapshot, found) = config::build(Path::new("proxy.toml"), &text, &world);
        assert!(snapshot.is_some(), "{}", lines(&found));
        lines(&found)
    };
    let told = warned(&["10.0.0.5", "10.0.0.6"], "bind = \"10.0.0.7:8443\"");
    assert!(told.contains("`own.crt` is not for 10.0.0.7, where this listens, but for 10.0.0.5, 10.0.0.6"), "{told}");
    for (san, listener) in [
        (&["10.0.0.5", "10.0.0.7"][..], "bind = \"10.0.0.7:8443\""),
        // Clients call it by its name.
        (&["gateway.corp"], "bind = \"10.0.0.7:8443\""),
        (&["gateway.corp", "10.0.0.5"], "bind = \"10.0.0.7:8443\""),
        (&["10.0.0.5"], "bind = \"0.0.0.0:8443\""),
        (&["10.0.0.5"], "bind = \"127.0.0.1:8443\""),
        // They call the balancer, or the names that are listed.
        (&["10.0.0.5"], "bind = \"10.0.0.7:8443\"\nproxy_protocol = [\"10.0.0.5/32\"]"),
        (&["10.0.0.5"], "bind = \"10.0.0.7:8443\"\nnames = [\"10.0.0.5\"]"),
    ] {
        assert_eq!(warned(san, listener), "", "{san:?}, {listener}");
    }
}

/// Each bad file has, beside it, all that must be said about it. `COUNTERSIGN_BLESS=1` writes what is said now.
#[test]
fn every_mistake_of_a_bad_file_is_told_with_its_place_and_cure() {
    let mut mistakes = 0;
    let mut files: Vec<PathBuf> = fs::read_dir(root("tests/fixtures/config"))
        .expect("the fixtures are there")
        .map(|entry| entry.expect("the directory can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    for file in files {
        let (snapshot, diagnostics) = build(&fs::read_to_string(&file).expect("a fixture is text"));
        assert!(snapshot.is_none(), "{} passed", file.display());
        for found in &diagnostics {
            mistakes += usize::from(found.severity == Severity::Error);
            let rendered = found.render(false);
            assert!(!rendered.contains("s3cr3t"), "a secret is shown:\n{rendered}");
            assert!(rendered.contains(" --> "), "no place is shown:\n{rendered}");
        }
        let told = lines(&diagnostics);
        let expected = file.with_extension("expect");
        if std::env::var_os("COUNTERSIGN_BLESS").is_some() {
            fs::write(&expected, &told).expect("the expectation can be written");
        }
        assert_eq!(told, fs::read_to_string(&expected).unwrap_or_default(), "{}", file.display());
    }
    assert!(mistakes >= 40, "only {mistakes}");
}

#[test]
fn the_sample_is_a_good_file_without_warnings() {
    let (snapshot, diagnostics) = build(&read("examples/many-banks.toml"));
    assert_eq!(lines(&diagnostics), "");
    let snapshot = snapshot.expect("it has no mistakes");
    let profiles: Vec<&str> = snapshot.providers.iter().map(|provider| &*provider.profile).collect();
    assert_eq!(profiles, ["scb", "meed", "abbeycross", "rakbank", "oauth2"]);
    assert!(snapshot.listeners[0].tls.is_some());
    assert_eq!(snapshot.admin.as_ref().map(|admin| admin.bind.address()), "127.0.0.1:9901".parse().ok());
}

#[test]
fn the_defaults_are_those_of_the_manual() {
    let snapshot = good(SMALL);
    let limits = snapshot.limits;
    assert_eq!((limits.connections, limits.streams, limits.headers), (Some(10_000), Some(100), 100));
    assert_eq!((limits.header_bytes, limits.uri_bytes, limits.buffered_bytes), (32 << 10, 8 << 10, 64 << 20));
    assert_eq!(
        (limits.header_timeout, limits.idle_timeout),
        (Some(Duration::from_secs(10)), Some(Duration::from_secs(75)))
    );
    assert_eq!((limits.drain_delay, limits.drain), (Duration::ZERO, Duration::from_secs(30)));
    assert_eq!((snapshot.log.level.as_str(), &snapshot.log.access), ("info", &AccessLogTarget::Stderr));
    assert!(snapshot.admin.is_none() && snapshot.log.format.is_none());
    assert!(snapshot.workers >= 1);
    let (listener, provider, route) = (&snapshot.listeners[0], &snapshot.providers[0], &snapshot.routes[0]);
    assert_eq!(listener.access, ListenerAccess::Identified);
    assert_eq!(provider.refresh_before, Duration::from_secs(60));
    assert_eq!((provider.timeouts.connect, provider.timeouts.token), (Duration::from_secs(5), Duration::from_secs(10)));
    assert_eq!((&*route.name, route.replay_limit, route.timeouts), ("other", 1 << 20, provider.timeouts));
    assert_eq!(route.upstream, provider.base_url);
}

#[test]
fn zero_switches_a_limit_off() {
    let limits = good(&format!(
        "{SMALL}\n[limits]\nconnections = 0\nstreams = 0\nheaders = 0\nheader_bytes = 0\nuri_bytes = \"0B\"\nbuffered_bytes = 0\nheader_timeout = 0\nidle_timeout = \"0s\"\ndrain = 0\n"
    ))
    .limits;
    assert_eq!(
        (limits.connections, limits.streams, limits.header_timeout, limits.idle_timeout),
        (None, None, None, None)
    );
    assert_eq!((limits.headers, limits.header_bytes, limits.uri_bytes, limits.buffered_bytes), (0, 0, 0, 0));
    assert_eq!(limits.drain, Duration::ZERO);
}

fn ask(
    snapshot: &Snapshot,
    client: Caller,
    method: &Method,
    path: &str,
    headers: &[(&'static str, &'static str)],
) -> Result<(String, String), Denied> {
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
    let target = RequestTarget { method, host: Some("localhost"), path_and_query: path, headers: &headers };
    let reverse = snapshot.listeners[0].mode.reverse().expect("a reverse listener");
    let permit = reverse.table.admit(client, target)?;
    let route = &snapshot.routes[permit.route()];
    Ok((route.name.to_string(), permit.path_and_query().to_owned()))
}

#[test]
fn the_sample_leads_requests_where_it_says() {
    let snapshot = good(&read("examples/many-banks.toml"));
    let (erp, treasury) = (Caller::Client(ClientId(0)), Caller::Client(ClientId(1)));
    let to = |route: &str, path: &str| Ok((route.to_owned(), path.to_owned()));
    let get = |client, path| ask(&snapshot, client, &Method::GET, path, &[]);
    assert_eq!(get(erp, "/scb/v1/x?y=1"), to("scb", "/partners/sandbox/v1/x?y=1"));
    assert_eq!(get(treasury, "/scb/v1/x"), Err(Denied::NotAllowed(Some(0))));
    assert_eq!(get(erp, "/scb/v3/x"), Err(Denied::NotListed(0)), "not on the allow list");
    assert_eq!(ask(&snapshot, erp, &Method::POST, "/scb/v1/oauth/token", &[]), Err(Denied::Reserved(0)));
    assert_eq!(get(erp, "/meed/v1/oauth/%74oken"), Err(Denied::Reserved(1)));
    assert_eq!(get(treasury, "/rak/v1/partner_auth/token"), Err(Denied::Reserved(3)));
    assert_eq!(get(erp, "/other/token"), to("other", "/token"), "the token comes from another host");
    assert!(matches!(get(erp, "/rak/v1/x"), Err(Denied::Malformed(_))), "the account is missing");
    let account = |value| ask(&snapshot, erp, &Method::GET, "/rak/v1/x", &[("x-account-id", value)]);
    assert_eq!(account("0188000049916"), to("rak-accounts", "/sb/api/v1/x"));
    assert!(matches!(account("0188000049916x"), Err(Denied::Malformed(_))));
    assert_eq!(snapshot.routes[3].consumed, ["x-account-id"]);
    assert_eq!(snapshot.routes[0].headers[0].0, "channel");
    assert_eq!(get(Caller::Anyone, "/scb/v1/x"), Err(Denied::NotAllowed(Some(0))));
}

#[test]
fn a_token_endpoint_is_out_of_reach_behind_another_upstream_too() {
    let text = format!("{SMALL}upstream = \"https://api.other.example\"\n");
    let get = |path| ask(&good(&text), Caller::Client(ClientId(0)), &Method::GET, path, &[]);
    assert_eq!(get("/other/base/token"), Err(Denied::Reserved(0)));
    assert!(get("/other/token").is_ok());
}

#[test]
fn routes_share_a_module_unless_their_settings_differ() {
    let route = |name: &str, settings: &str| {
        format!("[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nprovider = \"other\"\n{settings}\n")
    };
    let text = [
        SMALL.to_owned(),
        route("a", ""),
        route("b", "settings = { scope = \"x\" }"),
        route("c", "settings = { scope = \"x\" }"),
        route("d", "settings = { scope = \"y\" }"),
    ]
    .concat();
    let snapshot = good(&text);
    let module = |at: usize| &snapshot.routes[at].module;
    assert!(std::sync::Arc::ptr_eq(module(0), module(1)));
    assert!(std::sync::Arc::ptr_eq(module(2), module(3)));
    let keys: BTreeSet<_> = (0..5).map(|at| module(at).key()).collect();
    assert_eq!(keys.len(), 3, "another scope is another token");
}

#[test]
fn transport_settings_part_connections() {
    let second = SMALL
        .replace("[provider.other]", "[provider.second]")
        .replace("/other\"", "/second\"")
        .replace("provider = \"other\"", "provider = \"second\"");
    let second =
        &second[second.find("[provider").expect("there is one")..second.find("[client").expect("there is one")];
    let route = "[[route]]\npath = \"/second\"\nprovider = \"second\"\n";
    let ids = |extra: &str| {
        let snapshot = good(&format!("{SMALL}{second}{extra}\n{route}"));
        (snapshot.providers[0].transport_id, snapshot.providers[1].transport_id)
    };
    let (first, same) = ids("");
    assert_eq!(first, same);
    for extra in [
        "tls = { min_version = \"1.3\" }",
        "tls = { ca = \"certs/server.crt\" }",
        "tls = { server_name = \"x.example\" }",
    ] {
        let (first, other) = ids(extra);
        assert_ne!(first, other, "{extra}");
    }
}

#[test]
fn secrets_come_from_where_they_say_and_literals_are_warned_about() {
    let key = |value: &str| good(&SMALL.replace("{ env = \"SECRET\" }", value)).routes[0].module.key();
    assert_eq!(key("{ env = \"SECRET\" }"), key("\"from-env\""));
    assert_eq!(key("{ file = \"secret.txt\" }"), key("\"from-file\""), "one newline is dropped");
    assert_ne!(key("\"from-env\""), key("\"from-file\""));
    let (_, diagnostics) = build(&SMALL.replace("{ env = \"SECRET\" }", &format!("\"{LITERAL}\"")));
    assert_eq!(diagnostics.len(), 1);
    assert_eq!(diagnostics[0].severity, Severity::Warning);
    assert!(!diagnostics[0].render(false).contains(LITERAL) && !diagnostics[0].one_line().contains(LITERAL));
}

#[test]
fn one_mistake_does_not_show_the_secret_beside_another() {
    let text = format!("provider = {{ x = {{ profile = \"oauth2\", colour = 1, client_secret = \"{LITERAL}\" }} }}\n");
    let (_, diagnostics) = build(&text);
    assert!(diagnostics.iter().any(|found| found.title.contains("colour")));
    for found in diagnostics {
        assert!(!found.render(false).contains(LITERAL), "{}", found.render(false));
    }
}

#[test]
fn one_client_needs_no_lists_and_a_lone_listener_may_serve_anyone() {
    let snapshot = good(SMALL);
    let any = |caller| ask(&snapshot, caller, &Method::GET, "/other/x", &[]);
    assert!(any(Caller::Client(ClientId(0))).is_ok());
    let start = SMALL.find("[client").expect("there is one");
    let end = SMALL.find("[[route]]").expect("there is one");
    let open =
        [&SMALL[..start], &SMALL[end..]].concat().replace("127.0.0.1:0\"", "127.0.0.1:0\"\nclients = \"anyone\"");
    assert_eq!(good(&open).listeners[0].access, ListenerAccess::Anyone);
}

#[test]
fn a_file_is_fine_mistaken_or_unreadable() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("proxy.toml");
    fs::write(dir.path().join("secret"), "s\n").expect("a file can be written");
    let status = |text: &[u8]| {
        fs::write(&path, text).expect("a file can be written");
        config::load(&path, &config::MachineFiles).exit_status()
    };
    let fine = SMALL.replace("{ env = \"SECRET\" }", "{ file = \"secret\" }");
    assert_eq!(status(fine.as_bytes()), 0, "relative paths start at the file");
    assert_eq!(status(b"x = 1"), 1);
    assert_eq!(status(b"\xff"), 2);
    match config::load(&dir.path().join("missing.toml"), &config::MachineFiles) {
        Loaded::Unreadable(why) => assert!(why.contains("missing.toml"), "{why}"),
        Loaded::Fine(..) | Loaded::Mistaken(_) => panic!("there is no such file"),
    }
}

#[test]
fn another_text_is_another_digest() {
    assert_eq!(good(SMALL).digest, good(SMALL).digest);
    assert_ne!(good(SMALL).digest, good(&format!("{SMALL}# changed\n")).digest);
}

/// Asks the reader itself which keys it knows: an unknown one makes it list them.
#[test]
fn the_manual_names_every_key() {
    let manual = read("docs/config.md");
    let odd = "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq = 1\n";
    let probe = format!(
        "{odd}[[listener]]\n{odd}tls = {{ {odd_inline} }}\n[provider.x]\nprofile = \"oauth2\"\n{odd}[provider.x.tls]\n{odd}[provider.x.timeouts]\n{odd}[provider.x.hours]\n{odd}[provider.x.token_budget]\n{odd}[[provider.x.quota]]\n{odd}\
         [[route]]\n{odd}[route.vars.v]\n{odd}[route.rate_limit]\n{odd}[route.timeouts]\n{odd}[client.x]\n{odd}[[webhook]]\n{odd}[admin]\n{odd}[admin.token.x]\n{odd}[log]\n{odd}[audit]\n{odd}[otlp]\n{odd}[tracing]\n{odd}[runtime]\n{odd}[limits]\n{odd}",
        odd_inline = odd.trim(),
    );
    let (_, diagnostics) = build(&probe);
    let mut sections = 0;
    let mut missing = Vec::new();
    for found in diagnostics.iter().filter(|found| found.title.contains("qqqq")) {
        let known = found.help.as_deref().and_then(|help| help.strip_prefix("known here: "));
        let known = known.unwrap_or_else(|| panic!("no list of keys: {}", found.one_line()));
        sections += 1;
        for key in known.split(", ") {
            if !manual.contains(&format!("`{key}`")) {
                missing.push(format!("{key} ({})", found.title));
            }
        }
    }
    assert_eq!(sections, 23, "{}", lines(&diagnostics));
    assert_eq!(missing, Vec::<String>::new(), "docs/config.md does not name them");
}

/// Every TOML text in the manual that is a whole file must be a good one.
#[test]
fn the_manuals_examples_can_be_used() {
    let manual = read("docs/config.md");
    let whole: Vec<&str> = manual
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .filter(|text| text.contains("[[listener]]") && text.contains("[[route]]"))
        .collect();
    assert!(!whole.is_empty());
    for text in whole {
        good(text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Lines of good and bad files, shuffled, cut and spoilt: there is a snapshot or there are errors, never a panic.
    #[test]
    fn no_text_makes_the_reader_panic(
        keep in proptest::collection::vec(any::<(u16, bool)>(), 0..80),
        cut in any::<u16>(),
        junk in "[\\x00-\\x7fé]{0,6}",
    ) {
        let all = [SMALL, &read("examples/many-banks.toml"), &read("tests/fixtures/config/variables.toml"), &read("tests/fixtures/config/routes.toml")].concat();
        let pool: Vec<&str> = all.lines().collect();
        let mut text = String::new();
        for (at, spoil) in keep {
            let line = pool[usize::from(at) % pool.len()];
            text.push_str(if spoil { line.get(..line.len() / 2).unwrap_or(line) } else { line });
            text.push('\n');
        }
        let mut at = usize::from(cut) % (text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text.insert_str(at, &junk);
        check(&text)?;
    }

    /// A good file with one thing changed in it.
    #[test]
    fn a_good_file_with_one_thing_changed_is_good_or_explained(at in any::<u16>(), len in 0_usize..12, junk in "[ -~\\n]{0,3}") {
        let mut text = [SMALL, "vars = { a = { query = \"a\" } }\nallow = [\"GET /v1/*\"]\nheaders = { channel = \"x\" }\n"].concat();
        let start = usize::from(at) % text.len();
        let end = (start + len).min(text.len());
        text.replace_range(start..end, &junk);
        check(&text)?;
    }

    #[test]
    fn arbitrary_text_is_explained(text in any::<String>()) {
        check(&text)?;
    }
}

fn check(text: &str) -> Result<(), TestCaseError> {
    let (snapshot, diagnostics) = build_quickly(text);
    let errors = diagnostics.iter().filter(|found| found.severity == Severity::Error).count();
    prop_assert_eq!(snapshot.is_none(), errors > 0);
    for found in diagnostics {
        let _ = (found.render(false), found.one_line());
    }
    Ok(())
}

/// Without making certificates each time.
fn build_quickly(text: &str) -> (Option<Snapshot>, Vec<Diagnostic>) {
    let files = InMemory::new()
        .with_env("SECRET", "s")
        .with_env("SCB_APPLICATION_KEY", "k")
        .with_env("SCB_APPLICATION_SECRET", "s");
    config::build(Path::new("proxy.toml"), text, &files)
}

//! What an operator sees: the admin listener, metrics, the access log.

use countersign::base::secret::ExposeSecret;
use countersign::sim::{Bank, LeafSpec, ResponseFault, SimFault, Verbatim};
use countersign::tls::mint::{self, Constraints, KeyKind, NameConstraint};

use crate::client::{converse, get, post};
use crate::collector::Collector;
use crate::harness::{Harness, KEY, Plan, bank, now};
use crate::users;

#[test]
fn health_tokens_and_metrics_are_shown_without_secrets() {
    let sim = bank(Bank::Scb);
    let stage = Plan::default().with(&sim, "scb", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(post("/scb/echo/x", KEY, "{}")).await.status, 200);
        sim.revoke_all();
        assert_eq!(stage.client.send(get("/scb/echo/x?secret=query", KEY)).await.status, 200);
        assert_eq!(stage.client.send(get("/nowhere", KEY)).await.status, 404);
        assert_eq!(&stage.admin("/livez").await.body[..], b"ok\n");
        assert_eq!(stage.admin("/readyz").await.status, 200);
        let verbose = stage.admin("/readyz?verbose").await;
        assert!(String::from_utf8_lossy(&verbose.body).contains("[+]listeners bound"), "{verbose:?}");
        let tokens = stage.admin("/api/v1/tokens").await.json();
        let token = &tokens["tokens"][0];
        assert_eq!((token["provider"].as_str(), token["state"].as_str()), (Some("scb"), Some("live")));
        assert_eq!((token["generation"].as_u64(), token["fetches"]["ok"].as_u64()), (Some(2), Some(2)));
        assert!(token["expires_at"].as_str().is_some_and(|at| at.starts_with("20")), "{tokens}");
        assert_eq!(stage.admin("/api/v1/nothing").await.status, 404);
        let metrics = String::from_utf8(stage.admin("/metrics").await.body.to_vec()).expect("text");
        for line in [
            "countersign_requests_total{listener=\"gateway\",route=\"scb\",status=\"200\"} 2",
            "countersign_requests_total{listener=\"gateway\",route=\"\",status=\"404\"} 1",
            "countersign_replays_total{provider=\"scb\",outcome=\"replayed\"} 1",
            "countersign_token_fetches_total{provider=\"scb\",outcome=\"ok\"} 2",
            "countersign_token_fetches_total{provider=\"scb\",outcome=\"fatal\"} 0",
            "countersign_tokens{provider=\"scb\"} 1",
            "countersign_token_expiry_timestamp_seconds{provider=\"scb\"} 1",
            "countersign_certificate_expiry_timestamp_seconds{what=\"server.crt\"} 1",
            "countersign_config_last_reload_successful 1",
            "countersign_config_last_reload_success_timestamp_seconds 1",
            "countersign_request_duration_seconds_count{route=\"scb\"} 2",
            "countersign_upstream_duration_seconds_count{route=\"scb\"} 3",
            "countersign_token_fetch_duration_seconds_count{provider=\"scb\"} 2",
            "countersign_upstream_connections{provider=\"scb\"}",
            "countersign_connections{listener=\"gateway\"}",
            "countersign_build_info{version=",
        ] {
            assert!(metrics.contains(line), "{line} is not in\n{metrics}");
        }
        let docs = include_str!("../../docs/metrics.md");
        for name in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = name.split(' ').next().unwrap_or_default();
            assert!(docs.contains(name), "docs/metrics.md does not speak of {name}");
        }
    });
    let lines = stage.stop();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| !line.to_string().contains("query")), "queries are not logged");
    assert_eq!(lines[0]["url.path"], "/scb/echo/x");
    assert_eq!(lines[0]["countersign.provider_request_id"].as_str().map(str::len), Some(32));
    assert_eq!((&lines[2]["error.type"], &lines[2]["countersign.client"]), (&"route-not-found".into(), &"erp".into()));
}

#[test]
fn what_was_at_fault_in_a_token_call_is_told_with_its_cure() {
    let profile = "name = \"telling\"\nextends = \"oauth2\"\n[[token.failure]]\n\
                   json = [{ pointer = \"/error\", equals = \"bad_signature\" }]\nclass = \"fatal\"\ncause = \"signature\"\n";
    let sim = bank(Bank::OAuth2);
    let stage = Plan::default().with_profile(&sim, profile, "", "").start();
    converse(async {
        let refusal = Verbatim::json(401, "{\"error\":\"bad_signature\"}");
        sim.change(|faults| faults.token = SimFault::new(ResponseFault::Verbatim(refusal)));
        let answer = stage.client.send(get("/bank/x", KEY)).await;
        assert_eq!((answer.status, answer.error().as_str()), (502, "provider-credentials-rejected"));
        assert!(!String::from_utf8_lossy(&answer.body).contains("knows the key"), "clients are not told");
        let cure = "the bank knows the key but computes another text";
        for path in ["/api/v1/providers", "/api/v1/tokens"] {
            let view = stage.admin(path).await.json();
            let one = view["providers"].get(0).or(view["tokens"].get(0)).expect("one");
            assert_eq!(one["last_failure"]["cause"], "signature", "{view}");
            assert!(one["last_failure"]["cure"].as_str().is_some_and(|told| told.starts_with(cure)), "{view}");
        }
        for page in ["/", "/ui/providers", "/ui/tokens"] {
            let page = stage.admin(page).await;
            let text = String::from_utf8_lossy(&page.body).into_owned();
            assert!(page.status == 200 && text.contains(cure), "{} {text}", page.status);
        }
    });
}

#[test]
fn readiness_ends_when_draining_begins_and_what_is_under_way_is_finished() {
    let sim = bank(Bank::Scb);
    sim.change(|faults| faults.resource.delay = Some(std::time::Duration::from_millis(700)));
    let stage = Plan::default().with(&sim, "scb", "", "").start();
    let (client, admin) = (stage.client.clone(), stage.running.admin.expect("an admin listener"));
    let running = stage.running;
    converse(async move {
        let slow = tokio::task::spawn_local(async move { client.send(get("/scb/echo/slow", KEY)).await.status });
        while sim.resource_calls() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let limit = std::time::Duration::from_secs(20);
        let drained = std::thread::spawn(move || running.drain(std::time::Duration::from_millis(300), limit));
        let mut seen = Vec::new();
        while !drained.is_finished() {
            if let Ok(mut stream) = tokio::net::TcpStream::connect(admin).await {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let asked = format!("GET /readyz HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(asked.as_bytes()).await;
                let mut answer = String::new();
                let _ = stream.read_to_string(&mut answer).await;
                seen.push(answer.get(9..12).unwrap_or("").to_owned());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(slow.await.expect("no panic"), 200, "the slow request was finished");
        assert!(seen.iter().any(|status| status == "503"), "{seen:?}");
    });
}

/// What operators build their dashboards on: each name with its labels.
/// What is told of a client's program, its TLS and the bank's address: in the access line and by the admin API.
#[test]
fn a_request_is_told_with_its_program_its_tls_and_the_address_that_answered() {
    let sim = bank(Bank::Scb);
    let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "scb", "", "").start();
    let secret = "erp 0a763d084bb01c80cae587619373b788";
    let long = format!("acme-pay/7 ({})", "x; ".repeat(60));
    let agents = ["acme-pay/7 \"quoted\\\"", secret, &long];
    let kept = converse(async {
        for agent in agents {
            let call = crate::client::request("GET", "/scb/echo/x", KEY, &[("user-agent", agent)], "");
            assert_eq!(stage.client.send(call).await.status, 200);
        }
        assert_eq!(stage.client.send(get("/nowhere", KEY)).await.status, 404);
        loop {
            let kept = stage.admin("/api/v1/requests").await.json();
            if kept["kept"] == 4 {
                let id = kept["requests"][3]["request_id"].as_str().expect("an id");
                let page = stage.admin(&format!("/ui/requests/{id}")).await;
                let page = String::from_utf8(page.body.to_vec()).expect("text");
                assert!(page.contains("acme-pay/7") && page.contains("127.0.0.1") && page.contains("1.3"), "{page}");
                break kept["requests"].as_array().expect("a list").clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    let (lines, mut kept) = (stage.stop(), kept);
    kept.reverse();
    assert!(!format!("{lines:?}{kept:?}").contains("0a763d08"), "what could be a key is told nowhere");
    for told in [&lines, &kept] {
        let told: Vec<[Option<&str>; 3]> = told
            .iter()
            .map(|one| {
                ["user_agent.original", "tls.protocol.version", "network.peer.address"].map(|name| one[name].as_str())
            })
            .collect();
        let (tls, bank) = (Some("1.3"), Some("127.0.0.1"));
        let wanted =
            [[Some(agents[0]), tls, bank], [None, tls, bank], [Some(&long[..128]), tls, bank], [None, tls, None]];
        assert_eq!(told, wanted);
    }
}

const PROMISED: [(&str, &[&str]); 18] = [
    ("countersign_requests_total", &["listener", "route", "status"]),
    ("countersign_request_duration_seconds", &["route"]),
    ("countersign_upstream_duration_seconds", &["route"]),
    ("countersign_replays_total", &["outcome", "provider"]),
    ("countersign_unknown_refusals_total", &["provider"]),
    ("countersign_token_fetches_total", &["outcome", "provider"]),
    ("countersign_token_fetch_duration_seconds", &["provider"]),
    ("countersign_token_expiry_timestamp_seconds", &["provider"]),
    ("countersign_tokens", &["provider"]),
    ("countersign_consent_expiry_timestamp_seconds", &["provider"]),
    ("countersign_certificate_expiry_timestamp_seconds", &["what"]),
    ("countersign_connections", &["listener"]),
    ("countersign_upstream_connections", &["provider"]),
    ("countersign_config_last_reload_successful", &[]),
    ("countersign_config_last_reload_success_timestamp_seconds", &[]),
    ("countersign_build_info", &["version"]),
    ("countersign_spans_total", &["outcome"]),
    ("countersign_limited_total", &["limit"]),
];

/// Every sample: its metric's name, the names of its labels in order, its line.
fn samples(metrics: &str) -> Vec<(String, Vec<String>, String)> {
    let kinds: Vec<(&str, &str)> =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let histogram = |name: &str| kinds.contains(&(name, "histogram"));
            let suffixes = ["_bucket", "_sum", "_count"];
            let base = suffixes.iter().find_map(|end| name.strip_suffix(end).filter(|base| histogram(base)));
            let labels =
                line.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(labels, _)| labels);
            let mut keys: Vec<String> = labels
                .split("\",")
                .filter_map(|pair| pair.split_once('=').map(|(key, _)| key.to_owned()))
                .filter(|key| key != "le")
                .collect();
            keys.sort();
            (base.unwrap_or(name).to_owned(), keys, line.to_owned())
        })
        .collect()
}

async fn metrics(stage: &Harness) -> String {
    String::from_utf8(stage.admin("/metrics").await.body.to_vec()).expect("text")
}

/// The value of the one sample that begins so; none where there is none.
fn value(metrics: &str, sample: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
}

#[test]
fn every_promised_metric_is_there_with_its_labels_and_in_the_manual() {
    let folder = tempfile::tempdir().expect("a folder");
    let (sim, collector) = (bank(Bank::Scb), Collector::start());
    let consented = users::start(&sim, folder.path(), "");
    converse(async {
        let started = users::begin(&consented.client, KEY, &serde_json::json!({ "user": "alice" })).await;
        let code = users::agree(&sim, &started, "alice");
        assert_eq!(users::finish(&consented.client, KEY, "alice", &started, &code).await.status, 200);
    });
    consented.stop();
    let stage = users::start(&sim, folder.path(), &collector.config(""));
    converse(async {
        assert_eq!(users::call(&stage.client, KEY, "alice").await.status, 200);
        sim.revoke_all();
        assert_eq!(users::call(&stage.client, KEY, "alice").await.status, 200);
        let mut told = metrics(&stage).await;
        // Consents are looked through, and spans sent, when there is time.
        while !told.contains("countersign_consent_expiry_timestamp_seconds{")
            || !told.contains("countersign_spans_total{")
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            told = metrics(&stage).await;
        }
        let seen = samples(&told);
        for (name, labels) in PROMISED {
            let mine: Vec<_> = seen.iter().filter(|(base, ..)| base == name).collect();
            assert!(!mine.is_empty(), "{name} is not in\n{told}");
            assert!(mine.iter().all(|(_, keys, _)| keys == labels), "{name}: {mine:?}");
        }
        let manual = include_str!("../../docs/metrics.md");
        for (name, labels, line) in &seen {
            let Some(name) = Some(name).filter(|name| name.starts_with("countersign_")) else { continue };
            let row = manual.lines().find(|row| row.starts_with(&format!("| `{name}` |")));
            let row = row.unwrap_or_else(|| panic!("docs/metrics.md has no row for {name}"));
            let cell = row.split('|').nth(2).unwrap_or_default();
            let mut said: Vec<&str> = cell.split(',').map(|one| one.trim().trim_matches('`')).collect();
            said.retain(|one| !one.is_empty());
            said.sort_unstable();
            assert_eq!(labels, &said, "{line}");
        }
    });
    stage.stop();
}

#[test]
fn the_ends_of_all_certificates_are_told_and_move_with_a_reload() {
    let sim = bank(Bank::Scb);
    let constraints = Constraints::only(&[NameConstraint::parse("127.0.0.1").expect("a host")]).expect("something");
    let (_, ca, key) = mint::MintAuthority::new(KeyKind::EcdsaP256, &constraints, now(), 1).expect("a CA");
    let ours = sim.authority().issue(&LeafSpec::client("erp", now())).expect("a leaf");
    let mut plan = Plan::default().with(&sim, "scb", "", "");
    plan.config =
        plan.config.replace("tls = { ca", "tls = { client_cert = \"ours.crt\", client_key = \"ours.key\", ca");
    plan.config += "[[listener]]\nname = \"egress\"\nmode = \"forward\"\nbind = \"127.0.0.1:0\"\n\
                    intercept = { ca_cert = \"ca.crt\", ca_key = \"ca.key\" }\n";
    plan.files = plan
        .files
        .with_file("stage/ca.crt", ca.into_bytes())
        .with_file("stage/ca.key", key.expose_secret().to_owned().into_bytes())
        .with_file("stage/ours.crt", ours.cert_pem.into_bytes())
        .with_file("stage/ours.key", ours.key_pem.into_bytes());
    let stage = plan.start();
    converse(async {
        let end = |told: &str, what: &str| {
            let sample = format!("countersign_certificate_expiry_timestamp_seconds{{what=\"{what}\"}}");
            value(told, &sample).unwrap_or_else(|| panic!("{what} is not in\n{told}"))
        };
        let page = async || String::from_utf8(stage.admin("/").await.body.to_vec()).expect("text");
        assert!(page().await.contains("All is well."));
        let told = metrics(&stage).await;
        let today = now().unix_seconds() as f64;
        for what in ["server.crt", "scb-ca.crt", "ours.crt", "ca.crt"] {
            assert!(end(&told, what) > today, "{what}");
        }
        let spec = LeafSpec { valid_until: now().wall + 3_600_000, ..LeafSpec::server(now()) };
        let leaf = stage.authority.issue(&spec).expect("a leaf");
        stage.papers.put("server.crt", leaf.cert_pem);
        stage.papers.put("server.key", leaf.key_pem);
        assert!(stage.running.reloads.reload("test").await.expect("an answer").outcome.is_applied());
        let after = metrics(&stage).await;
        let (before, after) = (end(&told, "server.crt"), end(&after, "server.crt"));
        assert!(after < before && after - today < 4_000.0, "{before} {after}");
        let page = page().await;
        assert!(page.contains("One thing is wrong. server.crt: ends soon."), "{page}");
        assert!(page.contains("/ui/runbooks/alert-CountersignCertificateEndsSoon"), "{page}");
    });
}

#[test]
fn gauges_of_a_removed_provider_end_and_come_back_with_it() {
    let (scb, meed) = (bank(Bank::Scb), bank(Bank::Meed));
    let stage = Plan { workers: 1, ..Plan::default() }.with(&scb, "scb", "", "").with(&meed, "meed", "", "").start();
    let reload = async || {
        let outcome = stage.running.reloads.reload("test").await.expect("an answer").outcome;
        assert!(outcome.is_applied(), "{outcome:?}");
        metrics(&stage).await
    };
    let open = "countersign_upstream_connections{provider=\"meed\"}";
    converse(async {
        for path in ["/scb/echo/x", "/meed/echo/x"] {
            assert_eq!(stage.client.send(get(path, KEY)).await.status, 200);
        }
        let told = metrics(&stage).await;
        assert_eq!((value(&told, "countersign_tokens{provider=\"meed\"}"), value(&told, open)), (Some(1.0), Some(1.0)));
        let mut whole = String::new();
        stage.papers.edit(|config| {
            whole = config.to_owned();
            config[..config.find("[provider.meed]").expect("it is the last one")].to_owned()
        });
        for told in [reload().await, metrics(&stage).await] {
            for gauge in ["tokens", "token_expiry_timestamp_seconds", "upstream_connections"] {
                assert_eq!(value(&told, &format!("countersign_{gauge}{{provider=\"meed\"}}")), None, "{told}");
                assert!(value(&told, &format!("countersign_{gauge}{{provider=\"scb\"}}")).is_some(), "{told}");
            }
            let fetched = "countersign_token_fetches_total{provider=\"meed\",outcome=\"ok\"}";
            assert_eq!(value(&told, fetched), Some(1.0), "what was counted stays counted");
        }
        stage.papers.edit(|_| whole.clone());
        reload().await;
        assert_eq!(stage.client.send(get("/meed/echo/x", KEY)).await.status, 200);
        let told = metrics(&stage).await;
        assert_eq!((value(&told, "countersign_tokens{provider=\"meed\"}"), value(&told, open)), (Some(1.0), Some(1.0)));
        // The same bank under another name: its connections are counted there.
        stage.papers.edit(|config| {
            let config = config.replace("[provider.meed", "[provider.bank");
            config.replace("provider = \"meed\"", "provider = \"bank\"")
        });
        let told = reload().await;
        assert_eq!(value(&told, open), None, "{told}");
        assert_eq!(stage.client.send(get("/meed/echo/x", KEY)).await.status, 200);
        let told = metrics(&stage).await;
        assert_eq!(value(&told, &open.replace("meed", "bank")), Some(1.0), "{told}");
    });
}

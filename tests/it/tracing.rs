//! Traces, from a client's `traceparent` over a simulated bank to a collector.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use countersign::base::time::Stopwatch;
use countersign::config::{InMemory, build};
use countersign::sim::{Bank, ReceivedRequest, ResponseFault, SimEndpoint, SimFault, SimHandle};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use crate::client::{converse, get, request};
use crate::collector::{Collector, Seen};
use crate::harness::{Harness, KEY, Plan, bank};
use crate::users;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const STATE: &str = "vendor=opaque,other=1";

fn named(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

fn start(sim: &SimHandle, provider: &str, tracing: &str) -> Harness {
    // One worker: each asks the keeper once for a token that is new to it.
    let mut plan = Plan { workers: 1, ..Plan::default() }.with(sim, "scb", provider, "");
    plan.config += tracing;
    plan.start()
}

/// What arrived at the bank's own paths.
fn resources(sim: &SimHandle) -> Vec<std::sync::Arc<ReceivedRequest>> {
    sim.received().into_iter().filter(|call| call.endpoint == SimEndpoint::Resource).collect()
}

fn only<'a>(spans: &'a [Seen], what: &str, fits: impl Fn(&Seen) -> bool) -> &'a Seen {
    let found: Vec<&Seen> = spans.iter().filter(|span| fits(span)).collect();
    assert_eq!(found.len(), 1, "{what} in {spans:#?}");
    found[0]
}

#[test]
fn a_trace_shows_the_request_its_token_and_each_call_of_the_bank() {
    let (sim, collector) = (bank(Bank::Scb), Collector::start());
    let stage = start(&sim, "", &collector.config("service_name = \"gate\""));
    converse(async {
        let fields = [("traceparent", &*named("01")), ("tracestate", STATE)];
        let query = "/scb/echo/x?secret=query";
        assert_eq!(stage.client.send(request("GET", query, KEY, &fields, Bytes::new())).await.status, 200);
        sim.revoke_all();
        assert_eq!(stage.client.send(get("/scb/echo/again", KEY)).await.status, 200);
        assert_eq!(stage.client.send(get("/nowhere", KEY)).await.status, 404);
    });
    let lines = stage.stop();
    let spans = collector.spans();
    let head = &collector.heads()[0];
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
    assert_eq!(collector.services(), ["gate".to_owned()].into());

    // The first: below its caller's span.
    let first: Vec<Seen> = spans.iter().filter(|span| span.trace == TRACE).cloned().collect();
    let server = only(&first, "one request", |span| span.kind == 2);
    assert_eq!((&*server.name, &*server.parent, server.failed), ("GET scb", CALLER, false));
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/scb/echo/x"),
        ("http.route", "scb"),
        ("http.response.status_code", "200"),
        ("countersign.provider", "scb"),
        ("countersign.client", "erp"),
        ("countersign.listener", "gateway"),
        ("countersign.token_generation", "1"),
        ("countersign.complete", "true"),
        ("error.type", ""),
    ] {
        assert_eq!(server.says(key), value, "{key} in {server:#?}");
    }
    let waited = only(&first, "one wait", |span| span.name == "token wait");
    let fetched = only(&first, "one fetch", |span| span.name == "token fetch");
    let called = only(&first, "one call", |span| span.kind == 3);
    assert_eq!((&waited.parent, &fetched.parent, &called.parent), (&server.id, &waited.id, &server.id));
    assert_eq!((called.says("countersign.verdict"), called.says("http.request.resend_count")), ("accepted", ""));
    assert!(called.says("url.full").ends_with("/echo/x"), "no query: {called:#?}");
    assert_eq!((called.says("network.peer.address"), server.says("network.peer.address")), ("127.0.0.1", ""));
    assert_eq!(server.says("tls.protocol.version"), "1.3");
    assert_eq!(fetched.says("countersign.token"), server.says("countersign.token"));
    assert!(server.start <= called.start && called.start <= called.end && called.end <= server.end);
    assert_eq!(first.len(), 4);

    // The second: a trace of its own, and a replay.
    let server = only(&spans, "one replay", |span| span.says("countersign.replay") == "replayed");
    assert_eq!((&*server.parent, server.says("http.response.status_code")), ("", "200"));
    let second: Vec<Seen> = spans.iter().filter(|span| span.trace == server.trace).cloned().collect();
    let calls: Vec<&Seen> = second.iter().filter(|span| span.kind == 3).collect();
    assert_eq!(calls.len(), 2, "{second:#?}");
    assert!(calls.iter().all(|call| call.parent == server.id));
    assert_eq!((calls[0].says("countersign.verdict"), calls[0].failed), ("refused", true));
    assert_eq!((calls[0].says("error.type"), calls[1].says("http.request.resend_count")), ("401", "1"));
    assert_eq!((calls[1].says("countersign.verdict"), calls[1].failed), ("accepted", false));
    assert_eq!(second.iter().filter(|span| span.name.starts_with("token")).count(), 2, "{second:#?}");

    // The third never came to a bank.
    let nowhere = only(&spans, "one refusal", |span| span.says("error.type") == "route-not-found");
    assert_eq!((&*nowhere.name, nowhere.failed, nowhere.says("http.response.status_code")), ("GET", false, "404"));
    assert_eq!(spans.len(), 4 + 5 + 1, "{spans:#?}");

    // What the bank heard, and what the access lines say.
    let heard = resources(&sim);
    let ids: Vec<String> =
        heard.iter().map(|call| call.header("traceparent").expect("one")[36..52].to_owned()).collect();
    assert_eq!(ids, [&called.id, &calls[0].id, &calls[1].id].map(String::as_str));
    assert_eq!(heard[0].header("traceparent").map(|value| &value[..35]), Some(&*format!("00-{TRACE}")));
    assert_eq!((heard[0].header("tracestate"), heard[1].header("tracestate")), (Some(STATE), None));
    assert!(heard.iter().all(|call| call.count("traceparent") == 1));
    let token_calls = sim.received();
    assert!(
        token_calls
            .iter()
            .filter(|call| call.endpoint == SimEndpoint::Token)
            .all(|call| call.count("traceparent") == 0)
    );
    assert_eq!((&lines[0]["trace_id"], &lines[1]["trace_id"]), (&TRACE.into(), &server.trace.as_str().into()));
    assert_eq!(lines[1]["span_id"], server.id.as_str());
    assert!(!String::from_utf8_lossy(&collector.bytes()).contains("secret=query"));
}

#[test]
fn without_tracing_the_fields_are_the_applications_own() {
    let sim = bank(Bank::Scb);
    let stage = start(&sim, "", "");
    let malformed = format!("00-{TRACE}-{CALLER}-1");
    converse(async {
        for value in [&named("03"), &malformed] {
            let fields = [("traceparent", value.as_str()), ("tracestate", STATE)];
            assert_eq!(stage.client.send(request("GET", "/scb/echo/x", KEY, &fields, Bytes::new())).await.status, 200);
        }
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
    });
    let lines = stage.stop();
    let heard = resources(&sim);
    let fields = |at: usize| (heard[at].header("traceparent"), heard[at].header("tracestate"));
    assert_eq!(fields(0), (Some(&*named("03")), Some(STATE)));
    assert_eq!(fields(1), (Some(&*malformed), Some(STATE)));
    assert_eq!(fields(2), (None, None));
    assert_eq!((&lines[0]["trace_id"], &lines[0]["span_id"]), (&TRACE.into(), &CALLER.into()));
    assert!(lines[1..].iter().all(|line| line.get("trace_id").is_none() && line.get("span_id").is_none()));
}

#[test]
fn with_tracing_a_malformed_one_is_replaced() {
    let (sim, collector) = (bank(Bank::Scb), Collector::start());
    let stage = start(&sim, "", &collector.config(""));
    let own = named("01");
    let bad = [
        vec![("traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01")],
        vec![("traceparent", "garbage")],
        vec![("traceparent", own.as_str()), ("traceparent", own.as_str())],
    ];
    converse(async {
        for fields in &bad {
            let fields: Vec<_> = fields.iter().copied().chain([("tracestate", STATE)]).collect();
            assert_eq!(stage.client.send(request("GET", "/scb/echo/x", KEY, &fields, Bytes::new())).await.status, 200);
        }
    });
    stage.stop();
    let spans = collector.spans();
    let heard = resources(&sim);
    assert_eq!(heard.len(), bad.len());
    for call in heard {
        assert_eq!((call.count("traceparent"), call.count("tracestate")), (1, 0), "{call:?}");
        let sent = call.header("traceparent").expect("one");
        assert!(sent.ends_with("-03") && !sent.contains(TRACE), "{sent}");
        let span = only(&spans, "its span", |span| span.id == sent[36..52]);
        assert_eq!(span.trace, sent[3..35]);
    }
    assert!(spans.iter().all(|span| span.trace != TRACE));
}

#[test]
fn a_caller_decides_and_else_the_share_does() {
    let (sim, collector) = (bank(Bank::Scb), Collector::start());
    let call = async |stage: &Harness, flags: Option<&str>| {
        let value = flags.map(named);
        let fields: Vec<_> = value.iter().map(|value| ("traceparent", value.as_str())).collect();
        assert_eq!(stage.client.send(request("GET", "/scb/echo/x", KEY, &fields, Bytes::new())).await.status, 200);
    };
    let stage = start(&sim, "", &collector.config("sample = 0"));
    converse(async {
        for flags in [None, Some("00"), Some("01")] {
            call(&stage, flags).await;
        }
    });
    let lines = stage.stop();
    let spans = collector.spans();
    assert!(!spans.is_empty() && spans.iter().all(|span| span.trace == TRACE), "{spans:#?}");
    assert_eq!(spans.iter().filter(|span| span.kind == 2).count(), 1);
    let flags: Vec<String> =
        resources(&sim).iter().map(|call| call.header("traceparent").expect("one")[53..].to_owned()).collect();
    assert_eq!(flags, ["02", "00", "01"], "who does not record says so, and goes on all the same");
    assert!(lines.iter().all(|line| line["trace_id"].as_str().is_some_and(|id| id.len() == 32)));

    let before = spans.len();
    let stage = start(&sim, "", &collector.config("sample = 1.0"));
    converse(async { call(&stage, Some("00")).await });
    stage.stop();
    let spans = collector.spans();
    // The fetch is nobody's child: its request is not recorded.
    assert_eq!(spans[before..].iter().map(|span| &*span.name).collect::<Vec<_>>(), ["token fetch"]);
}

#[test]
fn a_bank_that_is_not_to_hear_of_it_does_not() {
    let (sim, collector) = (bank(Bank::Scb), Collector::start());
    for tracing in [collector.config(""), String::new()] {
        let stage = start(&sim, "trace_context = false\n", &tracing);
        converse(async {
            let fields = [("traceparent", &*named("01")), ("tracestate", STATE)];
            assert_eq!(stage.client.send(request("GET", "/scb/echo/x", KEY, &fields, Bytes::new())).await.status, 200);
            assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        });
        assert_eq!(stage.stop()[0]["trace_id"], TRACE);
    }
    assert!(resources(&sim).iter().all(|call| call.count("traceparent") + call.count("tracestate") == 0));
    assert_eq!(collector.spans().iter().filter(|span| span.kind == 3).count(), 2, "it is traced all the same");
}

#[test]
fn whoever_joins_a_fetch_is_linked_to_it() {
    let (sim, collector) = (bank(Bank::Scb), Collector::start());
    sim.change(|faults| faults.token.delay = Some(Duration::from_millis(400)));
    let stage = start(&sim, "", &collector.config(""));
    converse(async {
        let calls = (0..3).map(|n| {
            let client = stage.client.clone();
            tokio::task::spawn_local(async move { client.send(get(&format!("/scb/echo/{n}"), KEY)).await.status })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.expect("no panic"), 200);
        }
    });
    stage.stop();
    let spans = collector.spans();
    let fetch = only(&spans, "one fetch", |span| span.name == "token fetch");
    let mut waits: Vec<&str> =
        spans.iter().filter(|span| span.name == "token wait").map(|span| span.id.as_str()).collect();
    assert_eq!(waits.len(), 3, "{spans:#?}");
    let mut known: Vec<&str> = fetch.links.iter().map(String::as_str).chain([fetch.parent.as_str()]).collect();
    waits.sort_unstable();
    known.sort_unstable();
    assert_eq!(known, waits, "the first is the parent, the others are linked");
}

#[test]
fn failures_and_clients_that_hang_up_are_told() {
    let (sim, collector) = (bank(Bank::Scb), Collector::start());
    sim.change(|faults| faults.token = SimFault::once(ResponseFault::HtmlError(503)));
    let stage = start(&sim, "", &collector.config(""));
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.error(), "token-unavailable");
    });
    stage.stop();
    let spans = collector.spans();
    let fetch = only(&spans, "one fetch", |span| span.name == "token fetch");
    assert_eq!((fetch.says("error.type"), fetch.failed), ("transient", true));
    let server = only(&spans, "one request", |span| span.kind == 2);
    assert_eq!((server.says("error.type"), server.failed), ("token-unavailable", true));
    let wait = only(&spans, "one wait", |span| span.name == "token wait");
    assert_eq!((wait.says("error.type"), wait.failed), ("token-unavailable", true));

    let collector = Collector::start();
    let stage = start(&sim, "", &collector.config(""));
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        sim.change(|faults| faults.resource.delay = Some(Duration::from_secs(20)));
        let before = sim.resource_calls();
        let client = stage.client.clone();
        let hasty = tokio::task::spawn_local(async move { client.send(get("/scb/echo/slow", KEY)).await.status });
        while sim.resource_calls() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        hasty.abort();
        let _ = hasty.await;
        // Its connection is gone with its task.
        while !stage.log.text().contains("/scb/echo/slow") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    stage.stop();
    let spans = collector.spans();
    let server = only(&spans, "one given up", |span| span.says("url.path") == "/scb/echo/slow");
    assert_eq!((server.says("error.type"), server.failed), ("cancelled", true));
    let call = only(&spans, "its call", |span| span.kind == 3 && span.parent == server.id);
    assert_eq!((call.says("error.type"), call.failed), ("cancelled", true));
}

#[test]
fn a_collector_that_is_down_costs_no_request() {
    let sim = bank(Bank::Scb);
    // One that accepts connections and says nothing; and an address where nobody listens.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address");
    for address in [silent.local_addr().expect("an address"), closed] {
        let stage = start(&sim, "", &format!("[tracing]\notlp = \"http://{address}\"\n"));
        converse(async {
            let mut slowest = Duration::ZERO;
            for _ in 0..20 {
                let began = Stopwatch::start();
                assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
                slowest = slowest.max(began.elapsed());
            }
            assert!(slowest < Duration::from_secs(3), "{slowest:?}");
        });
        let began = Stopwatch::start();
        assert_eq!(stage.stop().len(), 20);
        assert!(began.elapsed() < Duration::from_secs(8), "the end waits two seconds at most: {:?}", began.elapsed());
    }
}

#[test]
fn what_a_collector_does_not_take_now_is_offered_again_and_what_it_never_takes_is_counted() {
    let (sim, collector) = (bank(Bank::Scb), Collector::start());
    collector.answer(503);
    let headers = "headers = { x-api-key = { env = \"COLLECTOR\" } }";
    let mut plan = Plan { workers: 1, ..Plan::default() }.with(&sim, "scb", "", "");
    plan.files = plan.files.with_env("COLLECTOR", "canary-of-the-collector");
    plan.config += &collector.config(headers);
    let stage = plan.start();
    converse(async {
        let count = async |outcome: &str| {
            let metrics = String::from_utf8(stage.admin("/metrics").await.body.to_vec()).expect("text");
            let name = format!("countersign_spans_total{{outcome=\"{outcome}\"}} ");
            let line = metrics.lines().find_map(|line| line.strip_prefix(&name).map(str::to_owned));
            line.map_or(0, |count| count.parse::<u64>().expect("a count"))
        };
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        while collector.heads().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        collector.answer(200);
        while count("exported").await < 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!((count("failed").await, count("dropped").await), (0, 0));
        collector.answer(400);
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        while count("failed").await < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!((count("exported").await, count("failed").await), (4, 2));
        // It takes the spans of one more request, in one export or two, and says that it threw all of them away.
        collector.answer(200);
        collector.reject(2);
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        while count("exported").await + count("failed").await < 8 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!((count("exported").await, count("failed").await), (4, 4));
    });
    stage.stop();
    assert_eq!(collector.spans().len(), 4 + 2);
    assert!(collector.heads().iter().all(|head| head.contains("x-api-key: canary-of-the-collector\r\n")));
}

#[test]
fn a_reload_turns_traces_on_and_off_and_a_collector_may_be_behind_tls() {
    let (sim, collector) = (bank(Bank::Scb), Collector::start());
    let stage = start(&sim, "", "");
    let reload = async || {
        let outcome = stage.running.reloads.reload("test").await.expect("an answer").outcome;
        assert!(outcome.is_applied(), "{outcome:?}");
    };
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/before", KEY)).await.status, 200);
        stage.papers.edit(|config| format!("{config}{}", collector.config("")));
        reload().await;
        assert_eq!(stage.client.send(get("/scb/echo/on", KEY)).await.status, 200);
        while collector.spans().len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stage.papers.edit(|config| config.replace(&collector.config(""), ""));
        reload().await;
        assert_eq!(stage.client.send(get("/scb/echo/off", KEY)).await.status, 200);
        // The bank can play a collector: it is behind TLS, and keeps what it hears.
        let place = sim.base_url();
        let tls = format!("[tracing]\notlp = \"{place}\"\nca = \"scb-ca.crt\"\n");
        stage.papers.edit(|config| format!("{config}{tls}"));
        reload().await;
        assert_eq!(stage.client.send(get("/scb/echo/tls", KEY)).await.status, 200);
        while !sim.received().iter().any(|call| call.path.ends_with("/v1/traces")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    stage.stop();
    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.kind != 2 || span.says("url.path") == "/scb/echo/on"), "{spans:#?}");
    let received = sim.received();
    let export = received.iter().find(|call| call.path.ends_with("/v1/traces")).expect("an export");
    let export = ExportTraceServiceRequest::decode(export.body.as_ref()).expect("an export");
    assert!(!export.resource_spans.is_empty());
}

#[test]
fn consents_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let (sim, collector) = (bank(Bank::Scb), Collector::start());
    let stage = users::start(&sim, folder.path(), &collector.config(""));
    converse(async {
        let client = &stage.client;
        let started = users::begin(client, KEY, &serde_json::json!({ "user": "alice" })).await;
        let code = users::agree(&sim, &started, "alice");
        assert_eq!(users::finish(client, KEY, "alice", &started, &code).await.status, 200);
        assert_eq!(users::call(client, KEY, "alice").await.status, 200);
    });
    stage.stop();
    let spans = collector.spans();
    for (what, path) in
        [("consent start", "/.countersign/consent/scb/start"), ("consent exchange", "/.countersign/consent/scb/code")]
    {
        let step = only(&spans, what, |span| span.name == what);
        let server = only(&spans, "its request", |span| span.id == step.parent);
        assert_eq!((server.says("url.path"), step.says("countersign.provider"), step.failed), (path, "scb", false));
    }
    only(&spans, "one fetch", |span| span.name == "token fetch");
}

#[test]
fn mistakes_in_the_section_are_told_without_the_secrets_beside_them() {
    const HEAD: &str = "[[listener]]\nname = \"g\"\nbind = \"127.0.0.1:0\"\nclients = \"anyone\"\n";
    let told = |section: &str| {
        let (_, found) = build(Path::new("proxy.toml"), format!("{HEAD}[tracing]\n{section}\n"), &InMemory::new());
        let about = found.iter().filter(|found| found.title.contains("tracing") || found.span.start >= HEAD.len());
        about.map(|found| found.one_line() + "\n" + &found.render(false)).collect::<String>()
    };
    for (section, expected) in [
        ("", "[tracing] has no `otlp`"),
        ("otlp = \"127.0.0.1:4318\"", "not the URL of a collector"),
        ("otlp = \"http://user:c4nary-pass@host\"", "not the URL of a collector"),
        ("otlp = \"http://127.0.0.1:4318\"\nsample = 1.5", "not a share"),
        ("otlp = \"http://127.0.0.1:4318\"\nsample = \"all\"", "not a share"),
        ("otlp = \"http://127.0.0.1:4318\"\nsample = 2", "not a share"),
        ("otlp = \"http://127.0.0.1:4318\"\nsampel = 1", "did you mean `sample`?"),
        ("otlp = \"http://127.0.0.1:4318\"\nca = \"x.crt\"", "no TLS to this collector"),
        ("otlp = \"https://127.0.0.1:4318\"\nca = \"x.crt\"", "no such file"),
        ("otlp = \"http://127.0.0.1:4318\"\nservice_name = \" \"", "a service needs a name"),
        ("otlp = \"http://127.0.0.1:4318\"\nheaders = { host = \"c4nary\" }", "belongs to the export itself"),
        ("otlp = \"http://127.0.0.1:4318\"\nheaders = { x-key = \"c4nary\" }", "stands in the config file"),
        ("otlp = \"http://127.0.0.1:4318\"\nheaders = { x-key = \"c4nary\\n\" }", "cannot be sent"),
        ("otlp = \"http://collector:4318\"\nheaders = { x-key = \"c4nary\" }", "in the clear"),
    ] {
        let told = told(section);
        assert!(told.contains(expected), "{section}: {told}");
        assert!(!told.contains("c4nary"), "{section}: {told}");
    }
}

//! Telemetry by OTLP: over gRPC to a server that others wrote (`tests/otlp`), metrics and log lines over HTTP.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use countersign::base::time::Stopwatch;
use countersign::sim::{Bank, SimAuthority, SimHandle};
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyText;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as PointValue;
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::client::{converse, get};
use crate::collector::Collector;
use crate::harness::{Harness, KEY, Plan, bank, now};
use crate::outside_server::{OutsideServer, prepared, server_folder};
use crate::secrets::{Canary, Outputs, Process};

const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const CANARY: &str = "canary-of-the-collector-9Fq";

/// Starts a collector of gRPC, in the clear or over TLS with a certificate of this CA.
fn grpc_collector(transport: &str, authority: &SimAuthority) -> OutsideServer {
    let mut command = Command::new(prepared("venv/bin/python"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/otlp/collector.py")).arg(transport);
    OutsideServer::start(command, server_folder(authority))
}

fn start(sim: &SimHandle, config: &str, ca: &str) -> Harness {
    let mut plan = Plan { workers: 1, ..Plan::default() }.with(sim, "scb", "", "");
    plan.files = plan.files.with_env("COLLECTOR", CANARY).with_file("stage/otlp-ca.crt", ca.as_bytes().to_vec());
    plan.config += config;
    plan.start()
}

/// The exports that a collector of gRPC has heard, by the ends of their methods.
fn heard(collector: &mut OutsideServer, method: &str) -> Vec<Value> {
    let all = collector.tell("heard");
    let all = all.as_array().expect("a list");
    all.iter().filter(|export| export["method"] == method).cloned().collect()
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Stopwatch::start();
    while !is_so().await {
        assert!(began.elapsed() < Duration::from_secs(30), "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A counter of exports, by its metric and outcome.
async fn count(stage: &Harness, metric: &str, outcome: &str) -> u64 {
    let metrics = String::from_utf8(stage.admin("/metrics").await.body.to_vec()).expect("text");
    let name = format!("{metric}{{outcome=\"{outcome}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name).map(str::to_owned));
    line.map_or(0, |count| count.parse().expect("a count"))
}

#[test]
fn traces_and_metrics_arrive_over_grpc_in_the_clear_and_over_tls() {
    let sim = bank(Bank::Scb);
    let authority = SimAuthority::new("OTLP CA", now()).expect("a CA");
    for (transport, scheme, ca) in [("clear", "http", ""), ("tls", "https", "ca = \"otlp-ca.crt\"\n")] {
        let mut collector = grpc_collector(transport, &authority);
        let config = format!(
            "[otlp]\nurl = \"{scheme}://127.0.0.1:{}\"\nprotocol = \"grpc\"\n{ca}service_name = \"gate\"\n\
             attributes = {{ \"deployment.environment.name\" = \"prod\" }}\n\
             headers = {{ x-api-key = {{ env = \"COLLECTOR\" }} }}\n",
            collector.port
        );
        let stage = start(&sim, &config, &authority.pem());
        converse(async {
            assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
            until("an export of spans", async || count(&stage, "countersign_spans_total", "exported").await >= 4).await;
        });
        // Metrics go out at the end, too.
        stage.stop();
        let traces = heard(&mut collector, "traces");
        let resource = &traces[0]["message"]["resourceSpans"][0]["resource"]["attributes"];
        let told = |key: &str| {
            let found = resource.as_array().expect("a list").iter().find(|one| one["key"] == key);
            found.map(|one| one["value"]["stringValue"].clone())
        };
        assert_eq!(told("service.name"), Some("gate".into()));
        assert_eq!(told("deployment.environment.name"), Some("prod".into()));
        let spans: Vec<&Value> = traces
            .iter()
            .flat_map(|export| {
                export["message"]["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans")
            })
            .collect();
        assert!(spans.iter().any(|span| span["name"] == "GET scb" && span["kind"] == "SPAN_KIND_SERVER"), "{spans:?}");
        assert_eq!(traces[0]["metadata"]["x-api-key"], CANARY);
        let seconds = traces[0]["seconds"].as_f64().expect("a deadline");
        assert!((1.0..=10.5).contains(&seconds), "{seconds}");
        let metrics = heard(&mut collector, "metrics");
        let named: Vec<&Value> = metrics
            .iter()
            .flat_map(|export| {
                export["message"]["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().expect("some")
            })
            .collect();
        let requests = named.iter().find(|metric| metric["name"] == "countersign_requests_total").expect("it is there");
        let points = &requests["sum"]["dataPoints"];
        assert_eq!((points[0]["asInt"].as_str(), &requests["sum"]["isMonotonic"]), (Some("1"), &true.into()));
        assert_eq!(requests["sum"]["aggregationTemporality"], "AGGREGATION_TEMPORALITY_CUMULATIVE");
    }
}

#[test]
fn statuses_of_grpc_say_whether_an_export_is_offered_again() {
    let sim = bank(Bank::Scb);
    let authority = SimAuthority::new("OTLP CA", now()).expect("a CA");
    let mut collector = grpc_collector("clear", &authority);
    let config = format!(
        "[tracing]\notlp = \"http://127.0.0.1:{}\"\nprotocol = \"grpc\"\n\
         headers = {{ x-api-key = {{ env = \"COLLECTOR\" }} }}\n",
        collector.port
    );
    collector.tell("answer UNAVAILABLE");
    let stage = start(&sim, &config, "");
    let spans = "countersign_spans_total";
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        until("an export", async || !heard(&mut collector, "traces").is_empty()).await;
        assert_eq!(count(&stage, spans, "failed").await, 0);
        collector.tell("answer OK");
        until("the second offer", async || count(&stage, spans, "exported").await == 4).await;
        // Without a pause the collector's resources stay exhausted; with one they do not.
        collector.tell("answer RESOURCE_EXHAUSTED");
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        until("a failure", async || count(&stage, spans, "failed").await == 2).await;
        collector.tell("answer RESOURCE_EXHAUSTED 400");
        let before = heard(&mut collector, "traces").len();
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        // The usual pauses would be 1 s and 2 s.
        let began = Stopwatch::start();
        until("the third offer", async || heard(&mut collector, "traces").len() >= before + 3).await;
        assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
        collector.tell("answer OK");
        until("an export", async || count(&stage, spans, "exported").await == 6).await;
        collector.tell("answer UNAUTHENTICATED");
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        until("a failure", async || count(&stage, spans, "failed").await == 4).await;
        collector.tell("answer OK");
        collector.tell("reject 1");
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        until("a rejected span", async || count(&stage, spans, "failed").await >= 5).await;
    });
    stage.stop();
}

#[test]
fn a_server_that_does_not_speak_grpc_is_no_end_of_requests() {
    let (sim, collector) = (bank(Bank::Scb), Collector::start());
    // One that speaks HTTP/1.1 in the clear, and a bank, which answers with 404 over HTTP/2.
    let clear = format!("[tracing]\notlp = \"http://{}\"\nprotocol = \"grpc\"\n", collector.address);
    let place = sim.base_url().to_string();
    let origin = place.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    let tls = format!("[tracing]\notlp = \"{origin}\"\nprotocol = \"grpc\"\nca = \"scb-ca.crt\"\n");
    for (config, is_final) in [(clear, false), (tls, true)] {
        let stage = start(&sim, &config, "");
        converse(async {
            assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
            if is_final {
                let failed = async || count(&stage, "countersign_spans_total", "failed").await >= 1;
                until("a failure", failed).await;
            }
        });
        assert_eq!(stage.stop().len(), 1);
    }
    assert!(sim.received().iter().any(|call| call.path == TRACES));
}

fn named<'a>(metrics: &'a [Metric], name: &str) -> Option<&'a Metric> {
    metrics.iter().find(|metric| metric.name == name)
}

/// The whole numbers of a metric, with its points' attributes.
fn values(metric: &Metric) -> Vec<(Vec<String>, i64)> {
    let points = match metric.data.as_ref().expect("data") {
        Data::Sum(sum) => &sum.data_points,
        Data::Gauge(gauge) => &gauge.data_points,
        other => panic!("{other:?}"),
    };
    let read = points.iter().map(|point| {
        let labels =
            point.attributes.iter().map(|label| match label.value.as_ref().and_then(|one| one.value.as_ref()) {
                Some(AnyText::StringValue(text)) => format!("{}={text}", label.key),
                other => panic!("{other:?}"),
            });
        let value = match point.value {
            Some(PointValue::AsInt(value)) => value,
            other => panic!("{other:?}"),
        };
        (labels.collect(), value)
    });
    read.collect()
}

#[test]
fn metrics_arrive_over_http_as_a_scrape_shows_them() {
    let (sim, collector) = (bank(Bank::Scb), Collector::start());
    let config = format!("[otlp]\nurl = \"http://{}\"\ntraces = false\ninterval = \"1s\"\n", collector.address);
    let stage = start(&sim, &config, "");
    converse(async {
        for _ in 0..3 {
            assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        }
        let three = |metrics: &[Metric]| {
            named(metrics, "countersign_requests_total").is_some_and(|metric| {
                values(metric).iter().any(|(labels, value)| labels.contains(&"status=200".to_owned()) && *value == 3)
            })
        };
        until("an export", async || collector.metrics().iter().any(|metrics| three(metrics))).await;
        until("its count", async || count(&stage, "countersign_metric_points_total", "exported").await > 0).await;
        let scrape = async || String::from_utf8(stage.admin("/metrics").await.body.to_vec()).expect("text");
        // Each name of a scrape is there; some values come a while after the request that made them.
        let scraped = scrape().await;
        let kinds = scraped.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let names = kinds.map(|(base, kind)| match kind {
            "counter" => format!("{base}_total"),
            "info" => format!("{base}_info"),
            _ => base.to_owned(),
        });
        let has_samples =
            |name: &String| scraped.lines().any(|line| line.starts_with(name.as_str()) && !line.starts_with('#'));
        let names: Vec<String> = names.filter(has_samples).collect();
        let is_exported = |name: &String| named(&collector.metrics().concat(), name).is_some();
        until("an export of each", async || names.iter().all(is_exported)).await;
        let (exported, scraped) = (collector.metrics().concat(), scrape().await);
        for metric in &exported {
            assert!(scraped.contains(&metric.name), "{} is not in a scrape", metric.name);
        }
        assert!(scraped.contains("le=\"+Inf\""), "{scraped}");
    });
    stage.stop();
    assert!(collector.heads().iter().all(|head| head.starts_with("POST /v1/metrics HTTP/1.1\r\n")));
}

#[test]
fn a_collector_that_is_away_loses_no_count() {
    let (sim, collector) = (bank(Bank::Scb), Collector::start());
    collector.answer(400);
    let config = format!("[otlp]\nurl = \"http://{}\"\ntraces = false\ninterval = \"1s\"\n", collector.address);
    let stage = start(&sim, &config, "");
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        until("a failure", async || count(&stage, "countersign_metric_points_total", "failed").await > 0).await;
        collector.answer(200);
        until("an export", async || !collector.metrics().is_empty()).await;
    });
    stage.stop();
    let last = collector.metrics().concat();
    let requests = last.iter().rev().find(|metric| metric.name == "countersign_requests_total").expect("it is there");
    assert!(values(requests).iter().any(|(_, value)| *value == 1), "{requests:?}");
}

/// The records of the log that a collector of gRPC has heard.
fn records(collector: &mut OutsideServer) -> Vec<Value> {
    let logs = heard(collector, "logs");
    let of_export =
        |export: &Value| export["message"]["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().cloned();
    logs.iter().flat_map(|export| of_export(export).expect("records")).collect()
}

#[test]
fn lines_of_the_log_arrive_over_grpc_in_the_clear_and_over_tls() {
    let authority = SimAuthority::new("OTLP CA", now()).expect("a CA");
    for (transport, scheme, ca) in [("clear", "http", ""), ("tls", "https", "ca = \"otlp-ca.crt\"\n")] {
        let mut collector = grpc_collector(transport, &authority);
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("otlp-ca.crt"), authority.pem()).expect("written");
        let config = format!(
            "[[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:0\"\nclients = \"anyone\"\n\
             [otlp]\nurl = \"{scheme}://127.0.0.1:{}\"\nprotocol = \"grpc\"\n{ca}logs = true\ntraces = false\n\
             metrics = false\nservice_name = \"gate\"\nheaders = {{ x-api-key = {{ env = \"COLLECTOR\" }} }}\n",
            collector.port
        );
        fs::write(folder.path().join("proxy.toml"), config).expect("written");
        let variables = [("COLLECTOR", Path::new(CANARY))];
        let process = Process::start_with(&["run", "-c", "proxy.toml"], folder.path(), &variables);
        let is_told = |collector: &mut OutsideServer, text: &str| {
            records(collector).iter().any(|record| record["body"]["stringValue"] == text)
        };
        converse(async {
            process.address("gateway").await;
            until("the line of the start", async || is_told(&mut collector, "listening")).await;
            // An export that a collector cannot take now is offered again, and no line is lost.
            collector.tell("answer UNAVAILABLE");
            fs::write(folder.path().join("proxy.toml"), "nothing = 1\n").expect("written");
            kill_process(process.pid(), Signal::HUP).expect("sent");
            until("an export", async || heard(&mut collector, "logs").iter().any(|export| export["taken"] == false))
                .await;
            collector.tell("answer OK");
            let taken = |collector: &mut OutsideServer| {
                let last = heard(collector, "logs").pop().expect("an export");
                last["taken"] == true && last["message"].to_string().contains("reload")
            };
            until("the second offer", async || taken(&mut collector)).await;
        });
        let mut outputs = Outputs::default();
        process.finish(&mut outputs);
        let logs = heard(&mut collector, "logs");
        let message = &logs[0]["message"]["resourceLogs"][0];
        let service = message["resource"]["attributes"].as_array().expect("a list").iter();
        let service = service.clone().find(|one| one["key"] == "service.name").expect("a name");
        assert_eq!(service["value"]["stringValue"], "gate");
        assert_eq!(logs[0]["metadata"]["x-api-key"], CANARY);
        let start = records(&mut collector).into_iter().find(|record| record["body"]["stringValue"] == "listening");
        let start = start.expect("a record");
        assert_eq!(start["severityText"], "INFO");
        let attributes = start["attributes"].as_array().expect("a list");
        assert!(attributes.iter().any(|one| one["key"] == "listener" && one["value"]["stringValue"] == "gateway"));
        for export in &logs {
            outputs.add("the message of an export", export["message"].to_string().into_bytes());
        }
        assert_eq!(outputs.search(&[Canary::new("the collector's key", CANARY)]), Vec::<String>::new());
    }
}

/// The real program: logging is one for a process.
#[test]
fn lines_of_the_log_arrive_and_those_about_the_export_do_not() {
    let (sim, collector) = (bank(Bank::Scb), Collector::start());
    let folder = tempfile::tempdir().expect("a folder");
    let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    put("scb-ca.crt", &sim.authority().pem());
    let head = "[[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:0\"\nclients = \"anyone\"\n";
    put(
        "proxy.toml",
        &format!("{head}[otlp]\nurl = \"http://{}\"\nlogs = true\ninterval = \"1s\"\nenv = true\n", collector.address),
    );
    let headers = format!("x-api-key={CANARY}");
    let variables = [("OTEL_EXPORTER_OTLP_HEADERS", Path::new(&headers)), ("OTEL_SERVICE_NAME", Path::new("gate"))];
    let process = Process::start_with(&["run", "-c", "proxy.toml"], folder.path(), &variables);
    converse(async {
        process.address("gateway").await;
        let is_told = |text: &str| {
            collector.logs().iter().any(|record| {
                let body = record.body.as_ref().and_then(|body| body.value.clone());
                matches!(body, Some(AnyText::StringValue(body)) if body.contains(text))
            })
        };
        until("the line of the start", async || is_told("listening")).await;
        // What fails is told on standard error alone.
        collector.answer(400);
        until("a failure", async || process.stderr().contains("telemetry export failed")).await;
        collector.answer(200);
        let before = collector.metrics().len();
        until("an export of metrics", async || collector.metrics().len() > before).await;
        assert!(!is_told("telemetry export failed"));
    });
    let mut outputs = Outputs::default();
    process.finish(&mut outputs);
    outputs.add(
        "the body of exports",
        collector.logs().iter().flat_map(|record| format!("{record:?}").into_bytes()).collect::<Vec<u8>>(),
    );
    assert_eq!(outputs.search(&[Canary::new("the collector's key", CANARY)]), Vec::<String>::new());
    assert!(collector.heads().iter().all(|head| head.contains(&format!("x-api-key: {CANARY}\r\n"))));
    let record = &collector.logs()[0];
    assert!(
        (9..=13).contains(&record.severity_number) && record.time_unix_nano > 1_700_000_000_000_000_000,
        "{record:?}"
    );
}

//! A collector, played: it takes OTLP over plain HTTP and keeps every byte.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicI64, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use countersign::base::secret::hex;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;

/// Listens until the process ends.
pub struct Collector {
    pub address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
    says: Arc<Says>,
}

/// What it answers.
struct Says {
    /// 0: it hangs up instead.
    status: AtomicU16,
    /// So many spans of each export are not wanted.
    rejected: AtomicI64,
}

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    heads: Vec<String>,
    taken: Vec<ExportTraceServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
    logs: Vec<ExportLogsServiceRequest>,
}

/// A span as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub name: String,
    /// 1 internal, 2 server, 3 client.
    pub kind: i32,
    pub trace: String,
    pub id: String,
    /// Empty: none.
    pub parent: String,
    pub start: u64,
    pub end: u64,
    /// Each value as text.
    pub told: BTreeMap<String, String>,
    /// The ids of linked spans.
    pub links: Vec<String>,
    pub failed: bool,
}

impl Seen {
    /// What is told under this name; empty: nothing.
    pub fn says(&self, key: &str) -> &str {
        self.told.get(key).map_or("", String::as_str)
    }
}

impl Collector {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let heard = Arc::<Mutex<Heard>>::default();
        let says = Arc::new(Says { status: AtomicU16::new(200), rejected: AtomicI64::new(0) });
        let (notes, answers) = (heard.clone(), says.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whoever hangs up is not our concern.
                let _ = serve(stream, &notes, &answers);
            }
        });
        Self { address, heard, says }
    }

    /// The lines of a config that send traces here.
    pub fn config(&self, more: &str) -> String {
        format!("[tracing]\notlp = \"http://{}\"\n{more}\n", self.address)
    }

    /// From now on it answers with this status; 0: it hangs up instead.
    pub fn answer(&self, status: u16) {
        self.says.status.store(status, Ordering::SeqCst);
    }

    /// From now on so many spans of each export that it takes are not wanted.
    pub fn reject(&self, spans: i64) {
        self.says.rejected.store(spans, Ordering::SeqCst);
    }

    /// The heads of all requests.
    pub fn heads(&self) -> Vec<String> {
        self.heard.lock().expect("not poisoned").heads.clone()
    }

    /// Every byte that came.
    pub fn bytes(&self) -> Vec<u8> {
        self.heard.lock().expect("not poisoned").bytes.clone()
    }

    /// Who exported, each once.
    pub fn services(&self) -> BTreeSet<String> {
        let heard = self.heard.lock().expect("not poisoned");
        let resources = heard.taken.iter().flat_map(|export| &export.resource_spans);
        resources.map(|resource| service(resource).to_owned()).collect()
    }

    /// The metrics of each export, in the order of arrival.
    pub fn metrics(&self) -> Vec<Vec<Metric>> {
        let heard = self.heard.lock().expect("not poisoned");
        let metrics = |export: &ExportMetricsServiceRequest| -> Vec<Metric> {
            let scopes = export.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
            scopes.flat_map(|scope| scope.metrics.clone()).collect()
        };
        heard.metrics.iter().map(metrics).collect()
    }

    /// All lines of the log, in the order of arrival.
    pub fn logs(&self) -> Vec<LogRecord> {
        let heard = self.heard.lock().expect("not poisoned");
        let scopes = heard.logs.iter().flat_map(|export| &export.resource_logs).flat_map(|logs| &logs.scope_logs);
        scopes.flat_map(|scope| scope.log_records.clone()).collect()
    }

    /// All spans that it took, in the order of their starts. Stop the proxy first: that sends the last ones.
    pub fn spans(&self) -> Vec<Seen> {
        let heard = self.heard.lock().expect("not poisoned");
        let mut spans: Vec<Seen> = heard.taken.iter().flat_map(read).collect();
        spans.sort_by_key(|span| (span.start, span.kind != 2));
        spans
    }
}

fn serve(stream: TcpStream, heard: &Mutex<Heard>, says: &Says) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let status = says.status.load(Ordering::SeqCst);
    let mut noted = heard.lock().expect("not poisoned");
    noted.bytes.extend(head.as_bytes());
    noted.bytes.extend(&body);
    if status == 200 {
        match head.split(' ').nth(1) {
            Some("/v1/metrics") => {
                noted.metrics.push(ExportMetricsServiceRequest::decode(&*body).expect("an export"));
            }
            Some("/v1/logs") => noted.logs.push(ExportLogsServiceRequest::decode(&*body).expect("an export")),
            _ => noted.taken.push(ExportTraceServiceRequest::decode(&*body).expect("an export")),
        }
    }
    noted.heads.push(head);
    drop(noted);
    let mut stream = stream;
    if status == 0 {
        return Ok(());
    }
    let rejected_spans = says.rejected.load(Ordering::SeqCst);
    let partial_success =
        (rejected_spans > 0).then(|| ExportTracePartialSuccess { rejected_spans, ..Default::default() });
    let answer = ExportTraceServiceResponse { partial_success }.encode_to_vec();
    let length = answer.len();
    write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")?;
    stream.write_all(&answer)
}

/// What an exporter calls itself.
fn service(resource: &ResourceSpans) -> &str {
    let about = resource.resource.as_ref().expect("a resource");
    let named = about.attributes.iter().find(|one| one.key == "service.name").expect("a name");
    match named.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(name)) => name,
        other => panic!("not a name: {other:?}"),
    }
}

/// The spans of one export.
fn read(export: &ExportTraceServiceRequest) -> Vec<Seen> {
    let mut spans = Vec::new();
    for resource in &export.resource_spans {
        assert!(!service(resource).is_empty(), "{resource:?}");
        for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
            assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8), "{span:?}");
            let told = span.attributes.iter().map(|one| {
                let value = one.value.as_ref().and_then(|value| value.value.as_ref()).expect("a value");
                (one.key.clone(), shown(value))
            });
            spans.push(Seen {
                name: span.name.clone(),
                kind: span.kind,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                start: span.start_time_unix_nano,
                end: span.end_time_unix_nano,
                told: told.collect(),
                links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
                failed: span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32),
            });
        }
    }
    spans
}

fn shown(value: &Value) -> String {
    match value {
        Value::BoolValue(flag) => flag.to_string(),
        Value::IntValue(number) => number.to_string(),
        Value::StringValue(text) => text.clone(),
        other => panic!("nothing of ours is told like this: {other:?}"),
    }
}

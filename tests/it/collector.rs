//! A collector of traces, played: it takes OTLP over plain HTTP and keeps every byte.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// Listens until the process ends.
pub struct Collector {
    pub address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
    status: Arc<AtomicU16>,
}

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    heads: Vec<String>,
    taken: Vec<Value>,
}

/// A span as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub name: String,
    /// 1 internal, 2 server, 3 client.
    pub kind: u64,
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
        let (heard, status) = (Arc::<Mutex<Heard>>::default(), Arc::new(AtomicU16::new(200)));
        let (notes, says) = (heard.clone(), status.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whoever hangs up is not our concern.
                let _ = serve(stream, &notes, &says);
            }
        });
        Self { address, heard, status }
    }

    /// The lines of a config that send traces here.
    pub fn config(&self, more: &str) -> String {
        format!("[tracing]\notlp = \"http://{}\"\n{more}\n", self.address)
    }

    /// From now on it answers with this status; 0: it hangs up instead.
    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// The heads of all requests.
    pub fn heads(&self) -> Vec<String> {
        self.heard.lock().expect("not poisoned").heads.clone()
    }

    /// Every byte that came.
    pub fn bytes(&self) -> Vec<u8> {
        self.heard.lock().expect("not poisoned").bytes.clone()
    }

    /// All spans that it took, in the order of their starts. Stop the proxy first: that sends the last ones.
    pub fn spans(&self) -> Vec<Seen> {
        let heard = self.heard.lock().expect("not poisoned");
        let mut spans: Vec<Seen> = heard.taken.iter().flat_map(read).collect();
        spans.sort_by_key(|span| (span.start, span.kind != 2));
        spans
    }
}

fn serve(stream: TcpStream, heard: &Mutex<Heard>, status: &AtomicU16) -> std::io::Result<()> {
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
    let says = status.load(Ordering::SeqCst);
    let mut noted = heard.lock().expect("not poisoned");
    noted.bytes.extend(head.as_bytes());
    noted.bytes.extend(&body);
    noted.heads.push(head);
    if says == 200 {
        noted.taken.push(serde_json::from_slice(&body).expect("JSON"));
    }
    drop(noted);
    let mut stream = stream;
    match says {
        0 => Ok(()),
        says => write!(stream, "HTTP/1.1 {says} X\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"),
    }
}

/// The spans of one `ExportTraceServiceRequest`.
fn read(export: &Value) -> Vec<Seen> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut spans = Vec::new();
    for resource in list(&export["resourceSpans"]) {
        let about = &resource["resource"]["attributes"];
        assert!(list(about).iter().any(|one| one["key"] == "service.name"), "{about}");
        for span in list(&resource["scopeSpans"]).iter().flat_map(|scope| list(&scope["spans"])) {
            let text = |key: &str| span[key].as_str().unwrap_or_default().to_owned();
            let number = |key: &str| text(key).parse::<u64>().expect("nanoseconds as text");
            assert_eq!((text("traceId").len(), text("spanId").len()), (32, 16), "{span}");
            let told = list(&span["attributes"]).into_iter().map(|one| {
                let value = one["value"].as_object().and_then(|value| value.values().next().cloned());
                let value = value.expect("a value");
                let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                (one["key"].as_str().expect("a key").to_owned(), shown)
            });
            spans.push(Seen {
                name: text("name"),
                kind: span["kind"].as_u64().expect("a kind"),
                trace: text("traceId"),
                id: text("spanId"),
                parent: text("parentSpanId"),
                start: number("startTimeUnixNano"),
                end: number("endTimeUnixNano"),
                told: told.collect(),
                links: list(&span["links"])
                    .iter()
                    .filter_map(|link| Some(link["spanId"].as_str()?.to_owned()))
                    .collect(),
                failed: span["status"]["code"] == 2,
            });
        }
    }
    spans
}

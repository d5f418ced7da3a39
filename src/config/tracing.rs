//! `[tracing]`: where traces go, and which.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::reader::{Reader, pem_help};
use super::schema::{MAY, MUST, SchemaSection, SchemaShape};
use super::spanned_text::{Position, SpannedText};
use crate::base::origin::BaseUrl;
use crate::base::secret::{ExposeSecret, sha256};
use crate::syntax::{Diagnostics, Fields, FromNode, Kind, Node};
use crate::tls::{self, ClientTls};

/// Settings of the `[tracing]` section.
#[derive(Debug)]
pub struct Tracing {
    /// The collector that receives the traces.
    pub collector: Collector,
    /// Fields of every export request; the values are secrets, and marked as sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The share of new traces that is recorded, from 0 to 1.
    pub sample: f64,
    /// Name of this service in its traces.
    pub service: Arc<str>,
    /// An export ends after this long.
    pub timeout: Duration,
}

/// The destination of traces: OTLP over HTTP.
#[derive(Debug)]
pub struct Collector {
    /// Host and port. The scheme of the URL has no meaning: `tls` decides.
    pub url: BaseUrl,
    /// Path of the export requests, ending in `/v1/traces`.
    pub path: String,
    /// TLS settings; absent: in the clear.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

pub(super) const KEYS: SchemaSection = (
    "tracing",
    &[
        ("ca", SchemaShape::Text, MAY, "path of the only CAs to trust, PEM"),
        ("headers", SchemaShape::Headers, MAY, "what every export carries, such as an API key"),
        ("otlp", SchemaShape::Text, MUST, "the collector, as in http://127.0.0.1:4318; OTLP over HTTP"),
        ("sample", SchemaShape::Share, MAY, "the share of new traces that is recorded; 1"),
        ("service_name", SchemaShape::Text, MAY, "what we are called there; countersign"),
    ],
);

/// Path suffix of a collector's URL (OTLP/HTTP).
const TRACES_PATH: &str = "/v1/traces";
/// Fields that belong to the export itself.
const EXPORT_HEADERS: [&str; 5] = ["connection", "content-length", "content-type", "host", "transfer-encoding"];
/// The OTLP exporters' usual limit of one export.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A number between 0 and 1.
struct Share(f64);

impl FromNode for Share {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        let share = match &node.kind {
            Kind::Float(share) => Some(*share),
            Kind::Integer(0) => Some(0.0),
            Kind::Integer(1) => Some(1.0),
            Kind::Array(_) | Kind::Boolean(_) | Kind::Integer(_) | Kind::String(_) | Kind::Table(_) => None,
        };
        let share = share.filter(|share| (0.0..=1.0).contains(share));
        if share.is_none() {
            let help = "write a number from 0 to 1, as in `0.1`: one trace in ten";
            Position::of(node).error(report, "this is not a share of all traces", help);
        }
        share.map(Share)
    }
}

/// Reads `[tracing]`. Mistakes are reported; the returned value is then unusable.
pub(super) fn read(root: &Fields<'_>, reader: &Reader<'_>) -> Option<Tracing> {
    read_for(root, reader, cfg!(feature = "otlp"))
}

/// The same for a build that can export, or for one that cannot.
fn read_for(root: &Fields<'_>, reader: &Reader<'_>, exports: bool) -> Option<Tracing> {
    let entry = root.take_entry("tracing")?;
    let fields = Fields::new(&entry.value, "[tracing]", reader.report);
    let position = Position::new(&entry.value.source, entry.key_span.clone());
    let otlp = fields.req::<SpannedText>("otlp", "\"http://127.0.0.1:4318\"");
    let ca = fields.opt::<SpannedText>("ca");
    let headers = headers(&fields, reader);
    let sample = fields.opt::<Share>("sample").map_or(1.0, |share| share.0);
    let service = fields.opt::<SpannedText>("service_name");
    fields.finish();
    if let Some(word) = service.as_ref().filter(|word| word.text.trim().is_empty()) {
        word.place.error(reader.report, "a service needs a name", "leave it out: then it is `countersign`");
    }
    if !exports {
        let help = "use a build with the feature `otlp` (it is on by default), or remove the section";
        position.error(reader.report, "unknown key `tracing` in the file: this build cannot export traces", help);
        return None;
    }
    let collector = collector(&otlp?, ca.as_ref(), !headers.is_empty(), reader)?;
    let service = service.map_or_else(|| "countersign".into(), |word| word.text.into());
    Some(Tracing { collector, headers, sample, service, timeout: TIMEOUT })
}

fn collector(word: &SpannedText, ca: Option<&SpannedText>, secrets: bool, reader: &Reader<'_>) -> Option<Collector> {
    let report = reader.report;
    let clear = word.text.split_once("://").filter(|(scheme, _)| scheme.eq_ignore_ascii_case("http"));
    let parsed = match clear {
        // The one URL that may be without TLS: no token ever goes there.
        Some((_, rest)) => BaseUrl::parse(&format!("https://{}", with_port(rest))),
        None => BaseUrl::parse(&word.text),
    };
    let url = match parsed {
        Ok(url) => url,
        Err(why) => {
            // The URL may contain a password, which must not be shown.
            let help = format!("{why}; write it as in `http://127.0.0.1:4318`, and credentials into `headers`");
            word.place.without_credentials().error(report, "this is not the URL of a collector", help);
            return None;
        }
    };
    let path = match url.path() {
        path if path.ends_with(TRACES_PATH) => path.to_owned(),
        path => format!("{path}{TRACES_PATH}"),
    };
    if clear.is_some() {
        if let Some(ca) = ca {
            ca.place.error(report, "there is no TLS to this collector, so nobody is vouched for", "remove `ca`");
        }
        let near = url.bare_host() == "localhost"
            || url.bare_host().parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if secrets && !near {
            let help = "write `https://…`, or leave `headers` out";
            word.place.warning(report, "the secrets in `headers` travel to this collector in the clear", help);
        }
        return Some(Collector { url, path, tls: None });
    }
    let pem = ca.and_then(|word| Some((word, reader.ca_file(word)?)));
    let mut inputs = b"tracing".to_vec();
    if let Some((word, pem)) = &pem {
        inputs.extend(sha256(pem));
        if let Err(error) = tls::certificates(pem) {
            let help = pem_help(pem, &word.text, "x509", "it must hold the CA, as PEM");
            word.place.error(report, format!("`{}`: {error}", word.text), help);
            return None;
        }
    } else if ca.is_some() {
        return None;
    }
    let client_tls = ClientTls { ca: pem.as_ref().map(|(_, pem)| &pem[..]), ..ClientTls::default() };
    match reader.client_tls(sha256(&inputs), || tls::client(client_tls)) {
        Ok(tls) => Some(Collector { url, path, tls: Some(tls) }),
        Err(error) => {
            reader.tls_mistake(&error, ca, &word.place);
            None
        }
    }
}

/// `host[:port][/path]` with the port that plain HTTP has.
pub(super) fn with_port(rest: &str) -> String {
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let after_bracket = authority.rfind(']').map_or(0, |at| at + 1);
    let port = if authority[after_bracket..].contains(':') { "" } else { ":80" };
    format!("{authority}{port}{path}")
}

/// Reads the fields of every export request, each value marked as a secret.
fn headers(fields: &Fields<'_>, reader: &Reader<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let report = reader.report;
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    let Some(node) = fields.take("headers") else { return headers };
    let table = Fields::new(node, "headers of [tracing]", report);
    for entry in table.rest() {
        let position = Position::new(&node.source, entry.key_span.clone());
        let name = match HeaderName::from_bytes(entry.key.as_bytes()) {
            Ok(name) => name,
            Err(_) => {
                position.error(report, format!("`{}` is not a header name", entry.key), "use letters, digits and `-`");
                continue;
            }
        };
        if EXPORT_HEADERS.contains(&name.as_str()) {
            position.error(report, format!("`{name}` belongs to the export itself"), "remove it");
        } else if headers.iter().any(|(known, _)| *known == name) {
            position.error(report, format!("`{name}` is set twice"), "header names have no upper and lower case");
        }
        let Some((value, literal)) = reader.value(&entry.value, report) else { continue };
        let shown = if literal { Position::of(&entry.value).redacted() } else { Position::of(&entry.value) };
        if literal {
            let help = format!("write `{name} = {{ env = \"NAME\" }}` or `{{ file = \"path\" }}`");
            shown.warning(report, "a header for the collector stands in the config file", help);
        }
        match HeaderValue::from_str(value.expose_secret()) {
            Ok(mut value) => {
                value.set_sensitive(true);
                headers.push((name, value));
            }
            Err(_) => {
                shown.error(
                    report,
                    format!("the value of `{name}` cannot be sent"),
                    "a value is one line of visible ASCII",
                );
            }
        }
    }
    table.finish();
    headers
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::InMemory;
    use crate::syntax::SourceText;

    #[test]
    fn a_build_that_cannot_export_refuses_the_section_and_says_why() {
        let text = "[tracing]\notlp = \"http://collector/\"\nsample = 0.5\n";
        let read = |exports| {
            let (report, files) = (Diagnostics::new(), InMemory::new());
            let root = Node::parse(&SourceText::new("proxy.toml", text), &report);
            let fields = Fields::new(&root, "the file", &report);
            let read = read_for(&fields, &Reader::new(&files, Path::new("proxy.toml"), &report), exports);
            let lines: Vec<String> = report.into_diagnostics().iter().map(|found| found.one_line()).collect();
            (read, lines)
        };
        let (refused, lines) = read(false);
        assert!(refused.is_none());
        assert_eq!(
            lines,
            ["proxy.toml:1:2: error: unknown key `tracing` in the file: this build cannot export traces; use a build \
              with the feature `otlp` (it is on by default), or remove the section"]
        );
        let (tracing, lines) = read(true);
        assert_eq!(lines, Vec::<String>::new());
        let tracing = tracing.unwrap();
        assert_eq!((tracing.collector.url.port(), &*tracing.collector.path, tracing.sample), (80, "/v1/traces", 0.5));
    }
}

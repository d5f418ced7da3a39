//! A collector that receives one kind of telemetry by OTLP: where it is, and how it is spoken to.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::reader::{Reader, pem_help};
use super::spanned_text::{Position, SpannedText};
use crate::base::origin::BaseUrl;
use crate::base::secret::{ExposeSecret, sha256};
use crate::syntax::{Diagnostics, Fields};
use crate::tls::{self, ClientTls};

/// The kinds of telemetry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OtlpSignal {
    Logs,
    Metrics,
    Traces,
}

/// The transport of OTLP, under the names of its specification.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OtlpProtocol {
    /// A unary call of gRPC over HTTP/2.
    Grpc,
    /// A request over HTTP with a body in protobuf.
    #[default]
    HttpProtobuf,
}

/// The destination of one kind of telemetry, and the sender's description of itself.
#[derive(Clone, Debug)]
pub struct OtlpTarget {
    /// Host and port. The scheme of the URL has no meaning: `tls` decides.
    pub url: BaseUrl,
    /// Path of the export requests.
    pub path: String,
    /// TLS settings; absent: in the clear.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub protocol: OtlpProtocol,
    /// Fields of every export request; the values are secrets, and marked as sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Name of this service.
    pub service: Arc<str>,
    /// More attributes of the resource that exports.
    pub attributes: Arc<[(String, String)]>,
    /// An export ends after this long.
    pub timeout: Duration,
}

/// Name of the service, unless the config has another one.
pub(super) const SERVICE: &str = "countersign";
/// The OTLP exporters' usual limit of one export.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// The words for both transports.
pub(super) const PROTOCOLS: [(&str, OtlpProtocol); 2] =
    [("grpc", OtlpProtocol::Grpc), ("http/protobuf", OtlpProtocol::HttpProtobuf)];
/// The same, for the schema.
pub(super) const PROTOCOL_WORDS: [&str; 2] = [PROTOCOLS[0].0, PROTOCOLS[1].0];
/// Fields that belong to the export itself; those that begin with `grpc-` do, too.
const EXPORT_HEADERS: [&str; 6] = ["connection", "content-length", "content-type", "host", "te", "transfer-encoding"];

impl OtlpSignal {
    /// Every kind, in the order of their names.
    pub const ALL: [OtlpSignal; 3] = [OtlpSignal::Logs, OtlpSignal::Metrics, OtlpSignal::Traces];

    /// Returns the word for it in keys, paths and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            OtlpSignal::Logs => "logs",
            OtlpSignal::Metrics => "metrics",
            OtlpSignal::Traces => "traces",
        }
    }

    /// The path of an export over HTTP, below the collector's own.
    pub(super) const fn http_path(self) -> &'static str {
        match self {
            OtlpSignal::Logs => "/v1/logs",
            OtlpSignal::Metrics => "/v1/metrics",
            OtlpSignal::Traces => "/v1/traces",
        }
    }

    /// The path of the gRPC method that exports.
    const fn grpc_path(self) -> &'static str {
        match self {
            OtlpSignal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            OtlpSignal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            OtlpSignal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        }
    }
}

impl OtlpProtocol {
    /// Returns the word for it in a config.
    pub const fn as_str(self) -> &'static str {
        match self {
            OtlpProtocol::Grpc => "grpc",
            OtlpProtocol::HttpProtobuf => "http/protobuf",
        }
    }
}

/// A text of the config, or of an environment variable that it did not spell.
#[derive(Clone, Debug)]
pub(super) struct OtlpText {
    pub(super) text: String,
    /// Where the config has it, or has the variables read.
    pub(super) place: Position,
    /// The variable, if it is from one.
    pub(super) variable: Option<String>,
}

impl OtlpText {
    /// Reports a mistake in it. If it is a variable's, its name comes first.
    pub(super) fn error(&self, report: &Diagnostics, title: &str, help: impl Into<String>) {
        match &self.variable {
            Some(name) => self.place.error(report, format!("the environment variable `{name}`: {title}"), help),
            None => self.place.redacted().error(report, title, help),
        }
    }
}

impl From<SpannedText> for OtlpText {
    fn from(word: SpannedText) -> Self {
        Self { text: word.text, place: word.place, variable: None }
    }
}

/// The rule by which the path of a URL becomes that of the export requests over HTTP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum OtlpPath {
    /// The path of the signal is added.
    Below,
    /// The same, unless it is there.
    BelowOnce,
    /// It is taken as it is.
    Exact,
}

/// The URL of a collector, taken apart.
#[derive(Clone, Debug)]
pub(super) struct OtlpUrl {
    pub(super) url: BaseUrl,
    pub(super) path: String,
    /// True if it is without TLS.
    pub(super) clear: bool,
}

impl OtlpUrl {
    /// Reads a URL for one kind of telemetry.
    pub(super) fn read(
        word: &OtlpText,
        rule: OtlpPath,
        signal: OtlpSignal,
        protocol: OtlpProtocol,
        report: &Diagnostics,
    ) -> Option<Self> {
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
                word.error(report, "this is not the URL of a collector", help);
                return None;
            }
        };
        let path = match (protocol, url.path(), rule) {
            (OtlpProtocol::Grpc, "", _) => signal.grpc_path().to_owned(),
            (OtlpProtocol::Grpc, _, _) => {
                let help = "leave the path out, or write `protocol = \"http/protobuf\"`";
                word.error(report, "the URL of a collector that speaks gRPC has no path", help);
                return None;
            }
            (OtlpProtocol::HttpProtobuf, "", OtlpPath::Exact) => "/".to_owned(),
            (OtlpProtocol::HttpProtobuf, path, OtlpPath::Exact) => path.to_owned(),
            (OtlpProtocol::HttpProtobuf, path, OtlpPath::BelowOnce) if path.ends_with(signal.http_path()) => {
                path.to_owned()
            }
            (OtlpProtocol::HttpProtobuf, path, OtlpPath::Below | OtlpPath::BelowOnce) => {
                format!("{path}{}", signal.http_path())
            }
        };
        let clear = clear.is_some();
        Some(Self { url, path, clear })
    }

    /// The settings of TLS with this collector; `Some(None)`: there is no TLS.
    pub(super) fn tls(
        &self,
        word: &OtlpText,
        ca: Option<&OtlpText>,
        reader: &Reader<'_>,
    ) -> Option<Option<Arc<rustls::ClientConfig>>> {
        let report = reader.report;
        if self.clear {
            // A variable may be meant for other collectors.
            if let Some(ca) = ca.filter(|ca| ca.variable.is_none()) {
                ca.place.error(report, "there is no TLS to this collector, so nobody is vouched for", "remove `ca`");
                return None;
            }
            return Some(None);
        }
        let mut inputs = b"tracing".to_vec();
        let pem = match ca {
            None => None,
            Some(ca) => {
                let named = SpannedText { text: ca.text.clone(), place: ca.place.clone() };
                let Some(pem) = reader.ca_file(&named) else {
                    if ca.variable.is_some() {
                        ca.error(report, "it names no file of CAs", "set it to the path of one, or unset it");
                    }
                    return None;
                };
                inputs.extend(sha256(&pem));
                if let Err(error) = tls::certificates(&pem) {
                    let help = pem_help(&pem, &ca.text, "x509", "it must hold the CA, as PEM");
                    ca.place.error(report, format!("`{}`: {error}", ca.text), help);
                    return None;
                }
                Some(pem)
            }
        };
        let client_tls = ClientTls { ca: pem.as_deref(), ..ClientTls::default() };
        match reader.client_tls(sha256(&inputs), || tls::client(client_tls)) {
            Ok(tls) => Some(Some(tls)),
            Err(error) => {
                ca.unwrap_or(word).place.error(report, error.to_string(), "check the file that `ca` names");
                None
            }
        }
    }

    /// Warns of secrets that travel to another machine in the clear, and of a port that belongs to the other protocol.
    pub(super) fn judge(&self, word: &OtlpText, secrets: bool, protocol: OtlpProtocol, report: &Diagnostics) {
        let near = self.url.bare_host() == "localhost"
            || self.url.bare_host().parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if self.clear && secrets && !near {
            let help = "write `https://…`, or leave `headers` out";
            word.place.warning(report, "the secrets in `headers` travel to this collector in the clear", help);
        }
        let other = match (protocol, self.url.port()) {
            (OtlpProtocol::Grpc, 4318) => OtlpProtocol::HttpProtobuf,
            (OtlpProtocol::HttpProtobuf, 4317) => OtlpProtocol::Grpc,
            _ => return,
        };
        let title = format!("{} is the port at which collectors speak {}", self.url.port(), other.as_str());
        word.place.warning(
            report,
            title,
            format!("write `protocol = \"{}\"`, unless this one differs", other.as_str()),
        );
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
pub(super) fn headers(fields: &Fields<'_>, reader: &Reader<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let report = reader.report;
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    let node = fields.take("headers")?;
    let table = Fields::new(node, format!("headers of {}", fields.what()), report);
    for entry in table.rest() {
        let name = match header_name(&entry.key, &headers) {
            Ok(name) => name,
            Err((title, help)) => {
                // The value beside it may be a secret.
                Position::of(&entry.value).redacted().error(report, title, help);
                continue;
            }
        };
        let Some((value, literal)) = reader.value(&entry.value, report) else { continue };
        let shown = if literal { Position::of(&entry.value).redacted() } else { Position::of(&entry.value) };
        if literal {
            let help = format!("write `{name} = {{ env = \"NAME\" }}` or `{{ file = \"path\" }}`");
            shown.warning(report, "a header for the collector stands in the config file", help);
        }
        match header_value(value.expose_secret()) {
            Some(value) => headers.push((name, value)),
            None => {
                let help = "a value is one line of visible ASCII";
                shown.error(report, format!("the value of `{name}` cannot be sent"), help);
            }
        }
    }
    table.finish();
    Some(headers)
}

/// The name of a field of every export request, none of which is known yet. The error is a title and a help.
pub(super) fn header_name(
    text: &str,
    known: &[(HeaderName, HeaderValue)],
) -> Result<HeaderName, (String, &'static str)> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        return Err((format!("`{text}` is not a header name"), "use letters, digits and `-`"));
    };
    if EXPORT_HEADERS.contains(&name.as_str()) || name.as_str().starts_with("grpc-") {
        return Err((format!("`{name}` belongs to the export itself"), "remove it"));
    }
    if known.iter().any(|(other, _)| *other == name) {
        return Err((format!("`{name}` is set twice"), "header names have no upper and lower case"));
    }
    Ok(name)
}

/// A value that is marked as a secret.
pub(super) fn header_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

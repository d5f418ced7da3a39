//! `[otlp]`: the collector of traces, metrics and logs.

use std::sync::Arc;
use std::time::Duration;

use super::otel_variables::OtelVariables;
use super::otlp_target::{
    OtlpPath, OtlpProtocol, OtlpSignal, OtlpTarget, OtlpText, OtlpUrl, PROTOCOL_WORDS, PROTOCOLS, SERVICE, TIMEOUT,
    headers,
};
use super::reader::Reader;
use super::schema::{DURATION, MAY, SchemaSection, SchemaShape};
use super::spanned_text::{Position, SpannedText, choice};
use super::tracing::{self, Share};
use crate::base::secret::ExposeSecret;
use crate::syntax::Fields;

/// All that is exported, of `[otlp]` and `[tracing]`.
#[derive(Debug, Default)]
pub struct OtlpExports {
    /// Destination and selection of traces; `None`: there are none.
    pub traces: Option<TraceExport>,
    /// Destination of metrics; `None`: they are not exported.
    pub metrics: Option<MetricExport>,
    /// Destination of log lines; `None`: they are not exported.
    pub logs: Option<OtlpTarget>,
}

/// The destination and the selection of traces.
#[derive(Debug)]
pub struct TraceExport {
    pub target: OtlpTarget,
    /// The share of new traces that is recorded, from 0 to 1.
    pub sample: f64,
}

/// The destination of metrics.
#[derive(Debug)]
pub struct MetricExport {
    pub target: OtlpTarget,
    /// The time from one export to the next.
    pub interval: Duration,
}

pub(super) const KEYS: SchemaSection = (
    "otlp",
    &[
        (
            "attributes",
            SchemaShape::Headers,
            MAY,
            "more attributes of what is exported, such as deployment.environment.name",
        ),
        ("ca", SchemaShape::Text, MAY, "path of the only CAs to trust, PEM"),
        ("env", SchemaShape::Flag, MAY, "whether OTEL_* variables say what this section does not; false"),
        ("headers", SchemaShape::Headers, MAY, "what every export carries, such as an API key"),
        ("interval", DURATION, MAY, "from one export of metrics to the next; 60s"),
        ("logs", SchemaShape::Flag, MAY, "whether lines of the log are exported; false"),
        ("metrics", SchemaShape::Flag, MAY, "whether metrics are exported; true"),
        ("protocol", SchemaShape::Choice(&PROTOCOL_WORDS), MAY, "the transport; http/protobuf"),
        ("sample", SchemaShape::Share, MAY, "the share of new traces that is recorded; 1"),
        ("service_name", SchemaShape::Text, MAY, "what we are called there; countersign"),
        ("timeout", DURATION, MAY, "an export may take this long; 10s"),
        ("traces", SchemaShape::Flag, MAY, "whether traces are exported; true"),
        ("url", SchemaShape::Text, MAY, "the collector, as in http://127.0.0.1:4318; required without `env`"),
    ],
);

/// The usual time from one export of metrics to the next.
const INTERVAL: Duration = Duration::from_secs(60);
/// Metrics are exported no more often than this.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

impl OtlpExports {
    /// The destination of one kind of telemetry.
    pub fn target(&self, signal: OtlpSignal) -> Option<&OtlpTarget> {
        match signal {
            OtlpSignal::Logs => self.logs.as_ref(),
            OtlpSignal::Metrics => self.metrics.as_ref().map(|metrics| &metrics.target),
            OtlpSignal::Traces => self.traces.as_ref().map(|traces| &traces.target),
        }
    }

    /// The share of new traces that is recorded; `None`: there is no tracing.
    pub fn sample(&self) -> Option<f64> {
        self.traces.as_ref().map(|traces| traces.sample)
    }
}

/// Reads `[tracing]` and `[otlp]`. Mistakes are reported; the returned value is then unusable.
pub(super) fn read(root: &Fields<'_>, reader: &Reader<'_>) -> OtlpExports {
    read_for(root, reader, cfg!(feature = "otlp"))
}

/// The same for a build that can export, or for one that cannot.
pub(super) fn read_for(root: &Fields<'_>, reader: &Reader<'_>, exports: bool) -> OtlpExports {
    let tracing = tracing::read(root, reader, exports);
    let Some(entry) = root.take_entry("otlp") else {
        return OtlpExports { traces: tracing.map(|(traces, _)| traces), ..OtlpExports::default() };
    };
    let position = Position::new(&entry.value.source, entry.key_span.clone());
    let fields = Fields::new(&entry.value, "[otlp]", reader.report);
    let section = OtlpSection::read(&fields, reader);
    fields.finish();
    if !exports {
        let help = "use a build with the feature `otlp` (it is on by default), or remove the section";
        position.error(reader.report, "unknown key `otlp` in the file: this build cannot export", help);
        return OtlpExports::default();
    }
    let mut found = section.and_then(|section| section.exports(&position, reader)).unwrap_or_default();
    if let Some((traces, place)) = tracing {
        if found.traces.is_some() {
            let help = "write `traces = false` into [otlp], or remove [tracing]";
            place.error(reader.report, "traces would go to the collectors of [tracing] and of [otlp]", help);
        }
        found.traces = Some(traces);
    }
    found
}

/// The section as it is written. What it does not say, variables may.
struct OtlpSection<'a> {
    variables: OtelVariables<'a>,
    url: Option<OtlpText>,
    protocol: Option<OtlpProtocol>,
    headers: Option<Vec<(http::HeaderName, http::HeaderValue)>>,
    ca: Option<OtlpText>,
    timeout: Option<Duration>,
    interval: Option<Duration>,
    sample: Option<f64>,
    service: Option<String>,
    attributes: Vec<(String, String)>,
    /// The switches that are written, by kind.
    switches: Vec<(OtlpSignal, bool)>,
}

impl<'a> OtlpSection<'a> {
    /// `None`: it names no collector, which was reported.
    fn read(fields: &Fields<'_>, reader: &'a Reader<'a>) -> Option<Self> {
        let report = reader.report;
        let place = fields.take_entry("env").map(|entry| Position::of(&entry.value));
        let place = place.filter(|_| fields.opt::<bool>("env") == Some(true));
        let url = fields.opt::<SpannedText>("url").map(OtlpText::from);
        if place.is_none() && fields.take("url").is_none() {
            fields.missing("url", "\"http://127.0.0.1:4318\"");
        }
        let is_named = place.is_some() || url.is_some();
        let long = |key: &str, least: Duration| {
            let value = fields.opt::<Duration>(key)?;
            if value < least {
                let help = format!("{} ms is the least", least.as_millis());
                let node = fields.take(key)?;
                Position::of(node).error(report, format!("`{key}` is too short"), help);
            }
            Some(value)
        };
        let service = fields.opt::<SpannedText>("service_name");
        if let Some(word) = service.as_ref().filter(|word| word.text.trim().is_empty()) {
            word.place.error(report, "a service needs a name", "leave it out: then it is `countersign`");
        }
        let switch = |signal: OtlpSignal| Some((signal, fields.opt::<bool>(signal.as_str())?));
        let section = Self {
            variables: OtelVariables::new(reader, place),
            url,
            protocol: choice(fields, "protocol", &PROTOCOLS),
            headers: headers(fields, reader),
            ca: fields.opt::<SpannedText>("ca").map(OtlpText::from),
            timeout: long("timeout", Duration::from_millis(1)),
            interval: long("interval", LEAST_INTERVAL),
            sample: fields.opt::<Share>("sample").map(|share| share.0),
            service: service.map(|word| word.text),
            attributes: attributes(fields, reader),
            switches: OtlpSignal::ALL.into_iter().filter_map(switch).collect(),
        };
        is_named.then_some(section)
    }

    fn exports(mut self, position: &Position, reader: &Reader<'_>) -> Option<OtlpExports> {
        let variables = &self.variables;
        let known = variables.resource_attributes();
        let named = known.iter().find(|(key, _)| key == "service.name").map(|(_, name)| name.clone());
        let name = self.service.clone().or_else(|| variables.service_name()).or(named);
        let service: Arc<str> = name.map_or_else(|| SERVICE.into(), Arc::from);
        let is_said = |key: &str| key == "service.name" || self.attributes.iter().any(|(own, _)| own == key);
        let more: Vec<_> = known.into_iter().filter(|(key, _)| !is_said(key)).collect();
        self.attributes.extend(more);
        let attributes: Arc<[(String, String)]> = std::mem::take(&mut self.attributes).into();
        let sample = self.sample.or_else(|| self.variables.sample()).unwrap_or(1.0);
        let least = u64::try_from(LEAST_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        let interval = self.interval.or_else(|| self.variables.interval(least)).unwrap_or(INTERVAL);
        if self.variables.is_disabled() {
            return None;
        }
        let mut judged = Vec::new();
        let mut target = |signal: OtlpSignal| self.target(signal, &service, &attributes, position, &mut judged, reader);
        // One mistake in what all have in common is told once.
        let mut exports = OtlpExports::default();
        if self.has(OtlpSignal::Traces) {
            exports.traces = Some(TraceExport { target: target(OtlpSignal::Traces)?, sample });
        }
        if self.has(OtlpSignal::Metrics) {
            exports.metrics = Some(MetricExport { target: target(OtlpSignal::Metrics)?, interval });
        }
        if self.has(OtlpSignal::Logs) {
            exports.logs = Some(target(OtlpSignal::Logs)?);
        }
        if OtlpSignal::ALL.into_iter().all(|signal| exports.target(signal).is_none()) {
            let help = "switch on `traces`, `metrics` or `logs`, or remove the section";
            position.warning(reader.report, "this exports nothing", help);
        }
        Some(exports)
    }

    /// Returns whether this kind is exported: as a key says, or else a variable. Logs are not unless one of them does.
    fn has(&self, signal: OtlpSignal) -> bool {
        let written = self.switches.iter().find(|(known, _)| *known == signal).map(|(_, on)| *on);
        written.or_else(|| self.variables.is_exported(signal)).unwrap_or(signal != OtlpSignal::Logs)
    }

    fn target(
        &self,
        signal: OtlpSignal,
        service: &Arc<str>,
        attributes: &Arc<[(String, String)]>,
        position: &Position,
        judged: &mut Vec<String>,
        reader: &Reader<'_>,
    ) -> Option<OtlpTarget> {
        let errors = reader.report.errors();
        let variables = &self.variables;
        let protocol = self.protocol.or_else(|| variables.protocol(signal)).unwrap_or_default();
        let (word, rule) = match (&self.url, variables.endpoint(signal)) {
            (Some(url), _) => (url.clone(), OtlpPath::Below),
            (None, Some((word, true))) => (word, OtlpPath::Exact),
            (None, Some((word, false))) => (word, OtlpPath::Below),
            (None, None) => {
                let port = if protocol == OtlpProtocol::Grpc { 4317 } else { 4318 };
                let text = format!("http://localhost:{port}");
                (OtlpText { text, place: position.clone(), variable: None }, OtlpPath::Below)
            }
        };
        let url = OtlpUrl::read(&word, rule, signal, protocol, reader.report)?;
        let ca = self.ca.clone().or_else(|| variables.certificate(signal));
        let tls = url.tls(&word, ca.as_ref(), reader)?;
        let headers = self.headers.clone().or_else(|| variables.headers(signal)).unwrap_or_default();
        let timeout = self.timeout.or_else(|| variables.timeout(signal)).unwrap_or(TIMEOUT);
        if !judged.contains(&word.text) {
            url.judge(&word, !headers.is_empty(), protocol, reader.report);
            judged.push(word.text);
        }
        if reader.report.errors() > errors {
            return None;
        }
        let OtlpUrl { url, path, .. } = url;
        let (service, attributes) = (service.clone(), attributes.clone());
        Some(OtlpTarget { url, path, tls, protocol, headers, service, attributes, timeout })
    }
}

/// Reads `attributes`, each a text that may come from elsewhere.
fn attributes(fields: &Fields<'_>, reader: &Reader<'_>) -> Vec<(String, String)> {
    let Some(node) = fields.take("attributes") else { return Vec::new() };
    let table = Fields::new(node, "attributes of [otlp]", reader.report);
    let mut attributes = Vec::new();
    for entry in table.rest() {
        if entry.key == "service.name" {
            let place = Position::new(&node.source, entry.key_span.clone());
            place.error(reader.report, "the name of the service has a key of its own", "write `service_name = \"…\"`");
        } else if let Some((value, _)) = reader.value(&entry.value, reader.report) {
            attributes.push((entry.key.clone(), value.expose_secret().to_owned()));
        }
    }
    table.finish();
    attributes
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::InMemory;
    use crate::syntax::{Diagnostics, Node, SourceText};

    /// The exports of a config with these variables, and all that was reported.
    fn read_with(text: &str, variables: &[(&str, &str)]) -> (OtlpExports, Vec<String>) {
        let report = Diagnostics::new();
        let files = variables.iter().fold(InMemory::new(), |files, (name, value)| files.with_env(*name, *value));
        let root = Node::parse(&SourceText::new("proxy.toml", text), &report);
        let fields = Fields::new(&root, "the file", &report);
        let read = read_for(&fields, &Reader::new(&files, Path::new("proxy.toml"), &report), true);
        (read, report.into_diagnostics().iter().map(|found| found.one_line()).collect())
    }

    fn good(text: &str, variables: &[(&str, &str)]) -> OtlpExports {
        let (read, lines) = read_with(text, variables);
        assert_eq!(lines, Vec::<String>::new(), "{text}");
        read
    }

    /// Host, port and path of the exports of one kind.
    fn place(exports: &OtlpExports, signal: OtlpSignal) -> Option<String> {
        exports.target(signal).map(|target| format!("{}{}", target.url.authority(), target.path))
    }

    #[test]
    fn a_build_that_cannot_export_refuses_the_section_and_says_why() {
        let report = Diagnostics::new();
        let files = InMemory::new();
        let text = "[otlp]\nurl = \"http://collector:4318\"\n";
        let root = Node::parse(&SourceText::new("proxy.toml", text), &report);
        let fields = Fields::new(&root, "the file", &report);
        let read = read_for(&fields, &Reader::new(&files, Path::new("proxy.toml"), &report), false);
        assert!(read.metrics.is_none());
        let lines: Vec<String> = report.into_diagnostics().iter().map(|found| found.one_line()).collect();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("unknown key `otlp` in the file: this build cannot export"), "{lines:?}");
    }

    #[test]
    fn one_collector_takes_what_is_switched_on() {
        let exports = good("[otlp]\nurl = \"http://127.0.0.1:4318/base\"\n", &[]);
        assert_eq!(place(&exports, OtlpSignal::Traces).as_deref(), Some("127.0.0.1:4318/base/v1/traces"));
        assert_eq!(place(&exports, OtlpSignal::Metrics).as_deref(), Some("127.0.0.1:4318/base/v1/metrics"));
        assert_eq!(place(&exports, OtlpSignal::Logs), None, "lines of the log are not exported unasked");
        let metrics = exports.metrics.as_ref().unwrap();
        assert_eq!((metrics.interval, metrics.target.timeout), (INTERVAL, TIMEOUT));
        assert_eq!((exports.sample(), &*metrics.target.service), (Some(1.0), "countersign"));

        let text = "[otlp]\nurl = \"https://c.example\"\nprotocol = \"grpc\"\ntraces = false\nlogs = true\n\
                    interval = \"5s\"\ntimeout = \"2s\"\nservice_name = \"gate\"\nattributes = { \"a.b\" = \"c\" }\n";
        let exports = good(text, &[]);
        assert!(exports.traces.is_none() && exports.sample().is_none());
        let logs = exports.logs.as_ref().unwrap();
        assert_eq!(logs.path, "/opentelemetry.proto.collector.logs.v1.LogsService/Export");
        assert_eq!((logs.protocol, logs.tls.is_some(), logs.url.port()), (OtlpProtocol::Grpc, true, 443));
        assert_eq!(*logs.attributes, [("a.b".to_owned(), "c".to_owned())]);
        assert_eq!(exports.metrics.unwrap().interval, Duration::from_secs(5));

        // The older section is for traces alone, and goes on beside the other.
        let text = "[tracing]\notlp = \"http://t:1\"\nsample = 0.5\n[otlp]\nurl = \"http://m:2\"\ntraces = false\n";
        let exports = good(text, &[]);
        assert_eq!(place(&exports, OtlpSignal::Traces).as_deref(), Some("t:1/v1/traces"));
        assert_eq!(place(&exports, OtlpSignal::Metrics).as_deref(), Some("m:2/v1/metrics"));
        assert_eq!(exports.sample(), Some(0.5));
    }

    #[test]
    fn mistakes_are_told_once_each() {
        for (text, expected) in [
            ("", "[otlp] has no `url`"),
            ("url = 1", "expected"),
            ("env = false", "[otlp] has no `url`"),
            ("url = \"127.0.0.1:4318\"", "not the URL of a collector"),
            ("url = \"http://a:1/x\"\nprotocol = \"grpc\"", "speaks gRPC has no path"),
            ("url = \"http://a:1\"\nprotocol = \"http/json\"", "`protocol` cannot be `http/json`"),
            ("url = \"http://a:1\"\ninterval = \"10ms\"", "`interval` is too short"),
            ("url = \"http://a:1\"\nca = \"x\"", "no TLS to this collector"),
            ("url = \"https://a:1\"\nca = \"x\"", "no such file"),
            ("url = \"http://a:1\"\nattributes = { \"service.name\" = \"x\" }", "a key of its own"),
            ("url = \"http://a:1\"\nheaders = { te = { env = \"X\" } }", "`te` belongs to the export itself"),
            ("url = \"http://127.0.0.1:4317\"", "4317 is the port at which collectors speak grpc"),
            ("url = \"http://127.0.0.1:4318\"\nprotocol = \"grpc\"", "4318 is the port"),
            ("url = \"http://a:1\"\nheaders = { x-key = { env = \"X\" } }", "in the clear"),
            ("url = \"http://a:1\"\ntraces = false\nmetrics = false", "this exports nothing"),
            ("url = \"http://a:1\"\n[tracing]\notlp = \"http://a:1\"", "of [tracing] and of [otlp]"),
        ] {
            let (_, lines) = read_with(&format!("[otlp]\n{text}\n"), &[("X", "value")]);
            assert_eq!(lines.len(), 1, "{text}: {lines:?}");
            assert!(lines[0].contains(expected), "{text}: {lines:?}");
        }
    }

    fn attributes_of(metrics: &MetricExport) -> Vec<(&str, &str)> {
        metrics.target.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    const ALL: [(&str, &str); 12] = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/base"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4318/exactly/here"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs:4317"),
        ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc"),
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b,other=c"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "1500"),
        ("OTEL_SERVICE_NAME", "gate"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=else,a=1,b=%2C"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
    ];

    #[test]
    fn variables_say_what_the_section_does_not_and_nothing_unasked() {
        let (exports, lines) = read_with("[otlp]\nenv = true\n", &ALL);
        assert!(lines.len() == 3 && lines.iter().all(|line| line.contains("in the clear")), "{lines:?}");
        assert_eq!(place(&exports, OtlpSignal::Traces).as_deref(), Some("traces:4318/exactly/here"));
        assert_eq!(place(&exports, OtlpSignal::Metrics).as_deref(), Some("collector:4318/base/v1/metrics"));
        let logs = exports.logs.as_ref().unwrap();
        assert_eq!((logs.protocol, logs.url.host()), (OtlpProtocol::Grpc, "logs"));
        let metrics = exports.metrics.as_ref().unwrap();
        assert_eq!((metrics.interval.as_secs(), metrics.target.timeout.as_millis()), (5, 1500));
        assert_eq!((exports.sample(), &*metrics.target.service), (Some(0.25), "gate"));
        assert_eq!(attributes_of(metrics), [("a", "1"), ("b", ",")]);
        let told: Vec<_> = logs.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(told, [("api-key", &b"a b"[..]), ("other", b"c")]);
        assert!(logs.headers.iter().all(|(_, value)| value.is_sensitive()));

        // Keys win, and without `env` no variable counts.
        let keys = "url = \"http://127.0.0.1:1\"\nprotocol = \"http/protobuf\"\nheaders = {}\ntimeout = \"3s\"\n\
                    interval = \"7s\"\nsample = 0\nservice_name = \"own\"\nlogs = false\nattributes = { a = \"2\" }\n";
        let exports = good(&format!("[otlp]\nenv = true\n{keys}"), &ALL);
        let metrics = exports.metrics.as_ref().unwrap();
        assert_eq!(place(&exports, OtlpSignal::Traces).as_deref(), Some("127.0.0.1:1/v1/traces"));
        assert_eq!((metrics.interval.as_secs(), metrics.target.timeout.as_secs()), (7, 3));
        assert_eq!((exports.sample(), &*metrics.target.service, exports.logs.is_none()), (Some(0.0), "own", true));
        assert_eq!(attributes_of(metrics), [("a", "2"), ("b", ",")]);
        assert!(metrics.target.headers.is_empty());
        let exports = good("[otlp]\nurl = \"http://127.0.0.1:1\"\n", &ALL);
        let metrics = exports.metrics.as_ref().unwrap();
        assert_eq!(
            (&*metrics.target.service, metrics.interval, exports.sample()),
            ("countersign", INTERVAL, Some(1.0))
        );
        assert!(metrics.target.headers.is_empty() && metrics.target.attributes.is_empty() && exports.logs.is_none());
        assert!(good("", &ALL).metrics.is_none());
    }

    #[test]
    fn the_specifications_defaults_hold_where_no_variable_is_set() {
        let exports = good("[otlp]\nenv = true\n", &[("OTEL_SERVICE_NAME", " ")]);
        assert_eq!(place(&exports, OtlpSignal::Metrics).as_deref(), Some("localhost:4318/v1/metrics"));
        assert_eq!(&*exports.metrics.unwrap().target.service, "countersign", "an empty one is none");
        let exports = good("[otlp]\nenv = true\n", &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert_eq!(exports.metrics.unwrap().target.url.port(), 4317);
        let exports = good("[otlp]\nenv = true\n", &[("OTEL_RESOURCE_ATTRIBUTES", "service.name=x")]);
        assert_eq!(&*exports.metrics.unwrap().target.service, "x");
        assert!(good("[otlp]\nenv = true\n", &[("OTEL_SDK_DISABLED", "TRUE")]).traces.is_none());
        let exports = good("[otlp]\nenv = true\n", &[("OTEL_TRACES_EXPORTER", "none")]);
        assert!(exports.traces.is_none() && exports.metrics.is_some());
    }

    #[test]
    fn a_wrong_variable_is_named_and_its_value_not_shown() {
        for (name, value, expected) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:c4nary@host", "not the URL of a collector"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "c4nary", "not the URL of a collector"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "c4nary", "this protocol is not spoken"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "c4nary", "no list of keys with values"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=c4nary%0a", "the value of `a` cannot be sent"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "grpc-x=c4nary", "belongs to the export itself"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "c4nary", "no number of milliseconds"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "10", "no number of milliseconds from 1000 on"),
            ("OTEL_SDK_DISABLED", "c4nary", "neither `true` nor `false`"),
            ("OTEL_METRICS_EXPORTER", "c4nary", "no exporter of this name"),
            ("OTEL_RESOURCE_ATTRIBUTES", "c4nary", "no list of keys with values"),
            ("OTEL_TRACES_SAMPLER", "c4nary", "no sampler of this name"),
            ("OTEL_TRACES_SAMPLER", "always_on", "`parentbased_always_on`"),
        ] {
            let (_, lines) = read_with("[otlp]\nenv = true\n", &[(name, value)]);
            assert_eq!(lines.len(), 1, "{name}={value}: {lines:?}");
            let is_told =
                lines[0].contains(&format!("the environment variable `{name}`")) && lines[0].contains(expected);
            assert!(is_told && !lines[0].contains("c4nary"), "{name}={value}: {lines:?}");
        }
        let variables = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")];
        let (_, lines) = read_with("[otlp]\nenv = true\n", &variables);
        assert!(lines[0].contains("`OTEL_TRACES_SAMPLER_ARG`: this is not a share"), "{lines:?}");
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:1"), ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/x.pem")];
        let (_, lines) = read_with("[otlp]\nenv = true\n", &variables);
        assert!(
            lines.iter().any(|line| line.contains("`OTEL_EXPORTER_OTLP_CERTIFICATE`: it names no file")),
            "{lines:?}"
        );
    }
}

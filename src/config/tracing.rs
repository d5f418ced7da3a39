//! `[tracing]`: where traces go, and which.

use super::otlp::TraceExport;
use super::otlp_target::{
    OtlpPath, OtlpSignal, OtlpTarget, OtlpText, OtlpUrl, PROTOCOL_WORDS, PROTOCOLS, SERVICE, TIMEOUT, headers,
};
use super::reader::Reader;
use super::schema::{MAY, MUST, SchemaSection, SchemaShape};
use super::spanned_text::{Position, SpannedText, choice};
use crate::syntax::{Diagnostics, Fields, FromNode, Kind, Node};

pub(super) const KEYS: SchemaSection = (
    "tracing",
    &[
        ("ca", SchemaShape::Text, MAY, "path of the only CAs to trust, PEM"),
        ("headers", SchemaShape::Headers, MAY, "what every export carries, such as an API key"),
        ("otlp", SchemaShape::Text, MUST, "the collector, as in http://127.0.0.1:4318"),
        ("protocol", SchemaShape::Choice(&PROTOCOL_WORDS), MAY, "the transport; http/protobuf"),
        ("sample", SchemaShape::Share, MAY, "the share of new traces that is recorded; 1"),
        ("service_name", SchemaShape::Text, MAY, "what we are called there; countersign"),
    ],
);

/// A number between 0 and 1.
pub(super) struct Share(pub(super) f64);

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

/// Reads `[tracing]` for a build that can export, or for one that cannot; with the place of its name. Mistakes are
/// reported; the returned value is then unusable.
pub(super) fn read(root: &Fields<'_>, reader: &Reader<'_>, exports: bool) -> Option<(TraceExport, Position)> {
    let entry = root.take_entry("tracing")?;
    let fields = Fields::new(&entry.value, "[tracing]", reader.report);
    let position = Position::new(&entry.value.source, entry.key_span.clone());
    let otlp = fields.req::<SpannedText>("otlp", "\"http://127.0.0.1:4318\"");
    let protocol = choice(&fields, "protocol", &PROTOCOLS).unwrap_or_default();
    let ca = fields.opt::<SpannedText>("ca").map(OtlpText::from);
    let headers = headers(&fields, reader).unwrap_or_default();
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
    let word = OtlpText::from(otlp?);
    let url = OtlpUrl::read(&word, OtlpPath::BelowOnce, OtlpSignal::Traces, protocol, reader.report)?;
    let tls = url.tls(&word, ca.as_ref(), reader)?;
    url.judge(&word, !headers.is_empty(), protocol, reader.report);
    let service = service.map_or_else(|| SERVICE.into(), |word| word.text.into());
    let OtlpUrl { url, path, .. } = url;
    let attributes = [].into();
    let target = OtlpTarget { url, path, tls, protocol, headers, service, attributes, timeout: TIMEOUT };
    Some((TraceExport { target, sample }, position))
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
        let outcome = |exports| {
            let (report, files) = (Diagnostics::new(), InMemory::new());
            let root = Node::parse(&SourceText::new("proxy.toml", text), &report);
            let fields = Fields::new(&root, "the file", &report);
            let read = read(&fields, &Reader::new(&files, Path::new("proxy.toml"), &report), exports);
            let lines: Vec<String> = report.into_diagnostics().iter().map(|found| found.one_line()).collect();
            (read, lines)
        };
        let (refused, lines) = outcome(false);
        assert!(refused.is_none());
        assert_eq!(
            lines,
            ["proxy.toml:1:2: error: unknown key `tracing` in the file: this build cannot export traces; use a build \
              with the feature `otlp` (it is on by default), or remove the section"]
        );
        let (tracing, lines) = outcome(true);
        assert_eq!(lines, Vec::<String>::new());
        let (TraceExport { target, sample }, _) = tracing.unwrap();
        assert_eq!((target.url.port(), &*target.path, sample), (80, "/v1/traces", 0.5));
    }
}

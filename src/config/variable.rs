//! `vars` of a `[[route]]`: values that are taken from a request.

use std::sync::Arc;

use http::HeaderName;

use crate::route::{Pattern, Var, VarSource, json_pointer};
use crate::syntax::Fields;

use super::schema::{MAY, SchemaSection, SchemaShape};
use super::spanned_text::{Position, SpannedText};

pub(super) const KEYS: SchemaSection = (
    "var",
    &[
        ("forward", SchemaShape::Flag, MAY, "forwards the header all the same"),
        ("header", SchemaShape::Text, MAY, "the one header field of this name"),
        ("json", SchemaShape::Text, MAY, "the value at this JSON pointer of the body"),
        ("path", SchemaShape::Text, MAY, "the segment in braces of a template over the provider's path"),
        ("pattern", SchemaShape::Text, MAY, "a regular expression that the whole value must match"),
        ("query", SchemaShape::Text, MAY, "the one query parameter of this name"),
        ("value", SchemaShape::Text, MAY, "this constant"),
    ],
);

/// Reads `vars` of a route: the variables, and the headers that are read for them and not forwarded.
pub(super) fn variables(fields: &Fields<'_>) -> (Vec<Var>, Vec<HeaderName>) {
    let report = fields.report();
    let (mut vars, mut consumed) = (Vec::new(), Vec::new());
    let Some(node) = fields.take("vars") else { return (vars, consumed) };
    let table = Fields::new(node, "vars of [[route]]", report);
    for entry in table.rest() {
        let name: Arc<str> = entry.key.as_str().into();
        let position = Position::new(&node.source, entry.key_span.clone());
        SpannedText { text: entry.key.clone(), place: position.clone() }.judge_name(report);
        let own = Fields::new(&entry.value, format!("variable `{name}`"), report);
        let errors = report.errors();
        let pattern = own.opt::<SpannedText>("pattern");
        let forward = own.opt::<bool>("forward");
        let mut sources = Vec::new();
        if let Some(word) = own.opt::<SpannedText>("header") {
            match HeaderName::from_bytes(word.text.as_bytes()) {
                Ok(header) => {
                    if forward != Some(true) {
                        consumed.push(header.clone());
                    }
                    sources.push(VarSource::Header(header));
                }
                Err(_) => {
                    let help = "header names are letters, digits and `-`";
                    word.place.error(report, format!("`{}` is not a header name", word.text), help);
                }
            }
        } else if let (Some(_), Some(position)) = (forward, own.take("forward").map(Position::of)) {
            position.error(report, "`forward` is about headers", "leave it out: nothing else is taken away");
        }
        if let Some(word) = own.opt::<String>("query") {
            sources.push(VarSource::Query(word));
        }
        if let Some(word) = own.opt::<SpannedText>("json") {
            match json_pointer(&word.text) {
                Some(pointer) => sources.push(VarSource::Json(pointer)),
                None => {
                    let help = "write it as in `/debit/account` (RFC 6901)";
                    word.place.error(report, format!("`{}` is not a JSON pointer", word.text), help);
                }
            }
        }
        if let Some(word) = own.opt::<SpannedText>("path") {
            match Pattern::parse(&word.text, Some(&name)) {
                Ok(pattern) => sources.push(VarSource::Path(pattern)),
                Err(error) => {
                    let help = format!("write the provider's path, as in `/v1/{{{name}}}/*`");
                    word.place.error(report, format!("not a path template: {error}"), help);
                }
            }
        }
        if let Some(value) = own.opt::<String>("value") {
            sources.push(VarSource::Value(value));
        }
        own.finish();
        let mut sources = sources.into_iter();
        match (sources.next(), sources.next()) {
            (Some(source), None) => match Var::new(name, source, pattern.as_ref().map(|word| word.text.as_str())) {
                Ok(var) => vars.push(var),
                Err(error) => {
                    let position = pattern.map_or(position, |word| word.place);
                    position.error(report, error, "the pattern must match the whole value, as in `[0-9]{13}`");
                }
            },
            (None, _) if report.errors() > errors => {}
            (None, _) => {
                let title = format!("variable `{name}` says not where its value comes from");
                position.error(report, title, "give it `header`, `json`, `query`, `path` or `value`");
            }
            (Some(_), Some(_)) => {
                let title = format!("variable `{name}` comes from one place only");
                position.error(report, title, "keep one of `header`, `json`, `query`, `path` and `value`");
            }
        }
    }
    table.finish();
    (vars, consumed)
}

//! The forms of examples, told from their content, and the bounds on all of them together.

use serde_json::Value;

use super::bounded_json::{at, parse_bounded_json, parse_bounded_yaml, text_at};
use super::curl_notes::read_curl_notes;
use super::har::read_har;
use super::observed::ObservedExchange;
use super::open_api::read_open_api;
use super::postman::read_postman;

/// The largest example, in bytes.
pub const LONGEST_EXAMPLE: usize = 16 << 20;
/// The most examples at once.
pub const MOST_EXAMPLES: usize = 32;
/// The most exchanges of all examples together.
pub(super) const MOST_EXCHANGES: usize = 2000;

/// The form of an example.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ExampleFormat {
    CurlNotes,
    Har,
    OpenApi,
    Postman,
}

/// The exchanges of all examples.
pub(super) struct ReadExamples {
    pub exchanges: Vec<ObservedExchange>,
    pub remarks: Vec<String>,
    /// Where the facts come from, in the words of a profile.
    pub basis: &'static str,
    /// One line on what was read.
    pub seen: String,
}

/// The exchanges of one example, and remarks on what was left out.
#[derive(Default)]
pub(super) struct ReadExample {
    pub exchanges: Vec<ObservedExchange>,
    pub remarks: Vec<String>,
}

/// Reads examples. The error says which one cannot be read, by its number, and shows nothing of it.
pub(super) fn read_examples(examples: &[&[u8]]) -> Result<ReadExamples, String> {
    if examples.is_empty() || examples.len() > MOST_EXAMPLES {
        return Err(format!("name 1 to {MOST_EXAMPLES} files with examples"));
    }
    let (mut exchanges, mut remarks, mut parts, mut live) = (Vec::new(), Vec::new(), Vec::new(), true);
    for (number, bytes) in (1..).zip(examples) {
        let (format, read) = read_example(bytes).map_err(|why| format!("example {number} cannot be read: {why}"))?;
        let name = match format {
            ExampleFormat::CurlNotes => "notes with requests",
            ExampleFormat::Har => "a HAR recording",
            ExampleFormat::OpenApi => "an OpenAPI document",
            ExampleFormat::Postman => "a Postman collection",
        };
        live &= format == ExampleFormat::Har;
        parts.push(format!("{name} ({} exchanges)", read.exchanges.len()));
        exchanges.extend(read.exchanges);
        remarks.extend(read.remarks);
        if exchanges.len() > MOST_EXCHANGES {
            return Err(format!(
                "there are more than {MOST_EXCHANGES} exchanges: cut the examples down to the calls that matter"
            ));
        }
    }
    let basis = if live { "live" } else { "documents" };
    Ok(ReadExamples { exchanges, remarks, basis, seen: parts.join(", ") })
}

fn read_example(bytes: &[u8]) -> Result<(ExampleFormat, ReadExample), String> {
    if bytes.len() > LONGEST_EXAMPLE {
        return Err(format!("it is longer than {} MiB", LONGEST_EXAMPLE >> 20));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no text in UTF-8".to_owned())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.contains('\0') {
        return Err("it is no text".to_owned());
    }
    let start = text.trim_start();
    if start.starts_with('{') && looks_like_document(start) {
        return read_document(&parse_bounded_json(start)?);
    }
    if is_yaml_of_open_api(text) {
        return read_document(&parse_bounded_yaml(text)?);
    }
    Ok((ExampleFormat::CurlNotes, read_curl_notes(text)))
}

/// Returns whether a text that begins with `{` is one document; notes may begin so, too.
fn looks_like_document(text: &str) -> bool {
    let has_request_line =
        text.lines().any(|line| line.trim_start().trim_start_matches(['$', '>', ' ']).starts_with("curl "));
    !has_request_line
        || text.trim_end().ends_with('}') && ["\"log\"", "\"openapi\"", "\"item\""].iter().any(|key| text.contains(key))
}

fn is_yaml_of_open_api(text: &str) -> bool {
    text.lines().take(50).any(|line| line.starts_with("openapi:") || line.starts_with("swagger:"))
}

fn read_document(document: &Value) -> Result<(ExampleFormat, ReadExample), String> {
    if at(document, &["log", "entries"]).is_some() {
        return Ok((ExampleFormat::Har, read_har(document)?));
    }
    if at(document, &["item"]).is_some() && at(document, &["info"]).is_some() {
        return Ok((ExampleFormat::Postman, read_postman(document)?));
    }
    if text_at(document, &["openapi"]).starts_with("3.") {
        return Ok((ExampleFormat::OpenApi, read_open_api(document)?));
    }
    if document.get("swagger").is_some() {
        return Err("it is Swagger 2: convert it to OpenAPI 3 first".to_owned());
    }
    Err("it is JSON, and neither a HAR recording, a Postman collection nor an OpenAPI document".to_owned())
}

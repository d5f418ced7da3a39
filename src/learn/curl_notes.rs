//! Notes: curl command lines and bare requests, with the answers below them.
//!
//! ```text
//! curl -X POST https://bank.example/token -d 'client_id=…'
//!
//! HTTP/1.1 200 OK
//! Content-Type: application/json
//!
//! {"access_token":"…","expires_in":3600}
//! ```
//!
//! Several answers may follow one request; a line such as `401 Unauthorized` gives the next JSON its status. Whatever is
//! neither is prose.

use serde_json::Value;

use super::bounded_json::parse_json_prefix;
use super::example_format::{MOST_EXCHANGES, ReadExample};
use super::observed::{ObservedAnswer, ObservedBody, ObservedExchange, ObservedRequest, is_short, pairs};
use super::open_api::schema_example;
use super::plain_text::is_plain_name;
use super::shell_words::shell_words;
use super::sorted_exchanges::token_place;

/// The most bytes of brackets that turn out to be no JSON: each place may cost a walk to the end of the file.
const MOST_BROKEN: usize = 64 << 20;

/// Reads notes. Whatever cannot be understood is prose.
pub(super) fn read_curl_notes(text: &str) -> ReadExample {
    let mut reader = NotesReader {
        text,
        at: 0,
        read: ReadExample::default(),
        request: None,
        pending: UnfinishedAnswer::default(),
        listed: Vec::new(),
        broken: 0,
    };
    while reader.at < text.len() && reader.read.exchanges.len() < MOST_EXCHANGES {
        reader.step();
    }
    reader.end_request();
    reader.read
}

/// An answer of which the body has not come.
#[derive(Default)]
struct UnfinishedAnswer {
    answer: ObservedAnswer,
    /// True behind a status line of HTTP, where a body may be missing.
    is_head: bool,
    in_fields: bool,
}

struct NotesReader<'a> {
    text: &'a str,
    at: usize,
    read: ReadExample,
    /// The request, and the number of its answers.
    request: Option<(ObservedRequest, usize)>,
    pending: UnfinishedAnswer,
    /// Headers that a list of parameters names, of the request that follows.
    listed: Vec<(String, String)>,
    /// Bytes that were looked at and were no JSON.
    broken: usize,
}

impl<'a> NotesReader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Takes one line, one command or one JSON text.
    fn step(&mut self) {
        let rest = self.rest();
        let line = rest.lines().next().unwrap_or_default();
        let length = line_length(rest);
        let shown = line.trim_start().trim_start_matches(['$', '>', '#']).trim_start();
        if shown.starts_with("curl ") || shown.starts_with("curl.exe ") {
            let from = line.len() - shown.len();
            let (words, end) = shell_words(rest.get(from..).unwrap_or_default());
            self.at += from + end.max(1);
            self.end_request();
            self.request = curl_request(&words).map(|request| (request, 0));
            return;
        }
        if line.trim_start().starts_with(['{', '[']) && self.json(rest, line) {
            return;
        }
        self.at += length;
        self.line(line.trim());
    }

    /// Takes a JSON text as an answer, or as the body of a bare request.
    fn json(&mut self, rest: &str, line: &str) -> bool {
        let indent = line.len() - line.trim_start().len();
        if self.broken >= MOST_BROKEN {
            return false;
        }
        let (json, length) = match parse_json_prefix(rest.get(indent..).unwrap_or_default()) {
            Ok(found) => found,
            Err(looked_at) => {
                self.broken += looked_at;
                return false;
            }
        };
        self.at += indent + length;
        if !is_short(&json) {
            return true;
        }
        if let Some(example) = is_schema(&json).then(|| schema_example(&json)).flatten() {
            self.schema(example);
            return true;
        }
        let label = self.pending.answer.label.to_ascii_lowercase();
        let has_status = self.pending.answer.status.is_some();
        let is_request = !has_status
            && ["request", "body", "payload"].iter().any(|word| label.trim_end_matches(':').ends_with(word));
        match &mut self.request {
            Some((request, 0)) if matches!(request.body, ObservedBody::Nothing) && is_request => {
                request.body = ObservedBody::Json(json);
                self.pending = UnfinishedAnswer::default();
            }
            Some(_) if !is_request => {
                self.pending.answer.json = Some(json);
                self.end_answer();
            }
            Some(_) | None => self.pending = UnfinishedAnswer::default(),
        }
        true
    }

    /// Takes what a schema describes: the body of a request that has none, or the answer with the token.
    fn schema(&mut self, example: Value) {
        let has_token = token_place(&example).is_some();
        match &mut self.request {
            Some((request, 0))
                if matches!(request.body, ObservedBody::Nothing) && request.method == "POST" && !has_token =>
            {
                request.body = ObservedBody::Json(example);
                self.pending = UnfinishedAnswer::default();
            }
            Some(_) if has_token => {
                self.pending = UnfinishedAnswer::default();
                self.pending.answer.json = Some(example);
                self.end_answer();
            }
            Some(_) | None => self.pending = UnfinishedAnswer::default(),
        }
    }

    fn line(&mut self, line: &str) {
        let plain = line.trim_start_matches(['<', '>', '#', '-', '*', ' ']);
        if let Some(status) =
            plain.strip_prefix("HTTP/").and_then(|rest| rest.split_whitespace().nth(1)).and_then(status_of)
        {
            // The words above a head belong to it.
            let label =
                if self.pending.is_head { String::new() } else { std::mem::take(&mut self.pending.answer.label) };
            self.end_head();
            self.pending = UnfinishedAnswer { is_head: true, in_fields: true, ..UnfinishedAnswer::default() };
            self.pending.answer.status = Some(status);
            self.pending.answer.label = label;
            return;
        }
        if self.pending.in_fields {
            match field_of(plain) {
                Some(field) => return self.pending.answer.headers.push(field),
                None => self.pending.in_fields = false,
            }
        }
        if line.is_empty() {
            return;
        }
        // A portal that lists parameters has the name of a header in the line above.
        if ["(apikey located in header)", "required in header"].contains(&line.to_ascii_lowercase().as_str()) {
            let name = self.pending.answer.label.clone();
            let is_new = !self.listed.iter().any(|(known, _)| *known == name);
            if is_plain_name(&name) && is_new && self.listed.len() < 32 {
                self.listed.push((name.clone(), format!("<{name}>")));
            }
            return;
        }
        if let Some((mut request, length)) = bare_request(line, self.rest()) {
            self.end_request();
            self.at += length;
            if request.headers.is_empty() {
                request.headers.append(&mut self.listed);
            }
            self.request = Some((request, 0));
            return;
        }
        if let Some((status, code, words)) = error_row(plain) {
            self.end_head();
            if let Some((request, count)) = &mut self.request {
                *count += 1;
                let answer = ObservedAnswer {
                    status: Some(status),
                    code: Some(code),
                    label: words,
                    ..ObservedAnswer::default()
                };
                self.read.exchanges.push(ObservedExchange { request: request.clone(), answer: Some(answer) });
            }
            return;
        }
        if let Some(status) = heading_status(plain) {
            self.end_head();
            self.pending.answer.status = Some(status);
        }
        self.pending.answer.label = line.chars().take(200).collect();
    }

    /// Keeps an answer without a body, if its head was shown.
    fn end_head(&mut self) {
        if self.pending.is_head {
            self.pending.answer.is_empty = true;
            self.end_answer();
        }
        self.pending = UnfinishedAnswer::default();
    }

    fn end_answer(&mut self) {
        let UnfinishedAnswer { answer, .. } = std::mem::take(&mut self.pending);
        if let Some((request, count)) = &mut self.request {
            *count += 1;
            self.read.exchanges.push(ObservedExchange { request: request.clone(), answer: Some(answer) });
        }
    }

    fn end_request(&mut self) {
        self.end_head();
        if let Some((request, 0)) = self.request.take() {
            self.read.exchanges.push(ObservedExchange { request, answer: None });
        }
    }
}

/// Returns whether a JSON text describes an object instead of being one.
fn is_schema(json: &Value) -> bool {
    json.get("type").is_some_and(|kind| kind == "object") && json.get("properties").is_some_and(Value::is_object)
}

/// The length of the first line with its end.
fn line_length(text: &str) -> usize {
    text.find('\n').map_or(text.len(), |at| at + 1)
}

fn status_of(word: &str) -> Option<u16> {
    let word = word.trim_matches(|c: char| !c.is_ascii_digit());
    word.parse().ok().filter(|status| word.len() == 3 && (200..=599).contains(status))
}

/// The status in a heading such as `401 Unauthorized`, `- 503` or `Status: 400`.
fn heading_status(line: &str) -> Option<u16> {
    if line.len() > 80 {
        return None;
    }
    let lower = line.to_ascii_lowercase();
    let after = ["status code", "http status", "status", "http", "response"]
        .iter()
        .find_map(|start| lower.strip_prefix(start))
        .unwrap_or(&lower)
        .trim_start_matches([':', ' ', '(', '=', '`', '*']);
    let word = after.split_whitespace().next()?;
    status_of(word).filter(|_| word.trim_matches(['`', '*', ':', ')', '.', ',']).len() == 3)
}

/// A row of a table of errors: the HTTP status, the bank's code, words.
fn error_row(line: &str) -> Option<(u16, String, String)> {
    let mut words = line.split(['|', ' ', '\t']).filter(|word| !word.is_empty());
    let status = status_of(words.next()?).filter(|status| *status >= 400)?;
    let code = words.next().filter(|code| {
        let has_digit = code.bytes().any(|b| b.is_ascii_digit());
        (3..=24).contains(&code.len())
            && has_digit
            && code.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    })?;
    let label: Vec<&str> = words.take(40).collect();
    (!label.is_empty()).then(|| (status, code.to_owned(), label.join(" ")))
}

/// A header field such as `Content-Type: application/json`.
fn field_of(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    is_name.then(|| (name.to_owned(), value.trim().to_owned()))
}

/// A bare request: a line such as `POST /token HTTP/1.1` or `POST https://…`, fields, and a body behind an empty line.
/// Returns it with the length of what follows its first line.
fn bare_request(line: &str, rest: &str) -> Option<(ObservedRequest, usize)> {
    let method = ["GET", "POST", "PUT", "DELETE", "PATCH"].into_iter().find(|method| line.starts_with(method))?;
    let target = line.get(method.len()..)?.trim_start();
    if !(target.starts_with('/')
        || target.starts_with("http://")
        || target.starts_with("https://")
        || target.starts_with("{{"))
    {
        return None;
    }
    let target = target.split_whitespace().next()?;
    let (mut headers, mut taken) = (Vec::new(), 0);
    for line in rest.lines() {
        match field_of(line.trim()) {
            Some(field) if headers.len() < 100 => {
                headers.push(field);
                taken += line_length(rest.get(taken..).unwrap_or_default());
            }
            Some(_) | None => break,
        }
    }
    let has_fields = !headers.is_empty();
    let mut request = ObservedRequest::new(method, target, headers);
    // A body follows the fields behind an empty line.
    let behind = rest.get(taken..).unwrap_or_default();
    let body = behind.trim_start_matches(['\r', '\n']);
    let is_form = |line: &str| {
        line.split_once('=').is_some_and(|(name, _)| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
    };
    if has_fields && method != "GET" {
        if body.starts_with('{')
            && let Ok((json, length)) = parse_json_prefix(body)
        {
            request.body = ObservedBody::Json(json);
            return Some((request, taken + (behind.len() - body.len()) + length));
        }
        let line = body.lines().next().unwrap_or_default();
        if is_form(line) {
            request.body = ObservedBody::Form(pairs(line.trim()));
            return Some((request, taken + (behind.len() - body.len()) + line.len()));
        }
    }
    Some((request, taken))
}

/// Options of curl without an argument, by one letter.
const FLAGS: &str = "fgiIjklLnNOpqRsSvVZ0123456#a";

/// The request of a curl command. Files that it names are never opened.
fn curl_request(words: &[String]) -> Option<ObservedRequest> {
    let (mut method, mut url, mut headers, mut data, mut as_query) = (None, None, Vec::new(), Vec::new(), false);
    let (mut basic, mut unknown, mut is_json) = (None, None, false);
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        if !word.starts_with('-') || word == "-" {
            url.get_or_insert_with(|| word.clone());
            continue;
        }
        for (option, joined) in options(word) {
            if is_flag(&option) {
                as_query |= option == "-G" || option == "--get";
                if option == "-I" || option == "--head" {
                    method = Some("HEAD".to_owned());
                }
                continue;
            }
            let Some(value) = joined.or_else(|| words.next().cloned()) else { break };
            match option.as_str() {
                "-X" | "--request" => method = Some(value),
                "--url" => url = Some(value),
                "-H" | "--header" => {
                    let split =
                        value.split_once(':').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
                    headers.extend(split);
                }
                "-u" | "--user" => {
                    let (id, secret) = value.split_once(':').unwrap_or((&value, "<password>"));
                    basic = Some((id.to_owned(), secret.to_owned()));
                }
                "--oauth2-bearer" => headers.push(("Authorization".to_owned(), format!("Bearer {value}"))),
                "-d" | "--data" | "--data-raw" | "--data-binary" | "--data-ascii" | "--json" => {
                    is_json |= option == "--json";
                    if value.starts_with('@') && option != "--data-raw" {
                        unknown = Some("the body of the token call is in a file of its own: put it into the example");
                    }
                    data.push(value);
                }
                "--data-urlencode" => data.push(encoded(&value)),
                "-F" | "--form" | "--form-string" | "-T" | "--upload-file" => {
                    unknown = Some("the token call sends a multipart body or a file, which no profile can say");
                }
                _ => {}
            }
        }
    }
    let has_data = !data.is_empty() && !as_query;
    let method = method.unwrap_or_else(|| if has_data { "POST" } else { "GET" }.to_owned());
    let mut request = ObservedRequest::new(&method, &url?, headers);
    request.basic = basic.or(request.basic);
    request.unknown = unknown;
    if is_json && request.header("content-type").is_none() {
        request.headers.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    if as_query {
        request.query.extend(pairs(&data.join("&")));
    } else if has_data {
        let text = data.join(if is_json { "" } else { "&" });
        request.take_body(&text);
    }
    Some(request)
}

/// Takes a word of options apart: `-sS`, `-XPOST`, `--request=POST`.
fn options(word: &str) -> Vec<(String, Option<String>)> {
    if word.starts_with("--") {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value.to_owned())));
        return vec![(name.to_owned(), value)];
    }
    let mut found = Vec::new();
    for (at, letter) in word.char_indices().skip(1) {
        let option = format!("-{letter}");
        if is_flag(&option) {
            found.push((option, None));
            continue;
        }
        let joined = word.get(at + letter.len_utf8()..).filter(|rest| !rest.is_empty()).map(ToOwned::to_owned);
        found.push((option, joined));
        break;
    }
    found
}

fn is_flag(option: &str) -> bool {
    const LONG: [&str; 18] = [
        "--get",
        "--head",
        "--silent",
        "--show-error",
        "--verbose",
        "--include",
        "--insecure",
        "--location",
        "--compressed",
        "--fail",
        "--globoff",
        "--http1.1",
        "--http2",
        "--no-buffer",
        "--tlsv1.2",
        "--tlsv1.3",
        "--anyauth",
        "--basic",
    ];
    match option.strip_prefix("--") {
        Some(_) => LONG.contains(&option),
        None => option == "-G" || option.chars().nth(1).is_some_and(|letter| FLAGS.contains(letter)),
    }
}

/// The value of `--data-urlencode` as it goes out.
fn encoded(value: &str) -> String {
    let (name, content) = value.split_once('=').unwrap_or(("", value));
    let encoded: String = form_urlencoded::byte_serialize(content.as_bytes()).collect();
    if name.is_empty() { encoded } else { format!("{name}={encoded}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_read_with_all_its_options() {
        let text = "Get a token:\n\n$ curl -sSX POST 'https://bank.example/open/token?x=1' \\\n   -H 'Content-Type: application/json' \\\n   \
                    --user id:pa:ss -d '{\"a\":\"b\"}' | jq .\n\nHTTP/1.1 200 OK\nx-id: 7\n\n{\"access_token\":\n \"t\"}\n\n401 Unauthorized\n{\"error\":\"invalid_client\"}\n";
        let read = read_curl_notes(text).exchanges;
        assert_eq!(read.len(), 2);
        let (request, answer) = (&read[0].request, read[0].answer.as_ref().expect("an answer"));
        assert_eq!((request.method.as_str(), request.origin.as_deref()), ("POST", Some("https://bank.example")));
        assert_eq!((request.path.as_str(), request.query.len()), ("/open/token", 1));
        assert_eq!(request.basic, Some(("id".to_owned(), "pa:ss".to_owned())));
        assert!(matches!(&request.body, ObservedBody::Json(json) if json["a"] == "b"));
        assert_eq!((answer.status, answer.header("x-id")), (Some(200), Some("7")));
        let second = read[1].answer.as_ref().expect("an answer");
        assert_eq!(
            (second.status, second.json.as_ref().map(|json| json["error"] == "invalid_client")),
            (Some(401), Some(true))
        );
    }

    #[test]
    fn forms_queries_and_bare_requests_are_read() {
        let text = "curl -G https://bank.example/t -d a=1 --data-urlencode 'b=x y'\n\
                    curl https://bank.example/f --data 'a=1' --data 'b=2'\n\
                    POST /login HTTP/1.1\nContent-Type: application/x-www-form-urlencoded\n\nuser=u&password=p\n\n{\"token\":\"t\"}\n\
                    401  9300  Expired token\n";
        let read = read_curl_notes(text).exchanges;
        assert_eq!(read.len(), 4);
        assert_eq!(read[0].request.query, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x y".to_owned())]);
        assert!(matches!(&read[1].request.body, ObservedBody::Form(pairs) if pairs.len() == 2));
        assert_eq!(read[1].request.method, "POST");
        assert!(matches!(&read[2].request.body, ObservedBody::Form(pairs) if pairs.len() == 2));
        assert!(read[2].answer.as_ref().is_some_and(|answer| answer.json.is_some()));
        assert_eq!(read[3].answer.as_ref().and_then(|answer| answer.code.clone()).as_deref(), Some("9300"));
    }

    #[test]
    fn a_portal_that_lists_parameters_and_schemas_is_read() {
        let text = "X-Client-Id\n(apiKey located in header)\nMsgId\nRequired in header\nstring\n\
                    POST https://bank.example/token\nTry this operation\n\
                    {\"type\":\"object\",\"properties\":{\"grant_type\":{\"enum\":[\"client_credentials\"]},\"scope\":{\"type\":\"string\"}}}\n\
                    {\"type\":\"object\",\"properties\":{\"access_token\":{\"type\":\"string\"},\"expires_in\":{\"type\":\"integer\"}}}\n";
        let read = read_curl_notes(text).exchanges;
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].request.headers.len(), 2);
        assert!(
            matches!(&read[0].request.body, ObservedBody::Json(json) if json["grant_type"] == "client_credentials")
        );
        assert!(
            read[0]
                .answer
                .as_ref()
                .and_then(|answer| answer.json.as_ref())
                .is_some_and(|json| json["expires_in"] == 3600)
        );
    }

    #[test]
    fn broken_json_costs_little() {
        let text = format!("curl https://bank.example/t\n{}", "{\"a\":\n".repeat(100_000));
        assert_eq!(read_curl_notes(&text).exchanges.len(), 1);
    }
}

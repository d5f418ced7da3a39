//! One case of the suite: what a client sends, and what the RFC has a server do.

use std::time::Duration;

use tokio::time::timeout;

use crate::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, Ending, Frame, GOAWAY, HEADERS, Line, PREFACE, PROTOCOL_ERROR, RST_STREAM,
    SETTINGS, block, frame, settings,
};
use crate::harness::{Harness, KEY};

/// A case that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// The stream of the request that shows that a connection goes on.
const LAST: u32 = 9_999;

/// What a case does.
pub enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Waits until both sides know the other's settings.
    Settled,
    /// Waits for the head of the answer on this stream.
    Begun(u32),
    /// Waits for the end of the answer on this stream.
    Ended(u32),
}

/// Several steps, or bytes that are sent.
pub struct Steps(Vec<Step>);

impl From<Vec<u8>> for Steps {
    fn from(bytes: Vec<u8>) -> Self {
        Self(vec![Step::Send(bytes)])
    }
}

impl<const N: usize> From<[Step; N]> for Steps {
    fn from(steps: [Step; N]) -> Self {
        Self(steps.into())
    }
}

/// What must be seen.
enum Seen {
    /// A connection error with one of these codes (RFC 9113 section 5.4.1): GOAWAY, then the connection is closed.
    Goaway(&'static [u32]),
    /// The same, but GOAWAY may be missing.
    Closed(&'static [u32]),
    /// A stream error with one of these codes. An endpoint may treat any as a connection error (section 5.4.1).
    Reset(u32, &'static [u32]),
    /// A malformed request (section 8.1.1): a stream error, before which a server may answer with 4xx.
    Malformed(u32),
    /// This answer.
    Answer(u32, u16),
    /// Nothing, and the connection serves on.
    Ignored,
}

/// A case.
pub struct Case {
    rfc: u16,
    section: &'static str,
    name: &'static str,
    /// Without preface and settings before it.
    bare: bool,
    steps: Vec<Step>,
    seen: Seen,
    /// The code that h2 gives instead of the one that the RFC asks for.
    general: bool,
}

pub fn rfc9113(section: &'static str, name: &'static str, steps: impl Into<Steps>) -> Case {
    Case { rfc: 9113, section, name, bare: false, steps: steps.into().0, seen: Seen::Ignored, general: false }
}

pub fn rfc7541(section: &'static str, name: &'static str, steps: impl Into<Steps>) -> Case {
    Case { rfc: 7541, ..rfc9113(section, name, steps) }
}

impl Case {
    /// Nothing but its own bytes is sent.
    pub fn bare(self) -> Self {
        Self { bare: true, ..self }
    }

    pub fn goaway(self, codes: &'static [u32]) -> Self {
        Self { seen: Seen::Goaway(codes), ..self }
    }

    pub fn closed(self, codes: &'static [u32]) -> Self {
        Self { seen: Seen::Closed(codes), ..self }
    }

    pub fn reset(self, stream: u32, codes: &'static [u32]) -> Self {
        Self { seen: Seen::Reset(stream, codes), ..self }
    }

    pub fn malformed(self, stream: u32) -> Self {
        Self { seen: Seen::Malformed(stream), ..self }
    }

    pub fn answer(self, stream: u32, status: u16) -> Self {
        Self { seen: Seen::Answer(stream, status), ..self }
    }

    pub fn ignored(self) -> Self {
        Self { seen: Seen::Ignored, ..self }
    }

    /// h2 says PROTOCOL_ERROR where the RFC has a code of its own. The connection ends all the same, and no peer may do
    /// anything else because of a code (section 7).
    pub fn but_h2_names_no_code_of_its_own(self) -> Self {
        Self { general: true, ..self }
    }

    /// Plays it. An error says what was seen instead.
    pub async fn run(self, stage: &Harness) -> Result<(), String> {
        let told = format!("RFC {} section {}, {}", self.rfc, self.section, self.name);
        let mut line = Line::new(stage.client.tls(&[b"h2"]).await.map_err(|error| format!("{told}: {error}"))?);
        let verdict = match timeout(PATIENCE, self.play(&mut line)).await {
            Ok(verdict) => verdict,
            Err(_) => Err("nothing more comes".to_owned()),
        };
        verdict.map_err(|why| {
            let seen: Vec<_> = line.seen.iter().map(told_of).collect();
            format!("{told}: {why}; {:?} after {}", line.ending, seen.join(", "))
        })
    }

    async fn play<S>(self, line: &mut Line<S>) -> Result<(), String>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        if !self.bare {
            line.send([PREFACE, &settings(&[])].concat()).await;
        }
        for step in self.steps {
            let there = match step {
                Step::Send(bytes) => {
                    line.send(bytes).await;
                    true
                }
                Step::Settled => line.until(|frame| frame.kind == SETTINGS && frame.has(ACK)).await,
                Step::Begun(stream) => line.until(|frame| frame.is(HEADERS, stream)).await,
                Step::Ended(stream) => line.until(|frame| frame.ends(stream)).await,
            };
            if !there {
                return Err("it ended too early".to_owned());
            }
        }
        let stream_error = |frame: &Frame, stream| frame.is(RST_STREAM, stream) || frame.kind == GOAWAY;
        match self.seen {
            Seen::Goaway(codes) => {
                line.rest().await;
                let code = line.seen.iter().rev().find(|frame| frame.kind == GOAWAY).and_then(Frame::code);
                if line.ending != Some(Ending::Closed) {
                    return Err("the connection was not closed properly".to_owned());
                }
                named(code, codes, self.general)
            }
            Seen::Closed(codes) => {
                line.rest().await;
                match line.seen.iter().rev().find(|frame| frame.kind == GOAWAY) {
                    Some(goaway) => named(goaway.code(), codes, self.general),
                    None => Ok(()),
                }
            }
            Seen::Reset(stream, codes) => {
                line.until(|frame| stream_error(frame, stream)).await;
                let last = line.seen.last().filter(|frame| stream_error(frame, stream)).cloned();
                named(last.as_ref().and_then(Frame::code), codes, self.general)?;
                goes_on(line, last.is_some_and(|frame| frame.kind == RST_STREAM)).await
            }
            Seen::Malformed(stream) => {
                line.until(|frame| stream_error(frame, stream) || frame.is(HEADERS, stream)).await;
                let last = line.seen.last().filter(|frame| frame.kind != SETTINGS).cloned();
                match &last {
                    Some(frame) if frame.kind == HEADERS => match frame.status() {
                        Some(400..=499) => {}
                        other => return Err(format!("it was answered with {other:?}")),
                    },
                    other => named(other.as_ref().and_then(Frame::code), &[PROTOCOL_ERROR], false)?,
                }
                goes_on(line, last.is_some_and(|frame| frame.kind != GOAWAY)).await
            }
            Seen::Answer(stream, status) => {
                line.until(|frame| stream_error(frame, stream) || frame.is(HEADERS, stream)).await;
                let answer = line.seen.last().and_then(Frame::status);
                if answer != Some(status) {
                    return Err(format!("no {status} but {answer:?}"));
                }
                if !line.seen.last().is_some_and(|frame| frame.ends(stream)) {
                    line.until(|frame| stream_error(frame, stream) || frame.ends(stream)).await;
                }
                undisturbed(line)?;
                goes_on(line, true).await
            }
            Seen::Ignored => {
                goes_on(line, true).await?;
                undisturbed(line)
            }
        }
    }
}

/// Whether an error has one of these codes. `general`: another than these, exactly.
fn named(code: Option<u32>, codes: &[u32], general: bool) -> Result<(), String> {
    match code {
        Some(code) if !general && codes.contains(&code) => Ok(()),
        Some(PROTOCOL_ERROR) if general && !codes.contains(&PROTOCOL_ERROR) => Ok(()),
        Some(code) if codes.contains(&code) => {
            Err("h2 gives the RFC's code; the case need make no exception".to_owned())
        }
        Some(code) => Err(format!("the code is {code:#x}, not one of {codes:x?}")),
        None => Err("no error was seen".to_owned()),
    }
}

/// No error came.
fn undisturbed<S>(line: &Line<S>) -> Result<(), String> {
    match line.seen.iter().find(|frame| matches!(frame.kind, RST_STREAM | GOAWAY)) {
        Some(_) => Err("an error came".to_owned()),
        None => Ok(()),
    }
}

/// The connection answers, and serves a request.
async fn goes_on<S>(line: &mut Line<S>, it_should: bool) -> Result<(), String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    if !it_should {
        return Ok(());
    }
    if !line.answers(0xa5).await {
        return Err("PING is not answered any more".to_owned());
    }
    line.send([settings(&[(crate::frames::INITIAL_WINDOW_SIZE, 65_535)]), whole(LAST, &fields("GET", FINE))].concat())
        .await;
    line.until(|frame| frame.is(HEADERS, LAST)).await;
    let status = line.seen.last().filter(|frame| frame.stream == LAST).and_then(Frame::status);
    line.until(|frame| frame.ends(LAST)).await;
    match status {
        Some(200) => Ok(()),
        other => Err(format!("the connection does not serve any more: {other:?}")),
    }
}

fn told_of(frame: &Frame) -> String {
    let Frame { kind, flags, stream, payload } = frame;
    let shown = &payload[..payload.len().min(12)];
    format!("({kind}, {flags:#x}, {stream}, {} bytes {shown:x?})", payload.len())
}

// What cases are made of.

/// The path of a request that may reach the bank, and of one that must not.
pub const FINE: &str = "/bank/echo/fine";
pub const NEVER: &str = "/bank/echo/never";

/// A request's fields.
pub type Fields = Vec<(&'static str, String)>;

/// The fields of a good request.
pub fn fields(method: &str, path: &str) -> Fields {
    vec![
        (":method", method.to_owned()),
        (":scheme", "https".to_owned()),
        (":authority", "localhost".to_owned()),
        (":path", path.to_owned()),
        ("authorization", format!("Bearer {KEY}")),
    ]
}

/// A request that must not reach the bank: with these fields at its end.
pub fn never_with(more: &[(&'static str, &str)]) -> Fields {
    let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
    fields("GET", NEVER).into_iter().chain(more).collect()
}

/// A request that must not reach the bank: without this field.
pub fn never_without(name: &str) -> Fields {
    let mut fields = fields("GET", NEVER);
    fields.retain(|(other, _)| *other != name);
    fields
}

/// A request that must not reach the bank: with another value of this field.
pub fn never_where(name: &'static str, value: &str) -> Fields {
    let mut fields = fields("GET", NEVER);
    for field in fields.iter_mut().filter(|(other, _)| *other == name) {
        value.clone_into(&mut field.1);
    }
    fields
}

/// HEADERS of a whole request.
pub fn whole(stream: u32, fields: &[(&str, String)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(fields))
}

/// HEADERS of a request whose body follows.
pub fn open(stream: u32, fields: &[(&str, String)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(fields))
}

/// A good request without a body.
pub fn get(stream: u32) -> Vec<u8> {
    whole(stream, &fields("GET", FINE))
}

/// The head of a good request whose body follows.
pub fn post(stream: u32) -> Vec<u8> {
    open(stream, &fields("POST", FINE))
}

/// A piece of a body.
pub fn data(stream: u32, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    frame(DATA, 0, stream, bytes.as_ref())
}

/// The last piece of a body.
pub fn last(stream: u32, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, bytes.as_ref())
}

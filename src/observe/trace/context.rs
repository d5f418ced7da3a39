//! Trace context, as W3C Trace Context (Level 2) writes it into `traceparent`.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// `traceparent`: the trace, and the span that asks.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`: what other tracing systems add to it.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

const SAMPLED: u8 = 1;
/// The trace id's last seven bytes are random (Level 2, section 3.2.2.5.2).
const RANDOM: u8 = 2;
/// The length of version 00: two, 32, 16 and two hexadecimal digits with dashes between.
const LENGTH: usize = 55;

/// Names a trace. Never zero.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct TraceId([u8; 16]);

/// Names a span within its trace. Never zero.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct SpanId([u8; 8]);

/// One span of one trace, as others hear of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Context {
    /// Id of the trace to which the span belongs.
    pub trace: TraceId,
    /// Id of the span within its trace.
    pub span: SpanId,
    /// Bit 0: somebody records it. Bit 1: the trace's name is random.
    pub flags: u8,
}

impl Context {
    /// Creates the first span of a new trace, not recorded yet.
    pub fn new() -> Self {
        let mut trace = rand::random::<[u8; 16]>();
        if trace == [0; 16] {
            trace[0] = 1;
        }
        Self { trace: TraceId(trace), span: SpanId::new(), flags: RANDOM }
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn sibling(self) -> Self {
        Self { span: SpanId::new(), ..self }
    }

    /// The same span, recorded or not.
    #[must_use]
    pub const fn recorded(self, sampled: bool) -> Self {
        Self { flags: (self.flags & !SAMPLED) | sampled as u8, ..self }
    }

    /// Returns whether this trace is recorded.
    #[inline]
    pub const fn sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Reads the value of a `traceparent`. Later versions are read as far as this one goes (section 4.3 there); bits
    /// that it does not know are dropped.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let ends = match value.len() {
            LENGTH => true,
            longer if longer > LENGTH => !value.starts_with(b"00") && value[LENGTH] == b'-',
            _ => false,
        };
        let dashes = ends && value[2] == b'-' && value[35] == b'-' && value[52] == b'-';
        if !dashes {
            return None;
        }
        let [version] = unhex(&value[..2])?;
        let (trace, span) = (unhex(&value[3..35])?, unhex(&value[36..52])?);
        let [flags] = unhex(&value[53..55])?;
        let sound = version != 0xff && trace != [0; 16] && span != [0; 8];
        sound.then_some(Self { trace: TraceId(trace), span: SpanId(span), flags: flags & (SAMPLED | RANDOM) })
    }

    /// The value of a `traceparent` that names this span as the one that asks.
    pub fn header(self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put_hex(&self.trace.0, &mut text[3..35]);
        put_hex(&self.span.0, &mut text[36..52]);
        put_hex(&[self.flags], &mut text[53..55]);
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}

/// The span that asks, as the one `traceparent` of a request names it.
pub fn parent(headers: &HeaderMap) -> Option<Context> {
    let first = headers.get(TRACEPARENT)?;
    if headers.get_all(TRACEPARENT).iter().nth(1).is_some() {
        return None;
    }
    Context::parse(first.as_bytes())
}

impl SpanId {
    /// Returns the id as eight bytes.
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }

    fn new() -> Self {
        let mut span = rand::random::<[u8; 8]>();
        if span == [0; 8] {
            span[0] = 1;
        }
        Self(span)
    }
}

impl TraceId {
    /// Returns the id as sixteen bytes.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// Its last 56 bits, which decide on sampling: they are the ones that are random for sure.
    pub(super) fn chance(self) -> u64 {
        self.0[9..].iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
    }
}

/// Lower-case digits only, as the recommendation wants them.
fn unhex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

fn put_hex(bytes: &[u8], out: &mut [u8]) {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
    for (byte, pair) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        pair[0] = digit(byte >> 4);
        pair[1] = digit(byte & 15);
    }
}

fn show(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The recommendation's own example.
    const SOUND: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_sound_one_is_read_and_written_alike() {
        let read = Context::parse(SOUND.as_bytes()).unwrap();
        assert_eq!(read.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(read.span.to_string(), "00f067aa0ba902b7");
        assert!(read.sampled());
        assert_eq!(read.header(), SOUND);
        assert_eq!(read.recorded(false).header(), SOUND.replace("-01", "-00"));
        let sibling = read.sibling();
        assert!(sibling.trace == read.trace && sibling.span != read.span && sibling.sampled());
    }

    #[test]
    fn what_is_not_sound_is_not_read() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Context::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_this_one_goes() {
        let later = Context::parse(format!("cc{}-what-comes", SOUND[2..].replace("-01", "-fd")).as_bytes()).unwrap();
        assert_eq!(later.header(), SOUND, "unknown bits are dropped");
        assert!(Context::parse(format!("cc{}", &SOUND[2..]).as_bytes()).is_some());
    }

    #[test]
    fn two_fields_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, SOUND.parse().unwrap());
        assert!(parent(&headers).is_some());
        headers.append(TRACEPARENT, SOUND.parse().unwrap());
        assert_eq!(parent(&headers), None);
    }
}

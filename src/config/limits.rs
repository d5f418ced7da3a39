//! `[limits]`: the resources that are spent on clients.

use std::time::Duration;

use crate::syntax::byte_size::ByteSize;
use crate::syntax::{Fields, FromNode, Kind};

use super::reader::Reader;
use super::schema::{DURATION_OR_OFF, MAY, SchemaSection, SchemaShape};

/// `[limits]`. `None` and zero-size limits are off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Client connections of the whole process.
    pub connections: Option<usize>,
    /// Client connections of one peer: an IPv4 address, or an IPv6 network of 64 bits.
    pub connections_per_peer: Option<usize>,
    /// TLS handshakes with clients under way in the whole process.
    pub handshakes: Option<usize>,
    /// Streams of one HTTP/2 connection.
    pub streams: Option<u32>,
    /// Maximum number of tokens that are kept in memory.
    pub tokens: Option<usize>,
    /// Bytes of a request head; 431 beyond.
    pub header_bytes: usize,
    /// Fields of a request head; 431 beyond.
    pub headers: usize,
    /// Bytes of a request target; 414 beyond.
    pub uri_bytes: usize,
    /// Replay buffers of the whole process, in bytes.
    pub buffered_bytes: u64,
    /// A request body must come at least so fast, in bytes per second after a time of grace; 408 below.
    pub body_min_rate: u64,
    /// A request head must be complete this long after its first byte.
    pub header_timeout: Option<Duration>,
    /// A client connection may be silent this long between requests.
    pub idle_timeout: Option<Duration>,
    /// A blind tunnel may be silent this long.
    pub tunnel_idle: Option<Duration>,
    /// A blind tunnel lasts at most so long.
    pub tunnel_lifetime: Option<Duration>,
    /// After SIGTERM, keep accepting this long.
    pub drain_delay: Duration,
    /// After that, let requests finish for this long.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: Some(10_000),
            connections_per_peer: Some(512),
            handshakes: Some(256),
            streams: Some(100),
            tokens: Some(10_000),
            header_bytes: 32 << 10,
            headers: 100,
            uri_bytes: 8 << 10,
            buffered_bytes: 64 << 20,
            body_min_rate: 240,
            header_timeout: Some(Duration::from_secs(10)),
            idle_timeout: Some(Duration::from_secs(75)),
            tunnel_idle: Some(Duration::from_secs(300)),
            tunnel_lifetime: Some(Duration::from_secs(24 * 3600)),
            drain_delay: Duration::ZERO,
            drain: Duration::from_secs(30),
        }
    }
}

pub(super) const KEYS: SchemaSection = (
    "limits",
    &[
        ("body_min_rate", SchemaShape::Count(0), MAY, "bytes a second of a request body, after 10 s; 240"),
        ("buffered_bytes", SchemaShape::Size, MAY, "replay buffers of the whole process; 64MiB"),
        ("connections", SchemaShape::Count(0), MAY, "client connections of the whole process; 10000"),
        ("connections_per_peer", SchemaShape::Count(0), MAY, "client connections from one address; 512"),
        ("drain", DURATION_OR_OFF, MAY, "let requests finish this long after SIGTERM; 30s"),
        ("drain_delay", DURATION_OR_OFF, MAY, "keep accepting this long after SIGTERM; 0s"),
        ("handshakes", SchemaShape::Count(0), MAY, "TLS handshakes under way; 256"),
        ("header_bytes", SchemaShape::Size, MAY, "a request's head; 32KiB"),
        ("header_timeout", DURATION_OR_OFF, MAY, "a request's head must be complete by then; 10s"),
        ("headers", SchemaShape::Count(0), MAY, "fields of a request's head; 100"),
        ("idle_timeout", DURATION_OR_OFF, MAY, "a client connection may be silent this long; 75s"),
        ("streams", SchemaShape::Count(0), MAY, "streams of one HTTP/2 connection; 100"),
        ("tokens", SchemaShape::Count(0), MAY, "tokens at hand; beyond, the least recently used is forgotten; 10000"),
        ("tunnel_idle", DURATION_OR_OFF, MAY, "a blind tunnel may be silent this long; 5m"),
        ("tunnel_lifetime", DURATION_OR_OFF, MAY, "a blind tunnel lasts at most so long; 24h"),
        ("uri_bytes", SchemaShape::Size, MAY, "a request's target; 8KiB"),
    ],
);

/// Reads `[limits]`; a value of 0 switches a limit off.
pub(super) fn read(root: &Fields<'_>, reader: &Reader<'_>) -> Limits {
    let mut limits = Limits::default();
    let Some(node) = root.take("limits") else { return limits };
    let fields = Fields::new(node, "[limits]", reader.report);
    if let Some(count) = fields.opt::<usize>("connections") {
        limits.connections = Some(count).filter(|count| *count != 0);
    }
    if let Some(count) = fields.opt::<usize>("connections_per_peer") {
        limits.connections_per_peer = Some(count).filter(|count| *count != 0);
    }
    if let Some(count) = fields.opt::<usize>("handshakes") {
        limits.handshakes = Some(count).filter(|count| *count != 0);
    }
    if let Some(count) = fields.opt::<usize>("tokens") {
        limits.tokens = Some(count).filter(|count| *count != 0);
    }
    if let Some(count) = fields.opt::<usize>("streams") {
        limits.streams = u32::try_from(count).ok().filter(|count| *count != 0);
    }
    let bytes = |key, without: usize| {
        fields.opt::<ByteSize>(key).map_or(without, |size| usize::try_from(size.0).unwrap_or(usize::MAX))
    };
    limits.header_bytes = bytes("header_bytes", limits.header_bytes);
    limits.headers = fields.or("headers", limits.headers);
    limits.uri_bytes = bytes("uri_bytes", limits.uri_bytes);
    limits.buffered_bytes = fields.opt::<ByteSize>("buffered_bytes").map_or(limits.buffered_bytes, |size| size.0);
    limits.body_min_rate = fields.or("body_min_rate", limits.body_min_rate);
    limits.header_timeout = timeout(&fields, "header_timeout", limits.header_timeout);
    limits.idle_timeout = timeout(&fields, "idle_timeout", limits.idle_timeout);
    limits.tunnel_idle = timeout(&fields, "tunnel_idle", limits.tunnel_idle);
    limits.tunnel_lifetime = timeout(&fields, "tunnel_lifetime", limits.tunnel_lifetime);
    limits.drain_delay = timeout(&fields, "drain_delay", Some(limits.drain_delay)).unwrap_or_default();
    limits.drain = timeout(&fields, "drain", Some(limits.drain)).unwrap_or_default();
    fields.finish();
    limits
}

/// A duration that `0` switches off.
fn timeout(fields: &Fields<'_>, key: &str, without: Option<Duration>) -> Option<Duration> {
    match fields.take(key) {
        None => without,
        Some(node) if matches!(node.kind, Kind::Integer(0)) => None,
        Some(node) => match Duration::from_node(node, fields.report()) {
            Some(read) => Some(read).filter(|read| !read.is_zero()),
            None => without,
        },
    }
}

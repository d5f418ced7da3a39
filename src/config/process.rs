//! `[limits]`, `[log]` and `[runtime]`: the process itself.

use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::syntax::units::ByteSize;
use crate::syntax::{Fields, FromNode, Kind};

use super::reader::Reader;
use super::scalars::{Position, SpannedText, choice};
use super::snapshot::{AccessLogTarget, Limits, LogConfig, LogFormat, WatchConfig};

/// More threads than any machine has cores.
const MOST_WORKERS: u64 = 1024;

/// Reads `[limits]`; a value of 0 switches a limit off.
pub(super) fn process_limits(root: &Fields<'_>, reader: &Reader<'_>) -> Limits {
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

/// Reads `[log]`; the defaults are level `info` and access lines to standard error.
pub(super) fn log(root: &Fields<'_>, reader: &Reader<'_>) -> LogConfig {
    let mut log = LogConfig { format: None, level: "info".to_owned(), access: AccessLogTarget::Stderr };
    let Some(node) = root.take("log") else { return log };
    let fields = Fields::new(node, "[log]", reader.report);
    log.format = choice(&fields, "format", &[("json", LogFormat::Json), ("text", LogFormat::Text)]);
    if let Some(word) = fields.opt::<SpannedText>("level") {
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        // A lone word that is no level would be taken for the name of a module, and switch everything else off.
        let plain = levels.contains(&word.text.to_ascii_lowercase().as_str()) || word.text.contains('=');
        if plain && EnvFilter::try_new(&word.text).is_ok() {
            log.level = word.text;
        } else {
            let help = format!("write one of {}", levels.join(", "));
            word.place.error(reader.report, format!("`{}` is not a log level", word.text), help);
        }
    }
    match fields.opt::<SpannedText>("access") {
        None => {}
        Some(word) => match word.text.as_str() {
            "off" => log.access = AccessLogTarget::Off,
            "stderr" => {}
            "" | "stdout" => {
                let help = "write `\"stderr\"`, `\"off\"` or the path of a file";
                word.place.error(reader.report, "access lines cannot go there", help);
            }
            path => log.access = AccessLogTarget::File(reader.resolve(path)),
        },
    }
    fields.finish();
    log
}

/// Reads `[reload]`; the default is `WatchConfig::Secrets`.
pub(super) fn watch(root: &Fields<'_>, reader: &Reader<'_>) -> WatchConfig {
    let Some(node) = root.take("reload") else { return WatchConfig::Secrets };
    let fields = Fields::new(node, "[reload]", reader.report);
    let watch = choice(&fields, "watch", &[("all", WatchConfig::All), ("secrets", WatchConfig::Secrets)]);
    fields.finish();
    watch.unwrap_or(WatchConfig::Secrets)
}

/// Reads `[runtime]`: the number of worker threads.
pub(super) fn workers(root: &Fields<'_>, reader: &Reader<'_>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let Some(node) = root.take("runtime") else { return cores };
    let fields = Fields::new(node, "[runtime]", reader.report);
    let workers = fields.opt::<u64>("workers");
    if workers.is_some_and(|workers| !(1..=MOST_WORKERS).contains(&workers))
        && let Some(node) = fields.take("workers")
    {
        let help = format!("write 1 to {MOST_WORKERS}, or leave it out: one per core");
        Position::of(node).error(reader.report, "that many workers cannot run", help);
    }
    fields.finish();
    workers.and_then(|workers| usize::try_from(workers).ok()).unwrap_or(cores)
}

//! Reading of `proxy.toml`: from its bytes to a [`Snapshot`] that is correct by construction.
//!
//! Owns the meaning of every section and key: a section's file holds its type, its reader and its rows of the JSON
//! Schema. It opens no socket and starts nothing: files and environment variables are read through [`Files`], so the
//! same code serves a real start, a demonstration in memory and a test. All mistakes of a file are found in one reading.
//! Runs on the thread that starts or reloads.

mod admin;
mod audit;
mod build;
mod client;
mod command_output;
mod config_section;
mod consent;
mod credentials;
mod file_identity;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod hours;
mod include;
mod limits;
mod listener;
mod log;
mod next_credentials;
mod otel_variables;
mod otlp;
mod otlp_target;
mod pooled_way;
mod profile_pack;
mod provider;
mod quota;
mod reader;
mod record;
mod redact;
mod reload;
mod remote_identity;
mod route;
mod runtime;
pub mod schema;
mod secret_source;
mod service_key;
mod shadow;
mod snapshot;
mod sources;
mod spanned_text;
mod store;
mod svid_reference;
mod timeouts;
mod token_budget;
mod tracing;
mod variable;
mod webhook;
mod wrapped_key;

use std::path::Path;

pub use self::log::{AccessLogTarget, LogConfig, LogFormat, LogOverride};
pub use admin::{AdminBind, AdminListenerConfig, AdminToken, PublicEndpoints, Role};
pub use build::{PartialConfig, build};
pub use client::{ClientConfig, Clients, Users};
pub use command_output::CommandError;
pub use config_section::ConfigSection;
pub use consent::ConsentSettings;
pub use credentials::{Issuer, IssuerKeys, JwtRule};
pub use files::{Files, InMemory, MachineFiles, STANDARD_INPUT_PATH};
pub use include::sketch;
pub use limits::Limits;
pub use listener::*;
pub use otlp::{MetricExport, OtlpExports, TraceExport};
pub use otlp_target::{OtlpProtocol, OtlpSignal, OtlpTarget};
pub use profile_pack::{PackFiles, faults_text, sketched_pack};
pub use provider::ProviderConfig;
pub use reload::WatchConfig;
pub use route::{Reflection, Route, RouteKeys};
pub use snapshot::*;
pub use sources::{AsRead, RemoteSecret, SourceCommand, Sources, names_digest};
pub use store::Storage;
pub use timeouts::Timeouts;
pub use webhook::{Application, Webhook};

use crate::syntax::Diagnostic;

/// The result of reading a config file.
#[derive(Debug)]
pub enum Loaded {
    /// It can be used. There may be warnings.
    Fine(Box<Snapshot>, Vec<Diagnostic>),
    /// It has mistakes; warnings are among them.
    Mistaken(Vec<Diagnostic>),
    /// The file itself could not be read. The text says why, and what to do.
    Unreadable(String),
}

impl Loaded {
    /// The exit status that `check` answers: 0 fine, 1 mistakes, 2 unreadable.
    pub const fn exit_status(&self) -> u8 {
        match self {
            Loaded::Fine(..) => 0,
            Loaded::Mistaken(_) => 1,
            Loaded::Unreadable(_) => 2,
        }
    }
}

/// Returns the path as messages show it.
pub fn displayed_path(path: &Path) -> &Path {
    if path == Path::new(STANDARD_INPUT_PATH) { Path::new("<stdin>") } else { path }
}

/// Reads the config file at `path`; [`STANDARD_INPUT_PATH`] is standard input, where `files` has one.
pub fn load(path: &Path, files: &dyn Files) -> Loaded {
    let read = files.read_config(path);
    let path = displayed_path(path);
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(error) => {
            let (path, kind) = (path.display(), reader::reason(&error));
            return Loaded::Unreadable(format!("{path} cannot be read: {kind}; name another file with `-c`"));
        }
    };
    let text = match reader::utf8(bytes) {
        Ok(text) => text,
        Err(why) => return Loaded::Unreadable(format!("{} {why}; a config is a TOML file", path.display())),
    };
    match build(path, text, files) {
        (Some(snapshot), warnings) => Loaded::Fine(Box::new(snapshot), warnings),
        (None, mistakes) => Loaded::Mistaken(mistakes),
    }
}

/// Reads the config file at `path` again, whose `mistakes` are known, without the providers that have them. `None` if a
/// mistake is elsewhere, or nothing would be left.
pub fn load_without_mistaken_providers(
    path: &Path,
    files: &dyn Files,
    mistakes: &[Diagnostic],
) -> Option<PartialConfig> {
    let text = reader::utf8(files.read_config(path).ok()?).ok()?;
    build::build_without_mistaken_providers(displayed_path(path), text, files, mistakes)
}

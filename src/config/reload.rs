//! `[reload]`: the files whose change is a reload.

use crate::syntax::Fields;

use super::reader::Reader;
use super::schema::{MAY, SchemaSection, SchemaShape};
use super::spanned_text::choice;

/// `[reload]`: the files whose change is a reload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WatchConfig {
    /// Those, and the config, what it includes, profiles and packs of them.
    All,
    /// Certificates, keys and secrets. The config's own text stays as it was read last.
    Secrets,
}

pub(super) const KEYS: SchemaSection = (
    "reload",
    &[("watch", SchemaShape::Choice(&["all", "secrets"]), MAY, "the files whose change is a reload; default: secrets")],
);

/// Reads `[reload]`; the default is `WatchConfig::Secrets`.
pub(super) fn read(root: &Fields<'_>, reader: &Reader<'_>) -> WatchConfig {
    let Some(node) = root.take("reload") else { return WatchConfig::Secrets };
    let fields = Fields::new(node, "[reload]", reader.report);
    let watch = choice(&fields, "watch", &[("all", WatchConfig::All), ("secrets", WatchConfig::Secrets)]);
    fields.finish();
    watch.unwrap_or(WatchConfig::Secrets)
}

//! `[provider.NAME.next]`: the credentials that follow the current ones, beside them until the provider has changed.

use crate::provider::{Profile, Settings};
use crate::syntax::{Fields, Kind, Node, Table};

use super::provider::ProviderTransport;
use super::reader::Reader;
use super::spanned_text::{Position, SpannedText};

/// The keys of `tls` that the next credentials may have of their own.
const TLS_KEYS: [&str; 3] = ["client_cert", "client_key", "client_key_password"];

/// The next credentials of a provider, each part complete: what they do not name is the provider's own.
pub(super) struct NextCredentials {
    pub(super) settings: Settings,
    pub(super) transport: ProviderTransport,
}

/// The provider's own values, over which the next ones are put.
pub(super) struct OwnCredentials<'a> {
    /// The provider's name.
    pub(super) name: &'a str,
    pub(super) profile: &'a Profile,
    pub(super) settings: &'a Settings,
    /// The `tls` table of the provider.
    pub(super) tls: Option<&'a Node>,
}

/// Reads `[provider.NAME.next]`; `transport` makes the TLS settings of a `tls` table. `None` if something was wrong, all
/// of which was reported.
pub(super) fn read(
    node: &Node,
    own: &OwnCredentials<'_>,
    reader: &Reader<'_>,
    transport: impl FnOnce(Option<&Node>) -> Option<ProviderTransport>,
) -> Option<NextCredentials> {
    let report = reader.report;
    let fields = Fields::new(node, "[provider.NAME.next]", report);
    if node.as_table().is_some_and(|table| table.entries.is_empty()) {
        let help = "name the settings that change, as in `client_secret = { env = \"NEXT_SECRET\" }`, or take it out";
        Position::of(node).error(report, "the next credentials name nothing that changes", help);
    }
    credentials_expire(&fields, &format!("the next credentials of [provider.{}]", own.name), reader);
    let settings = own.profile.override_settings(own.settings, &fields, reader);
    let tls = fields.take("tls");
    let is_readable = tls.is_none_or(|tls| judge_tls(tls, reader));
    fields.finish();
    let merged = tls.map(|tls| put_over(own.tls, tls));
    let transport = if is_readable { transport(merged.as_ref().or(own.tls)) } else { None };
    Some(NextCredentials { settings: settings?, transport: transport? })
}

/// Reads `credentials_expire`: the day from which the provider no longer accepts the secrets beside it. It is watched as
/// the end of a certificate is.
pub(super) fn credentials_expire(fields: &Fields<'_>, what: &str, reader: &Reader<'_>) {
    let Some(word) = fields.opt::<SpannedText>("credentials_expire") else { return };
    match crate::base::time::of_rfc3339(&format!("{}T00:00:00Z", word.text)) {
        Some(end) => reader.credentials_end(&word.place, what, end / 1000),
        None => {
            let title = format!("`{}` is not a day", word.text);
            word.place.error(reader.report, title, "write year, month and day, as in `\"2027-03-31\"`");
        }
    }
}

fn judge_tls(node: &Node, reader: &Reader<'_>) -> bool {
    let Some(table) = node.as_table() else {
        Position::of(node).error(
            reader.report,
            "`tls` is a table",
            "write `{ client_cert = \"…\", client_key = \"…\" }`",
        );
        return false;
    };
    let mut fine = true;
    for entry in table.entries.iter().filter(|entry| !TLS_KEYS.contains(&entry.key.as_str())) {
        fine = false;
        let title = format!("`{}` is no credential, so there is no next one", entry.key);
        let help = "a next `tls` has `client_cert`, `client_key` and `client_key_password`; the rest is the provider's";
        Position::new(&node.source, entry.key_span.clone()).error(reader.report, title, help);
    }
    fine
}

/// The table `own` with the credentials of `next` in place of its own.
fn put_over(own: Option<&Node>, next: &Node) -> Node {
    let kept = own.and_then(Node::as_table).into_iter().flat_map(|table| &table.entries);
    let kept = kept.filter(|entry| !TLS_KEYS.contains(&entry.key.as_str())).cloned();
    let entries = kept.chain(next.as_table().into_iter().flat_map(|table| table.entries.clone())).collect();
    Node { kind: Kind::Table(Table { entries }), ..next.clone() }
}

//! `[[provider.NAME.quota]]`: how many requests a provider gets in a time.

use std::sync::Arc;
use std::time::Duration;

use crate::base::calendar::Zone;
use crate::route::{QuotaDimension, QuotaRule};
use crate::syntax::{Fields, Node};

use super::hours;
use super::listener::tables;
use super::schema::{DURATION, MAY, MUST, SchemaSection, SchemaShape};
use super::spanned_text::{Position, SpannedText};

/// Quotas of one provider.
const MOST: usize = 16;

pub(super) const KEYS: SchemaSection = (
    "quota",
    &[
        ("by", SchemaShape::Texts, MAY, "counted apart by client, user or var:NAME; default: all together"),
        ("per", DURATION, MUST, "in this long: a day, or a part that divides it"),
        ("requests", SchemaShape::Count(1), MUST, "so many requests"),
        ("zone", SchemaShape::Text, MAY, "the time zone whose days count; default: that of hours, else UTC"),
    ],
);

/// A quota, with the places of its variables.
pub(super) struct ReadQuota {
    pub(super) rule: Arc<QuotaRule>,
    pub(super) vars: Vec<(Arc<str>, Position)>,
}

/// Reads the quotas of a provider. `zone`: that of its hours.
pub(super) fn read(fields: &Fields<'_>, name: &str, zone: Option<&Zone>) -> Vec<ReadQuota> {
    let nodes = tables(fields, "quota", fields.report());
    if let Some(node) = nodes.get(MOST) {
        Position::of(node).error(fields.report(), format!("a provider has at most {MOST} quotas"), "take some out");
    }
    let mut quotas: Vec<ReadQuota> = Vec::new();
    for node in nodes {
        let Some(quota) = read_one(node, fields, name, zone) else { continue };
        if quotas.iter().any(|other| other.rule.identity() == quota.rule.identity()) {
            let help = "keep the smaller one";
            Position::of(node).error(fields.report(), "two quotas of this provider count the same requests", help);
        }
        quotas.push(quota);
    }
    quotas
}

fn read_one(node: &Node, fields: &Fields<'_>, name: &str, zone: Option<&Zone>) -> Option<ReadQuota> {
    let report = fields.report();
    let own = Fields::new(node, format!("quota of {}", fields.what()), report);
    let requests = own.req::<u64>("requests", "1000").filter(|requests| {
        if let (0, Some(node)) = (*requests, own.take("requests")) {
            Position::of(node).error(report, "`requests` cannot be zero", "write 1 or more");
        }
        *requests > 0
    });
    let per = own.req::<Duration>("per", "\"1d\"");
    let zone = match own.opt::<SpannedText>("zone") {
        Some(word) => hours::zone(&word, report),
        None => Some(zone.cloned().unwrap_or(Zone::utc())),
    };
    let words = own.opt::<Vec<SpannedText>>("by").unwrap_or_default();
    let mut vars = Vec::new();
    let mut by = Vec::new();
    for word in &words {
        match QuotaDimension::parse(&word.text) {
            Some(dimension) if by.contains(&dimension) => {
                word.place.error(report, format!("`{}` stands here twice", word.text), "remove one of them");
            }
            Some(dimension) => {
                if let QuotaDimension::Var(name) = &dimension {
                    vars.push((name.clone(), word.place.clone()));
                }
                by.push(dimension);
            }
            None => {
                let title = format!("requests are not counted by `{}`", word.text.escape_debug());
                word.place.error(report, title, "write `\"client\"`, `\"user\"` or `\"var:NAME\"`");
            }
        }
    }
    own.finish();
    let (requests, per, zone) = (requests?, per?, zone?);
    let rule = QuotaRule::new(name, requests, per, by, zone);
    if rule.is_none() {
        let place = own_place(node, "per");
        let help = "write `\"1d\"`, or a part that divides a day, as in `\"1m\"`, `\"15m\"` or `\"6h\"`";
        place.error(report, "the windows of this quota could not be aligned with days", help);
    }
    Some(ReadQuota { rule: Arc::new(rule?), vars })
}

fn own_place(node: &Node, key: &str) -> Position {
    let entry = node.as_table().and_then(|table| table.find(key));
    entry.map_or_else(|| Position::of(node), |entry| Position::of(&entry.value))
}

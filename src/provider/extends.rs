//! A profile that changes another one: `extends = "oauth2"`, or in a pack `extends = "./base"`.

use std::sync::Arc;

use crate::base::secret::sha256;
use crate::provider::pack::ProfilePack;
use crate::provider::profile::Profile;
use crate::syntax::{Diagnostics, Kind, Node, SourceText, Table, TableEntry, suggest};

/// A profile has at most this many parents, each the parent of the one before it.
const MOST_PARENTS: usize = 8;

/// The beginning of `extends` for a profile of the same pack.
const BESIDE: &str = "./";

/// A profile's text with those of its parents, while they are gathered.
pub(super) struct Lineage<'a> {
    pack: Option<&'a ProfilePack>,
    /// The parents so far, as `extends` names them.
    named: Vec<String>,
    /// The digests of all texts that were read, the profile's own first.
    digested: Vec<u8>,
}

impl<'a> Lineage<'a> {
    /// Begins with a profile's own text. `pack` is the one that it stands in.
    pub(super) fn new(source: &SourceText, pack: Option<&'a ProfilePack>) -> Self {
        Self { pack, named: Vec::new(), digested: Vec::from(sha256(source.text.as_bytes())) }
    }

    /// Returns the digest of the texts that were read.
    pub(super) fn digest(&self) -> [u8; 32] {
        sha256(&self.digested)
    }

    /// Puts a profile over its parents, if it has any. `None` if the parent could not be found, which was reported.
    pub(super) fn resolve(&mut self, own: Node, report: &Diagnostics) -> Option<Node> {
        match own.as_table().and_then(|table| table.find("extends")) {
            None => Some(own),
            Some(entry) => {
                let parent = self.parent(&entry.value, report)?;
                Some(merge_extends(parent, own))
            }
        }
    }

    /// The profile that `extends` names, with its own parents under it; when it names none, the one that was probably
    /// meant, so that the rest of the file can be read against it.
    fn parent(&mut self, node: &Node, report: &Diagnostics) -> Option<Node> {
        let source = match (node.as_str().and_then(|word| word.strip_prefix(BESIDE)), self.pack) {
            (Some(name), Some(pack)) => beside(node, name, pack, report),
            (Some(_), None) => {
                let help = format!("built in are {}", Profile::builtin_names().join(", "));
                let title = "only a profile of a pack can extend the file beside it";
                node.error(report, title, "", Some(help));
                None
            }
            (None, _) => builtin(node, report),
        }?;
        if self.named.contains(&source.name) || self.named.len() == MOST_PARENTS {
            let title = format!("`extends` leads in a circle, or further than {MOST_PARENTS} profiles");
            node.error(report, title, "", Some("have it name a profile that extends none of these".to_owned()));
            return None;
        }
        self.named.push(source.name.clone());
        self.digested.extend(sha256(source.text.as_bytes()));
        let mut parent = self.resolve(Node::parse(&source, report), report)?;
        if let Kind::Table(table) = &mut parent.kind {
            // What a profile says of itself is its own.
            let own = ["name", "title", "version", "basis", "sources", "extends"];
            table.entries.retain(|entry| !own.contains(&entry.key.as_str()));
        }
        Some(parent)
    }
}

/// The text of the built-in profile that `extends` names, or probably means.
fn builtin(node: &Node, report: &Diagnostics) -> Option<Arc<SourceText>> {
    let wanted = node.as_str().unwrap_or_default();
    let names = Profile::builtin_names();
    let name = found_name(node, wanted, &names, "`extends` names no built-in profile", "built in are", report)?;
    Some(SourceText::new(format!("profile {name}"), Profile::builtin_text(name)?))
}

/// The text of the profile beside this one that `extends` names, or probably means.
fn beside(node: &Node, wanted: &str, pack: &ProfilePack, report: &Diagnostics) -> Option<Arc<SourceText>> {
    let names: Vec<&str> = pack.names().collect();
    let name = found_name(node, wanted, &names, "`extends` names no profile of this pack", "it has", report)?;
    pack.text(name).cloned()
}

fn found_name<'a>(
    node: &Node,
    wanted: &str,
    names: &[&'a str],
    title: &str,
    known: &str,
    report: &Diagnostics,
) -> Option<&'a str> {
    let found = names.iter().find(|name| **name == wanted).copied();
    found.or_else(|| {
        let near = suggest(wanted, names.iter().copied());
        let help = match near {
            // As it was written, up to the name.
            Some(near) => {
                format!("did you mean `\"{}{near}\"`?", if node.as_str() == Some(wanted) { "" } else { BESIDE })
            }
            None => format!("{known} {}", names.join(", ")),
        };
        node.error(report, title, "", Some(help));
        near
    })
}

/// Puts a child's tables over its parent's, key by key; everything else is replaced whole. The order is the parent's,
/// so that a body keeps its fields in place. Every value keeps the file that it stands in.
fn merge_extends(parent: Node, child: Node) -> Node {
    match (parent.kind, child.kind) {
        (Kind::Table(parent), Kind::Table(child_table)) => {
            let mut entries = parent.entries;
            for entry in child_table.entries {
                match entries.iter_mut().find(|known| known.key == entry.key) {
                    Some(known) => {
                        let old = known.value.clone();
                        *known = TableEntry { value: merge_extends(old, entry.value), ..entry };
                    }
                    None => entries.push(entry),
                }
            }
            Node { kind: Kind::Table(Table { entries }), source: child.source, span: child.span }
        }
        (_, kind) => Node { kind, source: child.source, span: child.span },
    }
}

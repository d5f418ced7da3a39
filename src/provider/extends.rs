//! A profile that changes a built-in one: `extends = "oauth2"`.

use crate::base::secret::sha256;
use crate::provider::profile::Profile;
use crate::syntax::{Diagnostics, Kind, Node, SourceText, Table, TableEntry, suggest};

/// The built-in profile that `extends` names, with its own parents under it; when it names none, the one that was
/// probably meant, so that the rest of the file can be read against it. The digest of each text joins `digested`.
pub(super) fn parent(node: &Node, report: &Diagnostics, digested: &mut Vec<u8>) -> Option<Node> {
    let wanted = node.as_str().unwrap_or_default();
    let names = Profile::builtin_names();
    let name = match names.iter().find(|name| **name == wanted) {
        Some(name) => Some(*name),
        None => {
            let near = suggest(wanted, names.iter().copied());
            let help = match near {
                Some(near) => format!("did you mean `\"{near}\"`?"),
                None => format!("built in are {}", names.join(", ")),
            };
            node.error(report, "`extends` names no built-in profile", "", Some(help));
            near
        }
    }?;
    let text = Profile::builtin_text(name)?;
    digested.extend(sha256(text.as_bytes()));
    let mut parent = Node::parse(&SourceText::new(format!("profile {name}"), text), report);
    let grandparent = parent.as_table().and_then(|table| table.find("extends")).map(|entry| entry.value.clone());
    if let Some(grandparent) = grandparent.and_then(|named| self::parent(&named, report, digested)) {
        parent = merge_extends(grandparent, parent);
    }
    if let Kind::Table(table) = &mut parent.kind {
        // What a profile says of itself is its own.
        let own = ["name", "title", "version", "basis", "sources", "extends"];
        table.entries.retain(|entry| !own.contains(&entry.key.as_str()));
    }
    Some(parent)
}

/// Puts a child's tables over its parent's, key by key; everything else is replaced whole. The order is the parent's,
/// so that a body keeps its fields in place. Every value keeps the file that it stands in.
pub(super) fn merge_extends(parent: Node, child: Node) -> Node {
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

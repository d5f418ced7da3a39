//! The kinds of gateways whose files are read, and how a file is known to be one's.

use clap::ValueEnum;

use super::agentgateway::{is_agentgateway, read_agentgateway};
use super::draft::Draft;
use super::envoy::{is_envoy, read_envoy};
use super::httpd::{is_httpd, read_httpd};
use super::kong::{is_kong, read_kong};
use super::krakend::{is_krakend, read_krakend};
use super::nginx::{is_nginx, read_nginx};
use super::place::Place;
use super::spring::{is_spring, read_spring, undotted};
use crate::syntax::yaml::{YamlContent, YamlNode, read_nodes};

/// Most entries of one list or map.
const MAX_ITEMS: usize = 2000;

/// A gateway whose files are read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ImportKind {
    /// A bootstrap, or listeners and clusters, in YAML or JSON
    Envoy,
    /// A declarative config, in YAML or JSON
    Kong,
    /// A whole file or a snippet
    Nginx,
    /// Apache httpd: a whole file or a virtual host
    Apache,
    /// Binds, listeners and routes, in YAML
    Agentgateway,
    /// A config without templates, in JSON or YAML
    Krakend,
    /// Spring Cloud Gateway: application.yml
    Spring,
}

/// The source of the files that a file includes.
pub trait IncludedFiles {
    /// Reads the files of a name, which may have `*` in its last part: names and texts. The error says why not.
    fn read(&self, name: &str) -> Result<Vec<(String, String)>, String>;
}

/// Reads a file into the draft. `wanted`: the kind that it is said to be. An error: nothing of it could be read.
pub fn read_source(
    text: &str,
    wanted: Option<ImportKind>,
    files: &dyn IncludedFiles,
    draft: &mut Draft,
) -> Result<ImportKind, String> {
    match wanted {
        Some(ImportKind::Nginx) => return read_nginx(text, files, draft).map(|()| ImportKind::Nginx),
        Some(ImportKind::Apache) => return read_httpd(text, files, draft).map(|()| ImportKind::Apache),
        None if is_httpd(text) => return read_httpd(text, files, draft).map(|()| ImportKind::Apache),
        None if is_nginx(text) => return read_nginx(text, files, draft).map(|()| ImportKind::Nginx),
        Some(_) | None => {}
    }
    let nodes = read_nodes(text).map_err(|why| format!("{}: {why}", draft.file))?;
    if let Some(line) = nodes.iter().find_map(crowded) {
        return Err(format!(
            "{}, line {line}: more than {MAX_ITEMS} entries in one list or map, more than are read",
            draft.file
        ));
    }
    let (mut found, mut others) = (None, Vec::new());
    for node in &nodes {
        let spread = undotted(node);
        match read_document(node, &spread, wanted, draft) {
            Some(kind) => found = Some(kind),
            None => others.push(node.line),
        }
    }
    for line in others {
        draft.lose(line, "a document", "it is no config that is known here; docs/import.md");
    }
    found.ok_or_else(|| match wanted {
        Some(kind) => format!("{}: it has nothing of {kind:?}'s", draft.file),
        None => format!("{}: it is no config that is known here; say which with --from, docs/import.md", draft.file),
    })
}

/// The line of a list or map with too many entries: what is looked up in one for each of another has to end.
fn crowded(node: &YamlNode) -> Option<usize> {
    match &node.content {
        YamlContent::List(items) if items.len() > MAX_ITEMS => Some(node.line),
        YamlContent::Map(pairs) if pairs.len() > MAX_ITEMS => Some(node.line),
        YamlContent::List(items) => items.iter().find_map(crowded),
        YamlContent::Map(pairs) => pairs.iter().find_map(|pair| crowded(&pair.value)),
        YamlContent::Null | YamlContent::Bool(_) | YamlContent::Number(_) | YamlContent::Text(_) => None,
    }
}

fn read_document(
    node: &YamlNode,
    spread: &YamlNode,
    wanted: Option<ImportKind>,
    draft: &mut Draft,
) -> Option<ImportKind> {
    type Judge = fn(&Place<'_>) -> bool;
    type Reader = fn(&Place<'_>, &mut Draft);
    let kinds: [(ImportKind, Judge, Reader, &YamlNode); 5] = [
        (ImportKind::Envoy, is_envoy, read_envoy, node),
        (ImportKind::Kong, is_kong, read_kong, node),
        (ImportKind::Agentgateway, is_agentgateway, read_agentgateway, node),
        (ImportKind::Krakend, is_krakend, read_krakend, node),
        (ImportKind::Spring, is_spring, read_spring, spread),
    ];
    let (kind, _, read, node) = kinds
        .into_iter()
        .find(|(kind, judge, _, node)| wanted.is_none_or(|wanted| wanted == *kind) && judge(&Place::root(node)))?;
    read(&Place::root(node), draft);
    Some(kind)
}

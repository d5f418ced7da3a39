//! Markdown, as far as these tests read it: fenced blocks, headings and links.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders with nothing of ours in them.
const FOREIGN: [&str; 3] = ["target", "node_modules", ".git"];

pub fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A page. `path` starts at the root of the tree.
pub struct Page {
    pub path: String,
    pub text: String,
}

/// A fenced block: what stands behind the opening fence, its text, and the line of its opening fence.
#[derive(Debug)]
pub struct Fence {
    pub info: String,
    pub text: String,
    pub line: usize,
    /// `MARKER` of an HTML comment `<!-- test: MARKER -->` on the last line of text before it.
    pub marker: Option<String>,
}

/// Every page of the tree, by path.
pub fn pages() -> Vec<Page> {
    let (mut found, mut folders) = (Vec::new(), vec![root("")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_dir() && !FOREIGN.contains(&name.as_str()) && !path.is_symlink() {
                folders.push(path);
            } else if name.ends_with(".md") && !path.is_dir() {
                found.push(page(&path.strip_prefix(root("")).expect("below the root").to_string_lossy()));
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(found.len() > 60, "{}", found.len());
    found
}

pub fn page(path: &str) -> Page {
    let text = fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    Page { path: path.to_owned(), text }
}

impl Page {
    pub fn fences(&self) -> Vec<Fence> {
        let (mut found, mut open, mut before) = (Vec::<Fence>::new(), None::<usize>, "");
        for (at, line) in self.text.lines().enumerate() {
            let bare = line.trim_start();
            match (open, bare.strip_prefix("```")) {
                (None, Some(info)) => {
                    open = Some(line.len() - bare.len());
                    let marker = before.trim().strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->"));
                    let marker = marker.map(str::to_owned);
                    found.push(Fence { info: info.trim().to_owned(), text: String::new(), line: at + 1, marker });
                }
                (Some(_), Some(_)) => open = None,
                (Some(indent), None) => {
                    let fence = found.last_mut().expect("an open block");
                    let cut = indent.min(line.len() - bare.len());
                    fence.text += &line[cut..];
                    fence.text.push('\n');
                }
                (None, None) => {}
            }
            if !bare.is_empty() {
                before = line;
            }
        }
        assert!(open.is_none(), "{}: a block that does not end", self.path);
        found
    }

    /// The lines outside of fenced blocks, with their numbers.
    pub fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut fenced = false;
        self.text.lines().enumerate().filter_map(move |(at, line)| {
            let is_fence = line.trim_start().starts_with("```");
            fenced ^= is_fence;
            (!fenced && !is_fence).then_some((at + 1, line))
        })
    }

    /// The ids of the headings, as GitHub and mdBook make them.
    pub fn anchors(&self) -> Vec<String> {
        let mut seen = BTreeMap::<String, usize>::new();
        let headings = self.prose().filter(|(_, line)| line.starts_with('#'));
        headings
            .map(|(_, line)| {
                let id = anchor(line.trim_start_matches('#').trim());
                let times = seen.entry(id.clone()).or_default();
                *times += 1;
                if *times == 1 { id } else { format!("{id}-{}", *times - 1) }
            })
            .collect()
    }
}

/// The id of a heading: in small letters, without marks of punctuation, with hyphens for blanks.
fn anchor(heading: &str) -> String {
    // Of a link its text counts alone.
    let mut text = String::new();
    let mut rest = heading;
    while let Some((before, after)) = rest.split_once("](") {
        text += before;
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    text += rest;
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn blocks_headings_and_markers_are_found() {
    let text = "# A `b`: [c](d.md), e\n\n<!-- test: profile -->\n```toml\n# no heading\na = 1\n```\n## A\n## A\n   ```sh\n   x\n   ```\n";
    let page = Page { path: "x.md".to_owned(), text: text.to_owned() };
    assert_eq!(page.anchors(), ["a-b-c-e", "a", "a-1"]);
    let fences = page.fences();
    assert_eq!((fences[0].info.as_str(), fences[0].line), ("toml", 4));
    assert_eq!((fences[0].text.as_str(), fences[0].marker.as_deref()), ("# no heading\na = 1\n", Some("profile")));
    assert_eq!((fences[1].text.as_str(), fences[1].marker.as_deref()), ("x\n", None));
}

//! Links of all pages of the tree.

use std::fs;
use std::path::{Component, Path, PathBuf};

use regex::Regex;

use super::markdown::{Page, page, pages, root};

/// The path that a link of a page means, from the root of the tree; nothing if it leaves the tree.
fn target(page: &Page, path: &str) -> Option<PathBuf> {
    let mut found = Path::new(&page.path).parent().expect("a folder").to_path_buf();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir if !found.pop() => return None,
            Component::ParentDir | Component::CurDir => {}
            Component::Normal(name) => found.push(name),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(found)
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    let link = Regex::new(r"\]\(([^()\s]+)\)").expect("a pattern");
    let code = Regex::new("`[^`]*`").expect("a pattern");
    let (pages, mut wrong, mut seen) = (pages(), Vec::new(), 0);
    for page in &pages {
        for (line, text) in page.prose() {
            let text = code.replace_all(text, "");
            for found in link.captures_iter(&text) {
                let whole = &found[1];
                if whole.contains("://") || whole.starts_with("mailto:") {
                    continue;
                }
                seen += 1;
                let (path, anchor) = whole.split_once('#').unwrap_or((whole, ""));
                let path = if path.is_empty() { Some(PathBuf::from(&page.path)) } else { target(page, path) };
                let place = format!("{}:{line}: {whole}", page.path);
                let Some(path) = path.filter(|path| root(&path.to_string_lossy()).exists()) else {
                    wrong.push(format!("{place}: there is no such file"));
                    continue;
                };
                let other = pages.iter().find(|other| Path::new(&other.path) == path);
                let has = |page: &Page| page.anchors().iter().any(|one| one == anchor);
                if !anchor.is_empty() && !other.is_some_and(has) {
                    wrong.push(format!("{place}: there is no such heading"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 500, "{seen}");
}

/// A path for a role says how long it takes to read: each page, and all of them.
#[test]
fn the_minutes_of_the_paths_are_those_of_their_pages() {
    let start = page("docs/README.md");
    let stop = Regex::new(r"\]\(([^)#]+)(#[^)]*)?\) (\d+)").expect("a pattern");
    let mut paths = 0;
    for row in start.text.lines().filter(|line| line.starts_with("| ") && line.contains("](") && stop.is_match(line)) {
        let mut sum = 0;
        for found in stop.captures_iter(row) {
            let minutes: usize = found[3].parse().expect("a number");
            sum += minutes;
            if found.get(2).is_none() {
                let file = root("docs").join(&found[1]);
                let words = fs::read_to_string(&file).expect("a page").split_whitespace().count();
                assert!(minutes.abs_diff((words + 100) / 200) <= 1, "{}: {words} words, {minutes} minutes", &found[1]);
            }
        }
        assert!(row.ends_with(&format!("| {sum} |")), "{sum} minutes in all: {row}");
        paths += 1;
    }
    assert_eq!(paths, 6);
}

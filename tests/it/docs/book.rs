//! The book that mdBook makes of `docs/`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use regex::Regex;

use super::markdown::{page, pages, root};

#[test]
fn every_page_of_the_manual_is_in_the_summary_once() {
    let summary = page("docs/SUMMARY.md").text;
    let link = Regex::new(r"\]\(([^()\s]+)\)").expect("a pattern");
    let mut listed: Vec<String> = link.captures_iter(&summary).map(|found| format!("docs/{}", &found[1])).collect();
    listed.sort();
    let there: Vec<String> = pages()
        .into_iter()
        .map(|page| page.path)
        .filter(|path| path.starts_with("docs/") && path != "docs/SUMMARY.md")
        .collect();
    assert_eq!(listed, there, "docs/SUMMARY.md lists each page once");
}

/// Files of the book, by their paths in it.
fn html_files(folder: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_path_buf()]);
    while let Some(here) = folders.pop() {
        for entry in fs::read_dir(&here).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "html") {
                let text = fs::read_to_string(&path).expect("text");
                found.insert(path.strip_prefix(folder).expect("below").to_path_buf(), text);
            }
        }
    }
    found
}

#[test]
fn the_book_is_built_and_its_links_lead_somewhere() {
    let tool = root("target/clients/book/bin/mdbook");
    let folder = root("target/book");
    let mut command = Command::new(&tool);
    let python = tool.parent().expect("a folder").display().to_string();
    let path = format!("{python}:{}", env::var("PATH").unwrap_or_default());
    let built = command
        .arg("build")
        .arg("--dest-dir")
        .arg(&folder)
        .arg(root(""))
        .env("PATH", path)
        .current_dir(root(""))
        .output();
    let built = built.unwrap_or_else(|error| panic!("{}: {error}; tests/run makes it", tool.display()));
    let told = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success() && !told.contains("WARN") && !told.contains("ERROR"), "{told}");

    let files = html_files(&folder);
    let attribute = Regex::new(r#"\s(href|src|id)="([^"]*)""#).expect("a pattern");
    let ids: BTreeMap<&Path, BTreeSet<&str>> = files
        .iter()
        .map(|(path, text)| {
            let found = attribute.captures_iter(text).map(|found| found.extract::<2>().1);
            (path.as_path(), found.filter(|[name, _]| *name == "id").map(|[_, value]| value).collect())
        })
        .collect();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (page, text) in &files {
        // This one is shown at any depth.
        if page == Path::new("404.html") {
            continue;
        }
        for [name, value] in attribute.captures_iter(text).map(|found| found.extract::<2>().1) {
            if name == "id" || value.contains("://") || value.starts_with("data:") || value.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            let (path, anchor) = value.split_once('#').unwrap_or((value, ""));
            let mut there = page.clone();
            if !path.is_empty() {
                there = PathBuf::new();
                for part in page.parent().expect("a folder").join(path).components() {
                    match part.as_os_str().to_str() {
                        Some("..") if there.pop() => {}
                        Some(part) => there.push(part),
                        None => {}
                    }
                }
            }
            let fine = match ids.get(there.as_path()) {
                Some(ids) => anchor.is_empty() || ids.contains(anchor),
                None => folder.join(&there).exists(),
            };
            if !fine {
                wrong.push(format!("{}: {value}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 2000, "{seen}");
    let has_index = fs::read_dir(&folder)
        .expect("a folder")
        .any(|entry| entry.expect("an entry").file_name().to_string_lossy().starts_with("searchindex"));
    assert!(has_index, "the book can be searched");
}

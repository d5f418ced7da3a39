//! Plays every conversation in `tests/fixtures/provider/<profile>/*.toml` against its profile.
//!
//! A conversation gives settings, then says what must happen: the token request that is made, what each token answer
//! becomes, how a call is dressed and replayed, what each answer of the bank means. Identifiers count up from one in
//! each step; the token is `first-token`, on the replay `second-token`. `docs/adding-a-provider.md` has the format.

use std::fs;
use std::path::{Path, PathBuf};

use countersign::base::secret::SecretString;
use countersign::provider::{FileContent, Profile, ReadValue, fixture};
use countersign::syntax::{Diagnostic, Diagnostics, Fields, Node, SourceText, TableEntry};
use zeroize::Zeroizing;

fn play(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("a readable fixture");
    let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).expect("a folder");
    fixture::play(&path.display().to_string(), &text, Profile::builtin(folder).as_ref())
}

fn conversations() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/provider");
    let folders = fs::read_dir(root).expect("the fixtures").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = folders
        .flat_map(|folder| fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_conversation_goes_as_written() {
    let mut failed = String::new();
    for path in conversations() {
        for wrong in play(&path) {
            failed.push_str(&format!("\n  {}\n    {wrong}", path.display()));
        }
    }
    assert!(failed.is_empty(), "{failed}");
}

/// The two pages about profiles that come with countersign.
fn docs() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    ["providers.md", "banks.md"].map(|page| fs::read_to_string(folder.join(page)).expect("a page")).concat()
}

/// The heading of a profile's section, which it may share with its siblings.
fn heading<'a>(docs: &'a str, name: &str) -> Option<&'a str> {
    docs.lines().find(|line| line.starts_with("## ") && line.contains(&format!("`{name}`")))
}

#[test]
fn every_built_in_profile_has_conversations_and_a_section_in_the_docs() {
    let docs = docs();
    let played = conversations();
    for name in Profile::builtin_names() {
        let own = played.iter().filter(|path| path.parent().is_some_and(|folder| folder.ends_with(name))).count();
        // A child's parent has its own, and a static credential is neither fetched nor refused.
        let is_child = Profile::builtin_text(name).is_some_and(|text| text.contains("\nextends"));
        let is_standing = Profile::builtin(name).is_some_and(|profile| profile.is_standing());
        let least = if is_child || is_standing { 1 } else { 3 };
        assert!(own >= least, "profile {name} has {own} conversations");
        assert!(heading(&docs, name).is_some(), "neither docs/providers.md nor docs/banks.md has a section `{name}`");
    }
}

/// The first TOML block after a marker.
fn block<'a>(docs: &'a str, marker: &str) -> &'a str {
    let (_, after) = docs.split_once(marker).expect("the marker");
    let (_, block) = after.split_once("```toml\n").expect("a block");
    block.split_once("```").expect("the block's end").0
}

#[test]
fn the_example_in_the_docs_works() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/adding-a-provider.md");
    let docs = fs::read_to_string(path).expect("the docs");
    let report = Diagnostics::new();
    let profile = Profile::parse(&SourceText::new("docs", block(&docs, "<!-- test: profile -->")), &report);
    let wrong = fixture::play("docs", block(&docs, "<!-- test: conversation -->"), profile.as_ref());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let extended = Profile::parse(&SourceText::new("docs", block(&docs, "## Extending a profile")), &report);
    assert!(extended.is_some(), "{:?}", report.into_diagnostics());
}

/// The values of an example: those that are no text are made up, and files hold the keys that their names tell.
struct Shown;

impl ReadValue for Shown {
    fn value(&self, node: &Node, _: &Diagnostics) -> Option<(SecretString, bool)> {
        let value = match node.as_str() {
            // The password of the file of a key, among others.
            None => "open sesame",
            Some(text) if text.is_ascii() => text,
            Some(_) => "a-value",
        };
        Some((SecretString::from(value), false))
    }

    fn file(&self, node: &Node, content: FileContent, _: &Diagnostics) -> Option<Zeroizing<Vec<u8>>> {
        let key: &[u8] = match node.as_str() {
            Some(path) if path.ends_with(".jwks") => include_bytes!("../fixtures/signing/bank.jwks"),
            Some(path) if path.ends_with(".p12") => include_bytes!("../fixtures/signing/key.p12"),
            _ if content == FileContent::Public => include_bytes!("../fixtures/signing/certificate.pem"),
            Some("dpop.pem") => include_bytes!("../fixtures/signing/p256-sec1.pem"),
            _ => include_bytes!("../fixtures/signing/rsa-pkcs8.pem"),
        };
        Some(Zeroizing::new(key.to_vec()))
    }

    fn unix_seconds(&self) -> u64 {
        0
    }
}

#[test]
fn every_profile_in_the_docs_shows_settings_that_it_takes() {
    let docs = docs();
    let mut shown = 0;
    let mut wrong = Vec::new();
    for name in Profile::builtin_names() {
        let profile = Profile::builtin(name).expect("a profile");
        let report = Diagnostics::new();
        let heading = heading(&docs, name).expect("a section");
        let text = block(&docs, &format!("\n{heading}\n"));
        let node = Node::parse(&SourceText::new("docs", text), &report);
        let tables = node.as_table().and_then(|table| table.find("provider")).expect("[provider.…]");
        let mut entries = tables.value.as_table().expect("tables").entries.iter();
        let is_own = |entry: &&TableEntry| {
            let profile = entry.value.as_table().and_then(|table| table.find("profile"));
            profile.and_then(|entry| entry.value.as_str()) == Some(name)
        };
        // A section that profiles share shows one of them, or more.
        let Some(entry) = entries.find(is_own) else {
            assert!(heading.matches('`').count() > 2, "the section `{name}` does not show it");
            continue;
        };
        shown += 1;
        let fields = Fields::new(&entry.value, "the example", &report);
        for common in ["profile", "environment", "base_url", "token_url", "tls", "http", "header_case", "consent"] {
            let _ = fields.take(common);
        }
        let _ = profile.read_settings(&fields, &Shown);
        fields.finish();
        // A value that is left out for the reader to fill in has no form.
        let is_elided =
            |one: &Diagnostic| one.source.text.get(one.span.clone()).is_some_and(|value| value.contains('…'));
        let found = report.into_diagnostics().into_iter();
        let found = found.filter(|one| !(one.title.contains("does not have the form") && is_elided(one)));
        wrong.extend(found.map(|one| format!("{name}: {}", one.one_line())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(shown >= 30, "{shown} profiles are shown");
}

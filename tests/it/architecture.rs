//! The plan of the house, enforced: rooms look down only, and each ban of the plan holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// Rooms by floor, from the ground up. A room may name its own floor's rooms never, lower ones always.
const FLOORS: [&[&str]; 9] = [
    &["base", "syntax"],
    &["observe", "route", "signing", "token"],
    &["transport"],
    &["key_service", "provider", "secret_source", "store", "tls", "upstream"],
    &["config", "learn"],
    &["control", "record"],
    &["admin", "serve", "sim"],
    &["app"],
    &["cli"],
];

/// Files in which a secret may be unwrapped, each with its reason.
const EXPOSE: [(&str, &str); 23] = [
    ("base/secret.rs", "defines what may be said of a secret"),
    ("config/", "reads secrets and hashes them into the config's digest"),
    ("control/token_call.rs", "puts the token request on the wire"),
    ("key_service/", "logs in to tokens, and signs requests to a key management service"),
    ("learn/", "compares the values of examples, and looks for them in what is written"),
    ("observe/audit/chain.rs", "makes the audit chain's key of what was configured"),
    ("provider/", "renders secrets into token requests and tokens into headers"),
    ("record/", "replaces secrets, and looks for them in what is written"),
    ("secret_source/", "logs in to the servers that keep secrets"),
    ("signing/oauth1.rs", "joins both secrets of OAuth 1.0a to a key"),
    ("signing/shared_secret.rs", "computes authentication codes, and encrypts with secrets"),
    ("signing/signing_scope.rs", "makes the keys of signatures for AWS, and puts session tokens into headers"),
    ("sim/", "is the bank: it made the secrets and checks them"),
    ("store/", "seals records, and shows a Redis its password"),
    ("control/consents/", "hands users' records to the store"),
    ("control/token_source", "writes tokens into records that the store seals"),
    ("token/consent/", "hashes a PKCE verifier, and writes users' tokens into records that the store encrypts"),
    ("token/grant.rs", "takes a token's fingerprint"),
    ("cli/ca.rs", "writes the key of a CA that it made"),
    ("cli/demo.rs", "hands the simulators' credentials to the proxy it starts"),
    ("cli/exec/env.rs", "puts the client's key into the proxy's address"),
    ("cli/init.rs", "writes what was answered at the terminal, and keys that it made, into files"),
    ("cli/sim.rs", "writes the simulators' credentials into the file that was asked for"),
];

/// Every file of code below a folder.
fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is readable") {
        let path = entry.expect("the folder is readable").path();
        if path.is_dir() {
            walk(&path, into);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            into.push(path);
        }
    }
}

fn source() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
        (name, fs::read_to_string(path).expect("readable"))
    };
    paths.iter().map(read).collect()
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Code without comments, so that prose may speak of any room.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The words that follow `prefix` in the code.
fn words_after(code: &str, prefix: &str) -> BTreeSet<String> {
    code.match_indices(prefix)
        .map(|(at, _)| code[at + prefix.len()..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn every_room_stands_on_a_floor_and_looks_down_only() {
    let mut wrong = Vec::new();
    for (name, text) in source() {
        let Some((room, _)) = name.split_once('/') else { continue };
        let Some(own) = floor(room) else {
            wrong.push(format!("{name}: the room `{room}` is on no floor"));
            continue;
        };
        let code = code(&text);
        assert!(!code.contains("use crate::{"), "{name}: one `use crate::room` a line, so that this test can read it");
        for other in words_after(&code, "crate::") {
            let looks_down = other == room || floor(&other).is_some_and(|floor| floor < own);
            if !looks_down {
                wrong.push(format!("{name} (floor {own}) names crate::{other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_lower_floors_know_no_sockets() {
    for (name, text) in source() {
        let Some((room, _)) = name.split_once('/') else { continue };
        // The logs' gathering is the one task of the lower floors.
        let exempt = name == "observe/gather.rs";
        if floor(room).is_some_and(|floor| floor < 2) && !exempt || room == "provider" {
            let code = code(&text);
            for forbidden in ["tokio::", "hyper::", "hyper_util::", "std::net::TcpStream"] {
                assert!(!code.contains(forbidden), "{name} names {forbidden}");
            }
        }
    }
}

#[test]
fn secrets_are_unwrapped_in_listed_places_only() {
    for (name, text) in source() {
        if code(&text).contains("expose_secret") {
            let listed = EXPOSE.iter().any(|(place, _)| name.starts_with(place));
            assert!(listed, "{name} unwraps a secret; keep it wrapped, or list the file with its reason");
        }
    }
}

/// Bodies as hyper has them end alike whether they are whole or cut off; `ReceivedBody` tells the difference.
const BARE_BODIES: [&str; 6] = [
    // Where they come in, to be wrapped at once.
    "serve/exchanges/cleared_request.rs",
    "serve/connections/connection.rs",
    "serve/forward.rs",
    "upstream/ask.rs",
    "upstream/connection.rs",
    "upstream/received.rs",
];

#[test]
fn bodies_are_read_by_the_type_that_proves_their_ends() {
    for (name, text) in source() {
        let concerned = name.starts_with("serve/") || name.starts_with("upstream/");
        if concerned && !name.ends_with("tests.rs") && words_in(&code(&text)).contains("Incoming") {
            assert!(BARE_BODIES.contains(&name.as_str()), "{name} reads hyper's bodies; take `ReceivedBody`");
        }
    }
}

#[test]
fn requests_are_sent_by_the_file_that_looks_at_their_tokens() {
    for (name, text) in source() {
        let sends = ["connection.send(", "sender.send_request(", "try_send_request("];
        if name.starts_with("serve/") && name != "serve/exchanges/cleared_request.rs" {
            for call in sends {
                assert!(!code(&text).contains(call), "{name} calls {call}; send a `ClearedRequest`");
            }
        }
    }
}

/// The calls that ask the keeper for a token; these files have a permit.
const TOKEN_REQUESTS: [&str; 2] = ["serve/exchanges/upstream_call.rs", "serve/requests/permit.rs"];

#[test]
fn tokens_are_requested_with_a_permit_alone() {
    for (name, text) in source() {
        let code = code(&text);
        let asks = ["leases.need(", "leases.need_for(", "leases.refused_for("].iter().any(|call| code.contains(call));
        if name.starts_with("serve/") && asks {
            assert!(TOKEN_REQUESTS.contains(&name.as_str()), "{name} asks for a token without a `Permit`");
        }
    }
}

fn words_in(code: &str) -> BTreeSet<&str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').collect()
}

/// Names of types that mean the same wherever they stand.
const ROLES: [&str; 7] = ["Builder", "Config", "Error", "Kind", "Limits", "Metrics", "State"];

#[test]
fn a_type_name_stands_in_one_file() {
    let definition = r"(?m)^(?:pub(?:\([a-z:_ ]+\))? )?(?:struct|enum|trait|type|union) ([A-Za-z0-9_]+)";
    let definition = Regex::new(definition).expect("a pattern");
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, text) in source() {
        if name.ends_with("tests.rs") {
            continue;
        }
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for found in definition.captures_iter(text) {
            places.entry(found[1].to_owned()).or_default().insert(name.clone());
        }
    }
    places.retain(|name, files| files.len() > 1 && !ROLES.contains(&name.as_str()));
    assert!(places.is_empty(), "one word, one thing; rename all but one of {places:#?}");
}

/// The share of a list, in percent.
fn percent<T>(part: &[T], whole: usize) -> usize {
    part.len() * 100 / whole.max(1)
}

#[test]
fn a_file_is_named_after_an_item_in_it() {
    let item = r"(?m)^ {0,4}(?:pub(?:\([a-z:_ ]+\))? )?(?:async |const )*(?:struct|enum|trait|type|fn|mod|static|const|macro_rules!) ([A-Za-z0-9_]+)";
    let item = Regex::new(item).expect("a pattern");
    let (mut files, mut nameless) = (0, Vec::new());
    for (name, text) in source() {
        let stem = name.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs").replace('_', "");
        if ["lib", "main", "mod", "tests"].contains(&stem.as_str()) {
            continue;
        }
        files += 1;
        let plain = |item: &str| item.to_lowercase().replace('_', "");
        let stem = stem.trim_end_matches('s');
        if !item.captures_iter(&text).map(|found| plain(&found[1])).any(|item| item.contains(stem)) {
            nameless.push(name);
        }
    }
    assert!(percent(&nameless, files) < 5, "rename the file after its main item: {nameless:#?}");
}

/// Words that open a clause. A comment opens with a verb or a noun.
const CLAUSE_OPENERS: [&str; 13] = [
    "how", "nobody", "nothing", "what", "whatever", "where", "wherever", "whether", "which", "who", "whoever", "whose",
    "why",
];

#[test]
fn a_doc_comment_opens_with_a_verb_or_a_noun_and_says_more_than_the_name() {
    let (mut blocks, mut clauses, mut short) = (0, Vec::new(), Vec::new());
    for (name, text) in source() {
        let mut block = String::new();
        for line in text.lines().map(str::trim).chain([""]) {
            if let Some(words) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) {
                block += words;
                continue;
            }
            let words: Vec<&str> = block.split_whitespace().collect();
            if let Some(first) = words.first() {
                blocks += 1;
                let first = first.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
                if CLAUSE_OPENERS.contains(&first.as_str()) {
                    clauses.push(format!("{name}: {block}"));
                }
                if words.len() <= 4 {
                    short.push(format!("{name}: {block}"));
                }
            }
            block.clear();
        }
    }
    assert!(percent(&clauses, blocks) < 3, "{clauses:#?}");
    assert!(percent(&short, blocks) < 8, "{short:#?}");
}

#[test]
fn only_one_file_reads_a_clock() {
    for (name, text) in source() {
        let reads = code(&text).contains("clock_gettime");
        assert_eq!(reads, name == "base/time.rs", "{name}");
    }
}

#[test]
fn every_room_opens_with_an_essay() {
    for room in FLOORS.iter().flat_map(|rooms| rooms.iter()) {
        let door = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room).join("mod.rs");
        let text = fs::read_to_string(&door).unwrap_or_else(|_| panic!("{} is missing", door.display()));
        let essay = text.lines().take_while(|line| line.starts_with("//!")).count();
        assert!(essay >= 3, "src/{room}/mod.rs does not say what the room owns and must not know");
    }
}

#[test]
fn every_profile_has_conversations_and_a_section_in_the_docs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = ["docs/providers.md", "docs/banks.md"].map(|page| fs::read_to_string(root.join(page)).expect(page));
    let mut profiles = 0;
    for entry in fs::read_dir(root.join("src/provider/profiles")).expect("profiles") {
        let path = entry.expect("profiles").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let fixtures = fs::read_dir(root.join("tests/fixtures/provider").join(&name));
        assert!(fixtures.is_ok_and(|found| found.count() > 0), "the profile {name} has no conversations");
        assert!(docs.concat().contains(&format!("`{name}`")), "neither page has a section on {name}");
        profiles += 1;
    }
    assert!(profiles >= 6);
}

#[test]
fn the_error_page_is_the_error_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    let made = countersign::serve::fault::document();
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &made).expect("docs/errors.md is writable");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, made, "run the tests once with BLESS=1 to write docs/errors.md anew");
}

#[test]
fn the_pages_of_promises_name_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code: String = source().into_iter().map(|(_, text)| text).collect();
    let mut tests = Vec::new();
    walk(&root.join("tests/it"), &mut tests);
    for path in tests {
        code += &fs::read_to_string(path).expect("readable");
    }
    // A row of a macro, too, names a test.
    let is_there = |name: &str| code.contains(&format!("fn {name}(")) || code.contains(&format!("    {name}: "));
    for page in ["docs/reliability.md", "docs/threat-model.md"] {
        let text = fs::read_to_string(root.join(page)).expect("readable");
        let named: BTreeSet<&str> =
            text.split('`').skip(1).step_by(2).filter(|word| word.matches('_').count() > 3).collect();
        assert!(named.len() > 40, "{page}: {named:?}");
        let missing: Vec<_> = named.iter().filter(|name| !is_there(name)).collect();
        assert!(missing.is_empty(), "{page}: {missing:#?}");
    }
}

/// Whoever is woken by an alert or shown an error finds a page of its name.
#[test]
fn every_alert_and_every_error_has_a_runbook() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_else(|_| panic!("{path} is missing"));
    let alerts = text("deploy/prometheus/alerts.yaml");
    let alerts = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let errors = text("docs/errors.md");
    let errors = errors.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).map(str::to_owned);
    let wanted: BTreeSet<String> = alerts.map(|name| format!("alert-{name}")).chain(errors).collect();
    let pages = fs::read_dir(root.join("docs/runbooks")).expect("the folder");
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().trim_end_matches(".md").to_owned();
    let found: BTreeSet<String> =
        pages.map(|entry| name(entry.expect("an entry"))).filter(|name| name != "README").collect();
    assert_eq!(found, wanted);
    let index = text("docs/runbooks/README.md");
    for name in &wanted {
        assert!(index.contains(&format!("({name}.md)")), "the index does not lead to {name}");
        let title = name.trim_start_matches("alert-");
        assert!(text(&format!("docs/runbooks/{name}.md")).starts_with(&format!("# {title}\n")), "{name}");
    }
}

/// `dist` inherits from `release`, which builds quickly: what is released takes nothing of that.
#[test]
fn what_is_released_is_optimized_in_full() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("a manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let (quick, dist) = (&manifest["profile"]["release"], &manifest["profile"]["dist"]);
    for (key, value) in [("opt-level", toml::Value::Integer(3)), ("lto", "fat".into()), ("codegen-units", 1.into())] {
        assert_eq!(dist.get(key), Some(&value), "{key}");
        assert_ne!(quick.get(key), Some(&value), "{key}");
    }
    assert!(quick.get("package").is_none(), "what is set there for one package is inherited");
}

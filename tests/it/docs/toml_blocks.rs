//! Every TOML block of the pages, put before its own reader.
//!
//! A block is a part of a `proxy.toml`: what a whole one needs besides is added around it. A marker on the line above, an
//! HTML comment, says where it is something else:
//!
//! - `in TABLE`: keys of a table, `[[listener]]` or `[provider.newbank]`; `each line in TABLE`: one in the place of the other
//! - `profile`, `profile fragment`, `conversation`, `simulator`: the other files of TOML
//! - `not read: REASON`: none of these

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use countersign::config::{self, Files};
use countersign::provider::{Profile, fixture};
use countersign::sim::BankFile;
use countersign::syntax::{Diagnostic, Diagnostics, Severity, SourceText};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use regex::Regex;
use tempfile::TempDir;

use super::markdown::{Fence, pages, root};

/// Blocks that no reader takes; their reasons are in the pages.
const NOT_READ: usize = 2;

/// Stands for a value that a page leaves out.
const ELIDED: &str = "elided";

/// The hash of a client's key.
const HASH: &str = "8f1d3c6b5a7e90241bd4c0f6a2e8751993d60b4c7fe2a815d03b9c6e47f1a258";

const PACK: &str = "packs/our-banks";

fn fixture_file(path: &str) -> String {
    fs::read_to_string(root("tests/fixtures").join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A machine on which every file is there that a page names, with the content that its name tells.
struct Machine {
    /// A certificate and its key in one text, so that either is found; both fit each other.
    pair: String,
    ca: String,
    /// The folder in which `packs/our-banks` and its public key are.
    packs: TempDir,
}

impl Machine {
    fn get() -> &'static Self {
        static MADE: OnceLock<Machine> = OnceLock::new();
        MADE.get_or_init(|| {
            let key = fixture_file("signing/rsa-pkcs8.pem");
            let signer = KeyPair::from_pem(&key).expect("a key");
            let server = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
            let pair = server.self_signed(&signer).expect("a certificate").pem() + &key;
            let mut authority = CertificateParams::default();
            authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let own = KeyPair::generate().expect("a key");
            let ca = authority.self_signed(&own).expect("a certificate").pem() + &own.serialize_pem();
            Machine { pair, ca, packs: packs() }
        })
    }
}

/// Makes the pack that the pages speak of.
fn packs() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |path: &str| folder.path().join(path);
    fs::create_dir_all(at(PACK)).expect("a folder");
    fs::write(at(PACK).join("scb.toml"), Profile::builtin_text("scb").expect("a profile")).expect("written");
    fs::write(at("pack.key"), fixture_file("signing/ed25519-pkcs8.pem")).expect("written");
    fs::write(at("packs/our-banks.pub"), fixture_file("signing/ed25519-public.pem")).expect("written");
    let pack = ["profiles", "pack", PACK, "--version", "2026.11.30", "--key", "pack.key"];
    let made = Command::new(env!("CARGO_BIN_EXE_countersign")).args(pack).current_dir(folder.path()).output();
    let made = made.expect("it runs");
    assert!(made.status.success(), "{made:?}");
    folder
}

impl Files for Machine {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.starts_with("packs") {
            return fs::read(self.packs.path().join(path));
        }
        let signing = |file: &str| fs::read(root("tests/fixtures/signing").join(file));
        let text = match name {
            _ if name.ends_with(".toml") => fixture_file(&format!("docs/{name}")),
            _ if name.ends_with(".jwks") => return signing("bank.jwks"),
            _ if name.ends_with(".p12") => return signing("key.p12"),
            "dpop.pem" => return signing("p256-sec1.pem"),
            "sign.pem" if path.starts_with("keys") => return signing("rsa-encrypted.pem"),
            "store.key.wrapped" => "AAEC".to_owned(),
            "audit.key" => "0123456789abcdef".repeat(4),
            "store.key" => "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned(),
            _ if name.starts_with("ca.") || name.contains("-ca.") => self.ca.clone(),
            _ if [".crt", ".pem", ".key"].iter().any(|ending| name.ends_with(ending)) => self.pair.clone(),
            _ => format!("value-of-{name}"),
        };
        Ok(text.into_bytes())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.packs.path().join(folder))? {
            found.push(folder.join(entry?.file_name()));
        }
        Ok(found)
    }

    fn env(&self, name: &str) -> Option<String> {
        Some(if name.contains("PASSWORD") { "open sesame".to_owned() } else { format!("value-of-{name}") })
    }

    fn command(&self, _: &config::SourceCommand) -> Result<zeroize::Zeroizing<Vec<u8>>, config::CommandError> {
        Ok(zeroize::Zeroizing::new(b"value-of-a-command".to_vec()))
    }
}

/// A table of a block: its header as it stands there, `[provider.scb]`, and its lines.
struct Table<'a> {
    header: &'a str,
    body: String,
}

fn tables(text: &str) -> Vec<Table<'_>> {
    let mut found = vec![Table { header: "", body: String::new() }];
    for line in text.lines() {
        match line.starts_with('[').then(|| line.split(" #").next().unwrap_or_default().trim()) {
            Some(header) => found.push(Table { header, body: String::new() }),
            None => found.last_mut().expect("a table").body += &format!("{line}\n"),
        }
    }
    found
}

fn has_key(body: &str, key: &str) -> bool {
    body.lines().any(|line| line.split('=').next().is_some_and(|name| name.trim() == key))
}

/// The lines of a provider that a block takes for granted.
fn provider_lines(name: &str) -> &'static str {
    match name {
        "scb" => "profile = \"scb\"\nenvironment = \"sandbox\"\napplication_key = \"k\"\napplication_secret = \"s\"\n",
        "newbank" => {
            "profile = \"profiles/newbank.toml\"\nbase_url = \"https://api.newbank.example/open\"\nkey = \"k1\"\nsecret_key = \"s\"\nwebhook_secret = \"hush-hush\"\n"
        }
        _ => {
            "profile = \"oauth2\"\nbase_url = \"https://api.other.example\"\ntoken_url = \"https://api.other.example/token\"\nclient_id = \"c\"\nclient_secret = \"s\"\n"
        }
    }
}

/// The lines of a provider that its table does not have.
fn missing_lines(name: &str, body: &str) -> String {
    let key = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    provider_lines(name).lines().filter(|line| !has_key(body, &key(line))).map(|line| format!("{line}\n")).collect()
}

/// A whole `proxy.toml` around a block.
fn framed(block: &str) -> String {
    let block = block.replace("key_sha256 = [\"…\"]", &format!("key_sha256 = [\"{HASH}\"]"));
    let block = block.replace("https://…", "https://bank.example").replace('…', ELIDED);
    let found = tables(&block);
    let (mut text, mut providers) = (String::new(), BTreeMap::<&str, bool>::new());
    for table in &found {
        text += &format!("{}\n{}", table.header, table.body);
        if table.header == "[[listener]]" && !has_key(&table.body, "bind") {
            text += &listener_keys(table.header, &table.body);
        }
        let path = table.header.trim_matches(['[', ']']);
        if let Some((name, below)) =
            path.strip_prefix("provider.").map(|path| path.split_once('.').unwrap_or((path, "")))
        {
            *providers.entry(name).or_default() |= below.is_empty();
            if below.is_empty() && !["base_url", "environment"].iter().any(|key| has_key(&table.body, key)) {
                text += &missing_lines(name, &table.body);
            }
        }
    }
    let reference = Regex::new(r#"(?m)^\s*provider\s*=\s*"([^"]+)""#).expect("a pattern");
    for named in reference.captures_iter(&block) {
        providers.entry(named.get(1).expect("a group").as_str()).or_default();
    }
    if providers.is_empty() {
        providers.insert("other", false);
    }
    for (name, _) in providers.iter().filter(|(_, is_there)| !**is_there) {
        text += &format!("[provider.{name}]\n{}", provider_lines(name));
    }
    let has = |header: &str| found.iter().any(|table| table.header.starts_with(header));
    let takes_calls = |table: &Table| table.header == "[[listener]]" && !table.body.contains("\"callback\"");
    if !found.iter().any(takes_calls) {
        text += &format!("[[listener]]\n{}", listener_keys("[[listener]]", ""));
    }
    if !has("[[route]]") {
        let variable = Regex::new(r#"\{ var = "([a-z]+)" \}"#).expect("a pattern");
        let names = variable.captures_iter(&block).map(|found| found[1].to_owned());
        let variables: String = names.map(|name| format!("vars.{name} = {{ header = \"x-{name}\" }}\n")).collect();
        for name in providers.keys() {
            text += &format!("[[route]]\npath = \"/{name}\"\nprovider = \"{name}\"\n{variables}");
        }
    }
    if block.contains("\"our-banks/") && !has("[profile_pack.") {
        text += &format!("[profile_pack.our-banks]\npath = \"{PACK}\"\npublic_key = \"{PACK}.pub\"\n");
    }
    if !has("[client.") {
        text += &format!("[client.erp]\nkey_sha256 = [\"{HASH}\"]\n");
    }
    text
}

/// A whole profile around a part of one.
fn framed_profile(block: &str) -> String {
    let mut text = block.to_owned();
    let found = tables(block);
    if !has_key(&found[0].body, "name") {
        text = format!("name = \"framed\"\n{text}");
    }
    for part in fixture_file("docs/profile-frame.toml").split("\n\n") {
        let header = part.lines().find(|line| line.starts_with('[')).unwrap_or_else(|| panic!("{part}"));
        // Settings and times are there where the block names them.
        let table = header.trim_matches(['[', ']']);
        let is_wanted = match table.split_once('.') {
            Some(("settings", name)) => {
                [format!("{{{name}"), format!("\"{name}\"")].iter().any(|use_of| block.contains(use_of))
            }
            Some(("times", name)) => block.contains(&format!("{{time.{name}")),
            _ => true,
        };
        if is_wanted && !found.iter().any(|table| table.header == header) {
            text += &format!("\n{part}\n");
        }
    }
    text
}

/// What is said of a key in a service and of a source of secrets, whose settings are read before.
const NOT_REACHED: [&str; 2] = ["no key service is reached here", "no source of secrets is reached here"];

fn errors(found: &[Diagnostic], text: &str) -> Vec<String> {
    // A value that is left out for the reader to fill in has no form.
    let is_elided = |one: &Diagnostic| {
        one.title.contains("does not have the form")
            && one.source.text.get(one.span.clone()).is_some_and(|value| value.contains(ELIDED))
    };
    let wrong = found
        .iter()
        .filter(|one| one.severity == Severity::Error && !NOT_REACHED.contains(&&*one.title) && !is_elided(one));
    let mut wrong: Vec<String> = wrong.map(Diagnostic::one_line).collect();
    if !wrong.is_empty() {
        wrong.push(text.lines().enumerate().map(|(at, line)| format!("{:4} {line}\n", at + 1)).collect());
    }
    wrong
}

fn profile(text: &str) -> (Option<Arc<Profile>>, Vec<String>) {
    let report = Diagnostics::new();
    let profile = Profile::parse(&SourceText::new("block", text), &report);
    let mut wrong = errors(&report.into_diagnostics(), text);
    if profile.is_none() && wrong.is_empty() {
        wrong.push("no profile".to_owned());
    }
    (profile, wrong)
}

fn config(text: &str) -> Vec<String> {
    let (snapshot, found) = config::build(Path::new("proxy.toml"), text, Machine::get());
    let wrong = errors(&found, text);
    let elided = found.iter().any(|one| one.severity == Severity::Error);
    assert!(snapshot.is_some() || elided, "{text}");
    wrong
}

/// The mistakes of a block. `last` is the last whole profile of the page, against which conversations are played.
fn mistakes(fence: &Fence, last: &mut Option<Arc<Profile>>) -> Vec<String> {
    let marker = fence.marker.as_deref().unwrap_or("config");
    match marker.split_once(' ').unwrap_or((marker, "")) {
        ("config", "") => config(&framed(&fence.text)),
        ("in", table) => config(&in_table(table, &fence.text)),
        ("each", rest) => {
            let table = rest.trim_start_matches("line in ");
            fence.text.lines().flat_map(|line| config(&in_table(table, line))).collect()
        }
        ("profile", "fragment") => profile(&framed_profile(&fence.text)).1,
        ("profile", "") => {
            let (read, wrong) = profile(&fence.text);
            *last = read;
            wrong
        }
        ("conversation", "") => fixture::play("block", &fence.text, last.as_ref()),
        ("simulator", "") => BankFile::parse("block", &fence.text).err().into_iter().collect(),
        _ => vec![format!("unknown marker `{marker}`")],
    }
}

/// A whole `proxy.toml` around keys of a table.
fn in_table(table: &str, keys: &str) -> String {
    framed(&format!("{table}\n{}{keys}\n", listener_keys(table, keys)))
}

/// The keys that a listener needs besides. A forward listener speaks to programs on this machine without TLS.
fn listener_keys(table: &str, keys: &str) -> String {
    if table != "[[listener]]" {
        return String::new();
    }
    let last = if has_key(keys, "intercept") {
        ("mode", "\"forward\"")
    } else {
        ("tls", "{ cert = \"server.crt\", key = \"server.key\" }")
    };
    let all = [("name", "\"framed\""), ("bind", "\"127.0.0.1:8443\""), last];
    all.iter().filter(|(key, _)| !has_key(keys, key)).map(|(key, value)| format!("{key} = {value}\n")).collect()
}

#[test]
fn every_toml_block_is_taken_by_its_reader() {
    let (mut wrong, mut kinds, mut not_read) = (Vec::new(), BTreeMap::<String, usize>::new(), 0);
    for page in pages() {
        let mut last = None;
        for fence in page.fences().iter().filter(|fence| fence.info.starts_with("toml")) {
            let marker = fence.marker.as_deref().unwrap_or("config");
            if let Some(reason) = marker.strip_prefix("not read: ") {
                assert!(reason.len() > 10, "{}:{}: no reason", page.path, fence.line);
                not_read += 1;
                continue;
            }
            *kinds.entry(marker.to_owned()).or_default() += 1;
            for one in mistakes(fence, &mut last) {
                wrong.push(format!("{}:{}: {one}", page.path, fence.line));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(not_read, NOT_READ);
    let read: usize = kinds.values().sum();
    assert!(read >= 88 && kinds.len() >= 6, "{kinds:?}");
}

#[test]
fn a_block_with_a_mistake_is_found() {
    let fence = |marker: Option<&str>, text: &str| Fence {
        info: "toml".to_owned(),
        text: text.to_owned(),
        line: 1,
        marker: marker.map(str::to_owned),
    };
    let good = [
        (None, "[store]\nurl = \"file:x\"\nkeys = [{ file = \"store.key\" }]\n"),
        (None, "[provider.newbank]\nrecord = { folder = \"x\" }\n"),
        (Some("in [[listener]]"), "proxy_protocol = [\"10.0.0.0/8\"]\n"),
        (Some("profile fragment"), "[ids.external]\nkind = \"numeric\"\nlength = 18\n"),
    ];
    for (marker, text) in good {
        assert_eq!(mistakes(&fence(marker, text), &mut None), Vec::<String>::new());
        let bad = text.replacen(" = ", "_x = ", 1);
        assert!(!mistakes(&fence(marker, &bad), &mut None).is_empty(), "{bad}");
    }
    assert!(!mistakes(&fence(Some("whatever"), ""), &mut None).is_empty());
}

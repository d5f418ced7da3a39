//! A config in several files: they count as one, and every message names the right one.

use std::path::Path;

use countersign::config::{InMemory, Snapshot, build};

const MAIN: &str = r#"
include = ["conf.d/*.toml", "banks/other.toml"]

[[listener]]
name = "gateway"
bind = "127.0.0.1:0"

[client.erp]
key_sha256 = ["8f1d3c6b5a7e90241bd4c0f6a2e8751993d60b4c7fe2a815d03b9c6e47f1a258"]
"#;

const OTHER: &str = r#"
[provider.other]
profile = "oauth2"
base_url = "https://api.other.example/base"
token_url = "https://api.other.example/base/token"
client_id = "id"
client_secret = { file = "secrets/other" }

[[route]]
name = "other"
path = "/other"
provider = "other"
clients = ["erp"]
"#;

const MORE: &str = r#"
[client.treasury]
key_sha256 = ["1f1d3c6b5a7e90241bd4c0f6a2e8751993d60b4c7fe2a815d03b9c6e47f1a258"]

[[route]]
name = "more"
path = "/more"
provider = "other"
clients = ["treasury"]
"#;

fn files() -> InMemory {
    InMemory::new()
        .with_file("etc/conf.d/10-more.toml", MORE)
        .with_file("etc/conf.d/.hidden.toml", "nonsense")
        .with_file("etc/conf.d/notes.txt", "nonsense")
        .with_file("etc/banks/other.toml", OTHER)
        .with_file("etc/secrets/other", "s3cr3t-other")
}

fn read(main: &str, files: &InMemory) -> Result<Snapshot, Vec<String>> {
    let (snapshot, found) = build(Path::new("etc/proxy.toml"), main, files);
    for found in &found {
        assert!(!found.render(false).contains("s3cr3t"), "{}", found.render(false));
    }
    snapshot.ok_or_else(|| found.iter().map(|found| found.one_line()).collect())
}

fn mistakes(main: &str, files: &InMemory) -> Vec<String> {
    read(main, files).err().unwrap_or_else(|| panic!("no mistakes in {main}"))
}

#[test]
fn files_count_as_one_config() {
    let snapshot = read(MAIN, &files()).expect("a good config");
    let routes: Vec<&str> = snapshot.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(routes, ["more", "other"], "files in the order of the list, names in order");
    assert_eq!(snapshot.clients.all.len(), 2);
    let texts: Vec<String> = snapshot.sources.texts.iter().map(|(path, _)| path.display().to_string()).collect();
    assert_eq!(texts, ["etc/proxy.toml", "etc/conf.d/10-more.toml", "etc/banks/other.toml"]);
    let same = read(MAIN, &files()).expect("a good config");
    assert_eq!(same.sources.fingerprint, snapshot.sources.fingerprint);
    let changed = files().with_file("etc/conf.d/10-more.toml", MORE.replace("/more", "/less"));
    let changed = read(MAIN, &changed).expect("a good config");
    assert_ne!(changed.digest, snapshot.digest);
    assert_eq!(changed.sources.changes(&snapshot.sources), ["changed route `more`", "changed etc/conf.d/10-more.toml"]);
}

#[test]
fn mistakes_name_the_file_that_they_are_in() {
    let with = |name: &str, text: &str| files().with_file(format!("etc/conf.d/{name}"), text);
    let told = |name: &str, text: &str| mistakes(MAIN, &with(name, text)).join("\n");
    let said = told("20.toml", "\n[provider.other]\nprofile = \"meed\"\n");
    assert!(
        said.contains("etc/banks/other.toml:2:11: error: [provider.other] stands in `etc/conf.d/20.toml` already"),
        "{said}"
    );
    let said = told("20.toml", "lisener = 1\n");
    assert!(said.contains("etc/conf.d/20.toml:1:1: error: unknown key `lisener`"), "{said}");
    let said = told("20.toml", "[[route]]\nname = \"x\"\npath = \"/x\"\nprovider = \"nobody\"\nclients = [\"erp\"]\n");
    assert!(said.contains("etc/conf.d/20.toml:4:12: error:"), "{said}");
    let said = told("20.toml", "include = [\"more.toml\"]\n");
    assert!(said.contains("etc/conf.d/20.toml:1:1: error: only the config itself includes files"), "{said}");
    let said = told("20.toml", "[client.erp]\nnetworks = []\n");
    assert!(said.contains("[client.erp] stands in `etc/proxy.toml` already"), "{said}");
    let said = told("20.toml", "[log]\nlevel = \"x\"\n");
    assert!(said.contains("etc/conf.d/20.toml:2:9"), "{said}");
    let twice = with("20.toml", "[limits]\nstreams = 5\n").with_file("etc/conf.d/30.toml", "[limits]\nstreams = 6\n");
    let said = mistakes(MAIN, &twice).join("\n");
    assert!(said.contains("etc/conf.d/30.toml:1:2: error: `limits` stands in `etc/conf.d/20.toml` already"), "{said}");
    let said = told("20.toml", "[client.x]\nkey_sha256 = \"s3cr3t\n");
    assert!(said.contains("etc/conf.d/20.toml:2:"), "{said}");
}

#[test]
fn what_cannot_be_included_is_told() {
    for (include, what) in [
        ("[\"nowhere.toml\"]", "`etc/nowhere.toml` cannot be read: there is no such file"),
        ("\"conf.d/*.toml\"", "`include` is a list of patterns"),
        ("[\"*/x.toml\"]", "names many folders"),
        ("[\"conf.d/[.toml\"]", "is no pattern"),
        ("[\"..\"]", "names no file"),
        ("[5]", "expected a string"),
    ] {
        let main = MAIN.replace("[\"conf.d/*.toml\", \"banks/other.toml\"]", include);
        let said = mistakes(&main, &files()).join("\n");
        assert!(said.contains(what) && said.contains("etc/proxy.toml:2:"), "{include}: {said}");
    }
    let none = MAIN.replace("conf.d/*.toml", "conf.d/*.nothing");
    read(&none, &files()).expect("a pattern may match nothing");
}

#[test]
fn commands_beside_the_proxy_look_into_included_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    put("proxy.toml", "include = [\"more/*.toml\"]\n");
    std::fs::create_dir(folder.path().join("more")).expect("made");
    put("more/door.toml", "[admin]\nbind = \"127.0.0.1:0\"\n");
    put("more/egress.toml", "[[listener]]\nmode = \"forward\"\nbind = \"127.0.0.1:3128\"\n");
    let told = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_countersign"));
        let done = command.args(arguments).current_dir(folder.path()).output().expect("it runs");
        String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()
    };
    let said = told(&["health"]);
    assert!(said.contains("lets the admin listener take any port"), "{said}");
    let said = told(&["env", "--shell", "dotenv"]);
    assert!(said.contains("has no `intercept`"), "{said}");
    put("more/door.toml", "[admin\n");
    let said = told(&["health"]);
    assert!(said.contains("more/door.toml is not well-formed TOML"), "{said}");
}

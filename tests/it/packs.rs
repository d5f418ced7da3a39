//! Packs of profiles: made and verified from a shell, used by a config, replaced under a running proxy; and `profiles diff`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use countersign::base::secret::{hex, sha256};
use countersign::config::{AsRead, InMemory, Snapshot, build};
use countersign::control::ReloadOutcome;
use countersign::provider::{Profile, sign_manifest};
use countersign::sim::{Bank, SimHandle};
use serde_json::Value;

use crate::client::{converse, get};
use crate::harness::{Harness, KEY, Plan, bank};

const PRIVATE: &str = "tests/fixtures/signing/ed25519-pkcs8.pem";
const PUBLIC: &str = "tests/fixtures/signing/ed25519-public.pem";

fn told(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(arguments).stdin(Stdio::null()).env_remove("RUST_LOG").env_remove("COUNTERSIGN_CONFIG");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("it starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn builtin(name: &str) -> String {
    Profile::builtin_text(name).expect("a built-in profile").to_owned()
}

/// A folder with the files of a pack: two profiles, the conversations of one, and no manifest yet.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let whole = tempfile::tempdir().expect("a folder");
    let folder = whole.path().join("banks");
    fs::create_dir_all(folder.join("meed")).expect("made");
    fs::write(folder.join("meed.toml"), builtin("meed")).expect("written");
    let base = "name = \"our-login\"\nextends = \"./meed\"\n[token.request]\npath = \"/v2/oauth/token\"\n";
    fs::write(folder.join("our-login.toml"), base).expect("written");
    for entry in fs::read_dir("tests/fixtures/provider/meed").expect("conversations") {
        let path = entry.expect("a file").path();
        fs::copy(&path, folder.join("meed").join(path.file_name().expect("a name"))).expect("copied");
    }
    (whole, folder)
}

#[test]
fn a_pack_is_made_listed_played_and_verified_from_a_shell() {
    let (_whole, folder) = folder();
    let at = folder.to_str().expect("text");
    let found = told(&["profiles", "pack", at]);
    assert_eq!(code(&found), 2, "a pack has a version: {found:?}");
    assert!(text(&found).contains("say --version"), "{}", text(&found));
    let found = told(&["profiles", "verify", at, "--public-key", PUBLIC]);
    assert_eq!(code(&found), 1);
    assert!(text(&found).contains("it has no `pack.toml`"), "{}", text(&found));

    let found = told(&["profiles", "pack", at, "--version", "2026.11.30", "--key", PRIVATE]);
    assert_eq!(code(&found), 0, "{}", text(&found));
    assert!(text(&found).contains("banks 2026.11.30: 2 profiles, signed."), "{}", text(&found));
    let manifest = fs::read_to_string(folder.join("pack.toml")).expect("a manifest");
    assert!(
        manifest.contains(&format!("\"meed.toml\" = \"{}\"", hex(&sha256(builtin("meed").as_bytes())))),
        "{manifest}"
    );

    let found = told(&["profiles", "verify", at, "--public-key", PUBLIC, "--json"]);
    assert_eq!(code(&found), 0, "{}", text(&found));
    let answer = json(&found);
    assert_eq!((&answer["ok"], &answer["version"]), (&Value::from(true), &Value::from("2026.11.30")));
    assert_eq!(answer["profiles"][0]["name"], "meed");
    assert_eq!(answer["profiles"][0]["basis"], "documents");
    let listed = told(&["profiles", at]);
    let listed = text(&listed);
    assert!(
        ["meed", "2026.11.30", "documents", "all but 3", "our-login"].iter().all(|w| listed.contains(w)),
        "{listed}"
    );

    let played = told(&["profiles", "test", at]);
    assert_eq!(code(&played), 0, "{}", text(&played));
    assert!(text(&played).contains("banks/meed/"), "{}", text(&played));
    // A name in the folder is a name of a profile, parents included.
    let linted = told(&["profiles", "lint", &format!("{at}/our-login")]);
    assert!(!text(&linted).contains("mistakes"), "{}", text(&linted));

    // The files of a version are its files: a changed one needs another version.
    let changed = builtin("meed") + "# another text\n";
    fs::write(folder.join("meed.toml"), changed).expect("written");
    let found = told(&["profiles", "verify", at, "--public-key", PUBLIC]);
    assert_eq!(code(&found), 1);
    assert!(text(&found).contains("`meed.toml` is not the one of its manifest"), "{}", text(&found));
    let found = told(&["profiles", "pack", at, "--key", PRIVATE]);
    assert_eq!(code(&found), 2);
    assert!(text(&found).contains("--version with a newer one"), "{}", text(&found));
    let found = told(&["profiles", "pack", at, "--version", "2026.12.1"]);
    assert_eq!(code(&found), 0);
    assert!(text(&found).contains("The signature of before was removed"), "{}", text(&found));
    assert!(!folder.join("pack.sig").exists());

    // Mistakes are told before anything is written.
    fs::write(folder.join("bad.toml"), "name = 7\n").expect("written");
    let found = told(&["profiles", "pack", at, "--version", "2027", "--key", PRIVATE]);
    assert_eq!(code(&found), 1);
    assert!(text(&found).contains("bad.toml:1:8") && !folder.join("pack.sig").exists(), "{}", text(&found));
    let found = told(&["profiles", "pack", at, "--version", "1.x"]);
    assert_eq!(code(&found), 2);
    for key in ["tests/fixtures/signing/rsa-pkcs8.pem", PUBLIC] {
        fs::write(folder.join("bad.toml"), builtin("scb")).expect("written");
        let found = told(&["profiles", "pack", at, "--version", "2027", "--key", key]);
        assert_eq!(code(&found), 2, "{}", text(&found));
        assert!(!folder.join("pack.sig").exists());
    }
    assert_eq!(code(&told(&["profiles", "verify", at, "--public-key", "/no/such/key"])), 2);
}

#[test]
fn profiles_are_compared_by_meaning() {
    let (whole, folder) = folder();
    let at = folder.to_str().expect("text");
    let same = told(&["profiles", "diff", "meed", &format!("{at}/meed.toml")]);
    assert_eq!((code(&same), text(&same).contains("They say the same.")), (0, true), "{}", text(&same));
    assert_eq!(code(&told(&["profiles", "pack", at, "--version", "1", "--key", PRIVATE])), 0);

    let found = told(&["profiles", "diff", "meed", &format!("{at}/our-login")]);
    assert_eq!(code(&found), 1);
    let shown = text(&found);
    let line = "  changed  token.request.path: \"/v1/oauth/token\" → \"/v2/oauth/token\"";
    assert!(shown.contains("the token request is another one:") && shown.contains(line), "{shown}");
    assert!(shown.contains("only text for people:") && shown.contains("removed  title"), "{shown}");
    assert!(!shown.contains("extends"), "{shown}");
    let answer = json(&told(&["profiles", "diff", "--json", "meed", &format!("{at}/our-login")]));
    assert_eq!((&answer["equal"], &answer["old"]["version"]), (&Value::from(false), &Value::from("2026.11.30")));
    let changes = answer["changes"].as_array().expect("a list");
    let change = changes.iter().find(|change| change["path"] == "token.request.path").expect("the change");
    assert_eq!((&change["change"], &change["new"]), (&Value::from("changed"), &Value::from("\"/v2/oauth/token\"")));
    assert!(change["meaning"].is_string() && changes.iter().any(|change| change["meaning"].is_null()));

    // A pack of a config is known by the config's name for it, and verified as the config says.
    let config = whole.path().join("proxy.toml");
    let key = fs::canonicalize(PUBLIC).expect("a key");
    let pack = format!("[profile_pack.banks]\npath = \"banks\"\npublic_key = \"{}\"\n", key.display());
    fs::write(&config, pack).expect("written");
    let config = config.to_str().expect("text");
    let found = told(&["profiles", "diff", "-c", config, "banks/meed", "meed"]);
    assert_eq!(code(&found), 0, "{}", text(&found));
    let found = told(&["profiles", "diff", "-c", config, "banks/scb", "scb"]);
    assert_eq!(code(&found), 2);
    assert!(text(&found).contains("it has meed, our-login"), "{}", text(&found));
    fs::write(folder.join("meed.toml"), builtin("meed") + "# changed\n").expect("written");
    let found = told(&["profiles", "diff", "-c", config, "banks/meed", "meed"]);
    assert_eq!(code(&found), 2);
    assert!(text(&found).contains("is not the one of its manifest"), "{}", text(&found));

    for wrong in [["meed", "no-such"], ["/no/such.toml", "meed"], ["meed", "tests/fixtures/config/broken-profile.toml"]]
    {
        assert_eq!(code(&told(&[&["profiles", "diff"][..], &wrong].concat())), 2, "{wrong:?}");
    }
}

/// The files of a signed pack.
fn pack(version: &str, profiles: &[(&str, String)]) -> BTreeMap<String, Vec<u8>> {
    let digests: String = profiles
        .iter()
        .map(|(name, text)| format!("\"{name}.toml\" = \"{}\"\n", hex(&sha256(text.as_bytes()))))
        .collect();
    let manifest = format!("name = \"banks\"\nversion = \"{version}\"\n[files]\n{digests}");
    let private = fs::read(PRIVATE).expect("a key");
    let signature = sign_manifest(manifest.as_bytes(), &private).expect("signed");
    let files = profiles.iter().map(|(name, text)| (format!("{name}.toml"), text.clone().into_bytes()));
    files.chain([("pack.toml".to_owned(), manifest.into()), ("pack.sig".to_owned(), signature.into())]).collect()
}

const CONFIG: &str = r#"
[profile_pack.banks]
path = "packs/banks"
public_key = "pack.pub"

[[listener]]
name = "gateway"
bind = "127.0.0.1:0"

[provider.bank]
profile = "banks/meed"
base_url = "https://bank.example/api/partner"
client_id = "id"
client_secret = { file = "secret" }

[[route]]
path = "/bank"
provider = "bank"

[client.erp]
key_sha256 = ["8f1d3c6b5a7e90241bd4c0f6a2e8751993d60b4c7fe2a815d03b9c6e47f1a258"]
"#;

fn world(pack: &BTreeMap<String, Vec<u8>>) -> InMemory {
    let files =
        InMemory::new().with_file("etc/pack.pub", fs::read(PUBLIC).expect("a key")).with_file("etc/secret", "hush");
    pack.iter().fold(files, |files, (name, bytes)| files.with_file(format!("etc/packs/banks/{name}"), bytes.clone()))
}

fn read(config: &str, files: &InMemory) -> Result<Snapshot, Vec<String>> {
    let (snapshot, found) = build(Path::new("etc/proxy.toml"), config, files);
    snapshot.ok_or_else(|| found.iter().map(|found| found.one_line()).collect())
}

#[test]
fn a_config_takes_a_profile_of_a_pack_that_it_believes() {
    let good = pack("2026.11.30", &[("meed", builtin("meed"))]);
    let files = world(&good);
    let snapshot = read(CONFIG, &files).expect("a good config");
    assert_eq!(&*snapshot.providers[0].profile, "banks/meed");
    let named: Vec<String> = snapshot.sources.texts.iter().map(|(path, _)| path.display().to_string()).collect();
    for name in ["pack.toml", "pack.sig", "meed.toml"] {
        assert!(named.contains(&format!("etc/packs/banks/{name}")), "{name} is watched: {named:?}");
    }
    assert!(snapshot.sources.folders.iter().any(|(path, _)| path == Path::new("etc/packs/banks")));
    // The same text is the same profile, so tokens outlive the move of a provider to a pack.
    let own = read(&CONFIG.replace("\"banks/meed\"", "\"meed\""), &files).expect("a good config");
    let key = |snapshot: &Snapshot| snapshot.providers[0].module.as_ref().map(|module| module.key());
    assert_eq!(key(&own), key(&snapshot));
    // A changed pack is another config.
    let changed = world(&pack("2026.12.1", &[("meed", builtin("meed") + "#\n")]));
    assert_ne!(read(CONFIG, &changed).expect("a good config").digest, snapshot.digest);

    let mistaken = |config: &str, files: &InMemory, expected: &str| {
        let told = read(config, files).expect_err(expected);
        assert_eq!(told.len(), 1, "one mistake, told once: {told:#?}");
        assert!(told[0].contains(expected), "{expected}\nin\n{}", told[0]);
    };
    let with = |name: &str, bytes: &str| world(&good).with_file(format!("etc/packs/banks/{name}"), bytes);
    mistaken(
        CONFIG,
        &with("meed.toml", "name = 7"),
        "proxy.toml:3:8: error: the pack `packs/banks` cannot be used: its `meed.toml`",
    );
    mistaken(CONFIG, &with("scb.toml", "name = 7"), "its `scb.toml` is not in its manifest");
    mistaken(CONFIG, &with("pack.sig", "x"), "its signature cannot be read");
    let other = fs::read_to_string("tests/fixtures/signing/rsa-public.pem").expect("a key");
    mistaken(CONFIG, &world(&good).with_file("etc/pack.pub", other), "packs are signed with an Ed25519 key");
    let key = "public_key = \"pack.pub\"\n";
    mistaken(&CONFIG.replace(key, ""), &files, "says not why it is to be believed");
    mistaken(&CONFIG.replace(key, &format!("{key}unsigned = true\n")), &files, "signed and unsigned at once");
    mistaken(
        &CONFIG.replace(key, &format!("{key}min_version = \"2027\"\n")),
        &files,
        "its version is 2026.11.30, older than 2027",
    );
    mistaken(&CONFIG.replace(key, &format!("{key}min_version = \"new\"\n")), &files, "`new` is no version");
    mistaken(&CONFIG.replace("banks/meed\"", "banks/mede\""), &files, "did you mean `banks/meed`?");
    mistaken(
        &CONFIG.replace("\"banks/meed\"", "\"banc/meed\""),
        &files,
        "there is no pack called `banc`; did you mean `banks/meed`?",
    );
    mistaken(&CONFIG.replace("path = \"packs/banks\"", "path = \"packs/none\""), &files, "`packs/none` cannot be used");
    let renamed = CONFIG.replace("profile_pack.banks", "profile_pack.bank").replace("banks/meed\"", "bank/meed\"");
    mistaken(&renamed, &files, "its name is `banks`, and `bank` is expected");
    mistaken(
        CONFIG,
        &world(&pack("1", &[("meed", "name = \"meed\"\n".to_owned())])),
        "etc/packs/banks/meed.toml:1:1: error",
    );
    // A name alone is a built-in profile, whatever the packs have.
    let evil = world(&pack("1", &[("meed", builtin("meed")), ("scb", "nonsense".to_owned())]));
    let plain = CONFIG.replace("\"banks/meed\"", "\"meed\"");
    assert_eq!(&*read(&plain, &evil).expect("a good config").providers[0].profile, "meed");
    // Without a key the manifest must fit all the same.
    let unsigned = CONFIG.replace(key, "unsigned = true\n");
    assert!(read(&unsigned, &files).is_ok());
    mistaken(&unsigned, &with("meed.toml", ""), "its `meed.toml` is not the one of its manifest");
}

#[test]
fn a_renewed_secret_is_read_with_the_pack_as_it_was() {
    let files = world(&pack("1", &[("meed", builtin("meed"))]));
    let before = read(CONFIG, &files).expect("a good config");
    // The pack is being copied while a secret is renewed.
    let now = files.with_file("etc/packs/banks/meed.toml", "half of").with_file("etc/secret", "new-hush");
    assert!(read(CONFIG, &now).is_err());
    let (snapshot, found) =
        build(Path::new("etc/proxy.toml"), CONFIG, &AsRead { sources: &before.sources, files: &now });
    let snapshot = snapshot.unwrap_or_else(|| panic!("{found:?}"));
    assert_eq!(snapshot.digest, before.digest);
    assert_ne!(snapshot.sources.fingerprint, before.sources.fingerprint);
}

/// A proxy with the provider `meed` as a pack has it.
fn stage(sim: &SimHandle, pack: &BTreeMap<String, Vec<u8>>) -> Harness {
    let mut plan = Plan::default().with(sim, "meed", "", "");
    plan.files = plan.files.with_file("stage/pack.pub", fs::read(PUBLIC).expect("a key"));
    for (name, bytes) in pack {
        plan.files = plan.files.with_file(format!("stage/banks/{name}"), bytes.clone());
    }
    plan.config = plan.config.replace("profile = \"meed\"", "profile = \"banks/meed\"");
    assert!(plan.config.contains("banks/meed"), "{}", plan.config);
    plan.config += "[profile_pack.banks]\npath = \"banks\"\npublic_key = \"pack.pub\"\n";
    plan.start()
}

#[test]
fn a_new_version_of_a_pack_is_taken_at_a_reload_and_a_spoilt_one_is_not() {
    let sim = bank(Bank::Meed);
    let stage = stage(&sim, &pack("1", &[("meed", builtin("meed"))]));
    converse(async {
        assert_eq!(stage.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        let marked = builtin("meed")
            .replace("inject = [{ header", "inject = [{ header = \"x-pack\", value = \"two\" }, { header");
        assert_ne!(marked, builtin("meed"));
        let put = |files: &BTreeMap<String, Vec<u8>>| {
            files.iter().for_each(|(name, bytes)| stage.papers.put(&format!("banks/{name}"), bytes.clone()));
        };
        let second = pack("2", &[("meed", marked)]);
        // In the middle of a copy: the profile is there, its manifest is not yet.
        stage.papers.put("banks/meed.toml", second["meed.toml"].clone());
        let outcome = async || stage.running.reloads.reload("test").await.expect("an answer").outcome;
        match outcome().await {
            ReloadOutcome::Refused(why) => assert!(why.contains("its `meed.toml` is not the one"), "{why}"),
            ReloadOutcome::Applied(changes) => panic!("applied: {changes:?}"),
        }
        assert_eq!(stage.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        assert!(sim.received().iter().all(|call| call.header("x-pack").is_none()));
        put(&second);
        match outcome().await {
            ReloadOutcome::Applied(changes) => {
                assert!(changes.iter().any(|line| line == "changed stage/banks/meed.toml"), "{changes:?}");
            }
            ReloadOutcome::Refused(why) => panic!("{why}"),
        }
        assert_eq!(stage.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        let received = sim.received();
        assert_eq!(received.last().expect("a call").header("x-pack"), Some("two"));
        let shown = stage.admin("/api/v1/providers").await;
        assert!(String::from_utf8_lossy(&shown.body).contains("banks/meed"), "the API names the pack");
    });
}

/// A proxy with the provider `meed` as the program has it, and a shadow of a pack.
fn shadowed(sim: &SimHandle, shadow: String) -> Harness {
    let mut plan = Plan::default().with(sim, "meed", "shadow_profile = \"banks/meed\"\n", "");
    plan.files = plan.files.with_file("stage/pack.pub", fs::read(PUBLIC).expect("a key"));
    for (name, bytes) in pack("1", &[("meed", shadow)]) {
        plan.files = plan.files.with_file(format!("stage/banks/{name}"), bytes);
    }
    plan.config += "[profile_pack.banks]\npath = \"banks\"\npublic_key = \"pack.pub\"\n";
    plan.start()
}

async fn shadow_of(stage: &Harness) -> Value {
    let answer = stage.admin("/api/v1/providers").await;
    let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    answer["providers"][0]["shadow"].clone()
}

#[test]
fn a_shadow_is_compared_with_each_call_and_never_sent() {
    let sim = bank(Bank::Meed);
    let other = builtin("meed")
        .replace(
            "inject = [{ header",
            "inject = [{ header = \"x-new\", value = \"hush-hush\" }, { query = \"v\", value = \"2\" }, { header",
        )
        .replace("path     = \"/v1/oauth/token\"", "path     = \"/v2/oauth/token\"")
        .replace("grant_type    = \"client_credentials\"", "grant_type    = \"client_credentials\"\nscope = \"all\"");
    let stage = shadowed(&sim, other);
    converse(async {
        for path in ["/meed/echo/a", "/meed/echo/b?mine=1", "/meed/echo/c"] {
            assert_eq!(stage.client.send(get(path, KEY)).await.status, 200);
        }
        let received = sim.received();
        assert!(
            received.iter().all(|call| call.header("x-new").is_none() && !call.path.contains("/v2/")),
            "{received:?}"
        );
        assert!(received.iter().all(|call| !call.query.as_deref().unwrap_or_default().contains("v=2")));
        assert_eq!(sim.token_calls(), 1);
        let found = shadow_of(&stage).await;
        assert_eq!(found["profile"], "banks/meed");
        assert_eq!((&found["compared"], &found["differing"]), (&Value::from(3), &Value::from(3)));
        let parts = serde_json::json!([{ "part": "header x-new", "count": 3 }, { "part": "query v", "count": 3 }]);
        assert_eq!(found["parts"], parts);
        assert_eq!(found["unseen"], serde_json::json!(["token request url", "token request body scope"]));
        let metrics = stage.admin("/metrics").await;
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        assert!(metrics.contains("countersign_shadow_calls_total{provider=\"meed\"} 3"), "{metrics}");
        let line = "countersign_shadow_differences_total{provider=\"meed\",part=\"header x-new\"} 3";
        assert!(metrics.contains(line), "{metrics}");
        let page = stage.admin("/ui/providers").await;
        let page = String::from_utf8_lossy(&page.body).into_owned();
        assert!(page.contains("3 of 3 calls differ") && page.contains("header x-new"), "{page}");
        for text in [&metrics, &page, &found.to_string()] {
            assert!(!text.contains("hush-hush"), "no value is shown");
        }
    });
}

#[test]
fn a_shadow_judges_answers_and_changes_nothing() {
    let sim = bank(Bank::Meed);
    // It would take no 401 for a refusal.
    let (head, _) =
        builtin("meed").split_once("[[refusal.match]]").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a rule");
    let stage = shadowed(&sim, head + "[[refusal.match]]\nstatus = 418\nbare = true\n");
    converse(async {
        assert_eq!(stage.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        let same = shadow_of(&stage).await;
        assert_eq!((&same["differing"], &same["parts"]), (&Value::from(0), &serde_json::json!([])));
        sim.revoke_all();
        assert_eq!(
            stage.client.send(get("/meed/echo/a", KEY)).await.status,
            200,
            "the present profile has it replayed"
        );
        assert_eq!(sim.token_calls(), 2);
        let found = shadow_of(&stage).await;
        let part = found["parts"][0]["part"].as_str().unwrap_or_default().to_owned();
        assert_eq!(part, "verdict unknown instead of refused", "{found}");
    });
}

#[test]
fn a_shadow_that_cannot_work_is_a_mistake_of_the_config() {
    let plain = CONFIG.replace("\"banks/meed\"", "\"meed\"");
    let with = |shadow: &str| {
        plain.replace("profile = \"meed\"\n", &format!("profile = \"meed\"\nshadow_profile = \"{shadow}\"\n"))
    };
    let files = |profile: String| world(&pack("1", &[("meed", profile)]));
    let snapshot = read(&with("banks/meed"), &files(builtin("meed"))).expect("a good config");
    let shadow = snapshot.providers[0].shadow.as_ref().expect("a shadow");
    assert_eq!((shadow.unseen().len(), snapshot.routes[0].shadow.is_some()), (0, true));
    assert_eq!(&*snapshot.providers[0].profile, "meed");
    let told = |config: &str, files: &InMemory| read(config, files).expect_err("a mistake");
    let more = builtin("meed") + "\n[settings.region]\ndescription = \"where\"\n";
    let found = told(&with("banks/meed"), &files(more.clone()));
    assert!(found.len() == 1 && found[0].contains("`region`"), "its settings are the provider's: {found:#?}");
    let given = with("banks/meed").replace("client_id = \"id\"", "client_id = \"id\"\nregion = \"eu\"");
    assert!(read(&given, &files(more)).is_ok());
    assert!(
        read(&plain.replace("client_id = \"id\"", "client_id = \"id\"\nregion = \"eu\""), &files(builtin("meed")))
            .is_err()
    );
    let found = told(&with("banks/mede"), &files(builtin("meed")));
    assert!(found.len() == 1 && found[0].contains("did you mean `banks/meed`?"), "{found:#?}");
    let scoped = with("rakbank").replace("client_id = \"id\"", "client_id = \"id\"\nscope = \"s\"");
    let found = told(&scoped, &files(builtin("meed")));
    assert!(found.iter().any(|line| line.contains("token_url")), "{found:#?}");
    // What is wrong with both is told once.
    let found = told(&with("banks/meed").replace("client_id = \"id\"\n", ""), &files(builtin("meed")));
    assert!(found.len() == 1 && found[0].contains("client_id"), "{found:#?}");
}

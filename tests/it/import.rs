//! `countersign import`: other gateways' files become the configs and the lists that lie beside them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import")
}

fn import(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.arg("import").args(arguments).current_dir(folder).stdin(Stdio::null());
    command.output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Kind and path of every source, in order.
fn sources() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for folder in fs::read_dir(root()).expect("sources") {
        let folder = folder.expect("readable").path();
        let kind = folder.file_name().expect("a name").to_string_lossy().into_owned();
        for entry in fs::read_dir(&folder).expect("sources") {
            let path = entry.expect("readable").path();
            let name = path.to_string_lossy();
            if path.is_file() && !name.ends_with(".expected.toml") && !name.ends_with(".losses") {
                found.push((kind.clone(), path));
            }
        }
    }
    found.sort();
    found
}

/// Compares with a file, or writes it where `BLESS` is set.
fn is_as_written(path: &Path, made: &str) {
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, made).expect("writable");
    }
    let written = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(written, made, "{}: read what changed, then run once with BLESS=1", path.display());
}

#[test]
fn every_source_becomes_its_config_and_its_list() {
    let sources = sources();
    for kind in ["envoy", "kong", "nginx", "apache", "agentgateway", "krakend", "spring"] {
        let of_kind = sources.iter().filter(|(known, _)| known == kind).count();
        assert!(of_kind >= 2, "{kind}: {of_kind}");
    }
    for (kind, path) in sources {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let folder = path.parent().expect("a folder");
        let told = import(folder, &[&name]);
        let (out, err) = (text(&told.stdout), text(&told.stderr));
        assert!(!format!("{out}{err}").contains("CANARY"), "{name} tells a secret");
        let losses: Vec<&str> = err.lines().filter(|line| line.contains(": not carried over: ")).collect();
        let all_but_losses: Vec<&str> = err.lines().filter(|line| !losses.contains(line)).collect();
        let rest = if losses.is_empty() { 0 } else { 1 };
        assert_eq!(all_but_losses.len(), rest, "{name}: {err}");
        assert_eq!(told.status.code(), Some(i32::from(!losses.is_empty())), "{name}: {err}");
        let stem = path.with_extension("");
        is_as_written(&stem.with_extension("expected.toml"), &out);
        let list: String = losses.iter().map(|line| format!("{line}\n")).collect();
        is_as_written(&stem.with_extension("losses"), &list);
        for loss in losses {
            assert!(out.contains(loss), "{name}: the config does not name {loss}");
        }
        // Told its kind, it becomes the same.
        let again = import(folder, &["--from", &kind, &name]);
        assert_eq!(text(&again.stdout), out, "{name} as {kind}");
    }
}

#[test]
fn a_folder_gets_the_config_and_nothing_in_it_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("new");
    let out = out.to_str().expect("text");
    let told = import(&root(), &["apache/basic.conf", "--out", out]);
    assert_eq!(told.status.code(), Some(1), "{}", text(&told.stderr));
    assert!(text(&told.stdout).contains("variable "), "{}", text(&told.stdout));
    let config = Path::new(out).join("proxy.toml");
    let written = fs::read_to_string(&config).expect("written");
    assert!(written.contains("NOT CARRIED OVER"), "{written}");
    assert!(Path::new(out).join("profiles/static-authorization-basic.toml").is_file());
    let again = import(&root(), &["spring/relay.yml", "--out", out]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("there already"), "{}", text(&again.stderr));
    assert_eq!(fs::read_to_string(&config).expect("still there"), written);
}

#[test]
fn a_written_config_passes_the_check_once_its_variables_are_set() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("text");
    let told = import(&root(), &["spring/relay.yml", "--out", out]);
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    let mut check = Command::new(env!("CARGO_BIN_EXE_countersign"));
    check.args(["check", "-c"]).arg(folder.path().join("proxy.toml")).env("BANK_SECRET", "set").stdin(Stdio::null());
    let told = check.output().expect("it starts");
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
}

#[test]
fn files_that_cannot_be_read_end_with_two_and_a_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, content: &[u8]| fs::write(folder.path().join(name), content).expect("writable");
    write("large", &vec![b'#'; 9 * 1024 * 1024]);
    write("binary", &[0xff, 0xfe, 0]);
    write("empty", b"");
    write("unknown", b"a: 1\n");
    write("broken", b"server { listen 80;");
    write("no-route", b"_format_version: '3.0'\nservices: []\n");
    write("bomb", b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n");
    for (name, word) in [
        ("large", "8 MiB"),
        ("binary", "UTF-8"),
        ("empty", "no config"),
        ("unknown", "--from"),
        ("no-route", "no route"),
        ("bomb", "more values"),
        ("absent", "cannot be read"),
        (".", "no file"),
        ("/dev/zero", "no file"),
    ] {
        let told = import(folder.path(), &[name]);
        assert_eq!(told.status.code(), Some(2), "{name}: {}", text(&told.stderr));
        assert!(text(&told.stderr).contains(word), "{name}: {}", text(&told.stderr));
        assert!(told.stdout.is_empty(), "{name}");
    }
    let told = import(folder.path(), &["--from", "nginx", "broken"]);
    assert_eq!(told.status.code(), Some(2));
    assert!(text(&told.stderr).contains("line 1"), "{}", text(&told.stderr));
}

#[test]
fn included_files_are_read_from_the_files_own_folder_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        fs::write(path, content).expect("writable");
    };
    let location = |path: &str| {
        format!(
            "location {path} {{ proxy_pass https://api.bank.example; proxy_ssl_verify on; proxy_set_header Authorization \"Bearer x\"; }}\n"
        )
    };
    write("outside.conf", &location("/outside"));
    write("own/a.conf", &location("/a"));
    write("own/deep/b.conf", &format!("{}include nginx.conf;\n", location("/b")));
    write("own/nginx.conf", "include a.conf;\ninclude ../outside.conf;\ninclude /etc/hosts;\ninclude linked.conf;\n");
    std::os::unix::fs::symlink("../outside.conf", folder.path().join("own/linked.conf")).expect("a link");
    let told = import(&folder.path().join("own"), &["nginx.conf", "--from", "nginx"]);
    let (out, err) = (text(&told.stdout), text(&told.stderr));
    assert!(out.contains("path     = \"/a\""), "{out}{err}");
    assert!(!out.contains("/outside"), "{out}");
    for line in 2..=4 {
        assert!(err.contains(&format!("nginx.conf, line {line}: include: not carried over: it is not below")), "{err}");
    }
    // A file that includes itself ends.
    write("own/nginx.conf", "include deep/*.conf;\n");
    let told = import(&folder.path().join("own"), &["nginx.conf", "--from", "nginx"]);
    assert_eq!(told.status.code(), Some(2), "{}", text(&told.stderr));
    assert!(text(&told.stderr).contains("included files"), "{}", text(&told.stderr));
}

#[test]
fn an_imported_key_of_kong_is_the_clients_key() {
    let told = import(&root(), &["kong/consumers.yaml"]);
    let hash = countersign::base::secret::hex(&countersign::base::secret::sha256(b"CANARY-0123456789abcdef"));
    assert!(text(&told.stdout).contains(&hash), "{}", text(&told.stdout));
}

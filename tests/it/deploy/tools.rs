//! Running other people's programs, and reading the YAML that they make.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, thread};

use serde_json::Value;
use tempfile::NamedTempFile;

/// What to do where a program is missing.
const ADVICE: &str = "tests/run sets up what these tests need; run it once";

/// Groups of kinds that are not Kubernetes' own.
const FOREIGN: [&str; 5] =
    ["cert-manager.io/", "cilium.io/", "gateway.networking.k8s.io/", "monitoring.coreos.com/", "networking.istio.io/"];

/// How a program ended, and what it said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    /// What it wrote, if it was content.
    pub fn content(self, about: &str) -> String {
        assert_eq!(self.code, Some(0), "{about}:\n{}{}", self.out, self.err);
        self.out
    }

    /// What it complained of, if it was not.
    pub fn complaint(self, about: &str) -> String {
        assert!(self.code != Some(0), "{about}: this should have been refused:\n{}", self.out);
        format!("{}{}", self.out, self.err)
    }
}

pub fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A program of the machine, in the repository's root. Those for administrators are found, too.
pub fn machine(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = env::var("PATH").expect("PATH");
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C.UTF-8").current_dir(root("."));
    command
}

/// A program that `tests/run` put under `target/clients`.
pub fn prepared(path: &str) -> Command {
    let program = root("target/clients").join(path);
    assert!(program.is_file(), "{} is missing: {ADVICE}", program.display());
    machine(program.to_str().expect("a path in UTF-8"))
}

/// Runs it to its end with this as its standard input.
pub fn told(command: &mut Command, input: &str) -> Said {
    let name = command.get_program().to_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{} cannot be run: {error}: {ADVICE}", name.display()));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    // A program that does not read it is right, too.
    let writing = thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().expect("it ends");
    writing.join().expect("written");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A file with this in it.
pub fn file(suffix: &str, text: &str) -> NamedTempFile {
    let file = tempfile::Builder::new().suffix(suffix).tempfile().expect("a file");
    fs::write(file.path(), text).expect("written");
    file
}

/// The documents of a YAML text.
pub fn documents(yaml: &str) -> Vec<Value> {
    const SCRIPT: &str =
        "import json, sys, yaml; json.dump([d for d in yaml.safe_load_all(sys.stdin) if d], sys.stdout)";
    let said = told(prepared("deploy/bin/python").args(["-c", SCRIPT]), yaml);
    serde_json::from_str(&said.content("YAML")).expect("JSON")
}

/// Whether YAML is written as people expect it.
pub fn tidy(about: &str, yaml: &str) {
    const RULES: &str = "{extends: relaxed, rules: {line-length: disable, indentation: {indent-sequences: whatever}}}";
    told(prepared("deploy/bin/yamllint").args(["-s", "-d", RULES, "-"]), yaml).content(about);
}

/// Judges documents by the schemas of Kubernetes, and those of other people's kinds by the schemas in `tests/deploy/crd`.
/// Answers how many there were.
pub fn valid(about: &str, yaml: &str) -> usize {
    let documents = documents(yaml);
    let (ours, foreign): (Vec<_>, Vec<_>) = documents.iter().partition(|document| {
        let api = document["apiVersion"].as_str().expect("an apiVersion");
        !FOREIGN.iter().any(|group| api.starts_with(group))
    });
    let joined: Vec<_> = ours.iter().map(ToString::to_string).collect();
    let file_of_ours = file(".yaml", &joined.join("\n---\n"));
    let mut judge = prepared("deploy/bin/kubernetes-validate");
    let verdict = told(judge.arg("--strict").arg(file_of_ours.path()), "").content(about);
    assert_eq!(verdict.matches(" passed for resource ").count(), ours.len(), "{about}: {verdict}");
    for document in &foreign {
        let kind = document["kind"].as_str().expect("a kind").to_lowercase();
        let instance = file(".json", &document.to_string());
        let mut judge = prepared("deploy/bin/check-jsonschema");
        judge.arg("--schemafile").arg(root(&format!("tests/deploy/crd/{kind}.json"))).arg(instance.path());
        told(&mut judge, "").content(about);
    }
    documents.len()
}

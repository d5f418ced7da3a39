//! `deploy/kubernetes`, built by kubectl.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::placeholder_files::checked;
use super::pods::{config, container, guarded, of, only, patient, pod};
use super::tools::{documents, machine, root, tidy, told, valid};

/// The manifests, where the kubectl of this machine can read them. The kustomize in kubectl before 1.21 (Debian 12 has
/// one) has the same fields under older names.
fn tree() -> TempDir {
    let version = told(machine("kubectl").args(["version", "--client"]), "").content("kubectl");
    let old = version.contains("Major:\"1\", Minor:\"20\"");
    let copy = TempDir::new().expect("a folder");
    copied(&root("deploy/kubernetes"), copy.path(), old);
    copy
}

fn copied(from: &Path, to: &Path, old: bool) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let there = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copied(&path, &there, old);
        } else {
            let text = fs::read_to_string(&path).expect("text");
            let text = if old && path.ends_with("kustomization.yaml") { aged(&text) } else { text };
            fs::write(there, text).expect("written");
        }
    }
}

fn aged(kustomization: &str) -> String {
    kustomization
        .replace("resources:\n  - ../", "bases:\n  - ../")
        .replace("patches:\n", "patchesStrategicMerge:\n")
        .replace("  - path: ", "  - ")
}

fn built(tree: &TempDir, name: &str) -> String {
    let yaml = told(machine("kubectl").arg("kustomize").arg(tree.path().join(name)), "").content(name);
    tidy(name, &yaml);
    valid(name, &yaml);
    yaml
}

fn yaml_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            yaml_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            into.push(path);
        }
    }
}

#[test]
fn the_base_and_its_overlays_are_what_kubernetes_takes() {
    let tree = tree();
    for (name, count) in [("base", 6), ("overlays/gateway", 6), ("overlays/sidecar", 2)] {
        let documents = documents(&built(&tree, name));
        assert_eq!(documents.len(), count, "{name}");
        let deployment = only(&documents, "Deployment");
        guarded(name, deployment);
        let config = config(&documents);
        checked(name, config);
        patient(name, deployment, config);
        // The generated name with its digest must have reached the volume.
        let map = &only(&documents, "ConfigMap")["metadata"]["name"];
        let volumes = pod(deployment)["volumes"].as_array().expect("volumes");
        assert!(volumes.iter().any(|volume| volume["configMap"]["name"] == *map), "{name}: {map}");
        assert!(container(deployment)["image"].as_str().expect("an image").starts_with("countersign:"), "{name}");
    }
}

#[test]
fn replicas_share_a_store_and_may_reach_it() {
    let documents = documents(&built(&tree(), "overlays/gateway"));
    assert_eq!(only(&documents, "Deployment")["spec"]["replicas"], 3);
    assert!(config(&documents).contains("url      = \"rediss://redis:6379/0\""));
    let egress = only(&documents, "NetworkPolicy")["spec"]["egress"].as_array().expect("rules");
    assert!(egress.iter().any(|rule| rule["ports"][0]["port"] == 6379 && rule["to"].is_array()));
}

#[test]
fn a_sidecar_is_on_loopback_and_keeps_its_secrets_to_itself() {
    let documents = documents(&built(&tree(), "overlays/sidecar"));
    assert!(of(&documents, "Service").is_empty());
    let config: toml::Table = config(&documents).parse().expect("TOML");
    assert!(config["listener"][0]["bind"].as_str().expect("an address").starts_with("127.0.0.1:"));
    let pod = pod(only(&documents, "Deployment"));
    assert_eq!(pod["initContainers"][0]["restartPolicy"], "Always");
    assert!(pod["initContainers"][0]["startupProbe"].is_object(), "the application starts after it");
    assert_eq!(pod["containers"][0]["volumeMounts"], Value::Null);
}

#[test]
fn samples_and_sources_are_in_order() {
    let mut files = Vec::new();
    yaml_files(&root("deploy/kubernetes"), &mut files);
    let mut samples = 0;
    for path in files {
        let (name, text) = (path.display().to_string(), fs::read_to_string(&path).expect("text"));
        tidy(&name, &text);
        if path.parent().is_some_and(|folder| folder.ends_with("samples")) {
            samples += valid(&name, &text);
        }
    }
    assert_eq!(samples, 3);
}

//! `deploy/helm/countersign`, rendered by the template engine and the functions that Helm uses (but not by Helm), for
//! every set of values in its `ci` folder.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::placeholder_files::checked;
use super::pods::{config, container, guarded, of, only, patient, pod};
use super::tools::{Said, documents, file, prepared, read, root, tidy, told, valid};

const CHART: &str = "deploy/helm/countersign";
const MONITORING: [&str; 2] = ["-api", "monitoring.coreos.com/v1"];

fn rendered(flags: &[&str], values: &[&Path]) -> Said {
    told(prepared("chart_render").args(flags).arg(CHART).args(values), "")
}

/// The sets of values that must work, by name.
fn sets() -> Vec<(String, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir(root(CHART).join("ci"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.file_stem().expect("a name").to_string_lossy().into_owned(), path))
        .collect();
    found.sort();
    assert!(found.len() >= 4);
    found
}

/// The smallest set that works, with changes.
fn changed(values: &Value) -> Said {
    let overlay = file(".yaml", &values.to_string());
    rendered(&[], &[&root(CHART).join("ci/least-values.yaml"), overlay.path()])
}

fn schema(values: &Path) -> Said {
    told(
        prepared("deploy/bin/check-jsonschema")
            .arg("--schemafile")
            .arg(root(CHART).join("values.schema.json"))
            .arg(values),
        "",
    )
}

#[test]
fn every_set_of_values_makes_documents_that_kubernetes_takes() {
    let mut judged = 0;
    for (name, path) in sets() {
        for flags in [&[][..], &MONITORING] {
            let yaml = rendered(flags, &[&path]).content(&name);
            tidy(&name, &yaml);
            judged += valid(&name, &yaml);
            let documents = documents(&yaml);
            let deployment = only(&documents, "Deployment");
            guarded(&name, deployment);
            guarded(&name, only(&documents, "Pod"));
            let config = config(&documents);
            checked(&name, config);
            patient(&name, deployment, config);
            // One image, one place for probes: the admin listener inside the pod, or its port.
            let container = container(deployment);
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                let over_https = container[probe]["httpGet"]["scheme"] == "HTTPS";
                let inside = container[probe]["exec"]["command"][1] == "health";
                assert!(over_https != inside, "{name}: {probe}");
                assert_eq!(over_https, config.contains("[admin.token."), "{name}: {probe}");
            }
            // A new config rolls the pods, or they take it while they run.
            let rolls = deployment.pointer("/spec/template/metadata/annotations/checksum~1config").is_some();
            assert!(rolls != config.contains("watch = \"all\""), "{name}");
            let mounted: Vec<_> =
                pod(deployment)["volumes"].as_array().expect("volumes").iter().map(|v| &v["name"]).collect();
            for mount in container["volumeMounts"].as_array().expect("mounts") {
                assert!(mounted.contains(&&mount["name"]), "{name}: {mount}");
            }
        }
    }
    assert!(judged >= 60, "{judged}");
}

#[test]
fn what_monitoring_needs_is_made_where_the_cluster_knows_it() {
    let set = root(CHART).join("ci/everything-values.yaml");
    let without = documents(&rendered(&[], &[&set]).content("without"));
    let with = documents(&rendered(&MONITORING, &[&set]).content("with"));
    for kind in ["ServiceMonitor", "PrometheusRule"] {
        assert!(of(&without, kind).is_empty());
        only(&with, kind);
    }
    assert_eq!(only(&with, "PrometheusRule")["spec"], documents(&read("deploy/prometheus/alerts.yaml"))[0]);
    let dashboard = of(&with, "ConfigMap").into_iter().find_map(|map| map["data"]["countersign.json"].as_str());
    let dashboard: Value = serde_json::from_str(dashboard.expect("a dashboard")).expect("JSON");
    assert_eq!(dashboard["title"], "countersign");
    let notes = rendered(&["-notes"], &[&set]).content("notes");
    assert!(notes.contains("helm test") && notes.contains("were left out"), "{notes}");
    // A policy that forgets the door would leave Prometheus outside.
    let policy = only(&with, "NetworkPolicy");
    assert_eq!(policy["spec"]["ingress"][1]["ports"][0]["port"], "admin");
}

#[test]
fn copies_in_the_chart_are_the_originals() {
    for (copy, original) in
        [("alerts.yaml", "prometheus/alerts.yaml"), ("countersign.json", "grafana/countersign.json")]
    {
        assert!(
            read(&format!("{CHART}/files/{copy}")) == read(&format!("deploy/{original}")),
            "copy deploy/{original} to {CHART}/files/"
        );
    }
}

#[test]
fn what_cannot_work_is_refused_with_a_sentence() {
    let cases = [
        (json!({ "store": { "kind": "file" }, "replicas": 2 }), "2 replicas cannot share a store that is a file"),
        (json!({ "store": { "kind": "file" }, "autoscaling": { "enabled": true } }), "autoscaling makes replicas"),
        (json!({ "store": { "kind": "redis" } }), "`store.redis.url` is empty"),
        (json!({ "existingSecret": "" }), "this chart takes no secret as a value"),
        (json!({ "tls": { "existingSecret": "" } }), "there is no certificate"),
        (
            json!({ "tls": { "existingSecret": "", "certManager": { "enabled": true } } }),
            "`tls.certManager.issuerRef` has no name",
        ),
        (json!({ "config": "" }), "`config` is empty"),
        (json!({ "existingConfigMap": "mine" }), "both set"),
        (
            json!({ "metrics": { "serviceMonitor": { "enabled": true } } }),
            "cannot reach an admin listener inside the pod",
        ),
        (json!({ "terminationGracePeriodSeconds": 40 }), "must be longer than"),
    ];
    for (values, sentence) in cases {
        let told = changed(&values).complaint(&values.to_string());
        assert!(told.contains(sentence), "{values}: {told}");
    }
    changed(&json!({ "store": { "kind": "file" } })).content("one replica with a file");
    changed(&json!({ "terminationGracePeriodSeconds": 41 })).content("a second more");
}

#[test]
fn values_that_do_not_exist_are_refused() {
    for (name, path) in sets() {
        schema(&path).content(&name);
    }
    schema(&root(CHART).join("values.yaml")).content("the defaults");
    let bad = [
        json!({ "replica": 2 }),
        json!({ "replicas": "2" }),
        json!({ "store": { "kind": "postgres" } }),
        json!({ "store": { "redis": { "url": "rediss://countersign:secret@redis:6379" } } }),
        json!({ "admin": { "expose": "yes" } }),
        json!({ "listener": { "port": 70000 } }),
        json!({ "extraListeners": [{ "name": "gateway", "port": 1 }] }),
        json!({ "image": { "digest": "latest" } }),
        json!({ "podDisruptionBudget": { "maxUnavailable": "one" } }),
        json!({ "networkPolicy": { "egressPorts": [] } }),
    ];
    for values in bad {
        schema(file(".json", &values.to_string()).path()).complaint(&values.to_string());
    }
}

#[test]
fn the_readme_tells_every_value_and_its_default() {
    fn leaves(prefix: &str, value: &Value, into: &mut Vec<(String, Value)>) {
        match value
            .as_object()
            .filter(|table| !table.is_empty() && !prefix.ends_with("labels") && prefix != "resources")
        {
            Some(table) => table.iter().for_each(|(key, value)| {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                leaves(&path, value, into);
            }),
            None => into.push((prefix.to_owned(), value.clone())),
        }
    }
    let (readme, mut expected) = (read(&format!("{CHART}/README.md")), Vec::new());
    leaves("", &documents(&read(&format!("{CHART}/values.yaml")))[0], &mut expected);
    for (path, value) in &expected {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{path}` |")));
        let row = row.unwrap_or_else(|| panic!("README.md does not tell `{path}`"));
        let simple = value.is_string() || value.is_number() || value.is_boolean();
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        assert!(!simple || text.is_empty() || row.contains(&format!("`{text}`")), "{row}: the default is {value}");
    }
    for row in readme.lines().filter_map(|line| line.strip_prefix("| `")) {
        let path = row.split('`').next().expect("a path");
        assert!(expected.iter().any(|(known, _)| known == path), "README.md tells `{path}`, which is no value");
    }
}

//! `deploy/helm/countersign`, rendered by the template engine and the functions that Helm uses (but not by Helm), for
//! every set of values in its `ci` folder.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::placeholder_files::checked;
use super::pods::{config, confined, container, guarded, of, only, patient, pod, settled};
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
            for document in [deployment, only(&documents, "Pod")] {
                if name == "openshift-values" {
                    confined(&name, document);
                    for key in ["runAsUser", "runAsGroup", "fsGroup"] {
                        assert!(settled(document, key).iter().all(|value| value.is_null()), "{name}: {key}");
                    }
                } else {
                    guarded(&name, document);
                }
            }
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
    assert!(judged >= 80, "{judged}");
}

/// Whoever owns a bank's credentials may keep a Secret of their own.
#[test]
fn secrets_from_several_places_are_files_of_one_folder() {
    let volume = |values: &Value| {
        let documents = documents(&changed(values).content("values"));
        let volumes = pod(only(&documents, "Deployment"))["volumes"].clone();
        // The test of the chart sees the same files.
        assert_eq!(pod(only(&documents, "Pod"))["volumes"][1], volumes[1]);
        volumes[1].clone()
    };
    let one = volume(&json!({}));
    assert_eq!(one["secret"]["secretName"], "countersign");
    let several = volume(&json!({ "existingSecrets": [
        { "name": "bank-b" }, { "name": "shared", "items": [{ "key": "a", "path": "b" }], "optional": true }
    ] }));
    let sources = &several["projected"]["sources"];
    let names: Vec<_> = (0..3).map(|index| &sources[index]["secret"]["name"]).collect();
    assert_eq!(names, ["countersign", "bank-b", "shared"]);
    assert_eq!(
        (&sources[2]["secret"]["items"][0]["path"], &sources[2]["secret"]["optional"]),
        (&json!("b"), &json!(true))
    );
    let alone = volume(&json!({ "existingSecret": "", "existingSecrets": [{ "name": "bank-b" }] }));
    assert_eq!(alone["projected"]["sources"], json!([{ "secret": { "name": "bank-b" } }]));
    let driver = volume(&json!({ "existingSecret": "", "secretsVolume": { "csi": { "driver": "d" } } }));
    assert_eq!(driver, json!({ "name": "secrets", "csi": { "driver": "d" } }));
}

/// What a cluster wants of every pod reaches the gateway and the test of the chart alike.
#[test]
fn additions_reach_the_documents_that_they_are_for() {
    let yaml = rendered(&[], &[&root(CHART).join("ci/everything-values.yaml")]).content("everything");
    let documents = documents(&yaml);
    let gateway = pod(only(&documents, "Deployment"));
    for key in ["runtimeClassName", "hostAliases", "dnsPolicy", "dnsConfig"] {
        assert!(!gateway[key].is_null(), "{key}");
        assert_eq!(pod(only(&documents, "Pod"))[key], gateway[key], "{key}");
    }
    for key in ["env", "envFrom"] {
        assert!(gateway["containers"][0][key].is_array(), "{key}");
        assert_eq!(pod(only(&documents, "Pod"))["containers"][0][key], gateway["containers"][0][key], "{key}");
    }
    assert_eq!(
        (&gateway["initContainers"][0]["name"], &gateway["containers"][1]["name"]),
        (&json!("agent"), &json!("exporter"))
    );
    let service = of(&documents, "Service").into_iter().find(|one| one["metadata"]["name"] == "bank-gateway");
    let spec = &service.expect("the Service")["spec"];
    assert_eq!(spec["loadBalancerClass"], "example.com/internal");
    assert_eq!(
        (&spec["loadBalancerSourceRanges"][0], &spec["externalTrafficPolicy"]),
        (&json!("10.0.0.0/8"), &json!("Local"))
    );
    let route = &only(&documents, "TLSRoute")["spec"];
    assert_eq!(route["rules"][0]["backendRefs"][0], json!({ "name": "bank-gateway", "port": 443 }));
    let policy = &only(&documents, "NetworkPolicy")["spec"];
    let has =
        |rules: &Value, port: u16| rules.as_array().expect("rules").iter().any(|rule| rule["ports"][0]["port"] == port);
    assert!(has(&policy["ingress"], 15008) && has(&policy["egress"], 2222), "{policy}");
    let extra = of(&documents, "ConfigMap").into_iter().find(|map| map["metadata"]["name"] == "bank-gateway-extra");
    assert_eq!(extra.expect("an extra object")["data"]["about"], "of pay");
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
    let manual = json!({ "metrics": { "prometheusRule": { "runbookUrl": "https://manual.example/runbooks/" } } });
    let manual = file(".yaml", &manual.to_string());
    let with_manual = documents(&rendered(&MONITORING, &[&set, manual.path()]).content("with a manual"));
    let rule = &only(&with_manual, "PrometheusRule")["spec"]["groups"][0]["rules"][0];
    let page = "https://manual.example/runbooks/alert-CountersignGone.html";
    assert_eq!(rule["annotations"]["runbook_url"], page);
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
        (json!({ "secretsVolume": { "csi": { "driver": "d" } } }), "keep one"),
        (json!({ "service": { "loadBalancerClass": "internal" } }), "has no load balancer"),
        (json!({ "tlsRoute": { "enabled": true, "hostnames": ["a.example"] } }), "`tlsRoute.parentRefs` is empty"),
        (json!({ "tlsRoute": { "enabled": true, "parentRefs": [{ "name": "g" }] } }), "`tlsRoute.hostnames` is empty"),
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
        json!({ "existingSecrets": ["bank-b"] }),
        json!({ "existingSecrets": [{ "name": "bank-b", "items": [{ "key": "api-key" }] }] }),
        json!({ "service": { "loadBalancerSourceRanges": ["10.0.0.0"] } }),
        json!({ "tlsRoute": { "apiVersion": "v1" } }),
        json!({ "extraContainers": [{ "image": "without-a-name" }] }),
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

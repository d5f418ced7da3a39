//! What every pod that we describe keeps to.

use serde_json::Value;

/// The documents of a kind.
pub fn of<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    documents.iter().filter(|document| document["kind"] == kind).collect()
}

/// The only document of a kind.
pub fn only<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    let found = of(documents, kind);
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

/// `proxy.toml` in the only ConfigMap that has one.
pub fn config(documents: &[Value]) -> &str {
    let mut found = of(documents, "ConfigMap").into_iter().filter_map(|map| map["data"]["proxy.toml"].as_str());
    let config = found.next().expect("a ConfigMap with a proxy.toml");
    assert!(found.next().is_none());
    config
}

/// The container that runs countersign: in a Deployment or a Pod, as a sidecar or alone.
pub fn container(document: &Value) -> &Value {
    let pod = pod(document);
    let all = ["containers", "initContainers"].into_iter().filter_map(|list| pod[list].as_array()).flatten();
    let mut ours = all.filter(|container| container["args"].is_array());
    let found = ours.next().expect("a container of ours");
    assert!(ours.next().is_none());
    found
}

pub fn pod(document: &Value) -> &Value {
    if document["kind"] == "Pod" { &document["spec"] } else { &document["spec"]["template"]["spec"] }
}

/// What a security context says under a key: the pod's, and the container's own.
pub fn settled<'a>(document: &'a Value, key: &str) -> [&'a Value; 2] {
    [pod(document), container(document)].map(|place| &place["securityContext"][key])
}

/// Whether countersign runs as its own user, with nothing that it does not need.
pub fn guarded(about: &str, document: &Value) {
    assert!(settled(document, "runAsUser").contains(&&Value::from(65532)), "{about}");
    confined(about, document);
}

/// Whether countersign runs with nothing that it does not need, as whichever user the cluster chooses.
pub fn confined(about: &str, document: &Value) {
    let (pod, container) = (pod(document), container(document));
    let is = |place: &Value, pointer: &str, expected: Value| {
        assert_eq!(place.pointer(pointer), Some(&expected), "{about}: {pointer}");
    };
    is(pod, "/automountServiceAccountToken", false.into());
    assert!(settled(document, "runAsNonRoot").contains(&&Value::from(true)), "{about}");
    let profiles = [pod, container].map(|place| &place["securityContext"]["seccompProfile"]["type"]);
    assert!(profiles.contains(&&Value::from("RuntimeDefault")), "{about}");
    is(container, "/securityContext/allowPrivilegeEscalation", false.into());
    is(container, "/securityContext/readOnlyRootFilesystem", true.into());
    is(container, "/securityContext/capabilities/drop", vec!["ALL"].into());
    assert!(container["securityContext"]["capabilities"]["add"].is_null(), "{about}");
    assert!(container["resources"]["limits"]["memory"].is_string(), "{about}");
}

/// Whether the cluster waits longer than countersign drains.
pub fn patient(about: &str, document: &Value, config: &str) {
    let table: toml::Table = config.parse().expect("TOML");
    let seconds = |key: &str| -> u64 {
        let text = table["limits"][key].as_str().expect("a duration");
        text.strip_suffix('s').and_then(|number| number.parse().ok()).expect("seconds")
    };
    let (delay, drain) = (seconds("drain_delay"), seconds("drain"));
    assert!(delay > 0, "{about}: the cluster needs time to take a pod out");
    let grace = pod(document)["terminationGracePeriodSeconds"].as_u64().expect("a number");
    assert!(grace > delay + drain, "{about}: {grace} s for {delay} s and {drain} s");
}

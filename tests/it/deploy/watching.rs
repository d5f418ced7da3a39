//! `deploy/prometheus` and `deploy/grafana`: judged by Prometheus, and compared with `docs/metrics.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use regex::Regex;
use serde_json::Value;

use super::tools::{documents, file, machine, read, tidy, told};

/// What Prometheus adds to every series, and to histograms.
const ADDED: [&str; 3] = ["instance", "job", "le"];

/// A metric as the manual tells it.
struct Metric {
    labels: BTreeSet<String>,
    /// The whole row: values of labels stand there.
    row: String,
}

fn manual() -> BTreeMap<String, Metric> {
    let row = Regex::new(r"(?m)^\| `(countersign_\w+)` \| ([^|]*)\|.*$").expect("a pattern");
    let label = Regex::new(r"`(\w+)`").expect("a pattern");
    let docs = read("docs/metrics.md");
    row.captures_iter(&docs)
        .map(|found| {
            let labels = label.captures_iter(&found[2]).map(|label| label[1].to_owned()).collect();
            (found[1].to_owned(), Metric { labels, row: found[0].to_owned() })
        })
        .collect()
}

/// Compares the metrics, labels and values of labels in an expression with the manual. Answers the metrics.
fn known(expression: &str, manual: &BTreeMap<String, Metric>) -> BTreeSet<String> {
    let series = Regex::new(r"(countersign_\w+?)(_bucket|_count|_sum)?\b(?:\{([^}]*)\})?").expect("a pattern");
    let matcher = Regex::new(r#"(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)""#).expect("a pattern");
    let grouping = Regex::new(r"\b(?:by|on|without|ignoring) \(([^)]*)\)").expect("a pattern");
    let mut names = BTreeSet::new();
    let mut labels: BTreeSet<_> = ADDED.map(str::to_owned).into();
    for found in series.captures_iter(expression) {
        let metric = manual
            .get(&found[1])
            .unwrap_or_else(|| panic!("docs/metrics.md does not tell {}: {expression}", &found[1]));
        assert_eq!(
            found.get(2).is_some(),
            found[1].ends_with("_seconds") && !found[1].contains("timestamp"),
            "{expression}"
        );
        for matched in found.get(3).map(|part| matcher.captures_iter(part.as_str())).into_iter().flatten() {
            let (label, values) = (&matched[1], &matched[3]);
            assert!(
                metric.labels.contains(label) || ADDED.contains(&label),
                "{} has no {label}: {expression}",
                &found[1]
            );
            if label == "outcome" {
                for value in values.split('|') {
                    assert!(metric.row.contains(&format!("`{value}`")), "{} is never {value}: {expression}", &found[1]);
                }
            }
        }
        labels.extend(metric.labels.iter().cloned());
        names.insert(found[1].to_owned());
    }
    for found in grouping.captures_iter(expression) {
        for label in found[1].split(',').map(str::trim) {
            assert!(labels.contains(label), "no {label} here: {expression}");
        }
    }
    names
}

/// Every query of the dashboard, its variables replaced by something that Prometheus reads.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().expect("a query").replace("$__rate_interval", "5m");
            let query =
                ["$instance", "$route", "$provider"].iter().fold(query, |query, name| query.replace(name, ".*"));
            assert!(!query.contains('$'), "{query}");
            found.push((query, target["legendFormat"].as_str().unwrap_or_default().to_owned()));
        }
    }
    found
}

#[test]
fn alerts_are_what_prometheus_reads_and_sound_when_they_should() {
    let alerts = read("deploy/prometheus/alerts.yaml");
    tidy("alerts.yaml", &alerts);
    told(machine("promtool").args(["check", "rules", "deploy/prometheus/alerts.yaml"]), "").content("the rules");
    told(machine("promtool").args(["test", "rules", "tests/deploy/alerts.test.yaml"]), "").content("the cases");
    // Every alert has a case.
    let cases = read("tests/deploy/alerts.test.yaml");
    for rule in documents(&alerts)[0]["groups"][0]["rules"].as_array().expect("rules") {
        let name = rule["alert"].as_str().expect("a name");
        assert!(cases.contains(&format!("alertname: {name}\n")), "{name} has no case");
        assert_eq!(rule["annotations"]["runbook_url"], format!("docs/runbooks/alert-{name}.md"));
    }
}

#[test]
fn alerts_speak_of_metrics_that_exist() {
    let manual = manual();
    let rules = &documents(&read("deploy/prometheus/alerts.yaml"))[0]["groups"][0]["rules"];
    for rule in rules.as_array().expect("rules") {
        assert!(!known(rule["expr"].as_str().expect("an expression"), &manual).is_empty(), "{rule}");
    }
}

#[test]
fn the_dashboard_shows_every_metric_there_is() {
    let manual = manual();
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/countersign.json")).expect("JSON");
    let (mut shown, mut rules) = (BTreeSet::new(), String::from("groups:\n  - name: panels\n    rules:\n"));
    let labels = Regex::new(r"\{\{(\w+)\}\}").expect("a pattern");
    for (index, (query, legend)) in queries(&dashboard).into_iter().enumerate() {
        shown.extend(known(&query, &manual));
        for label in labels.captures_iter(&legend) {
            assert!(query.contains("by (") && query.contains(&label[1]), "{legend}: {query}");
        }
        writeln!(rules, "      - {{ record: panel_{index}, expr: '{query}' }}").expect("text");
    }
    let rules = file(".yaml", &rules);
    told(machine("promtool").args(["check", "rules"]).arg(rules.path()), "").content("the queries");
    assert_eq!(shown, manual.keys().cloned().collect(), "docs/metrics.md against the dashboard");
    // Its choices, too.
    let choices = Regex::new(r"^label_values\((\w+), (\w+)\)$").expect("a pattern");
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        let Some(definition) = variable["definition"].as_str() else { continue };
        let found = choices.captures(definition).expect("label_values");
        let (metric, label) = (&found[1], &found[2]);
        assert!(manual[metric].labels.contains(label) || ADDED.contains(&label), "{definition}");
    }
    // Every panel says what it shows, and what to make of it.
    let mut said = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row") {
        let description = panel["description"].as_str().unwrap_or_default();
        assert!(description.len() > 20 && said.insert(description), "{} needs a description", panel["title"]);
    }
    // The moments that are marked are of metrics that exist.
    let marks = dashboard["annotations"]["list"].as_array().expect("annotations");
    assert!(
        marks.iter().any(|mark| mark["expr"].as_str().is_some_and(|expr| expr.contains("reload_success_timestamp")))
    );
    for mark in marks {
        let query = mark["expr"].as_str().expect("a query").replace("$instance", ".*");
        assert!(!query.contains('$') && !known(&query, &manual).is_empty(), "{mark}");
        let rules = file(
            ".yaml",
            &format!("groups:\n  - name: marks\n    rules:\n      - {{ record: mark, expr: '{query}' }}\n"),
        );
        told(machine("promtool").args(["check", "rules"]).arg(rules.path()), "").content("the query");
    }
    // Its links lead to pages of the dashboard of an instance.
    let links = dashboard["links"].as_array().expect("links");
    assert!(links.iter().any(|link| link["url"] == "${console}/ui/requests?only=errors"));
    assert!(links.iter().all(|link| link["url"].as_str().is_some_and(|url| url.starts_with("${console}/"))));
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    assert!(variables.iter().any(|variable| variable["name"] == "console" && variable["type"] == "textbox"));
    // No two panels lie over each other.
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
        for cell in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(cell.0 < 24 && taken.insert(cell), "{}", panel["title"]);
        }
    }
}

//! What operators watch: every metric and label that the dashboard, the alarms and the recorded rules name is one of the node's table,
//! and the rules do what their tests say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use cache_tests::node::NodeOptions;
use cache_tests::origin::Origin;
use serde_json::Value;

const DASHBOARD: &str = include_str!("../../deploy/grafana/littoral.json");
const RULES: &str = include_str!("../../deploy/prometheus/rules.yml");
const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yml");
const RULE_TESTS: &str = include_str!("../../deploy/prometheus/tests.yml");
/// What Prometheus itself adds to a name or a sample.
const SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];
const LABELS_ADDED: [&str; 4] = ["instance", "job", "le", "alertname"];

/// Names and labels of the node's table of metrics.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let telemetry = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/telemetry");
    let parts = std::fs::read_dir(telemetry.join("metrics")).expect("the parts of the table");
    let files = parts.filter_map(Result::ok).map(|file| file.path()).chain([telemetry.join("metrics.rs")]);
    let text: String = files.map(|file| std::fs::read_to_string(file).expect("Rust")).collect();
    let rows = text.lines().filter_map(|line| line.split_once(" = \"littoral_")?.1.split_once("\" ["));
    let families = rows.map(|(name, rest)| {
        let labels = rest.split('"').skip(1).step_by(2).map(str::to_owned).collect();
        (format!("littoral_{name}"), labels)
    });
    families.collect()
}

/// Expressions of the dashboard.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            let texts = ["expr", "definition"].iter().filter_map(|key| object.get(*key)?.as_str());
            found.extend(texts.map(str::to_owned));
            object.values().for_each(|value| expressions(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// Names of metrics in a text: words that begin so, recorded ones (with colons) left out.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let ours = words.filter(|word| word.starts_with("littoral_") && !word.contains(':'));
    ours.map(str::to_owned).collect()
}

fn family<'t>(table: &'t BTreeMap<String, BTreeSet<String>>, name: &str) -> Option<&'t BTreeSet<String>> {
    let whole = SUFFIXES.iter().filter_map(|suffix| name.strip_suffix(suffix));
    std::iter::once(name).chain(whole).find_map(|name| table.get(name))
}

/// `NAME{label=...}`: each of these labels is one of the family's.
fn wrong_labels(table: &BTreeMap<String, BTreeSet<String>>, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, _) in text.match_indices("littoral_") {
        let rest = text.get(at..).unwrap_or_default();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        let Some(known) = family(table, name) else { continue };
        let Some(matchers) = behind.strip_prefix('{').and_then(|rest| rest.split_once('}')) else { continue };
        for matcher in matchers.0.split(',') {
            let label = matcher.trim().split(['=', '!']).next().unwrap_or_default().trim();
            if !label.is_empty() && !known.contains(label) && !LABELS_ADDED.contains(&label) {
                wrong.push(format!("{name}: {label}"));
            }
        }
    }
    wrong
}

#[tokio::test]
async fn what_is_watched_is_what_the_node_says() {
    let table = table();
    assert!(table.len() > 40, "{table:?}");
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    let mut expressions_of_dashboard = Vec::new();
    expressions(&dashboard, &mut expressions_of_dashboard);
    assert!(expressions_of_dashboard.len() > 40, "{expressions_of_dashboard:?}");
    let dashboard = expressions_of_dashboard.join("\n");
    for (file, text) in [("dashboard", dashboard.as_str()), ("rules", RULES), ("alerts", ALERTS), ("tests", RULE_TESTS)]
    {
        let unknown: Vec<_> = names(text).into_iter().filter(|name| family(&table, name).is_none()).collect();
        assert!(unknown.is_empty(), "{file}: no such metrics: {unknown:?}");
        assert_eq!(wrong_labels(&table, text), Vec::<String>::new(), "{file}: no such labels");
    }
    // Recorded names that the dashboard asks for are recorded.
    for word in dashboard
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .filter(|word| word.contains(":littoral_"))
    {
        assert!(RULES.contains(&format!("record: {word}\n")), "{word} is not recorded");
    }
    // The table is what a node says: what it shows from its start on is in it.
    let origin = Origin::start();
    let node = NodeOptions::before(&origin).start().await;
    node.get("/").await;
    let said = node.admin_get("/metrics").await.expect("metrics").body.to_vec();
    let said = String::from_utf8(said).expect("metrics are UTF-8");
    let families: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(families.len() > 15, "{said}");
    let unknown: Vec<_> = families.iter().filter(|name| !table.contains_key(**name)).collect();
    assert!(unknown.is_empty(), "shown by a node and not in the table: {unknown:?}");
}

#[test]
fn labels_that_are_not_there_are_noticed() {
    let table = table();
    assert_eq!(
        wrong_labels(&table, "littoral_ttfb_seconds_bucket{site=\"a\", le=\"1\"}"),
        ["littoral_ttfb_seconds_bucket: site"]
    );
    assert_eq!(
        names("rate(littoral_no_total[5m]) + site:littoral_x:rate5m"),
        BTreeSet::from(["littoral_no_total".to_owned()])
    );
}

#[test]
fn rules_do_what_their_tests_say() {
    let directory: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus");
    for arguments in [&["check", "rules", "rules.yml", "alerts.yml"][..], &["test", "rules", "tests.yml"]] {
        let output = Command::new("promtool").args(arguments).current_dir(&directory).output();
        let output = output.unwrap_or_else(|error| panic!("promtool, of Debian's package prometheus: {error}"));
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "promtool {arguments:?}\n{said}");
    }
}

#[test]
fn every_alarm_has_a_test() {
    let alarms = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let without: Vec<_> = alarms.filter(|alarm| !RULE_TESTS.contains(&format!("alertname: {alarm}\n"))).collect();
    assert!(without.is_empty(), "{without:?}");
}

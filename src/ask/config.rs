//! `littoral config`: the configuration for all nodes, asked for and said.

use std::path::{Path, PathBuf};

use edge_config::read::problem::Source;
use edge_config::shared::Document;
use edge_config::{Problem, Problems};
use http::Method;
use serde_json::{Value, json};

use super::{AskError, ask};
use crate::cli::AdminAddress;
use crate::cli::config::Config;
use crate::purge::nats::documents::TEXT_BYTES_MAX;

/// Why it was not done.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ConfigError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Ask(#[from] AskError),
    #[error("{0} cannot be read: {1}")]
    File(PathBuf, std::io::Error),
    #[error("{0} has {1} bytes, expected at most {TEXT_BYTES_MAX}")]
    Large(PathBuf, usize),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Wrong(Problems),
}

impl ConfigError {
    /// 78 for configuration (as `sysexits` has it), 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Wrong(_)) { 78 } else { 1 }
    }
}

/// Asks a node what the command is about. Gives what to print.
///
/// # Errors
/// It does not answer, or refuses.
pub fn run(command: &Config) -> Result<String, ConfigError> {
    let post = |admin: &AdminAddress, what: &str, body: &Value| {
        ask(&Method::POST, admin, &format!("/v1/config/{what}"), Some(body))
    };
    match command {
        Config::Show { of, version, asked } if of.site.is_some() || of.node => {
            let target = history(of.site.as_deref(), of.node, *version);
            let mut answer = ask(&Method::GET, &asked.admin, &target, None)?;
            if version.is_none()
                && let Some(latest) = versions(&answer).last().and_then(|version| version.get("version")?.as_u64())
            {
                answer = ask(&Method::GET, &asked.admin, &history(of.site.as_deref(), of.node, Some(latest)), None)?;
            }
            let text = versions(&answer).last().and_then(|version| version.get("text")?.as_str()).unwrap_or_default();
            Ok(if asked.json { answer.to_string() } else { text.trim_end().to_owned() })
        }
        Config::Show { asked, .. } => {
            let answer = ask(&Method::GET, &asked.admin, "/v1/config", None)?;
            Ok(if asked.json { answer.to_string() } else { shown(&answer) })
        }
        Config::Diff { file, of, asked } => {
            let answer = post(&asked.admin, "diff", &json!({ "site": of.site, "node": of.node, "text": read(file)? }))?;
            let diff = answer.get("diff").and_then(Value::as_str).unwrap_or_default().trim_end();
            let same = || format!("no difference from version {}", number(&answer, "version"));
            Ok(match (asked.json, diff.is_empty()) {
                (true, _) => answer.to_string(),
                (false, true) => same(),
                (false, false) => diff.to_owned(),
            })
        }
        Config::Push { file, of, share, expect, note, asked } => {
            let text = read(file)?;
            let body = json!({
                "site": of.site, "node": of.node, "text": text, "share": share, "expected_version": expect, "note": note,
            });
            let answer = post(&asked.admin, "push", &body).map_err(|error| match &error {
                AskError::Refused { status: 422, errors, .. } => {
                    problems(file, of.site.as_deref(), &text, errors).map_or(error.into(), ConfigError::Wrong)
                }
                _ => error.into(),
            })?;
            Ok(if asked.json { answer.to_string() } else { published(&answer) })
        }
        Config::History { of, asked } => {
            let answer = ask(&Method::GET, &asked.admin, &history(of.site.as_deref(), of.node, None), None)?;
            Ok(if asked.json { answer.to_string() } else { listed(&answer) })
        }
        Config::Rollback { of, version, asked } => {
            let body = json!({ "site": of.site, "node": of.node, "version": version });
            let answer = post(&asked.admin, "rollback", &body)?;
            Ok(if asked.json { answer.to_string() } else { published(&answer) })
        }
    }
}

fn read(file: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|error| ConfigError::File(file.to_owned(), error))?;
    match text.len() {
        length if length > TEXT_BYTES_MAX => Err(ConfigError::Large(file.to_owned(), length)),
        _ => Ok(text),
    }
}

fn history(site: Option<&str>, node: bool, version: Option<u64>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    site.into_iter().for_each(|site| _ = query.append_pair("site", site));
    if node {
        query.append_pair("node", "1");
    }
    version.into_iter().for_each(|version| _ = query.append_pair("version", &version.to_string()));
    format!("/v1/config/history?{}", query.finish())
}

/// What a node says is wrong with a file that was sent to it, as `littoral check` says it.
fn problems(file: &Path, site: Option<&str>, text: &str, errors: &Value) -> Option<Problems> {
    let sent = Document { site, text }.file(Path::new(""));
    let source = Source::new(file.to_owned(), text);
    let errors = errors.get("errors")?.as_array()?;
    let problem = |error: &Value| {
        let said = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let at = |index: usize| usize::try_from(error.get("span")?.get(index)?.as_u64()?).ok();
        let name = said("file");
        let is_sent = Path::new(&name).file_name() == sent.file_name();
        match at(0).zip(at(1)).filter(|_| is_sent) {
            Some((start, end)) => source.problem(start..end, said("message"), said("label"), said("help")),
            None => Problem::of_file(name.into(), said("message"), &said("help")),
        }
    };
    Some(Problems::new(errors.iter().map(problem).collect()))
}

fn versions(answer: &Value) -> &[Value] {
    answer.get("versions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}

fn word<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn published(answer: &Value) -> String {
    let (version, share) = (number(answer, "version"), number(answer, "share"));
    let whose = if share == 100 { "all nodes".to_owned() } else { format!("{share}% of the nodes") };
    format!("version {version} is published for {whose}; here it is {}", word(answer, "here"))
}

/// A version in a line.
fn version_in_words(version: &Value) -> String {
    let mut line = format!("version {}", number(version, "version"));
    if !word(version, "unreadable").is_empty() {
        return format!("{line}: {}", word(version, "unreadable"));
    }
    let at = crate::pipeline::explain::date(crate::semantics::time::UnixMs(number(version, "at")));
    line += &format!(" by {} on {at}, {} bytes", word(version, "by"), number(version, "bytes"));
    match number(version, "share") {
        100 => {}
        share => line += &format!(", for {share}% of the nodes"),
    }
    match word(version, "note") {
        "" => {}
        note => line += &format!(": {note}"),
    }
    line
}

fn listed(answer: &Value) -> String {
    match versions(answer) {
        [] => "the hub has no version of it".to_owned(),
        versions => versions.iter().rev().map(version_in_words).collect::<Vec<_>>().join("\n"),
    }
}

fn shown(answer: &Value) -> String {
    let list = |key: &str| answer.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let document = |document: &Value| {
        let name = document.get("site").and_then(Value::as_str).unwrap_or("the settings for all nodes");
        let latest = document.get("latest").filter(|latest| !latest.is_null());
        let mut line = match latest {
            Some(latest) => format!("{name}: {}", version_in_words(latest)),
            None => format!("{name}: not heard of"),
        };
        match document.get("in_force").and_then(Value::as_u64) {
            None | Some(0) => line += "; not in force here",
            Some(has) if Some(has) == latest.map(|latest| number(latest, "version")) => line += "; in force here",
            Some(has) => line += &format!("; version {has} in force here"),
        }
        match word(document, "refused") {
            "" => line,
            refused => format!("{line}; refused: {refused}"),
        }
    };
    let node = |node: &Value| {
        let (name, state) = (word(node, "name"), word(node, "state"));
        match word(node, "documents") {
            "" => format!("node {name}: {state}, nothing of the hub"),
            set => format!("node {name}: {state}, version {}, set {set}", number(node, "config")),
        }
    };
    let mut lines: Vec<String> = list("documents").iter().map(document).collect();
    if lines.is_empty() {
        lines.push("the hub has no configuration".to_owned());
    }
    lines.extend(list("nodes").iter().map(node));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_is_said_of_that_file() {
        let errors = json!({ "errors": [
            { "file": "/etc/littoral/hub:site.shop", "line": 2, "column": 1, "span": [12, 17], "label": "not known",
              "message": "unknown key", "help": "did you mean" },
            { "file": "/etc/littoral/edge.toml", "line": 3, "column": 1, "span": [1, 2], "message": "other", "help": "" },
            { "message": "workers cannot change" },
        ] });
        let problems = problems(Path::new("shop.toml"), Some("shop"), "[site.shop]\nhosst = 1\n", &errors)
            .expect("they are understood");
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 3, "{said:?}");
        for expected in ["shop.toml:2:1: unknown key", "/etc/littoral/edge.toml: other", ": workers cannot change"] {
            assert!(said.iter().any(|said| said == expected), "{expected}: {said:?}");
        }
    }

    #[test]
    fn states_are_said_in_words() {
        let latest = json!({ "version": 7, "at": 0, "by": "ci", "note": "faster", "share": 50, "bytes": 10 });
        let answer = json!({
            "documents": [
                { "site": "shop", "latest": latest, "in_force": 5, "refused": "version 7: no" },
                { "site": null, "latest": null, "in_force": 3, "refused": null },
            ],
            "nodes": [{ "id": "1", "name": "edge-1", "state": "current", "config": 7, "documents": "0a" }],
        });
        let expected = "shop: version 7 by ci on Thu, 01 Jan 1970 00:00:00 GMT, 10 bytes, for 50% of the nodes: faster; \
            version 5 in force here; refused: version 7: no\n\
            the settings for all nodes: not heard of; version 3 in force here\n\
            node edge-1: current, version 7, set 0a";
        assert_eq!(shown(&answer), expected);
        let answer = json!({ "version": 8, "share": 100, "here": "in force" });
        assert_eq!(published(&answer), "version 8 is published for all nodes; here it is in force");
        assert_eq!(listed(&json!({ "versions": [] })), "the hub has no version of it");
    }
}

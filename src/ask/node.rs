//! `littoral node`: the nodes of a CDN, asked for and said.

use http::Method;
use serde_json::{Value, json};

use super::{AskError, ask};
use crate::cli::node::Node;

/// Asks a node what the command is about. Gives what to print.
///
/// # Errors
/// It does not answer, or refuses.
pub fn run(command: &Node) -> Result<String, AskError> {
    let (json, answer) = match command {
        Node::List { asked } => (asked.json, ask(&Method::GET, &asked.admin, "/v1/nodes", None)?),
        Node::Forget { node, asked } => {
            let body = json!({ "node": node });
            (asked.json, ask(&Method::POST, &asked.admin, "/v1/nodes/forget", Some(&body))?)
        }
    };
    Ok(if json { answer.to_string() } else { in_words(&answer) })
}

fn in_words(answer: &Value) -> String {
    let nodes = answer.get("nodes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if nodes.is_empty() {
        return "this node keeps its log of purges alone".to_owned();
    }
    let line = |node: &Value| {
        let text = |name: &str| node.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64).unwrap_or_default();
        let position = match node.get("position") {
            Some(position) if position.is_object() => format!("at {}", number(position, "seq")),
            _ => "follows another log".to_owned(),
        };
        let heard = number(node, "heard_ms") as f64 / 1000.0;
        let (name, id, state, version) = (text("name"), text("id"), text("state"), text("version"));
        let config = number(node, "config");
        let pop = node.get("pop").and_then(Value::as_str).map_or_else(String::new, |pop| format!(" in {pop}"));
        format!(
            "{name} ({id}){pop}: {state}, {position}, littoral {version}, configuration {config}, heard {heard:.1} s ago"
        )
    };
    nodes.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_in_words() {
        let nodes = json!({ "nodes": [
            { "id": "0f", "name": "edge-1", "pop": "fra", "state": "current", "position": { "generation": 2, "seq": 41 },
              "version": "0.1.0", "config": 1, "heard_ms": 400 },
            { "id": "1f", "name": "edge-2", "pop": null, "state": "silent", "position": null, "version": "0.1.0", "config": 1, "heard_ms": 61_000 },
        ] });
        assert_eq!(
            in_words(&nodes),
            "edge-1 (0f) in fra: current, at 41, littoral 0.1.0, configuration 1, heard 0.4 s ago\n\
             edge-2 (1f): silent, follows another log, littoral 0.1.0, configuration 1, heard 61.0 s ago"
        );
        assert_eq!(in_words(&json!({ "nodes": [] })), "this node keeps its log of purges alone");
    }
}

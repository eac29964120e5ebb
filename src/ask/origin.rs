//! `littoral origin`: how origins stand, asked for and said.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{AskError, ask};
use crate::cli::AdminAddress;
use crate::cli::origin::Origin;

/// How often it is looked whether a drain has ended.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Asks a node what the command is about. Gives what to print.
///
/// # Errors
/// It does not answer, or refuses.
pub fn run(command: &Origin) -> Result<String, AskError> {
    let (json, answer) = match command {
        Origin::List { site, asked } => {
            let mut answer = ask(&Method::GET, &asked.admin, "/v1/origins", None)?;
            if let (Some(site), Some(Value::Array(origins))) = (site, answer.get_mut("origins")) {
                origins.retain(|origin| origin.get("site").and_then(Value::as_str) == Some(site));
            }
            (asked.json, answer)
        }
        Origin::Drain { site, origin, time, wait, asked } => {
            let mut body = json!({ "site": site, "origin": origin });
            if let (Some(time), Some(body)) = (time, body.as_object_mut()) {
                body.insert("for".into(), time.to_string().into());
            }
            let answer = ask(&Method::POST, &asked.admin, "/v1/origins/drain", Some(&body))?;
            (asked.json, if *wait { until_drained(&asked.admin, answer)? } else { answer })
        }
        Origin::Undrain { site, origin, asked } => {
            let body = json!({ "site": site, "origin": origin });
            (asked.json, ask(&Method::POST, &asked.admin, "/v1/origins/undrain", Some(&body))?)
        }
    };
    Ok(if json { answer.to_string() } else { in_words(&answer) })
}

fn origins(answer: &Value) -> &[Value] {
    answer.get("origins").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Looks again until none of these drains any more: they have, or somebody has ended it, or they are gone.
fn until_drained(admin: &AdminAddress, mut answer: Value) -> Result<Value, AskError> {
    let id = |origin: &Value| ["site", "origin", "address"].map(|name| origin.get(name).cloned());
    let ours: Vec<_> = origins(&answer).iter().map(id).collect();
    let drains = |origin: &Value| origin.get("state").and_then(Value::as_str) == Some("draining");
    while origins(&answer).iter().any(drains) {
        std::thread::park_timeout(LOOK_EVERY);
        answer = ask(&Method::GET, admin, "/v1/origins", None)?;
        if let Some(Value::Array(all)) = answer.get_mut("origins") {
            all.retain(|origin| ours.contains(&id(origin)));
        }
    }
    Ok(answer)
}

fn in_words(answer: &Value) -> String {
    let line = |origin: &Value| {
        let text = |name: &str| origin.get(name).and_then(Value::as_str).unwrap_or_default();
        let requests = origin.get("requests").and_then(Value::as_u64).unwrap_or_default();
        let mut line = format!("{} {}", text("site"), text("origin"));
        if !text("address").is_empty() && !text("origin").ends_with(text("address")) {
            line += &format!(" at {}", text("address"));
        }
        line += &format!(": {}, {requests} requests under way", text("state"));
        if let Some(seconds) = origin.get("drain_seconds_left").and_then(Value::as_u64).filter(|left| *left > 0) {
            line += &format!(", sessions go there for {seconds} s more");
        }
        match origin.get("drained_by").and_then(Value::as_array).map(Vec::as_slice) {
            Some([who]) => line += &format!("; drained by the {}", who.as_str().unwrap_or_default()),
            Some([_, ..]) => line += "; drained by the configuration and the operator",
            _ => {}
        }
        line
    };
    origins(answer).iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_said_in_words() {
        let answer = json!({ "origins": [
            { "site": "shop", "origin": "192.0.2.1:80", "address": "192.0.2.1:80", "state": "up", "requests": 2 },
            { "site": "shop", "origin": "canary/a:80", "address": "192.0.2.2:80", "state": "draining", "requests": 1,
              "drained_by": ["operator"], "drain_seconds_left": 9 },
            { "site": "shop", "origin": "b:80", "state": "unresolved", "requests": 0 },
        ] });
        let expected = "shop 192.0.2.1:80: up, 2 requests under way\n\
            shop canary/a:80 at 192.0.2.2:80: draining, 1 requests under way, sessions go there for 9 s more; drained by the \
            operator\nshop b:80: unresolved, 0 requests under way";
        assert_eq!(in_words(&answer), expected);
    }
}

//! Commands that ask a running node, over its admin API.

pub mod announce;
pub mod cache;
pub mod certificate;
pub mod config;
pub mod node;
pub mod origin;
pub mod site;
pub mod statistics;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::{Method, Request};

use crate::cli::AdminAddress;
use crate::cli::purge::PurgeArgs;

/// Why a node gave no answer.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum AskError {
    #[error("no node answers on {admin}: {error}")]
    #[diagnostic(help("is it running? its admin address is in [admin] listen, or --admin"))]
    Silent { admin: SocketAddr, error: ureq::Error },
    #[error("{admin} answered {status}:\n{}", errors_in_words(errors))]
    Refused { admin: SocketAddr, status: u16, errors: Value },
    #[error("{admin} answered with something else than JSON: {error}")]
    NotJson { admin: SocketAddr, error: serde_json::Error },
}

/// A node does everything it is asked at once, or it does not answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether a draining node has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn agent(within: Duration) -> Agent {
    Agent::config_builder().timeout_global(Some(within)).http_status_as_error(false).build().into()
}

fn answer(admin: SocketAddr, response: Result<http::Response<ureq::Body>, ureq::Error>) -> Result<Value, AskError> {
    let silent = |error| AskError::Silent { admin, error };
    let mut response = response.map_err(silent)?;
    let status = response.status();
    let body = response.body_mut().read_to_string().map_err(silent)?;
    if !status.is_success() {
        let errors = serde_json::from_str(&body).unwrap_or(Value::String(body));
        return Err(AskError::Refused { admin, status: status.as_u16(), errors });
    }
    serde_json::from_str(&body).map_err(|error| AskError::NotJson { admin, error })
}

fn errors_in_words(answer: &Value) -> String {
    if let Value::String(text) = answer {
        return text.clone();
    }
    let text = |error: &Value, key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let errors = answer.get("errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let lines = errors.iter().map(|error| {
        let place = match error.get("line").and_then(Value::as_u64) {
            Some(line) => format!("{}:{line}:{}: ", text(error, "file"), error.get("column").unwrap_or(&Value::Null)),
            None => String::new(),
        };
        let key = text(error, "key");
        let place = if key.is_empty() { place } else { format!("{place}{key}: ") };
        let help = text(error, "help");
        let help = if help.is_empty() { help } else { format!("\n    {help}") };
        format!("  {place}{}{help}", text(error, "message"))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Asks, with the token if there is one.
fn ask(method: &Method, admin: &AdminAddress, target: &str, body: Option<&Value>) -> Result<Value, AskError> {
    ask_within(TIMEOUT, method, admin, target, body)
}

fn ask_within(
    within: Duration,
    method: &Method,
    admin: &AdminAddress,
    target: &str,
    body: Option<&Value>,
) -> Result<Value, AskError> {
    let mut request = Request::builder().method(method).uri(format!("http://{}{target}", admin.admin));
    if let Some(token) = &admin.token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    let silent = |error| AskError::Silent { admin: admin.admin, error };
    let request = request.body(body).map_err(|error| silent(error.into()))?;
    answer(admin.admin, agent(within).run(request))
}

/// What a node is and does.
///
/// # Errors
/// It does not answer.
pub fn stat(admin: &AdminAddress) -> Result<Value, AskError> {
    ask(&Method::GET, admin, "/v1/stat", None)
}

/// Has a node read its configuration again.
///
/// # Errors
/// It does not answer, or the configuration is refused.
pub fn reload(admin: &AdminAddress) -> Result<Value, AskError> {
    ask(&Method::POST, admin, "/v1/config/reload", None)
}

/// Asks a node what would become of a request.
///
/// # Errors
/// It does not answer, or it is no request.
pub fn explain(
    admin: &AdminAddress,
    url: &str,
    method: &str,
    headers: &[String],
    client: Option<std::net::IpAddr>,
) -> Result<Value, AskError> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("url", url).append_pair("method", method);
    headers.iter().for_each(|header| _ = query.append_pair("header", header));
    if let Some(client) = client {
        query.append_pair("client", &client.to_string());
    }
    ask(&Method::GET, admin, &format!("/v1/explain?{}", query.finish()), None)
}

/// What [`explain`] gives, for people.
pub fn explained_in_words(answer: &Value) -> String {
    let sentences = answer.get("sentences").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut lines: Vec<&str> = sentences.iter().filter_map(Value::as_str).collect();
    let status = answer.get("cache_status").and_then(Value::as_str).unwrap_or_default();
    let status = format!("Cache-Status: {status}");
    lines.push(&status);
    lines.join("\n")
}

/// Has a node purge.
///
/// # Errors
/// It does not answer, or refuses.
pub fn purge(purge: &PurgeArgs) -> Result<Value, AskError> {
    let mut query = String::new();
    if let Some(who) = &purge.wait {
        query = format!("?wait={who}");
        if let Some(timeout) = &purge.timeout {
            query += &format!("&timeout={timeout}");
        }
    }
    ask(&Method::POST, &purge.admin, &format!("/v1/purge{query}"), Some(&purge.body()))
}

/// What [`purge`] gives, for people.
pub fn purged_in_words(receipt: &Value) -> String {
    let text = |path: &str| receipt.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let list = |path: &str| receipt.get(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let number = |path: &str| receipt.pointer(path).and_then(Value::as_u64);
    let applied = receipt.get("applied") == Some(&Value::Bool(true));
    let (mode, id) = (text("/mode"), text("/id"));
    let mut lines = vec![match (number("/position/generation"), number("/position/seq")) {
        (Some(generation), Some(seq)) => {
            let what = if applied { "applied on every node" } else { "written" };
            format!("{mode} {what} as purge {id} at {generation}-{seq}")
        }
        _ => format!("{mode} kept as purge {id}: the hub cannot be reached; it is applied when that is back"),
    }];
    for selector in list("selectors") {
        let of = |key: &str| selector.get(key).and_then(Value::as_str).unwrap_or_default();
        lines.push(format!("  {} {} {}", of("site"), of("kind"), of("value")).trim_end().to_owned());
    }
    let behind = list("nodes").iter().filter(|node| node.get("applied") != Some(&Value::Bool(true)));
    let behind: Vec<&str> = behind.filter_map(|node| node.get("node").and_then(Value::as_str)).collect();
    if !behind.is_empty() {
        lines.push(format!("not applied yet: {}", behind.join(", ")));
    }
    lines.join("\n")
}

/// A new token, and the line that lets it in.
///
/// # Errors
/// The system gives no random numbers.
pub fn token(name: &str, sites: &[String], verbs: &[&str]) -> Result<String, getrandom::Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let token = blake3::Hash::from_bytes(secret).to_hex();
    let hash = blake3::hash(token.as_bytes()).to_hex();
    let quoted = |words: Vec<&str>| words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
    let sites = if sites.is_empty() { vec!["*"] } else { sites.iter().map(String::as_str).collect() };
    let verbs = if verbs.is_empty() { vec!["purge"] } else { verbs.to_vec() };
    Ok(format!(
        "{token}\n\nThis is the only time it is shown. For `tokens` in [admin] of the configuration:\n\n\
         {{ name = {name:?}, hash = \"{hash}\", sites = [{}], verbs = [{}] }},",
        quoted(sites),
        quoted(verbs),
    ))
}

/// How long another process may take to serve: as long as the node waits for it, and longer.
const UPGRADED_WITHIN: Duration = Duration::from_secs(150);

/// Has another process of a node take over.
///
/// # Errors
/// It does not, and the one before goes on.
pub fn upgrade(admin: &AdminAddress) -> Result<Value, AskError> {
    ask_within(UPGRADED_WITHIN, &Method::POST, admin, "/v1/upgrade", None)
}

/// What [`upgrade`] gives, for people.
pub fn upgraded_in_words(done: &Value) -> String {
    let id = |key: &str| done.get(key).and_then(Value::as_u64).unwrap_or_default();
    format!("process {} serves; process {} finishes what it has", id("pid"), id("before"))
}

/// Has a node finish and end, and waits until it has.
///
/// # Errors
/// It does not answer.
pub fn drain(admin: &AdminAddress) -> Result<(), AskError> {
    ask(&Method::POST, admin, "/v1/drain", None)?;
    while std::net::TcpStream::connect(admin.admin).is_ok() {
        std::thread::park_timeout(LOOK_EVERY);
    }
    Ok(())
}

/// What [`stat`] gives, for people.
pub fn in_words(stat: &Value) -> String {
    let number = |path: &str| stat.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let text = |path: &str| stat.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let requests: Vec<(String, u64)> = stat
        .get("requests")
        .and_then(Value::as_object)
        .map(|all| all.iter().map(|(name, count)| (name.clone(), count.as_u64().unwrap_or(0))).collect())
        .unwrap_or_default();
    let total: u64 = requests.iter().map(|(_, count)| count).sum();
    let served: u64 = requests.iter().filter(|(name, _)| name == "hit" || name == "stale").map(|(_, n)| n).sum();
    let mut lines = vec![
        format!(
            "littoral {}, up {} s, configuration {}{}",
            text("/version"),
            number("/uptime_seconds"),
            number("/config_version"),
            if stat.get("draining") == Some(&Value::Bool(true)) { ", draining" } else { "" },
        ),
        format!("connections  {}", number("/connections")),
        format!("requests     {total}, {:.1} % from the store", 100.0 * served as f64 / total.max(1) as f64),
    ];
    let counted = requests.iter().filter(|(_, count)| *count > 0);
    lines.extend(counted.map(|(name, count)| format!("  {name:<11}{count}")));
    lines.push(format!(
        "memory       {} objects, {:.1} MiB",
        number("/store/memory/objects"),
        number("/store/memory/bytes") as f64 / f64::from(1 << 20),
    ));
    lines.extend(stat.pointer("/store/disk").and_then(Value::as_array).into_iter().flatten().map(disk_in_words));
    if number("/store/writes/limit_bytes") > 0 {
        lines.push(format!(
            "writes       {} of {} wait for disks",
            size(number("/store/writes/used_bytes")),
            size(number("/store/writes/limit_bytes")),
        ));
    }
    for origin in stat.get("origins").and_then(Value::as_array).into_iter().flatten() {
        let field = |name: &str| origin.get(name).and_then(Value::as_str).unwrap_or_default();
        let requests = origin.get("requests").and_then(Value::as_u64).unwrap_or_default();
        let (site, name, state) = (field("site"), field("origin"), field("state"));
        lines.push(format!("origin       {site} {name}: {state}, {requests} requests under way"));
    }
    lines.join("\n")
}

fn disk_in_words(disk: &Value) -> String {
    let number = |name: &str| disk.get(name).and_then(Value::as_u64).unwrap_or(0);
    let is = |name: &str| disk.get(name) == Some(&Value::Bool(true));
    let text = |name: &str| disk.get(name).and_then(Value::as_str);
    let state = match (is("up"), is("recovered"), text("why")) {
        (true, true, None) => String::new(),
        (true, false, None) => "; what it held before the start is still being found".into(),
        (true, _, Some(why)) => format!("; it last failed with {why}"),
        (false, _, Some(why)) => format!("; it is not used: {why}"),
        (false, _, None) => "; it is being opened".into(),
    };
    let damaged = match number("damaged") {
        0 => String::new(),
        damaged => format!(", {damaged} found damaged"),
    };
    format!(
        "disk         {}: {} responses, {} of {}, {} written{damaged}{state}",
        text("path").unwrap_or_default(),
        number("responses"),
        size(number("used_bytes")),
        size(number("bytes")),
        size(number("written_bytes")),
    )
}

/// Bytes, as people say them.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4) as usize;
    match power {
        0 => format!("{bytes} B"),
        _ => format!("{:.1} {}", bytes as f64 / f64::from(1 << 10).powi(power as i32), units[power]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_are_said_in_words() {
        for (bytes, expected) in
            [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 50, "5120.0 TiB")]
        {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn receipts_are_said_in_words() {
        let receipt = |position: Value, applied: [bool; 2]| {
            let node = |name: &str, applied: bool| json!({ "node": name, "applied": applied });
            json!({
                "id": "01M8", "mode": "delete", "position": position, "applied": applied == [true; 2],
                "selectors": [{ "site": "shop", "kind": "tag", "value": "a" }],
                "nodes": [node("one", applied[0]), node("two", applied[1])],
            })
        };
        let at = json!({ "generation": 2, "seq": 7 });
        for (receipt, expected) in [
            (receipt(at.clone(), [true; 2]), "delete applied on every node as purge 01M8 at 2-7\n  shop tag a"),
            (receipt(at, [true, false]), "delete written as purge 01M8 at 2-7\n  shop tag a\nnot applied yet: two"),
            (
                receipt(Value::Null, [false; 2]),
                "delete kept as purge 01M8: the hub cannot be reached; it is applied when that is back\n  shop tag a\n\
                 not applied yet: one, two",
            ),
        ] {
            assert_eq!(purged_in_words(&receipt), expected);
        }
    }

    #[test]
    fn stat_is_said_in_words() {
        let stat = json!({
            "version": "1.2.3", "uptime_seconds": 5, "config_version": 2, "draining": true, "connections": 7,
            "requests": { "hit": 3, "miss": 1, "error": 0 },
            "store": {
                "memory": { "bytes": 1_572_864, "objects": 9 },
                "disk": [
                    { "path": "/a", "bytes": 2048, "used_bytes": 1024, "responses": 3, "written_bytes": 9, "up": true,
                      "recovered": true, "why": null, "damaged": 2 },
                    { "path": "/b", "up": false, "why": "/b is in use" },
                ],
                "writes": { "used_bytes": 0, "limit_bytes": 1024 },
            },
            "origins": [{ "site": "shop", "origin": "a:80", "state": "down", "requests": 2 }],
        });
        let expected = "littoral 1.2.3, up 5 s, configuration 2, draining\nconnections  7\n\
            requests     4, 75.0 % from the store\n  hit        3\n  miss       1\n\
            memory       9 objects, 1.5 MiB\n\
            disk         /a: 3 responses, 1.0 KiB of 2.0 KiB, 9 B written, 2 found damaged\n\
            disk         /b: 0 responses, 0 B of 0 B, 0 B written; it is not used: /b is in use\n\
            writes       0 B of 1.0 KiB wait for disks\norigin       shop a:80: down, 2 requests under way";
        assert_eq!(in_words(&stat), expected);
    }

    #[test]
    fn refused_configurations_are_said_in_words() {
        let answer = json!({ "errors": [
            { "file": "edge.toml", "line": 3, "column": 7, "message": "unknown key", "help": "did you mean x?" },
            { "message": "workers cannot change while the node runs", "help": "" },
        ] });
        let expected = "  edge.toml:3:7: unknown key\n    did you mean x?\n  workers cannot change while the node runs";
        assert_eq!(errors_in_words(&answer), expected);
    }
}

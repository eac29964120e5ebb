//! `littoral cache`: what a node has stored, asked for and said.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use super::{AskError, ask, ask_within, size};
use crate::cli::AdminAddress;
use crate::cli::cache::Cache;

/// Responses asked for at a time: what the API gives at most.
const PAGE: u32 = 1_000;
/// How long a node may read what is stored for one URL.
const VERIFIED_WITHIN: Duration = Duration::from_secs(120);
/// How often it is looked whether a verification has ended.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What was found, for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    AllRight,
    /// Something on a disk is not what was written.
    NotRight,
}

/// Asks a node what the command is about. Gives what to print, and what was found.
///
/// # Errors
/// It does not answer, or refuses.
pub fn run(command: &Cache) -> Result<(String, Found), AskError> {
    let (json, answer, words): (_, _, fn(&Value) -> String) = match command {
        Cache::Show { url, headers, asked } => (asked.json, show(&asked.admin, url, headers)?, shown_in_words),
        Cache::Ls { site, prefix, limit, cursor, asked } => {
            let named = [("site", site), ("prefix", prefix)];
            (asked.json, list(&asked.admin, named, *limit, cursor.clone())?, listed_in_words)
        }
        Cache::Verify { url: Some(url), headers, asked, .. } => {
            let target = format!("/v1/cache/verify?{}", query_of(url, headers));
            let answer = ask_within(VERIFIED_WITHIN, &Method::POST, &asked.admin, &target, None)?;
            (asked.json, answer, verified_in_words)
        }
        Cache::Verify { all, rate, wait, asked, .. } => {
            (asked.json, verify_all(&asked.admin, *all, *rate, *wait)?, progress_in_words)
        }
    };
    let is = |path: &str, value: &Value| answer.get(path) == Some(value);
    let not_right = is("right", &Value::Bool(false))
        || ["damaged", "unreadable"].iter().any(|name| answer.get(name).and_then(Value::as_u64).unwrap_or(0) > 0);
    let found = if matches!(command, Cache::Verify { .. }) && not_right { Found::NotRight } else { Found::AllRight };
    Ok((if json { answer.to_string() } else { words(&answer) }, found))
}

fn query_of(url: &str, headers: &[String]) -> String {
    let mut query = Serializer::new(String::new());
    query.append_pair("url", url);
    headers.iter().for_each(|header| _ = query.append_pair("header", header));
    query.finish()
}

fn show(admin: &AdminAddress, url: &str, headers: &[String]) -> Result<Value, AskError> {
    ask(&Method::GET, admin, &format!("/v1/cache/object?{}", query_of(url, headers)), None)
}

/// As many pages as `limit` needs, as one answer.
fn list(
    admin: &AdminAddress,
    named: [(&str, &Option<String>); 2],
    limit: u32,
    mut cursor: Option<String>,
) -> Result<Value, AskError> {
    let mut whole: Option<Value> = None;
    loop {
        let known = whole.as_ref().and_then(|whole| whole.get("objects")?.as_array().map(Vec::len)).unwrap_or(0);
        let left = limit.saturating_sub(u32::try_from(known).unwrap_or(u32::MAX));
        let mut query = Serializer::new(String::new());
        for (name, value) in named {
            value.iter().for_each(|value| _ = query.append_pair(name, value));
        }
        query.append_pair("limit", &left.clamp(1, PAGE).to_string());
        if let Some(cursor) = &cursor {
            query.append_pair("cursor", cursor);
        }
        let page = ask(&Method::GET, admin, &format!("/v1/cache/objects?{}", query.finish()), None)?;
        cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
        let all = match whole.take() {
            Some(all) => joined(all, &page),
            None => page,
        };
        let listed = all.get("objects").and_then(Value::as_array).map_or(0, Vec::len);
        if cursor.is_none() || listed >= limit as usize {
            return Ok(all);
        }
        whole = Some(all);
    }
}

/// Two pages, one behind the other.
fn joined(mut all: Value, page: &Value) -> Value {
    for name in ["looked", "gone", "unreadable"] {
        let number = |of: &Value| of.get(name).and_then(Value::as_u64).unwrap_or(0);
        all[name] = json!(number(&all) + number(page));
    }
    all["next"] = page.get("next").cloned().unwrap_or_default();
    if let (Some(objects), Some(more)) =
        (all.get_mut("objects").and_then(Value::as_array_mut), page.get("objects").and_then(Value::as_array))
    {
        objects.extend(more.iter().cloned());
    }
    all
}

fn verify_all(admin: &AdminAddress, begin: bool, rate: Option<u32>, wait: bool) -> Result<Value, AskError> {
    let look = || ask(&Method::GET, admin, "/v1/cache/verify", None);
    if !begin {
        return look();
    }
    let rate = rate.map(|rate| format!("&rate={rate}")).unwrap_or_default();
    let mut progress = ask(&Method::POST, admin, &format!("/v1/cache/verify?all=1{rate}"), None)?;
    while wait && progress.get("running") == Some(&Value::Bool(true)) {
        std::thread::park_timeout(LOOK_EVERY);
        progress = look()?;
    }
    Ok(progress)
}

fn text<'a>(of: &'a Value, path: &str) -> Option<&'a str> {
    of.pointer(path).and_then(Value::as_str)
}

fn number(of: &Value, path: &str) -> i64 {
    of.pointer(path).and_then(Value::as_i64).unwrap_or(0)
}

fn bytes(of: &Value, path: &str) -> String {
    size(of.pointer(path).and_then(Value::as_u64).unwrap_or(0))
}

fn list_of<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// One or many of something.
fn counted(count: i64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

fn left(ttl: i64) -> String {
    match ttl {
        0.. => format!("fresh for {ttl} s more"),
        _ => format!("stale since {} s", -ttl),
    }
}

fn unreadable(answer: &Value) -> impl Iterator<Item = String> + '_ {
    list_of(answer, "unreadable").iter().filter_map(Value::as_str).map(|why| format!("Cannot be read: {why}."))
}

/// What `cache show` says.
pub fn shown_in_words(answer: &Value) -> String {
    let records = list_of(answer, "records");
    let mut lines = vec![format!(
        "{} of the site {}: {} stored.",
        text(answer, "/url").unwrap_or_default(),
        text(answer, "/site").unwrap_or_default(),
        counted(records.len() as i64, "response"),
    )];
    let vary = list_of(answer, "vary").iter().filter_map(Value::as_str);
    lines.extend(vary.map(|names| format!("What is stored for it is selected by {names}.")));
    records.iter().for_each(|record| lines.extend(record_in_words(record)));
    lines.extend(unreadable(answer));
    lines.join("\n")
}

fn record_in_words(record: &Value) -> Vec<String> {
    let is = |name: &str| record.get(name) == Some(&Value::Bool(true));
    let disk = record.get("disk").filter(|disk| !disk.is_null()).map(|disk| {
        format!(
            "on the disk {} (segment {}, offset {}, {} bytes)",
            text(disk, "/path").unwrap_or_default(),
            number(disk, "/segment"),
            number(disk, "/offset"),
            number(disk, "/bytes"),
        )
    });
    let place = match (is("memory"), disk) {
        (true, Some(disk)) => format!("in memory and {disk}"),
        (true, None) => "in memory alone".into(),
        (false, Some(disk)) => disk,
        (false, None) => "nowhere".into(),
    };
    let mut lines = vec![
        format!("\n{} {}, {place}", text(record, "/key").unwrap_or_default(), number(record, "/status")),
        format!(
            "  body        {}{}",
            bytes(record, "/body_bytes"),
            if text(record, "/body") == Some("apart") { ", apart from its head" } else { "" },
        ),
        format!(
            "  age         {} s of {} s, {}",
            number(record, "/age"),
            number(record, "/lifetime"),
            left(number(record, "/ttl")),
        ),
    ];
    if let Some(chunks) = record.get("chunks").filter(|chunks| !chunks.is_null()) {
        let (all, there) = (number(chunks, "/all"), number(chunks, "/there"));
        let whole = if all == there { "all there" } else { "the others are fetched when they are wanted" };
        lines.push(format!(
            "  chunks      {there} of {all}, {whole}; generation {}",
            text(record, "/generation").unwrap_or_default()
        ));
    }
    let validators: Vec<String> = [("etag", "/etag"), ("last-modified", "/last_modified")]
        .iter()
        .filter_map(|(name, path)| Some(format!("{name} {}", text(record, path)?)))
        .collect();
    let validators = if validators.is_empty() { "none".into() } else { validators.join(", ") };
    lines.push(format!("  validators  {validators}"));
    lines.push(format!(
        "  purges      {}; {}, fill at {}-{}-{}",
        match text(record, "/ledger") {
            Some("gone") => format!("gone: {}, never served again", text(record, "/gone").unwrap_or_default()),
            Some("stale") => format!("stale since {}", text(record, "/stale_since").unwrap_or_default()),
            _ => "live".into(),
        },
        counted(number(record, "/surrogate_keys"), "surrogate key"),
        number(record, "/fill_position/log/generation"),
        number(record, "/fill_position/log/seq"),
        number(record, "/fill_position/local"),
    ));
    if is("doubtful") {
        lines.push("  doubtful    the disk has lost something: it is validated before it is used".into());
    }
    lines
}

/// What `cache ls` says.
pub fn listed_in_words(answer: &Value) -> String {
    let objects = list_of(answer, "objects");
    let line = |object: &Value| {
        format!(
            "{} {:>10} {:>8} s old, {:<24} {:<6} {}",
            number(object, "/status"),
            bytes(object, "/bytes"),
            number(object, "/age"),
            left(number(object, "/ttl")),
            text(object, "/tier").unwrap_or_default(),
            text(object, "/url").unwrap_or_default(),
        )
    };
    let mut lines: Vec<String> = objects.iter().map(line).collect();
    lines.push(format!(
        "{} on disks for the site {}.",
        counted(objects.len() as i64, "response"),
        text(answer, "/site").unwrap_or_default(),
    ));
    if let Some(alone) = answer.get("in_memory_alone").filter(|alone| number(alone, "/objects") > 0) {
        let least = if alone.get("at_least") == Some(&Value::Bool(true)) { "At least " } else { "" };
        let count = counted(number(alone, "/objects"), "more response");
        lines.push(format!("{least}{count} in memory alone: only `littoral cache show URL` finds them."));
    }
    if number(answer, "/unreadable") > 0 {
        lines.push(format!("{} could not be read.", counted(number(answer, "/unreadable"), "response")));
    }
    if let Some(next) = text(answer, "/next") {
        lines.push(format!("There may be more: go on with --cursor {next}"));
    }
    lines.join("\n")
}

/// What `cache verify URL` says.
pub fn verified_in_words(answer: &Value) -> String {
    let url = text(answer, "/url").unwrap_or_default();
    let mut lines = vec![match answer.get("right") {
        Some(Value::Bool(true)) => format!("What is on disks for {url} is what was written."),
        _ => format!("What is on disks for {url} is not all what was written; it is fetched again when it is wanted."),
    }];
    for record in list_of(answer, "records") {
        let chunks = list_of(record, "chunks");
        let wrong = |(index, state): (usize, &Value)| {
            let state = state.as_str().filter(|state| *state != "right")?;
            Some(format!("  chunk {index} is {state}"))
        };
        let what = match chunks.len() {
            0 => "head and body".into(),
            count => format!("head and {}", counted(count as i64, "chunk")),
        };
        lines.push(format!(
            "{} on {}: {what} read, {}",
            text(record, "/key").unwrap_or_default(),
            text(record, "/disk").unwrap_or_default(),
            bytes(record, "/bytes"),
        ));
        lines.extend(chunks.iter().enumerate().filter_map(wrong));
        if number(record, "/left") > 0 {
            lines.push(format!(
                "  {} not read: there are too many for one request",
                counted(number(record, "/left"), "chunk")
            ));
        }
    }
    lines.extend(unreadable(answer));
    lines.join("\n")
}

/// What `cache verify --all` and `cache verify` say.
pub fn progress_in_words(answer: &Value) -> String {
    if answer.get("started_at").is_none_or(Value::is_null) {
        return "Nothing was verified since the node started: littoral cache verify --all begins it.".into();
    }
    let frames = format!("{} of {} frames", number(answer, "/frames"), number(answer, "/frames_at_start"));
    let read = format!("{frames}, {}", bytes(answer, "/bytes"));
    let mut lines = vec![match answer.get("running") {
        Some(Value::Bool(true)) => format!(
            "Verifying{}: {read} read so far, at {} MiB/s at most. `littoral cache verify` says how far it is.",
            text(answer, "/disk").map(|disk| format!(" {disk}")).unwrap_or_default(),
            number(answer, "/mib_per_second"),
        ),
        _ => format!("Verified: {read} read in {:.1} s.", answer.get("seconds").and_then(Value::as_f64).unwrap_or(0.0)),
    }];
    let (damaged, failed) = (number(answer, "/damaged"), number(answer, "/unreadable"));
    lines.push(match (damaged, failed) {
        (0, 0) => format!("{} right, none damaged.", number(answer, "/right")),
        _ => format!(
            "{} right, {damaged} damaged and forgotten, {failed} unreadable: look at the disk's health (smartctl).",
            number(answer, "/right")
        ),
    });
    if number(answer, "/gone") > 0 {
        lines.push(format!("{} replaced or evicted meanwhile.", number(answer, "/gone")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests;

//! `littoral statistics`: what sites did, asked for and said.

use http::Method;
use serde_json::Value;

use super::{AskError, ask, size};
use crate::cli::AdminAddress;
use crate::cli::cache::Asked;

/// Asks a node what its sites did. Gives what to print.
///
/// # Errors
/// It does not answer, or refuses.
pub fn run(site: Option<&str>, asked: &Asked) -> Result<String, AskError> {
    let target = match site {
        Some(site) => {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            format!("/v1/statistics?{}", query.append_pair("site", site).finish())
        }
        None => "/v1/statistics".to_owned(),
    };
    let answer = ask(&Method::GET, &asked.admin, &target, None)?;
    Ok(if asked.json { answer.to_string() } else { in_words(&answer) })
}

/// The names of the sites of a node, those that it has of a hub among them.
///
/// # Errors
/// It does not answer, or refuses.
pub fn sites(admin: &AdminAddress) -> Result<Vec<String>, AskError> {
    let answer = ask(&Method::GET, admin, "/v1/statistics", None)?;
    let sites = answer.get("sites").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let names = sites.iter().filter_map(|site| site.get("site").and_then(Value::as_str));
    Ok(names.map(str::to_owned).collect())
}

fn in_words(answer: &Value) -> String {
    let sites = answer.get("sites").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if sites.is_empty() {
        return "there is no site".to_owned();
    }
    sites.iter().map(site_in_words).collect::<Vec<_>>().join("\n")
}

fn site_in_words(site: &Value) -> String {
    let counts = |key: &str| -> Vec<(&str, u64)> {
        let counts = site.get(key).and_then(Value::as_object).into_iter().flatten();
        counts.map(|(name, count)| (name.as_str(), count.as_u64().unwrap_or_default())).collect()
    };
    let listed = |key: &str, in_words: fn(u64) -> String| {
        let counts = counts(key);
        let listed = counts.iter().map(|(name, count)| format!("{name} {}", in_words(*count)));
        if counts.is_empty() { "none".to_owned() } else { listed.collect::<Vec<_>>().join(", ") }
    };
    let plain = |count: u64| count.to_string();
    let ratio = match site.get("hit_ratio").and_then(Value::as_f64) {
        Some(ratio) => format!(", {:.1} % from the store", ratio * 100.0),
        None => String::new(),
    };
    let name = site.get("site").and_then(Value::as_str).unwrap_or_default();
    let requests = site.get("requests").and_then(Value::as_u64).unwrap_or_default();
    format!(
        "{name}: {requests} requests{ratio}\n  cache    {}\n  status   {}\n  bytes    {}\n  origins  {}\n  purges   {}",
        listed("cache", plain),
        listed("status", plain),
        listed("response_bytes", size),
        listed("origin_requests", plain),
        listed("purges", plain),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn statistics_are_said_in_words() {
        let shop = json!({
            "site": "shop", "requests": 4, "hit_ratio": 0.75, "cache": { "hit": 3, "miss": 1 }, "status": { "200": 4 },
            "response_bytes": { "hit": 2048, "miss": 10 }, "origin_requests": { "ok": 1 }, "purges": { "tag": 2 },
        });
        let blog = json!({ "site": "blog", "requests": 0, "hit_ratio": null });
        let expected = "shop: 4 requests, 75.0 % from the store\n  cache    hit 3, miss 1\n  status   200 4\n  \
            bytes    hit 2.0 KiB, miss 10 B\n  origins  ok 1\n  purges   tag 2\n\
            blog: 0 requests\n  cache    none\n  status   none\n  bytes    none\n  origins  none\n  purges   none";
        assert_eq!(in_words(&json!({ "sites": [shop, blog] })), expected);
        assert_eq!(in_words(&json!({ "sites": [] })), "there is no site");
    }
}

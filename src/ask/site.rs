//! `littoral site`: sites and their hosts, asked for, watched and said.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use super::{AskError, ask};
use crate::cli::AdminAddress;
use crate::cli::cache::Asked;
use crate::cli::site::{Host, Of, Site, Watch};
use crate::clock;
use crate::pipeline::explain::date;
use crate::semantics::time::UnixMs;

/// How often a site that is not live yet is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why it was not done.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum SiteError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Ask(#[from] AskError),
    #[error("this node has no site {0}")]
    Unknown(String),
    #[error("not everything is served yet:\n{0}")]
    #[diagnostic(help("`littoral site show SITE` says how it stands later; nothing is lost"))]
    NotLive(String),
}

/// Asks a node what the command is about. Gives what to print at its end; `say` gets what there is to say before.
///
/// # Errors
/// It does not answer, or refuses, or clients are not served in time.
pub fn run(command: &Site, say: &mut dyn FnMut(&str)) -> Result<String, SiteError> {
    match command {
        Site::Add { site, hosts, origins, allow_http, watch, asked } => {
            let body = json!({ "site": site, "hosts": hosts, "origins": origins, "allow_http": allow_http });
            ask(&Method::POST, &asked.admin, "/v1/sites", Some(&body))?;
            watched(site, hosts, watch, asked, say)
        }
        Site::Host(Host::Add { of: Of { site, host }, watch, asked }) => {
            let body = json!({ "site": site, "host": host });
            ask(&Method::POST, &asked.admin, "/v1/hosts", Some(&body))?;
            watched(site, std::slice::from_ref(host), watch, asked, say)
        }
        Site::List { asked } => {
            let answer = ask(&Method::GET, &asked.admin, "/v1/sites", None)?;
            let sites = list(&answer, "sites");
            let none = || "there is no site".to_owned();
            let lines = sites.iter().map(|site| in_words(site, false)).collect::<Vec<_>>().join("\n");
            Ok(if asked.json { answer.to_string() } else { some(lines).unwrap_or_else(none) })
        }
        Site::Show { site, asked } => {
            let state = state(&asked.admin, site)?;
            Ok(if asked.json { state.to_string() } else { in_words(&state, true) })
        }
        Site::Remove { site, asked } => {
            let answer = ask(&Method::POST, &asked.admin, "/v1/sites/delete", Some(&json!({ "site": site })))?;
            Ok(if asked.json { answer.to_string() } else { format!("{site} is removed, on all nodes") })
        }
        Site::Host(Host::Remove { of, asked }) => told(of, asked, "delete", "is removed, on all nodes"),
        Site::Host(Host::Revoke { of, asked }) => told(of, asked, "revoke", "is revoked: nothing is ordered for it"),
        Site::Host(Host::Allow { of, asked }) => told(of, asked, "allow", "is looked at anew"),
    }
}

fn told(Of { site, host }: &Of, asked: &Asked, what: &str, said: &str) -> Result<String, SiteError> {
    let body = json!({ "site": site, "host": host });
    let answer = ask(&Method::POST, &asked.admin, &format!("/v1/hosts/{what}"), Some(&body))?;
    Ok(if asked.json { answer.to_string() } else { format!("{host} of {site} {said}") })
}

fn state(admin: &AdminAddress, site: &str) -> Result<Value, SiteError> {
    let answer = ask(&Method::GET, admin, "/v1/sites", None)?;
    let found = list(&answer, "sites").iter().find(|state| word(state, "site") == site).cloned();
    found.ok_or_else(|| SiteError::Unknown(site.to_owned()))
}

/// Says what to set, and waits until clients of these hosts are served.
fn watched(
    site: &str,
    hosts: &[String],
    watch: &Watch,
    asked: &Asked,
    say: &mut dyn FnMut(&str),
) -> Result<String, SiteError> {
    let until = clock::monotonic() + watch.timeout.get();
    let hosts: Vec<String> = hosts.iter().map(|host| host.trim_end_matches('.').to_ascii_lowercase()).collect();
    let mut now = known(&asked.admin, site, until)?;
    if !asked.json {
        say(&to_set(&now, &hosts));
    }
    let mut before = Vec::new();
    loop {
        let theirs = |state: &&Value| hosts.iter().any(|host| host == word(state, "host"));
        let states: Vec<Value> = list(&now, "hosts").iter().filter(theirs).cloned().collect();
        if !asked.json {
            for line in states.iter().map(host_in_words).filter(|line| !before.contains(line)) {
                say(&line);
            }
        }
        before = states.iter().map(host_in_words).collect();
        let is_live = |state: &Value| state.get("live").and_then(Value::as_bool) == Some(true);
        if watch.no_wait || (states.len() == hosts.len() && states.iter().all(is_live)) {
            let said = if watch.no_wait { format!("{site} is added") } else { format!("{site} is live") };
            return Ok(if asked.json { now.to_string() } else { said });
        }
        if clock::monotonic() >= until {
            return Err(SiteError::NotLive(before.join("\n")));
        }
        std::thread::park_timeout(LOOK_EVERY);
        now = known(&asked.admin, site, until)?;
    }
}

/// A site that is on its way to the node.
fn known(admin: &AdminAddress, site: &str, until: Instant) -> Result<Value, SiteError> {
    loop {
        match state(admin, site) {
            Err(SiteError::Unknown(_)) if clock::monotonic() < until => std::thread::park_timeout(LOOK_EVERY),
            state => return state,
        }
    }
}

/// What is to be set in DNS for these hosts.
fn to_set(site: &Value, hosts: &[String]) -> String {
    let target = word(site, "target");
    let addresses: Vec<&str> = list(site, "addresses").iter().filter_map(Value::as_str).collect();
    if target.is_empty() && addresses.is_empty() {
        return "lead the names of the hosts to this CDN; [dns] of its configuration would say where".to_owned();
    }
    let mut lines = vec!["set in DNS:".to_owned()];
    for host in hosts {
        lines.push(match target {
            "" => format!("  {host}  A/AAAA  {}", addresses.join(", ")),
            target => format!("  {host}  CNAME  {target}."),
        });
    }
    if !target.is_empty() && !addresses.is_empty() {
        lines.push(format!(
            "or, where a name cannot be a CNAME (the apex of a zone), A and AAAA {}",
            addresses.join(", ")
        ));
    }
    lines.join("\n")
}

fn in_words(site: &Value, in_full: bool) -> String {
    let target = match word(site, "target") {
        "" => String::new(),
        target => format!(" ({target})"),
    };
    let hosts = list(site, "hosts");
    let lines = hosts.iter().map(|host| format!("  {}", host_in_words(host)));
    let mut all = vec![format!("{}{target}", word(site, "site"))];
    all.extend(lines);
    if in_full {
        for host in hosts.iter().filter(|host| word(host, "state") == "waiting") {
            all.push(to_set(site, &[word(host, "host").to_owned()]));
            if let Some(txt) = host.get("txt").filter(|txt| txt.is_object()) {
                all.push(format!(
                    "or, before its name leads here: {}  TXT  \"{}\"",
                    word(txt, "name"),
                    word(txt, "value")
                ));
            }
        }
    }
    all.join("\n")
}

fn host_in_words(host: &Value) -> String {
    let certificate = host.get("certificate").filter(|certificate| certificate.is_object());
    let certificate = certificate.map(|certificate| {
        let time =
            |key: &str| certificate.get(key).and_then(Value::as_u64).map(|seconds| date(UnixMs(seconds * 1_000)));
        match (time("not_after"), time("renew_at")) {
            (Some(end), Some(renewal)) => format!("certificate until {end}, renewed {renewal}"),
            _ => "certificate of its own".to_owned(),
        }
    });
    let state = match (word(host, "state"), word(host, "said")) {
        (state, "") => state.to_owned(),
        ("proven", said) => format!("leads here, {said}"),
        (state, said) => format!("{state}: {said}"),
    };
    let live = if host.get("live").and_then(Value::as_bool) == Some(true) { "live" } else { "not live" };
    let parts = [Some(live.to_owned()), Some(state), certificate];
    format!("{}: {}", word(host, "host"), parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn word<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let site = json!({
            "site": "shop", "target": "shop.cdn.test", "addresses": ["192.0.2.1", "2001:db8::1"],
            "hosts": [
                { "host": "www.a.test", "state": "waiting", "said": "expected a CNAME", "live": false, "certificate": null,
                  "txt": { "name": "_littoral.www.a.test", "value": "00ff" } },
                { "host": "b.test", "state": "proven", "said": "by its addresses", "live": true, "txt": null,
                  "certificate": { "from": "acme", "not_after": 86_400, "renew_at": 0 } },
            ],
        });
        let expected = "shop (shop.cdn.test)\n\
            \x20 www.a.test: not live; waiting: expected a CNAME\n\
            \x20 b.test: live; leads here, by its addresses; certificate until Fri, 02 Jan 1970 00:00:00 GMT, renewed Thu, 01 Jan 1970 00:00:00 GMT\n\
            set in DNS:\n\
            \x20 www.a.test  CNAME  shop.cdn.test.\n\
            or, where a name cannot be a CNAME (the apex of a zone), A and AAAA 192.0.2.1, 2001:db8::1\n\
            or, before its name leads here: _littoral.www.a.test  TXT  \"00ff\"";
        assert_eq!(in_words(&site, true), expected);
        let brought = json!({ "host": "c.test", "state": "configured", "said": "", "live": true, "certificate": { "from": "brought" } });
        assert_eq!(host_in_words(&brought), "c.test: live; configured; certificate of its own");
        let nowhere = json!({ "site": "shop", "target": null, "addresses": [] });
        assert!(to_set(&nowhere, &["a.test".into()]).starts_with("lead the names"));
    }
}

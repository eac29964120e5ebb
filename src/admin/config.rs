//! `/v1/config`: what the hub has of the configuration for all nodes, and putting something else in its place.
//!
//! - [`handle`]: the routes.

pub mod handle;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{Caller, Detail};
use super::purge::Wrong;
use super::reply::Reply;
use crate::purge::nats::documents::{Heard, NOTE_BYTES_MAX, TEXT_BYTES_MAX, Which};
use crate::purge::nats::shelf::{Refusal, Standing};

/// A version to be published.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushRequest {
    /// The site, by name. A token for one site means that one.
    pub site: Option<String>,
    /// In place of a site: the settings for all nodes.
    #[serde(default)]
    pub node: bool,
    /// What a file in sites.d would hold, with this one site. Nothing: the site is removed.
    pub text: String,
    /// The version this one is to take the place of; 0: none. Absent: whichever is the latest.
    pub expected_version: Option<u64>,
    /// For this part of the nodes, 1 to 100 percent; absent: for all.
    pub share: Option<u8>,
    /// What is to be said of it in lists of versions.
    #[serde(default)]
    pub note: String,
}

/// A version to go back to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    pub site: Option<String>,
    #[serde(default)]
    pub node: bool,
    /// Its number. Absent: the last one that was for all nodes and is not the same as the latest.
    pub version: Option<u64>,
}

/// A text to be compared with the latest version.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiffRequest {
    pub site: Option<String>,
    #[serde(default)]
    pub node: bool,
    pub text: String,
}

/// What was published.
#[derive(Debug, Serialize, ToSchema)]
pub struct Published {
    pub version: u64,
    pub share: u8,
    /// On the node that was asked: `in force`; `on other nodes`, where it is for some; `refused`; or `on its way`.
    pub here: &'static str,
}

/// How a text differs from the latest version.
#[derive(Debug, Serialize, ToSchema)]
pub struct Diff {
    /// 0: there is none.
    pub version: u64,
    /// As `diff -u` has it; nothing, where it does not differ.
    pub diff: String,
}

/// Every document the token is for and, where it is for all sites, the nodes.
#[derive(Debug, Serialize, ToSchema)]
pub struct Documents {
    pub documents: Vec<DocumentState>,
    pub nodes: Vec<NodeConfig>,
}

/// A document and how it stands on the node that was asked.
#[derive(Debug, Serialize, ToSchema)]
pub struct DocumentState {
    /// None: the settings for all nodes.
    pub site: Option<String>,
    /// The latest version of the hub. None: the hub has not been heard since this node was started.
    pub latest: Option<Version>,
    /// The version in force here; none, or 0: there is none.
    pub in_force: Option<u64>,
    /// Why a version is not in force here.
    pub refused: Option<String>,
}

/// What a node says that it runs with.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeConfig {
    pub id: String,
    pub name: String,
    pub state: &'static str,
    /// The last version of a document that it has in force.
    pub config: u64,
    /// The same as of another node: the same versions of all documents.
    pub documents: String,
}

/// A version of a document.
#[derive(Debug, Serialize, ToSchema)]
pub struct Version {
    pub version: u64,
    /// In milliseconds of Unix time.
    pub at: u64,
    pub by: String,
    pub note: String,
    pub share: u8,
    /// 0: the site was removed.
    pub bytes: usize,
    /// Where one version was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// The versions of a document, the earliest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Versions {
    pub versions: Vec<Version>,
}

impl Version {
    fn of(heard: &Heard, with_text: bool) -> Self {
        let version = heard.version;
        match &heard.document {
            Ok(document) => Self {
                version,
                at: document.at,
                by: document.by.clone(),
                note: document.note.clone(),
                share: document.share,
                bytes: document.text.len(),
                text: with_text.then(|| document.text.clone()),
                unreadable: None,
            },
            Err(why) => Self {
                version,
                at: 0,
                by: String::new(),
                note: String::new(),
                share: 0,
                bytes: 0,
                text: None,
                unreadable: Some(why.clone()),
            },
        }
    }
}

impl DocumentState {
    fn of(standing: &Standing, detail: Detail) -> Self {
        // Why may be what another site has.
        let why = |refusal: &Refusal| match detail {
            Detail::Everything => format!("version {}: {}", refusal.version, refusal.why),
            Detail::OwnSite => {
                format!("version {} is not good on this node; to be told why, publish it once more", refusal.version)
            }
        };
        Self {
            site: standing.which.site().map(str::to_owned),
            latest: standing.heard.as_ref().map(|heard| Version::of(heard, false)),
            in_force: standing.in_force.as_ref().map(|text| text.version),
            refused: standing.refused.as_ref().map(why),
        }
    }
}

/// What asks for versions.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asking {
    site: Option<String>,
    node: bool,
    version: Option<u64>,
}

/// Reads `site` or `node=1`, and `version`.
fn read_asking(query: Option<&str>) -> Result<Asking, Wrong> {
    let wrong = |key: &str, message: &str| Err(Wrong { key: key.to_owned(), message: message.to_owned() });
    let mut asking = Asking::default();
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match (&*name, &*value) {
            ("site", site) => asking.site = Some(site.to_owned()),
            ("node", "1") => asking.node = true,
            ("node", _) => return wrong("node", "expected node=1, or none"),
            ("version", version) => match version.parse() {
                Ok(version) => asking.version = Some(version),
                Err(_) => return wrong("version", "expected the number of a version"),
            },
            (other, _) => return wrong(other, "expected site or node=1, and version"),
        }
    }
    Ok(asking)
}

/// The document that is meant, if the caller may: one of a site, or with a token for all sites the settings for all nodes.
fn which(site: Option<&str>, node: bool, caller: &Caller) -> Result<Which, Reply> {
    let wrong = |message: &str| Reply::error(StatusCode::BAD_REQUEST, message);
    let denied = || Reply::error(StatusCode::FORBIDDEN, "the token is not for this");
    match (site.or(caller.only_site().filter(|_| !node)), node) {
        (Some(_), true) => Err(wrong("expected site or node, not both")),
        (None, true) if caller.may_everything() => Ok(Which::Node),
        (Some(site), false) if caller.may(site) => Which::named(site)
            .ok_or_else(|| wrong("expected the name of a site: letters, digits, hyphens, underscores, dots")),
        (None, false) => Err(wrong("expected site, or node: true")),
        _ => Err(denied()),
    }
}

/// What is wrong with a version before it is looked at.
fn wrong_with(request: &PushRequest) -> Option<Wrong> {
    let wrong = |key: &str, message: String| Some(Wrong { key: key.to_owned(), message });
    let (text, note) = (request.text.len(), request.note.len());
    match request.share {
        Some(share) if !(1..=100).contains(&share) => wrong("share", format!("it is {share}, expected 1 to 100")),
        _ if text > TEXT_BYTES_MAX => wrong("text", format!("it has {text} bytes, expected at most {TEXT_BYTES_MAX}")),
        _ if note > NOTE_BYTES_MAX => wrong("note", format!("it has {note} bytes, expected at most {NOTE_BYTES_MAX}")),
        _ => None,
    }
}

/// Why somebody whose token is not for all sites may not publish this: they may change rules and nothing else.
fn denied(site: &str, latest: Option<&Heard>, text: &str) -> Option<String> {
    let latest = latest.and_then(|latest| latest.document.as_ref().ok()).map(|document| document.text.as_str());
    let Some(latest) = latest.filter(|latest| !latest.trim().is_empty()) else {
        return Some("the hub has no such site: a token for all sites is needed to add it".to_owned());
    };
    if text.trim().is_empty() {
        return Some("a token for all sites is needed to remove a site".to_owned());
    }
    // What is not understood, or has no such site, is not good either and is said to be so.
    let keys = edge_config::change::keys_besides_rules(site, latest, text)?;
    let names = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    (!keys.is_empty()).then(|| format!("a token for one site may change its rules alone, and this changes {names}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purge::nats::documents::Document;

    #[test]
    fn what_the_token_of_a_site_may_publish() {
        let text = "[site.shop]\nhosts = \"shop.test\"\norigins = \"http://192.0.2.1\"\n";
        let rule = "[[site.shop.rule]]\nthen = { cache = false }\n";
        let heard = |text: &str| Heard {
            version: 1,
            document: Ok(Document::new(text.into(), 1, "ci", String::new(), 100, None)),
        };
        let (known, removed) = (heard(text), heard(""));
        let bad = Heard { version: 1, document: Err("unreadable".into()) };
        let rows: [(&str, Option<&Heard>, String, Option<&str>); 10] = [
            ("rules", Some(&known), format!("{text}{rule}"), None),
            ("nothing", Some(&known), text.into(), None),
            ("no TOML, which is said elsewhere", Some(&known), "[".into(), None),
            ("hosts", Some(&known), text.replace("shop.test", "blog.test"), Some("`hosts`")),
            (
                "two keys",
                Some(&known),
                format!("{text}isolated = \"serve\"\n").replace("192.0.2.1", "127.0.0.1"),
                Some("`isolated`, `origins`"),
            ),
            ("another site", Some(&known), format!("{text}[site.b]\n"), Some("`site`")),
            ("its removal", Some(&known), " ".into(), Some("to remove")),
            ("a new one", None, text.into(), Some("to add")),
            ("one that was removed", Some(&removed), text.into(), Some("to add")),
            ("one that cannot be read", Some(&bad), text.into(), Some("to add")),
        ];
        for (name, latest, text, expected) in rows {
            let said = denied("shop", latest, &text);
            assert_eq!(said.is_some(), expected.is_some(), "{name}: {said:?}");
            assert!(said.unwrap_or_default().contains(expected.unwrap_or_default()), "{name}");
        }
    }

    #[test]
    fn questions_and_bounds() {
        let asking = |site: Option<&str>, node, version| Asking { site: site.map(str::to_owned), node, version };
        for (query, expected) in [
            (None, Some(asking(None, false, None))),
            (Some("site=shop&version=7"), Some(asking(Some("shop"), false, Some(7)))),
            (Some("node=1"), Some(asking(None, true, None))),
            (Some("node=yes"), None),
            (Some("version=last"), None),
            (Some("sites=a"), None),
        ] {
            assert_eq!(read_asking(query).ok(), expected, "{query:?}");
        }
        let request = |share, text: usize, note: usize| PushRequest {
            share,
            text: " ".repeat(text),
            note: " ".repeat(note),
            ..PushRequest::default()
        };
        for (request, expected) in [
            (request(None, TEXT_BYTES_MAX, NOTE_BYTES_MAX), None),
            (request(Some(1), 0, 0), None),
            (request(Some(0), 0, 0), Some("share")),
            (request(Some(101), 0, 0), Some("share")),
            (request(None, TEXT_BYTES_MAX + 1, 0), Some("text")),
            (request(None, 0, NOTE_BYTES_MAX + 1), Some("note")),
        ] {
            assert_eq!(wrong_with(&request).map(|wrong| wrong.key).as_deref(), expected);
        }
    }
}

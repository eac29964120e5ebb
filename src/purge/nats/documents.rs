//! What the hub has of the configuration: a document for each site, one with the certificates of each that has brought some, and
//! one for all nodes. Which version of each is for which node.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// The text of a document, at most. A site with hundreds of rules is a tenth of it.
pub const TEXT_BYTES_MAX: usize = 240 << 10;
// A staged one carries the text before it, and a text doubles at most where every character of it is escaped.
const _: () = assert!(TEXT_BYTES_MAX * 4 + (16 << 10) <= super::streams::RECORD_BYTES_MAX as usize);
/// What its author says of it.
pub const NOTE_BYTES_MAX: usize = 1 << 10;
const FORM: u8 = 1;

/// Which document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// The settings for all nodes.
    Node,
    /// A site, by name.
    Site(String),
    /// The certificates that a site has brought itself.
    Certificates(String),
}

/// A version of a document, as the hub has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    pub v: u8,
    /// As in a file in sites.d. Empty: there is no such site, or no setting.
    pub text: String,
    /// In milliseconds of Unix time.
    pub at: u64,
    pub by: String,
    #[serde(default)]
    pub note: String,
    /// The nodes it is for, in percent. Others have what is in `before`.
    pub share: u8,
    /// What is in force on all nodes. It is there for who has not heard of it, and so that no history has to be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Text>,
}

/// A text and the version that had it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The number of its message in the stream. 0: there was none.
    pub version: u64,
    pub text: String,
}

/// A document that was heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub version: u64,
    /// Why it cannot be read, otherwise.
    pub document: Result<Document, String>,
}

/// The text of each document.
pub type Texts = BTreeMap<Which, Text>;

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("the settings for all nodes"),
            Self::Site(name) => write!(f, "the site {name}"),
            Self::Certificates(name) => write!(f, "the certificates of the site {name}"),
        }
    }
}

impl Which {
    /// The site it is of.
    pub fn site(&self) -> Option<&str> {
        match self {
            Self::Node => None,
            Self::Site(name) | Self::Certificates(name) => Some(name),
        }
    }

    /// Whether it holds certificates, and so no part of the configuration.
    pub fn is_certificates(&self) -> bool {
        matches!(self, Self::Certificates(_))
    }

    /// The subject it is published under. No two have the same: names of sites have no `~`.
    pub fn subject(&self) -> String {
        match self {
            Self::Node => "config.node".to_owned(),
            Self::Site(name) => format!("config.site.{}", name.replace('.', "~")),
            Self::Certificates(name) => format!("config.certificates.{}", name.replace('.', "~")),
        }
    }

    /// What is published under a subject. None: nothing of ours.
    pub fn of_subject(subject: &str) -> Option<Self> {
        if subject == "config.node" {
            return Some(Self::Node);
        }
        let (kind, token) = subject.strip_prefix("config.")?.split_once('.')?;
        let Self::Site(name) = Self::named(&token.replace('~', "."))? else { return None };
        match kind {
            "site" => Some(Self::Site(name)),
            "certificates" => Some(Self::Certificates(name)),
            _ => None,
        }
    }

    /// The document of a site, if a site can be called that.
    pub fn named(name: &str) -> Option<Self> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let fits = !name.is_empty() && name.len() <= 64 && name.bytes().all(valid);
        fits.then(|| Self::Site(name.to_owned()))
    }
}

impl Document {
    /// A new one.
    pub fn new(text: String, at: u64, by: &str, note: String, share: u8, latest: Option<&Heard>) -> Self {
        let before = (share < 100).then(|| latest.map(Heard::everywhere).unwrap_or_default());
        Self { v: FORM, text, at, by: by.to_owned(), note, share, before }
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is none, or of another form: in words.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let document: Self = serde_json::from_slice(text).map_err(|error| format!("it cannot be read: {error}"))?;
        match &document {
            Self { v, .. } if *v != FORM => Err(format!("it is of the form {v}, which this node does not know")),
            Self { share, .. } if !(1..=100).contains(share) => Err(format!("it is for {share} percent of the nodes")),
            Self { share, before: None, .. } if *share < 100 => Err("it does not say what other nodes have".to_owned()),
            _ => Ok(document),
        }
    }
}

impl Heard {
    /// The version that is for all nodes: this one, or the one before it while it is for some.
    pub fn everywhere(&self) -> Text {
        match &self.document {
            Ok(Document { before: Some(before), share, .. }) if *share < 100 => before.clone(),
            Ok(document) => Text { version: self.version, text: document.text.clone() },
            // What cannot be read is in force nowhere, and what was before it is not known.
            Err(_) => Text::default(),
        }
    }
}

/// Whether a node is among those that a share is for: exactly the share of the nodes, rounded up. A larger share has all the nodes
/// of a smaller one, of one document; of different documents they are different nodes.
pub fn is_chosen(share: u8, which: &Which, node: &str, nodes: &BTreeSet<String>) -> bool {
    let subject = which.subject();
    let rank = |id: &str| {
        let mut hasher = blake3::Hasher::new_derive_key("littoral 2026 which nodes have a staged configuration first");
        hasher.update(subject.as_bytes()).update(&[0]).update(id.as_bytes());
        *hasher.finalize().as_bytes()
    };
    let own = (rank(node), node);
    let before = nodes.iter().filter(|id| (rank(id), id.as_str()) < own).count();
    let count = if nodes.contains(node) { nodes.len() } else { nodes.len() + 1 };
    before < (count * usize::from(share)).div_ceil(100)
}

/// What a node is to have in force, given what it has. `nodes`: all there are; none while they are not known.
pub fn wanted(heard: &BTreeMap<Which, Heard>, has: &Texts, node: &str, nodes: Option<&BTreeSet<String>>) -> Texts {
    // What the hub has lost stays: a site is removed by an empty text and not by a hub that was made anew.
    let mut wanted = has.clone();
    for (which, heard) in heard {
        let Ok(document) = &heard.document else { continue };
        let staged = Text { version: heard.version, text: document.text.clone() };
        let everywhere = heard.everywhere();
        let text = match nodes {
            _ if document.share == 100 => staged,
            Some(nodes) if is_chosen(document.share, which, node, nodes) => staged,
            Some(_) => everywhere,
            // It has decided before it was started again.
            None if has.get(which) == Some(&staged) => staged,
            None => everywhere,
        };
        wanted.insert(which.clone(), text);
    }
    wanted
}

/// What two nodes have the same of when they have the same texts, in 16 digits; nothing, where there is none.
pub fn digest(texts: &Texts) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut some = texts.iter().filter(|(_, text)| !text.text.is_empty()).peekable();
    if some.peek().is_none() {
        return String::new();
    }
    for (which, Text { version, text }) in some {
        hasher.update(which.subject().as_bytes()).update(&version.to_le_bytes());
        hasher.update(blake3::hash(text.as_bytes()).as_bytes());
    }
    hasher.finalize().to_hex().as_str().chars().take(16).collect()
}

/// The version to go back to: the last one that was for all nodes and has another text than what is the latest. `versions`: the
/// earliest first.
pub fn before_latest(versions: &[Heard]) -> Option<Text> {
    let latest = versions.last()?;
    let text = latest.document.as_ref().map(|document| document.text.as_str()).ok();
    let mut texts: Vec<Text> = Vec::new();
    for version in versions {
        if version.document.is_ok() {
            texts.push(version.everywhere());
        }
    }
    texts.into_iter().rev().find(|before| Some(before.text.as_str()) != text && before.version != latest.version)
}

#[cfg(test)]
mod tests;

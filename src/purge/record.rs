//! One purge, as it is kept and told: what it names in the words of whoever asked for it.

use serde::{Deserialize, Serialize};
use ulid::Ulid;
use utoipa::ToSchema;

use super::ledger::{Ledger, Mode, Target};
use super::position::LogPosition;
use super::selector::{Named, SiteId, url_of};
use crate::semantics::cache_key::{KeyParts, canonical_host, host_name};
use crate::semantics::time::UnixMs;
use crate::store::key::Keyer;

/// What stands for every site.
pub const EVERY_SITE: &str = "*";

/// A purge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeRecord {
    pub v: u8,
    pub id: Ulid,
    /// When it was asked for, in milliseconds of Unix time.
    pub at: u64,
    pub selectors: Vec<Selector>,
    pub mode: PurgeMode,
    /// The name of the token it was asked for with.
    pub by: String,
}

/// How a purge is told and kept; [`Mode`] is what it means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PurgeMode {
    #[default]
    Delete,
    Invalidate,
}

impl PurgeMode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Invalidate => "invalidate",
        }
    }
}

impl From<PurgeMode> for Mode {
    fn from(mode: PurgeMode) -> Self {
        match mode {
            PurgeMode::Delete => Self::Delete,
            PurgeMode::Invalidate => Self::Invalidate,
        }
    }
}

/// One thing a purge names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Selector {
    /// The site's name, or [`EVERY_SITE`].
    pub site: String,
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
}

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Everything,
    Site,
    /// A host, on every port.
    Host,
    /// Scheme, host, path and query.
    Url,
    /// A surrogate key.
    Tag,
    /// The beginning of a path, behind a host or for every host of the site.
    Prefix,
}

impl Kind {
    pub const ALL: [Self; 6] = [Self::Everything, Self::Site, Self::Host, Self::Url, Self::Tag, Self::Prefix];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::Site => "site",
            Self::Host => "host",
            Self::Url => "url",
            Self::Tag => "tag",
            Self::Prefix => "prefix",
        }
    }
}

impl PurgeRecord {
    /// The version of the form above.
    pub const FORM: u8 = 1;

    pub fn new(id: Ulid, at: UnixMs, selectors: Vec<Selector>, mode: PurgeMode, by: &str) -> Self {
        Self { v: Self::FORM, id, at: at.0, selectors, mode, by: by.to_owned() }
    }

    /// Applies it to a ledger.
    pub fn apply(&self, position: LogPosition, ledger: &Ledger, keyer: &Keyer) {
        let targets: Vec<Target> = self.selectors.iter().map(|selector| selector.target(ledger, keyer)).collect();
        ledger.apply(position, UnixMs(self.at), self.mode.into(), &targets);
    }

    /// The sites it concerns, each once.
    pub fn sites(&self) -> Vec<&str> {
        let mut sites: Vec<&str> = self.selectors.iter().map(|selector| selector.site.as_str()).collect();
        sites.sort_unstable();
        sites.dedup();
        sites
    }
}

impl Selector {
    pub fn new(site: &str, kind: Kind, value: impl Into<String>) -> Self {
        Self { site: site.to_owned(), kind, value: value.into() }
    }

    /// What the ledger knows it by. A value that cannot be read names the whole site: more misses, never less.
    pub fn target(&self, ledger: &Ledger, keyer: &Keyer) -> Target {
        let site = SiteId::of(&self.site);
        let value = self.value.as_bytes();
        match self.kind {
            Kind::Everything => Target::Everything,
            Kind::Site => Target::Site(site),
            Kind::Host => Target::Host(site, host_number(ledger, value)),
            Kind::Tag => Target::Key(site, ledger.name(Named::Key, value)),
            Kind::Prefix => {
                let (host, path) = value.split_at(memchr::memchr(b'/', value).unwrap_or(value.len()));
                let host = (!host.is_empty()).then(|| host_number(ledger, host));
                Target::Prefix { site, host, path: path.into() }
            }
            Kind::Url => match self.value.split_once("://").and_then(|(scheme, rest)| {
                let (host, target) = rest.split_at_checked(rest.find(['/', '?']).unwrap_or(rest.len()))?;
                Some((scheme, host, target))
            }) {
                Some((scheme, host, target)) => {
                    let host = canonical_host(host.as_bytes(), scheme);
                    let parts = KeyParts::of_url(&self.site, scheme, &host, target.as_bytes());
                    Target::Url(site, url_of(&keyer.primary(&parts, &mut Vec::new())))
                }
                None => Target::Site(site),
            },
        }
    }
}

/// The number of a host, whatever its port: 16 bits, since each stored response has one.
pub fn host_number(ledger: &Ledger, host: &[u8]) -> u32 {
    ledger.name(Named::Host, &host_name(host)) & 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_what_is_stored_under_that_name() {
        let (ledger, keyer) = (Ledger::default(), Keyer::new([1; 32]));
        let site = SiteId::of("shop");
        let key = |host: &[u8], target: &[u8]| {
            let parts = KeyParts::of_url("shop", "https", host, target);
            url_of(&keyer.primary(&parts, &mut Vec::new()))
        };
        let host = ledger.name(Named::Host, b"www.example.com") & 0xffff;
        let rows = [
            (Kind::Everything, "", Target::Everything),
            (Kind::Site, "", Target::Site(site)),
            (Kind::Host, "WWW.example.com:443", Target::Host(site, host)),
            (Kind::Host, "www.example.com.:8080", Target::Host(site, host)),
            (Kind::Url, "https://www.example.com:443/a?b=/", Target::Url(site, key(b"www.example.com", b"/a?b=/"))),
            (Kind::Tag, "p 7", Target::Key(site, ledger.name(Named::Key, b"p 7"))),
            (Kind::Prefix, "/a", Target::Prefix { site, host: None, path: (*b"/a").into() }),
            (Kind::Prefix, "www.example.com/", Target::Prefix { site, host: Some(host), path: (*b"/").into() }),
            (Kind::Url, "nonsense", Target::Site(site)),
        ];
        for (kind, value, expected) in rows {
            assert_eq!(Selector::new("shop", kind, value).target(&ledger, &keyer), expected, "{kind:?} {value}");
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let selectors = vec![Selector::new("shop", Kind::Tag, "a"), Selector::new(EVERY_SITE, Kind::Everything, "")];
        let record = PurgeRecord::new(Ulid::from(7_u128), UnixMs(5), selectors, PurgeMode::Invalidate, "ci");
        let text = serde_json::to_string(&record).expect("it is JSON");
        assert_eq!(
            text,
            "{\"v\":1,\"id\":\"00000000000000000000000007\",\"at\":5,\"selectors\":[{\"site\":\"shop\",\"kind\":\"tag\",\
             \"value\":\"a\"},{\"site\":\"*\",\"kind\":\"everything\"}],\"mode\":\"invalidate\",\"by\":\"ci\"}"
        );
        assert_eq!(serde_json::from_str::<PurgeRecord>(&text).expect("a record"), record);
        assert_eq!(record.sites(), ["*", "shop"]);
    }
}

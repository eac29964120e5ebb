//! What a purge names, and what a stored response is found by.
//!
//! Both are numbers of 32 bits, of hosts 16, made with a hash under the node's secret, so that nobody can choose names
//! that share one. Two names that do share one by accident can only cause a miss too many. Everything below a site is looked
//! up under the site's own number: what one site purges cannot touch another.

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::LazyLock;

use parking_lot::Mutex;
use siphasher::sip::SipHasher13;

use crate::store::key::CacheKey;

/// A site, by its name: numbered in the order in which this process has heard of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SiteId(u16);

impl SiteId {
    /// A node with more sites than numbers, past ones included, has the last share one: more misses, never a stale answer.
    pub fn of(name: &str) -> Self {
        static NAMES: LazyLock<Mutex<HashMap<String, u16>>> = LazyLock::new(Mutex::default);
        let mut names = NAMES.lock();
        let next = u16::try_from(names.len()).unwrap_or(u16::MAX).saturating_add(1);
        if let Some(known) = names.get(name) {
            return Self(*known);
        }
        if next < u16::MAX {
            names.insert(name.to_owned(), next);
        }
        Self(next)
    }

    pub const fn from_u16(number: u16) -> Self {
        Self(number)
    }

    pub const fn as_u16(self) -> u16 {
        self.0
    }
}

/// Something below a site that can be purged: an entry of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SelectorId(u64);

/// Kinds of names, so that a host and a key of the same spelling differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    Host = 1,
    Key = 2,
    /// A cache group of RFC 9875.
    Group = 3,
}

/// Makes numbers of names, under a secret.
pub struct Naming([u8; 16]);

impl Default for Naming {
    /// For names that mean nothing outside this process.
    fn default() -> Self {
        let mut secret = [0; 16];
        // Without randomness they could be guessed, which costs misses and nothing else.
        let _ = getrandom::fill(&mut secret);
        Self(secret)
    }
}

impl Naming {
    /// For names that are the same in every process that has the secret.
    pub fn new(secret: [u8; 32]) -> Self {
        // A key of its own, so that what is seen of numbers says nothing of the secret.
        let key = blake3::derive_key("littoral 2026 numbers of names", &secret);
        let mut half = [0; 16];
        half.copy_from_slice(&key[..16]);
        Self(half)
    }

    pub fn name(&self, named: Named, value: &[u8]) -> u32 {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write_u8(named as u8);
        hasher.write(value);
        hasher.finish() as u32
    }
}

impl SelectorId {
    /// The whole site.
    pub fn site(site: SiteId) -> Self {
        Self::below(site, 0, 0)
    }

    pub fn host(site: SiteId, host: u32) -> Self {
        Self::below(site, Named::Host as u32, host)
    }

    pub fn key(site: SiteId, key: u32) -> Self {
        Self::below(site, Named::Key as u32, key)
    }

    /// All variants of one URL.
    pub fn url(site: SiteId, url: u32) -> Self {
        Self::below(site, 4, url)
    }

    fn below(site: SiteId, kind: u32, number: u32) -> Self {
        // Multiplied by different odd numbers, kinds do not collide more often than chance has it.
        let mixed = (number ^ kind.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
        Self(u64::from(site.0) << 32 | u64::from(mixed))
    }

    pub fn as_u64(self) -> u64 {
        self.0
    }
}

/// The number of a URL, made of its primary key.
pub fn url_of(primary: &CacheKey) -> u32 {
    primary.low_u64() as u32
}

/// Everything a stored response is found by. Keys and groups are numbers in little-endian order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selectors<'a> {
    pub site: SiteId,
    pub host: u32,
    pub url: u32,
    /// The path without the query.
    pub path: &'a [u8],
    pub keys: &'a [u8],
    pub groups: &'a [u8],
}

impl<'a> Selectors<'a> {
    pub fn keys(&self) -> impl Iterator<Item = u32> + 'a {
        numbers(self.keys)
    }

    pub fn groups(&self) -> impl Iterator<Item = u32> + 'a {
        numbers(self.groups)
    }
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|number| u32::from_le_bytes(*number))
}

/// [`Selectors`] in memory of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedSelectors {
    pub site: SiteId,
    pub host: u32,
    pub url: u32,
    pub path: Box<[u8]>,
    pub keys: Vec<u8>,
    pub groups: Vec<u8>,
}

impl OwnedSelectors {
    pub fn of(selectors: &Selectors<'_>) -> Self {
        Self {
            site: selectors.site,
            host: selectors.host,
            url: selectors.url,
            path: selectors.path.into(),
            keys: selectors.keys.to_vec(),
            groups: selectors.groups.to_vec(),
        }
    }

    pub fn get(&self) -> Selectors<'_> {
        Selectors {
            site: self.site,
            host: self.host,
            url: self.url,
            path: &self.path,
            keys: &self.keys,
            groups: &self.groups,
        }
    }

    pub fn add_key(&mut self, key: u32) {
        self.keys.extend_from_slice(&key.to_le_bytes());
    }

    pub fn add_group(&mut self, group: u32) {
        self.groups.extend_from_slice(&group.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_different_sites_and_kinds_differ() {
        let (one, other, naming) = (SiteId::of("one"), SiteId::of("other"), Naming::default());
        let (host, key) = (naming.name(Named::Host, b"a"), naming.name(Named::Key, b"a"));
        let all = [
            SelectorId::site(one),
            SelectorId::site(other),
            SelectorId::host(one, host),
            SelectorId::host(other, host),
            SelectorId::key(one, key),
            SelectorId::key(other, key),
            SelectorId::url(one, key),
            SelectorId::host(one, key),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(SiteId::of("one"), one);
    }

    #[test]
    fn keys_come_out_as_they_went_in() {
        let mut selectors = OwnedSelectors::default();
        [7, 0, u32::MAX].into_iter().for_each(|key| selectors.add_key(key));
        selectors.add_group(9);
        assert_eq!(selectors.get().keys().collect::<Vec<_>>(), [7, 0, u32::MAX]);
        assert_eq!(selectors.get().groups().collect::<Vec<_>>(), [9]);
    }
}

//! URLs that differ in what does not matter: `No-Vary-Search`, for sites that want it.
//!
//! Below a path stand the rules that responses have given lately, and for each query, reduced by a rule to what matters,
//! the key of the response that was stored last. Both are hints: what they lead to is judged as any stored response is, and
//! one more time by the rule it has itself.

use std::sync::Arc;

use crate::semantics::no_vary_search::{NoVarySearch, normalized_query};
use crate::store::Store;
use crate::store::key::CacheKey;
use crate::store::memory::Entry;
use crate::store::tiers::Standing;

/// Different rules remembered below one path. An origin that gives more only misses more.
const RULES_MAX: usize = 4;

impl Store {
    /// Remembers what a stored response says about queries. `path`: the key of its URL without the query.
    pub fn note_search(&self, path: &CacheKey, target: &[u8], primary: &CacheKey, rule: NoVarySearch) {
        let reduced = normalized_query(&rule, target);
        let at = self.keyer.searches(path);
        let known = match self.memory.lookup(&at) {
            Some(Entry::Searches(rules)) => rules,
            _ => Arc::default(),
        };
        if known.first() != Some(&rule) {
            let others = known.iter().filter(|other| **other != rule);
            let rules = std::iter::once(&rule).chain(others).take(RULES_MAX).cloned().collect();
            self.lead(at, Entry::Searches(Arc::new(rules)));
        }
        self.lead(self.keyer.search(path, &reduced), Entry::Alias(Arc::new(*primary)));
    }

    /// The key of a response that may answer a URL although it was stored for another, and the rule that says so.
    /// `disk`: whether a disk may be asked.
    pub fn find_search(&self, path: &CacheKey, target: &[u8], disk: bool) -> Searched {
        let at = self.keyer.searches(path);
        let rules = match self.standing(&at, disk) {
            Standing::Here(Entry::Searches(rules)) => rules,
            Standing::OnDisk => return Searched::OnDisk(at),
            Standing::Here(_) | Standing::Nothing => return Searched::Nothing,
        };
        for rule in rules.iter() {
            let key = self.keyer.search(path, &normalized_query(rule, target));
            match self.standing(&key, disk) {
                Standing::Here(Entry::Alias(primary)) => return Searched::Found(*primary, rule.clone()),
                Standing::OnDisk => return Searched::OnDisk(key),
                Standing::Here(_) | Standing::Nothing => {}
            }
        }
        Searched::Nothing
    }
}

/// What a look for an equivalent URL found.
pub enum Searched {
    Found(CacheKey, NoVarySearch),
    /// What stands under this key has to be read first.
    OnDisk(CacheKey),
    Nothing,
}

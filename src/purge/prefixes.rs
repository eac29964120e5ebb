//! The path prefixes of one site that were ever purged: sorted, so that a path costs a few comparisons and not one
//! look-up for each of its characters.

use super::ledger::Entry;

/// One purged prefix.
#[derive(Clone, Debug)]
struct Prefix {
    path: Box<[u8]>,
    /// None: of every host of the site.
    host: Option<u32>,
    entry: Entry,
}

impl Prefix {
    fn order(&self) -> (&[u8], Option<u32>) {
        (&self.path, self.host)
    }
}

/// The prefixes of one site.
#[derive(Clone, Debug, Default)]
pub struct Prefixes(Vec<Prefix>);

impl Prefixes {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entry of a prefix; it is made if there is none.
    pub fn entry(&mut self, path: &[u8], host: Option<u32>) -> &mut Entry {
        let at = match self.0.binary_search_by(|known| known.order().cmp(&(path, host))) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, Prefix { path: path.into(), host, entry: Entry::default() });
                at
            }
        };
        &mut self.0[at].entry
    }

    /// Calls `seen` with the entry of every prefix of `path` that is about `host`.
    pub fn each_of(&self, path: &[u8], host: u32, mut seen: impl FnMut(&Entry)) {
        let mut left = path;
        let mut end = self.0.partition_point(|known| *known.path <= *left);
        while let Some(known) = end.checked_sub(1).and_then(|at| self.0.get(at)) {
            if left.starts_with(&known.path) {
                if known.host.is_none_or(|of| of == host) {
                    seen(&known.entry);
                }
                end -= 1;
                continue;
            }
            // Whatever is before this one and begins `path` is no longer than what the two have in common.
            let common = left.iter().zip(known.path.iter()).take_while(|(left, right)| left == right).count();
            left = left.get(..common).unwrap_or_default();
            end = self.0.get(..end).unwrap_or_default().partition_point(|known| *known.path <= *left);
        }
    }

    /// Takes out the entry whose purge is the oldest.
    pub fn take_oldest(&mut self) -> Option<(Entry, Box<[u8]>, Option<u32>)> {
        let oldest = self.0.iter().enumerate().min_by_key(|(_, known)| known.entry.latest())?.0;
        let prefix = self.0.remove(oldest);
        Some((prefix.entry, prefix.path, prefix.host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purge::ledger::Mode;
    use crate::purge::position::LogPosition;
    use crate::semantics::time::UnixMs;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exactly_the_prefixes_are_seen(
            known in proptest::collection::vec(("/?[ab/]{0,4}", proptest::option::of(0..2_u32)), 0..12),
            path in "/[ab/]{0,6}",
            host in 0..2_u32,
        ) {
            let mut prefixes = Prefixes::default();
            for (number, (prefix, host)) in known.iter().enumerate() {
                let position = LogPosition::new(1, number as u64 + 1);
                prefixes.entry(prefix.as_bytes(), *host).purge(Mode::Delete, position, UnixMs(0));
            }
            let mut seen = Vec::new();
            prefixes.each_of(path.as_bytes(), host, |entry| seen.push(entry.latest().seq()));
            seen.sort_unstable();
            // Of a prefix named twice the later purge counts.
            let mut last: std::collections::BTreeMap<_, u64> = std::collections::BTreeMap::new();
            for (number, prefix) in known.iter().enumerate() {
                last.insert(prefix.clone(), number as u64 + 1);
            }
            let mut expected: Vec<u64> = last
                .into_iter()
                .filter(|((prefix, of), _)| path.starts_with(prefix) && of.is_none_or(|of| of == host))
                .map(|(_, number)| number)
                .collect();
            expected.sort_unstable();
            prop_assert_eq!(seen, expected);
        }
    }
}

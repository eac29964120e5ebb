//! Which node of a PoP is asked for an object: the same one by every node that asks, as long as it can be asked and has no more to
//! do than its part. Pure.
//!
//! The rule is that of origins ([`consistent`]): rendezvous hashing with bounded loads. When one of n nodes goes, the objects it had
//! move to whoever comes second for each, and no others.

use crate::origin::balance::{Candidate, consistent};

/// One that has fewer requests of ours under way is never passed over for having too many: a handful says nothing about loads.
const LOAD_IGNORED: u32 = 64;

/// A node, as far as choosing is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// A hash of its id: the same everywhere.
    pub id: u64,
    /// It is current, does not drain, and has answered when it was asked last.
    pub usable: bool,
    /// Requests of ours that are under way there.
    pub in_flight: u32,
}

/// The number of an object: of its site, scheme, host and target.
pub fn key(site: &str, secure: bool, host: &[u8], target: &[u8]) -> u64 {
    let host = host.to_ascii_lowercase();
    consistent::hash([site.as_bytes(), if secure { b"s" } else { b"" }, &host, target])
}

/// The number of a node.
pub fn id(name: &str) -> u64 {
    consistent::hash([name.as_bytes()])
}

/// Who is asked; `tried` are not. None: nobody is left.
pub fn choose(nodes: &[Standing], key: u64, tried: &[usize]) -> Option<usize> {
    let candidates: Vec<Candidate> = nodes
        .iter()
        .enumerate()
        .filter(|(index, node)| node.usable && !tried.contains(index))
        .map(|(index, node)| Candidate {
            index,
            id: node.id,
            share: 1,
            in_flight: node.in_flight.saturating_sub(LOAD_IGNORED),
            latency: None,
        })
        .collect();
    consistent::choose(&candidates, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 20_000;

    fn nodes(count: usize) -> Vec<Standing> {
        (0..count).map(|number| Standing { id: id(&format!("node-{number}")), usable: true, in_flight: 0 }).collect()
    }

    fn object(number: u64) -> u64 {
        key("shop", true, b"www.example.com", format!("/object/{number}").as_bytes())
    }

    #[test]
    fn of_five_nodes_one_goes_and_a_fifth_of_the_objects_moves() {
        let before = nodes(5);
        for gone in 0..5 {
            let mut after = before.clone();
            after[gone].usable = false;
            let mut moved = 0;
            for number in 0..KEYS {
                let (was, is) = (choose(&before, object(number), &[]), choose(&after, object(number), &[]));
                moved += u64::from(was != is);
                assert!(was == is || was == Some(gone), "only what it had moves");
                assert_eq!(is, choose(&before, object(number), &[gone]), "to who comes second");
            }
            assert!(moved * 100 <= KEYS * 22, "{moved} of {KEYS} moved");
        }
    }

    #[test]
    fn everybody_who_asks_asks_the_same() {
        let one = nodes(4);
        let mut other = one.clone();
        other.reverse();
        for number in 0..1_000 {
            let of = |nodes: &[Standing]| choose(nodes, object(number), &[]).map(|index| nodes[index].id);
            assert_eq!(of(&one), of(&other), "whatever the order they are known in");
        }
        assert_eq!(key("a", false, b"Host", b"/"), key("a", false, b"host", b"/"));
        assert_ne!(key("a", false, b"host", b"/"), key("a", true, b"host", b"/"));
    }

    #[test]
    fn who_is_chosen() {
        let all = nodes(3);
        let first = choose(&all, object(1), &[]).expect("somebody");
        let second = choose(&all, object(1), &[first]).expect("somebody");
        let with = |index: usize, change: fn(&mut Standing)| {
            let mut some = all.clone();
            change(&mut some[index]);
            some
        };
        for (name, nodes, tried, expected) in [
            ("the first", all.clone(), vec![], Some(first)),
            ("one that cannot be asked", with(first, |node| node.usable = false), vec![], Some(second)),
            ("some requests are no load", with(first, |node| node.in_flight = LOAD_IGNORED), vec![], Some(first)),
            ("too many are", with(first, |node| node.in_flight = LOAD_IGNORED + 100), vec![], Some(second)),
            ("all were tried", all.clone(), vec![0, 1, 2], None),
            ("there is none", vec![], vec![], None),
        ] {
            assert_eq!(choose(&nodes, object(1), &tried), expected, "{name}");
        }
    }
}

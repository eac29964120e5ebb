//! The same one for the same key, as long as it is not overloaded: weighted rendezvous hashing (Thaler and Ravishankar
//! 1998; weights by Schindelhauer and Schomaker 2005) with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2016).
//!
//! Everybody scores for a key, and the best score wins. Against a ring or a table (Maglev): nothing has to be built or kept,
//! a weight is honoured exactly instead of by a number of points, and when one goes only its own keys move, each to whoever
//! came second. That costs a logarithm for every member of the group, which is nothing beside a request to one of them.
//!
//! The hash is no secret, so that nodes agree about who has what. Who makes up URLs that all belong to one origin fills that
//! up to its bound, and no further.

use super::Candidate;
use super::random::mix;

/// Nobody has more requests under way than its part of all of them times this, in percent.
const BOUND_PERCENT: u64 = 125;

/// FNV-1a over parts, each ended, so that `ab` `c` is not `a` `bc`.
pub fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let step = |hash: u64, byte: u64| (hash ^ byte).wrapping_mul(0x0100_0000_01b3);
    let whole = |hash, part: &[u8]| step(part.iter().fold(hash, |hash, byte| step(hash, u64::from(*byte))), 0x100);
    mix(parts.into_iter().fold(0xcbf2_9ce4_8422_2325, whole))
}

pub fn choose(candidates: &[Candidate], key: u64) -> Option<usize> {
    let shares: u64 = candidates.iter().map(|candidate| u64::from(candidate.share)).sum();
    let requests: u64 = candidates.iter().map(|candidate| u64::from(candidate.in_flight)).sum::<u64>() + 1;
    let bound = |candidate: &Candidate| {
        (requests * u64::from(candidate.share) * BOUND_PERCENT).div_ceil(shares.saturating_mul(100).max(1))
    };
    // Bounds add up to more than there is, so there always is somebody below its own.
    let free = candidates.iter().filter(|candidate| u64::from(candidate.in_flight) < bound(candidate));
    let of = |candidate: &Candidate| score(candidate.share, candidate.id, key);
    free.max_by(|one, other| of(one).total_cmp(&of(other))).map(|candidate| candidate.index)
}

/// How well one with this share and id stands for a key: of many keys each has the best score for its share.
pub fn score(share: u32, id: u64, key: u64) -> f64 {
    // 53 bits, so that it is exact, and never 0 or 1.
    let hash = mix(id ^ key) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let even = (hash as f64 + 0.5) / (1u64 << 53) as f64;
    -f64::from(share) / even.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(shares: &[u32]) -> Vec<Candidate> {
        let candidate = |(index, share): (usize, &u32)| {
            let id = hash([format!("origin-{index}:80").as_bytes()]);
            Candidate { index, id, share: *share, in_flight: 0, latency: None }
        };
        shares.iter().enumerate().map(candidate).collect()
    }

    fn key(number: u64) -> u64 {
        hash([format!("/some/page?{number}").as_bytes()])
    }

    /// The bar: at most 1/n + 2 % of the keys move when one of n goes. Exactly those move that it had.
    #[test]
    fn only_the_keys_of_who_is_gone_move() {
        const KEYS: u64 = 100_000;
        for members in 2..=10 {
            let all = group(&vec![100; members]);
            for gone in 0..members {
                let left: Vec<_> = all.iter().copied().filter(|candidate| candidate.index != gone).collect();
                let mut moved = 0;
                for number in 0..KEYS / 10 {
                    let (before, after) = (choose(&all, key(number)), choose(&left, key(number)));
                    moved += u64::from(before != after);
                    assert!(before == after || before == Some(gone));
                }
                let bar = KEYS / 10 / members as u64 + KEYS / 10 * 2 / 100;
                assert!(moved <= bar, "{moved} of {} moved with {members} members, bar {bar}", KEYS / 10);
            }
        }
    }

    #[test]
    fn nobody_has_more_than_its_bound() {
        let mut group = group(&[100, 100, 200]);
        // All want the same one.
        for _ in 0..1_000 {
            let chosen = choose(&group, key(7)).expect("there is somebody");
            group[chosen].in_flight += 1;
        }
        for candidate in &group {
            let bound = 1_000 * candidate.share * 125 / 40_000 + 1;
            assert!(candidate.in_flight <= bound, "{candidate:?}, bound {bound}");
        }
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(hash([&b"ab"[..], b"c"]), hash([&b"a"[..], b"bc"]));
        assert_ne!(hash([&b""[..]]), hash([&b""[..], b""]));
    }

    proptest::proptest! {
        #[test]
        fn somebody_is_always_chosen(
            members in proptest::collection::vec((1u32..100_000, 0u32..1_000), 1..8), key: u64
        ) {
            let mut group = group(&members.iter().map(|(share, _)| *share).collect::<Vec<_>>());
            group.iter_mut().zip(&members).for_each(|(candidate, (_, busy))| candidate.in_flight = *busy);
            proptest::prop_assert!(choose(&group, key).is_some());
        }
    }
}

//! By weight, at random; and the random numbers the other rules draw.

use super::Candidate;

/// Chooses one, each as often as its share says. `random`: any number, evenly distributed.
pub fn choose(candidates: &[Candidate], random: u64) -> Option<usize> {
    draw(candidates, None, random).map(|candidate| candidate.index)
}

/// Two different ones by share, in the order they were drawn; the second is none when there is no other.
pub(super) fn pair(candidates: &[Candidate], random: u64) -> Option<(&Candidate, Option<&Candidate>)> {
    let first = draw(candidates, None, random)?;
    Some((first, draw(candidates, Some(first.index), mix(random))))
}

fn draw(candidates: &[Candidate], without: Option<usize>, random: u64) -> Option<&Candidate> {
    let rest = || candidates.iter().filter(|candidate| Some(candidate.index) != without);
    let total: u64 = rest().map(|candidate| u64::from(candidate.share)).sum();
    // The upper half of the product is evenly distributed below the total (Lemire 2019).
    let mut at = u64::try_from((u128::from(random) * u128::from(total)) >> 64).unwrap_or(0);
    for candidate in rest() {
        match at.checked_sub(u64::from(candidate.share)) {
            Some(left) => at = left,
            None => return Some(candidate),
        }
    }
    None
}

/// Makes numbers that differ a little differ in every bit (the finaliser of SplitMix64, Steele 2014).
pub fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

//! The less busy of two drawn at random by weight (power of two choices, Mitzenmacher 2001).
//!
//! Two are enough to keep everybody's queue short, and nobody is flooded by all who saw at once that it was idle. Busy is
//! who has more requests under way for its weight; between two that are as busy the one drawn first is taken, so that an
//! idle group is asked by weight.

use super::Candidate;
use super::random::pair;

pub fn choose(candidates: &[Candidate], random: u64) -> Option<usize> {
    let (first, second) = pair(candidates, random)?;
    // a / b < c / d, without dividing.
    let load = |one: &Candidate, other: &Candidate| u64::from(one.in_flight) * u64::from(other.share);
    let less = second.filter(|second| load(second, first) < load(first, second));
    Some(less.unwrap_or(first).index)
}

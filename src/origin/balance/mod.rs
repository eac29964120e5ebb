//! Choosing one of the origins that may be asked. Pure: what is random, and what time it is, are arguments.
//!
//! - [`smooth_weighted`]: in turn, by weight.
//! - [`least_requests`]: the less busy of two.
//! - [`ewma`]: the one that answers sooner, of two.
//! - [`consistent`]: always the same one for the same key, as long as it is not overloaded.
//! - [`random`]: by weight, and nothing else.
//! - [`slow_start`]: how much of its weight counts for one that has just come up.

pub mod consistent;
pub mod ewma;
pub mod least_requests;
pub mod random;
pub mod slow_start;
pub mod smooth_weighted;

#[cfg(test)]
mod simulation;

/// One that may be chosen, as it is now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Which member of the group.
    pub index: usize,
    /// What it is known by wherever it stands in the group.
    pub id: u64,
    /// Its weight, in any unit that all of them have; less of it while it starts slowly. Never zero.
    pub share: u32,
    /// Requests to it that are under way.
    pub in_flight: u32,
    /// Seconds to the first byte, as remembered now. `None`: nobody knows yet.
    pub latency: Option<f64>,
}

//! The rules over origins that are simulated: so many clients at a time, and answers that take as long as they are said to.

use std::time::Duration;

use super::random::mix;
use super::smooth_weighted::SmoothWeighted;
use super::{Candidate, consistent, ewma, least_requests, random};

const REQUESTS: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    SmoothWeighted,
    LeastRequests,
    Ewma,
    Consistent,
    Random,
}

/// Requests per origin of `REQUESTS`, when `clients` ask at a time. `origins`: weight, and milliseconds to an answer.
fn shares(rule: Rule, clients: usize, origins: &[(u32, u64)]) -> Vec<usize> {
    let start = crate::clock::monotonic();
    let mut turns = SmoothWeighted::default();
    let mut candidates: Vec<Candidate> = (origins.iter().enumerate())
        .map(|(index, (weight, _))| Candidate {
            index,
            id: consistent::hash([&index.to_le_bytes()[..]]),
            share: weight * 100,
            in_flight: 0,
            latency: None,
        })
        .collect();
    let mut latencies = vec![ewma::Latency::default(); origins.len()];
    let mut counts = vec![0; origins.len()];
    // Answers on their way: when (microseconds), and whose.
    let mut under_way = std::collections::BinaryHeap::new();
    let mut now_us = 0;
    for number in 0..REQUESTS {
        let at = |us| start + Duration::from_micros(us);
        if under_way.len() >= clients
            && let Some(std::cmp::Reverse((ends, _, index, took))) = under_way.pop()
        {
            let (index, took): (usize, u64) = (index, took);
            now_us = ends;
            candidates[index].in_flight -= 1;
            latencies[index].answered(Duration::from_micros(took), at(now_us));
        }
        for (candidate, latency) in candidates.iter_mut().zip(&latencies) {
            candidate.latency = latency.remembered(at(now_us));
        }
        let random = mix(number as u64);
        let chosen = match rule {
            Rule::SmoothWeighted => turns.choose(candidates.iter().map(|one| (one.index, one.share))),
            Rule::LeastRequests => least_requests::choose(&candidates, random),
            Rule::Ewma => ewma::choose(&candidates, random),
            Rule::Consistent => consistent::choose(&candidates, random),
            Rule::Random => random::choose(&candidates, random),
        };
        let index = chosen.expect("there is somebody");
        counts[index] += 1;
        candidates[index].in_flight += 1;
        // Between half and one and a half of what it takes on average.
        let average = origins[index].1 * 1_000;
        let took = average / 2 + mix(random ^ 1) % average.max(1);
        under_way.push(std::cmp::Reverse((now_us + took, number, index, took)));
    }
    counts
}

/// The bar: within 1 % of the weights, over 100,000 requests.
#[test]
fn shares_are_those_of_the_weights() {
    let origins = [(5, 10), (3, 10), (2, 10)];
    for (rule, clients) in [
        (Rule::SmoothWeighted, 1),
        (Rule::SmoothWeighted, 64),
        (Rule::Random, 1),
        (Rule::Random, 64),
        (Rule::LeastRequests, 200),
        (Rule::Consistent, 2_000),
    ] {
        let counts = shares(rule, clients, &origins);
        println!("{rule:?}, {clients} at a time: {counts:?}");
        for (count, (weight, _)) in counts.iter().zip(origins) {
            let off = count.abs_diff(REQUESTS * weight as usize / 10);
            assert!(off <= REQUESTS / 100, "{rule:?}, {clients} at a time: {counts:?}");
        }
    }
}

/// The bar: an origin twice as slow gets at most 60 % of what a fast one gets.
#[test]
fn a_slow_origin_gets_less() {
    for (rule, origins) in [
        (Rule::LeastRequests, &[(1, 10), (1, 20)][..]),
        (Rule::LeastRequests, &[(1, 10), (1, 10), (1, 20)]),
        (Rule::Ewma, &[(1, 10), (1, 20)]),
        (Rule::Ewma, &[(1, 10), (1, 10), (1, 20)]),
    ] {
        for clients in [8, 16, 64, 256] {
            let counts = shares(rule, clients, origins);
            let part = counts[counts.len() - 1] as f64 / counts[0] as f64;
            println!("{rule:?}, {} origins, {clients} at a time: {part:.3} {counts:?}", origins.len());
            assert!(part <= 0.6, "{rule:?}, {clients} at a time: {counts:?}");
            assert!(counts.iter().all(|count| *count > 100), "nobody is forgotten: {counts:?}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn only_who_may_be_chosen_is(
        members in proptest::collection::vec((0usize..50, 1u32..100_000, 0u32..100, proptest::option::of(0.0..10.0)), 0..8),
        random: u64,
    ) {
        let candidates: Vec<_> = (members.into_iter().enumerate())
            .map(|(at, (index, share, in_flight, latency))| {
                let index = index * 8 + at;
                Candidate { index, id: mix(index as u64), share, in_flight, latency }
            })
            .collect();
        for chosen in [
            least_requests::choose(&candidates, random),
            ewma::choose(&candidates, random),
            consistent::choose(&candidates, random),
            random::choose(&candidates, random),
        ] {
            let there = chosen.is_some_and(|index| candidates.iter().any(|one| one.index == index));
            proptest::prop_assert_eq!(there, !candidates.is_empty());
        }
    }
}

//! Choosing in turn, by weight: smooth weighted round robin.
//!
//! nginx's algorithm (`ngx_http_upstream_get_peer`): everybody who can be chosen gains its weight, the richest is chosen
//! and pays what all gained. With weights 5, 1, 1 that gives a a b a c a a, and never a burst for one. Who cannot be
//! chosen for a while neither gains nor pays.

/// The accounts of the members.
#[derive(Debug, Default)]
pub struct SmoothWeighted(Vec<i64>);

impl SmoothWeighted {
    /// Chooses one of `candidates`, each the index of a member and its weight.
    pub fn choose(&mut self, candidates: impl Iterator<Item = (usize, u32)>) -> Option<usize> {
        let mut total = 0;
        let mut richest: Option<(usize, i64)> = None;
        for (index, weight) in candidates {
            if self.0.len() <= index {
                self.0.resize(index + 1, 0);
            }
            let Some(account) = self.0.get_mut(index) else { continue };
            *account += i64::from(weight);
            total += i64::from(weight);
            if richest.is_none_or(|(_, most)| *account > most) {
                richest = Some((index, *account));
            }
        }
        let (index, _) = richest?;
        if let Some(account) = self.0.get_mut(index) {
            *account -= total;
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(weights: &[u32], count: usize) -> Vec<usize> {
        let mut balance = SmoothWeighted::default();
        (0..count).filter_map(|_| balance.choose(weights.iter().copied().enumerate())).collect()
    }

    #[test]
    fn turns_are_smooth() {
        assert_eq!(turns(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(turns(&[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(turns(&[3, 1], 8), [0, 0, 1, 0, 0, 0, 1, 0]);
        assert_eq!(turns(&[7], 3), [0, 0, 0]);
        assert!(turns(&[], 3).is_empty());
    }

    #[test]
    fn who_was_away_does_not_come_back_in_a_burst() {
        let mut balance = SmoothWeighted::default();
        (0..1000).for_each(|_| assert_eq!(balance.choose([(0, 1)].into_iter()), Some(0)));
        let both: Vec<_> = (0..6).filter_map(|_| balance.choose([(0, 1), (1, 1)].into_iter())).collect();
        assert_eq!(both.iter().filter(|index| **index == 0).count(), 3, "{both:?}");
    }

    proptest::proptest! {
        #[test]
        fn shares_are_exact_over_a_round(weights in proptest::collection::vec(1u32..50, 1..8)) {
            let round: u32 = weights.iter().sum();
            let turns = turns(&weights, round as usize * 3);
            for (index, weight) in weights.iter().enumerate() {
                let share = turns.iter().filter(|turn| **turn == index).count();
                proptest::prop_assert_eq!(share, *weight as usize * 3);
            }
        }
    }
}

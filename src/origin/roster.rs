//! The members of a group at one moment: each address of each configured origin, with its place among the others.

use std::sync::Arc;

use super::dns::Target;
use super::member::Member;

/// A weight of one, in the unit of [`Placed::weight`]: a weight may have to be shared among many.
const UNIT: u32 = 1_000;

/// The members of a group.
#[derive(Default)]
pub struct Roster(Vec<Placed>);

/// A member and its place.
#[derive(Clone)]
pub struct Placed {
    /// What it is called in the group, as long as it is there.
    pub index: usize,
    /// Which of the configured origins it is an address of.
    pub entry: usize,
    pub member: Arc<Member>,
    /// Its share, in thousandths of a configured weight.
    pub weight: u32,
    /// Lower ones are asked first: the configured tier, and the priority of an SRV record.
    pub rank: (u8, u16),
}

impl Roster {
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Placed> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The member with this index.
    pub fn at(&self, index: usize) -> Option<&Arc<Member>> {
        self.0.iter().find(|placed| placed.index == index).map(|placed| &placed.member)
    }

    /// The members of one configured origin.
    pub fn of(&self, entry: usize) -> impl Iterator<Item = &Placed> {
        self.0.iter().filter(move |placed| placed.entry == entry)
    }

    /// The same with other members for one configured origin. Who stays keeps its index; who comes gets one that is free.
    pub fn with(&self, entry: usize, tier: u8, members: Vec<(Arc<Member>, u32)>) -> Self {
        let mut placed: Vec<Placed> = self.0.iter().filter(|placed| placed.entry != entry).cloned().collect();
        let index_of = |member: &Arc<Member>| {
            self.of(entry).find(|before| Arc::ptr_eq(&before.member, member)).map(|before| before.index)
        };
        let known: Vec<Option<usize>> = members.iter().map(|(member, _)| index_of(member)).collect();
        let mut taken: Vec<usize> =
            placed.iter().map(|placed| placed.index).chain(known.iter().flatten().copied()).collect();
        for ((member, weight), known) in members.into_iter().zip(known) {
            let index = known.unwrap_or_else(|| (0..).find(|index| !taken.contains(index)).unwrap_or_default());
            taken.push(index);
            let rank = (tier, member.target().priority);
            placed.push(Placed { index, entry, member, weight, rank });
        }
        placed.sort_by_key(|placed| placed.index);
        Self(placed)
    }
}

/// How a configured weight is shared among targets: by their own weights, among those of a priority. Nobody gets nothing.
pub fn shares(weight: u32, targets: &[Target]) -> Vec<u32> {
    let share = |target: &Target| {
        let alike = targets.iter().filter(|other| other.priority == target.priority);
        let total: u64 = alike.map(|other| u64::from(other.weight)).sum();
        let share = u64::from(weight) * u64::from(UNIT) * u64::from(target.weight) / total.max(1);
        u32::try_from(share).unwrap_or(u32::MAX).max(1)
    };
    targets.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_shared() {
        for (weight, targets, expected) in [
            (1, &[(0, 1)][..], &[1_000][..]),
            (3, &[(0, 1), (0, 1)], &[1_500, 1_500]),
            (1, &[(0, 1), (0, 1), (0, 1)], &[333, 333, 333]),
            (1, &[(0, 3), (0, 1), (1, 5)], &[750, 250, 1_000]),
            (1_000, &[(0, 65_535), (0, 1)], &[999_984, 15]),
            (1, &[(0, 65_535), (0, 1)], &[999, 1]),
            (1, &[], &[]),
        ] {
            let target = |(priority, weight): &(u16, u16)| Target {
                priority: *priority,
                weight: *weight,
                ..Target::new(([192, 0, 2, 1], 80).into())
            };
            let targets: Vec<Target> = targets.iter().map(target).collect();
            assert_eq!(shares(weight, &targets), expected, "{weight} {targets:?}");
        }
    }
}

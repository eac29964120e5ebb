//! Missing bytes that are on their way: one fetch for all who want them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::run::{Run, RunReader};
use crate::store::body::Sparse;
use crate::store::key::CacheKey;

/// Maps that are locked apart.
const SHARDS: usize = 64;

type BodyId = (CacheKey, u64);
type Shard = Mutex<HashMap<BodyId, Vec<Arc<Run>>>>;

/// The runs under way.
pub struct Runs(Box<[Shard]>);

/// What somebody who misses bytes gets.
pub enum Joined {
    /// A run that others have begun.
    UnderWay(RunReader),
    /// A run to be fetched, and its first reader.
    New(Arc<Run>, RunReader),
    /// They have come meanwhile.
    There,
}

impl Default for Runs {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Runs {
    /// The run that brings the byte at `at`: one that is under way, or a new one over the gap that `gap` begins with, which
    /// ends no later than that does and where another one begins.
    pub fn join_or_start(&self, body: &Sparse, at: u64, gap: Range<u64>) -> Joined {
        let mut runs = self.shard(body).lock();
        let others = runs.entry(id(body)).or_default();
        if let Some(run) = others.iter().find(|run| run.brings().contains(&at)) {
            return Joined::UnderWay(run.join(at));
        }
        // What one before it brings is not asked for twice.
        let before = others.iter().map(|run| run.range.end).filter(|end| *end <= at).max().unwrap_or(0);
        let (from, to) = (gap.start.max(before), gap.end);
        let next = others.iter().map(|run| run.brings().start).filter(|start| *start > from).min();
        let end = body.gap_to(from..to.min(next.unwrap_or(u64::MAX)));
        if end == from {
            if others.is_empty() {
                runs.remove(&id(body));
            }
            return Joined::There;
        }
        let run = Run::new(from..end);
        others.push(run.clone());
        let reader = run.join(at);
        Joined::New(run, reader)
    }

    /// Whether a run brings this byte.
    pub fn is_under_way(&self, body: &Sparse, at: u64) -> bool {
        let runs = self.shard(body).lock();
        runs.get(&id(body)).is_some_and(|runs| runs.iter().any(|run| run.brings().contains(&at)))
    }

    /// Enters a run that has begun already.
    pub fn enter(&self, body: &Sparse, run: &Arc<Run>) {
        self.shard(body).lock().entry(id(body)).or_default().push(run.clone());
    }

    /// Nobody joins this run any more.
    pub fn leave(&self, body: &Sparse, run: &Arc<Run>) {
        let mut runs = self.shard(body).lock();
        if let Some(others) = runs.get_mut(&id(body)) {
            others.retain(|other| !Arc::ptr_eq(other, run));
            if others.is_empty() {
                runs.remove(&id(body));
            }
        }
    }

    /// Runs under way.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|shard| shard.lock().values().map(Vec::len).sum::<usize>()).sum()
    }

    fn shard(&self, body: &Sparse) -> &Shard {
        &self.0[body.generation as usize % SHARDS]
    }
}

fn id(body: &Sparse) -> BodyId {
    (body.key, body.generation)
}

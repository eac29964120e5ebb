//! How those are told whose purges were written together: one of them is woken, and it tells the others.
//!
//! To wake a task of another thread is a system call and, where both share a CPU, a switch there and back, for each of them.
//! A task that is awake wakes its neighbours for next to nothing.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{LogError, Written};

/// What becomes of a purge.
pub(super) type Outcome = Result<Written, Arc<LogError>>;
/// Who waits for it.
pub(super) type Asker = oneshot::Sender<Told>;

/// What one asker is told, and what it is to tell the others. Dropping it tells them, so that nobody waits for one that is
/// gone.
pub(super) struct Told {
    own: Option<Outcome>,
    others: Vec<(Asker, Outcome)>,
}

/// Tells everybody.
pub(super) fn tell(mut all: Vec<(Asker, Outcome)>) {
    if let Some((one, outcome)) = all.pop() {
        // Whoever asked may be gone; the purge holds all the same.
        let _ = one.send(Told { own: Some(outcome), others: all });
    }
}

impl Told {
    /// Tells the others, and gives what is one's own.
    pub(super) fn take(mut self) -> Outcome {
        self.own.take().unwrap_or_else(|| Err(Arc::new(LogError::Closed)))
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        for (asker, outcome) in self.others.drain(..) {
            let _ = asker.send(Self { own: Some(outcome), others: Vec::new() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_is_told_whoever_is_gone() {
        for gone in [vec![], vec![3], vec![0], vec![1, 3], vec![0, 1, 2, 3]] {
            // Gone before they are told, and gone after that and before they are woken.
            for before in [true, false] {
                let (askers, mut waiting): (Vec<_>, Vec<_>) =
                    (0..4).map(|_| oneshot::channel()).map(|(asker, told)| (asker, Some(told))).unzip();
                let leave = |waiting: &mut Vec<Option<_>>| gone.iter().for_each(|at| drop(waiting[*at].take()));
                if before {
                    leave(&mut waiting);
                }
                tell(askers.into_iter().map(|asker| (asker, Err(Arc::new(LogError::Overloaded)))).collect());
                leave(&mut waiting);
                for told in waiting.into_iter().rev().flatten() {
                    let told: Told = told.await.expect("it is told");
                    assert!(told.take().is_err_and(|error| matches!(*error, LogError::Overloaded)), "{gone:?}");
                }
            }
        }
    }
}

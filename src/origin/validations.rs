//! What is validated at the origins of a group because the node is isolated: few at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Those that are under way at the origins of one group.
#[derive(Debug, Default)]
pub struct Validations(AtomicUsize);

/// One of them, until this is dropped.
#[derive(Debug)]
pub struct Validation(Arc<Validations>);

impl Validations {
    /// One more, if there are fewer than `most`.
    pub fn begin(self: &Arc<Self>, most: usize) -> Option<Validation> {
        let one_more = |count| (count < most).then_some(count + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok().map(|_| Validation(self.clone()))
    }
}

impl Drop for Validation {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validations_are_few_at_a_time() {
        let all = Arc::new(Validations::default());
        let (one, two) = (all.begin(2), all.begin(2));
        assert!(one.is_some() && two.is_some() && all.begin(2).is_none());
        drop(one);
        assert!(all.begin(2).is_some());
        assert!(all.begin(0).is_none());
    }
}

//! Those that wait until an origin has room for one more request, in the order they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The queue of a group.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<VecDeque<Arc<Notify>>>,
    /// How many wait: whoever makes room need not lock to see that nobody does. It is counted before the one that waits
    /// looks for room, and read after room was made, so that one of the two sees the other.
    length: AtomicUsize,
}

/// A place in it, given up when this is dropped.
pub struct Place {
    queue: Arc<Queue>,
    wakes: Arc<Notify>,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.length.load(Ordering::SeqCst) == 0
    }

    pub fn len(&self) -> usize {
        self.length.load(Ordering::SeqCst)
    }

    /// Takes the last place, if fewer than `most` wait.
    pub fn join(self: &Arc<Self>, most: usize) -> Option<Place> {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= most {
            return None;
        }
        let wakes = Arc::new(Notify::new());
        waiting.push_back(wakes.clone());
        self.length.store(waiting.len(), Ordering::SeqCst);
        Some(Place { queue: self.clone(), wakes })
    }

    /// There may be room: the first one looks.
    pub fn wake(&self) {
        if !self.is_empty()
            && let Some(first) = self.waiting.lock().front()
        {
            first.notify_one();
        }
    }
}

impl Place {
    pub fn is_first(&self) -> bool {
        self.queue.waiting.lock().front().is_some_and(|first| Arc::ptr_eq(first, &self.wakes))
    }

    /// Waits until it is worth looking again. A wake that comes before is not lost.
    pub async fn woken(&self) {
        self.wakes.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting.lock();
        waiting.retain(|other| !Arc::ptr_eq(other, &self.wakes));
        self.queue.length.store(waiting.len(), Ordering::SeqCst);
        drop(waiting);
        // There may be room for more than one, and a wake that was meant for this one.
        self.queue.wake();
    }
}

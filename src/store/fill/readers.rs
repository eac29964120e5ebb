//! How far each of several readers of something that arrives has come.

/// The offsets of all readers.
#[derive(Default)]
pub struct Readers {
    offsets: Vec<Option<u64>>,
    free: Vec<usize>,
    count: usize,
}

impl Readers {
    /// Adds a reader at an offset; gives what it is known by.
    pub fn add(&mut self, offset: u64) -> usize {
        self.count += 1;
        if let Some(slot) = self.free.pop() {
            self.offsets[slot] = Some(offset);
            return slot;
        }
        self.offsets.push(Some(offset));
        self.offsets.len() - 1
    }

    pub fn remove(&mut self, slot: usize) {
        self.offsets[slot] = None;
        self.free.push(slot);
        self.count -= 1;
    }

    pub fn move_to(&mut self, slot: usize, offset: u64) {
        self.offsets[slot] = Some(offset);
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn fastest(&self) -> Option<u64> {
        self.offsets.iter().flatten().copied().max()
    }

    pub fn slowest(&self) -> Option<u64> {
        self.offsets.iter().flatten().copied().min()
    }
}

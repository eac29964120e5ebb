//! A node's disk: as its operator sees it, and its file as one who damages it does.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::deadline::{PATIENCE, until};
use crate::node::{Node, NodeOptions};
use crate::random::Random;

/// What a node says when it knows everything that is on its disk.
const OPEN: &str = "a disk of the cache is open";

/// Frames begin at multiples of it (src/store/disk/frame.rs).
const ALIGN: usize = 64;
const FRAME: &[u8; 4] = b"LFR1";
const SEGMENT: &[u8; 4] = b"LSG1";

/// Starts a node, and waits for its disk: what is fetched before that is not on it.
pub async fn opened(options: NodeOptions) -> Node {
    let node = options.start().await;
    is_open(&node).await;
    node
}

/// Waits until the node knows everything that is on its disk; what it does not know is a miss.
pub async fn is_open(node: &Node) {
    until(PATIENCE, "the disk is open", || async {
        let said = node.said();
        if said.contains(OPEN) { Ok(()) } else { Err(said) }
    })
    .await;
}

/// Stored responses on the disk.
pub async fn objects(node: &Node) -> f64 {
    node.metrics().await.sum("littoral_store_objects", &[("tier", "disk")])
}

/// Waits until the disk has so many.
pub async fn has_objects(node: &Node, count: usize) {
    until(PATIENCE, &format!("{count} responses are on the disk"), || async {
        let now = objects(node).await;
        if now >= count as f64 { Ok(()) } else { Err(format!("{now}")) }
    })
    .await;
}

/// Bytes written to the disk by this process.
pub async fn written_bytes(node: &Node) -> f64 {
    node.metrics().await.sum("littoral_disk_written_bytes_total", &[])
}

/// The file that holds the frames, below a node's `--data`.
pub fn file_of(data: &Path) -> PathBuf {
    data.join("cache/littoral.cache")
}

/// A file whose frames were looked for once.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    bytes: u64,
    /// Where frames begin, in order.
    frames: Vec<u64>,
    segments: usize,
}

impl DiskFile {
    /// # Panics
    /// When it cannot be read.
    pub fn open(data: &Path) -> Self {
        let path = file_of(data);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let bytes = file.metadata().expect("a file has a length").len();
        let (mut frames, mut segments, mut window) = (Vec::new(), 0, vec![0; 1 << 20]);
        for start in (0..bytes).step_by(window.len()) {
            file.read_exact_at(&mut window, start).expect("the file is whole megabytes");
            for (at, head) in window.chunks_exact(ALIGN).enumerate() {
                if head.starts_with(FRAME) {
                    frames.push(start + (at * ALIGN) as u64);
                }
                segments += usize::from(head.starts_with(SEGMENT));
            }
        }
        Self { file, bytes, frames, segments }
    }

    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Segments that were begun.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Flips so many bits, every other one inside a frame.
    ///
    /// # Panics
    /// When there is no frame, or the file cannot be written.
    pub fn flip(&self, count: u64, random: &mut Random) {
        for number in 0..count {
            let at = if number % 2 == 0 { self.inside_a_frame(random) } else { random.below(self.bytes) };
            let mut byte = [0];
            self.file.read_exact_at(&mut byte, at).expect("the file can be read");
            byte[0] ^= 1 << random.below(8);
            self.file.write_all_at(&byte, at).expect("the file can be written");
        }
    }

    /// A byte of some frame: of its head in one case of four.
    fn inside_a_frame(&self, random: &mut Random) -> u64 {
        let number = random.below(self.frames.len() as u64) as usize;
        let begin = *self.frames.get(number).expect("frames to damage");
        let end = self.frames.get(number + 1).copied().unwrap_or(self.bytes).min(begin + (256 << 10));
        if random.below(4) == 0 { begin + random.below(ALIGN as u64) } else { random.within(begin..end) }
    }
}

//! What a read of 256 KiB from a disk costs while its pages are in the system's memory: foyer's block engine against ours,
//! under the same `HybridCache`. Prints Markdown. `cargo bench --bench disk`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foyer::{
    BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder, HybridCachePolicy,
    HybridCacheProperties, Load, PsyncIoEngineConfig,
};
use littoral::clock;
use littoral::store::budget::Budget;
use littoral::store::disk::clearing::Keep;
use littoral::store::disk::device::{Disk, Settings};
use littoral::store::disk::frame::{FrameKey, Kind};
use littoral::store::disk::value::{Payload, Value};
use littoral::store::key::{CacheKey, KeyHasher};
use littoral::telemetry::metrics::Metrics;
use rustix::time::ClockId;

const OBJECTS: u32 = 1024;
const BYTES: usize = 256 << 10;
const ROUNDS: usize = 11;

fn main() {
    let directory = std::env::temp_dir().join(format!("littoral-bench-disk-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let block = runtime.block_on(block_engine(&directory.join("block")));
    let disk = ours(&directory.join("ours"));
    runtime.block_on(fill(&block, &disk));

    let (mut theirs, mut mine) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let read_block = || runtime.block_on(async { measure(|key| load_block(&block, key)).await });
        let read_ours = || runtime.block_on(async { measure(|key| load_ours(&disk, key)).await });
        let (block, ours) = match round % 2 {
            0 => (read_block(), read_ours()),
            _ => {
                let ours = read_ours();
                (read_block(), ours)
            }
        };
        theirs.push(block);
        mine.push(ours);
    }
    println!("| engine | us of CPU time for a read of 256 KiB: median (quartiles) | us of wall time |\n|---|---|---|");
    for (name, costs) in [("foyer's block engine", &theirs), ("segments", &mine)] {
        let [cpu, wall] = [0, 1].map(|at| quartiles(costs.iter().map(|cost: &[f64; 2]| cost[at]).collect()));
        println!("| {name} | {:.0} ({:.0}-{:.0}) | {:.0} |", cpu[1], cpu[0], cpu[2], wall[1]);
    }
    let ratios = theirs.iter().zip(&mine).map(|(theirs, mine)| theirs[0] / mine[0]).collect();
    let [low, middle, _] = quartiles(ratios);
    println!(
        "\nCPU time of the block engine over ours: median {middle:.1}, lower quartile {low:.1}; {ROUNDS} alternating rounds."
    );
    disk.close();
    // What is left of the other is in a directory of ours.
    let _ = std::fs::remove_dir_all(&directory);
    std::process::exit(0);
}

fn key(number: u32) -> FrameKey {
    let mut bytes = [7; 16];
    bytes[..8].copy_from_slice(&u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    FrameKey::of(CacheKey::from_bytes(bytes))
}

async fn block_engine(directory: &Path) -> HybridCache<FrameKey, Value, KeyHasher> {
    std::fs::create_dir_all(directory).expect("a directory");
    let device = FsDeviceBuilder::new(directory).with_capacity(1 << 30).build().expect("a device");
    let engine = BlockEngineConfig::<FrameKey, Value, HybridCacheProperties>::new(device)
        .with_block_size(64 << 20)
        .with_buffer_pool_size(64 << 20)
        .with_submit_queue_size_threshold(128 << 20)
        .with_clean_block_threshold(4);
    HybridCacheBuilder::new()
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        .memory(8)
        .with_shards(8)
        .with_hash_builder(KeyHasher::default())
        .storage()
        .with_io_engine_config(PsyncIoEngineConfig::new())
        .with_engine_config(engine)
        .build()
        .await
        .expect("a cache")
}

/// Nothing is kept, nothing is displaced.
struct Nothing;

impl Keep for Nothing {
    fn is_wanted(&self, _: u64) -> bool {
        false
    }

    fn share(&self, _: u32) -> f64 {
        1.0
    }
}

fn ours(directory: &Path) -> Arc<Disk> {
    let settings =
        Settings { path: directory.to_owned(), bytes: 1 << 30, entries_max: 1 << 20, run: 1, distrusted: false };
    let disk = Disk::open(settings, Arc::new(Nothing), Metrics::new("bench"));
    while disk.log().is_none() {
        std::thread::yield_now();
    }
    disk
}

async fn fill(block: &HybridCache<FrameKey, Value, KeyHasher>, disk: &Arc<Disk>) {
    let writes = Budget::new(8 << 30, true).writes;
    for number in 0..OBJECTS {
        let body = Bytes::from(vec![number as u8; BYTES]);
        let value = || Value::to_write(Kind::Chunk, 1, Payload::Bytes(body.clone()), writes.reservation()).0;
        drop(block.storage_writer(key(number)).force().insert(value()));
        let told = disk.put(key(number), Kind::Chunk, 1, Payload::Bytes(body.clone()), writes.reservation());
        assert_eq!(told.expect("an open disk").await, Ok(true));
        if number % 64 == 0 {
            block.storage().wait().await;
        }
    }
    block.storage().wait().await;
}

async fn load_block(cache: &HybridCache<FrameKey, Value, KeyHasher>, key: FrameKey) -> usize {
    match cache.storage().load(&key).await {
        Ok(Load::Entry { value, .. }) => value.payload.bytes(),
        _ => 0,
    }
}

async fn load_ours(disk: &Arc<Disk>, key: FrameKey) -> usize {
    disk.load(&key).await.map_or(0, |loaded| loaded.payload.bytes())
}

/// Microseconds of CPU time and of wall time that one read takes.
async fn measure<F: Future<Output = usize>>(load: impl Fn(FrameKey) -> F) -> [f64; 2] {
    let (started, cpu) = (clock::monotonic(), cpu_time());
    let mut read = 0;
    for number in 0..OBJECTS {
        read += usize::from(load(key(number.wrapping_mul(577) % OBJECTS)).await == BYTES);
    }
    assert!(read > OBJECTS as usize * 9 / 10, "{read} of {OBJECTS} were there");
    [cpu_time() - cpu, clock::monotonic() - started].map(|time| time.as_secs_f64() * 1e6 / read as f64)
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

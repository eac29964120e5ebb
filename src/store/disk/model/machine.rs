//! The machine: one log, what it was given, and steps.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

use super::media::FaultyMedia;
use super::{Planted, is_planted};
use crate::fuzz::Random;
use crate::store::disk::clearing::Keep;
use crate::store::disk::frame::{FrameKey, HEAD, Kind, TABLE_END};
use crate::store::disk::log::{Frame, Geometry, Item, Log, Writer};
use crate::store::disk::recovery::{claim, recover, resume, segments};
use crate::store::key::CacheKey;

const STEPS: u64 = 200;
const KEYS: usize = 20;
const BATCH: usize = 8;
/// Reads that are looked at after every step.
const LOOKS: usize = 3;

/// What was given to the log under one key.
struct Known {
    key: FrameKey,
    kind: Kind,
    site: u32,
    versions: Vec<Version>,
    /// The newest that was acknowledged.
    acknowledged: Option<usize>,
    /// It was forgotten on purpose, and nothing was given since.
    is_removed: bool,
}

struct Version {
    bytes: Vec<u8>,
    /// The chunks a record speaks of.
    chunks: Vec<u64>,
}

/// What may happen in one run.
struct Weather {
    kills: bool,
    power: bool,
    flips: bool,
    failures: bool,
    /// How long payloads are: all the same, short, of all lengths, some of the length of a chunk.
    lengths: usize,
    length: usize,
}

struct Wanted;

impl Keep for Wanted {
    fn is_wanted(&self, hash: u64) -> bool {
        hash.is_multiple_of(3)
    }

    fn share(&self, site: u32) -> f64 {
        0.2 * f64::from(site)
    }
}

pub(super) struct Machine {
    random: Random,
    weather: Weather,
    disk: FaultyMedia,
    geometry: Geometry,
    log: Arc<Log<FaultyMedia>>,
    writer: Option<Writer<FaultyMedia>>,
    entries_max: u64,
    /// Segments that are still to be recovered, newest last.
    unread: Vec<(u32, u64)>,
    known: BTreeMap<u64, Known>,
    records: Vec<u64>,
    generations: u64,
    /// Milliseconds.
    now: u64,
    /// Power was lost, and nothing was begun since that says so.
    is_unsettled: bool,
    /// Nothing has happened that makes anything doubtful.
    is_clean: bool,
    flipped: HashSet<u64>,
    /// What an append was given that was killed.
    torn: HashSet<u64>,
}

impl Machine {
    pub(super) fn new(mut random: Random) -> Self {
        let mut one_in = |n| random.one_in(n);
        let (kills, power, flips, failures) = (!one_in(8), one_in(2), one_in(2), one_in(3));
        let (lengths, length) =
            ([0, 0, 1, 1, 2, 2, 2, 3][random.below(8)], [0, 100, 1000, 9000][random.below(4)] + random.below(200));
        let weather = Weather { kills, power, flips, failures, lengths, length };
        let segment_bytes = if lengths == 3 { 1 << 20 } else { (128 << 10) << random.below(2) };
        let geometry = Geometry { segment_bytes, segments: 4 + random.below(5) as u32 };
        let disk = FaultyMedia::new(geometry.bytes(), Random(random.number()));
        let entries_max = if random.one_in(3) { 20 + random.below(40) as u64 } else { u64::MAX };
        let log = Arc::new(Log::new(disk.clone(), geometry));
        let mut machine = Self {
            random,
            weather,
            disk,
            geometry,
            log,
            writer: None,
            entries_max,
            unread: Vec::new(),
            known: BTreeMap::new(),
            records: Vec::new(),
            generations: 0,
            now: 1_000_000,
            is_unsettled: false,
            is_clean: true,
            flipped: HashSet::new(),
            torn: HashSet::new(),
        };
        for n in 0..KEYS {
            let key = FrameKey::of(CacheKey::from_bytes(std::array::from_fn(|_| machine.random.number() as u8)));
            let kind = if n % 5 == 4 { Kind::Hint } else { Kind::Record };
            machine.knows(key, kind, 1 + n as u32 % 3);
            machine.records.push(key.hash());
        }
        machine
    }

    fn knows(&mut self, key: FrameKey, kind: Kind, site: u32) {
        let known = Known { key, kind, site, versions: Vec::new(), acknowledged: None, is_removed: false };
        self.known.insert(key.hash(), known);
    }

    pub(super) fn run(mut self) -> Result<(), String> {
        self.open()?;
        for step in 0..STEPS {
            self.now += 1000;
            let did = self.step().and_then(|()| self.look());
            did.map_err(|wrong| format!("step {step}: {wrong}"))?;
        }
        while self.recover_one().is_some() {}
        self.look_at_all().map_err(|wrong| format!("at the end: {wrong}"))
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(100) {
            0..42 => self.append_some(),
            42..57 => self.store_object(),
            57..68 => {
                let hash = self.any();
                self.read(hash)
            }
            68..73 => {
                let hash = self.any();
                self.log.index.remove(hash);
                self.known.get_mut(&hash).expect("it is known").is_removed = true;
                Ok(())
            }
            73..79 if self.weather.kills => self.kill(),
            79..83 if self.weather.power => self.lose_power(),
            83..87 if self.weather.flips => {
                self.flip();
                Ok(())
            }
            87 if self.weather.kills && self.geometry.segments < 12 => {
                self.geometry.segments += 1 + self.random.below(2) as u32;
                self.disk.grow(self.geometry.bytes());
                self.kill()
            }
            _ => {
                self.disk.write_back(4);
                self.recover_one();
                Ok(())
            }
        }
    }

    /// A key something was given under, or one of a record.
    fn any(&mut self) -> u64 {
        if self.random.one_in(2) {
            return self.records[self.random.below(KEYS)];
        }
        let at = self.random.below(self.known.len());
        *self.known.keys().nth(at).expect("below the length")
    }

    fn payload(&mut self) -> Vec<u8> {
        let length = match self.weather.lengths {
            0 => self.weather.length,
            1 => self.random.below(300),
            3 if self.random.one_in(8) => 256 << 10,
            _ if self.random.one_in(3) => self.random.below(40 << 10),
            _ => self.random.below(2000),
        };
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            // Some zeros, so that long payloads cost little.
            bytes.extend(self.random.number().to_le_bytes());
            bytes.resize((bytes.len() + 56).min(length + 8), 0);
        }
        bytes.truncate(length);
        bytes
    }

    fn give(&mut self, hash: u64, chunks: Vec<u64>) {
        let bytes = self.payload();
        let known = self.known.get_mut(&hash).expect("it is known");
        known.versions.push(Version { bytes, chunks });
        known.is_removed = false;
    }

    fn append_some(&mut self) -> Result<(), String> {
        let mut given = Vec::new();
        for _ in 0..=self.random.below(BATCH) {
            let hash = if self.random.one_in(4) {
                let of = self.records[self.random.below(KEYS)];
                self.new_chunk(of, 0)
            } else {
                self.records[self.random.below(KEYS)]
            };
            // Only the latest of a batch is remembered as the one of a key.
            if !given.contains(&hash) {
                self.give(hash, Vec::new());
                given.push(hash);
            }
        }
        let _ = self.append(&given);
        self.bury()
    }

    fn new_chunk(&mut self, record: u64, index: u32) -> u64 {
        if index == 0 {
            self.generations += 1;
        }
        let Known { key, site, .. } = self.known[&record];
        let key = FrameKey::chunk(key.key, self.generations, index);
        self.knows(key, Kind::Chunk, site);
        key.hash()
    }

    /// As the node does it: the chunks first, in one go with the record or before it.
    fn store_object(&mut self) -> Result<(), String> {
        let record = self.records[self.random.below(KEYS)];
        let mut chunks = Vec::new();
        for index in 0..=self.random.below(4) as u32 {
            let chunk = self.new_chunk(record, index);
            self.give(chunk, Vec::new());
            chunks.push(chunk);
        }
        let mut parts = vec![chunks.clone(), vec![record]];
        if is_planted(Planted::RecordBeforeChunks) {
            parts.reverse();
        }
        if self.random.one_in(2) {
            parts = vec![parts.concat()];
        }
        for part in parts {
            if part.contains(&record) {
                self.give(record, chunks.clone());
            }
            if self.append(&part).is_err() {
                break;
            }
        }
        if !self.disk.is_dead() {
            self.excuse();
        }
        self.bury()
    }

    /// Records may be there without chunks that were never acknowledged.
    fn excuse(&mut self) {
        let lost: HashSet<u64> =
            self.known.iter().filter(|(_, known)| known.acknowledged.is_none()).map(|(hash, _)| *hash).collect();
        for version in self.known.values_mut().flat_map(|known| &mut known.versions) {
            version.chunks.retain(|chunk| !lost.contains(chunk));
        }
    }

    /// Appends the latest version of each.
    fn append(&mut self, hashes: &[u64]) -> io::Result<()> {
        if self.weather.kills && self.random.one_in(12) {
            self.disk.crash(self.random.below(3));
        }
        if self.weather.failures {
            self.disk.fail(20, 30);
        }
        let item = |hash: &u64| {
            let known = &self.known[hash];
            let pieces = known.versions.last().map(|version| version.bytes.as_slice());
            let pieces = pieces.map_or(Vec::new(), |bytes| {
                let (head, body) = bytes.split_at(bytes.len() / 3);
                vec![head, body]
            });
            Item { key: known.key, kind: known.kind, site: known.site, pieces }
        };
        let items: Vec<Item<'_>> = hashes.iter().map(item).collect();
        let done = self.writer.as_mut().expect("it is open").append(&items);
        drop(items);
        self.disk.fail(0, 0);
        if self.disk.is_dead() {
            self.torn.extend(hashes);
            self.is_clean = false;
        } else {
            self.disk.revive();
        }
        if self.disk.has_failed() {
            self.is_clean = false;
        }
        if done.is_ok() {
            for hash in hashes {
                let known = self.known.get_mut(hash).expect("it is known");
                known.acknowledged = Some(known.versions.len() - 1);
            }
        }
        self.is_unsettled &= self.writer.as_ref().is_some_and(|writer| writer.epoch() <= self.log.distrusted());
        done
    }

    /// Goes on in another process if this one was killed.
    fn bury(&mut self) -> Result<(), String> {
        if self.disk.is_dead() { self.kill() } else { Ok(()) }
    }

    fn kill(&mut self) -> Result<(), String> {
        let failed = self.disk.has_failed();
        // What was there is found again, but for what was being replaced.
        let cleared = {
            let segments = self.log.segments.lock();
            let oldest = (0u32..).zip(&segments.epochs).min_by_key(|(_, epoch)| **epoch);
            oldest.filter(|(_, epoch)| **epoch != 0).map(|(segment, _)| segment)
        };
        let stood: Vec<u64> = self
            .known
            .keys()
            .filter(|hash| self.log.index.get(**hash).is_some_and(|place| Some(place.segment()) != cleared))
            .filter(|hash| !self.torn.contains(hash))
            .copied()
            .collect();
        let torn = std::mem::take(&mut self.torn);
        self.open()?;
        if self.random.one_in(2) {
            let mut is_whole = !failed && self.flipped.is_empty();
            while let Some(recovered) = self.recover_one() {
                is_whole &= recovered;
            }
            let is_full = self.log.index.len() >= self.entries_max;
            let lost = stood.iter().find(|hash| self.log.index.get(**hash).is_none());
            if let Some(lost) = lost.filter(|_| is_whole && !is_full) {
                return Err(format!("{:?} is not found after a kill", self.known[lost].key));
            }
            if self.random.one_in(2) {
                self.look_at_all()?;
                if is_whole && self.entries_max == u64::MAX {
                    self.look_at_objects(&torn)?;
                }
            }
        }
        self.excuse();
        Ok(())
    }

    fn look_at_objects(&self, torn: &HashSet<u64>) -> Result<(), String> {
        for hash in &self.records {
            let Ok(Some(frame)) = self.log.read(*hash) else { continue };
            let known = &self.known[hash];
            let version = known.versions.iter().rfind(|version| version.bytes == frame.payload);
            let is_there =
                |chunk: &u64| self.known[chunk].acknowledged.is_some() || matches!(self.log.read(*chunk), Ok(Some(_)));
            if let Some(chunk) = version.and_then(|version| version.chunks.iter().find(|chunk| !is_there(chunk))) {
                let (key, was) = (self.known[chunk].key, torn.contains(chunk));
                return Err(format!("{key:?} was never there, but its record is; the write was torn: {was}"));
            }
        }
        Ok(())
    }

    fn lose_power(&mut self) -> Result<(), String> {
        self.disk.write_back(2);
        self.disk.lose_power();
        self.torn.clear();
        self.excuse();
        (self.is_unsettled, self.is_clean) = (true, false);
        self.open()
    }

    /// A process starts.
    fn open(&mut self) -> Result<(), String> {
        self.disk.revive();
        self.known.values_mut().for_each(|known| known.is_removed = false);
        let log = Arc::new(Log::new(self.disk.clone(), self.geometry));
        self.log = log.clone();
        let mut start = || {
            let used = segments(&log)?;
            claim(&log, &used);
            let newest = used.first().copied();
            if self.is_unsettled {
                log.distrust(newest.map_or(0, |(_, epoch)| epoch).max(self.now));
            }
            let resume = resume(&log, newest, self.is_unsettled)?;
            self.unread = used.into_iter().skip(1).rev().collect();
            Ok(Writer::new(log.clone(), Box::new(Wanted), resume, self.entries_max))
        };
        let writer = start().map_err(|error: io::Error| format!("it does not start: {error}"))?;
        self.writer = Some(writer);
        Ok(())
    }

    /// None: all is recovered. False: the disk failed.
    fn recover_one(&mut self) -> Option<bool> {
        let (segment, epoch) = self.unread.pop()?;
        if self.weather.failures && self.random.one_in(4) {
            self.disk.fail(0, 3);
            self.is_clean = false;
        }
        let recovered = recover(&self.log, segment, epoch).is_ok();
        self.disk.fail(0, 0);
        Some(recovered)
    }

    /// A bit of a frame, of the head of a segment, of a table, or of anything.
    fn flip(&mut self) {
        let hash = self.any();
        let segment = self.random.below(self.geometry.segments as usize) as u64 * self.geometry.segment_bytes;
        let offset = match (self.random.below(8), self.log.index.get(hash)) {
            (0, _) => segment + self.random.below(HEAD) as u64,
            (1, _) => segment + self.geometry.segment_bytes - 1 - self.random.below(TABLE_END + 48) as u64,
            (2, _) | (_, None) => self.random.below(self.geometry.bytes() as usize) as u64,
            (n, Some(place)) => {
                let frame = u64::from(place.segment()) * self.geometry.segment_bytes + u64::from(place.offset());
                let within = if n % 2 == 0 { HEAD } else { place.bytes() };
                frame + self.random.below(within) as u64
            }
        };
        // Who damages a head twice can make anything of it.
        if self.flipped.insert(offset / HEAD as u64) {
            self.disk.flip(offset, self.random.below(8) as u32);
        }
        self.is_clean = false;
    }

    fn look(&mut self) -> Result<(), String> {
        for _ in 0..LOOKS {
            let hash = self.any();
            if self.random.one_in(3) {
                self.read(hash)?;
            } else if let Ok(found) = self.log.read_at_once(hash) {
                self.check(hash, found)?;
            }
        }
        let entries = self.log.index.len();
        if entries > self.entries_max.saturating_add(BATCH as u64) {
            return Err(format!("{entries} entries, of {} allowed", self.entries_max));
        }
        self.disk.outside().map_or(Ok(()), Err)
    }

    fn look_at_all(&self) -> Result<(), String> {
        self.known.keys().try_for_each(|hash| self.check(*hash, self.log.read(*hash).unwrap_or_default()))
    }

    fn read(&mut self, hash: u64) -> Result<(), String> {
        if self.weather.failures && self.random.one_in(8) {
            self.disk.fail(0, 2);
        }
        let found = self.log.read(hash);
        self.disk.fail(0, 0);
        self.check(hash, found.unwrap_or_default())
    }

    fn check(&self, hash: u64, found: Option<Frame>) -> Result<(), String> {
        let (known, Some(frame)) = (&self.known[&hash], found) else { return Ok(()) };
        let key = known.key;
        if (frame.head.key, frame.head.kind, frame.head.site) != (key, known.kind, known.site) {
            return Err(format!("{key:?} reads as {:?}", frame.head));
        }
        let version = known.versions.iter().rposition(|version| version.bytes == frame.payload);
        let Some(version) = version else {
            return Err(format!("{key:?} reads as {} bytes that were never given", frame.payload.len()));
        };
        if known.is_removed {
            return Err(format!("{key:?} was removed and is back as version {version}"));
        }
        if let Some(newest) = known.acknowledged.filter(|newest| *newest > version && !frame.doubtful) {
            return Err(format!("{key:?} reads as version {version}, after {newest}, without a doubt"));
        }
        if frame.doubtful && self.is_clean {
            return Err(format!("{key:?} is doubtful without a reason"));
        }
        Ok(())
    }
}

//! Watches the frames a client sends: for floods of those that cost it nothing, and for one that never ends.
//!
//! The `h2` crate has bounds of its own; these are ours, explicit, and hold whatever it does. Only frame headers are
//! looked at. Time is an argument.

use std::time::{Duration, Instant};

/// A frame's header (RFC 9113 section 4.1), and what a connection begins with (section 3.4).
const HEADER_BYTES: usize = 9;
const PREFACE_BYTES: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a burst may cost. A browser that leaves a page of 100 pictures costs 400.
const BURST: u32 = 2_000;
/// What is forgiven in a second.
const FORGIVEN_PER_SECOND: u32 = 400;
/// A reset undoes a request that has already cost us something.
const RESET_COST: u32 = 4;
/// Any other frame that asks for nothing: PING, SETTINGS, PRIORITY, unknown ones, DATA without data.
const IDLE_COST: u32 = 1;
/// CONTINUATION frames of one field block. A list of 64 KiB needs three beside its HEADERS.
const CONTINUATIONS_MAX: u32 = 8;

/// What is known of a client's frames.
#[derive(Debug)]
pub struct Watch {
    /// Bytes of the preface or of a payload that are still to come.
    skip: usize,
    header: [u8; HEADER_BYTES],
    header_len: usize,
    /// A field block has begun and not ended.
    block_open: bool,
    continuations: u32,
    /// Since when a frame or a field block has been waiting for its end.
    unfinished_since: Option<Instant>,
    /// The frame on its way carries a body; its sender is watched by whoever reads the body.
    in_data: bool,
    spent: u32,
    forgiven_at: Instant,
    excess: bool,
}

impl Watch {
    pub fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            header_len: 0,
            block_open: false,
            continuations: 0,
            unfinished_since: Some(now),
            in_data: false,
            spent: 0,
            forgiven_at: now,
            excess: false,
        }
    }

    /// The client sent more idle frames than anybody needs.
    pub fn is_excess(&self) -> bool {
        self.excess
    }

    /// Since when the head of a request, or another frame without a body, has been on its way.
    pub fn unfinished_since(&self) -> Option<Instant> {
        self.unfinished_since.filter(|_| !self.in_data)
    }

    /// Takes the next bytes from the client.
    pub fn take(&mut self, mut bytes: &[u8], now: Instant) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                if self.skip == 0 {
                    self.finished();
                }
                continue;
            }
            let wanted = (HEADER_BYTES - self.header_len).min(bytes.len());
            let (now_bytes, later) = bytes.split_at(wanted);
            if let Some(space) = self.header.get_mut(self.header_len..self.header_len + wanted) {
                space.copy_from_slice(now_bytes);
            }
            self.header_len += wanted;
            bytes = later;
            self.unfinished_since.get_or_insert(now);
            if self.header_len == HEADER_BYTES {
                self.header_len = 0;
                self.frame(now);
            }
        }
    }

    fn frame(&mut self, now: Instant) {
        let [a, b, c, kind, flags, ..] = self.header;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.skip = length;
        self.in_data = kind == DATA;
        match kind {
            HEADERS | CONTINUATION => {
                self.continuations = if kind == HEADERS { 0 } else { self.continuations + 1 };
                self.excess |= self.continuations > CONTINUATIONS_MAX;
                self.block_open = flags & END_HEADERS == 0;
                if kind == CONTINUATION && length == 0 {
                    self.spend(IDLE_COST, now);
                }
            }
            DATA if length > 0 || flags & END_STREAM != 0 => {}
            // What makes room for an answer is as frequent as the answer's own frames.
            WINDOW_UPDATE => {}
            RST_STREAM => self.spend(RESET_COST, now),
            _ => self.spend(IDLE_COST, now),
        }
        if length == 0 {
            self.finished();
        }
    }

    fn finished(&mut self) {
        self.in_data = false;
        if !self.block_open {
            self.unfinished_since = None;
        }
    }

    fn spend(&mut self, cost: u32, now: Instant) {
        let elapsed = now.saturating_duration_since(self.forgiven_at);
        if elapsed >= Duration::from_millis(10) {
            let forgiven = elapsed.as_millis() * u128::from(FORGIVEN_PER_SECOND) / 1000;
            self.spent = self.spent.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX));
            self.forgiven_at = now;
        }
        self.spent = self.spent.saturating_add(cost);
        self.excess |= self.spent > BURST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![0, (length >> 8) as u8, length as u8, kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER_BYTES + length, 0);
        frame
    }

    struct Client {
        watch: Watch,
        now: Instant,
    }

    impl Client {
        fn new() -> Self {
            let now = crate::clock::monotonic();
            let mut watch = Watch::new(now);
            watch.take(&[b'P'; PREFACE_BYTES], now);
            Self { watch, now }
        }

        fn sends(&mut self, bytes: &[u8]) {
            self.watch.take(bytes, self.now);
        }

        fn waits(&mut self, time: Duration) {
            self.now += time;
        }
    }

    #[test]
    fn floods_are_seen_and_ordinary_clients_are_not() {
        for (name, kind, flags, length, count, excess) in [
            ("pings", 6, 0, 8, 2_001, true),
            ("pings of a busy client", 6, 0, 8, 500, false),
            ("settings", 4, 0, 0, 2_001, true),
            ("resets", RST_STREAM, 0, 4, 501, true),
            ("a page left", RST_STREAM, 0, 4, 100, false),
            ("priorities", 2, 0, 5, 2_001, true),
            ("unknown frames", 77, 0, 3, 2_001, true),
            ("empty data", DATA, 0, 0, 2_001, true),
            ("data", DATA, 0, 100, 100_000, false),
            ("ends of bodies", DATA, END_STREAM, 0, 100_000, false),
            ("window updates", WINDOW_UPDATE, 0, 4, 100_000, false),
            ("requests", HEADERS, END_HEADERS, 30, 100_000, false),
            ("continuations", CONTINUATION, 0, 10, 9, true),
            ("a long list", CONTINUATION, 0, 16_000, 3, false),
        ] {
            let mut client = Client::new();
            (0..count).for_each(|_| client.sends(&frame(kind, flags, length)));
            assert_eq!(client.watch.is_excess(), excess, "{name}");
        }
    }

    #[test]
    fn what_is_spread_over_time_is_forgiven() {
        let mut client = Client::new();
        for _ in 0..100 {
            (0..40).for_each(|_| client.sends(&frame(RST_STREAM, 0, 4)));
            client.waits(Duration::from_secs(1));
        }
        assert!(!client.watch.is_excess());
    }

    #[test]
    fn heads_that_do_not_end_are_seen_byte_by_byte() {
        let mut client = Client::new();
        assert_eq!(client.watch.unfinished_since(), None);
        let begun = client.now;
        let head = [frame(HEADERS, 0, 20), frame(CONTINUATION, END_HEADERS, 20)].concat();
        for (index, byte) in head.iter().enumerate() {
            client.sends(&[*byte]);
            client.waits(Duration::from_millis(10));
            let ended = index + 1 == head.len();
            assert_eq!(client.watch.unfinished_since(), (!ended).then_some(begun), "byte {index}");
        }
        client.sends(&frame(DATA, 0, 100)[..50]);
        assert_eq!(client.watch.unfinished_since(), None, "bodies are somebody else's");
    }

    #[test]
    fn a_client_that_says_nothing_is_unfinished_from_the_start() {
        let now = crate::clock::monotonic();
        assert_eq!(Watch::new(now).unfinished_since(), Some(now));
    }
}

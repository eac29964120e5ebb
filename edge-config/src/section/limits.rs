//! `[limits]`: every bound a client or an origin can run into. Each has a reason; those that depend on one another are
//! tied by an assertion.

use crate::read::key::{Kind, section};
use crate::read::{Reader, Table};
use crate::units::Duration;

/// Bounds on what clients and origins may ask of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time from the first byte of a request head (for the first request: from the connection) to its last. Default 10s:
    /// a slow phone needs one, a dripping client is gone before it matters.
    pub head_timeout: Duration,
    /// How long a connection may stay open between requests. Default 60s.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of an answer that waits for it; a client that keeps below 1 KiB/s on average is
    /// cut too. Default 30s.
    pub write_timeout: Duration,
    /// How long a stopping node, no longer ready, still takes new connections: until whoever sends clients here has
    /// noticed. Default 0s.
    pub drain_grace: Duration,
    /// How long a stopping node waits for requests in flight. Default 30s.
    pub drain_timeout: Duration,
    /// How long a process that another one has taken over from waits for what it still has under way. Default 1h: a large
    /// download fits, and a process that is stuck is gone the same day.
    pub upgrade_timeout: Duration,
    /// Connections from one address (IPv6: one /64) at a time. Default 4096: an office or a carrier behind one address
    /// fits, one host cannot take every descriptor.
    pub connections_per_client: u32,
    /// HTTP/2 requests of one connection at a time, 1 to 1,000. Default 100, the least RFC 9113 section 6.5.2 recommends.
    pub streams_per_connection: u32,
}

/// A request head, its line and its fields together. What browsers send is under 16 KiB.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Field lines of a request or an origin's response. Work per head grows with their number.
pub const FIELDS_MAX: usize = 128;
/// The request target. RFC 9110 section 4.1 asks for at least 8,000.
pub const TARGET_BYTES_MAX: usize = 8 << 10;
/// The head of an origin's response.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 64 << 10;
/// A body is kept in pieces of this size once it is larger than one.
pub const CHUNK_BYTES: usize = 256 << 10;
/// How far a fill that is not stored in full may run ahead of its fastest reader.
pub const READ_AHEAD_MAX: u64 = 1 << 20;
/// What a fill that is not stored in full keeps for slower readers; one that falls behind more than this is reset.
pub const RETAINED_MAX: u64 = 8 << 20;
/// A fill nobody reads any more goes on if at most this much is left.
pub const ABANDONED_REMAINDER_MAX: u64 = 64 << 20;
/// What is fetched at a time of a body whose chunks are not all there: at first where it is not known how much a client will
/// read, and at most.
pub const RUN_BYTES_FIRST: u64 = 1 << 20;
pub const RUN_BYTES_MAX: u64 = 4 << 20;
/// Lowest average rate, in bytes a second, at which a client may take an answer.
pub const SEND_RATE_MIN: u64 = 1 << 10;
/// How often a follower may find that a fill is not for it before it asks alone.
pub const REJOINS_MAX: u32 = 2;

const _: () = assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX);
const _: () = assert!(READ_AHEAD_MAX < RETAINED_MAX);
const _: () = assert!(RUN_BYTES_FIRST.is_multiple_of(CHUNK_BYTES as u64) && RUN_BYTES_FIRST <= RUN_BYTES_MAX);
const _: () = assert!(CHUNK_BYTES as u64 <= READ_AHEAD_MAX);

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            drain_grace: Duration::from_secs(0),
            drain_timeout: Duration::from_secs(30),
            upgrade_timeout: Duration::from_secs(3600),
            connections_per_client: 4096,
            streams_per_connection: 100,
        }
    }
}

section! {
    /// Every bound a client can run into.
    LIMITS = "[limits]" {
        /// Time from the first byte of a request head (for the first request: from the connection) to its last. A client
        /// that drips is gone before it matters.
        HEAD_TIMEOUT = "head_timeout": Kind::Duration, "10s";
        /// How long a connection may stay open between requests, and a request body may pause.
        IDLE_TIMEOUT = "idle_timeout": Kind::Duration, "60s";
        /// How long a client may take nothing of an answer that waits for it. One that keeps below 1 KiB/s on average is
        /// cut too.
        WRITE_TIMEOUT = "write_timeout": Kind::Duration, "30s";
        /// How long a stopping node, no longer ready, still takes new connections. As long as whoever sends clients here
        /// needs to notice.
        DRAIN_GRACE = "drain_grace": Kind::Duration, "0s";
        /// How long a stopping node waits for requests under way.
        DRAIN_TIMEOUT = "drain_timeout": Kind::Duration, "30s";
        /// How long a process that was upgraded waits for what it still has under way: downloads and WebSockets.
        UPGRADE_TIMEOUT = "upgrade_timeout": Kind::Duration, "1h";
        /// Connections from one address (IPv6: one /64) at a time.
        CONNECTIONS_PER_CLIENT = "connections_per_client": Kind::Integer(1, 1_000_000), "4096";
        /// HTTP/2 requests of one connection at a time.
        STREAMS_PER_CONNECTION = "streams_per_connection": Kind::Integer(1, 1_000), "100";
    }
}

impl Limits {
    pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader) -> Self {
        let default = Self::default();
        let Some(table) = table else { return default };
        let mut time = |key, default| table.parsed(reader, key).map_or(default, |time| time.value);
        let mut limits = Self {
            head_timeout: time(&HEAD_TIMEOUT, default.head_timeout),
            idle_timeout: time(&IDLE_TIMEOUT, default.idle_timeout),
            write_timeout: time(&WRITE_TIMEOUT, default.write_timeout),
            drain_grace: time(&DRAIN_GRACE, default.drain_grace),
            drain_timeout: time(&DRAIN_TIMEOUT, default.drain_timeout),
            upgrade_timeout: time(&UPGRADE_TIMEOUT, default.upgrade_timeout),
            ..default
        };
        let connections = table.integer(reader, &CONNECTIONS_PER_CLIENT, 1..=1_000_000);
        let streams = table.integer(reader, &STREAMS_PER_CONNECTION, 1..=1_000);
        limits.connections_per_client = connections.unwrap_or(default.connections_per_client);
        limits.streams_per_connection = streams.unwrap_or(default.streams_per_connection);
        for key in [&HEAD_TIMEOUT, &IDLE_TIMEOUT, &WRITE_TIMEOUT] {
            table.positive(reader, key);
        }
        table.finish(reader);
        limits
    }
}

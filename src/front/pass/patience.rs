//! How long an origin is waited for on the pass path.
//!
//! Pingora waits for the head of an answer over HTTP/2 from the moment it has sent the request's, body or not: a long upload
//! would be cut off in the middle, however well it goes. For those it is told not to wait at all, and the origin's time is
//! measured here: it begins when the last of the body has gone. While the body comes, its sender and the limits of the
//! client's side decide.

use std::time::{Duration, Instant};

use edge_config::section::origin::{Origin, OriginTimeouts};
use parking_lot::Mutex;
use pingora::upstreams::peer::HttpPeer;
use tokio::sync::watch;

use crate::clock;
use crate::front::gate::{Framing, Head};

/// A body that is larger may take its time. Anything smaller, and whatever is here already, does not take longer than an origin
/// may, or Pingora ends it, and the client is told.
const SHORT_BYTES_MAX: u64 = 64 << 10;

/// How a body comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upload {
    Short,
    Long,
}

/// How the body of a request comes, of which so much is here.
pub(super) fn upload_of(head: &Head<'_>, arrived: usize) -> Upload {
    match head.framing {
        Framing::None => Upload::Short,
        Framing::Length(length) if length <= SHORT_BYTES_MAX.max(arrived as u64) => Upload::Short,
        Framing::Length(_) | Framing::Chunked => Upload::Long,
    }
}

/// When the answer to one request is due.
pub(super) struct Patience {
    started: Instant,
    upload: Upload,
    timeouts: Mutex<OriginTimeouts>,
    due: watch::Sender<Due>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Due {
    /// All of it.
    total: Option<Instant>,
    /// What the origin owes next.
    next: Option<Instant>,
    /// Whether that is measured here.
    measured: bool,
}

impl Due {
    fn first(&self) -> Option<Instant> {
        match (self.total, self.next) {
            (Some(total), Some(next)) => Some(total.min(next)),
            (total, next) => total.or(next),
        }
    }
}

impl Patience {
    pub(super) fn new(upload: Upload) -> Self {
        Self { started: clock::monotonic(), upload, timeouts: Mutex::default(), due: watch::Sender::default() }
    }

    /// An origin is asked, the first or another.
    pub(super) fn asked(&self, origin: &Origin) {
        *self.timeouts.lock() = origin.timeouts;
        let total = origin.timeouts.total.map(|total| self.started + total.get());
        self.due.send_replace(Due { total, next: None, measured: self.is_measured(origin) });
    }

    /// Takes from Pingora what is measured here.
    pub(super) fn apply(&self, origin: &Origin, peer: &mut HttpPeer) {
        if self.is_measured(origin) {
            peer.options.read_timeout = None;
        }
    }

    fn is_measured(&self, origin: &Origin) -> bool {
        self.upload == Upload::Long && origin.http2
    }

    /// The last of the body has gone: it is the origin's turn.
    pub(super) fn request_ended(&self) {
        let wait = self.timeouts.lock().first_byte.get();
        self.due.send_if_modified(|due| {
            due.next = due.measured.then(|| clock::monotonic() + wait);
            due.measured
        });
    }

    /// Something of the answer has come.
    pub(super) fn answered(&self, ends: bool) {
        let wait = self.timeouts.lock().between_bytes.get();
        // Nobody is woken: whoever waits looks again when the time is over that it knows of.
        self.due.send_if_modified(|due| {
            let waits = due.next.is_some() && !ends;
            due.next = waits.then(|| clock::monotonic() + wait);
            false
        });
    }

    /// Resolves when the answer is overdue.
    pub(super) async fn exhausted(&self) {
        const NEVER: Duration = Duration::from_secs(1 << 30);
        let mut changes = self.due.subscribe();
        loop {
            let due = changes.borrow_and_update().first();
            if due.is_some_and(|due| due <= clock::monotonic()) {
                return;
            }
            let until = due.unwrap_or_else(|| clock::monotonic() + NEVER);
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                // Whoever changes it is this.
                _ = changes.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::gate::{Verdict, gate};

    #[test]
    fn uploads() {
        for (fields, arrived, expected) in [
            ("", 0, Upload::Short),
            ("Content-Length: 0\r\n", 0, Upload::Short),
            ("Content-Length: 65536\r\n", 0, Upload::Short),
            ("Content-Length: 65537\r\n", 0, Upload::Long),
            ("Content-Length: 65537\r\n", 65_536, Upload::Long),
            ("Content-Length: 65537\r\n", 65_537, Upload::Short),
            ("Transfer-Encoding: chunked\r\n", 100, Upload::Long),
        ] {
            let text = format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
            let Verdict::Accepted(head) = gate(text.as_bytes()) else { panic!("{fields:?} is a request") };
            assert_eq!(upload_of(&head, arrived), expected, "{fields:?} with {arrived}");
        }
    }

    #[tokio::test]
    async fn the_time_of_an_origin_begins_with_the_end_of_a_long_body() {
        let times = |total| OriginTimeouts {
            first_byte: edge_config::Duration::from_secs(10),
            between_bytes: edge_config::Duration::from_secs(20),
            total,
            ..OriginTimeouts::default()
        };
        let total = edge_config::Duration::from_secs(60);
        for (upload, http2, total, sent, answered, expected) in [
            (Upload::Long, true, None, None, None, None),
            (Upload::Long, true, None, Some(()), None, Some(10)),
            (Upload::Long, true, None, Some(()), Some(false), Some(20)),
            (Upload::Long, true, None, Some(()), Some(true), None),
            (Upload::Long, true, Some(total), None, None, Some(60)),
            (Upload::Long, true, Some(total), Some(()), None, Some(10)),
            (Upload::Long, false, None, Some(()), Some(false), None),
            (Upload::Short, true, None, Some(()), Some(false), None),
        ] {
            let mut origin: Origin = "http://127.0.0.1:1".parse().expect("an origin");
            (origin.http2, origin.timeouts) = (http2, times(total));
            let patience = Patience::new(upload);
            patience.asked(&origin);
            sent.into_iter().for_each(|()| patience.request_ended());
            answered.into_iter().for_each(|ends| patience.answered(ends));
            let left = patience.due.borrow().first().map(|due| due.duration_since(patience.started).as_secs());
            assert_eq!(left, expected, "{upload:?} {http2} {total:?} {sent:?} {answered:?}");
        }
    }
}

//! Copies of the requests that rules want copied.
//!
//! What matches is copied as it goes to an origin: also when the cache answers it, so that the group sees what clients ask
//! for. Requests that the node answers itself (a redirect, a status, a refusal), WebSockets and requests that are copies
//! are not copied. A body is gathered while it is passed on, and the copy sent when all of it has been.

use bytes::Bytes;

use crate::front::gate::Framing;
use crate::front::log::Seen;
use crate::front::request::Routed;
use crate::origin::mirror::{Duplicate, MARK, NotCopied, Room};
use crate::routing::Site;

/// A copy that waits for its body.
pub struct Pending {
    room: Room,
    duplicate: Duplicate,
    body: Vec<u8>,
    body_max: usize,
    is_bodiless: bool,
}

impl Pending {
    /// The copy of a request, if a rule wants one and there is room. `write` writes the field lines that an origin gets.
    pub fn of(seen: &Seen<'_>, site: &Site, routed: &Routed, write: impl FnOnce(&mut Vec<u8>)) -> Option<Self> {
        let wanted = site.rules.mirror(routed.matched.as_ref()?)?;
        let head = seen.head;
        if head.asks_for_websocket() || head.fields.contains(MARK) {
            return None;
        }
        let mirror = site.backing(site.backings.index_of(&wanted.group)).mirror.as_ref()?;
        if !mirror.draws(wanted.share.get()) {
            return None;
        }
        let body_max = wanted.body_max.bytes();
        if matches!(head.framing, Framing::Length(length) if length > body_max) {
            mirror.dropped(NotCopied::TooLong);
            return None;
        }
        let room = mirror.room(wanted.max_requests)?;
        let mut fields = Vec::with_capacity(head.fields.as_bytes().len() + 256);
        write(&mut fields);
        let duplicate = Duplicate {
            method: head.method.as_str().to_owned(),
            target: routed.asked(head).to_vec(),
            host: head.host.to_vec(),
            fields,
            body: Bytes::new(),
            client: seen.peer.client,
        };
        let is_bodiless = matches!(head.framing, Framing::None | Framing::Length(0));
        let body_max = usize::try_from(body_max).unwrap_or(usize::MAX);
        Some(Self { room, duplicate, body: Vec::new(), body_max, is_bodiless })
    }

    /// Sends it now if there is no body to wait for.
    pub fn send_if_complete(self) -> Option<Self> {
        if !self.is_bodiless {
            return Some(self);
        }
        self.send();
        None
    }

    /// The body is sent again from its beginning.
    pub fn again(&mut self) {
        self.body.clear();
    }

    /// Takes a piece of the body. Gives it back while there is more to come.
    pub fn push(mut self, piece: &[u8], ends: bool) -> Option<Self> {
        if self.body.len() + piece.len() > self.body_max {
            self.room.give_back(NotCopied::TooLong);
            return None;
        }
        self.body.extend_from_slice(piece);
        if !ends {
            return Some(self);
        }
        self.send();
        None
    }

    /// The body will not come to its end.
    pub fn give_up(self) {
        self.room.give_back(NotCopied::Incomplete);
    }

    fn send(self) {
        self.room.send(Duplicate { body: self.body.into(), ..self.duplicate });
    }
}

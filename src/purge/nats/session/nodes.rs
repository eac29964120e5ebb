//! How the nodes hear of one another: what each says of itself, and that it has applied what another waits for.

use std::time::Duration;

use async_nats::{Message, Subscriber, jetstream};
use futures_util::StreamExt;
use ulid::Ulid;

use super::{End, SILENT, unanswered};
use crate::clock;
use crate::purge::nats::Shared;
use crate::purge::nats::link::Link;
use crate::purge::nats::members::Announcement;
use crate::purge::nats::streams::node_subject;

/// How often a node says what it is.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);

impl Shared {
    /// Says what this node is.
    pub(super) async fn announce(&self, link: &Link, created: u64) -> End {
        let subject = node_subject(&self.node.id);
        loop {
            if self.presence.has_ended() {
                return End::Closed;
            }
            let announcement = Announcement {
                v: 1,
                id: self.node.id.clone(),
                name: self.node.name.clone(),
                log: created,
                seq: self.seen.applied.borrow().seq(),
                current: self.ledger.is_current(clock::boot_ms),
                draining: self.presence.is_draining(),
                version: env!("CARGO_PKG_VERSION").into(),
                config: self.presence.config(),
                documents: self.presence.documents(),
                serves: self.presence.serves(),
                pop: self.node.pop.clone(),
                address: self.node.address.clone(),
                gone: false,
            };
            self.members.lock().hear(announcement.clone(), clock::boot_ms());
            let text = match serde_json::to_vec(&announcement) {
                Ok(text) => text,
                Err(error) => return unanswered(error),
            };
            // Not waited for: the next one says the same, and more.
            if let Err(error) = link.client.publish(subject.clone(), text.into()).await {
                return unanswered(error);
            }
            tokio::select! {
                () = tokio::time::sleep(ANNOUNCE_EVERY) => {}
                () = self.announce_soon.notified() => {}
                () = self.presence.changed() => {}
            }
        }
    }

    /// Hears what other nodes say of themselves.
    pub(super) async fn hear(&self, link: &Link, mut nodes: Subscriber, mut unheard: u64) -> End {
        self.members.lock().complete |= unheard == 0;
        loop {
            let message = match tokio::time::timeout(SILENT, nodes.next()).await {
                Ok(Some(message)) => message,
                Ok(None) => return End::Gone,
                Err(_) => return End::Silent,
            };
            if message.status.is_some() {
                continue;
            }
            unheard = unheard.saturating_sub(1);
            let age = age_ms(link, &message);
            let Ok(said) = serde_json::from_slice::<Announcement>(&message.payload) else { continue };
            let mut members = self.members.lock();
            members.complete |= unheard == 0;
            if said.id != self.node.id {
                members.hear(said, clock::boot_ms().saturating_sub(age));
            }
            let known = members.complete.then(|| members.ids(clock::boot_ms()));
            drop(members);
            known.into_iter().for_each(|known| self.shelf.know(known));
            self.heard.notify_waiters();
        }
    }

    /// Hears which nodes have applied what somebody here waits for.
    pub(super) async fn listen(&self, mut told: Subscriber) -> End {
        while let Some(message) = told.next().await {
            let text = std::str::from_utf8(&message.payload).unwrap_or_default();
            let Some((node, id)) = text.split_once(' ') else { continue };
            let Ok(id) = id.parse::<Ulid>() else { continue };
            if let Some(waited) = self.waited.lock().get_mut(&id) {
                waited.insert(node.to_owned());
                self.heard.notify_waiters();
            }
        }
        End::Gone
    }
}

/// How long ago the hub got a message, in milliseconds.
fn age_ms(link: &Link, message: &Message) -> u64 {
    let message = jetstream::Message { message: message.clone(), context: link.context.clone() };
    let Ok(info) = message.info() else { return 0 };
    let at = u64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    clock::wall().0.saturating_sub(at)
}

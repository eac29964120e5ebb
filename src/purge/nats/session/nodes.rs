//! How the nodes hear of one another: what each says of itself, and that it has applied what another waits for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Message, Subscriber, jetstream};
use futures_util::StreamExt;
use ulid::Ulid;

use super::{End, SILENT, has_quorum, numbers, unanswered};
use crate::clock;
use crate::purge::nats::Shared;
use crate::purge::nats::link::Link;
use crate::purge::nats::members::Announcement;
use crate::purge::nats::streams::{NODES, node_subject};

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
            let now = clock::boot_ms();
            self.members.lock().hear(announcement.clone(), now, now);
            let text = match serde_json::to_vec(&announcement) {
                Ok(text) => text,
                Err(error) => return unanswered(error),
            };
            let acknowledged = match link.context.publish(subject.clone(), text.into()).await {
                Ok(acknowledged) => acknowledged,
                Err(error) => return unanswered(error),
            };
            let next = async {
                tokio::select! {
                    () = tokio::time::sleep(ANNOUNCE_EVERY) => {}
                    () = self.announce_soon.notified() => {}
                    () = self.presence.changed() => {}
                }
            };
            let kept = async {
                // One that is not kept is followed by others.
                if acknowledged.await.is_ok() {
                    self.announced.send_replace(now);
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = next => {}
                () = kept => {}
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
            let number = numbers(link, &message).map_or(0, |(number, _, _)| number);
            let Ok(said) = serde_json::from_slice::<Announcement>(&message.payload) else { continue };
            let mut members = self.members.lock();
            members.complete |= unheard == 0;
            if said.id != self.node.id {
                let now = clock::boot_ms();
                members.hear(said, now.saturating_sub(age), now);
            }
            let known = members.complete.then(|| members.ids(clock::boot_ms()));
            drop(members);
            self.nodes_heard.send_replace(number);
            known.into_iter().for_each(|known| self.shelf.know(known));
            self.heard.notify_waiters();
        }
    }

    /// Whether there are nodes that have been silent for so long that nobody has to wait for them, if nothing they said since a
    /// time is on its way.
    pub(in crate::purge::nats) fn waits_for_the_silent(&self, since: u64) -> bool {
        let now = clock::boot_ms();
        self.nodes_known.load(Ordering::Acquire) < since && self.members.lock().iter(now).any(|heard| heard.is_out(now))
    }

    /// Waits until everything that nodes have said so far has been heard.
    pub(in crate::purge::nats) async fn hear_all_nodes(&self) {
        let known = async {
            let link = self.link.load_full()?;
            let asked = clock::boot_ms();
            let info = link.context.get_stream_no_info(NODES).await.ok()?.get_info().await.ok()?;
            let last = info.state.last_sequence;
            self.nodes_heard.subscribe().wait_for(|heard| *heard >= last).await.ok()?;
            // Of another connection, what was heard on this one says nothing.
            let is_the_same = self.link.load().as_ref().is_some_and(|now| Arc::ptr_eq(now, &link));
            (is_the_same && has_quorum(info.cluster.as_ref())).then_some(asked)
        };
        match known.await {
            Some(asked) => _ = self.nodes_known.fetch_max(asked, Ordering::AcqRel),
            // The hub cannot say: their leases run out.
            None => std::future::pending().await,
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

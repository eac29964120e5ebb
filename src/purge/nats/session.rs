//! One connection to the hub, from the look at its log to its end.
//!
//! First the log is looked at: is it the one this node has followed? Then its records are applied as they come; the hub is asked
//! again and again what the last one is, which is what the node may take itself for current by; and the nodes hear of one another.

mod nodes;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::push::Config as Push;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::stream::{ClusterInfo, Info, Stream};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{HeaderMap, Message, Subscriber};
use futures_util::StreamExt;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use ulid::Ulid;

use super::link::Link;
use super::record::{self, TELL};
use super::streams::{NODES, PURGE, purge_subject};
use super::verify::{Found, Lost, verify};
use super::writer::Work;
use super::{ASK_EVERY, LEASE_MS, PRESENT_MS, Shared};
use crate::clock;
use crate::purge::record::PurgeRecord;

/// How often the hub says that there is nothing; twice as long without a word, and it is taken for dead.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);
pub(super) const SILENT: Duration = Duration::from_millis(2_500);
/// Records applied together.
const BATCH_MAX: usize = 1024;
/// A record that nobody waits for, and that came sooner than this after the one before it, is followed by others: see [`NAP`].
const BUSY_WITHIN: Duration = Duration::from_millis(3);
/// How long the thread that reads from the hub lets records gather before it waits for the next, and how long it goes on doing so:
/// each time it is woken for one costs more than to apply it.
const NAP: Duration = Duration::from_millis(4);
const NAPS_FOR_MS: u64 = 16;
/// How often purges that the hub has not acknowledged are sent again.
const RESEND_EVERY: Duration = Duration::from_secs(1);
/// Purges that are sent again at once.
const RESEND_MAX: usize = 1_000;
/// How old the last record may get: a log in which nothing is left could not be told from another one.
const BEAT_AFTER_S: i64 = 24 * 3600;

/// The thread of the sessions. It naps before it waits, until a time on the clock of leases.
pub(super) fn runtime(until: Arc<AtomicU64>) -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("hub")
        .on_thread_park(move || {
            if until.load(Ordering::Relaxed) > clock::boot_ms() {
                thread::park_timeout(NAP);
            }
        })
        .enable_all()
        .build()
}

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub enum End {
    #[error("the connection has ended")]
    Gone,
    #[error("the hub is silent")]
    Silent,
    #[error("the hub does not answer: {0}")]
    Unanswered(String),
    #[error("the hub's log is not the one that was followed any more")]
    Changed,
    #[error("records are missing")]
    Hole,
    #[error("records came faster than they were applied")]
    Behind,
    #[error("what was kept cannot be written: {0}")]
    Disk(String),
    #[error("the node ends")]
    Closed,
}

fn unanswered(error: impl std::fmt::Display) -> End {
    End::Unanswered(error.to_string())
}

/// A log that has been looked at, and its records as they come.
struct Following {
    stream: Stream<()>,
    records: Subscriber,
    created: u64,
    /// Told where to come by the nodes that have applied what somebody here waits for.
    told: Subscriber,
    nodes: Subscriber,
    /// Nodes that the hub knows of and that have not been heard yet.
    unheard: u64,
}

impl Shared {
    /// Serves one connection. `hole`: records were missing in the session before.
    pub(super) async fn session(self: &Arc<Self>, link: &Link, hole: bool) -> End {
        let following = tokio::select! {
            followed = self.follow(link, hole) => match followed {
                Ok(following) => following,
                Err(end) => return end,
            },
            () = link.gone() => return End::Gone,
        };
        tracing::info!(position = %*self.seen.applied.borrow(), "the purge log is followed");
        // What nodes say is heard anew on each connection.
        self.members.lock().complete = false;
        self.nodes_heard.send_replace(0);
        self.announced.send_replace(0);
        let shared = Arc::new(link.clone());
        self.link.store(Some(shared.clone()));
        self.shelf.connected(Some(shared));
        let Following { stream, records, created, told, nodes, unheard } = following;
        let end = tokio::select! {
            end = self.apply_all(link, records) => end,
            end = self.ask(&stream, created) => end,
            end = self.announce(link, created) => end,
            end = self.hear(link, nodes, unheard) => end,
            end = self.listen(told) => end,
            end = self.resend(link) => end,
            () = self.shelf.follow(link) => End::Gone,
            () = self.shelf.board.follow(link) => End::Gone,
            () = link.gone() => End::Gone,
        };
        self.link.store(None);
        self.shelf.connected(None);
        end
    }

    /// Looks at the log and subscribes to it.
    async fn follow(self: &Arc<Self>, link: &Link, hole: bool) -> Result<Following, End> {
        let inbox = link.client.new_inbox();
        let records = link.client.subscribe(inbox.clone()).await.map_err(unanswered)?;
        let told = link.client.subscribe(link.told.clone()).await.map_err(unanswered)?;
        let stream = link.context.get_stream_no_info(PURGE).await.map_err(unanswered)?;
        let info = stream.get_info().await.map_err(unanswered)?;
        let created = created_of(&info);
        let followed = *self.seen.followed.lock();
        let mut found =
            Found { created, first: info.state.first_sequence, last: info.state.last_sequence, ..Found::default() };
        if let Some((seq, _)) = followed.applied {
            found.at_applied = record_at(&stream, seq).await?.map(|record| record.id);
        }
        if let Some((seq, _)) = followed.acknowledged {
            found.at_acknowledged = record_at(&stream, seq).await?.map(|record| record.id);
        }
        let verdict = if hole { Err(Lost::Trimmed) } else { verify(&followed, &found) };
        if let Err(lost) = verdict {
            self.adopt(&stream, created, found.last, lost).await?;
        }
        let next = self.seen.applied.borrow().seq() + 1;
        let consumer = Push {
            deliver_subject: inbox,
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: next },
            ack_policy: AckPolicy::None,
            idle_heartbeat: HEARTBEAT,
            memory_storage: true,
            inactive_threshold: Duration::from_secs(30),
            ..Push::default()
        };
        link.context.create_consumer_on_stream(consumer, PURGE).await.map_err(unanswered)?;
        let inbox = link.client.new_inbox();
        let nodes = link.client.subscribe(inbox.clone()).await.map_err(unanswered)?;
        let consumer = Push {
            deliver_subject: inbox,
            deliver_policy: DeliverPolicy::LastPerSubject,
            filter_subject: "node.>".into(),
            ack_policy: AckPolicy::None,
            idle_heartbeat: HEARTBEAT,
            memory_storage: true,
            inactive_threshold: Duration::from_secs(30),
            ..Push::default()
        };
        let consumer = link.context.create_consumer_on_stream(consumer, NODES).await.map_err(unanswered)?;
        let unheard = consumer.cached_info().num_pending + consumer.cached_info().delivered.consumer_sequence;
        Ok(Following { stream, records, created, told, nodes, unheard })
    }

    /// Follows another log from its end on: what was stored before is gone.
    async fn adopt(&self, stream: &Stream<()>, created: u64, last: u64, why: Lost) -> Result<(), End> {
        let record = match last {
            0 => None,
            // One that was trimmed away cannot be compared later: the next look takes the log for lost again.
            last => record_at(stream, last).await?.or_else(|| Some(record::nothing(Ulid::nil(), clock::wall()))),
        };
        let (done, adopted) = oneshot::channel();
        self.send(Work::Adopt { created, last: record.map(|record| (last, record)), done })?;
        match adopted.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(End::Disk(error.to_string())),
            Err(_) => return Err(End::Closed),
        }
        if why == Lost::First {
            tracing::info!("a purge log is followed for the first time");
        } else {
            tracing::error!(%why, "the purge log was lost: everything that was stored is gone");
            self.metrics.floor_reset();
        }
        Ok(())
    }

    /// Applies records as they come.
    async fn apply_all(&self, link: &Link, mut records: Subscriber) -> End {
        let mut consumed = 0;
        let mut before = None::<Instant>;
        loop {
            let first = match tokio::time::timeout(SILENT, records.next()).await {
                Ok(Some(message)) => message,
                Ok(None) => return End::Gone,
                Err(_) => return End::Silent,
            };
            let batch = ready(first, &mut records).await;
            let now = clock::monotonic();
            let is_waited_for = batch.iter().any(|message| told_of(message).is_some());
            let since = before.replace(now).map(|before| now.duration_since(before));
            let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
            // Who takes purges waits for the hub's answers on the same thread.
            let is_asked = is_waited_for || !self.sending.lock().is_empty();
            if !is_asked && since.is_some_and(|since| since < BUSY_WITHIN * count) {
                self.naps.store(clock::boot_ms() + NAPS_FOR_MS, Ordering::Relaxed);
            }
            let mut read = Vec::with_capacity(batch.len());
            let mut tell = Vec::new();
            let mut expected = self.seen.applied.borrow().seq();
            for message in batch {
                let Some((seq, number, told)) = numbers(link, &message) else { continue };
                if number != consumed + 1 {
                    return End::Behind;
                }
                consumed = number;
                if seq != expected + 1 {
                    return End::Hole;
                }
                expected = seq;
                let record = record::read(&message.payload);
                tell.extend(told.map(|told| (told, record.id)));
                read.push((seq, record));
            }
            if read.is_empty() {
                continue;
            }
            let (done, applied) = oneshot::channel();
            if self.send(Work::Apply { records: read, done }).is_err() || applied.await.is_err() {
                return End::Closed;
            }
            self.last.fetch_max(expected, Ordering::AcqRel);
            for (told, id) in tell {
                let text = format!("{} {id}", self.node.id);
                // A connection that has ended is noticed elsewhere.
                let _ = link.client.publish(told, text.into()).await;
            }
        }
    }

    /// Asks what the last record is: who has applied that was current when it asked.
    async fn ask(&self, stream: &Stream<()>, created: u64) -> End {
        let mut tick = tokio::time::interval(ASK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut applied = self.seen.applied.subscribe();
        let mut announced = self.announced.subscribe();
        loop {
            tick.tick().await;
            // Others know of a node before it takes itself for current.
            if announced.wait_for(|at| *at > 0).await.is_err() {
                return End::Closed;
            }
            let asked = clock::boot_ms();
            let info = match stream.get_info().await {
                Ok(info) => info,
                Err(error) => return unanswered(error),
            };
            let last = info.state.last_sequence;
            if created_of(&info) != created || last < applied.borrow().seq() {
                return End::Changed;
            }
            self.last.store(last, Ordering::Release);
            if !has_quorum(info.cluster.as_ref()) {
                continue;
            }
            // Until the next question, which may be answered with more.
            let caught_up = applied.wait_for(|position| position.seq() >= last);
            let is_present = asked < *self.announced.borrow() + PRESENT_MS;
            if let Ok(Ok(_)) = tokio::time::timeout(ASK_EVERY, caught_up).await
                && is_present
            {
                self.known_at(asked, last);
                let was_current = self.ledger.is_current(clock::boot_ms);
                self.ledger.vouch(asked + LEASE_MS);
                if !was_current {
                    self.announce_soon.notify_one();
                }
            }
            let age = clock::wall().0 / 1000;
            if last > 0
                && i64::try_from(age).unwrap_or(i64::MAX) - info.state.last_timestamp.unix_timestamp() > BEAT_AFTER_S
            {
                self.beat(last).await;
            }
        }
    }

    /// Keeps the log from running empty.
    async fn beat(&self, last: u64) {
        // All nodes that see it at once send the same, which is entered once.
        let beat = record::nothing(Ulid::from_parts(last, u128::from(last)), clock::wall());
        // Another day, another try.
        let _ = self.publish(&beat, false).await;
    }

    /// Sends purges that the hub has not acknowledged.
    async fn resend(&self, link: &Link) -> End {
        let mut tick = tokio::time::interval(RESEND_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = clock::boot_ms();
            let some: Vec<PurgeRecord> = {
                let sending = self.sending.lock();
                let pending = self.seen.pending.lock();
                let waiting = pending.values().filter(|record| !sending.contains(&record.id));
                waiting.take(RESEND_MAX).cloned().collect()
            };
            if some.is_empty() {
                continue;
            }
            let count = some.len();
            let mut acknowledgements = Vec::with_capacity(count);
            for record in &some {
                match publish(link, record, None).await {
                    Ok(acknowledgement) => acknowledgements.push((record.id, acknowledgement)),
                    Err(error) => return unanswered(error),
                }
            }
            let mut done = 0;
            for (id, acknowledgement) in acknowledgements {
                if let Ok(acknowledged) = acknowledgement.await {
                    done += 1;
                    // A node that ends has kept it.
                    let _ = self.send(Work::Acknowledged(id, acknowledged.sequence));
                }
            }
            tracing::info!(done, count, ms = clock::boot_ms() - now, "purges that waited for the hub were sent");
            if done == RESEND_MAX {
                tick.reset_immediately();
            }
        }
    }

    /// Sends a purge to the hub, if that can be reached, and gives its number in the log. `tells`: every node is to say when it
    /// has applied it.
    pub(super) async fn publish(&self, record: &PurgeRecord, tells: bool) -> Option<u64> {
        let link = self.link.load_full()?;
        let told = tells.then(|| link.told.clone());
        let acknowledged = publish(&link, record, told).await.ok()?.await.ok()?;
        Some(acknowledged.sequence)
    }
}

async fn publish(
    link: &Link,
    record: &PurgeRecord,
    told: Option<String>,
) -> Result<jetstream::context::PublishAckFuture, jetstream::context::PublishError> {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", record.id.to_string());
    if let Some(told) = told {
        headers.insert(TELL, told);
    }
    let subject = purge_subject(&record.sites());
    let text = serde_json::to_vec(record).unwrap_or_default();
    link.context.publish_with_headers(subject, headers, text.into()).await
}

/// What is there already, together.
async fn ready(first: Message, records: &mut Subscriber) -> Vec<Message> {
    let mut batch = vec![first];
    while batch.len() < BATCH_MAX {
        match tokio::time::timeout(Duration::ZERO, records.next()).await {
            Ok(Some(message)) => batch.push(message),
            // The next look finds that it has ended.
            Ok(None) | Err(_) => break,
        }
    }
    batch
}

/// Where somebody waits to be told that a record was applied.
fn told_of(message: &Message) -> Option<String> {
    message.headers.as_ref().and_then(|headers| headers.get(TELL)).map(ToString::to_string)
}

/// When a log was made.
fn created_of(info: &Info) -> u64 {
    u64::try_from(info.created.unix_timestamp_nanos()).unwrap_or(1).max(1)
}

/// The number of a record in the log, its number among those that were sent to us, and whom to tell. None: it is no record.
pub(super) fn numbers(link: &Link, message: &Message) -> Option<(u64, u64, Option<String>)> {
    if message.status.is_some() {
        return None;
    }
    let told = told_of(message);
    let message = jetstream::Message { message: message.clone(), context: link.context.clone() };
    let info = message.info().ok()?;
    Some((info.stream_sequence, info.consumer_sequence, told))
}

/// The record with this number, if it is still there.
async fn record_at(stream: &Stream<()>, seq: u64) -> Result<Option<PurgeRecord>, End> {
    match stream.get_raw_message(seq).await {
        Ok(message) => Ok(Some(record::read(&message.payload))),
        Err(error) => match error.kind() {
            jetstream::stream::RawMessageErrorKind::JetStream(error)
                if error.error_code() == ErrorCode::NO_MESSAGE_FOUND =>
            {
                Ok(None)
            }
            jetstream::stream::RawMessageErrorKind::NoMessageFound => Ok(None),
            _ => Err(unanswered(error)),
        },
    }
}

/// Whether the one who answers still leads: of a log that several servers keep, one that most of them have not spoken to for
/// longer than they need to choose another leader knows nothing.
fn has_quorum(cluster: Option<&ClusterInfo>) -> bool {
    /// Servers wait for at least four seconds before they choose another one (`minElectionTimeout` of nats-server).
    const SPOKEN_WITHIN: Duration = Duration::from_millis(2_000);
    let Some(cluster) = cluster else { return true };
    let spoken = cluster.replicas.iter().filter(|peer| !peer.offline && peer.active <= SPOKEN_WITHIN).count();
    (spoken + 1) * 2 > cluster.replicas.len() + 1
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::stream::PeerInfo;

    use super::*;

    #[test]
    fn most_of_the_servers_have_to_be_there() {
        let peer =
            |ms: u64, offline: bool| PeerInfo { active: Duration::from_millis(ms), offline, ..PeerInfo::default() };
        let cluster =
            |replicas: Vec<PeerInfo>| ClusterInfo { replicas, ..serde_json::from_str("{}").expect("a cluster") };
        assert!(has_quorum(None), "one server");
        for (name, replicas, expected) in [
            ("alone", vec![], true),
            ("all are there", vec![peer(100, false), peer(200, false)], true),
            ("one of two others is away", vec![peer(100, false), peer(60_000, false)], true),
            ("both others are away", vec![peer(2_100, false), peer(60_000, false)], false),
            ("both others are said to be away", vec![peer(100, true), peer(100, true)], false),
            ("two of five", vec![peer(1, false), peer(9_000, false), peer(9_000, false), peer(9_000, false)], false),
        ] {
            assert_eq!(has_quorum(Some(&cluster(replicas))), expected, "{name}");
        }
    }
}

//! The configuration documents of the hub, as this node has heard them, has them in force, or has refused them.
//!
//! What is heard is only kept here: whether it is good is for who knows the node's own file to say ([`Shelf::changed`],
//! [`Shelf::wanted`], [`Shelf::settle`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_nats::Subscriber;
use async_nats::header::{NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::push::Config as Push;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageErrorKind};
use async_nats::{HeaderMap, Message, StatusCode};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::board::Board;
use super::documents::{Document, Heard, Text, Texts, Which, wanted};
use super::link::Link;
use super::session::{HEARTBEAT, SILENT, numbers};
use super::streams::CONFIG;

/// How soon the documents are looked at again when that failed.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long what the hub has may take to be heard and decided about here.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
/// How long the versions of a document may take to arrive.
const HISTORY_WITHIN: Duration = Duration::from_secs(5);

/// The documents.
pub struct Shelf {
    /// The id of this node.
    node: String,
    /// What else the hub has that all nodes know.
    pub board: Arc<Board>,
    link: ArcSwapOption<Link>,
    state: Mutex<State>,
    changed: Notify,
    /// The last version that was heard and decided about.
    settled: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    heard: BTreeMap<Which, Heard>,
    in_force: Texts,
    refused: BTreeMap<Which, Refusal>,
    /// Every node there is, once all have been heard of.
    nodes: Option<BTreeSet<String>>,
}

/// A version that is not in force, because it is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub version: u64,
    pub why: String,
}

/// What a node is to have in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub texts: Texts,
    /// What cannot be read.
    pub unreadable: BTreeMap<Which, Refusal>,
    /// The last version that was heard.
    pub last: u64,
}

/// A document and how it stands here.
#[derive(Clone, Debug)]
pub struct Standing {
    pub which: Which,
    /// None: it has not been heard since the node was started.
    pub heard: Option<Heard>,
    pub in_force: Option<Text>,
    pub refused: Option<Refusal>,
}

/// Why the hub was not told, or did not tell.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("the hub cannot be reached")]
    Away,
    #[error("another version has been published meanwhile")]
    Outdated,
    #[error("the hub does not answer: {0}")]
    Unanswered(String),
}

fn unanswered(error: impl std::fmt::Display) -> HubError {
    HubError::Unanswered(error.to_string())
}

impl Shelf {
    /// `in_force`: what the node was started with.
    pub fn new(node: &str, in_force: Texts, board: Arc<Board>) -> Self {
        Self {
            node: node.to_owned(),
            board,
            link: ArcSwapOption::empty(),
            state: Mutex::new(State { in_force, ..State::default() }),
            changed: Notify::new(),
            settled: watch::Sender::new(0),
        }
    }

    /// There is a connection, or none any more.
    pub(super) fn connected(&self, link: Option<Arc<Link>>) {
        self.board.connected(link.clone());
        self.link.store(link);
    }

    /// Resolves when there may be something else to put in force.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What is to be in force.
    pub fn wanted(&self) -> Wanted {
        let state = self.state.lock();
        let unreadable = state.heard.iter().filter_map(|(which, heard)| {
            let why = heard.document.as_ref().err()?.clone();
            Some((which.clone(), Refusal { version: heard.version, why }))
        });
        Wanted {
            texts: wanted(&state.heard, &state.in_force, &self.node, state.nodes.as_ref()),
            unreadable: unreadable.collect(),
            last: state.heard.values().map(|heard| heard.version).max().unwrap_or(0),
        }
    }

    pub fn in_force(&self) -> Texts {
        self.state.lock().in_force.clone()
    }

    /// What was wanted has been looked at: this is in force, and this is not good. Gives what of the latter is new.
    pub fn settle(&self, last: u64, in_force: Texts, refused: BTreeMap<Which, Refusal>) -> Vec<(Which, Refusal)> {
        let mut state = self.state.lock();
        let is_new = |(which, refusal): &(&Which, &Refusal)| {
            state.refused.get(*which).is_none_or(|known| known.version != refusal.version)
        };
        let new = refused.iter().filter(is_new).map(|(which, refusal)| (which.clone(), refusal.clone())).collect();
        state.in_force = in_force;
        state.refused = refused;
        drop(state);
        self.settled.send_replace(last);
        new
    }

    /// Waits until a version has been decided about, for a time. False: it has not.
    pub async fn settled(&self, version: u64, within: Duration) -> bool {
        let mut settled = self.settled.subscribe();
        let decided = settled.wait_for(|last| *last >= version);
        matches!(tokio::time::timeout(within, decided).await, Ok(Ok(_)))
    }

    /// Every document.
    pub fn standings(&self) -> Vec<Standing> {
        let state = self.state.lock();
        let all: BTreeSet<&Which> = state.heard.keys().chain(state.in_force.keys()).collect();
        let standing = |which: &Which| Standing {
            which: which.clone(),
            heard: state.heard.get(which).cloned(),
            in_force: state.in_force.get(which).cloned(),
            refused: state.refused.get(which).cloned(),
        };
        all.into_iter().map(standing).collect()
    }

    /// These are all the nodes there are.
    pub(super) fn know(&self, nodes: BTreeSet<String>) {
        let mut state = self.state.lock();
        if state.nodes.as_ref() == Some(&nodes) {
            return;
        }
        state.nodes = Some(nodes);
        let is_staged = |heard: &Heard| heard.document.as_ref().is_ok_and(|document| document.share < 100);
        let matters = state.heard.values().any(is_staged);
        drop(state);
        if matters {
            self.changed.notify_one();
        }
    }

    /// Hears the documents as long as a connection lasts. What fails here does not end it: purges matter more.
    pub(super) async fn follow(&self, link: &Link) {
        let mut told = false;
        loop {
            let Err(error) = self.hear(link).await;
            if !told {
                told = true;
                tracing::warn!(%error, "the configuration of the hub is not followed; it is tried again");
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn hear(&self, link: &Link) -> Result<std::convert::Infallible, HubError> {
        let (mut messages, mut unheard) = subscribe(link, DeliverPolicy::LastPerSubject, "config.>").await?;
        // Until all of it is there nothing is put in force: a part of a configuration is none.
        let mut first = Some(BTreeMap::new());
        let mut consumed = 0;
        loop {
            if unheard == 0
                && let Some(all) = first.take()
            {
                self.state.lock().heard = all;
                self.changed.notify_one();
            }
            let message = match tokio::time::timeout(SILENT, messages.next()).await {
                Ok(Some(message)) => message,
                Ok(None) => return Err(unanswered("the subscription has ended")),
                Err(_) => return Err(unanswered("it is silent")),
            };
            if message.status.is_some() {
                if last_sent(&message).is_some_and(|last| last != consumed) {
                    return Err(unanswered("messages are missing"));
                }
                continue;
            }
            let Some((version, number, _)) = numbers(link, &message) else { continue };
            if number != consumed + 1 {
                return Err(unanswered("messages are missing"));
            }
            consumed = number;
            unheard = unheard.saturating_sub(1);
            let Some(which) = Which::of_subject(&message.subject) else {
                tracing::warn!(subject = %message.subject, "no document of the configuration");
                continue;
            };
            let heard = Heard { version, document: Document::read(&message.payload) };
            match &mut first {
                Some(all) => _ = all.insert(which, heard),
                None => {
                    self.state.lock().heard.insert(which, heard);
                    self.changed.notify_one();
                }
            }
        }
    }

    fn link(&self) -> Result<Arc<Link>, HubError> {
        self.link.load_full().ok_or(HubError::Away)
    }

    /// The latest version there is, asked of the hub.
    ///
    /// # Errors
    /// The hub does not say.
    pub async fn latest(&self, which: &Which) -> Result<Option<Heard>, HubError> {
        let stream = self.link()?.context.get_stream_no_info(CONFIG).await.map_err(unanswered)?;
        match stream.get_last_raw_message_by_subject(&which.subject()).await {
            Ok(message) => Ok(Some(Heard { version: message.sequence, document: Document::read(&message.payload) })),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(error) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => {
                    Ok(None)
                }
                _ => Err(unanswered(error)),
            },
        }
    }

    /// Waits until everything the hub has of any document has been decided about here. Gives the number of the last of it.
    ///
    /// # Errors
    /// The hub does not answer, or what it has is not heard.
    pub async fn all_heard(&self) -> Result<u64, HubError> {
        let stream = self.link()?.context.get_stream_no_info(CONFIG).await.map_err(unanswered)?;
        let last = stream.get_info().await.map_err(unanswered)?.state.last_sequence;
        if self.settled(last, HEARD_WITHIN).await {
            return Ok(last);
        }
        // Somebody may have taken it out by hand.
        match stream.get_raw_message(last).await {
            Err(error) if is_nothing(&error.kind()) => Ok(last),
            Ok(_) => Err(unanswered("what was published last is not heard here")),
            Err(error) => Err(unanswered(error)),
        }
    }

    /// Publishes a version, if the latest one is still this one (0: if there is none), and if nothing else has been published
    /// since `last` either: what it was validated with is what it will stand beside. Gives its number.
    ///
    /// # Errors
    /// Something has been published, or the hub does not answer: then it may have been published, or not.
    pub async fn publish(&self, which: &Which, document: &Document, latest: u64, last: u64) -> Result<u64, HubError> {
        let link = self.link()?;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, latest.to_string());
        headers.insert(NATS_EXPECTED_LAST_SEQUENCE, last.to_string());
        let text = serde_json::to_vec(document).map_err(unanswered)?;
        let failed = |error: async_nats::jetstream::context::PublishError| match error.kind() {
            PublishErrorKind::WrongLastSequence => HubError::Outdated,
            _ => unanswered(error),
        };
        let sent = link.context.publish_with_headers(which.subject(), headers, text.into()).await.map_err(failed)?;
        Ok(sent.await.map_err(failed)?.sequence)
    }

    /// The versions the hub has of a document, the earliest first.
    ///
    /// # Errors
    /// The hub does not say.
    pub async fn history(&self, which: &Which) -> Result<Vec<Heard>, HubError> {
        let link = self.link()?;
        let read = async {
            let (mut messages, mut left) = subscribe(&link, DeliverPolicy::All, &which.subject()).await?;
            let mut versions = Vec::new();
            while left > 0 {
                let message = messages.next().await.ok_or(HubError::Away)?;
                let Some((version, _, _)) = numbers(&link, &message) else { continue };
                versions.push(Heard { version, document: Document::read(&message.payload) });
                left -= 1;
            }
            Ok(versions)
        };
        tokio::time::timeout(HISTORY_WITHIN, read).await.unwrap_or_else(|_| Err(unanswered("it takes too long")))
    }
}

fn is_nothing(kind: &RawMessageErrorKind) -> bool {
    match kind {
        RawMessageErrorKind::NoMessageFound => true,
        RawMessageErrorKind::JetStream(error) => error.error_code() == ErrorCode::NO_MESSAGE_FOUND,
        _ => false,
    }
}

/// Subscribes to documents. Gives too how many there are.
async fn subscribe(link: &Link, deliver: DeliverPolicy, subject: &str) -> Result<(Subscriber, u64), HubError> {
    let inbox = link.client.new_inbox();
    let messages = link.client.subscribe(inbox.clone()).await.map_err(unanswered)?;
    let consumer = Push {
        deliver_subject: inbox,
        deliver_policy: deliver,
        filter_subject: subject.to_owned(),
        ack_policy: AckPolicy::None,
        idle_heartbeat: HEARTBEAT,
        memory_storage: true,
        inactive_threshold: Duration::from_secs(30),
        ..Push::default()
    };
    let consumer = link.context.create_consumer_on_stream(consumer, CONFIG).await.map_err(unanswered)?;
    let info = consumer.cached_info();
    Ok((messages, info.num_pending + info.delivered.consumer_sequence))
}

/// What a heartbeat says was sent last.
fn last_sent(message: &Message) -> Option<u64> {
    if message.status != Some(StatusCode::IDLE_HEARTBEAT) {
        return None;
    }
    message.headers.as_ref()?.get("Nats-Last-Consumer")?.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(version: u64, share: u8) -> Heard {
        let before = full(1, "before");
        let document = Document::new(format!("text {version}"), 1, "ci", String::new(), share, Some(&before));
        Heard { version, document: Ok(document) }
    }

    fn full(version: u64, text: &str) -> Heard {
        Heard { version, document: Ok(Document::new(text.into(), 1, "ci", String::new(), 100, None)) }
    }

    #[test]
    fn what_is_refused_counts_once_and_nodes_matter_when_something_is_staged() {
        let board = Arc::new(Board::open(None, true).expect("no directory"));
        let shelf = Shelf::new("a", Texts::new(), board);
        let which = Which::Node;
        let bad = Heard { version: 3, document: Err("no".into()) };
        shelf.state.lock().heard.insert(which.clone(), bad);
        let wanted = shelf.wanted();
        assert_eq!((wanted.texts.len(), wanted.unreadable.len(), wanted.last), (0, 1, 3));
        assert_eq!(shelf.settle(3, Texts::new(), wanted.unreadable.clone()).len(), 1);
        assert_eq!(shelf.settle(3, Texts::new(), wanted.unreadable).len(), 0, "it is the same one");
        shelf.state.lock().heard.insert(which.clone(), heard(4, 50));
        assert_eq!(shelf.wanted().texts.get(&which).map(|text| text.version), Some(1), "nobody is known");
        shelf.know(["a".to_owned()].into());
        assert_eq!(shelf.wanted().texts.get(&which).map(|text| text.version), Some(4), "it is the only node");
    }
}

//! Asking another node in the place of an origin.
//!
//! Within its PoP each object has an owner; the owner asks the shield of the site, and that asks an origin. Who cannot be asked, or
//! does not answer soon, is passed by: the one that comes second is asked, and then the next tier.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use super::answered::{self, Answer, Answered};
use super::asking::Asking;
use super::choosing;
use super::roster::{Node, UnderWay};
use crate::origin::session::Session;
use crate::origin::{
    Changed, Failure, Interims, Judged, OriginBody, OriginRequest, OriginResponse, Role, Through, Upstream,
};
use crate::purge::position::LogPosition;
use crate::semantics::fields::Fields;

/// How many nodes of one PoP are asked.
const NODES_MAX: usize = 2;
/// How long a node may take to say that it has an answer, or that it is waiting for one (102).
pub const SAYS_WITHIN: Duration = Duration::from_millis(1_500);

/// And until it says again that it waits.
pub const SAYS_AGAIN_WITHIN: Duration = Duration::from_millis(2_500);

/// Who is asked before an origin is.
#[async_trait]
pub trait Tiers: Send + Sync {
    /// The PoP in which this is asked next, and as what; none: an origin is.
    fn next(&self, asked_as: Option<Role>) -> Option<(&str, Role)>;

    /// The node of that PoP that has an object. None: nobody is left. `tried`: numbers of nodes.
    fn choose(&self, pop: &str, key: u64, tried: &[usize]) -> Option<Arc<Node>>;

    /// What this node says of itself.
    fn asking(&self, role: Role, through: &Through, request: &OriginRequest) -> Asking;

    /// Signs it.
    fn sign(&self, asking: &Asking, request: &OriginRequest, out: &mut Vec<u8>);

    /// Resolves when a node that was asked has said nothing for too long. `waits`: it has said that it waits for an origin.
    async fn patience(&self, waits: bool);

    /// Another node was asked.
    fn told(&self, role: Role, outcome: &'static str);
}

/// What fills ask: other nodes, and then the origins.
pub struct Tiered {
    pub site: String,
    pub tiers: Arc<dyn Tiers>,
    pub origins: Arc<dyn Upstream>,
}

/// A body of another node's: its request is under way as long as it is read.
struct UnderWayBody {
    body: Box<dyn OriginBody>,
    _until: UnderWay,
}

#[async_trait]
impl OriginBody for UnderWayBody {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        self.body.next().await
    }

    fn due(&self) -> Option<Instant> {
        self.body.due()
    }
}

/// What comes of asking a node.
enum Came {
    Answer(OriginResponse),
    /// Somebody else is to be asked.
    PassBy(&'static str),
    /// The origins have failed, says the node; asking them as well would not make them better.
    Failed(Failure),
}

#[async_trait]
impl Upstream for Tiered {
    async fn open(&self, request: &OriginRequest, interim: Interims<'_>) -> Result<OriginResponse, Failure> {
        let Some(through) = &request.through else { return self.origins.open(request, interim).await };
        let key = choosing::key(&self.site, through.secure, &request.host, &through.target);
        let mut asked_as = through.asked_as;
        let mut nodes = 0;
        while let Some((pop, role)) = self.tiers.next(asked_as) {
            // One that broke off an answer to this is not asked for the rest.
            let mut tried: Vec<usize> = request.avoid.into_iter().collect();
            for _ in 0..NODES_MAX {
                let Some(node) = self.tiers.choose(pop, key, &tried) else { break };
                let Some(asking) = &node.asking else { break };
                tried.push(node.number);
                let under_way = node.begin();
                match self.ask(asking.as_ref(), role, request, through, interim).await {
                    Came::Answer(response) => {
                        node.answered();
                        self.tiers.told(role, "ok");
                        let (retries, origin) = (response.retries + nodes, node.number);
                        let body = Box::new(UnderWayBody { body: response.body, _until: under_way });
                        return Ok(OriginResponse { retries, origin, body, ..response });
                    }
                    Came::Failed(failure) => {
                        self.tiers.told(role, "failed");
                        return Err(failure);
                    }
                    Came::PassBy(why) => {
                        nodes += 1;
                        if matches!(why, "silent" | "unreachable") {
                            node.failed();
                        }
                        self.tiers.told(role, why);
                    }
                }
            }
            asked_as = Some(role);
        }
        let avoid = request.avoid.filter(|index| *index < FIRST_NUMBER);
        let request = OriginRequest { avoid, through: None, ..request.clone() };
        let response = self.origins.open(&request, interim).await?;
        Ok(OriginResponse { retries: response.retries + nodes, ..response })
    }

    async fn changed(&self, changed: &Changed) {
        // Who is not told by then has to be waited for by nobody.
        let _ = tokio::time::timeout(TOLD_WITHIN, self.tell_all(changed)).await;
    }
}

/// The method by which a node tells another one that what is stored of a URL is gone.
pub const INVALIDATE: &str = "INVALIDATE";
/// How long the client of an unsafe request waits for other nodes to hear of it.
const TOLD_WITHIN: Duration = Duration::from_millis(250);

/// Numbers of nodes begin here: those of origins are smaller.
pub const FIRST_NUMBER: usize = 1 << 32;

impl Tiered {
    /// Tells every node that may be asked for something before an origin is.
    async fn tell_all(&self, changed: &Changed) {
        let mut telling = Vec::new();
        for target in &changed.targets {
            let key = choosing::key(&self.site, changed.secure, &changed.host, target);
            let mut asked_as = None;
            while let Some((pop, role)) = self.tiers.next(asked_as) {
                let mut tried = Vec::new();
                while tried.len() < NODES_MAX {
                    let Some(node) = self.tiers.choose(pop, key, &tried) else { break };
                    tried.push(node.number);
                    telling.extend(node.asking.is_some().then(|| self.tell(node, role, target, changed)));
                }
                asked_as = Some(role);
            }
        }
        futures_util::future::join_all(telling).await;
    }

    async fn tell(&self, node: Arc<Node>, role: Role, target: &[u8], changed: &Changed) {
        let Some(asking) = &node.asking else { return };
        let through = Through {
            target: target.to_vec(),
            secure: changed.secure,
            began: LogPosition::default(),
            needs: None,
            asked_as: None,
        };
        let mut request = OriginRequest {
            method: INVALIDATE,
            target: target.to_vec(),
            host: changed.host.clone(),
            fields: changed.fields.clone(),
            client: None,
            avoid: None,
            session: Session::default(),
            through: None,
        };
        let said = self.tiers.asking(role, &through, &request);
        let mut line = Vec::with_capacity(256);
        self.tiers.sign(&said, &request, &mut line);
        request.fields.extend_from_slice(&line);
        let told = asking.open(&request, &|_, _| {}).await;
        self.tiers.told(role, if told.is_ok_and(|response| response.status == 204) { "told" } else { "not-told" });
    }

    async fn ask(
        &self,
        node: &dyn Upstream,
        role: Role,
        request: &OriginRequest,
        through: &Through,
        interim: Interims<'_>,
    ) -> Came {
        let mut asked = OriginRequest {
            target: through.target.clone(),
            avoid: None,
            session: Session::default(),
            through: None,
            ..request.clone()
        };
        let asking = self.tiers.asking(role, through, &asked);
        let mut line = Vec::with_capacity(256);
        self.tiers.sign(&asking, &asked, &mut line);
        asked.fields.extend_from_slice(&line);
        let waits = Notify::new();
        let passed_on = |status: u16, fields: Vec<u8>| match status {
            102 => waits.notify_one(),
            _ => interim(status, fields),
        };
        let opened = {
            let open = node.open(&asked, &passed_on);
            tokio::pin!(open);
            let soon = async {
                let mut has_said = false;
                loop {
                    tokio::select! {
                        biased;
                        () = waits.notified() => has_said = true,
                        () = self.tiers.patience(has_said) => return,
                    }
                }
            };
            // In this order: chance has no part in what a simulation does.
            tokio::select! {
                biased;
                opened = &mut open => opened,
                () = soon => return Came::PassBy("silent"),
            }
        };
        let response = match opened {
            Ok(response) => response,
            Err(Failure::Malformed) => return Came::PassBy("malformed"),
            Err(_) => return Came::PassBy("unreachable"),
        };
        let said = Fields::new(&response.fields).only(answered::FIELD).and_then(Answer::read);
        match said {
            Some(Answer::Judged(answered)) => {
                let judged = place(role, &answered, &asking, through);
                // The rest of a body stands beside what came of it before.
                let needs = through.needs.or(request.avoid.map(|_| through.began));
                if needs.is_some_and(|needs| judged.at.is_none_or(|at| at < needs)) {
                    return Came::PassBy("earlier");
                }
                let fields = without_answered(&response.fields);
                Came::Answer(OriginResponse { judged: Some(judged), fields, ..response })
            }
            Some(Answer::Failed { status: 503 }) => Came::Failed(Failure::Busy),
            Some(Answer::Failed { status: 504 }) => Came::Failed(Failure::FirstByteTimeout),
            Some(Answer::Failed { .. }) => Came::Failed(Failure::Unreachable),
            Some(Answer::Isolated) => Came::PassBy("isolated"),
            Some(Answer::Refused) => Came::PassBy("refused"),
            // Who is no node of ours, or not any more, does not say.
            None => Came::PassBy("refused"),
        }
    }
}

/// The lines without what one node says to another.
fn without_answered(fields: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(fields.len());
    Fields::new(fields).lines().filter(|line| !line.is(answered::FIELD)).for_each(|line| line.write(&mut kept));
    kept
}

/// Where in this node's own log an answer stands: the earlier of what the other node says and of what this one had applied when it
/// asked. Positions of different logs do not compare.
fn place(by: Role, answered: &Answered, asking: &Asking, through: &Through) -> Judged {
    let is_same = answered.log == asking.log && asking.log != 0 && answered.tags;
    let judged = LogPosition::new(through.began.generation(), answered.seq);
    Judged { by, at: is_same.then(|| judged.min(through.began)), stale_since: answered.stale_since }
}

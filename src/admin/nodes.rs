//! `GET /v1/nodes` and `POST /v1/nodes/forget`: the nodes that follow one log of purges.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Admin;
use super::access::Caller;
use super::asked::Asked;
use super::purge::LogPlace;
use super::purge::handle::place;
use super::reply::Reply;

/// Every node there is. None, where a node alone keeps its log.
#[derive(Debug, Serialize, ToSchema)]
pub struct Nodes {
    pub nodes: Vec<NodeState>,
}

/// A node, as it says of itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeState {
    pub id: String,
    pub name: String,
    /// The point of presence it stands in. None: it does not say so.
    pub pop: Option<String>,
    /// The URL by which other nodes reach it. None: they do not.
    pub address: Option<String>,
    /// `current`; `isolated`: it has been cut off for longer than it may trust what it stored; `draining`; `silent`: nothing has been
    /// heard of it for so long.
    pub state: &'static str,
    /// The last record it has applied. None: it follows another log.
    pub position: Option<LogPlace>,
    pub version: String,
    /// The last version of a document of the hub that it runs with; 0: none.
    pub config: u64,
    /// What it has the same of as a node that runs with the same documents.
    pub documents: String,
    /// How long ago it said so, in milliseconds.
    pub heard_ms: u64,
}

/// A node that is no more.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgetRequest {
    /// Its name, or its id.
    pub node: String,
}

impl Admin {
    pub(super) fn nodes(&self) -> Reply {
        let state = |member: crate::purge::log::Member| NodeState {
            id: member.id,
            name: member.name,
            pop: Some(member.pop).filter(|pop| !pop.is_empty()),
            address: Some(member.address).filter(|address| !address.is_empty()),
            state: member.state,
            position: member.position.map(place),
            version: member.version,
            config: member.config,
            documents: member.documents,
            heard_ms: member.heard_ms,
        };
        Reply::json(StatusCode::OK, &Nodes { nodes: self.log.members().into_iter().map(state).collect() })
    }

    /// Receipts do not wait any more for a node that is no more.
    pub(super) async fn forget_node(&self, caller: Caller, asked: &mut Asked) -> Result<Reply, Reply> {
        let body = asked.body().await?;
        let request: ForgetRequest =
            serde_json::from_slice(&body).map_err(|error| Reply::error(StatusCode::BAD_REQUEST, error.to_string()))?;
        match self.log.forget_member(&request.node).await {
            Ok(true) => {
                tracing::info!(node = request.node, by = caller.name, "a node was taken out of the list");
                Ok(self.nodes())
            }
            Ok(false) => Err(Reply::error(StatusCode::NOT_FOUND, format!("no node is called {}", request.node))),
            Err(why) => Err(Reply::error(StatusCode::CONFLICT, why)),
        }
    }
}

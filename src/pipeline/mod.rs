//! Two small machines: the request machine serves one client, the fill machine fetches one response.
//!
//! - [`request`]: what a request is to the pipeline, and what became of it.
//! - [`decide`]: what to do with a request, given what is stored. Decided once, on one `now`.
//! - [`deliver`]: a stored response to one client.
//! - [`disk`]: what is on a disk, read for the request that wants it.
//! - [`coalesce`]: one fill for many requests.
//! - [`fetch`]: the request machine's way through a miss.
//! - [`standing_in`]: what is answered when an origin has failed.
//! - [`stream`]: a response that is arriving, to one client.
//! - [`fill`]: the fill machine.
//! - [`sparse`]: bodies of which only some chunks are there.
//! - [`ruled`]: what the rules of a site do to a response.
//! - [`edits`]: changes to field lines on their way into the store.
//! - [`isolation`]: a node that cannot know what was purged.
//! - [`nodes`]: requests of other nodes, and what these are told beside the answer.
//! - [`explain`]: what would become of a request.
//! - [`failure`]: answers of our own.

pub mod coalesce;
pub mod decide;
pub mod deliver;
pub mod disk;
pub mod edits;
pub mod explain;
pub mod failure;
pub mod fetch;
pub mod fill;
pub mod isolation;
pub mod nodes;
pub mod request;
pub mod ruled;
#[cfg(test)]
mod scripted;
pub mod session;
#[cfg(test)]
mod simulation;
pub mod sparse;
pub mod standing_in;
pub mod stream;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use coalesce::Coalesce;
use sparse::runs::Runs;

/// Starts a task that belongs to no client.
pub type Spawn = fn(Pin<Box<dyn Future<Output = ()> + Send>>);

/// What both machines share.
pub struct Pipeline {
    pub store: Store,
    pub metrics: Arc<Metrics>,
    coalesce: Coalesce,
    runs: Runs,
    spawn: Spawn,
}

impl Pipeline {
    pub fn new(store: Store, metrics: Arc<Metrics>, spawn: Spawn) -> Arc<Self> {
        Arc::new(Self { store, metrics, coalesce: Coalesce::default(), runs: Runs::default(), spawn })
    }
}

//! The node of a simulated run, and what must not be left of it.

use std::sync::Arc;

use edge_config::section::site::{GetBody, Isolated};

use super::schedule::spawn;
use crate::origin::Upstream;
use crate::origin::group::Group;
use crate::pipeline::Pipeline;
use crate::purge::position::LogPosition;
use crate::purge::selector::SiteId;
use crate::routing::{Backings, Site, rule::Rules};
use crate::semantics::storable::SetCookie;
use crate::store::{Store, key::Keyer, tiers::DiskPlan};
use crate::telemetry::metrics::Metrics;

/// A pipeline with nothing stored and so much memory, whose tasks are moved by the schedule.
pub(in crate::pipeline) fn pipeline(memory: u64) -> Arc<Pipeline> {
    let metrics = Metrics::new("simulated");
    let store = Store::new(memory, Arc::default(), Keyer::new([7; 32]), metrics.clone(), &DiskPlan::default());
    store.ledger.restore(LogPosition::new(1, 0), LogPosition::default());
    Pipeline::new(store, metrics, spawn)
}

pub(in crate::pipeline) fn site(upstream: Arc<dyn Upstream>) -> Arc<Site> {
    Arc::new(Site {
        name: "simulated".into(),
        index: 0,
        set_cookie: SetCookie::default(),
        get_body: GetBody::default(),
        trusted_clients: Vec::new(),
        rules: Rules::default(),
        id: SiteId::of("simulated"),
        keep_surrogate_keys: false,
        deception_armour: true,
        session_cookies: Vec::new(),
        no_vary_search: false,
        cache_status: true,
        https_only: false,
        shield: None,
        is_asked_by_nodes: true,
        isolated: Isolated::Revalidate,
        isolated_requests: 64,
        error_pages: Vec::new(),
        backings: Backings::of_one(Group::idle("simulated", "http://simulated".parse().expect("an origin")), upstream),
        geo: None,
    })
}

/// Once all tasks are done, nobody can join anything, and no memory is reserved.
pub(in crate::pipeline) fn nothing_is_left_over(pipeline: &Pipeline) -> Result<(), String> {
    let fills = (pipeline.coalesce.len(), pipeline.store.budget.fills.used(), pipeline.metrics.fill_waiters.get());
    if (pipeline.runs.len(), fills) != (0, (0, 0, 0)) {
        let runs = pipeline.runs.len();
        return Err(format!("{runs} runs; fills to join, bytes reserved, waiters counted: {fills:?} are left over"));
    }
    Ok(())
}

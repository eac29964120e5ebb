//! One site, as requests see it.

use std::net::IpAddr;
use std::sync::Arc;

use edge_config::section::site::{GetBody, Network, SetCookie as SetCookieSetting};

use crate::origin::Upstream;
use crate::origin::group::Group;
use crate::semantics::storable::SetCookie;

/// One site: its policies and who answers for it. Immutable; a new configuration makes new ones.
pub struct Site {
    pub name: String,
    /// The label index of the site in the metrics.
    pub index: usize,
    pub set_cookie: SetCookie,
    pub get_body: GetBody,
    pub trusted_clients: Vec<Network>,
    pub group: Arc<Group>,
    /// The same, as a fill asks.
    pub upstream: Arc<dyn Upstream>,
}

impl Site {
    pub fn new(
        config: &edge_config::section::site::Site,
        index: usize,
        group: Arc<Group>,
        upstream: Arc<dyn Upstream>,
    ) -> Self {
        let set_cookie = match config.set_cookie {
            SetCookieSetting::Refuse => SetCookie::Refuse,
            SetCookieSetting::Rfc9111 => SetCookie::Rfc9111,
        };
        Self {
            name: config.name.clone(),
            index,
            set_cookie,
            get_body: config.get_body,
            trusted_clients: config.trusted_clients.clone(),
            group,
            upstream,
        }
    }

    /// The index of the origin, where there is no other: who failed is known then.
    pub fn only_origin(&self) -> Option<usize> {
        (self.group.members().len() == 1).then_some(0)
    }

    /// Whether what a client says of itself in `X-Forwarded-*` and the like is believed.
    pub fn trusts(&self, client: IpAddr) -> bool {
        self.trusted_clients.iter().any(|network| network.contains(client))
    }
}

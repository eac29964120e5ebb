//! One site, as requests see it.

use std::net::IpAddr;
use std::sync::Arc;

use edge_config::section::geo::Geo;
use edge_config::section::site::{ErrorPage, GetBody, Isolated, Network, SetCookie as SetCookieSetting};

use super::backing::{Backing, Backings, GroupIndex};
use super::rule::Rules;
use crate::origin::Upstream;
use crate::purge::selector::SiteId;
use crate::semantics::storable::SetCookie;

/// One site: its policies and who answers for it. Immutable; a new configuration makes new ones.
pub struct Site {
    pub name: String,
    /// The label index of the site in the metrics.
    pub index: usize,
    /// What purges know the site by.
    pub id: SiteId,
    pub set_cookie: SetCookie,
    pub get_body: GetBody,
    pub trusted_clients: Vec<Network>,
    pub rules: Rules,
    /// Whether clients are told what the cache did.
    pub cache_status: bool,
    /// Whether clients see the fields that carry surrogate keys.
    pub keep_surrogate_keys: bool,
    /// Whether what contradicts its path's extension is kept out of the store.
    pub deception_armour: bool,
    /// Whether the origin's `No-Vary-Search` is honoured.
    pub no_vary_search: bool,
    /// Whether requests in the clear are redirected.
    pub https_only: bool,
    /// Bodies for answers of our own, the most particular first.
    pub error_pages: Vec<ErrorPage>,
    /// What becomes of what is stored while the node cannot know what was purged, and how much of it each origin is asked for at a
    /// time.
    pub isolated: Isolated,
    pub isolated_requests: u32,
    pub backings: Backings,
    /// The cookies that its groups tell sessions by: nobody else's business.
    pub session_cookies: Vec<String>,
    /// The PoP whose nodes are asked before its origins are.
    pub shield: Option<String>,
    /// Whether other nodes may ask for what is stored of it: they have to know what it is purged by.
    pub is_asked_by_nodes: bool,
    /// In which country an address is; none where nobody knows.
    pub geo: Option<Geo>,
}

impl Site {
    pub fn new(config: &edge_config::section::site::Site, index: usize, backings: Backings, geo: Option<Geo>) -> Self {
        let set_cookie = match config.set_cookie {
            SetCookieSetting::Refuse => SetCookie::Refuse,
            SetCookieSetting::Rfc9111 => SetCookie::Rfc9111,
        };
        Self {
            name: config.name.clone(),
            index,
            id: SiteId::of(&config.name),
            keep_surrogate_keys: config.keep_surrogate_keys,
            deception_armour: config.deception_armour,
            no_vary_search: config.no_vary_search,
            set_cookie,
            get_body: config.get_body,
            trusted_clients: config.trusted_clients.clone(),
            rules: Rules::new(config.rules.clone()),
            cache_status: config.cache_status,
            https_only: config.https_only,
            isolated: config.isolated,
            isolated_requests: config.isolated_requests,
            error_pages: config.error_pages.clone(),
            session_cookies: backings
                .all()
                .filter_map(|backing| backing.group.cookie_name().map(str::to_owned))
                .collect(),
            backings,
            shield: config.shield.clone(),
            is_asked_by_nodes: false,
            geo,
        }
    }

    /// The same site, where other nodes may ask for what is stored of it.
    pub fn asked_by_nodes(self) -> Self {
        Self { is_asked_by_nodes: true, ..self }
    }

    /// The body for an answer of our own.
    pub fn error_page(&self, status: u16) -> Option<&ErrorPage> {
        self.error_pages.iter().find(|page| page.status.contains(status))
    }

    /// The index of the origin, where its group has no other: who failed is known then.
    pub fn only_origin(&self, group: GroupIndex) -> Option<usize> {
        let roster = self.backing(group).group.roster();
        let mut members = roster.iter();
        members.next().filter(|_| members.next().is_none()).map(|only| only.index)
    }

    /// Who answers.
    pub fn backing(&self, group: GroupIndex) -> &Backing {
        self.backings.at(group)
    }

    /// The same, as a fill asks.
    pub fn upstream(&self, group: GroupIndex) -> &Arc<dyn Upstream> {
        &self.backing(group).upstream
    }

    /// Whether what a client says of itself in `X-Forwarded-*` and the like is believed.
    pub fn trusts(&self, client: IpAddr) -> bool {
        self.trusted_clients.iter().any(|network| network.contains(client))
    }
}

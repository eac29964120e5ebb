//! Whose a name is that a client asks for.

use std::collections::HashMap;

use edge_config::section::site::{HostPattern, Site};

/// The hosts of all sites, as [`Snapshot`](crate::routing::Snapshot) has them.
#[derive(Debug, Default)]
pub struct Hosts<'c> {
    exact: HashMap<&'c str, &'c str>,
    /// By the name that stands behind `*.`.
    below: HashMap<&'c str, &'c str>,
    any: Option<&'c str>,
    /// The hosts that are one label below a name.
    children: HashMap<&'c str, Vec<&'c str>>,
}

impl<'c> Hosts<'c> {
    pub fn of(sites: &'c [Site]) -> Self {
        let mut hosts = Self::default();
        for site in sites {
            for host in &site.hosts {
                match host {
                    HostPattern::Any => hosts.any = Some(&site.name),
                    HostPattern::Below(name) => _ = hosts.below.insert(name, &site.name),
                    HostPattern::Exact(name) => {
                        hosts.exact.insert(name, &site.name);
                        if let Some((_, parent)) = name.split_once('.') {
                            hosts.children.entry(parent).or_default().push(name);
                        }
                    }
                }
            }
        }
        hosts
    }

    /// The site that answers for a name in lower case.
    pub fn site_of(&self, name: &str) -> Option<&'c str> {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.exact.get(name).copied().or_else(|| parent.map_or(self.any, |parent| self.site_below(parent)))
    }

    /// The site that answers for whatever is one label below a name and is no host of its own.
    pub fn site_below(&self, parent: &str) -> Option<&'c str> {
        let mut rest = Some(parent);
        while let Some(name) = rest {
            if let Some(site) = self.below.get(name) {
                return Some(site);
            }
            rest = name.split_once('.').map(|(_, rest)| rest);
        }
        self.any
    }

    /// The hosts that are one label below a name, each with its site.
    pub fn below(&self, parent: &str) -> impl Iterator<Item = (&'c str, &'c str)> {
        let children = self.children.get(parent).map(Vec::as_slice).unwrap_or_default();
        children.iter().filter_map(|host| Some((*host, *self.exact.get(host)?)))
    }

    /// Whether a name of a certificate, which may be a wildcard, is for a host of a site.
    pub fn is_of(&self, site: &str, name: &str) -> bool {
        match name.strip_prefix("*.") {
            Some(parent) => {
                self.site_below(parent) == Some(site) || self.below(parent).any(|(_, theirs)| theirs == site)
            }
            None => self.site_of(name) == Some(site),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use std::sync::Arc;

    use edge_config::section::limits::Limits;
    use edge_config::section::origin::Origin;

    use super::*;
    use crate::origin::Nobody;
    use crate::origin::group::Group;
    use crate::routing::{Backings, Site as Routed, Snapshot};

    /// Sites with these hosts.
    pub fn sites(given: &[(&str, &[&str])]) -> Vec<Site> {
        let site = |(name, hosts): &(&str, &[&str])| {
            let origin: Origin = "http://127.0.0.1:1".parse().expect("an origin");
            let hosts = hosts.iter().map(|host| host.parse().expect("a host")).collect();
            Site { hosts, ..Site::of_one(name, origin) }
        };
        given.iter().map(site).collect()
    }

    #[test]
    fn names_are_of_the_site_that_answers_for_them() {
        let given: [(&str, &[&str]); 4] = [
            ("shop", &["shop.test", "*.shop.test", "b.deep.test"]),
            ("blog", &["blog.shop.test", "*.eu.shop.test"]),
            ("deep", &["*.test"]),
            ("one", &["single"]),
        ];
        let four = sites(&given);
        let hosts = Hosts::of(&four);
        let origin: Origin = "http://127.0.0.1:1".parse().expect("an origin");
        let backings = |name: &str| Backings::of_one(Group::idle(name, origin.clone()), Arc::new(Nobody));
        let routed =
            four.iter().map(|site| (Arc::new(Routed::new(site, 0, backings(&site.name), None)), site.hosts.clone()));
        let snapshot = Snapshot::new(1, Limits::default(), routed.collect());
        for name in [
            "shop.test",
            "www.shop.test",
            "a.www.shop.test",
            "blog.shop.test",
            "a.blog.shop.test",
            "eu.shop.test",
            "a.eu.shop.test",
            "a.b.eu.shop.test",
            "b.deep.test",
            "c.deep.test",
            "test",
            "single",
            "a.single",
            "x",
        ] {
            let expected = snapshot.site(name.as_bytes()).map(|site| site.name.as_str());
            assert_eq!(hosts.site_of(name), expected, "{name}");
        }
        for (site, name, expected) in [
            ("shop", "*.shop.test", true),
            ("blog", "*.shop.test", true),
            ("deep", "*.shop.test", false),
            ("blog", "*.eu.shop.test", true),
            ("shop", "*.eu.shop.test", false),
            ("shop", "*.deep.test", true),
            ("deep", "*.deep.test", true),
            ("shop", "www.shop.test", true),
            ("shop", "blog.shop.test", false),
        ] {
            assert_eq!(hosts.is_of(site, name), expected, "{site} {name}");
        }
        let rest = sites(&[("shop", &["shop.test"]), ("rest", &["*"])]);
        let any = Hosts::of(&rest);
        assert_eq!(
            (any.site_of("shop.test"), any.site_of("other"), any.site_below("shop.test")),
            (Some("shop"), Some("rest"), Some("rest"))
        );
    }
}

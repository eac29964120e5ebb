//! What is counted of single sites, for who may see those and no others.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use prometheus::proto::{Metric, MetricFamily};

use super::{CacheOutcome, Levels, Metrics, in_text};

/// The label that says of which site something is.
const SITE: &str = "site";

/// What a site did since the node was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteCounts {
    /// Requests that ended, by what the cache did for them.
    pub cache: BTreeMap<String, u64>,
    /// The same requests, by the status they were answered with.
    pub status: BTreeMap<String, u64>,
    /// Bytes of response bodies, by what the cache did.
    pub response_bytes: BTreeMap<String, u64>,
    /// Requests to origins, by what became of them.
    pub origin: BTreeMap<String, u64>,
    /// Things that purges asked for on this node named, by kind.
    pub purges: BTreeMap<String, u64>,
}

impl SiteCounts {
    pub fn requests(&self) -> u64 {
        self.cache.values().sum()
    }

    /// The part of the requests that was answered from the store, without or after asking an origin whether something has changed.
    /// None: there was none.
    pub fn hit_ratio(&self) -> Option<f64> {
        let of = |outcome: CacheOutcome| self.cache.get(outcome.as_str()).copied().unwrap_or(0);
        let hits = of(CacheOutcome::Hit) + of(CacheOutcome::Stale) + of(CacheOutcome::Revalidated);
        match self.requests() {
            0 => None,
            all => Some(hits as f64 / all as f64),
        }
    }
}

impl Metrics {
    /// What has a label that says it is of one of these sites, in the text format 0.0.4. What is of none of them, or of the node, is
    /// not in it, nor is the name of its family.
    pub fn encode_of(&self, levels: &Levels, is_of: impl Fn(&str) -> bool) -> String {
        self.bring_up_to_date(levels);
        in_text(&of_sites(self.registry.gather(), is_of))
    }

    /// What each of these sites did.
    pub fn counts_of<'a>(&self, sites: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, SiteCounts> {
        self.tallies.flush();
        let mut counts: BTreeMap<&str, SiteCounts> = sites.map(|site| (site, SiteCounts::default())).collect();
        let mut add = |families: Vec<MetricFamily>, entry: fn(&mut SiteCounts, &Metric, u64)| {
            for sample in families.iter().flat_map(MetricFamily::get_metric) {
                let site = label(sample, SITE).and_then(|site| counts.get_mut(site));
                if let Some(site) = site {
                    entry(site, sample, sample.get_counter().get_value() as u64);
                }
            }
        };
        add(self.families.requests.collect(), |site, sample, count| {
            count_by(&mut site.cache, sample, "cache", count);
            count_by(&mut site.status, sample, "status", count);
        });
        add(self.families.response_bytes.collect(), |site, sample, count| {
            count_by(&mut site.response_bytes, sample, "cache", count);
        });
        add(self.families.origin_requests.collect(), |site, sample, count| {
            count_by(&mut site.origin, sample, "outcome", count);
        });
        add(self.families.purges.collect(), |site, sample, count| count_by(&mut site.purges, sample, "kind", count));
        counts
    }
}

fn count_by(counts: &mut BTreeMap<String, u64>, sample: &Metric, name: &str, count: u64) {
    if let Some(value) = label(sample, name) {
        *counts.entry(value.to_owned()).or_default() += count;
    }
}

fn label<'m>(sample: &'m Metric, name: &str) -> Option<&'m str> {
    sample.get_label().iter().find(|label| label.name() == name).map(|label| label.value())
}

/// Families with the samples of these sites alone; those that have none are left out.
fn of_sites(families: Vec<MetricFamily>, is_of: impl Fn(&str) -> bool) -> Vec<MetricFamily> {
    let mut families = families;
    for family in &mut families {
        let samples = family.take_metric();
        // A label without a value is none: what has it is of no site.
        let ours = samples
            .into_iter()
            .filter(|sample| label(sample, SITE).is_some_and(|site| !site.is_empty() && is_of(site)));
        family.set_metric(ours.collect());
    }
    families.retain(|family| !family.get_metric().is_empty());
    families
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::CertificateEnd;

    fn two_sites() -> std::sync::Arc<Metrics> {
        let metrics = Metrics::new("1.2.3");
        for (index, name) in ["shop", "blog", "shop-2"].into_iter().enumerate() {
            let site = metrics.site(name);
            let count = 1 << index;
            for _ in 0..count {
                metrics.request(site, CacheOutcome::Hit, 200, 10);
                metrics.request(site, CacheOutcome::Miss, 404, 0);
                metrics.origin_request(site, "a:80", "ok");
                metrics.purged(name, "tag", "delete");
            }
            metrics.origin_queue(site, "", 3);
        }
        metrics.purged("*", "everything", "delete");
        metrics.request(0, CacheOutcome::Revalidated, 200, 5);
        metrics.request(0, CacheOutcome::Pass, 502, 5);
        metrics
    }

    #[test]
    fn a_site_sees_its_own_samples_alone() {
        let metrics = two_sites();
        metrics.refusal("bad-host");
        metrics.certificates(&[CertificateEnd { name: "a.test".into(), site: String::new(), seconds: 1 }]);
        let rows: [(&[&str], &[&str]); 4] = [
            (&["shop"], &["shop"]),
            (&["shop", "blog"], &["shop", "blog"]),
            (&["nobody"], &[]),
            // It is of all sites, and no name of one.
            (&[""], &[]),
        ];
        for (may, expected) in rows {
            let text = metrics.encode_of(&Levels::default(), |site| may.contains(&site));
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                assert!(expected.iter().any(|site| line.contains(&format!("site=\"{site}\""))), "{may:?}: {line}");
            }
            for site in ["shop", "blog", "shop-2"] {
                let is_there = text.contains(&format!("site=\"{site}\""));
                assert_eq!(is_there, expected.contains(&site), "{may:?}: {site} in {text}");
            }
            assert_eq!(text.is_empty(), expected.is_empty(), "{may:?}: {text}");
        }
        assert!(metrics.encode(&Levels::default()).contains("littoral_refusals_total"), "everything has it");
    }

    #[test]
    fn counts_are_those_of_the_metrics() {
        let metrics = two_sites();
        let counts = metrics.counts_of(["shop", "new"].into_iter());
        assert_eq!(counts.keys().copied().collect::<Vec<_>>(), ["new", "shop"]);
        let map = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let shop = SiteCounts {
            cache: map(&[("hit", 1), ("miss", 1), ("pass", 1), ("revalidated", 1)]),
            status: map(&[("200", 2), ("404", 1), ("502", 1)]),
            response_bytes: map(&[("hit", 10), ("pass", 5), ("revalidated", 5)]),
            origin: map(&[("ok", 1)]),
            purges: map(&[("tag", 1)]),
        };
        assert_eq!(counts["shop"], shop);
        assert_eq!((counts["shop"].requests(), counts["shop"].hit_ratio()), (4, Some(0.5)));
        assert_eq!((counts["new"].requests(), counts["new"].hit_ratio()), (0, None));
    }
}

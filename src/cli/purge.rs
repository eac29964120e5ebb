//! `littoral purge`: what to purge.

use clap::Args;
use edge_config::Duration;

use super::AdminAddress;

/// What to purge.
#[derive(Args, Clone, Debug)]
pub struct PurgeArgs {
    /// URLs, all variants of each, over HTTP and HTTPS
    #[arg(value_name = "URL")]
    pub urls: Vec<String>,
    /// A surrogate key; may be repeated, as all of these
    #[arg(long = "tag", value_name = "KEY")]
    pub tags: Vec<String>,
    /// The beginning of a path: /path, or host/path
    #[arg(long = "prefix", value_name = "PREFIX")]
    pub prefixes: Vec<String>,
    /// A host
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
    /// A whole site, by name; with --tag or --prefix: the site these are of
    #[arg(long = "site", value_name = "SITE")]
    pub sites: Vec<String>,
    /// All sites
    #[arg(long)]
    pub everything: bool,
    /// Stale at once instead of gone: validated before it is used again
    #[arg(long)]
    pub soft: bool,
    /// "all": wait until every node has applied it
    #[arg(long, value_name = "WHO", value_parser = ["all"])]
    pub wait: Option<String>,
    /// How long to wait
    #[arg(long, value_name = "TIME", requires = "wait")]
    pub timeout: Option<Duration>,
    #[command(flatten)]
    pub admin: AdminAddress,
    /// JSON, as the admin API gives it
    #[arg(long)]
    pub json: bool,
}

impl PurgeArgs {
    /// The request to the admin API.
    pub fn body(&self) -> serde_json::Value {
        let of_site = !self.tags.is_empty() || self.prefixes.iter().any(|prefix| prefix.starts_with('/'));
        let (site, sites) = match (of_site, self.sites.as_slice()) {
            (true, [site]) => (Some(site), &[][..]),
            (_, sites) => (None, sites),
        };
        let mut body = serde_json::json!({
            "urls": self.urls,
            "tags": self.tags,
            "prefixes": self.prefixes,
            "hosts": self.hosts,
            "sites": sites,
            "everything": self.everything,
            "mode": if self.soft { "invalidate" } else { "delete" },
        });
        if let (Some(site), Some(body)) = (site, body.as_object_mut()) {
            body.insert("site".into(), site.as_str().into());
        }
        body
    }
}

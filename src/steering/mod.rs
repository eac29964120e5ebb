//! Where DNS sends clients: a configuration, rendered for a name server.
//!
//! Nothing here knows a file or a clock; the command `littoral dns` does (`app::dns`).
//!
//! - [`latency`]: how long it takes from networks to PoPs, and the order that makes for each network.
//! - [`gdnsd`]: the files of gdnsd.

pub mod gdnsd;
pub mod latency;

use edge_config::section::dns::{Dns, label};
use edge_config::section::pop::Pop;

use self::latency::Latencies;

/// What a name server is to be told.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    pub dns: &'a Dns,
    /// At least one, in the order of the file.
    pub pops: &'a [Pop],
    /// The labels of sites in the zone, sorted, each once.
    pub labels: &'a [String],
    /// For steering by latency.
    pub latencies: Option<&'a Latencies>,
}

/// A file for a name server, by its path in the directory of its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub path: String,
    pub text: String,
}

/// Sites that cannot have names in the zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sites {0} and {1} have one name in the zone, \"{2}\": rename one of them")]
pub struct OneLabel(String, String, String);

/// The labels of sites, some of which may be named twice.
///
/// # Errors
/// Two sites have the same one.
pub fn labels<'n>(sites: impl Iterator<Item = &'n str>) -> Result<Vec<String>, OneLabel> {
    let mut sites: Vec<(String, &str)> = sites.map(|name| (label(name), name)).collect();
    sites.sort();
    sites.dedup();
    if let Some([(same, one), (_, other)]) = sites.array_windows().find(|[(one, _), (other, _)]| one == other) {
        return Err(OneLabel((*one).to_owned(), (*other).to_owned(), same.clone()));
    }
    Ok(sites.into_iter().map(|(label, _)| label).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_of_a_file_and_of_a_node() {
        let with = |names: &[&str]| labels(names.iter().copied());
        assert_eq!(with(&["shop", "a.b"]), Ok(vec!["a-b".to_owned(), "shop".to_owned()]));
        assert_eq!(with(&["shop", "Blog_1", "shop"]), Ok(vec!["blog-1".to_owned(), "shop".to_owned()]));
        let error = with(&["a.b", "shop", "a_b"]).expect_err("one label");
        assert_eq!(error.to_string(), "the sites a.b and a_b have one name in the zone, \"a-b\": rename one of them");
    }
}

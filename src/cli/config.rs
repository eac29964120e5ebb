//! `littoral config`: what the hub has of the configuration for all nodes, and putting something else in its place.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::cache::Asked;

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Config {
    /// List what the hub has, what is in force on the node that is asked, and what the nodes run with. With --site or --node: the
    /// text of the latest version, or of another one
    Show {
        #[command(flatten)]
        of: MaybeOf,
        /// The text of this version
        #[arg(long, value_name = "N", requires = "of")]
        version: Option<u64>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Show how a file differs from the latest version
    Diff {
        /// What a file in sites.d would hold, or the settings for all nodes
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        asked: Asked,
    },
    /// Publish a file as the next version; it is validated first, and live on all nodes at once
    Push {
        /// What a file in sites.d would hold, or the settings for all nodes; an empty one removes the site
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        of: Of,
        /// For this part of the nodes, in percent; push it again without to complete it
        #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100))]
        share: u8,
        /// Only if this is the latest version; 0: if there is none
        #[arg(long, value_name = "N")]
        expect: Option<u64>,
        /// What is to be said of it in lists of versions
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// List the versions the hub has
    History {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        asked: Asked,
    },
    /// Publish an earlier version again, on all nodes [default: the last one that was on all nodes and is not the same as the latest]
    Rollback {
        #[command(flatten)]
        of: Of,
        /// This one
        #[arg(long, value_name = "N")]
        version: Option<u64>,
        #[command(flatten)]
        asked: Asked,
    },
}

/// Which document.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct Of {
    /// A site, by name
    #[arg(long, value_name = "SITE")]
    pub site: Option<String>,
    /// The settings for all nodes
    #[arg(long)]
    pub node: bool,
}

/// Which document, or all of them.
#[derive(Args, Clone, Debug)]
#[group(id = "of", required = false, multiple = false)]
pub struct MaybeOf {
    /// A site, by name
    #[arg(long, value_name = "SITE")]
    pub site: Option<String>,
    /// The settings for all nodes
    #[arg(long)]
    pub node: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn command_lines() {
        for (line, is_good) in [
            ("show", true),
            ("show --json", true),
            ("show --site shop --version 7", true),
            ("show --version 7", false),
            ("show --site shop --node", false),
            ("diff shop.toml --site shop", true),
            ("diff shop.toml", false),
            ("push shop.toml --site shop --share 10 --expect 7 --note canary", true),
            ("push all.toml --node", true),
            ("push shop.toml --site shop --share 0", false),
            ("push shop.toml --site shop --share 101", false),
            ("push --site shop", false),
            ("history --site shop", true),
            ("history", false),
            ("rollback --site shop --version 7", true),
            ("rollback --node", true),
            ("rollback", false),
            ("", false),
        ] {
            let words = ["littoral", "config"].into_iter().chain(line.split_whitespace());
            assert_eq!(Cli::try_parse_from(words).is_ok(), is_good, "{line}");
        }
    }
}

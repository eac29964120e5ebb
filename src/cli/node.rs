//! `littoral node`: the nodes of a CDN.

use clap::Subcommand;

use super::cache::Asked;

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Node {
    /// List the nodes that follow the same log of purges, and how far each is
    List {
        #[command(flatten)]
        asked: Asked,
    },
    /// Take a node that is no more out of the list: receipts do not wait for it any longer
    Forget {
        /// Its name, or its id
        #[arg(value_name = "NODE")]
        node: String,
        #[command(flatten)]
        asked: Asked,
    },
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn command_lines() {
        for (line, is_good) in
            [("list", true), ("list --json", true), ("forget edge-3", true), ("forget", false), ("", false)]
        {
            let words = ["littoral", "node"].into_iter().chain(line.split_whitespace());
            assert_eq!(Cli::try_parse_from(words).is_ok(), is_good, "{line}");
        }
    }
}

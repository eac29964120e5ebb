//! `littoral origin`: how origins stand, and taking one out.

use clap::Subcommand;
use edge_config::Duration;

use super::cache::Asked;

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Origin {
    /// List the origins of a node and how they stand
    List {
        /// Of this site alone
        #[arg(long, value_name = "SITE")]
        site: Option<String>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Take an origin out: it gets no new sessions, and what is under way ends by itself. A reload of the configuration
    /// leaves it so, a restart of the node does not
    Drain {
        /// The site, by name
        #[arg(value_name = "SITE")]
        site: String,
        /// The origin, as `list` calls it, or one of its addresses
        #[arg(value_name = "ORIGIN")]
        origin: String,
        /// For how long sessions it has still go there [default: as long as they last]
        #[arg(long = "for", value_name = "TIME")]
        time: Option<Duration>,
        /// Return when nothing of it is left
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        asked: Asked,
    },
    /// Have an origin get requests again
    Undrain {
        /// The site, by name
        #[arg(value_name = "SITE")]
        site: String,
        /// The origin, as `list` calls it, or one of its addresses
        #[arg(value_name = "ORIGIN")]
        origin: String,
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
        for (line, is_good) in [
            ("list", true),
            ("list --site shop --json", true),
            ("drain shop a:80", true),
            ("drain shop a:80 --for 10m --wait", true),
            ("drain shop", false),
            ("drain shop a:80 --for 10", false),
            ("undrain shop a:80", true),
            ("undrain shop a:80 --for 10m", false),
            ("", false),
        ] {
            let words = ["littoral", "origin"].into_iter().chain(line.split_whitespace());
            assert_eq!(Cli::try_parse_from(words).is_ok(), is_good, "{line}");
        }
    }
}

//! `littoral cache`: what a node has stored, and whether it is what was written.

use clap::{Args, Subcommand};

use super::AdminAddress;

/// What to look at.
#[derive(Clone, Debug, Subcommand)]
pub enum Cache {
    /// Show everything stored for a URL: where it is, how old it is, what purges have left of it
    Show {
        /// The URL, as a client would ask for it
        #[arg(value_name = "URL")]
        url: String,
        /// A field of the request, as in curl; may be repeated
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
        headers: Vec<String>,
        #[command(flatten)]
        asked: Asked,
    },
    /// List what a node has stored of a site, or below a URL
    Ls {
        /// The site, by name [default: of the prefix, or the only one]
        #[arg(long, value_name = "SITE")]
        site: Option<String>,
        /// The beginning of a URL: http://host/path, host/path or /path
        #[arg(long, value_name = "PREFIX")]
        prefix: Option<String>,
        /// Responses to list at most
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Go on where an earlier listing stopped
        #[arg(long, value_name = "CURSOR")]
        cursor: Option<String>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Read what is on disks, to see whether it is what was written; exit code 1 when something is not. Without a URL and
    /// --all: say how far a verification of everything is
    Verify {
        /// The URL, as a client would ask for it
        #[arg(value_name = "URL", conflicts_with = "all")]
        url: Option<String>,
        /// A field of the request, as in curl; may be repeated
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", requires = "url")]
        headers: Vec<String>,
        /// Everything on every disk, in the background
        #[arg(long)]
        all: bool,
        /// MiB read in a second at most [default: 64]
        #[arg(long, value_name = "MIB", requires = "all", conflicts_with = "url", value_parser = clap::value_parser!(u32).range(1..))]
        rate: Option<u32>,
        /// Return when it has ended
        #[arg(long, requires = "all", conflicts_with = "url")]
        wait: bool,
        #[command(flatten)]
        asked: Asked,
    },
}

/// Whom to ask, and how to say it.
#[derive(Args, Clone, Debug)]
pub struct Asked {
    #[command(flatten)]
    pub admin: AdminAddress,
    /// JSON, as the admin API gives it
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn command_lines() {
        for (line, is_good) in [
            ("show http://a/b -H Accept:x", true),
            ("show", false),
            ("ls --site shop --limit 5 --json", true),
            ("ls --limit 0", false),
            ("verify", true),
            ("verify http://a/b", true),
            ("verify --all --rate 5 --wait --admin 127.0.0.1:1", true),
            ("verify http://a/b --all", false),
            ("verify http://a/b --rate 5", false),
            ("verify --wait", false),
            ("", false),
        ] {
            let words = ["littoral", "cache"].into_iter().chain(line.split_whitespace());
            assert_eq!(Cli::try_parse_from(words).is_ok(), is_good, "{line}");
        }
    }
}

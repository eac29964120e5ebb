//! `littoral hub`: setting up what the nodes of a CDN share.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Hub {
    /// Make the streams that nodes need, or bring them up to date. Nothing in them is lost
    Init {
        #[command(flatten)]
        at: At,
        /// On how many servers each stream is kept: 1, or 3 or 5 of a cluster
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
        replicas: u8,
    },
}

/// Where the hub is, and who asks.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = true)]
pub struct At {
    /// The hub of this configuration file
    #[arg(long, value_name = "FILE", conflicts_with = "nats")]
    pub config: Option<PathBuf>,
    /// A server of the hub, nats://HOST:PORT or tls://HOST:PORT; may be repeated
    #[arg(long, value_name = "URL")]
    pub nats: Vec<String>,
    /// A file of credentials, as `nsc` makes it
    #[arg(long, value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// A name and a password
    #[arg(long, value_name = "NAME:PASSWORD", env = "LITTORAL_HUB_USER")]
    pub user: Option<String>,
    /// Authorities that may vouch for the hub
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn command_lines() {
        for (line, is_good) in [
            ("init --nats nats://a:4222", true),
            ("init --nats nats://a:4222 --nats nats://b:4222 --replicas 3 --user a:b --ca ca.pem", true),
            ("init --config edge.toml", true),
            ("init --config edge.toml --nats nats://a:4222", false),
            ("init --nats nats://a:4222 --replicas 0", false),
            ("init", false),
            ("", false),
        ] {
            let words = ["littoral", "hub"].into_iter().chain(line.split_whitespace());
            assert_eq!(Cli::try_parse_from(words).is_ok(), is_good, "{line}");
        }
    }
}

//! `littoral site`: the sites of a CDN, and their hosts.

use clap::Subcommand;

use super::cache::Asked;

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Site {
    /// Add a site, on all nodes: reserve its hosts, say what to set in DNS, and wait until clients are served
    Add {
        /// Its name: letters, digits, hyphens, underscores and dots
        #[arg(value_name = "SITE")]
        site: String,
        /// A host it answers for, as in www.example.com or *.example.com; may be repeated
        #[arg(long = "host", value_name = "HOST", required = true)]
        hosts: Vec<String>,
        /// Where its content comes from: http://host[:port] or https://host[:port]; may be repeated
        #[arg(long = "origin", value_name = "URL", required = true)]
        origins: Vec<String>,
        /// Answer requests in the clear too, in place of redirecting them to HTTPS
        #[arg(long)]
        allow_http: bool,
        #[command(flatten)]
        watch: Watch,
        #[command(flatten)]
        asked: Asked,
    },
    /// List the sites, and how their hosts stand
    List {
        #[command(flatten)]
        asked: Asked,
    },
    /// Say how the hosts of a site stand, and what is missing
    Show {
        #[arg(value_name = "SITE")]
        site: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// Take a site away, on all nodes
    Remove {
        #[arg(value_name = "SITE")]
        site: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// The hosts of a site
    #[command(subcommand)]
    Host(Host),
}

/// What to do with a host.
#[derive(Clone, Debug, Subcommand)]
pub enum Host {
    /// Add a host to a site, and wait until its clients are served
    Add {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        watch: Watch,
        #[command(flatten)]
        asked: Asked,
    },
    /// Take a host away
    Remove {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        asked: Asked,
    },
    /// Have no certificate ordered for a host any more, and use none that was issued
    Revoke {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        asked: Asked,
    },
    /// Have a host that was revoked looked at anew
    Allow {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        asked: Asked,
    },
}

/// A host of a site.
#[derive(Clone, Debug, clap::Args)]
pub struct Of {
    #[arg(value_name = "SITE")]
    pub site: String,
    #[arg(value_name = "HOST")]
    pub host: String,
}

/// For how long it is watched.
#[derive(Clone, Debug, clap::Args)]
pub struct Watch {
    /// Do not wait until clients are served
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait, as in 10m; exit code 1 when they are not served by then
    #[arg(long, value_name = "TIME", default_value = "10m")]
    pub timeout: edge_config::Duration,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn command_lines() {
        for (line, is_good) in [
            ("add shop --host www.a.test --origin https://a.test", true),
            ("add shop --host a.test --host b.test --origin https://a.test --no-wait --json", true),
            ("add shop --host a.test --origin https://a.test --timeout 30s --allow-http", true),
            ("add shop --host a.test", false),
            ("add shop --origin https://a.test", false),
            ("add --host a.test --origin https://a.test", false),
            ("list", true),
            ("show shop", true),
            ("show", false),
            ("remove shop", true),
            ("host add shop a.test", true),
            ("host remove shop a.test", true),
            ("host revoke shop a.test", true),
            ("host allow shop", false),
            ("", false),
        ] {
            let words = ["littoral", "site"].into_iter().chain(line.split_whitespace());
            assert_eq!(Cli::try_parse_from(words).is_ok(), is_good, "{line}");
        }
    }
}

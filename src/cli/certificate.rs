//! `littoral certificate`: the certificates that sites bring themselves.

use std::path::PathBuf;

use clap::Subcommand;

use super::cache::Asked;

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Certificate {
    /// Put a certificate in force for a site, on all nodes at once, without a reload
    Add {
        /// The site, by name
        #[arg(long, value_name = "SITE")]
        site: String,
        /// The certificate chain in PEM, the site's own first
        #[arg(long, value_name = "FILE")]
        chain: PathBuf,
        /// The private key in PEM; the node keeps it sealed, and gives it to nobody
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        #[command(flatten)]
        asked: Asked,
    },
    /// List the certificates of a node, those of the operator's files too
    List {
        /// Of this site alone
        #[arg(long, value_name = "SITE")]
        site: Option<String>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Have another account with the authority of `[acme]` made for the next order, by all nodes: where `store_key` was changed
    ForgetAccount {
        #[command(flatten)]
        asked: Asked,
    },
    /// Take a certificate that a site has brought out of force, on all nodes
    Remove {
        /// The site, by name
        #[arg(long, value_name = "SITE")]
        site: String,
        /// SHA-256 of the certificate, as `list` has it
        #[arg(value_name = "FINGERPRINT")]
        fingerprint: String,
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
            ("add --site shop --chain a.pem --key a.key", true),
            ("add --site shop --chain a.pem --key a.key --json", true),
            ("add --site shop --chain a.pem", false),
            ("add --chain a.pem --key a.key", false),
            ("forget-account", true),
            ("list", true),
            ("list --site shop --json", true),
            ("remove --site shop 00aa", true),
            ("remove --site shop", false),
            ("remove 00aa", false),
            ("", false),
        ] {
            let words = ["littoral", "certificate"].into_iter().chain(line.split_whitespace());
            assert_eq!(Cli::try_parse_from(words).is_ok(), is_good, "{line}");
        }
        let statistics = ["littoral", "statistics", "--site", "shop", "--json"];
        assert!(Cli::try_parse_from(statistics).is_ok());
    }
}

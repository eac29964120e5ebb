//! `littoral dns`: telling name servers where the nodes are.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Dns {
    /// Write the files of a name server: the zone, and how it chooses among the PoPs
    Render {
        /// The name server
        #[arg(long = "for", value_enum, default_value_t)]
        server: Server,
        /// The directory of its configuration, where files are replaced one by one [default: everything to standard output]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Write nothing; say what differs from what is there, and fail if something does
        #[arg(long, requires = "out")]
        check: bool,
        /// The serial of the zone [default: one more than that of the zone that is there, if anything has changed, or the time]
        #[arg(long, value_name = "N")]
        serial: Option<u32>,
        #[command(flatten)]
        machine: Machine,
        #[command(flatten)]
        of: Of,
    },
    /// List what names of sites are to be: the CNAME of each, and the addresses for those that cannot be one
    Names {
        /// JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        of: Of,
    },
}

/// Name servers whose files can be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Server {
    #[default]
    Gdnsd,
}

/// What the name server's machine says of itself.
#[derive(Args, Clone, Debug)]
pub struct Machine {
    /// Where it listens: ADDR or ADDR:PORT; may be repeated [default: port 53 of every address]
    #[arg(long, value_name = "ADDR", value_parser = listen)]
    pub listen: Vec<String>,
    /// Where its control socket is [default: /run/gdnsd]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Where it keeps what outlives it [default: /var/lib/gdnsd]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Which configuration.
#[derive(Args, Clone, Debug)]
pub struct Of {
    /// The configuration, with [dns] and [pop.NAME]
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// A node that is asked for its sites, those of the hub among them: its admin address
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// A token with the verb observe for all sites, where the node wants one
    #[arg(long, value_name = "TOKEN", env = "LITTORAL_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

fn listen(text: &str) -> Result<String, String> {
    let is_address = text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok();
    let expected = "expected an address, as in 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53";
    is_address.then(|| text.to_owned()).ok_or_else(|| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn command_lines() {
        for (line, is_good) in [
            ("render --config edge.toml", true),
            ("render --for gdnsd --config edge.toml --out /etc/gdnsd --check", true),
            ("render --config edge.toml --out d --listen 127.0.0.1:53 --listen ::1 --run-dir r --state-dir s", true),
            ("render --config edge.toml --admin 127.0.0.1:9900 --token a --serial 4294967295", true),
            ("names --config edge.toml --json", true),
            ("render", false),
            ("render --config edge.toml --check", false),
            ("render --config edge.toml --for bind", false),
            ("render --config edge.toml --listen localhost", false),
            ("render --config edge.toml --serial 4294967296", false),
            ("names", false),
        ] {
            let words = ["littoral", "dns"].into_iter().chain(line.split_whitespace());
            assert_eq!(Cli::try_parse_from(words).is_ok(), is_good, "{line}");
        }
    }
}

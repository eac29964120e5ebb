//! `littoral announce`.

use std::path::PathBuf;

use clap::Args;
use edge_config::Duration;

use super::AdminAddress;

/// Have BIRD announce a prefix while the node is to be announced, and withdraw it otherwise
#[derive(Args, Debug)]
pub struct Announce {
    #[command(flatten)]
    pub admin: AdminAddress,
    /// BIRD's control socket
    #[arg(long, value_name = "SOCKET", default_value = "/run/bird/bird.ctl")]
    pub bird: PathBuf,
    /// The protocols of BIRD that originate the prefixes
    #[arg(
        long = "protocol",
        value_name = "NAME,..",
        value_delimiter = ',',
        default_value = "anycast4,anycast6",
        value_parser = protocol
    )]
    pub protocols: Vec<String>,
    /// How often the node is asked
    #[arg(long, value_name = "TIME", default_value = "250ms")]
    pub interval: Duration,
    /// How long it may take to answer: longer than connections wait while a node is upgraded
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub timeout: Duration,
    /// After how many questions without an answer the prefix is withdrawn; a node that says that it is not to be announced is
    /// believed at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub fall: u32,
    /// After how many good answers it is announced
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rise: u32,
    /// Ask once, tell BIRD once, and end
    #[arg(long)]
    pub once: bool,
    /// Withdraw, and end
    #[arg(long, conflicts_with = "once")]
    pub withdraw: bool,
}

/// A name as BIRD has them: it becomes part of a command.
fn protocol(text: &str) -> Result<String, String> {
    let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_name { Ok(text.to_owned()) } else { Err("is not the name of a protocol of BIRD".to_owned()) }
}

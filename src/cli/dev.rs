//! `littoral dev`: a small CDN on this machine.

use std::path::PathBuf;

use clap::Args;

/// A hub and some nodes on loopback.
#[derive(Args, Clone, Debug)]
pub struct Dev {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub nodes: u16,
    /// Two more nodes that shield the origin from these, and all of them ask one another
    #[arg(long)]
    pub shield: bool,
    /// The origin: http://host[:port] or https://host[:port] [default: a built-in demonstration site]
    #[arg(long, value_name = "URL")]
    pub origin: Option<String>,
    /// Where their files are kept
    #[arg(long, value_name = "DIR", default_value = ".littoral-dev")]
    pub data: PathBuf,
}

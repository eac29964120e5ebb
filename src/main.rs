//! The `littoral` command.

use std::process::ExitCode;

use clap::Parser;
use littoral::app;
use littoral::cli::{Cli, Command};
use tracing_subscriber::EnvFilter;

// Memory that is given back, and little lost between sizes: a cache lives in its allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What is written to standard error. Pingora's own lines about single connections stay out: clients could flood them,
/// and the access log and the metrics have each of them once.
const DIAGNOSTICS: &str = "warn,pingora_core=off,pingora_proxy=off,littoral=info";

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("LITTORAL_LOG").unwrap_or_else(|_| EnvFilter::new(DIAGNOSTICS));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let options = match Cli::parse().command {
        Some(Command::Run(options)) => options,
        None => Box::default(),
    };
    match app::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.exit_code();
            eprintln!("{:?}", miette::Report::new(error));
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
    }
}

//! The `littoral` command.

use std::process::ExitCode;

use clap::Parser;
use littoral::app;
use littoral::cli::{Cli, Command};
use tracing_subscriber::EnvFilter;

// Memory that is given back, and little lost between sizes: a cache lives in its allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("LITTORAL_LOG").unwrap_or_else(|_| EnvFilter::new("error,littoral=info"));
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

//! The `littoral` command.

use std::process::ExitCode;

use clap::Parser;
use littoral::app::{self, StartError};
use littoral::ask::cache::Found;
use littoral::ask::{self, AskError};
use littoral::cli::{Cli, Command};
use tracing_subscriber::EnvFilter;

// Memory that is given back, and little lost between sizes: a cache lives in its allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What is written to standard error. Pingora's own lines about single connections stay out: clients could flood them,
/// and the access log and the metrics have each of them once. Nor those of the hub's client, which tries many times a second.
const DIAGNOSTICS: &str = "warn,pingora_core=off,pingora_proxy=off,async_nats=off,littoral=info";

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("LITTORAL_LOG").unwrap_or_else(|_| EnvFilter::new(DIAGNOSTICS));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match execute(Cli::parse().command.unwrap_or_else(|| Command::Run(Box::default()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err((error, code)) => {
            eprintln!("{error:?}");
            ExitCode::from(code)
        }
    }
}

fn execute(command: Command) -> Result<(), (miette::Report, u8)> {
    let start = |error: StartError| {
        let code = u8::try_from(error.exit_code()).unwrap_or(1);
        (miette::Report::new(error), code)
    };
    let asked = |error: AskError| (miette::Report::new(error), 1);
    match command {
        Command::Run(options) => app::run(&options).map_err(start),
        Command::Check { file } => app::check(&file).map(|said| println!("{said}")).map_err(start),
        Command::Stat { admin, json } => {
            let stat = ask::stat(&admin).map_err(asked)?;
            println!("{}", if json { stat.to_string() } else { ask::in_words(&stat) });
            Ok(())
        }
        Command::Statistics { site, asked: how } => {
            ask::statistics::run(site.as_deref(), &how).map(|said| println!("{said}")).map_err(asked)
        }
        Command::Reload { admin, json } => {
            let done = ask::reload(&admin).map_err(asked)?;
            match json {
                true => println!("{done}"),
                false => println!("configuration {} is in force", done.get("version").unwrap_or(&done)),
            }
            Ok(())
        }
        Command::Purge(purge) => {
            let receipt = ask::purge(&purge).map_err(asked)?;
            println!("{}", if purge.json { receipt.to_string() } else { ask::purged_in_words(&receipt) });
            Ok(())
        }
        Command::Explain { url, headers, method, client, admin, json } => {
            let answer = ask::explain(&admin, &url, &method, &headers, client).map_err(asked)?;
            println!("{}", if json { answer.to_string() } else { ask::explained_in_words(&answer) });
            Ok(())
        }
        Command::Cache(command) => {
            let (said, found) = ask::cache::run(&command).map_err(asked)?;
            println!("{said}");
            match found {
                Found::AllRight => Ok(()),
                Found::NotRight => Err((miette::miette!("a disk does not hold what was written"), 1)),
            }
        }
        Command::Origin(command) => ask::origin::run(&command).map(|said| println!("{said}")).map_err(asked),
        Command::Certificate(command) => {
            let said = ask::certificate::run(&command);
            said.map(|said| println!("{said}")).map_err(|error| (miette::Report::new(error), 1))
        }
        Command::Site(command) => {
            let said = ask::site::run(&command, &mut |line| println!("{line}"));
            said.map(|said| println!("{said}")).map_err(|error| (miette::Report::new(error), 1))
        }
        Command::Config(command) => {
            let failed = |error: ask::config::ConfigError| {
                let code = error.exit_code();
                (miette::Report::new(error), code)
            };
            ask::config::run(&command).map(|said| println!("{said}")).map_err(failed)
        }
        Command::Dns(command) => {
            let failed = |error: app::dns::DnsError| {
                let code = error.exit_code();
                (miette::Report::new(error), code)
            };
            app::dns::run(&command).map(|said| println!("{said}")).map_err(failed)
        }
        Command::Dev(options) => app::dev::run(&options).map_err(|error| (miette::Report::new(error), 1)),
        Command::Node(command) => ask::node::run(&command).map(|said| println!("{said}")).map_err(asked),
        Command::Hub(command) => {
            app::hub::run(&command).map(|said| println!("{said}")).map_err(|error| (miette::Report::new(error), 1))
        }
        Command::Announce(options) => ask::announce::run(&options).map_err(|error| (miette::Report::new(error), 1)),
        Command::Token { name, sites, verbs } => {
            let verbs: Vec<&str> = verbs.iter().map(|verb| verb.as_str()).collect();
            let told = ask::token(&name, &sites, &verbs);
            told.map(|told| println!("{told}")).map_err(|error| start(StartError::Random(error)))
        }
        Command::Upgrade { admin, json } => {
            let done = ask::upgrade(&admin).map_err(asked)?;
            println!("{}", if json { done.to_string() } else { ask::upgraded_in_words(&done) });
            Ok(())
        }
        Command::Drain { admin } => ask::drain(&admin).map_err(asked),
    }
}

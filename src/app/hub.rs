//! What an operator does with a hub.

use std::path::PathBuf;

use edge_config::Problems;
use edge_config::section::purge::Log;
use tokio::runtime::Runtime;

use super::storage::hub_of;
use crate::cli::hub::{At, Hub as Command};
use crate::purge::nats::NodeName;
use crate::purge::nats::link::{Hub, Link, LinkError};
use crate::purge::nats::streams::{self, InitError};

/// Why it was not done.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum HubError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] Problems),
    #[error("{0} names no hub")]
    #[diagnostic(help("give [purge] log = {{ nats = [\"nats://HOST:4222\"] }}, or --nats"))]
    NoHub(PathBuf),
    #[error("expected --user NAME:PASSWORD")]
    User,
    #[error("the hub cannot be reached: {0}")]
    #[diagnostic(help("is it running, and may this user connect?"))]
    Link(#[from] LinkError),
    #[error("{0}")]
    #[diagnostic(help("is JetStream on (nats-server --jetstream), and may this user make streams?"))]
    Init(#[from] InitError),
    #[error("no thread can be started: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Does what a command says, and tells what was done.
///
/// # Errors
/// It was not.
pub fn run(command: &Command) -> Result<String, HubError> {
    match command {
        Command::Init { at, replicas } => {
            let hub = hub(at)?;
            Runtime::new()?.block_on(async {
                let link = Link::connect(&hub).await?;
                streams::init(&link.context, usize::from(*replicas)).await?;
                Ok(format!(
                    "{} has the streams {}, {} and {}, and the bucket {}",
                    hub.servers.join(", "),
                    streams::PURGE,
                    streams::CONFIG,
                    streams::NODES,
                    streams::BOARD
                ))
            })
        }
    }
}

fn hub(at: &At) -> Result<Hub, HubError> {
    let name = NodeName { id: "operator".into(), name: "littoral hub".into(), ..NodeName::default() };
    if let Some(path) = &at.config {
        return match edge_config::load(path)?.purge.log {
            Log::Nats(hub) => Ok(hub_of(&hub, &name)),
            Log::Local => Err(HubError::NoHub(path.clone())),
        };
    }
    let user = match &at.user {
        Some(user) => {
            let (user, password) = user.split_once(':').ok_or(HubError::User)?;
            Some((user.to_owned(), password.to_owned()))
        }
        None => None,
    };
    Ok(Hub {
        servers: at.nats.clone(),
        credentials: at.credentials.clone(),
        user,
        ca: at.ca.clone(),
        certificate: None,
        name: name.name,
    })
}

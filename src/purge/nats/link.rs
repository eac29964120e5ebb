//! Connections to a hub: how one is made, and how its end is noticed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How often another attempt is begun while none has succeeded: one that was begun while the network was cut hangs in a
/// timeout for longer than the network needs to heal.
const DIAL_EVERY: Duration = Duration::from_millis(250);
/// Attempts at a time.
const DIALS_MAX: usize = 12;
/// How long one may take: a handshake of TLS around the world, twice.
const DIAL_WITHIN: Duration = Duration::from_secs(3);
/// How long an answer of the hub is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How often the connection is tried when nothing passes.
const PING_EVERY: Duration = Duration::from_secs(1);
/// Messages that wait to be read: a megabyte or some. More are dropped, which is noticed by their numbers.
const UNREAD_MAX: usize = 65_536;

/// Where a hub is, and who we are to it.
#[derive(Clone, Debug, Default)]
pub struct Hub {
    pub servers: Vec<String>,
    /// A file of credentials (JWT and seed).
    pub credentials: Option<PathBuf>,
    pub user: Option<(String, String)>,
    /// Authorities that may vouch for the hub, beside those of the system.
    pub ca: Option<PathBuf>,
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// What the hub's operator sees.
    pub name: String,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("{0} cannot be read: {1}")]
    File(PathBuf, std::io::Error),
    #[error("{0}")]
    Connect(#[from] async_nats::ConnectError),
}

/// A connection.
#[derive(Clone)]
pub struct Link {
    pub client: Client,
    pub context: Context,
    /// Where nodes say that they have applied what somebody here waits for.
    pub told: String,
    gone: watch::Receiver<bool>,
}

impl Link {
    /// Connects to one of the servers, once.
    ///
    /// # Errors
    /// None of them can be reached.
    pub async fn connect(hub: &Hub) -> Result<Self, LinkError> {
        let (is_gone, gone) = watch::channel(false);
        let is_gone = Arc::new(is_gone);
        let mut options = ConnectOptions::new()
            .name(&hub.name)
            .connection_timeout(DIAL_WITHIN)
            .request_timeout(Some(ANSWER_WITHIN))
            .ping_interval(PING_EVERY)
            .subscription_capacity(UNREAD_MAX)
            .ignore_discovered_servers()
            // A connection that has ended is not mended: what the log is then has to be looked at anew.
            .max_reconnects(1)
            .event_callback(move |event| {
                if matches!(event, Event::Disconnected | Event::Closed | Event::LameDuckMode) {
                    is_gone.send_replace(true);
                }
                std::future::ready(())
            });
        if let Some(path) = &hub.credentials {
            options = options.credentials_file(path).await.map_err(|error| LinkError::File(path.clone(), error))?;
        }
        if let Some((user, password)) = &hub.user {
            options = options.user_and_password(user.clone(), password.clone());
        }
        if let Some(ca) = &hub.ca {
            options = options.add_root_certificates(ca.clone());
        }
        if let Some((certificate, key)) = &hub.certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        let client = options.connect(&hub.servers).await?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(ANSWER_WITHIN);
        let told = client.new_inbox();
        Ok(Self { client, context, told, gone })
    }

    /// Connects, however long that takes.
    pub async fn dial(hub: &Arc<Hub>) -> Self {
        let mut attempts = JoinSet::new();
        let mut tick = tokio::time::interval(DIAL_EVERY);
        let mut told = false;
        loop {
            tokio::select! {
                _ = tick.tick() => if attempts.len() < DIALS_MAX {
                    let hub = hub.clone();
                    attempts.spawn(async move { Self::connect(&hub).await });
                },
                Some(ended) = attempts.join_next() => match ended {
                    Ok(Ok(link)) => return link,
                    Ok(Err(error)) if !told => {
                        told = true;
                        tracing::warn!(%error, servers = ?hub.servers, "the hub cannot be reached; it is tried again and again");
                    }
                    _ => {}
                },
            }
        }
    }

    /// Resolves when the connection has ended.
    pub async fn gone(&self) {
        let mut gone = self.gone.clone();
        // Whoever would tell is gone as well.
        let _ = gone.wait_for(|gone| *gone).await;
    }
}

//! The streams of a hub: what they are called, what they keep, and how an operator makes them.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

/// The purge log.
pub const PURGE: &str = "PURGE";
/// Sites and settings: the last of each, and some before it.
pub const CONFIG: &str = "CONFIG";
/// What each node says of itself: the last it said.
pub const NODES: &str = "NODES";

/// Certificates that were issued, and what nodes have to know to have them: a bucket, the last of each.
pub const BOARD: &str = "CERTIFICATES";
const BOARD_STREAM: &str = "KV_CERTIFICATES";

/// How long purges are kept: a node that was away for longer begins anew.
const PURGES_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Within it a purge that is sent again is not entered again.
const DUPLICATES: Duration = Duration::from_secs(120);
/// After it a node that says nothing does not count any more.
pub const NODE_FORGOTTEN: Duration = Duration::from_secs(24 * 3600);
/// Versions of each site's configuration that are kept.
const VERSIONS: i64 = 64;
/// 500 selectors of a kilobyte and what stands around them; or two texts of a document.
pub const RECORD_BYTES_MAX: i32 = 1 << 20;

/// Why a hub is not ready.
#[derive(Debug, thiserror::Error)]
#[error("the stream {stream} cannot be made: {why}")]
pub struct InitError {
    stream: &'static str,
    why: String,
}

fn configs(replicas: usize) -> [Config; 4] {
    let basis = Config {
        storage: StorageType::File,
        num_replicas: replicas,
        retention: RetentionPolicy::Limits,
        max_message_size: RECORD_BYTES_MAX,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        ..Config::default()
    };
    [
        Config {
            name: PURGE.into(),
            subjects: vec!["purge.>".into()],
            description: Some("what was purged, in order".into()),
            max_age: PURGES_KEPT,
            duplicate_window: DUPLICATES,
            // A record that is taken out of the middle would look like a lost log to every node.
            deny_delete: true,
            ..basis.clone()
        },
        Config {
            name: CONFIG.into(),
            subjects: vec!["config.>".into()],
            description: Some("sites and settings, and the versions before".into()),
            max_messages_per_subject: VERSIONS,
            ..basis.clone()
        },
        Config {
            name: NODES.into(),
            subjects: vec!["node.>".into()],
            description: Some("what each node says of itself".into()),
            max_messages_per_subject: 1,
            discard: DiscardPolicy::Old,
            max_age: NODE_FORGOTTEN,
            ..basis.clone()
        },
        // As clients of a bucket want it to be.
        Config {
            name: BOARD_STREAM.into(),
            subjects: vec![format!("$KV.{BOARD}.>")],
            description: Some("certificates that were issued".into()),
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            allow_direct: true,
            deny_delete: true,
            ..basis
        },
    ]
}

/// Makes the streams that are not there yet, and changes the others to what they should be. Nothing in them is lost.
///
/// # Errors
/// The first that cannot be made.
pub async fn init(context: &Context, replicas: usize) -> Result<(), InitError> {
    for (name, config) in [PURGE, CONFIG, NODES, BOARD_STREAM].into_iter().zip(configs(replicas)) {
        let failed = |why: String| InitError { stream: name, why };
        context.get_or_create_stream(config.clone()).await.map_err(|error| failed(error.to_string()))?;
        context.update_stream(&config).await.map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

/// The subject of a purge: its site, where it is of one. It is for who looks at the stream; what counts is in the record.
pub fn purge_subject(sites: &[&str]) -> String {
    match sites {
        [site] if *site != "*" => format!("purge.{}", token(site)),
        _ => "purge._several".to_owned(),
    }
}

/// The subject of what a node says of itself.
pub fn node_subject(id: &str) -> String {
    format!("node.{}", token(id))
}

/// A name as one token of a subject.
pub fn token(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    name.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_tokens() {
        for (sites, expected) in [
            (&["shop"][..], "purge.shop"),
            (&["shop.example"], "purge.shop_example"),
            (&["*"], "purge._several"),
            (&["a", "b"], "purge._several"),
        ] {
            assert_eq!(purge_subject(sites), expected);
        }
        assert_eq!(node_subject("a b>*"), "node.a_b__");
    }
}

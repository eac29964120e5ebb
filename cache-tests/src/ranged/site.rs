//! A node, an origin behind it, and what that has.

use super::{Content, RangedOrigin};
use crate::node::{Node, NodeOptions};

/// Everything a test of ranges needs.
#[derive(Debug)]
pub struct Site {
    // In the order in which they end.
    pub node: Node,
    pub origin: RangedOrigin,
    pub content: Content,
}

impl Site {
    pub async fn start() -> Self {
        Self::with(|options| options).await
    }

    /// With a node that is started otherwise than most.
    pub async fn with(options: impl FnOnce(NodeOptions) -> NodeOptions) -> Self {
        let content = Content::default();
        let origin = RangedOrigin::start(&content);
        let node = options(NodeOptions::before_url(&origin.url())).start().await;
        Self { node, origin, content }
    }

    /// With TLS and HTTP/2.
    pub async fn with_tls() -> Self {
        let content = Content::default();
        let origin = RangedOrigin::start(&content);
        let node = NodeOptions::configured_before(&origin.url(), "").start().await;
        Self { node, origin, content }
    }
}

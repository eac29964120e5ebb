//! `[listen]`: where clients connect.

use std::net::SocketAddr;

/// Where clients connect. At least one address in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// HTTP/1, in the clear.
    pub http: Vec<SocketAddr>,
    /// TLS, with HTTP/2 and HTTP/1.1.
    pub https: Vec<SocketAddr>,
}

impl Listen {
    /// All of them.
    pub fn addresses(&self) -> impl Iterator<Item = &SocketAddr> {
        self.http.iter().chain(&self.https)
    }
}

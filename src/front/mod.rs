//! Clients: connections, the framing gate, HTTP/1, and the pass path for what is not cacheable.
//!
//! - [`gate`]: the bytes of a head, accepted with exactly one framing or refused. Pure.
//! - [`registry`]: who is connected, how many from one address, and how to wake them when the node drains.
//! - [`connection`]: reading and writing with deadlines.
//! - [`answer`]: HTTP/1 answers on a connection.
//! - [`h1`]: one connection's requests, one after the other.
//! - [`pass`]: the pass path, Pingora's `HttpProxy`.
//! - [`log`]: a request's log record and metrics.

pub mod answer;
pub mod connection;
pub mod gate;
pub mod h1;
pub mod log;
pub mod pass;
pub mod registry;

//! HTTP/2 from the client's side, twice: a client that writes any frame it likes ([`raw`]), and one that keeps to the
//! protocol ([`polite`]).

// In reading order.
pub mod block;
pub mod frame;

pub mod polite;
pub mod raw;

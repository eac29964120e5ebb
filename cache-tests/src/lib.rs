//! Black-box tests of a running Littoral node: what a test needs to be a client, an origin and an operator.
//!
//! Nothing here knows the node's code. A test starts an [`origin::Origin`] whose answers are data, a [`node::Node`]
//! in front of it, and talks to it as a raw [`client::Client`], over [`tls`] too, or as one of the clients in [`h2`].
//! Tests wait for conditions or move the node's clock; they never sleep, and every wait has a deadline ([`deadline`]).
//! `LITTORAL_BIN` chooses the binary.

// In reading order.
pub mod deadline;
pub mod machine;
pub mod process;
pub mod program;
pub mod random;

pub mod answer;
pub mod gate;
pub mod gdnsd;
pub mod http_date;
pub mod name_server;
pub mod origin;
pub mod recorded;

pub mod body;
pub mod client;
pub mod h2;
pub mod response;
pub mod stream;
pub mod tls;

pub mod cache_status;
pub mod configuration;
pub mod countries;
pub mod hub;
pub mod many;
pub mod metrics;
pub mod node;
pub mod pebble;
pub mod peer;

pub mod anycast;
pub mod bulk;
pub mod derived;
pub mod disk;
pub mod fleet;
pub mod manual;
pub mod ranged;
pub mod scenario;
pub mod succession;
pub mod table;
pub mod talker;
pub mod tiers;
pub mod upgrade;
pub mod world;

pub mod outside;

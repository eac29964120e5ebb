//! One file for each table of the configuration.

pub mod acme;
pub mod admin;
pub mod anycast;
pub mod balance;
pub mod cache;
pub mod dns;
pub mod geo;
pub mod group;
pub mod health;
pub mod limits;
pub mod listener;
pub mod named_group;
pub mod node;
pub mod origin;
pub mod pop;
pub mod purge;
pub mod resolver;
pub mod retry;
pub mod rule;
pub mod secret;
pub mod site;
pub mod status;
pub mod sticky;
pub mod talking;
pub mod telemetry;
pub mod tls;

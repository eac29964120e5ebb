#![doc = include_str!("ARCHITECTURE.md")]

pub mod clock;
pub mod semantics;

pub mod telemetry;

pub mod origin;
pub mod purge;
pub mod store;

pub mod fleet;

pub mod routing;

pub mod exchange;
pub mod pipeline;

pub mod steering;

pub mod acme;
pub mod admin;
pub mod front;

pub mod app;
pub mod ask;
pub mod cli;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tidy;

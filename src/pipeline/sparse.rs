//! Bodies of which only some chunks are there: what is missing is fetched when it is wanted.
//!
//! - [`asked`]: which part of a representation an origin is asked for. Pure.
//! - [`run`]: missing bytes on their way into the store, and who reads them.
//! - [`runs`]: all of those: one fetch for all who want the same.
//! - [`fetching`]: the fetch of a run, and where its bytes go.
//! - [`source`]: a body as one client reads it: what is there, and runs for what is not.
//! - [`serve`]: answers from a record whose body stands apart.

pub mod asked;
pub mod fetching;
pub mod run;
pub mod runs;
pub mod serve;
#[cfg(test)]
mod simulation;
pub mod source;

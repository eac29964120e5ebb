//! The nodes of a CDN among themselves: who is asked for what, and what they say to one another.

pub mod answered;
pub mod asking;

mod parameters;

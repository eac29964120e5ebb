//! The pure decisions of HTTP caching: RFC 9110, 9111, 9211, 9213, 9875, 5861, 8246 and 8586 as functions of their
//! arguments.
//!
//! Nothing here reads a clock, does I/O, waits or keeps state. The time is an argument, requests and stored
//! responses are blocks of field lines ([`fields::Fields`]), and every answer is a small value that says what is so.
//! The caller decides what to do about it.
//!
//! The order below is the order to read in: what is on the wire, what it says, whether a response may be stored,
//! whether it may be reused, for whom, and how the answer is told.

pub mod time;

pub mod cdn_loop;
pub mod cookies;
pub mod fields;
pub mod hop_by_hop;
pub mod http_date;

pub mod directives;
mod structured;

pub mod age;
pub mod deception;
pub mod freshness;
pub mod reuse;
pub mod storable;

pub mod cache_key;
pub mod content_range;
pub mod invalidation;
pub mod no_vary_search;
pub mod range;
pub mod surrogate;
pub mod validation;
pub mod vary;

pub mod cache_status;

#[cfg(test)]
mod fuzz;

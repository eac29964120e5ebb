//! What was invalidated: the ledger that every lookup is judged by.
//!
//! An invalidation changes no stored response. It advances a position in the [`ledger`]; a stored response carries the
//! position at which its fill began, and whatever began before an invalidation that concerns it is gone.

pub mod ledger;

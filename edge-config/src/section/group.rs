//! `origins`, `health`, `eject` and `retry`: the origins of a site together.

use super::origin::Origin;
use crate::units::Duration;

/// The origins of a site. At least one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub members: Vec<Member>,
    pub balance: Balance,
    /// Active checks. Default: none.
    pub health: Option<Health>,
    /// Passive ejection. `None`: never.
    pub eject: Option<Eject>,
    pub retry: Retry,
}

/// An origin and its place in the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub origin: Origin,
    /// Its share of the requests of its tier, 1 to 1,000. Default 1.
    pub weight: u32,
    /// Asked only when no member of a lower number is up, 1 to 16. Default 1.
    pub tier: u8,
}

/// How one of the members that are up is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// In turn, by weight, without bursts for one member.
    #[default]
    SmoothWeighted,
}

/// Active checks: each member is asked for a path, over and over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub path: String,
    /// The `Host` of the check. Default: what requests to that origin have; the first host of the site where that is the
    /// client's.
    pub host: Option<String>,
    /// From the start of a check to the start of the next. Default 500ms.
    pub interval: Duration,
    /// How long a check may take, connection included. Default 400ms. At most the interval.
    pub timeout: Duration,
    /// Failed checks in a row until a member counts as down. Default 3.
    pub fall: u32,
    /// Passed checks in a row until a member counts as up again. Default 2.
    pub rise: u32,
    /// Statuses that pass. Default 200 to 299.
    pub status: Vec<StatusRange>,
}

/// Statuses from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    pub first: u16,
    pub last: u16,
}

impl StatusRange {
    pub const fn contains(&self, status: u16) -> bool {
        self.first <= status && status <= self.last
    }
}

/// Passive ejection: a member whose requests fail is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eject {
    /// Failures in a row. Default 5.
    pub failures: u32,
    /// Within this time. Default 10s.
    pub window: Duration,
    /// How long it is left alone. Default 10s.
    pub period: Duration,
}

/// When a request that failed is sent to another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Further attempts of one request, 0 to 2. Default 2.
    pub attempts: u32,
    /// Retries as a part of all requests, in percent. Default 20.
    pub budget_percent: u32,
    /// Retries a second that are always allowed. Default 10.
    pub reserve: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            path: "/".into(),
            host: None,
            interval: Duration::from_millis(500),
            timeout: Duration::from_millis(400),
            fall: 3,
            rise: 2,
            status: vec![StatusRange { first: 200, last: 299 }],
        }
    }
}

impl Default for Eject {
    fn default() -> Self {
        Self { failures: 5, window: Duration::from_secs(10), period: Duration::from_secs(10) }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 2, budget_percent: 20, reserve: 10 }
    }
}

impl Group {
    /// One origin, asked for everything.
    pub fn of_one(origin: Origin) -> Self {
        Self {
            members: vec![Member { origin, weight: 1, tier: 1 }],
            balance: Balance::default(),
            health: None,
            eject: Some(Eject::default()),
            retry: Retry::default(),
        }
    }
}

//! Origins that are being taken out: which, until when, and who said so.
//!
//! One that drains gets no new sessions. Those it has go on until its time is over, requests that are under way to their own
//! end. What the operator says by the admin API is kept here, beside all configurations, as long as the origin is in one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

/// How far an origin is with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It gets requests like any other.
    #[default]
    Open,
    /// Its sessions alone.
    Leaving,
    /// Nothing.
    Left,
}

/// One that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// When its sessions go elsewhere. None: as late as they like.
    pub until: Option<Instant>,
}

impl Drain {
    /// One that lasts so long.
    pub fn lasting(time: Option<Duration>, now: Instant) -> Self {
        // What is later than a clock can say is never.
        Self { until: time.and_then(|time| now.checked_add(time)) }
    }

    pub fn phase(self, now: Instant) -> Phase {
        match self.until {
            Some(until) if until <= now => Phase::Left,
            _ => Phase::Leaving,
        }
    }
}

/// How far one is that several may have begun: the furthest.
pub fn phase(drains: [Option<Drain>; 2], now: Instant) -> Phase {
    drains.into_iter().flatten().map(|drain| drain.phase(now)).max().unwrap_or_default()
}

/// What the operator drains.
#[derive(Default)]
pub struct Drains(ArcSwap<Vec<Drained>>);

#[derive(Clone)]
struct Drained {
    site: String,
    /// What an origin is called, with its group or for all of them, or one of its addresses.
    origin: String,
    address: Option<SocketAddr>,
    drain: Drain,
}

/// Whether an operator may mean this origin by a name: its label, with its group or without, or its address.
pub fn is_called(name: &str, label: &str, address: SocketAddr) -> bool {
    is_label(name, label) || name.parse() == Ok(address)
}

fn is_label(name: &str, label: &str) -> bool {
    // The name of a group stands before a slash, and neither has a slash of its own.
    name == label || Some(name) == label.rsplit('/').next()
}

impl Drained {
    fn is(&self, site: &str, label: &str, address: SocketAddr) -> bool {
        self.site == site && (is_label(&self.origin, label) || self.address == Some(address))
    }
}

impl Drains {
    /// From now on, in place of what was said before.
    pub fn begin(&self, site: &str, origin: &str, drain: Drain) {
        let (site, origin) = (site.to_owned(), origin.to_owned());
        let begun = Drained { address: origin.parse().ok(), site, origin, drain };
        self.0.rcu(|drains| {
            let mut drains = Vec::clone(drains);
            drains.retain(|other| (&other.site, &other.origin) != (&begun.site, &begun.origin));
            drains.push(begun.clone());
            drains
        });
    }

    /// Ends all that are about an origin, or one of its addresses. False: none is.
    pub fn end(&self, site: &str, label: &str, address: SocketAddr) -> bool {
        self.forget(|drained| drained.is(site, label, address))
    }

    /// Ends those of origins that are in no configuration any more. `is_known`: the site, and what is called so in it.
    pub fn keep(&self, is_known: impl Fn(&str, &dyn Fn(&str, SocketAddr) -> bool) -> bool) {
        self.forget(|drained| !is_known(&drained.site, &|label, address| drained.is(&drained.site, label, address)));
    }

    fn forget(&self, is_over: impl Fn(&Drained) -> bool) -> bool {
        let before =
            self.0.rcu(|drains| drains.iter().filter(|drained| !is_over(drained)).cloned().collect::<Vec<_>>());
        before.iter().any(is_over)
    }

    /// What was said about an origin.
    pub fn of(&self, site: &str, label: &str, address: SocketAddr) -> Option<Drain> {
        let drains = self.0.load();
        // Of what was said of it and of its address, what ends first.
        let about = drains.iter().filter(|drained| drained.is(site, label, address)).map(|drained| drained.drain);
        about.min_by_key(|drain| (drain.until.is_none(), drain.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn how_far_it_is() {
        let now = clock::monotonic();
        let lasting = |seconds| Some(Drain::lasting(Some(Duration::from_secs(seconds)), now));
        let endless = Some(Drain::lasting(None, now));
        let later = now + Duration::from_secs(10);
        for (name, drains, at, expected) in [
            ("none", [None, None], now, Phase::Open),
            ("without end", [endless, None], later, Phase::Leaving),
            ("before its end", [None, lasting(11)], later, Phase::Leaving),
            ("at its end", [lasting(10), None], later, Phase::Left),
            ("at once", [lasting(0), endless], now, Phase::Left),
            ("the furthest of two", [lasting(20), lasting(5)], later, Phase::Left),
            ("for ever", [lasting(u64::MAX), None], later, Phase::Leaving),
        ] {
            assert_eq!(phase(drains, at), expected, "{name}");
        }
    }

    #[test]
    fn what_is_drained() {
        let (drains, now) = (Drains::default(), clock::monotonic());
        let address = |last: u8| SocketAddr::from(([192, 0, 2, last], 80));
        let until = |drain: Option<Drain>| drain.map(|drain| drain.until.map(|until| (until - now).as_secs()));
        let of = |site: &str, label: &str, last| until(drains.of(site, label, address(last)));
        let begin = |origin: &str, seconds: Option<u64>| {
            drains.begin("s", origin, Drain::lasting(seconds.map(Duration::from_secs), now));
        };
        begin("name:80", None);
        begin("192.0.2.1:80", Some(5));
        assert_eq!(of("s", "name:80", 1), Some(Some(5)), "what ends first");
        assert_eq!([of("s", "name:80", 2), of("s", "other:80", 1)], [Some(None), Some(Some(5))]);
        assert_eq!([of("s", "canary/name:80", 2), of("s", "canary/other:80", 1)], [Some(None), Some(Some(5))]);
        assert_eq!([of("t", "name:80", 1), of("s", "other:80", 2)], [None, None]);
        begin("name:80", Some(3));
        assert_eq!(of("s", "name:80", 2), Some(Some(3)), "the latest word");
        assert!(drains.end("s", "name:80", address(2)));
        assert!(!drains.end("s", "name:80", address(2)));
        assert_eq!(of("s", "name:80", 1), Some(Some(5)), "the address is drained by itself");
        drains.keep(|site, is| site == "s" && is("name:80", address(1)));
        assert_eq!(of("s", "name:80", 1), Some(Some(5)));
        drains.keep(|site, is| site == "s" && is("name:80", address(2)));
        assert_eq!(of("s", "name:80", 1), None, "nobody has that address any more");
    }
}

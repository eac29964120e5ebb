//! Who of a group is asked, and who waits for it.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edge_config::section::balance::{Balance, HashBy};

use super::{Choice, Group};
use crate::clock;
use crate::origin::Failure;
use crate::origin::balance::consistent::hash;
use crate::origin::balance::{Candidate, consistent, ewma, least_requests, random};
use crate::origin::member::Standing;
use crate::origin::roster::Placed;
use crate::semantics::fields::Fields;

/// When nobody is up, somebody is asked all the same; that one gets this long to accept a connection, so that the client
/// has its answer within a second.
const DESPERATE_CONNECT: Duration = Duration::from_millis(300);

/// What a choice depends on.
#[derive(Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Who has failed already.
    pub tried: &'a [usize],
    /// Who is asked only when no other stands as well.
    pub avoid: Option<usize>,
    /// Requests with the same key are for the same member, where the rule is to hash; see [`Group::key`].
    pub key: u64,
}

/// Why nobody is asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoChoice {
    /// Everybody that could be is at its cap.
    Full,
    /// Nobody is left.
    Nobody,
}

impl From<NoChoice> for Failure {
    fn from(why: NoChoice) -> Self {
        match why {
            NoChoice::Full => Self::Busy,
            NoChoice::Nobody => Self::Unreachable,
        }
    }
}

impl Group {
    /// What a request is hashed to; 0 where nobody needs it. A request without the field or cookie is hashed by its URL:
    /// all of those together would be too much for one origin. A response that is fetched for many is hashed by what the
    /// first of them sent.
    pub fn key(&self, host: &[u8], target: &[u8], fields: Fields<'_>, client: Option<IpAddr>) -> u64 {
        let Balance::Consistent(by) = &self.balance else { return 0 };
        let found = match by {
            HashBy::Url => None,
            HashBy::Header(name) => fields.first(name).map(|value| hash([value])),
            HashBy::Cookie(name) => cookie(fields, name.as_bytes()).map(|value| hash([value])),
            HashBy::Address => client.map(|client| hash([client.to_canonical().to_string().as_bytes()])),
        };
        found.unwrap_or_else(|| hash([host, target]))
    }

    /// Chooses who is asked. Where everybody is at its cap, waits until somebody is not, behind those that wait already.
    ///
    /// # Errors
    /// [`Failure::Busy`] when too many wait, or for too long; [`Failure::Unreachable`] when nobody is left.
    ///
    /// Dropping it gives up the place in the queue.
    pub async fn choose(&self, wanted: Wanted<'_>) -> Result<Choice, Failure> {
        if self.roster.load().is_empty() {
            self.wait_for_names().await;
        }
        if self.most.is_none() || self.queue.is_empty() {
            match self.choose_now(wanted) {
                Err(NoChoice::Full) => {}
                chosen => return chosen.map_err(Failure::from),
            }
        }
        let busy = || {
            self.origins.metrics.origin_rejected(self.settings.index, &self.settings.group);
            Failure::Busy
        };
        let place = self.queue.join(self.queue_max).ok_or_else(busy)?;
        let waiting = async {
            loop {
                if place.is_first() {
                    match self.choose_now(wanted) {
                        Err(NoChoice::Full) => {}
                        chosen => return chosen.map_err(Failure::from),
                    }
                }
                place.woken().await;
            }
        };
        tokio::time::timeout(self.queue_wait, waiting).await.unwrap_or_else(|_| Err(busy()))
    }

    /// Waits until there is somebody to ask, or every name has been asked for; for as long as a connection may take.
    async fn wait_for_names(&self) {
        let mut unresolved = self.unresolved.subscribe();
        let known = unresolved.wait_for(|count| *count == 0 || !self.roster.load().is_empty());
        _ = tokio::time::timeout(self.connect_max(), known).await;
    }

    /// Of those that are up and below their cap, the lowest tier that has one; when nobody is up, somebody all the same: one
    /// that is only ejected, and at last, if none has been tried, one whose checks fail. One to avoid is asked when no other
    /// stands as well.
    pub(super) fn choose_now(&self, wanted: Wanted<'_>) -> Result<Choice, NoChoice> {
        let now = clock::monotonic();
        let Wanted { tried, avoid, key } = wanted;
        let roster = self.roster.load();
        let known: Vec<((u8, u16), Standing, Candidate)> = roster
            .iter()
            .filter(|placed| !tried.contains(&placed.index))
            .map(|Placed { index, member, weight, rank, .. }| {
                let (standing, candidate) = member.candidate(*index, *weight, self.slow_start, now);
                (*rank, standing, candidate)
            })
            .collect();
        for standing in [Standing::Up, Standing::Ejected, Standing::Down] {
            if standing == Standing::Down && !tried.is_empty() {
                return Err(NoChoice::Nobody);
            }
            let all = || known.iter().filter(|(_, theirs, _)| *theirs == standing);
            if all().next().is_none() {
                continue;
            }
            let is_no_other = all().all(|(_, _, one)| Some(one.index) == avoid);
            let mut free: Vec<((u8, u16), Candidate)> = all()
                .filter(|(_, _, one)| is_no_other || Some(one.index) != avoid)
                .filter(|(_, _, one)| self.most.is_none_or(|most| one.in_flight < most))
                .map(|(rank, _, one)| (*rank, *one))
                .collect();
            // As often as another request is faster.
            while let Some(rank) = free.iter().map(|(rank, _)| *rank).min() {
                let candidates: Vec<Candidate> =
                    free.iter().filter(|(theirs, _)| *theirs == rank).map(|(_, one)| *one).collect();
                let index = self.pick(&candidates, key).ok_or(NoChoice::Nobody)?;
                let member = roster.at(index).ok_or(NoChoice::Nobody)?.clone();
                let Some(lease) = member.lease(self.most, &self.queue) else {
                    free.retain(|(_, one)| one.index != index);
                    continue;
                };
                if standing == Standing::Up && !member.admit(now) {
                    // Its trial is another request's: as far as this one goes, it is ejected.
                    drop(lease);
                    return self.choose_now(wanted);
                }
                let connect = member.peer.origin().timeouts.connect.get();
                let connect = if standing == Standing::Down { connect.min(DESPERATE_CONNECT) } else { connect };
                return Ok(Choice { index, member, connect, lease, began: now });
            }
            return Err(NoChoice::Full);
        }
        Err(NoChoice::Nobody)
    }

    fn pick(&self, candidates: &[Candidate], key: u64) -> Option<usize> {
        if let [only] = candidates {
            return Some(only.index);
        }
        let draw = || random::mix(self.draws.fetch_add(1, Ordering::Relaxed));
        match &self.balance {
            Balance::SmoothWeighted => {
                self.turns.lock().choose(candidates.iter().map(|candidate| (candidate.index, candidate.share)))
            }
            Balance::LeastRequests => least_requests::choose(candidates, draw()),
            Balance::Ewma => ewma::choose(candidates, draw()),
            Balance::Consistent(_) => consistent::choose(candidates, key),
            Balance::Random => random::choose(candidates, draw()),
        }
    }

    /// Chooses who is asked when some have failed, if the request may try once more. It does not wait for anybody.
    pub fn choose_again(&self, wanted: Wanted<'_>) -> Option<Choice> {
        if wanted.tried.len() > self.retry.attempts as usize {
            return None;
        }
        let choice = self.choose_now(wanted).ok()?;
        let may = self.may_repeat();
        if !may {
            choice.member.withdraw(choice.began);
        }
        may.then_some(choice)
    }
}

/// The value of a cookie (RFC 6265 section 4.2.1).
fn cookie<'a>(fields: Fields<'a>, name: &[u8]) -> Option<&'a [u8]> {
    let lines = fields.lines().filter(|line| line.is("cookie"));
    lines.flat_map(|line| line.value.split(|byte| *byte == b';')).find_map(|pair| {
        let mut parts = pair.trim_ascii().splitn(2, |byte| *byte == b'=');
        (parts.next() == Some(name)).then(|| parts.next()).flatten()
    })
}

//! Who of a group is asked, and who waits for it.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use edge_config::section::balance::{Balance, HashBy};

use super::sticky::Held;
use super::{Choice, Group};
use crate::clock;
use crate::origin::Failure;
use crate::origin::balance::consistent::hash;
use crate::origin::balance::{Candidate, consistent, ewma, least_requests, random};
use crate::origin::drains::Phase;
use crate::origin::member::Standing;
use crate::origin::roster::{Placed, Roster};
use crate::origin::session::Session;
use crate::semantics::cookies::cookie;
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
    /// Where its session wants it, which comes first.
    pub session: Session,
}

/// What choosing has to know of a member.
pub(super) struct Known {
    pub(super) rank: (u8, u16),
    pub(super) standing: Standing,
    pub(super) phase: Phase,
    pub(super) weight: u32,
    most: Option<u32>,
    pub(super) candidate: Candidate,
}

impl Known {
    pub(super) fn has_room(&self) -> bool {
        self.most.is_none_or(|most| self.candidate.in_flight < most)
    }

    /// Lower ones are asked first. None: not at all.
    fn turn(&self) -> Option<u8> {
        match (self.standing, self.phase) {
            (_, Phase::Left) => None,
            (Standing::Up, Phase::Open) => Some(UP),
            // Its operator does not want it asked, but less than that a client wants an error.
            (Standing::Up, Phase::Leaving) => Some(LEAVING),
            (Standing::Ejected, _) => Some(EJECTED),
            (Standing::Down, _) => Some(DOWN),
        }
    }
}

const UP: u8 = 0;
const LEAVING: u8 = 1;
const EJECTED: u8 = 2;
const DOWN: u8 = 3;

/// Why nobody is asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoChoice {
    /// Everybody that could be is at its cap.
    Full,
    /// Nobody is left.
    Nobody,
    /// Its session has it asked of one that cannot be, or of nobody.
    Refused,
}

/// What became of one that was chosen.
enum Taken {
    Asked(Choice),
    /// Others were faster, and there is no room any more.
    Full,
    /// It was ejected, and its trial is another request's.
    OnTrial,
}

impl From<NoChoice> for Failure {
    fn from(why: NoChoice) -> Self {
        match why {
            NoChoice::Full => Self::Busy,
            NoChoice::Nobody => Self::Unreachable,
            NoChoice::Refused => Self::SessionRefused,
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
        if !self.is_capped() || self.queue.is_empty() {
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

    /// Whether there is a member that gets only so many requests at a time.
    fn is_capped(&self) -> bool {
        self.entries.iter().any(|entry| self.most(entry).is_some())
    }

    /// How every member stands. When the time of each is over that is being taken out, and those are all, nobody is: an answer
    /// is better than none.
    pub(super) fn known(&self, roster: &Roster, now: Instant) -> Vec<Known> {
        let of = |placed: &Placed| {
            let Placed { index, entry, member, weight, rank } = placed;
            let (standing, candidate) = member.candidate(*index, *weight, self.slow_start, now);
            let most = self.entries.get(*entry).and_then(|entry| self.most(entry));
            Known { rank: *rank, standing, phase: self.phase(placed, now), weight: *weight, most, candidate }
        };
        let mut known: Vec<Known> = roster.iter().map(of).collect();
        if known.iter().all(|one| one.phase == Phase::Left) {
            known.iter_mut().for_each(|one| one.phase = Phase::Open);
        }
        known
    }

    /// The member of its session, if it has one that can be asked. Otherwise, of those that are up and below their cap, the
    /// lowest tier that has one; when nobody is up, somebody all the same: one that is being taken out, one that is only
    /// ejected, and at last, if none has been tried, one whose checks fail. One to avoid is asked when no other stands as
    /// well.
    pub(super) fn choose_now(&self, wanted: Wanted<'_>) -> Result<Choice, NoChoice> {
        let now = clock::monotonic();
        let roster = self.roster.load();
        let known = self.known(&roster, now);
        match self.held(&roster, &known, &wanted) {
            Held::Nowhere => {}
            Held::Lost if wanted.session.must_stay => return Err(NoChoice::Refused),
            Held::Lost => {}
            Held::At(index) => {
                let one = known.iter().find(|one| one.candidate.index == index);
                let choice = one.map(|one| self.take(&roster, one, now));
                match choice {
                    Some(Taken::Asked(choice)) => return Ok(choice),
                    _ if wanted.session.must_stay => return Err(NoChoice::Refused),
                    _ => {}
                }
            }
        }
        self.choose_anybody(&roster, &known, wanted, now)
    }

    fn choose_anybody(
        &self,
        roster: &Roster,
        known: &[Known],
        wanted: Wanted<'_>,
        now: Instant,
    ) -> Result<Choice, NoChoice> {
        let Wanted { tried, avoid, key, .. } = wanted;
        for turn in [UP, LEAVING, EJECTED, DOWN] {
            if turn == DOWN && !tried.is_empty() {
                return Err(NoChoice::Nobody);
            }
            let all = || known.iter().filter(|one| one.turn() == Some(turn) && !tried.contains(&one.candidate.index));
            if all().next().is_none() {
                continue;
            }
            let is_no_other = all().all(|one| Some(one.candidate.index) == avoid);
            let mut free: Vec<&Known> = all()
                .filter(|one| is_no_other || Some(one.candidate.index) != avoid)
                .filter(|one| one.has_room())
                .collect();
            // As often as another request is faster.
            while let Some(rank) = free.iter().map(|one| one.rank).min() {
                let candidates: Vec<Candidate> =
                    free.iter().filter(|one| one.rank == rank).map(|one| one.candidate).collect();
                let index = self.pick(&candidates, key).ok_or(NoChoice::Nobody)?;
                let one = free.iter().find(|one| one.candidate.index == index).ok_or(NoChoice::Nobody)?;
                match self.take(roster, one, now) {
                    Taken::Asked(choice) => return Ok(choice),
                    Taken::Full => free.retain(|one| one.candidate.index != index),
                    // As far as this request goes, it is ejected.
                    Taken::OnTrial => return self.choose_now(wanted),
                }
            }
            return Err(NoChoice::Full);
        }
        Err(NoChoice::Nobody)
    }

    fn take(&self, roster: &Roster, one: &Known, now: Instant) -> Taken {
        let index = one.candidate.index;
        let Some(member) = roster.at(index).cloned() else { return Taken::Full };
        let Some(lease) = member.lease(one.most, &self.queue) else { return Taken::Full };
        if one.standing == Standing::Up && !member.admit(now) {
            return Taken::OnTrial;
        }
        let connect = member.peer.origin().timeouts.connect.get();
        let connect = if one.standing == Standing::Down { connect.min(DESPERATE_CONNECT) } else { connect };
        Taken::Asked(Choice { index, member, connect, lease, began: now })
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

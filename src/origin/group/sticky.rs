//! With whom the sessions of a group stay, and what becomes of one whose member cannot be asked.

use std::net::IpAddr;

use edge_config::section::sticky::{self as config, Fallback, StickyBy};

use super::Group;
use super::choosing::{Known, Wanted};
use crate::clock;
use crate::origin::Failure;
use crate::origin::balance::consistent::{hash, score};
use crate::origin::drains::Phase;
use crate::origin::member::{Member, Standing};
use crate::origin::roster::Roster;
use crate::origin::session::{Cookies, MemberId, Place, Session};
use crate::semantics::fields::Fields;

/// How a group tells sessions, and what it does without their members.
pub(super) struct Sticky {
    by: By,
    must_stay: bool,
}

enum By {
    Cookie(Cookies),
    Header(String),
    Address,
}

/// Whom a session has a request asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// Whoever is chosen.
    Nowhere,
    /// This one, if it has room.
    At(usize),
    /// Its member cannot be asked.
    Lost,
}

impl Sticky {
    /// `secret`: what cookies are signed with where there is no key for that.
    pub(super) fn new(config: &config::Sticky, secret: &[u8], scope: [&str; 2]) -> Self {
        let by = match &config.by {
            StickyBy::Cookie(name) => {
                let secret = config.key.as_ref().map_or(secret, |key| key.bytes());
                By::Cookie(Cookies::new(name, secret, scope, config.ttl.get().as_secs()))
            }
            StickyBy::Header(name) => By::Header(name.clone()),
            StickyBy::Address => By::Address,
        };
        Self { by, must_stay: config.fallback == Fallback::Refuse }
    }
}

impl Group {
    /// The session of a request.
    pub fn session(&self, fields: Fields<'_>, client: IpAddr) -> Session {
        let Some(sticky) = &self.sticky else { return Session::default() };
        let must_stay = sticky.must_stay;
        let by = |place| Session { place, ages: false, must_stay };
        match &sticky.by {
            By::Cookie(cookies) => match cookies.find(fields, clock::wall()) {
                Some((member, ages)) => Session { place: Place::At(member), ages, must_stay },
                None => by(Place::Anywhere),
            },
            By::Header(name) => by(fields.first(name).map_or(Place::Anywhere, |value| Place::By(hash([value])))),
            By::Address => by(Place::By(hash([client.to_canonical().to_string().as_bytes()]))),
        }
    }

    fn cookies(&self) -> Option<&Cookies> {
        match &self.sticky.as_ref()?.by {
            By::Cookie(cookies) => Some(cookies),
            By::Header(_) | By::Address => None,
        }
    }

    /// Whether its clients have sessions with one of them.
    pub fn is_sticky(&self) -> bool {
        self.sticky.is_some()
    }

    /// The cookie that its sessions are told by.
    pub fn cookie_name(&self) -> Option<&str> {
        self.cookies().map(Cookies::name)
    }

    /// The `Set-Cookie` of an answer that this member gave: none where the client has one that says so for a while yet.
    pub fn cookie(&self, session: Session, index: usize, secure: bool) -> Option<String> {
        let cookies = self.cookies()?;
        let id = member_id(cookies, self.roster.load().at(index)?);
        let is_known = session.place == Place::At(id) && !session.ages;
        (!is_known).then(|| cookies.set(id, secure, clock::wall()))
    }

    /// The `Set-Cookie` of an answer that refuses a session: none where its member may come back by itself.
    pub fn last_cookie(&self, session: Session, secure: bool) -> Option<String> {
        let cookies = self.cookies()?;
        let Place::At(id) = session.place else { return None };
        let now = clock::monotonic();
        let known = self.known(&self.roster.load(), now);
        let place =
            self.roster.load().iter().find(|placed| member_id(cookies, &placed.member) == id).map(|it| it.index);
        let will_come_back = known.iter().any(|one| Some(one.candidate.index) == place && one.phase != Phase::Left);
        (!will_come_back).then(|| cookies.end(secure))
    }

    /// Why a request of this session is not sent to anybody, if that is known before one is chosen.
    pub fn refuses(&self, session: Session) -> Option<Failure> {
        if !session.must_stay || session.place == Place::Anywhere {
            return None;
        }
        let roster = self.roster.load();
        let known = self.known(&roster, clock::monotonic());
        let is_free = |index| known.iter().any(|one| one.candidate.index == index && one.has_room());
        match self.held(&roster, &known, &Wanted { session, ..Wanted::default() }) {
            Held::At(index) if is_free(index) => None,
            Held::Nowhere => None,
            Held::At(_) | Held::Lost => Some(Failure::SessionRefused),
        }
    }

    /// What the member of a session is called, where a cookie says it.
    pub fn session_origin(&self, session: Session) -> Option<String> {
        let (cookies, Place::At(id)) = (self.cookies()?, session.place) else { return None };
        let roster = self.roster.load();
        let placed = roster.iter().find(|placed| member_id(cookies, &placed.member) == id);
        placed.map(|placed| placed.member.peer.label().to_owned())
    }

    /// Whom a session has a request asked of.
    pub(super) fn held(&self, roster: &Roster, known: &[Known], wanted: &Wanted<'_>) -> Held {
        let Wanted { tried, avoid, session, .. } = *wanted;
        let can_be = |one: &Known| {
            let index = one.candidate.index;
            one.standing == Standing::Up && !tried.contains(&index) && (session.must_stay || avoid != Some(index))
        };
        match session.place {
            Place::Anywhere => Held::Nowhere,
            Place::At(id) => {
                let Some(cookies) = self.cookies() else { return Held::Nowhere };
                let placed = roster.iter().find(|placed| member_id(cookies, &placed.member) == id);
                let one = placed.and_then(|placed| known.iter().find(|one| one.candidate.index == placed.index));
                match one.filter(|one| one.phase != Phase::Left && can_be(one)) {
                    Some(one) => Held::At(one.candidate.index),
                    None => Held::Lost,
                }
            }
            Place::By(key) => by_hash(known, key, |one| session.must_stay || can_be(one), can_be),
        }
    }
}

/// The one that a hash gives, of those that are not being taken out and `count`: the best of the lowest tier. One that
/// nobody can ask now is lost.
fn by_hash(known: &[Known], key: u64, count: impl Fn(&Known) -> bool, can_be: impl Fn(&Known) -> bool) -> Held {
    // While there is no other, those that are being taken out count as well.
    let phase = known.iter().map(|one| one.phase).min();
    let counted = || known.iter().filter(|one| Some(one.phase) == phase && count(one));
    let Some(rank) = counted().map(|one| one.rank).min() else { return Held::Lost };
    let of = |one: &&Known| score(one.weight, one.candidate.id, key);
    match counted().filter(|one| one.rank == rank).max_by(|one, other| of(one).total_cmp(&of(other))) {
        Some(one) if can_be(one) => Held::At(one.candidate.index),
        _ => Held::Lost,
    }
}

fn member_id(cookies: &Cookies, member: &Member) -> MemberId {
    let address = member.peer.name().map(|_| member.target().address.to_string()).unwrap_or_default();
    cookies.member(member.peer.label(), &address)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::tests::{origins, site};
    use super::*;
    use crate::origin::drains::Drain;
    use crate::origin::group::Origins;

    const ALL: [&str; 3] = ["http://127.0.0.1", "http://127.0.0.2", "http://127.0.0.3"];

    fn group(by: StickyBy, fallback: Fallback, origins: &Arc<Origins>) -> Arc<Group> {
        let mut site = site(&ALL);
        let ttl = edge_config::Duration::from_secs(60);
        site.origins.sticky = Some(config::Sticky { by, ttl, fallback, key: None });
        site.origins.members[0].max_requests = Some(1);
        Group::new(&site, 0, None, origins).expect("no file to read")
    }

    /// The session that a client of the member with this index has.
    fn session_with(group: &Group, index: usize) -> Session {
        let set = group.cookie(Session::default(), index, false).expect("a cookie");
        let fields = format!("cookie: {}\r\n", set.split(';').next().unwrap_or_default());
        group.session(Fields::new(fields.as_bytes()), [192, 0, 2, 1].into())
    }

    #[test]
    fn where_a_session_goes() {
        let by_cookie = || StickyBy::Cookie("lb".into());
        let out = |group: &Group, index| {
            let member = group.roster().at(index).expect("it is there").clone();
            member.failed(clock::monotonic(), &group.origins.metrics);
        };
        type Row<'a> = (&'static str, usize, &'a dyn Fn(&Group), &'a [usize], bool);
        let drain = |group: &Group, last: u8, seconds: Option<u64>| {
            let drain = Drain::lasting(seconds.map(Duration::from_secs), clock::monotonic());
            group.origins.drains.begin("s", &format!("127.0.0.{last}:80"), drain);
        };
        let every = |group: &Group, seconds| [1, 2, 3].iter().for_each(|last| drain(group, *last, seconds));
        let rows: [Row<'_>; 10] = [
            ("it is up", 1, &|_| {}, &[], true),
            ("it has failed this request", 1, &|_| {}, &[1], false),
            ("it is ejected", 1, &|group| out(group, 1), &[], false),
            ("it is leaving", 1, &|group| drain(group, 2, Some(60)), &[], true),
            ("it is leaving without end", 1, &|group| drain(group, 2, None), &[], true),
            ("it has left", 1, &|group| drain(group, 2, Some(0)), &[], false),
            ("all are leaving", 1, &|group| every(group, None), &[], true),
            ("all have left", 1, &|group| every(group, Some(0)), &[], true),
            ("another has left", 1, &|group| drain(group, 1, Some(0)), &[], true),
            ("it has room", 0, &|_| {}, &[], true),
        ];
        for (name, index, change, tried, stays) in rows {
            for fallback in [Fallback::Another, Fallback::Refuse] {
                let group = group(by_cookie(), fallback, &Arc::new(origins()));
                let session = session_with(&group, index);
                change(&group);
                let asked = group.choose_now(Wanted { tried, session, ..Wanted::default() });
                match asked {
                    Ok(choice) => assert_eq!(choice.index == index, stays, "{name} {fallback:?}"),
                    Err(_) => assert!(!stays && fallback == Fallback::Refuse, "{name} {fallback:?}"),
                }
            }
        }
        let group = group(by_cookie(), Fallback::Refuse, &Arc::new(origins()));
        let session = session_with(&group, 0);
        let wanted = || Wanted { session, ..Wanted::default() };
        let only = group.choose_now(wanted()).expect("there is room for one");
        assert_eq!((only.index, group.refuses(session)), (0, Some(Failure::SessionRefused)));
        assert!(group.choose_now(wanted()).is_err(), "it has as many as it may");
        assert_eq!(group.last_cookie(session, false), None, "it will have room again");
        drop(only);
        assert_eq!(group.refuses(session), None);
        assert!(group.choose_now(wanted()).is_ok_and(|choice| choice.index == 0));
    }

    #[test]
    fn who_is_asked_while_some_leave() {
        for (name, changes, expected) in [
            ("nobody", &[][..], &[0, 1, 2][..]),
            ("one leaves", &[(1, None)], &[1, 2]),
            ("one has left, one leaves", &[(1, Some(0)), (2, Some(60))], &[2]),
            ("all but one have left, and that one leaves", &[(1, Some(0)), (2, Some(0)), (3, None)], &[2]),
            ("all leave", &[(1, None), (2, Some(60)), (3, None)], &[0, 1, 2]),
            ("all have left", &[(1, Some(0)), (2, Some(0)), (3, Some(0))], &[0, 1, 2]),
        ] {
            let origins = Arc::new(origins());
            let group = group(StickyBy::Address, Fallback::Another, &origins);
            for (last, seconds) in changes {
                let drain = Drain::lasting(seconds.map(Duration::from_secs), clock::monotonic());
                origins.drains.begin("s", &format!("127.0.0.{last}:80"), drain);
            }
            let asked = |_| group.choose_now(Wanted::default()).map(|choice| choice.index).expect("somebody is asked");
            let mut asked: Vec<usize> = (0..12).map(asked).collect();
            asked.sort_unstable();
            asked.dedup();
            assert_eq!(asked, expected, "{name}");
            for client in 0..40 {
                let session = group.session(Fields::new(b""), [192, 0, 2, client].into());
                let wanted = Wanted { session, ..Wanted::default() };
                let index = group.choose_now(wanted).map(|choice| choice.index).expect("somebody is asked");
                assert!(expected.contains(&index), "{name}: {index}");
            }
        }
    }
}

use super::*;
use edge_config::Duration as Span;

const ROOM: Company = Company { members: 4, others_out: 0 };
const NO_ROOM: Company = Company { members: 4, others_out: 2 };

fn settings() -> Eject {
    let (window, period, period_max) = (Span::from_secs(10), Span::from_secs(5), Span::from_secs(30));
    Eject { failures: 3, window, period, period_max, ..Eject::default() }
}

/// What happens at a time in milliseconds, and what comes of it.
enum Event {
    /// Requests that begin and fail at once, one after the other; the last one ejects for so many seconds. 0: it does not.
    Fail(u32, u64),
    /// A failure that would eject, when too many are out.
    Withheld,
    /// A failure, or a success, of a request that began at this time.
    FailSince(u64, u64),
    SucceedSince(u64, Back),
    /// A request is to be sent, and may be or not.
    Ask(Asked),
    /// The one that was to be sent then is not.
    Withdraw(u64),
}

#[derive(Debug, PartialEq)]
enum Back {
    Yes,
    No,
}

#[derive(Debug, PartialEq)]
enum Asked {
    Yes,
    No,
}

use Event::{Ask, Fail, FailSince, SucceedSince, Withdraw, Withheld};

fn check(name: &str, events: &[(u64, Event)]) {
    let mut ejection = Ejection::new(Some(settings()));
    let start = crate::clock::monotonic();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let length = |seconds| match seconds {
        0 => Verdict::Counted,
        seconds => Verdict::Ejected(Duration::from_secs(seconds)),
    };
    for (ms, event) in events {
        let (now, place) = (at(*ms), format!("{name}: at {ms} ms"));
        match event {
            Fail(count, seconds) => {
                let verdicts: Vec<Verdict> = (0..*count).map(|_| ejection.failed(now, now, ROOM)).collect();
                assert_eq!(verdicts.last(), Some(&length(*seconds)), "{place}");
                assert!(verdicts.iter().rev().skip(1).all(|verdict| *verdict == Verdict::Counted), "{place}");
            }
            Withheld => {
                assert_eq!(ejection.failed(now, now, NO_ROOM), Verdict::Withheld, "{place}");
                assert!(!ejection.is_out(), "{place}");
            }
            FailSince(began, seconds) => {
                assert_eq!(ejection.failed(at(*began), now, ROOM), length(*seconds), "{place}");
            }
            SucceedSince(began, expected) => {
                let back = if ejection.succeeded(at(*began), now) { Back::Yes } else { Back::No };
                assert_eq!(back, *expected, "{place}");
                assert!(back == Back::No || !ejection.is_out(), "{place}");
            }
            Withdraw(admitted) => ejection.withdraw(at(*admitted)),
            Ask(expected) => {
                let shown = ejection.may_be_asked(now);
                let asked = ejection.admit(now);
                assert_eq!(shown, asked, "{place}");
                assert_eq!(if asked { Asked::Yes } else { Asked::No }, *expected, "{place}");
            }
        }
    }
}

#[test]
fn failures_in_a_row_eject() {
    check("three", &[(0, Fail(2, 0)), (2, Fail(1, 5)), (2, Ask(Asked::No))]);
    check(
        "a success between",
        &[(0, Fail(2, 0)), (1, SucceedSince(1, Back::No)), (2, Fail(2, 0)), (2, Ask(Asked::Yes))],
    );
    check("too far apart", &[(0, Fail(2, 0)), (10_002, Fail(2, 0))]);
    check("under way", &[(0, Fail(3, 5)), (4_999, Fail(1, 0)), (5_000, Ask(Asked::Yes)), (5_001, FailSince(4_999, 0))]);
    check("answered before it failed", &[(10, Fail(3, 5)), (20, SucceedSince(9, Back::No)), (20, Ask(Asked::No))]);
    check("answered all the same", &[(10, Fail(3, 5)), (20, SucceedSince(15, Back::Yes)), (20, Ask(Asked::Yes))]);
}

#[test]
fn one_trial_decides() {
    let ejected = || [(0, Fail(3, 5)), (4_999, Ask(Asked::No)), (5_000, Ask(Asked::Yes)), (5_001, Ask(Asked::No))];
    let with = |name, events: Vec<(u64, Event)>| check(name, &ejected().into_iter().chain(events).collect::<Vec<_>>());
    with("it fails", vec![(5_100, FailSince(5_000, 10)), (15_099, Ask(Asked::No)), (15_100, Ask(Asked::Yes))]);
    with(
        "it is answered",
        vec![(5_100, SucceedSince(5_000, Back::Yes)), (5_100, Ask(Asked::Yes)), (5_100, Fail(2, 0))],
    );
    with("a straggler fails meanwhile", vec![(5_100, FailSince(1_000, 0)), (5_200, SucceedSince(5_000, Back::Yes))]);
    with("it is not sent", vec![(5_002, Withdraw(5_000)), (5_002, Ask(Asked::Yes)), (5_003, Ask(Asked::No))]);
    with("another is not sent", vec![(5_002, Withdraw(5_001)), (5_002, Ask(Asked::No))]);
    with("nobody hears of it", vec![(14_999, Ask(Asked::No)), (15_000, Ask(Asked::Yes)), (15_001, Ask(Asked::No))]);
    with("too late an answer counts too", vec![(15_000, Ask(Asked::Yes)), (15_001, SucceedSince(5_000, Back::Yes))]);
}

#[test]
fn each_ejection_in_a_row_is_twice_as_long() {
    let trial = |ms: u64, seconds: u64| [(ms, Ask(Asked::Yes)), (ms, FailSince(ms, seconds))];
    let grown = || [vec![(0, Fail(3, 5))], trial(5_000, 10).into(), trial(15_000, 20).into()].into_iter().flatten();
    let with = |name, events: Vec<(u64, Event)>| check(name, &grown().chain(events).collect::<Vec<_>>());
    let longest = [trial(35_000, 30), trial(65_000, 30), trial(95_000, 30)];
    with("up to the longest", longest.into_iter().flatten().collect());
    let back = || [(35_000, Ask(Asked::Yes)), (36_000, SucceedSince(35_000, Back::Yes))];
    let again = |ms, seconds| back().into_iter().chain([(ms, Fail(3, seconds))]).collect::<Vec<_>>();
    with("back for a moment", again(40_999, 30));
    with("back for a period", again(41_000, 20));
    with("back for two", again(46_500, 10));
    with("back for good", again(51_000, 5));
    with("back for a day", again(86_400_000, 5));
}

#[test]
fn who_would_be_one_too_many_stays() {
    check("and is tried anew", &[(0, Fail(2, 0)), (1, Withheld), (2, Withheld), (2, Ask(Asked::Yes)), (3, Fail(1, 5))]);
    check("but not for ever", &[(0, Fail(2, 0)), (1, Withheld), (10_002, Fail(2, 0))]);
    check("on trial", &[(0, Fail(3, 5)), (5_000, Ask(Asked::Yes)), (5_001, Withheld), (5_001, Ask(Asked::Yes))]);
    for (members, percent, out_at_most) in [
        (1, 50, 0),
        (1, 100, 0),
        (2, 50, 1),
        (2, 49, 0),
        (2, 100, 1),
        (3, 50, 1),
        (3, 67, 2),
        (3, 100, 2),
        (10, 0, 0),
        (10, 9, 0),
        (10, 10, 1),
        (10, 50, 5),
        (10, 100, 9),
        (0, 100, 0),
    ] {
        let has_room = |others_out: &usize| Company { members, others_out: *others_out }.has_room(percent);
        let found = (0..=members).take_while(has_room).count();
        assert_eq!(found, out_at_most, "{percent}% of {members}");
    }
}

#[test]
fn it_can_be_off_and_bounds_are_kept() {
    let now = crate::clock::monotonic();
    let mut off = Ejection::new(None);
    assert!((0..100).all(|_| off.failed(now, now, ROOM) == Verdict::Counted) && off.admit(now));
    let period_max = Span::from_millis(u64::MAX);
    let longest = Eject { failures: 1, period: Span::from_millis(1), period_max, ..Eject::default() };
    let mut ejection = Ejection::new(Some(longest));
    let mut lengths = Vec::new();
    for _ in 0..70 {
        let Verdict::Ejected(length) = ejection.failed(now, now, ROOM) else { panic!("not ejected") };
        lengths.push(length);
        ejection.out = None;
    }
    assert!(lengths.is_sorted() && lengths[31] == Duration::from_millis(1 << 31), "{lengths:?}");
}

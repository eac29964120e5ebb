//! Who of a group is asked, and who waits.

use super::*;
use crate::origin::Failure;
use crate::origin::member::Standing;
use crate::semantics::fields::Fields;
use edge_config::section::balance::Crowd;
use edge_config::section::health::Eject;
use edge_config::section::origin::Resolve;
use edge_config::section::site::Site;

pub(super) fn origins() -> Origins {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    origins_on(runtime.handle().clone())
}

fn origins_on(checks: tokio::runtime::Handle) -> Origins {
    let metrics = Metrics::new("test");
    metrics.site("s");
    Origins::new(checks, metrics, &edge_config::section::resolver::Resolver::default(), [0; 32])
}

pub(super) fn site(urls: &[&str]) -> Site {
    let origin = |url: &&str| url.parse().expect("an origin");
    let mut site = Site::of_one("s", origin(&urls[0]));
    let member = |url| config::Member::of(origin(url));
    site.origins.members = urls.iter().map(member).collect();
    site.origins.eject = Some(Eject { failures: 1, out_percent_max: 100, ..Eject::default() });
    site
}

fn member(group: &Group, index: usize) -> Arc<Member> {
    group.roster().at(index).expect("it is there").clone()
}

fn index_of(group: &Group, tried: &[usize], avoid: Option<usize>) -> Option<usize> {
    group.choose_now(Wanted { tried, avoid, ..Wanted::default() }).ok().map(|choice| choice.index)
}

#[test]
fn a_new_configuration_keeps_what_is_known_of_origins_it_leaves_alone() {
    let origins = Arc::new(origins());
    let group = |site: &Site, previous| Group::new(site, 0, previous, &origins).expect("no file to read");
    let old = group(&site(&["http://127.0.0.1", "http://127.0.0.2"]), None);
    member(&old, 0).failed(clock::monotonic(), &origins.metrics);
    let now = clock::monotonic();
    assert_eq!(member(&old, 0).standing(now), Standing::Ejected);
    let same = group(&site(&["http://127.0.0.3", "http://127.0.0.1"]), Some(&old));
    assert_eq!(member(&same, 1).standing(now), Standing::Ejected);
    assert!(Arc::ptr_eq(&member(&same, 1), &member(&old, 0)));
    let mut heavier = site(&["http://127.0.0.1"]);
    heavier.origins.members[0].weight = 2;
    let changed = group(&heavier, Some(&old));
    assert_eq!(member(&changed, 0).standing(now), Standing::Up);
}

#[test]
fn who_is_asked_when_nobody_is_up() {
    let origins = Arc::new(origins());
    let group =
        Group::new(&site(&["http://127.0.0.1", "http://127.0.0.2"]), 0, None, &origins).expect("no file to read");
    let index = |tried: &[usize]| index_of(&group, tried, None);
    member(&group, 0).failed(clock::monotonic(), &origins.metrics);
    assert_eq!([index(&[]), index(&[]), index(&[1])], [Some(1), Some(1), Some(0)], "the ejected one at last");
    member(&group, 1).failed(clock::monotonic(), &origins.metrics);
    assert_eq!([index(&[]), index(&[])], [Some(1), Some(1)], "the last one is not ejected");
    assert_eq!(index(&[0, 1]), None);
}

#[test]
fn who_is_asked_instead_of_one_that_broke_off() {
    let origins = Arc::new(origins());
    let mut site = site(&["http://127.0.0.1", "http://127.0.0.2", "http://127.0.0.3"]);
    site.origins.members[2].tier = 2;
    let group = Group::new(&site, 0, None, &origins).expect("no file to read");
    let index = |tried: &[usize], avoid| index_of(&group, tried, Some(avoid));
    assert_eq!([index(&[], 0), index(&[], 0), index(&[], 1)], [Some(1), Some(1), Some(0)], "another of its tier");
    assert_eq!(index(&[1], 0), Some(2), "another of a lower tier, also when one was tried");
    member(&group, 1).failed(clock::monotonic(), &origins.metrics);
    assert_eq!([index(&[], 0), index(&[], 2)], [Some(2), Some(0)], "not one that is ejected");
    member(&group, 2).failed(clock::monotonic(), &origins.metrics);
    assert_eq!(index(&[], 0), Some(0), "the same one, when no other is up");
    member(&group, 0).failed(clock::monotonic(), &origins.metrics);
    assert_eq!([index(&[], 0), index(&[1, 2], 0)], [Some(0), Some(0)], "the last one is never ejected");
    assert!(index(&[], 9).is_some(), "one that is not there");
}

#[tokio::test]
async fn nobody_has_more_than_its_cap_and_those_that_wait_are_served_in_order() {
    let origins = Arc::new(origins_on(tokio::runtime::Handle::current()));
    let mut site = site(&["http://127.0.0.1", "http://127.0.0.2"]);
    site.origins.crowd = Crowd { max_requests: Some(1), queue: 2, queue_wait: edge_config::Duration::from_secs(60) };
    let group = Group::new(&site, 0, None, &origins).expect("no file to read");
    let first = group.choose(Wanted::default()).await.expect("room");
    let second = group.choose(Wanted::default()).await.expect("room");
    assert_ne!(first.index, second.index);
    assert!(group.choose_again(Wanted::default()).is_none(), "who tries again does not wait");
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for number in 0..2 {
        let (theirs, order) = (group.clone(), order.clone());
        waiting.push(tokio::spawn(async move {
            let chosen = theirs.choose(Wanted::default()).await.expect("in the end");
            order.lock().push(number);
            chosen
        }));
        while group.queue.len() <= number {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(group.choose(Wanted::default()).await.err(), Some(Failure::Busy), "the queue is full");
    let freed = first.index;
    drop(first);
    let third = waiting.remove(0).await.expect("no panic");
    assert_eq!((third.index, group.queue.len()), (freed, 1));
    // Dropped while it waits: its place is given up.
    let last = waiting.remove(0);
    last.abort();
    assert!(last.await.is_err());
    assert_eq!((group.queue.len(), order.lock().as_slice()), (0, &[0][..]));
    drop((second, third));
    assert!(group.roster().iter().all(|placed| placed.member.in_flight() == 0));
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_told() {
    let origins = Arc::new(origins_on(tokio::runtime::Handle::current()));
    let mut site = site(&["http://127.0.0.1"]);
    site.origins.crowd = Crowd { max_requests: Some(1), queue: 1, queue_wait: edge_config::Duration::from_secs(5) };
    let group = Group::new(&site, 0, None, &origins).expect("no file to read");
    let _first = group.choose(Wanted::default()).await.expect("room");
    assert_eq!(group.choose(Wanted::default()).await.err(), Some(Failure::Busy));
    assert_eq!(group.queue.len(), 0);
    let again = Group::new(&site, 0, Some(&group), &origins).expect("no file to read");
    assert!(again.choose_now(Wanted::default()).is_err(), "a new configuration goes on counting");
}

#[test]
fn what_requests_are_hashed_by() {
    let origins = Arc::new(origins());
    let mut table = Vec::new();
    for by in ["url", "header X-User", "cookie id", "address"] {
        let mut site = site(&["http://127.0.0.1", "http://127.0.0.2"]);
        site.origins.balance = Balance::Consistent(by.parse().expect("something to hash by"));
        let group = Group::new(&site, 0, None, &origins).expect("no file to read");
        let key = |target: &str, user: &str, id: &str, client: &str| {
            let fields = format!("x-user: {user}\r\ncookie: a=b; id={id}\r\n");
            group.key(b"h", target.as_bytes(), Fields::new(fields.as_bytes()), client.parse().ok())
        };
        let first = key("/a", "u", "i", "10.0.0.1");
        let others = [
            ("/b", "u", "i", "10.0.0.1"),
            ("/a", "v", "i", "10.0.0.1"),
            ("/a", "u", "j", "10.0.0.1"),
            ("/a", "u", "i", "10.0.0.2"),
        ];
        table.push(others.map(|(target, user, id, client)| key(target, user, id, client) != first));
        let without = |target: &[u8]| group.key(b"h", target, Fields::new(b""), None);
        assert_ne!(without(b"/a"), without(b"/b"), "{by}: without it, by URL");
    }
    let only = |at| std::array::from_fn(|index| index == at);
    assert_eq!(table, [only(0), only(1), only(2), only(3)]);
}

fn targets(last: &[u8]) -> Vec<Target> {
    last.iter().map(|last| Target::new(([127, 0, 0, *last], 80).into())).collect()
}

/// Index, address and share of everybody.
fn places(group: &Group) -> Vec<(usize, String, u32)> {
    let roster = group.roster();
    let place = |placed: &Placed| (placed.index, placed.member.target().address.ip().to_string(), placed.weight);
    roster.iter().map(place).collect()
}

#[test]
fn each_address_of_a_name_is_an_origin() {
    let origins = Arc::new(origins());
    let mut site = site(&["http://name.test", "http://127.0.0.9"]);
    site.origins.members[0].weight = 3;
    let group = Group::new(&site, 0, None, &origins).expect("no file to read");
    let place = |index, last: &str, weight| (index, format!("127.0.0.{last}"), weight);
    assert_eq!(places(&group), [place(0, "9", 1_000)]);
    assert_eq!(group.without_address().collect::<Vec<_>>(), ["name.test:80"]);
    group.resolved(0, targets(&[1, 2]));
    assert_eq!(places(&group), [place(0, "9", 1_000), place(1, "1", 1_500), place(2, "2", 1_500)]);
    let stays = member(&group, 2);
    stays.failed(clock::monotonic(), &origins.metrics);
    group.resolved(0, targets(&[2, 3]));
    assert_eq!(places(&group), [place(0, "9", 1_000), place(1, "3", 1_500), place(2, "2", 1_500)]);
    assert!(Arc::ptr_eq(&stays, &member(&group, 2)), "what is known of it stays known");
    assert_eq!(stays.standing(clock::monotonic()), Standing::Ejected);
    group.resolved(0, Vec::new());
    assert_eq!(places(&group).len(), 3, "nobody goes because nobody is found");
    let again = Group::new(&site, 0, Some(&group), &origins).expect("no file to read");
    assert!(again.roster().iter().any(|placed| Arc::ptr_eq(&placed.member, &stays)), "a new configuration knows them");
    assert_eq!(again.roster().len(), 3);
    site.origins.members[0].origin.resolve = Resolve::Ipv4;
    let other = Group::new(&site, 0, Some(&again), &origins).expect("no file to read");
    assert_eq!(other.roster().len(), 1, "something else is asked for");
}

#[test]
fn who_has_a_lower_priority_is_asked_when_nobody_else_is_up() {
    let origins = Arc::new(origins());
    let group = Group::new(&site(&["http://name.test"]), 0, None, &origins).expect("no file to read");
    let mut both = targets(&[1, 2]);
    both[0].priority = 5;
    group.resolved(0, both);
    assert_eq!([index_of(&group, &[], None), index_of(&group, &[1], None)], [Some(1), Some(0)]);
}

#[tokio::test(start_paused = true)]
async fn who_asks_before_a_name_is_resolved_waits_for_it() {
    // Nobody asks a name server: the runtime that would is gone.
    let origins = Arc::new(std::thread::spawn(origins).join().expect("no panic"));
    let group = || Group::new(&site(&["http://name.test"]), 0, None, &origins).expect("no file to read");
    for (name, found, expected) in
        [("found", targets(&[1]), Ok(0)), ("there is none", Vec::new(), Err(Failure::Unreachable))]
    {
        let group = group();
        let waits = tokio::spawn({
            let group = group.clone();
            async move { group.choose(Wanted::default()).await.map(|choice| choice.index) }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished(), "{name}");
        group.resolved(0, found);
        assert_eq!(waits.await.expect("no panic"), expected, "{name}");
    }
    let never = group().choose(Wanted::default()).await;
    assert_eq!(never.err(), Some(Failure::Unreachable), "as long as a connection may take");
}

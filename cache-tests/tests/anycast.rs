//! Anycast: two PoPs with one address, real BIRD and a router between them and the clients, each in a network of its own.
//!
//! The test runs itself again inside namespaces of its own, of which nothing is left when it ends, however it ends. Its own
//! namespace is the clients' and the origin's.

use std::process::Command;
use std::time::Duration;

use cache_tests::answer::Answer;
use cache_tests::anycast::{
    ANYCAST, ORIGIN, address, announce, asked, bird, leads_to, link_to_p1, networks, node, router, shipped, who,
};
use cache_tests::client::{Client, Socket};
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::gate::Gate;
use cache_tests::origin::Origin;
use cache_tests::response::End;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

const INSIDE: &str = "LITTORAL_TEST_INSIDE";
/// What was promised for a node that is gone.
const MOVED_WITHIN: Duration = Duration::from_secs(3);

#[test]
fn clients_are_led_to_another_pop_when_one_is_gone_and_lose_nothing_when_it_drains() {
    let name = "clients_are_led_to_another_pop_when_one_is_gone_and_lose_nothing_when_it_drains";
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        return runtime.expect("a runtime").block_on(everything());
    }
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let mut command = Command::new("unshare");
    if !is_root {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(std::env::current_exe().expect("this test")).args(["--exact", name, "--nocapture"]);
    let status = command.env(INSIDE, "1").status().unwrap_or_else(|error| panic!("unshare: {error}"));
    assert!(status.success(), "{status}; it needs root, or user namespaces");
}

/// New connections to both addresses, every 20 ms: who answered, when, and what went wrong.
struct Traffic {
    stop: watch::Sender<bool>,
    clients: Vec<JoinHandle<Vec<Visit>>>,
}

struct Visit {
    at: Instant,
    /// When the first try was over.
    done: Instant,
    outcome: Result<(String, Option<String>), String>,
    /// What a second try a second later brought, where the first failed.
    again: Option<Result<(String, Option<String>), String>>,
}

impl Traffic {
    fn start(retry_after: Duration) -> Self {
        let (stop, stopped) = watch::channel(false);
        let clients = ANYCAST.map(|anycast| {
            let stopped = stopped.clone();
            tokio::spawn(async move {
                let (mut visits, mut next) = (JoinSet::new(), Instant::now());
                while !*stopped.borrow() {
                    visits.spawn(async move {
                        let at = Instant::now();
                        let outcome = who(anycast, "/page").await;
                        let done = Instant::now();
                        let again = match &outcome {
                            Ok(_) => None,
                            Err(_) => {
                                sleep_until(Instant::now() + retry_after).await;
                                Some(who(anycast, "/page").await)
                            }
                        };
                        Visit { at, done, outcome, again }
                    });
                    next += Duration::from_millis(20);
                    sleep_until(next).await;
                }
                let mut all = visits.join_all().await;
                all.sort_by_key(|visit| visit.at);
                all
            })
        });
        Self { stop, clients: clients.into() }
    }

    /// For each address.
    async fn end(self) -> Vec<Vec<Visit>> {
        self.stop.send_replace(true);
        let mut all = Vec::new();
        for client in self.clients {
            all.push(client.await.expect("a client does not panic"));
        }
        all
    }
}

/// When the first client was served by a PoP after something happened, for each address.
fn first(visits: &[Vec<Visit>], pop: &str, since: Instant) -> Vec<Duration> {
    let first = |visits: &Vec<Visit>| {
        let served = |visit: &&Visit| visit.at >= since && visit.outcome.as_ref().is_ok_and(|(by, _)| by == pop);
        visits.iter().filter(served).map(|visit| visit.done - since).min()
    };
    visits.iter().map(|visits| first(visits).unwrap_or(Duration::MAX)).collect()
}

/// Something has just taken the first PoP away without a word: clients are with the second one in time, and whoever tries again is
/// served.
async fn moves(what: &str, take_away: impl FnOnce()) {
    let traffic = Traffic::start(Duration::from_secs(1));
    sleep_until(Instant::now() + Duration::from_millis(300)).await;
    let since = Instant::now();
    take_away();
    leads_to("p2", PATIENCE).await;
    sleep_until(Instant::now() + Duration::from_millis(300)).await;
    let visits = traffic.end().await;
    let moved = first(&visits, "p2", since);
    let failed = visits.iter().flatten().filter(|visit| visit.outcome.is_err()).count();
    let all = visits.iter().map(Vec::len).sum::<usize>();
    eprintln!(
        "{what}: clients are served elsewhere after {moved:?} (IPv4, IPv6); {failed} of {all} requests were sent again"
    );
    assert!(moved.iter().all(|moved| *moved < MOVED_WITHIN), "{what}: {moved:?}");
    for visit in visits.iter().flatten() {
        if let Some(Err(error)) = &visit.again {
            panic!("{what}: a second try failed too: {:?}, then {error}", visit.outcome);
        }
    }
}

async fn everything() {
    networks();
    let origin = Origin::start_at(address(ORIGIN));
    origin.serve("/page", Answer::ok("page").field("Cache-Control: max-age=600"));
    let _router = router();
    let (mut bird_1, _bird_2) = (bird("p1", &shipped(1)), bird("p2", &shipped(2)));
    let (mut node_1, _node_2) = (node(1), node(2));
    let (mut announce_1, _announce_2) = (announce(1), announce(2));
    leads_to("p1", Duration::from_secs(30)).await;
    until(PATIENCE, "the second PoP is announced", || async {
        match asked(2, "GET", "/announcez").await {
            Some(200) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    moves("a node that is killed", || node_1.signal("KILL")).await;
    node_1.end_within(PATIENCE).await;
    node_1 = node(1);
    leads_to("p1", PATIENCE).await;

    moves("a link that is cut", || link_to_p1(false)).await;
    link_to_p1(true);
    leads_to("p1", Duration::from_secs(30)).await;

    // Who watches is killed: nothing changes, neither then nor when it watches again.
    let traffic = Traffic::start(Duration::from_secs(1));
    announce_1.signal("KILL");
    announce_1.end_within(PATIENCE).await;
    announce_1 = announce(1);
    sleep_until(Instant::now() + Duration::from_millis(1_500)).await;
    for visit in traffic.end().await.iter().flatten() {
        assert_eq!(visit.outcome.as_ref().map(|(by, _)| by.as_str()), Ok("p1"));
    }
    // It is told to stop: the prefix is withdrawn. It watches again: the prefix is back.
    announce_1.signal("TERM");
    assert_eq!(announce_1.end_within(PATIENCE).await.code(), Some(0));
    leads_to("p2", PATIENCE).await;
    announce_1 = announce(1);
    leads_to("p1", PATIENCE).await;
    // BIRD starts anew, with everything disabled: it is told again.
    bird_1.signal("TERM");
    bird_1.end_within(PATIENCE).await;
    leads_to("p2", PATIENCE).await;
    bird_1 = bird("p1", &shipped(1));
    leads_to("p1", Duration::from_secs(30)).await;

    drains(&origin).await;
    assert_eq!(node_1.end_within(PATIENCE).await.code(), Some(0));
    eprintln!("{}", announce_1.said());
    drop((bird_1, announce_1));
}

/// The first PoP drains: short requests never fail, a download that is done in time is whole, and one that is not ends when clients
/// are elsewhere already.
async fn drains(origin: &Origin) {
    let (in_time, never) = (Gate::closed(), Gate::closed());
    origin.serve("/in-time", Answer::ok("begun ").hold(&in_time).piece("done").field("Cache-Control: no-store"));
    origin.serve("/never", Answer::ok("begun ").hold(&never).piece("done").field("Cache-Control: no-store"));
    let [mut kept, mut whole, mut cut] = [(); 3].map(|()| None::<Client>);
    for client in [&mut kept, &mut whole, &mut cut] {
        *client = Some(Client::connect_with(address(ANYCAST[0]), Socket::default()).await.expect("connected"));
    }
    let (Some(mut kept), Some(mut whole), Some(cut)) = (kept, whole, cut) else { return };
    let mut cut = cut.patient(Duration::from_secs(20));
    assert_eq!(kept.get("/page").await.head.field("connection"), None);
    for (client, target) in [(&mut whole, "/in-time"), (&mut cut, "/never")] {
        client.ask("GET", target, &[]).await;
        let head = client.begin("GET").await.expect("a head");
        assert_eq!((head.status, head.field("x-pop").as_deref()), (200, Some("p1")));
    }
    let traffic = Traffic::start(Duration::ZERO);
    let began = Instant::now();
    assert_eq!(asked(1, "POST", "/v1/drain").await, Some(202));
    until(PATIENCE, "the node says that it is not ready", || async {
        match asked(1, "GET", "/readyz").await {
            Some(503) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(asked(1, "GET", "/announcez").await, Some(200), "it stays announced");
    let last = kept.get("/page").await;
    assert_eq!(last.head.field("connection").as_deref(), Some("close"), "whoever is connected is told");
    in_time.open();
    let (body, end) = whole.rest().await;
    assert_eq!((body.as_ref(), end), (&b"begun done"[..], End::Whole), "a download that is done in time");
    let broken = tokio::spawn(async move {
        let (_, end) = cut.rest().await;
        (end, Instant::now())
    });
    leads_to("p2", Duration::from_secs(20)).await;
    let (end, broken) = broken.await.expect("no panic");
    sleep_until(Instant::now() + Duration::from_millis(300)).await;
    let visits = traffic.end().await;
    let moved = first(&visits, "p2", began);
    eprintln!(
        "a node that drains: clients are elsewhere after {moved:?}, the last connection is broken after {:?}",
        broken - began
    );
    assert!(end == End::Reset || end == End::Cut, "{end:?}");
    assert!(moved.iter().all(|moved| *moved >= Duration::from_secs(6) && began + *moved < broken), "{moved:?}");
    for (visits, moved) in visits.iter().zip(&moved) {
        let failed: Vec<_> = visits.iter().filter(|visit| visit.outcome.is_err()).collect();
        // Of requests that are on their way at the very moment the route changes, the second half goes to a node that does not know
        // of the first: one at a time is, for about two of twenty milliseconds.
        assert!(failed.len() <= 1, "{:?}", failed.iter().map(|visit| &visit.outcome).collect::<Vec<_>>());
        for visit in failed {
            let distance = (visit.at - began).abs_diff(*moved);
            assert!(distance < Duration::from_millis(500), "{:?}, {distance:?} from the change", visit.outcome);
            assert!(matches!(visit.again, Some(Ok(_))), "{:?}", visit.again);
        }
        for visit in visits.iter().filter(|visit| visit.at > began + Duration::from_secs(1)) {
            if let Ok((by, connection)) = &visit.outcome
                && by == "p1"
            {
                assert_eq!(connection.as_deref(), Some("close"));
            }
        }
    }
    // What never came is not waited for.
    never.open();
}

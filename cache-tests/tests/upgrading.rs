//! Upgrading a node in place: nobody is refused, cut off or served what was purged, and a new process that is no good changes
//! nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache_tests::answer::{Answer, pattern};
use cache_tests::client::{Client, HOST, Socket as Options};
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::disk::{has_objects, opened};
use cache_tests::node::{NodeOptions, binary, run_to_the_end};
use cache_tests::origin::Origin;
use cache_tests::process::Scratch;
use cache_tests::response::End;
use cache_tests::succession::{Kind, Succession, Tally, Visits, is_running, kill};
use cache_tests::table::{Table, same, that};
use cache_tests::upgrade::{EchoOrigin, Socket, download};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until};

/// Objects that clients ask for again and again.
const OBJECTS: usize = 40;
/// Those that are purged with each upgrade.
const PURGED: usize = 8;
/// A body that is served in chunks from the disk.
const LARGE: usize = 6 << 20;

/// With a disk, and a group that downloads and WebSockets go to.
fn configuration(echo: &EchoOrigin) -> String {
    format!(
        "[cache]\nmemory = \"128MiB\"\ndisk = [{{ path = \"cache\", size = \"128MiB\" }}]\n[purge]\ndata = \"data\"\n\
         [site.main]\nhosts = [\"*\"]\norigins = [\"{{origin}}\"]\n[site.main.group.echo]\norigins = [\"{}\"]\n\
         [[site.main.rule]]\nwhen = {{ path = [\"/echo\", \"/download\"] }}\nthen = {{ group = \"echo\" }}\n",
        echo.url()
    )
}

/// An origin whose objects say which version they are of.
fn versioned(version: &Arc<AtomicU64>) -> Origin {
    let origin = Origin::start();
    for number in 0..OBJECTS {
        let version = version.clone();
        origin.serve_with(&format!("/object/{number}"), move |_| {
            Answer::ok(format!("object of version {}", version.load(Ordering::SeqCst)))
                .field("Cache-Control: max-age=600")
        });
    }
    origin.serve("/large", Answer::ok(pattern(LARGE, 3)).field("Cache-Control: max-age=600").field("ETag: \"large\""));
    origin
}

fn objects() -> Vec<String> {
    (0..OBJECTS).map(|number| format!("/object/{number}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_upgrades_disturb_nobody() {
    upgrades(2, Duration::from_millis(1_500), 150, Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes two minutes; cache-tests/run --soak"]
async fn five_upgrades_under_500_requests_a_second_and_downloads_of_a_minute_disturb_nobody() {
    upgrades(5, Duration::from_secs(10), 500, Duration::from_secs(60)).await;
}

/// Upgrades under traffic of every kind.
async fn upgrades(count: u64, pause: Duration, rate: u32, long: Duration) {
    let version = Arc::new(AtomicU64::new(1));
    let (echo, origin) = (EchoOrigin::start(50, long / 50).await, versioned(&version));
    let node = opened(NodeOptions::configured(&origin, &configuration(&echo)).alone()).await;
    let node = Arc::new(Succession::of(node));
    let targets: Vec<_> = objects().into_iter().chain(["/large".to_owned()]).collect();
    for target in targets.iter().cycle().take(3 * targets.len()) {
        assert_eq!(node.node.get(target).await.status, 200);
        assert_eq!(node.node.tls_client().await.get(target).await.status, 200);
    }
    has_objects(&node.node, 2 * OBJECTS).await;
    let (stop, stopped) = watch::channel(false);
    let (floor, tally) = (Arc::new(AtomicU64::new(1)), Arc::new(Tally::default()));
    let mut clients = JoinSet::new();
    let each = 4;
    for number in 0..each * Kind::ALL.len() {
        let visits = Visits {
            kind: Kind::ALL[number % Kind::ALL.len()],
            every: Duration::from_secs(1) * u32::try_from(each * Kind::ALL.len()).expect("few") / rate,
            targets: objects(),
            purged: PURGED,
            floor: floor.clone(),
            tally: tally.clone(),
            stopped: stopped.clone(),
        };
        clients.spawn(visits.run(node.clone()));
    }
    for number in 0..6 {
        clients.spawn(talk(node.clone(), number, stopped.clone()));
    }
    until(PATIENCE, "6 WebSockets", || async {
        if echo.open() == 6 { Ok(()) } else { Err(format!("{} are open", echo.open())) }
    })
    .await;
    let mut longer = JoinSet::new();
    let mut ids = vec![node.serving().await];
    for number in 1..=count {
        let next = Instant::now() + pause;
        longer.spawn(downloads(node.clone(), number));
        longer.spawn(reads_slowly(node.clone(), long));
        // Both have begun.
        sleep_until(Instant::now() + Duration::from_millis(200)).await;
        let purges = async {
            version.fetch_add(1, Ordering::SeqCst);
            let mut asked = 0;
            for target in objects().into_iter().take(PURGED) {
                asked += node.purge(&format!("http://{HOST}{target}")).await.expect("a receipt");
                asked += node.purge(&format!("https://{HOST}{target}")).await.expect("a receipt");
            }
            floor.fetch_max(version.load(Ordering::SeqCst), Ordering::SeqCst);
            asked
        };
        let (upgraded, asked) = tokio::join!(node.upgrade(), purges);
        let id = upgraded.unwrap_or_else(|refused| panic!("upgrade {number}: {refused:?}\n{}", node.node.said()));
        assert!(!ids.contains(&id), "{id} again: {ids:?}");
        assert_eq!(node.serving().await, id);
        eprintln!("upgrade {number}: process {id}; {} purges, asked {asked} times", 2 * PURGED);
        ids.push(id);
        if let Some(ended) = clients.try_join_next() {
            panic!("after {number} upgrades: {:?}", ended.expect("a client does not panic"));
        }
        sleep_until(next).await;
    }
    while let Some(ended) = longer.join_next().await {
        ended.expect("a client does not panic").unwrap_or_else(|problem| panic!("{problem}"));
    }
    stop.send_replace(true);
    while let Some(outcome) = clients.join_next().await {
        outcome.expect("a client does not panic").unwrap_or_else(|problem| panic!("{problem}"));
    }
    let seen = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let waits: Vec<String> =
        node.node.said().lines().filter(|line| line.contains("connections waited")).map(plain).collect();
    eprintln!(
        "{count} upgrades: {} answers, {} hits, {} connections, {} sent again by HTTP/2, the slowest took {} ms; {waits:#?}",
        seen(&tally.answers),
        seen(&tally.hits),
        seen(&tally.connections),
        seen(&tally.again),
        seen(&tally.slowest_us) / 1_000,
    );
    // The disk goes from one process to the next, and what is purged is an object in five.
    assert!(seen(&tally.hits) * 10 > seen(&tally.answers) * 6, "most are hits");
    assert_eq!(waits.len() as u64, count);
    until(PATIENCE, "the processes before have ended", || async {
        let left: Vec<_> = ids[1..ids.len() - 1].iter().filter(|id| is_running(**id)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

fn plain(line: &str) -> String {
    line.rsplit("seconds").next().unwrap_or_default().replace(|c: char| !c.is_ascii_digit() && c != '.', " ")
}

/// A WebSocket that stays open to the end, in whichever process it began.
async fn talk(node: Arc<Succession>, number: u64, stopped: watch::Receiver<bool>) -> Result<(), String> {
    let client = if number.is_multiple_of(2) { node.node.client().await } else { node.node.tls_client().await };
    let mut socket = Socket::open(client).await?;
    let mut beat = interval(Duration::from_millis(50));
    while !*stopped.borrow() {
        beat.tick().await;
        socket.echo(&pattern(500, number)).await.map_err(|problem| format!("WebSocket {number}: {problem}"))?;
    }
    Ok(())
}

/// A download that the origin takes its time for, over each protocol.
async fn downloads(node: Arc<Succession>, number: u64) -> Result<(), String> {
    let response = match number % 3 {
        0 => node.node.client().await.get("/download").await,
        1 => node.node.tls_client().await.get("/download").await,
        _ => node.node.h2().await.get("/download").await,
    };
    that(response.status == 200 && response.body == download() && response.end.is_clean(), || {
        format!("download {number}: {} {} bytes, {:?}", response.status, response.body.len(), response.end)
    })
}

/// A hit that its client takes a little at a time, longer than its process serves anybody else.
async fn reads_slowly(node: Arc<Succession>, long: Duration) -> Result<(), String> {
    let options = Options { receive_buffer: Some(16 << 10), ..Options::default() };
    let client = Client::connect_with(node.node.address(), options).await;
    let mut client = client.map_err(|error| error.to_string())?;
    client.ask("GET", "/large", &[]).await;
    let head = client.begin("GET").await.map_err(|end| format!("no answer: {end:?}"))?;
    that(head.status == 200, || format!("{head:?}"))?;
    let (expected, mut got) = (pattern(LARGE, 3), 0);
    let began = Instant::now();
    while got < LARGE {
        let bytes = match client.some_body().await {
            Ok(bytes) => bytes,
            Err(end) => return Err(format!("a hit that is taken slowly broke off after {got} bytes: {end:?}")),
        };
        that(expected[got..].starts_with(&bytes), || format!("other bytes at {got}"))?;
        got += bytes.len();
        sleep_until(began + long.mul_f64(0.8 * got as f64 / LARGE as f64)).await;
    }
    that(client.some_body().await == Err(End::Whole), || "more than the body".to_owned())
}

#[tokio::test]
async fn what_the_old_process_still_invalidates_is_not_served_by_the_new_one() {
    let origin = Origin::start();
    origin.serve_with("/form", |asked| match asked.method.as_str() {
        "GET" => Answer::ok("form ").numbered().field("Cache-Control: max-age=600"),
        _ => Answer::ok("changed"),
    });
    let node = Succession::of(NodeOptions::configured(&origin, "").start().await);
    let mut upload = node.node.client().await;
    upload.ask("POST", "/form", &["Content-Length: 10"]).await;
    upload.send("01234").await.expect("sent");
    let mut idle = node.node.client().await;
    assert_eq!(idle.get("/form").await.status, 200);
    node.upgrade().await.expect("upgraded");
    let first = node.node.get("/form").await;
    assert!(node.node.get("/form").await.is_hit());
    upload.send("56789").await.expect("sent");
    let answer = upload.response("POST").await.expect("an answer");
    assert_eq!((answer.status, answer.head.field("connection").as_deref()), (200, Some("close")));
    until(PATIENCE, "the new process knows", || async {
        let now = node.node.get("/form").await;
        if now.text() == first.text() { Err(now.text()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn connections_of_the_old_process_end_and_say_so() {
    let version = Arc::new(AtomicU64::new(1));
    let origin = versioned(&version);
    let node = Succession::of(NodeOptions::configured(&origin, "").start().await);
    let (mut kept, mut idle) = (node.node.client().await, node.node.client().await);
    kept.get("/object/1").await;
    idle.get("/object/1").await;
    let old = node.serving().await;
    let mut asked = node.node.client().await;
    asked.get("/object/2").await;
    let (upgraded, ()) = tokio::join!(node.upgrade(), async {
        // It may be the old process or, over a new connection, the new one that answers.
        until(PATIENCE, "an answer that ends the connection", || async {
            let response = node.node.client().await.get("/object/1").await;
            if response.status == 200 { Ok(()) } else { Err(format!("{}", response.status)) }
        })
        .await;
    });
    let id = upgraded.expect("upgraded");
    let last = kept.get("/object/1").await;
    let mut table = Table::new("connections of the old process");
    table.row("the next answer", same("status", last.status, 200));
    table.row("it says", same("connection", last.head.field("connection"), Some("close".to_owned())));
    // It was trusted a moment ago, and may have been purged since.
    table.row(
        "it is",
        that(!last.is_hit() || last.head.field("cache-status").is_some_and(|s| s.contains("fwd=")), || {
            format!("{:?}", last.head.field("cache-status"))
        }),
    );
    table.row("an idle one", same("its end", idle.closed().await.1, End::Cut));
    table.row("another process", that(id != old, || "the same".to_owned()));
    table.finish();
    let mut node = node;
    assert_eq!(node.node.end_within(PATIENCE).await.code(), Some(0));
}

#[tokio::test]
async fn a_new_process_that_is_no_good_changes_nothing() {
    let (version, scratch) = (Arc::new(AtomicU64::new(1)), Scratch::new("program"));
    let origin = versioned(&version);
    let program = scratch.path().join("littoral");
    fs::hard_link(binary(), &program).or_else(|_| fs::copy(binary(), &program).map(drop)).expect("a copy");
    let echo = EchoOrigin::start(1, Duration::ZERO).await;
    let text = configuration(&echo);
    let node = opened(NodeOptions::configured(&origin, &text).program(&program)).await;
    let node = Succession::of(node);
    let old = node.serving().await;
    for _ in 0..2 {
        node.node.get("/object/1").await;
    }
    let admin = node.node.admin().to_string();
    let mut table = Table::new("no good");
    let mut try_it = async |name: &str, expected: &str| {
        let (code, said) = run_to_the_end(&["upgrade", "--admin", &admin]);
        let words = said.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        table.row(name, same("the exit code", code, Some(1)));
        table.row(name, that(words.contains(expected), || format!("no {expected:?} in: {words}")));
        table.row(name, same("who serves", node.serving().await, old));
        let mut client = node.node.client().await;
        let response = client.get("/object/1").await;
        table.row(name, that(response.is_hit(), || format!("{:?}", response.head.field("cache-status"))));
        table.row(name, same("connection", response.head.field("connection"), None));
        table.row(name, same("a purge", node.purge(&format!("http://{HOST}/object/2")).await, Ok(1)));
    };
    node.node.write_configuration(&format!("{text}\n[limits]\nhed_timeout = \"1s\"\n"));
    try_it("a wrong configuration", "hed_timeout").await;
    node.node.write_configuration(&text);
    let replace = |script: &str| {
        let next = scratch.path().join("next");
        fs::write(&next, script).expect("written");
        fs::set_permissions(&next, fs::Permissions::from_mode(0o755)).expect("executable");
        fs::rename(&next, &program).expect("replaced");
    };
    replace("#!/bin/sh\nexit 3\n");
    try_it("a program that ends", "exit status: 3").await;
    replace("no program at all");
    try_it("no program", "cannot be started").await;
    fs::remove_file(&program).expect("removed");
    try_it("nothing there", "cannot be started").await;
    fs::hard_link(binary(), &program).or_else(|_| fs::copy(binary(), &program).map(drop)).expect("a copy");
    // What it opens only when the old process has closed it.
    let identity = node.node.path("data/node.json");
    fs::write(&identity, "{").expect("written");
    try_it("a data directory that cannot be used", "node.json").await;
    table.finish();
    // What is stored while the disk is opened again may be validated once more.
    until(PATIENCE, "a hit", || async {
        let response = node.node.get("/object/3").await;
        if response.is_hit() { Ok(()) } else { Err(format!("{:?}", response.head.field("cache-status"))) }
    })
    .await;
    let id = node.upgrade().await.expect("upgraded, at last");
    assert_ne!(id, old);
    assert!(node.node.get("/object/1").await.status == 200);
}

#[tokio::test]
async fn one_at_a_time_and_by_signal() {
    let node = NodeOptions::configured(&Origin::start(), "").start().await;
    let node = Succession::of(node);
    let first = node.serving().await;
    let (one, other) = tokio::join!(node.upgrade(), node.upgrade());
    let mut codes = [one, other].map(|outcome| outcome.err().map_or(200, |(status, _)| status));
    codes.sort_unstable();
    assert_eq!(codes, [200, 409], "{}", node.node.said());
    let second = node.serving().await;
    assert_ne!(second, first);
    // The first process has nobody left to serve.
    let mut node = node;
    assert_eq!(node.node.end_within(PATIENCE).await.code(), Some(0));
}

#[tokio::test]
async fn systemd_is_told_which_process_serves() {
    let scratch = Scratch::new("systemd");
    let path = scratch.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let node = NodeOptions::configured(&Origin::start(), "")
        .variable("NOTIFY_SOCKET", &path.display().to_string())
        .variable("WATCHDOG_USEC", "400000")
        .start()
        .await;
    let node = Succession::of(node);
    node.node.signal("USR2");
    let mut seen = Vec::new();
    let main = loop {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).expect("systemd is told something");
        let said = String::from_utf8_lossy(&buffer[..length]).trim().to_owned();
        if let Some(id) = said.strip_prefix("MAINPID=") {
            break id.parse::<u32>().expect("an id");
        }
        seen.push(said);
    };
    assert!(!seen.iter().any(|said| said.contains("STOPPING")), "{seen:?}");
    assert_eq!(node.serving().await, main);
    // The watchdog goes on.
    let mut beats = 0;
    while beats < 3 {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).expect("systemd is told something");
        beats += u32::from(String::from_utf8_lossy(&buffer[..length]).trim() == "WATCHDOG=1");
    }
}

#[tokio::test]
async fn a_new_process_that_is_killed_at_any_moment_changes_nothing() {
    let version = Arc::new(AtomicU64::new(1));
    let (echo, origin) = (EchoOrigin::start(1, Duration::ZERO).await, versioned(&version));
    let node = Succession::of(opened(NodeOptions::configured(&origin, &configuration(&echo)).alone()).await);
    let old = node.serving().await;
    let (mut killed, mut slow) = (0, 0);
    for ms in (1..).step_by(5).take(24) {
        node.node.get("/object/1").await;
        let killing = async {
            let child = until(PATIENCE, "a new process", || async {
                child_of(old).ok_or_else(|| format!("{old} has no child"))
            })
            .await;
            sleep_until(Instant::now() + Duration::from_millis(ms)).await;
            kill(child);
        };
        let (upgraded, ()) = tokio::join!(node.upgrade(), killing);
        match upgraded {
            Err((status, why)) => {
                assert!(status == 422 && why.contains("signal: 9"), "{status} {why}");
                killed += 1;
            }
            // It served already: then there is nobody any more, which is for systemd to mend.
            Ok(_) => break,
        }
        assert_eq!(node.serving().await, old, "after {ms} ms");
        version.fetch_add(1, Ordering::SeqCst);
        assert_eq!(node.purge(&format!("http://{HOST}/object/1")).await, Ok(1));
        let now = node.node.get("/object/1").await.text();
        assert!(now.ends_with(&format!(" {}", version.load(Ordering::SeqCst))), "after {ms} ms: {now}");
        // What is stored while the disk is opened again may be validated once more.
        until(PATIENCE, "a hit", || async {
            let response = node.node.get("/object/1").await;
            if response.is_hit() {
                Ok(())
            } else {
                Err(format!("after {ms} ms: {:?}", response.head.field("cache-status")))
            }
        })
        .await;
        slow = ms;
    }
    eprintln!("{killed} new processes were killed, the last after {slow} ms");
    assert!(killed >= 3);
}

fn child_of(parent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok();
    // It is the child of the thread that started it.
    let threads = fs::read_dir(format!("/proc/{parent}/task")).ok()?;
    let of_threads = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    let all: String = children.into_iter().chain(of_threads).collect::<Vec<_>>().join(" ");
    all.split_whitespace().find_map(|id| id.parse().ok()).filter(|id| is_running(*id))
}

#[tokio::test]
async fn a_node_that_is_to_stop_while_it_is_upgraded_stops() {
    for ms in [0, 5, 15] {
        let mut node = Succession::of(NodeOptions::configured(&Origin::start(), "").start().await);
        let admin = node.node.admin();
        let mut client = Client::connect(admin).await;
        client.ask("POST", "/v1/upgrade", &["Content-Length: 0", "Connection: close"]).await;
        sleep_until(Instant::now() + Duration::from_millis(ms)).await;
        node.node.terminate();
        let upgraded = client.response("POST").await.is_ok_and(|response| response.status == 200);
        assert_eq!(node.node.end_within(PATIENCE).await.code(), Some(0), "{}", node.node.said());
        if upgraded && Client::connect_with(admin, Options::default()).await.is_ok() {
            // It was the old process that was to stop, as it was not the node any more.
            node.serving().await;
            continue;
        }
        until(PATIENCE, "the end of everything", || async {
            match Client::connect_with(admin, Options::default()).await {
                Ok(_) => Err("somebody still listens".to_owned()),
                Err(_) => Ok(()),
            }
        })
        .await;
    }
}

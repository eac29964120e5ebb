//! What was replaced, forbidden, invalidated or purged does not come back from a disk, also after a kill.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache_tests::answer::Answer;
use cache_tests::client::{Client, HOST, post};
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::derived::{Derived, DerivedOrigin, Outcome, Tally, ask_for_all};
use cache_tests::disk::{file_of, has_objects, is_open, opened, written_bytes};
use cache_tests::machine::Machine;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::Origin;
use cache_tests::process::Scratch;
use cache_tests::table::{Table, same, that};
use serde_json::json;

const SMALL: u64 = 2_000;
/// Three chunks.
const LARGE: u64 = 600_000;

fn node(origin: &str, data: &Scratch, machine: &Machine) -> NodeOptions {
    NodeOptions::before_url(origin)
        .with("--data", data.path().to_str().expect("UTF-8"))
        .with("--memory", "256MiB")
        .with("--disk", "256MiB")
        .within(machine)
}

/// A URL with versions: another body and validator for each.
#[derive(Clone)]
struct Page {
    target: String,
    number: u64,
    length: u64,
    version: Arc<AtomicU64>,
    storable: Arc<AtomicU64>,
}

impl Page {
    fn new(origin: &Origin, number: u64, length: u64) -> Self {
        let page = Self {
            target: format!("/pages/{number}/{length}"),
            number,
            length,
            version: Arc::new(AtomicU64::new(1)),
            storable: Arc::new(AtomicU64::new(1)),
        };
        let (served, tag) = (page.clone(), page.tag());
        origin.serve_with(&page.target, move |asked| {
            let version = served.version.load(Ordering::SeqCst);
            let etag = format!("\"v{version}\"");
            let control = if served.storable.load(Ordering::SeqCst) == 1 { "max-age=86400" } else { "no-store" };
            let kind = asked.field("x-kind").map_or(0, |kind| kind.len() as u64);
            let mut answer = Answer::status(200)
                .field(&format!("Cache-Control: {control}"))
                .field(&format!("ETag: {etag}"))
                .field(&format!("Surrogate-Key: {tag}"));
            if kind > 0 {
                answer = answer.field("Vary: X-Kind");
            }
            for piece in served.body(version, kind).pieces() {
                answer = answer.piece(piece);
            }
            answer.when_matched(
                &etag,
                Answer::status(304).field("Cache-Control: max-age=86400").field(&format!("ETag: {etag}")),
            )
        });
        page
    }

    fn tag(&self) -> String {
        format!("page-{}", self.number)
    }

    fn body(&self, version: u64, kind: u64) -> Derived {
        Derived { number: (self.number * 100 + version) * 10 + kind, length: self.length }
    }

    /// The version a client gets, and whether the origin was not asked.
    async fn get(&self, client: &mut Client, fields: &[&str]) -> (u64, bool) {
        let kind = fields.iter().find_map(|field| field.strip_prefix("X-Kind: ")).map_or(0, |kind| kind.len() as u64);
        let response = client.exchange("GET", &self.target, fields).await;
        assert_eq!(response.status, 200, "{}", self.target);
        assert_eq!(response.body.len() as u64, self.length, "{}", self.target);
        let version = (1..=9).find(|version| self.body(*version, kind).check(0, &response.body).is_ok());
        (version.unwrap_or_else(|| panic!("{}: the body is of no version", self.target)), response.is_hit())
    }

    /// Has it stored, on the disk too.
    async fn store(&self, node: &Node, fields: &[&str]) {
        let before = written_bytes(node).await;
        let (version, _) = self.get(&mut node.client().await, fields).await;
        assert_eq!(version, self.version.load(Ordering::SeqCst));
        until(PATIENCE, "it is on the disk", || async {
            let written = written_bytes(node).await - before;
            if written >= self.length as f64 { Ok(()) } else { Err(format!("{written} bytes are written")) }
        })
        .await;
    }
}

/// What becomes of version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Replaced,
    Forbidden,
    Posted,
    Purged(By, Mode),
    VariantReplaced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Url,
    Tag,
    Prefix,
    Site,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Hard,
    /// The origin has another version.
    Soft,
    /// The origin has the same version: it may be used once that is known.
    SoftUnchanged,
}

const ENDS: [End; 10] = [
    End::Replaced,
    End::Forbidden,
    End::Posted,
    End::Purged(By::Url, Mode::Hard),
    End::Purged(By::Tag, Mode::Hard),
    End::Purged(By::Prefix, Mode::Hard),
    End::Purged(By::Site, Mode::Hard),
    End::Purged(By::Tag, Mode::Soft),
    End::Purged(By::Url, Mode::SoftUnchanged),
    End::VariantReplaced,
];

impl End {
    /// Ends version 1 of a page; the next is what the origin has now.
    async fn happen(self, node: &Node, page: &Page) {
        let mut client = node.client().await;
        if self != Self::Purged(By::Url, Mode::SoftUnchanged) {
            page.version.store(2, Ordering::SeqCst);
        }
        match self {
            Self::Replaced => assert_eq!(page.get(&mut client, &["Cache-Control: no-cache"]).await, (2, false)),
            Self::VariantReplaced => {
                let fields = ["X-Kind: aa", "Cache-Control: no-cache"];
                assert_eq!(page.get(&mut client, &fields).await, (2, false));
            }
            Self::Forbidden => {
                page.storable.store(0, Ordering::SeqCst);
                assert_eq!(page.get(&mut client, &["Cache-Control: no-cache"]).await, (2, false));
            }
            Self::Posted => {
                client.send(post(&page.target, &[], "change")).await.expect("it is sent");
                assert_eq!(client.response("POST").await.expect("an answer").status, 200);
            }
            Self::Purged(by, mode) => {
                let mode = if mode == Mode::Hard { "delete" } else { "invalidate" };
                let mut body = match by {
                    By::Url => json!({ "urls": [format!("http://{HOST}{}", page.target)] }),
                    By::Tag => json!({ "tags": [page.tag()] }),
                    By::Prefix => json!({ "prefixes": [format!("/pages/{}/", page.number)] }),
                    By::Site => json!({ "sites": ["default"] }),
                };
                body["mode"] = mode.into();
                node.purge(&body).await;
            }
        }
    }

    fn fields(self) -> &'static [&'static str] {
        if self == Self::VariantReplaced { &["X-Kind: aa"] } else { &[] }
    }

    /// What a client gets after the kill: never version 1, or not without a word of the origin's.
    async fn check(self, node: &Node, page: &Page, origin: &Origin, table: &mut Table) {
        let name = format!("{self:?}, {} bytes", page.length);
        let asked = origin.count(&page.target);
        let (version, is_hit) = page.get(&mut node.client().await, self.fields()).await;
        if self == Self::Purged(By::Url, Mode::SoftUnchanged) {
            let was_asked = origin.count(&page.target) > asked;
            table.row(&name, that(was_asked && !is_hit, || "it is used without being validated".into()));
        } else {
            table.row(&name, same("the version", version, page.version.load(Ordering::SeqCst)));
        }
    }
}

/// `times` as many kills as there are ends, each right after one.
async fn nothing_comes_back(times: u64) {
    let machine = Machine::shared();
    let origin = Origin::start();
    let data = Scratch::new("data");
    let options = || node(&origin.url(), &data, &machine);
    let mut table = Table::new("after a kill");
    let mut current = opened(options()).await;
    for (round, end) in (0..times).flat_map(|round| ENDS.map(|end| (round, end))) {
        let number = round * 100 + ENDS.iter().position(|other| *other == end).unwrap_or(0) as u64;
        let pages = [SMALL, LARGE].map(|length| Page::new(&origin, number, length));
        for page in &pages {
            page.store(&current, end.fields()).await;
            if end == End::VariantReplaced {
                page.store(&current, &["X-Kind: b"]).await;
            }
        }
        if round % 2 == 1 {
            // It is on the disk alone when it ends.
            current.kill().await;
            current = options().start().await;
        }
        for page in &pages {
            end.happen(&current, page).await;
        }
        current.kill().await;
        current = options().start().await;
        for page in &pages {
            end.check(&current, page, &origin, &mut table).await;
            if end == End::VariantReplaced {
                let (version, is_hit) = page.get(&mut current.client().await, &["X-Kind: b"]).await;
                let expected = if is_hit { 1 } else { 2 };
                table.row("the other variant", same("the version", version, expected));
            }
        }
        // Once more, now that everything on the disk is known.
        is_open(&current).await;
        for page in &pages {
            let (version, _) = page.get(&mut current.client().await, end.fields()).await;
            table.row("again", same("the version", version, page.version.load(Ordering::SeqCst)));
        }
    }
    table.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_replaced_does_not_come_back() {
    nothing_comes_back(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; cache-tests/run --soak"]
async fn what_was_replaced_does_not_come_back_a_hundred_times() {
    nothing_comes_back(10).await;
}

/// What is cut off with the end of the file may have replaced what is still there.
async fn cut_off_does_not_bring_back(size: &str, cut: impl Fn(&Scratch)) {
    let machine = Machine::shared();
    let origin = Origin::start();
    let data = Scratch::new("data");
    let options = |size: &str| node(&origin.url(), &data, &machine).with("--disk", size);
    origin.serve_with("/filler", |asked| {
        let number = asked.target.rsplit('?').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let body = Derived { number, length: 250_000 }.pieces().concat();
        Answer::ok(body).field("Cache-Control: max-age=86400")
    });
    let page = Page::new(&origin, 1, SMALL);
    let mut before = opened(options("160MiB")).await;
    page.store(&before, &[]).await;
    let mut client = before.client().await;
    // More than fits into what is left.
    for number in 0..360 {
        client.get(&format!("/filler?{number}")).await;
        if number % 10 == 9 {
            has_objects(&before, number).await;
        }
    }
    page.version.store(2, Ordering::SeqCst);
    assert_eq!(page.get(&mut client, &["Cache-Control: no-cache"]).await.0, 2);
    before.terminate();
    before.end_within(Duration::from_secs(15)).await;
    cut(&data);
    let after = opened(options(size)).await;
    let (version, is_hit) = page.get(&mut after.client().await, &[]).await;
    assert_eq!(version, 2, "what was replaced is back; a hit: {is_hit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smaller_disk_does_not_bring_back_what_was_replaced() {
    cut_off_does_not_bring_back("64MiB", |_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_cut_off_does_not_bring_back_what_was_replaced() {
    let cut = |data: &Scratch| {
        let file = std::fs::File::options().write(true).open(file_of(data.path())).expect("it is there");
        file.set_len(64 << 20).expect("it can be cut off");
    };
    cut_off_does_not_bring_back("160MiB", cut).await;
}

/// Small objects of twenty tags.
fn objects(count: u64) -> Vec<Derived> {
    (0..count).map(|number| Derived { number, length: 300 + number * 37 % 60_000 }).collect()
}

async fn stored(node: &Node, objects: &[Derived]) {
    Tally::of(&ask_for_all(node.address(), objects.to_vec()).await).assert_right("the fill");
    has_objects(node, objects.len()).await;
}

/// The objects of these that are hits.
async fn hits(node: &Node, objects: &[Derived]) -> Vec<Derived> {
    let answers = ask_for_all(node.address(), objects.to_vec()).await;
    Tally::of(&answers).assert_right("an answer");
    answers.iter().filter(|answer| answer.outcome == Outcome::Hit).map(|answer| answer.of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_before_during_and_after_a_start() {
    let machine = Machine::shared();
    let (origin, data) = (DerivedOrigin::start().await, Scratch::new("data"));
    let options = || node(&origin.url(), &data, &machine);
    let all = objects(1_000);
    let before = opened(options()).await;
    stored(&before, &all).await;
    before.purge(&json!({ "tags": ["tag-1"] })).await;
    before.kill().await;
    let after = options().start().await;
    // Not all of the disk may be known yet.
    after.purge(&json!({ "tags": ["tag-2"] })).await;
    let tag = |number: u64| move |object: &&Derived| object.number % 20 == number;
    let of = |number: u64| -> Vec<Derived> { all.iter().filter(tag(number)).copied().collect() };
    assert_eq!(hits(&after, &of(1)).await, [], "purged before");
    assert_eq!(hits(&after, &of(2)).await, [], "purged during");
    is_open(&after).await;
    after.purge(&json!({ "tags": ["tag-4"] })).await;
    assert_eq!(hits(&after, &of(4)).await, [], "purged after");
    let kept = hits(&after, &of(5)).await.len();
    assert_eq!(kept, of(5).len(), "what was not purged is kept");
    after.kill().await;
    let last = opened(options()).await;
    last.purge(&json!({ "everything": true })).await;
    assert_eq!(hits(&last, &all).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_log_that_is_lost_takes_everything_with_it() {
    let machine = Machine::shared();
    type Loss = fn(&std::path::Path) -> std::io::Result<()>;
    let cases: [(&str, Loss); 3] = [
        ("deleted", |log| std::fs::remove_file(log)),
        ("overwritten", |log| std::fs::write(log, vec![0x5a; 70_000])),
        ("empty", |log| std::fs::write(log, "")),
    ];
    let mut table = Table::new("a lost purge log");
    for (name, lose) in cases {
        let (origin, data) = (DerivedOrigin::start().await, Scratch::new("data"));
        let options = || node(&origin.url(), &data, &machine);
        let all = objects(200);
        let before = opened(options()).await;
        stored(&before, &all).await;
        before.purge(&json!({ "tags": ["tag-1"] })).await;
        before.kill().await;
        lose(&data.path().join("purge.redb")).expect("the log is there");
        let after = options().start().await;
        table.row(name, same("hits", hits(&after, &all).await.len(), 0));
        let resets = after.metrics().await.sum("littoral_floor_resets_total", &[]);
        table.row(name, same("littoral_floor_resets_total", resets, 1.0));
        table.row(name, same("it says so", after.said().contains("the purge log"), true));
        is_open(&after).await;
        // It goes on: what is stored now is kept over the next kill, and what is purged now is not.
        hits(&after, &all).await;
        table.row(name, same("hits of what came later", hits(&after, &all).await.len(), all.len()));
        after.purge(&json!({ "tags": ["tag-1"] })).await;
        has_objects(&after, all.len()).await;
        after.kill().await;
        let last = opened(options()).await;
        let again = hits(&last, &all).await;
        table.row(name, same("purged later", again.iter().filter(|object| object.number % 20 == 1).count(), 0));
        table.row(name, same("kept", again.len(), all.len() - all.len() / 20));
        let resets = last.metrics().await.sum("littoral_floor_resets_total", &[]);
        table.row(name, same("no reset is counted again", resets, 0.0));
    }
    table.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_entry_of_the_disk_is_validated() {
    let machine = Machine::shared();
    let origin = Origin::start();
    let data = Scratch::new("data");
    let options = || node(&origin.url(), &data, &machine).test_clock();
    let page = Page::new(&origin, 1, LARGE);
    let before = opened(options()).await;
    page.store(&before, &[]).await;
    before.kill().await;
    let after = opened(options()).await;
    let mut client = after.client().await;
    assert_eq!(page.get(&mut client, &[]).await, (1, true), "fresh, from the disk");
    after.advance_clock(Duration::from_secs(86_400)).await;
    origin.advance(Duration::from_secs(86_400));
    let before = origin.count(&page.target);
    assert_eq!(page.get(&mut client, &[]).await.0, 1);
    assert_eq!(origin.count(&page.target), before + 1, "stale: it is validated");
}

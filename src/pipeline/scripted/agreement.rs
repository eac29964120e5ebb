//! What is explained is what happens: thousands of requests, each explained first and then answered.

use super::*;
use crate::pipeline::explain::Outcome as Explained;
use crate::purge::ledger::{Mode, Target};
use crate::purge::selector::Named;
use crate::telemetry::metrics::CacheOutcome;

const REQUESTS: u64 = 10_000;

/// A generator of its own, so that a failure is the same in every run.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n) as usize
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64)]
    }
}

/// An answer of the origin.
fn answer(rng: &mut Rng) -> (u16, String) {
    let status = rng.of(&[200, 200, 200, 200, 304, 404, 301, 500, 503, 599]);
    let fields = [
        rng.of(&["", "cache-control: max-age=60\n", "cache-control: max-age=0, stale-while-revalidate=3600\n"]),
        rng.of(&["", "", "cache-control: no-cache\n", "cache-control: no-store\n", "cache-control: s-maxage=9\n"]),
        rng.of(&["", "", "cache-control: stale-if-error=3600\n", "cache-control: must-revalidate\n", "age: 30\n"]),
        rng.of(&["", "etag: \"a\"\n", "etag: \"b\"\n", "last-modified: Sun, 06 Nov 1994 08:49:37 GMT\n"]),
        rng.of(&["", "", "", "vary: accept-language\n", "vary: accept\n", "vary: *\n"]),
        rng.of(&["", "surrogate-key: one\n", "set-cookie: a=b\n"]),
    ];
    (status, fields.concat())
}

/// The fields of a request.
fn question(rng: &mut Rng) -> String {
    [
        rng.of(&["", "", "accept-language: de\n", "accept-language: en\n"]),
        rng.of(&[
            "",
            "",
            "",
            "cache-control: no-cache\n",
            "cache-control: max-age=20\n",
            "cache-control: min-fresh=50\n",
        ]),
        rng.of(&[
            "",
            "",
            "",
            "cache-control: max-stale\n",
            "cache-control: only-if-cached\n",
            "cache-control: no-store\n",
        ]),
        rng.of(&["", "", "", "if-none-match: \"a\"\n", "if-match: \"b\"\n", "range: bytes=1-2\n", "range: bytes=9-\n"]),
        rng.of(&["", "", "", "authorization: x\n"]),
    ]
    .concat()
}

#[test]
fn what_is_explained_is_what_happens() {
    let mut rng = Rng(9111);
    let node = Node::new(&[("path = \"/rule\"", "cache = false"), ("path = \"/long\"", "ttl = \"1h\"")]);
    let ledger = &node.pipeline.store.ledger;
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    for number in 0..REQUESTS {
        if rng.below(20) == 0 {
            let mode = rng.of(&[Mode::Delete, Mode::Invalidate]);
            let target = Target::Key(node.site.id, ledger.name(Named::Key, b"one"));
            ledger.apply(ledger.applied().log.next(), clock::wall(), mode, &[target]);
        }
        node.origin.answers.lock().clear();
        let (status, fields) = answer(&mut rng);
        node.script(status, &fields).script(status, &fields);
        let method = rng.of(&[Method::Get, Method::Get, Method::Get, Method::Head]);
        let target = rng.of(&["/a", "/b", "/c", "/long", "/rule"]);
        let asked = question(&mut rng);
        let now = UnixMs(clock::wall().0 + rng.of(&[0, 0, 10_000, 100_000, 10_000_000]));
        let before = node.origin.asked.lock().len();
        let mut got = Got::default();
        let (explained, outcome) = node.with_request(method, target, &asked, now, |request| {
            let explained = run(node.pipeline.explain(request));
            let decision = node.pipeline.decide(request);
            let outcome = run(node.pipeline.answer(request, decision, &mut got)).expect("the client takes everything");
            (explained, outcome)
        });
        let fetched = node.origin.asked.lock().len() - before;
        let what = format!(
            "request {number}: {method:?} {target} {asked:?}: {explained:?} became {outcome:?}, {fetched} fetched"
        );
        *seen.entry(explained.outcome.as_str()).or_default() += 1;
        let expected = match explained.outcome {
            Explained::Hit => outcome.cache == CacheOutcome::Hit && fetched == 0,
            Explained::HitThenRefresh => outcome.cache == CacheOutcome::Stale && fetched == 1,
            Explained::Complete => outcome.cache == CacheOutcome::Miss && fetched > 0,
            Explained::NothingStored => outcome.status == 504 && fetched == 0,
            Explained::Isolated => outcome.status == 503 && fetched == 0,
            // A stale response may stand in for a bad answer.
            Explained::Revalidate | Explained::Fetch => fetched == 1 && outcome.cache != CacheOutcome::Hit,
        };
        assert!(expected, "{what}");
        if let Some(status) = explained.status {
            assert_eq!(status, outcome.status, "{what}");
            assert_eq!(explained.cache_status.detail, outcome.reason, "{what}");
        }
        if matches!(explained.outcome, Explained::Hit | Explained::HitThenRefresh) {
            assert_eq!(explained.cache_status.ttl, outcome.ttl, "{what}");
            assert_eq!(explained.stored.as_ref().map(|stored| Some(stored.age)), Some(outcome.age), "{what}");
        }
        if let Some(request) = node.origin.asked.lock().last().filter(|_| fetched == 1) {
            let conditional = Fields::new(&request.fields).contains("if-none-match")
                || Fields::new(&request.fields).contains("if-modified-since");
            let has_validator =
                explained.stored.as_ref().is_some_and(|s| s.etag.is_some() || s.last_modified.is_some());
            if explained.outcome == Explained::Revalidate {
                assert_eq!(conditional, has_validator, "{what}");
            }
        }
    }
    let rare: Vec<_> = ["hit", "hit-then-refresh", "revalidate", "fetch", "nothing-stored"]
        .into_iter()
        .filter(|outcome| seen.get(outcome).copied().unwrap_or(0) < 50)
        .collect();
    assert!(rare.is_empty(), "hardly ever seen: {rare:?} of {seen:?}");
}

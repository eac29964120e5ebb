//! Storing and reusing (RFC 9111): what is stored, how long it is fresh, and what happens when it no longer is.

use cache_tests::answer::{Answer, Framing};
use cache_tests::node::NodeOptions;
use cache_tests::origin::Origin;
use cache_tests::scenario::{
    Scenario, Step, advance, eventually, get, play, reached, row, saw, sent, serve, serve_in_turn,
};

fn ok(cache_control: &str) -> Answer {
    Answer::ok("body").field(&format!("Cache-Control: {cache_control}"))
}

fn numbered(cache_control: &str) -> Answer {
    Answer::ok("v").numbered().field(&format!("Cache-Control: {cache_control}"))
}

/// Asked twice, answered once.
fn reused(name: &'static str, section: &'static str, answer: Answer) -> Scenario {
    row(name, section, [serve(answer), get().forwarded().into(), get().hit().into(), saw(1)])
}

/// Asked twice, answered twice.
fn not_reused(name: &'static str, section: &'static str, answer: Answer) -> Scenario {
    row(name, section, [serve(answer), get().forwarded().into(), get().forwarded().into(), saw(2)])
}

async fn play_all(name: &'static str, scenarios: Vec<Scenario>) {
    let origin = Origin::start();
    let node = NodeOptions::before(&origin).test_clock().start().await;
    play(name, &node, &origin, scenarios).await;
}

#[tokio::test]
async fn what_is_stored() {
    let status = |status: u16| Answer::status(status).field("Cache-Control: max-age=60").piece("body");
    let detailed = |name, answer, detail| {
        row(name, "9211 2.8", [serve(answer), get().detail(detail).into(), get().forwarded().into(), saw(2)])
    };
    let scenarios = vec![
        reused("max-age", "9111 5.2.2.1", ok("max-age=60")),
        reused("max-age in capitals", "9111 5.2", ok("MAX-AGE=60")),
        reused("max-age in quotes", "9111 5.2", ok("max-age=\"60\"")),
        reused("s-maxage", "9111 5.2.2.10", ok("s-maxage=60")),
        reused("Expires", "9111 5.3", Answer::ok("body").field("Expires: {now+60}")),
        reused("public and max-age", "9111 5.2.2.9", ok("public, max-age=60")),
        reused("two lines of Cache-Control", "9110 5.3", ok("public").field("Cache-Control: max-age=60")),
        reused("chunked", "9111 3", ok("max-age=60").framed(Framing::Chunked)),
        reused("close-delimited", "9111 3.3", ok("max-age=60").framed(Framing::Close)),
        reused("an unknown directive", "9111 5.2.3", ok("max-age=60, community=\"UCI, no-store\"")),
        reused("Last-Modified long ago", "9111 4.2.2", Answer::ok("body").field("Last-Modified: {now-8640000}")),
        reused("404 with max-age", "9111 3", status(404)),
        reused("301 with max-age", "9111 3", status(301).field("Location: /elsewhere")),
        reused("410 with max-age", "9111 3", status(410)),
        not_reused("max-age=0", "9111 5.2.2.1", ok("max-age=0")),
        not_reused("an Expires that is no date", "9111 5.3", Answer::ok("body").field("Expires: 0")),
        not_reused("an Expires in the past", "9111 5.3", Answer::ok("body").field("Expires: {now-60}")),
        not_reused("nothing to go by", "9111 4.2.2", Answer::ok("body")),
        not_reused("no-store beside max-age", "9111 5.2.2.5", ok("max-age=60, no-store")),
        not_reused("No-Store on a second line", "9111 5.2.2.5", ok("max-age=60").field("Cache-Control: No-Store")),
        not_reused("private beside s-maxage", "9111 5.2.2.7", ok("private, s-maxage=60")),
        not_reused("206 nobody asked for", "9111 3.3", status(206).field("Content-Range: bytes 0-3/10")),
        not_reused("304 nobody asked for", "9111 3", status(304)),
        not_reused("500 with nothing", "9111 3", Answer::status(500).piece("body")),
        detailed("no-store says so", ok("no-store"), "no-store"),
        detailed("private says so", ok("private"), "private"),
        detailed("nothing to go by says so", Answer::ok("body"), "no-freshness"),
        detailed("Vary: * says so", ok("max-age=60").field("Vary: *"), "vary-star"),
        detailed("Set-Cookie says so", ok("max-age=60").field("Set-Cookie: a=b"), "set-cookie"),
    ];
    play_all("what is stored", scenarios).await;
}

#[tokio::test]
async fn set_cookie_is_not_shared_unless_said() {
    let cookie = |cache_control: &str| ok(cache_control).field("Set-Cookie: session=1");
    let scenarios = vec![
        not_reused("max-age", "littoral", cookie("max-age=60")),
        not_reused("Expires", "littoral", Answer::ok("body").field("Expires: {now+60}").field("Set-Cookie: a=b")),
        reused("public", "littoral", cookie("public, max-age=60")),
        reused("s-maxage", "littoral", cookie("s-maxage=60")),
        reused("CDN-Cache-Control", "9213", cookie("no-cache").field("CDN-Cache-Control: max-age=60")),
    ];
    play_all("Set-Cookie", scenarios).await;
    let origin = Origin::start();
    let node = NodeOptions::before(&origin).with("--set-cookie", "rfc9111").test_clock().start().await;
    let letter = vec![reused("to the letter of the RFC", "9111 7.3", cookie("max-age=60"))];
    play("Set-Cookie by RFC 9111", &node, &origin, letter).await;
}

#[tokio::test]
async fn requests_with_authorization() {
    let authorised = || get().with("Authorization: Basic YTpi");
    let case = |name, cache_control: &str, hits: bool| {
        let second: Step = if hits { get().hit().into() } else { get().forwarded().into() };
        row(name, "9111 3.5", [serve(ok(cache_control)), authorised().forwarded().into(), second])
    };
    let scenarios = vec![
        case("max-age alone", "max-age=60", false),
        case("public", "public, max-age=60", true),
        case("s-maxage", "s-maxage=60", true),
        case("must-revalidate", "max-age=60, must-revalidate", true),
        row("the reason is told", "9211 2.8", [serve(ok("max-age=60")), authorised().detail("authorization").into()]),
        row(
            "a public answer is for all",
            "9111 3.5",
            [serve(ok("public, max-age=60")), get().forwarded().into(), authorised().hit().into()],
        ),
    ];
    play_all("Authorization", scenarios).await;
}

#[tokio::test]
async fn how_long_it_is_fresh() {
    let life = |name, section, answer: Answer, lifetime: u64| {
        row(
            name,
            section,
            [
                serve(answer),
                get().forwarded().into(),
                advance(lifetime - 5),
                get().hit().age(lifetime - 5).into(),
                advance(10),
                get().forwarded().into(),
            ],
        )
    };
    let scenarios = vec![
        life("max-age", "9111 5.2.2.1", ok("max-age=100"), 100),
        life("s-maxage over max-age", "9111 4.2.1", ok("max-age=10, s-maxage=100"), 100),
        life("max-age over Expires", "9111 4.2.1", ok("max-age=100").field("Expires: {now+10}"), 100),
        life("Expires", "9111 4.2.1", Answer::ok("body").field("Expires: {now+100}"), 100),
        life("CDN-Cache-Control over all", "9213 2.1", ok("max-age=10").field("CDN-Cache-Control: max-age=100"), 100),
        life(
            "a tenth of the time since it changed",
            "9111 4.2.2",
            Answer::ok("body").field("Last-Modified: {now-1000}"),
            100,
        ),
        row(
            "an Age from upstream counts",
            "9111 4.2.3",
            [
                serve(ok("max-age=100").field("Age: 60")),
                get().forwarded().into(),
                get().hit().age(60).into(),
                advance(30),
                get().hit().age(90).into(),
                advance(15),
                get().forwarded().into(),
            ],
        ),
        row(
            "a Date in the past counts",
            "9111 4.2.3",
            [serve(ok("max-age=100").field("Date: {now-60}")), get().forwarded().into(), get().hit().age(60).into()],
        ),
        row(
            "a Date in the future does not",
            "9111 4.2.3",
            [serve(ok("max-age=100").field("Date: {now+600}")), get().forwarded().into(), get().hit().age(0).into()],
        ),
        row(
            "a very large max-age",
            "9111 1.2.2",
            [
                serve(ok("max-age=99999999999999999999")),
                get().forwarded().into(),
                advance(1_000_000),
                get().hit().age(1_000_000).into(),
            ],
        ),
        row(
            "a very large Age",
            "9111 1.2.2",
            [
                serve(ok("max-age=60").field("Age: 99999999999999999999")),
                get().forwarded().into(),
                get().forwarded().into(),
            ],
        ),
        row(
            "no Date at all",
            "9110 6.6.1",
            [serve(ok("max-age=100").undated()), get().forwarded().into(), advance(50), get().hit().age(50).into()],
        ),
        row(
            "Date is not rewritten",
            "9110 6.6.1",
            [
                serve(ok("max-age=9000000000").field("Date: Tue, 24 Nov 2026 06:04:53 GMT")),
                get().has("date", "Tue, 24 Nov 2026 06:04:53 GMT").into(),
                advance(100),
                get().hit().has("date", "Tue, 24 Nov 2026 06:04:53 GMT").into(),
            ],
        ),
    ];
    play_all("freshness", scenarios).await;
}

#[tokio::test]
async fn what_happens_when_it_is_stale() {
    let validated = |cache_control: &str| {
        let fresh =
            Answer::status(304).field("ETag: \"e\"").field("X-Version: two").field("Cache-Control: max-age=100");
        numbered(cache_control).field("ETag: \"e\"").field("X-Version: one").when_matched("\"e\"", fresh)
    };
    let failing = |status: u16| vec![numbered("max-age=10, stale-if-error=100"), Answer::status(status).piece("x")];
    let scenarios = vec![
        row(
            "304 freshens",
            "9111 4.3.4",
            [
                serve(validated("max-age=10")),
                get().body("v1").has("x-version", "one").into(),
                advance(20),
                get().status(200).body("v1").because("stale").has("x-version", "two").into(),
                sent(2, "If-None-Match", Some("\"e\"")),
                advance(50),
                get().hit().body("v1").has("x-version", "two").age(50).into(),
                saw(2),
            ],
        ),
        row(
            "no-cache is stored and revalidated",
            "9111 5.2.2.4",
            [
                serve(validated("no-cache").when_matched("\"e\"", Answer::status(304).field("ETag: \"e\""))),
                get().body("v1").into(),
                get().body("v1").forwarded().into(),
                sent(2, "If-None-Match", Some("\"e\"")),
            ],
        ),
        row(
            "Last-Modified validates too",
            "9111 4.3.1",
            [
                serve(ok("max-age=10").field("Last-Modified: Tue, 24 Nov 2020 06:04:53 GMT")),
                get().into(),
                advance(20),
                get().forwarded().into(),
                sent(2, "If-Modified-Since", Some("Tue, 24 Nov 2020 06:04:53 GMT")),
            ],
        ),
        row(
            "without a validator it is fetched whole",
            "9111 4.3",
            [
                serve(numbered("max-age=10")),
                get().body("v1").into(),
                advance(20),
                get().body("v2").forwarded().into(),
                sent(2, "If-None-Match", None),
                get().body("v2").hit().into(),
            ],
        ),
        row(
            "stale-while-revalidate",
            "5861 3",
            [
                serve(numbered("max-age=10, stale-while-revalidate=100")),
                get().body("v1").into(),
                advance(20),
                get().body("v1").stale().into(),
                reached(2),
                eventually(get().hit().body("v2")),
                saw(2),
                advance(200),
                get().body("v3").forwarded().into(),
            ],
        ),
        row(
            "stale-if-error after 500",
            "5861 4",
            [
                serve_in_turn(failing(500)),
                get().body("v1").into(),
                advance(20),
                get().status(200).body("v1").stale().into(),
                advance(200),
                get().status(500).into(),
            ],
        ),
        row(
            "stale-if-error after 503",
            "5861 4",
            [
                serve_in_turn(failing(503)),
                get().body("v1").into(),
                advance(20),
                get().status(200).body("v1").stale().into(),
            ],
        ),
        row(
            "stale-if-error after a hang-up",
            "5861 4",
            [
                serve_in_turn([numbered("max-age=10, stale-if-error=100"), Answer::hang_up()]),
                get().body("v1").into(),
                advance(20),
                get().status(200).body("v1").stale().into(),
            ],
        ),
        row(
            "a 404 is no error",
            "5861 4",
            [serve_in_turn(failing(404)), get().body("v1").into(), advance(20), get().status(404).into()],
        ),
        row(
            "must-revalidate after a hang-up",
            "9111 5.2.2.2",
            [
                serve_in_turn([numbered("max-age=10, must-revalidate, stale-if-error=100"), Answer::hang_up()]),
                get().body("v1").into(),
                advance(20),
                // 504 is the section's own word; 502 is what a gateway says.
                get().refused_for_want_of_an_origin().into(),
            ],
        ),
        row(
            "must-revalidate beside stale-while-revalidate",
            "9111 5.2.2.2",
            [
                serve(numbered("max-age=10, must-revalidate, stale-while-revalidate=100")),
                get().body("v1").into(),
                advance(20),
                get().body("v2").forwarded().into(),
            ],
        ),
        row(
            "proxy-revalidate beside stale-while-revalidate",
            "9111 5.2.2.8",
            [
                serve(numbered("max-age=10, proxy-revalidate, stale-while-revalidate=100")),
                get().body("v1").into(),
                advance(20),
                get().body("v2").forwarded().into(),
            ],
        ),
        row(
            "s-maxage is never stale",
            "9111 5.2.2.10",
            [serve(numbered("s-maxage=10")), get().body("v1").into(), advance(20), get().body("v2").forwarded().into()],
        ),
    ];
    play_all("staleness", scenarios).await;
}

#[tokio::test]
async fn a_dead_origin_is_survived_as_long_as_allowed() {
    let mut origin = Origin::start();
    origin.serve("/kept", numbered("max-age=10, stale-if-error=100"));
    origin.serve("/strict", numbered("max-age=10, must-revalidate"));
    let node = NodeOptions::before(&origin).test_clock().start().await;
    for target in ["/kept", "/strict"] {
        assert_eq!(node.get(target).await.text(), "v1");
    }
    origin.stop();
    node.advance_clock(std::time::Duration::from_secs(20)).await;
    let kept = node.get("/kept").await;
    assert_eq!((kept.status, kept.text().as_str()), (200, "v1"));
    let strict = node.get("/strict").await;
    assert!(matches!(strict.status, 502 | 504), "{}", strict.status);
    node.advance_clock(std::time::Duration::from_secs(200)).await;
    assert_eq!(node.get("/kept").await.status, 502);
}

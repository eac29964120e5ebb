//! Which stored response, and how much of it: Vary, HEAD, conditional and range requests.

use cache_tests::answer::{Answer, Framing};
use cache_tests::node::NodeOptions;
use cache_tests::origin::Origin;
use cache_tests::scenario::{Scenario, advance, get, method, play, row, saw, sent, serve, serve_in_turn};
use cache_tests::table::{Table, same, that};

const MODIFIED: &str = "Tue, 24 Nov 2020 06:04:53 GMT";

/// Ten bytes with both validators.
fn digits() -> Answer {
    Answer::ok("0123456789")
        .field("Cache-Control: max-age=60")
        .field("ETag: \"e\"")
        .field(&format!("Last-Modified: {MODIFIED}"))
}

async fn play_all(name: &'static str, scenarios: Vec<Scenario>) {
    let origin = Origin::start();
    let node = NodeOptions::before(&origin).test_clock().start().await;
    play(name, &node, &origin, scenarios).await;
}

#[tokio::test]
async fn vary_selects() {
    let varied = |vary: &str| Answer::ok("").echoing("Accept-Language").field("Cache-Control: max-age=60").field(vary);
    let scenarios = vec![
        row(
            "the same value",
            "9111 4.1",
            [
                serve(varied("Vary: Accept-Language")),
                get().with("Accept-Language: en").body("en").into(),
                get().with("Accept-Language: en").hit().body("en").into(),
                saw(1),
            ],
        ),
        row(
            "another value, and both are kept",
            "9111 4.1",
            [
                serve(varied("Vary: accept-language")),
                get().with("Accept-Language: en").body("en").into(),
                get().with("Accept-Language: de").because("vary-miss").body("de").into(),
                get().with("Accept-Language: en").hit().body("en").into(),
                get().with("Accept-Language: de").hit().body("de").into(),
                saw(2),
            ],
        ),
        row(
            "absent is a value of its own",
            "9111 4.1",
            [
                serve(varied("Vary: Accept-Language")),
                get().body("none").into(),
                get().with("Accept-Language: en").forwarded().body("en").into(),
                get().hit().body("none").into(),
            ],
        ),
        row(
            "a star matches nothing",
            "9111 4.1",
            [serve(varied("Vary: Accept-Language, *")), get().forwarded().into(), get().forwarded().into(), saw(2)],
        ),
        row(
            "two lines both count",
            "9110 5.3",
            [
                serve(varied("Vary: Accept-Encoding").field("Vary: Accept-Language")),
                get().with("Accept-Language: en").body("en").into(),
                get().with("Accept-Language: de").forwarded().body("de").into(),
                get().with("Accept-Language: en").hit().body("en").into(),
            ],
        ),
        row(
            "other fields do not count",
            "9111 4.1",
            [
                serve(varied("Vary: Accept-Language")),
                get().with("Accept-Language: en").with("X-Other: 1").into(),
                get().with("Accept-Language: en").with("X-Other: 2").hit().into(),
            ],
        ),
        row(
            "a variant is validated with its own tag",
            "9111 4.3.1",
            [
                serve_in_turn([
                    varied("Vary: Accept-Language").field("ETag: \"en\""),
                    varied("Vary: Accept-Language").field("ETag: \"de\""),
                    Answer::status(304).field("ETag: \"en\"").field("Cache-Control: max-age=60"),
                ]),
                get().with("Accept-Language: en").body("en").into(),
                get().with("Accept-Language: de").body("de").into(),
                advance(100),
                get().with("Accept-Language: en").status(200).body("en").forwarded().into(),
                get().with("Accept-Language: en").hit().body("en").into(),
            ],
        ),
    ];
    play_all("Vary", scenarios).await;
}

#[tokio::test]
async fn head_is_answered_from_a_stored_get() {
    let scenarios = vec![
        row(
            "HEAD after GET",
            "9111 4",
            [
                serve(digits()),
                get().into(),
                method("HEAD").status(200).hit().body("").has("content-length", "10").has("etag", "\"e\"").into(),
                saw(1),
            ],
        ),
        row(
            "HEAD on a cold object",
            "9110 9.3.2",
            [
                serve(digits()),
                method("HEAD").status(200).body("").has("content-length", "10").into(),
                get().status(200).body("0123456789").into(),
            ],
        ),
        row(
            "GET after HEAD has its body",
            "9111 4",
            [
                serve(digits().framed(Framing::Chunked)),
                method("HEAD").status(200).body("").into(),
                get().status(200).body("0123456789").into(),
                get().hit().body("0123456789").into(),
            ],
        ),
    ];
    play_all("HEAD", scenarios).await;
}

#[tokio::test]
async fn conditional_requests_are_answered_by_the_cache() {
    let case = |name, section, condition, status: u16| {
        let answer = get().with(condition).status(status).hit();
        let answer = if status == 304 { answer.body("").has("etag", "\"e\"") } else { answer.body("0123456789") };
        row(name, section, [serve(digits()), get().into(), answer.into(), saw(1)])
    };
    let scenarios = vec![
        case("the tag", "9110 13.1.2", "If-None-Match: \"e\"", 304),
        case("the tag, compared weakly", "9110 13.1.2", "If-None-Match: W/\"e\"", 304),
        case("the tag in a list", "9110 13.1.2", "If-None-Match: \"x\", \"e\"", 304),
        case("a star", "9110 13.1.2", "If-None-Match: *", 304),
        case("another tag", "9110 13.1.2", "If-None-Match: \"f\"", 200),
        case("not modified", "9110 13.1.3", "If-Modified-Since: Tue, 24 Nov 2020 06:04:53 GMT", 304),
        case("modified", "9110 13.1.3", "If-Modified-Since: Tue, 24 Nov 2019 06:04:53 GMT", 200),
        case("a date that is none", "9110 13.1.3", "If-Modified-Since: yesterday", 200),
        row(
            "a tag over a date",
            "9110 13.2.2",
            [
                serve(digits()),
                get().into(),
                get()
                    .with("If-None-Match: \"f\"")
                    .with("If-Modified-Since: Tue, 24 Nov 2020 06:04:53 GMT")
                    .status(200)
                    .into(),
            ],
        ),
        row(
            "on a cold object the whole is fetched, or the answer is the origin's",
            "9111 4.3",
            [
                serve(digits().when_matched("\"e\"", Answer::status(304).field("ETag: \"e\""))),
                get().with("If-None-Match: \"e\"").status(304).body("").into(),
                get().status(200).body("0123456789").into(),
            ],
        ),
        row(
            "HEAD with the tag",
            "9110 13.1.2",
            [serve(digits()), get().into(), method("HEAD").with("If-None-Match: \"e\"").status(304).body("").into()],
        ),
    ];
    play_all("conditional requests", scenarios).await;
}

#[tokio::test]
async fn ranges_of_a_complete_object() {
    let case = |name, range, content_range, body| {
        row(
            name,
            "9110 14",
            [
                serve(digits()),
                get().into(),
                get().with(range).status(206).hit().body(body).has("content-range", content_range).into(),
                saw(1),
            ],
        )
    };
    let whole = |name, range| {
        row(name, "9110 14.2", [serve(digits()), get().into(), get().with(range).status(200).body("0123456789").into()])
    };
    let with_condition = |name, condition, status: u16| {
        let answer = get().with("Range: bytes=2-4").with(condition).status(status).hit();
        row(
            name,
            "9110 13.1.5",
            [
                serve(digits()),
                get().into(),
                if status == 206 { answer.body("234") } else { answer.body("0123456789") }.into(),
            ],
        )
    };
    let scenarios = vec![
        case("from and to", "Range: bytes=2-4", "bytes 2-4/10", "234"),
        case("one byte", "Range: bytes=0-0", "bytes 0-0/10", "0"),
        case("from", "Range: bytes=7-", "bytes 7-9/10", "789"),
        case("the last", "Range: bytes=-3", "bytes 7-9/10", "789"),
        case("more than there is", "Range: bytes=8-99", "bytes 8-9/10", "89"),
        case("more of the last than there is", "Range: bytes=-99", "bytes 0-9/10", "0123456789"),
        case("the unit in capitals", "Range: Bytes=2-4", "bytes 2-4/10", "234"),
        case("a very large end", "Range: bytes=8-99999999999999999999", "bytes 8-9/10", "89"),
        whole("another unit", "Range: lines=2-4"),
        whole("end before start", "Range: bytes=4-2"),
        whole("no numbers", "Range: bytes=a-b"),
        row(
            "beyond the end",
            "9110 15.5.17",
            [
                serve(digits()),
                get().into(),
                get().with("Range: bytes=10-").status(416).has("content-range", "bytes */10").into(),
            ],
        ),
        row(
            "the last nothing",
            "9110 15.5.17",
            [
                serve(digits()),
                get().into(),
                get().with("Range: bytes=-0").status(416).has("content-range", "bytes */10").into(),
            ],
        ),
        row(
            "an object of unknown length",
            "9110 14",
            [
                serve(digits().framed(Framing::Chunked)),
                get().into(),
                get().with("Range: bytes=2-4").status(206).body("234").has("content-range", "bytes 2-4/10").into(),
            ],
        ),
        with_condition("If-Range with the tag", "If-Range: \"e\"", 206),
        with_condition("If-Range with another tag", "If-Range: \"f\"", 200),
        with_condition("If-Range with a weak tag", "If-Range: W/\"e\"", 200),
        with_condition("If-Range with the date", "If-Range: Tue, 24 Nov 2020 06:04:53 GMT", 206),
        with_condition("If-Range with another date", "If-Range: Tue, 24 Nov 2019 06:04:53 GMT", 200),
        row(
            "If-None-Match comes first",
            "9110 13.2.2",
            [
                serve(digits()),
                get().into(),
                get().with("Range: bytes=2-4").with("If-None-Match: \"e\"").status(304).into(),
            ],
        ),
    ];
    play_all("ranges", scenarios).await;
}

#[tokio::test]
async fn a_range_of_a_cold_object_is_the_origins() {
    let all = Answer::status(206).field("Content-Range: bytes 0-9/10").field("Cache-Control: max-age=60");
    let scenarios = vec![
        row(
            "a part that is all of it is the whole",
            "9111 3.4",
            [
                serve(all.piece("0123456789")),
                get().with("Range: bytes=2-4").status(206).body("234").forwarded().into(),
                sent(1, "Range", Some("bytes=0-262143")),
                get().with("Range: bytes=2-4").status(206).hit().body("234").into(),
                get().with("Range: bytes=0-1").status(206).hit().body("01").into(),
                get().status(200).hit().body("0123456789").into(),
                saw(1),
            ],
        ),
        row(
            "not stored without a lifetime of its own",
            "9111 3.3",
            [
                serve(Answer::status(206).field("Content-Range: bytes 2-4/10").field("ETag: \"e\"").piece("234")),
                get().with("Range: bytes=2-4").status(206).body("234").detail("range-not-stored").into(),
                get().with("Range: bytes=2-4").status(206).body("234").forwarded().into(),
            ],
        ),
        row(
            "an origin that does not know ranges",
            "9110 14.2",
            [
                serve(digits()),
                get().with("Range: bytes=2-4").status(206).body("234").forwarded().into(),
                get().status(200).hit().body("0123456789").into(),
                saw(1),
            ],
        ),
    ];
    play_all("ranges of cold objects", scenarios).await;
}

#[tokio::test]
async fn many_ranges_cost_no_more_than_the_object() {
    let origin = Origin::start();
    origin.serve("/digits", digits());
    let node = NodeOptions::before(&origin).start().await;
    node.get("/digits").await;
    let mut table = Table::new("many ranges");
    let overlapping = format!("Range: bytes={}", vec!["0-"; 500].join(","));
    for (name, line) in [("two", "Range: bytes=0-1,3-4"), ("500 overlapping", overlapping.as_str())] {
        let response = node.client().await.exchange("GET", "/digits", &[line]).await;
        table.row(name, that(matches!(response.status, 200 | 206 | 416), || format!("{}", response.status)));
        table.row(name, that(response.body.len() < 1_000, || format!("{} bytes", response.body.len())));
        table.row(name, same("the end", response.end.is_clean(), true));
    }
    table.finish();
}

/// What `Connection` takes out, the origin does not see; its answer is nobody else's then.
#[tokio::test]
async fn a_field_that_is_taken_out_selects_nothing() {
    let origin = Origin::start();
    origin.serve_with("/page", |asked| {
        let language = asked.field("accept-language").unwrap_or_else(|| "none".to_owned());
        Answer::ok(language).field("Cache-Control: max-age=60").field("Vary: Accept-Language")
    });
    let node = NodeOptions::before(&origin).start().await;
    let german = "Accept-Language: de";
    let first = node.client().await.exchange("GET", "/page", &[german, "Connection: accept-language"]).await;
    assert_eq!(first.text(), "none", "the origin did not see it");
    let second = node.client().await.exchange("GET", "/page", &[german]).await;
    assert_eq!((second.text().as_str(), second.is_hit()), ("de", false), "and nobody else gets that answer");
}

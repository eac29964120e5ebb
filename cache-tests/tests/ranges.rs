//! What a range of a cold object costs, what comes of it, and how the rest of the object follows.

use cache_tests::client::{Client, HOST, Socket};
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::gate::Gate;
use cache_tests::http_date::imf_fixdate;
use cache_tests::ranged::{CHUNK, Hold, Ranged, Reading, Site, Wanted};
use cache_tests::response::End;
use cache_tests::table::{Table, same, that};

const MIB: u64 = 1 << 20;
/// The most that is fetched for a client that has read next to nothing: a window, and what the sockets between hold.
const AHEAD: u64 = 24 * MIB;

/// What asks for these chunks.
fn span(chunks: std::ops::Range<u64>) -> String {
    format!("bytes={}-{}", chunks.start * CHUNK, chunks.end * CHUNK - 1)
}

#[tokio::test]
async fn a_cold_range_costs_its_chunks_and_they_are_hits_then() {
    const LENGTH: u64 = 64 * CHUNK - 1_000;
    let site = Site::start().await;
    let mut table = Table::new("cold ranges");
    for (name, wanted, question, bytes, then) in [
        ("one byte", Wanted::part(5 * CHUNK + 7, 1), span(5..6), CHUNK, Wanted::Part(5 * CHUNK..6 * CHUNK)),
        ("the first", Wanted::part(0, 1), span(0..1), CHUNK, Wanted::part(CHUNK - 1, 1)),
        ("a chunk", Wanted::part(CHUNK, CHUNK), span(1..2), CHUNK, Wanted::part(CHUNK + 9, 9)),
        ("a border", Wanted::part(2 * CHUNK - 1, 2), span(1..3), 2 * CHUNK, Wanted::part(CHUNK, 2 * CHUNK)),
        ("the last chunk", Wanted::part(LENGTH - 9, 9), span(63..64), CHUNK - 1_000, Wanted::From(63 * CHUNK)),
        ("and more", Wanted::part(LENGTH - 9, CHUNK), span(63..65), CHUNK - 1_000, Wanted::Last(CHUNK - 1_000)),
        ("the last byte", Wanted::Last(1), "bytes=-1".to_owned(), 1, Wanted::part(LENGTH - 1, 1)),
        ("the last ones", Wanted::Last(300_000), "bytes=-300000".to_owned(), 300_000, Wanted::Last(1_000)),
        ("the rest", Wanted::From(63 * CHUNK + 5), "bytes=16515072-".to_owned(), CHUNK - 1_000, Wanted::Last(7)),
    ] {
        let object = site.content.add(LENGTH);
        table.row(name, costs(&site, &object, wanted, &question, bytes, then).await);
    }
    table.finish();
}

async fn costs(
    site: &Site,
    object: &Ranged,
    wanted: Wanted,
    question: &str,
    bytes: u64,
    then: Wanted,
) -> Result<(), String> {
    let first = object.try_get(&site.node, wanted.clone()).await?;
    same("the first", (first.status, first.told(), first.end.clone()), (206, "uri-miss; stored".into(), End::Whole))?;
    let (found, questions) = (object.settled().await, object.questions());
    that(found == bytes, || format!("{found} bytes from the origin, not {bytes}: {questions:?}"))?;
    that(questions.len() == 1 && questions[0].starts_with(question), || format!("{questions:?}, not {question}"))?;
    for wanted in [wanted, then] {
        same(&format!("{wanted:?}"), object.becomes_hit(&site.node, wanted).await?.status, 206)?;
    }
    same("requests", object.asked().len(), 1)
}

#[tokio::test]
async fn what_is_missing_is_asked_for_and_nothing_else() {
    let site = Site::start().await;
    let object = site.content.add(64 * CHUNK - 1_000);
    let get = async |wanted| object.get(&site.node, wanted).await;
    assert_eq!(get(Wanted::part(5 * CHUNK, 9)).await.told(), "uri-miss; stored");
    assert_eq!(get(Wanted::part(9 * CHUNK, 9)).await.told(), "partial; stored");
    // Over what is there already, with missing chunks on both sides.
    let over = get(Wanted::Part(4 * CHUNK + 10..7 * CHUNK)).await;
    assert_eq!((over.status, over.told().as_str()), (206, "partial; stored"));
    object.settled().await;
    let [four, five, six, nine] = [4, 5, 6, 9].map(|chunk| span(chunk..chunk + 1));
    let tagged = |question: String| question + " if \"v1\"";
    let mut questions = object.questions();
    questions.sort();
    let mut expected = vec![five, tagged(nine), tagged(four), tagged(six)];
    expected.sort();
    assert_eq!(questions, expected);

    let whole = get(Wanted::Whole).await;
    assert_eq!((whole.status, whole.part.end), (200, 64 * CHUNK - 1_000));
    assert_eq!(object.settled().await, object.length(), "every byte came once: {:?}", object.questions());
    assert_eq!(object.promised(), object.length(), "and nothing else was asked for: {:?}", object.questions());
    let later = &object.questions()[1..];
    assert!(later.iter().all(|question| question.ends_with(" if \"v1\"")), "{later:?}");
    let asked = object.asked().len();
    for wanted in [Wanted::Whole, Wanted::From(1), Wanted::part(40 * CHUNK - 1, 2)] {
        object.becomes_hit(&site.node, wanted).await.expect("right bytes");
    }
    assert_eq!(object.asked().len(), asked);
}

#[tokio::test]
async fn what_is_off_the_grid_is_kept_and_its_chunk_completed() {
    const LENGTH: u64 = 10 * CHUNK;
    const SUFFIX: u64 = 300_000;
    let site = Site::start().await;
    let object = site.content.add(LENGTH);
    object.get(&site.node, Wanted::Last(SUFFIX)).await;
    object.becomes_hit(&site.node, Wanted::Last(SUFFIX)).await.expect("right bytes");
    let first_missing = object.get(&site.node, Wanted::part(8 * CHUNK, 1)).await;
    assert_eq!(first_missing.told(), "partial; stored");
    assert_eq!(object.settled().await, 2 * CHUNK, "{:?}", object.questions());
    let missing = format!("bytes={}-{} if \"v1\"", 8 * CHUNK, LENGTH - SUFFIX - 1);
    assert_eq!(object.questions(), ["bytes=-300000".to_owned(), missing]);
    object.becomes_hit(&site.node, Wanted::From(8 * CHUNK)).await.expect("right bytes");
    assert_eq!(object.asked().len(), 2);
}

#[tokio::test]
async fn a_range_of_a_small_object_is_all_of_it() {
    let site = Site::start().await;
    for length in [10_000, CHUNK] {
        let object = site.content.add(length);
        assert_eq!(object.get(&site.node, Wanted::part(5, 5)).await.status, 206);
        assert_eq!(object.settled().await, length);
        for wanted in [Wanted::Whole, Wanted::part(0, 1), Wanted::Last(5_000), Wanted::From(1)] {
            object.becomes_hit(&site.node, wanted).await.expect("right bytes");
        }
        let head = site.node.client().await.exchange("HEAD", &object.target(), &[]).await;
        assert!(head.is_hit(), "{:?}", head.head);
        assert_eq!(object.questions(), [span(0..1)]);
    }
}

#[tokio::test]
async fn what_cannot_be_is_416_with_the_length() {
    const LENGTH: u64 = 5 * CHUNK + 1_000;
    let site = Site::start().await;
    let mut table = Table::new("416");
    let ask = async |object: &Ranged, range: &str| {
        let line = format!("Range: bytes={range}");
        let response = site.node.client().await.exchange("GET", &object.target(), &[&line]).await;
        let found = (response.status, response.field("content-range"), response.body.len());
        same("the answer", found, (416, Some(format!("bytes */{LENGTH}")), 0)).map(|()| response)
    };
    let cases = [("from beyond", "9000000-"), ("beyond", "1400000-1400009"), ("just beyond", "1311720-1311720")];
    for (name, range) in cases {
        let known = site.content.add(LENGTH);
        known.get(&site.node, Wanted::part(0, 1)).await;
        let hit = ask(&known, range).await.and_then(|response| that(response.is_hit(), || "it is no hit".into()));
        table.row(&format!("{name}, known"), hit);
        table.row(name, same("requests", known.asked().len(), 1));
        let cold = site.content.add(LENGTH);
        table.row(&format!("{name}, cold"), ask(&cold, range).await.map(drop));
        table.row(&format!("{name}, asked again"), ask(&cold, range).await.map(drop));
        let then = cold.try_get(&site.node, Wanted::part(0, 1)).await;
        table.row(name, then.and_then(|then| same("then", then.status, 206)));
    }
    // The chunk that the last of these would be in is there now, and so is the length.
    let cold = site.content.add(LENGTH);
    table.row("the last chunk", ask(&cold, "1311720-1311720").await.map(drop));
    let known = ask(&cold, "1311720-").await.and_then(|response| that(response.is_hit(), || "no hit".into()));
    table.row("the last chunk is known", known);
    table.finish();
}

#[tokio::test]
async fn conditions_of_clients_are_those_of_a_whole_object() {
    let site = Site::start().await;
    let mut table = Table::new("conditions");
    let date = |days: i64| format!("If-Range: {}", imf_fixdate(1_600_000_000 + days * 86_400));
    for is_cold in [false, true] {
        for (name, condition, status) in [
            ("the tag", "If-Range: \"v1\"", 206),
            ("another tag", "If-Range: \"v0\"", 200),
            ("a weak tag", "If-Range: W/\"v1\"", 200),
            ("the date", &date(1), 206),
            ("another date", &date(0), 200),
        ] {
            let object = site.content.add(6 * CHUNK);
            if !is_cold {
                object.get(&site.node, Wanted::part(2 * CHUNK, 9)).await;
            }
            let got = object.ask(&mut site.node.client().await, &Wanted::part(2 * CHUNK, 5), &[condition]).await;
            let found = got.and_then(|got| same("found", (got.status, got.end), (status, End::Whole)));
            table.row(&format!("{name}, cold: {is_cold}"), found);
        }
    }
    let object = site.content.add(6 * CHUNK);
    object.get(&site.node, Wanted::part(2 * CHUNK, 9)).await;
    for method in ["GET", "HEAD"] {
        let fields = ["If-None-Match: \"v1\"", "Range: bytes=0-0"];
        let response = site.node.client().await.exchange(method, &object.target(), &fields).await;
        table.row("none match", same(method, (response.status, response.is_hit()), (304, true)));
    }
    table.row("none match", same("requests", object.asked().len(), 1));
    table.finish();
}

#[tokio::test]
async fn head_has_the_length_of_the_whole() {
    let site = Site::start().await;
    let object = site.content.add(40 * CHUNK + 3);
    object.get(&site.node, Wanted::Last(1)).await;
    let head = site.node.client().await.exchange("HEAD", &object.target(), &[]).await;
    let length = head.field("content-length");
    assert_eq!((head.status, length, head.field("content-range")), (200, Some("10485763".into()), None));
    assert!(head.is_hit(), "{:?}", head.head);
    assert_eq!(object.asked().len(), 1);
}

#[tokio::test]
async fn several_ranges_over_holes() {
    let site = Site::start().await;
    for is_cold in [false, true] {
        let object = site.content.add(32 * CHUNK);
        if !is_cold {
            object.get(&site.node, Wanted::part(0, 1)).await;
            object.get(&site.node, Wanted::part(20 * CHUNK, 1)).await;
        }
        let parts = [0..10, 4 * CHUNK - 5..4 * CHUNK + 5, 20 * CHUNK..20 * CHUNK + 10, 32 * CHUNK - 1..32 * CHUNK];
        let set: Vec<String> = parts.iter().map(|part| format!("{}-{}", part.start, part.end - 1)).collect();
        let line = format!("Range: bytes={}", set.join(","));
        for _ in 0..2 {
            let response = site.node.client().await.exchange("GET", &object.target(), &[&line]).await;
            object.check_parts(&response, &parts).unwrap_or_else(|error| panic!("cold: {is_cold}: {error}"));
        }
        let written = object.settled().await;
        assert!(written <= object.length(), "cold: {is_cold}: {written} bytes of {}", object.length());
        // Its client may have what it wants before the runs are at their end.
        until(PATIENCE, "all of it is a hit", || async {
            let again = site.node.client().await.exchange("GET", &object.target(), &[&line]).await;
            if again.is_hit() { Ok(()) } else { Err(format!("cold: {is_cold}: {:?}", again.head)) }
        })
        .await;
        assert_eq!(object.settled().await, written, "cold: {is_cold}: {:?}", object.questions());
    }
}

/// So many clients that ask for the same, and have its head.
async fn begun(site: &Site, object: &Ranged, wanted: &Wanted, count: usize) -> Vec<(Client, Reading)> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut client = site.node.client().await;
        let reading = object.begin(&mut client, wanted, &[]).await;
        all.push((client, reading.unwrap_or_else(|error| panic!("{wanted:?}: {error}"))));
    }
    all
}

async fn all_whole(all: Vec<(Client, Reading)>) {
    for (mut client, reading) in all {
        let got = reading.rest(&mut client).await.unwrap_or_else(|error| panic!("{error}"));
        assert!(got.is_whole(), "{:?} after {} bytes of {:?}", got.end, got.received, got.part);
    }
}

#[tokio::test]
async fn one_run_is_fetched_once_for_all_who_want_it() {
    let site = Site::start().await;
    for (is_cold, count) in [(true, 20), (false, 20)] {
        let object = site.content.add(16 * CHUNK);
        if !is_cold {
            object.get(&site.node, Wanted::part(0, 1)).await;
        }
        let before = (object.asked().len(), object.settled().await);
        let gate = Gate::closed();
        object.change(|behaviour| behaviour.hold = Some(Hold::After(1_000, gate.clone())));
        // Each has its head while the origin holds the body back.
        let all = begun(&site, &object, &Wanted::part(7 * CHUNK, 2 * CHUNK), count).await;
        assert_eq!(object.asked().len(), before.0 + 1, "cold: {is_cold}: {:?}", object.questions());
        gate.open();
        all_whole(all).await;
        assert_eq!(object.settled().await - before.1, 2 * CHUNK, "cold: {is_cold}: {:?}", object.questions());
    }
}

#[tokio::test]
async fn runs_that_overlap_share_what_is_under_way() {
    let site = Site::start().await;
    for is_cold in [true, false] {
        let object = site.content.add(16 * CHUNK);
        if !is_cold {
            object.get(&site.node, Wanted::part(15 * CHUNK, 1)).await;
        }
        let before = object.settled().await;
        let gate = Gate::closed();
        object.change(|behaviour| behaviour.hold = Some(Hold::After(CHUNK + 1_000, gate.clone())));
        let mut all = begun(&site, &object, &Wanted::part(0, 3 * CHUNK), 3).await;
        all.extend(begun(&site, &object, &Wanted::part(CHUNK, 5 * CHUNK), 3).await);
        all.extend(begun(&site, &object, &Wanted::part(2 * CHUNK + 5, 9), 3).await);
        gate.open();
        all_whole(all).await;
        assert_eq!(object.settled().await - before, 6 * CHUNK, "cold: {is_cold}: {:?}", object.questions());
    }
}

#[tokio::test]
async fn a_range_of_a_whole_on_its_way_is_served_from_it() {
    let site = Site::start().await;
    let (object, gate) = (site.content.add(16 * CHUNK), Gate::closed());
    object.change(|behaviour| behaviour.hold = Some(Hold::After(2 * CHUNK, gate.clone())));
    let mut all = begun(&site, &object, &Wanted::Whole, 2).await;
    let early = object.get(&site.node, Wanted::part(10, 1_000)).await;
    assert_eq!(early.status, 206);
    all.extend(begun(&site, &object, &Wanted::part(0, 5 * CHUNK), 2).await);
    assert_eq!(object.questions(), ["whole"]);
    gate.open();
    all_whole(all).await;
    assert_eq!(object.settled().await, object.length());
    object.becomes_hit(&site.node, Wanted::Last(CHUNK)).await.expect("right bytes");
    assert_eq!(object.questions(), ["whole"]);
}

#[tokio::test]
async fn no_more_is_fetched_than_the_client_reads() {
    // Nothing is evicted.
    let site = Site::with(|options| options.with("--memory", "512MiB")).await;
    for (name, wanted, is_cold) in [
        ("from the start", Wanted::From(0), true),
        ("most of it", Wanted::Part(5..39 * MIB), true),
        ("the whole of one with holes", Wanted::Whole, false),
    ] {
        let object = site.content.add(40 * MIB);
        if !is_cold {
            object.get(&site.node, Wanted::part(3 * CHUNK, 1)).await;
        }
        let socket = Socket { receive_buffer: Some(4_096), ..Socket::default() };
        let mut client = Client::connect_with(site.node.address(), socket).await.expect("the node accepts");
        let mut reading = object.begin(&mut client, &wanted, &[]).await.expect("a head");
        let to = reading.part.start + 10_000;
        assert_eq!(reading.read_to(&mut client, to).await, Ok(None), "{name}");
        let ahead = object.at_rest().await;
        assert!(ahead < AHEAD, "{name}: {ahead} bytes for one who read 10,000: {:?}", object.questions());
        let part = reading.part.clone();
        let got = reading.rest(&mut client).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(got.is_whole(), "{name}: {:?} after {} bytes of {part:?}", got.end, got.received);
        let chunks = part.end.next_multiple_of(CHUNK) - part.start / CHUNK * CHUNK;
        assert_eq!(object.settled().await, chunks, "{name}: {:?}", object.questions());
    }
}

#[tokio::test]
async fn what_was_evicted_is_fetched_again_and_nothing_else() {
    const OBJECTS: u64 = 12;
    const EACH: u64 = 8 * MIB;
    // So much of each object, with holes between.
    const READ: u64 = EACH / 2;
    let site = Site::with(|options| options.with("--memory", "48MiB")).await;
    let objects: Vec<Ranged> = (0..OBJECTS).map(|_| site.content.add(EACH)).collect();
    let mut client = site.node.client().await;
    for round in 1..=2 {
        let before: u64 = objects.iter().map(Ranged::written).sum();
        for object in &objects {
            for first in (0..EACH).step_by(2 << 20) {
                let got = object.ask(&mut client, &Wanted::part(first, MIB), &[]).await;
                assert!(got.as_ref().is_ok_and(|got| got.status == 206 && got.is_whole()), "{first}: {got:?}");
            }
            object.settled().await;
        }
        let fetched = objects.iter().map(Ranged::written).sum::<u64>() - before;
        // A little may be gone before its client has it.
        assert!(fetched <= OBJECTS * READ * 21 / 20, "round {round}: {fetched} bytes fetched for {}", OBJECTS * READ);
        assert!(fetched > 0, "nothing was evicted");
    }
    let last = objects.last().expect("an object");
    // Of what was read last a chunk may be the one that went.
    last.becomes_hit(&site.node, Wanted::part(EACH - 2 * MIB, MIB)).await.expect("right bytes");
}

/// Of what is missing an explanation does not say that it is a hit; nor is it fetched for that.
#[tokio::test]
async fn what_is_missing_is_no_hit_to_those_who_only_look() {
    let site = Site::start().await;
    let object = site.content.add(16 * CHUNK);
    object.get(&site.node, Wanted::part(5 * CHUNK, 9)).await;
    object.becomes_hit(&site.node, Wanted::part(5 * CHUNK, 9)).await.expect("right bytes");
    for (chunk, is_hit) in [(5, true), (9, false)] {
        let first = chunk * CHUNK;
        let url = format!("url=http://{HOST}{}", object.target());
        let query = format!("/v1/explain?{url}&header=Range:%20bytes%3D{first}-{first}");
        let answer = site.node.admin_get(&query).await.expect("an explanation").json();
        assert_eq!(answer["outcome"] == "hit", is_hit, "{answer}");
        let fields = ["Cache-Control: only-if-cached", &format!("Range: bytes={first}-{first}")];
        let response = site.node.client().await.exchange("GET", &object.target(), &fields).await;
        assert_eq!(response.status, if is_hit { 206 } else { 504 }, "{:?}", response.head);
    }
    assert_eq!(object.asked().len(), 1);
}

#[tokio::test]
async fn http_2_has_the_same() {
    let site = Site::with_tls().await;
    let client = site.node.h2().await;
    let object = site.content.add(64 * CHUNK);
    let ask = async |wanted: Wanted| object.ask_h2(&client, &wanted).await.unwrap_or_else(|error| panic!("{error}"));
    let first = ask(Wanted::part(5 * CHUNK, 9)).await;
    assert_eq!((first.status, first.told().as_str()), (206, "uri-miss; stored"));
    assert_eq!(object.settled().await, CHUNK);
    until(PATIENCE, "the chunk is a hit", || async {
        let told = ask(Wanted::part(5 * CHUNK + 100, 9)).await.told();
        if told == "hit" { Ok(()) } else { Err(told) }
    })
    .await;
    assert_eq!(ask(Wanted::Last(9)).await.told(), "partial; stored");
    let head = client.exchange("HEAD", &object.target(), &[], None).await;
    assert_eq!((head.is_hit(), head.field("content-length")), (true, Some((64 * CHUNK).to_string())));
    let whole = ask(Wanted::Whole).await;
    assert_eq!((whole.status, whole.end), (200, End::Whole));
    assert_eq!(object.settled().await, 64 * CHUNK);
}

//! An object of which only parts are there, and which changes, goes stale, is purged or has variants: never a mixture.

use std::time::Duration;

use cache_tests::client::{Client, HOST, Socket};
use cache_tests::deadline::{PATIENCE, until};
use cache_tests::gate::Gate;
use cache_tests::ranged::{CHUNK, Hold, IfRange, Ranged, Reading, Site, Wanted};
use cache_tests::response::End;
use cache_tests::table::{Table, same, that};
use serde_json::json;

const MIB: u64 = 1 << 20;
/// Larger than what is fetched ahead of a client, and what sockets hold.
const LARGE: u64 = 40 * MIB;

/// What is to be for the two kinds of origins: one that knows `If-Range` answers by the whole new version.
const BOTH: [IfRange; 2] = [IfRange::Known, IfRange::Ignored];

/// A client that has the head, and takes next to nothing of the body.
async fn slow(site: &Site, object: &Ranged, wanted: &Wanted) -> (Client, Reading) {
    let socket = Socket { receive_buffer: Some(4_096), ..Socket::default() };
    let mut client = Client::connect_with(site.node.address(), socket).await.expect("the node accepts");
    let mut reading = object.begin(&mut client, wanted, &[]).await.unwrap_or_else(|error| panic!("{error}"));
    let to = reading.part.start + 10_000;
    assert_eq!(reading.read_to(&mut client, to).await, Ok(None));
    (client, reading)
}

#[tokio::test]
async fn a_run_that_finds_another_version_begins_anew() {
    let site = Site::start().await;
    let mut table = Table::new("a changed version");
    for if_range in BOTH {
        for (name, length) in [("the same length", 16 * MIB), ("shorter", 8 * MIB), ("longer", 24 * MIB)] {
            let object = site.content.add_with(16 * MIB, |behaviour| behaviour.if_range = if_range);
            let found = begins_anew(&site, &object, length).await;
            table.row(&format!("{name}, {if_range:?}"), found);
        }
    }
    table.finish();
}

async fn begins_anew(site: &Site, object: &Ranged, length: u64) -> Result<(), String> {
    let get = async |wanted: Wanted| object.try_get(&site.node, wanted).await;
    get(Wanted::part(0, 1)).await?;
    get(Wanted::part(9 * CHUNK, 1)).await?;
    same("what is there", object.becomes_hit(&site.node, Wanted::part(9 * CHUNK, 9)).await?.version, 1)?;
    object.change(|behaviour| (behaviour.version, behaviour.length) = (2, length));
    let run = get(Wanted::part(5 * CHUNK, 9)).await?;
    same("the run", (run.status, run.version, run.end.clone()), (206, 2, End::Whole))?;
    for wanted in [Wanted::part(0, 9), Wanted::part(9 * CHUNK, 9), Wanted::Last(9), Wanted::Whole] {
        let new = get(wanted.clone()).await?;
        same(&format!("{wanted:?}"), (new.version, new.end.clone()), (2, End::Whole))?;
    }
    let bytes = object.settled().await;
    that(bytes <= 2 * CHUNK + 2 * length, || format!("{bytes} bytes from the origin"))?;
    let asked = object.asked().len();
    object.becomes_hit(&site.node, Wanted::Whole).await?;
    same("requests for it again", object.asked().len() - asked, 0)
}

#[tokio::test]
async fn one_who_has_bytes_of_the_old_version_is_reset() {
    let site = Site::start().await;
    for if_range in BOTH {
        for wanted in [Wanted::Whole, Wanted::From(5), Wanted::part(CHUNK + 7, LARGE - 2 * CHUNK)] {
            let object = site.content.add_with(LARGE, |behaviour| behaviour.if_range = if_range);
            object.get(&site.node, Wanted::part(3 * CHUNK, 1)).await;
            let (mut client, reading) = slow(&site, &object, &wanted).await;
            object.at_rest().await;
            object.renew();
            let got = reading.rest(&mut client).await.unwrap_or_else(|error| panic!("{wanted:?}: {error}"));
            assert!(matches!(got.end, End::Cut | End::Reset), "{if_range:?} {wanted:?}: {:?}", got.end);
            assert_eq!(got.version, 1);
            let next = object.get(&site.node, Wanted::part(3 * CHUNK, 9)).await;
            assert_eq!((next.status, next.version), (206, 2), "{if_range:?} {wanted:?}");
        }
    }
}

#[tokio::test]
async fn one_stream_is_reset_and_not_its_connection() {
    let site = Site::with_tls().await;
    let object = site.content.add(LARGE);
    let client = site.node.h2().await;
    assert_eq!(object.ask_h2(&client, &Wanted::part(3 * CHUNK, 1)).await.map(|got| got.status), Ok(206));
    // What is not read closes the stream's window.
    let mut begun = object.begin_h2(&client, &Wanted::From(0)).await.expect("a head");
    let mut reading = Reading::begin(&object, &Wanted::From(0), begun.head.clone()).expect("a right head");
    assert_eq!(reading.read_h2_to(&mut begun, 10_000).await, Ok(None));
    object.at_rest().await;
    object.renew();
    let got = reading.rest_of_h2(&mut begun).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(got.end, End::StreamReset(_)), "{:?}", got.end);
    let next = object.ask_h2(&client, &Wanted::part(3 * CHUNK, 9)).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((next.status, next.version, next.end), (206, 2, End::Whole));
}

/// Those who wait for the run that finds the change get the new version, each of them whole.
#[tokio::test]
async fn those_who_wait_for_the_run_get_the_new_version() {
    let site = Site::start().await;
    for if_range in BOTH {
        let object = site.content.add_with(8 * MIB, |behaviour| behaviour.if_range = if_range);
        object.get(&site.node, Wanted::part(0, 1)).await;
        let gate = Gate::closed();
        object.change(|behaviour| {
            behaviour.version = 2;
            behaviour.hold = Some(Hold::BeforeHead(gate.clone()));
        });
        let wanted = [Wanted::part(5 * CHUNK, 9), Wanted::part(5 * CHUNK + 9, CHUNK), Wanted::part(20 * CHUNK, 9)];
        let mut clients = Vec::new();
        for wanted in wanted.iter().cycle().take(9) {
            let mut client = site.node.client().await;
            let line = format!("Range: {}", wanted.value().expect("a range"));
            client.ask("GET", &object.target(), &[&line]).await;
            clients.push((client, wanted));
        }
        // Nothing but the first run is sure to be asked for before the gate opens.
        object.arrived(2).await;
        gate.open();
        for (mut client, wanted) in clients {
            let head = client.begin("GET").await.expect("an answer");
            let reading = Reading::begin(&object, wanted, head).unwrap_or_else(|error| panic!("{error}"));
            let got = reading.rest(&mut client).await.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((got.version, got.end), (2, End::Whole), "{if_range:?} {wanted:?}");
        }
        let bytes = object.settled().await;
        assert!(bytes <= 2 * 8 * MIB, "{if_range:?}: {bytes} bytes: {:?}", object.questions());
    }
}

#[tokio::test]
async fn a_purge_takes_every_part() {
    let site = Site::start().await;
    let mut table = Table::new("purges");
    for name in ["tag", "url", "everything"] {
        let object = site.content.add(16 * MIB);
        let chunks = [0, 5, 63].map(|chunk| Wanted::part(chunk * CHUNK, 9));
        for wanted in &chunks {
            object.get(&site.node, wanted.clone()).await;
        }
        let before = object.settled().await;
        let body = match name {
            "tag" => json!({ "tags": [object.tag()] }),
            "url" => json!({ "urls": [format!("http://{HOST}{}", object.target())] }),
            _ => json!({ "everything": true }),
        };
        site.node.purge(&body).await;
        object.renew();
        for wanted in &chunks {
            let got = object.get(&site.node, wanted.clone()).await;
            table.row(name, same(&format!("{wanted:?}"), (got.version, got.is_hit()), (2, false)));
        }
        table.row(name, same("bytes fetched again", object.settled().await - before, 3 * CHUNK));
        let first = &object.asked()[3];
        table.row(name, same("the condition", (&first.if_range, &first.if_none_match), (&None, &None)));
    }
    table.finish();
}

#[tokio::test]
async fn a_soft_purge_leaves_the_parts_if_nothing_changed() {
    let site = Site::start().await;
    let object = site.content.add(16 * MIB);
    let chunks = [0, 5].map(|chunk| Wanted::part(chunk * CHUNK, 9));
    for wanted in &chunks {
        object.get(&site.node, wanted.clone()).await;
        object.becomes_hit(&site.node, wanted.clone()).await.expect("right bytes");
    }
    let before = object.settled().await;
    site.node.purge(&json!({ "tags": [object.tag()], "mode": "invalidate" })).await;
    for wanted in &chunks {
        object.get(&site.node, wanted.clone()).await;
    }
    assert_eq!(object.settled().await, before, "{:?}", object.questions());
    assert_eq!(object.asked()[2].status, 304);
    object.becomes_hit(&site.node, chunks[1].clone()).await.expect("right bytes");
    assert_eq!(object.asked().len(), 3, "{:?}", object.questions());
}

/// What is purged while it is delivered goes out to its end, and to nobody else.
#[tokio::test]
async fn a_delivery_outlives_a_purge() {
    let site = Site::start().await;
    for (name, wanted, is_there) in [
        ("all of it is there", Wanted::Whole, true),
        ("a range of what is there", Wanted::From(CHUNK), true),
        ("there are holes", Wanted::Whole, false),
        ("a range with holes", Wanted::From(CHUNK), false),
    ] {
        let length = if is_there { 16 * MIB } else { LARGE };
        let object = site.content.add(length);
        object.get(&site.node, if is_there { Wanted::Whole } else { Wanted::part(3 * CHUNK, 1) }).await;
        let (mut client, reading) = slow(&site, &object, &wanted).await;
        object.at_rest().await;
        site.node.purge(&json!({ "tags": [object.tag()] })).await;
        if is_there {
            object.renew();
        }
        let asked = object.asked().len();
        let next = object.get(&site.node, Wanted::part(3 * CHUNK, 9)).await;
        assert_eq!((next.status, next.version, next.is_hit()), (206, object.version(), false), "{name}");
        assert!(object.asked().len() > asked, "{name}");
        let got = reading.rest(&mut client).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((got.version, got.end), (1, End::Whole), "{name}");
        // The old delivery has not brought back what was purged.
        let next = object.get(&site.node, Wanted::part(3 * CHUNK, 9)).await;
        assert_eq!(next.version, object.version(), "{name}");
    }
}

#[tokio::test]
async fn a_fill_that_a_purge_overtook_serves_those_who_were_there() {
    let site = Site::start().await;
    for wanted in [Wanted::Whole, Wanted::Part(0..4 * MIB)] {
        let (object, gate) = (site.content.add(8 * MIB), Gate::closed());
        object.change(|behaviour| behaviour.hold = Some(Hold::After(MIB, gate.clone())));
        let (mut client, reading) = slow(&site, &object, &wanted).await;
        site.node.purge(&json!({ "tags": [object.tag()] })).await;
        object.change(|behaviour| (behaviour.version, behaviour.hold) = (2, None));
        let next = object.get(&site.node, Wanted::part(100, 9)).await;
        assert_eq!((next.version, next.is_hit()), (2, false), "{wanted:?}");
        gate.open();
        let got = reading.rest(&mut client).await.unwrap_or_else(|error| panic!("{wanted:?}: {error}"));
        assert_eq!((got.version, got.end), (1, End::Whole), "{wanted:?}");
        for wanted in [Wanted::part(100, 9), Wanted::part(2 * MIB, 9)] {
            assert_eq!(object.get(&site.node, wanted).await.version, 2);
        }
    }
}

#[tokio::test]
async fn a_stale_object_is_validated_by_the_range_that_is_asked_for() {
    let site = Site::with(|options| options.test_clock()).await;
    let mut table = Table::new("stale parts");
    for (name, changes, is_there, bytes) in [
        ("nothing changed", false, true, 0),
        ("nothing changed, another chunk", false, false, CHUNK),
        ("another version", true, true, CHUNK),
        ("another version, another chunk", true, false, CHUNK),
    ] {
        let object = site.content.add_with(16 * MIB, |behaviour| {
            behaviour.fields = vec!["Cache-Control: max-age=60".to_owned()];
        });
        table.row(name, validated(&site, &object, changes, is_there, bytes).await);
    }
    table.finish();
}

async fn validated(site: &Site, object: &Ranged, changes: bool, is_there: bool, bytes: u64) -> Result<(), String> {
    let get = async |chunk: u64| object.try_get(&site.node, Wanted::part(chunk * CHUNK, 9)).await;
    for chunk in [5, 9] {
        get(chunk).await?;
        object.becomes_hit(&site.node, Wanted::part(chunk * CHUNK, 9)).await?;
    }
    let before = object.settled().await;
    site.node.advance_clock(Duration::from_secs(100)).await;
    site.content.advance(Duration::from_secs(100));
    if changes {
        object.renew();
    }
    let asked = if is_there { 5 } else { 20 };
    let got = get(asked).await?;
    same("validated", (got.status, got.version, got.is_hit()), (206, object.version(), false))?;
    same("bytes for it", object.settled().await - before, bytes)?;
    object.becomes_hit(&site.node, Wanted::part(asked * CHUNK, 9)).await?;
    let other = get(9).await?;
    same("another one", (other.version, other.is_hit()), (object.version(), !changes))
}

#[tokio::test]
async fn variants_have_parts_of_their_own() {
    let site = Site::start().await;
    let object = site.content.add_with(4 * MIB, |behaviour| behaviour.fields.push("Vary: Accept-Language".to_owned()));
    let ask = async |language: &str, wanted: Wanted| {
        let line = format!("Accept-Language: {language}");
        object.get_with(&site.node, wanted, &[&line]).await.told()
    };
    assert_eq!(ask("en", Wanted::part(5 * CHUNK, 9)).await, "uri-miss; stored");
    assert_eq!(ask("de", Wanted::part(5 * CHUNK, 9)).await, "vary-miss; stored");
    assert_eq!(ask("de", Wanted::part(9 * CHUNK, 9)).await, "partial; stored");
    // Its client may have what it wants before the run is at its end.
    until(PATIENCE, "it is a hit", || async {
        let told = ask("en", Wanted::part(5 * CHUNK + 9, 9)).await;
        if told == "hit" { Ok(()) } else { Err(told) }
    })
    .await;
    assert_eq!(ask("en", Wanted::part(9 * CHUNK, 9)).await, "partial; stored");
    assert_eq!(object.settled().await, 4 * CHUNK, "{:?}", object.questions());
}

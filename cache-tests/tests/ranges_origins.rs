//! Origins that know no ranges, say wrong things about them, or break off in the middle: right bytes all the same.

use cache_tests::deadline::{PATIENCE, until};
use cache_tests::gate::Gate;
use cache_tests::node::{Node, NodeOptions};
use cache_tests::origin::nobody_listens;
use cache_tests::ranged::{
    Behaviour, Breaks, CHUNK, Content, ContentRange, Got, Hold, Ranged, RangedOrigin, Ranges, Site, Validator, Wanted,
};
use cache_tests::response::End;
use cache_tests::table::{Table, same, that};

const MIB: u64 = 1 << 20;

/// More requests than that for one answer are too many, whatever the origin does.
const ASKED_MAX: usize = 20;

async fn get(site: &Site, object: &Ranged, wanted: Wanted) -> Result<Got, String> {
    let got = object.try_get(&site.node, wanted.clone()).await.map_err(|error| format!("{wanted:?}: {error}"))?;
    same(&format!("the end of {wanted:?}"), got.end.clone(), End::Whole)?;
    Ok(got)
}

/// All of it is there, and the origin is not asked.
async fn all_hits(site: &Site, object: &Ranged) -> Result<(), String> {
    object.settled().await;
    let asked = object.asked().len();
    for wanted in [Wanted::part(7, 9), Wanted::Last(CHUNK + 5), Wanted::Whole] {
        object.becomes_hit(&site.node, wanted).await?;
    }
    same("requests", object.asked().len(), asked)
}

#[tokio::test]
async fn an_origin_without_ranges_is_asked_once() {
    let site = Site::start().await;
    let mut table = Table::new("no ranges");
    for (name, wanted) in [
        ("in the middle", Wanted::part(5 * CHUNK + 5, 2 * CHUNK)),
        ("the first", Wanted::part(0, 1)),
        ("the rest", Wanted::From(15 * CHUNK)),
        ("the last ones", Wanted::Last(300_000)),
    ] {
        let object = site.content.add_with(4 * MIB, |behaviour| behaviour.ranges = Ranges::Unknown);
        let found = async {
            let got = get(&site, &object, wanted.clone()).await?;
            same("the status", got.status, 206)?;
            same("bytes from the origin", object.settled().await, object.length())?;
            all_hits(&site, &object).await?;
            same("requests", object.asked().len(), 1)
        };
        table.row(name, found.await);
    }
    // One that forgets what it could.
    let object = site.content.add(4 * MIB);
    let found = async {
        get(&site, &object, Wanted::part(2 * CHUNK, 1)).await?;
        object.change(|behaviour| behaviour.ranges = Ranges::Unknown);
        same("the status", get(&site, &object, Wanted::part(9 * CHUNK, 1)).await?.status, 206)?;
        all_hits(&site, &object).await?;
        // The answer that says so may have been given up for a question without a range.
        that(object.asked().len() <= 3, || format!("{:?}", object.questions()))
    };
    table.row("no longer", found.await);
    table.finish();
}

#[tokio::test]
async fn without_a_strong_validator_there_is_one_part_and_then_the_whole() {
    let site = Site::start().await;
    let mut table = Table::new("weak validators");
    for validator in [Validator::WeakTag, Validator::DateOfNow, Validator::None] {
        let object = site.content.add_with(4 * MIB, |behaviour| behaviour.validator = validator);
        let found = async {
            let before = stored(&site).await;
            let first = get(&site, &object, Wanted::part(5 * CHUNK + 5, 99)).await?;
            same("the first", first.status, 206)?;
            // Who asks before it is kept, and in whichever form it is, has the whole fetched.
            let mut looks = 0;
            until(PATIENCE, "it is kept", || {
                looks += 1;
                let is_late = looks > LOOKS;
                let site = &site;
                async move {
                    let now = stored(site).await;
                    if now > before && is_late { Ok(()) } else { Err(format!("{now} stored")) }
                }
            })
            .await;
            let again = object.becomes_hit(&site.node, Wanted::part(5 * CHUNK + 5, 99)).await?;
            same("the first again", again.status, 206)?;
            that(object.asked().len() == 1, || format!("requests for it: {:?}", object.questions()))?;
            let other = get(&site, &object, Wanted::part(9 * CHUNK + 5, 99)).await?;
            same("another one", (other.status, other.is_hit()), (206, false))?;
            same("the question", object.questions()[1..].join(", "), "whole".into())?;
            all_hits(&site, &object).await
        };
        table.row(&format!("{validator:?}"), found.await);
    }
    table.finish();
}

/// How often it is looked whether a thing is kept, at least.
const LOOKS: u32 = 10;

async fn stored(site: &Site) -> f64 {
    site.node.metrics().await.sum("littoral_store_objects", &[])
}

#[tokio::test]
async fn a_date_is_a_condition_only_if_it_is_strong() {
    let site = Site::start().await;
    let object = site.content.add_with(4 * MIB, |behaviour| behaviour.validator = Validator::Date);
    for chunk in [5, 9, 0] {
        assert_eq!(get(&site, &object, Wanted::part(chunk * CHUNK + 5, 99)).await.map(|got| got.status), Ok(206));
    }
    get(&site, &object, Wanted::Whole).await.expect("the whole");
    object.settled().await;
    // Whether it is used or not: no part is asked for without it.
    for asked in &object.asked()[1..] {
        assert!(asked.range.is_none() || asked.if_range.is_some(), "{:?}", object.questions());
    }
    assert!(object.written() <= object.length() + CHUNK, "{:?}", object.questions());
}

#[tokio::test]
async fn what_content_range_says_wrongly_is_not_believed() {
    let site = Site::start().await;
    let mut table = Table::new("Content-Range");
    for content_range in [
        ContentRange::Shifted,
        ContentRange::UnknownTotal,
        ContentRange::Unreadable,
        ContentRange::Missing,
        ContentRange::Multipart,
        ContentRange::OtherTotal,
    ] {
        for wanted in [Wanted::part(5 * CHUNK + 5, CHUNK), Wanted::From(15 * CHUNK + 5), Wanted::Last(9)] {
            for is_cold in [true, false] {
                // Nobody knows better as long as it is all that was said; and who asks for the last bytes in his own words
                // may be told where they are in the origin's.
                let is_all_right = content_range == ContentRange::OtherTotal
                    || (content_range == ContentRange::UnknownTotal && wanted == Wanted::Last(9));
                if is_cold && is_all_right {
                    continue;
                }
                let object = site.content.add(4 * MIB);
                let found = is_not_believed(&site, &object, &wanted, content_range, is_cold).await;
                table.row(&format!("{content_range:?}, {wanted:?}, cold: {is_cold}"), found);
            }
        }
    }
    table.finish();
}

async fn is_not_believed(
    site: &Site,
    object: &Ranged,
    wanted: &Wanted,
    content_range: ContentRange,
    is_cold: bool,
) -> Result<(), String> {
    if !is_cold {
        get(site, object, Wanted::part(2 * CHUNK, 1)).await?;
    }
    object.change(|behaviour| behaviour.content_range = content_range);
    same("the status", get(site, object, wanted.clone()).await?.status, 206)?;
    object.becomes_hit(&site.node, wanted.clone()).await?;
    all_hits(site, object).await?;
    // The chunk before, and twice the two that are not believed.
    let most = object.length() + 5 * CHUNK;
    that(object.written() <= most, || format!("{} bytes: {:?}", object.written(), object.questions()))
}

#[tokio::test]
async fn less_than_was_asked_for_is_a_part_all_the_same() {
    let site = Site::start().await;
    let mut table = Table::new("shorter parts");
    for (name, is_cold, wanted, chunks) in [
        ("a chunk", true, Wanted::part(5 * CHUNK, 9), 1),
        ("the end of it", true, Wanted::part(6 * CHUNK - 9, 9), 1),
        ("a chunk", false, Wanted::part(5 * CHUNK, CHUNK), 1),
        ("several", true, Wanted::part(5 * CHUNK + 5, 2 * CHUNK), 3),
        ("several", false, Wanted::part(5 * CHUNK + 5, 2 * CHUNK), 3),
        ("the last ones", true, Wanted::Last(300_000), 2),
    ] {
        let object = site.content.add(4 * MIB);
        let found = async {
            if !is_cold {
                get(&site, &object, Wanted::part(0, 1)).await?;
            }
            let before = object.settled().await;
            object.change(|behaviour| behaviour.at_most = Some(100_000));
            same("the status", get(&site, &object, wanted.clone()).await?.status, 206)?;
            let bytes = object.settled().await - before;
            that(bytes <= chunks * CHUNK, || format!("{bytes} bytes: {:?}", object.questions()))?;
            // Its client may have what it wants before the run is at its end.
            object.becomes_hit(&site.node, wanted.clone()).await?;
            object.at_rest().await;
            let asked = object.asked().len();
            object.becomes_hit(&site.node, wanted.clone()).await?;
            same("requests for it again", object.asked().len() - asked, 0)
        };
        table.row(&format!("{name}, cold: {is_cold}"), found.await);
    }
    table.finish();
}

/// What is broken off is asked for from where it ended, or from the chunk that it ended in.
fn resumed(object: &Ranged, broken: usize, from: u64) -> Result<(), String> {
    let asked = object.asked();
    that(asked.len() <= ASKED_MAX, || format!("{} requests", asked.len()))?;
    let next = asked.get(broken + 1).ok_or("nothing was asked for")?;
    let begins = next.range.as_deref().is_some_and(|range| {
        [from, from / CHUNK * CHUNK].iter().any(|first| range.starts_with(&format!("bytes={first}-")))
    });
    same("the condition", next.if_range.as_deref(), Some("\"v1\""))?;
    that(begins, || format!("resumed by {:?}", object.questions()))
}

#[tokio::test]
async fn a_broken_fill_is_resumed() {
    const BROKEN: u64 = 1_500_000;
    let site = Site::start().await;
    let mut table = Table::new("broken once");
    for (name, is_cold, wanted, after, from, chunks) in [
        ("a whole", true, Wanted::Whole, BROKEN, BROKEN, 16),
        ("a cold run", true, Wanted::part(5 * CHUNK, 3 * CHUNK), 300_000, 5 * CHUNK + 300_000, 3),
        ("a run", false, Wanted::part(5 * CHUNK, 3 * CHUNK), 300_000, 5 * CHUNK + 300_000, 3),
        ("in the first chunk", false, Wanted::part(5 * CHUNK, 9_000), 1_000, 5 * CHUNK + 1_000, 1),
        ("before the first byte", false, Wanted::part(5 * CHUNK, 9), 0, 5 * CHUNK, 1),
        ("the rest", true, Wanted::From(12 * CHUNK), 300_000, 12 * CHUNK + 300_000, 4),
    ] {
        let object = site.content.add(4 * MIB);
        let found = async {
            if !is_cold {
                get(&site, &object, Wanted::part(0, 1)).await?;
            }
            let before = object.settled().await;
            object.change(|behaviour| behaviour.breaks = Breaks::once(after));
            let got = get(&site, &object, wanted.clone()).await?;
            same("the status", got.status, if wanted == Wanted::Whole { 200 } else { 206 })?;
            let bytes = object.settled().await - before;
            that(bytes <= (chunks + 1) * CHUNK, || format!("{bytes} bytes: {:?}", object.questions()))?;
            resumed(&object, usize::from(!is_cold), from)?;
            // Its client may have what it wants before the run is at its end.
            object.becomes_hit(&site.node, wanted.clone()).await?;
            object.at_rest().await;
            let asked = object.asked().len();
            object.becomes_hit(&site.node, wanted.clone()).await?;
            same("requests for it again", object.asked().len() - asked, 0)
        };
        table.row(&format!("{name}, cold: {is_cold}"), found.await);
    }
    table.finish();
}

#[tokio::test]
async fn what_cannot_be_resumed_is_broken_off() {
    let site = Site::start().await;
    let mut table = Table::new("broken for good");
    type Behave = fn(&mut Behaviour);
    let cases: [(&str, Behave); 5] = [
        ("a weak tag", |behaviour| behaviour.validator = Validator::WeakTag),
        ("no validator", |behaviour| behaviour.validator = Validator::None),
        ("no ranges", |behaviour| behaviour.ranges = Ranges::Unknown),
        ("it never gets on", |_| {}),
        ("another version meanwhile", |_| {}),
    ];
    for (number, (name, behave)) in cases.into_iter().enumerate() {
        let object = site.content.add_with(4 * MIB, behave);
        let gate = Gate::closed();
        let found = async {
            object.change(|behaviour| {
                behaviour.breaks = if number < 3 { Breaks::once(MIB) } else { Breaks::always(MIB) };
                behaviour.hold = Some(Hold::After(100_000, gate.clone()));
            });
            let mut client = site.node.client().await;
            let mut reading = object.begin(&mut client, &Wanted::Whole, &[]).await?;
            reading.read_to(&mut client, 50_000).await?;
            object.change(|behaviour| {
                behaviour.hold = None;
                match number {
                    3 => behaviour.breaks = Breaks::always(0),
                    4 => (behaviour.version, behaviour.breaks) = (2, None),
                    _ => {}
                }
            });
            gate.open();
            let got = reading.rest(&mut client).await?;
            // One that sends everything again, under the same strong tag, may have been taken at its word.
            let may_end_well = number == 2 && got.is_whole();
            that(may_end_well || matches!(got.end, End::Cut | End::Reset), || format!("the end is {:?}", got.end))?;
            same("the version", got.version, 1)?;
            let before = object.settled().await;
            that(object.asked().len() <= ASKED_MAX, || format!("{} requests", object.asked().len()))?;
            object.change(|behaviour| behaviour.breaks = None);
            let next = get(&site, &object, Wanted::Whole).await?;
            // What came of it is asked for no more.
            let again = object.settled().await - before;
            that(number != 3 || again <= 3 * MIB, || format!("{again} bytes for the next"))?;
            same("the next", (next.status, next.version), (200, object.version()))
        };
        table.row(name, found.await);
    }
    table.finish();
}

/// Two origins of one site: the second is asked while the first is down.
async fn two_origins(content: &Content) -> (RangedOrigin, RangedOrigin, Node) {
    let (first, second) = (RangedOrigin::start(content), RangedOrigin::start(content));
    let (one, other) = (first.url(), second.url());
    let text = format!("[site.main]\nhosts = [\"*\"]\norigins = [\"{one}\", {{ url = \"{other}\", tier = 2 }}]\n");
    let node = NodeOptions::configured_before(&nobody_listens(), &text).start().await;
    (first, second, node)
}

#[tokio::test]
async fn another_origin_goes_on_where_one_died() {
    for (wanted, is_cold) in [
        (Wanted::Whole, true),
        (Wanted::part(0, 4 * MIB), true),
        (Wanted::part(5 * CHUNK, 8 * CHUNK), false),
        (Wanted::Whole, false),
    ] {
        let content = Content::default();
        let (mut first, second, node) = two_origins(&content).await;
        let (object, gate) = (content.add(4 * MIB), Gate::closed());
        if !is_cold {
            object.get(&node, Wanted::part(3 * CHUNK, 1)).await;
        }
        let before = object.settled().await;
        object.change(|behaviour| behaviour.hold = Some(Hold::After(300_000, gate.clone())));
        let mut client = node.client().await;
        let mut reading = object.begin(&mut client, &wanted, &[]).await.unwrap_or_else(|error| panic!("{error}"));
        let to = reading.part.start + 200_000;
        assert_eq!(reading.read_to(&mut client, to).await, Ok(None), "{wanted:?}");
        let died = object.asked().len();
        assert_eq!(object.asked()[died - 1].port, first.address().port());
        first.stop();
        gate.open();
        let length = reading.part.end - reading.part.start;
        let got = reading.rest(&mut client).await.unwrap_or_else(|error| panic!("{wanted:?}: {error}"));
        assert_eq!(got.end, End::Whole, "{wanted:?}: {:?}", object.questions());
        let later = &object.asked()[died..];
        assert!(later.iter().all(|asked| asked.port == second.address().port()), "{later:?}");
        assert!(later.iter().all(|asked| asked.if_range.as_deref() == Some("\"v1\"")), "{later:?}");
        let bytes = object.written() - before;
        assert!(bytes <= length + 2 * CHUNK, "{wanted:?}: {bytes} bytes: {:?}", object.questions());
    }
}

#[tokio::test]
async fn what_is_nobody_elses_is_passed_on_as_it_was_asked_for() {
    let site = Site::start().await;
    let mut table = Table::new("not stored");
    for (name, field, request) in [
        ("no-store", "Cache-Control: no-store", &[][..]),
        ("private", "Cache-Control: private, max-age=60", &[]),
        ("a cookie", "Set-Cookie: a=b", &[]),
        ("authorised", "Cache-Control: max-age=60", &["Authorization: Basic YTpi"]),
    ] {
        let object = site.content.add_with(4 * MIB, |behaviour| behaviour.fields = vec![field.to_owned()]);
        let found = async {
            for round in 0..3 {
                for wanted in [Wanted::part(5 * CHUNK + 5, 99), Wanted::Last(9), Wanted::part(2 * CHUNK - 1, 2)] {
                    let got = object.ask(&mut site.node.client().await, &wanted, request).await?;
                    let found = (got.status, got.is_hit(), got.end.clone());
                    same(&format!("{wanted:?}"), found, (206, false, End::Whole))?;
                    let asked = object.questions().pop().unwrap_or_default();
                    // The first one is asked for as if it could be stored, and so is what only its request forbids.
                    if round > 0 && request.is_empty() {
                        same("the question", Some(asked), wanted.value())?;
                    }
                }
            }
            same("requests", object.asked().len(), 9)
        };
        table.row(name, found.await);
    }
    table.finish();
}

/// An origin as slow as many are: what it sends is served as it comes, and what a client left is not lost.
#[tokio::test]
async fn what_comes_slowly_is_served_as_it_comes() {
    let site = Site::start().await;
    let object = site.content.add_with(4 * MIB, |behaviour| behaviour.bytes_per_second = Some(4 * MIB));
    let mut client = site.node.client().await;
    let mut reading = object.begin(&mut client, &Wanted::part(5 * CHUNK, 4 * CHUNK), &[]).await.expect("a head");
    let to = reading.part.start + 20_000;
    assert_eq!(reading.read_to(&mut client, to).await, Ok(None));
    assert!(object.written() < 4 * CHUNK, "it was served as it came, not when it was there");
    client.vanish();
    object.settled().await;
    let wanted = Wanted::part(5 * CHUNK, 4 * CHUNK);
    let head = object.get(&site.node, wanted).await;
    assert_eq!(head.status, 206);
    assert!(object.settled().await <= 5 * CHUNK, "{:?}", object.questions());
}

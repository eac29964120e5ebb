//! What is put behind a body that broke off, row by row; and in `unsteady`, with an origin that does anything.

mod script;
mod unsteady;

use std::collections::VecDeque;

use self::script::{Answer, Body, Case, at_once, read};
use super::*;
use crate::origin::session::Session;

const ETAG: &str = "etag: \"a\"\r\n";
const TEXT: &[u8] = b"0123456789abcdefghij";

#[test]
fn the_rest_is_put_behind_what_came() {
    let case = Case::new(vec![Answer::part(5..20, "20")]);
    assert_eq!(case.broken_at(5), (TEXT.to_vec(), Ok(())));
    assert_eq!(case.asked(), [("bytes=5-".to_owned(), Some(7))]);
    assert!(case.resumed());
}

#[test]
fn of_a_part_only_its_rest_is_asked_for() {
    let case = Case { at: 4, end: Some(12), ..Case::new(vec![Answer::part(6..12, "20")]) };
    assert_eq!(case.broken_at(6), (TEXT[4..12].to_vec(), Ok(())));
    assert_eq!(case.asked(), [("bytes=6-11".to_owned(), Some(7))]);
}

#[test]
fn another_is_asked_each_time() {
    let from = |answer: Answer, member| match answer {
        Answer::Says { status, fields, pieces, end, length, .. } => {
            Answer::Says { status, fields, pieces, end, length, origin: member }
        }
        other => other,
    };
    let answers = vec![
        from(Answer::part(5..20, "20").broken(3), 2),
        // Who could not be reached is not known; it is not the one that broke off.
        Answer::Fails(Failure::Unreachable),
        from(Answer::part(8..20, "20"), 7),
    ];
    let case = Case::new(answers);
    assert_eq!(case.broken_at(5), (TEXT.to_vec(), Ok(())));
    let expected = [("bytes=5-", 7), ("bytes=8-", 2), ("bytes=8-", 2)];
    assert_eq!(case.asked(), expected.map(|(range, member)| (range.to_owned(), Some(member))));
}

/// Every answer that is not the rest of the same representation: the failure is the one there was.
#[test]
fn what_is_not_the_rest_is_not_put_behind_it() {
    let part = |fields: &str| Answer::of(206, fields, &TEXT[5..]);
    let range = "content-range: bytes 5-19/20\r\n";
    let with_length = |length| match part(&format!("{range}{ETAG}")) {
        Answer::Says { status, fields, pieces, end, origin, .. } => {
            Answer::Says { status, fields, pieces, end, length: Some(length), origin }
        }
        other => other,
    };
    let rows = [
        ("13.1.5: it has changed", Answer::of(200, ETAG, TEXT)),
        ("a 200 that looks like a part", Answer::of(200, &format!("{range}{ETAG}"), &TEXT[5..])),
        ("15.5.17: nothing there", Answer::of(416, &format!("content-range: bytes */20\r\n{ETAG}"), b"")),
        ("15.4.5: nothing has changed", Answer::of(304, &format!("{range}{ETAG}"), b"")),
        ("an error", Answer::of(503, "", b"")),
        ("15.3.7.3: another tag", part(&format!("{range}etag: \"b\"\r\n"))),
        ("15.3.7.3: a weak one", part(&format!("{range}etag: W/\"a\"\r\n"))),
        ("15.3.7.3: none", part(range)),
        ("14.4: no range", part(ETAG)),
        ("14.4: two", part(&format!("{range}{range}{ETAG}"))),
        ("14.4: it begins before", part(&format!("content-range: bytes 4-19/20\r\n{ETAG}"))),
        ("14.4: it begins behind", part(&format!("content-range: bytes 6-19/20\r\n{ETAG}"))),
        ("14.4: another length", part(&format!("content-range: bytes 5-19/21\r\n{ETAG}"))),
        ("14.4: more than there is", part(&format!("content-range: bytes 5-20/*\r\n{ETAG}"))),
        ("14.4: not well-formed", part(&format!("content-range: bytes=5-19/20\r\n{ETAG}"))),
        ("8.6: a length that does not fit", with_length(14)),
        ("8.4: another coding", part(&format!("content-encoding: gzip\r\n{range}{ETAG}"))),
        ("it took too long", Answer::Fails(Failure::FirstByteTimeout)),
        ("it was not well-formed", Answer::Fails(Failure::Malformed)),
    ];
    for (name, answer) in rows {
        // What comes next would do: it must not be asked for.
        let case = Case::new(vec![answer, Answer::part(5..20, "20")]);
        assert_eq!(case.broken_at(5), (TEXT[..5].to_vec(), Err(Failure::Closed)), "{name}");
        assert_eq!((case.asked().len(), case.resumed()), (1, false), "{name}");
    }
}

#[test]
fn what_must_not_have_changed() {
    let range = "Content-Range: bytes 5-19/20\r\n";
    let dated = "last-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let rows: [(&str, &str, &str, bool); 5] = [
        (
            "8.4: the coding",
            "etag: \"a\"\r\ncontent-encoding: gzip\r\n",
            "etag: \"a\"\r\nContent-Encoding: GZIP\r\n",
            true,
        ),
        // Section 15.3.7 allows it, but then it may be anything.
        ("8.4: it is not told", "etag: \"a\"\r\ncontent-encoding: gzip\r\n", ETAG, false),
        ("8.8.2: a strong date", &format!("{dated}date: Sun, 06 Nov 1994 08:49:38 GMT\r\n"), dated, true),
        (
            "8.8.2: another",
            &format!("{dated}date: Sun, 06 Nov 1994 08:49:38 GMT\r\n"),
            &dated.replace("37", "36"),
            false,
        ),
        ("whatever else has", "etag: \"a\"\r\nx: 1\r\n", "etag: \"a\"\r\nx: 2\r\n", true),
    ];
    for (name, ours, theirs, goes_on) in rows {
        let answer = Answer::of(206, &format!("{range}{theirs}"), &TEXT[5..]);
        let case = Case { fields: ours.into(), ..Case::new(vec![answer]) };
        assert_eq!(case.broken_at(5).1, if goes_on { Ok(()) } else { Err(Failure::Closed) }, "{name}");
        assert_eq!(case.asked().len(), 1, "{name}");
    }
}

#[test]
fn without_a_strong_validator_a_body_is_as_it_was() {
    let weak_date = "last-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    for fields in ["etag: W/\"a\"\r\n", "etag: a\r\n", weak_date, ""] {
        let case = Case { fields: fields.into(), ..Case::new(vec![Answer::part(5..20, "20")]) };
        assert_eq!(case.broken_at(5), (TEXT[..5].to_vec(), Err(Failure::Closed)), "{fields}");
        assert_eq!(case.script.asked.lock().len(), 0, "{fields}");
    }
}

#[test]
fn how_bodies_end() {
    use Failure::{Abandoned, BetweenBytesTimeout, Closed, Malformed, ReaderTooSlow, Unreachable};
    let (all, some) = (TEXT.to_vec(), TEXT[..5].to_vec());
    let more = [TEXT, b"x"].concat();
    // The body, how it ends, whether its length is known; what is read without anybody being asked, or none if one is.
    let rows = [
        ("complete", &all, Ok(()), true, Some(Ok(()))),
        ("broken where it is complete", &all, Err(Closed), true, Some(Ok(()))),
        ("a timeout where it is complete", &all, Err(BetweenBytesTimeout), true, Some(Ok(()))),
        ("wrong where it is complete", &all, Err(Malformed), true, Some(Err(Malformed))),
        ("complete, as it seems", &some, Ok(()), false, Some(Ok(()))),
        ("a clean end too early", &some, Ok(()), true, None),
        ("closed", &some, Err(Closed), true, None),
        ("closed, of any length", &some, Err(Closed), false, None),
        ("a timeout", &some, Err(BetweenBytesTimeout), true, None),
        ("gone", &some, Err(Unreachable), true, None),
        ("not well-formed", &some, Err(Malformed), true, Some(Err(Malformed))),
        ("nobody waits", &some, Err(Abandoned), true, Some(Err(Abandoned))),
        ("somebody is too slow", &some, Err(ReaderTooSlow), true, Some(Err(ReaderTooSlow))),
        ("more than all", &more, Ok(()), true, Some(Err(Malformed))),
    ];
    for (name, bytes, end, is_known, expected) in rows {
        let case = Case { total: is_known.then_some(20), ..Case::new(vec![Answer::part(5..20, "20")]) };
        let (read, result) = case.read(vec![bytes.clone(), vec![]], end);
        assert_eq!(
            (result, case.asked().len()),
            (expected.unwrap_or(Ok(())), usize::from(expected.is_none())),
            "{name}"
        );
        let there = if expected.is_none() {
            &all
        } else if bytes.len() > 20 {
            &vec![]
        } else {
            bytes
        };
        assert_eq!(&read, there, "{name}");
    }
}

#[test]
fn an_answer_keeps_to_what_it_said() {
    let answer = |range: &str, bytes: &[u8]| Answer::of(206, &format!("content-range: bytes {range}\r\n{ETAG}"), bytes);
    let all = || (TEXT.to_vec(), Ok(()));
    // Answers, whether the length is known before; what is read.
    let rows = [
        (
            "some of the rest, then the rest",
            vec![answer("5-9/20", &TEXT[5..10]), answer("10-19/20", &TEXT[10..])],
            true,
            all(),
        ),
        (
            "the same, with a length nobody knew",
            vec![answer("5-9/20", &TEXT[5..10]), answer("10-19/20", &TEXT[10..])],
            false,
            all(),
        ),
        ("less than it said", vec![answer("5-19/20", &TEXT[5..10]), answer("10-19/20", &TEXT[10..])], true, all()),
        ("a length that is not told is not another", vec![answer("5-19/*", &TEXT[5..])], true, all()),
        ("more than it said", vec![answer("5-9/20", &TEXT[5..])], true, (TEXT[..5].to_vec(), Err(Failure::Malformed))),
        ("nobody knows the end", vec![answer("5-19/*", &TEXT[5..])], false, (TEXT[..5].to_vec(), Err(Failure::Closed))),
        (
            "a length that changes later",
            vec![answer("5-9/20", &TEXT[5..10]), answer("10-19/21", &TEXT[10..])],
            false,
            (TEXT[..10].to_vec(), Err(Failure::Closed)),
        ),
    ];
    for (name, answers, is_known, expected) in rows {
        let case = Case { total: is_known.then_some(20), ..Case::new(answers) };
        assert_eq!(case.broken_at(5), expected, "{name}");
    }
}

#[test]
fn attempts_are_bounded_and_come_back_with_progress() {
    let case = Case::new(vec![]);
    assert_eq!(case.broken_at(5), (TEXT[..5].to_vec(), Err(Failure::Closed)));
    assert_eq!(case.asked().len(), RESUMES_MAX as usize, "nobody is there");
    let drops = |count: usize| (5..5 + count).map(|at| Answer::part(at..20, "20").broken(1)).collect::<Vec<_>>();
    let case = Case::new(drops(5));
    assert_eq!(case.broken_at(5), (TEXT[..8].to_vec(), Err(Failure::Closed)), "byte by byte");
    assert_eq!(case.asked().len(), RESUMES_MAX as usize);

    // A chunk with each answer, each of them broken off.
    let count = 3 * RESUMES_MAX as usize;
    let bytes: Vec<u8> = (0..(count + 1) * CHUNK_BYTES).map(|at| (at / 7) as u8).collect();
    let parts = |start: usize| {
        let fields = format!("content-range: bytes {}-{}/{}\r\n{ETAG}", start, bytes.len() - 1, bytes.len());
        Answer::of(206, &fields, &bytes[start..]).broken(CHUNK_BYTES)
    };
    let answers = (1..=count).map(|at| parts(at * CHUNK_BYTES)).collect();
    let case = Case { total: Some(bytes.len() as u64), ..Case::new(answers) };
    let (read, end) = case.read(vec![bytes[..CHUNK_BYTES].to_vec()], Err(Failure::BetweenBytesTimeout));
    assert!(read == bytes && end == Ok(()), "{} bytes, {end:?}", read.len());
    assert_eq!(case.asked().len(), count);
}

#[test]
fn who_drops_a_question_halfway_may_ask_again() {
    let case = Case::new(vec![Answer::Waits, Answer::Waits, Answer::part(5..20, "20")]);
    let mut body = case.over(vec![TEXT[..5].to_vec()], Err(Failure::Closed));
    assert_eq!(at_once(body.next()), Some(Ok(Some(Bytes::from_static(&TEXT[..5])))));
    assert_eq!([at_once(body.next()), at_once(body.next())], [None, None]);
    assert_eq!(read(body.as_mut()), (TEXT[5..].to_vec(), Ok(())));
}

#[tokio::test]
async fn nothing_is_asked_when_all_of_it_is_due() {
    let (past, later) = (clock::monotonic(), clock::monotonic() + std::time::Duration::from_secs(600));
    for (due, asked) in [(past, 0), (later, 1)] {
        let case = Case { due: Some(due), ..Case::new(vec![Answer::part(5..20, "20")]) };
        let mut body = case.over(vec![TEXT[..5].to_vec()], Err(Failure::BetweenBytesTimeout));
        assert_eq!(body.due(), Some(due));
        let end = loop {
            match body.next().await {
                Ok(Some(_)) => {}
                end => break end,
            }
        };
        assert_eq!(end, if asked > 0 { Ok(None) } else { Err(Failure::BetweenBytesTimeout) });
        assert_eq!(case.script.asked.lock().len(), asked);
    }
}

#[test]
fn an_answer_to_head_has_nothing_to_resume() {
    let case = Case::new(vec![]);
    let body = Box::new(Body { pieces: VecDeque::new(), end: Err(Failure::Closed), due: None });
    let request = OriginRequest {
        method: "HEAD",
        target: vec![],
        host: vec![],
        fields: vec![],
        client: None,
        avoid: None,
        session: Session::default(),
        through: None,
    };
    let (upstream, metrics) = (case.script.clone(), case.metrics.clone());
    let rest =
        Rest { upstream, request, fields: ETAG.into(), origin: 0, at: 0, end: None, total: None, site: 0, metrics };
    assert_eq!(read(Resuming::over(body, rest).as_mut()), (vec![], Err(Failure::Closed)));
    assert_eq!(case.script.asked.lock().len(), 0);
}

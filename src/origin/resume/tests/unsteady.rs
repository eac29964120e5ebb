//! Bodies that break off at any byte, and an origin that does something wrong now and then.

use std::collections::VecDeque;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::super::*;
use super::ETAG;
use super::script::{Body, read};
use crate::origin::Interims;
use crate::origin::session::Session;

/// An origin that has `body`, and does something wrong now and then. It answers what it is asked, in pieces.
struct Unsteady {
    body: Vec<u8>,
    /// Whether the length of it is known to who asks; a wrong one would be believed otherwise.
    knows_total: bool,
    moves: Mutex<VecDeque<Move>>,
    asked: Mutex<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// Bytes go on beyond what was said.
    More,
    /// Another representation, as its validator says.
    Changed,
    /// Other bytes than those that were asked for, as its range says.
    Elsewhere,
    /// Another representation, as its length says.
    Longer,
    Whole,
    Unsatisfiable,
    Refused,
}

#[derive(Clone, Debug)]
struct Move {
    /// How long pieces are, in turn.
    pieces: Vec<usize>,
    /// After how many bytes it breaks off, and how.
    cut: Option<(usize, Failure)>,
    /// How many bytes it would send at most.
    most: usize,
    tells_total: bool,
    wrong: Option<Wrong>,
}

/// `bytes` in pieces of these lengths, in turn.
fn cut_up(bytes: &[u8], lengths: &[usize]) -> VecDeque<Vec<u8>> {
    let mut lengths = lengths.iter().copied().cycle();
    let (mut pieces, mut rest) = (VecDeque::new(), bytes);
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(lengths.next().unwrap_or(1).min(rest.len()));
        pieces.push_back(piece.to_vec());
        rest = behind;
    }
    pieces
}

impl Move {
    /// The body with these bytes, as this move has it.
    fn body(&self, bytes: &[u8]) -> Body {
        match self.cut.filter(|(cut, _)| *cut < bytes.len()) {
            Some((cut, failure)) => Body { pieces: cut_up(&bytes[..cut], &self.pieces), end: Err(failure), due: None },
            None => Body { pieces: cut_up(bytes, &self.pieces), end: Ok(()), due: None },
        }
    }
}

#[async_trait]
impl Upstream for Unsteady {
    async fn open(&self, request: &OriginRequest, _: Interims<'_>) -> Result<OriginResponse, Failure> {
        *self.asked.lock() += 1;
        let next = self.moves.lock().pop_front().ok_or(Failure::Unreachable)?;
        let range = Fields::new(&request.fields).only("range").expect("a range");
        let range = String::from_utf8_lossy(range).replace("bytes=", "");
        let (first, last) = range.split_once('-').expect("a first and a last");
        let first: usize = first.parse().expect("a number");
        let asked = last.parse().map_or(self.body.len(), |last: usize| (last + 1).min(self.body.len()));
        let end = asked.min(first + next.most);
        let bytes = &self.body[first..end];
        let total = |length: usize| if next.tells_total { length.to_string() } else { "*".into() };
        let part = |first: usize, total: String| format!("content-range: bytes {first}-{}/{total}\r\n", end - 1);
        let changed: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
        let (status, fields, bytes) = match next.wrong {
            None => (206, part(first, total(self.body.len())) + ETAG, bytes.to_vec()),
            Some(Wrong::More) => (206, part(first, total(self.body.len())) + ETAG, [bytes, b"more"].concat()),
            Some(Wrong::Changed) => (206, part(first, total(self.body.len())) + "etag: \"b\"\r\n", changed),
            Some(Wrong::Elsewhere) => (206, part(first + 1, total(self.body.len() + 1)) + ETAG, changed),
            Some(Wrong::Longer) if self.knows_total => {
                (206, part(first, (self.body.len() + 1).to_string()) + ETAG, changed)
            }
            Some(Wrong::Whole) => (200, ETAG.to_owned(), self.body.clone()),
            Some(Wrong::Unsatisfiable) => (416, ETAG.to_owned(), vec![]),
            Some(Wrong::Refused | Wrong::Longer) => return Err(Failure::Unreachable),
        };
        let body = Box::new(next.body(&bytes));
        Ok(OriginResponse { status, fields: fields.into(), length: None, body, retries: 0, origin: 0, judged: None })
    }
}

fn failure() -> impl Strategy<Value = Failure> {
    prop::sample::select(vec![Failure::Closed, Failure::BetweenBytesTimeout, Failure::Unreachable])
}

fn steady() -> impl Strategy<Value = Move> {
    let cut = prop::option::weighted(0.7, (0..60_usize, failure()));
    let most = prop_oneof![3 => Just(usize::MAX / 2), 1 => 1..30_usize];
    (prop::collection::vec(1..20_usize, 1..6), cut, most, any::<bool>())
        .prop_map(|(pieces, cut, most, tells_total)| Move { pieces, cut, most, tells_total, wrong: None })
}

fn unsteady() -> impl Strategy<Value = Move> {
    use Wrong::{Changed, Elsewhere, Longer, More, Refused, Unsatisfiable, Whole};
    let wrong = prop::sample::select(vec![More, Changed, Elsewhere, Longer, Whole, Unsatisfiable, Refused]);
    (steady(), prop::option::weighted(0.3, wrong)).prop_map(|(steady, wrong)| Move { wrong, ..steady })
}

/// What is asked of a body of this length: from where, to where, and what is known.
fn asked() -> impl Strategy<Value = (Vec<u8>, usize, Option<usize>, bool)> {
    let body = prop::collection::vec(any::<u8>(), 1..80);
    (body, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>(), any::<bool>()).prop_map(
        |(body, one, other, is_part, knows_total)| {
            let (one, other) = (one.index(body.len()), other.index(body.len()));
            let (at, end) = if is_part { (one.min(other), Some(one.max(other) + 1)) } else { (0, None) };
            (body, at, end, knows_total)
        },
    )
}

type Read = (Vec<u8>, Result<(), Failure>, usize);

fn read_unsteadily(asked: &(Vec<u8>, usize, Option<usize>, bool), first: &Move, moves: Vec<Move>) -> Read {
    let (body, at, end, knows_total) = asked;
    let upstream = Arc::new(Unsteady {
        body: body.clone(),
        knows_total: *knows_total,
        moves: Mutex::new(moves.into()),
        asked: Mutex::default(),
    });
    let wanted = &body[*at..end.unwrap_or(body.len())];
    let rest = Rest {
        upstream: upstream.clone(),
        request: OriginRequest {
            method: "GET",
            target: "/".into(),
            host: "h".into(),
            fields: vec![],
            client: None,
            avoid: None,
            session: Session::default(),
            through: None,
        },
        fields: ETAG.into(),
        origin: 0,
        at: *at as u64,
        end: end.map(|end| end as u64),
        total: knows_total.then_some(body.len() as u64),
        site: 0,
        metrics: Metrics::new("resume"),
    };
    let (read, end) = read(Resuming::over(Box::new(first.body(wanted)), rest).as_mut());
    let count = *upstream.asked.lock();
    (read, end, count)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Whatever happens: the bytes are the body's, and a clean end is its end.
    #[test]
    fn nothing_wrong_ends_cleanly(asked in asked(), first in steady(), moves in prop::collection::vec(unsteady(), 0..6)) {
        let (read, end, count) = read_unsteadily(&asked, &first, moves);
        let wanted = &asked.0[asked.1..asked.2.unwrap_or(asked.0.len())];
        prop_assert!(wanted.starts_with(&read), "{:?}", read);
        prop_assert!(end.is_err() || read == wanted, "{} of {} bytes", read.len(), wanted.len());
        prop_assert!(count <= RESUMES_MAX as usize);
    }

    /// Broken at each of its bytes in turn, it is read to its end: where it broke again, too.
    #[test]
    fn a_body_goes_on_from_every_byte(
        asked in asked(),
        first in steady(),
        failure in failure(),
        moves in prop::collection::vec(steady(), 2),
    ) {
        let length = asked.2.unwrap_or(asked.0.len()) - asked.1;
        for cut in 0..length {
            let first = Move { cut: Some((cut, failure)), ..first.clone() };
            // The third attempt is a good one, and each of them says how long it all is.
            let last = Move { cut: None, ..first.clone() };
            let moves = moves.iter().cloned().chain([last]);
            let moves = moves.map(|one| Move { tells_total: true, most: usize::MAX / 2, ..one }).collect();
            let (read, end, _) = read_unsteadily(&asked, &first, moves);
            prop_assert_eq!(end, Ok(()));
            prop_assert_eq!(&read, &asked.0[asked.1..][..length]);
        }
    }
}

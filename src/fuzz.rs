//! Bounded fuzzing of whatever reads bytes from outside, by the ordinary test run and with stable Rust.
//!
//! A target is a test: a name, some realistic and hostile inputs to begin with, and a check that panics.
//!
//! ```ignore
//! #[test]
//! fn purge_requests() {
//!     crate::fuzz::target("purge requests", &[br#"{"keys":["a"]}"#, b"{"], |input| {
//!         let Ok(purge) = Purge::parse(input) else { return };
//!         assert_eq!(Purge::parse(&purge.to_json()).ok(), Some(purge));
//!     });
//! }
//! ```
//!
//! The check gets those inputs, changed in ways that parsers stumble over, and random bytes. What fails is made smaller
//! while it still fails, and printed as a byte string to be made a row of a table. Inputs are a function of the seed,
//! the target's name and a number, so a run can be repeated; `LITTORAL_FUZZ_SEED` chooses other ones and
//! `LITTORAL_FUZZ_INPUTS` how many. For an hour or a night, the checks optimised but all assertions on:
//!
//! ```text
//! LITTORAL_FUZZ_SEED=$RANDOM LITTORAL_FUZZ_INPUTS=100000000 \
//!     cargo test --config profile.test.opt-level=3 -p littoral --lib fuzz::
//! ```
//!
//! There is no feedback from coverage, as a fuzzer on nightly would have it: the first inputs have to reach the code.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// Well below a second for each target in an unoptimised build.
const INPUTS: u64 = 8_000;

/// Long enough for lists longer than any bound in the parsers, short enough to be quick.
const LENGTH_MAX: usize = 2_048;

const MUTATIONS_MAX: usize = 6;

/// How often a failing input is tried again to make it smaller.
const REDUCTIONS_MAX: usize = 20_000;

/// Bytes that mean something in HTTP's fields and in JSON, and some that nobody expects.
const MEANINGFUL: &[u8] = b",;=\"\\ \t:-*?()/.@'{}[]<>#%&+0129aAzZ\n\r\0\x7f\x80\xff";

/// What is inserted: numbers on both sides of some integer type's end, openers without closers, text that is no ASCII.
const WORDS: &[&[u8]] = &[
    b"0",
    b"-1",
    b"1.5",
    b"2147483647",
    b"2147483648",
    b"4294967296",
    b"18446744073709551615",
    b"18446744073709551616",
    b"99999999999999999999999999",
    b"\"",
    b"\\\"",
    b"\"\\",
    b", ",
    b",,",
    b" \t ",
    b"\r\n",
    b"\n",
    b"*",
    b"\xc3\xa9",
    b"\xed\xa0\x80",
];

/// Feeds `check` with `corpus` as it is, then with what is made of it.
///
/// # Panics
/// With the smallest failing input found, when `check` panics.
#[track_caller]
pub(crate) fn target(name: &str, corpus: &[&[u8]], check: impl Fn(&[u8])) {
    let seed = number("LITTORAL_FUZZ_SEED").unwrap_or(0);
    run(name, corpus, check, seed, number("LITTORAL_FUZZ_INPUTS").unwrap_or(INPUTS));
}

#[track_caller]
fn run(name: &str, corpus: &[&[u8]], check: impl Fn(&[u8]), seed: u64, inputs: u64) {
    let as_they_are = corpus.iter().map(|input| input.to_vec());
    let made = (0..inputs).map(|index| made_of(corpus, &mut Random::new(seed, name, index)));
    for input in as_they_are.chain(made) {
        if fails(&check, &input) {
            let least = reduced(&input, |smaller| fails(&check, smaller));
            // Once more, and no longer in silence: this prints what failed and where.
            let _ = panic::catch_unwind(AssertUnwindSafe(|| check(&least)));
            panic!("fuzz: {name} fails, seed {seed}:\n  b\"{}\"\n{}", least.escape_ascii(), as_found(&input, &least));
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}: expected a number, found {value:?}")))
}

fn as_found(input: &[u8], least: &[u8]) -> String {
    if input == least { String::new() } else { format!("first found as\n  b\"{}\"\n", input.escape_ascii()) }
}

thread_local! {
    /// Whether a panic of this thread is expected and says nothing.
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

fn fails(check: &impl Fn(&[u8]), input: &[u8]) -> bool {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !SILENT.get() {
                usual(panic);
            }
        }));
    });
    SILENT.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| check(input)));
    SILENT.set(false);
    outcome.is_err()
}

/// `input` without the spans it fails without: halves first, single bytes last, until nothing more can go.
fn reduced(input: &[u8], still_fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut least = input.to_vec();
    let mut tries = 0;
    let mut span = least.len().div_ceil(2);
    while span > 0 {
        let (before, mut at) = (least.len(), 0);
        while at < least.len() && tries < REDUCTIONS_MAX {
            tries += 1;
            let end = (at + span).min(least.len());
            let smaller = [&least[..at], &least[end..]].concat();
            if still_fails(&smaller) {
                least = smaller;
            } else {
                at = end;
            }
        }
        let again = least.len() < before && tries < REDUCTIONS_MAX;
        span = if again { span.min(least.len()) } else { span / 2 };
    }
    least
}

fn made_of(corpus: &[&[u8]], random: &mut Random) -> Vec<u8> {
    let mut input = match random.below(8) {
        0 => (0..random.below(60)).map(|_| random.byte()).collect(),
        1 => (0..random.below(40)).map(|_| random.one_of(MEANINGFUL)).collect(),
        _ => random.one_of(corpus).to_vec(),
    };
    for _ in 0..=random.below(MUTATIONS_MAX) {
        mutate(&mut input, corpus, random);
        input.truncate(LENGTH_MAX);
    }
    input
}

fn mutate(input: &mut Vec<u8>, corpus: &[&[u8]], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let span = random.span(input.len());
    match random.below(11) {
        0 => input.truncate(at),
        1 => drop(input.drain(span)),
        2 => insert(input, at, random.one_of(WORDS)),
        3 => insert(input, at, &[random.one_of(MEANINGFUL)]),
        // A bit, a byte, a digit, a letter's case.
        4..=6 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = match random.below(4) {
                    0 => random.byte(),
                    1 => random.one_of(MEANINGFUL),
                    2 if byte.is_ascii_digit() => random.one_of(b"0123456789"),
                    2 => *byte ^ 0x20,
                    _ => *byte ^ 1 << random.below(8),
                };
            }
        }
        // A span again: once, or as often as it takes to pass a bound.
        7 => {
            let again = input[span.clone()].repeat(random.one_of(&[1, 2, 20, 200]));
            insert(input, span.end, &again);
        }
        // The start of this and the end of another.
        8 => {
            let other = random.one_of(corpus);
            input.truncate(at);
            input.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        // Another member, or another line.
        9 => {
            input.push(random.one_of(b",\n;"));
            input.extend_from_slice(random.one_of(corpus));
        }
        // Another number.
        _ => {
            let Some(digit) = input[at..].iter().position(u8::is_ascii_digit) else { return };
            let digits = input[at + digit..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            input.drain(at + digit..at + digit + digits);
            insert(input, at + digit, random.one_of(WORDS));
        }
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    input.splice(at..at, bytes.iter().copied());
}

/// SplitMix64: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators".
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn new(seed: u64, name: &str, index: u64) -> Self {
        // FNV-1a, so that targets with the same corpus get other inputs.
        let name = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mut random = Self(seed);
        random.0 = random.number() ^ name;
        random.0 = random.number() ^ index;
        random
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Less than `end`; 0 when that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn byte(&mut self) -> u8 {
        self.number() as u8
    }

    fn one_of<T: Copy + Default>(&mut self, all: &[T]) -> T {
        all.get(self.below(all.len())).copied().unwrap_or_default()
    }

    /// A span of something of this length, short more often than long.
    fn span(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let longest = if self.below(4) == 0 { length } else { 8 };
        start..start + self.below(longest.min(length - start) + 1)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashSet;

    use super::*;

    const CORPUS: &[&[u8]] = &[b"max-age=60, public", b"no-store"];

    #[track_caller]
    fn check(name: &str, expected: &str, planted: impl Fn(&[u8])) {
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| run(name, CORPUS, planted, 0, INPUTS)));
        let message = outcome.expect_err("the planted bug is found").downcast::<String>().expect("a message");
        assert!(message.contains(&format!("{name} fails, seed 0:\n  b\"{expected}\"\n")), "{name}: {message}");
    }

    #[test]
    fn what_fails_is_found_and_made_small() {
        check("two bytes", ",,", |input| assert!(!input.windows(2).any(|two| two == b",,")));
        check("a byte no text has", "\\xff", |input| assert!(!input.contains(&0xff)));
        check("an index that misses", "\\\\", |input| {
            let next = input.iter().position(|byte| *byte == b'\\').map(|at| input[at + 1]);
            assert_ne!(next, Some(0));
        });
        check("a list that is too long", &",".repeat(17), |input| {
            assert!(input.split(|byte| *byte == b',').count() <= 17);
        });
        check("a sum that overflows", "===", |input| {
            let _ = input.iter().filter(|byte| **byte == b'=').fold(0_u8, |sum, _| sum + 100);
        });
    }

    #[test]
    fn the_corpus_comes_first_and_inputs_can_be_repeated() {
        let inputs = |name: &str, seed: u64| {
            let seen = RefCell::new(Vec::new());
            run(name, CORPUS, |input| seen.borrow_mut().push(input.to_vec()), seed, INPUTS);
            seen.into_inner()
        };
        let once = inputs("a", 0);
        assert_eq!(once[..2], *CORPUS);
        assert_eq!(once, inputs("a", 0));
        assert!(once != inputs("b", 0) && once != inputs("a", 1));
        let different: HashSet<_> = once.iter().collect();
        assert!(different.len() > once.len() / 2, "{} of {} inputs are different", different.len(), once.len());
        assert!(once.iter().all(|input| input.len() <= LENGTH_MAX));
    }
}

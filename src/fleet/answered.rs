//! What a node that was asked by another one says of its answer. Pure.

use super::parameters::Parameters;
use crate::semantics::time::UnixMs;

/// The name of the field of such an answer.
pub const FIELD: &str = "littoral-answer";

/// How old an answer is, as far as purges are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// When the purge log was made that the node follows.
    pub log: u64,
    /// It was judged live at this record of that log, or its fill began at it.
    pub seq: u64,
    /// Since when it is stale: soft purged, or not fresh any more.
    pub stale_since: Option<UnixMs>,
    /// The surrogate keys in the answer are all there are.
    pub tags: bool,
}

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// From what is stored, or from an origin.
    Judged(Answered),
    /// The node cannot know what was purged; it did not look.
    Isolated,
    /// No origin gave an answer; with this status a client would be told.
    Failed { status: u16 },
    /// The node does not take the question: its own sites, or who asked, speak against it.
    Refused,
}

impl Answer {
    /// Appends the field's value, without its name and the end of a line.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Judged(answered) => answered.write(out),
            Self::Isolated => out.extend_from_slice(b"isolated"),
            Self::Failed { status } => {
                out.extend_from_slice(b"failed");
                number("status", u64::from(*status), out);
            }
            Self::Refused => out.extend_from_slice(b"refused"),
        }
    }

    /// Reads the field's value; none when no node has written it.
    pub fn read(value: &[u8]) -> Option<Self> {
        let (what, mut rest) = Parameters::of(value)?;
        let answer = match what {
            "judged" => Self::Judged(Answered::read(&mut rest)?),
            "isolated" => Self::Isolated,
            "failed" => {
                let status = u16::try_from(rest.number("status")?).ok()?;
                Self::Failed { status: Some(status).filter(|status| (100..=999).contains(status))? }
            }
            "refused" => Self::Refused,
            _ => return None,
        };
        rest.end()?;
        Some(answer)
    }
}

impl Answered {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"judged");
        number("log", self.log, out);
        number("seq", self.seq, out);
        if let Some(since) = self.stale_since {
            number("stale", since.0, out);
        }
        if self.tags {
            out.extend_from_slice(b"; tags");
        }
    }

    fn read(rest: &mut Parameters<'_>) -> Option<Self> {
        Some(Self {
            log: rest.number("log")?,
            seq: rest.number("seq")?,
            stale_since: match rest.follows("stale") {
                true => Some(UnixMs(rest.number("stale")?)),
                false => None,
            },
            tags: rest.flag("tags"),
        })
    }
}

fn number(name: &str, value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"; ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JUDGED: Answered = Answered { log: 1_770_000_000_000, seq: 42, stale_since: None, tags: false };

    fn written(answer: &Answer) -> Vec<u8> {
        let mut out = Vec::new();
        answer.write(&mut out);
        out
    }

    #[test]
    fn values() {
        let rows: [(Answer, &str); 6] = [
            (Answer::Judged(JUDGED), "judged; log=1770000000000; seq=42"),
            (Answer::Judged(Answered { tags: true, ..JUDGED }), "judged; log=1770000000000; seq=42; tags"),
            (
                Answer::Judged(Answered { stale_since: Some(UnixMs(7)), tags: true, ..JUDGED }),
                "judged; log=1770000000000; seq=42; stale=7; tags",
            ),
            (Answer::Isolated, "isolated"),
            (Answer::Failed { status: 504 }, "failed; status=504"),
            (Answer::Refused, "refused"),
        ];
        for (answer, expected) in rows {
            assert_eq!(String::from_utf8_lossy(&written(&answer)), expected);
            assert_eq!(Answer::read(expected.as_bytes()), Some(answer), "{expected}");
        }
    }

    #[test]
    fn what_no_node_writes() {
        let rows = [
            "",
            "judged",
            "judged; log=1",
            "judged; seq=1; log=1",
            "judged; log=1; seq=1; tags; stale=7",
            "judged; log=1; seq=1; stale=",
            "judged; log=1; seq=1; tags=1",
            "judged; log=01; seq=1",
            "judged; log=1; seq=18446744073709551616",
            "isolated; log=1",
            "Isolated",
            "failed",
            "failed; status=99",
            "failed; status=1000",
            "failed; status=65540",
            "refused, refused",
        ];
        for value in rows {
            assert_eq!(Answer::read(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn anything() {
        let corpus: [&[u8]; 5] = [
            b"judged; log=1770000000000; seq=42; stale=7; tags",
            b"judged; log=0; seq=0; tags",
            b"isolated",
            b"failed; status=502",
            b"refused",
        ];
        crate::fuzz::target("what nodes answer", &corpus, |input| {
            if let Some(answer) = Answer::read(input) {
                assert_eq!(written(&answer), input, "there is one way to write it");
            }
        });
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            log in any::<u64>(),
            seq in any::<u64>(),
            stale in any::<Option<u64>>(),
            tags in any::<bool>(),
            status in 100..=999_u16,
        ) {
            let judged = Answer::Judged(Answered { log, seq, stale_since: stale.map(UnixMs), tags });
            for answer in [judged, Answer::Failed { status }] {
                prop_assert_eq!(Answer::read(&written(&answer)), Some(answer));
            }
        }
    }
}

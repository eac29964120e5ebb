//! Large bodies in versions, asked for in parts: each byte follows from the URL, the version and its place, so that
//! neither a wrong one nor a mixture goes unnoticed. With the origins that have them, which may behave badly, and with
//! clients that look at every byte.

// In reading order.
mod wanted;

mod reply;
mod serving;

mod parts;
mod reading;
mod site;

pub mod load;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use self::reading::{Got, Reading, version_of};
pub use self::serving::RangedOrigin;
pub use self::site::Site;
pub use self::wanted::Wanted;
use crate::deadline::{PATIENCE, until};
use crate::derived::Derived;
use crate::gate::Gate;

/// The grid on which the node keeps bodies, from byte 0.
pub const CHUNK: u64 = 256 << 10;

/// What tells versions of one object apart: their numbers among [`Derived`] ones.
const VERSIONS: u64 = 1_000_003;

/// How many looks in a row must find nothing new before something is said to have come to rest.
const LOOKS: u32 = 20;

/// What several origins have in common: the objects, and the time.
#[derive(Clone, Debug, Default)]
pub struct Content(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    objects: Mutex<HashMap<u64, Ranged>>,
    /// How far the node's clock was moved; dates follow it.
    ahead_seconds: AtomicI64,
}

impl Content {
    /// A new object of so many bytes, well-behaved and fresh for a day.
    ///
    /// # Panics
    /// When another thread did while it held the objects.
    pub fn add(&self, length: u64) -> Ranged {
        let mut objects = self.0.objects.lock().expect("nobody panics with the objects in hand");
        let number = objects.len() as u64 + 1;
        let behaviour = Behaviour {
            version: 1,
            length,
            validator: Validator::TagAndDate,
            ranges: Ranges::Known,
            if_range: IfRange::Known,
            content_range: ContentRange::Right,
            at_most: None,
            breaks: None,
            hold: None,
            bytes_per_second: None,
            fields: vec!["Cache-Control: max-age=86400".to_owned(), format!("Surrogate-Key: all film-{number}")],
        };
        let ranged = Ranged(Arc::new(Object {
            number,
            lengths: Mutex::new(BTreeMap::from([(1, length)])),
            behaviour: Mutex::new(behaviour),
            asked: Mutex::default(),
            written: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
        }));
        objects.insert(number, ranged.clone());
        ranged
    }

    /// A new object that behaves as it is told.
    pub fn add_with(&self, length: u64, behave: impl FnOnce(&mut Behaviour)) -> Ranged {
        let ranged = self.add(length);
        ranged.change(behave);
        ranged
    }

    /// Moves the dates that origins send.
    ///
    /// # Panics
    /// By more than a clock can be moved.
    pub fn advance(&self, by: Duration) {
        let seconds = i64::try_from(by.as_secs()).expect("a clock is moved by less than an age of the world");
        self.0.ahead_seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    fn object_of(&self, target: &str) -> Option<Ranged> {
        let number = target.strip_prefix("/ranged/")?.parse().ok()?;
        self.0.objects.lock().expect("nobody panics with the objects in hand").get(&number).cloned()
    }
}

/// An object: the same at all origins of its [`Content`]. Clones are the same object.
#[derive(Clone, Debug)]
pub struct Ranged(Arc<Object>);

#[derive(Debug)]
struct Object {
    number: u64,
    /// Of all versions there have been.
    lengths: Mutex<BTreeMap<u64, u64>>,
    behaviour: Mutex<Behaviour>,
    asked: Mutex<Vec<Asked>>,
    written: AtomicU64,
    arrived: AtomicU64,
    under_way: AtomicU64,
}

/// How origins answer for an object from now on; answers that have begun go on as they began.
#[derive(Clone, Debug)]
pub struct Behaviour {
    pub version: u64,
    /// Of this version's body.
    pub length: u64,
    pub validator: Validator,
    pub ranges: Ranges,
    pub if_range: IfRange,
    pub content_range: ContentRange,
    /// A range is answered by so many bytes of it at most.
    pub at_most: Option<u64>,
    pub breaks: Option<Breaks>,
    pub hold: Option<Hold>,
    /// Of each answer.
    pub bytes_per_second: Option<u64>,
    /// Field lines besides the validators.
    pub fields: Vec<String>,
}

/// What a version is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validator {
    /// `ETag` and a `Last-Modified` that is strong, too.
    TagAndDate,
    Tag,
    WeakTag,
    /// `Last-Modified` alone, days before `Date`.
    Date,
    /// `Last-Modified` alone, at the second of `Date`: weak (RFC 9110 section 8.8.2.2).
    DateOfNow,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranges {
    Known,
    /// Every answer is whole.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfRange {
    Known,
    /// A part of the present version is sent whatever the condition names.
    Ignored,
}

/// What answers to a range say about themselves. The bytes are those asked for in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentRange {
    Right,
    /// One byte later than it is.
    Shifted,
    /// One byte more in all than there is.
    OtherTotal,
    UnknownTotal,
    Unreadable,
    Missing,
    /// `multipart/byteranges` with a single part (RFC 9110 section 15.3.7.2 does not allow it).
    Multipart,
}

/// Answers with more bytes than that end after so many of them, as often as is said.
#[derive(Clone, Copy, Debug)]
pub struct Breaks {
    pub after: u64,
    pub times: u32,
}

impl Breaks {
    pub fn once(after: u64) -> Option<Self> {
        Some(Self { after, times: 1 })
    }

    pub fn always(after: u64) -> Option<Self> {
        Some(Self { after, times: u32::MAX })
    }
}

/// Where answers wait until a test lets them pass.
#[derive(Clone, Debug)]
pub enum Hold {
    BeforeHead(Gate),
    /// After so many bytes of the answer's body, if it has more.
    After(u64, Gate),
}

/// A request at an origin, and what it was promised.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The port of the origin.
    pub port: u16,
    pub method: String,
    pub range: Option<String>,
    pub if_range: Option<String>,
    pub if_none_match: Option<String>,
    pub status: u16,
    /// Which bytes of the body the answer has, if it ends well.
    pub part: Range<u64>,
}

impl Asked {
    /// What it asked for: `whole`, `bytes=0-9`, `bytes=0-9 if "v1"`.
    pub fn question(&self) -> String {
        let range = self.range.clone().unwrap_or_else(|| "whole".to_owned());
        match &self.if_range {
            Some(condition) => format!("{range} if {condition}"),
            None => range,
        }
    }
}

impl Ranged {
    pub fn target(&self) -> String {
        format!("/ranged/{}", self.0.number)
    }

    /// The surrogate key that no other object has.
    pub fn tag(&self) -> String {
        format!("film-{}", self.0.number)
    }

    /// Its bytes in one of its versions.
    ///
    /// # Errors
    /// When there has been no such version.
    pub fn at(&self, version: u64) -> Result<Derived, String> {
        let lengths = self.0.lengths.lock().expect("nobody panics with the lengths in hand");
        let length = *lengths.get(&version).ok_or(format!("{}: there is no version {version}", self.target()))?;
        Ok(Derived { number: self.0.number + version * VERSIONS, length })
    }

    pub fn version(&self) -> u64 {
        self.behaviour().version
    }

    pub fn length(&self) -> u64 {
        self.behaviour().length
    }

    /// Has origins answer otherwise from now on.
    ///
    /// # Panics
    /// When another thread did while it held the lengths.
    pub fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        let mut behaviour = self.behaviour();
        change(&mut behaviour);
        // Before any answer can be of it.
        let mut lengths = self.0.lengths.lock().expect("nobody panics with the lengths in hand");
        lengths.insert(behaviour.version, behaviour.length);
    }

    /// The next version, of the same length.
    pub fn renew(&self) {
        self.change(|behaviour| behaviour.version += 1);
    }

    /// Every request so far, in the order in which they were answered.
    ///
    /// # Panics
    /// When another thread did while it held the requests.
    pub fn asked(&self) -> Vec<Asked> {
        self.0.asked.lock().expect("nobody panics with the requests in hand").clone()
    }

    /// What was asked for so far, see [`Asked::question`].
    pub fn questions(&self) -> Vec<String> {
        self.asked().iter().map(Asked::question).collect()
    }

    /// Body bytes that answers to these requests said they had.
    pub fn promised(&self) -> u64 {
        self.asked().iter().map(|asked| asked.part.end - asked.part.start).sum()
    }

    /// Body bytes that sockets took.
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// Waits until so many requests for it have come, held ones too.
    pub async fn arrived(&self, count: u64) {
        until(PATIENCE, &format!("{count} requests for {}", self.target()), || async {
            match self.0.arrived.load(Ordering::Relaxed) {
                arrived if arrived >= count => Ok(()),
                arrived => Err(format!("{arrived} so far")),
            }
        })
        .await;
    }

    /// Waits until no origin has an answer for it under way. Gives the bytes that were written by then.
    pub async fn settled(&self) -> u64 {
        until(PATIENCE, &format!("{} is left alone", self.target()), || async {
            match self.0.under_way.load(Ordering::Relaxed) {
                0 => Ok(self.written()),
                count => Err(format!("{count} answers under way")),
            }
        })
        .await
    }

    /// Waits until no more bytes are written, even if answers are under way. Gives those that were by then.
    pub async fn at_rest(&self) -> u64 {
        let (mut last, mut looks) = (self.written(), 0);
        until(PATIENCE, &format!("{} is at rest", self.target()), || {
            let now = self.written();
            looks = if now == last { looks + 1 } else { 0 };
            last = now;
            let rests = looks >= LOOKS;
            async move { if rests { Ok(now) } else { Err(format!("{now} bytes so far")) } }
        })
        .await
    }

    fn behaviour(&self) -> MutexGuard<'_, Behaviour> {
        self.0.behaviour.lock().expect("nobody panics with the behaviour in hand")
    }
}

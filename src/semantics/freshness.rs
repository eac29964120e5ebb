//! How long a response stays fresh (RFC 9111 section 4.2.1 and 4.2.2).

use super::directives::ResponseDirectives;
use super::fields::Fields;
use super::http_date;
use super::time::{DeltaSeconds, UnixMs};

/// What a freshness lifetime was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeSource {
    /// `s-maxage`.
    SMaxAge,
    /// `max-age`.
    MaxAge,
    /// `Expires` less `Date`.
    Expires,
    /// A tenth of the time since `Last-Modified`.
    Heuristic,
    /// Nothing says; the lifetime is zero.
    None,
}

impl LifetimeSource {
    /// What to call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SMaxAge => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Expires => "expires",
            Self::Heuristic => "heuristic",
            Self::None => "none",
        }
    }

    /// Whether the origin said it in as many words.
    pub const fn is_explicit(self) -> bool {
        matches!(self, Self::SMaxAge | Self::MaxAge | Self::Expires)
    }
}

/// RFC 9111 section 4.2.2 suggests a tenth of the age; a week keeps a page of ten years ago from being a year fresh.
const HEURISTIC_MAX: DeltaSeconds = DeltaSeconds(7 * 24 * 60 * 60);

/// Whether RFC 9110 section 15.1 lets a cache guess a lifetime for this status. 206 is one too, but never stored whole.
pub const fn is_heuristically_cacheable(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// The freshness lifetime of a response that arrived at `response_time`, no longer than a rule of the site allows, and
/// where it comes from.
pub fn lifetime(
    status: u16,
    response: Fields<'_>,
    directives: &ResponseDirectives,
    response_time: UnixMs,
) -> (DeltaSeconds, LifetimeSource) {
    let (lifetime, source) = stated_lifetime(status, response, directives, response_time);
    (directives.lifetime_max.map_or(lifetime, |max| lifetime.min(max)), source)
}

/// The freshness lifetime of a response that arrived at `response_time`, and where it comes from.
///
/// A targeted field speaks for `Expires` too (RFC 9213 section 2.2), but not for the heuristic.
fn stated_lifetime(
    status: u16,
    response: Fields<'_>,
    directives: &ResponseDirectives,
    response_time: UnixMs,
) -> (DeltaSeconds, LifetimeSource) {
    if let Some(s_maxage) = directives.s_maxage {
        return (s_maxage, LifetimeSource::SMaxAge);
    }
    if let Some(max_age) = directives.max_age {
        return (max_age, LifetimeSource::MaxAge);
    }
    // RFC 9110 section 6.6.1: a response without Date, or with one we cannot read, has the date it arrived.
    let date = || response.first("date").and_then(http_date::parse).unwrap_or(response_time);
    if !directives.targeted
        && let Some(expires) = response.first("expires")
    {
        // RFC 9111 section 5.3: an invalid date is one in the past. Of two Expires the first counts (section 4.2.1).
        let seconds = http_date::parse(expires).map_or(0, |at| at.seconds().saturating_sub(date().seconds()));
        return (DeltaSeconds::saturating(seconds), LifetimeSource::Expires);
    }
    if (is_heuristically_cacheable(status) || directives.public)
        && let Some(modified) = response.first("last-modified").and_then(http_date::parse)
    {
        let seconds = date().seconds().saturating_sub(modified.seconds()) / 10;
        return (DeltaSeconds::saturating(seconds).min(HEURISTIC_MAX), LifetimeSource::Heuristic);
    }
    (DeltaSeconds::ZERO, LifetimeSource::None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Sun, 06 Nov 1994 08:49:37 GMT
    const ARRIVED: UnixMs = UnixMs(784_111_777_000);

    #[track_caller]
    fn check(name: &str, status: u16, block: &str, expected: (u32, LifetimeSource)) {
        let fields = Fields::new(block.as_bytes());
        let (seconds, source) = lifetime(status, fields, &ResponseDirectives::parse(fields), ARRIVED);
        assert_eq!((seconds.0, source), expected, "{name}: {status} {block:?}");
    }

    #[test]
    fn lifetimes() {
        use LifetimeSource::{Expires, Heuristic, MaxAge, None, SMaxAge};
        let in_ten = "Expires: Sun, 06 Nov 1994 08:49:47 GMT\r\n";
        let rows = [
            ("4.2.1: s-maxage first", 200, "cache-control: max-age=1, s-maxage=3600\r\n".into(), (3600, SMaxAge)),
            ("4.2.1: shorter or not", 200, "cache-control: max-age=3600, s-maxage=1\r\n".into(), (1, SMaxAge)),
            ("5.3: max-age before Expires", 200, format!("{in_ten}cache-control: max-age=60\r\n"), (60, MaxAge)),
            ("4.2.1: Expires since arrival", 200, in_ten.into(), (10, Expires)),
            (
                "4.2.1: Expires since Date",
                200,
                format!("{in_ten}Date: Sun, 06 Nov 1994 08:49:27 GMT\r\n"),
                (20, Expires),
            ),
            ("4.2.1: Date ahead of us", 200, format!("{in_ten}Date: Sun, 06 Nov 1994 08:49:45 GMT\r\n"), (2, Expires)),
            ("4.2.1: Date past Expires", 200, format!("{in_ten}Date: Sun, 06 Nov 1994 09:49:47 GMT\r\n"), (0, Expires)),
            ("a Date that is none", 200, format!("{in_ten}Date: foo\r\n"), (10, Expires)),
            (
                "5.3: Expires: 0",
                200,
                "Expires: 0\r\nlast-modified: Sun, 06 Nov 1993 08:49:37 GMT\r\n".into(),
                (0, Expires),
            ),
            ("1.2.2: saturates", 200, "Expires: Fri, 31 Dec 9999 23:59:59 GMT\r\n".into(), (2_147_483_647, Expires)),
            ("9213 2.2: targeted, no Expires", 200, format!("{in_ten}cdn-cache-control: foo\r\n"), (0, None)),
            ("4.2.2: a tenth", 200, "last-modified: Sun, 06 Nov 1994 08:32:57 GMT\r\n".into(), (100, Heuristic)),
            (
                "4.2.2: at most a week",
                404,
                "last-modified: Sat, 06 Nov 1993 08:49:37 GMT\r\n".into(),
                (604_800, Heuristic),
            ),
            ("4.2.2: not for 403", 403, "last-modified: Sun, 06 Nov 1994 08:32:57 GMT\r\n".into(), (0, None)),
            (
                "4.2.2: unless public",
                599,
                { "cache-control: public\r\nlast-modified: Sun, 06 Nov 1994 08:32:57 GMT\r\n".into() },
                (100, Heuristic),
            ),
            ("modified in the future", 200, "last-modified: Sun, 06 Nov 1995 08:32:57 GMT\r\n".into(), (0, Heuristic)),
            ("4.2.1: nothing", 200, String::new(), (0, None)),
        ];
        for (name, status, block, expected) in rows {
            check(name, status, &block, expected);
        }
    }

    proptest! {
        #[test]
        fn nothing_lasts_longer_than_it_can(
            status in prop_oneof![Just(200), any::<u16>()],
            dates in prop::array::uniform3(prop::option::of(0..5_000_000_000_000_u64)),
            arrived in 0..5_000_000_000_000_u64,
            rest in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut block = Vec::new();
            for (name, at) in ["date: ", "expires: ", "last-modified: "].iter().zip(dates) {
                let Some(at) = at else { continue };
                block.extend_from_slice(name.as_bytes());
                http_date::write(UnixMs(at), &mut block);
                block.extend_from_slice(b"\r\n");
            }
            block.extend_from_slice(&[b"expires: ", &rest[..], b"\r\nlast-modified: ", &rest[..]].concat());
            let directives = ResponseDirectives::default();
            let (seconds, source) = lifetime(status, Fields::new(&block), &directives, UnixMs(arrived));
            let longest = if source == LifetimeSource::Heuristic { HEURISTIC_MAX } else { DeltaSeconds::MAX };
            prop_assert!(seconds <= longest);
            prop_assert!(source != LifetimeSource::None || seconds == DeltaSeconds::ZERO);
        }
    }
}

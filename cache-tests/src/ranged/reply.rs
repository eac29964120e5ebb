//! What an origin answers about an object: RFC 9110 sections 13 and 14, and what [`Behaviour`] makes of them.

use std::ops::Range;

use super::{Behaviour, ContentRange, IfRange, Ranges, Validator, Wanted};
use crate::http_date::{fill_in, imf_fixdate};
use crate::recorded::Recorded;

/// Says which version a response is of, whatever its validators are.
pub(super) const VERSION: &str = "Version";

/// When the version before the first was made; each is a day younger than the one before.
const MADE: i64 = 1_600_000_000;
const DAY: i64 = 86_400;

const BOUNDARY: &str = "0123456789abcdef";

/// An answer without its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub status: u16,
    pub version: u64,
    /// With the empty line.
    pub head: String,
    /// What the body has around the bytes.
    pub before: String,
    pub after: String,
    /// The bytes of the body.
    pub part: Range<u64>,
}

impl Behaviour {
    /// Answers `request` at `now`.
    pub(super) fn reply(&self, request: &Recorded, now: i64) -> Reply {
        let length = self.length;
        let is_head = request.method == "HEAD";
        if self.is_not_modified(request) {
            return self.finish(304, now, String::new(), 0..0, is_head);
        }
        let wanted = request.field("range").as_deref().and_then(Wanted::of_value);
        let wanted = wanted.filter(|_| !is_head && self.ranges == Ranges::Known && self.holds(request));
        let Some(wanted) = wanted else { return self.finish(200, now, String::new(), 0..length, is_head) };
        let Some(mut part) = wanted.within(length) else {
            let line = format!("Content-Range: bytes */{length}\r\n");
            return self.finish(416, now, line, 0..0, is_head);
        };
        if let Some(most) = self.at_most {
            part.end = part.end.min(part.start + most);
        }
        let (first, last) = (part.start, part.end - 1);
        let range = match self.content_range {
            ContentRange::Right | ContentRange::Multipart => format!("bytes {first}-{last}/{length}"),
            ContentRange::Shifted => format!("bytes {}-{}/{length}", first + 1, last + 1),
            ContentRange::OtherTotal => format!("bytes {first}-{last}/{}", length + 1),
            ContentRange::UnknownTotal => format!("bytes {first}-{last}/*"),
            ContentRange::Unreadable => format!("bytes {first} to {last} of {length}"),
            ContentRange::Missing => return self.finish(206, now, String::new(), part, is_head),
        };
        if self.content_range == ContentRange::Multipart {
            let before = format!("--{BOUNDARY}\r\nContent-Range: {range}\r\n\r\n");
            let line = format!("Content-Type: multipart/byteranges; boundary={BOUNDARY}\r\n");
            return self.finish_around(206, now, line, (before, format!("\r\n--{BOUNDARY}--\r\n")), part, is_head);
        }
        self.finish(206, now, format!("Content-Range: {range}\r\n"), part, is_head)
    }

    fn finish(&self, status: u16, now: i64, line: String, part: Range<u64>, is_head: bool) -> Reply {
        self.finish_around(status, now, line, (String::new(), String::new()), part, is_head)
    }

    fn finish_around(
        &self,
        status: u16,
        now: i64,
        line: String,
        (before, after): (String, String),
        part: Range<u64>,
        is_head: bool,
    ) -> Reply {
        let mut head =
            format!("HTTP/1.1 {status} Of the test\r\nDate: {{now}}\r\n{VERSION}: {}\r\n{line}", self.version);
        if let Some(tag) = self.tag() {
            head += &format!("ETag: {tag}\r\n");
        }
        if let Some(date) = self.date(now) {
            head += &format!("Last-Modified: {date}\r\n");
        }
        if self.ranges == Ranges::Known {
            head += "Accept-Ranges: bytes\r\n";
        }
        self.fields.iter().for_each(|line| head += &format!("{line}\r\n"));
        if status != 304 {
            let length = before.len() as u64 + (part.end - part.start) + after.len() as u64;
            head += &format!("Content-Length: {length}\r\n");
        }
        let head = fill_in(&head, now) + "\r\n";
        let part = if is_head { 0..0 } else { part };
        Reply { status, version: self.version, head, before, after, part }
    }

    fn tag(&self) -> Option<String> {
        match self.validator {
            Validator::TagAndDate | Validator::Tag => Some(format!("\"v{}\"", self.version)),
            Validator::WeakTag => Some(format!("W/\"v{}\"", self.version)),
            Validator::Date | Validator::DateOfNow | Validator::None => None,
        }
    }

    fn date(&self, now: i64) -> Option<String> {
        match self.validator {
            Validator::TagAndDate | Validator::Date => Some(imf_fixdate(MADE + self.version as i64 * DAY)),
            Validator::DateOfNow => Some(imf_fixdate(now)),
            Validator::Tag | Validator::WeakTag | Validator::None => None,
        }
    }

    /// RFC 9110 section 13.2.2, steps 3 and 4. Dates are compared as they are written: nobody makes them up.
    fn is_not_modified(&self, request: &Recorded) -> bool {
        match (request.field("if-none-match"), request.field("if-modified-since")) {
            (Some(tags), _) => {
                let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
                self.tag().is_some_and(|own| tags.split(',').any(|tag| opaque(tag) == opaque(&own)))
            }
            (None, Some(date)) => self.validator != Validator::DateOfNow && self.date(0) == Some(date),
            (None, None) => false,
        }
    }

    /// RFC 9110 section 13.1.5: strong validators alone.
    fn holds(&self, request: &Recorded) -> bool {
        let Some(condition) = request.field("if-range") else { return true };
        if self.if_range == IfRange::Ignored {
            return true;
        }
        match self.validator {
            Validator::TagAndDate => self.tag() == Some(condition.clone()) || self.date(0) == Some(condition),
            Validator::Tag => self.tag() == Some(condition),
            Validator::Date => self.date(0) == Some(condition),
            Validator::WeakTag | Validator::DateOfNow | Validator::None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::Content;
    use super::*;
    use crate::client::request;

    fn reply(behave: impl FnOnce(&mut Behaviour), method: &str, fields: &[&str]) -> Reply {
        let object = Content::default().add_with(10, behave);
        let head = Bytes::from(request(method, &object.target(), fields));
        let behaviour = object.behaviour().clone();
        behaviour.reply(&Recorded::parse(&head, 1), 1_795_500_293)
    }

    #[test]
    fn conditions_and_ranges_are_those_of_rfc_9110() {
        let second = |behaviour: &mut Behaviour| behaviour.version = 2;
        let date = format!("If-Range: {}", imf_fixdate(MADE + 2 * DAY));
        let range = "Range: bytes=2-4";
        for (name, method, fields, status, part) in [
            ("plain", "GET", &[][..], 200, 0..10),
            ("HEAD", "HEAD", &[range], 200, 0..0),
            ("a range", "GET", &[range], 206, 2..5),
            ("the tag", "GET", &[range, "If-Range: \"v2\""], 206, 2..5),
            ("another tag", "GET", &[range, "If-Range: \"v1\""], 200, 0..10),
            ("a weak tag", "GET", &[range, "If-Range: W/\"v2\""], 200, 0..10),
            ("the date", "GET", &[range, &date], 206, 2..5),
            ("none match", "GET", &[range, "If-None-Match: \"v1\", W/\"v2\""], 304, 0..0),
            ("some match", "GET", &[range, "If-None-Match: \"v1\""], 206, 2..5),
            ("beyond", "GET", &["Range: bytes=10-"], 416, 0..0),
            ("several", "GET", &["Range: bytes=1-2,4-5"], 200, 0..10),
        ] {
            let reply = reply(second, method, fields);
            assert_eq!((reply.status, reply.part), (status, part), "{name}: {}", reply.head);
        }
    }

    #[test]
    fn bad_manners_are_as_they_are_said() {
        let range = |content_range| {
            let reply = reply(|behaviour| behaviour.content_range = content_range, "GET", &["Range: bytes=2-4"]);
            assert_eq!((reply.status, reply.part), (206, 2..5));
            let line = reply.head.lines().find_map(|line| line.strip_prefix("Content-Range: ").map(str::to_owned));
            line.unwrap_or_else(|| reply.before.lines().nth(1).unwrap_or_default().to_owned())
        };
        assert_eq!(range(ContentRange::Right), "bytes 2-4/10");
        assert_eq!(range(ContentRange::Shifted), "bytes 3-5/10");
        assert_eq!(range(ContentRange::OtherTotal), "bytes 2-4/11");
        assert_eq!(range(ContentRange::UnknownTotal), "bytes 2-4/*");
        assert_eq!(range(ContentRange::Missing), "");
        assert_eq!(range(ContentRange::Multipart), "Content-Range: bytes 2-4/10");
        let fields = ["Range: bytes=2-4", "If-Range: \"v0\""];
        assert_eq!(reply(|behaviour| behaviour.if_range = IfRange::Ignored, "GET", &fields).status, 206);
        assert_eq!(reply(|behaviour| behaviour.ranges = Ranges::Unknown, "GET", &fields[..1]).status, 200);
        assert_eq!(reply(|behaviour| behaviour.at_most = Some(2), "GET", &fields[..1]).part, 2..4);
    }
}

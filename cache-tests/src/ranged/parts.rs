//! Answers with several parts (RFC 9110 section 15.3.7.2).

use std::ops::Range;

use super::{Ranged, version_of};
use crate::response::{End, Response};
use crate::table::{same, that};

impl Ranged {
    /// The whole, or exactly these parts of it, in this order.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub fn check_parts(&self, response: &Response, parts: &[Range<u64>]) -> Result<(), String> {
        same("the end", response.end.clone(), End::Whole)?;
        let of = self.at(version_of(&response.head)?)?;
        if response.status == 200 {
            same("the length", response.body.len() as u64, of.length)?;
            return of.check(0, &response.body);
        }
        same("the status", response.status, 206)?;
        let kind = response.field("content-type").unwrap_or_default();
        let boundary = kind.strip_prefix("multipart/byteranges; boundary=").ok_or(format!("content type {kind}"))?;
        let (mut rest, mark) = (&response.body[..], format!("\r\n--{boundary}"));
        for part in parts {
            rest = rest.strip_prefix(mark.as_bytes()).ok_or_else(|| format!("no boundary before {part:?}"))?;
            let end = rest.windows(4).position(|window| window == b"\r\n\r\n").ok_or("no head of a part")?;
            let head = String::from_utf8_lossy(&rest[..end]).to_ascii_lowercase();
            let range = format!("content-range: bytes {}-{}/{}", part.start, part.end - 1, of.length);
            that(head.lines().any(|line| line == range), || format!("{head:?} and not {range}"))?;
            let count = usize::try_from(part.end - part.start).map_err(|error| error.to_string())?;
            let bytes = rest.get(end + 4..end + 4 + count).ok_or_else(|| format!("{part:?} breaks off"))?;
            of.check(part.start, bytes)?;
            rest = &rest[end + 4 + count..];
        }
        let last = String::from_utf8_lossy(rest);
        that(last == format!("{mark}--\r\n"), || format!("{} bytes after the last part", rest.len()))
    }
}

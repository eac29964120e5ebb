//! Validators and conditional requests (RFC 9110 sections 8.8 and 13, RFC 9111 section 4.3).

use super::fields::{Fields, same_name};
use super::hop_by_hop::end_to_end;
use super::http_date;
use super::time::UnixMs;

/// The validators of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validators<'a> {
    /// The entity tag as it was sent, not empty.
    pub etag: Option<&'a [u8]>,
    /// `Last-Modified` as it was sent, a valid date.
    pub last_modified: Option<&'a [u8]>,
}

impl Validators<'_> {
    /// Whether there is anything to validate with.
    pub const fn exist(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }
}

/// The validators of a response.
pub fn validators(response: Fields<'_>) -> Validators<'_> {
    Validators {
        etag: response.first("etag").filter(|etag| !etag.is_empty()),
        last_modified: response.first("last-modified").filter(|date| http_date::parse(date).is_some()),
    }
}

/// Strong comparison (RFC 9110 section 8.8.3.2): both strong, and the same byte for byte. Nothing is forgiven here,
/// for parts of two representations are put together on its word.
pub fn strong_eq(left: &[u8], right: &[u8]) -> bool {
    left == right && left.len() >= 2 && left.starts_with(b"\"") && left.ends_with(b"\"")
}

/// `Last-Modified` as it was sent, if it is a strong validator: at least a second older than the response's `Date`
/// (RFC 9110 section 8.8.2.2), so that the representation cannot have changed again within that second.
pub(super) fn strong_date(response: Fields<'_>) -> Option<&[u8]> {
    let modified = response.only("last-modified")?;
    let made = response.only("date").and_then(http_date::parse)?;
    (made > http_date::parse(modified)?).then_some(modified)
}

/// What to send in `If-Range` to get more of a response: its strong entity tag; where it has no entity tag, its
/// `Last-Modified` if that is strong.
///
/// RFC 9110 section 13.1.5: a date only where there is no entity tag. A weak one, one that is not well-formed or two of
/// them say that nobody may rely on the bytes.
pub fn strong_validator(response: Fields<'_>) -> Option<&[u8]> {
    if response.contains("etag") {
        return response.only("etag").filter(|etag| strong_eq(etag, etag));
    }
    strong_date(response)
}

/// Whether bytes of a newer response may stand beside those of the stored one (RFC 9111 section 3.4, RFC 9110 section
/// 15.3.7.3): it has the very validator that is the stored one's strong one.
///
/// Whether the newer one's date were strong by its own `Date` does not matter: that is younger, not the representation.
///
/// A 206 to `If-Range` may leave out fields of the representation (RFC 9110 section 15.3.7), its coding among them. We
/// want to see that all the same: origins send what they have compressed under the entity tag of what they have not.
pub fn same_strongly(stored: Fields<'_>, newer: Fields<'_>) -> bool {
    if !same_coding(stored, newer) {
        return false;
    }
    let Some(validator) = strong_validator(stored) else { return false };
    if stored.contains("etag") {
        newer.only("etag") == Some(validator)
    } else {
        !newer.contains("etag") && newer.only("last-modified") == Some(validator)
    }
}

fn same_coding(left: Fields<'_>, right: Fields<'_>) -> bool {
    let codings = |fields: Fields<'_>| -> Vec<Vec<u8>> {
        fields.members("content-encoding").map(<[u8]>::to_ascii_lowercase).collect()
    };
    codings(left) == codings(right)
}

/// Weak comparison (RFC 9110 section 8.8.3.2): the same opaque tag, weak or not.
///
/// Missing quotes and a lower-case `w/` are forgiven: the client wrote down what some origin really sent.
pub fn weak_eq(left: &[u8], right: &[u8]) -> bool {
    opaque(left) == opaque(right)
}

fn opaque(tag: &[u8]) -> &[u8] {
    let tag = tag.strip_prefix(b"W/").or_else(|| tag.strip_prefix(b"w/")).unwrap_or(tag);
    tag.strip_prefix(b"\"").and_then(|tag| tag.strip_suffix(b"\"")).unwrap_or(tag)
}

/// What a conditional request makes of a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Answer as if there were no condition.
    Proceed,
    /// Answer 304.
    NotModified,
    /// `If-Match` or `If-Unmodified-Since` does not hold of the stored response.
    ///
    /// Forward the request rather than answering 412: these fields speak to the origin (RFC 9111 section 4.3.2), whose
    /// current representation may be the one that was meant.
    Failed,
}

/// Evaluates the conditions of a GET or HEAD request in the order of RFC 9110 section 13.2.2.
///
/// `response_time` is when the stored response arrived: RFC 9111 section 4.3.2 compares `If-Modified-Since` with it
/// where there is neither `Last-Modified` nor `Date`. Section 13.2.1: conditions mean nothing unless the answer
/// without them were a success.
pub fn precondition(request: Fields<'_>, status: u16, stored: Fields<'_>, response_time: UnixMs) -> Precondition {
    if !matches!(status, 200..=299) {
        return Precondition::Proceed;
    }
    let etag = validators(stored).etag;
    let modified = || stored.first("last-modified").and_then(http_date::parse);
    let lists = |name, equal: fn(&[u8], &[u8]) -> bool| {
        request.members(name).any(|tag| tag == b"*" || etag.is_some_and(|etag| equal(tag, etag)))
    };
    // RFC 9110 section 13.1.3: a field that is not one valid date is ignored.
    let date = |name| request.only(name).and_then(http_date::parse);

    if request.contains("if-match") {
        if !lists("if-match", strong_eq) {
            return Precondition::Failed;
        }
    } else if let Some(since) = date("if-unmodified-since")
        && modified().is_some_and(|modified| modified > since)
    {
        return Precondition::Failed;
    }
    if request.contains("if-none-match") {
        return if lists("if-none-match", weak_eq) { Precondition::NotModified } else { Precondition::Proceed };
    }
    if let Some(since) = date("if-modified-since") {
        let changed = modified().or_else(|| stored.first("date").and_then(http_date::parse)).unwrap_or(response_time);
        if changed.seconds() <= since.seconds() {
            return Precondition::NotModified;
        }
    }
    Precondition::Proceed
}

/// Whether an answer to HEAD is about the representation that is stored (RFC 9111 section 4.3.5): each validator that
/// it has is the one that is stored.
pub fn same_representation(stored: Fields<'_>, newer: Fields<'_>) -> bool {
    let (known, said) = (validators(stored), validators(newer));
    let etag = said.etag.is_none_or(|etag| known.etag.is_some_and(|known| weak_eq(known, etag)));
    etag && said.last_modified.is_none_or(|modified| known.last_modified == Some(modified))
}

/// Appends the conditions with which we validate a stored response ourselves (RFC 9111 section 4.3.1).
pub fn write_conditionals(stored: Fields<'_>, out: &mut Vec<u8>) {
    let Validators { etag, last_modified } = validators(stored);
    for (name, validator) in [(&b"if-none-match: "[..], etag), (b"if-modified-since: ", last_modified)] {
        if let Some(validator) = validator {
            out.extend_from_slice(name);
            out.extend_from_slice(validator);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends the stored response's fields as a 304 freshens them (RFC 9111 sections 3.2 and 4.3.4): every field of the
/// 304 replaces the stored ones of its name, except those that describe the stored body or chose it.
///
/// `Date` and `Age` tell when the 304 was made, so stored ones do not outlive it; without a `Date` it was made when
/// it arrived, at `response_time` (RFC 9110 section 6.6.1).
pub fn freshen(stored: Fields<'_>, not_modified: Fields<'_>, response_time: UnixMs, out: &mut Vec<u8>) {
    let updates = || end_to_end(not_modified).filter(|line| !is_bound_to_body(line.name));
    for line in stored.lines() {
        let is_replaced =
            line.is("date") || line.is("age") || updates().any(|update| same_name(update.name, line.name));
        if !is_replaced {
            line.write(out);
        }
    }
    if !not_modified.contains("date") {
        out.extend_from_slice(b"date: ");
        http_date::write(response_time, out);
        out.extend_from_slice(b"\r\n");
    }
    updates().for_each(|line| line.write(out));
}

/// Fields that a 304 must not change: they describe the bytes we hold, identify them, or say what they were selected
/// by. A digest of content (RFC 9530) in a 304 is that of no content at all.
fn is_bound_to_body(name: &[u8]) -> bool {
    const BOUND: [&str; 9] = [
        "content-digest",
        "content-encoding",
        "content-length",
        "content-md5",
        "content-range",
        "digest",
        "etag",
        "repr-digest",
        "vary",
    ];
    BOUND.iter().any(|bound| same_name(name, bound.as_bytes()))
}

/// Whether a field of the stored response goes into a 304 that we make (RFC 9110 section 15.4.5).
///
/// Beyond the RFC's list: `Age`, which a cache owes every answer; `Last-Modified`, which helps where there is no
/// entity tag; `CDN-Cache-Control` for a cache downstream; and CORS fields, which browsers check on a 304 too.
pub fn not_modified_fields(name: &[u8]) -> bool {
    const KEPT: [&str; 9] = [
        "age",
        "cache-control",
        "cdn-cache-control",
        "content-location",
        "date",
        "etag",
        "expires",
        "last-modified",
        "vary",
    ];
    const CORS: &[u8] = b"access-control-";
    KEPT.iter().any(|kept| same_name(name, kept.as_bytes()))
        || name.get(..CORS.len()).is_some_and(|start| same_name(start, CORS))
}

#[cfg(test)]
mod strong;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ARRIVED: UnixMs = UnixMs(784_111_777_500);
    const ETAG: &str = "ETag: \"a\"\r\n";
    const MODIFIED: &str = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    #[track_caller]
    fn check(name: &str, request: &str, status: u16, stored: &str, expected: Precondition) {
        let (request, stored) = (Fields::new(request.as_bytes()), Fields::new(stored.as_bytes()));
        assert_eq!(precondition(request, status, stored, ARRIVED), expected, "{name}: {request:?} {stored:?}");
    }

    #[test]
    fn preconditions() {
        use Precondition::{Failed, NotModified, Proceed};
        let same = "if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        let earlier = "if-modified-since: Sun, 06 Nov 1994 08:49:36 GMT\r\n";
        let rows = [
            ("13.1: none", "", 200, ETAG, Proceed),
            ("13.1.2: matches", "if-none-match: \"a\"\r\n", 200, ETAG, NotModified),
            ("13.1.2: one of many", "if-none-match: \"b\"\r\nif-none-match: \"c,\", \"a\"\r\n", 200, ETAG, NotModified),
            ("13.1.2: weakly", "if-none-match: W/\"a\"\r\n", 200, ETAG, NotModified),
            ("13.1.2: other", "if-none-match: \"b\"\r\n", 200, ETAG, Proceed),
            ("13.1.2: any", "if-none-match: *\r\n", 200, "", NotModified),
            ("13.1.2: no tag stored", "if-none-match: \"a\"\r\n", 200, "", Proceed),
            ("13.2.1: not of an error", "if-none-match: \"a\"\r\n", 404, ETAG, Proceed),
            ("obs-text", "if-none-match: \"\u{fc}\"\r\n", 200, "etag: \"\u{fc}\"\r\n", NotModified),
            ("unquoted request", "if-none-match: a\r\n", 200, ETAG, NotModified),
            ("unquoted response", "if-none-match: \"a\"\r\n", 200, "etag: a\r\n", NotModified),
            ("lower-case weakness", "if-none-match: w/\"a\"\r\n", 200, ETAG, NotModified),
            ("odd weakness", "if-none-match: W\\\"a\"\r\n", 200, "etag: W\\\"a\"\r\n", NotModified),
            ("13.1.3: same", same, 200, MODIFIED, NotModified),
            ("13.1.3: modified later", earlier, 200, MODIFIED, Proceed),
            ("13.1.3: RFC 850", "if-modified-since: Sunday, 06-Nov-94 08:49:37 GMT\r\n", 200, MODIFIED, NotModified),
            ("13.1.3: not a date", "if-modified-since: yesterday\r\n", 200, MODIFIED, Proceed),
            ("13.1.3: two dates", &format!("{same}{same}"), 200, MODIFIED, Proceed),
            ("13.1.3: beside If-None-Match", &format!("{same}if-none-match: \"b\"\r\n"), 200, MODIFIED, Proceed),
            ("9111 4.3.2: Date", earlier, 200, "date: Sun, 06 Nov 1994 08:00:00 GMT\r\n", NotModified),
            ("9111 4.3.2: arrival", same, 200, "", NotModified),
            ("9111 4.3.2: before arrival", earlier, 200, "", Proceed),
            ("13.1.1: matches", "if-match: \"a\"\r\n", 200, ETAG, Proceed),
            ("13.1.1: any", "if-match: *\r\n", 200, "", Proceed),
            ("13.1.1: not weakly", "if-match: W/\"a\"\r\n", 200, "etag: W/\"a\"\r\n", Failed),
            ("13.2.2: If-Match first", "if-match: \"b\"\r\nif-none-match: \"a\"\r\n", 200, ETAG, Failed),
            ("13.1.4", "if-unmodified-since: Sun, 06 Nov 1994 08:49:36 GMT\r\n", 200, MODIFIED, Failed),
            ("13.1.4: holds", "if-unmodified-since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 200, MODIFIED, Proceed),
            (
                "13.2.2: not beside If-Match",
                { "if-match: *\r\nif-unmodified-since: Sun, 06 Nov 1994 08:49:36 GMT\r\n" },
                200,
                MODIFIED,
                Proceed,
            ),
        ];
        for (name, request, status, stored, expected) in rows {
            check(name, request, status, stored, expected);
        }
    }

    #[test]
    fn comparison_of_entity_tags() {
        // RFC 9110 section 8.8.3.2, its table.
        let rows = [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
            ("1", "1", false, true),
            ("\"", "\"", false, true),
        ];
        for (left, right, strong, weak) in rows {
            assert_eq!(strong_eq(left.as_bytes(), right.as_bytes()), strong, "{left} {right}");
            assert_eq!(weak_eq(left.as_bytes(), right.as_bytes()), weak, "{left} {right}");
        }
    }

    #[track_caller]
    fn check_text(name: &str, expected: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected, "{name}");
    }

    #[test]
    fn our_own_conditions() {
        let rows = [
            ("4.3.1: both", format!("{ETAG}{MODIFIED}"), {
                "if-none-match: \"a\"\r\nif-modified-since: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
            }),
            ("nothing to say", "etag:\r\nlast-modified: yesterday\r\n".into(), ""),
        ];
        for (name, stored, expected) in rows {
            check_text(name, expected, |out| write_conditionals(Fields::new(stored.as_bytes()), out));
        }
    }

    #[test]
    fn freshening() {
        let rows = [
            (
                "3.2: fields are replaced",
                "a: 1\r\nb: 1\r\na: 2\r\n",
                "A: 3\r\nDate: x\r\n",
                "b: 1\r\nA: 3\r\nDate: x\r\n",
            ),
            (
                "3.2: the body's are not",
                { "ETag: \"a\"\r\nContent-Length: 5\r\nContent-Encoding: br\r\nDate: y\r\n" },
                "ETag: \"b\"\r\nContent-Length: 0\r\nContent-Encoding: gzip\r\nContent-MD5: x\r\nDate: x\r\n",
                { "ETag: \"a\"\r\nContent-Length: 5\r\nContent-Encoding: br\r\nDate: x\r\n" },
            ),
            (
                "3.2: Content-Type is",
                "Content-Type: a/b\r\n",
                "content-type: c/d\r\ndate: x\r\n",
                "content-type: c/d\r\ndate: x\r\n",
            ),
            (
                "3.1: hop-by-hop is left out",
                "a: 1\r\n",
                "Connection: a\r\na: 2\r\nKeep-Alive: x\r\nDate: x\r\n",
                "a: 1\r\nDate: x\r\n",
            ),
            ("4.2.3: age begins anew", "Age: 60\r\nDate: y\r\n", "b: 1\r\n", {
                "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nb: 1\r\n"
            }),
        ];
        for (name, stored, not_modified, expected) in rows {
            check_text(name, expected, |out| {
                freshen(Fields::new(stored.as_bytes()), Fields::new(not_modified.as_bytes()), ARRIVED, out);
            });
        }
    }

    #[test]
    fn fields_of_a_304() {
        assert!(
            ["ETag", "Vary", "Date", "Age", "Access-Control-Allow-Origin"]
                .iter()
                .all(|name| not_modified_fields(name.as_bytes()))
        );
        assert!(
            !["Content-Type", "Content-Length", "Set-Cookie", "access-contro"]
                .iter()
                .any(|name| not_modified_fields(name.as_bytes()))
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(value in prop::collection::vec(any::<u8>(), 0..60), stored in prop::collection::vec(any::<u8>(), 0..60)) {
            for name in ["if-match: ", "if-none-match: ", "if-modified-since: "] {
                let block = [name.as_bytes(), &value].concat();
                let stored = [b"etag: ", &stored[..]].concat();
                precondition(Fields::new(&block), 200, Fields::new(&stored), ARRIVED);
                freshen(Fields::new(&stored), Fields::new(&block), ARRIVED, &mut Vec::new());
            }
        }
    }
}

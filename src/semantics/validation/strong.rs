//! Tests: when parts of two responses may be put together.

use super::*;

const ETAG: &str = "ETag: \"a\"\r\n";
const MODIFIED: &str = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

#[test]
fn strong_validators() {
    let date = "Date: Sun, 06 Nov 1994 08:49:38 GMT\r\n";
    let modified = Some("Sun, 06 Nov 1994 08:49:37 GMT");
    let rows = [
        ("8.8.3: a strong tag", ETAG.into(), Some("\"a\"")),
        ("8.8.3: an empty one", "etag: \"\"\r\n".into(), Some("\"\"")),
        ("8.8.3: a weak tag", "etag: W/\"a\"\r\n".into(), None),
        ("8.8.3: not quoted", "etag: a\r\n".into(), None),
        ("8.8.3: half quoted", "etag: \"\r\n".into(), None),
        ("8.8.3: two tags", ETAG.repeat(2), None),
        ("8.8.2.2: a second older", format!("{MODIFIED}{date}"), modified),
        ("8.8.2.2: the same second", format!("{MODIFIED}{}", date.replace("38", "37")), None),
        ("8.8.2.2: younger", format!("{MODIFIED}{}", date.replace("38", "36")), None),
        ("8.8.2.2: no Date", MODIFIED.into(), None),
        ("8.8.2.2: two dates", format!("{MODIFIED}{MODIFIED}{date}"), None),
        ("8.8.2.2: no date", format!("last-modified: yesterday\r\n{date}"), None),
        ("as it was sent", format!("last-modified: Sunday, 06-Nov-94 08:49:37 GMT\r\n{date}"), {
            Some("Sunday, 06-Nov-94 08:49:37 GMT")
        }),
        ("13.1.5: the tag first", format!("{MODIFIED}{date}{ETAG}"), Some("\"a\"")),
        ("13.1.5: no date beside a weak tag", format!("{MODIFIED}{date}etag: W/\"a\"\r\n"), None),
        ("13.1.5: nor beside none", format!("{MODIFIED}{date}etag:\r\n"), None),
        ("nothing", String::new(), None),
    ];
    for (name, stored, expected) in rows {
        assert_eq!(strong_validator(Fields::new(stored.as_bytes())), expected.map(str::as_bytes), "{name}");
    }
}

#[test]
fn combining() {
    let dated = &format!("{MODIFIED}Date: Sun, 06 Nov 1994 08:49:38 GMT\r\n");
    let rows = [
        ("15.3.7.3: the tag", ETAG, ETAG, true),
        ("15.3.7.3: the tag, whatever else", dated, &format!("{MODIFIED}{ETAG}"), false),
        ("15.3.7.3: another tag", ETAG, "etag: \"b\"\r\n", false),
        ("15.3.7.3: no tag", ETAG, "", false),
        ("15.3.7.3: a date for a tag", &format!("{dated}{ETAG}"), dated, false),
        ("15.3.7.3: another date beside the tag", &format!("{dated}{ETAG}"), ETAG, true),
        ("15.3.7.3: two tags", ETAG, &ETAG.repeat(2), false),
        ("8.8.3.2: weak by now", ETAG, "etag: W/\"a\"\r\n", false),
        ("8.8.3.2: weak on both sides", "etag: W/\"a\"\r\n", "etag: W/\"a\"\r\n", false),
        ("8.8.2.2: the date", dated, dated, true),
        ("8.8.2.2: the date, without Date", dated, MODIFIED, true),
        ("8.8.2.2: another date", dated, &dated.replace("37", "36"), false),
        ("8.8.2.2: a weak date", MODIFIED, MODIFIED, false),
        ("nothing is nothing's equal", "", "", false),
    ];
    for (name, stored, newer, expected) in rows {
        let found = same_strongly(Fields::new(stored.as_bytes()), Fields::new(newer.as_bytes()));
        assert_eq!(found, expected, "{name}");
    }
}

use proptest::prelude::*;

use super::*;

const NONE: ResponseDirectives = ResponseDirectives {
    lifetime_max: None,
    stale_by_rule: false,
    targeted: false,
    no_store: false,
    no_cache: false,
    no_cache_fields: false,
    private: false,
    public: false,
    must_revalidate: false,
    proxy_revalidate: false,
    must_understand: false,
    immutable: false,
    s_maxage: None,
    max_age: None,
    stale_while_revalidate: None,
    stale_if_error: None,
};

#[track_caller]
fn check(name: &str, block: &str, expected: ResponseDirectives) {
    assert_eq!(ResponseDirectives::parse(Fields::new(block.as_bytes())), expected, "{name}: {block:?}");
}

fn max_age(seconds: u32) -> ResponseDirectives {
    ResponseDirectives { max_age: Some(DeltaSeconds(seconds)), ..NONE }
}

#[test]
fn cache_control() {
    let no_store = ResponseDirectives { no_store: true, ..NONE };
    let rows = [
        ("nothing", "", NONE),
        ("9111 5.2: names fold case", "Cache-Control: MaX-aGe=60\r\n", max_age(60)),
        ("9111 5.2: a quoted value", "cache-control: max-age=\"60\"\r\n", max_age(60)),
        ("9111 5.2.3: extensions are ignored", "cache-control: foobar, max-age=60, x=\"max-age=9\"\r\n", max_age(60)),
        ("9111 1.2.2: saturates", "cache-control: max-age=99999999999\r\n", max_age(2_147_483_647)),
        ("9111 4.2.1: the first of two", "cache-control: max-age=1, max-age=1800\r\n", max_age(1)),
        ("9111 4.2.1: on two lines", "cache-control: max-age=60\r\ncache-control: max-age=1\r\n", max_age(60)),
        ("9111 4.2.1: an invalid value is stale", "cache-control: max-age=60.5\r\n", max_age(0)),
        ("9111 4.2.1: so is a negative one", "cache-control: max-age=-60\r\n", max_age(0)),
        ("9111 4.2.1: so is none", "cache-control: max-age\r\n", max_age(0)),
        ("9111 4.2.1: so are single quotes", "cache-control: max-age='60'\r\n", max_age(0)),
        ("9111 4.2.1: so is a space behind the sign", "cache-control: max-age= 60\r\n", max_age(0)),
        ("a space before it: unknown", "cache-control: max-age =60\r\n", NONE),
        ("9111 5.2.2.5: whatever its argument", "cache-control: nO-StOrE=x\r\n", no_store),
        ("an open quote hides nothing", "cache-control: x=\"a, no-store\r\n", no_store),
        ("9111 5.2.2.4: no-cache", "cache-control: no-cache\r\n", ResponseDirectives { no_cache: true, ..NONE }),
        ("9111 5.2.2.4: with names", "cache-control: no-cache=\"a, b\"\r\n", {
            ResponseDirectives { no_cache_fields: true, ..NONE }
        }),
        ("9111 5.2.2.4: with none after all", "cache-control: no-cache=\" \"\r\n", {
            ResponseDirectives { no_cache: true, ..NONE }
        }),
        ("9111 5.2.2.4: with a parameter alone", "cache-control: no-cache=;a\r\n", {
            ResponseDirectives { no_cache: true, ..NONE }
        }),
        ("9111 5.2.2.7: private either way", "cache-control: private=\"a\"\r\n", {
            ResponseDirectives { private: true, ..NONE }
        }),
        ("a public that is none", "cache-control: public=no\r\n", NONE),
        (
            "everything",
            "cache-control: public, must-revalidate, proxy-revalidate, must-understand, immutable\r\n\
          cache-control: s-maxage=1, stale-while-revalidate=2, stale-if-error=3\r\n",
            {
                ResponseDirectives {
                    public: true,
                    must_revalidate: true,
                    proxy_revalidate: true,
                    must_understand: true,
                    immutable: true,
                    s_maxage: Some(DeltaSeconds(1)),
                    stale_while_revalidate: Some(DeltaSeconds(2)),
                    stale_if_error: Some(DeltaSeconds(3)),
                    ..NONE
                }
            },
        ),
        ("9111 5.4: Pragma says nothing in a response", "pragma: no-cache\r\n", NONE),
    ];
    for (name, block, expected) in rows {
        check(name, block, expected);
    }
}

#[test]
fn cdn_cache_control() {
    let targeted = |directives: ResponseDirectives| ResponseDirectives { targeted: true, ..directives };
    let no_store = ResponseDirectives { no_store: true, ..NONE };
    let rows = [
        (
            "9213 2.2: it speaks alone",
            "cdn-cache-control: max-age=60\r\ncache-control: no-store\r\n",
            targeted(max_age(60)),
        ),
        ("9213 2.1: no-store", "cache-control: max-age=9\r\ncdn-cache-control: no-store\r\n", targeted(no_store)),
        ("9213 2.1: extensions", "cdn-cache-control: foobar, max-age=60;x=1\r\n", targeted(max_age(60))),
        ("9213 2.1: unknown alone", "cdn-cache-control: foo\r\ncache-control: no-store\r\n", targeted(NONE)),
        (
            "8941 4.2: lines join",
            "cdn-cache-control: max-age=1\r\ncdn-cache-control: max-age=60\r\n",
            targeted(max_age(60)),
        ),
        ("9213 2.1: negative is stale", "cdn-cache-control: max-age=-1\r\n", targeted(max_age(0))),
        ("9213 2.1: saturates", "cdn-cache-control: max-age=99999999999\r\n", targeted(max_age(2_147_483_647))),
        ("8941: false is absent", "cdn-cache-control: no-store=?0, max-age=1\r\n", targeted(max_age(1))),
        ("9213 2.1: names of fields", "cdn-cache-control: no-cache=\"a\";x\r\n", {
            targeted(ResponseDirectives { no_cache_fields: true, ..NONE })
        }),
        ("9213 2.1: empty is absent", "cdn-cache-control:\r\ncache-control: no-store\r\n", no_store),
        ("9213 2.1: unknown type", "cdn-cache-control: max-age=60, &&&&&\r\ncache-control: no-store\r\n", no_store),
        ("9213 2.1: wrong type", "cdn-cache-control: max-age=\"60\"\r\ncache-control: no-store\r\n", no_store),
        ("9213 2.1: wrong type of a switch", "cdn-cache-control: public=1\r\ncache-control: no-store\r\n", no_store),
        ("9213 2.1: upper case", "cdn-cache-control: MaX-aGe=60\r\ncache-control: no-store\r\n", no_store),
        ("9213 2.1: a space", "cdn-cache-control: max-age =60\r\ncache-control: no-store\r\n", no_store),
    ];
    for (name, block, expected) in rows {
        check(name, block, expected);
    }
}

#[test]
fn fields_named_by_no_cache() {
    let names = |block: &str| {
        let fields = Fields::new(block.as_bytes());
        let directives = ResponseDirectives::parse(fields);
        no_cache_field_names(fields, &directives)
            .iter()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("cache-control: no-cache=\"a, b\", max-age=1\r\ncache-control: No-Cache=c\r\n"), ["a", "b", "c"]);
    assert_eq!(names("cdn-cache-control: no-cache=\"a,b\";x=1\r\ncache-control: no-cache=c\r\n"), ["a", "b"]);
    // Lines are joined first, so a quoted string may begin on one and end on the next.
    assert_eq!(names("cdn-cache-control: no-cache=\"a\r\ncdn-cache-control: b\"\r\n"), ["a", "b"]);
    assert_eq!(names("cdn-cache-control: x=\"a\r\ncdn-cache-control: b\", no-cache=\"c\"\r\n"), ["c"]);
    assert_eq!(names("cache-control: no-cache=\"a\";x=1\r\n"), ["a"]);
    assert!(names("cache-control: no-cache, private=\"a\"\r\n").is_empty());
}

#[track_caller]
fn check_request(name: &str, block: &str, expected: RequestDirectives) {
    assert_eq!(RequestDirectives::parse(Fields::new(block.as_bytes())), expected, "{name}: {block:?}");
}

#[test]
fn request_directives() {
    const NONE: RequestDirectives = RequestDirectives::NONE;
    let no_cache = RequestDirectives { no_cache: true, ..NONE };
    let rows = [
        ("nothing", "accept: */*\r\n", NONE),
        ("9111 5.2.1.4", "Cache-Control: No-Cache\r\n", no_cache),
        ("9111 5.4: Pragma alone", "Pragma: x, no-cache\r\n", no_cache),
        ("9111 5.4: Pragma beside", "Pragma: no-cache\r\ncache-control: max-age=5\r\n", {
            RequestDirectives { max_age: Some(DeltaSeconds(5)), ..NONE }
        }),
        ("9111 5.2.1.2: any", "cache-control: max-stale\r\n", {
            RequestDirectives { max_stale: Some(MaxStale::Any), ..NONE }
        }),
        ("9111 5.2.1.2: some", "cache-control: max-stale=\"7\"\r\n", {
            RequestDirectives { max_stale: Some(MaxStale::Within(DeltaSeconds(7))), ..NONE }
        }),
        ("not seconds: ignored", "cache-control: max-stale=x, max-age=-1, min-fresh\r\n", NONE),
        ("the others", "cache-control: no-store, only-if-cached, min-fresh=3\r\n", {
            RequestDirectives { no_store: true, only_if_cached: true, min_fresh: Some(DeltaSeconds(3)), ..NONE }
        }),
    ];
    for (name, block, expected) in rows {
        check_request(name, block, expected);
    }
}

/// Lines whose quotes are closed; RFC 9110 section 5.3 promises nothing about others.
fn lines() -> impl Strategy<Value = Vec<String>> {
    let directive = prop_oneof![
        "(no-store|no-cache|private|public|must-revalidate|immutable|must-understand|x|A)",
        "(max-age|s-maxage|stale-if-error|stale-while-revalidate|x)=\"?[0-9a]{1,3}\"?"
            .prop_filter("quotes", |text| { text.matches('"').count() != 1 }),
        "(no-cache|private|x)=\"[a-z, ]{0,5}\"",
    ];
    let line = prop::collection::vec(directive, 1..4).prop_map(|directives| directives.join(", "));
    prop::collection::vec(line, 1..4)
}

/// Lines of a request, likewise.
fn request_lines() -> impl Strategy<Value = Vec<String>> {
    let directive = prop_oneof![
        "(no-store|No-Cache|only-if-cached|max-stale|x)",
        "(max-age|min-fresh|max-stale|x)=([0-9a]{1,3}|\"[0-9a, ]{0,3}\")",
        "x=\"[a-z, ]{0,5}(no-store|max-age=1)\"",
    ];
    let line = prop::collection::vec(directive, 0..4).prop_map(|directives| directives.join(", "));
    prop::collection::vec(line, 1..4)
}

proptest! {
    #[test]
    fn lines_of_a_request_say_what_they_say_joined(
        cache_control in request_lines(),
        pragma in request_lines(),
        has_cache_control in any::<bool>(),
    ) {
        let cache_control = if has_cache_control { cache_control } else { vec![] };
        let apart = |field: &str, lines: &[String]| -> String {
            lines.iter().map(|line| format!("{field}: {line}\r\n")).collect()
        };
        let joined = |field: &str, lines: &[String]| {
            if lines.is_empty() { String::new() } else { format!("{field}: {}\r\n", lines.join(", ")) }
        };
        let block = [apart("pragma", &pragma), apart("cache-control", &cache_control)].concat();
        let same = [joined("cache-control", &cache_control), joined("pragma", &pragma)].concat();
        prop_assert_eq!(
            RequestDirectives::parse(Fields::new(block.as_bytes())),
            RequestDirectives::parse(Fields::new(same.as_bytes())),
        );
    }

    #[test]
    fn lines_say_what_they_say_joined(
        lines in lines(),
        field in prop_oneof![Just("cache-control"), Just("cdn-cache-control")],
    ) {
        let apart: String = lines.iter().map(|line| format!("{field}: {line}\r\n")).collect();
        let joined = format!("{field}: {}\r\n", lines.join(", "));
        prop_assert_eq!(
            ResponseDirectives::parse(Fields::new(apart.as_bytes())),
            ResponseDirectives::parse(Fields::new(joined.as_bytes())),
        );
        prop_assert_eq!(
            RequestDirectives::parse(Fields::new(apart.as_bytes())),
            RequestDirectives::parse(Fields::new(joined.as_bytes())),
        );
    }

    #[test]
    fn arbitrary_bytes_never_panic(value in prop::collection::vec(any::<u8>(), 0..80)) {
        for name in ["cache-control", "cdn-cache-control", "pragma"] {
            let block = [name.as_bytes(), b":", &value].concat();
            let fields = Fields::new(&block);
            let directives = ResponseDirectives::parse(fields);
            no_cache_field_names(fields, &directives);
            RequestDirectives::parse(fields);
        }
    }
}

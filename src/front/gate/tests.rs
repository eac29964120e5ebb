//! Heads that are accepted, heads that are not, and what is sent on.

use super::*;

/// `method target version framing keep-alive`, or the refusal's token, or `incomplete`.
fn told(buffer: &[u8]) -> String {
    let head = match gate(buffer) {
        Verdict::Incomplete => return "incomplete".into(),
        Verdict::Refused(refusal) => return refusal.as_str().into(),
        Verdict::Accepted(head) => head,
    };
    let framing = match head.framing {
        Framing::None => "none".into(),
        Framing::Length(length) => length.to_string(),
        Framing::Chunked => "chunked".into(),
    };
    let version = if head.version == Version::Http11 { "1.1" } else { "1.0" };
    let keep = if head.keep_alive { "keep" } else { "close" };
    let target = String::from_utf8_lossy(head.target);
    format!("{} {target} {version} {framing} {keep}", head.method.as_str())
}

#[track_caller]
fn check(name: &str, buffer: impl AsRef<[u8]>, expected: &str) {
    assert_eq!(told(buffer.as_ref()), expected, "{name}");
}

#[test]
fn request_lines() {
    let rows = [
        ("9112 3: origin form", "GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a?b=c 1.1 none keep"),
        ("bytes behind the head", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET", "HEAD / 1.1 none keep"),
        ("9110 9.1: any token", "pAtCh!#~ / HTTP/1.1\r\nHost: a\r\n\r\n", "pAtCh!#~ / 1.1 none keep"),
        ("9112 2.2: empty lines before", "\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / 1.1 none keep"),
        ("but not many", "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "empty-lines"),
        ("an empty line with a bare LF", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "bare-line-feed"),
        ("the same, second", "\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "bare-line-feed"),
        ("an empty line with a bare CR", "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", "bare-carriage-return"),
        ("no method", " / HTTP/1.1\r\nHost: a\r\n\r\n", "malformed-method"),
        ("9112 3: method is a token", "G@T / HTTP/1.1\r\nHost: a\r\n\r\n", "malformed-method"),
        ("a lone word", "GET\r\n\r\n", "malformed-method"),
        ("TLS", "\x16\x03\x01\x02\0\x01\0\x01", "malformed-method"),
        ("9112 3.2.2: absolute form", "GET http://A.b/c?d HTTP/1.1\r\nHost: a.B\r\n\r\n", "GET /c?d 1.1 none keep"),
        ("9110 4.2.3: empty path", "GET HTTPS://a HTTP/1.1\r\nHost: a:443\r\n\r\n", "GET / 1.1 none keep"),
        ("9110 4.2.3: default port", "GET http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET / 1.1 none keep"),
        ("not the scheme's", "GET http://a:443/ HTTP/1.1\r\nHost: a\r\n\r\n", "host-disagrees-with-target"),
        ("9112 3.2.2: another host", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "host-disagrees-with-target"),
        ("another port", "GET http://a:81/ HTTP/1.1\r\nHost: a:82\r\n\r\n", "host-disagrees-with-target"),
        ("9110 4.2.4: user information", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "malformed-target"),
        ("9110 4.2.1: empty host", "GET http:///c HTTP/1.1\r\nHost: a\r\n\r\n", "malformed-target"),
        ("query without path", "GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n", "malformed-target"),
        ("other schemes", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "malformed-target"),
        ("no slash", "GET a/b HTTP/1.1\r\nHost: a\r\n\r\n", "malformed-target"),
        ("9112 3.2: fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", "malformed-target"),
        ("UTF-8", "GET /ä HTTP/1.1\r\nHost: a\r\n\r\n", "malformed-target"),
        ("NUL", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", "malformed-target"),
        ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "malformed-target"),
        ("9112 3.2.4: the whole server", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * 1.1 none keep"),
        ("9112 3.2.4: in absolute form", "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * 1.1 none keep"),
        ("only OPTIONS", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", "malformed-target"),
        ("9112 3.2.3: authority form", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "CONNECT a:1 1.1 none keep"),
        ("only CONNECT", "GET a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "malformed-target"),
        ("HTTP/0.9", "GET /\r\n", "malformed-version"),
        ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "unsupported-version"),
        ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", "unsupported-version"),
        ("9112 2.3: case", "GET / http/1.1\r\nHost: a\r\n\r\n", "malformed-version"),
        ("two digits", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", "malformed-version"),
        ("two digits of another", "GET / HTTP/2.10\r\nHost: a\r\n\r\n", "malformed-version"),
        ("trailing space", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "malformed-version"),
        ("two targets", "GET / / HTTP/1.1\r\nHost: a\r\n\r\n", "malformed-version"),
        ("bare LF", "GET / HTTP/1.1\nHost: a\r\n\r\n", "bare-line-feed"),
        ("bare CR", "GET / HTTP/1.1\rHost: a\r\n\r\n", "bare-carriage-return"),
        ("bare CR in the target", "GET /\rHTTP/1.1\r\nHost: a\r\n\r\n", "bare-carriage-return"),
        ("bare LF in the target", "GET /\nHTTP/1.1\r\nHost: a\r\n\r\n", "bare-line-feed"),
    ];
    for (name, buffer, expected) in rows {
        check(name, buffer, expected);
    }
}

#[test]
fn field_lines() {
    let rows: &[(&str, &[u8], &str)] = &[
        ("bytes above ASCII", b"a: \xff\r\n", "ok"),
        ("a tab inside", b"a: b\tc\r\n", "ok"),
        ("an empty value", b"a:\r\nb: \r\n", "ok"),
        ("bare LF", b"a: b\n", "bare-line-feed"),
        ("bare LF between", b"a: b\nc: d\r\n", "bare-line-feed"),
        ("bare LF ends the head", b"a: b\r\n\n", "bare-line-feed"),
        ("bare CR in a value", b"a: b\rc\r\n", "bare-carriage-return"),
        ("two CR", b"a: b\r\r\n", "bare-carriage-return"),
        ("CR starts a line", b"\rb: c\r\n", "bare-carriage-return"),
        ("9112 5.2: folded", b"a: b\r\n c\r\n", "obsolete-line-folding"),
        ("9112 5.1: space before the colon", b"a : b\r\n", "space-before-colon"),
        ("tab before the colon", b"a\t: b\r\n", "space-before-colon"),
        ("no name", b": b\r\n", "empty-field-name"),
        ("no colon", b"a\r\n", "malformed-field-name"),
        ("two words", b"a b\r\n", "malformed-field-name"),
        ("name not a token", b"a(b: c\r\n", "malformed-field-name"),
        ("name above ASCII", b"\xff: c\r\n", "malformed-field-name"),
        ("NUL in a name", b"a\0: c\r\n", "malformed-field-name"),
        ("NUL in a value", b"a: b\0c\r\n", "control-character-in-value"),
        ("DEL in a value", b"a: \x7f\r\n", "control-character-in-value"),
        ("ESC in a value", b"a: \x1b[0m\r\n", "control-character-in-value"),
        ("9112 3.2: repeated Host", b"host: a\r\n", "repeated-host"),
    ];
    for (name, lines, expected) in rows {
        let head = [b"GET / HTTP/1.1\r\nHost: a\r\n", *lines, b"\r\n"].concat();
        check(name, head, if *expected == "ok" { "GET / 1.1 none keep" } else { expected });
    }
    check("9112 2.2: space before the first line", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", "obsolete-line-folding");
    check("9112 3.2: no Host", "GET / HTTP/1.1\r\nHostess: a\r\n\r\n", "missing-host");
    check("not in HTTP/1.0 either", "GET / HTTP/1.0\r\n\r\n", "missing-host");
}

#[test]
fn hosts() {
    let good = ["a", "A.example:8080", "127.0.0.1", "[::1]", "[2001:db8::1]:443", "a_b.c", "a:0", "a."];
    let bad = [
        "",
        ":80",
        "a:",
        "a:x",
        "a:+1",
        "a:65536",
        "a:000080",
        "a b",
        "a,b",
        "x%2Dy",
        "a,b c",
        "u@a",
        "a/b",
        "a?b",
        "a#b",
        "[::1",
        "::1",
        "[::1]x",
        "[]",
        "[1.2.3.4]",
        "[::1%25e]",
        "a\\b",
        "a\"",
        "%4",
        "%zz",
        "\u{e4}.de",
        "http://a",
        "a:80:80",
    ];
    for host in good {
        check(host, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), "GET / 1.1 none keep");
    }
    for host in bad {
        check(host, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), "malformed-host");
    }
}

#[test]
fn framing_and_persistence() {
    let both = "content-length-with-transfer-encoding";
    let rows = [
        ("9112 6.3: a length", "1.1", "Content-Length: 5", "5 keep"),
        ("zero", "1.1", "content-length: 00", "0 keep"),
        ("the largest", "1.1", "content-length: 18446744073709551615", "18446744073709551615 keep"),
        ("larger", "1.1", "content-length: 18446744073709551616", "malformed-content-length"),
        ("9110 8.6: a list", "1.1", "content-length: 5, 5", "malformed-content-length"),
        ("a sign", "1.1", "content-length: +5", "malformed-content-length"),
        ("a minus", "1.1", "content-length: -0", "malformed-content-length"),
        ("hexadecimal", "1.1", "content-length: 0x5", "malformed-content-length"),
        ("empty", "1.1", "content-length:", "malformed-content-length"),
        ("a space inside", "1.1", "content-length: 5 5", "malformed-content-length"),
        ("repeated", "1.1", "content-length: 5\r\ncontent-length: 6", "repeated-content-length"),
        ("repeated alike", "1.1", "content-length: 5\r\ncontent-length: 5", "repeated-content-length"),
        ("9112 6.1: chunked", "1.1", "Transfer-Encoding: chunked", "chunked keep"),
        ("9112 7: case", "1.1", "Transfer-Encoding: CHUNKED", "chunked keep"),
        ("9112 6.1: both", "1.1", "transfer-encoding: chunked\r\ncontent-length: 5", both),
        ("both, the other way", "1.1", "content-length: 5\r\ntransfer-encoding: chunked", both),
        ("another coding", "1.1", "transfer-encoding: gzip, chunked", "transfer-encoding"),
        ("identity", "1.1", "transfer-encoding: identity", "transfer-encoding"),
        ("empty coding", "1.1", "transfer-encoding:", "transfer-encoding"),
        ("twice in a line", "1.1", "transfer-encoding: chunked, chunked", "transfer-encoding"),
        ("twice", "1.1", "transfer-encoding: chunked\r\ntransfer-encoding: chunked", "transfer-encoding"),
        ("vertical tab", "1.1", "transfer-encoding: \x0bchunked", "control-character-in-value"),
        ("a parameter", "1.1", "transfer-encoding: chunked;a=b", "transfer-encoding"),
        ("quoted", "1.1", "transfer-encoding: \"chunked\"", "transfer-encoding"),
        ("9112 6.1: in 1.0", "1.0", "transfer-encoding: chunked", "transfer-encoding-in-http10"),
        ("9112 9.3: 1.0 closes", "1.0", "a: b", "none close"),
        ("unless it says", "1.0", "connection: Keep-Alive", "none keep"),
        ("and not both", "1.0", "connection: keep-alive, close", "none close"),
        ("1.1 keeps", "1.1", "connection: a, keep-alive", "none keep"),
        ("unless it says", "1.1", "Connection: a\r\nconnection: b , Close", "none close"),
        ("a part of a word", "1.1", "connection: closed", "none keep"),
    ];
    for (name, version, lines, expected) in rows {
        let prefix = format!("POST / {version} ");
        let buffer = format!("POST / HTTP/{version}\r\nHost: a\r\n{lines}\r\n\r\n");
        let told = told(buffer.as_bytes());
        assert_eq!(told.strip_prefix(&prefix).unwrap_or(&told), expected, "{name}: {lines:?}");
    }
}

#[test]
fn limits() {
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(length - 1));
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(count - 1));
    let sized = |size: usize| {
        let (start, end) = ("GET / HTTP/1.1\r\nHost: a\r\nb: ", "\r\n\r\n");
        format!("{start}{}{end}", "c".repeat(size - start.len() - end.len()))
    };
    let accepted = |told: String| told.starts_with("GET /") && told.ends_with(" 1.1 none keep");
    assert!(accepted(told(target(TARGET_BYTES_MAX).as_bytes())));
    check("target", target(TARGET_BYTES_MAX + 1), "target-too-long");
    assert!(accepted(told(fields(FIELDS_MAX).as_bytes())));
    check("fields", fields(FIELDS_MAX + 1), "too-many-fields");
    assert!(accepted(told(sized(HEAD_BYTES_MAX).as_bytes())));
    assert!(accepted(told(format!("{}rest", sized(HEAD_BYTES_MAX)).as_bytes())));
    check("head", sized(HEAD_BYTES_MAX + 1), "head-too-large");
    check("head in time", &sized(HEAD_BYTES_MAX)[..HEAD_BYTES_MAX - 1], "incomplete");
    check("a method and the start of a version", format!("{} / HTT", "A".repeat(HEAD_BYTES_MAX)), "head-too-large");
    let of = |limit: usize| format!("{} KiB", limit >> 10);
    assert!(Refusal::TargetTooLong.sentence().contains(&of(TARGET_BYTES_MAX)));
    assert!(Refusal::HeadTooLarge.sentence().contains(&of(HEAD_BYTES_MAX)));
    assert!(Refusal::TooManyFields.sentence().contains(&FIELDS_MAX.to_string()));
}

#[test]
fn refused_before_the_end() {
    let rows = [
        ("nothing yet", "", "incomplete"),
        ("half a line end", "\r", "incomplete"),
        ("half a version", "GET / HTTP/1", "incomplete"),
        ("half another version", "GET / HTTP/3.", "incomplete"),
        ("half a field", "GET / HTTP/1.1\r\nHost: a\r\nb", "incomplete"),
        ("bare LF", "GET / HTTP/1.1\r\na: b\nHost", "bare-line-feed"),
        ("control character", "GET / HTTP/1.1\r\na: \0", "control-character-in-value"),
        ("bare CR", "GET / HTTP/1.1\r\na: b\rc", "bare-carriage-return"),
        ("fold", "GET / HTTP/1.1\r\na: b\r\n ", "obsolete-line-folding"),
        ("target", "GET x HTTP/1", "malformed-target"),
        ("fragment", "GET /#", "malformed-target"),
        ("version", "GET / HTTX", "malformed-version"),
    ];
    for (name, buffer, expected) in rows {
        check(name, buffer, expected);
    }
    check("long target", format!("GET /{}", "a".repeat(TARGET_BYTES_MAX)), "target-too-long");
}

#[test]
fn interest() {
    let rows = [
        ("1.1", "accept: */*\r\ncookie: a", Interest::default()),
        ("1.1", "Cache-Control: no-cache", Interest::CACHE_CONTROL),
        ("1.1", "pragma: a", Interest::CACHE_CONTROL),
        ("1.1", "If-Match: *", Interest::CONDITIONAL),
        ("1.1", "if-none-match: *", Interest::CONDITIONAL),
        ("1.1", "if-modified-since: a", Interest::CONDITIONAL),
        ("1.1", "if-unmodified-since: a", Interest::CONDITIONAL),
        ("1.1", "CDN-Loop: a", Interest::CDN_LOOP),
        ("1.1", "range: a", Interest::RANGE),
        ("1.1", "if-range: a", Interest::RANGE),
        ("1.1", "authorization: a", Interest::AUTHORIZATION),
        ("1.1", "connection: Upgrade\r\nupgrade: a", Interest::UPGRADE),
        ("1.1", "upgrade: not named by connection", Interest::default()),
        ("1.0", "connection: upgrade\r\nupgrade: too old", Interest::default()),
        ("1.1", "expect: 100-continue", Interest::EXPECT),
        ("1.0", "expect: too old", Interest::default()),
    ];
    for (version, lines, expected) in rows {
        let buffer = format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n\r\n");
        let Verdict::Accepted(head) = gate(buffer.as_bytes()) else { panic!("{lines:?} is refused") };
        assert_eq!(head.interest, expected, "{lines:?}");
        assert_eq!(head.fields.as_bytes(), format!("Host: a\r\n{lines}\r\n").as_bytes());
        assert_eq!(head.length, buffer.len());
    }
}

#[test]
fn refusals_are_told_apart() {
    let tokens: std::collections::BTreeSet<_> = Refusal::ALL.iter().map(|refusal| refusal.as_str()).collect();
    assert_eq!(tokens.len(), Refusal::ALL.len());
    let statuses: std::collections::BTreeSet<_> = Refusal::ALL.iter().map(|refusal| refusal.status()).collect();
    assert_eq!(Vec::from_iter(statuses), [400, 414, 431, 505]);
}

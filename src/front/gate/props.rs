//! What holds for any bytes, and what an origin is sent.

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;
use crate::semantics::cdn_loop::CdnId;

fn forwarding(trusted: bool) -> Forwarding<'static> {
    static CDN: LazyLock<CdnId> = LazyLock::new(|| CdnId::new(b"node"));
    Forwarding {
        client: [192, 0, 2, 7].into(),
        trusted,
        relayed: false,
        secure: true,
        received: "1.1",
        request_id: "id7",
        cdn: &CDN,
    }
}

/// The node's own part of `CDN-Loop`.
fn cdn() -> &'static str {
    forwarding(false).cdn.as_str()
}

fn accepted(buffer: &[u8]) -> Head<'_> {
    match gate(buffer) {
        Verdict::Accepted(head) => head,
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(buffer)),
    }
}

/// Our lines behind the client's, for a client nobody knows.
const OURS: &str = "x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: https\r\nx-forwarded-host: a\r\n\
                    x-request-id: id7\r\nvia: 1.1 littoral\r\n";

#[test]
fn serialised() {
    let trusted = "x-forwarded-for: 1, 2, 192.0.2.7\r\nx-forwarded-host: a\r\nx-request-id: id7\r\n\
                   via: 1.0 b, 1.1 littoral\r\n";
    let rows = [
        ("9110 7.6.1: hop-by-hop fields go", false, "Connection: x\r\nX: 1\r\nTE: a\r\nb: c\r\n", "b: c\r\n", OURS),
        (
            "forgeries go",
            false,
            "X-Forwarded-For: 1\r\nx_forwarded_proto: b\r\nForwarded: c\r\nX-Original-URL: d\r\nProxy: e\r\n\
             X-Request-Id: f\r\nX-Forwarded-Anything: g\r\nX-Forward: h\r\n",
            "X-Forward: h\r\n",
            OURS,
        ),
        (
            "a trusted proxy's word stays",
            true,
            "X-Forwarded-For: 1\r\nx-forwarded-for: 2\r\nX-Forwarded-Proto: http\r\nX-Real-IP: b\r\nVia: 1.0 b\r\n",
            "X-Forwarded-Proto: http\r\nX-Real-IP: b\r\n",
            trusted,
        ),
        ("a trusted proxy's name of the request", true, "connection: x-request-id\r\nx-request-id: 1\r\n", "", OURS),
        (
            "9110 10.1.1: Expect stays",
            false,
            "Expect: 100-continue\r\nRange: a\r\n",
            "Expect: 100-continue\r\nRange: a\r\n",
            OURS,
        ),
        (
            "8586 2: where it has been",
            false,
            "CDN-Loop: a; b=\"c\"\r\nconnection: cdn-loop\r\ncdn-loop: d\r\n",
            "",
            OURS,
        ),
        ("only WebSocket", false, "connection: upgrade\r\nupgrade: h2c\r\n", "", OURS),
        ("9110 7.8: upgrade", false, "connection: upgrade\r\nupgrade: h2c, WebSocket\r\n", "", &upgraded()),
    ];
    for (name, trusted, lines, theirs, ours) in rows {
        let buffer = format!("PUT http://a/b HTTP/1.0\r\nHost: a\r\n{lines}content-length: 007\r\n\r\n");
        let buffer = if name.contains("upgrade") { buffer.replace("/1.0", "/1.1") } else { buffer };
        let mut out = Vec::new();
        let (framing, upgrade) = (Framing::Length(7), true);
        serialise(&accepted(buffer.as_bytes()), framing, upgrade, &forwarding(trusted), b"o:81", &mut out);
        let (ours, end) = ours.split_once("|").unwrap_or((ours, ""));
        let loops = if name.contains("8586") { "a; b=\"c\", d, " } else { "" };
        let ours = format!("{ours}cdn-loop: {loops}{}\r\n", cdn());
        let expected = format!("PUT /b HTTP/1.1\r\nhost: o:81\r\n{theirs}{ours}content-length: 7\r\n{end}\r\n");
        assert_eq!(String::from_utf8_lossy(&out), expected, "{name}");
    }
}

fn upgraded() -> String {
    format!("{OURS}|connection: upgrade\r\nupgrade: websocket\r\n")
}

#[test]
fn forwarded_for_the_cache() {
    let buffer = "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nIf-Match: b\r\nIf-None-Match: c\r\n\
                  If-Modified-Since: d\r\nIf-Unmodified-Since: e\r\nRange: f\r\nIf-Range: g\r\nCache-Control: h\r\n\r\n";
    let conditions = "If-Match: b\r\nIf-None-Match: c\r\nIf-Modified-Since: d\r\nIf-Unmodified-Since: e\r\n";
    let rows = [
        (Keep::Nothing, String::new()),
        (Keep::Conditionals, conditions.to_owned()),
        (Keep::RangeAndConditionals, format!("{conditions}Range: f\r\nIf-Range: g\r\n")),
    ];
    for (keep, kept) in rows {
        let mut out = Vec::new();
        write_forward_fields(&accepted(buffer.as_bytes()), &forwarding(false), keep, &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            format!("{kept}Cache-Control: h\r\n{OURS}cdn-loop: {}\r\n", cdn()),
            "{keep:?}"
        );
    }
}

/// Request lines and field lines that are mostly right.
fn head() -> impl Strategy<Value = Vec<u8>> {
    let method = prop::sample::select(vec!["GET", "HEAD", "POST", "OPTIONS", "CONNECT", "get", "M-SEARCH", "G T"]);
    let target = prop_oneof![
        4 => "/[!-~&&[^#]]{0,20}",
        1 => "https?://a(:80|:443)?(/[a-z?]{0,8})?",
        1 => prop::sample::select(vec!["*", "a:1", "/#", "//x"]).prop_map(str::to_owned),
    ];
    let version = prop::sample::select(vec!["1.1", "1.1", "1.1", "1.1", "1.1", "1.0", "1.0", "1.2"]);
    let framing = prop::sample::select(vec![
        "a: b",
        "content-length: 5",
        "Content-Length:0",
        "Transfer-Encoding: chunked",
        "transfer-encoding:\tChunked ",
    ]);
    let known = prop::sample::select(vec![
        "connection: close, x-request-id",
        "connection: content-length",
        "connection: transfer-encoding, host",
        "connection: upgrade",
        "upgrade: websocket",
        "X-Forwarded-For: 1",
        "X-Forwarded-Host: b, c",
        "via: 1.1 b",
        "content_length: 7",
        "te: trailers",
        "expect: 100-continue",
        "range: bytes=0-1",
        "x-request-id: 4",
    ]);
    let line = prop_oneof![
        12 => "[a-zA-Z_-]{1,12}: ?[ -~\t]{0,16}",
        12 => known.prop_map(str::to_owned),
        1 => framing.clone().prop_map(str::to_owned),
        1 => "[ -~\r\n\0]{0,8}",
    ];
    (0..3_usize, method, target, version, framing, prop::collection::vec(line, 0..7)).prop_map(
        |(empty, method, target, version, framing, lines)| {
            let mut head = "\r\n".repeat(empty);
            head += &format!("{method} {target} HTTP/{version}\r\nHost: a\r\n{framing}\r\n");
            for line in lines {
                head += &line;
                head += "\r\n";
            }
            (head + "\r\n").into_bytes()
        },
    )
}

/// The properties below would hold of a gate that is always shut.
#[test]
fn many_generated_heads_are_accepted() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let with_body = (0..1000).filter(|_| {
        let tree = head().new_tree(&mut runner).expect("the strategy rejects nothing");
        matches!(gate(&tree.current()), Verdict::Accepted(head) if head.framing != Framing::None)
    });
    let accepted = with_body.count();
    assert!(accepted > 250, "only {accepted} of 1000 are accepted with a body");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = gate(&bytes);
    }

    /// One byte of a good head is another.
    #[test]
    fn mutations_never_panic(mut bytes in head(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Verdict::Accepted(head) = gate(&bytes) {
            let mut out = Vec::new();
            serialise(&head, head.framing, true, &forwarding(false), head.host, &mut out);
            let framing = head.framing;
            prop_assert_eq!(accepted(&out).framing, framing);
        }
    }

    #[test]
    fn what_is_sent_on_is_what_was_read(bytes in head(), trusted in any::<bool>(), upgrade in any::<bool>()) {
        let Verdict::Accepted(head) = gate(&bytes) else { return Ok(()) };
        let mut out = Vec::new();
        serialise(&head, head.framing, upgrade, &forwarding(trusted), head.host, &mut out);
        let again = accepted(&out);
        prop_assert_eq!((again.method, again.target, again.framing), (head.method, head.target, head.framing));
        prop_assert_eq!((again.host, again.length), (head.host, out.len()));
        let framing_lines = again.fields.lines().filter(|line| line.is("content-length") || line.is("transfer-encoding"));
        prop_assert_eq!(framing_lines.count(), usize::from(head.framing != Framing::None));
        prop_assert_eq!(again.interest.has(Interest::UPGRADE), upgrade && head.asks_for_websocket());
        for name in ["x-forwarded-for", "via", "x-request-id", "host", "cdn-loop"] {
            prop_assert!(trusted || again.fields.only(name).is_some(), "{}", name);
        }
    }

    /// A head is not refused while it arrives, and bytes behind it change nothing.
    #[test]
    fn a_prefix_is_incomplete(bytes in head(), behind in prop::collection::vec(any::<u8>(), 0..9)) {
        let Verdict::Accepted(head) = gate(&bytes) else { return Ok(()) };
        for end in 0..head.length {
            prop_assert!(matches!(gate(&bytes[..end]), Verdict::Incomplete), "{} bytes", end);
        }
        let longer = [&bytes[..head.length], &behind].concat();
        let again = accepted(&longer);
        prop_assert_eq!((again.length, again.fields.as_bytes()), (head.length, head.fields.as_bytes()));
    }

    /// Once refused, always refused: the early answer was not a mistake.
    #[test]
    fn a_refusal_is_final(bytes in head()) {
        let mut refused = None;
        for end in 0..=bytes.len() {
            match gate(&bytes[..end]) {
                Verdict::Refused(refusal) => refused = Some(refusal),
                other => prop_assert!(refused.is_none(), "{:?} became {:?}", refused, other),
            }
        }
    }
}

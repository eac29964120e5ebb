//! Fields that belong to one connection and go no further (RFC 9110 section 7.6.1).

use super::fields::{Fields, Line, same_name};

/// Always dropped, named by `Connection` or not. The `Proxy-` fields speak to the proxy next to the sender
/// (RFC 9110 section 11.7), which is us, and RFC 9111 section 3.1 forbids storing them.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Meant for every recipient, so `Connection` cannot name them away.
///
/// RFC 9110 section 7.6.1 forbids senders to name such fields, `Cache-Control` being its example. Obeying it all the
/// same would let a client strip what the origin decides by, or an intermediary vouches for, before it gets there
/// (`Connection: authorization, x-forwarded-for`), and have the answer stored for everybody.
const END_TO_END: [&str; 32] = [
    "accept-encoding",
    "age",
    "authorization",
    "cache-control",
    "cdn-cache-control",
    "cdn-loop",
    "content-encoding",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expires",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "origin",
    "pragma",
    "range",
    "set-cookie",
    "vary",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
];

/// A `Connection` longer than this is not read member by member for every field line, which a head full of both would make
/// slow: it names everything that it can name.
const CONNECTION_BYTES_MAX: usize = 1 << 10;

/// Whether a field of this name never travels past one connection.
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    HOP_BY_HOP.iter().any(|hop| same_name(name, hop.as_bytes()))
}

/// Whether an option of `Connection` is the name of a field that it alone keeps from going on.
pub fn is_taken_out_by_name(option: &[u8]) -> bool {
    let says_something_else = [&b"close"[..], b"http2-settings"].iter().any(|known| same_name(option, known));
    let essential = END_TO_END.iter().any(|essential| same_name(option, essential.as_bytes()));
    !says_something_else && !essential && !is_hop_by_hop(option)
}

/// The lines that go on to the next recipient, or into the store: neither hop-by-hop nor named by `Connection`.
pub fn end_to_end(fields: Fields<'_>) -> impl Iterator<Item = Line<'_>> + Clone {
    let names_fields = fields.contains("connection");
    let length: usize = fields.values("connection").map(<[u8]>::len).sum();
    let names_all = length > CONNECTION_BYTES_MAX;
    fields.lines().filter(move |line| {
        !is_hop_by_hop(line.name) && (!names_fields || !is_named_by_connection(fields, line.name, names_all))
    })
}

fn is_named_by_connection(fields: Fields<'_>, name: &[u8], names_all: bool) -> bool {
    (names_all || fields.members("connection").any(|option| same_name(option, name)))
        && !END_TO_END.iter().any(|essential| same_name(name, essential.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(name: &str, block: &str, expected: &str) {
        let mut kept = Vec::new();
        end_to_end(Fields::new(block.as_bytes())).for_each(|line| line.write(&mut kept));
        assert_eq!(String::from_utf8_lossy(&kept), expected, "{name}");
    }

    #[test]
    fn what_goes_on() {
        let rows = [
            ("9110 7.6.1: named fields go", "Connection: a, B\r\na: 1\r\nb: 2\r\nc: 3\r\n", "c: 3\r\n"),
            ("named on a later line", "a: 1\r\nconnection: close\r\nConnection: a\r\n", ""),
            ("9110 7.6.1: known ones go unnamed", "TE: x\r\nKeep-Alive: y\r\nUpgrade: z\r\na: 1\r\n", "a: 1\r\n"),
            ("9111 3.1: proxy fields go", "Proxy-Authenticate: x\r\nProxy-Authorization: y\r\n", ""),
            ("essentials stay", "connection: cache-control, host\r\nhost: a\r\n", "host: a\r\n"),
            (
                "forged proxies' word stays",
                "connection: X-Forwarded-For\r\nx-forwarded-for: 1\r\n",
                "x-forwarded-for: 1\r\n",
            ),
            (
                "a long one names all",
                &format!("connection: {}\r\na: 1\r\nhost: a\r\n", "x,".repeat(600)),
                "host: a\r\n",
            ),
            ("nothing named", "a: 1\r\nclose: 2\r\n", "a: 1\r\nclose: 2\r\n"),
        ];
        for (name, block, expected) in rows {
            check(name, block, expected);
        }
    }

    #[test]
    fn options_that_name_fields() {
        for (option, expected) in [
            ("close", false),
            ("Keep-Alive", false),
            ("upgrade", false),
            ("TE", false),
            ("HTTP2-Settings", false),
            ("Cookie", false),
            ("Accept-Language", true),
            ("x-device", true),
        ] {
            assert_eq!(is_taken_out_by_name(option.as_bytes()), expected, "{option}");
        }
    }

    proptest! {
        #[test]
        fn what_went_on_goes_on(
            names in prop::collection::vec("(Connection|keep-alive|TE|cookie|[a-c])", 0..6),
            values in prop::collection::vec("[a-c, ]{0,6}(|cookie)", 6),
            rest in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let lines: String = names.iter().zip(&values).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let block = [lines.as_bytes(), &rest].concat();
            let (mut once, mut twice) = (Vec::new(), Vec::new());
            end_to_end(Fields::new(&block)).for_each(|line| line.write(&mut once));
            end_to_end(Fields::new(&once)).for_each(|line| line.write(&mut twice));
            prop_assert!(Fields::new(&once).lines().all(|line| !is_hop_by_hop(line.name)));
            prop_assert_eq!(once, twice);
        }
    }
}

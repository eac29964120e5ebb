//! What an origin is sent for a request: our own serialisation of what the gate understood.

use std::io::Write;
use std::net::IpAddr;

use super::{Framing, Head};
use crate::semantics::cdn_loop::{self, CdnId};
use crate::semantics::fields::Line;
use crate::semantics::hop_by_hop::end_to_end;

/// How we appear in `Via`, behind the version of the request (RFC 9110 section 7.6.3).
const VIA: &str = " littoral";

/// Fields by which a proxy vouches for where a request came from, or redirects what it is about. From a client nobody
/// knows they are forgeries. `X-Forwarded-*` goes without being listed, and so does `Proxy`, which CGI programs take for
/// their configuration (CVE-2016-5385).
const VOUCHED: [&str; 26] = [
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "client-ip",
    "fastly-client-ip",
    "forwarded",
    "front-end-https",
    "proxy",
    "true-client-ip",
    "wl-proxy-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-uri",
    "x-original-url",
    "x-originating-ip",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-request-id",
    "x-rewrite-url",
];

/// What we tell the origin about the client.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    /// The peer of the connection.
    pub client: IpAddr,
    /// Whether the peer is a proxy whose word about its clients is believed.
    pub trusted: bool,
    /// Whether another node asks, which has written all of this.
    pub relayed: bool,
    /// Whether the connection is TLS.
    pub secure: bool,
    /// The version of HTTP the request came in: `1.0`, `1.1` or `2`.
    pub received: &'a str,
    /// The name of this request in every log; a token. A trusted proxy's own goes on in its place.
    pub request_id: &'a str,
    /// What this node calls itself in `CDN-Loop`.
    pub cdn: &'a CdnId,
}

/// Which fields about one client's copy or wish of a part go to the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Neither conditions nor ranges: the answer is for everybody.
    Nothing,
    /// `If-Match`, `If-None-Match`, `If-Modified-Since` and `If-Unmodified-Since`.
    Conditionals,
    /// Those and `Range` and `If-Range`: the answer is for this request alone.
    RangeAndConditionals,
}

/// Appends the head an origin is sent for a request that is passed on, empty line included.
///
/// `body_on` is the framing of the body that will follow it. With `upgrade`, a client that asks for WebSocket is passed
/// on asking for it. `host` is who the origin is addressed as.
pub fn serialise(
    head: &Head<'_>,
    body_on: Framing,
    upgrade: bool,
    forwarding: &Forwarding<'_>,
    host: &[u8],
    out: &mut Vec<u8>,
) {
    for part in [head.method.as_str().as_bytes(), b" ", head.target, b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    write("host", host, out);
    write_fields(head, forwarding, |_| true, out);
    match body_on {
        Framing::None => {}
        Framing::Length(length) => write("content-length", itoa::Buffer::new().format(length).as_bytes(), out),
        Framing::Chunked => write("transfer-encoding", b"chunked", out),
    }
    if upgrade && head.asks_for_websocket() {
        write("connection", b"upgrade", out);
        write("upgrade", b"websocket", out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the field lines an origin is sent when the cache asks it, without a body, on behalf of a request.
///
/// `Host`, framing, `Connection` and `Expect` are not among them.
pub fn write_forward_fields(head: &Head<'_>, forwarding: &Forwarding<'_>, keep: Keep, out: &mut Vec<u8>) {
    let dropped: &[&str] = match keep {
        Keep::Nothing => {
            &["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "range", "if-range", "expect"]
        }
        Keep::Conditionals => &["range", "if-range", "expect"],
        Keep::RangeAndConditionals => &["expect"],
    };
    write_fields(head, forwarding, |line| !dropped.iter().any(|name| line.is(name)), out);
}

/// The end-to-end fields that are `wanted`, less what the client has no say in, and ours.
fn write_fields(head: &Head<'_>, forwarding: &Forwarding<'_>, wanted: impl Fn(&Line<'_>) -> bool, out: &mut Vec<u8>) {
    let (mut has_proto, mut has_host, mut has_id) = (false, false, false);
    for line in end_to_end(head.fields) {
        // These are written anew.
        let anew = ["host", "content-length", "via", "x-forwarded-for", cdn_loop::FIELD, "littoral-node"];
        if anew.iter().any(|name| line.is(name)) || !wanted(&line) {
            continue;
        }
        if is_vouched(line.name) {
            if !forwarding.trusted {
                continue;
            }
            has_proto |= line.is("x-forwarded-proto");
            has_host |= line.is("x-forwarded-host");
            has_id |= line.is("x-request-id");
        }
        line.write(out);
    }
    let client = forwarding.client.to_canonical();
    if forwarding.relayed {
        head.fields.lines().filter(|line| line.is("x-forwarded-for")).for_each(|line| line.write(out));
    } else {
        begin_appended("x-forwarded-for", head, forwarding.trusted, out);
        write!(out, "{client}\r\n").expect("a vector takes every byte");
    }
    if !has_proto {
        write("x-forwarded-proto", if forwarding.secure { b"https" } else { b"http" }, out);
    }
    if !has_host {
        write("x-forwarded-host", head.host, out);
    }
    if !has_id {
        write("x-request-id", forwarding.request_id.as_bytes(), out);
    }
    begin_appended("via", head, true, out);
    out.extend_from_slice(forwarding.received.as_bytes());
    out.extend_from_slice(VIA.as_bytes());
    out.extend_from_slice(b"\r\n");
    cdn_loop::write(head.fields, forwarding.cdn, out);
}

/// Whether a proxy says this of its client. `_` is a `-` to programs that see fields as environment variables.
fn is_vouched(name: &[u8]) -> bool {
    let same = |name: &[u8], other: &str| {
        name.len() == other.len()
            && name.iter().zip(other.bytes()).all(|(left, right)| match left {
                b'_' => right == b'-',
                left => left.eq_ignore_ascii_case(&right),
            })
    };
    const PREFIX: &str = "x-forwarded-";
    name.get(..PREFIX.len()).is_some_and(|start| same(start, PREFIX)) || VOUCHED.iter().any(|other| same(name, other))
}

/// Starts a line that lists, if `continued`, what came in lines of that name; the caller adds its member and the end.
fn begin_appended(name: &str, head: &Head<'_>, continued: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    for value in head.fields.values(name).filter(|value| continued && !value.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
}

fn write(name: &str, value: &[u8], out: &mut Vec<u8>) {
    Line { name: name.as_bytes(), value }.write(out);
}

//! The gate: reads the head of an HTTP/1 request strictly, once, before anything else believes it.
//!
//! What two readers could understand differently is refused, because the origin behind us is another reader and the
//! store answers everybody. `httparse` finds the tokens; what it is lenient about (bare line feeds, targets, `Host`,
//! framing) is checked here. Nothing is allocated, waited for or remembered. What goes on to an origin is our own
//! serialisation of what was understood, never the client's bytes: [`serialise`].

use std::mem::MaybeUninit;
use std::net::Ipv6Addr;

use edge_config::section::limits::{FIELDS_MAX, HEAD_BYTES_MAX, TARGET_BYTES_MAX};
use memchr::{memchr, memchr_iter, memchr2};

use crate::semantics::fields::{Fields, members};
use crate::semantics::hop_by_hop::is_taken_out_by_name;

mod forward;
pub mod h2;
#[cfg(test)]
mod props;
mod refusal;
#[cfg(test)]
mod tests;

pub use forward::{Forwarding, Keep, serialise, write_forward_fields};
pub use refusal::Refusal;

/// Empty lines tolerated in front of a request line. RFC 9112 section 2.2 asks for at least one; old clients end a
/// form with it.
const EMPTY_LINES_MAX: usize = 4;

/// What the bytes received so far are.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'a> {
    /// The beginning of a head that may still become right: read on.
    Incomplete,
    /// A whole head.
    Accepted(Head<'a>),
    /// No head, whatever follows: answer with the refusal and close.
    Refused(Refusal),
}

/// The head of a request, checked.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: Method<'a>,
    /// Path and query, never empty; `*` for `OPTIONS` of the whole server; the authority for `CONNECT`.
    pub target: &'a [u8],
    /// The value of `Host` as sent: a name or an address, perhaps with a port.
    pub host: &'a [u8],
    /// The field lines, without the request line and without the empty line that ends them.
    pub fields: Fields<'a>,
    /// The version of the request line.
    pub version: Version,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the client wants to use the connection again (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// Which fields are there that the way of the request depends on.
    pub interest: Interest,
    /// Bytes of the head in the buffer, empty lines before it and after it included.
    pub length: usize,
}

impl Head<'_> {
    /// Whether the client asks to go on as WebSocket; no other upgrade is passed on (`h2c` would lead past the gate).
    pub fn asks_for_websocket(&self) -> bool {
        self.interest.has(Interest::UPGRADE)
            && self.fields.members("upgrade").any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
    }
}

/// A request method; methods are case-sensitive (RFC 9110 section 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method<'a> {
    /// `GET`.
    Get,
    /// `HEAD`.
    Head,
    /// Any other token.
    Other(&'a str),
}

impl<'a> Method<'a> {
    fn new(token: &'a str) -> Self {
        match token {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            other => Self::Other(other),
        }
    }

    /// The method as it stands in a request line.
    pub const fn as_str(self) -> &'a str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Other(token) => token,
        }
    }

    /// Whether the method only reads (RFC 9110 section 9.2.1).
    pub fn is_safe(self) -> bool {
        matches!(self.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE")
    }
}

/// The versions understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// How a body is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// By its length in bytes.
    Length(u64),
    /// By the chunked coding.
    Chunked,
}

impl Framing {
    /// Whether any byte of a body follows. A length of zero says the same as no length.
    pub const fn has_body(self) -> bool {
        !matches!(self, Self::None | Self::Length(0))
    }
}

/// A set of groups of fields. A plain browser's request for something stored needs no further look at its fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest(u16);

impl Interest {
    /// `Cache-Control` or `Pragma`.
    pub const CACHE_CONTROL: Self = Self(1);
    /// `If-Match`, `If-None-Match`, `If-Modified-Since` or `If-Unmodified-Since`.
    pub const CONDITIONAL: Self = Self(1 << 1);
    /// `Range` or `If-Range`.
    pub const RANGE: Self = Self(1 << 2);
    /// `Authorization`.
    pub const AUTHORIZATION: Self = Self(1 << 3);
    /// `Upgrade`, named by `Connection` as it must be, in HTTP/1.1 (RFC 9110 section 7.8).
    pub const UPGRADE: Self = Self(1 << 4);
    /// `Expect`, in HTTP/1.1 (RFC 9110 section 10.1.1).
    pub const EXPECT: Self = Self(1 << 5);

    /// `Connection` names fields that go no further: the origin does not see the request as it came.
    pub const NAMES_FIELDS: Self = Self(1 << 6);
    /// `CDN-Loop`.
    pub const CDN_LOOP: Self = Self(1 << 7);

    /// `littoral-node`: another node asks, or so it says.
    pub const NODE: Self = Self(1 << 7);

    /// Whether any of `groups` is in the set.
    pub const fn has(self, groups: Self) -> bool {
        self.0 & groups.0 != 0
    }

    /// Whether no group is.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    const fn add(&mut self, group: Self) {
        self.0 |= group.0;
    }

    const fn remove(&mut self, group: Self) {
        self.0 &= !group.0;
    }
}

/// Reads the head at the start of `buffer`, which may hold less than the head or more.
///
/// Call it again from the start of the head whenever bytes arrived. What can no longer become right is refused without
/// waiting for the rest.
pub fn gate(buffer: &[u8]) -> Verdict<'_> {
    match read(buffer) {
        Ok(Some(head)) => Verdict::Accepted(head),
        Ok(None) => Verdict::Incomplete,
        Err(refusal) => Verdict::Refused(refusal),
    }
}

fn read(buffer: &[u8]) -> Result<Option<Head<'_>>, Refusal> {
    let bounded = buffer.get(..HEAD_BYTES_MAX).unwrap_or(buffer);
    let seen = without_empty_lines(bounded)?;
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(seen, &mut slots);
    let (method, target) = (request.method, request.path);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        unfinished => {
            if let Some(refusal) = unfinished.err().and_then(|error| refusal::cause(error, method, target, seen)) {
                return Err(refusal);
            }
            check_unfinished(method, target, seen)?;
            return if bounded.len() < HEAD_BYTES_MAX { Ok(None) } else { Err(Refusal::HeadTooLarge) };
        }
    };
    let (Some(method), Some(target)) = (method, target) else { return Err(Refusal::MalformedMethod) };
    let head = seen.get(..length).unwrap_or_default();
    if has_bare_line_feed(head) {
        return Err(Refusal::BareLineFeed);
    }
    let version = if request.version == Some(1) { Version::Http11 } else { Version::Http10 };
    let form = Form::read(method, target.as_bytes())?;
    let mut found = Found::default();
    for field in request.headers.iter() {
        found.take(field.name.as_bytes(), field.value)?;
    }
    let fields_at = method.len() + target.len() + "  HTTP/1.1\r\n".len();
    Ok(Some(Head {
        method: Method::new(method),
        target: form.path,
        host: found.host(&form)?,
        fields: Fields::new(head.get(fields_at..length.saturating_sub(2)).unwrap_or_default()),
        version,
        framing: found.framing(version)?,
        keep_alive: !found.close && (version == Version::Http11 || found.keep_alive),
        interest: found.interest(version),
        length: bounded.len() - seen.len() + length,
    }))
}

fn without_empty_lines(mut buffer: &[u8]) -> Result<&[u8], Refusal> {
    for _ in 0..EMPTY_LINES_MAX {
        let Some(rest) = buffer.strip_prefix(b"\r\n") else { break };
        buffer = rest;
    }
    match buffer {
        [b'\n', ..] => Err(Refusal::BareLineFeed),
        [b'\r', b'\n', ..] => Err(Refusal::EmptyLines),
        _ => Ok(buffer),
    }
}

/// Refuses the beginning of a head for what nothing behind it can mend.
fn check_unfinished(method: Option<&str>, target: Option<&str>, seen: &[u8]) -> Result<(), Refusal> {
    if has_bare_line_feed(seen) {
        return Err(Refusal::BareLineFeed);
    }
    match (method, target) {
        (Some(method), Some(target)) => Form::read(method, target.as_bytes()).map(|_| ()),
        (Some(method), None) => check_target(seen.get(method.len() + 1..).unwrap_or_default()),
        (None, _) => Ok(()),
    }
}

/// Whether a line ends without a carriage return, in bytes `httparse` took.
///
/// It takes a carriage return only before a line feed, or as the last byte so far, so counting is enough.
fn has_bare_line_feed(bytes: &[u8]) -> bool {
    let awaited = usize::from(bytes.last() == Some(&b'\r'));
    memchr_iter(b'\n', bytes).count() + awaited != memchr_iter(b'\r', bytes).count()
}

/// The bytes of a target, or of its beginning. A fragment has no place in one (RFC 9112 section 3.2).
fn check_target(target: &[u8]) -> Result<(), Refusal> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(Refusal::TargetTooLong);
    }
    let legal = target.iter().fold(true, |legal, byte| legal & (byte.is_ascii_graphic() & (*byte != b'#')));
    if legal { Ok(()) } else { Err(Refusal::MalformedTarget) }
}

/// A target in one of its forms (RFC 9112 section 3.2).
struct Form<'a> {
    path: &'a [u8],
    /// The authority of an absolute form and the default port of its scheme.
    authority: Option<(Authority<'a>, u16)>,
}

impl<'a> Form<'a> {
    fn read(method: &str, target: &'a [u8]) -> Result<Self, Refusal> {
        check_target(target)?;
        if target.starts_with(b"/") || method == "CONNECT" || (method == "OPTIONS" && target == b"*") {
            return Ok(Self { path: target, authority: None });
        }
        let (rest, default_port) = if let Some(rest) = strip_prefix_ignoring_case(target, b"http://") {
            (rest, 80)
        } else if let Some(rest) = strip_prefix_ignoring_case(target, b"https://") {
            (rest, 443)
        } else {
            return Err(Refusal::MalformedTarget);
        };
        let (authority, path) = rest.split_at(memchr2(b'/', b'?', rest).unwrap_or(rest.len()));
        let authority = Authority::read(authority).ok_or(Refusal::MalformedTarget)?;
        let path = match path {
            // RFC 9112 section 3.2.4: the whole server, in absolute form.
            [] if method == "OPTIONS" => b"*",
            [] => b"/",
            // A query without a path would need a slash put in front of it. Nobody sends that.
            [b'?', ..] => return Err(Refusal::MalformedTarget),
            path => path,
        };
        Ok(Self { path, authority: Some((authority, default_port)) })
    }
}

fn strip_prefix_ignoring_case<'a>(bytes: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = bytes.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// A host and its port, without user information (RFC 3986 section 3.2).
struct Authority<'a> {
    name: &'a [u8],
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    fn read(text: &'a [u8]) -> Option<Self> {
        let bracketed = text.first() == Some(&b'[');
        let end = if bracketed { memchr(b']', text)? + 1 } else { memchr(b':', text).unwrap_or(text.len()) };
        let (name, port) = text.split_at(end);
        let valid = if bracketed { is_ipv6(name) } else { is_reg_name(name) };
        let port = match port {
            [] => None,
            [b':', digits @ ..] if digits.len() <= 5 => Some(u16::try_from(number(digits)?).ok()?),
            _ => return None,
        };
        valid.then_some(Self { name, port })
    }

    /// Whether both name the same place; the default port goes without saying.
    fn agrees_with(&self, other: &Self, default_port: u16) -> bool {
        self.name.eq_ignore_ascii_case(other.name)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

fn is_ipv6(bracketed: &[u8]) -> bool {
    let [b'[', address @ .., b']'] = bracketed else { return false };
    str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

fn is_reg_name(name: &[u8]) -> bool {
    let mut rest = name;
    loop {
        rest = match rest {
            [] => return !name.is_empty(),
            [b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~', rest @ ..] => rest,
            _ => return false,
        };
    }
}

/// Digits and nothing else: no sign, no list, not empty.
fn number(digits: &[u8]) -> Option<u64> {
    digits.first()?;
    digits.iter().try_fold(0_u64, |number, digit| {
        if !digit.is_ascii_digit() {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

/// What the one pass over the fields found.
#[derive(Default)]
struct Found<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    interest: Interest,
}

impl<'a> Found<'a> {
    /// Most fields are nobody's business here: the length of the name tells.
    fn take(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Refusal> {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is(b"host") => once(&mut self.host, value, Refusal::RepeatedHost)?,
            5 if is(b"range") => self.interest.add(Interest::RANGE),
            6 if is(b"pragma") => self.interest.add(Interest::CACHE_CONTROL),
            6 if is(b"expect") => self.interest.add(Interest::EXPECT),
            7 if is(b"upgrade") => self.interest.add(Interest::UPGRADE),
            8 if is(b"if-match") => self.interest.add(Interest::CONDITIONAL),
            8 if is(b"cdn-loop") => self.interest.add(Interest::CDN_LOOP),
            8 if is(b"if-range") => self.interest.add(Interest::RANGE),
            10 if is(b"connection") => self.connection(value),
            13 if is(b"cache-control") => self.interest.add(Interest::CACHE_CONTROL),
            13 if is(b"if-none-match") => self.interest.add(Interest::CONDITIONAL),
            13 if is(b"littoral-node") => self.interest.add(Interest::NODE),
            13 if is(b"authorization") => self.interest.add(Interest::AUTHORIZATION),
            14 if is(b"content-length") => {
                let length = number(value).ok_or(Refusal::MalformedContentLength)?;
                once(&mut self.length, length, Refusal::RepeatedContentLength)?;
            }
            17 if is(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::TransferEncoding);
                }
                self.chunked = true;
            }
            17 if is(b"if-modified-since") => self.interest.add(Interest::CONDITIONAL),
            19 if is(b"if-unmodified-since") => self.interest.add(Interest::CONDITIONAL),
            _ => {}
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        // What nearly every browser sends, without looking for commas and quotes.
        if value.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
            return;
        }
        for option in members(value) {
            match option.len() {
                5 => self.close |= option.eq_ignore_ascii_case(b"close"),
                7 => self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade"),
                10 => self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive"),
                _ => {}
            }
            if is_taken_out_by_name(option) {
                self.interest.add(Interest::NAMES_FIELDS);
            }
        }
    }

    fn host(&self, form: &Form<'_>) -> Result<&'a [u8], Refusal> {
        let host = self.host.ok_or(Refusal::MissingHost)?;
        let parsed = Authority::read(host).ok_or(Refusal::MalformedHost)?;
        match &form.authority {
            Some((authority, default_port)) if !authority.agrees_with(&parsed, *default_port) => {
                Err(Refusal::HostDisagreesWithTarget)
            }
            _ => Ok(host),
        }
    }

    fn framing(&self, version: Version) -> Result<Framing, Refusal> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(Refusal::ContentLengthWithTransferEncoding),
            // RFC 9112 section 6.1: HTTP/1.0 does not know it, so whoever spoke before us may not have either.
            (None, true) if version == Version::Http10 => Err(Refusal::TransferEncodingInHttp10),
            (None, true) => Ok(Framing::Chunked),
            (Some(length), false) => Ok(Framing::Length(length)),
            (None, false) => Ok(Framing::None),
        }
    }

    fn interest(mut self, version: Version) -> Interest {
        if version == Version::Http10 {
            self.interest.remove(Interest::EXPECT);
        }
        if version == Version::Http10 || !self.connection_upgrade {
            self.interest.remove(Interest::UPGRADE);
        }
        self.interest
    }
}

/// Fills `slot` for the first and only time.
fn once<T>(slot: &mut Option<T>, value: T, repeated: Refusal) -> Result<(), Refusal> {
    if slot.replace(value).is_some() { Err(repeated) } else { Ok(()) }
}

//! What an origin answers, as data: status, field lines verbatim, a body in pieces, and how it is framed or broken.

use bytes::{Bytes, BytesMut};

use crate::gate::Gate;
use crate::http_date;
use crate::recorded::Recorded;

/// One answer. Field lines are sent as written; `{now}` and `{now-60}` in them become dates.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    fields: Vec<String>,
    date: bool,
    pieces: Vec<Piece>,
    pub(crate) framing: Framing,
    pub(crate) held: Option<Gate>,
    matching: Option<(String, Box<Answer>)>,
}

/// A piece of a body.
#[derive(Clone, Debug)]
pub enum Piece {
    Bytes(Bytes),
    /// The rest waits here.
    Hold(Gate),
    /// The number of the request for this path, from 1.
    Number,
    /// What the request says in this field, or `none`.
    Echo(&'static str),
}

/// How the body ends for the one who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunked,
    /// HTTP/1.0's way: the end of the connection.
    Close,
    /// Content-Length promises more than comes before FIN.
    ShortLength,
    /// FIN without the last chunk.
    ShortChunks,
    /// After the pieces, something that is no chunk size.
    MalformedChunk,
    /// Content-Length promises more than comes before RST.
    ResetInLength,
    /// Chunked, then RST.
    ResetInChunks,
    /// Close-delimited, but the end is RST.
    ResetInClose,
    /// FIN instead of an answer.
    HangUp,
    /// Never an answer.
    Silent,
    /// The pieces are all there is, head included; then FIN.
    Raw,
}

/// A rendered part: bytes for the wire, or a gate between them.
#[derive(Debug)]
pub(crate) enum Part {
    Bytes(Bytes),
    Hold(Gate),
}

impl Answer {
    pub fn status(status: u16) -> Self {
        let framing = Framing::Length;
        Self { status, fields: Vec::new(), date: true, pieces: Vec::new(), framing, held: None, matching: None }
    }

    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::status(200).piece(body)
    }

    /// These bytes and no others, then the end of the connection.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self::status(0).piece(bytes).framed(Framing::Raw)
    }

    pub fn hang_up() -> Self {
        Self::status(0).framed(Framing::HangUp)
    }

    pub fn silent() -> Self {
        Self::status(0).framed(Framing::Silent)
    }

    /// Adds a field line, without its line end.
    pub fn field(mut self, line: &str) -> Self {
        self.fields.push(line.to_owned());
        self
    }

    /// Leaves out the `Date` that is otherwise sent.
    pub fn undated(mut self) -> Self {
        self.date = false;
        self
    }

    pub fn piece(mut self, bytes: impl Into<Bytes>) -> Self {
        self.pieces.push(Piece::Bytes(bytes.into()));
        self
    }

    /// The rest of the body waits for `gate`.
    pub fn hold(mut self, gate: &Gate) -> Self {
        self.pieces.push(Piece::Hold(gate.clone()));
        self
    }

    /// The body goes on with the number of the request for this path.
    pub fn numbered(mut self) -> Self {
        self.pieces.push(Piece::Number);
        self
    }

    /// The body goes on with what the request says in the field `name`.
    pub fn echoing(mut self, name: &'static str) -> Self {
        self.pieces.push(Piece::Echo(name));
        self
    }

    pub fn framed(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// Even the head waits for `gate`.
    pub fn after(mut self, gate: &Gate) -> Self {
        self.held = Some(gate.clone());
        self
    }

    /// Another answer for a request whose If-None-Match has `etag` (given with its quotes).
    pub fn when_matched(mut self, etag: &str, answer: Answer) -> Self {
        self.matching = Some((etag.to_owned(), Box::new(answer)));
        self
    }

    /// The same, with `{path}` and `{url}` in its field lines filled in.
    pub(crate) fn located(&self, path: &str, url: &str) -> Self {
        let mut answer = self.clone();
        for line in &mut answer.fields {
            *line = line.replace("{path}", path).replace("{url}", url);
        }
        answer
    }

    /// The answer this request gets.
    pub(crate) fn chosen_for(self, request: &Recorded) -> Self {
        match self.matching {
            Some((ref etag, ref matched)) if request.field("if-none-match").is_some_and(|tags| tags.contains(etag)) => {
                Answer::clone(matched)
            }
            _ => self,
        }
    }

    /// Everything that goes over the wire, with its gates.
    pub(crate) fn render(&self, request: &Recorded, now: i64) -> Vec<Part> {
        let body: Vec<Part> = self.pieces.iter().map(|piece| piece.render(request)).collect();
        if self.framing == Framing::Raw {
            return body;
        }
        let bodiless = request.method == "HEAD" || self.status == 304 || self.status == 204;
        let length: usize = body.iter().map(Part::length).sum();
        let mut parts = vec![Part::Bytes(self.head(length, now))];
        if bodiless {
            return parts;
        }
        let chunked = matches!(
            self.framing,
            Framing::Chunked | Framing::ShortChunks | Framing::MalformedChunk | Framing::ResetInChunks
        );
        parts.extend(body.into_iter().map(|part| if chunked { part.into_chunk() } else { part }));
        match self.framing {
            Framing::Chunked => parts.push(Part::Bytes(Bytes::from_static(b"0\r\n\r\n"))),
            Framing::MalformedChunk => parts.push(Part::Bytes(Bytes::from_static(b"zz;no-size\r\nlost\r\n"))),
            _ => {}
        }
        parts
    }

    fn head(&self, length: usize, now: i64) -> Bytes {
        let mut head = format!("HTTP/1.1 {} Of the test\r\n", self.status);
        if self.date && !self.fields.iter().any(|line| line.to_ascii_lowercase().starts_with("date:")) {
            head.push_str("Date: {now}\r\n");
        }
        for line in &self.fields {
            head.push_str(line);
            head.push_str("\r\n");
        }
        let written = self.fields.iter().any(|line| line.to_ascii_lowercase().starts_with("content-length:"));
        match self.framing {
            Framing::Length if self.status != 304 && self.status != 204 && !written => {
                head.push_str(&format!("Content-Length: {length}\r\n"));
            }
            Framing::ShortLength | Framing::ResetInLength => {
                head.push_str(&format!("Content-Length: {}\r\n", length + 1_000));
            }
            Framing::Chunked | Framing::ShortChunks | Framing::MalformedChunk | Framing::ResetInChunks => {
                head.push_str("Transfer-Encoding: chunked\r\n");
            }
            Framing::Close | Framing::ResetInClose => head.push_str("Connection: close\r\n"),
            _ => {}
        }
        head.push_str("\r\n");
        Bytes::from(http_date::fill_in(&head, now))
    }
}

impl Piece {
    fn render(&self, request: &Recorded) -> Part {
        match self {
            Self::Bytes(bytes) => Part::Bytes(bytes.clone()),
            Self::Hold(gate) => Part::Hold(gate.clone()),
            Self::Number => Part::Bytes(request.number.to_string().into()),
            Self::Echo(name) => Part::Bytes(request.field(name).unwrap_or_else(|| "none".to_owned()).into()),
        }
    }
}

impl Part {
    fn length(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Hold(_) => 0,
        }
    }

    fn into_chunk(self) -> Self {
        match self {
            Self::Bytes(bytes) => {
                let mut chunk = BytesMut::from(format!("{:x}\r\n", bytes.len()).as_bytes());
                chunk.extend_from_slice(&bytes);
                chunk.extend_from_slice(b"\r\n");
                Self::Bytes(chunk.freeze())
            }
            Self::Hold(_) => self,
        }
    }
}

/// A body nobody sends by chance: every position differs from its neighbours, every `seed` from the others.
pub fn pattern(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut body = BytesMut::with_capacity(length + 8);
    while body.len() < length {
        // Marsaglia, "Xorshift RNGs", 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        body.extend_from_slice(&state.to_le_bytes());
    }
    body.truncate(length);
    body.freeze()
}

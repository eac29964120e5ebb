//! An HTTP/2 client that sends exactly the frames it is given and reports exactly what came back.

use std::collections::BTreeMap;
use std::fmt::{Debug, Formatter};
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use loona_hpack::Decoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::block::{Field, field, literal};
use super::frame::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, wire,
};
use crate::client::HOST;
use crate::deadline::PATIENCE;
use crate::response::{End, Head, Response};
use crate::stream::Stream;

/// One connection.
pub struct Raw {
    stream: Stream,
    buffer: BytesMut,
    decoder: Decoder<'static>,
    answers: BTreeMap<u32, Answered>,
    next_stream: u32,
    patience: Duration,
    /// Whether the windows are opened again by what was received.
    generous: bool,
    /// What the node said of itself.
    pub settings: BTreeMap<u16, u32>,
    /// The error code of the last GOAWAY, and the last stream it lets finish.
    pub goaway: Option<(u32, u32)>,
    /// The header block that still lacks its end, with its stream.
    open_block: Option<(Frame, BytesMut)>,
}

/// What came on a stream.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    pub interim: Vec<Head>,
    pub head: Option<Head>,
    pub body: BytesMut,
    pub trailers: Option<Vec<(String, String)>>,
    /// END_STREAM, or the code of RST_STREAM.
    pub end: Option<End>,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Fate {
    /// A whole answer.
    Answered(Response),
    /// RST_STREAM with this code, before the end of an answer.
    Reset(u32),
    /// GOAWAY with this code, and then the end of the connection.
    Gone(u32),
    /// The connection ended without a word, or nothing came.
    Ended(End),
}

impl Raw {
    /// Begins with the preface and these settings; reads nothing yet.
    ///
    /// # Errors
    /// When the node has closed.
    pub async fn open(stream: Stream, settings: &[(u16, u32)]) -> io::Result<Self> {
        let mut connection = Self::silent(stream);
        connection.send([PREFACE, &Frame::settings(settings).encode()].concat()).await?;
        Ok(connection)
    }

    /// Has not even said the preface.
    pub fn silent(stream: Stream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            decoder: Decoder::new(),
            answers: BTreeMap::new(),
            next_stream: 1,
            patience: PATIENCE,
            generous: true,
            settings: BTreeMap::new(),
            goaway: None,
            open_block: None,
        }
    }

    /// Waits longer, or shorter, than [`PATIENCE`] for each read and write.
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Never opens a window again.
    pub fn stingy(mut self) -> Self {
        self.generous = false;
        self
    }

    /// # Errors
    /// When the node has closed, or does not read for too long.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let write = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(self.patience, write).await {
            Ok(written) => written,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// # Errors
    /// See [`Self::send`].
    pub async fn send_frames(&mut self, frames: &[Frame]) -> io::Result<()> {
        self.send(wire(frames)).await
    }

    /// The number for a new stream.
    pub fn new_stream(&mut self) -> u32 {
        self.next_stream += 2;
        self.next_stream - 2
    }

    /// Sends a whole request without a body, and gives its stream. A node that has closed is for the reader to see.
    pub async fn ask(&mut self, fields: &[Field]) -> u32 {
        let stream = self.new_stream();
        let _ = self.send_frames(&[Frame::headers(stream, literal(fields), true)]).await;
        stream
    }

    /// Sends a request with a body in one frame, whatever its length is said to be.
    pub async fn ask_with_body(&mut self, fields: &[Field], body: &[u8]) -> u32 {
        let stream = self.new_stream();
        let head = Frame::headers(stream, literal(fields), false);
        let _ = self.send_frames(&[head, Frame::data(stream, body.to_vec(), true)]).await;
        stream
    }

    /// The next frame, after everything it means for this side was noted: settings and pings are acknowledged, answers
    /// put together, windows opened again.
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn frame(&mut self) -> Result<Frame, End> {
        let frame = loop {
            if let Some(frame) = Frame::decode(&mut self.buffer) {
                break frame;
            }
            match tokio::time::timeout(self.patience, self.stream.read_buf(&mut self.buffer)).await {
                Ok(Ok(0)) => return Err(End::Cut),
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(End::Reset),
                Err(_) => return Err(End::Stalled),
            }
        };
        let reply = self.note(&frame).map_err(End::Malformed)?;
        if !reply.is_empty() {
            // The node may be gone; what it said before still counts.
            let _ = self.send_frames(&reply).await;
        }
        Ok(frame)
    }

    /// Takes in what has come already, and waits for nothing.
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn drain(&mut self) -> Result<(), End> {
        loop {
            while let Some(frame) = Frame::decode(&mut self.buffer) {
                let reply = self.note(&frame).map_err(End::Malformed)?;
                self.send_frames(&reply).await.map_err(|_| End::Reset)?;
            }
            match tokio::time::timeout(Duration::ZERO, self.stream.read_buf(&mut self.buffer)).await {
                Ok(Ok(0)) => return Err(End::Cut),
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(End::Reset),
                Err(_) => return Ok(()),
            }
        }
    }

    /// What has come on a stream so far.
    pub fn answered(&self, stream: u32) -> Answered {
        self.answers.get(&stream).cloned().unwrap_or_default()
    }

    /// Reads until the stream has ended, one way or another.
    pub async fn fate(&mut self, stream: u32) -> Fate {
        loop {
            let answered = self.answers.get(&stream);
            match answered.and_then(|answered| answered.end.as_ref().zip(answered.head.as_ref())) {
                Some((End::Whole, head)) => {
                    let answered = self.answered(stream);
                    let (head, body) = (head.clone(), answered.body.freeze());
                    return Fate::Answered(Response { status: head.status, head, body, end: End::Whole });
                }
                Some((End::StreamReset(code), _)) => return Fate::Reset(*code),
                _ => {}
            }
            if let Some(End::StreamReset(code)) = answered.and_then(|answered| answered.end.as_ref()) {
                return Fate::Reset(*code);
            }
            if let Err(end) = self.frame().await {
                return match self.goaway {
                    Some((code, _)) if end.is_closed() => Fate::Gone(code),
                    _ => Fate::Ended(end),
                };
            }
        }
    }

    /// Reads until the stream has its head.
    ///
    /// # Errors
    /// The stream's or the connection's end, when it came first.
    pub async fn head(&mut self, stream: u32) -> Result<Head, End> {
        loop {
            if let Some(answered) = self.answers.get(&stream) {
                match (&answered.head, &answered.end) {
                    (Some(head), _) => return Ok(head.clone()),
                    (None, Some(end)) => return Err(end.clone()),
                    (None, None) => {}
                }
            }
            self.frame().await?;
        }
    }

    /// Reads until a frame of this kind comes.
    ///
    /// # Errors
    /// How the connection ended before.
    pub async fn frame_of(&mut self, kind: u8) -> Result<Frame, End> {
        loop {
            let frame = self.frame().await?;
            if frame.kind == kind {
                return Ok(frame);
            }
        }
    }

    /// Reads until the connection ends.
    pub async fn closed(&mut self) -> End {
        loop {
            if let Err(end) = self.frame().await {
                return end;
            }
        }
    }

    /// Ends the connection at once, by RST.
    pub fn vanish(self) {
        self.stream.vanish();
    }

    fn note(&mut self, frame: &Frame) -> Result<Vec<Frame>, String> {
        match frame.kind {
            SETTINGS if !frame.has(ACK) => {
                self.settings.extend(frame.settings_pairs());
                return Ok(vec![Frame::settings_ack()]);
            }
            PING if !frame.has(ACK) => return Ok(vec![Frame::new(PING, ACK, 0, frame.payload.clone())]),
            GOAWAY => self.goaway = Some((frame.number(4), frame.number(0) & 0x7fff_ffff)),
            RST_STREAM => {
                let answered = self.answers.entry(frame.stream).or_default();
                // After END_STREAM it only says that the rest of the request is not wanted.
                answered.end.get_or_insert(End::StreamReset(frame.number(0)));
            }
            DATA => {
                let answered = self.answers.entry(frame.stream).or_default();
                answered.body.extend_from_slice(&frame.content()?);
                let length = u32::try_from(frame.payload.len()).unwrap_or(0);
                answered.ended_by(frame);
                if self.generous && length > 0 {
                    let updates = [Frame::window_update(0, length), Frame::window_update(frame.stream, length)];
                    return Ok(updates[..if frame.has(END_STREAM) { 1 } else { 2 }].to_vec());
                }
            }
            HEADERS => {
                let block = BytesMut::from(&frame.content()?[..]);
                self.open_block = Some((frame.clone(), block));
                self.close_block(frame)?;
            }
            CONTINUATION => {
                let (_, block) = self.open_block.as_mut().ok_or("CONTINUATION of nothing")?;
                block.extend_from_slice(&frame.payload);
                self.close_block(frame)?;
            }
            _ => {}
        }
        Ok(Vec::new())
    }

    fn close_block(&mut self, last: &Frame) -> Result<(), String> {
        if !last.has(END_HEADERS) {
            return Ok(());
        }
        let Some((first, block)) = self.open_block.take() else { return Ok(()) };
        let fields = self.decoder.decode(&block).map_err(|error| format!("no header block: {error:?}"))?;
        let answered = self.answers.entry(first.stream).or_default();
        if answered.head.is_some() {
            answered.trailers = Some(texts(fields)?);
        } else {
            let head = head(texts(fields)?)?;
            if head.status < 200 {
                answered.interim.push(head);
            } else {
                answered.head = Some(head);
            }
        }
        answered.ended_by(&first);
        Ok(())
    }
}

impl Answered {
    fn ended_by(&mut self, frame: &Frame) {
        if frame.has(END_STREAM) {
            self.end.get_or_insert(End::Whole);
        }
    }
}

impl Debug for Raw {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Raw").field("answers", &self.answers).field("goaway", &self.goaway).finish()
    }
}

/// The pseudo-fields of a well-formed GET, and then these lines.
pub fn get(path: &str, lines: &[&str]) -> Vec<Field> {
    request("GET", path, lines)
}

/// The pseudo-fields of a well-formed request, and then these lines.
pub fn request(method: &str, path: &str, lines: &[&str]) -> Vec<Field> {
    let pseudo = [(":method", method), (":scheme", "https"), (":authority", HOST), (":path", path)];
    let pseudo = pseudo.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    pseudo.chain(lines.iter().map(|line| field(line))).collect()
}

fn texts(fields: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Vec<(String, String)>, String> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"));
    fields.into_iter().map(|(name, value)| Ok((text(name)?, text(value)?))).collect()
}

/// Reads a head strictly: what the node writes is not to be guessed at.
fn head(fields: Vec<(String, String)>) -> Result<Head, String> {
    let mut fields = fields.into_iter();
    let status = match fields.next() {
        Some((name, status)) if name == ":status" => status.parse().map_err(|_| format!("status {status:?}"))?,
        other => return Err(format!("no :status first: {other:?}")),
    };
    let fields: Vec<(String, String)> = fields.collect();
    for (name, value) in &fields {
        let of_connection =
            ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"].contains(&name.as_str());
        let odd = name.is_empty() || name.starts_with(':') || name.bytes().any(|b| b.is_ascii_uppercase() || b <= b' ');
        if of_connection || odd || value.trim() != value || value.contains(|c: char| c.is_control() && c != '\t') {
            return Err(format!("no field of HTTP/2: {name:?}: {value:?}"));
        }
    }
    Ok(Head { version: "HTTP/2".to_owned(), status, fields })
}

impl Fate {
    /// The status of an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Answered(response) => Some(response.status),
            _ => None,
        }
    }

    /// In few words, for messages.
    pub fn told(&self) -> String {
        match self {
            Self::Answered(response) => format!("{} {:?}", response.status, response.text()),
            other => format!("{other:?}"),
        }
    }
}

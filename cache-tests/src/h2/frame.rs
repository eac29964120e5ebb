//! Frames (RFC 9113 section 4 and 6), as bytes: any kind, any flags, any length that is said.

use bytes::{Buf, Bytes, BytesMut};

/// What a client says first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags.
pub const ACK: u8 = 0x1;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const WITH_PRIORITY: u8 = 0x20;

/// Settings.
pub const HEADER_TABLE_SIZE: u16 = 1;
pub const ENABLE_PUSH: u16 = 2;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const MAX_FRAME_SIZE: u16 = 5;
pub const MAX_HEADER_LIST_SIZE: u16 = 6;

/// Error codes.
pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const INTERNAL_ERROR: u32 = 2;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// Length, kind, flags, stream.
const HEAD_BYTES: usize = 9;

/// As much of a header block as any server takes in one frame.
const FRAGMENT_BYTES: usize = 16_000;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Bytes,
}

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Bytes>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    pub fn settings(pairs: &[(u16, u32)]) -> Self {
        let pair = |(name, value): &(u16, u32)| [name.to_be_bytes().as_slice(), &value.to_be_bytes()].concat();
        Self::new(SETTINGS, 0, 0, pairs.iter().flat_map(pair).collect::<Vec<u8>>())
    }

    pub fn settings_ack() -> Self {
        Self::new(SETTINGS, ACK, 0, Bytes::new())
    }

    /// A header block in one frame.
    pub fn headers(stream: u32, block: impl Into<Bytes>, end_stream: bool) -> Self {
        let flags = if end_stream { END_HEADERS | END_STREAM } else { END_HEADERS };
        Self::new(HEADERS, flags, stream, block)
    }

    /// A header block in as many frames as it takes.
    pub fn long_headers(stream: u32, block: &[u8], end_stream: bool) -> Vec<Self> {
        let mut frames: Vec<Self> = block.chunks(FRAGMENT_BYTES).map(|part| continuation(stream, part)).collect();
        if frames.is_empty() {
            frames.push(continuation(stream, block));
        }
        if let Some(first) = frames.first_mut() {
            (first.kind, first.flags) = (HEADERS, if end_stream { END_STREAM } else { 0 });
        }
        if let Some(last) = frames.last_mut() {
            last.flags |= END_HEADERS;
        }
        frames
    }

    pub fn data(stream: u32, bytes: impl Into<Bytes>, end_stream: bool) -> Self {
        Self::new(DATA, if end_stream { END_STREAM } else { 0 }, stream, bytes)
    }

    pub fn reset(stream: u32, code: u32) -> Self {
        Self::new(RST_STREAM, 0, stream, code.to_be_bytes().to_vec())
    }

    pub fn ping(payload: [u8; 8]) -> Self {
        Self::new(PING, 0, 0, payload.to_vec())
    }

    pub fn window_update(stream: u32, by: u32) -> Self {
        Self::new(WINDOW_UPDATE, 0, stream, by.to_be_bytes().to_vec())
    }

    /// Depends on `parent`, with the least weight.
    pub fn priority(stream: u32, parent: u32) -> Self {
        let mut payload = parent.to_be_bytes().to_vec();
        payload.push(0);
        Self::new(PRIORITY, 0, stream, payload)
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The 32 bits at `at`; 0 where the payload is shorter.
    pub fn number(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_be_bytes(bytes.unwrap_or_default())
    }

    /// Name and value of each setting.
    pub fn settings_pairs(&self) -> Vec<(u16, u32)> {
        let pair = |bytes: &[u8]| {
            let name = u16::from_be_bytes([bytes[0], bytes[1]]);
            (name, u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]))
        };
        self.payload.chunks_exact(6).map(pair).collect()
    }

    /// A payload without padding and priority, of HEADERS and DATA.
    ///
    /// # Errors
    /// When the padding is longer than the payload.
    pub fn content(&self) -> Result<Bytes, String> {
        let mut content = self.payload.clone();
        if self.has(PADDED) {
            let padding = content.first().copied().map_or(usize::MAX, usize::from);
            let end = content.len().checked_sub(padding).filter(|end| *end >= 1).ok_or("padding beyond the payload")?;
            content = content.slice(1..end);
        }
        if self.kind == HEADERS && self.has(WITH_PRIORITY) {
            content = content.get(5..).map(|_| content.slice(5..)).ok_or("no room for a priority")?;
        }
        Ok(content)
    }

    /// As it goes over the wire.
    ///
    /// # Panics
    /// With a payload that 24 bits cannot tell the length of.
    pub fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).ok().filter(|length| *length < 1 << 24);
        self.encode_as_if(length.expect("a payload below 16 MiB"))
    }

    /// With a length that may be a lie.
    pub fn encode_as_if(&self, length: u32) -> Vec<u8> {
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[self.kind, self.flags]);
        bytes.extend_from_slice(&self.stream.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// The next frame of `buffer`; none while it is not complete.
    pub fn decode(buffer: &mut BytesMut) -> Option<Self> {
        let head: [u8; HEAD_BYTES] = buffer.get(..HEAD_BYTES)?.try_into().ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if buffer.len() < HEAD_BYTES + length {
            return None;
        }
        buffer.advance(HEAD_BYTES);
        let payload = buffer.split_to(length).freeze();
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Some(Self { kind: head[3], flags: head[4], stream, payload })
    }
}

/// A part of a header block that is not the last.
pub fn continuation(stream: u32, part: &[u8]) -> Frame {
    Frame::new(CONTINUATION, 0, stream, part.to_vec())
}

/// Frames one after another.
pub fn wire(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(Frame::encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        let frames = [
            Frame::settings(&[(INITIAL_WINDOW_SIZE, 7)]),
            Frame::headers(1, vec![0x82], true),
            Frame::reset(3, CANCEL),
            Frame::window_update(0, 1),
        ];
        let mut buffer = BytesMut::from(&wire(&frames)[..]);
        for frame in frames {
            assert_eq!(Frame::decode(&mut buffer), Some(frame));
        }
        assert_eq!((Frame::decode(&mut buffer), buffer.len()), (None, 0));
        assert_eq!(Frame::settings(&[(4, 7), (1, 0)]).settings_pairs(), [(4, 7), (1, 0)]);
    }

    #[test]
    fn padding_and_priority_are_no_content() {
        let payload = vec![2, 0, 0, 0, 0, 9, b'x', 0, 0];
        let frame = Frame::new(HEADERS, PADDED | WITH_PRIORITY, 1, payload);
        assert_eq!(frame.content().as_deref(), Ok(&b"x"[..]));
        assert!(Frame::new(DATA, PADDED, 1, vec![2, b'x']).content().is_err());
    }
}

//! Reading a body piece by piece by its framing (RFC 9112 section 6), the same for both directions.

use bytes::{Buf, Bytes, BytesMut};

/// What is still to come.
#[derive(Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// Nothing.
    Done,
    /// So many bytes.
    Length(u64),
    Chunked(Chunk),
    /// Until the connection ends.
    Close,
}

/// Where in a chunked body the reader is.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
}

impl BodyFraming {
    /// Of a request: no framing is no body.
    pub fn of_request(fields: &[(String, String)]) -> Self {
        match Self::announced(fields) {
            Self::Close => Self::Done,
            framing => framing,
        }
    }

    pub fn of_response(method: &str, status: u16, fields: &[(String, String)]) -> Self {
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Self::Done;
        }
        Self::announced(fields)
    }

    fn announced(fields: &[(String, String)]) -> Self {
        let named = |name: &str| fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        if named("transfer-encoding").is_some_and(|(_, value)| value.to_ascii_lowercase().contains("chunked")) {
            return Self::Chunked(Chunk::Size);
        }
        match named("content-length").map(|(_, value)| value.parse()) {
            Some(Ok(0)) => Self::Done,
            Some(Ok(length)) => Self::Length(length),
            Some(Err(_)) | None => Self::Close,
        }
    }

    pub fn is_done(&self) -> bool {
        *self == Self::Done
    }

    /// The next bytes of the body that `buffer` has; none when it has none.
    ///
    /// # Errors
    /// What is wrong with the framing.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, String> {
        loop {
            match self {
                Self::Done => return Ok(None),
                Self::Close => return Ok(take(buffer, u64::MAX)),
                Self::Length(left) => {
                    let bytes = take(buffer, *left);
                    *left -= length(&bytes);
                    if *left == 0 {
                        *self = Self::Done;
                    }
                    return Ok(bytes);
                }
                Self::Chunked(Chunk::Data(left)) => {
                    let bytes = take(buffer, *left);
                    *left -= length(&bytes);
                    if *left == 0 {
                        *self = Self::Chunked(Chunk::DataEnd);
                    }
                    return Ok(bytes);
                }
                Self::Chunked(_) => {
                    let Some(line) = take_line(buffer)? else { return Ok(None) };
                    *self = self.after_line(&line)?;
                }
            }
        }
    }

    fn after_line(&self, line: &str) -> Result<Self, String> {
        match self {
            Self::Chunked(Chunk::Size) => {
                let size = line.split(';').next().unwrap_or_default().trim_end();
                match u64::from_str_radix(size, 16) {
                    Ok(0) => Ok(Self::Chunked(Chunk::Trailers)),
                    Ok(size) => Ok(Self::Chunked(Chunk::Data(size))),
                    Err(_) => Err(format!("no chunk size: {line:?}")),
                }
            }
            Self::Chunked(Chunk::DataEnd) if line.is_empty() => Ok(Self::Chunked(Chunk::Size)),
            Self::Chunked(Chunk::DataEnd) => Err(format!("a chunk goes on after its size: {line:?}")),
            Self::Chunked(Chunk::Trailers) if line.is_empty() => Ok(Self::Done),
            _ => Ok(Self::Chunked(Chunk::Trailers)),
        }
    }
}

fn length(bytes: &Option<Bytes>) -> u64 {
    bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)
}

fn take(buffer: &mut BytesMut, at_most: u64) -> Option<Bytes> {
    let length = usize::try_from(at_most).unwrap_or(usize::MAX).min(buffer.len());
    if length == 0 { None } else { Some(buffer.split_to(length).freeze()) }
}

/// A line without its CRLF; none while it is not complete.
fn take_line(buffer: &mut BytesMut) -> Result<Option<String>, String> {
    let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let line = buffer.split_to(end);
    buffer.advance(1);
    match line.strip_suffix(b"\r") {
        Some(line) => Ok(Some(String::from_utf8_lossy(line).into_owned())),
        None => Err(format!("a bare LF in the framing: {line:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_whatever_the_pieces() {
        let whole = b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: t\r\n\r\nnext";
        for cut in 0..whole.len() {
            let (mut framing, mut body) = (BodyFraming::Chunked(Chunk::Size), Vec::new());
            let mut buffer = BytesMut::from(&whole[..cut]);
            for rest in [&whole[cut..], &[]] {
                while let Some(bytes) = framing.decode(&mut buffer).expect("well-formed") {
                    body.extend_from_slice(&bytes);
                }
                buffer.extend_from_slice(rest);
            }
            assert_eq!((body.as_slice(), &buffer[..], framing.is_done()), (&b"hello!"[..], &b"next"[..], true));
        }
    }

    #[test]
    fn broken_chunks_are_errors() {
        for broken in ["zz\r\n", "5\nhello", "1\r\nab\r\n", "\r\n", "-1\r\n"] {
            let (mut framing, mut buffer) = (BodyFraming::Chunked(Chunk::Size), BytesMut::from(broken));
            let outcome = loop {
                match framing.decode(&mut buffer) {
                    Ok(Some(_)) => {}
                    end => break end,
                }
            };
            assert!(outcome.is_err(), "{broken:?} passed");
        }
    }
}

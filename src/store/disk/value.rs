//! A frame on its way through foyer: to the disk, or back from it.

use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use foyer::{Code, Error, Result};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::frame::{FrameKey, Kind};
use crate::store::budget::Reservation;
use crate::store::key::CacheKey;
use crate::store::record::StoredResponse;

/// What a frame holds.
#[derive(Clone)]
pub enum Payload {
    /// A stored response and what is written behind its block: nothing is copied on the way to the disk.
    Response {
        stored: Arc<StoredResponse>,
        meta: Bytes,
    },
    Bytes(Bytes),
}

impl Payload {
    pub fn pieces(&self) -> Vec<&[u8]> {
        match self {
            Self::Response { stored, meta } => vec![stored.wire_block(), meta],
            Self::Bytes(bytes) => vec![bytes],
        }
    }

    pub fn bytes(&self) -> usize {
        self.pieces().iter().map(|piece| piece.len()).sum()
    }
}

/// A frame's payload, and who waits for it to be written.
pub struct Value {
    pub kind: Kind,
    pub site: u32,
    pub payload: Payload,
    /// As it was read: a later frame of its key may have been lost.
    pub doubtful: bool,
    done: Mutex<Option<oneshot::Sender<bool>>>,
    /// The memory it takes until it is written.
    _room: Option<Reservation>,
}

impl Value {
    /// To be written. What is received says whether it was.
    pub fn to_write(kind: Kind, site: u32, payload: Payload, room: Reservation) -> (Self, oneshot::Receiver<bool>) {
        let (done, told) = oneshot::channel();
        let done = Mutex::new(Some(done));
        (Self { kind, site, payload, doubtful: false, done, _room: Some(room) }, told)
    }

    /// As it was read.
    pub fn read(kind: Kind, site: u32, payload: Vec<u8>, doubtful: bool) -> Self {
        let payload = Payload::Bytes(payload.into());
        Self { kind, site, payload, doubtful, done: Mutex::default(), _room: None }
    }

    pub fn tell(&self, written: bool) {
        if let Some(done) = self.done.lock().take() {
            // Whoever put it may not care.
            let _ = done.send(written);
        }
    }
}

// The engine writes heads and payloads itself; foyer asks for these bounds, and for sizes.

impl Code for FrameKey {
    fn encode(&self, writer: &mut impl Write) -> Result<()> {
        let Self { key, generation, index } = self;
        let bytes = [&key.to_bytes()[..], &generation.to_le_bytes(), &index.to_le_bytes()].concat();
        writer.write_all(&bytes).map_err(Error::io_error)
    }

    fn decode(reader: &mut impl Read) -> Result<Self> {
        let (mut key, mut generation, mut index) = ([0; 16], [0; 8], [0; 4]);
        for field in [&mut key[..], &mut generation, &mut index] {
            reader.read_exact(field).map_err(Error::io_error)?;
        }
        let (generation, index) = (u64::from_le_bytes(generation), u32::from_le_bytes(index));
        Ok(Self { key: CacheKey::from_bytes(key), generation, index })
    }

    fn estimated_size(&self) -> usize {
        size_of::<Self>()
    }
}

impl Code for Value {
    fn encode(&self, writer: &mut impl Write) -> Result<()> {
        writer.write_all(&[self.kind as u8]).map_err(Error::io_error)?;
        writer.write_all(&self.site.to_le_bytes()).map_err(Error::io_error)?;
        self.payload.pieces().into_iter().try_for_each(|piece| writer.write_all(piece).map_err(Error::io_error))
    }

    fn decode(reader: &mut impl Read) -> Result<Self> {
        let (mut kind, mut site, mut payload) = ([0], [0; 4], Vec::new());
        reader.read_exact(&mut kind).map_err(Error::io_error)?;
        reader.read_exact(&mut site).map_err(Error::io_error)?;
        reader.read_to_end(&mut payload).map_err(Error::io_error)?;
        let kind = Kind::of(kind[0]).ok_or_else(|| Error::io_error(std::io::ErrorKind::InvalidData.into()))?;
        Ok(Self::read(kind, u32::from_le_bytes(site), payload, false))
    }

    fn estimated_size(&self) -> usize {
        5 + self.payload.bytes()
    }
}

//! What frames are written to: a file, or in tests a disk that fails as disks do.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;

use rustix::io::ReadWriteFlags;

/// A disk, or what stands for one.
pub trait Media: Send + Sync + 'static {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// The disk failed, or ends before the buffer is full.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// The same if nothing has to be waited for. False: it has to be.
    ///
    /// # Errors
    /// As for [`Self::read`].
    fn read_at_once(&self, buffers: &mut [&mut [u8]; 2], offset: u64) -> io::Result<bool>;

    /// Writes all pieces, one behind the other.
    ///
    /// # Errors
    /// The disk failed: any part of it may be written.
    fn write(&self, pieces: &[&[u8]], offset: u64) -> io::Result<()>;
}

/// Pieces given to the system in one call: below the limit of every Linux (1,024).
const PIECES_MAX: usize = 256;

impl Media for File {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn read_at_once(&self, buffers: &mut [&mut [u8]; 2], offset: u64) -> io::Result<bool> {
        let [head, rest] = buffers;
        let wanted = head.len() + rest.len();
        let mut slices = [IoSliceMut::new(head), IoSliceMut::new(rest)];
        match rustix::io::preadv2(self, &mut slices, offset, ReadWriteFlags::NOWAIT) {
            // Part of it is in memory and part is not.
            Ok(read) => Ok(read == wanted),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::OPNOTSUPP) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn write(&self, pieces: &[&[u8]], mut offset: u64) -> io::Result<()> {
        for some in pieces.chunks(PIECES_MAX) {
            let mut slices: Vec<IoSlice<'_>> = some.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut left = &mut slices[..];
            while left.iter().any(|piece| !piece.is_empty()) {
                match rustix::io::pwritev(self, left, offset) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        offset += written as u64;
                        IoSlice::advance_slices(&mut left, written);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

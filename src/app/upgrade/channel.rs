//! What two processes of one node tell each other while one takes over from the other: messages on a socket pair, some with a
//! listening socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

/// The largest message: an explanation.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
const EXPLANATION_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 8;

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// The old process: here is the socket for this address.
    Listener(SocketAddr),
    /// The old process: that was all of it. The keys of session tickets, so that sessions go on.
    Begin { tickets: [u8; 32] },
    /// The new process: everything that could be looked at is good.
    Ready,
    /// The old process: log and disks are closed, nobody is accepted; it is the new one's turn.
    TakeOver,
    /// The new process: it serves.
    Serving,
    /// The new process: it does not.
    Failed(String),
    /// The old process: a request that it still had has invalidated this.
    Invalidated(u32),
}

impl Word {
    /// The reason, as far as it has room in a message.
    pub fn failed(why: &str) -> Self {
        let mut end = why.len().min(EXPLANATION_BYTES_MAX);
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        Self::Failed(why[..end].to_owned())
    }
}

/// One end.
pub struct Channel(OwnedFd);

impl Channel {
    /// One for this process, and the other end.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(own), other))
    }

    /// The end another process has left to this one.
    pub fn new(end: OwnedFd) -> Self {
        Self(end)
    }

    /// # Errors
    /// Nobody is there any more.
    pub fn send(&self, word: &Word, socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let text = serde_json::to_vec(word)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let sockets: Vec<BorrowedFd<'_>> = socket.into_iter().collect();
        if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(self.0.as_fd(), &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for what comes next; none: nobody is there any more. `within` none: as long as it takes.
    ///
    /// # Errors
    /// Nothing came in time, or something that is not understood.
    pub fn receive(&self, within: Option<Duration>) -> io::Result<Option<(Word, Option<OwnedFd>)>> {
        set_socket_timeout(&self.0, Timeout::Recv, within)?;
        let mut text = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                // A process that was killed.
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                received => break received?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut socket = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(sockets) = message {
                socket = sockets.last();
            }
        }
        let text = text.get(..received.bytes).unwrap_or_default();
        Ok(Some((serde_json::from_slice(text)?, socket)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn words_and_sockets_arrive_as_they_were_sent_and_an_end_is_told_from_a_silence() {
        let (one, other) = Channel::pair().expect("a pair");
        let other = Channel::new(other);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = listener.local_addr().expect("an address");
        one.send(&Word::Listener(address), Some(listener.as_fd())).expect("sent");
        one.send(&Word::Begin { tickets: [7; 32] }, None).expect("sent");
        let (word, socket) = other.receive(None).expect("received").expect("something");
        assert_eq!(word, Word::Listener(address));
        let copy = TcpListener::from(socket.expect("a socket"));
        assert_eq!(copy.local_addr().expect("an address"), address);
        let next = other.receive(None).expect("received").map(|(word, socket)| (word, socket.is_some()));
        assert_eq!(next, Some((Word::Begin { tickets: [7; 32] }, false)));
        let silence = other.receive(Some(Duration::from_millis(10))).expect_err("nothing was sent");
        assert_eq!(silence.kind(), io::ErrorKind::TimedOut);
        drop(one);
        assert!(other.receive(None).expect("an end").is_none());
    }

    #[test]
    fn an_explanation_has_room_in_a_message() {
        let Word::Failed(why) = Word::failed(&"ä".repeat(MESSAGE_BYTES_MAX)) else { panic!("another word") };
        assert!(why.len() <= EXPLANATION_BYTES_MAX && why.len() > EXPLANATION_BYTES_MAX - 4);
        let (one, other) = Channel::pair().expect("a pair");
        // What takes most room in JSON.
        one.send(&Word::failed(&"\u{1}".repeat(MESSAGE_BYTES_MAX)), None).expect("sent");
        assert!(Channel::new(other).receive(None).expect("received").is_some());
    }
}

//! The trait an answer is written through: what the pipeline knows of a protocol.

use std::future::Future;
use std::io;
use std::sync::Arc;

use crate::store::record::StoredResponse;

/// How the body that follows a head is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// No body follows, and the fields say all there is to say about one (HEAD, 204, 304).
    None,
    Known(u64),
    Unknown,
}

/// How much of a stored response is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredPart {
    Whole,
    /// The answer to HEAD.
    Head,
}

/// What there is to do about somebody who waits for the head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Nothing any more: the client has gone away.
    Gone,
    /// It is to be told again that its answer takes time.
    TellAgain,
}

/// One request's way back to its client.
///
/// Every method that writes is bounded in time: a client that takes nothing makes it fail.
pub trait Exchange: Send {
    /// Sends a stored response whole, or all but its body: the status, the `dynamic` field lines, then what is stored, in
    /// one go and without copying the body.
    fn stored(
        &mut self,
        response: &Arc<StoredResponse>,
        part: StoredPart,
        dynamic: &[u8],
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends an interim response, where the client's protocol knows them.
    fn interim(&mut self, status: u16, fields: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Begins an answer; nothing is sent before [`Self::body`], [`Self::flush`] or [`Self::finish`].
    fn head(&mut self, status: u16, fields: &[&[u8]], length: BodyLength);

    /// Sends a part of the body, and the head if it still waits.
    fn body(&mut self, slices: &[&[u8]]) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends what waits.
    fn flush(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Ends the answer: the client can tell that it is complete.
    fn finish(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Resolves when the client has gone away.
    fn gone(&mut self) -> impl Future<Output = ()> + Send;

    /// Resolves when there is something to do about the client while it waits for the head.
    fn waits(&mut self) -> impl Future<Output = Waits> + Send {
        async {
            self.gone().await;
            Waits::Gone
        }
    }
}

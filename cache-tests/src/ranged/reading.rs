//! A client of objects in versions: it takes no byte that is not of the version, and at the place, that the head says.

use std::ops::Range;

use bytes::Bytes;

use super::{Ranged, Wanted};
use crate::client::{Client, request};
use crate::deadline::{PATIENCE, until};
use crate::derived::Derived;
use crate::h2::polite::{Begun, Polite};
use crate::node::Node;
use crate::ranged::reply::VERSION;
use crate::response::{End, Head};

/// An answer that is being read. Whoever reads hands in what comes.
#[derive(Debug)]
pub struct Reading {
    pub head: Head,
    pub version: u64,
    of: Derived,
    /// Which bytes the answer has.
    pub part: Range<u64>,
    /// The place of the next byte.
    pub at: u64,
}

/// An answer, or what came of it. What came is right.
#[derive(Debug)]
pub struct Got {
    pub head: Head,
    pub status: u16,
    pub version: u64,
    /// Which bytes the answer has if it is whole.
    pub part: Range<u64>,
    /// How many of them came.
    pub received: u64,
    pub end: End,
}

/// Where a body comes from.
enum Source<'a> {
    Client(&'a mut Client),
    Stream(&'a mut Begun),
}

impl Source<'_> {
    async fn some_body(&mut self) -> Result<Bytes, End> {
        match self {
            Self::Client(client) => client.some_body().await,
            Self::Stream(begun) => begun.some_body().await,
        }
    }
}

/// Which version a head says it is of; its tag says the same, if there is one.
///
/// # Errors
/// When it does not say, or two.
pub fn version_of(head: &Head) -> Result<u64, String> {
    let version = head.field(VERSION).and_then(|version| version.parse().ok());
    let version: u64 = version.ok_or(format!("{} says no version: {:?}", head.status, head.fields))?;
    match head.field("etag") {
        Some(tag) if tag.trim_start_matches("W/") != format!("\"v{version}\"") => {
            Err(format!("the tag of version {version} is {tag}"))
        }
        _ => Ok(version),
    }
}

impl Reading {
    /// The answer to a request for `wanted` that begins with this head.
    ///
    /// # Errors
    /// What the head says wrongly.
    pub fn begin(object: &Ranged, wanted: &Wanted, head: Head) -> Result<Self, String> {
        let target = object.target();
        let version = version_of(&head).map_err(|error| format!("{target}: {error}"))?;
        let of = object.at(version)?;
        let said = head.field("content-range");
        let part = match (head.status, wanted.within(of.length)) {
            (200, _) => 0..of.length,
            (206, Some(part)) if *wanted != Wanted::Whole => {
                let range = format!("bytes {}-{}/{}", part.start, part.end - 1, of.length);
                if said.as_ref() != Some(&range) {
                    return Err(format!("{target}: Content-Range {said:?}, not {range}"));
                }
                part
            }
            (status, _) => return Err(format!("{target}: {wanted:?} is answered with {status} {said:?}")),
        };
        let (length, count) = (head.field("content-length"), part.end - part.start);
        if length.as_ref().is_some_and(|length| *length != count.to_string()) {
            return Err(format!("{target}: Content-Length {length:?} for {count} bytes"));
        }
        Ok(Self { head, version, of, at: part.start, part })
    }

    /// # Errors
    /// When these are not the next bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.of.check(self.at, bytes).map_err(|error| format!("{error} (version {})", self.version))?;
        self.at += bytes.len() as u64;
        if self.at > self.part.end {
            return Err(format!("{} bytes more than {:?}", self.at - self.part.end, self.part));
        }
        Ok(())
    }

    async fn take_to(&mut self, mut source: Source<'_>, to: u64) -> Result<Option<End>, String> {
        while self.at < to {
            match source.some_body().await {
                Ok(bytes) => self.take(&bytes)?,
                Err(end) => return Ok(Some(end)),
            }
        }
        Ok(None)
    }

    /// Reads as far as the place `to`; gives the end if it came before.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn read_to(&mut self, client: &mut Client, to: u64) -> Result<Option<End>, String> {
        self.take_to(Source::Client(client), to).await
    }

    /// The same on HTTP/2.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn read_h2_to(&mut self, begun: &mut Begun, to: u64) -> Result<Option<End>, String> {
        self.take_to(Source::Stream(begun), to).await
    }

    /// Reads the rest.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn rest(mut self, client: &mut Client) -> Result<Got, String> {
        let end = self.read_to(client, u64::MAX).await?;
        self.ended(end.unwrap_or(End::Whole))
    }

    /// The same on HTTP/2.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn rest_of_h2(mut self, begun: &mut Begun) -> Result<Got, String> {
        let end = self.read_h2_to(begun, u64::MAX).await?;
        self.ended(end.unwrap_or(End::Whole))
    }

    fn ended(self, end: End) -> Result<Got, String> {
        let received = self.at - self.part.start;
        if end.is_clean() && self.at != self.part.end {
            return Err(format!("{received} bytes are said to be all of {:?}", self.part));
        }
        Ok(Got { status: self.head.status, head: self.head, version: self.version, part: self.part, received, end })
    }
}

impl Got {
    pub fn is_hit(&self) -> bool {
        self.head.cache_status().is_ok_and(|status| status.hit)
    }

    /// `hit`, or how the request went forward: `uri-miss; stored`, `partial` and so on.
    pub fn told(&self) -> String {
        match self.head.cache_status() {
            Ok(status) if status.hit => "hit".to_owned(),
            Ok(status) => status.fwd.unwrap_or_default() + if status.stored { "; stored" } else { "" },
            Err(error) => error,
        }
    }

    pub fn is_whole(&self) -> bool {
        self.end == End::Whole
    }
}

impl Ranged {
    /// Asks, and reads the head.
    ///
    /// # Errors
    /// What is wrong with it, or how it ended before.
    pub async fn begin(&self, client: &mut Client, wanted: &Wanted, fields: &[&str]) -> Result<Reading, String> {
        let begun = self.begin_with(client, wanted, fields).await;
        begun.unwrap_or_else(|end| Err(format!("{wanted:?} has no answer: {end:?}")))
    }

    /// The same; none when the connection ended before there was a head.
    pub(super) async fn begin_or_lose(&self, client: &mut Client, wanted: &Wanted) -> Option<Result<Reading, String>> {
        match self.begin_with(client, wanted, &[]).await {
            Err(End::Cut | End::Reset) => None,
            Err(end) => Some(Err(format!("{wanted:?} has no answer: {end:?}"))),
            Ok(begun) => Some(begun),
        }
    }

    async fn begin_with(
        &self,
        client: &mut Client,
        wanted: &Wanted,
        fields: &[&str],
    ) -> Result<Result<Reading, String>, End> {
        let range = wanted.value().map(|value| format!("Range: {value}"));
        let fields: Vec<&str> = fields.iter().copied().chain(range.as_deref()).collect();
        client.send(request("GET", &self.target(), &fields)).await.map_err(|_| End::Reset)?;
        let head = client.begin("GET").await?;
        Ok(Reading::begin(self, wanted, head))
    }

    /// Asks, and reads the whole answer; [`Got::end`] says if it broke off.
    ///
    /// # Errors
    /// What is wrong with it, or how it ended before its head.
    pub async fn ask(&self, client: &mut Client, wanted: &Wanted, fields: &[&str]) -> Result<Got, String> {
        self.begin(client, wanted, fields).await?.rest(client).await
    }

    /// The same on a connection of its own.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn try_get(&self, node: &Node, wanted: Wanted) -> Result<Got, String> {
        self.ask(&mut node.client().await, &wanted, &[]).await
    }

    /// The same, of which nothing may be wrong or missing.
    ///
    /// # Panics
    /// When something is.
    pub async fn get(&self, node: &Node, wanted: Wanted) -> Got {
        self.get_with(node, wanted, &[]).await
    }

    /// The same with these field lines.
    ///
    /// # Panics
    /// When something is wrong or missing.
    pub async fn get_with(&self, node: &Node, wanted: Wanted, fields: &[&str]) -> Got {
        let got = self.ask(&mut node.client().await, &wanted, fields).await;
        let got = got.unwrap_or_else(|error| panic!("{wanted:?} {fields:?}: {error}"));
        assert!(got.is_whole(), "{wanted:?} {fields:?}: {:?} after {} bytes of {:?}", got.end, got.received, got.part);
        got
    }

    /// Asks until it is a hit: what a client has may still be on its way into the store.
    ///
    /// # Errors
    /// What is wrong with an answer.
    ///
    /// # Panics
    /// When it never is.
    pub async fn becomes_hit(&self, node: &Node, wanted: Wanted) -> Result<Got, String> {
        until(PATIENCE, &format!("{wanted:?} of {} is a hit", self.target()), || async {
            match self.try_get(node, wanted.clone()).await {
                Ok(got) if got.is_whole() && !got.is_hit() => Err(got.told()),
                Ok(got) if !got.is_whole() => Ok(Err(format!("{:?} after {} bytes", got.end, got.received))),
                other => Ok(other),
            }
        })
        .await
    }

    /// The same on HTTP/2, however it ends.
    ///
    /// # Errors
    /// What is wrong with it, or how it ended before its head.
    pub async fn ask_h2(&self, client: &Polite, wanted: &Wanted) -> Result<Got, String> {
        let mut begun = self.begin_h2(client, wanted).await?;
        let reading = Reading::begin(self, wanted, begun.head.clone())?;
        reading.rest_of_h2(&mut begun).await
    }

    /// Asks on HTTP/2, and reads the head.
    ///
    /// # Errors
    /// How it ended before.
    pub async fn begin_h2(&self, client: &Polite, wanted: &Wanted) -> Result<Begun, String> {
        let range = wanted.value().map(|value| format!("Range: {value}"));
        let fields: Vec<&str> = range.as_deref().into_iter().collect();
        let begun = client.begin("GET", &self.target(), &fields, None).await;
        begun.map_err(|end| format!("{wanted:?} has no answer: {end:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranged::{CHUNK, Content};

    fn head(status: u16, fields: &str) -> Head {
        Head::parse(format!("HTTP/1.1 {status} OK\r\n{fields}\r\n").as_bytes()).expect("a head")
    }

    #[test]
    fn a_mixture_is_noticed() {
        let object = Content::default().add(2 * CHUNK);
        object.renew();
        let [old, new] = [1, 2].map(|version| object.at(version).expect("a version"));
        let wanted = Wanted::part(CHUNK, 20);
        let said = format!("Version: 2\r\nETag: \"v2\"\r\nContent-Range: bytes 262144-262163/{}\r\n", new.length);
        let begin = |fields: &str| Reading::begin(&object, &wanted, head(206, fields));
        let mut reading = begin(&said).expect("all is right");
        assert_eq!(reading.take(&new.bytes_at(CHUNK)[..10]), Ok(()));
        assert!(reading.take(&old.bytes_at(CHUNK + 10)[..10]).is_err(), "of another version");
        assert!(reading.take(&new.bytes_at(CHUNK)[..10]).is_err(), "of another place");
        assert_eq!(reading.take(&new.bytes_at(CHUNK + 10)[..9]), Ok(()));
        assert!(reading.ended(End::Whole).is_err(), "a byte is missing");
        for (name, fields) in [
            ("two versions", said.replace("\"v2\"", "\"v1\"")),
            ("no version", said.replace("Version: 2", "Other: 2")),
            ("a version that never was", said.replace('2', "3")),
            ("another part", said.replace("262163", "262162")),
            ("another length", said.clone() + "Content-Length: 21\r\n"),
        ] {
            assert!(begin(&fields).is_err(), "{name} passed");
        }
        let whole = Reading::begin(&object, &Wanted::Whole, head(206, &said));
        assert!(whole.is_err(), "a part is not what was asked for");
    }
}

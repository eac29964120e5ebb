//! What a route gets: a request of the admin API, whoever speaks HTTP for it.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use hyper::body::{Body as _, Incoming};

use super::reply::Reply;

/// The body of a request: 500 long URLs.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// How long all of a body may take.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// What is left of the body of a request that is refused is read for so long and up to [`BODY_BYTES_MAX`], so that who sends
/// it sees the refusal and not a reset.
const LINGER: Duration = Duration::from_secs(1);

/// A request, its body yet to be read.
pub struct Asked {
    pub method: Method,
    pub uri: Uri,
    pub fields: HeaderMap,
    body: Body,
}

/// A body, as it comes.
enum Body {
    Arriving(Incoming),
    /// All of it, or what is left.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests have all of a body at once"))]
    Whole(Option<Bytes>),
}

impl Asked {
    pub fn arriving(request: http::Request<Incoming>) -> Self {
        let (head, body) = request.into_parts();
        Self { method: head.method, uri: head.uri, fields: head.headers, body: Body::Arriving(body) }
    }

    pub fn path(&self) -> &str {
        self.uri.path()
    }

    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// Who says to ask.
    pub fn authorization(&self) -> Option<&[u8]> {
        self.fields.get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes)
    }

    /// All of the body.
    ///
    /// # Errors
    /// It is too large, comes too slowly, or breaks off.
    pub async fn body(&mut self) -> Result<Vec<u8>, Reply> {
        let read = tokio::time::timeout(BODY_WITHIN, self.read()).await;
        read.unwrap_or_else(|_| {
            let message = format!("the body did not come within {} seconds", BODY_WITHIN.as_secs());
            Err(Reply::error(StatusCode::REQUEST_TIMEOUT, message))
        })
    }

    /// Reads what is left of a body that nobody wants, within bounds. A client that waits to be told to send it is not.
    pub async fn linger(&mut self) {
        if self.body.is_over() || self.fields.contains_key(header::EXPECT) {
            return;
        }
        let rest = async {
            let mut left = BODY_BYTES_MAX;
            while let Some(Ok(piece)) = self.body.next().await {
                match left.checked_sub(piece.len()) {
                    Some(less) => left = less,
                    None => break,
                }
            }
        };
        // Late is as good as read: it is not looked at.
        let _ = tokio::time::timeout(LINGER, rest).await;
    }

    async fn read(&mut self) -> Result<Vec<u8>, Reply> {
        let mut body = Vec::new();
        while let Some(piece) = self.body.next().await {
            let piece = piece.map_err(|error| Reply::error(StatusCode::BAD_REQUEST, error.to_string()))?;
            if body.len() + piece.len() > BODY_BYTES_MAX {
                let message = format!("the body is larger than {BODY_BYTES_MAX} bytes");
                return Err(Reply::error(StatusCode::PAYLOAD_TOO_LARGE, message));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

impl Body {
    fn is_over(&self) -> bool {
        match self {
            Self::Arriving(incoming) => incoming.is_end_stream(),
            Self::Whole(rest) => rest.is_none(),
        }
    }

    /// The next piece; none at the end.
    async fn next(&mut self) -> Option<hyper::Result<Bytes>> {
        let incoming = match self {
            Self::Arriving(incoming) => incoming,
            Self::Whole(rest) => return rest.take().map(Ok),
        };
        loop {
            match std::future::poll_fn(|context| Pin::new(&mut *incoming).poll_frame(context)).await? {
                // Trailers are nothing to us.
                Ok(frame) => match frame.into_data() {
                    Ok(piece) => return Some(Ok(piece)),
                    Err(_) => continue,
                },
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
impl Asked {
    /// A request with this body.
    pub fn of(method: Method, target: &str, authorization: Option<&str>, body: &str) -> Self {
        let fields = authorization.map(|token| (header::AUTHORIZATION, token.parse().expect("a field"))).into_iter();
        let body = Body::Whole(Some(Bytes::copy_from_slice(body.as_bytes())));
        Self { method, uri: target.parse().expect("a target"), fields: fields.collect(), body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_are_bounded() {
        for (length, expected) in [(0, None), (BODY_BYTES_MAX, None), (BODY_BYTES_MAX + 1, Some(413))] {
            let mut asked = Asked::of(Method::POST, "/", None, &" ".repeat(length));
            let read = asked.body().await;
            assert_eq!(read.as_ref().err().map(|reply| reply.status.as_u16()), expected, "{length}");
            assert_eq!(read.map_or(length, |body| body.len()), length);
        }
    }
}

//! The connections of the admin API, and of those who may only ask how the node stands: HTTP/1 by hyper, with bounds on what a client can have the node wait for or keep.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use edge_config::section::limits::HEAD_BYTES_MAX;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::Sleep;

use super::Admin;
use super::asked::Asked;
use super::reply::Reply;

/// How long a connection waits for the next request, all of its head.
const HEAD_WITHIN: Duration = Duration::from_secs(60);
/// How long a connection that is to end waits for a request that is on its way already.
const PARTING: Duration = Duration::from_secs(1);
/// How long a client may take nothing of an answer.
const STALL_MAX: Duration = Duration::from_secs(30);

/// Who asks on [`Health`] has its head there within this time.
const HEALTH_WITHIN: Duration = Duration::from_secs(2);
/// Connections to [`Health`] at a time, whoever they are of: many name servers, each with a connection to it.
const HEALTH_CONNECTIONS_MAX: usize = 256;

/// The admin API on its own address.
pub struct Api(pub Arc<Admin>);

/// What anybody may ask, where anybody can connect: how the node stands, one request for each connection.
pub struct Health {
    admin: Arc<Admin>,
    room: Semaphore,
}

impl Health {
    pub fn new(admin: Arc<Admin>) -> Self {
        Self { admin, room: Semaphore::new(HEALTH_CONNECTIONS_MAX) }
    }
}

#[async_trait]
impl ServerApp for Api {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        self.0.clone().serve(stream, shutdown.clone()).await;
        None
    }
}

#[async_trait]
impl ServerApp for Health {
    async fn process_new(self: &Arc<Self>, stream: Stream, _: &ShutdownWatch) -> Option<Stream> {
        let _room = self.room.try_acquire().ok()?;
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEALTH_WITHIN).keep_alive(false);
        let service = service_fn(|request| async move {
            let asked = Asked::arriving(request);
            Ok::<_, Infallible>(response(self.admin.answer_anybody(&asked).await))
        });
        let connection = http.serve_connection(TokioIo::new(Patient { stream, late: None }), service);
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection that asked how the node stands broke");
        }
        None
    }
}

impl Admin {
    /// What is told to anybody.
    async fn answer_anybody(&self, asked: &Asked) -> Reply {
        if asked.method != Method::GET {
            return Reply::text(StatusCode::METHOD_NOT_ALLOWED, "this path knows another method\n");
        }
        match asked.path() {
            "/livez" => Reply::text(StatusCode::OK, "ok\n"),
            "/readyz" => self.readyz().await.unwrap_or_else(|why| why),
            "/currentz" => self.currentz(),
            _ => Reply::text(StatusCode::NOT_FOUND, "paths: /livez /readyz /currentz\n"),
        }
    }

    async fn serve(self: Arc<Self>, stream: Stream, shutdown: ShutdownWatch) {
        let mut http = http1::Builder::new();
        // It knows 100 fields at most by itself. A buffer may hold one head and what was read behind it.
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
        http.max_header_size(HEAD_BYTES_MAX).max_buf_size(2 * HEAD_BYTES_MAX);
        let parting = shutdown.clone();
        let service = service_fn(move |request| {
            let (admin, parting) = (self.clone(), parting.clone());
            async move {
                let mut response = admin.respond(request).await?;
                if *parting.borrow() {
                    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = pin!(http.serve_connection(TokioIo::new(Patient { stream, late: None }), service));
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = until_parting(shutdown) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection of the admin API broke");
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response<String>, Infallible> {
        let mut asked = Asked::arriving(request);
        let reply = self.answer(&mut asked).await;
        asked.linger().await;
        Ok(response(reply))
    }
}

/// Until nobody is accepted any more, and for [`PARTING`] beyond that. When nobody is there any more to tell, it ends. Boxed: the
/// compiler cannot tell of what `changed` borrows that it may be sent wherever it is named.
fn until_parting(mut shutdown: ShutdownWatch) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        while !*shutdown.borrow_and_update() {
            if shutdown.changed().await.is_err() {
                return;
            }
        }
        tokio::time::sleep(PARTING).await;
    })
}

fn response(reply: Reply) -> Response<String> {
    let mut response = Response::builder()
        .status(reply.status)
        .header(header::CONTENT_TYPE, reply.kind)
        .header(header::CONTENT_LENGTH, reply.body.len());
    if reply.status == StatusCode::UNAUTHORIZED {
        response = response.header(header::WWW_AUTHENTICATE, "Bearer");
    }
    if let Some(seconds) = reply.retry_after {
        response = response.header(header::RETRY_AFTER, seconds);
    }
    response.body(reply.body).unwrap_or_default()
}

/// A stream whose client is given up when it takes nothing for [`STALL_MAX`].
struct Patient {
    stream: Stream,
    /// Runs while the client takes nothing.
    late: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    /// What became of an attempt to write, or that there were none for too long.
    fn within<T>(&mut self, attempt: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if attempt.is_ready() {
            self.late = None;
            return attempt;
        }
        let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL_MAX)));
        late.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(attempt, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.within(attempt, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.stream).poll_flush(context);
        self.within(attempt, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.stream).poll_shutdown(context);
        self.within(attempt, context)
    }
}

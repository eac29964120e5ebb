//! The pass path: Pingora's `HttpProxy` for everything the cache has nothing to do with.
//!
//! The proxy reads the gate's own serialisation of the head, never the client's bytes, so that both see one request.
//! What this request is, and what became of it, travels beside it in the task.

mod failing;
mod invalidating;
mod kept;
mod passed;
mod patience;
mod response;

use std::sync::Arc;
use std::time::Duration;

use ::h2::RecvStream;
use ::h2::server::SendResponse;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use edge_config::section::limits::{Limits, SEND_RATE_MIN};
use pingora::apps::{HttpServerApp, ReusedHttpStream};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;
use pingora::protocols::{Digest, Stream};
use pingora::proxy::{FailToProxy, HttpProxy, ProxyHttp, Session, http_proxy};
use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{BError, Error, ErrorSource, ErrorType};

use self::failing::{BETTERED, BUSY, REFUSED, failure_of, is_client_fault, is_repeatable, respond};
use self::kept::Kept;
use self::passed::{Passed, request_header};
use self::response::{append_cache_status, apply_rules, strip_hop_by_hop};
use crate::clock;
use crate::front::gate::{Forwarding, Keep, serialise, write_forward_fields};
use crate::front::h2;
use crate::front::log::Seen;
use crate::front::mirroring::Pending;
use crate::front::registry::Registry;
use crate::front::request::Routed;
use crate::origin::Failure;
use crate::origin::prepare::prepare;
use crate::origin::retry::{is_failure, is_tried_again};
use crate::pipeline::Pipeline;
use crate::pipeline::request::Outcome;
use crate::purge::ledger::Invalidated;
use crate::routing::Site;
use crate::semantics::cache_status::{CacheStatus, Forward, Reason};
use crate::semantics::surrogate;
use crate::telemetry::metrics::{CacheOutcome, Metrics};

tokio::task_local! {
    static PASSED: Arc<Passed>;
}

/// The pass path.
pub struct Pass {
    proxy: Arc<HttpProxy<App>>,
    pipeline: Arc<Pipeline>,
    metrics: Arc<Metrics>,
}

impl Pass {
    pub fn new(conf: &Arc<ServerConf>, pipeline: Arc<Pipeline>, registry: Arc<Registry>) -> Self {
        let metrics = pipeline.metrics.clone();
        let app = App { pipeline: pipeline.clone(), registry };
        Self { proxy: Arc::new(http_proxy(conf, app)), pipeline, metrics }
    }

    /// Has the origin answer a request on a connection. Gives the stream back if the client may go on using it.
    #[expect(clippy::too_many_arguments, reason = "each is another part of one request")]
    pub async fn run_h1(
        &self,
        stream: Stream,
        seen: &Seen<'_>,
        site: &Arc<Site>,
        routed: &Routed,
        limits: Limits,
        body: &[u8],
        forwarding: &Forwarding<'_>,
        shutdown: &ShutdownWatch,
    ) -> (Option<Stream>, Outcome) {
        let head = &routed.head(seen.head);
        let mut prefix = Vec::with_capacity(head.length + 256 + body.len());
        serialise(head, head.framing, head.asks_for_websocket(), forwarding, head.host, &mut prefix);
        prefix.extend_from_slice(body);
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(if head.keep_alive { Some(60) } else { None });
        session.set_pipelined_prefix(BytesMut::from(prefix.as_slice()));
        let began = self.pipeline.store.ledger.applied();
        let passed = Passed::new(seen, site, routed, limits, began, body.len());
        passed.copy(Self::copy_of(seen, site, routed, forwarding));
        let reused = self.process(&passed, session, shutdown).await;
        (reused.map(|stream| stream.consume().0), self.outcome(&passed))
    }

    /// Has the origin answer a request on a stream of HTTP/2.
    #[expect(clippy::too_many_arguments, reason = "each is another part of one request")]
    pub async fn run_h2(
        &self,
        body: RecvStream,
        respond: SendResponse<Bytes>,
        seen: &Seen<'_>,
        site: &Arc<Site>,
        routed: &Routed,
        limits: Limits,
        forwarding: &Forwarding<'_>,
        shutdown: &ShutdownWatch,
    ) -> Outcome {
        let passed = Passed::new(seen, site, routed, limits, self.pipeline.store.ledger.applied(), 0);
        let Some(request) = request_header(&routed.head(seen.head), forwarding) else {
            passed.result.lock().status = 400;
            return self.outcome(&passed);
        };
        passed.copy(Self::copy_of(seen, site, routed, forwarding));
        let session = ServerSession::new_custom(Box::new(h2::session::Session::new(request, body, respond)));
        self.process(&passed, session, shutdown).await;
        self.outcome(&passed)
    }

    fn copy_of(seen: &Seen<'_>, site: &Site, routed: &Routed, forwarding: &Forwarding<'_>) -> Option<Pending> {
        Pending::of(seen, site, routed, |out| {
            write_forward_fields(&routed.head(seen.head), forwarding, Keep::RangeAndConditionals, out);
        })
    }

    /// Runs the proxy. An answer that takes longer than the site allows is broken off; a protocol that a client has
    /// switched to may take as long as it likes.
    async fn process(
        &self,
        passed: &Arc<Passed>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let proxied = PASSED.scope(passed.clone(), self.proxy.process_new_http(session, shutdown));
        let late = async {
            match passed.reason {
                Reason::PassUpgrade => std::future::pending().await,
                _ => passed.patience.exhausted().await,
            }
        };
        tokio::select! {
            reused = proxied => reused,
            () = late => {
                passed.failed(&self.metrics);
                let mut result = passed.result.lock();
                (result.failure, result.complete) = (Some(Failure::BetweenBytesTimeout), false);
                result.status = 504;
                None
            }
        }
    }

    fn outcome(&self, passed: &Passed) -> Outcome {
        passed.no_more_of_the_body();
        let result = *passed.result.lock();
        let outcome = match result.failure {
            Some(failure) => failure.outcome(),
            None if result.status >= 500 => "status-5xx",
            None => "ok",
        };
        let member = passed.asked.lock().choice.as_ref().map(|choice| (choice.index, choice.member.clone()));
        if let Some((_, member)) = &member {
            self.metrics.origin_request(passed.site.index, member.peer.label(), outcome);
        }
        let reason = result.failure.map_or(passed.reason, Failure::reason);
        let cache = if result.failure.is_some() { CacheOutcome::Error } else { CacheOutcome::Pass };
        Outcome {
            bytes: result.bytes,
            complete: result.complete,
            group: passed.group,
            origin: member.map(|(index, _)| index),
            retries: result.retries,
            ..Outcome::new(if result.status == 0 { 499 } else { result.status }, cache, Some(reason))
        }
    }
}

/// The proxy's side.
pub struct App {
    pipeline: Arc<Pipeline>,
    registry: Arc<Registry>,
}

/// The request's context; none only if the proxy were run by anybody but [`Pass`].
#[derive(Default)]
pub struct Context(Option<Arc<Passed>>);

impl Context {
    fn passed(&self) -> Result<&Arc<Passed>, BError> {
        self.0.as_ref().ok_or_else(|| Error::new(ErrorType::InternalError))
    }
}

#[async_trait]
impl ProxyHttp for App {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context(PASSED.try_with(Arc::clone).ok())
    }

    // No modules: the node does not recompress what it passes.
    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, context: &mut Context) -> Result<(), BError> {
        let limits = context.passed()?.limits;
        let downstream = session.as_downstream_mut();
        downstream.set_read_timeout(Some(limits.idle_timeout.get()));
        downstream.set_write_timeout(Some(limits.write_timeout.get()));
        downstream.set_min_send_rate(Some(usize::try_from(SEND_RATE_MIN).unwrap_or(usize::MAX)));
        downstream.set_total_drain_timeout(Some(Duration::from_secs(10)));
        Ok(())
    }

    async fn upstream_peer(&self, _: &mut Session, context: &mut Context) -> Result<Box<HttpPeer>, BError> {
        let passed = context.passed()?;
        let (member, connect) = passed.choose().await.map_err(|failure| {
            Error::new_up(match failure {
                Failure::Busy => ErrorType::Custom(BUSY),
                Failure::SessionRefused => ErrorType::Custom(REFUSED),
                _ => ErrorType::ConnectError,
            })
        })?;
        let mut peer = member.to_connect(connect, Some(passed.client));
        passed.patience.apply(member.peer.origin(), &mut peer);
        Ok(Box::new(peer))
    }

    /// Before anything is sent. Pingora has no other place to ask for a version of TLS.
    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        _: bool,
        _: &HttpPeer,
        _: std::os::fd::RawFd,
        connection: Option<&Digest>,
        context: &mut Context,
    ) -> Result<(), BError> {
        let is_accepted = context.passed()?.member().is_none_or(|member| member.peer.accepts(connection));
        if is_accepted { Ok(()) } else { Err(Error::new_up(ErrorType::TLSHandshakeFailure)) }
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<(), BError> {
        let passed = context.passed()?;
        let Some(member) = passed.member() else { return Err(Error::new(ErrorType::InternalError)) };
        let host = member.host_header(&passed.host);
        prepare(&member, &host, passed.payload, clock::wall(), request)
            .ok_or_else(|| Error::new(ErrorType::InvalidHTTPHeader))?;
        // Pingora takes it out; servers of gRPC insist on it.
        if passed.wants_trailers && member.peer.origin().http2 {
            request.insert_header(http::header::TE, "trailers")?;
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        ends: bool,
        context: &mut Context,
    ) -> Result<(), BError> {
        let passed = context.passed()?;
        passed.copy_body(body.as_deref().unwrap_or_default(), ends);
        if ends {
            passed.patience.request_ended();
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<(), BError> {
        let passed = context.passed()?;
        match is_failure(passed.group().retry(), response.status.as_u16()) {
            true => passed.failed(&self.pipeline.metrics),
            false => passed.succeeded(&self.pipeline.metrics),
        }
        if is_repeatable(session)
            && is_tried_again(passed.group().retry(), Ok(response.status.as_u16()))
            && passed.may_try_again()
        {
            return Err(Error::new_up(ErrorType::Custom(BETTERED)));
        }
        passed.patience.answered(false);
        let invalidated = self.invalidate(passed, response);
        if response.status.as_u16() != 101 {
            strip_hop_by_hop(response);
            if let Some(invalidated) = invalidated {
                *passed.kept.lock() = self.keep(passed, invalidated, response);
            }
            apply_rules(passed, response)?;
            if !passed.site.keep_surrogate_keys {
                surrogate::FIELDS.iter().for_each(|name| _ = response.remove_header(*name));
            }
        }
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        ends: bool,
        context: &mut Context,
    ) -> Result<Option<Duration>, BError> {
        let passed = context.passed()?;
        passed.patience.answered(ends);
        let mut kept = passed.kept.lock();
        let fits = kept.as_mut().zip(body.as_ref()).is_none_or(|(kept, piece)| kept.push(&self.pipeline, piece));
        let kept = if fits && !ends { None } else { kept.take() };
        if let Some(kept) = kept.filter(|_| fits) {
            kept.commit(&self.pipeline);
        }
        Ok(None)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<(), BError> {
        let passed = context.passed()?;
        if self.registry.is_parting() && !response.status.is_informational() {
            session.set_keepalive(None);
        }
        passed.tell_others().await;
        if let Some(cookie) = passed.cookie(response.status.as_u16()) {
            response.append_header(http::header::SET_COOKIE, cookie)?;
        }
        let status = CacheStatus {
            forward: Some(if passed.reason == Reason::Method { Forward::Method } else { Forward::Bypass }),
            forward_status: Some(response.status.as_u16()),
            detail: Some(passed.reason),
            ..CacheStatus::default()
        };
        if passed.site.cache_status {
            return append_cache_status(response, &status, &passed.site.backing(passed.group).name);
        }
        // What caches behind us say is kept to ourselves as well.
        response.remove_header("cache-status");
        Ok(())
    }

    /// Nothing has been sent: any request may go to another origin.
    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        context: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let again = context.passed().is_ok_and(|passed| {
            passed.failed(&self.pipeline.metrics);
            passed.may_try_again()
        });
        error.set_retry(again);
        error
    }

    /// Something may have been sent: only what can be repeated goes to another origin, and only as long as nothing came.
    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        context: &mut Context,
        client_reused: bool,
    ) -> Box<Error> {
        if *error.esource() == ErrorSource::Downstream {
            error.set_retry(false);
            return error;
        }
        if *error.etype() == ErrorType::TLSHandshakeFailure {
            // The connection was none; nothing has been sent.
            return self.fail_to_connect(session, peer, context, error);
        }
        if *error.etype() == ErrorType::Custom(BETTERED) {
            error.set_retry(true);
            return error;
        }
        let repeatable = is_repeatable(session);
        let closed = matches!(
            error.etype(),
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError | ErrorType::H2Error
        );
        // A connection from the pool that was just being closed is nobody's failure, and costs no budget.
        let again = context.passed().is_ok_and(|passed| {
            if client_reused && closed {
                return repeatable && passed.ask_the_same_again();
            }
            passed.failed(&self.pipeline.metrics);
            let is_reason = closed || is_tried_again(passed.group().retry(), Err(failure_of(&error)));
            repeatable && is_reason && passed.may_try_again()
        });
        error.set_retry(again);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
        let client_is_gone = *error.esource() == ErrorSource::Downstream && !is_client_fault(error);
        let status = match error.etype() {
            ErrorType::HTTPStatus(status) => *status,
            _ if *error.esource() == ErrorSource::Downstream => 400,
            _ => failure_of(error).status(),
        };
        if let Ok(passed) = context.passed() {
            let mut result = passed.result.lock();
            result.failure = (*error.esource() != ErrorSource::Downstream).then(|| failure_of(error));
            result.status = if client_is_gone { 499 } else { status };
        }
        if !client_is_gone && session.response_written().is_none() {
            let detail =
                if *error.esource() == ErrorSource::Downstream { None } else { Some(failure_of(error).reason()) };
            let cache_status = CacheStatus { forward: Some(Forward::Method), detail, ..CacheStatus::default() };
            let passed = context.passed().ok();
            let _ = respond(session, passed.map(AsRef::as_ref), status, &cache_status).await;
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        if let Ok(passed) = context.passed() {
            let mut result = passed.result.lock();
            if let Some(written) = session.response_written() {
                result.status = written.status.as_u16();
            }
            result.bytes = session.body_bytes_sent() as u64;
            result.complete = error.is_none();
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        // The access log and the metrics have it, once.
        true
    }
}

impl App {
    fn keep(&self, passed: &Passed, invalidated: Invalidated, response: &ResponseHeader) -> Option<Kept> {
        if passed.method != "POST" || !response.headers.contains_key("content-location") {
            return None;
        }
        let mut fields = Vec::with_capacity(512);
        let headers = response.headers.iter();
        let of_body =
            |name: &http::HeaderName| *name == http::header::CONTENT_LENGTH || *name == http::header::TRANSFER_ENCODING;
        for (name, value) in headers.filter(|(name, _)| !of_body(name)) {
            fields.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        let length = response.headers.get(http::header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        Kept::new(&self.pipeline, passed, invalidated, response.status.as_u16(), fields, length)
    }
}

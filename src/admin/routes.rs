//! The routes, a row each, and which one a request is for.

use std::future::{Future, ready};
use std::pin::Pin;

use edge_config::section::admin::Verb;
use http::{Method, StatusCode};
use serde_json::json;

use super::access::{Caller, Denied};
use super::asked::Asked;
use super::reply::Reply;
use super::sites::HostChange;
use super::{Admin, openapi};

/// An answer on its way. Boxed, so that what one route goes through makes no other's future larger, which is moved for
/// every request.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Reply, Reply>> + Send + 'a>>;

/// One method of one path.
pub struct Route {
    pub method: Method,
    /// What is in braces, at its end, is whatever a request has there.
    pub path: &'static str,
    pub handler: Handler,
}

/// Who may ask, and what answers. There is no caller where nobody is asked for a token.
pub enum Handler {
    Anybody(for<'a> fn(&'a Admin, &'a mut Asked) -> Answering<'a>),
    /// Who has a token with this verb.
    For(Verb, Reach, for<'a> fn(&'a Admin, Caller, &'a mut Asked) -> Answering<'a>),
}

/// What the sites of a token have to do with a route. It is told here and kept by the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// What is asked about is of a site, or of all of them: the token has to be for it.
    Named,
    /// The answer is about the sites of the token alone.
    Own,
    /// It is about the node, and so about all sites: the token has to be for all of them.
    Node,
}

use Handler::{Anybody, For};
use Reach::{Named, Node, Own};

const PURGE: &str = "/v1/purge";
const UPGRADE: &str = "/v1/upgrade";

/// All of them.
pub static ROUTES: &[Route] = &[
    get("/livez", Anybody(|_, _| now(Reply::text(StatusCode::OK, "ok\n")))),
    get("/readyz", Anybody(|admin, _| Box::pin(admin.readyz()))),
    get("/announcez", Anybody(|admin, _| Box::pin(admin.announcez()))),
    get("/currentz", Anybody(|admin, _| now(admin.currentz()))),
    get("/metrics", For(Verb::Observe, Own, |admin, caller, _| now(admin.metrics(&caller)))),
    get("/v1/stat", For(Verb::Operate, Node, |admin, _, _| now(Reply::json(StatusCode::OK, &admin.stat())))),
    get(
        "/v1/statistics",
        For(Verb::Observe, Own, |admin, caller, asked| Box::pin(ready(admin.statistics(&caller, asked)))),
    ),
    post(PURGE, For(Verb::Purge, Named, |admin, caller, asked| Box::pin(admin.purge(caller, asked)))),
    get("/v1/purges/{id}", For(Verb::Purge, Named, |admin, caller, asked| Box::pin(admin.find_purge(caller, asked)))),
    get("/v1/nodes", For(Verb::Operate, Node, |admin, _, _| now(admin.nodes()))),
    post(
        "/v1/nodes/forget",
        For(Verb::Operate, Node, |admin, caller, asked| Box::pin(admin.forget_node(caller, asked))),
    ),
    get("/v1/explain", For(Verb::Explain, Named, |admin, caller, asked| Box::pin(admin.explain(caller, asked)))),
    get(
        "/v1/cache/object",
        For(Verb::Explain, Named, |admin, caller, asked| Box::pin(admin.cache_object(caller, asked))),
    ),
    get(
        "/v1/cache/objects",
        For(Verb::Explain, Named, |admin, caller, asked| Box::pin(admin.cache_objects(caller, asked))),
    ),
    get(
        "/v1/cache/verify",
        For(Verb::Operate, Named, |admin, caller, _| Box::pin(ready(admin.cache_verification(&caller)))),
    ),
    post(
        "/v1/cache/verify",
        For(Verb::Operate, Named, |admin, caller, asked| Box::pin(admin.cache_verify(caller, asked))),
    ),
    get("/v1/origins", For(Verb::Operate, Own, |admin, caller, _| now(admin.origins(&caller)))),
    post(
        "/v1/origins/drain",
        For(Verb::Operate, Named, |admin, caller, asked| Box::pin(admin.drain_origin(caller, asked))),
    ),
    post(
        "/v1/origins/undrain",
        For(Verb::Operate, Named, |admin, caller, asked| Box::pin(admin.undrain_origin(caller, asked))),
    ),
    get("/v1/certificates", For(Verb::Certificates, Own, |admin, caller, _| now(admin.certificates(&caller)))),
    post(
        "/v1/certificates",
        For(Verb::Certificates, Named, |admin, caller, asked| Box::pin(admin.add_certificate(caller, asked))),
    ),
    post(
        "/v1/certificates/delete",
        For(Verb::Certificates, Named, |admin, caller, asked| Box::pin(admin.delete_certificate(caller, asked))),
    ),
    post(
        "/v1/certificates/account/forget",
        For(Verb::Certificates, Node, |admin, _, _| Box::pin(admin.forget_account())),
    ),
    get("/v1/sites", For(Verb::Configure, Own, |admin, caller, _| now(admin.sites(&caller)))),
    post("/v1/sites", For(Verb::Configure, Node, |admin, caller, asked| Box::pin(admin.add_site(caller, asked)))),
    post(
        "/v1/sites/delete",
        For(Verb::Configure, Node, |admin, caller, asked| Box::pin(admin.delete_site(caller, asked))),
    ),
    post("/v1/hosts", For(Verb::Configure, Node, |admin, caller, asked| Box::pin(admin.add_host(caller, asked)))),
    post(
        "/v1/hosts/delete",
        For(Verb::Configure, Node, |admin, caller, asked| Box::pin(admin.delete_host(caller, asked))),
    ),
    post(
        "/v1/hosts/revoke",
        For(Verb::Configure, Node, |admin, _, asked| Box::pin(admin.judge_host(asked, HostChange::Revoke))),
    ),
    post(
        "/v1/hosts/allow",
        For(Verb::Configure, Node, |admin, _, asked| Box::pin(admin.judge_host(asked, HostChange::Allow))),
    ),
    get(
        "/v1/openapi.json",
        Anybody(|_, _| now(Reply { body: openapi::document(), ..Reply::json(StatusCode::OK, &()) })),
    ),
    get("/v1/config", For(Verb::Configure, Own, |admin, caller, _| Box::pin(ready(admin.config(&caller))))),
    get(
        "/v1/config/history",
        For(Verb::Configure, Named, |admin, caller, asked| Box::pin(admin.config_history(caller, asked))),
    ),
    post(
        "/v1/config/push",
        For(Verb::Configure, Named, |admin, caller, asked| Box::pin(admin.config_push(caller, asked))),
    ),
    post(
        "/v1/config/rollback",
        For(Verb::Configure, Named, |admin, caller, asked| Box::pin(admin.config_rollback(caller, asked))),
    ),
    post(
        "/v1/config/diff",
        For(Verb::Configure, Named, |admin, caller, asked| Box::pin(admin.config_diff(caller, asked))),
    ),
    post("/v1/config/reload", For(Verb::Operate, Node, |admin, _, _| Box::pin(admin.reload()))),
    post(
        "/v1/drain",
        For(Verb::Operate, Node, |admin, _, _| {
            admin.node.drain();
            now(Reply::json(StatusCode::ACCEPTED, &json!({ "draining": true })))
        }),
    ),
    post(UPGRADE, For(Verb::Operate, Node, |admin, _, _| Box::pin(admin.upgrade()))),
    post("/test/clock", Anybody(|admin, asked| now(admin.advance_clock(asked.query())))),
];

const fn get(path: &'static str, handler: Handler) -> Route {
    Route { method: Method::GET, path, handler }
}

const fn post(path: &'static str, handler: Handler) -> Route {
    Route { method: Method::POST, path, handler }
}

/// An answer that waits for nothing.
fn now(reply: Reply) -> Answering<'static> {
    Box::pin(ready(Ok(reply)))
}

impl Route {
    /// Whether a path is this one's.
    fn is_at(&self, path: &str) -> bool {
        match self.fixed() {
            Some(fixed) => path.starts_with(fixed),
            None => path == self.path,
        }
    }

    /// Whether what it changes would be lost while another process takes over. Purges are for the log to take or not.
    fn changes_what_is_handed_over(&self) -> bool {
        self.method != Method::GET && ![UPGRADE, PURGE].contains(&self.path)
    }

    /// What is before the braces.
    fn fixed(&self) -> Option<&'static str> {
        self.path.split_once('{').map(|(fixed, _)| fixed)
    }
}

impl Admin {
    /// Answers a request. Who may not ask is told so before a byte of a body is read.
    pub(super) async fn answer(&self, asked: &mut Asked) -> Reply {
        let route = match route(asked) {
            Ok(route) => route,
            Err(nowhere) => return nowhere,
        };
        if self.node.is_frozen() && route.changes_what_is_handed_over() {
            return Reply {
                retry_after: Some(1),
                ..Reply::error(StatusCode::SERVICE_UNAVAILABLE, "another process of the node is taking over: ask again")
            };
        }
        let answering = match &route.handler {
            Anybody(handler) => handler(self, asked),
            For(verb, reach, handler) => match self.caller(asked, *verb) {
                Ok(caller) if *reach == Node && !caller.may_everything() => return denied(),
                Ok(caller) => handler(self, caller, asked),
                Err(refused) => return refused,
            },
        };
        answering.await.unwrap_or_else(|refused| refused)
    }

    fn caller(&self, asked: &Asked, verb: Verb) -> Result<Caller, Reply> {
        self.node.access().caller(asked.authorization(), verb).map_err(|refused| match refused {
            Denied::Unknown => {
                Reply::error(StatusCode::UNAUTHORIZED, "expected Authorization: Bearer and a known token")
            }
            Denied::Verb => denied(),
        })
    }
}

fn denied() -> Reply {
    Reply::error(StatusCode::FORBIDDEN, "the token is not for this")
}

/// Whose a request is.
fn route(asked: &Asked) -> Result<&'static Route, Reply> {
    let mut here = ROUTES.iter().filter(|route| route.is_at(asked.path())).peekable();
    if here.peek().is_none() {
        return Err(Reply::text(StatusCode::NOT_FOUND, format!("paths: {}\n", paths().join(" "))));
    }
    let other = || Reply::text(StatusCode::METHOD_NOT_ALLOWED, "this path knows another method\n");
    here.find(|route| route.method == asked.method).ok_or_else(other)
}

/// Every path, once.
fn paths() -> Vec<&'static str> {
    let mut paths: Vec<_> = ROUTES.iter().map(|route| route.path).collect();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests;

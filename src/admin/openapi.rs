//! The purge API as OpenAPI, made from the types it reads and writes.

mod sites;

use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::cached::{CachedObject, CachedObjects, Verified};
use super::certificates::{AddRequest, CertificateChanged, CertificateState, DeleteRequest, Held, Unusable};
use super::config::{
    Diff, DiffRequest, DocumentState, Documents, NodeConfig, Published, PushRequest, RollbackRequest, Version, Versions,
};
use super::nodes::{ForgetRequest, NodeState, Nodes};
use super::origins::{DrainRequest, OriginState, OriginStates};
use super::purge::{PurgeRequest, Receipt, Wrong};
use super::sites::{HostCertificate, HostRequest, HostState, SiteDeletion, SiteRequest, SiteState, Sites, TxtRecord};
use super::statistics::{SiteStatistics, Statistics};
use crate::store::verify::Progress;

/// What every error looks like.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it is a schema")]
struct Errors {
    errors: Vec<Wrong>,
}

/// Which process serves.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it is a schema")]
struct Upgraded {
    pid: u32,
    /// The one that finishes what it has.
    before: u32,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Littoral", description = "Purging and looking at what a node has stored, taking origins out, and the configuration of all nodes."),
    paths(statistics, purge, purge_receipt, nodes, node_forget, cache_object, cache_objects, cache_verify, cache_verification, origins, origin_drain, origin_undrain, certificates, certificate_add, certificate_delete, sites::sites, sites::site_add, sites::site_delete, sites::host_add, sites::host_delete, sites::host_revoke, sites::host_allow, sites::account_forget, config_state, config_history, config_push, config_rollback, config_diff, upgrade, announcez),
    components(schemas(Statistics, SiteStatistics, PurgeRequest, Receipt, Nodes, NodeState, ForgetRequest, CachedObject, CachedObjects, Verified, Progress, OriginState, OriginStates, DrainRequest, Held, CertificateState, Unusable, AddRequest, DeleteRequest, CertificateChanged, Sites, SiteState, HostState, HostCertificate, TxtRecord, SiteRequest, SiteDeletion, HostRequest, Documents, DocumentState, NodeConfig, Version, Versions, PushRequest, RollbackRequest, DiffRequest, Published, Diff, Upgraded, Errors)),
    modifiers(&Bearer),
    security(("token" = []))
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        components.add_security_scheme("token", scheme);
    }
}

/// What the sites that the token is for did on this node since it was started.
#[utoipa::path(
    get,
    path = "/v1/statistics",
    params(("site" = Option<String>, Query, description = "this site alone, by name")),
    responses(
        (status = 200, description = "each site, by name", body = Statistics),
        (status = 400, description = "what is wrong with the question", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this site, or not for observe", body = Errors),
        (status = 404, description = "there is no such site", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `statistics`")]
fn statistics() {}

/// Purge what is named. When it is answered, the purge is on disk; 200 says that it holds on every node for every request from then
/// on, 202 that some have still to apply it.
#[utoipa::path(
    post,
    path = "/v1/purge",
    request_body = PurgeRequest,
    params(
        ("wait" = Option<String>, Query, description = "`all`: wait until every node has applied it"),
        ("timeout" = Option<String>, Query, description = "how long to wait, as in 2s"),
    ),
    responses(
        (status = 200, description = "purged on every node", body = Receipt),
        (status = 202, description = "durable, and on its way to the nodes that have not applied it", body = Receipt),
        (status = 400, description = "the request makes no sense; everything that is wrong with it", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this", body = Errors),
        (status = 413, description = "more than 1 MiB", body = Errors),
        (status = 429, description = "faster than the site, or the log, may; Retry-After says when to come again", body = Errors),
        (status = 503, description = "the node is ending; nothing is purged", body = Errors),
        (status = 507, description = "the log cannot be written; nothing is purged", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `purge::handle`")]
fn purge() {}

/// The receipt of a purge.
#[utoipa::path(
    get,
    path = "/v1/purges/{id}",
    params(("id" = String, Path, description = "the id of the receipt")),
    responses(
        (status = 200, description = "the purge, and how far each node is", body = Receipt),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this", body = Errors),
        (status = 404, description = "unknown, or not the token's", body = Errors),
        (status = 503, description = "the node is ending", body = Errors),
        (status = 507, description = "the log cannot be read", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `purge::handle`")]
fn purge_receipt() {}

/// Have another process of the node take over, of the program as it is installed now. Answered when it serves.
#[utoipa::path(
    post,
    path = "/v1/upgrade",
    responses(
        (status = 200, description = "another process serves", body = Upgraded),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for every site, or not for operate", body = Errors),
        (status = 409, description = "an upgrade is under way, or the node ends", body = Errors),
        (status = 422, description = "the new process does not serve, and why; this one goes on", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `routes`")]
fn upgrade() {}

/// Whether routers are to lead clients here. No token is asked for.
#[utoipa::path(
    get,
    path = "/announcez",
    security(()),
    responses(
        (status = 200, description = "announce", body = String, content_type = "text/plain"),
        (status = 503, description = "why not: starting, or drained", body = String, content_type = "text/plain"),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `routes`")]
fn announcez() {}

/// The nodes that follow the same log, and how far each is.
#[utoipa::path(
    get,
    path = "/v1/nodes",
    responses(
        (status = 200, description = "every node there is; none where a node alone keeps its log", body = Nodes),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for every site, or not for operate", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `nodes`")]
fn nodes() {}

/// Take a node that is no more out of the list: receipts do not wait for it.
#[utoipa::path(
    post,
    path = "/v1/nodes/forget",
    request_body = ForgetRequest,
    responses(
        (status = 200, description = "those that are left", body = Nodes),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for every site, or not for operate", body = Errors),
        (status = 404, description = "no node is called that", body = Errors),
        (status = 409, description = "it is this node, or the hub cannot be reached", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `nodes`")]
fn node_forget() {}

/// Everything stored for a URL: where it is, how old it is, and what purges have left of it.
#[utoipa::path(
    get,
    path = "/v1/cache/object",
    params(
        ("url" = String, Query, description = "the URL, as a client would ask for it"),
        ("header" = Option<Vec<String>>, Query, description = "a field of the request, `Name: value`; may be repeated"),
    ),
    responses(
        (status = 200, description = "what is stored", body = CachedObject),
        (status = 400, description = "it is no URL, or no request that a client could send", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this site, or not for explain", body = Errors),
        (status = 404, description = "nothing is stored, or no site answers for the host", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `cached::handle`")]
fn cache_object() {}

/// What is stored on disks of a site or below a URL, a page of it. One page looks at 2,000 records or for a second at most:
/// it may have none and still not be the last.
#[utoipa::path(
    get,
    path = "/v1/cache/objects",
    params(
        ("site" = Option<String>, Query, description = "the site, by name; not needed where `prefix` or the token says it"),
        ("prefix" = Option<String>, Query, description = "http://host/path, host/path or /path"),
        ("limit" = Option<usize>, Query, description = "responses of a page, 1 to 1000; 100 if it is absent"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "a page", body = CachedObjects),
        (status = 400, description = "what is wrong with the question", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this site, or not for explain", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `cached::handle`")]
fn cache_objects() {}

/// Read what is on disks, to see whether it is what was written. What is damaged is forgotten.
#[utoipa::path(
    post,
    path = "/v1/cache/verify",
    params(
        ("url" = Option<String>, Query, description = "what is stored for this URL, now"),
        ("header" = Option<Vec<String>>, Query, description = "a field of the request, `Name: value`; may be repeated"),
        ("all" = Option<String>, Query, description = "`1`: everything, in the background; needs a token for every site"),
        ("rate" = Option<u32>, Query, description = "with `all`: MiB read in a second at most; 64 if it is absent"),
    ),
    responses(
        (status = 200, description = "what was found, chunk by chunk", body = Verified),
        (status = 202, description = "it has begun", body = Progress),
        (status = 400, description = "what is wrong with the question", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this, or not for operate", body = Errors),
        (status = 404, description = "nothing is on a disk for the URL", body = Errors),
        (status = 409, description = "a verification of everything is under way", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `cached::handle`")]
fn cache_verify() {}

/// How far the verification of everything is.
#[utoipa::path(
    get,
    path = "/v1/cache/verify",
    responses(
        (status = 200, description = "how far it is, and what it has found", body = Progress),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for every site, or not for operate", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `cached::handle`")]
fn cache_verification() {}

/// How origins stand: those of the sites the token is for.
#[utoipa::path(
    get,
    path = "/v1/origins",
    responses(
        (status = 200, description = "each address of each origin", body = OriginStates),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for operate", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `origins`")]
fn origins() {}

/// Take an origin out: no new sessions go there, and what is under way ends by itself. It holds until it is undone, the origin
/// leaves the configuration, or the node is started again. Asked again, it begins anew.
#[utoipa::path(
    post,
    path = "/v1/origins/drain",
    request_body = DrainRequest,
    responses(
        (status = 200, description = "how it stands now", body = OriginStates),
        (status = 400, description = "the request makes no sense", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this site, or not for operate", body = Errors),
        (status = 404, description = "there is no such site or origin", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `origins`")]
fn origin_drain() {}

/// Have an origin get requests again.
#[utoipa::path(
    post,
    path = "/v1/origins/undrain",
    request_body = DrainRequest,
    responses(
        (status = 200, description = "how it stands now", body = OriginStates),
        (status = 400, description = "the request makes no sense", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this site, or not for operate", body = Errors),
        (status = 404, description = "there is no such site or origin", body = Errors),
        (status = 409, description = "it is not drained, or by the configuration", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `origins`")]
fn origin_undrain() {}

/// The certificates of the sites that the token is for, and which of them cannot be used here. No answer has a private key.
#[utoipa::path(
    get,
    path = "/v1/certificates",
    responses(
        (status = 200, description = "each certificate, once for each site it is used for", body = Held),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for certificates", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `certificates`")]
fn certificates() {}

/// Put a certificate in force for a site, on all nodes. It is used for hosts of the site alone, and goes before the operator's files
/// there; of several for one name, the last one that was added.
#[utoipa::path(
    post,
    path = "/v1/certificates",
    request_body = AddRequest,
    responses(
        (status = 200, description = "in force on the node that was asked, and on its way to the others", body = CertificateChanged),
        (status = 202, description = "on its way", body = CertificateChanged),
        (status = 400, description = "the request makes no sense", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this site, or not for certificates", body = Errors),
        (status = 404, description = "there is no such site", body = Errors),
        (status = 409, description = "the node has no store_key, the site has 16 certificates, or others were changed meanwhile", body = Errors),
        (status = 422, description = "it cannot be used: why", body = Errors),
        (status = 429, description = "more often than 5 times a second; Retry-After says when to come again", body = Errors),
        (status = 503, description = "the hub does not answer", body = Errors),
        (status = 507, description = "the node's disk does not keep it", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `certificates`")]
fn certificate_add() {}

/// Take a certificate of a site out of force, on all nodes.
#[utoipa::path(
    post,
    path = "/v1/certificates/delete",
    request_body = DeleteRequest,
    responses(
        (status = 200, description = "out of force on the node that was asked, and on its way to the others", body = CertificateChanged),
        (status = 202, description = "on its way", body = CertificateChanged),
        (status = 400, description = "the request makes no sense", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this site, or not for certificates", body = Errors),
        (status = 404, description = "there is no such site, or it has no such certificate", body = Errors),
        (status = 409, description = "others were changed meanwhile", body = Errors),
        (status = 429, description = "more often than 5 times a second; Retry-After says when to come again", body = Errors),
        (status = 503, description = "the hub does not answer", body = Errors),
        (status = 507, description = "the node's disk does not keep it", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `certificates`")]
fn certificate_delete() {}

/// What the hub has of the configuration, what is in force on this node, and what the others say they have.
#[utoipa::path(
    get,
    path = "/v1/config",
    responses(
        (status = 200, description = "documents of the sites the token is for, and the nodes where it is for all", body = Documents),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for configure", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `config::handle`")]
fn config_state() {}

/// The versions of a document that the hub has, 64 at most.
#[utoipa::path(
    get,
    path = "/v1/config/history",
    params(
        ("site" = Option<String>, Query, description = "the site, by name"),
        ("node" = Option<String>, Query, description = "`1`, in place of a site: the settings for all nodes"),
        ("version" = Option<u64>, Query, description = "this one alone, with its text"),
    ),
    responses(
        (status = 200, description = "the earliest first", body = Versions),
        (status = 400, description = "what is wrong with the question", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this, or not for configure", body = Errors),
        (status = 404, description = "there is no such version", body = Errors),
        (status = 409, description = "the node follows no hub", body = Errors),
        (status = 503, description = "the hub does not answer", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `config::handle`")]
fn config_history() {}

/// Publish a version of a site, or of the settings for all nodes. It is validated together with everything in force on this node,
/// and again by each node before it is in force there. A token that is not for all sites may change the rules of its site alone.
#[utoipa::path(
    post,
    path = "/v1/config/push",
    request_body = PushRequest,
    responses(
        (status = 200, description = "published, and decided about here", body = Published),
        (status = 202, description = "published, and on its way", body = Published),
        (status = 400, description = "the request makes no sense", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this", body = Errors),
        (status = 409, description = "another version is the latest, or the node follows no hub", body = Errors),
        (status = 422, description = "it is not good; everything that is wrong with it", body = Errors),
        (status = 503, description = "the hub does not answer", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `config::handle`")]
fn config_push() {}

/// Publish the text of an earlier version again, for all nodes.
#[utoipa::path(
    post,
    path = "/v1/config/rollback",
    request_body = RollbackRequest,
    responses(
        (status = 200, description = "published, and decided about here", body = Published),
        (status = 202, description = "published, and on its way", body = Published),
        (status = 400, description = "the request makes no sense", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this", body = Errors),
        (status = 404, description = "there is no such version", body = Errors),
        (status = 409, description = "another version was published meanwhile, or the node follows no hub", body = Errors),
        (status = 422, description = "it is not good any more; everything that is wrong with it", body = Errors),
        (status = 503, description = "the hub does not answer", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `config::handle`")]
fn config_rollback() {}

/// How a text differs from the latest version.
#[utoipa::path(
    post,
    path = "/v1/config/diff",
    request_body = DiffRequest,
    responses(
        (status = 200, description = "as `diff -u` has it", body = Diff),
        (status = 400, description = "the request makes no sense", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this, or not for configure", body = Errors),
        (status = 409, description = "the node follows no hub", body = Errors),
        (status = 503, description = "the hub does not answer", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `config::handle`")]
fn config_diff() {}

/// The document, as JSON.
pub fn document() -> String {
    Document::openapi().to_json().unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_and_schemas_are_in_it() {
        let document: serde_json::Value = serde_json::from_str(&document()).expect("JSON");
        for pointer in [
            "/paths/~1v1~1purge/post/requestBody/content/application~1json/schema",
            "/paths/~1v1~1purges~1{id}/get/responses/200",
            "/components/schemas/PurgeRequest/properties/tags",
            "/components/schemas/Receipt/properties/position",
            "/paths/~1v1~1cache~1object/get/responses/404",
            "/paths/~1v1~1cache~1objects/get/responses/200",
            "/paths/~1v1~1cache~1verify/post/responses/409",
            "/paths/~1v1~1cache~1verify/get/responses/200",
            "/components/schemas/CachedObject/properties/records",
            "/components/schemas/Progress/properties/damaged",
            "/paths/~1v1~1origins~1drain/post/responses/404",
            "/components/schemas/DrainRequest/properties/for",
            "/paths/~1v1~1statistics/get/responses/404",
            "/components/schemas/SiteStatistics/properties/hit_ratio",
            "/paths/~1v1~1certificates/post/responses/422",
            "/paths/~1v1~1certificates~1delete/post/responses/404",
            "/components/schemas/CertificateState/properties/fingerprint",
            "/paths/~1v1~1sites/post/responses/422",
            "/paths/~1v1~1hosts~1revoke/post/responses/409",
            "/components/schemas/HostState/properties/live",
            "/paths/~1v1~1config~1push/post/responses/422",
            "/components/schemas/PushRequest/properties/share",
            "/paths/~1v1~1upgrade/post/responses/422",
            "/paths/~1announcez/get/responses/503",
            "/components/securitySchemes/token",
        ] {
            assert!(document.pointer(pointer).is_some(), "{pointer} is missing: {document}");
        }
    }
}

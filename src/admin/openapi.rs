//! The purge API as OpenAPI, made from the types it reads and writes.

use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::purge::{PurgeRequest, Receipt, Wrong};

/// What every error looks like.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it is a schema")]
struct Errors {
    errors: Vec<Wrong>,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Littoral", description = "Purging what a node has stored."),
    paths(purge, purge_receipt),
    components(schemas(PurgeRequest, Receipt, Errors)),
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

/// Purge what is named. When it is answered, the purge is on disk and holds for every request from then on.
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
            "/components/securitySchemes/token",
        ] {
            assert!(document.pointer(pointer).is_some(), "{pointer} is missing: {document}");
        }
    }
}

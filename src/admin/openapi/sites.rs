//! The routes of sites and their hosts.

use super::Errors;
use crate::admin::config::Published;
use crate::admin::sites::{HostRequest, HostState, SiteDeletion, SiteRequest, Sites};

/// The sites of the token, and how their hosts stand on this node.
#[utoipa::path(
    get,
    path = "/v1/sites",
    responses(
        (status = 200, description = "the sites", body = Sites),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this, or not for configure", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `sites`")]
pub(super) fn sites() {}

/// Publish a new site, on all nodes. Its hosts are reserved by that: no other site can have them.
#[utoipa::path(
    post,
    path = "/v1/sites",
    request_body = SiteRequest,
    responses(
        (status = 200, description = "published, and decided about here", body = Published),
        (status = 202, description = "published, and on its way", body = Published),
        (status = 400, description = "the request makes no sense", body = Errors),
        (status = 404, description = "the hub has no such site, or that no such host", body = Errors),
        (status = 409, description = "there is one already, or the node follows no hub", body = Errors),
        (status = 422, description = "it is not good; everything that is wrong with it", body = Errors),
        (status = 503, description = "the hub does not answer", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this, or not for configure", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `sites`")]
pub(super) fn site_add() {}

/// Take a site away, on all nodes.
#[utoipa::path(
    post,
    path = "/v1/sites/delete",
    request_body = SiteDeletion,
    responses(
        (status = 200, description = "published, and decided about here", body = Published),
        (status = 202, description = "published, and on its way", body = Published),
        (status = 400, description = "the request makes no sense", body = Errors),
        (status = 404, description = "the hub has no such site, or that no such host", body = Errors),
        (status = 409, description = "there is one already, or the node follows no hub", body = Errors),
        (status = 422, description = "it is not good; everything that is wrong with it", body = Errors),
        (status = 503, description = "the hub does not answer", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this, or not for configure", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `sites`")]
pub(super) fn site_delete() {}

/// Add a host to a site.
#[utoipa::path(
    post,
    path = "/v1/hosts",
    request_body = HostRequest,
    responses(
        (status = 200, description = "published, and decided about here", body = Published),
        (status = 202, description = "published, and on its way", body = Published),
        (status = 400, description = "the request makes no sense", body = Errors),
        (status = 404, description = "the hub has no such site, or that no such host", body = Errors),
        (status = 409, description = "there is one already, or the node follows no hub", body = Errors),
        (status = 422, description = "it is not good; everything that is wrong with it", body = Errors),
        (status = 503, description = "the hub does not answer", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this, or not for configure", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `sites`")]
pub(super) fn host_add() {}

/// Take a host of a site away.
#[utoipa::path(
    post,
    path = "/v1/hosts/delete",
    request_body = HostRequest,
    responses(
        (status = 200, description = "published, and decided about here", body = Published),
        (status = 202, description = "published, and on its way", body = Published),
        (status = 400, description = "the request makes no sense", body = Errors),
        (status = 404, description = "the hub has no such site, or that no such host", body = Errors),
        (status = 409, description = "there is one already, or the node follows no hub", body = Errors),
        (status = 422, description = "it is not good; everything that is wrong with it", body = Errors),
        (status = 503, description = "the hub does not answer", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this, or not for configure", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `sites`")]
pub(super) fn host_delete() {}

/// Have no certificate ordered for a host any more, and use none that was issued.
#[utoipa::path(
    post,
    path = "/v1/hosts/revoke",
    request_body = HostRequest,
    responses(
        (status = 200, description = "how it stands", body = HostState),
        (status = 400, description = "the request makes no sense", body = Errors),
        (status = 409, description = "nothing is known of this host of this site, or the hub does not answer", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this, or not for configure", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `sites`")]
pub(super) fn host_revoke() {}

/// Have a host that was revoked looked at anew.
#[utoipa::path(
    post,
    path = "/v1/hosts/allow",
    request_body = HostRequest,
    responses(
        (status = 200, description = "how it stands", body = HostState),
        (status = 400, description = "the request makes no sense", body = Errors),
        (status = 409, description = "nothing is known of this host of this site, or the hub does not answer", body = Errors),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for this, or not for configure", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `sites`")]
pub(super) fn host_allow() {}

/// Have another account with the authority made for the next order.
#[utoipa::path(
    post,
    path = "/v1/certificates/account/forget",
    responses(
        (status = 200, description = "there is none any more"),
        (status = 401, description = "no known token", body = Errors),
        (status = 403, description = "the token is not for all sites, or not for certificates", body = Errors),
        (status = 503, description = "the hub does not answer", body = Errors),
    )
)]
#[expect(dead_code, reason = "it stands for the handler in `certificates`")]
pub(super) fn account_forget() {}

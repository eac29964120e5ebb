//! Whether a response may be stored, and for how long it is fresh (RFC 9111 section 3).

use super::age;
use super::cache_status::Reason;
use super::directives::{ResponseDirectives, no_cache_field_names};
use super::fields::{Fields, same_name};
use super::freshness::{self, is_heuristically_cacheable};
use super::reuse::Freshness;
use super::time::{DeltaSeconds, UnixMs};
use super::validation::validators;
use super::vary;

/// What storing needs to know of the request that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// The method is GET.
    pub method_is_get: bool,
    /// It carried `Authorization`.
    pub has_authorization: bool,
    /// It carried `Cache-Control: no-store`.
    pub no_store: bool,
    /// When it was sent.
    pub request_time: UnixMs,
    /// When the head of the response arrived.
    pub response_time: UnixMs,
}

/// What a site does with responses that set cookies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetCookie {
    /// Does not store them unless `public`, `s-maxage` or a targeted field shows that the origin means it.
    #[default]
    Refuse,
    /// Treats `Set-Cookie` like any other field, as RFC 9111 section 7.3 does.
    Rfc9111,
}

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// The method is not GET.
    Method,
    /// The request carried `no-store`.
    RequestNoStore,
    /// A part is not stored in the place of the whole.
    PartialContent,
    /// The status is not one to store, or not one that `must-understand` lets us.
    Status,
    /// The response carries `no-store`.
    NoStore,
    /// The response carries `private`.
    Private,
    /// `Vary` is `*`, or names more fields than we select by.
    VaryStar,
    /// The request carried `Authorization` and the response does not say that it may be shared.
    Authorization,
    /// The response sets a cookie and does not say that it may be shared.
    SetCookie,
    /// Nothing gives it freshness, and nothing could validate it.
    NoFreshness,
}

impl NotStored {
    /// The row of the table of reasons.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Method => Reason::Method,
            Self::RequestNoStore => Reason::RequestNoStore,
            Self::PartialContent => Reason::RangeNotStored,
            Self::Status => Reason::Status,
            Self::NoStore => Reason::NoStore,
            Self::Private => Reason::Private,
            Self::VaryStar => Reason::VaryStar,
            Self::Authorization => Reason::Authorization,
            Self::SetCookie => Reason::SetCookie,
            Self::NoFreshness => Reason::NoFreshness,
        }
    }

    /// The reason's token.
    pub const fn as_str(self) -> &'static str {
        self.reason().as_str()
    }
}

/// Decides whether a response may be stored, and if so what its reuse depends on.
///
/// # Errors
/// The first reason against it, from what the request rules out to what the response lacks.
pub fn storable(
    request: &RequestFacts,
    status: u16,
    response: Fields<'_>,
    directives: &ResponseDirectives,
    set_cookie: SetCookie,
) -> Result<Freshness, NotStored> {
    if !request.method_is_get {
        return Err(NotStored::Method);
    }
    // RFC 9111 section 5.2.1.5.
    if request.no_store {
        return Err(NotStored::RequestNoStore);
    }
    match status {
        206 => return Err(NotStored::PartialContent),
        // 304 is about a stored response. 412 and 416 answer a field of one request (If-Match, Range) that the key
        // does not hold: stored, they would be everybody's answer.
        304 | 412 | 416 => return Err(NotStored::Status),
        200..=599 => {}
        _ => return Err(NotStored::Status),
    }
    // RFC 9111 section 5.2.2.3: no-store beside must-understand is for caches that do not understand the status.
    if directives.must_understand {
        if !is_understood(status) {
            return Err(NotStored::Status);
        }
    } else if directives.no_store {
        return Err(NotStored::NoStore);
    }
    if directives.private {
        return Err(NotStored::Private);
    }
    if vary::Vary::of(response) == vary::Vary::Any {
        return Err(NotStored::VaryStar);
    }
    // RFC 9111 section 3.5.
    let may_be_shared = directives.public || directives.s_maxage.is_some();
    if request.has_authorization && !may_be_shared && !directives.must_revalidate {
        return Err(NotStored::Authorization);
    }
    if set_cookie == SetCookie::Refuse
        && response.contains("set-cookie")
        && !may_be_shared
        && !directives.targeted
        // Named there it is not stored with the rest, so that there is no cookie to give away.
        && !no_cache_field_names(response, directives).iter().any(|name| same_name(name, b"set-cookie"))
    {
        return Err(NotStored::SetCookie);
    }
    let (lifetime, source) = freshness::lifetime(status, response, directives, request.response_time);
    if !source.is_explicit() && !directives.public && !is_heuristically_cacheable(status) {
        return Err(NotStored::NoFreshness);
    }
    let initial_age_ms = age::initial_age_ms(response, request.request_time, request.response_time);
    let freshness = Freshness::new(request.response_time, initial_age_ms, lifetime, directives);
    let can_be_validated = validators(response).exist();
    // A lifetime of zero without a validator is kept for its windows alone; no-cache leaves only validation.
    let has_use_before_validation = !directives.no_cache
        && [lifetime, freshness.stale_while_revalidate(), freshness.stale_if_error()] != [DeltaSeconds::ZERO; 3];
    if can_be_validated || has_use_before_validation { Ok(freshness) } else { Err(NotStored::NoFreshness) }
}

/// The final statuses of RFC 9110 section 15, whose rules we keep.
const fn is_understood(status: u16) -> bool {
    matches!(status, 200..=205 | 300..=303 | 305 | 307 | 308 | 400..=415 | 417 | 421 | 422 | 426 | 500..=505)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GET: RequestFacts = RequestFacts {
        method_is_get: true,
        has_authorization: false,
        no_store: false,
        request_time: UnixMs(784_111_777_000),
        response_time: UnixMs(784_111_777_000),
    };

    fn decide(request: &RequestFacts, status: u16, block: &str) -> Result<Freshness, NotStored> {
        let fields = Fields::new(block.as_bytes());
        storable(request, status, fields, &ResponseDirectives::parse(fields), SetCookie::Refuse)
    }

    #[track_caller]
    fn check(name: &str, request: &RequestFacts, status: u16, block: &str, expected: Result<u32, NotStored>) {
        let decided = decide(request, status, block).map(|freshness| freshness.lifetime().0);
        assert_eq!(decided, expected, "{name}: {status} {block:?}");
    }

    #[test]
    fn decisions() {
        use NotStored::{NoFreshness, NoStore, PartialContent, Private, Status, VaryStar};
        let rows = [
            ("3: explicit freshness", 200, "cache-control: max-age=60\r\n", Ok(60)),
            ("3: for any status", 599, "cache-control: max-age=60\r\n", Ok(60)),
            ("3: even an error", 503, "expires: Sun, 06 Nov 1994 08:49:47 GMT\r\n", Ok(10)),
            ("3: no-store", 200, "cache-control: max-age=60, no-store\r\n", Err(NoStore)),
            ("3: private", 200, "cache-control: max-age=60, private\r\n", Err(Private)),
            (
                "9213: targeted private",
                200,
                "cache-control: max-age=60\r\ncdn-cache-control: private\r\n",
                Err(Private),
            ),
            ("9213: targeted fresh", 200, "cache-control: no-store\r\ncdn-cache-control: max-age=60\r\n", Ok(60)),
            ("5.2.2.3: not understood", 599, "cache-control: max-age=60, must-understand\r\n", Err(Status)),
            ("5.2.2.3: understood", 200, "cache-control: max-age=60, must-understand, no-store\r\n", Ok(60)),
            ("4.1: Vary: *", 200, "cache-control: max-age=60\r\nvary: a, *\r\n", Err(VaryStar)),
            ("3: partial", 206, "cache-control: max-age=60\r\n", Err(PartialContent)),
            ("3: not modified", 304, "cache-control: max-age=60\r\n", Err(Status)),
            ("3: interim", 103, "cache-control: max-age=60\r\n", Err(Status)),
            ("not for others: 416", 416, "cache-control: max-age=60\r\n", Err(Status)),
            ("not a status", 700, "cache-control: max-age=60\r\n", Err(Status)),
            ("4.2.2: heuristic", 404, "last-modified: Sun, 06 Nov 1994 08:32:57 GMT\r\n", Ok(100)),
            ("4.2.2: not for 403", 403, "last-modified: Sun, 06 Nov 1994 08:32:57 GMT\r\n", Err(NoFreshness)),
            ("a validator alone", 200, "etag: \"a\"\r\n", Ok(0)),
            ("no-cache and a validator", 200, "cache-control: no-cache\r\netag: \"a\"\r\n", Ok(0)),
            ("no-cache and none", 200, "cache-control: no-cache, max-age=60\r\n", Err(NoFreshness)),
            ("zero and none", 200, "cache-control: max-age=0\r\n", Err(NoFreshness)),
            ("zero and a window", 200, "cache-control: max-age=0, stale-while-revalidate=9\r\n", Ok(0)),
            ("nothing", 200, "", Err(NoFreshness)),
            ("a validator, but not for 201", 201, "etag: \"a\"\r\n", Err(NoFreshness)),
            ("5.2.2.9: public", 201, "cache-control: public\r\netag: \"a\"\r\n", Ok(0)),
            ("Set-Cookie", 200, "cache-control: max-age=60\r\nset-cookie: a\r\n", Err(NotStored::SetCookie)),
            ("Set-Cookie, public", 200, "cache-control: max-age=60, public\r\nset-cookie: a\r\n", Ok(60)),
            ("Set-Cookie, s-maxage", 200, "cache-control: s-maxage=60\r\nset-cookie: a\r\n", Ok(60)),
            ("Set-Cookie, targeted", 200, "cdn-cache-control: max-age=60\r\nset-cookie: a\r\n", Ok(60)),
            (
                "Set-Cookie, left out",
                200,
                "cache-control: max-age=60, no-cache=\"Set-Cookie\"\r\nset-cookie: a\r\n",
                Ok(60),
            ),
        ];
        for (name, status, block, expected) in rows {
            check(name, &GET, status, block, expected);
        }
    }

    #[test]
    fn what_the_request_rules_out() {
        use NotStored::{Authorization, Method, RequestNoStore};
        let post = RequestFacts { method_is_get: false, ..GET };
        let no_store = RequestFacts { no_store: true, ..GET };
        let authorized = RequestFacts { has_authorization: true, ..GET };
        let rows = [
            ("3: method", post, "cache-control: max-age=60\r\n", Err(Method)),
            ("5.2.1.5", no_store, "cache-control: max-age=60\r\n", Err(RequestNoStore)),
            ("3.5", authorized, "cache-control: max-age=60\r\n", Err(Authorization)),
            ("3.5: public", authorized, "cache-control: max-age=60, public\r\n", Ok(60)),
            ("3.5: must-revalidate", authorized, "cache-control: max-age=60, must-revalidate\r\n", Ok(60)),
            ("3.5: s-maxage", authorized, "cache-control: s-maxage=60\r\n", Ok(60)),
            (
                "3.5: not proxy-revalidate",
                authorized,
                "cache-control: max-age=60, proxy-revalidate\r\n",
                Err(Authorization),
            ),
        ];
        for (name, request, block, expected) in rows {
            check(name, &request, 200, block, expected);
        }
    }

    #[test]
    fn the_letter_of_the_rfc_stores_cookies() {
        let fields = Fields::new(b"cache-control: max-age=60\r\nset-cookie: a=b\r\n");
        assert!(storable(&GET, 200, fields, &ResponseDirectives::parse(fields), SetCookie::Rfc9111).is_ok());
    }

    proptest! {
        #[test]
        fn no_store_never_makes_more_storable(
            status in 100..700_u16,
            has_authorization in any::<bool>(),
            block in "((cache-control|cdn-cache-control): ?(public|private|no-cache|max-age=[0-9]|s-maxage=6|\
                must-understand|\"|,|=| ){0,6}\r\n|etag: \"a\"\r\n|set-cookie: a\r\n|vary: [a*]\r\n){0,4}",
        ) {
            let request = RequestFacts { has_authorization, ..GET };
            let more = format!("{block}Cache-Control: no-store\r\n");
            let directives = ResponseDirectives::parse(Fields::new(block.as_bytes()));
            let refused = decide(&request, status, &more).is_err();
            prop_assert!(refused || decide(&request, status, &block).is_ok());
            prop_assert!(refused || directives.targeted || directives.must_understand);
        }
    }
}

//! The `Cache-Status` field (RFC 9211) and the one table of the reasons in its `detail`.

/// Makes the enum, its tokens, its sentences and the list of all from one row each.
macro_rules! reasons {
    ($($variant:ident, $token:literal, $sentence:literal;)+) => {
        /// Why a response was not served from the store, or not stored. The documentation is made from this table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $(#[doc = $sentence] $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The token in `Cache-Status`, logs and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $token),+ }
            }

            /// One sentence for an operator.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence),+ }
            }
        }
    };
}

reasons! {
    // The response may not be stored.
    NoStore, "no-store", "The response carries no-store.";
    Private, "private", "The response carries private.";
    SetCookie, "set-cookie", "The response sets a cookie, and neither public, s-maxage nor a targeted field allows storing it.";
    Authorization, "authorization", "The request carried Authorization, and the response does not say that it may be shared.";
    VaryStar, "vary-star", "The response varies by everything, or by more fields than a variant is selected by.";
    Method, "method", "Responses to this method are not stored.";
    Status, "status", "Responses with this status are not stored.";
    NoFreshness, "no-freshness", "Nothing gives the response freshness, and nothing could validate it.";
    TooLarge, "too-large", "The body is larger than the largest that is stored.";
    TagsOverLimit, "tags-over-limit", "The response carries more surrogate keys than are stored with one response.";
    ContentTypeMismatch, "content-type-mismatch", "The path names a stylesheet, script, image or font, and the response is something else.";
    RangeNotStored, "range-not-stored", "The response is a part of a representation, and one that cannot be put beside others.";
    // The request asks for something else.
    RequestNoCache, "request-no-cache", "The request carries no-cache and wants the origin asked.";
    RequestNoStore, "request-no-store", "The request carries no-store.";
    RequestMaxAge, "request-max-age", "The stored response is older than the request's max-age.";
    RequestMinFresh, "request-min-fresh", "The stored response does not stay fresh for the request's min-fresh.";
    OnlyIfCached, "only-if-cached", "The request wants a stored response or none, and there is none to serve.";
    RequestBody, "request-body", "The request has a body, so its answer is not the answer to others.";
    MalformedRequest, "malformed-request", "The request was not well-formed, so it was answered here and the connection closed.";
    UnknownHost, "unknown-host", "No site of this node answers for the host.";
    Challenge, "challenge", "An authority that issues certificates was shown that the host is served here.";
    HttpsOnly, "https-only", "The site answers under TLS only.";
    Loop, "loop", "The request has been through this node before, or through more CDNs than make sense.";
    PassUpgrade, "pass-upgrade", "The request asks to change the protocol of the connection.";
    // The stored response needs the origin.
    NoCache, "no-cache", "The stored response carries no-cache and is validated before every use.";
    Stale, "stale", "The stored response is past its freshness lifetime.";
    Purged, "purged", "A purge removed the stored response.";
    Invalidated, "invalidated", "An unsafe request changed the resource and so invalidated the stored response.";
    // What the site or the node decided.
    Rule, "rule", "A rule of the site says so.";
    Admission, "admission", "The store admits a response only when it is asked for again.";
    NodeRequest, "node-request", "The request says that it comes from another node of this network, and that is not so.";
    Unplaced, "unplaced", "The node that was asked cannot say, in terms of this node's purge log, by what and up to where its answer can be purged.";
    HitForMiss, "hit-for-miss", "A recent answer could not be stored, so requests do not wait for one another.";
    Isolated, "isolated", "The node has lost the purge log for too long to trust what it stored.";
    MemoryFull, "memory-full", "The memory set aside for responses on their way into the store is full.";
    DiskError, "disk-error", "The disk failed to read or to write the response.";
    // The origin failed.
    FillFailed, "fill-failed", "The origin's answer ended before it was complete.";
    OriginUnreachable, "origin-unreachable", "No connection to an origin could be made.";
    OriginTimeout, "origin-timeout", "The origin did not answer in time.";
    OriginBusy, "origin-busy", "Every origin has as many requests under way as it may, and no room in the queue came in time.";
    SessionRefused, "session-refused", "The origin of the client's session cannot be asked, and the site has no other asked for it.";
    OriginError, "origin-error", "The origin answered with an error.";
    MalformedResponse, "malformed-response", "The origin's answer was not well-formed.";
}

/// Why a request was forwarded (RFC 9211 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forward {
    /// Nothing is stored for this URI.
    UriMiss,
    /// Something is stored for this URI, but not for these selecting fields.
    VaryMiss,
    /// What is stored is stale.
    Stale,
    /// What is stored is fresh, but the request wants the origin asked.
    Request,
    /// The cache was told not to handle the request.
    Bypass,
    /// The method has to be forwarded.
    Method,
    /// Nothing was found, and which of the misses it is is not known.
    Miss,
    /// Part of what was asked for is stored.
    Partial,
}

impl Forward {
    /// The token in `Cache-Status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Stale => "stale",
            Self::Request => "request",
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::Miss => "miss",
            Self::Partial => "partial",
        }
    }
}

/// What this node has to say about one response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// The response came from the store and nobody was asked.
    pub hit: bool,
    /// Seconds of freshness left; negative when stale (section 2.3).
    pub ttl: Option<i64>,
    /// Why the request was forwarded; not told of a hit, which section 2.1 excludes.
    pub forward: Option<Forward>,
    /// The status that came back, where it is not the one sent on (section 2.4).
    pub forward_status: Option<u16>,
    /// The response was stored (section 2.5).
    pub stored: bool,
    /// Another request's fetch answered this one too (section 2.6).
    pub collapsed: bool,
    /// The reason (section 2.8).
    pub detail: Option<Reason>,
}

impl CacheStatus {
    /// Appends the field's value, such as `littoral; fwd=uri-miss; stored`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        out.extend_from_slice(b"littoral");
        if self.hit {
            out.extend_from_slice(b"; hit");
        } else if let Some(forward) = self.forward {
            out.extend_from_slice(b"; fwd=");
            out.extend_from_slice(forward.as_str().as_bytes());
            if self.stored {
                out.extend_from_slice(b"; stored");
            }
            if self.collapsed {
                out.extend_from_slice(b"; collapsed");
            }
            if let Some(status) = self.forward_status {
                out.extend_from_slice(b"; fwd-status=");
                out.extend_from_slice(number.format(status).as_bytes());
            }
        }
        if let Some(ttl) = self.ttl {
            out.extend_from_slice(b"; ttl=");
            out.extend_from_slice(number.format(ttl).as_bytes());
        }
        if let Some(reason) = self.detail {
            out.extend_from_slice(b"; detail=");
            out.extend_from_slice(reason.as_str().as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, status: CacheStatus, expected: &str) {
        let mut value = Vec::new();
        status.write(&mut value);
        assert_eq!(String::from_utf8_lossy(&value), expected, "{name}");
    }

    #[test]
    fn values() {
        let none = CacheStatus::default();
        let rows = [
            ("9211 2.1: a hit", CacheStatus { hit: true, ttl: Some(545), ..none }, "littoral; hit; ttl=545"),
            (
                "9211 2.1: hit excludes fwd",
                {
                    CacheStatus {
                        hit: true,
                        forward: Some(Forward::Stale),
                        ttl: Some(-3),
                        detail: Some(Reason::Stale),
                        ..none
                    }
                },
                "littoral; hit; ttl=-3; detail=stale",
            ),
            (
                "9211 2.2: a miss",
                {
                    CacheStatus {
                        forward: Some(Forward::UriMiss),
                        stored: true,
                        collapsed: true,
                        forward_status: Some(200),
                        ..none
                    }
                },
                "littoral; fwd=uri-miss; stored; collapsed; fwd-status=200",
            ),
            (
                "9211 2.8: detail",
                { CacheStatus { forward: Some(Forward::Bypass), detail: Some(Reason::SetCookie), ..none } },
                "littoral; fwd=bypass; detail=set-cookie",
            ),
            ("our own answer", none, "littoral"),
        ];
        for (name, status, expected) in rows {
            check(name, status, expected);
        }
    }

    #[test]
    fn tokens_are_tokens_and_differ() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            let token = reason.as_str();
            assert!(token.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{token}");
            assert!(Reason::ALL.iter().skip(index + 1).all(|other| other.as_str() != token), "{token}");
            assert!(reason.sentence().ends_with('.'), "{token}");
        }
    }
}

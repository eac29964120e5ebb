//! What a client is told of its session with one origin: on answers that are its own, and on those that refuse it.

use crate::origin::Failure;
use crate::origin::retry::is_failure;
use crate::pipeline::request::Request;
use crate::semantics::cache_status::Reason;
use crate::store::fill::{FillHead, Sharing};

/// Whether an answer that is not stored for this reason is its client's own. What is only too large, or finds no room, is the
/// same for everybody, and a cache between here and the client may keep it.
fn is_own(reason: Reason) -> bool {
    use Reason::{Admission, ContentTypeMismatch, DiskError, MemoryFull, RangeNotStored, TagsOverLimit, TooLarge};
    !matches!(
        reason,
        Admission | ContentTypeMismatch | DiskError | MemoryFull | RangeNotStored | TagsOverLimit | TooLarge
    )
}

/// Writes the `Set-Cookie` that keeps a session with the origin that answered; never into what others get or will get.
pub fn write_cookie(request: &Request<'_>, head: &FillHead, out: &mut Vec<u8>) {
    let Sharing::NotStored(reason) = &head.sharing else { return };
    let group = &request.site.backing(request.group).group;
    if !is_own(*reason) || is_failure(group.retry(), head.status) {
        return;
    }
    write(group.cookie(request.session, head.origin, request.scheme == "https"), out);
}

/// Writes the `Set-Cookie` that ends a session whose origin will not come back by itself.
pub fn write_last_cookie(request: &Request<'_>, failure: Failure, out: &mut Vec<u8>) {
    if failure == Failure::SessionRefused {
        let group = &request.site.backing(request.group).group;
        write(group.last_cookie(request.session, request.scheme == "https"), out);
    }
}

fn write(cookie: Option<String>, out: &mut Vec<u8>) {
    if let Some(cookie) = cookie {
        out.extend_from_slice(&[b"set-cookie: ", cookie.as_bytes(), b"\r\n"].concat());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_answers_are_their_own() {
        for (reason, expected) in [
            (Reason::Private, true),
            (Reason::NoStore, true),
            (Reason::SetCookie, true),
            (Reason::Authorization, true),
            (Reason::NoFreshness, true),
            (Reason::Rule, true),
            (Reason::TooLarge, false),
            (Reason::MemoryFull, false),
            (Reason::TagsOverLimit, false),
        ] {
            assert_eq!(is_own(reason), expected, "{reason:?}");
        }
    }
}

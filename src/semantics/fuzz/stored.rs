//! What is kept of a response: how old it is, whether it may be reused, and its fields after a validation.

use crate::fuzz::target;

use super::super::age::initial_age_ms;
use super::super::directives::{RequestDirectives, ResponseDirectives};
use super::super::fields::Fields;
use super::super::freshness::lifetime;
use super::super::hop_by_hop::{end_to_end, is_hop_by_hop};
use super::super::reuse::{Failure, Freshness, Reuse, may_serve_on_error, reuse};
use super::super::time::{DeltaSeconds, UnixMs};
use super::super::validation::{Precondition, freshen, precondition};
use super::corpus;

/// Sun, 06 Nov 1994 08:49:37 GMT, and a bit.
const ARRIVED: UnixMs = UnixMs(784_111_777_500);

/// Clocks that are right, that stand at an end, and that were set meanwhile.
const CLOCKS: [UnixMs; 5] =
    [UnixMs(0), UnixMs(ARRIVED.0 - 250), ARRIVED, UnixMs(ARRIVED.0 + 3_600_000), UnixMs(u64::MAX)];

/// A response's block of lines and a request's, which an empty line parts.
fn halves(input: &[u8]) -> (Fields<'_>, Fields<'_>) {
    let end = input.windows(2).position(|two| two == b"\n\n").map_or(input.len(), |end| end + 1);
    (Fields::new(&input[..end]), Fields::new(input.get(end + 1..).unwrap_or_default()))
}

#[test]
fn ages_and_reuse() {
    target("ages and reuse", corpus::BLOCKS, |input| {
        let (response, request) = halves(input);
        let (directives, request) = (ResponseDirectives::parse(response), RequestDirectives::parse(request));
        for arrived in CLOCKS {
            let age_ms = CLOCKS.map(|asked| {
                let age_ms = initial_age_ms(response, asked, arrived);
                assert!(age_ms >= arrived.since_ms(asked), "what the request took is age");
                age_ms
            });
            assert!(age_ms.is_sorted_by(|earlier, later| earlier >= later), "who was asked earlier is older");
            let (lifetime, _) = lifetime(200, response, &directives, arrived);
            assert!(lifetime <= DeltaSeconds::MAX);
            check_reuse(&Freshness::new(arrived, age_ms[1], lifetime, &directives), &directives, &request);
        }
    });
}

fn check_reuse(stored: &Freshness, directives: &ResponseDirectives, request: &RequestDirectives) {
    assert_eq!(Freshness::decode(&stored.encode()), *stored, "what is kept reads back");
    let may_be_stale = !directives.forbids_stale() && !directives.no_cache;
    let mut age_ms = 0;
    for now in CLOCKS {
        assert!(stored.age_ms(now) >= age_ms, "time makes nothing younger");
        age_ms = stored.age_ms(now);
        assert_eq!(stored.is_fresh(now), stored.ttl_seconds(now) > 0, "a lifetime that is left is a lifetime");
        let stale_ms = age_ms.saturating_sub(stored.lifetime().as_ms());
        match reuse(request, stored, now) {
            Reuse::Fresh => assert!(stored.is_fresh(now) && !directives.no_cache && !request.no_cache),
            Reuse::StaleByRequest => assert!(may_be_stale && request.max_stale.is_some()),
            Reuse::StaleWhileRevalidate => {
                let window = directives.stale_while_revalidate.expect("a window");
                assert!(may_be_stale && stale_ms < window.as_ms());
            }
            Reuse::Revalidate(_) => {}
        }
        for failure in [Failure::Status, Failure::Unreachable] {
            let may = may_serve_on_error(request, stored, now, failure);
            assert!(!may || stored.is_fresh(now) || may_be_stale, "an error makes nothing fresh");
        }
        // A window that is not stated bounds nothing of an origin that is gone, and allows no answer of one that failed.
        if directives.stale_if_error.is_none() && may_serve_on_error(request, stored, now, Failure::Status) {
            assert!(stored.is_fresh(now) && may_serve_on_error(request, stored, now, Failure::Unreachable));
        }
    }
}

#[test]
fn validated_fields() {
    target("validated fields", corpus::BLOCKS, |input| {
        let (stored, not_modified) = halves(input);
        let (mut once, mut twice) = (Vec::new(), Vec::new());
        freshen(stored, not_modified, ARRIVED, &mut once);
        let fresh = Fields::new(&once);
        freshen(fresh, not_modified, ARRIVED, &mut twice);
        assert_eq!(once.escape_ascii().to_string(), twice.escape_ascii().to_string(), "the same news again is none");
        assert!(fresh.contains("date"));
        for bound in ["etag", "vary", "content-length", "content-encoding"] {
            assert!(fresh.values(bound).eq(stored.values(bound)), "{bound} is the stored body's");
        }
        // What the 304 says of one connection, or names in Connection, changes nothing.
        for line in not_modified.lines().filter(|line| is_hop_by_hop(line.name)) {
            let name = std::str::from_utf8(line.name).expect("one of a list");
            assert!(fresh.values(name).eq(stored.values(name)), "{name}");
        }
        let conditions = [b"if-none-match: *\r\n", not_modified.as_bytes()].concat();
        assert_ne!(precondition(Fields::new(&conditions), 404, stored, ARRIVED), Precondition::Failed);
        if !not_modified.contains("if-match") && !not_modified.contains("if-unmodified-since") {
            assert_eq!(precondition(Fields::new(&conditions), 200, stored, ARRIVED), Precondition::NotModified);
        }
    });
}

#[test]
fn fields_of_a_connection() {
    target("fields of a connection", corpus::BLOCKS, |input| {
        let mut once = Vec::new();
        end_to_end(Fields::new(input)).for_each(|line| line.write(&mut once));
        assert!(!Fields::new(&once).lines().any(|line| is_hop_by_hop(line.name)));
        let mut twice = Vec::new();
        end_to_end(Fields::new(&once)).for_each(|line| line.write(&mut twice));
        assert_eq!(once, twice, "what went on goes on");
        for essential in ["host", "cache-control", "set-cookie", "authorization", "vary"] {
            assert!(Fields::new(&once).values(essential).eq(Fields::new(input).values(essential)), "{essential}");
        }
    });
}

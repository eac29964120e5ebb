//! Whether a stored response may answer a request now (RFC 9111 section 4.2, RFC 5861).

use super::cache_status::Reason;
use super::directives::{MaxStale, RequestDirectives, ResponseDirectives};
use super::time::{DeltaSeconds, UnixMs};

/// All that is kept of a stored response to decide its reuse: no field needs to be read again on a hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    response_time: UnixMs,
    initial_age_ms: u64,
    lifetime: DeltaSeconds,
    stale_while_revalidate: DeltaSeconds,
    stale_if_error: DeltaSeconds,
    flags: u8,
}

const _: () = assert!(size_of::<Freshness>() <= 40);

/// The largest time that is kept.
const TIME_MAX: u64 = (1 << 48) - 1;

const MUST_REVALIDATE: u8 = 1;
const NO_CACHE: u8 = 1 << 1;
const STALE_IF_ERROR_STATED: u8 = 1 << 2;
const IMMUTABLE: u8 = 1 << 3;

/// May the stored response be used?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Yes: it is fresh and the client has nothing against it.
    Fresh,
    /// Yes, while it is validated behind the answer's back (RFC 5861 section 3).
    StaleWhileRevalidate,
    /// Yes: it is stale, but the client's `max-stale` accepts that.
    StaleByRequest,
    /// Not before the origin was asked.
    Revalidate(Why),
}

/// Why a stored response must be validated first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is past its freshness lifetime.
    Stale,
    /// It carries `no-cache`.
    NoCache,
    /// The request carries `no-cache`.
    RequestNoCache,
    /// It is older than the request's `max-age`.
    RequestMaxAge,
    /// It will not stay fresh for the request's `min-fresh`.
    RequestMinFresh,
    /// The node cannot know whether it was purged.
    Isolated,
}

impl Why {
    /// The row of the table of reasons.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Stale => Reason::Stale,
            Self::NoCache => Reason::NoCache,
            Self::RequestNoCache => Reason::RequestNoCache,
            Self::RequestMaxAge => Reason::RequestMaxAge,
            Self::RequestMinFresh => Reason::RequestMinFresh,
            Self::Isolated => Reason::Isolated,
        }
    }
}

/// How asking the origin failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It answered 500, 502, 503 or 504; see [`Failure::of_status`].
    Status,
    /// It could not be reached, or went away or fell silent before it had answered.
    Unreachable,
}

impl Failure {
    /// The statuses that RFC 5861 section 4 calls an error.
    pub const fn of_status(status: u16) -> Option<Self> {
        if matches!(status, 500 | 502 | 503 | 504) { Some(Self::Status) } else { None }
    }
}

impl Freshness {
    /// The bytes of [`Freshness::encode`].
    pub const ENCODED_LENGTH: usize = 25;

    /// Takes from the directives what bears on reuse.
    ///
    /// `must-revalidate`, `proxy-revalidate`, `s-maxage` (RFC 9111 section 5.2.2.10) and `no-cache` forbid stale
    /// service, so the two windows of RFC 5861 are empty then.
    pub fn new(
        response_time: UnixMs,
        initial_age_ms: u64,
        lifetime: DeltaSeconds,
        directives: &ResponseDirectives,
    ) -> Self {
        let forbids_stale = directives.forbids_stale();
        let window = |stated: Option<DeltaSeconds>| match stated {
            Some(seconds) if !forbids_stale && !directives.no_cache => seconds,
            _ => DeltaSeconds::ZERO,
        };
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        Self {
            response_time: UnixMs(response_time.0.min(TIME_MAX)),
            initial_age_ms: initial_age_ms.min(TIME_MAX),
            lifetime,
            stale_while_revalidate: window(directives.stale_while_revalidate),
            stale_if_error: window(directives.stale_if_error),
            flags: flag(forbids_stale, MUST_REVALIDATE)
                | flag(directives.no_cache, NO_CACHE)
                | flag(directives.stale_if_error.is_some(), STALE_IF_ERROR_STATED)
                | flag(directives.immutable, IMMUTABLE),
        }
    }

    /// The same, but stale since `at` at the latest: what a soft purge makes of a response. Whole seconds, rounded down.
    pub const fn stale_since(self, at: UnixMs) -> Self {
        let age = DeltaSeconds::saturating(self.age_ms(at) / 1000);
        Self { lifetime: if age.0 < self.lifetime.0 { age } else { self.lifetime }, ..self }
    }

    /// The same, but stale since `at` and not to be used without validation, whatever windows it came with: a later
    /// response may have been lost.
    pub const fn distrusted(self, at: UnixMs) -> Self {
        let stale = self.stale_since(at);
        let (stale_while_revalidate, stale_if_error) = (DeltaSeconds::ZERO, DeltaSeconds::ZERO);
        Self { stale_while_revalidate, stale_if_error, flags: stale.flags | MUST_REVALIDATE, ..stale }
    }

    /// The same, but doubtful since `at`: whoever stored it cannot know whether it was purged since. It stands in for an error only
    /// in a window that it states itself.
    pub const fn doubtful(self, at: UnixMs) -> Self {
        let stale = self.stale_since(at);
        Self { stale_while_revalidate: DeltaSeconds::ZERO, flags: stale.flags | STALE_IF_ERROR_STATED, ..stale }
    }

    /// When the response arrived, or was last validated.
    pub const fn response_time(&self) -> UnixMs {
        self.response_time
    }

    /// The freshness lifetime.
    pub const fn lifetime(&self) -> DeltaSeconds {
        self.lifetime
    }

    /// How long past its lifetime it may be served while it is validated.
    pub const fn stale_while_revalidate(&self) -> DeltaSeconds {
        self.stale_while_revalidate
    }

    /// How long past its lifetime it may stand in for an error.
    pub const fn stale_if_error(&self) -> DeltaSeconds {
        self.stale_if_error
    }

    /// Whether it must never be served stale: `must-revalidate`, `proxy-revalidate` or `s-maxage`.
    pub const fn must_revalidate(&self) -> bool {
        self.flags & MUST_REVALIDATE != 0
    }

    /// Whether every use needs validation (RFC 9111 section 5.2.2.4).
    pub const fn no_cache(&self) -> bool {
        self.flags & NO_CACHE != 0
    }

    /// Whether it will not change while it is fresh (RFC 8246).
    pub const fn immutable(&self) -> bool {
        self.flags & IMMUTABLE != 0
    }

    /// `current_age` of RFC 9111 section 4.2.3. A clock that steps back makes nothing younger than it arrived.
    pub const fn age_ms(&self, now: UnixMs) -> u64 {
        self.initial_age_ms.saturating_add(now.since_ms(self.response_time))
    }

    /// The value of the `Age` field (RFC 9111 section 5.1).
    pub const fn age_seconds(&self, now: UnixMs) -> DeltaSeconds {
        DeltaSeconds::saturating(self.age_ms(now) / 1000)
    }

    /// Seconds of freshness left: lifetime less `Age`, so zero or negative when stale (RFC 9211 section 2.3).
    pub const fn ttl_seconds(&self, now: UnixMs) -> i64 {
        self.lifetime.0 as i64 - self.age_seconds(now).0 as i64
    }

    /// RFC 9111 section 4.2: fresh while the lifetime is greater than the age.
    pub const fn is_fresh(&self, now: UnixMs) -> bool {
        self.lifetime.as_ms() > self.age_ms(now)
    }

    /// How long it has been stale, in milliseconds; zero when it is not.
    const fn stale_for_ms(&self, now: UnixMs) -> u64 {
        self.age_ms(now).saturating_sub(self.lifetime.as_ms())
    }

    /// The bytes to keep in a record, the same on every machine. Times have 48 bits: ten millennia.
    pub fn encode(&self) -> [u8; Self::ENCODED_LENGTH] {
        let [a, b, c, d, e, f, ..] = self.response_time.0.to_le_bytes();
        let [g, h, i, j, k, l, ..] = self.initial_age_ms.to_le_bytes();
        let [m, n, o, p] = self.lifetime.0.to_le_bytes();
        let [q, r, s, t] = self.stale_while_revalidate.0.to_le_bytes();
        let [u, v, w, x] = self.stale_if_error.0.to_le_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, self.flags]
    }

    /// Reads what [`Freshness::encode`] wrote.
    pub const fn decode(bytes: &[u8; Self::ENCODED_LENGTH]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, flags] = *bytes;
        Self {
            response_time: UnixMs(u64::from_le_bytes([a, b, c, d, e, f, 0, 0])),
            initial_age_ms: u64::from_le_bytes([g, h, i, j, k, l, 0, 0]),
            lifetime: DeltaSeconds(u32::from_le_bytes([m, n, o, p])),
            stale_while_revalidate: DeltaSeconds(u32::from_le_bytes([q, r, s, t])),
            stale_if_error: DeltaSeconds(u32::from_le_bytes([u, v, w, x])),
            flags,
        }
    }
}

/// Decides the reuse of a stored response. `no-store` and `only-if-cached` are for the caller: the one is about the
/// response to come, the other about what to do without one.
pub fn reuse(request: &RequestDirectives, stored: &Freshness, now: UnixMs) -> Reuse {
    if stored.no_cache() {
        return Reuse::Revalidate(Why::NoCache);
    }
    if request.no_cache {
        return Reuse::Revalidate(Why::RequestNoCache);
    }
    let age_ms = stored.age_ms(now);
    // max-age=0 asks for validation, even within the millisecond in which the response arrived. RFC 8246 section 2: a
    // reload, which is what sends it, does not validate what is immutable and fresh; no-cache still does.
    let is_too_old = |max_age: DeltaSeconds| max_age == DeltaSeconds::ZERO || age_ms > max_age.as_ms();
    if request.max_age.is_some_and(is_too_old) && !(stored.immutable() && stored.is_fresh(now)) {
        return Reuse::Revalidate(Why::RequestMaxAge);
    }
    if request.min_fresh.is_some_and(|min_fresh| age_ms.saturating_add(min_fresh.as_ms()) > stored.lifetime.as_ms()) {
        return Reuse::Revalidate(Why::RequestMinFresh);
    }
    if stored.is_fresh(now) {
        return Reuse::Fresh;
    }
    if stored.must_revalidate() {
        return Reuse::Revalidate(Why::Stale);
    }
    let stale_ms = stored.stale_for_ms(now);
    match request.max_stale {
        Some(MaxStale::Any) => return Reuse::StaleByRequest,
        Some(MaxStale::Within(limit)) if stale_ms <= limit.as_ms() => return Reuse::StaleByRequest,
        _ => {}
    }
    // RFC 9111 section 5.2.1.1: a client that sends max-age does not wish for a stale response.
    if request.max_age.is_none() && stale_ms < stored.stale_while_revalidate.as_ms() {
        return Reuse::StaleWhileRevalidate;
    }
    Reuse::Revalidate(Why::Stale)
}

/// Whether a stored response may stand in when asking the origin failed.
///
/// An error that the origin itself answered is passed on unless `stale-if-error` says otherwise: no invented
/// staleness. An origin that cannot be reached is what RFC 9111 section 4.2.4 calls disconnected, and there a stale
/// response is allowed unless something prohibits it; a stated `stale-if-error` is then the origin's own bound.
///
/// The request's `no-cache` asks for validation or nothing. `max-age` (an ordinary reload) and `min-fresh` say how
/// fresh an answer should be, and against an error none is fresher; they do not stand in the way.
pub fn may_serve_on_error(request: &RequestDirectives, stored: &Freshness, now: UnixMs, failure: Failure) -> bool {
    if stored.no_cache() || request.no_cache {
        return false;
    }
    if stored.is_fresh(now) {
        return true;
    }
    if stored.must_revalidate() {
        return false;
    }
    let unbounded = failure == Failure::Unreachable && stored.flags & STALE_IF_ERROR_STATED == 0;
    unbounded || stored.stale_for_ms(now) < stored.stale_if_error.as_ms()
}

#[cfg(test)]
mod tests {
    use super::super::fields::Fields;
    use super::*;
    use proptest::prelude::*;

    const ARRIVED: UnixMs = UnixMs(1_000_000);

    fn stored(cache_control: &str) -> Freshness {
        let block = format!("cache-control: {cache_control}\r\n");
        let directives = ResponseDirectives::parse(Fields::new(block.as_bytes()));
        let lifetime = directives.s_maxage.or(directives.max_age).unwrap_or_default();
        Freshness::new(ARRIVED, 0, lifetime, &directives)
    }

    fn asked(cache_control: &str) -> RequestDirectives {
        let block = format!("cache-control: {cache_control}\r\n");
        RequestDirectives::parse(Fields::new(block.as_bytes()))
    }

    #[track_caller]
    fn check(name: &str, request: &str, response: &str, age_ms: u64, expected: Reuse) {
        let reuse = reuse(&asked(request), &stored(response), UnixMs(ARRIVED.0 + age_ms));
        assert_eq!(reuse, expected, "{name}: {request:?} {response:?} {age_ms}");
    }

    #[test]
    fn decisions() {
        use Reuse::{Fresh, Revalidate, StaleByRequest, StaleWhileRevalidate};
        let rows = [
            ("9111 4.2", "", "max-age=10", 9_999, Fresh),
            ("9111 4.2: not when equal", "", "max-age=10", 10_000, Revalidate(Why::Stale)),
            ("9111 5.2.2.4", "", "max-age=10, no-cache", 0, Revalidate(Why::NoCache)),
            ("9111 5.2.1.4", "no-cache", "max-age=10", 0, Revalidate(Why::RequestNoCache)),
            ("9111 5.2.1.1: zero", "max-age=0", "max-age=10", 0, Revalidate(Why::RequestMaxAge)),
            ("9111 5.2.1.1: within", "max-age=1", "max-age=10", 1_000, Fresh),
            ("9111 5.2.1.1: older", "max-age=1", "max-age=10", 1_001, Revalidate(Why::RequestMaxAge)),
            ("8246 2: a reload", "max-age=0", "max-age=10, immutable", 1_000, Fresh),
            ("8246 2: when stale", "max-age=0", "max-age=10, immutable", 10_000, Revalidate(Why::RequestMaxAge)),
            ("8246 2: by force", "no-cache", "max-age=10, immutable", 1_000, Revalidate(Why::RequestNoCache)),
            ("9111 5.2.1.3: enough", "min-fresh=4", "max-age=10", 6_000, Fresh),
            ("9111 5.2.1.3: too little", "min-fresh=4", "max-age=10", 6_001, Revalidate(Why::RequestMinFresh)),
            ("9111 5.2.1.2: any", "max-stale", "max-age=10", 9_000_000, StaleByRequest),
            ("9111 5.2.1.2: within", "max-stale=5", "max-age=10", 15_000, StaleByRequest),
            ("9111 5.2.1.2: beyond", "max-stale=5", "max-age=10", 15_001, Revalidate(Why::Stale)),
            ("9111 4.2.4: must-revalidate", "max-stale", "max-age=10, must-revalidate", 10_000, Revalidate(Why::Stale)),
            (
                "9111 4.2.4: proxy-revalidate",
                "max-stale",
                "max-age=10, proxy-revalidate",
                10_000,
                Revalidate(Why::Stale),
            ),
            ("9111 5.2.2.10: s-maxage", "max-stale", "s-maxage=10", 10_000, Revalidate(Why::Stale)),
            ("5861 3: within", "", "max-age=10, stale-while-revalidate=5", 14_999, StaleWhileRevalidate),
            ("5861 3: beyond", "", "max-age=10, stale-while-revalidate=5", 15_000, Revalidate(Why::Stale)),
            (
                "9111 5.2.1.1: no stale",
                "max-age=60",
                "max-age=10, stale-while-revalidate=5",
                12_000,
                Revalidate(Why::Stale),
            ),
            ("no window beside s-maxage", "", "s-maxage=10, stale-while-revalidate=5", 12_000, Revalidate(Why::Stale)),
        ];
        for (name, request, response, age_ms, expected) in rows {
            check(name, request, response, age_ms, expected);
        }
    }

    #[track_caller]
    fn check_error(name: &str, request: &str, response: &str, failure: Failure, age_ms: u64, expected: bool) {
        let may = may_serve_on_error(&asked(request), &stored(response), UnixMs(ARRIVED.0 + age_ms), failure);
        assert_eq!(may, expected, "{name}: {request:?} {response:?} {failure:?} {age_ms}");
    }

    #[test]
    fn errors() {
        use Failure::{Status, Unreachable};
        let rows = [
            ("5861 4: within", "", "max-age=10, stale-if-error=5", Status, 14_999, true),
            ("5861 4: beyond", "", "max-age=10, stale-if-error=5", Status, 15_000, false),
            ("nothing invented", "", "max-age=10", Status, 10_000, false),
            ("9111 4.2.4: disconnected", "", "max-age=10", Unreachable, 9_000_000, true),
            ("5861 4: the stated bound", "", "max-age=10, stale-if-error=5", Unreachable, 15_000, false),
            ("9111 4.2.4: must-revalidate", "", "max-age=10, must-revalidate", Unreachable, 10_000, false),
            ("9111 4.2.4: proxy-revalidate", "", "max-age=10, proxy-revalidate", Unreachable, 10_000, false),
            ("9111 4.2.4: s-maxage", "", "s-maxage=10, stale-if-error=5", Status, 11_000, false),
            ("9111 4.2.4: no-cache", "", "max-age=10, no-cache", Unreachable, 0, false),
            ("still fresh, a reload", "max-age=0", "max-age=10, must-revalidate", Status, 1_000, true),
            ("a reload of a stale page", "max-age=0", "max-age=10", Unreachable, 20_000, true),
            ("9111 5.2.1.4: or nothing", "no-cache", "max-age=10", Unreachable, 1_000, false),
        ];
        for (name, request, response, failure, age_ms, expected) in rows {
            check_error(name, request, response, failure, age_ms, expected);
        }
    }

    #[test]
    fn age_and_ttl_add_up() {
        let freshness = Freshness::new(ARRIVED, 1_500, DeltaSeconds(10), &ResponseDirectives::default());
        let at = |ms| (freshness.age_seconds(UnixMs(ARRIVED.0 + ms)).0, freshness.ttl_seconds(UnixMs(ARRIVED.0 + ms)));
        assert_eq!(at(0), (1, 9));
        assert_eq!(at(8_500), (10, 0));
        assert_eq!(at(10_000), (11, -1));
    }

    fn any_freshness() -> impl Strategy<Value = Freshness> {
        (any::<u64>(), any::<u64>(), 0..=DeltaSeconds::MAX.0, any::<bool>(), prop::option::of(0..=9_u32)).prop_map(
            |(response_time, initial_age_ms, lifetime, must_revalidate, stale)| {
                let stale_if_error = stale.map(DeltaSeconds);
                let directives = ResponseDirectives { must_revalidate, stale_if_error, ..Default::default() };
                Freshness::new(UnixMs(response_time), initial_age_ms, DeltaSeconds(lifetime), &directives)
            },
        )
    }

    #[test]
    fn times_beyond_what_a_record_holds() {
        let beyond = Freshness::new(UnixMs(u64::MAX), 1 << 48, DeltaSeconds(0), &ResponseDirectives::default());
        assert_eq!(Freshness::decode(&beyond.encode()), beyond);
        assert_eq!(beyond.initial_age_ms, (1 << 48) - 1);
        assert_eq!(beyond.response_time, UnixMs((1 << 48) - 1));
    }

    proptest! {
        #[test]
        fn age_never_decreases(freshness in any_freshness(), one in any::<u64>(), other in any::<u64>()) {
            let (earlier, later) = (UnixMs(one.min(other)), UnixMs(one.max(other)));
            prop_assert!(freshness.age_ms(earlier) <= freshness.age_ms(later));
            prop_assert!(freshness.ttl_seconds(earlier) >= freshness.ttl_seconds(later));
            prop_assert_eq!(freshness.is_fresh(later), freshness.ttl_seconds(later) > 0);
        }

        #[test]
        fn a_record_reads_back(freshness in any_freshness()) {
            prop_assert_eq!(Freshness::decode(&freshness.encode()), freshness);
        }
    }
}

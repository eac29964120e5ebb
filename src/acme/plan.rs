//! What is to be done for a host, and when again if that failed. Pure.

use std::net::IpAddr;

use edge_config::section::acme::Issue;

use super::notes::{Claim, Held, State};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
/// How long after a failed order the next one is made: authorities allow five failures an hour for a host.
const RETRIES: [u64; 6] = [10 * SECOND, MINUTE, 15 * MINUTE, HOUR, 6 * HOUR, 12 * HOUR];
/// How long at least when the authority said that there were too many.
const LIMITED: u64 = HOUR;
/// How often it is looked whether a name leads here.
const LOOK_SOONEST: u64 = 3 * SECOND;
const LOOK_LATEST: u64 = 10 * MINUTE;

/// What is to be done for a host now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nobody has claimed it yet, or another site has.
    Claim,
    /// To look whether its name leads here.
    Prove,
    Order,
    Nothing,
}

/// What is to be done for a host of a site at a time. `wanted`: a client waits for its certificate.
pub fn step(site: &str, claim: Option<&Claim>, held: Option<&Held>, issue: Issue, wanted: bool, now: u64) -> Step {
    let Some(claim) = claim.filter(|claim| claim.site == site || claim.state == State::Revoked) else {
        return Step::Claim;
    };
    if now < claim.not_before {
        return Step::Nothing;
    }
    let is_due = match held {
        Some(held) => now >= held.renew,
        None => issue == Issue::Eager || wanted,
    };
    match claim.state {
        State::Revoked => Step::Nothing,
        State::Waiting => Step::Prove,
        State::Proven if is_due => Step::Order,
        State::Proven => Step::Nothing,
    }
}

/// When a certificate is renewed: at two thirds of what is left of its life when it is had.
pub fn renewal(issued: u64, ends: u64) -> u64 {
    issued + ends.saturating_sub(issued) / 3 * 2
}

/// A claim after an order failed.
pub fn failed(claim: Claim, why: String, is_limited: bool, now: u64) -> Claim {
    let retry = RETRIES[(claim.failures as usize).min(RETRIES.len() - 1)];
    let wait = if is_limited { retry.max(LIMITED) } else { retry };
    Claim { failures: claim.failures + 1, not_before: now + wait, said: why, ..claim }
}

/// A claim that it was looked for in vain: rarely, the longer it has been waited for.
pub fn unproven(claim: Claim, why: String, now: u64) -> Claim {
    let waited = now.saturating_sub(claim.since);
    let wait = (waited / 20).clamp(LOOK_SOONEST, LOOK_LATEST);
    Claim { state: State::Waiting, not_before: now + wait, said: why, ..claim }
}

/// What DNS says of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The names that stand for it, in lower case and without a dot at the end.
    pub aliases: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// The TXT records of the name for tokens.
    pub texts: Vec<String>,
}

/// What a host has to be seen with.
#[derive(Clone, Copy, Debug)]
pub struct Ours<'a> {
    /// The name of its site in our zone, if there is one.
    pub target: Option<&'a str>,
    pub addresses: &'a [IpAddr],
    pub token: &'a str,
}

/// The name of the TXT record that shows a token.
pub fn text_name(host: &str) -> String {
    format!("_littoral.{}", host.strip_prefix("*.").unwrap_or(host))
}

/// Whether a host is led here by who has its name, and how.
///
/// # Errors
/// What is missing, for people.
pub fn proven(host: &str, ours: Ours<'_>, seen: &Seen) -> Result<&'static str, String> {
    if seen.texts.iter().any(|text| text == ours.token) {
        return Ok("by the token in a TXT record");
    }
    // A wildcard has no address of its own.
    if !host.starts_with("*.") {
        if ours.target.is_some_and(|target| seen.aliases.iter().any(|alias| alias == target)) {
            return Ok("by its CNAME");
        }
        if !seen.addresses.is_empty() && seen.addresses.iter().all(|address| ours.addresses.contains(address)) {
            return Ok("by its addresses");
        }
    }
    let found = match (seen.aliases.first(), seen.addresses.first()) {
        (Some(alias), _) => format!("it is {alias}"),
        (None, Some(address)) => format!("it has the address {address}"),
        (None, None) => "it has no address".to_owned(),
    };
    let wanted = match ours.target {
        Some(target) if !host.starts_with("*.") => format!("a CNAME to {target}, "),
        _ => String::new(),
    };
    Err(format!("expected {wanted}our addresses, or TXT {} \"{}\"; {found}", text_name(host), ours.token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(state: State) -> Claim {
        Claim { site: "shop".into(), token: "t".into(), state, since: 1_000, ..Claim::default() }
    }

    #[test]
    fn what_is_done_when() {
        let held = Held { issued: 0, renew: 60_000, ends: 90_000, ..Held::default() };
        let other = Claim { site: "blog".into(), ..claim(State::Proven) };
        let revoked_of_another = Claim { site: "blog".into(), ..claim(State::Revoked) };
        let later = Claim { not_before: 50_000, ..claim(State::Proven) };
        let (eager, lazy) = (Issue::Eager, Issue::OnDemand);
        /// What is known, whether a client waits, when, and what is done.
        type Row<'a> = (&'a str, Option<&'a Claim>, Option<&'a Held>, Issue, bool, u64, Step);
        let (waiting, proven, revoked) = (claim(State::Waiting), claim(State::Proven), claim(State::Revoked));
        let rows: [Row<'_>; 14] = [
            ("nobody", None, None, eager, false, 0, Step::Claim),
            ("another site", Some(&other), None, eager, false, 0, Step::Claim),
            ("revoked, of another site", Some(&revoked_of_another), None, eager, true, 0, Step::Nothing),
            ("waiting", Some(&waiting), None, eager, false, 0, Step::Prove),
            ("waiting on demand", Some(&waiting), None, lazy, false, 0, Step::Prove),
            ("proven", Some(&proven), None, eager, false, 0, Step::Order),
            ("proven on demand", Some(&proven), None, lazy, false, 0, Step::Nothing),
            ("wanted", Some(&proven), None, lazy, true, 0, Step::Order),
            ("wanted before its time", Some(&later), None, lazy, true, 49_999, Step::Nothing),
            ("wanted at its time", Some(&later), None, lazy, true, 50_000, Step::Order),
            ("young", Some(&proven), Some(&held), eager, true, 59_999, Step::Nothing),
            ("due", Some(&proven), Some(&held), lazy, false, 60_000, Step::Order),
            ("revoked", Some(&revoked), None, eager, true, 0, Step::Nothing),
            ("revoked and due", Some(&revoked), Some(&held), eager, true, 99_000, Step::Nothing),
        ];
        for (name, claim, held, issue, wanted, now, expected) in rows {
            assert_eq!(step("shop", claim, held, issue, wanted, now), expected, "{name}");
        }
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_what_is_left_of_it() {
        const DAY: u64 = 24 * HOUR;
        assert_eq!(renewal(0, 90 * DAY), 60 * DAY);
        assert_eq!(renewal(60 * DAY, 90 * DAY), 80 * DAY);
        assert_eq!(renewal(90 * DAY, 90 * DAY), 90 * DAY);
    }

    #[test]
    fn orders_that_fail_are_made_ever_more_rarely() {
        let mut now = 0;
        let mut claim = claim(State::Proven);
        let mut waits = Vec::new();
        for _ in 0..8 {
            claim = failed(claim, "no".into(), false, now);
            waits.push((claim.not_before - now) / SECOND);
            now = claim.not_before;
        }
        assert_eq!(waits, [10, 60, 900, 3_600, 21_600, 43_200, 43_200, 43_200]);
        let limited = failed(Claim { failures: 0, ..claim }, "too many".into(), true, 0);
        assert_eq!(limited.not_before, HOUR);
    }

    #[test]
    fn names_that_do_not_lead_here_are_looked_at_ever_more_rarely() {
        for (now, wait) in [(1_000, 3), (121_000, 6), (601_000, 30), (100 * HOUR, 600)] {
            let claim = unproven(claim(State::Proven), "no".into(), now);
            assert_eq!((claim.state, (claim.not_before - now) / SECOND), (State::Waiting, wait), "{now}");
        }
    }

    #[test]
    fn what_leads_here_is_proven() {
        let ours = ["192.0.2.1".parse().expect("address"), "2001:db8::1".parse().expect("address")];
        let ours = Ours { target: Some("shop.cdn.test"), addresses: &ours, token: "secret" };
        type Row<'a> = (&'a str, &'a str, &'a [&'a str], &'a [&'a str], &'a [&'a str], Option<&'a str>);
        let rows: [Row<'_>; 11] = [
            ("a CNAME", "www.a.test", &["shop.cdn.test"], &["203.0.113.9"], &[], Some("by its CNAME")),
            ("by another name", "www.a.test", &["x.test", "shop.cdn.test"], &[], &[], Some("by its CNAME")),
            ("of another site", "www.a.test", &["blog.cdn.test"], &["203.0.113.9"], &[], None),
            ("at its apex", "a.test", &[], &["192.0.2.1"], &[], Some("by its addresses")),
            ("both families", "a.test", &[], &["192.0.2.1", "2001:db8::1"], &[], Some("by its addresses")),
            ("one of another", "a.test", &[], &["192.0.2.1", "203.0.113.9"], &[], None),
            ("nothing", "a.test", &[], &[], &[], None),
            ("a token", "a.test", &[], &["203.0.113.9"], &["other", "secret"], Some("by the token in a TXT record")),
            ("another token", "a.test", &[], &[], &["secre"], None),
            ("a wildcard", "*.a.test", &["shop.cdn.test"], &["192.0.2.1"], &[], None),
            ("a wildcard with a token", "*.a.test", &[], &[], &["secret"], Some("by the token in a TXT record")),
        ];
        for (name, host, aliases, addresses, texts, expected) in rows {
            let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            let addresses = addresses.iter().map(|address| address.parse().expect("address")).collect();
            let seen = Seen { aliases: own(aliases), addresses, texts: own(texts) };
            assert_eq!(proven(host, ours, &seen).ok(), expected, "{name}");
        }
        let said = proven("www.a.test", ours, &Seen::default()).expect_err("nothing");
        let expected = "expected a CNAME to shop.cdn.test, our addresses, or TXT _littoral.www.a.test \"secret\"; it has no address";
        assert_eq!(said, expected);
    }
}

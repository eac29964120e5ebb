//! Parts of all clients: the same ones each time, on every node.
//!
//! A client is a digest of its address, or of a cookie or a field. A share takes those whose digest is below a bound, so
//! that a smaller one lies within a larger one: rules for 30 % and then for 5 % split as 70, 25 and 5. Among groups by
//! weight the best score wins (weighted rendezvous hashing, as among origins): when weights change, only as many clients
//! move as have to, whatever the order the groups stand in, and rules that name the same groups agree about a client.

use std::net::IpAddr;

use edge_config::section::rule::{Split, StickyBy};

use super::Facts;
use crate::origin::balance::consistent::{hash, score};
use crate::semantics::cookies::cookie;

/// What a client is known by: a digest of nothing that differs from node to node.
fn digest(by: &StickyBy, facts: &Facts<'_>) -> blake3::Hash {
    let named = match by {
        StickyBy::Address => None,
        StickyBy::Cookie(name) => cookie(facts.fields, name.as_bytes()),
        StickyBy::Header(name) => facts.fields.first(name),
    };
    match (named.filter(|value| !value.is_empty()), facts.client.to_canonical()) {
        (Some(value), _) => blake3::hash(value),
        (None, IpAddr::V4(address)) => blake3::hash(&address.octets()),
        // A network of its own: its clients change their addresses within it.
        (None, IpAddr::V6(address)) => blake3::hash(&address.octets()[..8]),
    }
}

/// Whether a client is among so many of a hundred.
pub(super) fn is_among(by: &StickyBy, facts: &Facts<'_>, percent: u32) -> bool {
    let [a, b, c, d, ..] = *digest(by, facts).as_bytes();
    u64::from(u32::from_le_bytes([a, b, c, d])) * 100 < u64::from(percent) << 32
}

/// The name of the group that a client gets.
pub(super) fn group_of<'s>(split: &'s Split, facts: &Facts<'_>) -> &'s str {
    if let [only] = split.shares.as_slice() {
        return &only.group;
    }
    // Other bytes than a share looks at: the groups of those who are in one are as those of all.
    let [_, _, _, _, _, _, _, _, key @ ..] = *digest(&split.by, facts).as_bytes();
    let key = key.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let scored = split.shares.iter().filter(|share| share.weight > 0);
    let scored = scored.map(|share| (score(share.weight, hash([share.group.as_bytes()]), key), &share.group));
    scored.max_by(|(one, _), (other, _)| one.total_cmp(other)).map_or("", |(_, group)| group)
}

#[cfg(test)]
mod tests {
    use super::super::{Facts, Rules};
    use super::*;
    use crate::semantics::fields::Fields;
    use edge_config::load::rules_of;

    fn facts(client: impl Into<IpAddr>, fields: &str) -> Facts<'_> {
        let (client, fields) = (client.into(), Fields::new(fields.as_bytes()));
        Facts { target: b"/", host: b"www.example.com", method: "GET", fields, client, geo: None }
    }

    fn address(n: u32) -> IpAddr {
        IpAddr::from(n.wrapping_mul(2_654_435_761).to_be_bytes())
    }

    fn rules(text: &str) -> Rules {
        let groups = "[site.s.group.canary]\norigins = \"http://127.0.0.1:1\"\n[site.s.group.next]\norigins = \"http://127.0.0.1:1\"\n";
        let rules = rules_of(&format!("{groups}{text}"));
        Rules::new(rules.unwrap_or_else(|problems| panic!("{}", problems.summary())))
    }

    fn group<'r>(rules: &'r Rules, facts: &Facts<'_>) -> &'r str {
        rules.request(facts).and_then(|matched| rules.group(&matched, facts)).unwrap_or("origins")
    }

    /// How many of 100,000 clients get each group, in percent.
    fn parts(rules: &Rules, client: impl Fn(u32) -> (IpAddr, String)) -> [f64; 3] {
        let mut counts = [0; 3];
        for n in 0..100_000 {
            let (address, fields) = client(n);
            let at = match group(rules, &facts(address, &fields)) {
                "origins" => 0,
                "canary" => 1,
                _ => 2,
            };
            counts[at] += 1;
        }
        counts.map(|count| f64::from(count) / 1_000.0)
    }

    #[track_caller]
    fn close(name: &str, found: [f64; 3], expected: [f64; 3]) {
        let off = found.iter().zip(expected).any(|(found, expected)| (found - expected).abs() >= 0.3);
        assert!(!off, "{name}: {found:?}, expected {expected:?}");
    }

    /// The same clients each time, those of a small share among those of a large one, and as many as it says.
    #[test]
    fn a_share_of_clients() {
        let is_in = |client: IpAddr, percent| is_among(&StickyBy::Address, &facts(client, ""), percent);
        let count = |percent| (0..100_000).filter(|n| is_in(address(*n), percent)).count();
        assert_eq!((count(0), count(100)), (0, 100_000));
        for percent in [1, 5, 50] {
            let share = count(percent) as f64 / 1_000.0;
            assert!((share - f64::from(percent)).abs() < 0.3, "{percent} %: {share}");
        }
        assert!((0..1_000).all(|n| !is_in(address(n), 5) || is_in(address(n), 6)));
        let of_one_network = |n: u16| IpAddr::from([0x2001, 0xdb8, 1, 2, n, n, n, n]);
        assert!((0..100).all(|n| is_in(of_one_network(n), 50) == is_in(of_one_network(0), 50)));
    }

    /// The bar: a canary of 5 % gets 5 % of 100,000 clients, give or take 0.3 %, whatever tells them apart.
    #[test]
    fn a_canary_gets_its_share() {
        let one = [127, 0, 0, 1].into();
        let split = |more: &str| {
            rules(&format!("[[site.s.rule]]\nthen = {{ group = {{ origins = 95, canary = 5 }}{more} }}\n"))
        };
        close("addresses", parts(&split(""), |n| (address(n), String::new())), [95.0, 5.0, 0.0]);
        let cookie = |n| (one, format!("cookie: a=b; id={n}\r\n"));
        close("cookies", parts(&split(", group_by = \"cookie id\""), cookie), [95.0, 5.0, 0.0]);
        let field = |n| (one, format!("x-user: user-{n}\r\n"));
        close("fields", parts(&split(", group_by = \"header X-User\""), field), [95.0, 5.0, 0.0]);
        let without = |n| (address(n), "cookie: a=b; id=\r\n".to_owned());
        close("without the cookie", parts(&split(", group_by = \"cookie id\""), without), [95.0, 5.0, 0.0]);
    }

    #[test]
    fn shares_make_a_split() {
        let by_address = |n| (address(n), String::new());
        let weights = rules("[[site.s.rule]]\nthen = { group = { next = 25, canary = 5, origins = 70 } }\n");
        close("by weight", parts(&weights, by_address), [70.0, 5.0, 25.0]);
        let nested = rules(
            "[[site.s.rule]]\nwhen = { share = \"30%\" }\nthen = { group = \"next\" }\n\
             [[site.s.rule]]\nwhen = { share = \"5%\" }\nthen = { group = \"canary\" }\n",
        );
        close("rules with shares", parts(&nested, by_address), [70.0, 5.0, 25.0]);
        let undone = rules(
            "[[site.s.rule]]\nthen = { group = \"canary\" }\n[[site.s.rule]]\nthen = { group = { origins = 1, canary = 0 } }\n",
        );
        close("the last rule decides", parts(&undone, by_address), [100.0, 0.0, 0.0]);
        let within =
            rules("[[site.s.rule]]\nwhen = { share = \"50%\" }\nthen = { group = { origins = 9, canary = 1 } }\n");
        close("a split of a share", parts(&within, by_address), [95.0, 5.0, 0.0]);
    }

    /// Of a canary that grows nobody leaves, and whoever joins comes from where weight was taken.
    #[test]
    fn as_few_as_possible_move() {
        let split = |text: &str| rules(&format!("[[site.s.rule]]\nthen = {{ group = {{ {text} }} }}\n"));
        let (before, after) =
            (split("origins = 90, canary = 5, next = 5"), split("next = 5, canary = 10, origins = 85"));
        let mut moved = 0;
        for n in 0..20_000 {
            let facts = facts(address(n), "");
            let (was, is) = (group(&before, &facts), group(&after, &facts));
            assert!(was == is || (was, is) == ("origins", "canary") || was == "next" || is == "next", "{was} {is}");
            moved += usize::from(was != is);
        }
        assert!((900..=1_100).contains(&moved), "{moved} of 20,000, expected 5 %");
    }
}

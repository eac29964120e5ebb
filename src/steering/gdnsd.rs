//! The files of gdnsd (<https://gdnsd.org>, 3.x): its configuration, the zone, and what was measured.

use std::fmt::Write;
use std::net::IpAddr;

use edge_config::section::dns::{Dns, Steering};
use edge_config::section::pop::{Place, Pop};

use super::{File, Plan};

/// What the machine of a name server says of itself, and not the configuration of the CDN. Absent: what gdnsd has.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Where it listens.
    pub listen: Vec<String>,
    pub run_dir: Option<String>,
    pub state_dir: Option<String>,
}

/// A node that is gone is noticed after at most two intervals and the timeout of the last question.
const INTERVAL_SECONDS: u32 = 3;
const TIMEOUT_SECONDS: u32 = 1;
/// So many failures take a node out, and so many successes bring it back; so many in between forget a failure.
const DOWN_AFTER: u32 = 2;
const UP_AFTER: u32 = 2;
const OK_AFTER: u32 = 2;
const _: () = assert!(DOWN_AFTER * INTERVAL_SECONDS + TIMEOUT_SECONDS <= 10);

/// A PoP is up while any of its addresses is, and a family while it has one that is up.
const UP_THRESHOLD: &str = "0.01";
/// Weights of a PoP are shared among its addresses: a multiple of 1 to 8, below what gdnsd takes (2^20) with the largest weight.
const SHARES: u32 = 840;
const _: () = assert!(SHARES * 1_000 < 1 << 20);

/// The one resource: all sites are where all PoPs are.
const RESOURCE: &str = "cdn";
const MAP: &str = "clients";
const SERVICE: &str = "ready";
/// In the folder that gdnsd looks for databases in.
const NETS: &str = "latency.nets";

/// How long names of name servers hold, and their addresses.
const INFRASTRUCTURE_SECONDS: u32 = 3_600;

/// The files that are no zone.
pub fn configuration(plan: &Plan<'_>, machine: &Machine) -> Vec<File> {
    let mut files = Vec::new();
    if let Some(latencies) = plan.latencies.filter(|_| plan.dns.steering == Steering::Latency) {
        let line = |(network, order): (_, Vec<&str>)| format!("{network} => {}\n", list(&order));
        let text = latencies.orders(plan.pops).map(line).collect();
        files.push(File { path: format!("geoip/{NETS}"), text });
    }
    let mut text = String::from("# Made by `littoral dns render`; do not edit.\n");
    let mut say = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    say("options => {");
    if !machine.listen.is_empty() {
        let listen: Vec<&str> = machine.listen.iter().map(String::as_str).collect();
        say(&format!("  listen => {}", list(&listen)));
    }
    for (key, directory) in [("run_dir", &machine.run_dir), ("state_dir", &machine.state_dir)] {
        if let Some(directory) = directory {
            say(&format!("  {key} => {}", quoted(directory)));
        }
    }
    // Both are in force without these lines but for times below 5 s.
    say("  edns_client_subnet => true");
    say("  min_ttl => 1");
    say("}");
    say("service_types => {");
    say(&format!("  {SERVICE} => {{"));
    say("    plugin => http_status");
    say(&format!("    port => {}", plan.dns.health_port));
    say(&format!("    url_path => {}", quoted(&plan.dns.health_path)));
    say(&format!("    interval => {INTERVAL_SECONDS}"));
    say(&format!("    timeout => {TIMEOUT_SECONDS}"));
    say(&format!("    up_thresh => {UP_AFTER}"));
    say(&format!("    ok_thresh => {OK_AFTER}"));
    say(&format!("    down_thresh => {DOWN_AFTER}"));
    say("  }");
    say("}");
    say("plugins => {");
    say(&format!("  {} => {{", plugin(plan.dns.steering)));
    say(&format!("    service_types => {SERVICE}"));
    say(&format!("    up_thresh => {UP_THRESHOLD}"));
    text.push_str(&match plan.dns.steering {
        Steering::All => all(plan.pops),
        Steering::Weighted => weighted(plan.pops),
        Steering::Failover => failover(plan.pops),
        Steering::Geo | Steering::Latency => geo(plan),
    });
    text.push_str("  }\n}\n");
    files.push(File { path: "config".into(), text });
    files
}

fn plugin(steering: Steering) -> &'static str {
    match steering {
        Steering::All => "multifo",
        Steering::Weighted => "weighted",
        Steering::Failover => "metafo",
        Steering::Geo | Steering::Latency => "geoip",
    }
}

/// Words as gdnsd reads them, whatever is in them.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn list(words: &[&str]) -> String {
    format!("[ {} ]", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", "))
}

/// The two families and what each has of some PoPs, where it has any.
fn families<'p>(pops: &'p [Pop]) -> impl Iterator<Item = (&'static str, Vec<(&'p Pop, Vec<IpAddr>)>)> {
    [("addrs_v4", true), ("addrs_v6", false)].into_iter().filter_map(move |(key, is_v4)| {
        let of = |pop: &'p Pop| {
            let addresses: Vec<IpAddr> = pop.addresses.iter().copied().filter(|a| a.is_ipv4() == is_v4).collect();
            (!addresses.is_empty()).then_some((pop, addresses))
        };
        let found: Vec<_> = pops.iter().filter_map(of).collect();
        (!found.is_empty()).then_some((key, found))
    })
}

/// Every address of some PoPs, by a name of its own.
fn addresses(pops: &[Pop]) -> String {
    let of_pop = |(pop, addresses): &(&Pop, Vec<IpAddr>)| {
        let named = |(index, address): (usize, &IpAddr)| {
            format!("{} => {}", quoted(&format!("{}-{}", pop.name, index + 1)), quoted(&address.to_string()))
        };
        addresses.iter().enumerate().map(named).collect::<Vec<_>>().join(", ")
    };
    let of_family = |(key, found): (&str, Vec<_>)| {
        format!("{key} => {{ {} }}", found.iter().map(of_pop).collect::<Vec<_>>().join(", "))
    };
    format!("{{ {} }}", families(pops).map(of_family).collect::<Vec<_>>().join(", "))
}

fn all(pops: &[Pop]) -> String {
    format!("    {RESOURCE} => {}\n", addresses(pops))
}

/// A PoP is chosen by its weight, and the answer has all its addresses.
fn weighted(pops: &[Pop]) -> String {
    let mut text = format!("    {RESOURCE} => {{\n");
    for (key, found) in families(pops) {
        let _ = writeln!(text, "      {key} => {{");
        for (pop, addresses) in found {
            let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
            let weight = (pop.weight.saturating_mul(SHARES) / count).max(1);
            let named = |(index, address): (usize, &IpAddr)| {
                format!("{} => [ {}, {weight} ]", quoted(&(index + 1).to_string()), quoted(&address.to_string()))
            };
            let addresses: Vec<String> = addresses.iter().enumerate().map(named).collect();
            let _ = writeln!(text, "        {} => {{ {} }}", quoted(&pop.name), addresses.join(", "));
        }
        text.push_str("      }\n");
    }
    text + "    }\n"
}

fn failover(pops: &[Pop]) -> String {
    format!(
        "    resources => {{\n      {RESOURCE} => {{\n        datacenters => {}\n{}      }}\n    }}\n",
        names(pops),
        dcmap(pops)
    )
}

fn names(pops: &[Pop]) -> String {
    list(&pops.iter().map(|pop| pop.name.as_str()).collect::<Vec<_>>())
}

fn dcmap(pops: &[Pop]) -> String {
    let mut text = String::from("        dcmap => {\n");
    for pop in pops {
        let _ = writeln!(text, "          {} => {}", quoted(&pop.name), addresses(std::slice::from_ref(pop)));
    }
    text + "        }\n"
}

fn geo(plan: &Plan<'_>) -> String {
    let mut text = format!("    maps => {{\n      {MAP} => {{\n        datacenters => {}\n", names(plan.pops));
    if let Some(database) = &plan.dns.database {
        let _ = writeln!(text, "        geoip2_db => {}", quoted(database));
        text.push_str(&map(plan.pops));
    }
    if plan.dns.steering == Steering::Latency {
        let _ = writeln!(text, "        nets => {}", quoted(NETS));
    }
    text.push_str("      }\n    }\n");
    let _ = write!(
        text,
        "    resources => {{\n      {RESOURCE} => {{\n        map => {MAP}\n{}      }}\n    }}\n",
        dcmap(plan.pops)
    );
    text
}

/// Places, and the PoPs for each: those that are near it, those that are near what it is a part of, and all others.
fn map(pops: &[Pop]) -> String {
    let mut places: Vec<&Place> = pops.iter().flat_map(|pop| &pop.near).collect();
    places.sort();
    places.dedup();
    let mut tree = Tree::default();
    for place in places {
        tree.insert(place.parts(), order(place, pops));
    }
    let mut text = String::new();
    tree.write("map", 8, &mut text);
    text
}

fn order<'p>(place: &Place, pops: &'p [Pop]) -> Vec<&'p str> {
    // The longest part of what holds the place decides; nobody near it: last.
    let nearness = |pop: &&Pop| {
        let holds = pop.near.iter().filter(|near| near.holds(place)).map(|near| near.parts().len()).max();
        std::cmp::Reverse(holds.unwrap_or(0))
    };
    let mut order: Vec<&Pop> = pops.iter().collect();
    order.sort_by_key(nearness);
    order.into_iter().map(|pop| pop.name.as_str()).collect()
}

/// The map as gdnsd nests it.
#[derive(Default)]
struct Tree<'p> {
    order: Option<Vec<&'p str>>,
    below: std::collections::BTreeMap<String, Tree<'p>>,
}

impl<'p> Tree<'p> {
    fn insert(&mut self, parts: &[String], order: Vec<&'p str>) {
        match parts.split_first() {
            None => self.order = Some(order),
            Some((first, rest)) => self.below.entry(first.clone()).or_default().insert(rest, order),
        }
    }

    fn write(&self, key: &str, indent: usize, text: &mut String) {
        match (&self.order, self.below.is_empty()) {
            (Some(order), true) => _ = writeln!(text, "{:indent$}{key} => {}", "", list(order)),
            (order, _) => {
                let _ = writeln!(text, "{:indent$}{key} => {{", "");
                if let Some(order) = order {
                    let _ = writeln!(text, "{:indent$}  default => {}", "", list(order));
                }
                for (key, tree) in &self.below {
                    tree.write(key, indent + 2, text);
                }
                let _ = writeln!(text, "{:indent$}}}", "");
            }
        }
    }
}

/// The zone, with this serial.
pub fn zone(plan: &Plan<'_>, fixed: &[IpAddr], serial: u32) -> File {
    let Plan { dns, labels, .. } = plan;
    let ttl = dns.ttl.get().as_secs().max(1);
    let primary = dns.nameservers.first().map_or("", |server| server.name.as_str());
    let mut text = String::from("; Made by `littoral dns render`; do not edit.\n");
    text.push_str("; Hosts of a site are a CNAME of its name here. A name that cannot be one needs these addresses:\n");
    for address in fixed {
        let _ = writeln!(text, ";   {} {address}", kind(address));
    }
    let _ = writeln!(text, "$TTL {INFRASTRUCTURE_SECONDS}");
    // What there is not, a name that is added later among it, is forgotten as soon as what there is.
    let _ = writeln!(text, "@ {ttl} SOA {primary}. {}. ( {serial} 7200 1800 1209600 {ttl} )", mailbox(&dns.contact));
    for server in &dns.nameservers {
        let _ = writeln!(text, "@ NS {}.", server.name);
    }
    for server in dns.nameservers.iter().filter(|server| is_within(dns, &server.name)) {
        for address in &server.addresses {
            let _ = writeln!(text, "{}. {} {address}", server.name, kind(address));
        }
    }
    for label in *labels {
        // The same time whatever gdnsd expects of its checks.
        let _ = writeln!(text, "{label} {ttl}/{ttl} DYNA {}!{RESOURCE}", plugin(dns.steering));
    }
    File { path: format!("zones/{}", dns.zone), text }
}

/// The serial of a zone that was rendered before.
pub fn serial_of(zone: &str) -> Option<u32> {
    let line = zone.lines().find(|line| line.contains(" SOA "))?;
    line.split_once("( ")?.1.split(' ').next()?.parse().ok()
}

fn kind(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "A" } else { "AAAA" }
}

fn is_within(dns: &Dns, name: &str) -> bool {
    name == dns.zone || name.strip_suffix(dns.zone.as_str()).is_some_and(|rest| rest.ends_with('.'))
}

/// RFC 1035 section 8: the first label is what stands before the `@`, whose own dots are escaped.
fn mailbox(contact: &str) -> String {
    match contact.split_once('@') {
        Some((local, domain)) => format!("{}.{domain}", local.replace('.', "\\.")),
        None => contact.to_owned(),
    }
}

#[cfg(test)]
mod tests;

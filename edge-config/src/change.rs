//! What a new configuration changes: at once, or only with a restart.

use crate::Config;

/// The keys whose change needs a restart.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let mut compare = |same: bool, key| {
        if !same {
            keys.push(key);
        }
    };
    compare(old.workers == new.workers, "workers");
    compare(old.listen.http == new.listen.http, "listen.http");
    compare(old.listen.https == new.listen.https, "listen.https");
    compare(old.listen.health == new.listen.health, "listen.health");
    compare(old.cache.memory == new.cache.memory, "cache.memory");
    compare(old.cache.disks == new.cache.disks, "cache.disk");
    compare(old.admin == new.admin, "admin.listen");
    compare(old.node.name == new.node.name, "node.name");
    compare(old.node.pop == new.node.pop, "node.pop");
    compare(old.node.address == new.node.address, "node.address");
    compare(old.node.authority == new.node.authority, "node.authority");
    compare(old.node.key_file == new.node.key_file, "node.key_file");
    compare(old.purge.log == new.purge.log, "purge.log");
    compare(old.purge.data == new.purge.data, "purge.data");
    compare(old.access_log == new.access_log, "telemetry.access_log");
    keys
}

/// What happens to the sites.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteChanges {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
}

/// Compares the sites of two configurations, by name.
pub fn site_changes(old: &Config, new: &Config) -> SiteChanges {
    let mut changes = SiteChanges::default();
    for site in &new.sites {
        match old.sites.iter().find(|other| other.name == site.name) {
            None => changes.added.push(site.name.clone()),
            Some(other) if other != site => changes.changed.push(site.name.clone()),
            Some(_) => {}
        }
    }
    let gone = old.sites.iter().filter(|site| !new.sites.iter().any(|other| other.name == site.name));
    changes.removed = gone.map(|site| site.name.clone()).collect();
    changes
}

/// What differs between two texts of a site besides its rules: the keys. None: the new one is not understood, or has no such site.
pub fn keys_besides_rules(site: &str, old: &str, new: &str) -> Option<Vec<String>> {
    let table = |text: &str| text.parse::<toml::Table>().ok();
    let (mut old, mut new) = (table(old).unwrap_or_default(), table(new)?);
    let take = |table: &mut toml::Table| {
        let sites = table.get_mut("site")?.as_table_mut()?;
        let mut own = sites.remove(site)?.as_table()?.clone();
        own.remove("rule");
        if sites.is_empty() {
            table.remove("site");
        }
        Some(own)
    };
    let (old_site, new_site) = (take(&mut old).unwrap_or_default(), take(&mut new)?);
    let differing = |one: &toml::Table, other: &toml::Table| {
        let keys: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).cloned().collect();
        keys.into_iter().filter(|key| one.get(key) != other.get(key)).collect::<Vec<_>>()
    };
    let mut keys = differing(&old_site, &new_site);
    keys.extend(differing(&old, &new));
    Some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::parse;

    fn config(text: &str) -> Config {
        let mut problems = Vec::new();
        let config = parse(std::path::Path::new("edge.toml"), text, &[], &[], &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        config
    }

    fn site(name: &str, origin: u16) -> String {
        format!("[site.{name}]\nhosts = \"{name}.test\"\norigins = \"http://127.0.0.1:{origin}\"\n")
    }

    #[test]
    fn what_changes_and_what_needs_a_restart() {
        let listen = "[listen]\nhttp = \"127.0.0.1:8080\"\n";
        let old = config(&format!("workers = 2\n{listen}{}{}{}", site("a", 1), site("b", 1), site("c", 1)));
        let new = config(&format!(
            "workers = 3\n{listen}[cache]\nmemory = \"64MiB\"\ndisk = {{ path = \"d\", size = \"64MiB\" }}\n{}{}{}",
            site("b", 2),
            site("c", 1),
            site("d", 1)
        ));
        let changes = site_changes(&old, &new);
        assert_eq!(
            (changes.added, changes.removed, changes.changed),
            (vec!["d".into()], vec!["a".into()], vec!["b".into()])
        );
        assert_eq!(needs_restart(&old, &new), ["workers", "cache.memory", "cache.disk"]);
        assert_eq!(needs_restart(&old, &old), [""; 0]);
    }

    #[test]
    fn where_a_node_stands_needs_a_restart_and_a_shield_does_not() {
        let key = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let with = |node: &str, shield: &str| {
            let hub = "[purge]\nlog = { nats = \"nats://hub\" }\n[listen]\nhttp = \"127.0.0.1:8080\"\n";
            config(&format!("{hub}[node]\nkey_file = \"{key}\"\n{node}{}{shield}", site("a", 1)))
        };
        let old = with("pop = \"fra\"\naddress = \"http://192.0.2.1:8080\"\n", "");
        let new = with("name = \"a\"\npop = \"ams\"\naddress = \"http://192.0.2.2:8080\"\n", "");
        assert_eq!(needs_restart(&old, &new), ["node.name", "node.pop", "node.address"]);
        let shielded = with("pop = \"fra\"\naddress = \"http://192.0.2.1:8080\"\n", "shield = \"ams\"\n");
        assert_eq!(needs_restart(&old, &shielded), [""; 0]);
        assert_eq!(site_changes(&old, &shielded).changed, ["a"]);
        assert_eq!(shielded.node.address.map(|address| address.url()).as_deref(), Some("http://192.0.2.1:8080"));
    }

    #[test]
    fn what_a_site_may_store_changes_with_a_reload() {
        let with = |more: &str| config(&format!("[listen]\nhttp = \"127.0.0.1:8080\"\n{}{more}", site("a", 1)));
        for (before, after) in [
            ("disk_share = \"25%\"\n", "disk_share = \"50%\"\n"),
            ("rule = { then = { max_size = \"1GiB\" } }\n", "rule = { then = { max_size = \"2GiB\" } }\n"),
        ] {
            for (old, new) in [(with(""), with(before)), (with(before), with(after))] {
                assert_eq!(site_changes(&old, &new).changed, ["a"], "{after}");
                assert_eq!(needs_restart(&old, &new), [""; 0], "{after}");
            }
        }
    }

    #[test]
    fn what_differs_besides_rules() {
        let old = "[site.a]\nhosts = \"a.test\"\norigins = \"http://127.0.0.1:1\"\n";
        let rules = "[[site.a.rule]]\nthen = { cache = false }\n";
        let rows: [(&str, String, Option<&[&str]>); 9] = [
            ("nothing", old.into(), Some(&[])),
            ("rules", format!("{old}{rules}"), Some(&[])),
            (
                "in another form",
                "site = { a = { origins = \"http://127.0.0.1:1\", hosts = \"a.test\" } }".into(),
                Some(&[]),
            ),
            ("hosts", old.replace("a.test", "b.test"), Some(&["hosts"])),
            ("one more", format!("{old}https_only = true\n"), Some(&["https_only"])),
            ("one less", "[site.a]\nhosts = \"a.test\"\n".into(), Some(&["origins"])),
            ("another site", format!("{old}[site.b]\nhosts = \"b.test\"\n"), Some(&["site"])),
            ("no such site", String::new(), None),
            ("no TOML", "[".into(), None),
        ];
        for (name, new, expected) in rows {
            let keys = keys_besides_rules("a", old, &new);
            let expected = expected.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>());
            assert_eq!(keys, expected, "{name}");
        }
        assert_eq!(keys_besides_rules("a", "", old).map(|keys| keys.len()), Some(2), "a new site");
    }
}

//! Texts of sites, made and changed for who does not write them by hand. What stands in one besides stays as it is.

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value, value};

/// The text of a new site, as a file in sites.d has it.
pub fn new_site(name: &str, hosts: &[String], origins: &[String], https_only: bool) -> String {
    let mut site = Table::new();
    site.insert("hosts", value(hosts.iter().collect::<Array>()));
    let origins = match origins {
        [origin] => value(origin),
        several => value(several.iter().collect::<Array>()),
    };
    site.insert("origins", origins);
    if https_only {
        site.insert("https_only", value(true));
    }
    let mut sites = Table::new();
    sites.set_implicit(true);
    sites.insert(name, Item::Table(site));
    let mut document = DocumentMut::new();
    document.insert("site", Item::Table(sites));
    document.to_string()
}

/// The text of a site with a host more. None: it is no text of that site.
pub fn with_host(name: &str, text: &str, host: &str) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    let hosts = hosts_of(site_of(&mut document, name)?)?;
    if !hosts.iter().any(|known| known.as_str() == Some(host)) {
        hosts.push(host);
    }
    Some(document.to_string())
}

/// The text of a site with a host less. None: it is no text of that site, or has no such host.
pub fn without_host(name: &str, text: &str, host: &str) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    let hosts = hosts_of(site_of(&mut document, name)?)?;
    let before = hosts.len();
    hosts.retain(|known| known.as_str() != Some(host));
    hosts.fmt();
    (hosts.len() < before).then(|| document.to_string())
}

fn site_of<'d>(document: &'d mut DocumentMut, name: &str) -> Option<&'d mut dyn TableLike> {
    document.get_mut("site")?.as_table_like_mut()?.get_mut(name)?.as_table_like_mut()
}

/// The hosts, as a list.
fn hosts_of(site: &mut dyn TableLike) -> Option<&mut Array> {
    let hosts = site.get_mut("hosts")?;
    if let Item::Value(Value::String(only)) = hosts {
        let mut list = Value::Array([only.value()].into_iter().collect());
        // A comment beside it stays there.
        *list.decor_mut() = only.decor().clone();
        *hosts = Item::Value(list);
    }
    match hosts {
        Item::Value(Value::Array(hosts)) => Some(hosts),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_site_is_one_a_node_can_run_with() {
        let hosts = ["www.a.test".to_owned(), "*.a.test".to_owned()];
        let text = new_site("a.b", &hosts, &["http://127.0.0.1:1".to_owned()], true);
        let expected = "[site.\"a.b\"]\nhosts = [\"www.a.test\", \"*.a.test\"]\norigins = \"http://127.0.0.1:1\"\nhttps_only = true\n";
        assert_eq!(text, expected);
        let mut problems = Vec::new();
        let whole = format!("[listen]\nhttp = \":8080\"\n{text}");
        let config = crate::load::parse(std::path::Path::new("edge.toml"), &whole, &[], &[], &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!((config.sites[0].name.as_str(), config.sites[0].hosts.len()), ("a.b", 2));
    }

    #[test]
    fn hosts_come_and_go_and_the_rest_stays() {
        let text = "# ours\n[site.a]\nhosts = \"a.test\"   # one\norigins = \"http://127.0.0.1:1\"\n\n[[site.a.rule]]\nthen = { cache = false }\n";
        let two = with_host("a", text, "b.test").expect("it is a");
        assert!(two.contains("hosts = [\"a.test\", \"b.test\"]   # one\n") && two.starts_with("# ours\n"), "{two}");
        assert!(two.ends_with("[[site.a.rule]]\nthen = { cache = false }\n"), "{two}");
        assert_eq!(with_host("a", &two, "b.test").as_ref(), Some(&two), "it has it");
        let one = without_host("a", &two, "a.test").expect("it has it");
        assert!(one.contains("[\"b.test\"]"), "{one}");
        for (name, text, host) in
            [("b", text, "a.test"), ("a", text, "c.test"), ("a", "[", "a.test"), ("a", "", "a.test")]
        {
            assert_eq!(without_host(name, text, host), None, "{name} {host}");
        }
    }
}

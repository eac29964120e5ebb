//! What many nodes have of a hub, beside their own files: sites, a document each, and settings for all of them.

use std::path::{Path, PathBuf};

use crate::load::document;
use crate::read::key::{Key, Kind, Section, section};
use crate::read::problem::{Problem, Source};
use crate::read::{Reader, Table};
use crate::section::admin::{Admin, TOKENS, Token};
use crate::section::limits::{LIMITS, Limits};
use crate::section::purge::{RATE_KEY, RATE_MAX};
use crate::section::resolver::{RESOLVER, Resolver};

/// A document of the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// The site it is of. None: it has the settings for all nodes.
    pub site: Option<&'a str>,
    /// What a file in sites.d can hold, with this one site; nothing removes the site.
    pub text: &'a str,
}

impl Document<'_> {
    /// Where problems say that it is: beside the file of the configuration, so that paths mean the same.
    pub fn file(&self, path: &Path) -> PathBuf {
        let name = self.site.map_or_else(|| "node".to_owned(), |site| format!("site.{site}"));
        path.with_file_name(format!("hub:{name}"))
    }
}

/// `[admin]` of the settings for all nodes.
pub static SHARED_ADMIN: Section =
    Section { title: "[admin]", doc: "Who may do what on the admin API of every node.", keys: &[&TOKENS] };

/// `[purge]` of the settings for all nodes.
pub static SHARED_PURGE: Section = Section { title: "[purge]", doc: "How fast sites may purge.", keys: &[&RATE_KEY] };

section! {
    /// Settings for all nodes that follow a hub: `littoral config push FILE --node`. A node whose own file has one of them too is
    /// told so, and refuses them.
    SETTINGS = "the settings for all nodes" {
        /// Every bound a client can run into.
        SHARED_LIMITS = "limits": Kind::Table(&LIMITS);
        /// Who is asked for the addresses of origins.
        SHARED_RESOLVER = "resolver": Kind::Table(&RESOLVER);
        /// `tokens` alone: who may do what.
        SHARED_ADMIN_KEY = "admin": Kind::Table(&SHARED_ADMIN);
        /// `rate` alone: how fast sites may purge.
        SHARED_PURGE_KEY = "purge": Kind::Table(&SHARED_PURGE);
    }
}

/// The settings for all nodes, those that are there.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub limits: Option<Limits>,
    pub resolver: Option<Resolver>,
    pub tokens: Vec<Token>,
    pub rate: Option<u32>,
}

impl Settings {
    /// Reads them. `own`: the tables of the node's own file.
    pub(crate) fn read(
        &mut self,
        path: &Path,
        given: &Document<'_>,
        own: &Table<'_>,
        own_source: &Source,
        problems: &mut Vec<Problem>,
    ) {
        let mut reader = Reader::new(given.file(path), given.text);
        let toml = document(&mut reader, given.text);
        let root = reader.root(&SETTINGS, &toml);
        let twice = |key: &Key, below: Option<&str>, reader: &mut Reader| {
            let here = root.place(key.name, below);
            if let Some((here, there)) = here.zip(own.place(key.name, below)) {
                let name =
                    below.map_or_else(|| format!("[{}]", key.name), |below| format!("`{below}` of [{}]", key.name));
                let (line, _) = own_source.position(there.start);
                let message = format!("{name} is both in {} and in the settings for all nodes", path.display());
                let help = format!("take it out of one of them; the node's own is at {}:{line}", path.display());
                reader.wrong(&here, message, "also in the node's own file", help);
            }
        };
        twice(&SHARED_LIMITS, None, &mut reader);
        twice(&SHARED_RESOLVER, None, &mut reader);
        twice(&SHARED_ADMIN_KEY, Some("tokens"), &mut reader);
        twice(&SHARED_PURGE_KEY, Some("rate"), &mut reader);
        if let Some(limits) = root.table(&mut reader, &SHARED_LIMITS, &LIMITS) {
            self.limits = Some(Limits::read(Some(limits), &mut reader));
        }
        if let Some(resolver) = root.table(&mut reader, &SHARED_RESOLVER, &RESOLVER) {
            self.resolver = Some(Resolver::read(Some(resolver), &mut reader));
        }
        if let Some(admin) = root.table(&mut reader, &SHARED_ADMIN_KEY, &SHARED_ADMIN) {
            self.tokens = Admin::read_tokens(&admin, &mut reader);
            admin.finish(&mut reader);
        }
        if let Some(purge) = root.table(&mut reader, &SHARED_PURGE_KEY, &SHARED_PURGE) {
            self.rate = purge.value(&RATE_KEY).and_then(|_| purge.integer(&mut reader, &RATE_KEY, 1..=RATE_MAX));
            purge.finish(&mut reader);
        }
        root.finish(&mut reader);
        problems.append(&mut reader.problems);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::parse;

    const HEAD: &str = "[listen]\nhttp = \"127.0.0.1:8080\"\n[purge]\nlog = { nats = \"nats://hub:4222\" }\n";

    fn site(name: &str, host: &str) -> String {
        format!("[site.{name}]\nhosts = \"{host}\"\norigins = \"http://127.0.0.1:1\"\n")
    }

    /// The site, and the text.
    type Given<'a> = (Option<&'a str>, &'a str);

    fn said(own: &str, documents: &[Given<'_>]) -> Result<crate::Config, String> {
        let documents: Vec<_> = documents.iter().map(|(site, text)| Document { site: *site, text }).collect();
        let mut problems = Vec::new();
        let path = Path::new("etc/edge.toml");
        let config = parse(path, &format!("{HEAD}{own}"), &[], &documents, &mut problems);
        let said = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        if problems.is_empty() { Ok(config) } else { Err(said) }
    }

    #[test]
    fn documents_and_a_file_make_one_configuration() {
        let token = format!(
            "tokens = {{ name = \"a\", hash = \"{}\", sites = \"later\", verbs = \"configure\" }}",
            "0".repeat(64)
        );
        let settings = format!(
            "[limits]\nidle_timeout = \"7s\"\n[resolver]\nttl_max = \"2h\"\n[purge]\nrate = 3\n[admin]\n{token}\n"
        );
        let (a, b) = (site("a", "a.test"), site("b", "b.test"));
        let config = said(&a, &[(None, &settings), (Some("b"), &b), (Some("gone"), " \n")]).expect("good");
        let names: Vec<_> = config.sites.iter().map(|site| site.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let limits = (config.limits.idle_timeout.get().as_secs(), config.limits.head_timeout.get().as_secs());
        assert_eq!((limits, config.purge.rate, config.tokens.len()), ((7, 10), 3, 1));
        assert_eq!(config.resolver.ttl_max.get().as_secs(), 7_200);
        assert!(said("", &[]).expect("sites may come later").sites.is_empty());
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        let (a, b) = (site("a", "a.test"), site("b", "a.test"));
        let rows: &[(&str, &str, &[Given<'_>], &str)] = &[
            (
                "a host of two sites",
                &a,
                &[(Some("b"), &b)],
                "etc/hub:site.b:2:9: the host `a.test` belongs to both `a` and `b`",
            ),
            ("a site twice", &a, &[(Some("a"), &a)], "etc/hub:site.a:1:7: the site `a` is there twice"),
            ("another site", "", &[(Some("c"), &a)], "etc/hub:site.c:1:7: the site `a` in the document of `c`"),
            ("no site", "", &[(Some("c"), "# nothing")], "etc/hub:site.c:1:1: there is no [site.c]"),
            ("settings in a site", "", &[(Some("a"), "[limits]\n")], "unknown key `limits` in a file in sites.d"),
            ("what is a node's own", "", &[(None, "workers = 2\n")], "etc/hub:node:1:1: unknown key `workers`"),
            ("its log", "", &[(None, "[purge]\nlog = \"local\"\n")], "etc/hub:node:2:1: unknown key `log` in [purge]"),
            (
                "limits in both",
                "[limits]\n",
                &[(None, "\n[limits]\n")],
                "etc/hub:node:2:2: [limits] is both in etc/edge.toml and in the settings for all nodes",
            ),
        ];
        for (name, own, documents, expected) in rows {
            let said = said(own, documents).expect_err(name);
            assert!(said.contains(expected), "{name}: {said}");
        }
        let with = |own: &str, settings: &str| {
            let text = format!("[listen]\nhttp = \"127.0.0.1:8080\"\n{own}");
            let mut problems = Vec::new();
            let documents = [Document { site: None, text: settings }];
            parse(Path::new("edge.toml"), &text, &[], &documents, &mut problems);
            problems.iter().map(|problem| format!("{problem} ({})", problem.help)).collect::<Vec<_>>().join("; ")
        };
        let log = "log = { nats = \"nats://hub:4222\" }\n";
        let rate = with(&format!("[purge]\n{log}rate = 5\n"), "[purge]\nrate = 6\n");
        assert!(rate.contains("`rate` of [purge] is both in edge.toml") && rate.contains("edge.toml:5"), "{rate}");
        assert_eq!(with(&format!("[purge]\n{log}[admin]\nlisten = \"127.0.0.1:9901\"\n"), "[admin]\n"), "");
    }
}

//! From a file, and the files of sites beside it, to a configuration.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::Config;
use crate::read::key::{Kind, Section, section};
use crate::read::problem::{Problem, Problems, Source};
use crate::read::{At, Known, Reader, Table, closest, why_unreadable};
use crate::section::acme::{ACME, Acme};
use crate::section::admin::{self, ADMIN, default_admin};
use crate::section::anycast::{ANYCAST, Anycast};
use crate::section::cache::{CACHE, Cache};
use crate::section::dns::{DNS, Dns, check_label, label};
use crate::section::geo::{GEO, Geo};
use crate::section::limits::{LIMITS, Limits};
use crate::section::listener::{LISTEN, Listen, ListenAt};
use crate::section::node::{NODE, NodeSettings};
use crate::section::pop::{POP, Pop};
use crate::section::purge::{Log, PURGE, Purge};
use crate::section::resolver::{RESOLVER, Resolver};
use crate::section::site::{SITE, Site, SiteAt};
use crate::section::telemetry::{AccessLog, TELEMETRY};
use crate::section::tls::{TLS, Tls};
use crate::shared::{Document, Settings};

section! {
    /// The configuration of a node.
    ROOT = "the file" {
        /// Worker threads. Absent: one for each processor.
        WORKERS = "workers": Kind::Integer(1, 1_024);
        /// What this node is called, and how others reach it.
        ROOT_NODE = "node": Kind::Table(&NODE);
        /// Where clients connect.
        ROOT_LISTEN = "listen": Kind::Table(&LISTEN);
        /// Certificates, and how handshakes are done.
        ROOT_TLS = "tls": Kind::Table(&TLS);
        /// Certificates of an authority, had by ACME.
        ROOT_ACME = "acme": Kind::Table(&ACME);
        /// What the node may keep.
        ROOT_CACHE = "cache": Kind::Table(&CACHE);
        /// Where the operator connects.
        ROOT_ADMIN = "admin": Kind::Table(&ADMIN);
        /// The log of purges.
        ROOT_PURGE = "purge": Kind::Table(&PURGE);
        /// Who is asked for the addresses of origins.
        ROOT_RESOLVER = "resolver": Kind::Table(&RESOLVER);
        /// In which country an address is.
        ROOT_GEO = "geo": Kind::Table(&GEO);
        /// The zone that sends clients to the nodes.
        ROOT_DNS = "dns": Kind::Table(&DNS);
        /// Where nodes stand.
        ROOT_POP = "pop": Kind::Named(&POP);
        /// Addresses that other nodes have too.
        ROOT_ANYCAST = "anycast": Kind::Table(&ANYCAST);
        /// Where the access log goes.
        ROOT_TELEMETRY = "telemetry": Kind::Table(&TELEMETRY);
        /// Every bound a client can run into.
        ROOT_LIMITS = "limits": Kind::Table(&LIMITS);
        /// The sites. More can stand in sites.d/*.toml beside the file, each with its tables and nothing else.
        SITES = "site": Kind::Named(&SITE);
    }
}

section! {
    /// What a file in sites.d can hold.
    SITES_ROOT = "a file in sites.d" {
        /// The sites.
        SITES_ONLY = "site": Kind::Named(&SITE);
    }
}

/// A configuration file is small; something else by mistake is not read to its end.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads the configuration in a file and in `sites.d/*.toml` beside it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path) -> Result<Config, Problems> {
    Files::read(path).config(&[])
}

/// The texts of a file and of `sites.d/*.toml` beside it, as they were when they were read.
#[derive(Clone, Debug)]
pub struct Files {
    path: PathBuf,
    text: Option<String>,
    sites: Vec<(PathBuf, String)>,
    problems: Vec<Problem>,
}

impl Files {
    /// Reads them. What cannot be read is said by [`Files::config`].
    pub fn read(path: &Path) -> Self {
        let mut problems = Vec::new();
        let text = read(path, &mut problems);
        let files = site_files(path, &mut problems);
        let sites = files.into_iter().filter_map(|file| read(&file, &mut problems).map(|text| (file, text))).collect();
        Self { path: path.to_owned(), text, sites, problems }
    }

    /// The configuration they make, together with documents that many nodes share.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn config(&self, documents: &[Document<'_>]) -> Result<Config, Problems> {
        let mut problems = self.problems.clone();
        let Some(text) = &self.text else { return Err(Problems::new(problems)) };
        let config = parse(&self.path, text, &self.sites, documents, &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(Problems::new(problems)) }
    }
}

fn read(path: &Path, problems: &mut Vec<Problem>) -> Option<String> {
    let mut wrong = |message: String, help: &str| {
        problems.push(Problem::of_file(path.to_owned(), message, help));
        None
    };
    match std::fs::metadata(path) {
        Ok(file) if file.len() > FILE_BYTES_MAX => {
            return wrong(format!("{} bytes are no configuration", file.len()), "expected at most 4MiB of TOML");
        }
        _ => {}
    }
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return wrong(format!("cannot be read: {}", why_unreadable(&error)), "expected a file in TOML"),
    };
    match String::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            wrong(format!("byte {at} is not UTF-8"), "save the file as UTF-8, as TOML asks for")
        }
    }
}

/// The files of sites. A directory that is there and cannot be read must not look like one without sites: a reload would
/// take them away.
fn site_files(path: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let directory = path.parent().unwrap_or(Path::new("")).join("sites.d");
    let listed = std::fs::read_dir(&directory).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<PathBuf>>>()
    });
    match listed {
        Ok(mut files) => {
            files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
            files.sort();
            files
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            let message = format!("cannot be listed: {}", why_unreadable(&error));
            problems.push(Problem::of_file(directory, message, "sites.d holds files of sites; let the node read it"));
            Vec::new()
        }
    }
}

const SYNTAX: &str = "a file has lines as in key = \"value\" below lines as in [table]; see https://toml.io/en/v1.0.0";

/// Reads texts. The configuration is only good when no problem was added.
pub(crate) fn parse(
    path: &Path,
    text: &str,
    site_files: &[(PathBuf, String)],
    documents: &[Document<'_>],
    problems: &mut Vec<Problem>,
) -> Config {
    let mut reader = Reader::new(path.to_owned(), text);
    let document = document(&mut reader, text);
    // Where the text is not understood, what seems to be missing may be there.
    let is_toml = reader.problems.is_empty();
    let root = reader.root(&ROOT, &document);
    let workers = root.integer(&mut reader, &WORKERS, 1..=1_024);
    let mut section = |key, section| root.table(&mut reader, key, section);
    let (listen, tls, cache) = (section(&ROOT_LISTEN, &LISTEN), section(&ROOT_TLS, &TLS), section(&ROOT_CACHE, &CACHE));
    let (admin, telemetry, limits) =
        (section(&ROOT_ADMIN, &ADMIN), section(&ROOT_TELEMETRY, &TELEMETRY), section(&ROOT_LIMITS, &LIMITS));
    let (purge, node) = (section(&ROOT_PURGE, &PURGE), section(&ROOT_NODE, &NODE));
    let (resolver, geo, dns) = (section(&ROOT_RESOLVER, &RESOLVER), section(&ROOT_GEO, &GEO), section(&ROOT_DNS, &DNS));
    let acme = section(&ROOT_ACME, &ACME);
    let anycast = section(&ROOT_ANYCAST, &ANYCAST);
    let listen = ListenAt::read(listen, &mut reader);
    let tls = Tls::read(tls, &mut reader);
    let cache = Cache::read(cache, &mut reader);
    let mut admin = admin::read(admin, &mut reader);
    let mut purge = Purge::read(purge, &mut reader);
    let node = NodeSettings::read(node, &mut reader, &purge.log);
    let mut resolver = Resolver::read(resolver, &mut reader);
    // Before the sites, each of which has a name there.
    let pops = Pop::read_all(&root, &mut reader, &ROOT_POP);
    let dns = Dns::read(dns, &mut reader, &pops, &Listen::from(&listen));
    let leads_here = dns.is_some() || !pops.is_empty();
    let acme = Acme::read(acme, &mut reader, tls.store_key.is_some(), leads_here);
    check_pop(&node, &pops, &root, &mut reader);
    // Before the sites, whose rules may need it.
    let geo = Geo::read(geo, &mut reader);
    let anycast = Anycast::read(anycast, &mut reader);
    let access_log = AccessLog::read(telemetry, &mut reader);
    let mut limits = Limits::read(limits, &mut reader);
    let mut sites = SiteList::default();
    sites.read(&root, &SITES, &mut reader);
    if is_toml {
        check_listeners(&listen, &tls, admin.listen.as_ref(), &root, &mut reader);
    }
    let mut settings = Settings::default();
    for document in documents.iter().filter(|document| document.site.is_none()) {
        settings.read(path, document, &root, &reader.source, problems);
    }
    limits = settings.limits.unwrap_or(limits);
    resolver = settings.resolver.unwrap_or(resolver);
    purge.rate = settings.rate.unwrap_or(purge.rate);
    admin.tokens.extend(settings.tokens);
    root.finish(&mut reader);
    problems.append(&mut reader.problems);
    let (source, known) = (reader.source.clone(), reader.known);
    for (file, text) in site_files {
        sites.read_file(file, text, &known, &SITES_ROOT, problems);
    }
    for document in documents {
        let Some(name) = document.site.filter(|_| !document.text.trim().is_empty()) else { continue };
        sites.read_file(&document.file(path), document.text, &known, &SITES_ROOT, problems);
        sites.check_document(name, problems);
    }
    // With a hub there may be sites that are not known yet.
    let is_alone = purge.log == Log::Local;
    // A text that is not TOML may have sites that were not understood.
    if sites.sites.is_empty() && problems.is_empty() && is_alone {
        let help = "add one: [site.NAME] with `hosts` and `origins`";
        problems.push(reader.source.problem(0..0, "there is no site".into(), "no [site.NAME]".into(), help.into()));
    }
    for named in admin.sites.into_iter().filter(|_| is_alone) {
        if problems.is_empty() && !sites.sites.iter().any(|site| site.site.name == named.value) {
            let message = format!("no site is called {}", named.value);
            let help = "name one of the sites, or \"*\" for all of them";
            problems.push(source.problem(named.span, message, "in a token".into(), help.into()));
        }
    }
    Config {
        node,
        listen: (&listen).into(),
        tls,
        acme,
        admin: admin.listen.map_or_else(default_admin, |admin| admin.value),
        tokens: admin.tokens,
        purge,
        resolver,
        geo,
        dns,
        pops,
        anycast,
        workers: workers.map_or_else(processors, |workers| workers as usize),
        cache,
        limits,
        sites: sites.sites.into_iter().map(|site| site.site).collect(),
        access_log,
        test_clock: false,
    }
}

pub(crate) fn document<'t>(reader: &mut Reader, text: &'t str) -> toml::Spanned<DeTable<'t>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        reader.wrong(&span, format_args!("not TOML: {}", error.message()), "here", SYNTAX);
    }
    document
}

/// The processors of this machine.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// The sites read so far, from all files.
#[derive(Default)]
struct SiteList {
    sites: Vec<SiteAt>,
    /// The file and line of each.
    places: Vec<(PathBuf, usize)>,
    /// The last file read that has nothing but sites, and the names and places of those.
    last: Option<(Source, Vec<At<String>>)>,
    /// The sites read so far, by their labels.
    labels: HashMap<String, String>,
}

impl SiteList {
    /// Reads a file that has nothing but sites.
    fn read_file(
        &mut self,
        file: &Path,
        text: &str,
        known: &Known,
        section: &'static Section,
        problems: &mut Vec<Problem>,
    ) {
        let mut reader = Reader::new(file.to_owned(), text);
        (reader.known.countries, reader.known.shielding) = (known.countries, known.shielding);
        (reader.known.dns, reader.known.reserved_labels) = (known.dns, known.reserved_labels.clone());
        let document = document(&mut reader, text);
        let root = reader.root(section, &document);
        self.read(&root, &SITES_ONLY, &mut reader);
        let entries = root.value(&SITES_ONLY).and_then(|sites| sites.entries()).unwrap_or_default();
        let names = entries.into_iter().map(|(name, _)| name.map(str::to_owned)).collect();
        root.finish(&mut reader);
        problems.append(&mut reader.problems);
        self.last = Some((reader.source, names));
    }

    /// Whether the document that was read last is of one site, the one that it is called after.
    fn check_document(&self, name: &str, problems: &mut Vec<Problem>) {
        let Some((source, names)) = &self.last else { return };
        let help = format!("a document has one site, [site.{name}]; one that is empty removes it");
        let mut wrong = |span, message| problems.push(source.problem(span, message, "here".into(), help.clone()));
        for other in names.iter().filter(|other| other.value != name) {
            wrong(other.span.clone(), format!("the site `{}` in the document of `{name}`", other.value));
        }
        if names.is_empty() {
            wrong(0..0, format!("there is no [site.{name}]"));
        }
    }

    fn read(&mut self, root: &Table<'_>, key: &'static crate::read::key::Key, reader: &mut Reader) {
        let Some(value) = root.value(key) else { return };
        let Some(entries) = value.entries() else {
            return reader.wrong_kind(key, value, "tables as in [site.NAME]");
        };
        for (name, value) in entries {
            self.check_name(&name, reader);
            let title = format!("[site.{}]", name.value);
            let Some(table) = reader.as_table(key, &SITE, title, value) else { continue };
            let site = Site::read(name.value, table, reader);
            self.check_hosts(&site, reader);
            let (line, _) = reader.source.position(name.span.start);
            self.places.push((reader.source.file.clone(), line));
            self.labels.entry(label(name.value)).or_insert_with(|| name.value.to_owned());
            self.sites.push(site);
        }
    }

    fn check_name(&self, name: &At<&str>, reader: &mut Reader) {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.value.is_empty() || name.value.len() > 64 || !name.value.bytes().all(valid) {
            let help = "at most 64 letters, digits, hyphens, underscores and dots: it is a label of the metrics";
            reader.wrong(
                &name.span,
                format_args!("\"{}\" cannot be the name of a site", name.value),
                "this name",
                help,
            );
        }
        if let Some(at) = self.sites.iter().position(|other| other.site.name == name.value) {
            let elsewhere =
                self.places.get(at).map_or(String::new(), |(file, line)| format!("{}:{line}", file.display()));
            let message = format!("the site `{}` is there twice", name.value);
            reader.wrong(&name.span, message, "again", format_args!("the other one is at {elsewhere}"));
        } else if reader.known.dns {
            self.check_label(name, reader);
        }
    }

    /// Each site has a name of its own in the zone.
    fn check_label(&self, name: &At<&str>, reader: &mut Reader) {
        let help = "the name of a site in lower case, with hyphens for underscores and dots, is its label in the zone";
        if let Err(why) = check_label(name.value, &reader.known) {
            let message = format!("the site `{}` can have no name in the zone: {why}", name.value);
            reader.wrong(&name.span, message, "this name", help);
            return;
        }
        let own = label(name.value);
        if let Some(other) = self.labels.get(&own) {
            let message = format!("the sites `{other}` and `{}` have one name in the zone, \"{own}\"", name.value);
            let problem = reader.wrong(&name.span, message, "the second of them", help);
            problem.discreet = Some(format!("the name `{own}` is not free in the zone"));
        }
    }

    fn check_hosts(&self, site: &SiteAt, reader: &mut Reader) {
        for (index, host) in site.hosts.iter().enumerate() {
            let before = site.hosts.iter().take(index).find(|other| other.value == host.value);
            if let Some(before) = before {
                let message = format!("the host `{}` is there twice", host.value);
                let problem = reader.wrong(&host.span, message, "again", "one of them is enough");
                problem.also = Some((before.span.clone(), "the first".into()));
                continue;
            }
            for (other, (file, line)) in self.sites.iter().zip(&self.places) {
                let Some(same) = other.hosts.iter().find(|theirs| theirs.value == host.value) else { continue };
                let message =
                    format!("the host `{}` belongs to both `{}` and `{}`", host.value, other.site.name, site.site.name);
                let here = *file == reader.source.file;
                let place = if here { String::new() } else { format!(" ({}:{line})", file.display()) };
                let help = format!("a host has one site; take it out of one of them{place}");
                let problem = reader.wrong(&host.span, message, format_args!("also of `{}`", other.site.name), help);
                problem.discreet = Some(format!("the host `{}` is not free", host.value));
                if here {
                    problem.also = Some((same.span.clone(), format!("`{}` has it here", other.site.name)));
                }
            }
        }
    }
}

/// A node stands in one of the PoPs there are, if any are said.
fn check_pop(node: &NodeSettings, pops: &[Pop], root: &Table<'_>, reader: &mut Reader) {
    let Some(name) = node.pop.as_ref().filter(|name| !pops.is_empty() && pops.iter().all(|pop| pop.name != **name))
    else {
        return;
    };
    let entries = root.value(&ROOT_NODE).and_then(|node| node.entries()).unwrap_or_default();
    let span = entries.iter().find(|(key, _)| key.value == "pop").map_or(0..0, |(_, value)| value.span());
    let known = pops.iter().map(|pop| pop.name.as_str());
    let help = match closest(name, known.clone()) {
        Some(pop) => format!("did you mean \"{pop}\"?"),
        None => format!("there are: {}", known.collect::<Vec<_>>().join(", ")),
    };
    reader.wrong(&span, format!("there is no [pop.{name}]"), "this PoP", help);
}

/// Whether two listeners cannot be there together: one of them may be for every address.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && (one == other || any)
}

fn check_listeners(
    listen: &ListenAt,
    tls: &Tls,
    admin: Option<&At<SocketAddr>>,
    root: &Table<'_>,
    reader: &mut Reader,
) {
    if root.value(&ROOT_LISTEN).is_none() {
        let help = "add where clients connect: [listen] with http = \":8080\", or https = \":8443\" and certificates";
        reader.wrong(&(0..0), "there is no [listen]", "no listener", help);
    } else if listen.http.is_empty() && listen.https.is_empty() && reader.problems.is_empty() {
        let span = root.value(&ROOT_LISTEN).map_or(0..0, |value| value.span());
        let help = "add http = \":8080\", or https = \":8443\" and certificates";
        reader.wrong(&span, "[listen] has neither `http` nor `https`", "no listener", help);
    }
    if let Some(https) = listen.https.first().filter(|_| tls.certificates.is_empty() && tls.store_key.is_none()) {
        let certificates = root.value(&ROOT_TLS).and_then(|tls| tls.entries());
        let has_some = certificates
            .is_some_and(|keys| keys.iter().any(|(key, _)| ["certificates", "store_key"].contains(&key.value)));
        if !has_some {
            let help = "add [tls] with certificates = [{ certificate = \"FILE\", key = \"FILE\" }]";
            reader.wrong(&https.span, "`https` needs a certificate, and there is none", "needs [tls]", help);
        }
    }
    let mut seen: Vec<(&At<SocketAddr>, &str)> = admin.map(|admin| (admin, "the admin API")).into_iter().collect();
    let clients = listen.http.iter().map(|at| (at, "http")).chain(listen.https.iter().map(|at| (at, "https")));
    for (address, what) in clients.chain(listen.health.iter().map(|at| (at, "health"))) {
        let taken = seen.iter().find(|(other, _)| overlap(other.value, address.value));
        if let Some((other, whose)) = taken {
            let (message, help) = match other.value == address.value {
                true => (format!("{} is used twice", address.value), "every listener needs an address of its own"),
                false => (
                    format!("{} and {} are the same port of one address", other.value, address.value),
                    "a listener for every address leaves none for another one with its port",
                ),
            };
            let problem = reader.wrong(&address.span, message, "again", help);
            problem.also = Some((other.span.clone(), format!("already of {whose}")));
        }
        seen.push((address, what));
    }
}

/// The rules of a text that has nothing else, for tests of what they do.
///
/// # Errors
/// Everything that is wrong with them.
pub fn rules_of(text: &str) -> Result<Vec<crate::section::rule::Rule>, Problems> {
    let head = "[listen]\nhttp = \"127.0.0.1:8080\"\n[site.s]\nhosts = [\"*\"]\norigins = [\"http://127.0.0.1:1\"]\n";
    let mut problems = Vec::new();
    let config = parse(Path::new("rules.toml"), &format!("{head}{text}"), &[], &[], &mut problems);
    let rules = config.sites.into_iter().flat_map(|site| site.rules).collect();
    if problems.is_empty() { Ok(rules) } else { Err(Problems::new(problems)) }
}

/// Every table a configuration can have, for the reference and the schema.
pub(crate) fn root_section() -> &'static Section {
    &ROOT
}

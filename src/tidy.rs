//! Structure is a test: the length of files, the direction of dependencies, the purity of decisions, and panics.

use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 500;

/// What each module of the crate may use, besides itself. A path allows everything below it.
const LAYERS: &[(&str, &[&str])] = &[
    (TOOL, &[]),
    ("semantics", &[]),
    ("clock", &["semantics"]),
    ("telemetry", &["semantics", "clock"]),
    ("purge", &["semantics", "clock", "store::key", "telemetry"]),
    ("store", &["semantics", "clock", "purge", "telemetry", "origin::Failure"]),
    ("origin", &["semantics", "clock", "telemetry", "purge"]),
    ("fleet", &["semantics", "clock", "telemetry", "purge", "store", "origin"]),
    ("routing", &["semantics", "clock", "telemetry", "purge", "store", "origin", "fleet"]),
    ("steering", &[]),
    ("exchange", &["semantics", "store"]),
    ("pipeline", &["semantics", "clock", "telemetry", "purge", "store", "origin", "fleet", "routing", "exchange"]),
    (
        "front",
        &["semantics", "clock", "telemetry", "purge", "store", "origin", "fleet", "routing", "exchange", "pipeline"],
    ),
    ("acme", &["semantics", "clock", "telemetry", "purge", "origin", "front"]),
    (
        "admin",
        &["semantics", "clock", "telemetry", "purge", "store", "origin", "fleet", "routing", "exchange", "pipeline"],
    ),
];

/// The tests of every layer may use it; it is compiled for tests alone.
const TOOL: &str = "fuzz";

/// The composition root: it knows everything.
const ROOT: &[&str] = &["app", "ask", "cli", "lib", "main", "tidy"];

/// Decisions: functions of their arguments.
const PURE: &[&str] = &[
    "src/semantics/",
    "src/acme/lease.rs",
    "src/acme/notes.rs",
    "src/acme/plan.rs",
    "src/fleet/answered.rs",
    "src/fleet/asking.rs",
    "src/fleet/choosing.rs",
    "src/fleet/parameters.rs",
    "src/purge/ledger.rs",
    "src/purge/limit.rs",
    "src/purge/nats/documents.rs",
    "src/purge/nats/members.rs",
    "src/purge/nats/record.rs",
    "src/purge/nats/verify.rs",
    "src/purge/position.rs",
    "src/purge/prefixes.rs",
    "src/purge/record.rs",
    "src/purge/selector.rs",
    "src/front/gate.rs",
    "src/front/gate/",
    "src/front/h2/watch.rs",
    "src/origin/balance/",
    "src/origin/dns/known.rs",
    "src/origin/ejection.rs",
    "src/origin/ejection/",
    "src/origin/fuse.rs",
    "src/origin/health.rs",
    "src/origin/hedge.rs",
    "src/origin/retry.rs",
    "src/origin/serving.rs",
    "src/origin/session.rs",
    "src/origin/sigv4.rs",
    "src/origin/sigv4/",
    "src/routing/rule.rs",
    "src/routing/rule/share.rs",
    "src/steering/",
    "src/ask/announce/decide.rs",
    "src/store/admission.rs",
    "src/store/parts.rs",
    "src/store/persist.rs",
    "src/store/disk/frame.rs",
];
const IMPURE: &[&str] = &["async", "std::net::Tcp", "std::fs", "Instant::now", "SystemTime::now"];

/// What a node would end by.
const PANICS: &[&str] = &["todo!", "unimplemented!", ".unwrap()"];

/// One file of Rust.
struct Source {
    /// Relative to the workspace, with forward slashes.
    path: String,
    text: String,
}

/// The page operators read is this table; `UPDATE=1 cargo test` writes it.
#[test]
fn the_page_of_reasons_is_this_table() {
    let mut page = String::from(
        "# Reasons\n\nWhat `detail` in `Cache-Status` and `reason` in the access log say, and `littoral explain` in words. \
         The list is closed. It is\nmade from the table in `src/semantics/cache_status.rs`.\n\n| reason | meaning |\n|---|---|\n",
    );
    for reason in crate::semantics::cache_status::Reason::ALL {
        page += &format!("| `{}` | {} |\n", reason.as_str(), reason.sentence());
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/REASONS.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &page).expect("the page can be written");
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(found, page, "deploy/REASONS.md is stale: UPDATE=1 cargo test the_page_of_reasons");
}

#[test]
fn files_are_short() {
    let mut long: Vec<_> = sources(&["src", "edge-config/src", "cache-tests"])
        .into_iter()
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .collect();
    long.sort_by(|a, b| b.cmp(a));
    assert!(long.is_empty(), "more than {LINES_MAX} lines, longest first: {long:#?}");
}

#[test]
fn dependencies_point_one_way() {
    let mut wrong = Vec::new();
    for source in sources(&["src"]) {
        let module = source.module();
        if ROOT.contains(&module) {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: {module} has no row in LAYERS", source.path));
            continue;
        };
        let code = source.code();
        for used in uses(&code) {
            let below =
                |layer: &str| used.strip_prefix(layer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
            if !below(module) && !below(TOOL) && !allowed.iter().any(|layer| below(layer)) {
                wrong.push(format!("{}: {module} may not use {used}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn decisions_are_pure() {
    let mut wrong = Vec::new();
    let mut seen = vec![false; PURE.len()];
    for source in sources(&["src"]) {
        let Some(at) = PURE.iter().position(|path| source.path.starts_with(path)) else { continue };
        seen[at] = true;
        let code = source.code();
        wrong.extend(IMPURE.iter().filter(|word| has_word(&code, word)).map(|word| format!("{}: {word}", source.path)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen.iter().all(|seen| *seen), "a path in PURE is gone: {seen:?}");
}

/// Two providers of cryptography in one process would disagree about which one is the default.
#[test]
fn there_is_one_crypto_provider() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is there");
    let providers = ["aws-lc-rs", "aws-lc-sys", "ring", "openssl", "openssl-sys", "boring", "boring-sys"];
    let found: Vec<_> = providers.iter().filter(|name| lock.contains(&format!("name = \"{name}\"\n"))).collect();
    assert_eq!(found, [&"ring"]);
}

#[test]
fn the_architecture_names_every_module() {
    let root = root().join("src");
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_else(|error| panic!("src/{name}: {error}"));
    let (lib, architecture) = (read("lib.rs"), read("ARCHITECTURE.md"));
    let modules: Vec<&str> = lib.lines().filter_map(declared).filter(|module| *module != "tidy").collect();
    assert!(!modules.is_empty(), "lib.rs declares no module");
    let missing: Vec<_> = modules.iter().filter(|module| !architecture.contains(&format!("`{module}"))).collect();
    assert!(missing.is_empty(), "not in src/ARCHITECTURE.md, in backquotes: {missing:?}");
}

#[test]
fn nothing_panics_by_habit() {
    let sources = sources(&["src", "edge-config/src"]);
    let tests: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
    let mut wrong = Vec::new();
    for source in &sources {
        // `a/b` is in `a/b.rs` or below `a/b/`.
        if tests.iter().any(|test| source.path.strip_prefix(test).is_some_and(|end| end.starts_with(['.', '/']))) {
            continue;
        }
        let code = source.code();
        let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        wrong.extend(PANICS.iter().filter(|word| code.contains(**word)).map(|word| format!("{}: {word}", source.path)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn uses_are_found() {
    let rows: &[(&str, &[&str])] = &[
        ("use crate::clock;", &["clock"]),
        (
            "use crate::origin::{Failure, peer::{A, B}, demo};",
            &["origin::Failure", "origin::peer::A", "origin::peer::B", "origin::demo"],
        ),
        ("use crate::{\n    clock,\n    store::key::CacheKey,\n};", &["clock", "store::key::CacheKey"]),
        ("fn f(at: crate::clock::At) { crate::store::open() }", &["clock::At", "store::open"]),
        ("pub(crate) fn f() { mycrate::f() }", &[]),
    ];
    for (code, expected) in rows {
        assert_eq!(uses(code), *expected, "{code}");
    }
}

impl Source {
    /// The module of the crate this is part of.
    fn module(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside.split(['/', '.']).next().unwrap_or_default()
    }

    /// The lines that are no comment.
    fn code(&self) -> String {
        let lines = self.text.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.map(|line| line.split(" // ").next().unwrap_or_default().to_owned() + "\n").collect()
    }

    /// Paths, without ending, of the modules in files of their own that are only for tests.
    fn test_modules(&self) -> Vec<String> {
        let path = Path::new(&self.path);
        let below = match path.file_name().and_then(|name| name.to_str()) {
            Some("mod.rs" | "lib.rs" | "main.rs") => path.parent().unwrap_or(path).to_owned(),
            _ => path.with_extension(""),
        };
        let lines: Vec<&str> = self.text.lines().collect();
        let modules =
            lines.windows(2).filter(|pair| pair[0].trim() == "#[cfg(test)]").filter_map(|pair| declared(pair[1]));
        modules.map(|module| format!("{}/{module}", below.display())).collect()
    }
}

/// The module a line declares, in a file of its own.
fn declared(line: &str) -> Option<&str> {
    let line = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
    line.strip_prefix("mod ")?.strip_suffix(';')
}

/// Every path that begins at the root of the crate, without `crate::`; groups are taken apart.
fn uses(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if !code[..at].ends_with(is_path) {
            expand("", &code[at + "crate::".len()..], &mut found);
        }
    }
    found
}

/// Adds the paths of the one use tree that `code` begins with, and returns what follows it.
fn expand<'a>(prefix: &str, code: &'a str, found: &mut Vec<String>) -> &'a str {
    let code = code.trim_start();
    let (path, mut rest) = code.split_at(code.find(|c| !is_path(c)).unwrap_or(code.len()));
    let path = format!("{prefix}{path}");
    if !rest.starts_with('{') || !(path.is_empty() || path.ends_with("::")) {
        found.push(path.trim_end_matches(':').to_owned());
        return rest;
    }
    while let Some(inside) = rest.strip_prefix(['{', ',']).map(str::trim_start) {
        rest = if inside.starts_with('}') { inside } else { expand(&path, inside, found).trim_start() };
    }
    rest.strip_prefix('}').unwrap_or(rest)
}

fn is_path(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == ':'
}

fn has_word(code: &str, word: &str) -> bool {
    let apart = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    let path = word.contains(':');
    code.match_indices(word).any(|(at, _)| {
        let (before, after) = (code[..at].chars().next_back(), code[at + word.len()..].chars().next());
        path || apart(before) && apart(after)
    })
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust below some directories.
fn sources(directories: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for directory in directories {
        let before = found.len();
        collect(&root().join(directory), &mut found);
        assert!(found.len() > before, "no Rust below {directory}");
    }
    found
}

fn collect(directory: &Path, found: &mut Vec<Source>) {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for path in entries.map(|entry| entry.expect("an entry can be read").path()) {
        let foreign = path.ends_with("node_modules") || path.ends_with("target");
        if path.is_dir() && !foreign {
            collect(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let path = path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
            found.push(Source { path, text });
        }
    }
}

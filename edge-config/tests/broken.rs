//! Broken configurations and what an operator is told about each: line, column, caret and help.
//!
//! `broken/NAME.toml` is the configuration, `broken/NAME.txt` what is said; `UPDATE=1 cargo test -p edge-config` writes the
//! latter, to be read critically.

use std::fs;
use std::path::{Path, PathBuf};

use edge_config::load;
use miette::{GraphicalReportHandler, GraphicalTheme};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken")
}

/// What `littoral check` prints, without colours and without the place of this checkout.
fn said(file: &Path) -> String {
    let Err(problems) = load(file) else { return "no problem\n".into() };
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(400);
    let mut said = String::new();
    handler.render_report(&mut said, &problems).expect("a string takes everything");
    let said = said.replace(&format!("{}/", directory().display()), "");
    said.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn each_broken_configuration_is_explained() {
    let mut files: Vec<PathBuf> = fs::read_dir(directory())
        .expect("the directory is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|file| file.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.push(directory().join("sites/edge.toml"));
    files.sort();
    assert!(files.len() > 40, "{} configurations", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let said = said(&file);
        let expected = file.with_extension("txt");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &said).expect("the expectation can be written");
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        if said != expected {
            wrong.push(format!("{}\nexpected:\n{expected}\ngot:\n{said}", file.display()));
        }
        assert!(!said.starts_with("no problem"), "{} is not broken", file.display());
        assert!(said.contains("help: "), "{} gets no help", file.display());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn what_is_no_text_is_explained() {
    let scratch = std::env::temp_dir().join(format!("edge-config-{}", std::process::id()));
    fs::create_dir_all(&scratch).expect("a directory can be made");
    let file = scratch.join("edge.toml");
    fs::write(&file, b"# \xff\n").expect("a file can be written");
    let not_utf8 = load(&file).expect_err("not UTF-8").summary();
    fs::remove_dir_all(&scratch).expect("it can be removed");
    assert!(not_utf8.ends_with("edge.toml: byte 2 is not UTF-8"), "{not_utf8}");
    let missing = load(&file).expect_err("no file").summary();
    assert!(missing.ends_with("edge.toml: cannot be read: there is no such file"), "{missing}");
    let problems = load(&file).expect_err("no file");
    assert!(problems.iter().all(|problem| !problem.help.is_empty() && problem.line == 0));
}

/// The defaults of the code are those the reference shows: a table that is there and empty changes nothing.
#[test]
fn an_empty_table_is_as_good_as_none() {
    let scratch = std::env::temp_dir().join(format!("edge-config-defaults-{}", std::process::id()));
    fs::create_dir_all(&scratch).expect("a directory can be made");
    let least = "[listen]\nhttp = \"127.0.0.1:8080\"\n\
                 [site.a]\nhosts = \"*\"\norigins = \"http://127.0.0.1:1\"\nhealth = {}\n";
    let read = |text: &str| {
        let file = scratch.join("edge.toml");
        fs::write(&file, text).expect("a file can be written");
        load(&file).unwrap_or_else(|problems| panic!("{}", problems.summary()))
    };
    let without = read(least);
    let with = read(&format!(
        "{least}eject = {{}}\nretry = {{}}\ntimeouts = {{}}\n[tls]\n[cache]\n[admin]\n[telemetry]\n[limits]\n"
    ));
    fs::remove_dir_all(&scratch).expect("it can be removed");
    assert_eq!(with, without);
    assert_eq!(without.sites[0].origins.health, Some(edge_config::section::health::Health::default()));
}

#[test]
fn an_error_page_is_bounded() {
    let scratch = std::env::temp_dir().join(format!("edge-config-page-{}", std::process::id()));
    fs::create_dir_all(&scratch).expect("a directory can be made");
    let file = scratch.join("edge.toml");
    let text = "[listen]\nhttp = \"127.0.0.1:8080\"\n[site.a]\nhosts = \"*\"\norigins = \"http://127.0.0.1:1\"\n\
                error_pages = { 502 = \"page.html\" }\n";
    fs::write(&file, text).expect("a file can be written");
    fs::write(scratch.join("page.html"), vec![b'a'; (256 << 10) + 1]).expect("a file can be written");
    let problems = load(&file).expect_err("too large").summary();
    fs::remove_dir_all(&scratch).expect("it can be removed");
    assert!(problems.contains("page.html has 262145 bytes, expected at most 262144"), "{problems}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    /// Whatever stands in a file, reading it ends, and every span lies within it.
    #[test]
    fn no_text_is_too_much(lines in proptest::collection::vec(line(), 0..12)) {
        let scratch = std::env::temp_dir().join(format!("edge-config-prop-{}", std::process::id()));
        fs::create_dir_all(&scratch).expect("a directory can be made");
        let (file, text) = (scratch.join("edge.toml"), lines.join("\n"));
        fs::write(&file, &text).expect("a file can be written");
        if let Err(problems) = load(&file) {
            for problem in problems.iter() {
                proptest::prop_assert!(problem.span.start <= problem.span.end && problem.span.end <= text.len());
            }
            let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor());
            handler.render_report(&mut String::new(), &problems).expect("it can be said");
        }
    }
}

/// Lines as they stand in configurations, and what has gone wrong in them.
fn line() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let words = prop::sample::select(vec![
        "[listen]",
        "[site.a]",
        "[[site.a.rule]]",
        "[tls]",
        "[limits]",
        "[cache]",
        "disk",
        "http",
        "hosts",
        "origins",
        "url",
        "when",
        "then",
        "health",
        "error_pages",
        "=",
        "= \"",
        "{",
        "}",
        "[",
        "]",
        ",",
        "\"*\"",
        "\":80\"",
        "\"http://a\"",
        "\"5xx\"",
        "true",
        "-1",
        "1.5",
        "\"10s\"",
        "\u{e4}\u{1f980}",
        "#",
        "'",
        "\"\"\"",
        "1979-05-27",
        "path",
        "response",
        "status",
        "\\",
    ]);
    prop::collection::vec(words, 0..8).prop_map(|words| words.join(" "))
}

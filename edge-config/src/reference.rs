//! The reference page and the JSON Schema, made from the declarations of the keys.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::load::root_section;
use crate::read::key::{Key, Kind, Section};
use crate::read::one_line;
use crate::shared::SETTINGS;

/// The reference, in Markdown.
pub fn page() -> String {
    let mut page = String::from(
        "# Configuration reference\n\n\
         One file in TOML, for `littoral run --config FILE` and `littoral check FILE`; more sites can stand in `sites.d/*.toml`\n\
         beside it. Paths in a file are relative to its directory. Sizes are written with B, KiB, MiB, GiB or TiB, times with\n\
         ms, s, m, h, d, w or y. Where a list is expected, one value alone will do. What changes only with a restart:\n\
         `workers`, `listen`, `cache.memory`, `cache.disk`, `admin.listen`, `purge.log`, `purge.data`, `node`,\n\
         `telemetry.access_log`; all else with a reload.\n\n\
         Made from the doc comments of the settings; do not edit.\n",
    );
    let mut sections = Vec::new();
    collect(root_section(), "", &mut sections);
    // Its tables are those above.
    sections.push((SETTINGS.title.to_owned(), &SETTINGS));
    for (path, section) in sections {
        let title = match path.as_str() {
            "" => "Top level".to_owned(),
            "the settings for all nodes" => "Of the hub: the settings for all nodes".to_owned(),
            path => format!("`{path}`"),
        };
        write!(page, "\n## {title}\n\n{}\n\n", one_line(section.doc)).expect("a string takes everything");
        page.push_str("| key | takes | default | |\n|---|---|---|---|\n");
        for key in section.keys {
            let default = key.default.map_or("", |default| default);
            let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
            let manual = key.manual().replace('|', "\\|");
            let takes = words(key.kind).replace('|', "\\|");
            writeln!(page, "| `{}` | {takes} | {default} | {manual} |", key.name).expect("a string takes everything");
        }
    }
    page
}

/// Every table and where it stands, in reading order, each once.
fn collect(section: &'static Section, path: &str, found: &mut Vec<(String, &'static Section)>) {
    found.push((path.to_owned(), section));
    for key in section.keys {
        if let Some((below, suffix)) = table_of(key.kind) {
            let name = format!("{}{suffix}", key.name);
            let path = if path.is_empty() { name } else { format!("{path}.{name}") };
            collect(below, &path, found);
        }
    }
}

fn table_of(kind: Kind) -> Option<(&'static Section, &'static str)> {
    match kind {
        Kind::Table(section) => Some((section, "")),
        Kind::Named(section) => Some((section, ".NAME")),
        Kind::Many(kind) => table_of(*kind).map(|(section, _)| (section, "[]")),
        Kind::Any(kinds) => kinds.iter().find_map(|kind| table_of(*kind)),
        _ => None,
    }
}

fn words(kind: Kind) -> String {
    match kind {
        Kind::Text(what) => what.to_owned(),
        Kind::Size => "a size".into(),
        Kind::Duration => "a time".into(),
        Kind::Percent => "a percentage, as in \"20%\"".into(),
        Kind::Integer(first, last) => format!("{first} to {last}"),
        Kind::Boolean => "true or false".into(),
        Kind::Choice(choices) => choices.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or "),
        Kind::Many(kind) => format!("{}; or a list", words(*kind)),
        Kind::Table(_) => "a table".into(),
        Kind::Named(_) => "tables by name".into(),
        Kind::Map(kind) => format!("a table of names, each: {}", words(*kind)),
        Kind::Any(kinds) => kinds.iter().map(|kind| words(*kind)).collect::<Vec<_>>().join(", or "),
        Kind::Off => "false".into(),
    }
}

/// The JSON Schema, for editors.
pub fn schema() -> String {
    let mut schema = object(root_section());
    if let Value::Object(members) = &mut schema {
        members.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        members.insert("title".into(), "Littoral configuration".into());
    }
    format!("{schema:#}\n")
}

fn object(section: &Section) -> Value {
    let properties: Map<String, Value> = section.keys.iter().map(|key| (key.name.to_owned(), described(key))).collect();
    json!({
        "type": "object",
        "description": one_line(section.doc),
        "additionalProperties": false,
        "properties": properties,
    })
}

fn described(key: &Key) -> Value {
    let mut value = shape(key.kind);
    if let Value::Object(members) = &mut value {
        members.insert("description".into(), key.manual().into());
        if let Some(default) = key.default {
            let default = match key.kind {
                Kind::Integer(..) => default.parse::<u32>().map_or(Value::Null, Value::from),
                Kind::Boolean => Value::from(default == "true"),
                _ => Value::from(default),
            };
            members.insert("default".into(), default);
        }
    }
    value
}

fn shape(kind: Kind) -> Value {
    match kind {
        Kind::Text(what) => json!({ "type": "string", "title": what }),
        Kind::Size => json!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)$" }),
        Kind::Duration => json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d|w|y)$" }),
        Kind::Percent => json!({ "type": "string", "pattern": "^[0-9]+%$" }),
        Kind::Integer(first, last) => json!({ "type": "integer", "minimum": first, "maximum": last }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Choice(choices) => json!({ "enum": choices }),
        Kind::Many(kind) => {
            let one = shape(*kind);
            json!({ "anyOf": [one, { "type": "array", "items": one }] })
        }
        Kind::Table(section) => object(section),
        Kind::Named(section) => json!({ "type": "object", "additionalProperties": object(section) }),
        Kind::Map(kind) => json!({ "type": "object", "additionalProperties": shape(*kind) }),
        Kind::Any(kinds) => json!({ "anyOf": kinds.iter().map(|kind| shape(*kind)).collect::<Vec<_>>() }),
        Kind::Off => json!({ "const": false }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with what is checked in; `UPDATE=1` writes it.
    fn check(file: &str, made: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, made).expect("the file can be written");
        }
        let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(checked_in == made, "edge-config/{file} is stale: run UPDATE=1 cargo test -p edge-config");
    }

    #[test]
    fn the_reference_is_what_the_code_says() {
        check("reference.md", &page());
    }

    #[test]
    fn the_schema_is_what_the_code_says() {
        check("schema.json", &schema());
    }

    #[test]
    fn every_key_has_a_manual() {
        let mut sections = Vec::new();
        collect(root_section(), "", &mut sections);
        assert!(sections.len() > 15, "{}", sections.len());
        for key in sections.iter().flat_map(|(_, section)| section.keys) {
            let manual = key.manual();
            assert!(manual.ends_with('.') && manual.len() > 8, "{}: {manual:?}", key.name);
        }
    }
}

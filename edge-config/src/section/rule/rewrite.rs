//! `rewrite`: the path that an origin is asked for.

use super::REWRITE;
use crate::read::key::{Kind, section};
use crate::read::{Reader, Table, Value};

/// What becomes of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// All of it is replaced: texts with the client's path between them.
    Whole(Vec<String>),
    /// Its beginning is, where that ends with one of its segments. Neither ends with a slash.
    Beginning { from: String, to: String },
}

section! {
    /// Another beginning of a path.
    REWRITE_KEYS = "rewrite" {
        /// The beginning that goes: whole segments, as "/old" of "/old/page" and of "/old", but not of "/older". Paths that
        /// begin otherwise stay as they are.
        FROM = "from": Kind::Text("a path");
        /// What takes its place; "/" for nothing.
        TO = "to": Kind::Text("a path");
    }
}

const PATH: &str = "{path}";

impl Rewrite {
    /// The path that is asked for; none where it is the client's.
    pub fn path(&self, path: &[u8]) -> Option<Vec<u8>> {
        // `*` of OPTIONS is no path.
        if !path.starts_with(b"/") {
            return None;
        }
        let asked = match self {
            Self::Whole(texts) => {
                let texts: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
                texts.join(path)
            }
            Self::Beginning { from, to } => {
                let rest = path.strip_prefix(from.as_bytes())?;
                if !rest.is_empty() && !rest.starts_with(b"/") {
                    return None;
                }
                let asked = [to.as_bytes(), rest].concat();
                if asked.is_empty() { b"/".to_vec() } else { asked }
            }
        };
        (asked != path).then_some(asked)
    }

    pub(super) fn read(table: &Table<'_>, reader: &mut Reader) -> Option<Self> {
        let value = table.value(&REWRITE)?;
        if value.as_str().is_some() {
            return Self::read_whole(reader, value);
        }
        let table = table.table(reader, &REWRITE, &REWRITE_KEYS)?;
        let mut end = |key| {
            let Some(value) = table.value(key) else {
                let message = format!("`rewrite` has no `{}`", key.name);
                reader.wrong(&table.span, message, format_args!("`{}` is missing", key.name), key.summary());
                return None;
            };
            let path = reader.parse::<String>(key, value)?;
            is_path(reader, &path.value, &path.value, &path.span).then(|| path.value.trim_end_matches('/').to_owned())
        };
        let ends = (end(&FROM), end(&TO));
        if let (Some(from), Some(to)) = &ends
            && from == to
        {
            reader.wrong(
                &table.span,
                "`from` and `to` of `rewrite` are the same",
                "changes nothing",
                REWRITE.summary(),
            );
        }
        table.finish(reader);
        Some(Self::Beginning { from: ends.0?, to: ends.1? })
    }

    fn read_whole(reader: &mut Reader, value: Value<'_>) -> Option<Self> {
        let text = reader.parse::<String>(&REWRITE, value)?;
        let texts: Vec<String> = text.value.split(PATH).map(str::to_owned).collect();
        if texts.iter().take(texts.len() - 1).any(|text| text.ends_with('/')) {
            let message = format!("\"{}\" has a slash before {PATH}, which begins with one", text.value);
            reader.wrong(&text.span, message, "two slashes", "leave one of them out, as in \"/new{path}\"");
            return None;
        }
        if text.value == PATH {
            reader.wrong(&text.span, "`rewrite` is the client's own path", "changes nothing", REWRITE.summary());
            return None;
        }
        // With a path in its place it has to be one.
        is_path(reader, &text.value.replace(PATH, "/p"), &text.value, &text.span).then_some(Self::Whole(texts))
    }
}

/// Whether a text can be asked for; that it cannot is recorded, as what was written.
fn is_path(reader: &mut Reader, text: &str, shown: &str, span: &std::ops::Range<usize>) -> bool {
    // RFC 3986 section 3.3, `%` for what is encoded.
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte);
    let dots = text.split('/').any(|segment| matches!(segment, "." | ".."));
    let label = match text {
        _ if !text.starts_with('/') => "expected a path that begins with /",
        _ if text.contains(['?', '#']) => "a path without a query: the client's stays",
        _ if text.contains(['{', '}']) => "only {path} can stand in it",
        _ if text.contains("//") || dots => "expected a path without empty segments, . and ..",
        _ if !text.bytes().all(may_stand) => "not what a path can hold: percent-encode it",
        _ => return true,
    };
    reader.wrong(span, format_args!("\"{shown}\" is no path to ask for"), label, REWRITE.summary());
    false
}

#[cfg(test)]
mod tests {
    use crate::load::rules_of;

    #[test]
    fn paths() {
        for (then, path, expected) in [
            ("\"/index.html\"", "/a/b", Some("/index.html")),
            ("\"/index.html\"", "/index.html", None),
            ("\"/tenant{path}\"", "/a/b", Some("/tenant/a/b")),
            ("\"/tenant{path}\"", "/", Some("/tenant/")),
            ("\"/tenant{path}\"", "//a", Some("/tenant//a")),
            ("\"{path}.html\"", "/a", Some("/a.html")),
            ("\"{path}{path}\"", "/a", Some("/a/a")),
            ("\"/tenant{path}\"", "*", None),
            ("{ from = \"/old\", to = \"/new\" }", "/old/x", Some("/new/x")),
            ("{ from = \"/old\", to = \"/new\" }", "/old", Some("/new")),
            ("{ from = \"/old\", to = \"/new\" }", "/old/", Some("/new/")),
            ("{ from = \"/old\", to = \"/new\" }", "/older", None),
            ("{ from = \"/old\", to = \"/new\" }", "/a/old", None),
            ("{ from = \"/old/\", to = \"/new/\" }", "/old/x", Some("/new/x")),
            ("{ from = \"/old\", to = \"/\" }", "/old/x", Some("/x")),
            ("{ from = \"/old\", to = \"/\" }", "/old", Some("/")),
            ("{ from = \"/\", to = \"/new\" }", "/x", Some("/new/x")),
        ] {
            let rules = rules_of(&format!("[[site.s.rule]]\nthen = {{ rewrite = {then} }}\n"));
            let rules = rules.unwrap_or_else(|problems| panic!("{then}: {}", problems.summary()));
            let asked = rules[0].then.rewrite.as_ref().and_then(|rewrite| rewrite.path(path.as_bytes()));
            assert_eq!(
                asked.map(|asked| String::from_utf8_lossy(&asked).into_owned()).as_deref(),
                expected,
                "{then} {path}"
            );
        }
    }
}

//! Reading tables: every error is recorded with its place, and reading goes on.
//!
//! - [`key`]: what a key is.
//! - [`problem`]: what is wrong, and where.

pub mod key;
pub mod problem;

use std::fmt::Display;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::key::{Key, Kind, Section};
use self::problem::{Problem, Source};
use crate::units::Duration;

/// A file that is being read, and what was found wrong so far.
#[derive(Debug)]
pub struct Reader {
    pub source: Source,
    pub problems: Vec<Problem>,
    pub known: Known,
}

/// What has been read that later keys refer to.
#[derive(Debug, Default)]
pub struct Known {
    /// The names of the groups of the site that is being read.
    pub groups: Vec<String>,
    /// The cookies its sessions are told by.
    pub cookies: Vec<String>,
    /// There is a database of countries.
    pub countries: bool,
    pub shielding: Shielding,
    /// Sites have names in a zone, and these labels are taken there.
    pub dns: bool,
    pub reserved_labels: Vec<String>,
}

/// Whether sites may have a shield.
#[derive(Clone, Copy, Debug, Default)]
pub enum Shielding {
    /// No: there is no hub.
    #[default]
    Alone,
    /// No: the node does not say where it stands, or has no key of all nodes.
    Nowhere,
    Possible,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    pub value: T,
    pub span: Range<usize>,
}

impl<T> At<T> {
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At { value: f(self.value), span: self.span }
    }
}

/// A table of the file. Keys are taken out of it one by one; what is left is unknown.
#[derive(Debug)]
pub struct Table<'t> {
    section: &'static Section,
    /// As in an error: `[site.shop]`.
    title: String,
    table: &'t DeTable<'t>,
    pub span: Range<usize>,
}

/// A value of the file.
#[derive(Clone, Copy, Debug)]
pub struct Value<'t>(&'t Spanned<DeValue<'t>>);

impl<'t> Value<'t> {
    pub fn span(self) -> Range<usize> {
        self.0.span()
    }

    pub fn as_str(self) -> Option<&'t str> {
        match self.0.get_ref() {
            DeValue::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_bool(self) -> Option<bool> {
        match self.0.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_integer(self) -> Option<i64> {
        match self.0.get_ref() {
            DeValue::Integer(value) => i64::from_str_radix(value.as_str(), value.radix()).ok(),
            _ => None,
        }
    }

    /// The members of an array, or the value itself.
    pub fn members(self) -> Vec<Value<'t>> {
        match self.0.get_ref() {
            DeValue::Array(members) => members.iter().map(Value).collect(),
            _ => vec![self],
        }
    }

    /// The entries of a table, in the order of the file.
    pub fn entries(self) -> Option<Vec<(At<&'t str>, Value<'t>)>> {
        match self.0.get_ref() {
            DeValue::Table(table) => Some(entries(table)),
            _ => None,
        }
    }

    fn what(self) -> &'static str {
        match self.0.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        }
    }
}

fn entries<'t>(table: &'t DeTable<'t>) -> Vec<(At<&'t str>, Value<'t>)> {
    let mut all: Vec<_> = table
        .iter()
        .map(|(name, value)| (At { value: name.get_ref().as_ref(), span: name.span() }, Value(value)))
        .collect();
    all.sort_by_key(|(name, _)| name.span.start);
    all
}

impl Reader {
    pub fn new(file: PathBuf, text: &str) -> Self {
        Self { source: Source::new(file, text), problems: Vec::new(), known: Known::default() }
    }

    /// Records what is wrong at a place.
    pub fn wrong(
        &mut self,
        span: &Range<usize>,
        message: impl Display,
        label: impl Display,
        help: impl Display,
    ) -> &mut Problem {
        let (message, label, help) = (message.to_string(), label.to_string(), help.to_string());
        let problem = self.source.problem(span.clone(), message, label, help);
        self.problems.push(problem);
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    /// Records that a value is of another kind than the key takes.
    pub fn wrong_kind(&mut self, key: &Key, value: Value<'_>, expected: &str) {
        let default = key.default.map_or(String::new(), |default| format!(" The default is {default}."));
        self.wrong(
            &value.span(),
            format_args!("`{}` is {}, expected {expected}", key.name, value.what()),
            format_args!("expected {expected}"),
            format_args!("{}{default}", key.summary()),
        );
    }

    /// The table of a whole document.
    pub fn root<'t>(&self, section: &'static Section, document: &'t Spanned<DeTable<'t>>) -> Table<'t> {
        Table { section, title: section.title.into(), table: document.get_ref(), span: document.span() }
    }

    /// A value that is to be a table.
    pub fn as_table<'t>(
        &mut self,
        key: &Key,
        section: &'static Section,
        title: String,
        value: Value<'t>,
    ) -> Option<Table<'t>> {
        match value.0.get_ref() {
            DeValue::Table(table) => Some(Table { section, title, table, span: value.span() }),
            _ => {
                self.wrong_kind(key, value, "a table");
                None
            }
        }
    }

    /// A value that is to be a string with a meaning.
    pub fn parse<T>(&mut self, key: &Key, value: Value<'_>) -> Option<At<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        let Some(text) = value.as_str() else {
            let expected = match key.kind {
                Kind::Duration => "a string with a unit, as in \"10s\"",
                Kind::Size => "a string with a unit, as in \"512MiB\"",
                Kind::Percent => "a string, as in \"20%\"",
                _ => "a string",
            };
            self.wrong_kind(key, value, expected);
            return None;
        };
        match text.parse() {
            Ok(parsed) => Some(At { value: parsed, span: value.span() }),
            Err(error) => {
                self.wrong(&value.span(), error, "this value", key.summary());
                None
            }
        }
    }
}

/// A doc comment as plain text.
pub fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ").replace('\\', "")
}

impl Key {
    /// The manual in one line.
    pub fn manual(&self) -> String {
        one_line(self.doc)
    }

    /// The first sentence of the manual.
    pub fn summary(&self) -> String {
        let text = self.manual();
        let end = text.find(". ").map_or(text.len(), |at| at + 1);
        format!("`{}`: {}", self.name, text.get(..end).unwrap_or(&text))
    }
}

impl<'t> Table<'t> {
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Where it stands.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The value of a key.
    pub fn value(&self, key: &Key) -> Option<Value<'t>> {
        debug_assert!(self.section.keys.iter().any(|known| std::ptr::eq(*known, key)), "{} is not declared", key.name);
        let mut entries = self.table.iter();
        entries.find(|(name, _)| name.get_ref().as_ref() == key.name).map(|(_, value)| Value(value))
    }

    /// Where a key stands, or one of the table that it is.
    pub fn place(&self, name: &str, below: Option<&str>) -> Option<Range<usize>> {
        let find = |table: &'t DeTable<'t>, name: &str| table.iter().find(|(key, _)| key.get_ref().as_ref() == name);
        let (key, value) = find(self.table, name)?;
        match below {
            None => Some(key.span()),
            Some(below) => match value.get_ref() {
                DeValue::Table(table) => find(table, below).map(|(key, _)| key.span()),
                _ => None,
            },
        }
    }

    /// A string with a meaning; absent: the default, if there is one.
    pub fn parsed<T>(&self, reader: &mut Reader, key: &Key) -> Option<At<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        match self.value(key) {
            Some(value) => reader.parse(key, value),
            None => {
                let value = key.default?.parse().ok();
                debug_assert!(value.is_some(), "the default of {} is wrong", key.name);
                value.map(|value| At { value, span: self.span.clone() })
            }
        }
    }

    /// A whole number within bounds; absent: the default.
    pub fn integer(&self, reader: &mut Reader, key: &Key, bounds: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let Some(value) = self.value(key) else { return key.default?.parse().ok() };
        let Some(number) = value.as_integer() else {
            reader.wrong_kind(key, value, "a whole number");
            return None;
        };
        let fits = u32::try_from(number).ok().filter(|number| bounds.contains(number));
        if fits.is_none() {
            let range = format!("{} to {}", bounds.start(), bounds.end());
            let message = format!("`{}` is {number}, expected {range}", key.name);
            reader.wrong(&value.span(), message, format_args!("expected {range}"), key.summary());
        }
        fits
    }

    /// True or false; absent: the default.
    pub fn boolean(&self, reader: &mut Reader, key: &Key) -> Option<bool> {
        let Some(value) = self.value(key) else { return key.default.map(|default| default == "true") };
        if value.as_bool().is_none() {
            reader.wrong_kind(key, value, "true or false");
        }
        value.as_bool()
    }

    /// One of the words a key knows; absent: the default.
    pub fn choice<T: Copy>(&self, reader: &mut Reader, key: &Key, choices: &[(&str, T)]) -> Option<T> {
        let Some(value) = self.value(key) else {
            return choices.iter().find(|(word, _)| Some(*word) == key.default).map(|(_, choice)| *choice);
        };
        reader.choice(key, value, choices)
    }

    /// One value or an array of them, each read by `item`.
    pub fn many<T>(
        &self,
        reader: &mut Reader,
        key: &Key,
        mut item: impl FnMut(&mut Reader, Value<'t>) -> Option<T>,
    ) -> Vec<T> {
        let members = self.value(key).map(Value::members).unwrap_or_default();
        members.into_iter().filter_map(|member| item(reader, member)).collect()
    }

    /// A table below this one.
    pub fn table(&self, reader: &mut Reader, key: &Key, section: &'static Section) -> Option<Table<'t>> {
        let title = match self.title.strip_prefix('[').and_then(|title| title.strip_suffix(']')) {
            Some(parent) => format!("[{parent}.{}]", key.name),
            None => format!("[{}]", key.name),
        };
        self.value(key).and_then(|value| reader.as_table(key, section, title, value))
    }

    /// Records every key that the section does not know.
    pub fn finish(self, reader: &mut Reader) {
        for (name, _) in entries(self.table) {
            if self.section.keys.iter().any(|key| key.name == name.value) {
                continue;
            }
            let known = self.section.keys.iter().map(|key| key.name);
            let help = match closest(name.value, known.clone()) {
                Some(key) => format!("did you mean `{key}`?"),
                None => format!("{} knows: {}", self.title, known.collect::<Vec<_>>().join(", ")),
            };
            let message = format!("unknown key `{}` in {}", name.value, self.title);
            reader.wrong(&name.span, message, "not known", help);
        }
    }
}

impl Table<'_> {
    /// Records that a time is zero, where that means nothing.
    pub fn positive(&self, reader: &mut Reader, key: &Key) {
        let Some(value) = self.value(key) else { return };
        if value.as_str().and_then(|text| text.parse::<Duration>().ok()).is_some_and(|time| time.get().is_zero()) {
            reader.wrong(&value.span(), format_args!("`{}` is 0", key.name), "expected more than 0", key.summary());
        }
    }

    /// Records that a list that must have members has none.
    pub fn required(&self, reader: &mut Reader, key: &Key, is_empty: bool) {
        match self.value(key) {
            None => {
                let message = format!("{} has no `{}`", self.title, key.name);
                reader.wrong(&self.span, message, format_args!("`{}` is missing", key.name), key.summary());
            }
            Some(value) if is_empty && value.members().is_empty() => {
                let message = format!("`{}` of {} is empty", key.name, self.title);
                reader.wrong(&value.span(), message, "expected at least one", key.summary());
            }
            Some(_) => {}
        }
    }

    /// A file that is there and can be read.
    pub fn file(&self, reader: &mut Reader, key: &Key) -> Option<(PathBuf, Range<usize>)> {
        let path = reader.parse::<PathBuf>(key, self.value(key)?)?;
        let file = reader.beside(&path.value);
        reader.readable(key, &file, &path.span).then_some((file, path.span))
    }

    /// A file that must be there and hold `mark` where it is named.
    pub fn required_if_there(&self, reader: &mut Reader, key: &Key, mark: &str) -> Option<PathBuf> {
        self.value(key)?;
        self.required_file(reader, key, mark)
    }

    /// A file that must be named, be there, and hold `mark`, as PEM does.
    pub fn required_file(&self, reader: &mut Reader, key: &Key, mark: &str) -> Option<PathBuf> {
        if self.value(key).is_none() {
            let message = format!("{} has no `{}`", self.title, key.name);
            reader.wrong(&self.span, message, format_args!("`{}` is missing", key.name), key.summary());
            return None;
        }
        let (path, span) = self.file(reader, key)?;
        let text = std::fs::read(&path).unwrap_or_default();
        if !text.windows(mark.len()).any(|window| window == mark.as_bytes()) {
            let message = format!("{} holds no {}", path.display(), mark.trim_start_matches("BEGIN ").to_lowercase());
            reader.wrong(&span, message, "expected a PEM file", key.summary());
        }
        Some(path)
    }
}

impl Reader {
    /// One of the words a key knows.
    pub fn choice<T: Copy>(&mut self, key: &Key, value: Value<'_>, choices: &[(&str, T)]) -> Option<T> {
        let Some(text) = value.as_str() else {
            self.wrong_kind(key, value, "a string");
            return None;
        };
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let known = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
            let help = match closest(text, words.into_iter()) {
                Some(word) => format!("did you mean \"{word}\"? known: {known}"),
                None => format!("known: {known}"),
            };
            self.wrong(&value.span(), format_args!("`{}` does not know \"{text}\"", key.name), "not known", help);
        }
        found
    }

    /// A path as the file means it: from its own directory on.
    pub fn beside(&self, path: &Path) -> PathBuf {
        self.source.file.parent().map_or_else(|| path.to_owned(), |directory| directory.join(path))
    }

    /// Whether a file can be read; if not, that is recorded.
    pub fn readable(&mut self, key: &Key, file: &Path, span: &Range<usize>) -> bool {
        let error = match std::fs::File::open(file) {
            Ok(opened) if opened.metadata().is_ok_and(|file| file.is_file()) => return true,
            Ok(_) => "not a file".to_owned(),
            Err(error) => why_unreadable(&error),
        };
        let message = format!("{} cannot be read: {error}", file.display());
        let help = format!("{} Paths are relative to the configuration file.", key.summary());
        self.wrong(span, message, "this file", help);
        false
    }
}

/// Why a file cannot be read, in words.
pub fn why_unreadable(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        kind => kind.to_string(),
    }
}

/// The word that was probably meant.
pub fn closest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    const ALIKE: f64 = 0.8;
    let scored = words.map(|word| (strsim::jaro_winkler(text, word), word));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(score, _)| *score >= ALIKE).map(|(_, word)| word)
}

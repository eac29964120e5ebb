//! What is wrong with a configuration, and where.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Problem {
    pub file: PathBuf,
    /// From 1; 0 where the file itself is what is wrong.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In bytes.
    pub span: Range<usize>,
    pub message: String,
    /// What stands at the caret.
    pub label: String,
    /// Another place in the same file that has to do with it.
    pub also: Option<(Range<usize>, String)>,
    /// What to do.
    pub help: String,
    /// It is about another site too. In place of everything else, for who may not know of that one.
    pub discreet: Option<String>,
    source: Option<Arc<NamedSource<String>>>,
}

/// A text that is read.
#[derive(Clone, Debug)]
pub struct Source {
    pub file: PathBuf,
    pub text: Arc<str>,
    named: Arc<NamedSource<String>>,
}

impl Source {
    pub fn new(file: PathBuf, text: &str) -> Self {
        let named = NamedSource::new(file.display().to_string(), text.to_owned());
        Self { file, text: text.into(), named: Arc::new(named) }
    }

    /// Line and column of a byte, both from 1.
    pub fn position(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }

    pub fn problem(&self, span: Range<usize>, message: String, label: String, help: String) -> Problem {
        let span = span.start.min(self.text.len())..span.end.min(self.text.len());
        let (line, column) = self.position(span.start);
        let source = Some(self.named.clone());
        Problem {
            file: self.file.clone(),
            line,
            column,
            span,
            message,
            label,
            also: None,
            help,
            discreet: None,
            source,
        }
    }
}

impl Problem {
    /// A file that is wrong as a whole.
    pub fn of_file(file: PathBuf, message: String, help: &str) -> Self {
        let (label, help) = (String::new(), help.to_owned());
        Self { file, line: 0, column: 0, span: 0..0, message, label, also: None, help, discreet: None, source: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.message),
            line => write!(f, "{}:{line}:{}: {}", self.file.display(), self.column, self.message),
        }
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (!self.help.is_empty()).then(|| Box::new(&self.help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_deref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.source.as_ref()?;
        let label =
            |(span, text): (&Range<usize>, &String)| LabeledSpan::new_with_span(Some(text.clone()), span.clone());
        let also = self.also.iter().map(move |(span, text)| label((span, text)));
        Some(Box::new(std::iter::once(label((&self.span, &self.label))).chain(also)))
    }
}

/// Everything that is wrong with a configuration, in the order of the files and lines.
#[derive(Clone, Debug)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.file.clone(), problem.span.start));
        Self(problems)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// A line each.
    pub fn summary(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "the configuration has an error"),
            count => write!(f, "the configuration has {count} errors"),
        }
    }
}

impl std::error::Error for Problems {}

impl Diagnostic for Problems {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.0.iter().map(|problem| problem as &dyn Diagnostic)))
    }
}

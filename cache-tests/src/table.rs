//! A table of cases: every row is tried, and all that fail are told at once.

use std::fmt::Debug;

/// Rows and what became of them.
#[derive(Debug)]
pub struct Table {
    name: &'static str,
    rows: usize,
    failures: Vec<String>,
}

impl Table {
    pub fn new(name: &'static str) -> Self {
        Self { name, rows: 0, failures: Vec::new() }
    }

    pub fn row(&mut self, name: &str, outcome: Result<(), String>) {
        self.rows += 1;
        if let Err(problem) = outcome {
            self.failures.push(format!("  {name}: {problem}"));
        }
    }

    /// # Panics
    /// When a row failed, or there was none.
    pub fn finish(self) {
        assert!(self.rows > 0, "{}: an empty table tests nothing", self.name);
        let (failed, rows) = (self.failures.len(), self.rows);
        assert!(failed == 0, "{}: {failed} of {rows} rows failed:\n{}", self.name, self.failures.join("\n"));
    }
}

/// # Errors
/// When the two differ.
pub fn same<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    that(found == expected, || format!("{what} is {found:?}, not {expected:?}"))
}

/// # Errors
/// What `otherwise` says, unless it `holds`.
pub fn that(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

//! The Prometheus text format, as far as a node writes it.

use std::collections::{BTreeMap, BTreeSet};

/// Everything one scrape said.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub samples: Vec<Sample>,
    pub helped: BTreeSet<String>,
    /// Name to counter, gauge, histogram or summary.
    pub types: BTreeMap<String, String>,
}

/// One line: a name, labels and a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Metrics {
    /// # Errors
    /// The first line that is not of the format.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut metrics = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words.as_slice() {
                ["#", "HELP", name, help] if !help.trim().is_empty() => {
                    metrics.helped.insert((*name).to_owned());
                }
                ["#", "TYPE", name, kind] => {
                    metrics.types.insert((*name).to_owned(), (*kind).to_owned());
                }
                ["#", ..] => {}
                _ => metrics.samples.push(Sample::parse(line).ok_or_else(|| format!("no sample: {line:?}"))?),
            }
        }
        Ok(metrics)
    }

    /// The sum of the samples of `name` that have all of `labels`.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.named(name, labels).map(|sample| sample.value).sum()
    }

    /// The samples of `name` that have all of `labels`.
    pub fn named<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            let has = |(label, value): &(&str, &str)| sample.labels.get(*label).is_some_and(|found| found == value);
            sample.name == name && labels.iter().all(has)
        })
    }

    /// The family a sample belongs to: a histogram's samples have three endings.
    pub fn family<'a>(&self, sample: &'a str) -> &'a str {
        for ending in ["_bucket", "_sum", "_count"] {
            if let Some(family) = sample.strip_suffix(ending)
                && self.types.get(family).is_some_and(|kind| kind == "histogram" || kind == "summary")
            {
                return family;
            }
        }
        sample
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let (name, labels, value) = match line.split_once('{') {
            Some((name, rest)) => {
                let (labels, value) = rest.rsplit_once('}')?;
                (name, parse_labels(labels)?, value)
            }
            None => {
                let (name, value) = line.split_once(' ')?;
                (name, BTreeMap::new(), value)
            }
        };
        let value = value.split_whitespace().next()?.parse().ok()?;
        Some(Self { name: name.to_owned(), labels, value })
    }
}

fn parse_labels(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let (mut value, mut escaped, mut end) = (String::new(), false, None);
        for (at, c) in rest.char_indices() {
            match c {
                'n' if escaped => value.push('\n'),
                _ if escaped => value.push(c),
                '\\' => {}
                '"' => {
                    end = Some(at);
                    break;
                }
                _ => value.push(c),
            }
            escaped = c == '\\' && !escaped;
        }
        labels.insert(name.trim().to_owned(), value);
        text = rest.get(end? + 1..)?.trim_start_matches([',', ' ']);
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_read() {
        let text = "# HELP a_total What it is.\n# TYPE a_total counter\na_total{x=\"1\",y=\"a\\\"}b\"} 2\na_total{x=\"2\"} 3\n\
                    # TYPE s histogram\ns_bucket{le=\"+Inf\"} 1\nup 1 1395066363000\n";
        let metrics = Metrics::parse(text).expect("valid");
        assert_eq!(metrics.sum("a_total", &[]), 5.0);
        assert_eq!(metrics.sum("a_total", &[("y", "a\"}b")]), 2.0);
        assert_eq!((metrics.family("s_bucket"), metrics.family("a_total")), ("s", "a_total"));
        assert!(metrics.helped.contains("a_total") && !metrics.helped.contains("s"));
        assert!(Metrics::parse("a{b} c").is_err());
    }
}

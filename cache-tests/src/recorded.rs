//! A request as the origin received it, byte for byte.

use bytes::Bytes;

/// One request at the origin.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The head verbatim, with its empty line.
    pub head: Bytes,
    pub method: String,
    pub target: String,
    pub version: String,
    /// In order, names as sent.
    pub fields: Vec<(String, String)>,
    /// Without its framing.
    pub body: Bytes,
    /// Which connection it came on, from 1.
    pub connection: usize,
    /// Which request for this path it is, from 1.
    pub number: usize,
}

impl Recorded {
    /// Reads a head leniently: an origin that refuses would hide what reached it.
    pub(crate) fn parse(head: &Bytes, connection: usize) -> Self {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.split("\r\n");
        let mut words = lines.next().unwrap_or_default().splitn(3, ' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        let (method, target, version) = (word(), word(), word());
        let fields = lines
            .take_while(|line| !line.is_empty())
            .map(|line| match line.split_once(':') {
                Some((name, value)) => (name.to_owned(), value.trim().to_owned()),
                None => (line.to_owned(), String::new()),
            })
            .collect();
        Self { head: head.clone(), method, target, version, fields, body: Bytes::new(), connection, number: 0 }
    }

    /// The field's value, all its lines joined (RFC 9110 section 5.3).
    pub fn field(&self, name: &str) -> Option<String> {
        let lines: Vec<&str> = self.field_lines(name);
        if lines.is_empty() { None } else { Some(lines.join(", ")) }
    }

    pub fn field_lines(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

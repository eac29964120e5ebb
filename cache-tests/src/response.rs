//! A response as the client received it, and how it ended.

use bytes::Bytes;

use crate::cache_status::CacheStatus;

/// A head: field names as sent, in order.
#[derive(Clone, Debug)]
pub struct Head {
    pub version: String,
    pub status: u16,
    pub fields: Vec<(String, String)>,
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Response {
    pub head: Head,
    pub status: u16,
    pub body: Bytes,
    pub end: End,
}

/// How a response, or a connection, ended for its reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// As the framing said.
    Whole,
    /// By FIN, where the framing leaves it to FIN.
    CloseDelimited,
    /// By FIN before the framing was satisfied, or before any response.
    Cut,
    /// By RST; over TLS also by FIN without close_notify.
    Reset,
    /// HTTP/2: this stream alone, with this error code (RFC 9113 section 7).
    StreamReset(u32),
    /// What came cannot be read.
    Malformed(String),
    /// Nothing more came within the client's patience.
    Stalled,
}

impl End {
    /// The reader takes what it has for complete.
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::Whole | Self::CloseDelimited)
    }

    /// The connection is over.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::CloseDelimited | Self::Cut | Self::Reset)
    }
}

impl Head {
    /// Reads a head strictly: what the node writes is not to be guessed at.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| format!("not UTF-8: {}", bytes.escape_ascii()))?;
        let mut lines = text.strip_suffix("\r\n\r\n").ok_or("no empty line")?.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let (version, rest) = line.split_once(' ').ok_or_else(|| format!("no status line: {line:?}"))?;
        let status = rest.get(..3).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| format!("no status: {line:?}"))?;
        if version != "HTTP/1.1" {
            return Err(format!("version {version:?}"));
        }
        let mut fields = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':').ok_or_else(|| format!("no field: {line:?}"))?;
            let control = |c: char| c.is_control() && c != '\t';
            if name.is_empty() || name.contains([' ', '\t']) || value.contains(control) {
                return Err(format!("no field: {line:?}"));
            }
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
        let head = Self { version: version.to_owned(), status, fields };
        if head.field_lines("content-length").len() + head.field_lines("transfer-encoding").len() > 1 {
            return Err(format!("more than one framing: {:?}", head.fields));
        }
        Ok(head)
    }

    /// The field's value, all its lines joined.
    pub fn field(&self, name: &str) -> Option<String> {
        let lines = self.field_lines(name);
        if lines.is_empty() { None } else { Some(lines.join(", ")) }
    }

    pub fn field_lines(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// What the node says about itself in Cache-Status.
    ///
    /// # Errors
    /// When the field is missing or is not RFC 9211's.
    pub fn cache_status(&self) -> Result<CacheStatus, String> {
        let value = self.field("cache-status").ok_or("no Cache-Status")?;
        CacheStatus::of_node(&value).map_err(|error| format!("Cache-Status {value:?}: {error}"))
    }
}

impl Head {
    /// Every response of a node that is not a plain hit says why, in every test.
    ///
    /// # Panics
    /// It does not.
    pub fn assert_explained(&self) {
        let value = self.field("cache-status").unwrap_or_default();
        if value.rsplit(',').next().is_some_and(|last| last.trim_start().starts_with("littoral"))
            && let Err(error) = self.cache_status()
        {
            panic!("a response that is not explained: {error}");
        }
    }
}

impl Response {
    pub fn field(&self, name: &str) -> Option<String> {
        self.head.field(name)
    }

    /// # Errors
    /// See [`Head::cache_status`].
    pub fn cache_status(&self) -> Result<CacheStatus, String> {
        self.head.cache_status()
    }

    pub fn is_hit(&self) -> bool {
        self.cache_status().is_ok_and(|status| status.hit)
    }

    /// # Panics
    /// When the body is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body for a message.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(200)]).into_owned()
    }
}

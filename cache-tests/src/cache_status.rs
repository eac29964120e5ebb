//! Cache-Status (RFC 9211), read strictly: a list of structured-field items with parameters (RFC 9651).

/// Why a request went forward (RFC 9211 section 2.2).
pub const FORWARD_REASONS: [&str; 8] =
    ["bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"];

/// The reasons operators can look up.
const REASONS: &str = include_str!("../../deploy/REASONS.md");

/// Whether a reason is in the list that operators have.
pub fn is_documented(reason: &str) -> bool {
    REASONS.lines().any(|line| line.starts_with(&format!("| `{reason}` |")))
}

/// What Littoral says about one response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    pub hit: bool,
    pub fwd: Option<String>,
    pub fwd_status: Option<i64>,
    pub ttl: Option<i64>,
    pub stored: bool,
    pub collapsed: bool,
    pub detail: Option<String>,
    pub key: Option<String>,
    /// Our own: the group of origins, where it is not the site's own.
    pub group: Option<String>,
}

/// A bare item of a structured field; those the field may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bare {
    Token(String),
    Text(String),
    Integer(i64),
    Boolean(bool),
}

/// A list member: an item with its parameters.
pub type Member = (Bare, Vec<(String, Bare)>);

impl CacheStatus {
    /// The last member, which is the cache nearest to the client: the node under test.
    ///
    /// # Errors
    /// What is not as RFC 9211 has it.
    pub fn of_node(value: &str) -> Result<Self, String> {
        let (name, parameters) = members(value)?.pop().ok_or("an empty list")?;
        match &name {
            Bare::Token(name) | Bare::Text(name) if name == "littoral" => {}
            _ => return Err(format!("the last member is {name:?}, not littoral")),
        }
        let mut status = Self::default();
        for (name, parameter) in parameters {
            match (name.as_str(), parameter) {
                ("hit", Bare::Boolean(hit)) => status.hit = hit,
                ("fwd", Bare::Token(reason)) => status.fwd = Some(reason),
                ("fwd-status", Bare::Integer(code)) => status.fwd_status = Some(code),
                ("ttl", Bare::Integer(ttl)) => status.ttl = Some(ttl),
                ("stored", Bare::Boolean(stored)) => status.stored = stored,
                ("collapsed", Bare::Boolean(collapsed)) => status.collapsed = collapsed,
                ("detail", Bare::Token(detail) | Bare::Text(detail)) => status.detail = Some(detail),
                ("key", Bare::Text(key)) => status.key = Some(key),
                ("littoral.group", Bare::Text(group)) => status.group = Some(group),
                (name, parameter) => return Err(format!("parameter {name}={parameter:?}")),
            }
        }
        status.consistent()
    }

    fn consistent(self) -> Result<Self, String> {
        if self.hit && self.fwd.is_some() {
            return Err("hit and fwd exclude each other (RFC 9211 section 2.2)".to_owned());
        }
        if !self.hit && self.fwd.is_none() && self.detail.is_none() {
            return Err("neither hit nor fwd nor a detail".to_owned());
        }
        if let Some(detail) = self.detail.as_ref().filter(|detail| !is_documented(detail)) {
            return Err(format!("the reason {detail} is not documented"));
        }
        match &self.fwd {
            Some(reason) if !FORWARD_REASONS.contains(&reason.as_str()) => Err(format!("fwd={reason}")),
            _ => Ok(self),
        }
    }
}

/// Reads a list of items with parameters.
///
/// # Errors
/// What is left where the list breaks off.
pub fn members(value: &str) -> Result<Vec<Member>, String> {
    let (mut members, mut rest) = (Vec::new(), value.trim_matches(' '));
    while !rest.is_empty() {
        let (item, after) = bare(rest)?;
        rest = after;
        let mut parameters = Vec::new();
        while let Some(after) = rest.strip_prefix(';') {
            let after = after.trim_start_matches(' ');
            let end = after.find(|c: char| !is_key(c)).unwrap_or(after.len());
            let (key, after) = after.split_at(end);
            if !key.starts_with(|c: char| c.is_ascii_lowercase() || c == '*') {
                return Err(format!("no parameter name at {after:?}"));
            }
            let (parameter, after) = match after.strip_prefix('=') {
                Some(after) => bare(after)?,
                None => (Bare::Boolean(true), after),
            };
            parameters.push((key.to_owned(), parameter));
            rest = after;
        }
        members.push((item, parameters));
        let spaced = rest.trim_start_matches([' ', '\t']);
        rest = match spaced.strip_prefix(',') {
            Some(after) if !after.trim_start_matches([' ', '\t']).is_empty() => after.trim_start_matches([' ', '\t']),
            Some(_) => return Err("a comma at the end".to_owned()),
            None if spaced.is_empty() => "",
            None => return Err(format!("no comma at {spaced:?}")),
        };
    }
    Ok(members)
}

fn is_key(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.' | '*')
}

fn bare(text: &str) -> Result<(Bare, &str), String> {
    let first = text.chars().next().ok_or("an item is missing")?;
    if first == '"' {
        return quoted(text);
    }
    if let Some(boolean) = text.strip_prefix("?1").or_else(|| text.strip_prefix("?0")) {
        return Ok((Bare::Boolean(text.starts_with("?1")), boolean));
    }
    if first == '-' || first.is_ascii_digit() {
        let end = text.char_indices().skip(1).find(|(_, c)| !c.is_ascii_digit()).map_or(text.len(), |(at, _)| at);
        let number = text[..end].parse().map_err(|_| format!("no integer at {text:?}"))?;
        return Ok((Bare::Integer(number), &text[end..]));
    }
    if !first.is_ascii_alphabetic() && first != '*' {
        return Err(format!("no item at {text:?}"));
    }
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/".contains(c);
    let end = text.find(|c: char| !token(c)).unwrap_or(text.len());
    Ok((Bare::Token(text[..end].to_owned()), &text[end..]))
}

fn quoted(text: &str) -> Result<(Bare, &str), String> {
    let (mut content, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' | '\\' if escaped => {
                content.push(c);
                escaped = false;
            }
            _ if escaped => break,
            '\\' => escaped = true,
            '"' => return Ok((Bare::Text(content), &text[at + 1..])),
            ' '..='~' => content.push(c),
            _ => break,
        }
    }
    Err(format!("no string at {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rfc_9211_shows_is_read() {
        let status = CacheStatus::of_node("Other; fwd=miss, littoral; hit; ttl=-545; key=\"a\\\"b\"").expect("valid");
        assert!(status.hit && status.fwd.is_none());
        assert_eq!((status.ttl, status.key.as_deref()), (Some(-545), Some("a\"b")));
        let status = CacheStatus::of_node("littoral; fwd=uri-miss; stored; fwd-status=200; detail=no-store");
        let status = status.expect("valid");
        assert_eq!((status.fwd.as_deref(), status.fwd_status, status.stored), (Some("uri-miss"), Some(200), true));
        assert_eq!(status.detail.as_deref(), Some("no-store"));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for value in [
            "",
            "littoral",
            "littoral; hit, ",
            "littoral; hit; fwd=miss",
            "littoral; fwd=because",
            "littoral hit",
            "littoral; hit; ttl=soon",
            "other; hit",
            "littoral; Hit",
            "littoral; hit; key=\"open",
        ] {
            assert!(CacheStatus::of_node(value).is_err(), "{value:?} passed");
        }
    }
}

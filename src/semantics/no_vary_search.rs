//! Which parts of the query do not matter: `No-Vary-Search` (draft-ietf-httpbis-no-vary-search).
//!
//! Both spellings of the draft are read. Until revision 05 `params` could be a boolean, and `except` stood beside
//! `params=?1`; since then `params` is only a list and `except` stands alone. Neither spelling has another meaning in
//! the other one, where it is an error.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

use super::fields::Fields;
use super::structured::{self, Value};

/// The field's name, in lower case.
pub const FIELD: &str = "no-vary-search";

/// The most names in one list. Trackers add a dozen parameters; a longer list is ignored, which costs hits and nothing
/// else, so that a long list and a long query do not multiply.
pub const NAMES_MAX: usize = 64;

/// What a response says about the queries it is an answer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoVarySearch {
    /// The order of parameters does not matter, except of those with the same name.
    pub key_order: bool,
    /// The parameters that do not matter.
    pub params: Params,
}

/// The parameters that do not matter; names are decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Params {
    /// None: all matter.
    #[default]
    None,
    /// All.
    All,
    /// All but these.
    AllExcept(Vec<String>),
    /// These.
    Only(Vec<String>),
}

impl NoVarySearch {
    /// Reads a response's `No-Vary-Search`; what is absent or not understood says nothing (section 5.2).
    pub fn of(response: Fields<'_>) -> Self {
        structured::joined(response, FIELD).and_then(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// Whether it says nothing, so that only the same query is the same.
    pub fn varies_on_everything(&self) -> bool {
        let all_matter = match &self.params {
            Params::None => true,
            Params::Only(names) => names.is_empty(),
            Params::All | Params::AllExcept(_) => false,
        };
        all_matter && !self.key_order
    }

    /// Section 5.1. Unknown keys are ignored: section 3 promises that no future one will make fewer queries the same.
    fn parse(text: &[u8]) -> Option<Self> {
        let (mut key_order, mut params, mut except) = (false, None, None);
        for (key, value) in structured::dictionary(text)? {
            match (key, value) {
                (b"key-order", Value::Boolean(yes)) => key_order = yes,
                (b"key-order", _) => return None,
                (b"params", value) => params = Some(value),
                (b"except", value) => except = Some(names(value)?),
                _ => {}
            }
        }
        let params = match (params, except) {
            (None | Some(Value::Boolean(false)), None) => Params::None,
            (Some(Value::Boolean(true)), None) => Params::All,
            (None | Some(Value::Boolean(true)), Some(names)) => Params::AllExcept(names),
            (Some(list), None) => Params::Only(names(list)?),
            (Some(_), Some(_)) => return None,
        };
        Some(Self { key_order, params })
    }

    fn ignores(&self, name: &str) -> bool {
        let is_among = |names: &[String]| names.iter().any(|known| known == name);
        match &self.params {
            Params::None => false,
            Params::All => true,
            Params::AllExcept(names) => !is_among(names),
            Params::Only(names) => is_among(names),
        }
    }
}

/// A path and query as `rule` has it: two targets have the same bytes exactly when they are equivalent (section 6).
///
/// Parameters that do not matter are gone, the others in one spelling and, with `key_order`, in one order. A rule that
/// says nothing changes nothing.
///
/// The section decodes to text, in which all that is not UTF-8 is one and the same character, and section 8 warns of
/// what that mixes up. Here names are looked for as it says, but bytes are compared: at most a hit is lost.
pub fn normalized_query(rule: &NoVarySearch, path_and_query: &[u8]) -> Vec<u8> {
    if rule.varies_on_everything() {
        return path_and_query.to_vec();
    }
    let end = memchr::memchr(b'?', path_and_query).unwrap_or(path_and_query.len());
    let (path, query) = path_and_query.split_at_checked(end).unwrap_or((path_and_query, b""));
    let mut parameters: Vec<Parameter> = parameters(query.strip_prefix(b"?").unwrap_or_default())
        .filter(|one| !rule.ignores(&one.name_text()))
        .collect();
    if rule.key_order {
        // A stable sort: those with the same name keep their order.
        parameters.sort_by_cached_key(|parameter| parameter.name_text().into_owned());
    }
    let mut out = path.to_vec();
    for (index, parameter) in parameters.iter().enumerate() {
        out.push(if index == 0 { b'?' } else { b'&' });
        encode(&parameter.name, &mut out);
        // Always there: without it a name and a value that are both empty would be nothing at all.
        out.push(b'=');
        encode(&parameter.value, &mut out);
    }
    out
}

/// One parameter of a query, decoded.
struct Parameter {
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Parameter {
    fn name_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.name)
    }
}

/// The parser of `application/x-www-form-urlencoded` (WHATWG URL, section 5.1).
fn parameters(query: &[u8]) -> impl Iterator<Item = Parameter> {
    query.split(|byte| *byte == b'&').filter(|part| !part.is_empty()).map(|part| {
        let mut halves = part.splitn(2, |byte| *byte == b'=');
        let mut half = || decoded(halves.next().unwrap_or_default());
        Parameter { name: half(), value: half() }
    })
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).collect()
}

/// All but the unreserved characters (RFC 3986 section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(percent_encode(bytes, RESERVED).flat_map(str::bytes));
}

/// Names in a list, decoded as those in a query are (section 5.3); none when it is no list of strings, or too long.
fn names(list: Value<'_>) -> Option<Vec<String>> {
    let names = list.strings()?;
    (names.len() <= NAMES_MAX).then_some(())?;
    Some(names.iter().map(|name| String::from_utf8_lossy(&decoded(name)).into_owned()).collect())
}

#[cfg(test)]
mod tests;

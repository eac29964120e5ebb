//! Changes to the field lines of an origin's response on their way into the store.

use crate::semantics::directives::{ResponseDirectives, no_cache_field_names};
use crate::semantics::fields::{Fields, Line};
use crate::semantics::http_date;
use crate::semantics::time::UnixMs;

/// RFC 9110 section 6.6.1: a response without `Date` gets the time it was received.
pub fn with_date(fields: &mut Vec<u8>, response_time: UnixMs) {
    if !Fields::new(fields).contains("date") {
        fields.extend_from_slice(b"date: ");
        http_date::write(response_time, fields);
        fields.extend_from_slice(b"\r\n");
    }
}

/// Removes a field.
pub fn remove(fields: &mut Vec<u8>, name: &str) {
    if Fields::new(fields).contains(name) {
        *fields = kept(Fields::new(fields), |line| !line.is(name));
    }
}

/// The lines without some fields; names in lower case.
pub fn without(fields: &[u8], names: &[&str]) -> Vec<u8> {
    kept(Fields::new(fields), |line| !names.iter().any(|name| line.is(name)))
}

/// Removes a list field and gives its value, lines joined.
pub fn take(fields: &mut Vec<u8>, name: &str) -> Option<Box<[u8]>> {
    let values: Vec<&[u8]> = Fields::new(fields).values(name).collect();
    let joined = (!values.is_empty()).then(|| values.join(&b", "[..]).into_boxed_slice());
    if joined.is_some() {
        remove(fields, name);
    }
    joined
}

/// The lines without `content-length`.
pub fn without_length(fields: Fields<'_>) -> Vec<u8> {
    kept(fields, |line| !line.is("content-length"))
}

/// The lines without what `no-cache="field"` keeps from everybody but the client that was answered, and without `age`.
pub fn without_withheld(fields: &[u8], directives: &ResponseDirectives) -> Vec<u8> {
    let fields = Fields::new(fields);
    let withheld = no_cache_field_names(fields, directives);
    kept(fields, |line| !line.is("age") && !withheld.iter().any(|name| name.eq_ignore_ascii_case(line.name)))
}

fn kept(fields: Fields<'_>, keep: impl Fn(&Line<'_>) -> bool) -> Vec<u8> {
    let mut block = Vec::with_capacity(fields.as_bytes().len());
    fields.lines().filter(keep).for_each(|line| line.write(&mut block));
    block
}

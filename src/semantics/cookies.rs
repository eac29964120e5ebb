//! The cookies of a request: names and values in the order they were sent (RFC 6265 section 4.2.1).

use super::fields::Fields;

/// All of them. White space around a name and a value is not part of either; one without `=` has an empty value.
pub fn cookies<'a>(fields: Fields<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    fields.values("cookie").flat_map(pairs).map(name_and_value)
}

/// The value of the first one with this name.
pub fn cookie<'a>(fields: Fields<'a>, name: &[u8]) -> Option<&'a [u8]> {
    cookies(fields).find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// The pieces of one field value, as they were sent.
pub fn pairs(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b';')
}

/// What one piece says.
pub fn name_and_value(pair: &[u8]) -> (&[u8], &[u8]) {
    let (name, value) = split_at_sign(pair);
    (name.trim_ascii(), value.trim_ascii())
}

/// What stands before the first `=` of a pair, and behind it.
pub fn split_at_sign(pair: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'=', pair).and_then(|at| pair.split_at_checked(at)) {
        Some((name, value)) => (name, value.get(1..).unwrap_or_default()),
        None => (pair, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_request() {
        let fields = Fields::new(b"cookie: a=1; b = x=y ;c\r\naccept: */*\r\ncookie: a=2\r\n");
        let all: Vec<(&[u8], &[u8])> = cookies(fields).collect();
        let expected: [(&[u8], &[u8]); 4] = [(b"a", b"1"), (b"b", b"x=y"), (b"c", b""), (b"a", b"2")];
        assert_eq!(all, expected);
        let found = [&b"a"[..], b"b", b"c", b"d"].map(|name| cookie(fields, name));
        assert_eq!(found, [Some(&b"1"[..]), Some(b"x=y"), Some(b""), None]);
    }
}

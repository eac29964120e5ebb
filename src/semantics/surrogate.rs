//! The surrogate keys of a response: what it can be purged by, together with others.
//!
//! Keys are what operators purge by, in the three spellings that content systems already send. Groups are those of
//! RFC 9875: the origin's own, invalidated by its answers to unsafe requests and of one origin only. The two do not
//! mix.

use std::borrow::Cow;

use super::fields::{Fields, trim};
use super::structured;

const SURROGATE_KEY: &str = "surrogate-key";
const CACHE_TAG: &str = "cache-tag";
const EDGE_CACHE_TAG: &str = "edge-cache-tag";
const CACHE_GROUPS: &str = "cache-groups";

/// The fields that carry surrogate keys, in lower case.
pub const FIELDS: [&str; 4] = [SURROGATE_KEY, CACHE_TAG, EDGE_CACHE_TAG, CACHE_GROUPS];

/// The longest key, as of the CDNs whose fields these are.
pub const KEY_BYTES_MAX: usize = 1024;

/// The most keys of one response.
pub const KEYS_MAX: usize = 1000;

/// The most bytes that the keys of one response have together, as of the CDNs whose fields these are.
pub const KEYS_BYTES_MAX: usize = 16 * 1024;

/// The most groups that one response invalidates. RFC 9875 section 3 asks for as many.
pub const INVALIDATED_GROUPS_MAX: usize = 32;

// RFC 9875 section 2: at least 32 groups with at least 32 characters each.
const _: () = assert!(KEYS_MAX >= 32 && KEY_BYTES_MAX >= 32 && KEYS_BYTES_MAX >= 32 * 32);

/// Who named a surrogate key, and so who purges by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `Surrogate-Key`, `Cache-Tag` or `Edge-Cache-Tag`: for the operator of the site.
    Key,
    /// `Cache-Groups`: for responses of the same origin (RFC 9875 section 2.1).
    Group,
}

/// One surrogate key; two are the same when they are so byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SurrogateKey<'a> {
    /// Which namespace it is of.
    pub kind: Kind,
    /// The key; only a group may be empty.
    pub value: Cow<'a, [u8]>,
}

/// The response has more surrogate keys than are kept, so that it could not be purged by all of them: it is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverLimit {
    /// A key is longer than [`KEY_BYTES_MAX`].
    #[error("a surrogate key has {found} bytes, at most {max} are allowed", max = KEY_BYTES_MAX)]
    KeyBytes {
        /// The length of the key.
        found: usize,
    },
    /// There are more than [`KEYS_MAX`].
    #[error("there are more than {max} surrogate keys", max = KEYS_MAX)]
    Keys,
    /// They have more than [`KEYS_BYTES_MAX`] together.
    #[error("the surrogate keys have more than {max} bytes", max = KEYS_BYTES_MAX)]
    KeysBytes,
}

/// The surrogate keys of a response, sorted, each once.
///
/// `Surrogate-Key` is separated by white space, `Cache-Tag` and `Edge-Cache-Tag` by commas. `Cache-Groups` is a
/// structured list of strings, ignored whole when it is anything else.
///
/// # Errors
///
/// More than the limits allow, of both kinds together, duplicates not counted.
pub fn surrogate_keys(response: Fields<'_>) -> Result<Vec<SurrogateKey<'_>>, OverLimit> {
    let mut keys = Keys::default();
    for line in response.lines() {
        if line.is(SURROGATE_KEY) {
            keys.add(line.value.split(|byte| matches!(byte, b' ' | b'\t')))?;
        } else if line.is(CACHE_TAG) || line.is(EDGE_CACHE_TAG) {
            // Quotes mean nothing in these fields: every comma separates.
            keys.add(line.value.split(|byte| *byte == b',').map(trim))?;
        }
    }
    for group in structured::list_of_strings(response, CACHE_GROUPS).unwrap_or_default() {
        keys.insert(SurrogateKey { kind: Kind::Group, value: group })?;
    }
    Ok(keys.sorted)
}

/// The groups that a response invalidates (RFC 9875 section 3), each once, at most [`INVALIDATED_GROUPS_MAX`].
///
/// The section has it ignored in answers to safe requests; that is for the caller. A group too long to be stored is
/// that of no stored response.
pub fn invalidated_groups(response: Fields<'_>) -> Vec<Vec<u8>> {
    let mut groups: Vec<Vec<u8>> = Vec::new();
    for group in structured::list_of_strings(response, "cache-group-invalidation").unwrap_or_default() {
        if groups.len() == INVALIDATED_GROUPS_MAX {
            break;
        }
        if group.len() <= KEY_BYTES_MAX && !groups.iter().any(|known| *known == *group) {
            groups.push(group.into_owned());
        }
    }
    groups
}

/// Keys within the limits.
#[derive(Default)]
struct Keys<'a> {
    sorted: Vec<SurrogateKey<'a>>,
    bytes: usize,
}

impl<'a> Keys<'a> {
    fn add(&mut self, keys: impl Iterator<Item = &'a [u8]>) -> Result<(), OverLimit> {
        keys.filter(|key| !key.is_empty())
            .try_for_each(|key| self.insert(SurrogateKey { kind: Kind::Key, value: Cow::Borrowed(key) }))
    }

    fn insert(&mut self, key: SurrogateKey<'a>) -> Result<(), OverLimit> {
        let Err(place) = self.sorted.binary_search(&key) else { return Ok(()) };
        let bytes = self.bytes.saturating_add(key.value.len());
        if key.value.len() > KEY_BYTES_MAX {
            return Err(OverLimit::KeyBytes { found: key.value.len() });
        }
        if self.sorted.len() == KEYS_MAX {
            return Err(OverLimit::Keys);
        }
        if bytes > KEYS_BYTES_MAX {
            return Err(OverLimit::KeysBytes);
        }
        self.bytes = bytes;
        self.sorted.insert(place, key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Found<'a> = &'a [(Kind, &'a str)];

    #[track_caller]
    fn check(name: &str, block: &str, expected: Found<'_>) {
        let found = surrogate_keys(Fields::new(block.as_bytes()));
        let expected: Vec<_> = expected
            .iter()
            .map(|(kind, value)| SurrogateKey { kind: *kind, value: Cow::Borrowed(value.as_bytes()) })
            .collect();
        assert_eq!(found, Ok(expected), "{name}: {block:?}");
    }

    #[test]
    fn keys() {
        use Kind::{Group, Key};
        let rows: &[(&str, &str, Found<'_>)] = &[
            ("none", "vary: a\r\n", &[]),
            ("white space", "Surrogate-Key:  b \t a  c,d\r\n", &[(Key, "a"), (Key, "b"), (Key, "c,d")]),
            ("several lines", "surrogate-key: b\r\nSURROGATE-KEY: a b\r\n", &[(Key, "a"), (Key, "b")]),
            ("commas", "Cache-Tag: b ,, a c,\"d,e\"\r\n", &[(Key, "\"d"), (Key, "a c"), (Key, "b"), (Key, "e\"")]),
            ("the other name", "Edge-Cache-Tag: a\r\nCache-Tag: b,A\r\n", &[(Key, "A"), (Key, "a"), (Key, "b")]),
            ("each once", "cache-tag: a,a\r\nsurrogate-key: a\r\n", &[(Key, "a")]),
            ("nothing", "cache-tag: , ,\r\nsurrogate-key:\r\n", &[]),
            ("9875 2: strings", "Cache-Groups: \"a b\", \"x\\\"\";y=1\r\n", &[(Group, "a b"), (Group, "x\"")]),
            ("9875 2: several lines", "cache-groups: \"b\"\r\ncache-groups: \"a\"\r\n", &[(Group, "a"), (Group, "b")]),
            ("9875 2: any string", "cache-groups: \"\"\r\n", &[(Group, "")]),
            ("9875 2: tokens are none", "cache-groups: a\r\ncache-tag: b\r\n", &[(Key, "b")]),
            ("8941 4.2: refused whole", "cache-groups: \"a\"\r\ncache-groups: b\r\n", &[]),
            ("a group is no key", "cache-groups: \"a\"\r\ncache-tag: a\r\n", &[(Key, "a"), (Group, "a")]),
        ];
        for (name, block, expected) in rows {
            check(name, block, expected);
        }
    }

    #[track_caller]
    fn check_limit(name: &str, block: &str, expected: Result<usize, OverLimit>) {
        assert_eq!(surrogate_keys(Fields::new(block.as_bytes())).map(|keys| keys.len()), expected, "{name}");
    }

    #[test]
    fn limits() {
        let long = |length: usize| "a".repeat(length);
        let many = |count: usize| (0..count).map(|number| format!("{number},")).collect::<String>();
        // Sixteen bytes each.
        let wide = |count: usize| (0..count).map(|number| format!("{number:0>16} ")).collect::<String>();
        let thirty_two: Vec<_> = (0..32).map(|number| format!("\"{number:0>32}\"")).collect();
        let rows = [
            ("the longest", format!("surrogate-key: {}\r\n", long(1024)), Ok(1)),
            ("longer", format!("surrogate-key: b {}\r\n", long(1025)), Err(OverLimit::KeyBytes { found: 1025 })),
            ("a longer group", format!("cache-groups: \"{}\"\r\n", long(1025)), {
                Err(OverLimit::KeyBytes { found: 1025 })
            }),
            ("a thousand", format!("cache-tag: {}\r\n", many(1000)), Ok(1000)),
            ("once more is no more", format!("cache-tag: {}7\r\nsurrogate-key: 8\r\n", many(1000)), Ok(1000)),
            ("a thousand and one", format!("cache-tag: {}\r\n", many(1001)), Err(OverLimit::Keys)),
            (
                "kinds count together",
                format!("cache-tag: {}\r\ncache-groups: \"1\"\r\n", many(1000)),
                Err(OverLimit::Keys),
            ),
            ("sixteen KiB less some", format!("surrogate-key: {}\r\n", wide(1000)), Ok(1000)),
            ("sixteen KiB", format!("surrogate-key: {}{}\r\n", wide(960), long(1024)), Ok(961)),
            ("and a byte", format!("surrogate-key: {}{} b\r\n", wide(960), long(1024)), Err(OverLimit::KeysBytes)),
            ("9875 2: what must be kept", format!("cache-groups: {}\r\n", thirty_two.join(", ")), Ok(32)),
        ];
        for (name, block, expected) in rows {
            check_limit(name, &block, expected);
        }
    }

    #[track_caller]
    fn check_invalidated(name: &str, block: &str, expected: &[&str]) {
        let groups = invalidated_groups(Fields::new(block.as_bytes()));
        let groups: Vec<_> = groups.iter().map(|group| String::from_utf8_lossy(group)).collect();
        assert_eq!(groups, expected, "{name}: {block:?}");
    }

    #[test]
    fn what_is_invalidated() {
        let numbers: Vec<String> = (0..33).map(|number| format!("{number}")).collect();
        let quoted = numbers.iter().map(|number| format!("\"{number}\"")).collect::<Vec<_>>().join(",");
        let kept: Vec<&str> = numbers.iter().take(INVALIDATED_GROUPS_MAX).map(String::as_str).collect();
        let too_long = format!("cache-group-invalidation: \"{}\", \"a\"\r\n", "b".repeat(1025));
        let rows: &[(&str, &str, &[&str])] = &[
            ("nothing", "cache-groups: \"a\"\r\n", &[]),
            ("9875 3: strings", "Cache-Group-Invalidation: \"b c\", \"a\";x\r\n", &["b c", "a"]),
            ("several lines", "cache-group-invalidation: \"b\"\r\ncache-group-invalidation: \"a\"\r\n", &["b", "a"]),
            ("each once", "cache-group-invalidation: \"a\", \"a\"\r\n", &["a"]),
            ("tokens are none", "cache-group-invalidation: \"a\", b\r\n", &[]),
            ("as many as must be", &format!("cache-group-invalidation: {quoted}\r\n"), &kept),
            ("one that nothing has", &too_long, &["a"]),
        ];
        for (name, block, expected) in rows {
            check_invalidated(name, block, expected);
        }
    }

    proptest! {
        #[test]
        fn the_order_of_lines_does_not_matter(
            mut lines in prop::collection::vec(
                prop_oneof![
                    "surrogate-key: [a-c ]{0,9}\r\n",
                    "(edge-)?cache-tag: [a-c, ]{0,9}\r\n",
                    "cache-groups: \"[a-c]\"\r\n",
                ],
                0..6,
            ),
        ) {
            let in_order = lines.concat();
            lines.reverse();
            let reversed = lines.concat();
            let keys = surrogate_keys(Fields::new(in_order.as_bytes()));
            prop_assert_eq!(&keys, &surrogate_keys(Fields::new(reversed.as_bytes())));
            let keys = keys.unwrap_or_default();
            prop_assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "sorted, each once");
        }

        #[test]
        fn arbitrary_bytes_never_panic(value in prop::collection::vec(any::<u8>(), 0..80)) {
            for name in FIELDS.into_iter().chain(["cache-group-invalidation"]) {
                let block = [name.as_bytes(), b": ", &value[..], b"\r\n", name.as_bytes(), b": \"a\", \"b"].concat();
                let fields = Fields::new(&block);
                if let Ok(keys) = surrogate_keys(fields) {
                    prop_assert!(keys.iter().all(|key| key.kind == Kind::Group || !key.value.is_empty()));
                }
                invalidated_groups(fields);
            }
        }
    }
}

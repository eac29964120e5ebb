//! What a response is stored under: 128 bits of keyed BLAKE3 over the injective encoding of the key's parts.

use std::hash::{BuildHasher, Hash, Hasher};

use crate::semantics::cache_key::KeyParts;

/// A primary key (one URL of one site) or the key of one variant of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheKey([u8; 16]);

impl CacheKey {
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The low half: as uniform as the whole, because the digest is.
    pub fn low_u64(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// For logs.
    pub fn as_u128(&self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.low_u64());
    }
}

/// A key is already a uniform digest under a secret: hashing it again would only cost time.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyHasher(u64);

impl BuildHasher for KeyHasher {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// Makes keys. The secret keeps clients from choosing URLs that collide in a shard or a bucket.
#[derive(Clone)]
pub struct Keyer {
    secret: [u8; 32],
}

impl Keyer {
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// The primary key. `scratch` is cleared and reused, so that a hit allocates nothing.
    pub fn primary(&self, parts: &KeyParts<'_>, scratch: &mut Vec<u8>) -> CacheKey {
        scratch.clear();
        parts.encode(scratch);
        self.digest(scratch)
    }

    /// The key of a variant: the primary key and the encoded values of the fields that select it.
    pub fn variant(&self, primary: &CacheKey, selecting: &[u8]) -> CacheKey {
        let mut encoded = Vec::with_capacity(16 + selecting.len());
        encoded.extend_from_slice(&primary.0);
        encoded.extend_from_slice(selecting);
        self.digest(&encoded)
    }

    /// The key of what leads to the variant in a language.
    pub fn language(&self, primary: &CacheKey, language: &[u8]) -> CacheKey {
        self.named(primary, b"language ", language)
    }

    /// The key of a part of a representation, by the `Range` that asked for it.
    pub fn part(&self, primary: &CacheKey, range: &[u8]) -> CacheKey {
        self.named(primary, b"range ", range)
    }

    /// The key of the rules about queries below a path, by the key of its URL without a query.
    pub fn searches(&self, path: &CacheKey) -> CacheKey {
        self.named(path, b"searches ", b"")
    }

    /// The key of what leads to the response for a query reduced to what matters.
    pub fn search(&self, path: &CacheKey, reduced: &[u8]) -> CacheKey {
        self.named(path, b"search ", reduced)
    }

    /// No variant has such a key: the names of fields that select it have a length before them, and none is so long.
    fn named(&self, primary: &CacheKey, what: &[u8], value: &[u8]) -> CacheKey {
        self.digest(&[&primary.0[..], &[0xff; 8], what, value].concat())
    }

    fn digest(&self, encoded: &[u8]) -> CacheKey {
        let digest = blake3::keyed_hash(&self.secret, encoded);
        let mut key = [0; 16];
        key.copy_from_slice(&digest.as_bytes()[..16]);
        CacheKey(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_secret_and_by_variant() {
        let parts = KeyParts::of_url("s", "http", b"h", b"/");
        let (one, two) = (Keyer::new([1; 32]), Keyer::new([2; 32]));
        let mut scratch = Vec::new();
        let key = one.primary(&parts, &mut scratch);
        assert_eq!(key, one.primary(&parts, &mut scratch));
        assert_ne!(key, two.primary(&parts, &mut scratch));
        assert_ne!(one.variant(&key, b"a"), one.variant(&key, b"b"));
        assert_ne!(one.variant(&key, b""), key);
        assert_ne!(key, one.primary(&KeyParts { group: "g", ..parts }, &mut scratch));
        assert_ne!(key, one.primary(&KeyParts { asked: Some(b"/"), ..parts }, &mut scratch));
        assert_ne!(one.language(&key, b"de"), one.part(&key, b"de"));
        assert_ne!(one.language(&key, b"de"), one.language(&key, b"en"));
    }
}

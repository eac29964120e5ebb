//! Private keys that sites bring, sealed with the key of the operator: on the way to other nodes, at the hub, and on disks.
//!
//! What is sealed is bound to the site and to the certificate chain it belongs to: it opens with no other.

use std::fmt;
use std::io;
use std::path::Path;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::pki_types::CertificateDer;

const KEY_CONTEXT: &str = "littoral 2026 the key that seals private keys of certificates";
const MARK_CONTEXT: &str = "littoral 2026 which key seals private keys of certificates";
const CHAIN_CONTEXT: &str = "littoral 2026 the chain and the site of a sealed private key";
/// Fewer bytes are no secret.
const SECRET_BYTES_MIN: usize = 32;

/// Seals and opens private keys.
pub struct StoreKey {
    key: LessSafeKey,
    /// The same for the same secret.
    mark: [u8; 32],
}

impl StoreKey {
    /// From a secret of any length; what is random enough is the caller's to know.
    pub fn new(secret: &[u8]) -> Self {
        let derived = blake3::derive_key(KEY_CONTEXT, secret);
        let key = UnboundKey::new(&AES_256_GCM, &derived).expect("a key has 32 bytes");
        Self { key: LessSafeKey::new(key), mark: blake3::derive_key(MARK_CONTEXT, secret) }
    }

    /// From a file.
    ///
    /// # Errors
    /// It cannot be read, or is too short.
    pub fn read(path: &Path) -> io::Result<Self> {
        let secret = std::fs::read(path)?;
        if secret.len() < SECRET_BYTES_MIN {
            let message = format!("it has {} bytes, expected at least {SECRET_BYTES_MIN}", secret.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self::new(&secret))
    }

    /// Seals a private key. None: the system gives no random numbers.
    pub fn seal(&self, site: &str, chain: &[CertificateDer<'_>], plain: &[u8]) -> Option<Vec<u8>> {
        // 96 random bits: with a key for each 2^32 uploads there is no risk that two are the same (NIST SP 800-38D section 8.3).
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let bound = Aad::from(bound_to(site, chain));
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut sealed).ok()?;
        Some([&nonce[..], &sealed].concat())
    }

    /// Opens one. None: it was sealed with another key, for another site or chain, or tampered with.
    pub fn open(&self, site: &str, chain: &[CertificateDer<'_>], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut opened = sealed.to_vec();
        let length = self.key.open_in_place(nonce, Aad::from(bound_to(site, chain)), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

impl PartialEq for StoreKey {
    fn eq(&self, other: &Self) -> bool {
        self.mark == other.mark
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreKey").finish_non_exhaustive()
    }
}

/// What a sealed key belongs to. Each part has its length before it, so that no two make the same.
fn bound_to(site: &str, chain: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CHAIN_CONTEXT);
    let parts = chain.iter().map(AsRef::as_ref);
    for part in std::iter::once(site.as_bytes()).chain(parts) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(parts: &[&[u8]]) -> Vec<CertificateDer<'static>> {
        parts.iter().map(|part| CertificateDer::from(part.to_vec())).collect()
    }

    #[test]
    fn a_key_opens_for_its_site_and_its_chain_alone() {
        let key = StoreKey::new(b"a secret");
        let own = chain(&[b"leaf", b"issuer"]);
        let sealed = key.seal("shop", &own, b"private").expect("sealed");
        assert!(!sealed.windows(7).any(|window| window == b"private"));
        assert_ne!(key.seal("shop", &own, b"private"), Some(sealed.clone()), "a nonce is used once");
        /// What is another one, the secret, the site, the chain, and whether it opens.
        type Row<'a> = (&'a str, &'a [u8], &'a str, &'a [&'a [u8]], bool);
        let rows: [Row<'_>; 8] = [
            ("as it was sealed", b"a secret", "shop", &[b"leaf", b"issuer"], true),
            ("another secret", b"another", "shop", &[b"leaf", b"issuer"], false),
            ("another site", b"a secret", "blog", &[b"leaf", b"issuer"], false),
            ("another leaf", b"a secret", "shop", &[b"fake", b"issuer"], false),
            ("a part of the chain", b"a secret", "shop", &[b"leaf"], false),
            ("another order", b"a secret", "shop", &[b"issuer", b"leaf"], false),
            ("other borders", b"a secret", "shop", &[b"leafi", b"ssuer"], false),
            ("the site in the chain", b"a secret", "", &[b"shop", b"leaf", b"issuer"], false),
        ];
        for (name, secret, site, parts, opens) in rows {
            let opened = StoreKey::new(secret).open(site, &chain(parts), &sealed);
            assert_eq!(opened.as_deref(), opens.then_some(&b"private"[..]), "{name}");
        }
    }

    #[test]
    fn what_was_tampered_with_does_not_open() {
        let (key, own) = (StoreKey::new(b"a secret"), chain(&[b"leaf"]));
        let sealed = key.seal("shop", &own, b"private").expect("sealed");
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert_eq!(key.open("shop", &own, &bad), None, "byte {at}");
            assert_eq!(key.open("shop", &own, &sealed[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn the_same_secret_is_the_same_key() {
        assert_eq!(StoreKey::new(b"a"), StoreKey::new(b"a"));
        assert_ne!(StoreKey::new(b"a"), StoreKey::new(b"b"));
        assert!(!format!("{:?}", StoreKey::new(b"a secret")).contains("secret"));
    }
}

//! Session tickets: keys that follow the clock, the same for all nodes that share a secret.
//!
//! Time is cut into periods; each has a key derived from the secret and its number. Tickets are sealed with the key of
//! the present period and opened with it, the one before and the one after (another node's clock may be ahead). Nodes of
//! a PoP with one secret accept one another's tickets, and a restart keeps them; nothing is exchanged or stored.

use std::fmt;

use parking_lot::Mutex;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::ProducesTickets;

use crate::clock;

/// How long one key seals. A ticket is good for at least this long.
const PERIOD_SECONDS: u64 = 6 * 60 * 60;
/// What clients are told; a key opens for one more period than it seals.
const LIFETIME_SECONDS: u32 = 6 * 60 * 60;
const NAME_BYTES: usize = 16;
const CONTEXT: &str = "littoral session ticket keys v1";

/// Seals and opens tickets.
pub struct Tickets {
    secret: [u8; 32],
    /// The keys of the periods around the present one.
    keys: Mutex<Option<Keys>>,
}

struct Keys {
    period: u64,
    /// Before, now, after.
    keys: [Key; 3],
}

struct Key {
    name: [u8; NAME_BYTES],
    seal: LessSafeKey,
}

impl Tickets {
    /// Keys from a secret of any length; what is random enough for a key is the caller's to know.
    pub fn new(secret: &[u8]) -> Self {
        Self { secret: blake3::derive_key(CONTEXT, secret), keys: Mutex::new(None) }
    }

    fn with_keys<T>(&self, period: u64, work: impl FnOnce(&[Key; 3]) -> Option<T>) -> Option<T> {
        let mut keys = self.keys.lock();
        if keys.as_ref().is_none_or(|keys| keys.period != period) {
            let key = |period| Key::derive(&self.secret, period);
            let fresh = [key(period.wrapping_sub(1))?, key(period)?, key(period.wrapping_add(1))?];
            *keys = Some(Keys { period, keys: fresh });
        }
        keys.as_ref().and_then(|keys| work(&keys.keys))
    }

    fn seal(&self, plain: &[u8], period: u64) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        self.with_keys(period, |[_, key, _]| {
            let mut sealed = plain.to_vec();
            let aad = Aad::from(key.name);
            key.seal.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
            Some([&key.name, &nonce[..], &sealed].concat())
        })
    }

    fn open(&self, ticket: &[u8], period: u64) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_BYTES)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        self.with_keys(period, |keys| {
            let key = keys.iter().find(|key| key.name == name)?;
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut opened = sealed.to_vec();
            let length = key.seal.open_in_place(nonce, Aad::from(key.name), &mut opened).ok()?.len();
            opened.truncate(length);
            Some(opened)
        })
    }
}

impl Key {
    fn derive(secret: &[u8; 32], period: u64) -> Option<Self> {
        let mut derived = [0; NAME_BYTES + 32];
        blake3::Hasher::new_keyed(secret).update(&period.to_be_bytes()).finalize_xof().fill(&mut derived);
        let (name, key) = derived.split_at(NAME_BYTES);
        let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
        Some(Self { name: name.try_into().ok()?, seal: LessSafeKey::new(key) })
    }
}

fn present() -> u64 {
    clock::wall().0 / 1000 / PERIOD_SECONDS
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, present())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, present())
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_its_period_and_one_more() {
        let tickets = Tickets::new(b"a secret");
        let ticket = tickets.seal(b"session", 100).expect("sealed");
        for (period, good) in [(98, false), (99, true), (100, true), (101, true), (102, false)] {
            assert_eq!(tickets.open(&ticket, period).as_deref(), good.then_some(&b"session"[..]), "{period}");
        }
    }

    #[test]
    fn nodes_with_one_secret_open_one_anothers_tickets_and_nobody_elses() {
        let ticket = Tickets::new(b"shared").seal(b"session", 5).expect("sealed");
        assert_eq!(Tickets::new(b"shared").open(&ticket, 5).as_deref(), Some(&b"session"[..]));
        assert_eq!(Tickets::new(b"another").open(&ticket, 5), None);
    }

    #[test]
    fn what_was_tampered_with_is_no_ticket() {
        let tickets = Tickets::new(b"a secret");
        let ticket = tickets.seal(b"session", 5).expect("sealed");
        for at in 0..ticket.len() {
            let mut bad = ticket.clone();
            bad[at] ^= 1;
            assert_eq!(tickets.open(&bad, 5), None, "byte {at}");
            assert_eq!(tickets.open(&ticket[..at], 5), None, "cut at {at}");
        }
    }
}

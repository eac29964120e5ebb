//! What goes with handshakes: responses of OCSP, by certificate.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use crate::semantics::time::UnixMs;

/// A response that says that a certificate is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staple {
    pub response: Vec<u8>,
    /// Nobody may be told it from then on.
    pub until: UnixMs,
}

/// The responses there are. A certificate that is read again keeps its own.
#[derive(Default)]
pub struct Staples(RwLock<HashMap<CertificateDer<'static>, Entry, ahash::RandomState>>);

struct Entry {
    staple: Staple,
    /// As it was found when the response came, and the same with it.
    bare: Arc<CertifiedKey>,
    stapled: Arc<CertifiedKey>,
}

impl Staples {
    /// A certificate with its response, if it has one that holds.
    pub fn with(&self, key: &Arc<CertifiedKey>, now: UnixMs) -> Arc<CertifiedKey> {
        let entries = self.0.read();
        let entry = match key.cert.first() {
            Some(leaf) if !entries.is_empty() => entries.get(leaf),
            _ => None,
        };
        match entry.filter(|entry| now < entry.staple.until) {
            None => key.clone(),
            Some(entry) if Arc::ptr_eq(&entry.bare, key) => entry.stapled.clone(),
            // It was read again since.
            Some(entry) => Arc::new(stapled(key, &entry.staple)),
        }
    }

    /// From now on this goes with handshakes of a certificate.
    pub fn set(&self, key: &Arc<CertifiedKey>, staple: Staple) {
        let Some(leaf) = key.cert.first() else { return };
        let stapled = Arc::new(stapled(key, &staple));
        self.0.write().insert(leaf.clone(), Entry { staple, bare: key.clone(), stapled });
    }

    /// From now on nothing goes with handshakes of a certificate.
    pub fn remove(&self, leaf: &CertificateDer<'static>) {
        self.0.write().remove(leaf);
    }

    /// Keeps those of some certificates.
    pub fn keep(&self, is_kept: impl Fn(&CertificateDer<'static>) -> bool) {
        self.0.write().retain(|leaf, _| is_kept(leaf));
    }

    /// How many hold.
    pub fn count(&self, now: UnixMs) -> usize {
        self.0.read().values().filter(|entry| now < entry.staple.until).count()
    }
}

impl fmt::Debug for Staples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staples").field("count", &self.0.read().len()).finish()
    }
}

fn stapled(key: &CertifiedKey, staple: &Staple) -> CertifiedKey {
    CertifiedKey { ocsp: Some(staple.response.clone()), ..key.clone() }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ring::default_provider;

    use super::*;

    fn key() -> CertifiedKey {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("a certificate");
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        CertifiedKey::from_der(vec![made.cert.der().clone()], key, &default_provider()).expect("they fit")
    }

    #[test]
    fn a_response_goes_with_its_certificate_while_it_holds() {
        let (staples, key, other) = (Staples::default(), Arc::new(key()), Arc::new(key()));
        let ocsp = |key: &Arc<CertifiedKey>, now| staples.with(key, UnixMs(now)).ocsp.clone();
        assert_eq!(ocsp(&key, 1), None);
        staples.set(&key, Staple { response: vec![1, 2], until: UnixMs(100) });
        assert_eq!((ocsp(&key, 99), ocsp(&key, 100), ocsp(&other, 99)), (Some(vec![1, 2]), None, None));
        // Read again: the same certificate, elsewhere in memory.
        assert_eq!(ocsp(&Arc::new((*key).clone()), 99), Some(vec![1, 2]));
        assert_eq!((staples.count(UnixMs(99)), staples.count(UnixMs(100))), (1, 0));
        staples.set(&key, Staple { response: vec![3], until: UnixMs(200) });
        assert_eq!(ocsp(&key, 150), Some(vec![3]));
        staples.keep(|leaf| Some(leaf) == key.cert.first());
        assert_eq!(ocsp(&key, 150), Some(vec![3]));
        staples.remove(&key.cert[0].clone());
        assert_eq!(ocsp(&key, 150), None);
    }
}

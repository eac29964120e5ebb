//! Certificates that were issued while the node runs, by name; answers to the challenges of an authority; and the hosts for which
//! one is issued when the first client comes.
//!
//! They come and go one by one: nothing is made anew for the others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::{Notify, watch};

use super::leaf::Leaf;
use crate::clock;

/// What a client of the authority offers that looks at a challenge (RFC 8737 section 4).
pub const ACME_TLS: &[u8] = b"acme-tls/1";
/// Clients that wait for a certificate at one time.
const WAITING_MAX: usize = 1_000;
/// And for one of them.
const WAITING_FOR_ONE_MAX: usize = 32;

type Names<T> = HashMap<String, T, ahash::RandomState>;

/// What there is.
#[derive(Default)]
pub struct Issued {
    certificates: RwLock<Names<IssuedCertificate>>,
    /// Whose each host is that has a name of its own. None: it is to have no certificate.
    owners: RwLock<Names<Option<String>>>,
    challenges: RwLock<Names<Challenge>>,
    has_challenges: AtomicBool,
    /// Hosts for which a certificate may be had.
    on_demand: RwLock<Names<usize>>,
    wanted: Mutex<HashSet<String>>,
    asked: Notify,
    waiting: AtomicUsize,
    /// Counts the certificates that came, and went.
    came: watch::Sender<u64>,
}

/// A certificate, and the site whose host it is for.
#[derive(Clone, Debug)]
pub struct IssuedCertificate {
    pub site: String,
    pub leaf: Leaf,
    pub key: Arc<CertifiedKey>,
}

/// What the authority is to be told of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    pub token: String,
    pub key_authorization: String,
}

impl Issued {
    /// The certificate for a name in lower case: its own, else that of its parent's wildcard.
    pub fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let certificates = self.certificates.read();
        let wildcard = || {
            let found = certificates.get(&format!("*.{}", name.split_once('.')?.1))?;
            let owners = self.owners.read();
            let is_its = owners.get(name).is_none_or(|owner| owner.as_ref() == Some(&found.site));
            is_its.then_some(found)
        };
        certificates.get(name).or_else(wildcard).map(|issued| issued.key.clone())
    }

    /// Whose a host is. None: it is to have no certificate, not even that of a wildcard.
    pub fn own(&self, name: &str, owner: Option<&str>) {
        self.owners.write().insert(name.to_owned(), owner.map(str::to_owned));
    }

    /// Forgets whose hosts are, but for those that are still some.
    pub fn keep_owners(&self, is_host: impl Fn(&str) -> bool) {
        self.owners.write().retain(|name, _| is_host(name));
    }

    /// From now on this one is for a name.
    pub fn put(&self, name: &str, certificate: IssuedCertificate) {
        self.certificates.write().insert(name.to_owned(), certificate);
        self.came.send_modify(|count| *count += 1);
    }

    /// From now on there is none for a name.
    pub fn remove(&self, name: &str) {
        if self.certificates.write().remove(name).is_some() {
            self.came.send_modify(|count| *count += 1);
        }
    }

    /// Counts what came and went.
    pub fn changes(&self) -> u64 {
        *self.came.borrow()
    }

    /// All of them.
    pub fn all(&self) -> Vec<IssuedCertificate> {
        self.certificates.read().values().cloned().collect()
    }

    /// The answers to challenges of this moment, by host.
    pub fn answer_with(&self, challenges: impl Iterator<Item = (String, Challenge)>) {
        let challenges: Names<Challenge> = challenges.collect();
        self.has_challenges.store(!challenges.is_empty(), Ordering::Release);
        *self.challenges.write() = challenges;
    }

    /// What a request for a challenge is answered with (RFC 8555 section 8.3). None: it is none of ours.
    pub fn answer(&self, host: &[u8], target: &[u8]) -> Option<String> {
        if !self.has_challenges.load(Ordering::Acquire) {
            return None;
        }
        let token = target.strip_prefix(b"/.well-known/acme-challenge/")?;
        let host = std::str::from_utf8(host).ok()?.trim_end_matches('.').to_ascii_lowercase();
        let challenges = self.challenges.read();
        let challenge = challenges.get(&host).filter(|challenge| challenge.token.as_bytes() == token)?;
        Some(challenge.key_authorization.clone())
    }

    /// How a handshake is done with an authority that looks at a challenge (RFC 8737 section 3).
    pub fn challenged(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        if !self.has_challenges.load(Ordering::Acquire) || !hello.alpn()?.any(|protocol| protocol == ACME_TLS) {
            return None;
        }
        let host = hello.server_name()?.to_ascii_lowercase();
        let authorization = self.challenges.read().get(&host)?.key_authorization.clone();
        challenge_config(&host, &authorization)
    }

    /// Whether a certificate is issued for a host when somebody asks for it.
    pub fn may_be_wanted(&self, name: &str, may: bool) {
        let mut hosts = self.on_demand.write();
        match may {
            true => _ = hosts.entry(name.to_owned()).or_default(),
            false => _ = hosts.remove(name),
        }
    }

    /// Waits for the certificate of a name that has none yet, if one may be had. False: there is none by then.
    pub async fn wait_for(&self, name: &str, until: Instant) -> bool {
        let Some(_waiting) = Waiting::begin(self, name) else { return false };
        let mut came = self.came.subscribe();
        let there = came.wait_for(|_| self.find(name).is_some());
        let left = until.saturating_duration_since(clock::monotonic());
        matches!(tokio::time::timeout(left, there).await, Ok(Ok(_)))
    }

    /// Resolves when a client waits for a certificate.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    /// The names clients wait for, or have waited for, since this was asked last.
    pub fn take_wanted(&self) -> HashSet<String> {
        std::mem::take(&mut self.wanted.lock())
    }
}

/// One that waits.
struct Waiting<'a> {
    issued: &'a Issued,
    name: &'a str,
}

impl<'a> Waiting<'a> {
    /// None: nothing is issued for the name, or too many wait.
    fn begin(issued: &'a Issued, name: &'a str) -> Option<Self> {
        let mut hosts = issued.on_demand.write();
        let waiting = hosts.get_mut(name)?;
        // Also where nobody can wait any more: it is there for who comes next.
        if issued.wanted.lock().insert(name.to_owned()) {
            issued.asked.notify_one();
        }
        if *waiting >= WAITING_FOR_ONE_MAX || issued.waiting.load(Ordering::Relaxed) >= WAITING_MAX {
            return None;
        }
        *waiting += 1;
        issued.waiting.fetch_add(1, Ordering::Relaxed);
        Some(Self { issued, name })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.issued.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Some(waiting) = self.issued.on_demand.write().get_mut(self.name) {
            *waiting = waiting.saturating_sub(1);
        }
    }
}

/// One certificate for whoever asks.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

fn challenge_config(host: &str, authorization: &str) -> Option<Arc<ServerConfig>> {
    let digest = ring::digest::digest(&ring::digest::SHA256, authorization.as_bytes());
    let mut params = CertificateParams::new([host.to_owned()]).ok()?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_ref())];
    let key = KeyPair::generate().ok()?;
    let certificate = params.self_signed(&key).ok()?;
    let provider = default_provider();
    let private = PrivateKeyDer::try_from(key.serialize_der()).ok()?;
    // Whether they fit is not looked at: the extension is critical, and no check of certificates knows it.
    let signs = provider.key_provider.load_private_key(private).ok()?;
    let certified = CertifiedKey::new(vec![certificate.der().clone()], signs);
    let config = ServerConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions().ok()?;
    let mut config = config.with_no_client_auth().with_cert_resolver(Arc::new(Only(Arc::new(certified))));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    Some(Arc::new(config))
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("certificates", &self.certificates.read().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn certificate(name: &str) -> IssuedCertificate {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
        let chain = vec![cert.der().clone()];
        let leaf = Leaf::read(&chain).expect("it has a name");
        let key = CertifiedKey::from_der(chain, key, &default_provider()).expect("they fit");
        IssuedCertificate { site: "site".into(), leaf, key: Arc::new(key) }
    }

    #[test]
    fn names_have_their_own_or_their_parents_wildcard() {
        let issued = Issued::default();
        issued.put("a.test", certificate("a.test"));
        issued.put("*.b.test", certificate("*.b.test"));
        for (name, found) in [
            ("a.test", true),
            ("x.b.test", true),
            ("b.test", false),
            ("y.x.b.test", false),
            ("c.test", false),
            ("test", false),
        ] {
            assert_eq!(issued.find(name).is_some(), found, "{name}");
        }
        issued.remove("a.test");
        assert!(issued.find("a.test").is_none());
        // A host with a name of its own is not its parent's, unless it is the same site's.
        for (owner, found) in [(Some("site"), true), (Some("other"), false), (None, false)] {
            issued.own("x.b.test", owner);
            assert_eq!(issued.find("x.b.test").is_some(), found, "{owner:?}");
        }
        issued.keep_owners(|_| false);
        assert!(issued.find("x.b.test").is_some());
    }

    #[test]
    fn challenges_are_answered_for_their_host_and_token_alone() {
        let issued = Issued::default();
        let path = b"/.well-known/acme-challenge/abc".as_slice();
        assert_eq!(issued.answer(b"a.test", path), None);
        let challenge = Challenge { token: "abc".into(), key_authorization: "abc.def".into() };
        issued.answer_with([("a.test".to_owned(), challenge)].into_iter());
        for (host, target, answered) in [
            ("a.test", "/.well-known/acme-challenge/abc", true),
            ("A.Test.", "/.well-known/acme-challenge/abc", true),
            ("b.test", "/.well-known/acme-challenge/abc", false),
            ("a.test", "/.well-known/acme-challenge/abd", false),
            ("a.test", "/.well-known/acme-challenge/", false),
            ("a.test", "/abc", false),
        ] {
            let answer = issued.answer(host.as_bytes(), target.as_bytes());
            assert_eq!(answer.as_deref(), answered.then_some("abc.def"), "{host}{target}");
        }
        assert!(challenge_config("a.test", "abc.def").is_some());
    }

    #[tokio::test]
    async fn clients_wait_for_what_may_be_had() {
        let issued = Arc::new(Issued::default());
        let until = clock::monotonic() + Duration::from_secs(10);
        assert!(!issued.wait_for("a.test", until).await, "nobody would issue it");
        issued.may_be_wanted("a.test", true);
        assert!(!issued.wait_for("a.test", clock::monotonic()).await, "there is no time");
        assert_eq!(issued.take_wanted(), ["a.test".to_owned()].into());
        let other = issued.clone();
        let waits = tokio::spawn(async move { other.wait_for("a.test", until).await });
        issued.asked().await;
        issued.put("a.test", certificate("a.test"));
        assert!(waits.await.expect("no panic"));
        // One name does not take all the room.
        let waiting: Vec<_> = (0..WAITING_FOR_ONE_MAX).map_while(|_| Waiting::begin(&issued, "a.test")).collect();
        assert_eq!(waiting.len(), WAITING_FOR_ONE_MAX);
        assert!(Waiting::begin(&issued, "a.test").is_none());
        assert!(issued.take_wanted().contains("a.test"), "it is wanted all the same");
        drop(waiting);
        assert_eq!(issued.waiting.load(Ordering::Relaxed), 0);
    }
}

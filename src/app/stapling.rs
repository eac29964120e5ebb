//! What goes with handshakes: OCSP responders are asked in the background whether certificates are revoked, and what they say is
//! stapled while it holds. A responder that is down costs nothing: the answer before is kept as long as it says.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use edge_config::section::tls::Ocsp;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use url::{Host, Url};

use crate::clock;
use crate::front::tls::Tls;
use crate::front::tls::certificates::Certificates;
use crate::front::tls::leaf::Leaf;
use crate::front::tls::staple::{Good, Question, Refused};
use crate::front::tls::staples::Staple;
use crate::semantics::time::UnixMs;
use crate::telemetry::metrics::Metrics;

/// How often it is looked whether there are other certificates, and whom to ask.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Questions under way: ten thousand certificates are through in minutes, and no responder sees a crowd.
const ASKED_AT_ONCE: usize = 4;
/// From the connection to all of an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// An answer with the certificate of whoever has signed it has two or three KiB.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// A failure is followed by another attempt after this time, the next one after twice as much, and so on.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(3_600);
/// Nobody is asked sooner, however short the time is that an answer is for.
const RENEW_MIN: Duration = Duration::from_secs(5);

/// Why there is no answer to staple.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}: not a URL of a responder")]
    Url(String),
    #[error("{0}: its name is not found: {1}")]
    Name(String, std::io::Error),
    #[error("{0}: not at a public address: ocsp = \"any\" in [tls] asks such responders too")]
    Inside(String),
    #[error("{0}: {1}")]
    Silent(String, ureq::Error),
    #[error("{0}: {1}")]
    Refused(String, Refused),
}

/// A certificate that names a responder.
struct Standing {
    key: Arc<CertifiedKey>,
    /// The first of its names, for the log.
    name: String,
    question: Arc<Question>,
    due: UnixMs,
    failures: u32,
    is_asked: bool,
}

type Leaves = HashMap<CertificateDer<'static>, Standing>;

/// An answer, and how long it is good; about a certificate.
type Answered = (CertificateDer<'static>, Result<(Vec<u8>, Good), Failed>);

/// Asks about the certificates there are, as long as the runtime lasts.
pub fn follow(tls: &Arc<Tls>, metrics: &Arc<Metrics>, runtime: &Handle) {
    let (tls, metrics) = (tls.clone(), metrics.clone());
    runtime.spawn(async move {
        let mut stapling = Stapling { certificates: Arc::default(), leaves: Leaves::new(), metrics };
        let mut issued = 0;
        let mut asked = JoinSet::new();
        loop {
            let certificates = tls.certificates();
            let changes = certificates.issued().changes();
            if !Arc::ptr_eq(&certificates, &stapling.certificates) || changes != issued {
                issued = changes;
                // Thousands of certificates are read: others wait for this thread.
                let renewed = tokio::task::spawn_blocking(move || stapling.with(certificates)).await;
                let Ok(renewed) = renewed else { return };
                stapling = renewed;
            }
            stapling.ask(&mut asked);
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                Some(Ok(answered)) = asked.join_next() => stapling.settle(answered),
            }
            let (_, staples) = stapling.certificates.stapling();
            stapling.metrics.ocsp_stapled(staples.count(clock::wall()));
        }
    });
}

struct Stapling {
    certificates: Arc<Certificates>,
    leaves: Leaves,
    metrics: Arc<Metrics>,
}

impl Stapling {
    /// The certificates of another configuration; those that were there before stay as they are.
    fn with(mut self, certificates: Arc<Certificates>) -> Self {
        let (ocsp, staples) = certificates.stapling();
        let mut before = std::mem::take(&mut self.leaves);
        let keys = if ocsp == Ocsp::Off { Vec::new() } else { certificates.keys() };
        for key in keys {
            let Some(leaf) = key.cert.first().cloned() else { continue };
            let known = before.remove(&leaf).map(|known| Standing { key: key.clone(), ..known });
            if let Some(standing) = known.or_else(|| Standing::new(&key)) {
                self.leaves.insert(leaf, standing);
            }
        }
        staples.keep(|leaf| self.leaves.contains_key(leaf));
        self.certificates = certificates;
        self
    }

    /// Begins to ask what is due.
    fn ask(&mut self, asked: &mut JoinSet<Answered>) {
        let now = clock::wall();
        let (ocsp, _) = self.certificates.stapling();
        let room = ASKED_AT_ONCE.saturating_sub(asked.len());
        let due = self.leaves.iter_mut().filter(|(_, standing)| !standing.is_asked && standing.due <= now);
        for (leaf, standing) in due.take(room) {
            standing.is_asked = true;
            let (leaf, question) = (leaf.clone(), standing.question.clone());
            asked.spawn_blocking(move || {
                let answer = answer(&question, ocsp == Ocsp::Public);
                (leaf, answer)
            });
        }
    }

    fn settle(&mut self, (leaf, answer): Answered) {
        // One that is gone meanwhile needs nothing.
        let Some(standing) = self.leaves.get_mut(&leaf) else { return };
        standing.is_asked = false;
        let now = clock::wall();
        let (_, staples) = self.certificates.stapling();
        let outcome = match answer {
            Ok((response, good)) => {
                standing.failures = 0;
                standing.due = renewal(good, now);
                staples.set(&standing.key, Staple { response, until: UnixMs::from_seconds(good.next_update) });
                "good"
            }
            Err(failed) => {
                let is_revoked = matches!(failed, Failed::Refused(_, Refused::Revoked));
                let retry = retry(standing.failures);
                standing.failures = standing.failures.saturating_add(1);
                standing.due = after(now, retry);
                let (certificate, retry_seconds) = (&standing.name, retry.as_secs());
                if is_revoked {
                    // What said otherwise before holds no more.
                    staples.remove(&leaf);
                    tracing::error!(certificate, %failed, retry_seconds, "a certificate is revoked: replace it");
                    "revoked"
                } else {
                    tracing::warn!(certificate, %failed, retry_seconds, "nobody says whether a certificate is revoked");
                    "failed"
                }
            }
        };
        self.metrics.ocsp_asked(outcome);
    }
}

impl Standing {
    /// None: it names no responder that can be asked.
    fn new(key: &Arc<CertifiedKey>) -> Option<Self> {
        let question = Question::of(&key.cert);
        if matches!(question, Ok(None)) {
            return None;
        }
        let name = Leaf::read(&key.cert).ok().and_then(|leaf| leaf.names.first().cloned()).unwrap_or_default();
        let question = question.unwrap_or_else(|error| {
            tracing::warn!(certificate = name, %error, "nothing is stapled for a certificate");
            None
        });
        let question = Arc::new(question?);
        Some(Self { key: key.clone(), name, question, due: UnixMs::default(), failures: 0, is_asked: false })
    }
}

/// When half of the time is over that an answer is for; where it is already, responders have nothing newer yet: when a quarter of
/// what is left of it is over.
fn renewal(good: Good, now: UnixMs) -> UnixMs {
    let half = good.next_update.saturating_sub(good.this_update) / 2;
    let due = UnixMs::from_seconds(good.this_update.saturating_add(half));
    let left = Duration::from_secs(good.next_update.saturating_sub(now.seconds()));
    due.max(after(now, RENEW_MIN.max(left / 4)))
}

fn retry(failures: u32) -> Duration {
    RETRY_FIRST.saturating_mul(2u32.saturating_pow(failures)).min(RETRY_MAX)
}

fn after(now: UnixMs, time: Duration) -> UnixMs {
    UnixMs(now.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
}

/// Asks the responders, one after the other.
fn answer(question: &Question, public: bool) -> Result<(Vec<u8>, Good), Failed> {
    let mut last = Failed::Url(String::new());
    for url in &question.urls {
        let answered = fetch(url, &question.request, public).and_then(|answer| {
            let good = question.judge(&answer, clock::wall().seconds());
            good.map(|good| (answer, good)).map_err(|refused| Failed::Refused(url.clone(), refused))
        });
        match answered {
            Err(Failed::Refused(url, Refused::Revoked)) => return Err(Failed::Refused(url, Refused::Revoked)),
            Err(failed) => last = failed,
            good => return good,
        }
    }
    Err(last)
}

fn fetch(url: &str, request: &[u8], public: bool) -> Result<Vec<u8>, Failed> {
    let target = Url::parse(url).ok().filter(|url| url.scheme() == "http" && url.username().is_empty());
    let mut target = target.ok_or_else(|| Failed::Url(url.to_owned()))?;
    let port = target.port_or_known_default().unwrap_or(80);
    let addresses: Vec<SocketAddr> = match target.host() {
        Some(Host::Domain(name)) => {
            let found = (name, port).to_socket_addrs().map_err(|error| Failed::Name(url.to_owned(), error))?;
            found.collect()
        }
        Some(Host::Ipv4(address)) => vec![(address, port).into()],
        Some(Host::Ipv6(address)) => vec![(address, port).into()],
        None => Vec::new(),
    };
    let address = addresses.into_iter().find(|address| !public || is_public(address.ip()));
    let address = address.ok_or_else(|| Failed::Inside(url.to_owned()))?;
    // The address that was looked at is the one that is asked, whatever its name means in a moment; and it sends us nowhere else.
    let host = target.authority().to_owned();
    target.set_ip_host(address.ip()).map_err(|()| Failed::Url(url.to_owned()))?;
    let silent = |error| Failed::Silent(url.to_owned(), error);
    let agent = ureq::Agent::config_builder().timeout_global(Some(ANSWER_WITHIN)).max_redirects(0).proxy(None);
    let agent: ureq::Agent = agent.build().into();
    let asked = agent.post(target.as_str()).header("host", host).content_type("application/ocsp-request");
    let mut answer = asked.send(request).map_err(silent)?;
    answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(silent)
}

/// Whether an address is one of the public internet (the registries of special addresses, RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            let is_special = address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_multicast()
                || matches!((a, b, c), (0 | 240..=255, _, _) | (100, 64..=127, _) | (192, 0, 0) | (198, 18 | 19, _));
            !is_special
        }
        // What is global unicast is 2000::/3; of that, tunnels and IPv4 in other forms lead elsewhere.
        IpAddr::V6(address) => {
            let [first, second, ..] = address.segments();
            first & 0xe000 == 0x2000 && first != 0x2002 && !(first == 0x2001 && second == 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_it_is_asked_again() {
        let good = |this_update, next_update| Good { this_update, next_update };
        for (good, now, due) in [
            (good(1_000, 2_000), 1_001, 1_500),
            (good(1_000, 2_000), 1_500, 1_625),
            (good(1_000, 2_000), 1_900, 1_925),
            (good(1_000, 2_000), 1_990, 1_995),
            (good(1_000, 1_004), 1_000, 1_005),
            (good(2_000, 1_000), 1_000, 2_000),
        ] {
            assert_eq!(renewal(good, UnixMs::from_seconds(now)), UnixMs::from_seconds(due), "{good:?} at {now}");
        }
        let retries: Vec<u64> = (0..11).map(|failures| retry(failures).as_secs()).collect();
        assert_eq!(retries, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600]);
        assert_eq!(retry(u32::MAX), RETRY_MAX);
    }

    #[test]
    fn addresses_of_the_network_inside_are_not_asked() {
        for (address, expected) in [
            ("8.8.8.8", true),
            ("100.63.0.1", true),
            ("2606:4700::1", true),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("198.18.0.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("64:ff9b::a00:1", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("2002:a00:1::", false),
            ("2001::1", false),
        ] {
            assert_eq!(is_public(address.parse().expect("an address")), expected, "{address}");
        }
        for url in ["http://127.0.0.1:9900/", "http://localhost/", "http://[::1]:80/a"] {
            assert!(matches!(fetch(url, b"", true), Err(Failed::Inside(_))), "{url}");
        }
        for url in ["https://8.8.8.8/", "nothing", "http://user@8.8.8.8/", "file:///etc/passwd"] {
            assert!(matches!(fetch(url, b"", false), Err(Failed::Url(_))), "{url}");
        }
    }
}

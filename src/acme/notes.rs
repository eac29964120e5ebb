//! What nodes tell one another of certificates: the forms of notes on the [`Board`](crate::purge::nats::board::Board), and their
//! names. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

/// Who orders certificates now.
pub const LEASE: &str = "lease";
/// The account with the authority.
pub const ACCOUNT: &str = "account";
/// How many orders there were.
pub const ORDERS: &str = "orders";
pub const CLAIM: &str = "claim.";
pub const CERTIFICATE: &str = "certificate.";
pub const CHALLENGE: &str = "challenge.";
pub const WANTED: &str = "wanted.";

/// The name of what there is of a host; `*` is none a hub takes.
pub fn key(kind: &str, host: &str) -> String {
    match host.strip_prefix("*.") {
        Some(parent) => format!("{kind}_.{parent}"),
        None => format!("{kind}{host}"),
    }
}

/// The host a name is of, without the kind.
pub fn host(rest: &str) -> String {
    rest.strip_prefix("_.").map_or_else(|| rest.to_owned(), |parent| format!("*.{parent}"))
}

/// Reads a note. None: it is of a form that this node does not know.
pub fn read<'n, T: Deserialize<'n>>(value: &'n [u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}

/// Writes one.
pub fn write(note: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(note).expect("texts and numbers are JSON")
}

/// Who orders certificates now. It holds as long as it is written again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Of a process: two of one node are two.
    pub holder: String,
    /// What operators call the node.
    pub node: String,
    pub count: u64,
}

/// The account with the authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub directory: String,
    /// Its key and where it is, sealed; in base64.
    pub credentials: String,
}

/// How many orders there were in an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// Since 1970.
    pub hour: u64,
    pub count: u32,
}

/// What is known of a host of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub site: String,
    /// What a TXT record of the host shows.
    pub token: String,
    pub state: State,
    /// When it came into this state, in milliseconds of Unix time.
    pub since: u64,
    /// How it was proven, or what is missing, for people.
    #[serde(default)]
    pub said: String,
    /// Orders that failed since one did not.
    #[serde(default)]
    pub failures: u32,
    /// Nothing is done for it before, in milliseconds of Unix time.
    #[serde(default)]
    pub not_before: u64,
}

/// How a claim stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its name does not lead here yet.
    #[default]
    Waiting,
    Proven,
    /// Nothing is ordered for it, whatever its name says.
    Revoked,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Proven => "proven",
            Self::Revoked => "revoked",
        }
    }
}

/// A certificate that was issued.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Each certificate in base64, that of the host first.
    pub chain: Vec<String>,
    /// The private key, sealed; in base64.
    pub key: String,
    /// In milliseconds of Unix time, as all times here.
    pub issued: u64,
    /// The site whose host it was issued for.
    #[serde(default)]
    pub site: String,
    pub renew: u64,
    pub ends: u64,
    pub directory: String,
}

impl Held {
    /// The chain; None: it cannot be read.
    pub fn chain(&self) -> Option<Vec<CertificateDer<'static>>> {
        self.chain.iter().map(|text| Some(CertificateDer::from(BASE64.decode(text).ok()?))).collect()
    }
}

/// What the authority is shown for a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    pub token: String,
    pub key_authorization: String,
    /// In milliseconds of Unix time.
    pub at: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts_come_back() {
        for (given, name) in [
            ("a.test", "claim.a.test"),
            ("*.a.test", "claim._.a.test"),
            ("xn--bcher-kva.test", "claim.xn--bcher-kva.test"),
        ] {
            assert_eq!(key(CLAIM, given), name);
            assert_eq!(host(name.strip_prefix(CLAIM).expect("a claim")), given);
        }
    }

    #[test]
    fn a_claim_of_an_earlier_node_can_be_read() {
        let text = br#"{"site":"shop","token":"t","state":"proven","since":1}"#;
        let claim: Claim = read(text).expect("it is one");
        assert_eq!((claim.state, claim.failures, claim.not_before), (State::Proven, 0, 0));
        assert_eq!(read::<Claim>(&write(&claim)), Some(claim));
        assert_eq!(read::<Claim>(b"{}"), None);
    }
}

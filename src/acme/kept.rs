//! Certificates and the account as they are kept: keys sealed, and opened.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

use super::notes::{Account, Held};
use super::order::Ordered;
use super::plan::renewal;
use crate::front::tls::leaf::Leaf;
use crate::front::tls::own;
use crate::front::tls::sealed::StoreKey;

/// What keys of hosts are bound to: no site can be called so.
fn of_host(host: &str) -> String {
    format!("host {host}")
}

/// What the account is bound to.
const OF_ACCOUNT: &str = "account of acme";

/// A certificate as it is kept.
///
/// # Errors
/// What was issued cannot be used for the host.
pub fn seal(
    (site, host): (&str, &str),
    ordered: &Ordered,
    key: &StoreKey,
    directory: &str,
    now: u64,
) -> Result<Held, String> {
    let (chain, private) = own::read_pair(&ordered.chain, &ordered.key).map_err(|error| error.to_string())?;
    let leaf = Leaf::read(&chain).map_err(|error| error.to_string())?;
    if !leaf.names.iter().any(|name| name == host) {
        return Err(format!("what was issued is for {}", leaf.names.join(", ")));
    }
    let ends = u64::try_from(leaf.not_after).unwrap_or(0) * 1_000;
    if ends <= now {
        return Err("what was issued has ended".to_owned());
    }
    let sealed = key.seal(&of_host(host), &chain, private.secret_der()).ok_or("there are no random numbers")?;
    own::certified(chain.clone(), private).map_err(|error| error.to_string())?;
    Ok(Held {
        chain: chain.iter().map(|certificate| BASE64.encode(certificate)).collect(),
        key: BASE64.encode(sealed),
        issued: now,
        site: site.to_owned(),
        renew: renewal(now, ends),
        ends,
        directory: directory.to_owned(),
    })
}

/// A certificate ready for handshakes.
///
/// # Errors
/// It cannot be read, or was sealed with another key.
pub fn open(host: &str, held: &Held, key: &StoreKey) -> Result<(Leaf, Arc<CertifiedKey>), String> {
    let chain = held.chain().ok_or("it cannot be read")?;
    let leaf = Leaf::read(&chain).map_err(|error| error.to_string())?;
    let sealed = BASE64.decode(&held.key).map_err(|error| error.to_string())?;
    let opened = key.open(&of_host(host), &chain, &sealed);
    let opened = opened.ok_or("its key was sealed with another `store_key` than this node has")?;
    let private = PrivateKeyDer::try_from(opened).map_err(str::to_owned)?;
    let certified = own::certified(chain, private).map_err(|error| error.to_string())?;
    Ok((leaf, Arc::new(certified)))
}

/// The account as it is kept.
pub fn seal_account(directory: &str, credentials: &[u8], key: &StoreKey) -> Option<Account> {
    let sealed = key.seal(OF_ACCOUNT, &[], credentials)?;
    Some(Account { directory: directory.to_owned(), credentials: BASE64.encode(sealed) })
}

/// What an account is known by.
pub fn open_account(account: &Account, key: &StoreKey) -> Option<Vec<u8>> {
    key.open(OF_ACCOUNT, &[], &BASE64.decode(&account.credentials).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_for_its_host_alone() {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).expect("a certificate");
        let ordered = Ordered { chain: cert.pem(), key: signing_key.serialize_pem() };
        let key = StoreKey::new(b"a secret");
        let held = seal(("shop", "a.test"), &ordered, &key, "https://ca.test/", 1_000).expect("it is for a.test");
        assert!(held.renew > held.issued && held.renew < held.ends);
        assert!(open("a.test", &held, &key).is_ok());
        assert!(open("b.test", &held, &key).is_err(), "another host");
        assert!(open("a.test", &held, &StoreKey::new(b"another")).is_err(), "another key");
        assert!(seal(("shop", "b.test"), &ordered, &key, "", 1_000).is_err(), "it is not for b.test");
        assert!(seal(("shop", "a.test"), &ordered, &key, "", u64::MAX).is_err(), "it has ended");
        let account = seal_account("https://ca.test/", b"credentials", &key).expect("sealed");
        assert_eq!(open_account(&account, &key).as_deref(), Some(&b"credentials"[..]));
        assert_eq!(open_account(&account, &StoreKey::new(b"another")), None);
    }
}

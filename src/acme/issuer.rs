//! What the node that holds the lease does for one host.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use edge_config::section::acme::{Acme, Proof};
use instant_acme::Account;
use tokio::sync::Mutex;

use super::HostView;
use super::kept::{open_account, seal, seal_account};
use super::notes::{self, ACCOUNT, CERTIFICATE, CHALLENGE, CLAIM, Claim, ORDERS, Orders, Shown, State, WANTED, key};
use super::order::{OrderError, Show, known_account, new_account, order, revoke};
use super::plan::{Ours, Seen, failed, proven, text_name, unproven};
use crate::clock;
use crate::front::tls::sealed::StoreKey;
use crate::origin::group::Origins;
use crate::purge::nats::board::{Board, BoardError};

/// How long what the authority is to be shown takes to reach every node: the hub tells all of them at once.
const SPREADS_WITHIN: Duration = Duration::from_millis(300);
const HOUR_MS: u64 = 3_600_000;
/// When name servers that did not answer are asked again about a host that was proven.
const LOOK_AGAIN_MS: u64 = 30_000;
/// For how long what was issued is put to a hub that is away, and how often.
const PUT_WITHIN: Duration = Duration::from_secs(600);
const PUT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What is needed for one host.
pub struct Issuer {
    pub board: Arc<Board>,
    pub origins: Arc<Origins>,
    /// The account, and the directory it is with.
    account: Mutex<Option<(String, Account)>>,
    /// What was issued, until the hub has it.
    pending: parking_lot::Mutex<HashMap<String, notes::Held>>,
}

/// What one host is to be done for with.
pub struct Job {
    pub host: String,
    pub view: HostView,
    /// What certificates are ordered with; None: none are.
    pub ordering: Option<(Acme, Arc<StoreKey>)>,
    pub addresses: Vec<std::net::IpAddr>,
    pub claim: Option<(u64, Claim)>,
    /// It has no certificate yet.
    pub is_new: bool,
}

impl Issuer {
    pub fn new(board: Arc<Board>, origins: Arc<Origins>) -> Self {
        Self { board, origins, account: Mutex::new(None), pending: parking_lot::Mutex::default() }
    }

    /// Enters a host that nobody has claimed, or another site has.
    pub async fn claim(&self, job: Job) {
        let Some(token) = token() else { return };
        let now = clock::wall().0;
        let state = if job.proof() == Proof::Configured { State::Proven } else { State::Waiting };
        let claim = Claim { site: job.view.site.clone(), token, state, since: now, ..Claim::default() };
        let over = job.claim.map_or(0, |(revision, _)| revision);
        self.put_claim(&job.host, &claim, Some(over)).await;
    }

    /// Looks whether the name of a host leads here. Gives the claim as it is now, if it does.
    pub async fn prove(&self, job: &Job) -> Option<(u64, Claim)> {
        let (revision, claim) = job.claim.clone()?;
        let now = clock::wall().0;
        let said = match job.proof() {
            Proof::Configured => Ok("by the configuration"),
            Proof::Dns => match self.look(&job.host).await {
                Ok(seen) => {
                    let target = job.view.target.as_deref();
                    let ours = Ours { target, addresses: &job.addresses, token: &claim.token };
                    proven(&job.host, ours, &seen).map_err(|why| (why, true))
                }
                Err(why) => Err((format!("its name cannot be resolved: {why}"), false)),
            },
        };
        let next = match said {
            // Name servers that do not answer prove nothing, and disprove nothing that was proven.
            Err((why, false)) if claim.state == State::Proven => {
                let later = Claim { not_before: now + LOOK_AGAIN_MS, said: why, ..claim };
                self.put_claim(&job.host, &later, Some(revision)).await;
                return None;
            }
            Ok(how) if claim.state == State::Proven && claim.said == how => return Some((revision, claim)),
            Ok(how) => {
                let since = if claim.state == State::Proven { claim.since } else { now };
                Claim { state: State::Proven, since, said: how.to_owned(), not_before: 0, ..claim }
            }
            Err((why, _)) => unproven(claim, why, now),
        };
        let revision = self.put_claim(&job.host, &next, Some(revision)).await?;
        (next.state == State::Proven).then_some((revision, next))
    }

    async fn look(&self, host: &str) -> Result<Seen, String> {
        let resolver = self.origins.resolver.load_full();
        let texts = resolver.texts(&text_name(host)).await;
        if host.starts_with("*.") {
            return Ok(Seen { texts: texts?, ..Seen::default() });
        }
        let leads = resolver.leads(host).await?;
        // Whoever is seen by an address needs no text.
        Ok(Seen { aliases: leads.aliases, addresses: leads.addresses, texts: texts.unwrap_or_default() })
    }

    /// Orders a certificate for a host whose name still leads here. Gives how that ended, for a metric.
    pub async fn order(&self, job: &Job) -> &'static str {
        let Some((revision, claim)) = self.prove(job).await else { return "unproven" };
        let Some((acme, store_key)) = &job.ordering else { return "unproven" };
        let host = &job.host;
        if !self.may_order(acme.orders_per_hour, job.is_new).await {
            return "bounded";
        }
        tracing::info!(host, site = job.view.site, directory = acme.directory, "a certificate is ordered");
        let (next, outcome) = match self.order_now(job, acme, store_key, claim.failures).await {
            Ok(()) => {
                tracing::info!(host, site = job.view.site, "a certificate was issued");
                (Claim { failures: 0, not_before: 0, ..claim }, "issued")
            }
            Err(error) => {
                let outcome = if error.is_limited { "limited" } else { "failed" };
                let next = failed(claim, error.why, error.is_limited, clock::wall().0);
                let again_in = next.not_before.saturating_sub(clock::wall().0) / 1_000;
                tracing::error!(host, site = job.view.site, why = next.said, again_in, "no certificate was issued");
                (next, outcome)
            }
        };
        // Who revoked it meanwhile has the last word.
        self.put_claim(host, &next, Some(revision)).await;
        let _ = self.board.remove(&key(WANTED, host)).await;
        outcome
    }

    async fn order_now(&self, job: &Job, acme: &Acme, store_key: &StoreKey, attempt: u32) -> Result<(), OrderError> {
        let stored = |error: BoardError| OrderError::from_words(error);
        let unusable = |why: String| OrderError::from_words(why);
        let pending = self.pending.lock().get(&job.host).cloned();
        let held = match pending.filter(|held| held.site == job.view.site && held.directory == acme.directory) {
            Some(held) => held,
            None => {
                let account = self.account(acme, store_key).await?;
                let ordered = order(&account, &job.host, acme, attempt, self).await.inspect_err(|error| {
                    if error.is_unknown_account {
                        tracing::error!(directory = acme.directory, "the authority does not know the account any more");
                    }
                });
                if ordered.as_ref().is_err_and(|error| error.is_unknown_account) {
                    self.forget_account().await.map_err(stored)?;
                }
                let ordered = ordered?;
                let name = (job.view.site.as_str(), job.host.as_str());
                seal(name, &ordered, store_key, &acme.directory, clock::wall().0).map_err(unusable)?
            }
        };
        // It counts as ordered with the authority: a hub that is away for a while must not cost another one.
        self.pending.lock().insert(job.host.clone(), held.clone());
        let name = key(CERTIFICATE, &job.host);
        self.put_at_last(&name, notes::write(&held)).await.map_err(stored)?;
        self.pending.lock().remove(&job.host);
        // Whoever revoked it meanwhile found nothing to take back.
        let claim = self.board.ask(&key(CLAIM, &job.host)).await.map_err(stored)?;
        let claim = claim.and_then(|value| notes::read::<Claim>(&value));
        if claim.is_none_or(|claim| claim.state == State::Revoked) {
            let _ = self.board.remove(&name).await;
            if let Err(error) = self.revoke(acme, store_key, &held).await {
                tracing::warn!(host = job.host, %error, "its authority has not revoked the certificate");
            }
            return Err(unusable("it was revoked meanwhile".to_owned()));
        }
        Ok(())
    }

    /// Puts something there, however long the hub is away, within reason.
    async fn put_at_last(&self, name: &str, value: Vec<u8>) -> Result<u64, BoardError> {
        let until = clock::monotonic() + PUT_WITHIN;
        loop {
            match self.board.put(name, value.clone(), None).await {
                Err(BoardError::Away | BoardError::Unanswered(_)) if clock::monotonic() < until => {
                    tokio::time::sleep(PUT_AGAIN_AFTER).await;
                }
                put => return put,
            }
        }
    }

    /// Whether the account, if there is one, was sealed with a key.
    pub fn has_the_key(&self, store_key: &StoreKey) -> bool {
        let account = self.board.get(ACCOUNT).and_then(|note| notes::read::<notes::Account>(&note.value));
        account.is_none_or(|account| open_account(&account, store_key).is_some())
    }

    /// Has another account made for the next order.
    ///
    /// # Errors
    /// The one there is stays.
    pub async fn forget_account(&self) -> Result<(), BoardError> {
        *self.account.lock().await = None;
        self.board.remove(ACCOUNT).await
    }

    /// The account that all nodes share; it is made when there is none.
    async fn account(&self, acme: &Acme, store_key: &StoreKey) -> Result<Account, OrderError> {
        let error = |why: &str| OrderError::from_words(why);
        let mut known = self.account.lock().await;
        if let Some((directory, account)) = known.as_ref().filter(|(directory, _)| *directory == acme.directory) {
            tracing::trace!(directory, "the account is known");
            return Ok(account.clone());
        }
        let note = self.board.get(ACCOUNT);
        let shared = note.as_ref().and_then(|note| notes::read::<notes::Account>(&note.value));
        let account = match shared.filter(|shared| shared.directory == acme.directory) {
            Some(shared) => {
                let credentials = open_account(&shared, store_key);
                let credentials =
                    credentials.ok_or_else(|| error("the account was sealed with another `store_key`"))?;
                known_account(acme, &credentials).await?
            }
            None => {
                let (account, credentials) = new_account(acme).await?;
                let sealed = seal_account(&acme.directory, &credentials, store_key);
                let sealed = sealed.ok_or_else(|| error("there are no random numbers"))?;
                // It is this node's whatever becomes of the note: authorities bound how many there are.
                *known = Some((acme.directory.clone(), account.clone()));
                self.put_at_last(ACCOUNT, notes::write(&sealed)).await.map_err(OrderError::from_words)?;
                tracing::info!(directory = acme.directory, "there is an account with the authority");
                account
            }
        };
        *known = Some((acme.directory.clone(), account.clone()));
        Ok(account)
    }

    /// Tells the authority that a certificate is not to be trusted any more.
    ///
    /// # Errors
    /// It does not know it.
    pub async fn revoke(&self, acme: &Acme, store_key: &StoreKey, held: &notes::Held) -> Result<(), OrderError> {
        let account = self.account(acme, store_key).await?;
        match held.chain().and_then(|chain| chain.into_iter().next()) {
            Some(leaf) => revoke(&account, &leaf).await,
            None => Ok(()),
        }
    }

    /// Whether there were as many orders in this hour as there may be; for hosts that have no certificate a part of them is left.
    pub fn is_full(&self, most: u32, is_new: bool) -> bool {
        let known = self.board.get(ORDERS).and_then(|note| notes::read::<Orders>(&note.value)).unwrap_or_default();
        is_full(known, clock::wall().0 / HOUR_MS, most, is_new)
    }

    /// Counts an order, of all nodes, unless there were as many as there may be in this hour.
    async fn may_order(&self, most: u32, is_new: bool) -> bool {
        let hour = clock::wall().0 / HOUR_MS;
        for _ in 0..8 {
            let note = self.board.get(ORDERS);
            let known = note.as_ref().and_then(|note| notes::read::<Orders>(&note.value)).unwrap_or_default();
            if is_full(known, hour, most, is_new) {
                return false;
            }
            let over = note.map_or(0, |note| note.revision);
            let count = if known.hour == hour { known.count } else { 0 };
            let counted = Orders { hour, count: count + 1 };
            match self.board.put(ORDERS, notes::write(&counted), Some(over)).await {
                Ok(_) => return true,
                // Another order of this node.
                Err(BoardError::Outdated) => tokio::time::sleep(SPREADS_WITHIN).await,
                Err(_) => return false,
            }
        }
        false
    }

    async fn put_claim(&self, host: &str, claim: &Claim, over: Option<u64>) -> Option<u64> {
        match self.board.put(&key(CLAIM, host), notes::write(claim), over).await {
            Ok(revision) => Some(revision),
            // Another node, or the operator, was faster: what they say is looked at next.
            Err(BoardError::Outdated) => None,
            Err(error) => {
                tracing::warn!(host, %error, "what is known of a host cannot be shared");
                None
            }
        }
    }
}

/// A fifth of the orders of an hour is for renewals.
fn is_full(known: Orders, hour: u64, most: u32, is_new: bool) -> bool {
    let most = if is_new { most - most / 5 } else { most };
    known.hour == hour && known.count >= most
}

impl Job {
    /// What has to be seen of the host.
    fn proof(&self) -> Proof {
        self.ordering.as_ref().map(|(acme, _)| acme.proof).unwrap_or_default()
    }
}

#[async_trait]
impl Show for Issuer {
    async fn show(&self, host: &str, token: &str, key_authorization: &str) -> Result<(), String> {
        let (token, key_authorization) = (token.to_owned(), key_authorization.to_owned());
        let shown = Shown { token, key_authorization, at: clock::wall().0 };
        let put = self.board.put(&key(CHALLENGE, host), notes::write(&shown), None).await;
        put.map_err(|error| error.to_string())?;
        tokio::time::sleep(SPREADS_WITHIN).await;
        Ok(())
    }

    async fn hide(&self, host: &str) {
        // What stays is no answer any more after some minutes.
        let _ = self.board.remove(&key(CHALLENGE, host)).await;
    }
}

/// What a TXT record shows: 128 random bits.
fn token() -> Option<String> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).ok()?;
    Some(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewals_have_orders_of_their_own() {
        for (hour, count, most, is_new, full) in [
            (7, 0, 100, true, false),
            (7, 79, 100, true, false),
            (7, 80, 100, true, true),
            (7, 80, 100, false, false),
            (7, 100, 100, false, true),
            (6, 100, 100, true, false),
            (7, 0, 1, true, false),
            (7, 1, 1, true, true),
        ] {
            assert_eq!(
                is_full(Orders { hour, count }, 7, most, is_new),
                full,
                "{hour} {count} of {most}, new: {is_new}"
            );
        }
    }
}

//! One order: from a host to its certificate.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edge_config::section::acme::{Acme, Challenge, ExternalAccount};
use instant_acme::{
    Account, AccountBuilder, AccountCredentials, AuthorizationStatus, ChallengeHandle, ChallengeType, Error,
    ExternalAccountKey, Identifier, NewAccount, NewOrder, OrderStatus, RetryPolicy, RevocationRequest,
};
use rustls::pki_types::CertificateDer;
use tokio::process::Command;

/// How long the authority is waited for, for each of what it has to do.
const POLL: RetryPolicy = RetryPolicy::new().initial_delay(Duration::from_millis(400)).timeout(Duration::from_secs(90));
/// An order that takes longer is given up.
const ORDER_WITHIN: Duration = Duration::from_secs(240);
/// How long the hook for DNS may take.
const HOOK_WITHIN: Duration = Duration::from_secs(120);
/// What types of problems begin with (RFC 8555 section 6.7).
const PROBLEM: &str = "urn:ietf:params:acme:error:";
const ACCOUNT_WITHIN: Duration = Duration::from_secs(30);

/// Where all nodes find what the authority is to be shown.
#[async_trait]
pub trait Show: Send + Sync {
    /// Shows it. It can be seen at every node when this is done.
    ///
    /// # Errors
    /// It cannot be seen.
    async fn show(&self, host: &str, token: &str, key_authorization: &str) -> Result<(), String>;

    async fn hide(&self, host: &str);
}

/// What came of an order.
pub struct Ordered {
    /// Both PEM.
    pub chain: String,
    pub key: String,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct OrderError {
    pub why: String,
    /// The authority said that there were too many.
    pub is_limited: bool,
    /// The authority knows no such account.
    pub is_unknown_account: bool,
}

impl OrderError {
    pub fn from_words(why: impl std::fmt::Display) -> Self {
        Self { why: why.to_string(), is_limited: false, is_unknown_account: false }
    }
}

impl From<Error> for OrderError {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Api(problem) => problem.r#type.as_deref().and_then(|kind| kind.strip_prefix(PROBLEM)),
            _ => None,
        };
        let has_status = |status| matches!(&error, Error::Api(problem) if problem.status == Some(status));
        let is_limited = has_status(429) || kind == Some("rateLimited");
        let is_unknown_account = kind == Some("accountDoesNotExist");
        Self { why: error.to_string(), is_limited, is_unknown_account }
    }
}

/// Limits the time of something.
async fn within<T>(
    time: Duration,
    what: &str,
    work: impl Future<Output = Result<T, OrderError>>,
) -> Result<T, OrderError> {
    let late = |_| OrderError::from_words(format!("{what} takes longer than {} seconds", time.as_secs()));
    tokio::time::timeout(time, work).await.map_err(late)?
}

fn builder(acme: &Acme) -> Result<AccountBuilder, OrderError> {
    Ok(match &acme.ca {
        Some(ca) => Account::builder_with_root(ca)?,
        None => Account::builder()?,
    })
}

/// A new account, and what it is known by later: JSON.
///
/// # Errors
/// The authority gives none.
pub async fn new_account(acme: &Acme) -> Result<(Account, Vec<u8>), OrderError> {
    let external = acme.external_account.as_ref().map(external_key).transpose()?;
    let contact: Vec<&str> = acme.contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let builder = builder(acme)?;
    let made = async {
        let (account, credentials) = builder.create(&new, acme.directory.clone(), external.as_ref()).await?;
        let credentials = serde_json::to_vec(&credentials).map_err(OrderError::from_words)?;
        Ok((account, credentials))
    };
    within(ACCOUNT_WITHIN, "making an account", made).await
}

fn external_key(account: &ExternalAccount) -> Result<ExternalAccountKey, OrderError> {
    let text = account.key.expose().trim_end_matches('=');
    let key =
        URL_SAFE_NO_PAD.decode(text).map_err(|error| OrderError::from_words(format!("external_account: {error}")))?;
    Ok(ExternalAccountKey::new(account.key_id.clone(), &key))
}

/// The account there is.
///
/// # Errors
/// The authority does not answer, or it is none.
pub async fn known_account(acme: &Acme, credentials: &[u8]) -> Result<Account, OrderError> {
    let credentials: AccountCredentials = serde_json::from_slice(credentials).map_err(OrderError::from_words)?;
    let builder = builder(acme)?;
    within(ACCOUNT_WITHIN, "the authority's directory", async { Ok(builder.from_credentials(credentials).await?) })
        .await
}

/// Takes a certificate back, at the authority.
///
/// # Errors
/// The authority does not.
pub async fn revoke(account: &Account, certificate: &CertificateDer<'_>) -> Result<(), OrderError> {
    let request = RevocationRequest { certificate, reason: None };
    within(ACCOUNT_WITHIN, "revoking", async { Ok(account.revoke(&request).await?) }).await
}

/// Orders a certificate. `attempt`: how many failed before, each in its own way.
///
/// # Errors
/// There is none.
pub async fn order(
    account: &Account,
    host: &str,
    acme: &Acme,
    attempt: u32,
    show: &dyn Show,
) -> Result<Ordered, OrderError> {
    within(ORDER_WITHIN, "an order", order_now(account, host, acme, attempt, show)).await
}

async fn order_now(
    account: &Account,
    host: &str,
    acme: &Acme,
    attempt: u32,
    show: &dyn Show,
) -> Result<Ordered, OrderError> {
    let identifiers = [Identifier::Dns(host.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let mut shown = Vec::new();
    let authorized = authorize(&mut order, host, acme, attempt, show, &mut shown).await;
    let ordered = match authorized {
        Ok(()) => finish(&mut order).await,
        Err(error) => Err(error),
    };
    for Shown { name, value, with } in shown {
        match with {
            Challenge::Dns01 => {
                if let Err(why) = hook(acme.dns_hook.as_deref(), "remove", &name, &value).await {
                    tracing::warn!(host, why, "the record of a challenge stays");
                }
            }
            _ => show.hide(&name).await,
        }
    }
    ordered
}

/// What was shown.
struct Shown {
    name: String,
    value: String,
    with: Challenge,
}

async fn authorize(
    order: &mut instant_acme::Order,
    host: &str,
    acme: &Acme,
    attempt: u32,
    show: &dyn Show,
    shown: &mut Vec<Shown>,
) -> Result<(), OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => continue,
            other => return Err(OrderError::from_words(format!("the authorization is {other:?}"))),
        }
        let offered: Vec<ChallengeType> = authorization.challenges.iter().map(|offer| offer.r#type.clone()).collect();
        let with = choose(&acme.challenges, &offered, attempt)
            .ok_or_else(|| OrderError::from_words("the authority offers no challenge that is configured"))?;
        let Some(mut challenge) = authorization.challenge(acme_name(with)) else { continue };
        shown.push(present(&challenge, host, with, acme, show).await.map_err(OrderError::from_words)?);
        challenge.set_ready().await?;
    }
    match order.poll_ready(&POLL).await? {
        OrderStatus::Ready | OrderStatus::Valid => Ok(()),
        _ => Err(OrderError::from_words(why_invalid(order).await)),
    }
}

/// What the authority says of what it has seen.
async fn why_invalid(order: &mut instant_acme::Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        // What was read before is of the time before.
        let Ok(state) = authorization.refresh().await else { continue };
        if let Some(error) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return error.to_string();
        }
    }
    "the authority does not say why".to_owned()
}

async fn present(
    challenge: &ChallengeHandle<'_>,
    host: &str,
    with: Challenge,
    acme: &Acme,
    show: &dyn Show,
) -> Result<Shown, String> {
    let authorization = challenge.key_authorization();
    match with {
        Challenge::Dns01 => {
            let name = format!("_acme-challenge.{}", host.strip_prefix("*.").unwrap_or(host));
            let value = authorization.dns_value();
            hook(acme.dns_hook.as_deref(), "set", &name, &value).await?;
            Ok(Shown { name, value, with })
        }
        _ => {
            show.show(host, &challenge.token, authorization.as_str()).await?;
            Ok(Shown { name: host.to_owned(), value: String::new(), with })
        }
    }
}

async fn finish(order: &mut instant_acme::Order) -> Result<Ordered, OrderError> {
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&POLL).await?;
    Ok(Ordered { chain, key })
}

/// Runs the hook for DNS.
async fn hook(program: Option<&Path>, what: &str, name: &str, value: &str) -> Result<(), String> {
    let program = program.ok_or("there is no dns_hook")?;
    let mut command = Command::new(program);
    command.args([what, name, value]).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let late = |_| format!("dns_hook takes longer than {} seconds", HOOK_WITHIN.as_secs());
    let ended = tokio::time::timeout(HOOK_WITHIN, command.status()).await.map_err(late)?;
    let status = ended.map_err(|error| format!("dns_hook cannot be run: {error}"))?;
    status.success().then_some(()).ok_or_else(|| format!("dns_hook ended with {status}"))
}

fn acme_name(challenge: Challenge) -> ChallengeType {
    match challenge {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Challenge::Dns01 => ChallengeType::Dns01,
    }
}

/// The first of those configured that is offered; after a failure the next one, in turn.
fn choose(configured: &[Challenge], offered: &[ChallengeType], attempt: u32) -> Option<Challenge> {
    let possible: Vec<Challenge> =
        configured.iter().copied().filter(|challenge| offered.contains(&acme_name(*challenge))).collect();
    possible.get(attempt as usize % possible.len().max(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_tried_in_turn() {
        use Challenge::{Dns01, Http01, TlsAlpn01};
        let all = [ChallengeType::Dns01, ChallengeType::TlsAlpn01, ChallengeType::Http01];
        for (configured, offered, attempt, expected) in [
            (&[Http01, TlsAlpn01][..], &all[..], 0, Some(Http01)),
            (&[Http01, TlsAlpn01], &all, 1, Some(TlsAlpn01)),
            (&[Http01, TlsAlpn01], &all, 2, Some(Http01)),
            (&[TlsAlpn01], &all, 5, Some(TlsAlpn01)),
            (&[Http01, Dns01], &all[..1], 0, Some(Dns01)),
            (&[Http01], &all[..1], 0, None),
        ] {
            assert_eq!(choose(configured, offered, attempt), expected, "{configured:?} {attempt}");
        }
    }

    #[tokio::test]
    async fn a_hook_that_fails_says_so() {
        assert_eq!(hook(Some(Path::new("/bin/true")), "set", "a", "b").await, Ok(()));
        for (program, why) in [
            (Some("/bin/false"), "dns_hook ended with exit status: 1"),
            (Some("/nowhere"), "dns_hook cannot be run: No such file or directory (os error 2)"),
            (None, "there is no dns_hook"),
        ] {
            assert_eq!(hook(program.map(Path::new), "set", "a", "b").await, Err(why.to_owned()));
        }
    }
}

//! `[acme]`: certificates of an authority, had by ACME (RFC 8555).

use std::path::PathBuf;

use url::Url;

use super::secret::{Secret, text_or_file};
use crate::read::key::{Kind, section};
use crate::read::{Reader, Table, Value};

/// How certificates are had for the hosts of sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// The authority.
    pub directory: String,
    /// A PEM file with the authority that vouches for the directory's own address, in place of the system's.
    pub ca: Option<PathBuf>,
    /// Whom the authority writes to, as in `mailto:ops@example.net`.
    pub contact: Option<String>,
    /// What binds the account to one there was before.
    pub external_account: Option<ExternalAccount>,
    /// How it is shown that a host is ours, the preferred one first.
    pub challenges: Vec<Challenge>,
    /// A program that sets and removes TXT records.
    pub dns_hook: Option<PathBuf>,
    pub issue: Issue,
    pub proof: Proof,
    /// Orders of all nodes in an hour, at most.
    pub orders_per_hour: u32,
}

/// An account with an authority, made elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccount {
    pub key_id: String,
    /// In base64url.
    pub key: Secret,
}

/// How it is shown that a host is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    Http01,
    TlsAlpn01,
    Dns01,
}

/// When a certificate is ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Issue {
    /// As soon as its host leads here.
    #[default]
    Eager,
    /// When the first client asks for it.
    OnDemand,
}

/// What has to be seen before anything is ordered for a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// That DNS leads its clients here, or has the token of its site.
    #[default]
    Dns,
    /// Nothing: what is configured is believed.
    Configured,
}

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const ORDERS_PER_HOUR: u32 = 100;

section! {
    /// Certificates of an authority, had by ACME (RFC 8555) for every host of a site that no other certificate is for. Needs
    /// `store_key` in `tls`.
    ACME = "[acme]" {
        /// Whether you agree to the terms of the authority. Without it there is no account.
        ACCEPT_TERMS = "accept_terms": Kind::Boolean, "false";
        /// The directory of the authority.
        DIRECTORY = "directory": Kind::Text("a URL"), "https://acme-v02.api.letsencrypt.org/directory";
        /// A PEM file with the authority that vouches for the address of the directory, in place of the system's.
        CA = "ca": Kind::Text("a file");
        /// The address of mail that the authority may write to.
        CONTACT = "contact": Kind::Text("an address of mail");
        /// What binds the account to one that was made elsewhere, where the authority asks for that.
        EXTERNAL_ACCOUNT = "external_account": Kind::Table(&EXTERNAL);
        /// How it is shown that a host is ours, the preferred way first. "http-01" is answered on port 80 and "tls-alpn-01" on
        /// port 443, both by any node; "dns-01" needs `dns_hook`, and is the only way for names as in "*.example.com".
        CHALLENGES = "challenges": Kind::Many(&Kind::Choice(&["http-01", "tls-alpn-01", "dns-01"])), "[\"http-01\", \"tls-alpn-01\"]";
        /// A program that is run as `PROGRAM set NAME VALUE` before a challenge of "dns-01", and ends with 0 when the TXT record
        /// can be seen; and as `PROGRAM remove NAME VALUE` after it. It has two minutes.
        DNS_HOOK = "dns_hook": Kind::Text("a file");
        /// When a certificate is ordered: "eager" as soon as its host leads here, "on-demand" when the first client asks for it,
        /// which waits for it. Renewals are ordered at two thirds of a certificate's life.
        ISSUE = "issue": Kind::Choice(&["eager", "on-demand"]), "eager";
        /// What has to be seen before anything is ordered for a host: "dns" that its name leads here (a CNAME to the site's name in
        /// `zone` of `dns`, or addresses of ours alone) or has the site's token in a TXT record; "configured" nothing.
        PROOF = "proof": Kind::Choice(&["dns", "configured"]), "dns";
        /// Orders of all nodes in an hour, at most: authorities have limits of their own.
        ORDERS_PER_HOUR_KEY = "orders_per_hour": Kind::Integer(1, 100_000), "100";
    }
}

section! {
    /// What binds an account to one that was made elsewhere (RFC 8555 section 7.3.4).
    EXTERNAL = "an external account" {
        /// The name of its key.
        KEY_ID = "key_id": Kind::Text("a text");
        /// The key in base64url; or { file = "..." } with it.
        EXTERNAL_KEY = "key": Kind::Text("a text, or { file = \"...\" }");
    }
}

impl Acme {
    /// `has_store_key`: private keys can be sealed. `leads_here`: it is known where names are to lead.
    pub(crate) fn read(
        table: Option<Table<'_>>,
        reader: &mut Reader,
        has_store_key: bool,
        leads_here: bool,
    ) -> Option<Self> {
        let table = table?;
        let named =
            [("http-01", Challenge::Http01), ("tls-alpn-01", Challenge::TlsAlpn01), ("dns-01", Challenge::Dns01)];
        let challenge = |reader: &mut Reader, value: Value<'_>| reader.choice(&CHALLENGES, value, &named);
        let mut challenges = table.many(reader, &CHALLENGES, challenge);
        if challenges.is_empty() {
            challenges = vec![Challenge::Http01, Challenge::TlsAlpn01];
        }
        let dns_hook = table.file(reader, &DNS_HOOK).map(|(path, _)| path);
        let needs_hook = challenges.contains(&Challenge::Dns01) && table.value(&DNS_HOOK).is_none();
        if let Some(value) = table.value(&CHALLENGES).filter(|_| needs_hook) {
            let help = DNS_HOOK.summary();
            reader.wrong(&value.span(), "\"dns-01\" without `dns_hook`", "nobody sets the record", help);
        }
        let issue = [("eager", Issue::Eager), ("on-demand", Issue::OnDemand)];
        let proof = [("dns", Proof::Dns), ("configured", Proof::Configured)];
        let acme = Self {
            directory: directory(&table, reader),
            ca: table.required_if_there(reader, &CA, "BEGIN CERTIFICATE"),
            contact: contact(&table, reader),
            external_account: external(&table, reader),
            challenges,
            dns_hook,
            issue: table.choice(reader, &ISSUE, &issue).unwrap_or_default(),
            proof: table.choice(reader, &PROOF, &proof).unwrap_or_default(),
            orders_per_hour: table.integer(reader, &ORDERS_PER_HOUR_KEY, 1..=100_000).unwrap_or(ORDERS_PER_HOUR),
        };
        let place = table.span();
        if table.boolean(reader, &ACCEPT_TERMS) != Some(true) {
            let help = "read the terms of the authority and say accept_terms = true, or leave [acme] out";
            reader.wrong(&place, "[acme] without `accept_terms`", "no account", help);
        }
        if !has_store_key {
            let help =
                "add `store_key` to [tls], the same on all nodes; make it with: head -c 32 /dev/urandom > store.key";
            reader.wrong(&place, "[acme] without `store_key` in [tls]", "private keys cannot be kept", help);
        }
        if acme.proof == Proof::Dns && !leads_here {
            let help = "say in [dns] or [pop.NAME] where names of hosts are to lead, or proof = \"configured\" to order \
                        certificates for whatever host is configured";
            reader.wrong(&place, "[acme] without [dns] or [pop.NAME]", "whose name leads here cannot be seen", help);
        }
        table.finish(reader);
        Some(acme)
    }
}

fn directory(table: &Table<'_>, reader: &mut Reader) -> String {
    let Some(at) = table.parsed::<String>(reader, &DIRECTORY) else { return LETS_ENCRYPT.to_owned() };
    let is_good = Url::parse(&at.value).is_ok_and(|url| url.scheme() == "https" && url.has_host());
    if !is_good {
        let message = format!("\"{}\" is no directory of an authority", at.value);
        reader.wrong(&at.span, message, "expected https://...", DIRECTORY.summary());
    }
    at.value
}

fn contact(table: &Table<'_>, reader: &mut Reader) -> Option<String> {
    let at = table.parsed::<String>(reader, &CONTACT)?;
    let address = at.value.strip_prefix("mailto:").unwrap_or(&at.value);
    let is_good = address.split_once('@').is_some_and(|(who, host)| !who.is_empty() && host.contains('.'))
        && address.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',' && byte != b'?');
    if !is_good {
        let message = format!("\"{}\" is no address of mail", at.value);
        reader.wrong(&at.span, message, "expected one as in ops@example.net", CONTACT.summary());
    }
    Some(format!("mailto:{address}"))
}

fn external(table: &Table<'_>, reader: &mut Reader) -> Option<ExternalAccount> {
    let table = table.table(reader, &EXTERNAL_ACCOUNT, &EXTERNAL)?;
    let key_id = table.parsed::<String>(reader, &KEY_ID).map(|at| at.value);
    let key = table.value(&EXTERNAL_KEY).and_then(|value| text_or_file(reader, &EXTERNAL_KEY, value));
    table.required(reader, &KEY_ID, false);
    table.required(reader, &EXTERNAL_KEY, false);
    table.finish(reader);
    Some(ExternalAccount { key_id: key_id?, key: key? })
}

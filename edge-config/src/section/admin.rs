//! `[admin]`: where the operator connects, and who may do what there.

use std::net::SocketAddr;

use super::listener::Address;
use crate::read::key::{Key, Kind, section};
use crate::read::{At, Reader, Table, Value};

section! {
    /// The operator's side: metrics, health, reload, purge.
    ADMIN = "[admin]" {
        /// Where it listens. Without tokens whoever connects there can do everything: keep it off public networks.
        ADMIN_LISTEN = "listen": Kind::Text("address and port"), "127.0.0.1:9900";
        /// Who may do what. With any, /v1/ and /metrics want one of them in Authorization: Bearer; without, they ask nobody.
        TOKENS = "tokens": Kind::Many(&Kind::Table(&TOKEN));
    }
}

section! {
    /// Somebody who may do something. `littoral token` makes one.
    TOKEN = "a token" {
        /// What it is called in the log of purges.
        NAME = "name": Kind::Text("a name");
        /// The BLAKE3 digest of the token, in hexadecimal digits.
        HASH = "hash": Kind::Text("64 hexadecimal digits");
        /// The sites it is for; "*": all of them, and everything at once.
        TOKEN_SITES = "sites": Kind::Many(&Kind::Text("a site's name or *"));
        /// What it may do: "purge", "explain", "observe": statistics and metrics of its sites; "certificates": those of its
        /// sites; "operate": stat, reload, drain, and draining origins of its sites; and "configure": change what the hub has
        /// for all nodes, the rules of its sites alone where it is not for all of them.
        VERBS = "verbs": Kind::Many(&Kind::Choice(&["purge", "explain", "observe", "certificates", "operate", "configure"]));
    }
}

/// Who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub name: String,
    pub hash: [u8; 32],
    /// The sites it is for; `*` for all.
    pub sites: Vec<String>,
    pub verbs: Vec<Verb>,
}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Purge,
    Explain,
    Observe,
    Certificates,
    Operate,
    Configure,
}

/// Where the operator connects, and who may do what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admin {
    pub listen: Option<At<SocketAddr>>,
    pub tokens: Vec<Token>,
    /// The names of sites in tokens, to be looked for when all sites are known.
    pub sites: Vec<At<String>>,
}

/// Where the operator connects, if nothing else is said.
pub fn default_admin() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9900))
}

pub(crate) fn read(table: Option<Table<'_>>, reader: &mut Reader) -> Admin {
    let Some(table) = table else { return Admin::default() };
    let listen = table.parsed::<Address>(reader, &ADMIN_LISTEN);
    let mut sites = Vec::new();
    let tokens = table.many(reader, &TOKENS, |reader, value| Token::read(reader, &TOKENS, value, &mut sites));
    table.finish(reader);
    Admin { listen: listen.map(|listen| listen.map(|address| address.0)), tokens, sites }
}

impl Token {
    fn read(reader: &mut Reader, key: &Key, value: Value<'_>, all: &mut Vec<At<String>>) -> Option<Self> {
        let table = reader.as_table(key, &TOKEN, "a token".into(), value)?;
        let name = table.parsed::<String>(reader, &NAME);
        table.required(reader, &NAME, name.is_none());
        let text = table.parsed::<String>(reader, &HASH);
        table.required(reader, &HASH, text.is_none());
        let hash = text.as_ref().and_then(|text| digest(&text.value));
        if let Some(text) = text.as_ref().filter(|_| hash.is_none()) {
            let help = "`littoral token` prints a token and its hash; the token itself is not for the file";
            reader.wrong(&text.span, "`hash` is no BLAKE3 digest", "expected 64 hexadecimal digits", help);
        }
        let sites = table.many(reader, &TOKEN_SITES, |reader, value| reader.parse::<String>(&TOKEN_SITES, value));
        table.required(reader, &TOKEN_SITES, sites.is_empty());
        let verbs = [
            ("purge", Verb::Purge),
            ("explain", Verb::Explain),
            ("observe", Verb::Observe),
            ("certificates", Verb::Certificates),
            ("operate", Verb::Operate),
            ("configure", Verb::Configure),
        ];
        let verbs = table.many(reader, &VERBS, |reader, value| reader.choice(&VERBS, value, &verbs));
        table.required(reader, &VERBS, verbs.is_empty());
        table.finish(reader);
        all.extend(sites.iter().filter(|site| site.value != "*").cloned());
        let sites = sites.into_iter().map(|site| site.value).collect();
        Some(Self { name: name?.value, hash: hash?, sites, verbs })
    }
}

impl Admin {
    /// The tokens alone, where a table has nothing else.
    pub(crate) fn read_tokens(table: &Table<'_>, reader: &mut Reader) -> Vec<Token> {
        table.many(reader, &TOKENS, |reader, value| Token::read(reader, &TOKENS, value, &mut Vec::new()))
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

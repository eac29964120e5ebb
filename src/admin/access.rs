//! Who may do what on the admin API.

use edge_config::section::admin::{Token, Verb};

use crate::purge::record::EVERY_SITE;

/// Everybody who may do something.
#[derive(Clone, Debug, Default)]
pub struct Access(Vec<Token>);

/// Who asks, and for which sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub name: String,
    /// None: all of them, and everything at once.
    sites: Option<Vec<String>>,
}

/// How much somebody is told of what is wrong with a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    Everything,
    /// What is wrong with their own site: nothing by which they could know of another one, or of the node.
    OwnSite,
}

/// Why somebody may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No token, or none that is known.
    Unknown,
    /// The token is for something else.
    Verb,
}

impl Access {
    pub fn new(tokens: Vec<Token>) -> Self {
        Self(tokens)
    }

    /// Who asks with this `Authorization`, if they may. Without tokens everybody may everything.
    ///
    /// # Errors
    /// They may not.
    pub fn caller(&self, authorization: Option<&[u8]>, verb: Verb) -> Result<Caller, Denied> {
        if self.0.is_empty() {
            return Ok(Caller { name: "admin".into(), sites: None });
        }
        let given = authorization.and_then(bearer).ok_or(Denied::Unknown)?;
        let given = blake3::hash(given);
        // Every token is compared, each in constant time: how long it takes tells nothing.
        let known = self
            .0
            .iter()
            .fold(None, |found, token| if given == blake3::Hash::from_bytes(token.hash) { Some(token) } else { found });
        let token = known.ok_or(Denied::Unknown)?;
        if !token.verbs.contains(&verb) {
            return Err(Denied::Verb);
        }
        let all = token.sites.iter().any(|site| site == EVERY_SITE);
        Ok(Caller { name: token.name.clone(), sites: (!all).then(|| token.sites.clone()) })
    }
}

impl Caller {
    pub fn may(&self, site: &str) -> bool {
        self.sites.as_ref().is_none_or(|sites| sites.iter().any(|known| known == site))
    }

    pub fn may_everything(&self) -> bool {
        self.sites.is_none()
    }

    pub fn detail(&self) -> Detail {
        if self.may_everything() { Detail::Everything } else { Detail::OwnSite }
    }

    /// The site meant by who names none, if there is only one.
    pub fn only_site(&self) -> Option<&str> {
        match self.sites.as_deref() {
            Some([site]) => Some(site),
            _ => None,
        }
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_for_sites_and_verbs() {
        let token = |name: &str, secret: &str, sites: &[&str], verbs: &[Verb]| Token {
            name: name.into(),
            hash: *blake3::hash(secret.as_bytes()).as_bytes(),
            sites: sites.iter().map(|site| (*site).to_owned()).collect(),
            verbs: verbs.to_vec(),
        };
        let access = Access::new(vec![
            token("shop-ci", "one", &["shop"], &[Verb::Purge]),
            token("operator", "two", &["*"], &[Verb::Purge, Verb::Operate]),
        ]);
        let caller = |authorization: Option<&str>, verb| access.caller(authorization.map(str::as_bytes), verb);
        let shop = caller(Some("Bearer one"), Verb::Purge).expect("it may");
        assert!(shop.may("shop") && !shop.may("other") && !shop.may_everything());
        assert_eq!(shop.only_site(), Some("shop"));
        let operator = caller(Some("bearer  two "), Verb::Operate).expect("it may");
        assert!(operator.may("other") && operator.may_everything());
        for (authorization, verb, expected) in [
            (None, Verb::Purge, Denied::Unknown),
            (Some("Bearer three"), Verb::Purge, Denied::Unknown),
            (Some("Basic one"), Verb::Purge, Denied::Unknown),
            (Some("Bearer "), Verb::Purge, Denied::Unknown),
            (Some("Bearer one"), Verb::Operate, Denied::Verb),
            (Some("Bearer two"), Verb::Explain, Denied::Verb),
        ] {
            assert_eq!(caller(authorization, verb), Err(expected), "{authorization:?} {verb:?}");
        }
        let open = Access::default().caller(None, Verb::Operate).expect("nobody is asked");
        assert!(open.may_everything());
    }
}

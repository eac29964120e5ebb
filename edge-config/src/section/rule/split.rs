//! `group` and `group_by`: which group of origins is asked, and which client gets which of several.

use std::str::FromStr;

use super::{GROUP, GROUP_BY};
use crate::read::{Reader, Table, Value};
use crate::section::balance::HashBy;
use crate::section::named_group::OWN;

/// Groups by weight, each client always the same one. At least one has a weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    pub shares: Vec<Share>,
    pub by: StickyBy,
}

/// A group and its part of the clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The name of a group of the site, or [`OWN`] for the site's own origins.
    pub group: String,
    pub weight: u32,
}

/// What makes a client the same one from request to request. One without the field or the cookie goes by its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StickyBy {
    /// An IPv6 address by its /64: clients change theirs within it.
    #[default]
    Address,
    Cookie(String),
    /// In lower case.
    Header(String),
}

/// A text that tells no clients apart.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" does not tell clients apart: expected address, cookie NAME or header NAME")]
pub struct StickyError(String);

impl FromStr for StickyBy {
    type Err = StickyError;

    fn from_str(text: &str) -> Result<Self, StickyError> {
        match text.parse() {
            Ok(HashBy::Address) => Ok(Self::Address),
            Ok(HashBy::Cookie(name)) => Ok(Self::Cookie(name)),
            Ok(HashBy::Header(name)) => Ok(Self::Header(name)),
            Ok(HashBy::Url) | Err(_) => Err(StickyError(text.into())),
        }
    }
}

impl Split {
    pub(super) fn read(table: &Table<'_>, reader: &mut Reader) -> Option<Self> {
        let by = table.parsed::<StickyBy>(reader, &GROUP_BY).map(|by| by.value).unwrap_or_default();
        let value = table.value(&GROUP);
        let entries = value.and_then(Value::entries);
        if let (Some(by), None) = (table.value(&GROUP_BY), &entries) {
            let message = "`group_by` without several groups: there is nothing to choose";
            reader.wrong(&by.span(), message, "has no effect", GROUP.summary());
        }
        let value = value?;
        let Some(entries) = entries else {
            let group = reader.parse::<String>(&GROUP, value)?;
            return is_known(reader, &group.value, &group.span)
                .then(|| Self { shares: vec![Share { group: group.value, weight: 1 }], by });
        };
        let mut shares = Vec::with_capacity(entries.len());
        for (name, weight) in entries {
            let known = is_known(reader, name.value, &name.span);
            let number = weight.as_integer().and_then(|number| u32::try_from(number).ok()).filter(|n| *n <= WEIGHT_MAX);
            if number.is_none() {
                let message = format!("the weight of `{}` is not a whole number from 0 to {WEIGHT_MAX}", name.value);
                reader.wrong(&weight.span(), message, "expected a weight", GROUP.summary());
            }
            if let Some(weight) = number.filter(|_| known) {
                shares.push(Share { group: name.value.to_owned(), weight });
            }
        }
        if shares.iter().all(|share| share.weight == 0) {
            let message = "no group in `group` has a weight: nobody would be asked";
            reader.wrong(&value.span(), message, "expected a weight above 0", GROUP.summary());
            return None;
        }
        Some(Self { shares, by })
    }
}

const WEIGHT_MAX: u32 = 1_000_000;

/// Whether the site has a group; that it has not is recorded.
pub(super) fn is_known(reader: &mut Reader, name: &str, span: &std::ops::Range<usize>) -> bool {
    if name == OWN || reader.known.groups.iter().any(|known| known == name) {
        return true;
    }
    let help = match reader.known.groups.as_slice() {
        [] => format!("the site has no groups: add [site.NAME.group.{name}] with `origins`"),
        groups => format!("the site has: {}; and \"{OWN}\" are its own", groups.join(", ")),
    };
    reader.wrong(span, format_args!("the site has no group `{name}`"), "not known", help);
    false
}

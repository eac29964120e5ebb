//! `[site.*.group.*]`: origins of a site besides its own, for what a rule sends there.

use super::balance::{Balance, Crowd, slow_start};
use super::group::{Group, Member};
use super::health::{EJECT, Eject, HEALTH, Health};
use super::origin::{OriginTimeouts, TIMEOUTS};
use super::retry::{RETRY, Retry};
use super::site::{
    BALANCE, GROUPS, HASH, MAX_REQUESTS, ORIGIN_LIST, QUEUE, QUEUE_WAIT, SITE_EJECT, SITE_HEALTH, SITE_RETRY,
    SITE_STICKY, SITE_TIMEOUTS, SLOW_START,
};
use super::sticky::{STICKY, Sticky};
use crate::read::key::Section;
use crate::read::{Reader, Table};

/// A group and what rules call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedGroup {
    pub name: String,
    pub group: Group,
}

/// What rules call the site's own origins. No group has this name.
pub const OWN: &str = "origins";

/// The same keys as those of a site that are about origins, with the same defaults: nothing is taken over from the site.
pub(crate) static GROUP_KEYS: Section = Section {
    title: "[site.NAME.group.NAME]",
    doc: "Origins of a site besides its own, for what `group` and `mirror` of its rules send there. The keys are those of \
          the site, with the same defaults: nothing is taken over from it.",
    keys: &[
        &ORIGIN_LIST,
        &BALANCE,
        &HASH,
        &SLOW_START,
        &MAX_REQUESTS,
        &QUEUE,
        &QUEUE_WAIT,
        &SITE_HEALTH,
        &SITE_EJECT,
        &SITE_RETRY,
        &SITE_TIMEOUTS,
        &SITE_STICKY,
    ],
};

impl Group {
    /// The origins that a table has, of a site or of a group.
    pub(crate) fn read(table: &Table<'_>, reader: &mut Reader) -> Self {
        let timeouts = table.table(reader, &SITE_TIMEOUTS, &TIMEOUTS);
        let timeouts = OriginTimeouts::read(timeouts, reader, OriginTimeouts::default());
        let member = |reader: &mut Reader, value| Member::read(reader, &ORIGIN_LIST, value, timeouts);
        let members = table.many(reader, &ORIGIN_LIST, member);
        table.required(reader, &ORIGIN_LIST, members.is_empty());
        let retry = table.table(reader, &SITE_RETRY, &RETRY);
        let health = table.table(reader, &SITE_HEALTH, &HEALTH).map(|table| Health::read(table, reader, &members));
        let crowd = Crowd::read(table, reader, &members);
        let sticky = table.table(reader, &SITE_STICKY, &STICKY).and_then(|table| Sticky::read(table, reader));
        check_cookie(sticky.as_ref(), table, reader);
        Self {
            members,
            balance: Balance::read(table, reader),
            slow_start: slow_start(table, reader),
            crowd,
            health,
            eject: match table.value(&SITE_EJECT) {
                None => Some(Eject::default()),
                Some(value) if value.as_bool() == Some(false) => None,
                Some(_) => table.table(reader, &SITE_EJECT, &EJECT).map(|table| Eject::read(table, reader)),
            },
            retry: Retry::read(retry, reader),
            sticky,
        }
    }
}

/// Each group of a site has a cookie of its own: with one for two, each would take the other's for forged.
fn check_cookie(sticky: Option<&Sticky>, table: &Table<'_>, reader: &mut Reader) {
    let Some(name) = sticky.and_then(Sticky::cookie) else { return };
    if reader.known.cookies.iter().any(|known| known == name)
        && let Some(value) = table.value(&SITE_STICKY)
    {
        let message = format!("two groups of the site have sessions by the cookie \"{name}\"");
        reader.wrong(&value.span(), message, "the second of them", "give each group a cookie of its own");
    }
    reader.known.cookies.push(name.to_owned());
}

impl NamedGroup {
    /// The groups of a site. Rules that are read afterwards know them.
    pub(crate) fn read_all(site: &str, table: &Table<'_>, reader: &mut Reader) -> Vec<Self> {
        reader.known.groups.clear();
        let Some(value) = table.value(&GROUPS) else { return Vec::new() };
        let Some(entries) = value.entries() else {
            reader.wrong_kind(&GROUPS, value, "tables as in [site.NAME.group.NAME]");
            return Vec::new();
        };
        let mut groups = Vec::with_capacity(entries.len());
        for (name, value) in entries {
            let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.value.is_empty() || name.value.len() > 64 || !name.value.bytes().all(valid) {
                let help = "at most 64 letters, digits, hyphens, underscores and dots: it is a label of the metrics";
                let message = format!("\"{}\" cannot be the name of a group", name.value);
                reader.wrong(&name.span, message, "this name", help);
            }
            if name.value == OWN {
                let message = format!("a group cannot be called \"{OWN}\"");
                reader.wrong(&name.span, message, "this name", "rules call the site's own origins so");
            }
            let title = format!("[site.{site}.group.{}]", name.value);
            // Also when something is wrong with it, a rule is right to name it.
            reader.known.groups.push(name.value.to_owned());
            let Some(table) = reader.as_table(&GROUPS, &GROUP_KEYS, title, value) else { continue };
            groups.push(Self { name: name.value.to_owned(), group: Group::read(&table, reader) });
            table.finish(reader);
        }
        groups
    }
}

//! `mirror`: copies of requests for a group that nobody waits for.

use super::MIRROR;
use super::split::is_known;
use crate::read::key::{Kind, section};
use crate::read::{Reader, Table};
use crate::units::{ByteSize, Percent};

/// What a rule says about copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mirroring {
    /// There are none.
    Off,
    To(Mirror),
}

/// Who gets copies, and of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The name of a group of the site.
    pub group: String,
    /// Of the requests, by chance. Default 100%.
    pub share: Percent,
    /// A request with a longer body is not copied. Default 64KiB, at most 1MiB.
    pub body_max: ByteSize,
    /// Copies under way at a time. Default 100.
    pub max_requests: u32,
}

section! {
    /// Copies of requests: those of hits too, with their bodies. The answers are read and dropped.
    MIRROR_KEYS = "mirror" {
        /// The group that gets them.
        MIRROR_GROUP = "group": Kind::Text("the name of a group");
        /// A part of the requests, by chance.
        MIRROR_SHARE = "share": Kind::Percent, "100%";
        /// A request with a longer body is not copied, and counted. At most 1MiB.
        BODY_MAX = "body_max": Kind::Size, "64KiB";
        /// Copies under way at a time. What is more is not sent, and counted.
        MIRROR_REQUESTS = "max_requests": Kind::Integer(1, 10_000), "100";
    }
}

/// What is held of a body until it is complete, for each request under way.
const BODY_MAX_MAX: ByteSize = ByteSize::mib(1);

impl Mirroring {
    pub(super) fn read(table: &Table<'_>, reader: &mut Reader) -> Option<Self> {
        if table.value(&MIRROR)?.as_bool() == Some(false) {
            return Some(Self::Off);
        }
        let table = table.table(reader, &MIRROR, &MIRROR_KEYS)?;
        if table.value(&MIRROR_GROUP).is_none() {
            reader.wrong(&table.span, "`mirror` has no `group`", "`group` is missing", MIRROR_GROUP.summary());
        }
        let group = table.parsed::<String>(reader, &MIRROR_GROUP);
        let known = group.filter(|group| is_known(reader, &group.value, &group.span));
        let body_max = table.parsed::<ByteSize>(reader, &BODY_MAX);
        if let Some(size) = body_max.as_ref().filter(|size| size.value > BODY_MAX_MAX) {
            let message = format!("`body_max` is {}, expected at most {BODY_MAX_MAX}", size.value);
            reader.wrong(&size.span, message, "too large", BODY_MAX.summary());
        }
        let share = table.parsed::<Percent>(reader, &MIRROR_SHARE);
        if let Some(share) = share.as_ref().filter(|share| share.value.get() == 0) {
            let help = "say `mirror = false`, or leave it out";
            reader.wrong(
                &share.span,
                "`share` of `mirror` is 0%: nothing would be sent",
                "expected more than 0%",
                help,
            );
        }
        let max_requests = table.integer(reader, &MIRROR_REQUESTS, 1..=10_000);
        table.finish(reader);
        Some(Self::To(Mirror {
            group: known?.value,
            share: share?.value,
            body_max: body_max?.value,
            max_requests: max_requests?,
        }))
    }
}

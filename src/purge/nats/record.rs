//! Records as the hub has them.

use ulid::Ulid;

use crate::purge::record::{EVERY_SITE, Kind, PurgeMode, PurgeRecord, Selector};
use crate::semantics::time::UnixMs;

/// The field of a record that says whom to tell when it is applied.
pub const TELL: &str = "Littoral-Tell";

/// Reads a record. One that cannot be read may name anything: it purges everything, and is known by a digest.
pub fn read(text: &[u8]) -> PurgeRecord {
    match serde_json::from_slice::<PurgeRecord>(text) {
        Ok(record) if record.v == PurgeRecord::FORM => record,
        _ => {
            tracing::error!(bytes = text.len(), "a record of the purge log cannot be read: everything is purged");
            let digest = blake3::hash(text);
            let mut half = [0; 16];
            half.copy_from_slice(&digest.as_bytes()[..16]);
            let everything = Selector::new(EVERY_SITE, Kind::Everything, "");
            let id = Ulid(u128::from_le_bytes(half));
            PurgeRecord::new(id, UnixMs(id.timestamp_ms()), vec![everything], PurgeMode::Delete, "unreadable")
        }
    }
}

/// A record that purges nothing.
pub fn nothing(id: Ulid, at: UnixMs) -> PurgeRecord {
    PurgeRecord::new(id, at, Vec::new(), PurgeMode::Delete, "littoral")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_purges_everything() {
        let record = nothing(Ulid::from(7_u128), UnixMs(3));
        let text = serde_json::to_vec(&record).expect("it can be written");
        assert_eq!(read(&text), record);
        let later = String::from_utf8(text).expect("text").replace("\"v\":1", "\"v\":2");
        for text in [later.as_bytes(), b"", b"{}", b"\xff"] {
            let read = read(text);
            assert_eq!(read.selectors, [Selector::new(EVERY_SITE, Kind::Everything, "")]);
            assert_eq!(super::read(text).id, read.id, "it has the same id each time");
        }
    }
}

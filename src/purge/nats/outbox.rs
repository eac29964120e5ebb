//! The purges that were asked for on this node: on its disk before they are acknowledged, until the hub has surely kept them.
//!
//! A hub may write what it has acknowledged minutes later. When its log is lost, those who asked for the purges of the last ten
//! minutes send them again, with the same ids.

use std::collections::BTreeMap;
use std::time::Duration;

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use ulid::Ulid;

use super::verify::Known;
use crate::purge::kept::storage;
use crate::purge::log::LogError;
use crate::purge::record::PurgeRecord;

/// By id: the number in the log (zero: not acknowledged), when it was asked for, and the record as JSON.
const OUTBOX: TableDefinition<'_, u128, (u64, u64, &[u8])> = TableDefinition::new("outbox");
/// Where each record is in the log, by its id: the position.
const PLACES: TableDefinition<'_, u128, u64> = TableDefinition::new("places");
/// The log that is followed: [`CREATED`].
const FOLLOWED: TableDefinition<'_, &str, u64> = TableDefinition::new("followed");
const CREATED: &str = "created";

/// Purges that the hub has not acknowledged, by id, the oldest first.
pub type Pending = BTreeMap<Ulid, PurgeRecord>;

/// How long an acknowledged purge is kept to be sent again.
const KEPT: Duration = Duration::from_secs(600);
/// Purges that wait for the hub, at most: more are refused. At 2,000 a second it is full after two minutes without a hub.
pub const PENDING_MAX: usize = 250_000;
/// Places kept, as many as records.
const PLACES_MAX: u64 = 500_000;

/// Makes the tables.
pub fn begin(transaction: &WriteTransaction) -> Result<(), LogError> {
    transaction.open_table(OUTBOX).map_err(storage)?;
    transaction.open_table(PLACES).map_err(storage)?;
    transaction.open_table(FOLLOWED).map_err(storage)?;
    Ok(())
}

/// Enters purges that were asked for.
///
/// # Errors
/// It cannot be written.
pub fn enter(transaction: &WriteTransaction, records: &[PurgeRecord]) -> Result<(), LogError> {
    if records.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(OUTBOX).map_err(storage)?;
    for record in records {
        let text = serde_json::to_vec(record)?;
        table.insert(record.id.0, (0, record.at, text.as_slice())).map_err(storage)?;
    }
    Ok(())
}

/// Notes what the hub has acknowledged.
pub fn acknowledge(transaction: &WriteTransaction, acknowledged: &[(Ulid, u64)]) -> Result<(), LogError> {
    if acknowledged.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(OUTBOX).map_err(storage)?;
    for (id, seq) in acknowledged {
        let Some((at, text)) = table.get(id.0).map_err(storage)?.map(|row| {
            let (_, at, text) = row.value();
            (at, text.to_vec())
        }) else {
            continue;
        };
        table.insert(id.0, (*seq, at, text.as_slice())).map_err(storage)?;
    }
    Ok(())
}

/// Notes where records are.
pub fn place(transaction: &WriteTransaction, records: &[(Ulid, u64)]) -> Result<(), LogError> {
    if records.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(PLACES).map_err(storage)?;
    for (id, position) in records {
        table.insert(id.0, position).map_err(storage)?;
    }
    // Ids begin with their time: the first are the oldest.
    while table.len().map_err(storage)? > PLACES_MAX {
        table.pop_first().map_err(storage)?;
    }
    Ok(())
}

/// Forgets what the hub has kept for long enough.
pub fn forget(transaction: &WriteTransaction, now: u64) -> Result<(), LogError> {
    let kept = u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX);
    let mut table = transaction.open_table(OUTBOX).map_err(storage)?;
    table.retain(|_, (seq, at, _)| seq == 0 || now.saturating_sub(at) < kept).map_err(storage)
}

/// The log was lost: everything of the last minutes is to be sent again.
pub fn send_again(transaction: &WriteTransaction, now: u64) -> Result<(), LogError> {
    forget(transaction, now)?;
    let mut table = transaction.open_table(OUTBOX).map_err(storage)?;
    let mut all = Vec::new();
    for row in table.iter().map_err(storage)? {
        let (id, value) = row.map_err(storage)?;
        let (_, at, text) = value.value();
        all.push((id.value(), at, text.to_vec()));
    }
    for (id, at, text) in all {
        table.insert(id, (0, at, text.as_slice())).map_err(storage)?;
    }
    Ok(())
}

/// What the outbox of another process held: what the hub has not acknowledged, and the last that it has.
pub fn restore(read: &ReadTransaction) -> Result<(Pending, Option<Known>), LogError> {
    let table = read.open_table(OUTBOX).map_err(storage)?;
    let (mut pending, mut last) = (Pending::new(), None::<Known>);
    for row in table.iter().map_err(storage)? {
        let (id, value) = row.map_err(storage)?;
        let (seq, _, text) = value.value();
        let id = Ulid(id.value());
        if seq == 0 {
            pending.insert(id, serde_json::from_slice(text)?);
        } else if seq > last.map_or(0, |(seq, _)| seq) {
            last = Some((seq, id));
        }
    }
    Ok((pending, last))
}

/// When the log that is followed was made.
pub fn followed(read: &ReadTransaction) -> Result<u64, LogError> {
    let table = read.open_table(FOLLOWED).map_err(storage)?;
    Ok(table.get(CREATED).map_err(storage)?.map_or(0, |created| created.value()))
}

/// Another log is followed from now on.
pub fn follow(transaction: &WriteTransaction, created: u64) -> Result<(), LogError> {
    let mut table = transaction.open_table(FOLLOWED).map_err(storage)?;
    table.insert(CREATED, created).map_err(storage)?;
    Ok(())
}

/// A purge of this node, and its number in the log if it has one.
pub fn find(read: &ReadTransaction, id: Ulid) -> Result<Option<(PurgeRecord, Option<u64>)>, LogError> {
    let table = read.open_table(OUTBOX).map_err(storage)?;
    let Some(row) = table.get(id.0).map_err(storage)? else { return Ok(None) };
    let (seq, _, text) = row.value();
    Ok(Some((serde_json::from_slice(text)?, (seq > 0).then_some(seq))))
}

/// Where a record is in the log.
pub fn find_place(read: &ReadTransaction, id: Ulid) -> Result<Option<u64>, LogError> {
    let table = read.open_table(PLACES).map_err(storage)?;
    Ok(table.get(id.0).map_err(storage)?.map(|row| row.value()))
}

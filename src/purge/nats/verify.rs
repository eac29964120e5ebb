//! Whether the log a hub has now is the one a node has followed. Pure.
//!
//! A hub says nothing of it when its store was restored at an older point, its stream made anew, or another server put in its
//! place; and one that was restored and refilled past our position looks healthy. What tells is the identity of the last record we
//! applied, and of the last one we were told is in there.

use ulid::Ulid;

/// A record, by its number in the log and its id.
pub type Known = (u64, Ulid);

/// What a node remembers of the log it follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// When the log was made, in nanoseconds of Unix time. Zero: no log was followed yet.
    pub created: u64,
    /// The last record applied. None: none yet.
    pub applied: Option<Known>,
    /// The last record of our own whose acknowledgement we have.
    pub acknowledged: Option<Known>,
}

/// What the hub says of its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub created: u64,
    /// The first record that is still there; one more than the last when none is.
    pub first: u64,
    /// The last record there ever was.
    pub last: u64,
    /// The id of what stands where the last record we applied stood.
    pub at_applied: Option<Ulid>,
    /// The id of what stands where our last acknowledged record stood.
    pub at_acknowledged: Option<Ulid>,
}

/// Why the log is another one than that which was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("no log was followed before")]
    First,
    #[error("it was made anew")]
    Recreated,
    #[error("it ends before what was applied")]
    Shorter,
    #[error("another record stands where the last one that was applied stood")]
    Replaced,
    #[error("records that were not applied are not there any more")]
    Trimmed,
    #[error("a record that was acknowledged is not in it")]
    Unacknowledged,
}

/// Compares them.
///
/// # Errors
/// It is another log, or one with a hole where we are: why.
pub fn verify(followed: &Followed, found: &Found) -> Result<(), Lost> {
    if followed.created == 0 {
        return Err(Lost::First);
    }
    if followed.created != found.created {
        return Err(Lost::Recreated);
    }
    let applied = followed.applied.map_or(0, |(seq, _)| seq);
    if found.last < applied {
        return Err(Lost::Shorter);
    }
    if let Some((_, id)) = followed.applied
        && found.at_applied.is_some_and(|other| other != id)
    {
        return Err(Lost::Replaced);
    }
    if applied + 1 < found.first || (applied > 0 && found.at_applied.is_none()) {
        return Err(Lost::Trimmed);
    }
    match followed.acknowledged {
        // What is older than what is still there cannot be looked at, and was applied by everybody long ago.
        Some((seq, id)) if seq >= found.first && found.at_acknowledged != Some(id) => Err(Lost::Unacknowledged),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_that_are_not_the_one_that_was_followed() {
        let id = |n: u128| Ulid::from(n);
        let followed = Followed { created: 5, applied: Some((90, id(90))), acknowledged: Some((80, id(80))) };
        let found = Found { created: 5, first: 10, last: 100, at_applied: Some(id(90)), at_acknowledged: Some(id(80)) };
        let new = Followed { created: 5, applied: None, acknowledged: None };
        let nothing = Found { created: 5, first: 1, last: 0, ..Found::default() };
        let rows = [
            ("the same", followed, found, Ok(())),
            ("nothing new", followed, Found { last: 90, ..found }, Ok(())),
            ("the first contact", Followed::default(), found, Err(Lost::First)),
            ("recreated", followed, Found { created: 6, ..found }, Err(Lost::Recreated)),
            ("two servers swapped", followed, Found { created: 4, ..found }, Err(Lost::Recreated)),
            ("restored at an older point", followed, Found { last: 85, at_applied: None, ..found }, Err(Lost::Shorter)),
            (
                "restored and refilled past us",
                followed,
                Found { at_applied: Some(id(7)), ..found },
                Err(Lost::Replaced),
            ),
            ("trimmed past us", followed, Found { first: 95, at_applied: None, ..found }, Err(Lost::Trimmed)),
            ("trimmed up to the next", followed, Found { first: 91, at_applied: None, ..found }, Err(Lost::Trimmed)),
            ("a hole where we are", followed, Found { at_applied: None, ..found }, Err(Lost::Trimmed)),
            ("nothing was ever in it", new, nothing, Ok(())),
            ("its first records", new, Found { last: 3, ..nothing }, Ok(())),
            ("its first records are gone", new, Found { first: 2, last: 3, ..nothing }, Err(Lost::Trimmed)),
            (
                "what was acknowledged, and not applied yet, is lost",
                Followed { acknowledged: Some((95, id(95))), ..followed },
                Found { last: 94, at_acknowledged: None, ..found },
                Err(Lost::Unacknowledged),
            ),
            (
                "another stands where ours stood",
                Followed { acknowledged: Some((95, id(95))), ..followed },
                Found { at_acknowledged: Some(id(7)), ..found },
                Err(Lost::Unacknowledged),
            ),
            (
                "ours is older than what is there",
                Followed { acknowledged: Some((5, id(5))), ..followed },
                Found { at_acknowledged: None, ..found },
                Ok(()),
            ),
        ];
        for (name, followed, found, expected) in rows {
            assert_eq!(verify(&followed, &found), expected, "{name}");
        }
    }
}

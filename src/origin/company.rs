//! The members of a group as they see one another: how many are out decides whether one more may be ejected.

use std::sync::Weak;

use parking_lot::Mutex;

use super::ejection::Company;
use super::group::Member;

/// The members of a group.
#[derive(Default)]
pub struct Companions {
    /// Locked for as long as one of them is judged: two that fail at once must not both be the last one allowed.
    members: Mutex<Vec<Weak<Member>>>,
}

impl Companions {
    pub fn new(members: Vec<Weak<Member>>) -> Self {
        Self { members: Mutex::new(members) }
    }

    /// Judges one of them. `judge` may lock its state, and no other's.
    pub fn judge<T>(&self, one: &Member, judge: impl FnOnce(Company) -> T) -> T {
        let members = self.members.lock();
        let others = members.iter().filter_map(Weak::upgrade).filter(|other| !std::ptr::eq(&raw const **other, one));
        judge(Company { members: members.len(), others_out: others.filter(|other| other.is_out()).count() })
    }
}

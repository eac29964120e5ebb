//! Who answers for a site: its own origins, and the groups that its rules send requests to.

use std::sync::Arc;

use crate::origin::Upstream;
use crate::origin::group::Group;
use crate::origin::mirror::Mirror;
use crate::origin::validations::Validations;

/// Some origins, and what rules call them.
pub struct Backing {
    /// Empty for the site's own.
    pub name: String,
    pub group: Arc<Group>,
    /// The same, as a fill asks.
    pub upstream: Arc<dyn Upstream>,
    /// The same, as a target of copies; none where no rule of the site sends any.
    pub mirror: Option<Arc<Mirror>>,
    /// What is validated there now because the node is isolated.
    pub validations: Arc<Validations>,
}

/// Which of a site's: it means nothing to another site, nor to the same one after a reload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupIndex(usize);

impl GroupIndex {
    /// The site's own origins.
    pub const OWN: Self = Self(0);
}

/// All of a site's.
pub struct Backings {
    own: Backing,
    others: Vec<Backing>,
}

impl Backings {
    pub fn new(own: Backing, others: Vec<Backing>) -> Self {
        Self { own, others }
    }

    /// The site's own alone.
    pub fn of_one(group: Arc<Group>, upstream: Arc<dyn Upstream>) -> Self {
        Self::new(
            Backing { name: String::new(), group, upstream, mirror: None, validations: Arc::default() },
            Vec::new(),
        )
    }

    pub fn at(&self, index: GroupIndex) -> &Backing {
        index.0.checked_sub(1).and_then(|other| self.others.get(other)).unwrap_or(&self.own)
    }

    /// By what rules call it; the site's own where nothing is called so, which the configuration does not allow.
    pub fn index_of(&self, name: &str) -> GroupIndex {
        let other = self.others.iter().position(|other| other.name == name);
        GroupIndex(other.map_or(0, |other| other + 1))
    }

    /// The site's own first.
    pub fn all(&self) -> impl Iterator<Item = &Backing> {
        std::iter::once(&self.own).chain(&self.others)
    }
}

//! Removes what the request excludes, its anchors, the cart and what an earlier slate of the response shows.

use super::{Filter, boxed};
use hashbrown::HashSet;

pub(super) struct Excluded {
    items: HashSet<u32>,
}

impl Excluded {
    pub(super) fn when_needed<'a>(items: Vec<u32>) -> Option<Box<dyn Filter + 'a>> {
        (!items.is_empty()).then(|| boxed(Self { items: items.into_iter().collect() }))
    }
}

impl Filter for Excluded {
    fn name(&self) -> &'static str {
        "excluded"
    }

    fn keep(&self, item: u32) -> bool {
        !self.items.contains(&item)
    }
}

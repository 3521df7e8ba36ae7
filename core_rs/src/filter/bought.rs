//! Removes what the visitor bought before, or everything else, as the placement says.

use super::{Filter, boxed};
use crate::{proto::placement::BoughtRule, query::Query, visitor::Visitor};

pub(super) struct BoughtBefore<'a> {
    visitor: Option<&'a Visitor>,
    only: bool,
}

impl<'a> BoughtBefore<'a> {
    pub(super) fn when_needed(query: &Query<'a>) -> Option<Box<dyn Filter + 'a>> {
        match query.placement.bought_rule() {
            BoughtRule::Exclude if query.visitor.is_some() => Some(boxed(Self { visitor: query.visitor, only: false })),
            BoughtRule::Only => Some(boxed(Self { visitor: query.visitor, only: true })),
            _ => None,
        }
    }
}

impl Filter for BoughtBefore<'_> {
    fn name(&self) -> &'static str {
        "bought"
    }

    fn keep(&self, item: u32) -> bool {
        self.visitor.is_some_and(|visitor| visitor.bought(item).is_some()) == self.only
    }

    fn binds_pins(&self) -> bool {
        false
    }
}

//! Keeps what passes the conditions of the placement and of the request.

use super::{Filter, boxed};
use crate::{
    catalog::Catalog,
    proto::PlacementRequest,
    query::{Condition, Query},
};

pub(super) struct Conditions<'a> {
    catalog: &'a Catalog,
    conditions: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    pub(super) fn when_needed(query: &'a Query, request: &PlacementRequest) -> Option<Box<dyn Filter + 'a>> {
        let filters = [query.placement.filter.as_ref(), request.filter.as_ref()];
        let conditions: Vec<Condition> =
            filters.into_iter().flatten().map(|filter| Condition::new(filter, query.state)).collect();
        (!conditions.is_empty()).then(|| boxed(Self { catalog: &query.state.catalog, conditions }))
    }
}

impl Filter for Conditions<'_> {
    fn name(&self) -> &'static str {
        "condition"
    }

    fn keep(&self, item: u32) -> bool {
        self.conditions.iter().all(|condition| condition.passes(self.catalog, item))
    }
}

//! Keeps what the catalogue holds and the shop offers.

use super::Filter;
use crate::{catalog::Catalog, query::Query};

pub(super) struct Available<'a> {
    catalog: &'a Catalog,
}

impl<'a> Available<'a> {
    pub(super) fn new(query: &'a Query) -> Self {
        Self { catalog: &query.state.catalog }
    }
}

impl Filter for Available<'_> {
    fn name(&self) -> &'static str {
        "available"
    }

    fn keep(&self, item: u32) -> bool {
        self.catalog.is_shown(item)
    }
}

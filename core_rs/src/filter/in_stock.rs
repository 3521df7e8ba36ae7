//! Keeps what is in stock or not counted.

use super::Filter;
use crate::{catalog::Catalog, query::Query};

pub(super) struct InStock<'a> {
    catalog: &'a Catalog,
}

impl<'a> InStock<'a> {
    pub(super) fn new(query: &'a Query) -> Self {
        Self { catalog: &query.state.catalog }
    }
}

impl Filter for InStock<'_> {
    fn name(&self) -> &'static str {
        "in_stock"
    }

    fn keep(&self, item: u32) -> bool {
        self.catalog.is_stocked(item)
    }
}

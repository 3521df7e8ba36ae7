//! What may not be shown: one filter a file, joined in a gate that every proposal passes.

mod available;
mod bought;
mod condition;
mod controls;
mod excluded;
mod in_stock;
mod viewed;

use crate::{
    proto::{Control, PlacementRequest},
    query::Query,
};

/// Removed items named in a trace.
const MAX_SAMPLES: usize = 100;

/// A rule that removes items from one slate.
pub trait Filter {
    /// Name in traces.
    fn name(&self) -> &'static str;
    /// Whether an item may be shown.
    fn keep(&self, item: u32) -> bool;
    /// Whether the rule also binds pinned items.
    fn binds_pins(&self) -> bool {
        true
    }
}

/// Filters of one slate with what they removed.
pub struct Gate<'a> {
    filters: Vec<Box<dyn Filter + 'a>>,
    /// Items removed by each filter.
    pub counts: Vec<usize>,
    /// The first removed items with the number of their filter.
    pub samples: Vec<(u32, usize)>,
}

impl<'a> Gate<'a> {
    /// Joins the filters that this slate needs; `excluded` are items not to be shown whatever else holds.
    pub fn new(query: &'a Query, request: &PlacementRequest, controls: &[&Control], excluded: Vec<u32>) -> Self {
        let mut filters: Vec<Box<dyn Filter + 'a>> =
            vec![Box::new(available::Available::new(query)), Box::new(in_stock::InStock::new(query))];
        filters.extend(excluded::Excluded::when_needed(excluded));
        filters.extend(condition::Conditions::when_needed(query, request));
        filters.extend(controls::Controls::when_needed(query, controls));
        filters.extend(bought::BoughtBefore::when_needed(query));
        filters.extend(viewed::Viewed::when_needed(query));
        let counts = vec![0; filters.len()];
        Self { filters, counts, samples: Vec::new() }
    }

    /// Whether an item may be shown; a removed one is counted and, among the first, remembered.
    pub fn admit(&mut self, item: u32) -> bool {
        let Some(number) = self.filters.iter().position(|filter| !filter.keep(item)) else { return true };
        self.counts[number] += 1;
        if self.samples.len() < MAX_SAMPLES {
            self.samples.push((item, number));
        }
        false
    }

    /// Whether an item may be shown, counting nothing.
    pub fn passes(&self, item: u32) -> bool {
        self.filters.iter().all(|filter| filter.keep(item))
    }

    /// Whether a pinned item may be shown.
    pub fn admit_pin(&self, item: u32) -> bool {
        self.filters.iter().all(|filter| !filter.binds_pins() || filter.keep(item))
    }

    /// Names of the filters, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.filters.iter().map(|filter| filter.name()).collect()
    }
}

/// Boxes a filter for a gate.
fn boxed<'a>(filter: impl Filter + 'a) -> Box<dyn Filter + 'a> {
    Box::new(filter)
}

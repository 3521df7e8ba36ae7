//! Neighbours of the query's seeds, summed: also viewed, also bought, bought together.

use super::{Source, Taker, summed};
use crate::{bundle::Relation, proto::Reason, query::Query, scratch};

pub(super) struct ItemToItem {
    pub(super) relation: Relation,
    pub(super) name: &'static str,
    pub(super) reason: Reason,
}

impl Source for ItemToItem {
    fn name(&self) -> &'static str {
        self.name
    }

    fn reason(&self) -> Reason {
        self.reason
    }

    fn enable(&self, query: &Query) -> bool {
        query.bundle.is_some_and(|bundle| bundle.has(self.relation)) && !query.seeds.is_empty()
    }

    fn propose(&self, query: &Query, taker: &mut dyn Taker) {
        let Some(bundle) = query.bundle else { return };
        scratch::with_sums(|sums| {
            for seed in &query.seeds {
                bundle.prefetch_neighbours(self.relation, seed.item);
            }
            for seed in &query.seeds {
                for (item, score) in bundle.neighbours(self.relation, seed.item) {
                    sums.add(item, seed.weight * score, seed.item);
                }
            }
            summed::offer(sums, &query.state.catalog, taker);
        });
    }
}

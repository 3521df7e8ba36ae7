//! What was first offered lately, newest first.

use super::{Proposal, Source, Taker, offer_all};
use crate::{
    params::{DAY_MS, NEW_ARRIVAL_DAYS},
    proto::Reason,
    query::Query,
};

pub(super) struct NewArrivals;

impl Source for NewArrivals {
    fn name(&self) -> &'static str {
        "new_arrivals"
    }

    fn reason(&self) -> Reason {
        Reason::NewArrival
    }

    fn enable(&self, query: &Query) -> bool {
        !query.state.catalog.is_empty()
    }

    fn propose(&self, query: &Query, taker: &mut dyn Taker) {
        let catalog = &query.state.catalog;
        let span = (NEW_ARRIVAL_DAYS * DAY_MS) as f32;
        let arrivals = catalog.released_since(query.now_ms - NEW_ARRIVAL_DAYS * DAY_MS);
        let proposals = arrivals.filter_map(|item| {
            let age = query.now_ms - catalog.row(item).release_ms;
            (age >= 0).then(|| Proposal::new(item, 1.0 - age as f32 / span))
        });
        offer_all(proposals, taker);
    }
}

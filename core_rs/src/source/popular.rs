//! What all visitors want: decayed counts of views, carts and purchases. The floor for cold starts.

use super::{Proposal, Source, Taker, offer_all};
use crate::{proto::Reason, query::Query};

pub(super) struct Popular;

impl Source for Popular {
    fn name(&self) -> &'static str {
        "popular"
    }

    fn reason(&self) -> Reason {
        Reason::Popular
    }

    fn enable(&self, query: &Query) -> bool {
        !query.state.popularity.is_empty()
    }

    fn propose(&self, query: &Query, taker: &mut dyn Taker) {
        let popularity = &query.state.popularity;
        let scored = |item| Proposal::new(item, popularity.popular(item, query.now_ms));
        offer_all(popularity.most_popular().map(scored), taker);
    }
}

//! What rises: the short popularity against the square root of the long one, which is how much a Poisson count of that
//! mean varies by itself. Our own score, without the mean taken off, so that it orders items at any time alike.

use super::{Proposal, Source, Taker, offer_all};
use crate::{proto::Reason, query::Query};

pub(super) struct Trending;

impl Source for Trending {
    fn name(&self) -> &'static str {
        "trending"
    }

    fn reason(&self) -> Reason {
        Reason::Trending
    }

    fn enable(&self, query: &Query) -> bool {
        !query.state.popularity.is_empty()
    }

    fn propose(&self, query: &Query, taker: &mut dyn Taker) {
        let popularity = &query.state.popularity;
        let scored = |item| {
            let long = popularity.popular(item, query.now_ms).max(f32::MIN_POSITIVE);
            Proposal::new(item, popularity.recent(item, query.now_ms) / long.sqrt())
        };
        offer_all(popularity.most_trending().map(scored), taker);
    }
}

//! What the visitor looked at lately, newest first.

use super::{Proposal, Source, Taker, offer_all};
use crate::{
    params::VIEWED_DECAY,
    proto::{EventType, Reason},
    query::Query,
};

pub(super) struct RecentlyViewed;

impl Source for RecentlyViewed {
    fn name(&self) -> &'static str {
        "recently_viewed"
    }

    fn reason(&self) -> Reason {
        Reason::RecentlyViewed
    }

    fn enable(&self, query: &Query) -> bool {
        query.visitor.is_some()
    }

    fn propose(&self, query: &Query, taker: &mut dyn Taker) {
        let Some(visitor) = query.visitor else { return };
        let looked = [EventType::View as u8, EventType::Click as u8];
        let views = visitor.recent().filter(|interaction| looked.contains(&interaction.kind));
        offer_all(
            views.enumerate().map(|(rank, view)| Proposal::new(view.item, VIEWED_DECAY.powi(rank as i32))),
            taker,
        );
    }
}

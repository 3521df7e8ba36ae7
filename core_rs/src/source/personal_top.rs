//! What the visitor buys most, fading with time.

use super::{Proposal, Source, Taker, offer_all, sort};
use crate::{decay, params::PERSONAL_HALF_LIFE_DAYS, proto::Reason, query::Query};

pub(super) struct PersonalTop;

impl Source for PersonalTop {
    fn name(&self) -> &'static str {
        "personal_top"
    }

    fn reason(&self) -> Reason {
        Reason::PersonalFavourite
    }

    fn enable(&self, query: &Query) -> bool {
        query.visitor.is_some_and(|visitor| !visitor.bought.is_empty())
    }

    fn propose(&self, query: &Query, taker: &mut dyn Taker) {
        let Some(visitor) = query.visitor else { return };
        let mut proposals: Vec<Proposal> = visitor
            .bought
            .iter()
            .map(|bought| {
                let weight = decay::at(f64::from(bought.weight), query.now_ms, PERSONAL_HALF_LIFE_DAYS);
                Proposal::new(bought.item, weight as f32)
            })
            .collect();
        sort(&mut proposals);
        offer_all(proposals, taker);
    }
}

//! What is due again: items bought at least twice whose usual interval has nearly passed.
//!
//! That a purchase is due by the mean interval of those before is after Bhagat, Muralidharan, Lobzhanidze & Vishwanath
//! 2018, "Buy it again: modeling repeat purchase recommendations", who fit a distribution of intervals to each item;
//! the score, ln(baskets) · exp(−(due − 1)²), is our own and is fitted to nothing.

use super::{Proposal, Source, Taker, offer_all, sort};
use crate::{
    params::{DUE_SHARE, GIVEN_UP_SHARE},
    proto::Reason,
    query::Query,
    visitor::{Bought, seconds},
};

pub(super) struct BuyAgain;

impl Source for BuyAgain {
    fn name(&self) -> &'static str {
        "buy_again"
    }

    fn reason(&self) -> Reason {
        Reason::BuyAgain
    }

    fn enable(&self, query: &Query) -> bool {
        query.visitor.is_some_and(|visitor| visitor.bought.iter().any(|bought| bought.baskets > 1))
    }

    fn propose(&self, query: &Query, taker: &mut dyn Taker) {
        let Some(visitor) = query.visitor else { return };
        let mut proposals: Vec<Proposal> = visitor
            .bought
            .iter()
            .filter_map(|bought| {
                let due = due_share(bought, query.now_ms)?;
                let score = f32::from(bought.baskets).ln() * (-(due - 1.0).powi(2)).exp();
                (DUE_SHARE..GIVEN_UP_SHARE).contains(&due).then(|| Proposal::new(bought.item, score))
            })
            .collect();
        sort(&mut proposals);
        offer_all(proposals, taker);
    }
}

/// Time since the last purchase as a share of the mean interval; `None` below two purchases.
pub fn due_share(bought: &Bought, now_ms: i64) -> Option<f32> {
    if bought.baskets < 2 || bought.last_s <= bought.first_s {
        return None;
    }
    let interval = (bought.last_s - bought.first_s) as f32 / f32::from(bought.baskets - 1);
    Some(seconds(now_ms).saturating_sub(bought.last_s) as f32 / interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_one_when_the_usual_interval_has_passed() {
        let bought = Bought {
            item: 1,
            weight: 0.0,
            weight_lately: 0.0,
            basket_weight: 0.0,
            first_s: 0,
            last_s: 200,
            baskets: 3,
            last_basket: 3,
        };
        assert_eq!(due_share(&bought, 300_000), Some(1.0));
        assert_eq!(due_share(&Bought { baskets: 1, ..bought }, 300_000), None);
    }
}

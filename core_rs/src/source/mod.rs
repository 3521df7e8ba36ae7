//! Where candidates come from: one source a file, one trait for all.

pub mod buy_again;
mod item_to_item;
mod new_arrivals;
mod personal_top;
mod popular;
mod recently_viewed;
mod same_category;
mod sequence;
mod similar_content;
mod summed;
mod trending;
mod visitor_lists;

use crate::{
    bundle::{Relation, VisitorList},
    ids::NONE,
    proto::Reason,
    query::Query,
};
use hashbrown::HashSet;

/// Item proposed by a source.
#[derive(Clone, Copy, Debug)]
pub struct Proposal {
    /// Item.
    pub item: u32,
    /// Score on the source's own scale, positive.
    pub score: f32,
    /// Item behind the proposal; [`NONE`] where there is none.
    pub because: u32,
}

impl Proposal {
    fn new(item: u32, score: f32) -> Self {
        Self { item, score, because: NONE }
    }
}

/// Takes proposals until it has enough; `offer` returns false when the source may stop.
pub trait Taker {
    /// Offers one proposal, best first; returns whether more are wanted.
    fn offer(&mut self, proposal: Proposal) -> bool;
    /// Number of proposals that are still wanted.
    fn wanted(&self) -> usize;
    /// Items that may be shown, in no order: a look at the whole catalogue, or at what the placement's filter lists.
    fn open_items(&self) -> Vec<u32>;
}

/// A source of candidates. It proposes best first; the taker filters and counts.
pub trait Source: Sync {
    /// Name that placements use.
    fn name(&self) -> &'static str;
    /// Reason shown for items this source proposed.
    fn reason(&self) -> Reason;
    /// Whether the source has anything to say for this query.
    fn enable(&self, query: &Query) -> bool;
    /// Proposes items until the taker has enough.
    fn propose(&self, query: &Query, taker: &mut dyn Taker);
}

/// Nearest items looked at, whether or not they may be shown.
const FIRST_LOOK: usize = 512;

/// Number of sources.
pub const COUNT: usize = 14;

/// Every source; its place is its number in masks and score rows.
pub static SOURCES: [&dyn Source; COUNT] = [
    &popular::Popular,
    &trending::Trending,
    &new_arrivals::NewArrivals,
    &recently_viewed::RecentlyViewed,
    &personal_top::PersonalTop,
    &buy_again::BuyAgain,
    &item_to_item::ItemToItem { relation: Relation::AlsoViewed, name: "also_viewed", reason: Reason::AlsoViewed },
    &item_to_item::ItemToItem { relation: Relation::AlsoBought, name: "also_bought", reason: Reason::AlsoBought },
    &item_to_item::ItemToItem {
        relation: Relation::BoughtTogether,
        name: "bought_together",
        reason: Reason::BoughtTogether,
    },
    &visitor_lists::VisitorLists { list: VisitorList::NextBasket, name: "next_basket", reason: Reason::NextBasket },
    &visitor_lists::VisitorLists {
        list: VisitorList::UserToUser,
        name: "user_to_user",
        reason: Reason::SimilarVisitors,
    },
    &same_category::SameCategory,
    &similar_content::SimilarContent,
    &sequence::Sequence,
];

/// Names of all sources.
pub fn names() -> Vec<&'static str> {
    SOURCES.iter().map(|source| source.name()).collect()
}

/// Number of a source by name.
pub fn number(name: &str) -> Option<usize> {
    SOURCES.iter().position(|source| source.name() == name)
}

/// Best first, ties by item.
fn sort(proposals: &mut [Proposal]) {
    proposals.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.item.cmp(&b.item)));
}

/// Offers sorted proposals until the taker has enough.
fn offer_all(proposals: impl IntoIterator<Item = Proposal>, taker: &mut dyn Taker) {
    for proposal in proposals {
        if !taker.offer(proposal) {
            return;
        }
    }
}

/// Offers the items nearest to a vector while their product is above zero.
///
/// `find` gives the nearest so many, best first, of all items or of some. Where few of the first may be shown, those
/// that may are asked for by name, so that a narrow filter costs one more search and not the whole catalogue in order.
fn offer_nearest(find: impl Fn(usize, Option<&[u32]>) -> Vec<(u32, f32)>, because: u32, taker: &mut dyn Taker) {
    let first = find(FIRST_LOOK, None);
    let is_all = first.len() < FIRST_LOOK;
    let looked: HashSet<u32> = first.iter().map(|&(item, _)| item).collect();
    if !offer_positive(first, because, taker) || is_all {
        return;
    }
    let mut open = taker.open_items();
    open.retain(|item| !looked.contains(item));
    offer_positive(find(taker.wanted(), Some(&open)), because, taker);
}

/// Offers items while their score is above zero; returns whether more are wanted.
fn offer_positive(found: Vec<(u32, f32)>, because: u32, taker: &mut dyn Taker) -> bool {
    found.into_iter().all(|(item, score)| score > 0.0 && taker.offer(Proposal { item, score, because }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_find_their_source() {
        for (place, name) in names().into_iter().enumerate() {
            assert_eq!(number(name), Some(place));
        }
        assert_eq!(number("nothing"), None);
    }
}

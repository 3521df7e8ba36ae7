//! What is like the anchors by the catalogue alone: of the same category, best of the same brand and a near price. It
//! needs no event and no bundle, so a new item is found and a new shop has something to say.

use super::{Source, Taker, summed};
use crate::{
    catalog::{Catalog, Row},
    ids::NONE,
    params::MAX_ALIKE,
    proto::Reason,
    query::Query,
    scratch,
};

/// Anchors whose categories are searched.
const MOST_ANCHORS: usize = 8;
/// Likeness of an item of the parent category, where one of the category itself has 1.
const PARENT: f32 = 0.5;
/// What the same brand, the same price and popularity add at most.
const BRAND: f32 = 0.3;
const PRICE: f32 = 0.3;
const POPULARITY: f32 = 0.3;
/// Decayed count at which popularity adds half of its most.
const HALF_POPULAR: f32 = 10.0;

pub(super) struct SameCategory;

impl Source for SameCategory {
    fn name(&self) -> &'static str {
        "same_category"
    }

    fn reason(&self) -> Reason {
        Reason::SameCategory
    }

    fn enable(&self, query: &Query) -> bool {
        !given(query).is_empty() && !query.state.catalog.is_empty()
    }

    fn propose(&self, query: &Query, taker: &mut dyn Taker) {
        let catalog = &query.state.catalog;
        scratch::with_sums(|sums| {
            for &anchor in given(query).iter().take(MOST_ANCHORS) {
                let row = catalog.row(anchor);
                for item in peers(catalog, row) {
                    sums.add(item, likeness(query, row, item), anchor);
                }
            }
            summed::offer(sums, catalog, taker);
        });
    }
}

/// Items the slate belongs to: the anchors, else the cart.
fn given<'a>(query: &'a Query) -> &'a [u32] {
    if query.anchors.is_empty() { &query.cart } else { &query.anchors }
}

/// Items of the row's category; of the wider one where that is so small that few would be left.
fn peers<'a>(catalog: &'a Catalog, row: &Row) -> impl Iterator<Item = u32> + 'a {
    let of = |category: u32| if category == NONE { &[][..] } else { catalog.in_category(category) };
    let (own, wider) = (of(row.category), of(row.parent));
    let list = if own.len() < MAX_ALIKE / 64 && !wider.is_empty() { wider } else { own };
    list.iter().copied().take(MAX_ALIKE)
}

fn likeness(query: &Query, anchor: &Row, item: u32) -> f32 {
    let row = query.state.catalog.row(item);
    let category = if row.category == anchor.category { 1.0 } else { PARENT };
    let brand = if row.brand != NONE && row.brand == anchor.brand { BRAND } else { 0.0 };
    let distance = (row.price / anchor.price).ln().abs();
    let price = if distance.is_finite() { PRICE * (-distance).exp() } else { 0.0 };
    let bought = query.state.popularity.popular(item, query.now_ms);
    category + brand + price + POPULARITY * bought / (bought + HALF_POPULAR)
}

//! What is like the anchors by the catalogue alone: of the same category, best of the same brand and a near price. It
//! needs no event and no bundle, so a new item is found and a new shop has something to say.

use super::{Source, Taker, summed};
use crate::{
    catalog::{Catalog, Row},
    ids::NONE,
    params::{
        ALIKE_ANCHORS, ALIKE_BRAND, ALIKE_HALF_POPULAR, ALIKE_PARENT, ALIKE_POPULARITY, ALIKE_PRICE, FEW_ALIKE,
        MAX_ALIKE,
    },
    proto::Reason,
    query::Query,
    scratch,
};

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
            for &anchor in given(query).iter().take(ALIKE_ANCHORS) {
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

/// Items of the row's category, the newest first; of the wider one where that holds few.
fn peers<'a>(catalog: &'a Catalog, row: &Row) -> impl Iterator<Item = u32> + 'a {
    let of = |category: u32| if category == NONE { &[][..] } else { catalog.in_category(category) };
    let (own, wider) = (of(row.category), of(row.parent));
    let list = if own.len() < FEW_ALIKE && !wider.is_empty() { wider } else { own };
    list.iter().rev().copied().take(MAX_ALIKE)
}

fn likeness(query: &Query, anchor: &Row, item: u32) -> f32 {
    let row = query.state.catalog.row(item);
    let category = if row.category == anchor.category { 1.0 } else { ALIKE_PARENT };
    let brand = if row.brand != NONE && row.brand == anchor.brand { ALIKE_BRAND } else { 0.0 };
    let distance = (row.price / anchor.price).ln().abs();
    let price = if distance.is_finite() { ALIKE_PRICE * (-distance).exp() } else { 0.0 };
    let bought = query.state.popularity.popular(item, query.now_ms);
    category + brand + price + ALIKE_POPULARITY * bought / (bought + ALIKE_HALF_POPULAR)
}

//! From scores to a slate: a total order, variety, caps, pins.

mod caps;
mod dpp;
mod mmr;
mod order;
mod pins;

pub use caps::{Caps, take};
pub use mmr::POOL;
pub use order::best_first;
pub use pins::{insert, places};

use crate::{ids::NONE, proto::placement::Variety};

/// What re-ranking knows of an item besides its score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// Item.
    pub item: u32,
    /// Last level of the category path.
    pub category: u32,
    /// First level of the category path.
    pub department: u32,
    /// Brand.
    pub brand: u32,
}

/// Reorders the best of `ordered` by the way of a placement; `lambda` is 1 for relevance only.
pub fn diversify(variety: Variety, ordered: &mut [u32], scores: &[f32], traits: &[Traits], lambda: f32, k: usize) {
    match variety {
        Variety::Dpp => dpp::diversify(ordered, scores, traits, lambda, k),
        Variety::Unspecified | Variety::Mmr => mmr::diversify(ordered, scores, traits, lambda, k),
    }
}

/// Likeness of two items, 0 to 1: category counts most, then brand, then department.
fn similarity(a: &Traits, b: &Traits) -> f32 {
    let same = |a: u32, b: u32, weight: f32| if a != NONE && a == b { weight } else { 0.0 };
    same(a.category, b.category, 0.6) + same(a.brand, b.brand, 0.25) + same(a.department, b.department, 0.15)
}

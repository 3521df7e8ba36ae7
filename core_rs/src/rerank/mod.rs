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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_that_is_not_finite_leaves_the_others_as_relevant_as_they_are() {
        let item = |(item, category)| Traits { item, category, department: category, brand: NONE };
        let traits: Vec<Traits> = (0..).zip([1, 1, 1, 2, 3]).map(item).collect();
        for variety in [Variety::Mmr, Variety::Dpp] {
            for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut ordered = [0, 1, 2, 3, 4];
                diversify(variety, &mut ordered, &[1.0, 0.95, 0.9, 0.5, broken], &traits, 0.9, 5);
                assert_eq!(ordered, [0, 1, 2, 3, 4], "{variety:?}, {broken}");
            }
        }
    }
}

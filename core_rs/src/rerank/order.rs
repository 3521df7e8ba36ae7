//! The total order of scores: greater first, what is not finite last, ties by item.

use super::Traits;
use crate::order::descending;

/// Indexes of the `scores` whose item is wanted; at least the first `count` stand best first, behind them the others.
pub fn best_first(scores: &[f32], traits: &[Traits], count: usize, wanted: impl Fn(u32) -> bool) -> Vec<u32> {
    let items = scores.iter().zip(traits).zip(0_u32..).filter(|((_, traits), _)| wanted(traits.item));
    let mut keys: Vec<u128> = items.map(|((&score, traits), index)| key(score, traits.item, index)).collect();
    if count < keys.len() {
        keys.select_nth_unstable(count);
        keys[..count].sort_unstable();
    } else {
        keys.sort_unstable();
    }
    keys.into_iter().map(|key| key as u32).collect()
}

fn key(score: f32, item: u32, index: u32) -> u128 {
    u128::from(descending(score)) << 64 | u128::from(item) << 32 | u128::from(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_finite_sinks_and_ties_break_by_item() {
        let traits: Vec<Traits> =
            [9, 3, 5, 4, 1].map(|item| Traits { item, category: 0, department: 0, brand: 0 }).into();
        let scores = [1.0, f32::NAN, 2.0, 1.0, f32::INFINITY];
        assert_eq!(best_first(&scores, &traits, 5, |_| true), [2, 3, 0, 4, 1]);
        assert_eq!(best_first(&[-1.0, -0.0, 0.0, -2.0, 0.5], &traits, 9, |_| true), [4, 1, 2, 0, 3]);
        assert_eq!(best_first(&scores, &traits, 2, |item| item != 5)[..2], [3, 0]);
        assert_eq!(best_first(&scores, &traits, 0, |_| true).len(), 5);
    }
}

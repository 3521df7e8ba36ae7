//! The total order of scores: greater first, what is not finite last, ties by item.

use super::Traits;
use crate::order::descending;

/// Indexes of `scores`, best first.
pub fn best_first(scores: &[f32], traits: &[Traits]) -> Vec<u32> {
    let key =
        |(index, &score): (usize, &f32)| (u64::from(descending(score)) << 32 | u64::from(traits[index].item), index);
    let mut keys: Vec<(u64, usize)> = scores.iter().enumerate().map(key).collect();
    keys.sort_unstable();
    keys.into_iter().map(|(_, index)| index as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_finite_sinks_and_ties_break_by_item() {
        let traits: Vec<Traits> =
            [9, 3, 5, 4, 1].map(|item| Traits { item, category: 0, department: 0, brand: 0 }).into();
        let scores = [1.0, f32::NAN, 2.0, 1.0, f32::INFINITY];
        assert_eq!(best_first(&scores, &traits), [2, 3, 0, 4, 1]);
        assert_eq!(best_first(&[-1.0, -0.0, 0.0, -2.0, 0.5], &traits), [4, 1, 2, 0, 3]);
    }
}

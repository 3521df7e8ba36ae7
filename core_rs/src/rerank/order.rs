//! The total order of scores: greater first, what is not finite last, ties by item.

use super::Traits;

/// Indexes of `scores`, best first.
pub fn best_first(scores: &[f32], traits: &[Traits]) -> Vec<u32> {
    let key = |index: u32| {
        let score = scores[index as usize];
        if score.is_finite() { score } else { f32::NEG_INFINITY }
    };
    let mut indexes: Vec<u32> = (0..scores.len() as u32).collect();
    indexes.sort_unstable_by(|&a, &b| {
        key(b).total_cmp(&key(a)).then_with(|| traits[a as usize].item.cmp(&traits[b as usize].item))
    });
    indexes
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
    }
}

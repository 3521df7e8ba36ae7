//! Variety by maximal marginal relevance over category and brand.
//!
//! Source: Carbonell & Goldstein 1998.

use super::Traits;
use crate::ids::NONE;

/// Items looked at for each item wanted.
pub const POOL: usize = 4;

/// Reorders the best of `ordered` so that relevance and variety trade off by `lambda` (1 = relevance only).
///
/// Relevance is the score over the range of the pool's scores. The tail behind the pool keeps its order. O(k · pool).
pub fn diversify(ordered: &mut [u32], scores: &[f32], traits: &[Traits], lambda: f32, k: usize) {
    let pool = (k * POOL).min(ordered.len());
    if lambda >= 1.0 || pool < 2 {
        return;
    }
    let (high, low) = (finite(scores[ordered[0] as usize]), finite(scores[ordered[pool - 1] as usize]));
    let range = (high - low).max(f32::MIN_POSITIVE);
    let relevance = |index: &u32| lambda * (finite(scores[*index as usize]) - low) / range;
    let mut relevances: Vec<f32> = ordered[..pool].iter().map(relevance).collect();
    let mut nearest = vec![0.0_f32; pool];
    for place in 0..k.min(pool) {
        let best = argmax(&relevances, &nearest, lambda, place);
        ordered[place..=best].rotate_right(1);
        relevances[place..=best].rotate_right(1);
        nearest[place..=best].rotate_right(1);
        let chosen = traits[ordered[place] as usize];
        for at in place + 1..pool {
            nearest[at] = nearest[at].max(similarity(&chosen, &traits[ordered[at] as usize]));
        }
    }
}

/// First place from `place` on with the greatest marginal relevance.
fn argmax(relevances: &[f32], nearest: &[f32], lambda: f32, place: usize) -> usize {
    let (mut best, mut greatest) = (place, f32::NEG_INFINITY);
    for at in place..relevances.len() {
        let gain = relevances[at] - (1.0 - lambda) * nearest[at];
        if gain > greatest {
            (best, greatest) = (at, gain);
        }
    }
    best
}

fn finite(score: f32) -> f32 {
    if score.is_finite() { score } else { f32::MIN }
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
    fn variety_lifts_another_category_and_loses_nothing() {
        let traits: Vec<Traits> = [1, 1, 1, 2]
            .iter()
            .enumerate()
            .map(|(item, &category)| Traits { item: item as u32, category, department: category, brand: NONE })
            .collect();
        let scores = [1.0, 0.95, 0.9, 0.5];
        let mut ordered = [0, 1, 2, 3];
        diversify(&mut ordered, &scores, &traits, 0.4, 2);
        assert_eq!(ordered, [0, 3, 1, 2]);
        let mut same = [0, 1, 2, 3];
        diversify(&mut same, &scores, &traits, 1.0, 2);
        assert_eq!(same, [0, 1, 2, 3]);
    }
}

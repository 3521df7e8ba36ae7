//! Variety by a determinantal point process: each next item adds most to the volume that the slate spans.
//!
//! Source: Chen, Zhang & Zhou 2018, "Fast Greedy MAP Inference for Determinantal Point Process", algorithm 1 and
//! equation 8 (relevance against variety).

use super::{Traits, mmr::POOL, mmr::relevances, similarity};

/// Most likeness of two items: without a rest of their own, equals would span no volume and could not be ordered.
const MOST_ALIKE: f32 = 0.9;

/// Reorders the best of `ordered` so that relevance and variety trade off by `lambda` (1 = relevance only).
///
/// Takes greedily what most raises `lambda · Σ relevance + (1 - lambda) · ln det S`, with relevance as in
/// [`super::mmr`] and S the likeness of the taken. The tail behind the pool keeps its order. O(k² · pool).
pub fn diversify(ordered: &mut [u32], scores: &[f32], traits: &[Traits], lambda: f32, k: usize) {
    let pool = (k * POOL).min(ordered.len());
    if lambda >= 1.0 || pool < 2 {
        return;
    }
    let relevances = relevances(&ordered[..pool], scores);
    let item = |place: usize| &traits[ordered[place] as usize];
    let mut volume = Volume::new(pool);
    let mut taken = Vec::with_capacity(k.min(pool));
    for _ in 0..k.min(pool) {
        let gain = |place: usize| lambda * relevances[place] + (1.0 - lambda) * volume.rest[place].ln();
        let open = (0..pool).filter(|place| !taken.contains(place));
        // Of equal gains the first is taken, as the total order has it.
        let Some(best) = open.reduce(|best, place| if gain(place) > gain(best) { place } else { best }) else { break };
        volume.take(best, |place| MOST_ALIKE * similarity(item(best), item(place)));
        taken.push(best);
    }
    let rest = (0..pool).filter(|place| !taken.contains(place));
    let places: Vec<u32> = taken.iter().copied().chain(rest).map(|place| ordered[place]).collect();
    ordered[..pool].copy_from_slice(&places);
}

/// Cholesky factor of the likeness of the taken items, row by row, for every item of the pool.
struct Volume {
    /// Row of each item: its part along each taken item.
    parts: Vec<Vec<f32>>,
    /// Squared length of what no taken item explains.
    rest: Vec<f32>,
}

impl Volume {
    fn new(pool: usize) -> Self {
        Self { parts: vec![Vec::new(); pool], rest: vec![1.0; pool] }
    }

    /// Takes an item, given how alike it is to each.
    fn take(&mut self, taken: usize, alike: impl Fn(usize) -> f32) {
        let (row, length) = (self.parts[taken].clone(), self.rest[taken].sqrt());
        for (place, (parts, rest)) in self.parts.iter_mut().zip(&mut self.rest).enumerate() {
            let known: f32 = parts.iter().zip(&row).map(|(a, b)| a * b).sum();
            let part = (alike(place) - known) / length;
            parts.push(part);
            *rest = (*rest - part * part).max(f32::MIN_POSITIVE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    /// Determinant by elimination; the matrix is positive definite.
    fn determinant(matrix: &[Vec<f64>]) -> f64 {
        let Some((first, rest)) = matrix.split_first() else { return 1.0 };
        let below = |row: &Vec<f64>| {
            let pairs = row[1..].iter().zip(&first[1..]);
            pairs.map(|(value, above)| value - row[0] / first[0] * above).collect()
        };
        first[0] * determinant(&rest.iter().map(below).collect::<Vec<_>>())
    }

    fn objective(items: &[u32], relevance: &[f32], traits: &[Traits], lambda: f32) -> f64 {
        let alike = |a: u32, b: u32| {
            let value = MOST_ALIKE * similarity(&traits[a as usize], &traits[b as usize]);
            if a == b { 1.0 } else { f64::from(value) }
        };
        let matrix: Vec<Vec<f64>> = items.iter().map(|&a| items.iter().map(|&b| alike(a, b)).collect()).collect();
        let sum: f64 = items.iter().map(|&item| f64::from(relevance[item as usize])).sum();
        f64::from(lambda) * sum + f64::from(1.0 - lambda) * determinant(&matrix).ln()
    }

    proptest! {
        #[test]
        fn every_step_takes_what_raises_the_objective_most(
            drawn in vec((0..3_u32, 0..3_u32, 0.0..1.0_f32), 2..12),
            lambda in 0.0..0.95_f32,
            k in 1..8_usize,
        ) {
            let item = |(at, &(category, brand, _)): (usize, &(u32, u32, f32))| Traits {
                item: at as u32, category, department: category / 2, brand,
            };
            let traits: Vec<Traits> = drawn.iter().enumerate().map(item).collect();
            let scores: Vec<f32> = drawn.iter().map(|&(_, _, score)| score).collect();
            let sorted = super::super::best_first(&scores, &traits, scores.len(), |_| true);
            let mut ordered = sorted.clone();
            diversify(&mut ordered, &scores, &traits, lambda, k);
            let mut relevance = vec![0.0; scores.len()];
            let pool = (k * POOL).min(sorted.len());
            for (&item, value) in sorted.iter().zip(relevances(&sorted[..pool], &scores)) {
                relevance[item as usize] = value;
            }
            for taken in 1..=k.min(pool) {
                let with = |last: u32| [&ordered[..taken - 1], &[last]].concat();
                let value = |last: u32| objective(&with(last), &relevance, &traits, lambda);
                let best = sorted[..pool].iter().filter(|item| !ordered[..taken - 1].contains(item));
                let best = best.map(|&item| value(item)).fold(f64::NEG_INFINITY, f64::max);
                prop_assert!((value(ordered[taken - 1]) - best).abs() < 1e-3);
            }
            let (mut all, mut before) = (ordered.clone(), sorted.clone());
            all.sort_unstable();
            before.sort_unstable();
            prop_assert_eq!(all, before);
        }
    }

    #[test]
    fn equals_stay_in_order_and_what_is_not_finite_stays_last() {
        let same = |item: u32| Traits { item, category: 1, department: 1, brand: 1 };
        let traits: Vec<Traits> = (0..4).map(same).collect();
        let mut ordered = [0, 1, 2, 3];
        diversify(&mut ordered, &[3.0, 2.0, 1.0, f32::NAN], &traits, 0.5, 4);
        assert_eq!(ordered, [0, 1, 2, 3]);
        let mut ties = [0, 1, 2, 3];
        diversify(&mut ties, &[1.0; 4], &traits, 0.5, 4);
        assert_eq!(ties, [0, 1, 2, 3]);
    }
}

//! Proposals out of sums of scores, best first, without sorting more of them than the taker wants.

use super::{Proposal, Taker};
use crate::{catalog::Catalog, scratch::Sums};

/// Proposals that are sorted at first; a slate rarely wants more of one source.
const SORTED_FIRST: usize = 512;

/// Offers the items of a positive sum, greatest first, ties by item.
pub(super) fn offer(sums: &Sums, catalog: &Catalog, taker: &mut dyn Taker) {
    let positive = sums.all().filter(|(_, sum)| sum.score > 0.0);
    let mut keys: Vec<u64> = positive.map(|(item, sum)| key(item, sum.score)).collect();
    ascending(&mut keys, |keys| {
        for &key in keys {
            catalog.prefetch_flags(key as u32);
        }
        keys.iter().all(|&key| {
            let item = key as u32;
            let sum = sums.of(item);
            taker.offer(Proposal { item, score: sum.score, because: sum.because })
        })
    });
}

/// Number that is the smaller, the greater the positive score; ties by item.
fn key(item: u32, score: f32) -> u64 {
    u64::from(!score.to_bits()) << 32 | u64::from(item)
}

/// Visits runs of keys in ascending order until no more are wanted, and sorts no more of them than that takes.
fn ascending(mut keys: &mut [u64], mut visit: impl FnMut(&[u64]) -> bool) {
    let mut count = SORTED_FIRST;
    while !keys.is_empty() {
        count = count.min(keys.len());
        keys.select_nth_unstable(count - 1);
        let (least, rest) = keys.split_at_mut(count);
        least.sort_unstable();
        if !visit(least) {
            return;
        }
        (keys, count) = (rest, count * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_visited_in_order_as_far_as_wanted() {
        let scores: Vec<f32> = (0..2_000_u32).map(|item| (item * 7 % 500) as f32 + 0.5).collect();
        let mut keys: Vec<u64> = scores.iter().zip(0..).map(|(&score, item)| key(item, score)).collect();
        let mut expected: Vec<u32> = (0..2_000).collect();
        expected.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b)));
        for wanted in [1, 511, 513, 2_000] {
            let mut visited = Vec::new();
            ascending(&mut keys, |keys| {
                visited.extend(keys.iter().map(|&key| key as u32));
                visited.len() < wanted
            });
            assert!(visited.len() >= wanted && visited == expected[..visited.len()]);
        }
    }
}

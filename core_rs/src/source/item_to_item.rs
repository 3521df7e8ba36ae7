//! Neighbours of the query's seeds, summed: also viewed, also bought, bought together.

use super::{Proposal, Source, Taker};
use crate::{bundle::Relation, proto::Reason, query::Query, scratch};

/// Proposals that are sorted at first; a slate rarely wants more of one source.
const SORTED_FIRST: usize = 512;

pub(super) struct ItemToItem {
    pub(super) relation: Relation,
    pub(super) name: &'static str,
    pub(super) reason: Reason,
}

impl Source for ItemToItem {
    fn name(&self) -> &'static str {
        self.name
    }

    fn reason(&self) -> Reason {
        self.reason
    }

    fn enable(&self, query: &Query) -> bool {
        query.bundle.is_some_and(|bundle| bundle.has(self.relation)) && !query.seeds.is_empty()
    }

    fn propose(&self, query: &Query, taker: &mut dyn Taker) {
        let Some(bundle) = query.bundle else { return };
        scratch::with_sums(|sums| {
            let mut neighbours = Vec::new();
            for seed in &query.seeds {
                // First only read: so the memory fetches many ids at once.
                neighbours.clear();
                neighbours.extend(bundle.neighbours(self.relation, seed.item));
                for &(item, score) in &neighbours {
                    sums.add(item, seed.weight * score, seed.item);
                }
            }
            let positive = sums.all().filter(|(_, sum)| sum.score > 0.0);
            let mut keys: Vec<u64> = positive.map(|(item, sum)| key(item, sum.score)).collect();
            ascending(&mut keys, |keys| {
                for &key in keys {
                    query.state.catalog.prefetch_flags(key as u32);
                }
                keys.iter().all(|&key| {
                    let item = key as u32;
                    let sum = sums.of(item);
                    taker.offer(Proposal { item, score: sum.score, because: sum.because })
                })
            });
        });
    }
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

//! Found items as integers that sort best first: the score's bits before the item.

use super::blocks::LANES;
use crate::order::{ascend, descending};

/// Key of one item.
pub fn key(score: f32, item: u32) -> u64 {
    u64::from(descending(score)) << 32 | u64::from(item)
}

/// Score and item of a key.
pub fn parts(key: u64) -> (f32, u32) {
    (ascend((key >> 32) as u32), key as u32)
}

/// Adds the keys of the lanes whose bit is set; lane 0 is item `start`.
pub fn push(start: u32, mut mask: u16, scores: &[f32; LANES], keys: &mut Vec<u64>) {
    while mask != 0 {
        let lane = mask.trailing_zeros();
        keys.push(key(scores[lane as usize], start + lane));
        mask &= mask - 1;
    }
}

/// Keeps the best `k` keys, in no order.
pub fn keep_best(keys: &mut Vec<u64>, k: usize) {
    if keys.len() > k {
        if k > 0 {
            keys.select_nth_unstable(k - 1);
        }
        keys.truncate(k);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_score_then_item() {
        let mut keys = Vec::new();
        let scores = std::array::from_fn(|lane| (lane / 2) as f32);
        push(32, 0b1111_0000_0000_0001, &scores, &mut keys);
        keep_best(&mut keys, 4);
        keys.sort_unstable();
        let found: Vec<(f32, u32)> = keys.iter().map(|&key| parts(key)).collect();
        assert_eq!(found, [(7.0, 46), (7.0, 47), (6.0, 44), (6.0, 45)]);
        keep_best(&mut keys, 0);
        assert!(keys.is_empty());
    }
}

//! Where targets rank among all items, and the best items: what measures of recommenders read.

use rayon::prelude::*;

use super::{check_ids, check_lengths, check_offsets, check_positive, entries_of, top::Top};
use crate::error::{Error, Result};

/// Ranks of all targets, and the best `k` items of each row, one row after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranked {
    /// Place from 0 of each target; equal scores share the middle of their places, minus infinity ranks nowhere.
    pub ranks: Vec<f64>,
    /// Items, best first, `k` a row; ties by item.
    pub best: Vec<u32>,
}

/// Ranks the targets `targets[offsets[r]..offsets[r + 1]]` of each row of `scores` (rows × `n_items`) and finds its
/// best `k` items. NaN ranks nowhere. O(rows × items × targets of a row).
///
/// # Errors
/// When lengths do not fit, a target is outside the row, or `k` is more than the items.
pub fn rank(scores: &[f32], n_items: usize, offsets: &[i64], targets: &[u32], k: usize) -> Result<Ranked> {
    check_positive("n_items", n_items)?;
    check_lengths(&[("offsets", offsets.len()), ("scores", scores.len() / n_items + 1)])?;
    check_ids("targets", targets, n_items)?;
    if k > n_items {
        return Err(Error::out_of_range("k", format!("`k` is {k}; give at most {n_items}, the number of items")));
    }
    check_offsets("offsets", offsets, targets.len())?;
    let rows: Vec<(Vec<f64>, Vec<u32>)> = scores
        .par_chunks(n_items)
        .enumerate()
        .map(|(row, scores)| {
            let wanted = &targets[entries_of(offsets, row)];
            (wanted.iter().map(|&target| place(scores, scores[target as usize])).collect(), best(scores, k))
        })
        .collect();
    let mut ranked = Ranked::default();
    for (ranks, best) in rows {
        ranked.ranks.extend(ranks);
        ranked.best.extend(best);
    }
    Ok(ranked)
}

/// Middle of the places of the items with the score `own`.
fn place(scores: &[f32], own: f32) -> f64 {
    if !own.is_finite() {
        return f64::INFINITY;
    }
    let (mut above, mut level) = (0_u32, 0_u32);
    for &score in scores {
        above += u32::from(score > own);
        level += u32::from(score >= own);
    }
    f64::from(above) + f64::from(level - above - 1) / 2.0
}

fn best(scores: &[f32], k: usize) -> Vec<u32> {
    if k == 0 {
        return Vec::new();
    }
    let mut top = Top::of_any(k);
    for (item, &score) in scores.iter().enumerate() {
        if score >= top.floor() {
            top.offer(score, item as u32);
        }
    }
    let mut items: Vec<u32> = top.take().into_iter().map(|(_, item)| item).collect();
    let missing = k - items.len();
    let rest: Vec<u32> = (0..scores.len() as u32).filter(|item| !items.contains(item)).take(missing).collect();
    items.extend(rest);
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_share_the_middle_and_what_never_ranks_is_nowhere() {
        let scores = [3.0, 1.0, 1.0, 1.0, -2.0, f32::NEG_INFINITY];
        let ranked = rank(&scores, 6, &[0, 5], &[0, 1, 3, 4, 5], 5).expect("valid");
        assert_eq!(ranked.ranks, [0.0, 2.0, 2.0, 4.0, f64::INFINITY]);
        assert_eq!(ranked.best, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn rows_have_targets_of_their_own_and_lists_are_full() {
        let scores = [0.0, 0.0, f32::NAN, 5.0, 6.0, f32::NEG_INFINITY];
        let ranked = rank(&scores, 3, &[0, 1, 2], &[1, 0], 3).expect("valid");
        assert_eq!(ranked.ranks, [0.5, 1.0]);
        assert_eq!(ranked.best, [0, 1, 2, 1, 0, 2]);
    }

    #[test]
    fn faults_name_the_argument() {
        assert_eq!(rank(&[0.0], 1, &[0, 1], &[1], 1).expect_err("target 1 of 1").field, "targets");
        assert_eq!(rank(&[0.0], 1, &[0, 1], &[0], 2).expect_err("2 of 1").field, "k");
        assert_eq!(rank(&[0.0], 1, &[0, 2], &[0], 1).expect_err("offsets").field, "offsets");
    }
}

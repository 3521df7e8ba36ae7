//! Sequential rules: what comes after, or around, each item of a history.
//!
//! Source: Ludewig & Jannach 2018, "Evaluation of session-based recommendation algorithms", section 3.1 (SR).

use rayon::prelude::*;

use super::{Lists, check_ids, check_lengths, check_positive, check_range, counting_sort, top::Accumulator, top::Top};
use crate::error::{Error, Result};

/// Hyper-parameters of [`rules`].
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Furthest distance between two items of a rule, in steps of the sequence; at least 1.
    pub window: usize,
    /// Weight of a rule from the later item back to the earlier one, beside 1 of the way onwards; 0 to 1.
    pub backward: f32,
    /// Exponents by which the rows of the item that a rule leads from, and to, divide its weight; 0 to 1.
    pub damping: (f32, f32),
    /// Rules kept of each item, at least 1.
    pub k: usize,
    /// Age at which a rule's evidence counts half, in milliseconds before the newest row; 0 lets nothing age.
    pub half_life_ms: i64,
}

/// Best rules from each item: the sum over its occurrences of `1 / distance` × decay of age, for each item around,
/// damped by how often both ends occur.
///
/// A sequence is a run of equal values of `sequence` (a visitor or a session), in order of time. The age of a pair is
/// that of its later row. A rule from an item to itself is left out. O(rows × window).
///
/// # Errors
/// When lengths differ, `sequence` is not sorted, an item is outside the table or a hyper-parameter is out of range.
pub fn rules(sequence: &[u32], item: &[u32], time_ms: &[i64], n_items: usize, options: &Options) -> Result<Lists> {
    check(sequence, item, time_ms, n_items, options)?;
    let log = Log { sequence, item, freshness: freshness(time_ms, options.half_life_ms) };
    let (starts, occurrences) = occurrences(item, n_items);
    let rows_of = |item: usize| (starts[item + 1] - starts[item]).max(1) as f32;
    let damped: Vec<f32> = (0..n_items).map(|item| rows_of(item).powf(options.damping.1)).collect();
    let ranked: Vec<_> = (0..n_items)
        .into_par_iter()
        .with_max_len(256)
        .map_init(
            || (Accumulator::new(n_items), Top::new(options.k)),
            |(sums, top), from| {
                let rows = &occurrences[starts[from]..starts[from + 1]];
                let own = rows_of(from).powf(options.damping.0);
                sums.begin(0..n_items, rows.len() * options.window);
                for &row in rows {
                    log.add_around(row as usize, options, sums);
                }
                sums.end(
                    &damped,
                    top.floor(),
                    |_, other| own * other,
                    |score, to| {
                        if to as usize != from {
                            top.offer(score, to);
                        }
                        top.floor()
                    },
                );
                top.take()
            },
        )
        .collect();
    Ok(ranked.into_iter().collect())
}

fn check(sequence: &[u32], item: &[u32], time_ms: &[i64], n_items: usize, options: &Options) -> Result<()> {
    check_lengths(&[("sequence", sequence.len()), ("item", item.len()), ("time_ms", time_ms.len())])?;
    check_ids("item", item, n_items)?;
    check_positive("window", options.window)?;
    check_positive("k", options.k)?;
    check_range("backward", options.backward, 0.0, 1.0)?;
    check_range("damping", options.damping.0, 0.0, 1.0)?;
    check_range("damping", options.damping.1, 0.0, 1.0)?;
    if options.half_life_ms < 0 {
        return Err(Error::out_of_range("half_life_ms", "`half_life_ms` is negative; give 0 for none, or more"));
    }
    if !sequence.is_sorted() {
        return Err(Error::out_of_range("sequence", "`sequence` is not sorted; sort the rows by sequence, then time"));
    }
    Ok(())
}

/// Weight of each row by its age relative to the newest one.
fn freshness(time_ms: &[i64], half_life_ms: i64) -> Vec<f32> {
    let newest = time_ms.iter().copied().max().unwrap_or_default();
    let halvings = |time: i64| if half_life_ms == 0 { 0.0 } else { (newest - time) as f64 / half_life_ms as f64 };
    time_ms.iter().map(|&time| (-halvings(time)).exp2() as f32).collect()
}

/// Rows of every item: item `i` is in the rows `rows[starts[i]..starts[i + 1]]`, ascending.
fn occurrences(item: &[u32], n_items: usize) -> (Vec<usize>, Vec<u32>) {
    let (starts, mut place) = counting_sort(item.iter().copied(), n_items);
    let mut rows = vec![0; item.len()];
    for (row, &item) in item.iter().enumerate() {
        rows[place(item)] = row as u32;
    }
    (starts, rows)
}

/// Rows in order of sequence and time.
struct Log<'a> {
    sequence: &'a [u32],
    item: &'a [u32],
    freshness: Vec<f32>,
}

impl Log<'_> {
    /// Adds the evidence of one occurrence: the rows after it, and before it where rules have no direction.
    fn add_around(&self, row: usize, options: &Options, sums: &mut Accumulator) {
        let same = |other: &usize| self.sequence[*other] == self.sequence[row];
        let last = self.item.len().min(row + options.window + 1);
        let after = (row + 1..last).take_while(same);
        for other in after {
            sums.add_one(self.item[other], self.freshness[other] / (other - row) as f32);
        }
        if options.backward > 0.0 {
            for other in (row.saturating_sub(options.window)..row).rev().take_while(same) {
                sums.add_one(self.item[other], options.backward * self.freshness[row] / (row - other) as f32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options = Options { window: 2, backward: 0.0, damping: (0.0, 0.0), k: 5, half_life_ms: 0 };

    #[test]
    fn rules_lead_onwards_and_stay_within_a_sequence() {
        let lists = rules(&[0, 0, 0, 1], &[0, 1, 2, 3], &[0; 4], 4, &OPTIONS).expect("valid");
        assert_eq!(lists.list(0), ([1, 2].as_slice(), [1.0, 0.5].as_slice()));
        assert_eq!(lists.list(2).0, [0_u32; 0]);
        assert_eq!(lists.list(3).0, [0_u32; 0]);
    }

    #[test]
    fn rules_lead_back_by_a_weight_of_their_own() {
        let lists = rules(&[0, 0], &[0, 1], &[0; 2], 2, &Options { backward: 0.5, ..OPTIONS }).expect("valid");
        assert_eq!(lists.list(0), ([1].as_slice(), [1.0].as_slice()));
        assert_eq!(lists.list(1), ([0].as_slice(), [0.5].as_slice()));
    }

    #[test]
    fn many_rows_of_either_end_divide_a_rule() {
        let options = Options { damping: (0.5, 1.0), ..OPTIONS };
        let lists = rules(&[0, 0, 1, 1, 2], &[0, 1, 0, 2, 2], &[0; 5], 3, &options).expect("valid");
        let root = 2.0_f32.sqrt();
        assert_eq!(lists.list(0), ([1, 2].as_slice(), [1.0 / root, 1.0 / (root * 2.0)].as_slice()));
    }

    #[test]
    fn old_evidence_counts_less() {
        let options = Options { half_life_ms: 10, ..OPTIONS };
        let lists = rules(&[0, 0, 1, 1], &[0, 1, 0, 2], &[0, 0, 10, 10], 3, &options).expect("valid");
        assert_eq!(lists.list(0), ([2, 1].as_slice(), [1.0, 0.5].as_slice()));
    }

    #[test]
    fn faults_name_the_column() {
        let error = rules(&[1, 0], &[0, 0], &[0, 0], 1, &OPTIONS).expect_err("not sorted");
        assert_eq!(error.field, "sequence");
        let error = rules(&[0], &[0], &[0], 1, &Options { window: 0, ..OPTIONS }).expect_err("window");
        assert_eq!(error.field, "window");
    }
}

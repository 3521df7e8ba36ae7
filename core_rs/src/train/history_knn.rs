//! Items by the histories that are nearest to a history: user-to-user and session-to-session neighbours.
//!
//! Sources: Jannach & Ludewig 2017, "When recurrent neural networks meet the neighborhood for session-based
//! recommendation"; Garg et al. 2019, "Sequence and time aware neighborhood for session-based recommendations" (STAN),
//! section 3.

use rayon::prelude::*;

use super::{
    check_ids, check_lengths, check_offsets, check_positive, check_range, counting_sort, entries_of, top::Top,
};
use crate::error::{Error, Result};

/// Histories to learn from: history `r` has the items `items[offsets[r]..offsets[r + 1]]`, distinct, in order of time.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// Start of every history, and the total.
    pub offsets: &'a [i64],
    /// Item of each entry.
    pub items: &'a [u32],
    /// Factor of each history's likeness, e.g. of its length and age; positive.
    pub weights: &'a [f32],
}

/// Histories to score for, entries as in [`Table`].
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// History of the table that is the query's own and has no say; any number outside the table: none.
    pub own: &'a [u32],
    /// Start of every query, and the total.
    pub offsets: &'a [i64],
    /// Item of each entry, older ones first.
    pub items: &'a [u32],
    /// Weight of each entry, not negative.
    pub weights: &'a [f32],
}

/// Hyper-parameters of [`score`].
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Nearest histories that have a say, at least 1.
    pub neighbours: usize,
    /// Exponent of likeness, more than 0.
    pub power: f32,
    /// Factor for each step of distance from the last common item, in (0, 1].
    pub nearby: f32,
    /// Factor for items before the last common item, in `[0, 1]`.
    pub behind: f32,
}

/// Writes into row `q` of `out` (queries × items) the sum over the nearest histories of likeness to the power, times
/// the closeness of the item to the common item that is last in the query. Likeness is the sum of the query's weights
/// of common items, times the history's factor; ties go to the earlier history. O(occurrences of the query's items +
/// neighbours × their length) for each query.
///
/// # Errors
/// When lengths differ, an id is outside the table, or a hyper-parameter is out of range.
pub fn score(table: &Table, queries: &Queries, n_items: usize, options: &Options, out: &mut [f32]) -> Result<()> {
    check(table, queries, n_items, options)?;
    if out.len() != queries.own.len() * n_items {
        return Err(Error::out_of_range("out", "`out` must have a row for each query and a column for each item"));
    }
    let index = Index::new(table, n_items);
    let n_rows = table.weights.len();
    out.par_chunks_mut(n_items.max(1)).enumerate().for_each_init(
        || Near {
            sums: vec![0.0; n_rows],
            last: vec![0; n_rows],
            touched: Vec::new(),
            top: Top::new(options.neighbours),
        },
        |near, (query, scores)| {
            scores.fill(0.0);
            for (likeness, row) in near.find(table, &index, queries, query) {
                let said = likeness.powf(options.power);
                add(table, row as usize, near.last[row as usize] as usize, said, options, scores);
            }
        },
    );
    Ok(())
}

fn check(table: &Table, queries: &Queries, n_items: usize, options: &Options) -> Result<()> {
    check_lengths(&[("table.weights", table.weights.len() + 1), ("table.offsets", table.offsets.len())])?;
    check_lengths(&[("queries.own", queries.own.len() + 1), ("queries.offsets", queries.offsets.len())])?;
    check_lengths(&[("queries.items", queries.items.len()), ("queries.weights", queries.weights.len())])?;
    check_offsets("table.offsets", table.offsets, table.items.len())?;
    check_offsets("queries.offsets", queries.offsets, queries.items.len())?;
    check_ids("table.items", table.items, n_items)?;
    check_ids("queries.items", queries.items, n_items)?;
    check_positive("neighbours", options.neighbours)?;
    check_range("power", options.power, f32::MIN_POSITIVE, f32::MAX)?;
    check_range("nearby", options.nearby, f32::MIN_POSITIVE, 1.0)?;
    check_range("behind", options.behind, 0.0, 1.0)
}

/// Where every item occurs in the table: entry and history.
struct Index {
    starts: Vec<usize>,
    places: Vec<(u32, u32)>,
}

impl Index {
    fn new(table: &Table, n_items: usize) -> Self {
        let (starts, mut place) = counting_sort(table.items.iter().copied(), n_items);
        let mut places = vec![(0, 0); table.items.len()];
        for row in 0..table.weights.len() {
            for entry in entries_of(table.offsets, row) {
                places[place(table.items[entry])] = (entry as u32, row as u32);
            }
        }
        Self { starts, places }
    }
}

/// Room of one thread for its search.
struct Near {
    sums: Vec<f32>,
    /// Entry of each touched history that holds the common item that is last in the query.
    last: Vec<u32>,
    touched: Vec<u32>,
    top: Top,
}

impl Near {
    /// Likeness and number of the nearest histories, best first.
    fn find(&mut self, table: &Table, index: &Index, queries: &Queries, query: usize) -> Vec<(f32, u32)> {
        for entry in entries_of(queries.offsets, query) {
            let (item, weight) = (queries.items[entry] as usize, queries.weights[entry]);
            if weight <= 0.0 {
                continue;
            }
            for &(place, row) in &index.places[index.starts[item]..index.starts[item + 1]] {
                let sum = &mut self.sums[row as usize];
                if *sum <= 0.0 {
                    self.touched.push(row);
                }
                *sum += weight;
                self.last[row as usize] = place;
            }
        }
        for row in self.touched.drain(..) {
            let sum = std::mem::take(&mut self.sums[row as usize]);
            if row != queries.own[query] {
                self.top.offer(sum * table.weights[row as usize], row);
            }
        }
        self.top.take()
    }
}

/// Adds what one history says.
fn add(table: &Table, row: usize, last: usize, said: f32, options: &Options, scores: &mut [f32]) {
    let range = entries_of(table.offsets, row);
    let mut weight = said;
    for &item in &table.items[last..range.end] {
        scores[item as usize] += weight;
        weight *= options.nearby;
    }
    weight = said * options.behind;
    for &item in table.items[range.start..last].iter().rev() {
        weight *= options.nearby;
        scores[item as usize] += weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table = Table { offsets: &[0, 3, 5], items: &[0, 1, 2, 1, 3], weights: &[1.0, 0.5] };
    const OPTIONS: Options = Options { neighbours: 9, power: 1.0, nearby: 0.5, behind: 0.5 };

    fn scores(own: u32, items: &[u32], weights: &[f32], options: &Options) -> Vec<f32> {
        let queries = Queries { own: &[own], offsets: &[0, items.len() as i64], items, weights };
        let mut out = vec![9.0; 4];
        score(&TABLE, &queries, 4, options, &mut out).expect("valid");
        out
    }

    #[test]
    fn items_near_the_last_common_one_count_most() {
        assert_eq!(scores(9, &[1], &[1.0], &OPTIONS), [0.25, 1.5, 0.5, 0.25]);
    }

    #[test]
    fn own_history_and_far_ones_have_no_say() {
        assert_eq!(scores(0, &[1], &[1.0], &OPTIONS), [0.0, 0.5, 0.0, 0.25]);
        let nearest = Options { neighbours: 1, power: 2.0, nearby: 1.0, ..OPTIONS };
        assert_eq!(scores(9, &[0, 1], &[1.0, 1.0], &nearest), [2.0, 4.0, 4.0, 0.0]);
    }

    #[test]
    fn faults_name_the_argument() {
        let queries = Queries { own: &[0], offsets: &[0, 1], items: &[7], weights: &[1.0] };
        let error = score(&TABLE, &queries, 4, &OPTIONS, &mut [0.0; 4]).expect_err("item 7 of 4");
        assert_eq!(error.field, "queries.items");
        let error = score(&TABLE, &Queries { items: &[1], ..queries }, 4, &OPTIONS, &mut []).expect_err("out");
        assert_eq!(error.field, "out");
    }
}

//! Kernels of the trainers and of their evaluation: pure functions over slices, parallel by rayon.
//!
//! A result depends on the input alone: every sum is taken in one fixed order by one thread, and ties break by the
//! smaller id, so the count of threads never shows.

pub mod als;
pub mod csr;
pub mod history_knn;
pub mod item_to_item;
pub mod next_basket;
pub mod pair_counts;
pub mod ranks;
pub mod sequence_rules;
pub mod top;

use std::ops::Range;

use crate::error::{Error, Result};

/// Ranked lists: list `i` has the entries `offsets[i]..offsets[i + 1]`, best first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lists {
    /// Start of every list, and the total.
    pub offsets: Vec<usize>,
    /// Items, best first in each list.
    pub items: Vec<u32>,
    /// Score of each entry, descending in each list; finite and positive.
    pub scores: Vec<f32>,
}

impl Lists {
    /// Items and scores of list `i`.
    pub fn list(&self, i: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[i]..self.offsets[i + 1];
        (&self.items[range.clone()], &self.scores[range])
    }
}

impl FromIterator<Vec<(f32, u32)>> for Lists {
    fn from_iter<T: IntoIterator<Item = Vec<(f32, u32)>>>(ranked: T) -> Self {
        let mut lists = Self { offsets: vec![0], ..Self::default() };
        for entries in ranked {
            lists.items.extend(entries.iter().map(|&(_, item)| item));
            lists.scores.extend(entries.iter().map(|&(score, _)| score));
            lists.offsets.push(lists.items.len());
        }
        lists
    }
}

/// Checks that the columns of a table have one length.
fn check_lengths(columns: &[(&str, usize)]) -> Result<()> {
    let (first, length) = columns[0];
    match columns.iter().find(|(_, other)| *other != length) {
        Some((name, other)) => Err(Error::out_of_range(
            *name,
            format!("`{first}` has {length} rows and `{name}` has {other}; give columns of one length"),
        )),
        None => Ok(()),
    }
}

/// Checks that the starts of rows ascend from 0 to the number of entries.
fn check_offsets(name: &str, offsets: &[i64], total: usize) -> Result<()> {
    if offsets.first() == Some(&0) && offsets.last() == Some(&(total as i64)) && offsets.is_sorted() {
        return Ok(());
    }
    Err(Error::out_of_range(name, format!("`{name}` must ascend from 0 to {total}, the number of entries")))
}

/// Entries of a row, whose starts were checked.
fn entries_of(offsets: &[i64], row: usize) -> Range<usize> {
    offsets[row] as usize..offsets[row + 1] as usize
}

/// Stable counting sort by keys below `n_keys`: the start of every key and the total, and what gives each entry its
/// place when it is asked with their keys in turn.
fn counting_sort(keys: impl Iterator<Item = u32>, n_keys: usize) -> (Vec<usize>, impl FnMut(u32) -> usize) {
    let mut starts = vec![0; n_keys + 1];
    for key in keys {
        starts[key as usize + 1] += 1;
    }
    for key in 0..n_keys {
        starts[key + 1] += starts[key];
    }
    let mut next = starts.clone();
    let place = move |key: u32| {
        let slot = &mut next[key as usize];
        *slot += 1;
        *slot - 1
    };
    (starts, place)
}

/// Checks that every id is below `count`.
fn check_ids(name: &str, ids: &[u32], count: usize) -> Result<()> {
    match ids.iter().position(|&id| id as usize >= count) {
        Some(row) => Err(Error::out_of_range(
            name,
            format!("`{name}[{row}]` is {}, but ids must be below {count}; give the size of the table", ids[row]),
        )),
        None => Ok(()),
    }
}

/// Checks that a span of ids is in order and within `count`.
fn check_span(name: &str, span: &Range<usize>, count: usize) -> Result<()> {
    if span.start <= span.end && span.end <= count {
        return Ok(());
    }
    let Range { start, end } = span;
    Err(Error::out_of_range(name, format!("`{name}` are {start} to {end}; give a span within 0 to {count}")))
}

/// Checks that a hyper-parameter is finite and within `[low, high]`.
fn check_range(name: &str, value: f32, low: f32, high: f32) -> Result<()> {
    if value.is_finite() && (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::out_of_range(name, format!("`{name}` is {value}; give a number from {low} to {high}")))
}

/// Checks that a count is at least one.
fn check_positive(name: &str, value: usize) -> Result<()> {
    if value > 0 {
        return Ok(());
    }
    Err(Error::out_of_range(name, format!("`{name}` is 0; give at least 1")))
}

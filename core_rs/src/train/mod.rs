//! Counting kernels of the trainers: pure functions over slices, parallel by rayon.
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

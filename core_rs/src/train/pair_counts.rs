//! Numbers of rows that pairs of items share, counted in parts of a table and added up.
//!
//! Counts are integers until all parts are together, so neighbours are those of the whole table to the last bit.

use std::ops::Range;

use rayon::prelude::*;

use super::item_to_item::{Measure, Options, Searched, by_measure};
use super::{Lists, check_ids, check_span, csr::Csr, top::Top};
use crate::error::{Error, Result};

/// Shared rows of a span of items with all items: item `first + i` of the span has the entries
/// `offsets[i]..offsets[i + 1]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairCounts {
    /// Start of the entries of every item, and the total.
    pub offsets: Vec<u64>,
    /// The other item of each entry, ascending for each item; the item itself is among them.
    pub others: Vec<u32>,
    /// Rows that both items are in, above 0.
    pub counts: Vec<u32>,
}

/// Borrowed [`PairCounts`].
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// As of [`PairCounts::offsets`].
    pub offsets: &'a [u64],
    /// As of [`PairCounts::others`].
    pub others: &'a [u32],
    /// As of [`PairCounts::counts`].
    pub counts: &'a [u32],
}

impl<'a> From<&'a PairCounts> for Part<'a> {
    fn from(pairs: &'a PairCounts) -> Self {
        Self { offsets: &pairs.offsets, others: &pairs.others, counts: &pairs.counts }
    }
}

/// Counts the rows of `table` that each item of the span `items` shares with every item. Weights are not read.
///
/// O(entries + rows + columns + additions), the additions being the entries of the rows that hold an item, summed over
/// the items of the span.
///
/// # Errors
/// When the span goes beyond the columns.
pub fn count(table: &Csr, items: Range<usize>) -> Result<PairCounts> {
    check_span("items", &items, table.n_columns)?;
    let rows_of = table.transposed();
    let counted: Vec<Vec<(u32, u32)>> = items
        .into_par_iter()
        .map_init(
            || Tally::new(table.n_columns),
            |tally, item| {
                for &row in rows_of.row(item).0 {
                    for &other in table.row(row as usize).0 {
                        tally.add(other, 1);
                    }
                }
                tally.take()
            },
        )
        .collect();
    let mut pairs = PairCounts { offsets: vec![0], ..PairCounts::default() };
    for entries in counted {
        pairs.others.extend(entries.iter().map(|&(other, _)| other));
        pairs.counts.extend(entries.iter().map(|&(_, count)| count));
        pairs.offsets.push(pairs.others.len() as u64);
    }
    Ok(pairs)
}

/// Exact top-`k` neighbours of the span of items that begins at `first`, as [`super::item_to_item::neighbours`] gives
/// for the table whose `parts` were counted; `sizes` are the rows of each item in the whole table.
///
/// Equal as long as no item is in more than 2^24 rows, above which additions of that kernel lose ones. O(entries).
///
/// # Errors
/// When the measure needs the rows themselves, an option is out of range, or the parts do not fit each other.
pub fn neighbours(parts: &[Part<'_>], sizes: &[u32], first: usize, options: &Options) -> Result<Lists> {
    options.check()?;
    if matches!(options.measure, Measure::TfIdf | Measure::Lift) {
        return Err(Error::out_of_range(
            "measure",
            "this measure needs more than counts of pairs; take cosine, asymmetric, jaccard or conditional",
        ));
    }
    let length = parts.first().map_or(0, |part| part.offsets.len().saturating_sub(1));
    check_span("items", &(first..first.saturating_add(length)), sizes.len())?;
    for part in parts {
        part.check(length, sizes.len())?;
    }
    Ok(by_measure(&Merged { parts, sizes, span: first..first + length }, options, 0))
}

/// Parts that are added up item by item.
struct Merged<'a> {
    parts: &'a [Part<'a>],
    sizes: &'a [u32],
    span: Range<usize>,
}

impl Searched for Merged<'_> {
    fn search<D>(&self, k: usize, norms: [impl Fn(f32) -> f32; 2], denominator: D) -> Lists
    where
        D: Fn(f32, f32, f32) -> f32 + Sync,
    {
        let [firsts, seconds] =
            norms.map(|norm| self.sizes.iter().map(|&size| norm(size as f32)).collect::<Vec<f32>>());
        let ranked: Vec<_> = self
            .span
            .clone()
            .into_par_iter()
            .map_init(
                || (Tally::new(self.sizes.len()), Top::new(k)),
                |(tally, top), item| {
                    for part in self.parts {
                        let range = part.offsets[item - self.span.start]..part.offsets[item - self.span.start + 1];
                        let range = range.start as usize..range.end as usize;
                        for (&other, &count) in part.others[range.clone()].iter().zip(&part.counts[range]) {
                            tally.add(other, count);
                        }
                    }
                    for (other, count) in tally.take() {
                        if other as usize != item {
                            let dot = count as f32;
                            top.offer(dot / denominator(dot, firsts[item], seconds[other as usize]), other);
                        }
                    }
                    top.take()
                },
            )
            .collect();
        ranked.into_iter().collect()
    }
}

impl Part<'_> {
    fn check(&self, length: usize, n_items: usize) -> Result<()> {
        let ends_well = self.offsets.last() == Some(&(self.others.len() as u64));
        if self.offsets.len() != length + 1 || !self.offsets.is_sorted() || !ends_well {
            return Err(Error::out_of_range("offsets", "`offsets` of the parts do not fit; count one span in each"));
        }
        if self.counts.len() != self.others.len() {
            return Err(Error::out_of_range("counts", "`counts` and `others` differ in length; give one each"));
        }
        check_ids("others", self.others, n_items)
    }
}

/// Counts by item, cleared as they are taken.
struct Tally {
    counts: Vec<u32>,
    touched: Vec<u32>,
}

impl Tally {
    fn new(n_items: usize) -> Self {
        Self { counts: vec![0; n_items], touched: Vec::new() }
    }

    fn add(&mut self, item: u32, count: u32) {
        let sum = &mut self.counts[item as usize];
        if *sum == 0 {
            self.touched.push(item);
        }
        *sum += count;
    }

    /// Items with their counts, ascending; leaves nothing behind.
    fn take(&mut self) -> Vec<(u32, u32)> {
        self.touched.sort_unstable();
        let counts = &mut self.counts;
        self.touched.drain(..).map(|item| (item, std::mem::take(&mut counts[item as usize]))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::item_to_item;
    use super::*;

    const SHAPE: (usize, usize) = (97, 211);

    fn pairs() -> (Vec<u32>, Vec<u32>) {
        let numbers = (0..4000_u32).map(|n| n.wrapping_mul(2_654_435_761) >> 16);
        numbers.map(|n| (n % 97, n / 97 % 211)).unzip()
    }

    /// Table of the rows that `keep` names, with the shape of the whole.
    fn table(keep: impl Fn(u32) -> bool) -> Csr {
        let (rows, items) = pairs();
        let (rows, items): (Vec<_>, Vec<_>) = rows.into_iter().zip(items).filter(|&(row, _)| keep(row)).unzip();
        Csr::from_pairs(&rows, &items, None, SHAPE).expect("valid")
    }

    fn sizes() -> Vec<u32> {
        let by_item = table(|_| true).transposed();
        (0..SHAPE.1).map(|item| by_item.row_len(item) as u32).collect()
    }

    fn options(measure: Measure) -> Options {
        Options { measure, k: 9, shrink: 3.0, alpha: 0.3 }
    }

    #[test]
    fn parts_add_up_to_the_neighbours_of_the_whole() {
        for measure in [Measure::Cosine, Measure::Asymmetric, Measure::Jaccard, Measure::Conditional] {
            let whole = item_to_item::neighbours(&table(|_| true), &options(measure)).expect("valid");
            let mut lists = Vec::new();
            for span in [0..64, 64..64, 64..211] {
                let first = span.start;
                let counted = [0, 1, 2].map(|part| count(&table(|row| row % 3 == part), span.clone()).expect("valid"));
                let parts: Vec<Part<'_>> = counted.iter().map(Part::from).collect();
                let found = neighbours(&parts, &sizes(), first, &options(measure)).expect("valid");
                lists.extend((0..span.len()).map(|item| {
                    let (items, scores) = found.list(item);
                    scores.iter().copied().zip(items.iter().copied()).collect::<Vec<_>>()
                }));
            }
            assert_eq!(lists.into_iter().collect::<Lists>(), whole, "{measure:?}");
        }
    }

    #[test]
    fn an_item_shares_its_rows_with_itself() {
        let counted = count(&table(|_| true), 0..211).expect("valid");
        for (item, size) in sizes().into_iter().enumerate() {
            let range = counted.offsets[item] as usize..counted.offsets[item + 1] as usize;
            let own = counted.others[range.clone()].binary_search(&(item as u32)).expect("itself");
            assert_eq!(counted.counts[range][own], size);
        }
    }

    #[test]
    fn faults_name_the_argument() {
        let counted = count(&table(|_| true), 0..5).expect("valid");
        let part = Part::from(&counted);
        let fault = |parts: &[Part<'_>], first, measure| {
            neighbours(parts, &sizes(), first, &options(measure)).expect_err("a fault").field
        };
        assert_eq!(fault(&[part], 0, Measure::Lift), "measure");
        assert_eq!(fault(&[part], 208, Measure::Cosine), "items");
        assert_eq!(fault(&[part, Part { counts: &[], ..part }], 0, Measure::Cosine), "counts");
        assert_eq!(fault(&[part, Part { offsets: &[0, 1], ..part }], 0, Measure::Cosine), "offsets");
        assert_eq!(count(&table(|_| true), 5..212).expect_err("beyond").field, "items");
    }
}

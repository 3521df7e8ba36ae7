//! Sparse matrix by rows, made of pairs: the table of the kernels that count.

use super::{check_ids, check_lengths, counting_sort};
use crate::error::{Error, Result};

/// Sparse matrix: row `r` has the columns `columns[offsets[r]..offsets[r + 1]]`, ascending and distinct.
#[derive(Clone, Debug, PartialEq)]
pub struct Csr {
    /// Start of every row, and the total.
    pub offsets: Vec<usize>,
    /// Column of each entry.
    pub columns: Vec<u32>,
    /// Value of each entry.
    pub values: Vec<f32>,
    /// Width of the matrix.
    pub n_columns: usize,
}

impl Csr {
    /// Matrix of (row, column) pairs in any order; the weights of a repeated pair are added. Without weights every
    /// pair is 1, however often it comes. O(pairs + rows + columns).
    ///
    /// # Errors
    /// When lengths differ, an id is outside `shape` or a weight is negative or not finite.
    pub fn from_pairs(
        rows: &[u32],
        columns: &[u32],
        weights: Option<&[f32]>,
        (n_rows, n_columns): (usize, usize),
    ) -> Result<Self> {
        check_lengths(&[("rows", rows.len()), ("columns", columns.len())])?;
        check_ids("rows", rows, n_rows)?;
        check_ids("columns", columns, n_columns)?;
        let ones = vec![1.0; if weights.is_none() { rows.len() } else { 0 }];
        let values = weights.unwrap_or(&ones);
        check_lengths(&[("rows", rows.len()), ("weights", values.len())])?;
        check_weights(values)?;
        let pairs = rows.iter().zip(columns).zip(values).map(|((&row, &column), &value)| (column, row, value));
        let mut matrix = Self::sorted(pairs, n_columns, n_rows).transposed();
        matrix.merge(weights.is_some());
        Ok(matrix)
    }

    /// Columns and values of one row.
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[row]..self.offsets[row + 1];
        (&self.columns[range.clone()], &self.values[range])
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of entries of one row.
    pub fn row_len(&self, row: usize) -> usize {
        self.offsets[row + 1] - self.offsets[row]
    }

    /// Columns as rows. O(entries + rows + columns).
    pub fn transposed(&self) -> Self {
        let entries = (0..self.n_rows()).flat_map(|row| {
            let (columns, values) = self.row(row);
            columns.iter().zip(values).map(move |(&column, &value)| (column, row as u32, value))
        });
        Self::sorted(entries, self.n_columns, self.n_rows())
    }

    /// The same matrix with the rows in another order: row `i` of the result is row `order[i]`.
    pub fn reordered(&self, order: &[u32]) -> Self {
        let mut result = Self {
            offsets: vec![0],
            columns: Vec::with_capacity(self.columns.len()),
            values: Vec::with_capacity(self.values.len()),
            n_columns: self.n_columns,
        };
        for &row in order {
            let (columns, values) = self.row(row as usize);
            result.columns.extend_from_slice(columns);
            result.values.extend_from_slice(values);
            result.offsets.push(result.columns.len());
        }
        result
    }

    /// Matrix of (row, column, value); entries of a row keep their order.
    fn sorted(entries: impl Iterator<Item = (u32, u32, f32)> + Clone, n_rows: usize, n_columns: usize) -> Self {
        let (offsets, mut place) = counting_sort(entries.clone().map(|(row, _, _)| row), n_rows);
        let (mut columns, mut values) = (vec![0; offsets[n_rows]], vec![0.0; offsets[n_rows]]);
        for (row, column, value) in entries {
            let place = place(row);
            columns[place] = column;
            values[place] = value;
        }
        Self { offsets, columns, values, n_columns }
    }

    /// Joins entries of the same row and column, which lie side by side; `add` sums them.
    fn merge(&mut self, add: bool) {
        let (mut read, mut write) = (0, 0);
        for row in 0..self.n_rows() {
            let (start, end) = (write, self.offsets[row + 1]);
            while read < end {
                if write > start && self.columns[write - 1] == self.columns[read] {
                    self.values[write - 1] += if add { self.values[read] } else { 0.0 };
                } else {
                    self.columns[write] = self.columns[read];
                    self.values[write] = self.values[read];
                    write += 1;
                }
                read += 1;
            }
            self.offsets[row + 1] = write;
        }
        self.columns.truncate(write);
        self.values.truncate(write);
    }
}

fn check_weights(weights: &[f32]) -> Result<()> {
    match weights.iter().position(|weight| !weight.is_finite() || *weight < 0.0) {
        Some(row) => Err(Error::out_of_range(
            "weights",
            format!("`weights[{row}]` is {}; give finite weights that are not negative", weights[row]),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_pairs_become_one_entry() {
        let (rows, columns) = ([1, 0, 1, 1], [2, 1, 0, 2]);
        let binary = Csr::from_pairs(&rows, &columns, None, (3, 3)).expect("valid");
        assert_eq!(binary.offsets, [0, 1, 3, 3]);
        assert_eq!(binary.columns, [1, 0, 2]);
        assert_eq!(binary.values, [1.0, 1.0, 1.0]);
        let weighted = Csr::from_pairs(&rows, &columns, Some(&[0.5, 1.0, 2.0, 3.0]), (3, 3)).expect("valid");
        assert_eq!(weighted.values, [1.0, 2.0, 3.5]);
    }

    #[test]
    fn two_transpositions_change_nothing() {
        let matrix = Csr::from_pairs(&[3, 0, 3, 2], &[1, 4, 0, 1], Some(&[1.0, 2.0, 3.0, 4.0]), (5, 6)).expect("valid");
        assert_eq!(matrix.transposed().transposed(), matrix);
        assert_eq!(matrix.transposed().row(1), ([2, 3].as_slice(), [4.0, 1.0].as_slice()));
    }

    #[test]
    fn faults_name_the_row() {
        let error = Csr::from_pairs(&[0, 1], &[0, 9], None, (2, 3)).expect_err("column 9 of 3");
        assert!(error.to_string().contains("`columns[1]` is 9"), "{error}");
        let error = Csr::from_pairs(&[0, 1], &[0], None, (2, 3)).expect_err("lengths differ");
        assert!(error.to_string().contains("one length"), "{error}");
        let error = Csr::from_pairs(&[0], &[0], Some(&[f32::NAN]), (1, 1)).expect_err("NaN");
        assert!(error.to_string().contains("`weights[0]` is NaN"), "{error}");
    }
}

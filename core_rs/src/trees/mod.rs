//! Tree ensembles of a ranker's ONNX graph, evaluated without onnxruntime and equal to it up to rounding.
//!
//! A graph is compiled when all it does is to put columns of ensembles side by side; `None` means that onnxruntime must
//! run it.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod ensemble;
mod forest;
mod graph;
mod scalar;

use crate::{onnx::GraphProto, processor::is_wide};
use ensemble::Post;
use forest::{Compiled, Forest, ROWS};

/// A compiled graph.
pub struct Trees {
    forest: Forest,
    /// Sum of each column, and what is done with it.
    columns: Vec<(u32, Post)>,
    width: usize,
    wide: bool,
}

impl Trees {
    /// Compiles a graph whose input has `width` columns; `None` where it is not only tree ensembles.
    pub fn compile(graph: &GraphProto, width: usize) -> Option<Self> {
        let (forest, columns) = graph::read(graph)?;
        let inside = forest.columns.iter().all(|column| (column.feature as usize) < width);
        (inside && !columns.is_empty()).then(|| Self { forest, columns, width, wide: is_wide() })
    }

    /// The same without the instructions that not every processor has; answers are the same.
    pub fn scalar(self) -> Self {
        Self { wide: false, ..self }
    }

    /// Number of columns that it answers.
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Bytes held, without the allocator's overhead.
    pub fn bytes(&self) -> usize {
        let tree = |tree: &Compiled| match tree {
            Compiled::Table(table) => size_of_val(&**table),
            Compiled::Words(words) => words
                .iter()
                .map(|word| size_of_val(word) + size_of_val(&*word.strikes) + size_of_val(&*word.leaves))
                .sum(),
        };
        self.forest.trees.iter().map(tree).sum()
    }

    /// Answers of rows of `width` features, row after row; values beyond the last whole row are left out.
    ///
    /// Features are finite or missing (NaN).
    pub fn score(&self, features: &[f32]) -> Vec<f32> {
        let rows = features.len() / self.width;
        let mut answers = vec![0.0; rows * self.columns.len()];
        let mut values = vec![[0.0; ROWS]; self.forest.columns.len().max(1)];
        let mut sums = vec![[0.0; ROWS]; self.forest.base.len()];
        let blocks = features.chunks(ROWS * self.width).zip(answers.chunks_mut(ROWS * self.columns.len()));
        for (features, answers) in blocks {
            self.turn(features, &mut values);
            for (sum, &base) in sums.iter_mut().zip(&self.forest.base) {
                sum.fill(base);
            }
            self.add(&values, &mut sums);
            for (row, answers) in answers.chunks_exact_mut(self.columns.len()).enumerate() {
                for (answer, &(sum, post)) in answers.iter_mut().zip(&self.columns) {
                    *answer = finished(sums[sum as usize][row], post);
                }
            }
        }
        answers
    }

    /// Columns of up to [`ROWS`] rows, their missing values replaced.
    fn turn(&self, features: &[f32], values: &mut [[f32; ROWS]]) {
        for (column, values) in self.forest.columns.iter().zip(values) {
            let rows = features.chunks_exact(self.width);
            for (value, row) in values.iter_mut().zip(rows) {
                *value = row[column.feature as usize];
            }
            let missing = if column.missing_left { f32::NEG_INFINITY } else { f32::INFINITY };
            for value in values.iter_mut() {
                *value = if value.is_nan() { missing } else { value.min(f32::MAX) };
            }
        }
    }

    fn add(&self, values: &[[f32; ROWS]], sums: &mut [[f32; ROWS]]) {
        for tree in &self.forest.trees {
            match tree {
                // SAFETY: `wide` is set where the processor has AVX2.
                #[cfg(target_arch = "x86_64")]
                Compiled::Table(table) if self.wide => unsafe { avx2::table(table, values, sums) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Compiled::Words(words) if self.wide => unsafe { avx2::words(words, values, sums) },
                Compiled::Table(table) => scalar::table(table, values, sums),
                Compiled::Words(words) => scalar::words(words, values, sums),
            }
        }
    }
}

fn finished(sum: f32, post: Post) -> f32 {
    match post {
        Post::None => sum,
        Post::Logistic => 1.0 / (1.0 + (-sum).exp()),
        Post::LogisticComplement => 1.0 / (1.0 + sum.exp()),
    }
}

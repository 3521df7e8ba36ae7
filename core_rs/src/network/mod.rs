//! Fully connected networks of a ranker's ONNX graph, evaluated without onnxruntime and equal to it up to rounding.
//!
//! Most features of most candidates are 0: a column that is 0 in a whole block of rows is passed over, which changes no
//! bit of a sum. So an answer never depends on the other rows.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod graph;
mod layer;
mod logistic;

use crate::{onnx::GraphProto, processor};
use layer::{Layer, ROWS};
use logistic::logistic;

/// Weights that stay in the nearest caches; a larger network is better off with onnxruntime.
const MOST_WEIGHTS: usize = 32_768;

/// A compiled graph.
pub struct Network {
    layers: Vec<Layer>,
    /// Whether the logistic function follows.
    logistic: bool,
    wide: bool,
}

/// What the evaluation of blocks writes to.
struct Scratch {
    /// Features of the last, incomplete block.
    rest: Vec<f32>,
    /// Joined bits of the rows of a block, without their signs.
    bits: Vec<u32>,
    /// Columns that are not 0 in a whole block.
    used: Vec<u32>,
    /// All columns there may be.
    all: Vec<u32>,
    /// Results of one layer and of the one before.
    results: [Vec<f32>; 2],
}

impl Network {
    /// Compiles a graph whose input has `width` columns; `None` where it is no chain of layers, or a large one, and
    /// on a processor that onnxruntime knows better.
    pub fn compile(graph: &GraphProto, width: usize) -> Option<Self> {
        let (layers, logistic) = graph::read(graph)?;
        let fits = layers.windows(2).all(|pair| pair[0].outputs == pair[1].inputs());
        let size: usize = layers.iter().map(|layer| layer.inputs() * layer.outputs).sum();
        let suits = layers.first()?.inputs() == width && size <= MOST_WEIGHTS;
        (fits && suits && processor::fuses()).then(|| Self { layers, logistic, wide: processor::is_wide() })
    }

    /// The same without the instructions that not every processor has; answers are the same.
    pub fn scalar(self) -> Self {
        Self { wide: false, ..self }
    }

    /// Number of columns that it answers.
    pub fn columns(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.outputs)
    }

    /// Bytes held, without the allocator's overhead.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| (layer.inputs() + 1) * layer.stride() * size_of::<f32>()).sum()
    }

    /// Answers of rows of features, row after row; values beyond the last whole row are left out.
    pub fn score(&self, features: &[f32]) -> Vec<f32> {
        let width = self.layers[0].inputs();
        let rows = features.len() / width;
        let mut answers = vec![0.0; rows * self.columns()];
        let mut scratch = self.scratch();
        let blocks = features[..rows * width].chunks(ROWS * width);
        for (block, answers) in blocks.zip(answers.chunks_mut(ROWS * self.columns())) {
            self.block(block, &mut scratch, answers);
        }
        if self.logistic {
            logistic(&mut answers);
        }
        answers
    }

    fn scratch(&self) -> Scratch {
        let width = self.layers[0].inputs();
        let widest = self.layers.iter().map(Layer::stride).max().unwrap_or(0);
        Scratch {
            rest: Vec::new(),
            bits: vec![0; width],
            used: vec![0; width + 1],
            all: (0..widest as u32).collect(),
            results: [vec![0.0; ROWS * widest], vec![0.0; ROWS * widest]],
        }
    }

    fn join(&self, block: &[f32], bits: &mut [u32]) {
        #[cfg(target_arch = "x86_64")]
        if self.wide {
            // SAFETY: `wide` is set where the processor has AVX2.
            return unsafe { avx2::join(block, bits) };
        }
        join(block, bits);
    }

    /// Writes the sums of the last layer for up to [`ROWS`] rows.
    fn block(&self, block: &[f32], scratch: &mut Scratch, answers: &mut [f32]) {
        let Scratch { rest, bits, used, all, results: [before, after] } = scratch;
        let width = bits.len();
        let block = if block.len() < ROWS * width {
            rest.clear();
            rest.extend_from_slice(block);
            rest.resize(ROWS * width, 0.0);
            rest
        } else {
            block
        };
        self.join(block, bits);
        let count = used_columns(bits, used);
        self.layers[0].evaluate(block, width, &used[..count], self.wide, after);
        let mut stride = self.layers[0].stride();
        for layer in &self.layers[1..] {
            std::mem::swap(before, after);
            layer.evaluate(before, stride, &all[..layer.inputs()], self.wide, after);
            stride = layer.stride();
        }
        for (row, answers) in after.chunks_exact(stride).zip(answers.chunks_exact_mut(self.columns())) {
            for (answer, &value) in answers.iter_mut().zip(row) {
                *answer = value;
            }
        }
    }
}

/// Joins the bits of the rows of a block, column by column, without their signs.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the instructions of the caller are to be used")]
fn join(block: &[f32], bits: &mut [u32]) {
    bits.fill(0);
    for row in block.chunks_exact(bits.len()) {
        for (bits, value) in bits.iter_mut().zip(row) {
            *bits |= value.to_bits() << 1;
        }
    }
}

/// Writes the columns that have a bit set, in order; returns how many they are.
fn used_columns(bits: &[u32], used: &mut [u32]) -> usize {
    let mut count = 0;
    for (&bits, column) in bits.iter().zip(0..) {
        used[count] = column;
        count += usize::from(bits != 0);
    }
    count
}

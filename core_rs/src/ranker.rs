//! A ranker's ONNX graph compiled for the engine, where it is of a form that is known here.

use crate::{network::Network, trees::Trees};

/// A compiled graph.
pub enum Ranker {
    /// Ensembles of trees.
    Trees(Trees),
    /// Fully connected layers.
    Network(Network),
}

impl Ranker {
    /// Compiles an ONNX model whose input has `width` columns; `None` where onnxruntime must run it.
    pub fn compile(model: &[u8], width: usize) -> Option<Self> {
        let network = || Network::compile(model, width).map(Self::Network);
        Trees::compile(model, width).map(Self::Trees).or_else(network)
    }

    /// Number of columns that it answers.
    pub fn columns(&self) -> usize {
        match self {
            Self::Trees(trees) => trees.columns(),
            Self::Network(network) => network.columns(),
        }
    }

    /// Bytes held, without the allocator's overhead.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Trees(trees) => trees.bytes(),
            Self::Network(network) => network.bytes(),
        }
    }

    /// Answers of rows of features, row after row.
    pub fn score(&self, features: &[f32]) -> Vec<f32> {
        match self {
            Self::Trees(trees) => trees.score(features),
            Self::Network(network) => network.score(features),
        }
    }
}

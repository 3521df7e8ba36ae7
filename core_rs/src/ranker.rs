//! A ranker's ONNX graph compiled for the engine, where it is of a form that is known here.

use crate::{network::Network, onnx::ModelProto, trees::Trees};
use prost::Message;

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
        let graph = ModelProto::decode(model).ok()?.graph?;
        let network = || Network::compile(&graph, width).map(Self::Network);
        Trees::compile(&graph, width).map(Self::Trees).or_else(network)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_model_or_has_no_graph_is_left_to_onnxruntime() {
        assert!(Ranker::compile(b"no model", 4).is_none());
        assert!(Ranker::compile(&ModelProto::default().encode_to_vec(), 4).is_none());
    }
}

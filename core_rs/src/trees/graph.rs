//! Which columns of which ensembles a graph answers.

use super::{
    ensemble::{Ensemble, Post},
    forest::Forest,
};
use crate::onnx::{FLOAT, GraphProto, NodeProto, TensorProto};
use hashbrown::HashMap;

/// Sum of a column, and what is done with it.
type Columns = Vec<(u32, Post)>;

/// Compiled ensembles of a graph with one input, and the columns of its last output.
///
/// A node that is neither an ensemble nor moves columns is passed over: it matters only if the output needs it.
pub fn read(graph: &GraphProto) -> Option<(Forest, Columns)> {
    let (input, output) = (graph.only_input()?, graph.output.last()?);
    let mut forest = Forest::default();
    let mut known: HashMap<&str, Columns> = HashMap::new();
    for node in &graph.node {
        if node.op_type.starts_with("TreeEnsemble") {
            (node.input == [input]).then_some(())?;
            let ensemble = Ensemble::read(node)?;
            let first = forest.add(&ensemble);
            let columns = ensemble.columns.iter().map(|&(target, post)| (first + target, post)).collect();
            // A classifier's first output is the label; its columns are the last.
            known.insert(node.output.last()?, columns);
        } else if let Some(columns) = joined(graph, node, &known) {
            known.insert(node.output.first()?, columns);
        }
    }
    Some((forest, known.remove(output.name.as_str())?))
}

/// Columns of a node that only moves columns or bends them.
fn joined(graph: &GraphProto, node: &NodeProto, known: &HashMap<&str, Columns>) -> Option<Columns> {
    let columns = |at: usize| known.get(node.input.get(at)?.as_str());
    let constant = |at: usize| graph.constant(node.input.get(at)?);
    let attribute = |name: &str| node.attribute(name).map_or(0, |attribute| attribute.i);
    match node.op_type.as_str() {
        "Identity" => columns(0).cloned(),
        "Mul" => columns(0).filter(|_| constant(1).and_then(TensorProto::floats) == Some(vec![1.0])).cloned(),
        "Cast" => columns(0).filter(|_| attribute("to") == i64::from(FLOAT)).cloned(),
        "Concat" if matches!(attribute("axis"), 1 | -1) => {
            let parts: Option<Vec<Columns>> = (0..node.input.len()).map(|at| columns(at).cloned()).collect();
            Some(parts?.concat())
        }
        "Gather" if matches!(attribute("axis"), 1 | -1) => {
            let place = |&index: &i64| columns(0)?.get(usize::try_from(index).ok()?).copied();
            constant(1)?.integers()?.iter().map(place).collect()
        }
        "Sigmoid" => {
            let bent = |&(sum, post): &(u32, Post)| (post == Post::None).then_some((sum, Post::Logistic));
            columns(0)?.iter().map(bent).collect()
        }
        _ => None,
    }
}

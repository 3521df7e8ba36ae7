//! The layers of an ONNX graph that is a chain of `Gemm` and `Relu`, with a `Sigmoid` at its end.

use super::layer::Layer;
use crate::onnx::{GraphProto, NodeProto, TensorProto};

/// Layers from the input to the output, and whether the logistic function follows; `None` where the graph is anything
/// else.
pub fn read(graph: &GraphProto) -> Option<(Vec<Layer>, bool)> {
    let mut flow = graph.only_input()?;
    let (mut layers, mut logistic) = (Vec::<Layer>::new(), false);
    for node in &graph.node {
        (node.input.first()? == flow && !logistic).then_some(())?;
        match node.op_type.as_str() {
            "Gemm" => layers.push(gemm(graph, node)?),
            "Relu" => layers.last_mut()?.floor = 0.0,
            "Sigmoid" => logistic = true,
            _ => return None,
        }
        flow = node.output.first()?;
    }
    (flow == graph.output.last()?.name).then_some((layers, logistic))
}

fn gemm(graph: &GraphProto, node: &NodeProto) -> Option<Layer> {
    let is_one = |name: &str| node.attribute(name).is_none_or(|attribute| attribute.f.to_bits() == 1_f32.to_bits());
    let flag = |name: &str| node.attribute(name).is_some_and(|attribute| attribute.i != 0);
    (is_one("alpha") && is_one("beta") && !flag("transA")).then_some(())?;
    let constant = |at: usize| graph.constant(node.input.get(at)?);
    let weights = constant(1)?;
    let [rows, columns] = <[i64; 2]>::try_from(&*weights.dims).ok()?.map(usize::try_from);
    let (rows, columns, values) = (rows.ok()?, columns.ok()?, finite(weights)?);
    (rows > 0 && columns > 0 && Some(values.len()) == rows.checked_mul(columns)).then_some(())?;
    let turned = flag("transB");
    let (inputs, outputs) = if turned { (columns, rows) } else { (rows, columns) };
    let bias = if node.input.len() > 2 { finite(constant(2)?)? } else { vec![0.0; outputs] };
    (bias.len() == outputs).then_some(())?;
    let weight =
        |input: usize, output: usize| values[if turned { output * inputs + input } else { input * outputs + output }];
    Some(Layer::new(inputs, &bias, weight))
}

/// Elements of a tensor of finite numbers.
fn finite(tensor: &TensorProto) -> Option<Vec<f32>> {
    tensor.floats().filter(|values| values.iter().all(|value| value.is_finite()))
}

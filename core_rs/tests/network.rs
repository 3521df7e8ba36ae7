//! Compiled networks against a plain reading of the ONNX operators, in 64 bits.

use core_rs::{
    network::Network,
    onnx::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto},
};
use proptest::{collection::vec, prelude::*};

/// Weights of shape (inputs, outputs), bias, and whether the graph keeps the weights the other way round.
#[derive(Clone, Debug)]
struct Dense {
    weights: Vec<Vec<f32>>,
    bias: Vec<f32>,
    turned: bool,
}

fn dense(inputs: usize, outputs: usize) -> impl Strategy<Value = Dense> {
    let number = || -1.0..1.0_f32;
    (vec(vec(number(), outputs), inputs), vec(number(), outputs), prop::bool::ANY)
        .prop_map(|(weights, bias, turned)| Dense { weights, bias, turned })
}

/// Networks of up to three layers.
fn networks() -> impl Strategy<Value = Vec<Dense>> {
    vec(1..40_usize, 2..5)
        .prop_flat_map(|widths| widths.windows(2).map(|pair| dense(pair[0], pair[1]).boxed()).collect::<Vec<_>>())
}

fn plain(layers: &[Dense], row: &[f32]) -> Vec<f64> {
    let mut values: Vec<f64> = row.iter().map(|&value| f64::from(value)).collect();
    for (number, layer) in layers.iter().enumerate() {
        let sum = |output: usize| {
            let products = values.iter().zip(&layer.weights).map(|(value, line)| value * f64::from(line[output]));
            products.sum::<f64>() + f64::from(layer.bias[output])
        };
        let last = number + 1 == layers.len();
        let bent = |sum: f64| if last { 1.0 / (1.0 + (-sum).exp()) } else { sum.max(0.0) };
        values = (0..layer.bias.len()).map(|output| bent(sum(output))).collect();
    }
    values
}

fn tensor(name: &str, dims: &[usize], float_data: Vec<f32>) -> TensorProto {
    let dims = dims.iter().map(|&length| length as i64).collect();
    TensorProto { name: name.into(), data_type: 1, dims, float_data, ..TensorProto::default() }
}

fn node(op_type: &str, input: Vec<String>, output: String) -> NodeProto {
    NodeProto { op_type: op_type.into(), input, output: vec![output], ..NodeProto::default() }
}

fn graph(layers: &[Dense]) -> GraphProto {
    let named = |name: &str| vec![ValueInfoProto { name: name.into() }];
    let mut graph = GraphProto { input: named("features"), output: named("actions"), ..GraphProto::default() };
    let mut flow = "features".to_owned();
    for (number, layer) in layers.iter().enumerate() {
        let (inputs, outputs) = (layer.weights.len(), layer.bias.len());
        let at = |place: usize| {
            let (input, output) =
                if layer.turned { (place % inputs, place / inputs) } else { (place / outputs, place % outputs) };
            layer.weights[input][output]
        };
        let dims = if layer.turned { [outputs, inputs] } else { [inputs, outputs] };
        let [weights, bias, sum] = ["weights", "bias", "sum"].map(|name| format!("{name}{number}"));
        graph.initializer.push(tensor(&weights, &dims, (0..inputs * outputs).map(at).collect()));
        graph.initializer.push(tensor(&bias, &[outputs], layer.bias.clone()));
        let mut gemm = node("Gemm", vec![flow, weights, bias], sum.clone());
        gemm.attribute.push(AttributeProto {
            name: "transB".into(),
            i: layer.turned.into(),
            ..AttributeProto::default()
        });
        let last = number + 1 == layers.len();
        flow = if last { "actions".to_owned() } else { format!("hidden{number}") };
        graph.node.extend([gemm, node(if last { "Sigmoid" } else { "Relu" }, vec![sum], flow.clone())]);
    }
    graph
}

/// Features of which whole columns are 0 in many rows, as those of candidates are.
fn rows() -> impl Strategy<Value = Vec<Vec<f32>>> {
    let runs = vec((vec(prop_oneof![2 => Just(0.0_f32), 1 => -2.0..2.0_f32], 40), 1..16_usize), 1..5);
    runs.prop_map(|runs| runs.into_iter().flat_map(|(row, count)| std::iter::repeat_n(row, count)).collect())
}

proptest! {
    #[test]
    fn a_compiled_network_answers_as_the_operators_say_whatever_the_other_rows(layers in networks(), rows in rows()) {
        let (width, columns) = (layers[0].weights.len(), layers.last().expect("a layer").bias.len());
        let rows: Vec<&[f32]> = rows.iter().map(|row| &row[..width]).collect();
        let wide = Network::compile(&graph(&layers), width).expect("compiles");
        let answers = wide.score(&rows.concat());
        prop_assert_eq!(answers.len(), rows.len() * columns);
        for (row, answers) in rows.iter().zip(answers.chunks_exact(columns)) {
            for (&answer, expected) in answers.iter().zip(plain(&layers, row)) {
                prop_assert!((f64::from(answer) - expected).abs() < 1e-5);
            }
            let alone = wide.score(row);
            prop_assert!(alone.iter().zip(answers).all(|(one, other)| one.to_bits() == other.to_bits()));
        }
        let scalar = wide.scalar().score(&rows.concat());
        prop_assert!(scalar.iter().zip(&answers).all(|(one, other)| one.to_bits() == other.to_bits()));
    }
}

fn small() -> GraphProto {
    let line = |outputs: usize| vec![0.5; outputs];
    let layer = |inputs, outputs| Dense { weights: vec![line(outputs); inputs], bias: line(outputs), turned: false };
    graph(&[layer(4, 3), layer(3, 2)])
}

#[test]
fn what_is_no_number_stays_visible() {
    let network = Network::compile(&small(), 4).expect("compiles");
    let answers = network.score(&[1.0, f32::NAN, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
    assert_eq!(answers.iter().map(|answer| answer.is_nan()).collect::<Vec<_>>(), [true, true, false, false]);
}

#[test]
fn what_is_no_small_chain_of_layers_is_left_to_onnxruntime() {
    let changed = |change: &dyn Fn(&mut GraphProto)| {
        let mut graph = small();
        change(&mut graph);
        Network::compile(&graph, 4).is_some()
    };
    let scaled = AttributeProto { name: "alpha".into(), f: 2.0, ..AttributeProto::default() };
    assert!(changed(&|_| ()) && Network::compile(&small(), 5).is_none());
    assert!(!changed(&|graph| graph.node[0].attribute.push(scaled.clone())));
    assert!(!changed(&|graph| graph.node[1].op_type = "Tanh".into()));
    assert!(!changed(&|graph| graph.node[2].input[0] = "features".into()));
    assert!(!changed(&|graph| graph.node[2].input[1] = "missing".into()));
    assert!(!changed(&|graph| graph.initializer[0].dims = vec![3, 4]));
    assert!(!changed(&|graph| graph.initializer[0].float_data[0] = f32::NAN));
    assert!(!changed(&|graph| graph.initializer[1].float_data.truncate(1)));
    assert!(!changed(&|graph| graph.node.truncate(3)));
    assert!(!changed(&|graph| graph.output[0].name = "sum1".into()));
    let large = Dense { weights: vec![vec![0.0; 1_000]; 4], bias: vec![0.0; 1_000], turned: false };
    let narrow = Dense { weights: vec![vec![0.0; 100]; 1_000], bias: vec![0.0; 100], turned: false };
    assert!(Network::compile(&graph(&[large, narrow]), 4).is_none());
}

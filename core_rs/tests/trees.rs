//! Compiled trees against a plain reading of the ONNX operator.

use core_rs::{
    onnx::{AttributeProto, GraphProto, NodeProto, ValueInfoProto},
    trees::Trees,
};
use proptest::{collection::vec, prelude::*};

const WIDTH: usize = 4;
const MODES: [&str; 4] = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT", "BRANCH_GTE"];

/// A node as the operator keeps it.
#[derive(Clone, Debug)]
struct Plain {
    mode: &'static str,
    feature: usize,
    value: f32,
    tracks: bool,
    children: [usize; 2],
    target: usize,
    weight: f32,
}

impl Plain {
    fn goes_true(&self, row: &[f32]) -> bool {
        let value = row[self.feature];
        let holds = match self.mode {
            "BRANCH_LEQ" => value <= self.value,
            "BRANCH_LT" => value < self.value,
            "BRANCH_GT" => value > self.value,
            _ => value >= self.value,
        };
        holds || (self.tracks && value.is_nan())
    }
}

fn value() -> impl Strategy<Value = f32> {
    prop_oneof![Just(-1.0_f32), Just(0.0), Just(0.5), Just(1.0), -2.0..2.0_f32]
}

/// Complete trees that ask one question a level, and trees of any shape with up to 80 leaves.
fn trees() -> impl Strategy<Value = Vec<Vec<Plain>>> {
    let question = || (0..4_usize, 0..WIDTH, value(), prop::bool::ANY);
    let table = vec(question(), 0..8).prop_flat_map(move |levels| {
        vec((0..2_usize, value()), 1 << levels.len()).prop_map(move |leaves| complete(&levels, &leaves))
    });
    let any = (vec((question(), any::<usize>()), 0..80), vec((0..2_usize, value()), 81))
        .prop_map(|(questions, leaves)| grown(&questions, &leaves));
    vec(prop_oneof![table, any], 1..6)
}

type Question = (usize, usize, f32, bool);

fn split(&(mode, feature, value, tracks): &Question, children: [usize; 2]) -> Plain {
    Plain { mode: MODES[mode], feature, value, tracks, children, target: 0, weight: 0.0 }
}

fn leaf(&(target, weight): &(usize, f32)) -> Plain {
    Plain { mode: "LEAF", feature: 0, value: 0.0, tracks: false, children: [0; 2], target, weight }
}

fn complete(levels: &[Question], leaves: &[(usize, f32)]) -> Vec<Plain> {
    let inner = (1 << levels.len()) - 1;
    let node = |at: usize| {
        let level = (at + 1).ilog2() as usize;
        if at < inner { split(&levels[level], [2 * at + 1, 2 * at + 2]) } else { leaf(&leaves[at - inner]) }
    };
    (0..inner + leaves.len()).map(node).collect()
}

fn grown(questions: &[(Question, usize)], leaves: &[(usize, f32)]) -> Vec<Plain> {
    let mut nodes = vec![leaf(&leaves[0])];
    for ((question, place), pair) in questions.iter().zip(leaves.windows(2)) {
        let open: Vec<usize> = (0..nodes.len()).filter(|&at| nodes[at].mode == "LEAF").collect();
        let (at, next) = (open[place % open.len()], nodes.len());
        nodes[at] = split(question, [next, next + 1]);
        nodes.extend(pair.iter().map(leaf));
    }
    nodes
}

fn plain(trees: &[Vec<Plain>], row: &[f32], base: &[f32]) -> Vec<f32> {
    let mut sums = base.to_vec();
    for tree in trees {
        let mut at = &tree[0];
        while at.mode != "LEAF" {
            at = &tree[at.children[usize::from(!at.goes_true(row))]];
        }
        sums[at.target] += at.weight;
    }
    sums
}

fn attribute(name: &str) -> AttributeProto {
    AttributeProto { name: name.into(), ..AttributeProto::default() }
}

fn ints(name: &str, values: impl Iterator<Item = usize>) -> AttributeProto {
    AttributeProto { ints: values.map(|value| value as i64).collect(), ..attribute(name) }
}

fn floats(name: &str, values: impl Iterator<Item = f32>) -> AttributeProto {
    AttributeProto { floats: values.collect(), ..attribute(name) }
}

fn regressor(trees: &[Vec<Plain>], base: &[f32], post: &str) -> NodeProto {
    let nodes: Vec<(usize, usize, &Plain)> = trees
        .iter()
        .enumerate()
        .flat_map(|(tree, nodes)| nodes.iter().enumerate().map(move |(id, node)| (tree, id, node)))
        .collect();
    let leaves: Vec<_> = nodes.iter().filter(|node| node.2.mode == "LEAF").collect();
    let modes = nodes.iter().map(|node| node.2.mode.as_bytes().to_vec()).collect();
    NodeProto {
        input: vec!["features".into()],
        output: vec!["actions".into()],
        op_type: "TreeEnsembleRegressor".into(),
        attribute: vec![
            AttributeProto { i: 2, ..attribute("n_targets") },
            AttributeProto { s: post.as_bytes().to_vec(), ..attribute("post_transform") },
            AttributeProto { strings: modes, ..attribute("nodes_modes") },
            floats("base_values", base.iter().copied()),
            floats("nodes_values", nodes.iter().map(|node| node.2.value)),
            ints("nodes_treeids", nodes.iter().map(|node| node.0)),
            ints("nodes_nodeids", nodes.iter().map(|node| node.1)),
            ints("nodes_featureids", nodes.iter().map(|node| node.2.feature)),
            ints("nodes_missing_value_tracks_true", nodes.iter().map(|node| usize::from(node.2.tracks))),
            ints("nodes_truenodeids", nodes.iter().map(|node| node.2.children[0])),
            ints("nodes_falsenodeids", nodes.iter().map(|node| node.2.children[1])),
            ints("target_treeids", leaves.iter().map(|node| node.0)),
            ints("target_nodeids", leaves.iter().map(|node| node.1)),
            ints("target_ids", leaves.iter().map(|node| node.2.target)),
            floats("target_weights", leaves.iter().map(|node| node.2.weight)),
        ],
    }
}

fn graph(nodes: Vec<NodeProto>) -> GraphProto {
    let named = |name: &str| vec![ValueInfoProto { name: name.into() }];
    GraphProto { node: nodes, input: named("features"), output: named("actions"), ..GraphProto::default() }
}

proptest! {
    #[test]
    fn compiled_trees_answer_as_the_operator_says(
        trees in trees(),
        base in prop_oneof![Just(vec![]), vec(value(), 2)],
        rows in vec(vec(prop_oneof![3 => value(), 1 => Just(f32::NAN)], WIDTH), 1..140),
    ) {
        let node = regressor(&trees, &base, "NONE");
        let compiled = Trees::compile(&graph(vec![node.clone()]), WIDTH).expect("compiles");
        let start = if base.is_empty() { vec![0.0; 2] } else { base };
        let expected: Vec<f32> = rows.iter().flat_map(|row| plain(&trees, row, &start)).collect();
        prop_assert_eq!(&compiled.score(&rows.concat()), &expected);
        prop_assert_eq!(&compiled.scalar().score(&rows.concat()), &expected);
        let bent = Trees::compile(&graph(vec![regressor(&trees, &start, "LOGISTIC")]), WIDTH).expect("compiles");
        for (answer, sum) in bent.score(&rows.concat()).iter().zip(&expected) {
            prop_assert!((answer - 1.0 / (1.0 + (-sum).exp())).abs() < 1e-6);
        }
    }
}

#[test]
fn nodes_of_trees_may_stand_in_any_order_after_their_roots() {
    let tree = |weight| grown(&[((0, 1, 0.5, false), 0)], &[(0, weight), (1, 2.0 * weight)]);
    let node = regressor(&[tree(1.0), tree(10.0)], &[], "NONE");
    let mut mixed = node.clone();
    for attribute in mixed.attribute.iter_mut().filter(|attribute| attribute.name.starts_with("nodes_")) {
        interleave(&mut attribute.ints);
        interleave(&mut attribute.floats);
        interleave(&mut attribute.strings);
    }
    let score = |node| Trees::compile(&graph(vec![node]), WIDTH).expect("compiles").score(&[0.0; WIDTH]);
    assert_eq!(score(mixed), score(node));
}

/// Puts the first of the second half after the first of the first half, and so on.
fn interleave<T: Clone>(values: &mut Vec<T>) {
    let (first, second) = values.split_at(values.len() / 2);
    *values = first.iter().zip(second).flat_map(|(one, other)| [one.clone(), other.clone()]).collect();
}

#[test]
fn columns_of_ensembles_stand_side_by_side() {
    let (one, two) = (vec![leaf(&(0, 1.0))], vec![leaf(&(1, 2.0))]);
    let named = |name: &str, tree: &Vec<Plain>| NodeProto {
        output: vec![name.into()],
        ..regressor(std::slice::from_ref(tree), &[], "NONE")
    };
    let concat = NodeProto {
        input: vec!["b".into(), "a".into()],
        output: vec!["actions".into()],
        op_type: "Concat".into(),
        attribute: vec![AttributeProto { i: 1, ..attribute("axis") }],
    };
    let compiled = Trees::compile(&graph(vec![named("a", &one), named("b", &two), concat]), WIDTH).expect("compiles");
    assert_eq!(compiled.score(&[0.0; 2 * WIDTH]), [0.0, 2.0, 1.0, 0.0, 0.0, 2.0, 1.0, 0.0]);
}

#[test]
fn what_is_not_only_trees_is_left_to_onnxruntime() {
    let tree = grown(&[((0, 1, 0.5, false), 0)], &[(0, 1.0), (0, 2.0)]);
    let node = regressor(&[tree], &[], "NONE");
    let compiles = |node: &NodeProto, width| Trees::compile(&graph(vec![node.clone()]), width).is_some();
    assert!(compiles(&node, 2) && !compiles(&node, 1));
    let changed = |name: &str, change: &dyn Fn(&mut AttributeProto)| {
        let mut node = node.clone();
        node.attribute.iter_mut().filter(|attribute| attribute.name == name).for_each(change);
        compiles(&node, WIDTH)
    };
    assert!(!changed("nodes_modes", &|modes| modes.strings[0] = b"BRANCH_EQ".to_vec()));
    assert!(!changed("post_transform", &|post| post.s = b"SOFTMAX".to_vec()));
    assert!(!changed("nodes_truenodeids", &|ids| ids.ints[0] = 0));
    assert!(!changed("nodes_falsenodeids", &|ids| ids.ints[0] = 99));
    assert!(!changed("nodes_values", &|values| values.floats[0] = f32::NAN));
    assert!(!changed("target_ids", &|ids| ids.ints[0] = 2));
    let relu = NodeProto { op_type: "Relu".into(), ..node.clone() };
    assert!(!compiles(&relu, WIDTH));
}

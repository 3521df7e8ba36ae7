//! A tree ensemble of an ONNX graph, brought to one form of comparison: left where `x <= threshold`.
//!
//! After the operators `TreeEnsembleRegressor` and `TreeEnsembleClassifier` of `ai.onnx.ml`, as onnxruntime computes
//! them. What has no such form (equality, trees that are none, weights in other types) gives `None`.

use crate::onnx::NodeProto;
use hashbrown::{HashMap, HashSet};

/// What is done with a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Post {
    /// Nothing.
    None,
    /// The logistic function.
    Logistic,
    /// One minus the logistic function.
    LogisticComplement,
}

/// Comparison that a row turns left or right at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Split {
    /// Column of the features.
    pub feature: u32,
    /// Left where the value is at most this.
    pub threshold: f32,
    /// Whether a missing value (NaN) goes left.
    pub missing_left: bool,
}

/// Node of a tree.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Comparison with the places of its children.
    Split(Split, usize, usize),
    /// Targets with what is added to them.
    Leaf(Vec<(u32, f32)>),
}

/// Tree; the root is its first node.
pub type Tree = Vec<Node>;

/// Trees whose leaves are added up.
#[derive(Debug)]
pub struct Ensemble {
    /// Trees in their order.
    pub trees: Vec<Tree>,
    /// What a target's sum starts from.
    pub base: Vec<f32>,
    /// Columns that it answers: target and what is done with its sum.
    pub columns: Vec<(u32, Post)>,
}

impl Ensemble {
    /// Reads a node of an ONNX graph.
    pub fn read(node: &NodeProto) -> Option<Self> {
        let post = match node.text("post_transform") {
            b"" | b"NONE" => Post::None,
            b"LOGISTIC" => Post::Logistic,
            _ => return None,
        };
        let sums = matches!(node.text("aggregate_function"), b"" | b"SUM");
        if !sums || node.attribute.iter().any(|attribute| attribute.name.ends_with("_as_tensor")) {
            return None;
        }
        match node.op_type.as_str() {
            "TreeEnsembleRegressor" => Self::regressor(node, post),
            "TreeEnsembleClassifier" => Self::classifier(node, post),
            _ => None,
        }
    }

    fn regressor(node: &NodeProto, post: Post) -> Option<Self> {
        let count = usize::try_from(node.attribute("n_targets")?.i).ok().filter(|&count| count > 0)?;
        let mut base = node.floats("base_values").to_vec();
        base.resize(if base.is_empty() { count } else { base.len() }, 0.0);
        let columns = (0..count as u32).map(|target| (target, post)).collect();
        (base.len() == count).then_some(())?;
        Some(Self { trees: trees(node, "target", count)?, base, columns })
    }

    /// Two classes whose leaves all speak for one of them: the form of a logistic model.
    fn classifier(node: &NodeProto, post: Post) -> Option<Self> {
        let labels = node.ints("classlabels_int64s").len();
        let ids = node.ints("class_ids");
        let one = ids.iter().all(|id| id == ids.first().unwrap_or(&0));
        if labels != 2 || !one || post != Post::Logistic || !node.floats("base_values").is_empty() {
            return None;
        }
        let mut trees = trees(node, "class", labels)?;
        let leaves = trees.iter_mut().flatten().filter_map(|node| match node {
            Node::Leaf(weights) => Some(weights),
            Node::Split(..) => None,
        });
        for (target, _) in leaves.flatten() {
            *target = 0;
        }
        Some(Self { trees, base: vec![0.0], columns: vec![(0, Post::LogisticComplement), (0, Post::Logistic)] })
    }
}

/// Trees of a node; weights are those of `target_*` or `class_*`.
fn trees(node: &NodeProto, prefix: &str, target_count: usize) -> Option<Vec<Tree>> {
    let ints = |name: &str| node.ints(name);
    let (tree_ids, node_ids) = (ints("nodes_treeids"), ints("nodes_nodeids"));
    let mut weights: HashMap<(i64, i64), Vec<(u32, f32)>> = HashMap::new();
    let targets = ints(&format!("{prefix}_ids"));
    let owners = ints(&format!("{prefix}_treeids")).iter().zip(ints(&format!("{prefix}_nodeids")));
    let values = node.floats(&format!("{prefix}_weights"));
    (owners.len() == targets.len() && values.len() == targets.len()).then_some(())?;
    for ((owner, &target), &weight) in owners.zip(targets).zip(values) {
        let target = u32::try_from(target).ok().filter(|&target| (target as usize) < target_count)?;
        weights.entry((*owner.0, *owner.1)).or_default().push((target, weight));
    }
    let places: HashMap<(i64, i64), usize> =
        tree_ids.iter().zip(node_ids).enumerate().map(|(place, (&tree, &id))| ((tree, id), place)).collect();
    let reader = Reader { node, weights, places };
    let mut met = HashSet::new();
    tree_ids.iter().filter(|&&tree| met.insert(tree)).map(|&tree| reader.tree(tree)).collect()
}

/// Joins the columns of a node.
struct Reader<'a> {
    node: &'a NodeProto,
    weights: HashMap<(i64, i64), Vec<(u32, f32)>>,
    /// Place in the columns of a node of a tree.
    places: HashMap<(i64, i64), usize>,
}

impl Reader<'_> {
    /// Tree from its root, which is its first node; `None` where a node is its own descendant or missing.
    fn tree(&self, tree: i64) -> Option<Tree> {
        let first = self.node.ints("nodes_treeids").iter().position(|&id| id == tree)?;
        let mut nodes: Tree = vec![Node::Leaf(Vec::new())];
        let mut open = vec![(first, 0)];
        while let Some((place, at)) = open.pop() {
            if nodes.len() > 2 * self.places.len() {
                return None;
            }
            if self.node.attribute("nodes_modes")?.strings.get(place)? == b"LEAF" {
                let id = *self.node.ints("nodes_nodeids").get(place)?;
                nodes[at] = Node::Leaf(self.weights.get(&(tree, id)).cloned().unwrap_or_default());
                continue;
            }
            let (split, turned) = self.split(place)?;
            let child = |name| self.places.get(&(tree, *self.node.ints(name).get(place)?)).copied();
            let (mut left, mut right) = (child("nodes_truenodeids")?, child("nodes_falsenodeids")?);
            if turned {
                std::mem::swap(&mut left, &mut right);
            }
            let next = nodes.len();
            nodes.extend([Node::Leaf(Vec::new()), Node::Leaf(Vec::new())]);
            nodes[at] = Node::Split(split, next, next + 1);
            open.extend([(left, next), (right, next + 1)]);
        }
        Some(nodes)
    }

    /// Comparison of a node, and whether its children have to be swapped for it.
    fn split(&self, place: usize) -> Option<(Split, bool)> {
        let feature = u32::try_from(*self.node.ints("nodes_featureids").get(place)?).ok()?;
        let value = *self.node.floats("nodes_values").get(place)?;
        // Every finite value is at most infinity, as it is at most the greatest finite one.
        let bound = if value == f32::INFINITY { f32::MAX } else { value };
        let tracks = self.node.ints("nodes_missing_value_tracks_true").get(place).is_some_and(|&tracks| tracks != 0);
        let (threshold, turned) = match self.node.attribute("nodes_modes")?.strings.get(place)?.as_slice() {
            b"BRANCH_LEQ" => (bound, false),
            b"BRANCH_LT" if value.is_finite() => (value.next_down(), false),
            b"BRANCH_GT" => (bound, true),
            b"BRANCH_GTE" if value.is_finite() => (value.next_down(), true),
            _ => return None,
        };
        threshold.is_finite().then_some((Split { feature, threshold, missing_left: tracks != turned }, turned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::AttributeProto;

    /// Threshold of a node, whether missing values go left, and whether its children are swapped.
    fn split(mode: &str, value: f32, tracks: i64) -> Option<(f32, bool, bool)> {
        let named = |name: &str| AttributeProto { name: name.into(), ..AttributeProto::default() };
        let attribute = vec![
            AttributeProto { ints: vec![3], ..named("nodes_featureids") },
            AttributeProto { floats: vec![value], ..named("nodes_values") },
            AttributeProto { ints: vec![tracks], ..named("nodes_missing_value_tracks_true") },
            AttributeProto { strings: vec![mode.into()], ..named("nodes_modes") },
        ];
        let node = NodeProto { attribute, ..NodeProto::default() };
        let (split, turned) = Reader { node: &node, weights: HashMap::new(), places: HashMap::new() }.split(0)?;
        assert_eq!(split.feature, 3);
        Some((split.threshold, split.missing_left, turned))
    }

    #[test]
    fn a_strict_comparison_has_the_next_lower_threshold_and_a_greater_one_swaps_the_children() {
        let below = 0.5_f32.next_down();
        assert_eq!(split("BRANCH_LEQ", 0.5, 0), Some((0.5, false, false)));
        assert_eq!(split("BRANCH_LT", 0.5, 0), Some((below, false, false)));
        assert_eq!(split("BRANCH_GT", 0.5, 0), Some((0.5, true, true)));
        assert_eq!(split("BRANCH_GTE", 0.5, 0), Some((below, true, true)));
    }

    #[test]
    fn a_missing_value_goes_where_the_operator_sends_it() {
        assert_eq!(split("BRANCH_LEQ", 0.5, 1), Some((0.5, true, false)));
        assert_eq!(split("BRANCH_GT", 0.5, 1), Some((0.5, false, true)));
    }

    #[test]
    fn what_no_finite_threshold_tells_is_not_read() {
        assert_eq!(split("BRANCH_LEQ", f32::INFINITY, 0), Some((f32::MAX, false, false)));
        assert_eq!(split("BRANCH_LT", f32::INFINITY, 0), None);
        assert_eq!(split("BRANCH_LEQ", f32::NEG_INFINITY, 0), None);
        assert_eq!(split("BRANCH_GTE", f32::NAN, 0), None);
        assert_eq!(split("BRANCH_LEQ", f32::NAN, 0), None);
        assert_eq!(split("BRANCH_EQ", 0.5, 0), None);
    }
}

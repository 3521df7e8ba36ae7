//! Ensembles compiled for rows side by side, without a branch.
//!
//! * A tree whose levels ask one question each (as those of `CatBoost`) is a table: the answers are the bits of the
//!   leaf's number.
//! * Any other tree is a set of leaves: every question that is answered "right" strikes the leaves on its left, and the
//!   first leaf that is left over is the one (`QuickScorer`, Lucchese et al. 2015, section 3).

use super::ensemble::{Ensemble, Node, Split, Tree};

/// Deepest table.
pub const DEPTH: usize = 6;
/// Leaves of a word.
pub const WORD: usize = 32;
/// Rows that are evaluated together.
pub const ROWS: usize = 64;

/// Column of the features with its missing values replaced, so that `x > threshold` sends them the right way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Column of the features.
    pub feature: u32,
    /// Whether missing values go left; they become minus infinity then, infinity otherwise.
    pub missing_left: bool,
}

/// Question `x > threshold` about a column of [`Forest::columns`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Question {
    /// Place of the column.
    pub column: u32,
    /// Threshold; infinity is never exceeded.
    pub threshold: f32,
}

/// Tree of one question a level.
#[repr(C, align(32))]
pub struct Table {
    /// Leaf by the answers, the root's in bit 0.
    pub leaves: [f32; 1 << DEPTH],
    /// Questions from the root on.
    pub questions: [Question; DEPTH],
    /// Sum that it adds to.
    pub sum: u32,
}

/// Leaves struck when a question is answered "right".
#[derive(Clone, Copy)]
pub struct Strike {
    /// The question.
    pub question: Question,
    /// Bits of the struck leaves.
    pub leaves: u32,
}

/// Thirty-two leaves of a tree, counted from the left.
pub struct Word {
    /// Questions with leaves of this word on their left.
    pub strikes: Vec<Strike>,
    /// Values of the leaves for each sum that the tree adds to.
    pub leaves: Vec<Leaves>,
}

/// Values of the leaves of a word.
#[repr(C, align(32))]
pub struct Leaves {
    /// Value of each leaf.
    pub values: [f32; WORD],
    /// Sum that it adds to.
    pub sum: u32,
}

/// A compiled tree.
pub enum Compiled {
    /// One question a level.
    Table(Box<Table>),
    /// Words from the left.
    Words(Vec<Word>),
}

/// Compiled ensembles.
#[derive(Default)]
pub struct Forest {
    /// Columns that trees ask about.
    pub columns: Vec<Column>,
    /// Trees in their order.
    pub trees: Vec<Compiled>,
    /// What each sum starts from.
    pub base: Vec<f32>,
}

impl Forest {
    /// Adds an ensemble; returns the number of its first sum.
    pub fn add(&mut self, ensemble: &Ensemble) -> u32 {
        let first = self.base.len() as u32;
        self.base.extend(&ensemble.base);
        for tree in &ensemble.trees {
            let compiled = self.table(tree, first).map_or_else(|| self.words(tree, first), Compiled::Table);
            self.trees.push(compiled);
        }
        first
    }

    fn question(&mut self, split: &Split) -> Question {
        let column = Column { feature: split.feature, missing_left: split.missing_left };
        let place = self.columns.iter().position(|other| *other == column).unwrap_or_else(|| {
            self.columns.push(column);
            self.columns.len() - 1
        });
        Question { column: place as u32, threshold: split.threshold }
    }

    fn table(&mut self, tree: &Tree, first: u32) -> Option<Box<Table>> {
        let splits = levels(tree)?;
        let mut sums = tree.iter().filter_map(|node| match node {
            Node::Leaf(weights) => Some(weights),
            Node::Split(..) => None,
        });
        let target = sums.clone().flatten().map(|&(target, _)| target).next()?;
        if !sums.all(|weights| weights.len() <= 1 && weights.iter().all(|&(other, _)| other == target)) {
            return None;
        }
        let never = Question { column: 0, threshold: f32::INFINITY };
        let mut table = Table { leaves: [0.0; 1 << DEPTH], questions: [never; DEPTH], sum: first + target };
        for (question, split) in table.questions.iter_mut().zip(&splits) {
            *question = self.question(split);
        }
        for (answers, leaf) in table.leaves.iter_mut().enumerate().take(1 << splits.len()) {
            *leaf = weight(tree, answers);
        }
        Some(Box::new(table))
    }

    fn words(&mut self, tree: &Tree, first: u32) -> Compiled {
        let mut leaves = Vec::new();
        let mut struck = Vec::new();
        self.walk(tree, 0, &mut leaves, &mut struck);
        let mut targets: Vec<u32> = leaves.iter().flat_map(|leaf| leaf.iter().map(|&(target, _)| target)).collect();
        targets.sort_unstable();
        targets.dedup();
        let word = |word: usize| {
            let range = word * WORD..leaves.len().min((word + 1) * WORD);
            let bits = |start: usize, end: usize| {
                let (start, end) = (start.max(range.start), end.min(range.end));
                (start..end).fold(0_u32, |bits, leaf| bits | 1 << (leaf % WORD))
            };
            let strikes = struck.iter().map(|&(question, start, end)| Strike { question, leaves: bits(start, end) });
            let values = |&target: &u32| {
                let mut values = [0.0; WORD];
                for (value, leaf) in values.iter_mut().zip(&leaves[range.clone()]) {
                    *value = leaf.iter().filter(|other| other.0 == target).map(|other| other.1).sum();
                }
                Leaves { values, sum: first + target }
            };
            Word {
                strikes: strikes.filter(|strike| strike.leaves != 0).collect(),
                leaves: targets.iter().map(values).collect(),
            }
        };
        Compiled::Words((0..leaves.len().div_ceil(WORD)).map(word).collect())
    }

    /// Adds the leaves below a node from the left, and its questions with the range of the leaves on their left.
    fn walk<'a>(
        &mut self,
        tree: &'a Tree,
        at: usize,
        leaves: &mut Vec<&'a [(u32, f32)]>,
        struck: &mut Vec<(Question, usize, usize)>,
    ) {
        match &tree[at] {
            Node::Leaf(weights) => leaves.push(weights),
            Node::Split(split, left, right) => {
                let start = leaves.len();
                self.walk(tree, *left, leaves, struck);
                struck.push((self.question(split), start, leaves.len()));
                self.walk(tree, *right, leaves, struck);
            }
        }
    }
}

/// The question of each level of a complete tree that asks one a level and is not too deep.
fn levels(tree: &Tree) -> Option<Vec<Split>> {
    let (mut splits, mut level) = (Vec::new(), vec![0]);
    loop {
        let mut below = Vec::with_capacity(2 * level.len());
        let mut asked = None;
        for &at in &level {
            match &tree[at] {
                Node::Split(split, left, right) if asked.is_none_or(|other| other == *split) => {
                    asked = Some(*split);
                    below.extend([*left, *right]);
                }
                Node::Leaf(_) if asked.is_none() && below.is_empty() => {}
                _ => return None,
            }
        }
        let Some(split) = asked else { return Some(splits) };
        if splits.len() == DEPTH || below.len() != 2 * level.len() {
            return None;
        }
        splits.push(split);
        level = below;
    }
}

/// Weight of the leaf that answers lead to, the root's in bit 0.
fn weight(tree: &Tree, mut answers: usize) -> f32 {
    let mut at = 0;
    loop {
        match &tree[at] {
            Node::Leaf(weights) => return weights.iter().map(|&(_, weight)| weight).sum(),
            Node::Split(_, left, right) => {
                at = if answers & 1 == 1 { *right } else { *left };
                answers >>= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(feature: usize) -> Split {
        Split { feature: feature as u32, threshold: 0.5, missing_left: false }
    }

    /// Complete tree whose node `at` asks about the feature that `asked` gives it.
    fn complete(depth: usize, asked: impl Fn(usize) -> usize) -> Tree {
        let inner = (1 << depth) - 1;
        let split = |at: usize| Node::Split(ask(asked(at)), 2 * at + 1, 2 * at + 2);
        let node = |at: usize| if at < inner { split(at) } else { Node::Leaf(vec![(0, at as f32)]) };
        (0..=2 * inner).map(node).collect()
    }

    fn level(at: usize) -> usize {
        (at + 1).ilog2() as usize
    }

    #[test]
    fn a_complete_tree_of_one_question_a_level_has_levels() {
        for depth in 0..=DEPTH {
            let expected: Vec<Split> = (0..depth).map(ask).collect();
            assert_eq!(levels(&complete(depth, level)), Some(expected));
        }
        assert_eq!(levels(&complete(DEPTH + 1, level)), None);
    }

    #[test]
    fn two_questions_on_a_level_or_an_early_leaf_have_none() {
        assert_eq!(levels(&complete(2, |at| at)), None);
        for early in [1, 2] {
            let mut tree = complete(2, level);
            tree[early] = Node::Leaf(Vec::new());
            assert_eq!(levels(&tree), None);
        }
    }
}

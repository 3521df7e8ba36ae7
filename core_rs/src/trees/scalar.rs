//! Evaluation in plain Rust, for any processor; the other must give its bits.

use super::forest::{Question, ROWS, Table, Word};

/// Adds a table's leaves to its sum.
pub(super) fn table(table: &Table, columns: &[[f32; ROWS]], sums: &mut [[f32; ROWS]]) {
    let right = |question: &Question, row: usize| columns[question.column as usize][row] > question.threshold;
    for (row, sum) in sums[table.sum as usize].iter_mut().enumerate() {
        let bits =
            table.questions.iter().enumerate().map(|(level, question)| usize::from(right(question, row)) << level);
        *sum += table.leaves[bits.sum::<usize>()];
    }
}

/// Adds the leaves of a tree of words to their sums.
pub(super) fn words(words: &[Word], columns: &[[f32; ROWS]], sums: &mut [[f32; ROWS]]) {
    for row in 0..ROWS {
        let left = |word: &Word| {
            word.strikes.iter().fold(u32::MAX, |left, strike| {
                let value = columns[strike.question.column as usize][row];
                if value > strike.question.threshold { left & !strike.leaves } else { left }
            })
        };
        let mut found = words.iter().map(|word| (word, left(word)));
        if let Some((word, left)) = found.find(|&(_, left)| left != 0) {
            for leaves in &word.leaves {
                sums[leaves.sum as usize][row] += leaves.values[left.trailing_zeros() as usize];
            }
        }
    }
}

//! One score a candidate: predicted actions blended by the placement's values, or the weights of its sources.

use crate::{
    gather::Candidate,
    proto::{ActionValue, Placement, Reason},
    source::{self, COUNT, SOURCES},
};

/// Score of the first item of the reserve under rules; far below any proposal.
const RESERVE: f32 = 1e-6;

/// Predicted actions of candidates: `values` holds `width` columns a row.
pub struct Actions<'a> {
    /// Row after row.
    pub values: &'a [f32],
    /// Number of columns.
    pub width: usize,
}

/// Weights of the action columns: the placement's values, or 1 for `purchase`, or 1 for the first column.
pub fn action_weights(values: &[ActionValue], actions: &[String]) -> Vec<f32> {
    let named = |name: &str| values.iter().find(|value| value.action == name).map(|value| value.value as f32);
    let weights: Vec<f32> = actions.iter().map(|action| named(action).unwrap_or(0.0)).collect();
    if weights.iter().any(|&weight| weight != 0.0) {
        return weights;
    }
    let purchase = actions.iter().position(|action| action == "purchase").unwrap_or(0);
    (0..actions.len()).map(|column| if column == purchase { 1.0 } else { 0.0 }).collect()
}

/// Whether a placement values an action that is no column.
pub fn values_another(values: &[ActionValue], actions: &[String]) -> bool {
    values.iter().any(|value| value.value != 0.0 && !actions.contains(&value.action))
}

/// Blended score of one row.
pub fn blend(row: &[f32], weights: &[f32]) -> f32 {
    row.iter().zip(weights).map(|(value, weight)| value * weight).sum()
}

/// Shares of the sources of one slate: each source's score over its greatest, times its weight in the placement.
pub struct Rules {
    factors: [f32; COUNT],
}

impl Rules {
    /// Takes the weights of the placement and the greatest score of each source.
    pub fn new(placement: &Placement, candidates: &[Candidate]) -> Self {
        let mut greatest = [0.0_f32; COUNT];
        for candidate in candidates {
            for (greatest, &score) in greatest.iter_mut().zip(&candidate.source_scores) {
                *greatest = greatest.max(score);
            }
        }
        let mut factors = [0.0; COUNT];
        for used in &placement.sources {
            if let Some(number) = source::number(&used.source) {
                let weight = if used.weight == 0.0 { 1.0 } else { used.weight as f32 };
                factors[number] = if greatest[number] > 0.0 { weight / greatest[number] } else { 0.0 };
            }
        }
        Self { factors }
    }

    /// Sum of the shares of a candidate; the reserve follows in its order of gathering.
    pub fn score(&self, candidate: &Candidate, place: usize) -> f32 {
        if candidate.sources == 0 {
            return RESERVE / (1.0 + place as f32);
        }
        candidate.source_scores.iter().zip(&self.factors).map(|(score, factor)| score * factor).sum()
    }

    /// Reason of the source with the greatest share, and the item behind it.
    pub fn reason(&self, candidate: &Candidate) -> (Reason, u32) {
        let share = |number: usize| candidate.source_scores[number] * self.factors[number];
        let proposed = (0..COUNT).filter(|number| candidate.sources >> number & 1 == 1);
        match proposed.max_by(|&a, &b| share(a).total_cmp(&share(b)).then(b.cmp(&a))) {
            Some(number) => (SOURCES[number].reason(), candidate.because[number]),
            None => (Reason::Fill, crate::ids::NONE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_choose_columns_and_purchase_is_the_default() {
        let actions: Vec<String> = ["view", "purchase"].map(String::from).into();
        let value = |action: &str, value| ActionValue { action: action.into(), value };
        assert_eq!(action_weights(&[value("view", 0.5)], &actions), [0.5, 0.0]);
        assert_eq!(action_weights(&[], &actions), [0.0, 1.0]);
        assert_eq!(action_weights(&[value("return", -1.0)], &actions), [0.0, 1.0]);
        assert!((blend(&[0.2, 0.5], &[1.0, 2.0]) - 1.2).abs() < 1e-6);
    }
}

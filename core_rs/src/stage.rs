//! Counts and times of the stages of a decision.

use crate::proto::StageTrace;
use std::time::Instant;

/// One stage that ran.
#[derive(Clone, Copy)]
pub struct Stage {
    kind: &'static str,
    component: &'static str,
    in_count: usize,
    out_count: usize,
    /// Time taken, microseconds.
    pub duration_us: f64,
}

impl Stage {
    /// Stage that ends now; `component` is empty where the stage has only one.
    pub fn new(kind: &'static str, component: &'static str, in_count: usize, out_count: usize, began: Instant) -> Self {
        Self { kind, component, in_count, out_count, duration_us: began.elapsed().as_secs_f64() * 1e6 }
    }

    /// Filters one after the other, each with the number it removed, which `kept` items passed; their time is part of
    /// the sources'.
    pub fn filters<'a>(removed: impl DoubleEndedIterator<Item = (&'static str, usize)> + 'a, kept: usize) -> Vec<Self> {
        let mut left = kept;
        let stage = |(component, count)| {
            let out_count = left;
            left += count;
            Self { kind: "filter", component, in_count: left, out_count, duration_us: 0.0 }
        };
        let mut stages: Vec<Self> = removed.rev().map(stage).collect();
        stages.reverse();
        stages
    }

    /// Name of stage and component, e.g. `source.popular`.
    pub fn name(&self) -> String {
        if self.component.is_empty() { self.kind.to_owned() } else { format!("{}.{}", self.kind, self.component) }
    }

    /// The stage as the contract has it.
    pub fn trace(&self) -> StageTrace {
        StageTrace {
            name: self.name(),
            in_count: self.in_count as i32,
            out_count: self.out_count as i32,
            duration_us: self.duration_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_filter_takes_what_the_one_before_let_pass() {
        let stages = Stage::filters([("a", 3), ("b", 0), ("c", 2)].into_iter(), 10);
        let traces: Vec<_> = stages.iter().map(Stage::trace).collect();
        let counts: Vec<_> = traces.iter().map(|trace| (&*trace.name, trace.in_count, trace.out_count)).collect();
        assert_eq!(counts, [("filter.a", 15, 12), ("filter.b", 12, 12), ("filter.c", 12, 10)]);
    }
}

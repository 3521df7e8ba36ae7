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

    /// Filter that removed `count` items; its time is part of the sources'.
    pub fn filter(component: &'static str, count: usize) -> Self {
        Self { kind: "filter", component, in_count: count, out_count: 0, duration_us: 0.0 }
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

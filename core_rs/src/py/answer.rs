//! What came of a request, for Python.

use super::Plan;
use crate::pipeline::{self, Decided};
use pyo3::{prelude::*, types::PyBytes};

#[pyclass(frozen, module = "core_rs._native")]
pub(super) struct Answer {
    decided: Decided,
    visitor_key: String,
    shadowed: bool,
}

impl Answer {
    /// Answer to a plan.
    pub(super) fn new(plan: &pipeline::Plan, decided: Decided) -> Self {
        Self { decided, visitor_key: plan.visitor_key().to_owned(), shadowed: plan.shadowed }
    }
}

/// What came of a request: an answer, or the plan that waits for scores.
#[derive(IntoPyObject)]
#[expect(clippy::large_enum_variant, reason = "it is made once a call and handed on at once")]
pub(super) enum Outcome {
    Answer(Answer),
    Plan(Plan),
}

#[pymethods]
impl Answer {
    #[getter]
    fn response<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.decided.response)
    }

    #[getter]
    fn decision<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.decided.decision)
    }

    #[getter]
    fn visitor_key(&self) -> &str {
        &self.visitor_key
    }

    #[getter]
    fn shadowed(&self) -> bool {
        self.shadowed
    }

    #[getter]
    fn degraded(&self) -> Vec<String> {
        self.decided.degraded.clone()
    }

    #[getter]
    fn stage_us(&self) -> Vec<(String, f64)> {
        self.decided.stages.iter().map(|stage| (stage.name(), stage.duration_us)).collect()
    }
}

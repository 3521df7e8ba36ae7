//! Histories for the encoder of a bundle, as numpy arrays.

use crate::encoding;
use numpy::{IntoPyArray, PyArray2, PyArrayMethods};
use pyo3::prelude::*;

/// One value an event, one row a history.
type Rows<'py> = Bound<'py, PyArray2<i64>>;

#[pyclass(frozen, module = "core_rs._native")]
pub(super) struct Histories(pub encoding::Histories);

#[pymethods]
impl Histories {
    #[getter]
    fn version(&self) -> &str {
        &self.0.version
    }

    #[getter]
    fn items<'py>(&self, py: Python<'py>) -> PyResult<Rows<'py>> {
        self.rows(py, &self.0.items)
    }

    #[getter]
    fn actions<'py>(&self, py: Python<'py>) -> PyResult<Rows<'py>> {
        self.rows(py, &self.0.actions)
    }

    #[getter]
    fn gaps<'py>(&self, py: Python<'py>) -> PyResult<Rows<'py>> {
        self.rows(py, &self.0.gaps)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }
}

impl Histories {
    fn rows<'py>(&self, py: Python<'py>, values: &[i64]) -> PyResult<Rows<'py>> {
        values.to_vec().into_pyarray(py).reshape([self.0.len(), self.0.length])
    }
}

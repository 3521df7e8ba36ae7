//! Kernels of the trainers for Python: numpy arrays in and out, the interpreter detached meanwhile.
#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::{exceptions::PyValueError, prelude::*};

use crate::error::Result;
use crate::train::{Lists, csr::Csr, item_to_item, next_basket, sequence_rules};

/// Offsets, items and scores of ranked lists.
type Arrays<'py> = (Bound<'py, PyArray1<u64>>, Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<f32>>);

/// Adds the kernels to the module.
///
/// # Errors
/// When Python refuses a name.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(item_neighbours, module)?)?;
    module.add_function(wrap_pyfunction!(sequence_neighbours, module)?)?;
    module.add_function(wrap_pyfunction!(next_baskets, module)?)
}

/// Runs a kernel without the interpreter.
fn detached(py: Python<'_>, kernel: impl FnOnce() -> Result<Lists> + Send) -> PyResult<Arrays<'_>> {
    let lists = py.detach(kernel).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let offsets: Vec<u64> = lists.offsets.iter().map(|&offset| offset as u64).collect();
    Ok((offsets.into_pyarray(py), lists.items.into_pyarray(py), lists.scores.into_pyarray(py)))
}

#[pyfunction]
#[pyo3(signature = (rows, items, shape, *, measure, k, shrink, weights=None))]
#[expect(clippy::too_many_arguments, reason = "keywords of the Python function")]
fn item_neighbours<'py>(
    py: Python<'py>,
    rows: PyReadonlyArray1<'py, u32>,
    items: PyReadonlyArray1<'py, u32>,
    shape: (usize, usize),
    measure: &str,
    k: usize,
    shrink: f32,
    weights: Option<PyReadonlyArray1<'py, f32>>,
) -> PyResult<Arrays<'py>> {
    let (rows, items) = (rows.as_slice()?, items.as_slice()?);
    let weights = weights.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    detached(py, || {
        let options = item_to_item::Options { measure: measure.parse()?, k, shrink };
        item_to_item::neighbours(&Csr::from_pairs(rows, items, weights, shape)?, &options)
    })
}

#[pyfunction]
#[pyo3(signature = (sequence, items, time_ms, n_items, *, window, directed, k, half_life_ms))]
#[expect(clippy::too_many_arguments, reason = "keywords of the Python function")]
fn sequence_neighbours<'py>(
    py: Python<'py>,
    sequence: PyReadonlyArray1<'py, u32>,
    items: PyReadonlyArray1<'py, u32>,
    time_ms: PyReadonlyArray1<'py, i64>,
    n_items: usize,
    window: usize,
    directed: bool,
    k: usize,
    half_life_ms: i64,
) -> PyResult<Arrays<'py>> {
    let (sequence, items, time_ms) = (sequence.as_slice()?, items.as_slice()?, time_ms.as_slice()?);
    let options = sequence_rules::Options { window, directed, k, half_life_ms };
    detached(py, || sequence_rules::rules(sequence, items, time_ms, n_items, &options))
}

#[pyfunction]
#[pyo3(signature = (visitors, baskets, items, shape, *, n_groups, within, across, neighbours, alpha, length, only_new=false))]
#[expect(clippy::too_many_arguments, reason = "keywords of the Python function")]
fn next_baskets<'py>(
    py: Python<'py>,
    visitors: PyReadonlyArray1<'py, u32>,
    baskets: PyReadonlyArray1<'py, u32>,
    items: PyReadonlyArray1<'py, u32>,
    shape: (usize, usize),
    n_groups: usize,
    within: f32,
    across: f32,
    neighbours: usize,
    alpha: f32,
    length: usize,
    only_new: bool,
) -> PyResult<Arrays<'py>> {
    let (visitors, baskets, items) = (visitors.as_slice()?, baskets.as_slice()?, items.as_slice()?);
    let decay = next_basket::Decay { n_groups, within, across };
    let options = next_basket::Options { neighbours, alpha, length, only_new };
    detached(py, || next_basket::blend(&next_basket::vectors(visitors, baskets, items, shape, &decay)?, &options))
}

//! Kernels of the trainers for Python: numpy arrays in and out, the interpreter detached meanwhile.
#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray2};
use pyo3::{exceptions::PyValueError, prelude::*};

use crate::error::Result;
use crate::train::{Lists, als, csr::Csr, history_knn, item_to_item, next_basket, pair_counts, ranks, sequence_rules};

/// Offsets, items and scores of ranked lists.
type Arrays<'py> = (Bound<'py, PyArray1<u64>>, Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<f32>>);

/// Adds the kernels to the module.
///
/// # Errors
/// When Python refuses a name.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(item_neighbours, module)?)?;
    module.add_function(wrap_pyfunction!(sequence_neighbours, module)?)?;
    module.add_function(wrap_pyfunction!(count_pairs, module)?)?;
    module.add_function(wrap_pyfunction!(neighbours_of_pairs, module)?)?;
    module.add_function(wrap_pyfunction!(basket_vectors, module)?)?;
    module.add_function(wrap_pyfunction!(blend_baskets, module)?)?;
    module.add_function(wrap_pyfunction!(als_half_sweep, module)?)?;
    module.add_function(wrap_pyfunction!(rank_targets, module)?)?;
    module.add_function(wrap_pyfunction!(score_by_histories, module)?)
}

/// Runs a kernel without the interpreter.
fn detached(py: Python<'_>, kernel: impl FnOnce() -> Result<Lists> + Send) -> PyResult<Arrays<'_>> {
    let lists = py.detach(kernel).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let offsets: Vec<u64> = lists.offsets.iter().map(|&offset| offset as u64).collect();
    Ok((offsets.into_pyarray(py), lists.items.into_pyarray(py), lists.scores.into_pyarray(py)))
}

#[pyfunction]
#[pyo3(signature = (rows, items, shape, *, measure, k, shrink, alpha=0.5, weights=None))]
#[expect(clippy::too_many_arguments, reason = "keywords of the Python function")]
fn item_neighbours<'py>(
    py: Python<'py>,
    rows: PyReadonlyArray1<'py, u32>,
    items: PyReadonlyArray1<'py, u32>,
    shape: (usize, usize),
    measure: &str,
    k: usize,
    shrink: f32,
    alpha: f32,
    weights: Option<PyReadonlyArray1<'py, f32>>,
) -> PyResult<Arrays<'py>> {
    let (rows, items) = (rows.as_slice()?, items.as_slice()?);
    let weights = weights.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    detached(py, || {
        let options = item_to_item::Options { measure: measure.parse()?, k, shrink, alpha };
        item_to_item::neighbours(&Csr::from_pairs(rows, items, weights, shape)?, &options)
    })
}

#[pyfunction]
#[pyo3(signature = (sequence, items, time_ms, n_items, *, window, k, damping, backward=0.0, half_life_ms=0))]
#[expect(clippy::too_many_arguments, reason = "keywords of the Python function")]
fn sequence_neighbours<'py>(
    py: Python<'py>,
    sequence: PyReadonlyArray1<'py, u32>,
    items: PyReadonlyArray1<'py, u32>,
    time_ms: PyReadonlyArray1<'py, i64>,
    n_items: usize,
    window: usize,
    k: usize,
    damping: (f32, f32),
    backward: f32,
    half_life_ms: i64,
) -> PyResult<Arrays<'py>> {
    let (sequence, items, time_ms) = (sequence.as_slice()?, items.as_slice()?, time_ms.as_slice()?);
    let options = sequence_rules::Options { window, backward, damping, k, half_life_ms };
    detached(py, || sequence_rules::rules(sequence, items, time_ms, n_items, &options))
}

/// Offsets, other items and counts of pairs.
type Pairs<'py> = (Bound<'py, PyArray1<u64>>, Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<u32>>);

#[pyfunction]
fn count_pairs<'py>(
    py: Python<'py>,
    rows: PyReadonlyArray1<'py, u32>,
    items: PyReadonlyArray1<'py, u32>,
    shape: (usize, usize),
    span: (usize, usize),
) -> PyResult<Pairs<'py>> {
    let (rows, items) = (rows.as_slice()?, items.as_slice()?);
    let pairs = py
        .detach(|| pair_counts::count(&Csr::from_pairs(rows, items, None, shape)?, span.0..span.1))
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok((pairs.offsets.into_pyarray(py), pairs.others.into_pyarray(py), pairs.counts.into_pyarray(py)))
}

/// Read-only [`Pairs`].
type PairsGiven<'py> = (PyReadonlyArray1<'py, u64>, PyReadonlyArray1<'py, u32>, PyReadonlyArray1<'py, u32>);

#[pyfunction]
#[pyo3(signature = (parts, sizes, first, *, measure, k, shrink, alpha=0.5))]
#[expect(clippy::too_many_arguments, reason = "keywords of the Python function")]
fn neighbours_of_pairs<'py>(
    py: Python<'py>,
    parts: Vec<PairsGiven<'py>>,
    sizes: PyReadonlyArray1<'py, u32>,
    first: usize,
    measure: &str,
    k: usize,
    shrink: f32,
    alpha: f32,
) -> PyResult<Arrays<'py>> {
    let sizes = sizes.as_slice()?;
    let parts = parts
        .iter()
        .map(|(offsets, others, counts)| {
            let (offsets, others, counts) = (offsets.as_slice()?, others.as_slice()?, counts.as_slice()?);
            Ok(pair_counts::Part { offsets, others, counts })
        })
        .collect::<PyResult<Vec<_>>>()?;
    detached(py, || {
        let options = item_to_item::Options { measure: measure.parse()?, k, shrink, alpha };
        pair_counts::neighbours(&parts, sizes, first, &options)
    })
}

/// Visitors, items and values of a matrix, row by row.
type Entries<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<f32>>);

#[pyfunction]
#[pyo3(signature = (visitors, baskets, items, shape, *, n_groups, within, across))]
#[expect(clippy::too_many_arguments, reason = "keywords of the Python function")]
fn basket_vectors<'py>(
    py: Python<'py>,
    visitors: PyReadonlyArray1<'py, u32>,
    baskets: PyReadonlyArray1<'py, u32>,
    items: PyReadonlyArray1<'py, u32>,
    shape: (usize, usize),
    n_groups: usize,
    within: f32,
    across: f32,
) -> PyResult<Entries<'py>> {
    let (visitors, baskets, items) = (visitors.as_slice()?, baskets.as_slice()?, items.as_slice()?);
    let decay = next_basket::Decay { n_groups, within, across };
    let vectors = py
        .detach(|| next_basket::vectors(visitors, baskets, items, shape, &decay))
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    let rows = (0..vectors.n_rows()).flat_map(|row| std::iter::repeat_n(row as u32, vectors.row_len(row)));
    let rows: Vec<u32> = rows.collect();
    Ok((rows.into_pyarray(py), vectors.columns.into_pyarray(py), vectors.values.into_pyarray(py)))
}

#[pyfunction]
#[pyo3(signature = (visitors, items, values, shape, span, *, neighbours, alpha, length, only_new=false))]
#[expect(clippy::too_many_arguments, reason = "keywords of the Python function")]
fn blend_baskets<'py>(
    py: Python<'py>,
    visitors: PyReadonlyArray1<'py, u32>,
    items: PyReadonlyArray1<'py, u32>,
    values: PyReadonlyArray1<'py, f32>,
    shape: (usize, usize),
    span: (usize, usize),
    neighbours: usize,
    alpha: f32,
    length: usize,
    only_new: bool,
) -> PyResult<Arrays<'py>> {
    let (visitors, items, values) = (visitors.as_slice()?, items.as_slice()?, values.as_slice()?);
    let options = next_basket::Options { neighbours, alpha, length, only_new };
    detached(py, || {
        let vectors = Csr::from_pairs(visitors, items, Some(values), shape)?;
        next_basket::blend(&vectors, span.0..span.1, &options)
    })
}

#[pyfunction]
#[pyo3(signature = (table, queries, out, *, neighbours, power, nearby, behind))]
#[expect(clippy::too_many_arguments, reason = "keywords of the Python function")]
fn score_by_histories<'py>(
    py: Python<'py>,
    table: (PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, u32>, PyReadonlyArray1<'py, f32>),
    queries: (
        PyReadonlyArray1<'py, u32>,
        PyReadonlyArray1<'py, i64>,
        PyReadonlyArray1<'py, u32>,
        PyReadonlyArray1<'py, f32>,
    ),
    mut out: PyReadwriteArray2<'py, f32>,
    neighbours: usize,
    power: f32,
    nearby: f32,
    behind: f32,
) -> PyResult<()> {
    let table =
        history_knn::Table { offsets: table.0.as_slice()?, items: table.1.as_slice()?, weights: table.2.as_slice()? };
    let queries = history_knn::Queries {
        own: queries.0.as_slice()?,
        offsets: queries.1.as_slice()?,
        items: queries.2.as_slice()?,
        weights: queries.3.as_slice()?,
    };
    let n_items = out.as_array().ncols();
    let out = out.as_slice_mut()?;
    let options = history_knn::Options { neighbours, power, nearby, behind };
    py.detach(|| history_knn::score(&table, &queries, n_items, &options, out))
        .map_err(|error| PyValueError::new_err(error.to_string()))
}

#[pyfunction]
#[pyo3(signature = (offsets, columns, fixed, rows, *, unobserved, regularisation, scaling, steps))]
#[expect(clippy::too_many_arguments, reason = "keywords of the Python function")]
fn als_half_sweep<'py>(
    py: Python<'py>,
    offsets: PyReadonlyArray1<'py, i64>,
    columns: PyReadonlyArray1<'py, u32>,
    fixed: PyReadonlyArray2<'py, f32>,
    mut rows: PyReadwriteArray2<'py, f32>,
    unobserved: f32,
    regularisation: f32,
    scaling: f32,
    steps: usize,
) -> PyResult<()> {
    let width = fixed.as_array().ncols();
    if rows.as_array().ncols() != width {
        return Err(PyValueError::new_err("`rows` and `fixed` differ in width; give factors of one width"));
    }
    let options = als::Options { width, unobserved, regularisation, scaling, steps };
    let (offsets, columns, fixed) = (offsets.as_slice()?, columns.as_slice()?, fixed.as_slice()?);
    let rows = rows.as_slice_mut()?;
    py.detach(|| als::half_sweep(offsets, columns, fixed, &options, rows))
        .map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Ranks of targets, and the best items of each row.
type Ranked<'py> = (Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<u32>>);

#[pyfunction]
fn rank_targets<'py>(
    py: Python<'py>,
    scores: PyReadonlyArray2<'py, f32>,
    offsets: PyReadonlyArray1<'py, i64>,
    targets: PyReadonlyArray1<'py, u32>,
    k: usize,
) -> PyResult<Ranked<'py>> {
    let n_items = scores.as_array().ncols();
    let (scores, offsets, targets) = (scores.as_slice()?, offsets.as_slice()?, targets.as_slice()?);
    let ranked = py
        .detach(|| ranks::rank(scores, n_items, offsets, targets, k))
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok((ranked.ranks.into_pyarray(py), ranked.best.into_pyarray(py)))
}

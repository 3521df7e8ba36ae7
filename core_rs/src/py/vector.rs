//! The index of vectors for Python: numpy arrays in and out, the interpreter detached meanwhile.

use super::error::enter_detached;
use crate::{
    error::{Error, Result},
    vector::{self, Allowed, Instructions},
};
use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::prelude::*;

/// Items and scores, one row a query.
type Found<'py> = (Bound<'py, PyArray2<u32>>, Bound<'py, PyArray2<f32>>);

/// Items and scores of one query.
type FoundNear<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<f32>>);

#[pyclass(frozen, module = "core_rs._native")]
pub(super) struct VectorIndex(vector::VectorIndex);

#[pymethods]
impl VectorIndex {
    #[new]
    #[pyo3(signature = (vectors, *, clusters=None, instructions=""))]
    fn new(
        py: Python<'_>,
        vectors: PyReadonlyArray2<'_, f32>,
        clusters: Option<(PyReadonlyArray2<'_, f32>, PyReadonlyArray1<'_, u32>)>,
        instructions: &str,
    ) -> PyResult<Self> {
        let (values, dimensions) = (vectors.as_slice()?, vectors.shape()[1]);
        let clusters = clusters.as_ref().map(|(centres, of)| Ok::<_, PyErr>((centres.as_slice()?, of.as_slice()?)));
        let clusters = clusters.transpose()?;
        enter_detached(py, || {
            let index = vector::VectorIndex::new(values.to_vec(), dimensions, chosen(instructions)?)?;
            let Some((centres, of)) = clusters else { return Ok(Self(index)) };
            index.clustered(centres.to_vec(), of).map(Self)
        })
    }

    #[pyo3(signature = (query, k, *, exact=false))]
    fn search_near<'py>(
        &self,
        py: Python<'py>,
        query: PyReadonlyArray1<'py, f32>,
        k: usize,
        exact: bool,
    ) -> PyResult<FoundNear<'py>> {
        let query = query.as_slice()?;
        let hits = enter_detached(py, || self.check(query.len()).map(|()| self.0.search_near(query, k, exact)))?;
        let (items, scores): (Vec<u32>, Vec<f32>) = hits.iter().map(|hit| (hit.item, hit.score)).unzip();
        Ok((items.into_pyarray(py), scores.into_pyarray(py)))
    }

    #[pyo3(signature = (queries, k, *, allowed=None, exact=false))]
    fn search<'py>(
        &self,
        py: Python<'py>,
        queries: PyReadonlyArray2<'py, f32>,
        k: usize,
        allowed: Option<PyReadonlyArray1<'py, bool>>,
        exact: bool,
    ) -> PyResult<Found<'py>> {
        let (values, width) = (queries.as_slice()?, queries.shape()[1]);
        let allowed = allowed.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
        let (items, scores) = enter_detached(py, || self.rows(values, width, k, allowed, exact))?;
        let shape = [queries.shape()[0], k.min(self.0.len())];
        Ok((items.into_pyarray(py).reshape(shape)?, scores.into_pyarray(py).reshape(shape)?))
    }

    #[getter]
    fn instructions(&self) -> &'static str {
        self.0.instructions().name()
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }
}

impl VectorIndex {
    fn check(&self, width: usize) -> Result<()> {
        if width == self.0.dimensions() {
            return Ok(());
        }
        let text = format!("queries have {width} dimensions, the vectors {}", self.0.dimensions());
        Err(Error::out_of_range("queries", text))
    }

    /// Items and scores of all queries, each filled up to the same length.
    fn rows(
        &self,
        queries: &[f32],
        width: usize,
        k: usize,
        allowed: Option<&[bool]>,
        exact: bool,
    ) -> Result<(Vec<u32>, Vec<f32>)> {
        self.check(width)?;
        let allowed = allowed.map(|flags| mask(flags, self.0.len())).transpose()?;
        let queries: Vec<&[f32]> = queries.chunks_exact(width).collect();
        let columns = k.min(self.0.len());
        let (mut items, mut scores) = (Vec::new(), Vec::new());
        for hits in self.0.search(&queries, k, allowed.as_ref(), exact) {
            let filled = hits.iter().map(|hit| (hit.item, hit.score));
            let rest = std::iter::repeat_n((crate::ids::NONE, f32::NEG_INFINITY), columns - hits.len());
            for (item, score) in filled.chain(rest) {
                items.push(item);
                scores.push(score);
            }
        }
        Ok((items, scores))
    }
}

fn chosen(name: &str) -> Result<Instructions> {
    if name.is_empty() {
        return Ok(Instructions::best());
    }
    let names: Vec<&str> = Instructions::available().iter().map(|set| set.name()).collect();
    let text = || format!("`{name}` is no set of instructions of this processor; it has {}", names.join(", "));
    Instructions::named(name).ok_or_else(|| Error::out_of_range("instructions", text()))
}

fn mask(flags: &[bool], len: usize) -> Result<Allowed> {
    if flags.len() != len {
        return Err(Error::out_of_range("allowed", format!("`allowed` has {} flags for {len} items", flags.len())));
    }
    let mut allowed = Allowed::none(len);
    flags.iter().enumerate().filter(|&(_, &flag)| flag).for_each(|(item, _)| allowed.insert(item as u32));
    Ok(allowed)
}

//! Functions of the module: the tables of names, checks of single messages, events as columns.

use super::{
    error::{enter, enter_detached},
    row_list,
};
use crate::{
    columns::{self, EventTable, Lines},
    error::{Error, decode},
    feature,
    params::RING,
    profile, source, validate,
};
use numpy::{IntoPyArray, PyReadonlyArray1};
use prost::Message;
use pyo3::{
    prelude::*,
    pybacked::{PyBackedBytes, PyBackedStr},
    types::{PyBytes, PyDict},
};

/// Adds the functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(feature_names, module)?)?;
    module.add_function(wrap_pyfunction!(feature_table, module)?)?;
    module.add_function(wrap_pyfunction!(schema_hash, module)?)?;
    module.add_function(wrap_pyfunction!(history_length, module)?)?;
    module.add_function(wrap_pyfunction!(source_names, module)?)?;
    module.add_function(wrap_pyfunction!(check_item, module)?)?;
    module.add_function(wrap_pyfunction!(check_profile, module)?)?;
    module.add_function(wrap_pyfunction!(check_placement, module)?)?;
    module.add_function(wrap_pyfunction!(check_control, module)?)?;
    module.add_function(wrap_pyfunction!(stated_after, module)?)?;
    module.add_function(wrap_pyfunction!(encode_events, module)?)?;
    module.add_function(wrap_pyfunction!(event_columns, module)?)
}

#[pyfunction]
fn feature_names() -> Vec<String> {
    feature::names()
}

#[pyfunction]
fn feature_table() -> Vec<(String, &'static str, &'static str, String)> {
    let row = |column: feature::Column| {
        (column.name.into_owned(), column.group.name(), column.unit, column.meaning.into_owned())
    };
    feature::table().into_iter().map(row).collect()
}

#[pyfunction]
fn history_length() -> usize {
    RING
}

#[pyfunction]
fn schema_hash() -> String {
    feature::schema_hash()
}

#[pyfunction]
fn source_names() -> Vec<&'static str> {
    source::names()
}

#[pyfunction]
fn check_item(item: &[u8], index: usize) -> PyResult<()> {
    enter(|| validate::item(&decode(item, "Item")?, index))
}

#[pyfunction]
fn check_profile(profile: &[u8]) -> PyResult<()> {
    enter(|| validate::profile(&decode(profile, "Profile")?))
}

#[pyfunction]
fn check_placement(placement: &[u8]) -> PyResult<()> {
    enter(|| validate::placement(&decode(placement, "Placement")?))
}

#[pyfunction]
fn check_control(control: &[u8]) -> PyResult<()> {
    enter(|| validate::control(&decode(control, "Control")?))
}

#[pyfunction]
fn stated_after<'py>(
    py: Python<'py>,
    known: &[u8],
    kind: i32,
    time_ms: i64,
    payload: &[u8],
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let (stated, profile) = enter(|| profile::stated_after(known, kind, time_ms, payload))?;
    Ok((PyBytes::new(py, &stated.encode_to_vec()), PyBytes::new(py, &profile.encode_to_vec())))
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "columns of one table")]
fn encode_events<'py>(
    py: Python<'py>,
    event_ids: Vec<PyBackedStr>,
    event_types: PyReadonlyArray1<'py, i32>,
    time_ms: PyReadonlyArray1<'py, i64>,
    visitor_ids: Vec<PyBackedStr>,
    session_ids: Vec<PyBackedStr>,
    store_ids: Vec<PyBackedStr>,
    queries: Vec<PyBackedStr>,
    line_offsets: PyReadonlyArray1<'py, i64>,
    item_ids: Vec<PyBackedStr>,
    quantities: PyReadonlyArray1<'py, i32>,
    price_micros: PyReadonlyArray1<'py, i64>,
    currency: &str,
) -> PyResult<Vec<(String, String, Py<PyBytes>)>> {
    let table = EventTable {
        event_ids: &event_ids,
        event_types: event_types.as_slice()?,
        time_ms: time_ms.as_slice()?,
        visitor_ids: &visitor_ids,
        session_ids: &session_ids,
        store_ids: &store_ids,
        queries: &queries,
        line_offsets: line_offsets.as_slice()?,
        item_ids: &item_ids,
        quantities: quantities.as_slice()?,
        price_micros: price_micros.as_slice()?,
        currency,
    };
    Ok(row_list(py, &enter_detached(py, || columns::encode_events(&table))?))
}

#[pyfunction]
fn event_columns(py: Python<'_>, records: Vec<(i64, i64, PyBackedBytes)>) -> PyResult<Bound<'_, PyDict>> {
    let events = enter_detached(py, || columns::read(&records))?;
    let lines = enter_detached(py, || Ok::<_, Error>(Lines::new(&events)))?;
    let table = PyDict::new(py);
    for (name, column) in columns::TEXTS.iter().zip(lines.texts) {
        table.set_item(name, column)?;
    }
    for (name, column) in columns::NUMBERS.iter().zip(lines.numbers) {
        table.set_item(name, column.into_pyarray(py))?;
    }
    table.set_item("price", lines.price.into_pyarray(py))?;
    Ok(table)
}

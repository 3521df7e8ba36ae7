//! The core for Python; the only folder that knows of it. Names and types are those of `_native.pyi`.

#![expect(clippy::needless_pass_by_value, reason = "what Python passes is a value")]

mod answer;
mod error;
mod functions;
mod sequence;
mod train;
mod vector;

use crate::{
    bundle, engine,
    error::Error,
    events,
    feature::WIDTH,
    pipeline::{self, Actions, By},
    score,
    state::Record,
    unrecorded::UnrecordedStatement,
};
use answer::{Answer, Outcome};
use error::{enter, enter_detached};
use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods, ndarray::ArrayView2,
};
use prost::Message;
use pyo3::{prelude::*, pybacked::PyBackedBytes, types::PyBytes};
use rayon::prelude::*;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

// A decision makes some hundred small allocations; this allocator took a fifth off its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Answer>()?;
    module.add_class::<Bundle>()?;
    module.add_class::<Engine>()?;
    module.add_class::<EventBatch>()?;
    module.add_class::<sequence::Histories>()?;
    module.add_class::<Plan>()?;
    module.add_class::<vector::VectorIndex>()?;
    error::register(module)?;
    functions::register(module)?;
    train::register(module)
}

type Bytes<'py> = Bound<'py, PyBytes>;

/// Offset, kind, time and payload.
type LogRow = (i64, i32, i64, PyBackedBytes);

fn record(&(offset, kind, time_ms, ref payload): &LogRow) -> Record<'_> {
    Record { offset, kind, time_ms, payload }
}

fn bytes_list(py: Python<'_>, messages: Vec<Vec<u8>>) -> Vec<Bytes<'_>> {
    messages.iter().map(|message| PyBytes::new(py, message)).collect()
}

/// Event id, visitor key and payload of rows for the log.
fn row_list(py: Python<'_>, rows: &[events::Row]) -> Vec<(String, String, Py<PyBytes>)> {
    let tuple = |row: &events::Row| (row.event_id.clone(), row.key.clone(), PyBytes::new(py, &row.payload).unbind());
    rows.iter().map(tuple).collect()
}

#[pyclass(frozen, module = "core_rs._native")]
struct EventBatch(events::Batch);

#[pymethods]
impl EventBatch {
    #[getter]
    fn rows(&self, py: Python<'_>) -> Vec<(String, String, Py<PyBytes>)> {
        row_list(py, &self.0.rows)
    }

    #[getter]
    fn rejected_count(&self) -> usize {
        self.0.rejected_count()
    }

    #[getter]
    fn joined_count(&self) -> usize {
        self.0.joined_count
    }

    #[getter]
    fn unjoined_count(&self) -> usize {
        self.0.unjoined_count
    }

    fn reply<'py>(&self, py: Python<'py>, statuses: Vec<i64>) -> PyResult<Bytes<'py>> {
        let reply = enter(|| self.0.reply(&statuses))?;
        Ok(PyBytes::new(py, &reply))
    }
}

#[pyclass(frozen, module = "core_rs._native")]
struct Plan {
    plan: pipeline::Plan,
    engine: Arc<engine::Engine>,
}

#[pymethods]
impl Plan {
    #[getter]
    fn features<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let features = &slf.get().plan.features;
        let view = ArrayView2::from_shape((features.len() / WIDTH, WIDTH), features);
        let view = view.map_err(|cause| Error::internal(cause.to_string()))?;
        // SAFETY: the array keeps the plan alive, and a plan never changes.
        let array = unsafe { PyArray2::borrow_from_array(&view, slf.clone().into_any()) };
        array.readwrite().make_nonwriteable();
        Ok(array)
    }

    #[getter]
    fn request_id(&self) -> &str {
        &self.plan.request.request_id
    }

    #[getter]
    fn model_version(&self) -> &str {
        &self.plan.model_version
    }

    #[getter]
    fn bundle_version(&self) -> &str {
        &self.plan.bundle_version
    }

    #[getter]
    fn visitor_key(&self) -> &str {
        self.plan.visitor_key()
    }

    #[getter]
    fn item_ids(&self) -> Vec<String> {
        self.engine.item_ids(&self.plan.row_items)
    }

    #[getter]
    fn items<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        PyArray1::from_slice(py, &self.plan.row_items)
    }

    #[getter]
    fn action_weights(&self) -> Vec<Vec<f32>> {
        let placements = self.plan.slots.iter().map(|slot| &slot.placement);
        placements.map(|placement| score::action_weights(&placement.action_values, &self.plan.actions)).collect()
    }

    #[getter]
    fn slot_offsets(&self) -> Vec<usize> {
        self.plan.slot_rows.clone()
    }
}

#[pyclass(frozen, module = "core_rs._native")]
struct Bundle(Arc<bundle::Bundle>);

#[pymethods]
impl Bundle {
    #[getter]
    fn version(&self) -> &str {
        &self.0.version
    }

    #[getter]
    fn actions(&self) -> Vec<String> {
        self.0.actions.clone()
    }

    #[getter]
    fn schema_hash(&self) -> &str {
        &self.0.schema_hash
    }

    fn score<'py>(
        &self,
        py: Python<'py>,
        features: PyReadonlyArray2<'py, f32>,
    ) -> PyResult<Option<Bound<'py, PyArray2<f32>>>> {
        let Some(ranker) = &self.0.ranker else { return Ok(None) };
        if features.shape()[1] != WIDTH {
            let text = format!("features have {} columns, the feature table {WIDTH}", features.shape()[1]);
            return Err(Error::out_of_range("features", text).into());
        }
        let (rows, values) = (features.shape()[0], features.as_slice()?);
        let answers = enter(|| Ok(ranker.score(values)))?;
        Ok(Some(answers.into_pyarray(py).reshape([rows, ranker.columns()])?))
    }
}

#[pyclass(frozen, module = "core_rs._native")]
struct Engine(Arc<engine::Engine>);

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (*, token_key=[].as_slice(), consent_default=true, decision_share=1.0, time_zone="UTC"))]
    fn new(token_key: &[u8], consent_default: bool, decision_share: f64, time_zone: &str) -> PyResult<Self> {
        Ok(Self(Arc::new(engine::Engine::new(token_key, consent_default, decision_share, time_zone)?)))
    }

    #[pyo3(signature = (request, now_ms, *, history=false))]
    fn prepare_events(&self, request: &[u8], now_ms: i64, history: bool) -> PyResult<EventBatch> {
        enter(|| self.0.prepare_events(request, now_ms, history)).map(EventBatch)
    }

    fn apply(&self, py: Python<'_>, records: Vec<LogRow>) -> PyResult<usize> {
        enter_detached(py, || Ok::<_, Error>(self.0.apply(records.iter().map(record))))
    }

    fn apply_late_erasure(
        &self,
        py: Python<'_>,
        erasure: LogRow,
        since: Vec<LogRow>,
        of_user: Vec<LogRow>,
    ) -> PyResult<bool> {
        let [since, of_user] = [&since, &of_user].map(|rows| rows.iter().map(record).collect::<Vec<_>>());
        enter_detached(py, || Ok::<_, Error>(self.0.apply_late_erasure(&record(&erasure), &since, &of_user)))
    }

    #[getter]
    fn offset(&self) -> PyResult<i64> {
        enter(|| Ok(self.0.offset()))
    }

    #[pyo3(signature = (request, now_ms, *, on_trial=false))]
    fn begin(&self, request: &[u8], now_ms: i64, on_trial: bool) -> PyResult<Plan> {
        let plan = enter(|| self.0.begin(request, now_ms, By::of(on_trial)))?;
        Ok(Plan { plan, engine: Arc::clone(&self.0) })
    }

    fn begin_all(&self, py: Python<'_>, requests: Vec<PyBackedBytes>, now_ms: i64) -> PyResult<Vec<Plan>> {
        let begin = |request: &PyBackedBytes| {
            let plan = self.0.begin(request, now_ms, By::of(false))?;
            Ok(Plan { plan, engine: Arc::clone(&self.0) })
        };
        enter_detached(py, || requests.par_iter().map(begin).collect::<Result<_, Error>>())
    }

    #[pyo3(signature = (request, now_ms, *, on_trial=false))]
    fn decide(&self, request: &[u8], now_ms: i64, on_trial: bool) -> PyResult<Outcome> {
        Ok(match enter(|| self.0.decide(request, now_ms, By::of(on_trial)))? {
            pipeline::Outcome::Decided(plan, decided) => Outcome::Answer(Answer::new(&plan, decided)),
            pipeline::Outcome::Planned(plan) => Outcome::Plan(Plan { plan, engine: Arc::clone(&self.0) }),
        })
    }

    #[pyo3(signature = (plan, actions, degraded=""))]
    fn finish(
        &self,
        plan: &Bound<'_, Plan>,
        actions: Option<PyReadonlyArray2<'_, f32>>,
        degraded: &str,
    ) -> PyResult<Answer> {
        let (plan, actions) = (&plan.get().plan, actions_of(actions.as_ref())?);
        let decided = enter(|| self.0.finish(plan, actions.as_ref(), degraded))?;
        Ok(Answer::new(plan, decided))
    }

    #[pyo3(signature = (plan, actions, degraded=""))]
    fn explain<'py>(
        &self,
        py: Python<'py>,
        plan: &Bound<'py, Plan>,
        actions: Option<PyReadonlyArray2<'py, f32>>,
        degraded: &str,
    ) -> PyResult<Bytes<'py>> {
        let (plan, actions) = (&plan.get().plan, actions_of(actions.as_ref())?);
        let explanation = enter(|| self.0.explain(plan, actions.as_ref(), degraded))?;
        Ok(PyBytes::new(py, &explanation))
    }

    fn item<'py>(&self, py: Python<'py>, item_id: &str) -> PyResult<Bytes<'py>> {
        Ok(PyBytes::new(py, &enter(|| self.0.item(item_id))?))
    }

    fn items<'py>(&self, py: Python<'py>, start: u32, count: usize) -> PyResult<(Vec<Bytes<'py>>, u32)> {
        let (items, next) = enter(|| Ok(self.0.items(start, count)))?;
        Ok((bytes_list(py, items), next))
    }

    fn placement<'py>(&self, py: Python<'py>, placement_id: &str) -> PyResult<Bytes<'py>> {
        Ok(PyBytes::new(py, &enter(|| self.0.placement(placement_id))?))
    }

    fn placements<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bytes<'py>>> {
        Ok(bytes_list(py, enter(|| Ok(self.0.placements()))?))
    }

    fn control<'py>(&self, py: Python<'py>, control_id: &str) -> PyResult<Bytes<'py>> {
        Ok(PyBytes::new(py, &enter(|| self.0.control(control_id))?))
    }

    fn controls<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bytes<'py>>> {
        Ok(bytes_list(py, enter(|| Ok(self.0.controls()))?))
    }

    fn profile<'py>(&self, py: Python<'py>, visitor_id: &str) -> PyResult<Bytes<'py>> {
        Ok(PyBytes::new(py, &enter(|| self.0.profile(visitor_id))?))
    }

    #[getter]
    fn active_model(&self) -> PyResult<String> {
        enter(|| Ok(self.0.models().0))
    }

    #[getter]
    fn previous_model(&self) -> PyResult<String> {
        enter(|| Ok(self.0.models().1))
    }

    #[getter]
    fn trial<'py>(&self, py: Python<'py>) -> PyResult<Bytes<'py>> {
        Ok(PyBytes::new(py, &enter(|| Ok(self.0.trial()))?))
    }

    fn counts(&self) -> PyResult<BTreeMap<&'static str, u64>> {
        enter(|| Ok(self.0.counts().into_iter().collect()))
    }

    fn stats(&self, py: Python<'_>) -> PyResult<BTreeMap<&'static str, u64>> {
        enter_detached(py, || Ok::<_, Error>(self.0.stats().into_iter().collect()))
    }

    fn unrecorded_statements(&self, py: Python<'_>, count: usize) -> PyResult<Vec<(String, i64, Py<PyBytes>)>> {
        let found = enter(|| Ok(self.0.unrecorded_statements(count)))?;
        let tuple = |one: UnrecordedStatement| {
            let payload = PyBytes::new(py, &one.stated.encode_to_vec()).unbind();
            (one.stated.visitor_id, one.time_ms, payload)
        };
        Ok(found.into_iter().map(tuple).collect())
    }

    #[getter]
    fn waiting(&self) -> PyResult<usize> {
        enter(|| Ok(self.0.waiting()))
    }

    fn take_histories(&self, py: Python<'_>, count: usize) -> PyResult<sequence::Histories> {
        enter_detached(py, || Ok::<_, Error>(self.0.take_histories(count))).map(sequence::Histories)
    }

    fn set_vectors(
        &self,
        py: Python<'_>,
        histories: &Bound<'_, sequence::Histories>,
        vectors: PyReadonlyArray2<'_, f32>,
    ) -> PyResult<usize> {
        let (histories, width, values) = (&histories.get().0, vectors.shape()[1], vectors.as_slice()?);
        enter_detached(py, || self.0.set_vectors(histories, values, width))
    }

    fn put_back(&self, py: Python<'_>, histories: &Bound<'_, sequence::Histories>) -> PyResult<()> {
        let histories = &histories.get().0;
        enter_detached(py, || {
            self.0.put_back(histories);
            Ok::<_, Error>(())
        })
    }

    fn save_snapshot(&self, py: Python<'_>, path: PathBuf) -> PyResult<i64> {
        enter_detached(py, || self.0.save_snapshot(&path))
    }

    fn load_snapshot(&self, py: Python<'_>, path: PathBuf) -> PyResult<i64> {
        enter_detached(py, || self.0.load_snapshot(&path))
    }

    fn load_bundle(&self, py: Python<'_>, folder: PathBuf) -> PyResult<Bundle> {
        enter_detached(py, || self.0.load_bundle(&folder)).map(Bundle)
    }

    fn unload_bundle(&self, py: Python<'_>, version: &str) -> PyResult<()> {
        enter_detached(py, || self.0.unload_bundle(version))
    }
}

fn actions_of<'a>(actions: Option<&'a PyReadonlyArray2<'_, f32>>) -> PyResult<Option<Actions<'a>>> {
    let actions =
        actions.map(|actions| Ok::<_, PyErr>(Actions { values: actions.as_slice()?, width: actions.shape()[1] }));
    actions.transpose()
}

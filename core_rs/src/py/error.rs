//! Faults as Python exceptions, and the one way into the core.

use crate::error::{Error, Kind, Result};
use pyo3::{create_exception, exceptions::PyException, prelude::*};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

create_exception!(core_rs._native, EngineError, PyException, "Fault with a stable reason.");
create_exception!(core_rs._native, InvalidRequestError, EngineError, "The request is at fault.");
create_exception!(core_rs._native, NotFoundError, EngineError, "What the request names does not exist.");
create_exception!(core_rs._native, CorruptError, EngineError, "A snapshot or bundle is damaged.");
create_exception!(core_rs._native, InternalError, EngineError, "An invariant of the engine broke.");
create_exception!(core_rs._native, BundleError, EngineError, "A bundle does not fit this engine.");

/// Adds the exceptions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("EngineError", py.get_type::<EngineError>())?;
    module.add("InvalidRequestError", py.get_type::<InvalidRequestError>())?;
    module.add("NotFoundError", py.get_type::<NotFoundError>())?;
    module.add("CorruptError", py.get_type::<CorruptError>())?;
    module.add("InternalError", py.get_type::<InternalError>())?;
    module.add("BundleError", py.get_type::<BundleError>())
}

/// Runs short `work` with the interpreter's lock; a panic becomes an [`InternalError`].
///
/// A decision takes some 25 µs, but to get the lock back from a thread that computes takes up to 5 ms
/// (`sys.setswitchinterval`): with another such thread the 99th percentile was 66 µs this way and 11 ms detached.
pub fn enter<T>(work: impl FnOnce() -> Result<T>) -> PyResult<T> {
    Ok(caught(work)??)
}

/// Runs long `work`, or such that may wait for a disk or a lock, without the interpreter's lock.
pub fn enter_detached<T: Send, E: Into<PyErr> + Send>(
    py: Python<'_>,
    work: impl FnOnce() -> std::result::Result<T, E> + Send,
) -> PyResult<T> {
    py.detach(|| caught(work))?.map_err(Into::into)
}

/// Result of `work`, which a panic may leave half done; the same log makes its changes again after a restart.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|panic| Error::internal(format!("the engine panicked: {}", panic_text(&*panic))))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text")
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let raised = match error.kind {
            Kind::InvalidRequest => InvalidRequestError::new_err(error.message.clone()),
            Kind::NotFound => NotFoundError::new_err(error.message.clone()),
            Kind::Corrupt => CorruptError::new_err(error.message.clone()),
            Kind::Bundle => BundleError::new_err(error.message.clone()),
            Kind::Internal => InternalError::new_err(error.message.clone()),
        };
        Python::attach(|py| {
            let value = raised.value(py);
            let named = value.setattr("reason", error.reason_name());
            let named = named.and_then(|()| value.setattr("field", &error.field));
            named.err().unwrap_or(raised)
        })
    }
}

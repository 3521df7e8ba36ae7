//! Events on their way into the log: each is checked alone, so that one bad event costs no other.

use crate::{
    error::{Error, Result},
    params::MAX_EVENTS,
    proto::{
        Event, EventResult, RecordEventsResponse,
        event_result::Status,
    },
    state::State,
    validate,
};
use prost::Message;

/// `RecordEventsRequest` whose events are still bytes: a message and bytes look the same on the wire.
#[derive(Clone, PartialEq, Message)]
struct Frame {
    #[prost(bytes = "vec", repeated, tag = "1")]
    events: Vec<Vec<u8>>,
}

/// Event ready for the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Id of the event.
    pub event_id: String,
    /// Key of its visitor.
    pub key: String,
    /// The event, encoded.
    pub payload: Vec<u8>,
}

impl Row {
    /// Row of a valid event.
    pub fn new(event: &Event) -> Self {
        let key = event.context.as_ref().map_or("", State::visitor_key);
        Self { event_id: event.event_id.clone(), key: key.to_owned(), payload: event.encode_to_vec() }
    }
}

/// Checked events of one request.
#[derive(Default)]
pub struct Batch {
    /// Every valid event, in the order of the request.
    pub rows: Vec<Row>,
    /// Lines whose item is in the catalogue.
    pub joined_count: usize,
    /// Lines whose item is not in the catalogue.
    pub unjoined_count: usize,
    /// One result an event; that of a valid one is filled in by [`Batch::reply`].
    results: Vec<EventResult>,
    /// Place of every row in the request.
    places: Vec<usize>,
}

/// Checks the events of an encoded `RecordEventsRequest`.
///
/// # Errors
/// `REQUEST_MALFORMED` where the bytes do not hold a list of events; a fault of `events` where there are none or too many.
pub fn prepare(state: &State, request: &[u8], now_ms: i64, history: bool) -> Result<Batch> {
    let frame = Frame::decode(request).map_err(|cause| Error::malformed("RecordEventsRequest", &cause))?;
    if frame.events.is_empty() {
        return Err(Error::required("events"));
    }
    if frame.events.len() > MAX_EVENTS {
        let message = format!("`events` has {} entries; send at most {MAX_EVENTS} a request", frame.events.len());
        return Err(Error::out_of_range("events", message));
    }
    let mut batch = Batch::default();
    for (index, bytes) in frame.events.iter().enumerate() {
        match read(bytes, index, now_ms, history) {
            Ok(event) => batch.take(state, &event, index),
            Err(error) => batch.results.push(rejected(error)),
        }
    }
    Ok(batch)
}

fn read(bytes: &[u8], index: usize, now_ms: i64, history: bool) -> Result<Event> {
    let event = Event::decode(bytes)
        .map_err(|cause| Error { field: format!("events[{index}]"), ..Error::malformed("Event", &cause) })?;
    validate::event(&event, index, now_ms, history)?;
    Ok(event)
}

fn rejected(error: Error) -> EventResult {
    EventResult {
        status: Status::Rejected as i32,
        reason: error.reason_name().to_owned(),
        field: error.field,
        message: error.message,
    }
}

impl Batch {
    /// Number of events refused.
    pub fn rejected_count(&self) -> usize {
        self.results.len() - self.rows.len()
    }

    /// Response, with what the log did to every row: 0 stored, 1 had it already, 2 has another event under its id.
    ///
    /// # Errors
    /// Internal where there is not one status a row.
    pub fn reply(&self, statuses: &[i64]) -> Result<Vec<u8>> {
        if statuses.len() != self.rows.len() {
            return Err(Error::internal(format!("{} statuses for {} rows", statuses.len(), self.rows.len())));
        }
        let mut results = self.results.clone();
        for (&place, &status) in self.places.iter().zip(statuses) {
            results[place] = match status {
                0 => EventResult { status: Status::Accepted as i32, ..EventResult::default() },
                1 => EventResult { status: Status::Duplicate as i32, ..EventResult::default() },
                2 => rejected(Error::event_id_conflict(format!("events[{place}].event_id"))),
                other => return Err(Error::internal(format!("status {other} of a row is not 0, 1 or 2"))),
            };
        }
        Ok(RecordEventsResponse { results }.encode_to_vec())
    }

    fn take(&mut self, state: &State, event: &Event, index: usize) {
        let known = |item_id: &str| state.items.get(item_id).is_some_and(|id| state.catalog.row(id).present);
        let joined = event.items.iter().filter(|line| known(&line.item_id)).count();
        self.joined_count += joined;
        self.unjoined_count += event.items.len() - joined;
        self.rows.push(Row::new(event));
        self.places.push(index);
        self.results.push(EventResult::default());
    }
}

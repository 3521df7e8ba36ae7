//! Events on their way into the log: each is checked alone, so that one bad event costs no other.

use crate::{
    error::{Error, Result, decode},
    params::MAX_EVENTS,
    proto::{Event, EventResult, RecordEventsResponse, event_result::Status},
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
/// `REQUEST_MALFORMED` where the bytes do not hold a list of events; a fault of `events` where there are none or too
/// many.
pub fn prepare(state: &State, request: &[u8], now_ms: i64, history: bool) -> Result<Batch> {
    let frame = decode::<Frame>(request, "RecordEventsRequest")?;
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
    let event =
        decode::<Event>(bytes, "Event").map_err(|error| Error { field: format!("events[{index}]"), ..error })?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Context, EventItem, EventType};
    use proptest::prelude::*;

    const NOW: i64 = 1_700_000_000_000;

    fn event(id: &str) -> Event {
        Event {
            event_id: id.into(),
            event_type: EventType::View as i32,
            context: Some(Context { visitor_id: "v".into(), ..Context::default() }),
            items: vec![EventItem { item_id: "i".into(), ..EventItem::default() }],
            ..Event::default()
        }
    }

    fn prepared(events: Vec<Vec<u8>>) -> Result<Batch> {
        prepare(&State::default(), &Frame { events }.encode_to_vec(), NOW, false)
    }

    #[test]
    fn a_bad_event_is_rejected_alone() {
        let sound = event("a").encode_to_vec();
        let not_utf8 = [&[0x0a, 1, 0xff][..], &sound].concat();
        let garbage = vec![0xff, 0xff];
        let late = event("").encode_to_vec();
        let batch = prepared(vec![not_utf8, sound, garbage, late, event("b").encode_to_vec()]).expect("a batch");
        let ids: Vec<&str> = batch.rows.iter().map(|row| row.event_id.as_str()).collect();
        assert_eq!((ids, batch.rejected_count(), batch.unjoined_count), (vec!["a", "b"], 3, 2));
        let reply = RecordEventsResponse::decode(&*batch.reply(&[0, 2]).expect("a reply")).expect("decodes");
        let fields: Vec<&str> = reply.results.iter().map(|result| result.field.as_str()).collect();
        assert_eq!(fields, ["events[0]", "", "events[2]", "events[3].event_id", "events[4].event_id"]);
        let reasons: Vec<&str> = reply.results.iter().map(|result| result.reason.as_str()).collect();
        assert_eq!(reasons, ["REQUEST_MALFORMED", "", "REQUEST_MALFORMED", "FIELD_REQUIRED", "EVENT_ID_CONFLICT"]);
        assert!(batch.reply(&[0]).is_err() && batch.reply(&[0, 3]).is_err());
    }

    #[test]
    fn none_and_too_many_are_refused() {
        assert_eq!(prepared(vec![]).err().map(|error| error.field), Some("events".to_owned()));
        assert!(prepared(vec![event("a").encode_to_vec(); MAX_EVENTS]).is_ok());
        assert!(prepared(vec![event("a").encode_to_vec(); MAX_EVENTS + 1]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), place: usize, byte: u8) {
            let _ = prepare(&State::default(), &bytes, NOW, false);
            let mut request = Frame { events: vec![event("a").encode_to_vec(), bytes] }.encode_to_vec();
            let place = place % request.len();
            request[place] = byte;
            if let Ok(batch) = prepare(&State::default(), &request, NOW, true) {
                let reply = batch.reply(&vec![0; batch.rows.len()]).expect("a reply");
                let reply = RecordEventsResponse::decode(&*reply).expect("decodes");
                prop_assert_eq!(reply.results.len(), batch.rows.len() + batch.rejected_count());
            }
        }
    }
}

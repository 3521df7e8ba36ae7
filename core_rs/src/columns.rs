//! Events as columns: files on their way into the log, and the log on its way into the table view.

use crate::{
    error::{Error, Result, decode},
    events::Row,
    proto::{Context, Device, Event, EventItem, EventType, Money},
    state::State,
    time::{millis, timestamp},
    validate,
};
use std::sync::LazyLock;

/// Events as columns. Event `i` has the lines `line_offsets[i]..line_offsets[i + 1]`; empty text means unset.
pub struct EventTable<'a, S> {
    /// Ids of the events.
    pub event_ids: &'a [S],
    /// Numbers of [`EventType`].
    pub event_types: &'a [i32],
    /// When they happened, Unix milliseconds.
    pub time_ms: &'a [i64],
    /// Visitors.
    pub visitor_ids: &'a [S],
    /// Sessions.
    pub session_ids: &'a [S],
    /// Shops.
    pub store_ids: &'a [S],
    /// Texts of searches.
    pub queries: &'a [S],
    /// Start of the lines of every event, and the total.
    pub line_offsets: &'a [i64],
    /// Item of each line.
    pub item_ids: &'a [S],
    /// Units of each line.
    pub quantities: &'a [i32],
    /// Price of one unit, millionths; negative means not known.
    pub price_micros: &'a [i64],
    /// ISO 4217 code of the prices.
    pub currency: &'a str,
}

/// Rows for the log, one an event.
///
/// # Errors
/// A fault of a column whose length does not fit, or of the first event outside its limits.
pub fn encode_events<S: AsRef<str>>(table: &EventTable<S>) -> Result<Vec<Row>> {
    table.check()?;
    (0..table.event_ids.len())
        .map(|index| {
            let event = table.event(index);
            // Files hold the past, so the day they are read says nothing about their times.
            validate::event(&event, index, table.time_ms[index], true)?;
            Ok(Row::new(&event))
        })
        .collect()
}

impl<S: AsRef<str>> EventTable<'_, S> {
    fn check(&self) -> Result<()> {
        let (events, lines) = (self.event_ids.len(), self.item_ids.len());
        let lengths = [
            ("event_types", self.event_types.len(), events),
            ("time_ms", self.time_ms.len(), events),
            ("visitor_ids", self.visitor_ids.len(), events),
            ("session_ids", self.session_ids.len(), events),
            ("store_ids", self.store_ids.len(), events),
            ("queries", self.queries.len(), events),
            ("line_offsets", self.line_offsets.len(), events + 1),
            ("quantities", self.quantities.len(), lines),
            ("price_micros", self.price_micros.len(), lines),
        ];
        if let Some((name, found, wanted)) = lengths.into_iter().find(|(_, found, wanted)| found != wanted) {
            return Err(Error::out_of_range(name, format!("`{name}` has {found} rows; give {wanted}")));
        }
        let offsets = self.line_offsets;
        let ends = offsets[0] == 0 && offsets[events] == lines as i64;
        if !ends || offsets.windows(2).any(|pair| pair[0] > pair[1]) {
            let message = format!("`line_offsets` must rise from 0 to the {lines} lines");
            return Err(Error::out_of_range("line_offsets", message));
        }
        Ok(())
    }

    fn event(&self, index: usize) -> Event {
        let text = |column: &[S]| column[index].as_ref().to_owned();
        let lines = self.line_offsets[index] as usize..self.line_offsets[index + 1] as usize;
        Event {
            event_id: text(self.event_ids),
            event_type: self.event_types[index],
            event_time: Some(timestamp(self.time_ms[index])),
            context: Some(Context {
                visitor_id: text(self.visitor_ids),
                session_id: text(self.session_ids),
                store_id: text(self.store_ids),
                query: text(self.queries),
                ..Context::default()
            }),
            items: lines.map(|line| self.line(line)).collect(),
            attribution_token: String::new(),
        }
    }

    fn line(&self, line: usize) -> EventItem {
        let micros = self.price_micros[line];
        let price = (micros >= 0).then(|| Money {
            currency_code: self.currency.to_owned(),
            units: micros / 1_000_000,
            nanos: (micros % 1_000_000 * 1_000) as i32,
        });
        EventItem {
            item_id: self.item_ids[line].as_ref().to_owned(),
            quantity: self.quantities[line],
            price,
            position: 0,
        }
    }
}

/// Names of the text columns of [`Lines`].
pub const TEXTS: [&str; 13] = [
    "event_id",
    "visitor_id",
    "anonymous_id",
    "session_id",
    "item_id",
    "event_type",
    "store_id",
    "country_code",
    "device",
    "campaign_id",
    "query",
    "currency",
    "attribution_token",
];
/// Names of the whole-number columns of [`Lines`].
pub const NUMBERS: [&str; 5] = ["log_offset", "line", "time_ms", "quantity", "position"];

/// Event of the log: offset, time of the log in Unix milliseconds and message.
pub type Logged = (i64, i64, Event);

/// Reads events of the log.
///
/// # Errors
/// `REQUEST_MALFORMED` for the first payload that is not an event, `FIELD_REQUIRED` for the first event of nobody.
pub fn read<P: AsRef<[u8]>>(records: &[(i64, i64, P)]) -> Result<Vec<Logged>> {
    let read = |(offset, time_ms, payload): &(i64, i64, P)| {
        let named = |error: Error| Error { message: format!("record {offset}: {}", error.message), ..error };
        event_of_somebody(payload.as_ref()).map(|event| (*offset, *time_ms, event)).map_err(named)
    };
    records.iter().map(read).collect()
}

fn event_of_somebody(payload: &[u8]) -> Result<Event> {
    let event = decode::<Event>(payload, "Event")?;
    let is_known = event.context.as_ref().is_some_and(|context| !State::visitor_key(context).is_empty());
    if is_known { Ok(event) } else { Err(Error::required("context.visitor_id")) }
}

/// Columns with one row an event line.
#[derive(Default)]
pub struct Lines<'a> {
    /// Columns of [`TEXTS`].
    pub texts: [Vec<&'a str>; TEXTS.len()],
    /// Columns of [`NUMBERS`].
    pub numbers: [Vec<i64>; NUMBERS.len()],
    /// Price of one unit, currency units; NaN if not known.
    pub price: Vec<f64>,
}

impl<'a> Lines<'a> {
    /// Columns of events; one without lines, such as a search, gives one row with an empty item.
    pub fn new(events: &'a [Logged]) -> Self {
        static NO_LINE: LazyLock<EventItem> = LazyLock::new(EventItem::default);
        let mut lines = Self::default();
        for (offset, log_ms, event) in events {
            let Some(context) = &event.context else { continue };
            let time_ms = event.event_time.as_ref().map_or(*log_ms, millis);
            let items = if event.items.is_empty() { std::slice::from_ref(&*NO_LINE) } else { &event.items };
            for (line, item) in items.iter().enumerate() {
                let quantity = if item.item_id.is_empty() { 0 } else { item.quantity.max(1) };
                let numbers = [*offset, line as i64, time_ms, i64::from(quantity), i64::from(item.position)];
                lines.push(texts(event, context, item), numbers, item.price.as_ref());
            }
        }
        lines
    }

    fn push(&mut self, texts: [&'a str; TEXTS.len()], numbers: [i64; NUMBERS.len()], price: Option<&Money>) {
        self.texts.iter_mut().zip(texts).for_each(|(column, value)| column.push(value));
        self.numbers.iter_mut().zip(numbers).for_each(|(column, value)| column.push(value));
        self.price.push(price.map_or(f64::NAN, |price| price.units as f64 + f64::from(price.nanos) / 1e9));
    }
}

fn texts<'a>(event: &'a Event, context: &'a Context, item: &'a EventItem) -> [&'a str; TEXTS.len()] {
    [
        &event.event_id,
        State::visitor_key(context),
        &context.visitor_id,
        &context.session_id,
        &item.item_id,
        event_type(event.event_type()),
        &context.store_id,
        &context.country_code,
        device(context.device()),
        &context.campaign_id,
        &context.query,
        item.price.as_ref().map_or("", |price| &price.currency_code),
        &event.attribution_token,
    ]
}

/// Name of a type in lower case, without its prefix; empty for the unspecified one.
fn event_type(kind: EventType) -> &'static str {
    static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
        names("EVENT_TYPE_", |number| EventType::try_from(number).ok().map(|kind| kind.as_str_name()))
    });
    &NAMES[kind as usize]
}

/// Name of a device in lower case, without its prefix; empty for the unspecified one.
fn device(device: Device) -> &'static str {
    static NAMES: LazyLock<Vec<String>> =
        LazyLock::new(|| names("DEVICE_", |number| Device::try_from(number).ok().map(|device| device.as_str_name())));
    &NAMES[device as usize]
}

fn names(prefix: &str, name: impl Fn(i32) -> Option<&'static str>) -> Vec<String> {
    let named = (1..).map_while(name).map(|name| name.trim_start_matches(prefix).to_lowercase());
    std::iter::once(String::new()).chain(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table<'a>(types: &'a [i32], offsets: &'a [i64], prices: &'a [i64]) -> EventTable<'a, &'static str> {
        EventTable {
            event_ids: &["e1", "e2"],
            event_types: types,
            time_ms: &[1_700_000_000_123, 1_700_000_001_000],
            visitor_ids: &["v", "w"],
            session_ids: &["s", ""],
            store_ids: &["", "7"],
            queries: &["", "milk"],
            line_offsets: offsets,
            item_ids: &["a", "b"],
            quantities: &[0, 3],
            price_micros: prices,
            currency: "USD",
        }
    }

    #[test]
    fn encoded_events_come_back_as_their_columns() {
        let rows = encode_events(&table(&[6, 7], &[0, 2, 2], &[1_990_000, -1])).expect("valid");
        assert_eq!((rows[1].event_id.as_str(), rows[1].key.as_str()), ("e2", "w"));
        let records: Vec<_> = rows.iter().zip(5..).map(|(row, offset)| (offset, 0, &row.payload)).collect();
        let logged = read(&records).expect("events");
        let lines = Lines::new(&logged);
        let text = |name| &lines.texts[TEXTS.iter().position(|other| *other == name).expect("a column")];
        assert_eq!(text("event_type"), &["purchase", "purchase", "search"]);
        assert_eq!(text("item_id"), &["a", "b", ""]);
        assert_eq!(text("query"), &["", "", "milk"]);
        assert_eq!(text("currency"), &["USD", "", ""]);
        assert_eq!(text("device"), &["", "", ""]);
        assert_eq!(lines.numbers[0], [5, 5, 6]);
        assert_eq!(lines.numbers[1], [0, 1, 0]);
        assert_eq!(lines.numbers[2], [1_700_000_000_123, 1_700_000_000_123, 1_700_000_001_000]);
        assert_eq!(lines.numbers[3], [1, 3, 0]);
        assert!((lines.price[0] - 1.99).abs() < 1e-12 && lines.price[1].is_nan());
    }

    #[test]
    fn columns_that_do_not_fit_are_named() {
        let field = |table: EventTable<_>| encode_events(&table).expect_err("a fault").field;
        assert_eq!(field(table(&[6], &[0, 2, 2], &[1, 1])), "event_types");
        assert_eq!(field(table(&[6, 7], &[0, 3, 2], &[1, 1])), "line_offsets");
        assert_eq!(field(table(&[6, 7], &[1, 2, 2], &[1, 1])), "line_offsets");
        assert_eq!(field(table(&[6, 99], &[0, 2, 2], &[1, 1])), "events[1].event_type");
        assert_eq!(field(table(&[7, 6], &[0, 2, 2], &[1, 1])), "events[0].context.query");
    }

    #[test]
    fn a_payload_that_is_no_event_is_named() {
        for payload in [&[0xff_u8][..], &[]] {
            let error = read(&[(9, 0, payload)]).expect_err("a fault");
            assert!(error.message.contains("record 9"), "{error}");
        }
    }
}

//! Limits of an event.

use super::{At, context, count, id, not_negative, price, required_choice, text, time, within};
use crate::{
    error::Result,
    params::{DAY_MS, MAX_EVENT_AGE_MS, MAX_EVENT_AHEAD_MS, MAX_EVENT_ITEMS, MAX_ID_BYTES, MAX_TOKEN_BYTES},
    proto::{Event, EventItem, EventType},
    time::millis,
};
use prost_types::Timestamp;

/// Checks entry `index` of `events`; `history` lifts the limit on age.
///
/// # Errors
/// `FIELD_REQUIRED` or `FIELD_OUT_OF_RANGE` with the first field at fault.
pub fn event(event: &Event, index: usize, now_ms: i64, history: bool) -> Result<()> {
    let at = At::top_entry("events", index);
    id(&at.field("event_id"), &event.event_id, 64)?;
    required_choice(&at.field("event_type"), event.event_type, EventType::as_str_name)?;
    if let Some(value) = &event.event_time {
        event_time(&at.field("event_time"), value, now_ms, history)?;
    }
    let at_context = at.field("context");
    context(&at_context, event.context.as_ref())?;
    let is_search = event.event_type() == EventType::Search;
    if is_search && event.context.as_ref().is_none_or(|context| context.query.is_empty()) {
        return Err(at_context.field("query").missing());
    }
    let items = at.field("items");
    if event.items.is_empty() && !is_search {
        return Err(items.missing());
    }
    count(&items, event.items.len(), MAX_EVENT_ITEMS)?;
    text(&at.field("attribution_token"), &event.attribution_token, MAX_TOKEN_BYTES)?;
    event.items.iter().enumerate().try_for_each(|(index, item)| line(&items.entry(index), item))
}

fn event_time(at: &At, value: &Timestamp, now_ms: i64, history: bool) -> Result<()> {
    time(at, value)?;
    if value.seconds < 0 {
        return Err(at.fault("is before 1970; is the format of the times right?"));
    }
    let age_ms = now_ms - millis(value);
    if age_ms < -MAX_EVENT_AHEAD_MS {
        let (days, most) = (-age_ms / DAY_MS, MAX_EVENT_AHEAD_MS / DAY_MS);
        return Err(at.fault(format_args!("is {days} days after now; at most {most} is allowed, check the clock")));
    }
    if age_ms > MAX_EVENT_AGE_MS && !history {
        let (days, most) = (age_ms / DAY_MS, MAX_EVENT_AGE_MS / DAY_MS);
        let message = format_args!("is {days} days before now; live events are at most {most} old, import older ones");
        return Err(at.fault(message));
    }
    Ok(())
}

fn line(at: &At, item: &EventItem) -> Result<()> {
    id(&at.field("item_id"), &item.item_id, MAX_ID_BYTES)?;
    within(&at.field("quantity"), item.quantity, &(0..=1_000_000))?;
    item.price.as_ref().map_or(Ok(()), |amount| price(&at.field("price"), amount))?;
    not_negative(&at.field("position"), item.position)
}

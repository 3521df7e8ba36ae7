//! Limits of placements and controls.

use super::{At, choice, count, country, filled, filter, id, names, not_negative, slug, text, time, within};
use crate::{
    error::Result,
    params::{MAX_CANDIDATES, MAX_ID_BYTES, MAX_LISTED_IDS, MAX_PAGE, MAX_WEIGHT},
    proto::{
        Control, Device, Interval, Placement, SourceUse,
        control::Action,
        placement::{BoughtRule, Variety},
    },
    source,
    time::millis,
};

/// Checks a placement.
///
/// # Errors
/// `FIELD_REQUIRED` or `FIELD_OUT_OF_RANGE` with the first field at fault.
pub fn placement(placement: &Placement) -> Result<()> {
    let at = At::top("placement");
    slug(&at.field("placement_id"), &placement.placement_id, "")?;
    text(&at.field("description"), &placement.description, 256)?;
    let sources = at.field("sources");
    if placement.sources.is_empty() {
        return Err(sources.missing());
    }
    count(&sources, placement.sources.len(), 20)?;
    placement.sources.iter().enumerate().try_for_each(|(index, used)| source_use(&sources.entry(index), used))?;
    choice(&at.field("bought_rule"), placement.bought_rule, BoughtRule::as_str_name)?;
    choice(&at.field("variety"), placement.variety, Variety::as_str_name)?;
    within(&at.field("hide_viewed_hours"), placement.hide_viewed_hours, &(0..=8_760))?;
    filter(&at.field("filter"), placement.filter.as_ref())?;
    let values = at.field("action_values");
    for (index, value) in placement.action_values.iter().enumerate() {
        let at = values.entry(index);
        filled(&at.field("action"), &value.action, MAX_ID_BYTES)?;
        within(&at.field("value"), value.value, &(-MAX_WEIGHT..=MAX_WEIGHT))?;
    }
    within(&at.field("mmr_lambda"), placement.mmr_lambda, &(0.0..=1.0))?;
    not_negative(&at.field("max_per_category"), placement.max_per_category)?;
    not_negative(&at.field("max_per_brand"), placement.max_per_brand)?;
    within(&at.field("page_size"), placement.page_size, &(0..=MAX_PAGE as i32))
}

fn source_use(at: &At, used: &SourceUse) -> Result<()> {
    let name = at.field("source");
    filled(&name, &used.source, MAX_ID_BYTES)?;
    if source::number(&used.source).is_none() {
        let known = source::names().join(", ");
        return Err(name.fault(format_args!("names `{}`, which does not exist; use one of {known}", used.source)));
    }
    within(&at.field("limit"), used.limit, &(0..=MAX_CANDIDATES as i32))?;
    within(&at.field("weight"), used.weight, &(0.0..=MAX_WEIGHT))
}

/// Checks a control.
///
/// # Errors
/// As [`placement`].
pub fn control(control: &Control) -> Result<()> {
    let at = At::top("control");
    slug(&at.field("control_id"), &control.control_id, "-")?;
    names(&at.field("placement_ids"), &control.placement_ids, MAX_LISTED_IDS)?;
    filter(&at.field("items"), control.items.as_ref())?;
    match &control.action {
        Some(Action::Boost(boost)) => within(&at.field("boost").field("factor"), boost.factor, &(0.01..=100.0))?,
        Some(Action::Pin(pin)) => {
            let at = at.field("pin");
            id(&at.field("item_id"), &pin.item_id, MAX_ID_BYTES)?;
            within(&at.field("position"), pin.position, &(1..=MAX_PAGE as i32))?;
        }
        Some(Action::Exclude(_) | Action::Require(_)) => {}
        None => return Err(at.field("action").missing()),
    }
    control.active.as_ref().map_or(Ok(()), |span| interval(&at.field("active"), span))?;
    let devices = at.field("devices");
    for (index, &device) in control.devices.iter().enumerate() {
        choice(&devices.entry(index), device, Device::as_str_name)?;
    }
    let countries = at.field("country_codes");
    control.country_codes.iter().enumerate().try_for_each(|(index, code)| country(&countries.entry(index), code))
}

fn interval(at: &At, span: &Interval) -> Result<()> {
    for (name, value) in [("start_time", &span.start_time), ("end_time", &span.end_time)] {
        value.as_ref().map_or(Ok(()), |value| time(&at.field(name), value))?;
    }
    match (&span.start_time, &span.end_time) {
        (Some(start), Some(end)) if millis(end) < millis(start) => {
            Err(at.field("end_time").fault("is before `start_time`; exchange them or leave one out"))
        }
        _ => Ok(()),
    }
}

//! Limits of items and of what the shop states about a visitor.

use super::{At, choice, count, filled, id, names, not_negative, price, required_choice, required_time, text, time};
use crate::{
    error::Result,
    params::{MAX_ID_BYTES, MAX_PROMOTION_INTERVALS},
    proto::{
        Attribute, ConsentPurpose, Item, Profile, PromotionInterval, item::Availability, promotion_interval::Kind,
    },
};

/// Checks entry `index` of `items`.
///
/// # Errors
/// `FIELD_REQUIRED` or `FIELD_OUT_OF_RANGE` with the first field at fault.
pub fn item(item: &Item, index: usize) -> Result<()> {
    let at = At::top_entry("items", index);
    id(&at.field("item_id"), &item.item_id, MAX_ID_BYTES)?;
    let texts = [
        ("title", &item.title, 1_024),
        ("brand", &item.brand, MAX_ID_BYTES),
        ("image_uri", &item.image_uri, 2_048),
        ("uri", &item.uri, 2_048),
    ];
    for (name, value, most) in texts {
        text(&at.field(name), value, most)?;
    }
    names(&at.field("category_path"), &item.category_path, 8)?;
    for (name, amount) in [("price", &item.price), ("sale_price", &item.sale_price)] {
        amount.as_ref().map_or(Ok(()), |amount| price(&at.field(name), amount))?;
    }
    choice(&at.field("availability"), item.availability, Availability::as_str_name)?;
    not_negative(&at.field("stock_quantity"), item.stock_quantity.unwrap_or(0))?;
    item.release_time.as_ref().map_or(Ok(()), |value| time(&at.field("release_time"), value))?;
    let promotions = at.field("promotion_intervals");
    count(&promotions, item.promotion_intervals.len(), MAX_PROMOTION_INTERVALS)?;
    for (index, interval) in item.promotion_intervals.iter().enumerate() {
        promotion(&promotions.entry(index), interval)?;
    }
    let attributes = at.field("attributes");
    count(&attributes, item.attributes.len(), 100)?;
    item.attributes.iter().enumerate().try_for_each(|(index, entry)| attribute(&attributes.entry(index), entry))
}

fn promotion(at: &At, interval: &PromotionInterval) -> Result<()> {
    required_choice(&at.field("kind"), interval.kind, Kind::as_str_name)?;
    let start_ms = required_time(&at.field("start_time"), interval.start_time.as_ref())?;
    let end = at.field("end_time");
    if required_time(&end, interval.end_time.as_ref())? <= start_ms {
        return Err(end.fault("is not after `start_time`; send the first moment after the span"));
    }
    let (share, at) = (interval.share.unwrap_or(1.0), at.field("share"));
    if share > 0.0 && share <= 1.0 {
        return Ok(());
    }
    Err(at.fault(format_args!("is {share}; send a number above 0 and up to 1, or leave the span out")))
}

fn attribute(at: &At, attribute: &Attribute) -> Result<()> {
    filled(&at.field("name"), &attribute.name, 64)?;
    let values = at.field("values");
    count(&values, attribute.values.len(), 100)?;
    attribute.values.iter().enumerate().try_for_each(|(index, value)| text(&values.entry(index), value, 256))
}

/// Checks a profile.
///
/// # Errors
/// As [`item`].
pub fn profile(profile: &Profile) -> Result<()> {
    let at = At::top("profile");
    id(&at.field("visitor_id"), &profile.visitor_id, MAX_ID_BYTES)?;
    let traits = at.field("traits");
    count(&traits, profile.traits.len(), 64)?;
    for (index, entry) in profile.traits.iter().enumerate() {
        let at = traits.entry(index);
        filled(&at.field("name"), &entry.name, 64)?;
        text(&at.field("value"), &entry.value, 256)?;
    }
    let consents = at.field("consents");
    for (index, consent) in profile.consents.iter().enumerate() {
        let at = consents.entry(index);
        required_choice(&at.field("purpose"), consent.purpose, ConsentPurpose::as_str_name)?;
    }
    Ok(())
}

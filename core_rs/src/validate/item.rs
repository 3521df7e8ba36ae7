//! Limits of items and of what the shop states about a visitor.

use super::{At, choice, count, id, ids, not_negative, price, required_choice, text, time};
use crate::{
    error::Result,
    params::MAX_ID_BYTES,
    proto::{Attribute, ConsentPurpose, Item, Profile, item::Availability},
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
    ids(&at.field("category_path"), &item.category_path, 8)?;
    for (name, amount) in [("price", &item.price), ("sale_price", &item.sale_price)] {
        amount.as_ref().map_or(Ok(()), |amount| price(&at.field(name), amount))?;
    }
    choice(&at.field("availability"), item.availability, Availability::as_str_name)?;
    not_negative(&at.field("stock_quantity"), item.stock_quantity.unwrap_or(0))?;
    item.release_time.as_ref().map_or(Ok(()), |value| time(&at.field("release_time"), value))?;
    let attributes = at.field("attributes");
    count(&attributes, item.attributes.len(), 100)?;
    item.attributes.iter().enumerate().try_for_each(|(index, entry)| attribute(&attributes.entry(index), entry))
}

fn attribute(at: &At, attribute: &Attribute) -> Result<()> {
    id(&at.field("name"), &attribute.name, 64)?;
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
        id(&at.field("name"), &entry.name, 64)?;
        text(&at.field("value"), &entry.value, 256)?;
    }
    let consents = at.field("consents");
    for (index, consent) in profile.consents.iter().enumerate() {
        let at = consents.entry(index);
        required_choice(&at.field("purpose"), consent.purpose, ConsentPurpose::as_str_name)?;
    }
    Ok(())
}

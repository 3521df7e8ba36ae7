//! Limits of the contract, checked before anything is kept.
//!
//! A fault names its field, what is wrong with it, what is allowed and how to mend it.

mod document;
mod event;
mod item;
mod request;

pub use document::{control, placement};
pub use event::event;
pub use item::{item, profile};
pub use request::recommend;

use crate::{
    error::{Error, Result},
    params::{MAX_ID_BYTES, MAX_PRICE},
    proto::{Context, Device, ItemFilter, Money},
    time::millis,
};
use prost_types::Timestamp;
use std::{fmt, ops::RangeInclusive};

/// Most bytes of a search.
const MAX_QUERY_BYTES: usize = 1_024;
/// Most categories, or brands, of a filter.
const MAX_FILTER_NAMES: usize = 100;
/// First seconds of the years 1975 and 2200, between which times of a shop lie.
const YEARS: (i64, i64) = (157_766_400, 7_258_118_400);

/// Place of a field in its message; becomes text only in a fault.
#[derive(Clone, Copy)]
struct At<'a> {
    parent: Option<&'a At<'a>>,
    name: &'a str,
    index: Option<usize>,
}

impl<'a> At<'a> {
    const fn top(name: &'a str) -> Self {
        Self { parent: None, name, index: None }
    }

    const fn top_entry(name: &'a str, index: usize) -> Self {
        Self { parent: None, name, index: Some(index) }
    }

    const fn field(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), name, index: None }
    }

    const fn entry(&self, index: usize) -> Self {
        Self { index: Some(index), ..*self }
    }

    fn fault(&self, message: impl fmt::Display) -> Error {
        let field = self.to_string();
        let message = format!("`{field}` {message}");
        Error::out_of_range(field, message)
    }

    fn missing(&self) -> Error {
        Error::required(self.to_string())
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(out, "{parent}.")?;
        }
        out.write_str(self.name)?;
        self.index.map_or(Ok(()), |index| write!(out, "[{index}]"))
    }
}

fn text(at: &At, value: &str, most: usize) -> Result<()> {
    if value.len() > most {
        return Err(
            at.fault(format_args!("has {} bytes of UTF-8; at most {most} are allowed, shorten it", value.len()))
        );
    }
    Ok(())
}

/// Checks a text that must not be empty.
fn filled(at: &At, value: &str, most: usize) -> Result<()> {
    if value.is_empty() { Err(at.missing()) } else { text(at, value, most) }
}

/// Checks an id that may be empty. Records of older logs may have control characters; nothing new shall.
fn optional_id(at: &At, value: &str, most: usize) -> Result<()> {
    text(at, value, most)?;
    if has_control(value.as_bytes()) {
        let letter = value.chars().find(char::is_ascii_control).unwrap_or_default();
        return Err(at.fault(format_args!("has the control character {letter:?}; send the id without it")));
    }
    Ok(())
}

/// Whether there is an ASCII control character; eight bytes are looked at in one go, for ids are on every hot path.
fn has_control(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let found = |eight: &[u8; 8]| {
        let word = u64::from_ne_bytes(*eight);
        let no_delete = word ^ (ONES * 0x7f);
        let below_space = word.wrapping_sub(ONES * 0x20) & !word;
        (below_space | (no_delete.wrapping_sub(ONES) & !no_delete)) & (ONES * 0x80)
    };
    let Some(last) = bytes.last_chunk() else { return bytes.iter().any(u8::is_ascii_control) };
    bytes.as_chunks().0.iter().fold(found(last), |before, eight| before | found(eight)) != 0
}

fn id(at: &At, value: &str, most: usize) -> Result<()> {
    if value.is_empty() { Err(at.missing()) } else { optional_id(at, value, most) }
}

/// Id of a document: lower-case letters, digits, `_` and what `more` adds.
fn slug(at: &At, value: &str, more: &str) -> Result<()> {
    filled(at, value, 64)?;
    let allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    match value.chars().find(|&letter| !allowed(letter) && !more.contains(letter)) {
        Some(letter) => Err(at.fault(format_args!("has {letter:?}; use lower-case letters, digits and `_{more}`"))),
        None => Ok(()),
    }
}

fn count(at: &At, len: usize, most: usize) -> Result<()> {
    if len > most {
        return Err(at.fault(format_args!("has {len} entries; at most {most} are allowed, send fewer")));
    }
    Ok(())
}

/// Checks a list of at most `most` texts, each not empty.
fn names(at: &At, values: &[String], most: usize) -> Result<()> {
    count(at, values.len(), most)?;
    values.iter().enumerate().try_for_each(|(index, value)| filled(&at.entry(index), value, MAX_ID_BYTES))
}

/// Checks a list of at most `most` ids.
fn ids(at: &At, values: &[String], most: usize) -> Result<()> {
    count(at, values.len(), most)?;
    values.iter().enumerate().try_for_each(|(index, value)| id(&at.entry(index), value, MAX_ID_BYTES))
}

fn within<T: Copy + PartialOrd + fmt::Display>(at: &At, value: T, range: &RangeInclusive<T>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(at.fault(format_args!("is {value}; send a number from {} to {}", range.start(), range.end())))
}

fn not_negative<T: Copy + Default + PartialOrd + fmt::Display>(at: &At, value: T) -> Result<()> {
    if value < T::default() { Err(at.fault(format_args!("is {value}; send 0 or more"))) } else { Ok(()) }
}

fn finite(at: &At, value: f64) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(at.fault(format_args!("is {value}; send a finite number"))) }
}

/// Checks the number of an enum whose values are contiguous from 0; `name` tells the name of a value.
fn choice<E: TryFrom<i32>>(at: &At, number: i32, name: impl Fn(&E) -> &'static str) -> Result<()> {
    if E::try_from(number).is_ok() {
        return Ok(());
    }
    let names: Vec<_> = (1..).map_while(|number| E::try_from(number).ok()).map(|value| name(&value)).collect();
    Err(at.fault(format_args!("is {number}, which names nothing; send one of {}", names.join(", "))))
}

/// As [`choice`], but 0 is not an answer.
fn required_choice<E: TryFrom<i32>>(at: &At, number: i32, name: impl Fn(&E) -> &'static str) -> Result<()> {
    if number == 0 { Err(at.missing()) } else { choice(at, number, name) }
}

fn upper_case(at: &At, value: &str, letters: usize, example: &str) -> Result<()> {
    if value.len() == letters && value.bytes().all(|letter| letter.is_ascii_uppercase()) {
        return Ok(());
    }
    Err(at.fault(format_args!("is `{value}`; send {letters} upper-case letters, e.g. `{example}`")))
}

fn country(at: &At, code: &str) -> Result<()> {
    upper_case(at, code, 2, "US")
}

fn money(at: &At, amount: &Money) -> Result<()> {
    let currency = at.field("currency_code");
    if amount.currency_code.is_empty() {
        return Err(currency.missing());
    }
    upper_case(&currency, &amount.currency_code, 3, "USD")?;
    let nanos = at.field("nanos");
    within(&nanos, amount.nanos, &(-999_999_999..=999_999_999))?;
    if amount.units.signum() * i64::from(amount.nanos).signum() < 0 {
        return Err(
            nanos.fault(format_args!("is {}, but `units` has the other sign; give both one sign", amount.nanos))
        );
    }
    Ok(())
}

fn price(at: &At, amount: &Money) -> Result<()> {
    money(at, amount)?;
    if amount.units < 0 || amount.nanos < 0 {
        return Err(at.fault("is negative; send the price of one unit, 0 or more"));
    }
    within(&at.field("units"), amount.units, &(0..=MAX_PRICE))
}

/// Checks that a time is one of a shop, and tells apart the usual mistakes of unit.
fn time(at: &At, value: &Timestamp) -> Result<()> {
    const UNITS: [(&str, i64); 3] =
        [("milliseconds", 1_000), ("microseconds", 1_000_000), ("nanoseconds", 1_000_000_000)];
    within(&at.field("nanos"), value.nanos, &(0..=999_999_999))?;
    let at = at.field("seconds");
    let (seconds, years) = (value.seconds, YEARS.0..YEARS.1);
    if let Some((unit, _)) = UNITS.iter().find(|(_, size)| seconds >= YEARS.1 && years.contains(&(seconds / size))) {
        return Err(at.fault(format_args!("is {seconds}, which looks like {unit}; send Unix seconds")));
    }
    if (0..YEARS.0).contains(&seconds) && years.contains(&(seconds * 1_000)) {
        let message =
            "which looks like seconds that were taken for milliseconds and divided by 1,000; send Unix seconds";
        return Err(at.fault(format_args!("is {seconds}, {message}")));
    }
    within(&at, seconds, &(-62_135_596_800..=YEARS.1))
}

/// Checks a time that must be given and returns its Unix milliseconds.
fn required_time(at: &At, value: Option<&Timestamp>) -> Result<i64> {
    let value = value.ok_or_else(|| at.missing())?;
    time(at, value)?;
    Ok(millis(value))
}

fn context(at: &At, context: Option<&Context>) -> Result<()> {
    let context = context.ok_or_else(|| at.missing())?;
    if context.visitor_id.is_empty() && context.user_id.is_empty() {
        let field = at.field("visitor_id").to_string();
        let message = format!("`{field}` is required where `user_id` is empty; set one of them");
        return Err(Error { message, ..Error::required(field) });
    }
    let ids_of_visit = [
        ("visitor_id", &context.visitor_id),
        ("user_id", &context.user_id),
        ("session_id", &context.session_id),
        ("store_id", &context.store_id),
        ("campaign_id", &context.campaign_id),
    ];
    for (name, value) in ids_of_visit {
        optional_id(&at.field(name), value, MAX_ID_BYTES)?;
    }
    choice(&at.field("device"), context.device, Device::as_str_name)?;
    if !context.country_code.is_empty() {
        country(&at.field("country_code"), &context.country_code)?;
    }
    text(&at.field("query"), &context.query, MAX_QUERY_BYTES)?;
    ids(&at.field("cart_item_ids"), &context.cart_item_ids, crate::params::MAX_ANCHORS)
}

fn filter(at: &At, filter: Option<&ItemFilter>) -> Result<()> {
    let Some(filter) = filter else { return Ok(()) };
    names(&at.field("categories"), &filter.categories, MAX_FILTER_NAMES)?;
    names(&at.field("brands"), &filter.brands, MAX_FILTER_NAMES)?;
    names(&at.field("item_ids"), &filter.item_ids, crate::params::MAX_LISTED_IDS)?;
    for (name, price) in [("min_price", filter.min_price), ("max_price", filter.max_price)] {
        if let Some(price) = price {
            finite(&at.field(name), price)?;
            not_negative(&at.field(name), price)?;
        }
    }
    match (filter.min_price, filter.max_price) {
        (Some(least), Some(greatest)) if greatest < least => {
            Err(at.field("max_price").fault(format_args!("is {greatest}, below `min_price` {least}; exchange them")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;

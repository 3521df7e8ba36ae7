//! Rows of a snapshot: what it holds of one item or visitor, and the way back.

use super::Sound;
use crate::{
    catalog::Catalog,
    ids::NONE,
    params::{AFFINITIES, RING},
    place::Places,
    popularity::{Counts, Popularity},
    profile::{Answer, Stated},
    proto::{self, Item, ItemChange, Profile},
    sequence::SequenceVector,
    visitor::{Affinity, Bought, Interaction, Visitor},
};
use prost::Message;

#[derive(Clone, PartialEq, Eq, Message)]
pub struct CatalogRow {
    #[prost(uint32, tag = "1")]
    pub item: u32,
    #[prost(sint64, tag = "2")]
    pub set_ms: i64,
    /// Unset for an item that was removed.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub raw: Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct PopularityRow {
    #[prost(uint32, tag = "1")]
    pub item: u32,
    #[prost(double, tag = "2")]
    pub long: f64,
    #[prost(double, tag = "3")]
    pub short: f64,
    #[prost(uint32, tag = "4")]
    pub purchases: u32,
    #[prost(uint32, tag = "5")]
    pub buyers: u32,
    #[prost(uint32, tag = "6")]
    pub repeaters: u32,
}

/// Sales of some pairs of a store and an item, as columns.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SalesRow {
    #[prost(uint32, repeated, tag = "1")]
    pub stores: Vec<u32>,
    #[prost(uint32, repeated, tag = "2")]
    pub items: Vec<u32>,
    #[prost(uint32, repeated, tag = "3")]
    pub lines: Vec<u32>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ErasedRow {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(sint64, tag = "2")]
    pub time_ms: i64,
}

/// A visitor with lists as columns, which is smaller and faster than messages in messages.
#[derive(Clone, PartialEq, Message)]
pub struct VisitorRow {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(uint32, repeated, tag = "2")]
    pub recent_items: Vec<u32>,
    #[prost(fixed32, repeated, tag = "3")]
    pub recent_times: Vec<u32>,
    #[prost(bytes = "vec", tag = "4")]
    pub recent_kinds: Vec<u8>,
    #[prost(uint32, repeated, tag = "5")]
    pub category_keys: Vec<u32>,
    #[prost(float, repeated, tag = "6")]
    pub category_weights: Vec<f32>,
    #[prost(uint32, repeated, tag = "7")]
    pub brand_keys: Vec<u32>,
    #[prost(float, repeated, tag = "8")]
    pub brand_weights: Vec<f32>,
    #[prost(uint32, repeated, tag = "9")]
    pub bought_items: Vec<u32>,
    #[prost(float, repeated, tag = "10")]
    pub bought_weights: Vec<f32>,
    #[prost(fixed32, repeated, tag = "11")]
    pub bought_firsts: Vec<u32>,
    #[prost(fixed32, repeated, tag = "12")]
    pub bought_lasts: Vec<u32>,
    #[prost(uint32, repeated, tag = "13")]
    pub bought_baskets: Vec<u32>,
    #[prost(uint32, repeated, tag = "14")]
    pub bought_last_baskets: Vec<u32>,
    /// What was stated, in older snapshots.
    #[prost(message, optional, tag = "15")]
    pub profile: Option<Profile>,
    #[prost(uint32, tag = "16")]
    pub events: u32,
    #[prost(uint32, tag = "17")]
    pub baskets: u32,
    #[prost(uint32, tag = "18")]
    pub lines: u32,
    #[prost(float, tag = "19")]
    pub spent: f32,
    #[prost(sint64, tag = "20")]
    pub first_purchase_ms: i64,
    #[prost(sint64, tag = "21")]
    pub last_ms: i64,
    #[prost(float, repeated, tag = "22")]
    pub bought_basket_weights: Vec<f32>,
    #[prost(float, repeated, tag = "23")]
    pub bought_weights_lately: Vec<f32>,
    #[prost(bool, tag = "24")]
    pub is_user: bool,
    /// One past the number of the store; 0 if it is not known.
    #[prost(uint32, tag = "25")]
    pub store: u32,
    #[prost(uint32, tag = "26")]
    pub store_lead: u32,
    #[prost(message, optional, tag = "27")]
    pub sequence: Option<SequenceRow>,
    /// Set while the visitor waits for a sequence vector.
    #[prost(sint64, optional, tag = "28")]
    pub waits_since_ms: Option<i64>,
    #[prost(uint32, tag = "29")]
    pub ring_lines: u32,
    /// Time of each consent of the profile; none in the oldest snapshots, which did not keep them.
    #[prost(sint64, repeated, tag = "30")]
    pub answer_times: Vec<i64>,
    #[prost(message, optional, tag = "31")]
    pub stated: Option<proto::Stated>,
    /// Whether each denial of a browser is in a record of the visitor.
    #[prost(bool, repeated, tag = "32")]
    pub recorded: Vec<bool>,
    /// Grants of browsers that are in no record of the visitor, and when they became the visitor's.
    #[prost(int32, repeated, tag = "33")]
    pub unrecorded_purposes: Vec<i32>,
    #[prost(sint64, repeated, tag = "34")]
    pub unrecorded_times: Vec<i64>,
    #[prost(sint64, tag = "35")]
    pub since_offset: i64,
}

/// Sequence vector of a visitor.
#[derive(Clone, PartialEq, Message)]
pub struct SequenceRow {
    #[prost(fixed64, tag = "1")]
    pub encoder: u64,
    #[prost(uint32, tag = "5")]
    pub ring_lines: u32,
    #[prost(float, tag = "3")]
    pub scale: f32,
    #[prost(bytes = "vec", tag = "4")]
    pub steps: Vec<u8>,
}

impl SequenceRow {
    fn new(vector: &SequenceVector) -> Self {
        let SequenceVector { encoder, ring_lines, scale, ref steps } = *vector;
        Self { encoder, ring_lines, scale, steps: steps.iter().map(|&step| step as u8).collect() }
    }

    fn vector(&self) -> SequenceVector {
        let Self { encoder, ring_lines, scale, ref steps } = *self;
        SequenceVector { encoder, ring_lines, scale, steps: steps.iter().map(|&step| step as i8).collect() }
    }
}

impl CatalogRow {
    pub fn new(catalog: &Catalog, item: u32) -> Self {
        Self { item, set_ms: catalog.row(item).set_ms, raw: catalog.raw(item).map(<[u8]>::to_vec) }
    }

    pub fn restore(self, catalog: &mut Catalog) -> Sound<()> {
        let (item, deleted) = match self.raw {
            Some(raw) => (Item::decode(&*raw).map_err(|cause| format!("holds no item: {cause}"))?, false),
            None => (Item::default(), true),
        };
        catalog.apply(self.item, &ItemChange { item: Some(item), deleted, ..ItemChange::default() }, self.set_ms);
        Ok(())
    }
}

impl PopularityRow {
    pub fn new(popularity: &Popularity, item: u32) -> Self {
        let Counts { long, short, purchases, buyers, repeaters } = popularity.counts(item);
        Self { item, long, short, purchases, buyers, repeaters }
    }

    pub fn restore(self, popularity: &mut Popularity) {
        let Self { item, long, short, purchases, buyers, repeaters } = self;
        popularity.place(item, Counts { long, short, purchases, buyers, repeaters });
    }
}

impl SalesRow {
    pub fn new(rows: &[(u32, u32, u32)]) -> Self {
        Self {
            stores: rows.iter().map(|row| row.0).collect(),
            items: rows.iter().map(|row| row.1).collect(),
            lines: rows.iter().map(|row| row.2).collect(),
        }
    }

    pub fn restore(&self, places: &mut Places) -> Sound<()> {
        let is_known = |&store: &u32| (store as usize) < places.stores.len();
        let fits = self.stores.len() == self.items.len() && self.items.len() == self.lines.len();
        if !fits || !self.stores.iter().all(is_known) {
            return Err("has sales that do not fit".to_owned());
        }
        for ((&store, &item), &lines) in self.stores.iter().zip(&self.items).zip(&self.lines) {
            places.record(store, item, lines);
        }
        Ok(())
    }
}

impl VisitorRow {
    pub fn new(key: &str, visitor: &Visitor, waits_since_ms: Option<i64>) -> Self {
        let bought = &visitor.bought;
        let denials = visitor.stated.iter().flat_map(|stated| &stated.denials);
        let answers = visitor.stated.iter().flat_map(|stated| &stated.answers);
        let unrecorded = answers.filter_map(|own| Some((own.consent.purpose, own.unrecorded_ms?)));
        let (unrecorded_purposes, unrecorded_times) = unrecorded.unzip();
        let keys = |slots: &[Affinity]| slots.iter().map(|slot| slot.key).collect();
        let weights = |slots: &[Affinity]| slots.iter().map(|slot| slot.weight).collect();
        let (categories, brands) = (used(&visitor.categories), used(&visitor.brands));
        Self {
            key: key.to_owned(),
            recent_items: visitor.recent().map(|recent| recent.item).collect(),
            recent_times: visitor.recent().map(|recent| recent.time_s).collect(),
            recent_kinds: visitor.recent().map(|recent| recent.kind).collect(),
            category_keys: keys(categories),
            category_weights: weights(categories),
            brand_keys: keys(brands),
            brand_weights: weights(brands),
            bought_items: bought.iter().map(|bought| bought.item).collect(),
            bought_weights: bought.iter().map(|bought| bought.weight).collect(),
            bought_weights_lately: bought.iter().map(|bought| bought.weight_lately).collect(),
            bought_basket_weights: bought.iter().map(|bought| bought.basket_weight).collect(),
            bought_firsts: bought.iter().map(|bought| bought.first_s).collect(),
            bought_lasts: bought.iter().map(|bought| bought.last_s).collect(),
            bought_baskets: bought.iter().map(|bought| u32::from(bought.baskets)).collect(),
            bought_last_baskets: bought.iter().map(|bought| u32::from(bought.last_basket)).collect(),
            profile: None,
            is_user: visitor.is_user,
            events: visitor.events,
            baskets: visitor.baskets,
            lines: visitor.lines,
            spent: visitor.spent,
            first_purchase_ms: visitor.first_purchase_ms,
            last_ms: visitor.last_ms,
            store: visitor.store.wrapping_add(1),
            store_lead: u32::from(visitor.store_lead),
            sequence: visitor.sequence.as_deref().map(SequenceRow::new),
            waits_since_ms,
            ring_lines: visitor.ring_lines,
            answer_times: Vec::new(),
            stated: visitor.stated.as_ref().map(|stated| stated.to_proto("")),
            recorded: denials.map(|denial| denial.is_recorded).collect(),
            unrecorded_purposes,
            unrecorded_times,
            since_offset: visitor.since_offset,
        }
    }

    pub fn visitor(&self) -> Sound<Visitor> {
        let mut visitor = Visitor::default();
        visitor.bought = self.bought()?;
        visitor.stated = self.stated()?.map(Box::new);
        visitor.is_user = self.is_user;
        visitor.since_offset = self.since_offset;
        visitor.sequence = self.sequence.as_ref().map(|row| Box::new(row.vector()));
        visitor.events = self.events;
        visitor.baskets = self.baskets;
        visitor.lines = self.lines;
        visitor.spent = self.spent;
        visitor.first_purchase_ms = self.first_purchase_ms;
        visitor.last_ms = self.last_ms;
        visitor.store = self.store.wrapping_sub(1);
        visitor.store_lead = self.store_lead as u16;
        restore_slots(&mut visitor.categories, &self.category_keys, &self.category_weights)?;
        restore_slots(&mut visitor.brands, &self.brand_keys, &self.brand_weights)?;
        let count = self.recent_items.len();
        if count > RING || count != self.recent_times.len() || count != self.recent_kinds.len() {
            return Err("has a visitor whose interactions do not fit".to_owned());
        }
        let recent = self.recent_items.iter().zip(&self.recent_times).zip(&self.recent_kinds);
        let recent = recent.map(|((&item, &time_s), &kind)| Interaction { item, time_s, kind });
        visitor.restore_recent(recent);
        // An older snapshot does not tell them.
        visitor.ring_lines = self.ring_lines.max(visitor.recent().count() as u32);
        Ok(visitor)
    }

    fn stated(&self) -> Sound<Option<Stated>> {
        let Some(known) = &self.stated else { return self.older_stated() };
        let mut stated = Stated::default();
        stated.merge(known.clone());
        if stated.denials.len() != self.recorded.len() {
            return Err("has a visitor whose denials do not fit".to_owned());
        }
        for (denial, &is_recorded) in stated.denials.iter_mut().zip(&self.recorded) {
            denial.is_recorded = is_recorded;
        }
        if self.unrecorded_purposes.len() != self.unrecorded_times.len() {
            return Err("has a visitor whose grants do not fit".to_owned());
        }
        for (purpose, &taken_ms) in self.unrecorded_purposes.iter().zip(&self.unrecorded_times) {
            let own = stated.answers.iter_mut().find(|own| own.consent.purpose == *purpose);
            own.ok_or("has a visitor that lacks an answer")?.unrecorded_ms = Some(taken_ms);
        }
        Ok(Some(stated))
    }

    fn older_stated(&self) -> Sound<Option<Stated>> {
        let Some(profile) = &self.profile else { return Ok(None) };
        if !self.answer_times.is_empty() && self.answer_times.len() != profile.consents.len() {
            return Err("has a visitor whose answers do not fit".to_owned());
        }
        let times = self.answer_times.iter().copied().chain(std::iter::repeat(0));
        let answers = profile.consents.iter().zip(times);
        let answers = answers.map(|(&consent, time_ms)| Answer::new(consent, time_ms)).collect();
        Ok(Some(Stated { traits: profile.traits.clone(), answers, ..Stated::default() }))
    }

    fn bought(&self) -> Sound<Vec<Bought>> {
        let count = self.bought_items.len();
        let columns = [
            self.bought_weights.len(),
            self.bought_weights_lately.len(),
            self.bought_basket_weights.len(),
            self.bought_firsts.len(),
            self.bought_lasts.len(),
            self.bought_baskets.len(),
            self.bought_last_baskets.len(),
        ];
        if columns.iter().any(|&len| len != count) || !self.bought_items.is_sorted() {
            return Err("has a visitor whose purchases do not fit".to_owned());
        }
        let bought = |index: usize| Bought {
            item: self.bought_items[index],
            weight: self.bought_weights[index],
            weight_lately: self.bought_weights_lately[index],
            basket_weight: self.bought_basket_weights[index],
            first_s: self.bought_firsts[index],
            last_s: self.bought_lasts[index],
            baskets: self.bought_baskets[index] as u16,
            last_basket: self.bought_last_baskets[index] as u16,
        };
        Ok((0..count).map(bought).collect())
    }
}

/// Slots up to the last one in use; slots fill from the front.
fn used(slots: &[Affinity; AFFINITIES]) -> &[Affinity] {
    let end = slots.iter().rposition(|slot| slot.key != NONE).map_or(0, |last| last + 1);
    &slots[..end]
}

fn restore_slots(slots: &mut [Affinity; AFFINITIES], keys: &[u32], weights: &[f32]) -> Sound<()> {
    if keys.len() > AFFINITIES || keys.len() != weights.len() {
        return Err("has a visitor whose affinities do not fit".to_owned());
    }
    for ((slot, &key), &weight) in slots.iter_mut().zip(keys).zip(weights) {
        *slot = Affinity { key, weight };
    }
    Ok(())
}

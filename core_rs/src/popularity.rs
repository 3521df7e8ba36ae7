//! How much all visitors want each item: decayed counts with their order kept up to date event by event.

use crate::{
    decay,
    params::{POPULAR_HALF_LIFE_DAYS, TREND_HALF_LIFE_DAYS},
    prefetch::prefetch,
    proto::EventType,
};
use std::{cmp::Ordering, collections::BTreeSet};

/// Weight of one event in popularity.
pub fn event_weight(kind: EventType) -> f64 {
    match kind {
        EventType::Purchase => 1.0,
        EventType::AddToCart | EventType::AddToWishlist => 0.3,
        EventType::View | EventType::Click => 0.1,
        _ => 0.0,
    }
}

/// Counts of one item, the decayed ones kept as by [`decay`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counts {
    /// With the long half-life.
    pub long: f64,
    /// With the short half-life.
    pub short: f64,
    /// Purchases ever.
    pub purchases: u32,
    /// Visitors who bought it.
    pub buyers: u32,
    /// Visitors who bought it in a second basket.
    pub repeaters: u32,
}

const NOTHING: Counts = Counts { long: decay::EMPTY, short: decay::EMPTY, purchases: 0, buyers: 0, repeaters: 0 };

/// Decayed counts of every item and the items in their order.
#[derive(Default)]
pub struct Popularity {
    counts: Vec<Counts>,
    by_long: BTreeSet<Ranked>,
    by_trend: BTreeSet<Ranked>,
}

impl Popularity {
    /// Adds one line of `kind`, the visitor's basket number `basket` with the item if it is a new one of those; the
    /// quantity does not count, since a bulk buyer is one buyer.
    pub fn record(&mut self, item: u32, kind: EventType, time_ms: i64, basket: Option<u16>) {
        let weight = event_weight(kind);
        if weight <= 0.0 {
            return;
        }
        let mut counts = self.counts(item);
        counts.purchases = counts.purchases.saturating_add(u32::from(kind == EventType::Purchase));
        counts.buyers = counts.buyers.saturating_add(u32::from(basket == Some(1)));
        counts.repeaters = counts.repeaters.saturating_add(u32::from(basket == Some(2)));
        counts.long = decay::add(counts.long, decay::term(weight, time_ms, POPULAR_HALF_LIFE_DAYS));
        counts.short = decay::add(counts.short, decay::term(weight, time_ms, TREND_HALF_LIFE_DAYS));
        self.place(item, counts);
    }

    /// Counts of an item.
    pub fn counts(&self, item: u32) -> Counts {
        self.counts.get(item as usize).copied().unwrap_or(NOTHING)
    }

    /// Fetches what [`Self::counts`] will return.
    pub fn prefetch_counts(&self, item: u32) {
        prefetch(self.counts.get(item as usize));
    }

    /// Decayed count at `now_ms` with the long half-life.
    pub fn popular(&self, item: u32, now_ms: i64) -> f32 {
        decay::at(self.counts(item).long, now_ms, POPULAR_HALF_LIFE_DAYS) as f32
    }

    /// Decayed count at `now_ms` with the short half-life.
    pub fn recent(&self, item: u32, now_ms: i64) -> f32 {
        decay::at(self.counts(item).short, now_ms, TREND_HALF_LIFE_DAYS) as f32
    }

    /// Items by popularity, best first.
    pub fn most_popular(&self) -> impl Iterator<Item = u32> {
        self.by_long.iter().map(|ranked| ranked.item)
    }

    /// Items by trend, best first: the short count against the square root of the long one.
    pub fn most_trending(&self) -> impl Iterator<Item = u32> {
        self.by_trend.iter().map(|ranked| ranked.item)
    }

    /// Number of items with room for a count.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether nothing was counted yet.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Bytes held, without the allocator's overhead.
    pub fn bytes(&self) -> usize {
        self.counts.len() * size_of::<Counts>() + (self.by_long.len() + self.by_trend.len()) * size_of::<Ranked>()
    }

    /// Sets the counts of an item, e.g. to those of a snapshot, and its places in the orders.
    pub fn place(&mut self, item: u32, counts: Counts) {
        let index = item as usize;
        if self.counts.len() <= index {
            self.counts.resize(index + 1, NOTHING);
        }
        let old = std::mem::replace(&mut self.counts[index], counts);
        if old.long > decay::EMPTY {
            self.by_long.remove(&Ranked { key: old.long, item });
            self.by_trend.remove(&Ranked { key: trend(old), item });
        }
        if counts.long > decay::EMPTY {
            self.by_long.insert(Ranked { key: counts.long, item });
            self.by_trend.insert(Ranked { key: trend(counts), item });
        }
    }
}

fn trend(counts: Counts) -> f64 {
    counts.short - 0.5 * counts.long
}

/// Item in an order: greater key first, then smaller id.
#[derive(Clone, Copy, PartialEq)]
struct Ranked {
    key: f64,
    item: u32,
}

impl Eq for Ranked {}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.total_cmp(&self.key).then(self.item.cmp(&other.item))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::DAY_MS;

    const NOW: i64 = 1_700_000_000_000;

    #[test]
    fn order_follows_decayed_counts_and_ties_break_by_id() {
        let mut popularity = Popularity::default();
        for _ in 0..4 {
            popularity.record(3, EventType::Purchase, NOW - 100 * DAY_MS, None);
        }
        popularity.record(2, EventType::Purchase, NOW, None);
        popularity.record(1, EventType::Purchase, NOW, None);
        assert_eq!(popularity.most_popular().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(popularity.counts(3).purchases, 4);
        assert!((popularity.popular(1, NOW) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_new_wave_trends_above_an_old_favourite() {
        let mut popularity = Popularity::default();
        for day in 0..60 {
            popularity.record(1, EventType::Purchase, NOW - day * DAY_MS, None);
        }
        for _ in 0..5 {
            popularity.record(2, EventType::Purchase, NOW, None);
        }
        assert_eq!(popularity.most_popular().next(), Some(1));
        assert_eq!(popularity.most_trending().next(), Some(2));
    }
}

//! How much all visitors want each item: decayed counts with their order kept up to date event by event.

use crate::{
    decay,
    params::{POPULAR_HALF_LIFE_DAYS, TREND_HALF_LIFE_DAYS},
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

/// Decayed counts of every item and the items in their order.
#[derive(Default)]
pub struct Popularity {
    long: Vec<f64>,
    short: Vec<f64>,
    purchases: Vec<u32>,
    by_long: BTreeSet<Ranked>,
    by_trend: BTreeSet<Ranked>,
}

impl Popularity {
    /// Adds one line of `kind`; `quantity` does not count, since a bulk buyer is one buyer.
    pub fn record(&mut self, item: u32, kind: EventType, time_ms: i64) {
        let weight = event_weight(kind);
        if weight <= 0.0 {
            return;
        }
        self.grow(item);
        let index = item as usize;
        if kind == EventType::Purchase {
            self.purchases[index] = self.purchases[index].saturating_add(1);
        }
        let long = decay::add(self.long[index], decay::term(weight, time_ms, POPULAR_HALF_LIFE_DAYS));
        let short = decay::add(self.short[index], decay::term(weight, time_ms, TREND_HALF_LIFE_DAYS));
        self.place(item, long, short);
    }

    /// Puts an item at the given kept values, e.g. those of a snapshot.
    pub fn restore(&mut self, item: u32, long: f64, short: f64, purchases: u32) {
        self.grow(item);
        self.purchases[item as usize] = purchases;
        self.place(item, long, short);
    }

    /// Kept values of an item: long, short and its purchases.
    pub fn kept(&self, item: u32) -> (f64, f64, u32) {
        let index = item as usize;
        match self.long.get(index) {
            Some(&long) => (long, self.short[index], self.purchases[index]),
            None => (decay::EMPTY, decay::EMPTY, 0),
        }
    }

    /// Decayed count at `now_ms` with the long half-life.
    pub fn popular(&self, item: u32, now_ms: i64) -> f32 {
        decay::at(self.kept(item).0, now_ms, POPULAR_HALF_LIFE_DAYS) as f32
    }

    /// Decayed count at `now_ms` with the short half-life.
    pub fn recent(&self, item: u32, now_ms: i64) -> f32 {
        decay::at(self.kept(item).1, now_ms, TREND_HALF_LIFE_DAYS) as f32
    }

    /// Purchases ever.
    pub fn purchases(&self, item: u32) -> u32 {
        self.kept(item).2
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
        self.long.len()
    }

    /// Whether nothing was counted yet.
    pub fn is_empty(&self) -> bool {
        self.long.is_empty()
    }

    /// Bytes held, without the allocator's overhead.
    pub fn bytes(&self) -> usize {
        self.long.len() * (2 * size_of::<f64>() + size_of::<u32>())
            + (self.by_long.len() + self.by_trend.len()) * size_of::<Ranked>()
    }

    fn grow(&mut self, item: u32) {
        let len = item as usize + 1;
        if self.long.len() < len {
            self.long.resize(len, decay::EMPTY);
            self.short.resize(len, decay::EMPTY);
            self.purchases.resize(len, 0);
        }
    }

    fn place(&mut self, item: u32, long: f64, short: f64) {
        let index = item as usize;
        let (old_long, old_short) = (self.long[index], self.short[index]);
        if old_long > decay::EMPTY {
            self.by_long.remove(&Ranked { key: old_long, item });
            self.by_trend.remove(&Ranked { key: trend(old_long, old_short), item });
        }
        if long > decay::EMPTY {
            self.by_long.insert(Ranked { key: long, item });
            self.by_trend.insert(Ranked { key: trend(long, short), item });
        }
        self.long[index] = long;
        self.short[index] = short;
    }
}

fn trend(long: f64, short: f64) -> f64 {
    short - 0.5 * long
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
            popularity.record(3, EventType::Purchase, NOW - 100 * DAY_MS);
        }
        popularity.record(2, EventType::Purchase, NOW);
        popularity.record(1, EventType::Purchase, NOW);
        assert_eq!(popularity.most_popular().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(popularity.purchases(3), 4);
        assert!((popularity.popular(1, NOW) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_new_wave_trends_above_an_old_favourite() {
        let mut popularity = Popularity::default();
        for day in 0..60 {
            popularity.record(1, EventType::Purchase, NOW - day * DAY_MS);
        }
        for _ in 0..5 {
            popularity.record(2, EventType::Purchase, NOW);
        }
        assert_eq!(popularity.most_popular().next(), Some(1));
        assert_eq!(popularity.most_trending().next(), Some(2));
    }
}

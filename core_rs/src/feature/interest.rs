//! What a visitor is interested in, by category and brand: sums over everything bought and what was seen last.

use super::columns::At;
use crate::{
    decay, ids::NONE, params::PERSONAL_HALF_LIFE_DAYS, popularity::event_weight, proto::EventType, query::Query,
    visitor::seconds,
};
use hashbrown::HashMap;

/// Seconds of a week.
const WEEK_S: f32 = 604_800.0;

/// What is told of one key: the values, or the columns that they go to.
#[derive(Clone, Copy, Default)]
pub struct Told<T> {
    /// Logarithm of the sum and one.
    pub sum_ln: T,
    /// Root of the sum's share in those of all keys of the kind.
    pub share_root: T,
    /// Nearness of the last time: 1 / (1 + weeks).
    pub recency: T,
}

/// Kind of key.
#[derive(Clone, Copy)]
pub enum Key {
    /// Last level of the category path.
    Category = 0,
    /// Level above the last.
    Parent = 1,
    /// Brand.
    Brand = 2,
}

impl Key {
    /// Columns of a key of this kind.
    pub fn columns(self) -> Told<At> {
        let (sum_ln, share_root, recency) = match self {
            Self::Category => (At::category_interest_ln, At::category_share_root, At::category_recency),
            Self::Parent => (At::parent_interest_ln, At::parent_share_root, At::parent_recency),
            Self::Brand => (At::brand_interest_ln, At::brand_share_root, At::brand_recency),
        };
        Told { sum_ln, share_root, recency }
    }
}

#[derive(Clone, Copy, Default)]
struct Sum {
    weight: f32,
    last_s: u32,
    told: Told<f32>,
}

/// Interest of one visitor at one time.
#[derive(Default)]
pub struct Interest {
    sums: HashMap<u64, Sum, foldhash::fast::FixedState>,
    totals: [f32; 3],
    /// Bit `key % 64` of every key of each kind: most items have none of them.
    masks: [u64; 3],
}

impl Interest {
    /// Sums up the visitor of a query; nothing for an unknown one. O(bought items).
    pub fn new(query: &Query) -> Self {
        let mut interest = Self::default();
        let Some(visitor) = query.visitor else { return interest };
        for bought in &visitor.bought {
            let weight = decay::at(f64::from(bought.weight), query.now_ms, PERSONAL_HALF_LIFE_DAYS);
            interest.add(query, bought.item, weight as f32, bought.last_s);
        }
        for seen in visitor.recent().filter(|seen| i32::from(seen.kind) != EventType::Purchase as i32) {
            let kind = EventType::try_from(i32::from(seen.kind)).unwrap_or_default();
            interest.add(query, seen.item, event_weight(kind) as f32, seen.time_s);
        }
        interest.finish(seconds(query.now_ms));
        interest
    }

    /// What is told of one key; `None` without interest.
    pub fn of(&self, kind: Key, key: u32) -> Option<&Told<f32>> {
        let may_be = self.masks[kind as usize] >> (key % u64::BITS) & 1 == 1;
        may_be.then(|| self.sums.get(&joined(kind, key)))?.map(|sum| &sum.told)
    }

    fn finish(&mut self, now_s: u32) {
        for (key, sum) in &mut self.sums {
            let weeks = now_s.saturating_sub(sum.last_s) as f32 / WEEK_S;
            let share = sum.weight / self.totals[(key >> 32) as usize].max(f32::MIN_POSITIVE);
            let (sum_ln, share_root) = ((1.0 + sum.weight).ln(), share.sqrt());
            sum.told = Told { sum_ln, share_root, recency: 1.0 / (1.0 + weeks) };
        }
    }

    fn add(&mut self, query: &Query, item: u32, weight: f32, time_s: u32) {
        let row = query.state.catalog.row(item);
        if weight <= 0.0 {
            return;
        }
        for (kind, key) in [(Key::Category, row.category), (Key::Parent, row.parent), (Key::Brand, row.brand)] {
            if key != NONE {
                let sum = self.sums.entry(joined(kind, key)).or_default();
                sum.weight += weight;
                sum.last_s = sum.last_s.max(time_s);
                self.totals[kind as usize] += weight;
                self.masks[kind as usize] |= 1 << (key % u64::BITS);
            }
        }
    }
}

fn joined(kind: Key, key: u32) -> u64 {
    (kind as u64) << 32 | u64::from(key)
}

//! What sells where: lines bought of each item in each store. A shop without stores keeps nothing.

use crate::{
    ids::{Interner, NONE},
    params::{MAX_STORE_ITEMS, MAX_STORES},
};
use hashbrown::HashMap;

/// Lines that an item is taken to have sold in every store, at the shop's usual rate.
const PRIOR: f32 = 5.0;

/// Sales of an item in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sales {
    /// Logarithm of the lines bought and one.
    pub lines_ln: f32,
    /// Logarithm of their ratio to what the shop at large lets expect.
    pub lift_ln: f32,
}

/// Sales by store. Stores and pairs beyond the limits are not told apart from the shop at large.
#[derive(Default)]
pub struct Places {
    /// Store ids.
    pub stores: Interner,
    by_store: Vec<u32>,
    by_item: Vec<u32>,
    all: u64,
    pairs: HashMap<(u32, u32), u32, foldhash::fast::FixedState>,
}

impl Places {
    /// Number of a store, given now if there is room for it; [`NONE`] for no store and where there is none.
    pub fn store(&mut self, store_id: &str) -> u32 {
        let known = self.stores.get(store_id);
        let is_new = known.is_none() && !store_id.is_empty() && self.stores.len() < MAX_STORES;
        if is_new { self.stores.intern(store_id) } else { known.unwrap_or(NONE) }
    }

    /// Adds bought lines of an item in a store.
    pub fn record(&mut self, store: u32, item: u32, lines: u32) {
        if store == NONE {
            return;
        }
        add(&mut self.by_store, store, lines);
        add(&mut self.by_item, item, lines);
        self.all += u64::from(lines);
        if let Some(count) = self.pairs.get_mut(&(store, item)) {
            *count = count.saturating_add(lines);
        } else if self.pairs.len() < MAX_STORE_ITEMS {
            self.pairs.insert((store, item), lines);
        }
    }

    /// Sales of an item in a store; zeros for no store.
    pub fn sales(&self, store: u32, item: u32) -> Sales {
        let of_store = self.by_store.get(store as usize).copied().unwrap_or(0);
        if of_store == 0 {
            return Sales::default();
        }
        let of_item = self.by_item.get(item as usize).copied().unwrap_or(0);
        let found = self.pairs.get(&(store, item)).copied();
        if found.is_none() && self.pairs.len() >= MAX_STORE_ITEMS {
            return Sales::default();
        }
        let sold = found.unwrap_or(0) as f32;
        let expected = of_item as f32 * (of_store as f32 / self.all as f32);
        Sales { lines_ln: sold.ln_1p(), lift_ln: ((sold + PRIOR) / (expected + PRIOR)).ln() }
    }

    /// Every store, item and count, in that order.
    pub fn rows(&self) -> Vec<(u32, u32, u32)> {
        let mut rows: Vec<_> = self.pairs.iter().map(|(&(store, item), &lines)| (store, item, lines)).collect();
        rows.sort_unstable();
        rows
    }

    /// Bytes held, without the allocator's overhead.
    pub fn bytes(&self) -> usize {
        let pair = size_of::<((u32, u32), u32)>() + 1;
        self.stores.bytes() + (self.by_store.len() + self.by_item.len()) * 4 + self.pairs.capacity() * pair
    }
}

fn add(counts: &mut Vec<u32>, index: u32, lines: u32) {
    let index = index as usize;
    if counts.len() <= index {
        counts.resize(index + 1, 0);
    }
    counts[index] = counts[index].saturating_add(lines);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_sells_more_of_is_lifted_there_and_nowhere_else() {
        let mut places = Places::default();
        let (north, south) = (places.store("north"), places.store("south"));
        for _ in 0..50 {
            places.record(north, 1, 1);
            places.record(south, 2, 1);
        }
        assert!(places.sales(north, 1).lift_ln > 0.5 && places.sales(south, 1).lift_ln < -1.5);
        assert!((places.sales(north, 1).lines_ln - 51_f32.ln()).abs() < 1e-6);
        let nothing = |store, item| places.sales(store, item) == Sales::default();
        assert!(nothing(NONE, 1) && nothing(9, 1) && nothing(north, 7));
        assert_eq!(places.store(""), NONE);
        assert_eq!(places.rows(), [(0, 1, 50), (1, 2, 50)]);
    }
}

//! Sums over items without the allocator: one table a thread, small enough to stay in the nearest caches.

use crate::ids::NONE;
use std::cell::RefCell;

/// Cells of an empty table; it doubles when half of them are taken.
const LEAST_CELLS: usize = 2_048;

#[derive(Clone, Copy)]
struct Cell {
    item: u32,
    place: u32,
}

const FREE: Cell = Cell { item: NONE, place: 0 };

/// Places of items, from 0 in order of first appearance.
#[derive(Default)]
pub struct Places {
    cells: Vec<Cell>,
    len: usize,
}

impl Places {
    /// Place of `item`, given now if it has none. The flag says whether it is new.
    pub fn of(&mut self, item: u32) -> (usize, bool) {
        let cell = self.cell(item);
        if self.cells[cell].item == item {
            return (self.cells[cell].place as usize, false);
        }
        let place = self.len;
        self.cells[cell] = Cell { item, place: place as u32 };
        self.len += 1;
        if self.len * 2 > self.cells.len() {
            self.grow();
        }
        (place, true)
    }

    /// Place of an item that has one.
    pub fn get(&self, item: u32) -> usize {
        self.cells[self.cell(item)].place as usize
    }

    fn reset(&mut self) {
        self.cells.clear();
        self.cells.resize(LEAST_CELLS, FREE);
        self.len = 0;
    }

    /// Cell of `item`, or the free one where it belongs. The multiplier is 2^32 over the golden ratio.
    fn cell(&self, item: u32) -> usize {
        let len = self.cells.len();
        let mut cell = ((u64::from(item.wrapping_mul(0x9e37_79b1)) * len as u64) >> 32) as usize;
        while self.cells[cell].item != item && self.cells[cell].item != NONE {
            cell = (cell + 1) & (len - 1);
        }
        cell
    }

    fn grow(&mut self) {
        let cells = vec![FREE; self.cells.len() * 2];
        for taken in std::mem::replace(&mut self.cells, cells).into_iter().filter(|cell| cell.item != NONE) {
            let cell = self.cell(taken.item);
            self.cells[cell] = taken;
        }
    }
}

/// Sum of one item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sum {
    /// Sum of the scores.
    pub score: f32,
    /// Contributor of the largest part.
    pub because: u32,
    best: f32,
}

/// Sums of scores by item, with the contributor of the largest part.
#[derive(Default)]
pub struct Sums {
    places: Places,
    entries: Vec<(u32, Sum)>,
}

thread_local! {
    static SUMS: RefCell<Sums> = RefCell::default();
    static PLACES: RefCell<Places> = RefCell::default();
}

/// Runs `work` with empty sums. Not to be nested.
pub fn with_sums<T>(work: impl FnOnce(&mut Sums) -> T) -> T {
    SUMS.with_borrow_mut(|sums| {
        sums.places.reset();
        sums.entries.clear();
        work(sums)
    })
}

/// Runs `work` with empty places; sums may be used inside it. Not to be nested.
pub fn with_places<T>(work: impl FnOnce(&mut Places) -> T) -> T {
    PLACES.with_borrow_mut(|places| {
        places.reset();
        work(places)
    })
}

impl Sums {
    /// Adds `score` to `item`, contributed by `because`.
    pub fn add(&mut self, item: u32, score: f32, because: u32) {
        let (place, is_new) = self.places.of(item);
        if is_new {
            self.entries.push((item, Sum { score, because, best: score }));
            return;
        }
        let sum = &mut self.entries[place].1;
        sum.score += score;
        if score > sum.best {
            (sum.because, sum.best) = (because, score);
        }
    }

    /// Every item with its sum, in order of first appearance.
    pub fn all(&self) -> impl Iterator<Item = (u32, &Sum)> {
        self.entries.iter().map(|(item, sum)| (*item, sum))
    }

    /// Sum of an item that has one.
    pub fn of(&self, item: u32) -> &Sum {
        &self.entries[self.places.get(item)].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_start_empty_each_time_and_name_the_largest_part() {
        for _ in 0..3 {
            let sums = with_sums(|sums| {
                sums.add(4, 1.0, 1);
                sums.add(4, 2.0, 2);
                sums.add(9, 0.5, 3);
                sums.all().map(|(item, sum)| (item, sum.score, sum.because)).collect::<Vec<_>>()
            });
            assert_eq!(sums, [(4, 3.0, 2), (9, 0.5, 3)]);
        }
    }

    #[test]
    fn places_stay_when_the_table_grows() {
        let items: Vec<u32> = (0..10_000).map(|number| number * 64).collect();
        with_places(|places| {
            for turn in 0..2 {
                for (place, &item) in items.iter().enumerate() {
                    assert_eq!(places.of(item), (place, turn == 0));
                }
            }
            assert!(items.iter().enumerate().all(|(place, &item)| places.get(item) == place));
        });
    }
}

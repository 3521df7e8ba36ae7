//! Sums over dense item ids without a hash table: one array a thread, wiped by generation.

use std::cell::RefCell;

#[derive(Clone, Copy, Default)]
struct Cell {
    generation: u32,
    slot: u32,
}

#[derive(Clone, Copy)]
struct Sum {
    item: u32,
    score: f32,
    because: u32,
    best: f32,
}

/// Sums of scores by item, with the contributor of the largest part.
#[derive(Default)]
pub struct Sums {
    cells: Vec<Cell>,
    generation: u32,
    entries: Vec<Sum>,
}

thread_local! {
    static SUMS: RefCell<Sums> = RefCell::default();
    static SLOTS: RefCell<Sums> = RefCell::default();
}

/// Runs `work` with empty sums for items below `len`. Not to be nested.
pub fn with<T>(len: usize, work: impl FnOnce(&mut Sums) -> T) -> T {
    SUMS.with_borrow_mut(|sums| {
        sums.reset(len);
        work(sums)
    })
}

/// Runs `work` with empty slots for items below `len`; sums may be used inside it. Not to be nested.
pub fn with_slots<T>(len: usize, work: impl FnOnce(&mut Sums) -> T) -> T {
    SLOTS.with_borrow_mut(|slots| {
        slots.reset(len);
        work(slots)
    })
}

impl Sums {
    /// Empties the sums and makes room for items below `len`.
    fn reset(&mut self, len: usize) {
        if self.cells.len() < len {
            self.cells.resize(len, Cell::default());
        }
        self.entries.clear();
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.cells.fill(Cell::default());
            self.generation = 1;
        }
    }

    /// Adds `score` to `item`, contributed by `because`.
    pub fn add(&mut self, item: u32, score: f32, because: u32) {
        let cell = &mut self.cells[item as usize];
        if cell.generation == self.generation {
            let sum = &mut self.entries[cell.slot as usize];
            sum.score += score;
            if score > sum.best {
                (sum.because, sum.best) = (because, score);
            }
        } else {
            *cell = Cell { generation: self.generation, slot: self.entries.len() as u32 };
            self.entries.push(Sum { item, score, because, best: score });
        }
    }

    /// Number of `item` among those seen since the reset; given now if it is new. The flag says whether it was new.
    pub fn slot(&mut self, item: u32) -> (usize, bool) {
        let cell = &mut self.cells[item as usize];
        if cell.generation == self.generation {
            return (cell.slot as usize, false);
        }
        let slot = self.entries.len();
        *cell = Cell { generation: self.generation, slot: slot as u32 };
        self.entries.push(Sum { item, score: 0.0, because: item, best: 0.0 });
        (slot, true)
    }

    /// Returns every item with its sum and its largest contributor, in order of first appearance.
    pub fn drain<T>(&mut self, make: impl Fn(u32, f32, u32) -> T) -> Vec<T> {
        self.entries.drain(..).map(|sum| make(sum.item, sum.score, sum.because)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_start_empty_each_time_and_name_the_largest_part() {
        for _ in 0..3 {
            let sums = with(10, |sums| {
                sums.add(4, 1.0, 1);
                sums.add(4, 2.0, 2);
                sums.add(9, 0.5, 3);
                sums.drain(|item, score, because| (item, score, because))
            });
            assert_eq!(sums, [(4, 3.0, 2), (9, 0.5, 3)]);
        }
    }
}

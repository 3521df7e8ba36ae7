//! The two tools of every kernel: a dense accumulator that is cleared as it is read, and an exact top-k.

use std::ops::Range;

/// Best `k` of the offered entries, by score descending, then id ascending.
#[derive(Clone, Debug)]
pub struct Top {
    k: usize,
    entries: Vec<(f32, u32)>,
    floor: (f32, u32),
    lowest: f32,
}

impl Top {
    /// Empty selection of at most `k` > 0 entries of positive score.
    pub fn new(k: usize) -> Self {
        Self::from_lowest(k, f32::MIN_POSITIVE)
    }

    /// Empty selection of at most `k` > 0 entries of any score that is a number.
    pub fn of_any(k: usize) -> Self {
        Self::from_lowest(k, f32::NEG_INFINITY)
    }

    fn from_lowest(k: usize, lowest: f32) -> Self {
        Self { k, entries: Vec::with_capacity(4 * k), floor: (lowest, u32::MAX), lowest }
    }

    /// Score below which no entry can enter.
    pub fn floor(&self) -> f32 {
        self.floor.0
    }

    /// Takes an entry if it may be among the best. Amortised O(1).
    pub fn offer(&mut self, score: f32, id: u32) {
        if ranks_before((score, id), self.floor) {
            self.entries.push((score, id));
            if self.entries.len() == 4 * self.k {
                self.cut();
            }
        }
    }

    /// Raises the floor as far as the entries allow.
    pub fn settle(&mut self) {
        if self.entries.len() >= self.k {
            self.cut();
        }
    }

    /// The best entries in order; leaves the selection empty.
    pub fn take(&mut self) -> Vec<(f32, u32)> {
        if self.entries.len() > self.k {
            self.cut();
        }
        let mut best = self.entries.clone();
        best.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        self.entries.clear();
        self.floor = (self.lowest, u32::MAX);
        best
    }

    fn cut(&mut self) {
        let last = self.k - 1;
        self.entries.select_nth_unstable_by(last, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        self.entries.truncate(self.k);
        self.floor = self.entries[last];
    }
}

/// Whether `a` goes before `b`; an entry whose score is not a number goes nowhere.
fn ranks_before(a: (f32, u32), b: (f32, u32)) -> bool {
    a.0 > b.0 || (a.0 >= b.0 && a.1 < b.1)
}

/// Lanes that are scored together.
const LANES: usize = 16;

/// Room for rounding where a product stands in for a quotient.
const SLACK: f32 = 1.0 + 1e-6;

/// Dense sums of a range of columns, cleared as they are read.
///
/// Where few columns will be touched it keeps a list of them; where many will, it reads the whole range, which
/// vectorises.
#[derive(Clone, Debug)]
pub struct Accumulator {
    sums: Vec<f32>,
    touched: Vec<u32>,
    n_touched: usize,
    range: Range<usize>,
    dense: bool,
}

impl Accumulator {
    /// Zero sums for `n_columns` columns.
    pub fn new(n_columns: usize) -> Self {
        Self { sums: vec![0.0; n_columns], touched: vec![0; n_columns + 1], n_touched: 0, range: 0..0, dense: false }
    }

    /// Begins a round of about `additions` positive additions to columns within `range`.
    pub fn begin(&mut self, range: Range<usize>, additions: usize) {
        self.dense = additions > range.len() / 16;
        self.range = range;
    }

    /// Adds to each of `columns` the positive amount of the same position.
    pub fn add(&mut self, columns: &[u32], amounts: impl Iterator<Item = f32>) {
        let (sums, touched) = (self.sums.as_mut_slice(), self.touched.as_mut_slice());
        let entries = columns.iter().zip(amounts);
        if self.dense {
            for (&column, amount) in entries {
                sums[column as usize] += amount;
            }
            return;
        }
        let mut n_touched = self.n_touched;
        for (&column, amount) in entries {
            let sum = &mut sums[column as usize];
            touched[n_touched] = column;
            n_touched += usize::from(*sum <= 0.0);
            *sum += amount;
        }
        self.n_touched = n_touched;
    }

    /// Adds a positive amount to one column.
    pub fn add_one(&mut self, column: u32, amount: f32) {
        self.add(&[column], std::iter::once(amount));
    }

    /// Ends the round: clears the sums, and offers every column whose `sum / denominator(sum, norm)` may reach `floor`,
    /// which `offer` raises.
    pub fn end(
        &mut self,
        norms: &[f32],
        mut floor: f32,
        denominator: impl Fn(f32, f32) -> f32,
        mut offer: impl FnMut(f32, u32) -> f32,
    ) {
        let sums = self.sums.as_mut_slice();
        let mut read = |column: u32, sum: f32, floor: f32| {
            let score = sum / denominator(sum, norms[column as usize]);
            if score >= floor { offer(score, column) } else { floor }
        };
        for &column in &self.touched[..std::mem::take(&mut self.n_touched)] {
            floor = read(column, std::mem::take(&mut sums[column as usize]), floor);
        }
        if !self.dense {
            return;
        }
        let (start, sums) = (self.range.start, &mut sums[self.range.clone()]);
        let (blocks, _) = norms[self.range.clone()].as_chunks::<LANES>();
        let (lanes, rest) = sums.as_chunks_mut::<LANES>();
        for (block, (sums, norms)) in lanes.iter_mut().zip(blocks).enumerate() {
            let mut hits = reaching(sums, norms, floor, &denominator);
            while hits > 0 {
                let lane = hits.trailing_zeros() as usize;
                floor = read((start + block * LANES + lane) as u32, sums[lane], floor);
                hits &= hits - 1;
            }
            *sums = [0.0; LANES];
        }
        let first = start + lanes.len() * LANES;
        for (column, sum) in (first..).zip(rest) {
            floor = read(column as u32, std::mem::take(sum), floor);
        }
    }
}

/// Bit set of the lanes that may reach `floor`.
fn reaching(sums: &[f32; LANES], norms: &[f32; LANES], floor: f32, denominator: impl Fn(f32, f32) -> f32) -> u32 {
    let mut bits = [0; LANES];
    for lane in 0..LANES {
        bits[lane] = u32::from(sums[lane] * SLACK >= floor * denominator(sums[lane], norms[lane])) << lane;
    }
    bits.iter().fold(0, |all, bit| all | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_come_first_and_ties_break_by_id() {
        let mut top = Top::new(3);
        for id in (0..50).rev() {
            top.offer((id % 5) as f32, id);
        }
        top.offer(f32::NAN, 0);
        assert_eq!(top.take(), [(4.0, 4), (4.0, 9), (4.0, 14)]);
        assert!(top.take().is_empty());
    }

    #[test]
    fn dense_and_listed_rounds_agree_and_leave_nothing_behind() {
        let norms: Vec<f32> = (1..=100_u8).map(f32::from).collect();
        let columns: Vec<u32> = (0..40).map(|n| n * 7 % 100).collect();
        let mut sums = Accumulator::new(100);
        let mut round = |additions| {
            let mut top = Top::new(5);
            sums.begin(0..100, additions);
            sums.add(&columns, std::iter::repeat(1.0));
            sums.end(
                &norms,
                top.floor(),
                |_, norm| norm,
                |score, column| {
                    top.offer(score, column);
                    top.floor()
                },
            );
            top.take()
        };
        let listed = round(0);
        assert_eq!(listed.len(), 5);
        assert_eq!(round(100), listed);
        assert_eq!(round(0), listed);
    }
}

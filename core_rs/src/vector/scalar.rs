//! The scan in plain Rust, for any processor; the others must give its bits.

use super::{
    blocks::{DEPTH, LANES, Query, Row, Scales, Tile},
    keys,
};

/// See [`super::Instructions::scan`].
pub(super) fn scan(tile: &Tile, query: &Query, threshold: f32, found: &mut Vec<u64>) {
    let blocks = tile.rows.chunks_exact(tile.groups).zip(tile.scales).zip(tile.allowed);
    for (block, ((rows, scales), &allowed)) in blocks.enumerate().filter(|(_, (_, allowed))| **allowed != 0) {
        let scores = scores(rows, scales, query);
        let passing = |mask: u16, lane: usize| mask | u16::from(scores[lane] >= threshold) << lane;
        let mask = allowed & (0..LANES).fold(0, passing);
        keys::push(tile.start + (block * LANES) as u32, mask, &scores, found);
    }
}

fn scores(rows: &[Row], scales: &Scales, query: &Query) -> [f32; LANES] {
    let mut sums = [-query.excess; LANES];
    for (row, values) in rows.iter().zip(&query.values) {
        let values = values.to_le_bytes().map(|byte| i32::from(byte as i8));
        for (sum, item) in sums.iter_mut().zip(&row.0) {
            *sum += (0..DEPTH).map(|at| i32::from(item[at]) * values[at]).sum::<i32>();
        }
    }
    std::array::from_fn(|lane| sums[lane] as f32 * scales.0[lane])
}

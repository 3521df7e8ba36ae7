//! Time of a scan of 100,000 and of 1,000,000 vectors of 64 dimensions beside a pure read of the same bytes.
//!
//! Prints one JSON object a line: instructions, items, and microseconds of a scan and of a read, turn by turn.

use core_rs::vector::{
    Instructions,
    blocks::{Blocks, Query, Row},
};
use std::{hint::black_box, io::Write, time::Instant};

const DIMENSIONS: usize = 64;
const TURNS: usize = 15;
/// Repeats of a turn; the fastest counts, so that a turn is free of other processes.
const REPEATS: usize = 25;

fn main() -> std::io::Result<()> {
    for items in [100_000, 1_000_000] {
        let vectors: Vec<f32> = (0..items * DIMENSIONS).map(|at| (at * 7_919 % 1_009) as f32 - 504.0).collect();
        let (query, blocks) = (Query::new(&vectors[..DIMENSIONS]), Blocks::new(&vectors, DIMENSIONS));
        let allowed = vec![u16::MAX; items.div_ceil(16)];
        let tile = blocks.tile(0, &allowed);
        for set in Instructions::available() {
            let mut keys = Vec::new();
            let mut scan = || set.scan(black_box(&tile), black_box(&query), f32::MAX, &mut keys);
            let turns: Vec<[f64; 2]> = (0..TURNS)
                .map(|_| [fastest(&mut scan), fastest(|| _ = black_box(read(black_box(tile.rows))))])
                .collect();
            assert!(keys.is_empty(), "no product is that great");
            let name = set.name();
            writeln!(std::io::stdout(), r#"{{"instructions": "{name}", "items": {items}, "turns_us": {turns:?}}}"#)?;
        }
    }
    Ok(())
}

/// Microseconds of the fastest of the repeats.
fn fastest(mut work: impl FnMut()) -> f64 {
    let mut time = || {
        let began = Instant::now();
        work();
        began.elapsed().as_secs_f64() * 1e6
    };
    (0..REPEATS).map(|_| time()).fold(f64::INFINITY, f64::min)
}

/// Every byte once, in the order of the scan.
fn read(rows: &[Row]) -> [u8; 64] {
    let mut sum = [0; 64];
    for row in rows {
        for (sum, byte) in sum.iter_mut().zip(row.0.as_flattened()) {
            *sum ^= byte;
        }
    }
    sum
}

//! The scan with 256-bit integers: a block is two registers.
//!
//! Two products of an item's byte, at most 255, with a query's, at most 64, fit 16 bits: nothing saturates.

use super::{
    blocks::{LANES, Query, Row, Scales, Tile},
    keys,
};
use std::arch::x86_64::{
    __m256, __m256i, _CMP_GE_OQ, _mm256_add_epi32, _mm256_cmp_ps, _mm256_cvtepi32_ps, _mm256_load_ps,
    _mm256_load_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_movemask_ps, _mm256_mul_ps, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_storeu_ps,
};

/// See [`super::Instructions::scan`].
#[target_feature(enable = "avx2")]
pub(super) fn scan(tile: &Tile, query: &Query, threshold: f32, found: &mut Vec<u64>) {
    let floor = _mm256_set1_ps(threshold);
    for (block, &allowed) in tile.allowed.iter().enumerate().filter(|(_, allowed)| **allowed != 0) {
        let products = products(&tile.rows[block * tile.groups..][..tile.groups], query);
        let (low, high) = (scores(products[0], &tile.scales[block], 0), scores(products[1], &tile.scales[block], 1));
        let mask = passing(low, floor) | passing(high, floor) << (LANES / 2);
        let mask = mask as u16 & allowed;
        if mask != 0 {
            keys::push(tile.start + (block * LANES) as u32, mask, &joined(low, high), found);
        }
    }
}

/// Products of the items of a block with the query.
#[inline]
#[target_feature(enable = "avx2")]
fn products(rows: &[Row], query: &Query) -> [__m256i; 2] {
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_set1_epi32(-query.excess); 2];
    for (row, &values) in rows.iter().zip(&query.values) {
        let values = _mm256_set1_epi32(values);
        for (half, sum) in sums.iter_mut().enumerate() {
            let pairs = _mm256_maddubs_epi16(items(row, half), values);
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx2")]
fn items(row: &Row, half: usize) -> __m256i {
    // SAFETY: half a row is 32 bytes, and a row is aligned to 64.
    unsafe { _mm256_load_si256(row.0[half * LANES / 2..].as_ptr().cast()) }
}

/// Scores of one half of a block.
#[inline]
#[target_feature(enable = "avx2")]
fn scores(products: __m256i, scales: &Scales, half: usize) -> __m256 {
    // SAFETY: half the scales are 32 bytes, and they are aligned to 64.
    let scales = unsafe { _mm256_load_ps(scales.0[half * LANES / 2..].as_ptr()) };
    _mm256_mul_ps(_mm256_cvtepi32_ps(products), scales)
}

/// One bit a score that is at least the floor.
#[inline]
#[target_feature(enable = "avx2")]
fn passing(scores: __m256, floor: __m256) -> i32 {
    _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(scores, floor))
}

#[inline]
#[target_feature(enable = "avx2")]
fn joined(low: __m256, high: __m256) -> [f32; LANES] {
    let mut scores = [0.0; LANES];
    for (half, values) in [low, high].into_iter().enumerate() {
        // SAFETY: half of `scores` is eight values.
        unsafe { _mm256_storeu_ps(scores[half * LANES / 2..].as_mut_ptr(), values) };
    }
    scores
}

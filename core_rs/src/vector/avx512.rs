//! The scan with 512-bit products of bytes (VNNI): a block is one register.

use super::{
    blocks::{LANES, Query, Row, Tile},
    keys,
};
use std::arch::x86_64::{
    __m512i, _CMP_GE_OQ, _mm512_cmp_ps_mask, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_load_ps,
    _mm512_load_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_storeu_ps,
};

/// See [`super::Instructions::scan`].
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn scan(tile: &Tile, query: &Query, threshold: f32, found: &mut Vec<u64>) {
    let floor = _mm512_set1_ps(threshold);
    for (block, &allowed) in tile.allowed.iter().enumerate().filter(|(_, allowed)| **allowed != 0) {
        let products = products(&tile.rows[block * tile.groups..][..tile.groups], query);
        // SAFETY: the scales of a block are 64 bytes, aligned to 64.
        let scales = unsafe { _mm512_load_ps(tile.scales[block].0.as_ptr()) };
        let values = _mm512_mul_ps(_mm512_cvtepi32_ps(products), scales);
        let mask = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(values, floor) & allowed;
        if mask != 0 {
            let mut scores = [0.0; LANES];
            // SAFETY: `scores` is sixteen values.
            unsafe { _mm512_storeu_ps(scores.as_mut_ptr(), values) };
            keys::push(tile.start + (block * LANES) as u32, mask, &scores, found);
        }
    }
}

/// Products of the items of a block with the query.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn products(rows: &[Row], query: &Query) -> __m512i {
    let mut sum = _mm512_set1_epi32(-query.excess);
    for (row, &values) in rows.iter().zip(&query.values) {
        // SAFETY: a row is 64 bytes, aligned to 64.
        let items = unsafe { _mm512_load_si512(row.0.as_ptr().cast()) };
        sum = _mm512_dpbusd_epi32(sum, items, _mm512_set1_epi32(values));
    }
    sum
}

//! Evaluation of eight outputs a register.

use super::layer::{LANES, Lanes, Tile};
use std::arch::x86_64::{
    __m256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

/// Writes the results of `R` rows, whose beginnings lie `width` values apart.
#[target_feature(enable = "avx2,fma")]
pub(super) fn evaluate<const R: usize, const P: usize>(tile: &Tile<P>, results: &mut [f32], width: usize) {
    assert!(tile.inputs.len() >= R * tile.stride);
    let mut sums = [[_mm256_setzero_ps(); P]; R];
    for (sum, bias) in sums.iter_mut().flat_map(|row| row.iter_mut().zip(&tile.bias)) {
        *sum = load(bias);
    }
    for &column in tile.columns {
        let column = column as usize;
        let mut weights = [_mm256_setzero_ps(); P];
        for (weights, panel) in weights.iter_mut().zip(&tile.panels) {
            // SAFETY: columns are below the length of a panel.
            *weights = load(unsafe { panel.get_unchecked(column) });
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: columns are below the stride, and there are `R` rows of it.
            let value = _mm256_set1_ps(unsafe { *tile.inputs.get_unchecked(row * tile.stride + column) });
            for (sum, &weights) in sums.iter_mut().zip(&weights) {
                *sum = _mm256_fmadd_ps(value, weights, *sum);
            }
        }
    }
    // Of a number and what is no number, the second operand is taken.
    let floor = _mm256_set1_ps(tile.floor);
    for (row, sums) in sums.iter().enumerate() {
        let results = &mut results[row * width..][..P * LANES];
        for (results, &sum) in results.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            // SAFETY: eight values.
            unsafe { _mm256_storeu_ps(results.as_mut_ptr(), _mm256_max_ps(floor, sum)) };
        }
    }
}

/// See [`super::join`].
#[target_feature(enable = "avx2")]
pub(super) fn join(block: &[f32], bits: &mut [u32]) {
    super::join(block, bits);
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(lanes: &Lanes) -> __m256 {
    // SAFETY: eight values.
    unsafe { _mm256_loadu_ps(lanes.as_ptr()) }
}

//! Evaluation of eight rows a register.

use super::forest::{DEPTH, ROWS, Table, Word};
use std::arch::x86_64::{
    __m256, __m256i, _CMP_GT_OQ, _mm256_add_ps, _mm256_and_ps, _mm256_and_si256, _mm256_andnot_si256, _mm256_blendv_ps,
    _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cmpeq_epi32, _mm256_cvtepi32_ps, _mm256_load_ps,
    _mm256_loadu_ps, _mm256_or_ps, _mm256_permutevar8x32_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_ps, _mm256_sub_epi32,
};

/// Rows of a register.
const LANES: usize = 8;

/// See [`super::scalar::table`].
#[target_feature(enable = "avx2")]
pub(super) fn table(table: &Table, columns: &[[f32; ROWS]], sums: &mut [[f32; ROWS]]) {
    let asked = table.questions.map(|question| (&columns[question.column as usize], question.threshold));
    let sum = &mut sums[table.sum as usize];
    for start in (0..ROWS).step_by(LANES) {
        let mut right = [_mm256_setzero_ps(); DEPTH];
        for (right, (column, threshold)) in right.iter_mut().zip(asked) {
            *right = _mm256_cmp_ps::<_CMP_GT_OQ>(load(&column[start..]), _mm256_set1_ps(threshold));
        }
        let leaf = leaf(&table.leaves, bits([right[0], right[1], right[2]]), &right[3..]);
        add(&mut sum[start..], leaf);
    }
}

/// See [`super::scalar::words`].
#[target_feature(enable = "avx2")]
pub(super) fn words(words: &[Word], columns: &[[f32; ROWS]], sums: &mut [[f32; ROWS]]) {
    let zero = _mm256_setzero_si256();
    for start in (0..ROWS).step_by(LANES) {
        let mut open = _mm256_cmpeq_epi32(zero, zero);
        for word in words {
            let mut left = open;
            for strike in &word.strikes {
                let values = load(&columns[strike.question.column as usize][start..]);
                let right = _mm256_cmp_ps::<_CMP_GT_OQ>(values, _mm256_set1_ps(strike.question.threshold));
                let struck = _mm256_and_si256(_mm256_castps_si256(right), _mm256_set1_epi32(strike.leaves as i32));
                left = _mm256_andnot_si256(struck, left);
            }
            let none = _mm256_cmpeq_epi32(left, zero);
            let number = first_bit(left);
            let high = [_mm256_slli_epi32::<28>(number), _mm256_slli_epi32::<27>(number)];
            let high = high.map(|mask| _mm256_castsi256_ps(mask));
            for leaves in &word.leaves {
                let value = leaf(&leaves.values, number, &high);
                let value = _mm256_castsi256_ps(_mm256_andnot_si256(none, _mm256_castps_si256(value)));
                add(&mut sums[leaves.sum as usize][start..], value);
            }
            open = _mm256_and_si256(open, none);
        }
    }
}

/// Number of the lowest bit that is set; anything where none is.
#[inline]
#[target_feature(enable = "avx2")]
fn first_bit(bits: __m256i) -> __m256i {
    let lowest = _mm256_and_si256(bits, _mm256_sub_epi32(_mm256_setzero_si256(), bits));
    let exponent = _mm256_srli_epi32::<23>(_mm256_castps_si256(_mm256_cvtepi32_ps(lowest)));
    // The sign of bit 31 stays above the five bits that count; 127, the exponent's bias, is 31 in them.
    _mm256_sub_epi32(exponent, _mm256_set1_epi32(127))
}

/// Three answers as the low bits of a number.
#[inline]
#[target_feature(enable = "avx2")]
fn bits(answers: [__m256; 3]) -> __m256i {
    let bit = |answer: __m256, value: i32| _mm256_and_ps(answer, _mm256_castsi256_ps(_mm256_set1_epi32(value)));
    let low = _mm256_or_ps(_mm256_or_ps(bit(answers[0], 1), bit(answers[1], 2)), bit(answers[2], 4));
    _mm256_castps_si256(low)
}

/// Value by the low three bits of `number` and, by their signs, the masks of the bits above.
#[inline]
#[target_feature(enable = "avx2")]
fn leaf<const N: usize>(values: &[f32; N], number: __m256i, high: &[__m256]) -> __m256 {
    let mut found = [_mm256_setzero_ps(); 8];
    for (found, values) in found.iter_mut().zip(values.as_chunks::<LANES>().0) {
        // SAFETY: the tables of a forest are aligned to 32 bytes.
        *found = _mm256_permutevar8x32_ps(unsafe { _mm256_load_ps(values.as_ptr()) }, number);
    }
    let mut count = N / LANES;
    for mask in high {
        count /= 2;
        for at in 0..count {
            found[at] = _mm256_blendv_ps(found[2 * at], found[2 * at + 1], *mask);
        }
    }
    found[0]
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(values: &[f32]) -> __m256 {
    let values = &values[..LANES];
    // SAFETY: eight values.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(sums: &mut [f32], values: __m256) {
    let sums = &mut sums[..LANES];
    // SAFETY: eight values.
    unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), _mm256_add_ps(_mm256_loadu_ps(sums.as_ptr()), values)) };
}

//! Sums that fade with time and still compare without the time.
//!
//! A sum of weights `w_i · 2^((t_i - LANDMARK) / half_life)` is kept as its base-2 logarithm. Decay to any `now`
//! subtracts the same amount from every sum, so an order by the kept value is the order by the decayed value at every
//! time.
//!
//! Source: Cormode, Shkapenyuk, Srivastava & Xu 2009, "Forward Decay".

use crate::params::DAY_MS;

/// Moment all sums count from: 2020-01-01 UTC, Unix milliseconds.
const LANDMARK_MS: i64 = 1_577_836_800_000;

/// Value of a sum without terms.
pub const EMPTY: f64 = f64::NEG_INFINITY;

/// `log2(2^a + 2^b)`, exact for an empty side.
pub fn add(a: f64, b: f64) -> f64 {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    if low == EMPTY { high } else { high + (low - high).exp2().ln_1p() * std::f64::consts::LOG2_E }
}

/// Kept value of one term of `weight` at `time_ms`; empty unless the weight is positive.
pub fn term(weight: f64, time_ms: i64, half_life_days: f64) -> f64 {
    if weight > 0.0 { weight.log2() + age(time_ms, half_life_days) } else { EMPTY }
}

/// Decayed value at `now_ms` of a kept value.
pub fn at(kept: f64, now_ms: i64, half_life_days: f64) -> f64 {
    (kept - age(now_ms, half_life_days)).exp2()
}

fn age(time_ms: i64, half_life_days: f64) -> f64 {
    (time_ms - LANDMARK_MS) as f64 / (half_life_days * DAY_MS as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_halves_with_each_half_life() {
        let kept = term(1.0, LANDMARK_MS, 7.0);
        assert!((at(kept, LANDMARK_MS + 14 * DAY_MS, 7.0) - 0.25).abs() < 1e-12);
    }

    #[test]
    fn terms_add_and_empty_is_neutral() {
        let both = add(term(3.0, LANDMARK_MS, 7.0), term(1.0, LANDMARK_MS + 7 * DAY_MS, 7.0));
        assert!((at(both, LANDMARK_MS + 7 * DAY_MS, 7.0) - 2.5).abs() < 1e-12);
        assert!((add(EMPTY, 1.5) - 1.5).abs() < 1e-12);
        assert!(add(EMPTY, EMPTY) <= EMPTY);
    }
}

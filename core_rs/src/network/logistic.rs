//! The logistic function of many values, in steps that the compiler can take for several of them at once.
//!
//! Source: Cody & Waite 1980, "Software manual for the elementary functions", chapter 6: the argument less a whole
//! number of ln 2, which is subtracted in two parts; here with the Taylor series for the rest.

/// Replaces each value by its logistic function, exact to a few units of the last place; beyond 87 on either side it
/// stays what it is there.
pub fn logistic(values: &mut [f32]) {
    for value in values {
        *value = 1.0 / (1.0 + exp((-*value).clamp(-87.0, 87.0)));
    }
}

/// `2^n · e^rest` with the whole number `n` nearest to `value / ln 2`, and the Taylor series for the rest.
#[inline]
fn exp(value: f32) -> f32 {
    /// Added to a small number it leaves that number, rounded, in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// The first bits of ln 2, so that its product with a small whole number is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = (std::f64::consts::LN_2 - LN_2_HIGH as f64) as f32;
    const TERMS: [f32; 7] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0];
    let rounded = value * std::f32::consts::LOG2_E + ROUND;
    let whole = rounded - ROUND;
    let rest = value - whole * LN_2_HIGH - whole * LN_2_LOW;
    let sum = TERMS.iter().fold(0.0, |sum, term| sum * rest + term) * rest + 1.0;
    sum * f32::from_bits((rounded.to_bits() << 23).wrapping_add(1_f32.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_function_of_mathematics() {
        for step in -17_000..17_000 {
            let value = step as f32 * 0.005;
            let exact = 1.0 / (1.0 + (-f64::from(value)).exp());
            let mut found = [value];
            logistic(&mut found);
            assert!((f64::from(found[0]) - exact).abs() < 1e-6 * exact, "at {value}");
        }
        let mut extremes = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        logistic(&mut extremes);
        assert!(extremes[0].is_nan() && extremes[1] > 0.999 && extremes[2] < 1e-30);
    }
}

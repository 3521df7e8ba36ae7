//! The total order of scores: greater first, what is not finite last. Ties are for the caller to break, by item.

/// Bits that sort as the scores do, greatest first and not finite last.
pub fn descending(score: f32) -> u32 {
    if !score.is_finite() {
        return u32::MAX;
    }
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

/// Score that gives these bits; NaN for what was not finite.
pub fn ascend(descending: u32) -> f32 {
    let ascending = !descending;
    f32::from_bits(if ascending >> 31 == 1 { ascending & !(1 << 31) } else { !ascending })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_sort_as_scores_and_give_them_back() {
        let scores = [f32::MAX, 2.0, 1.0e-30, 0.0, -1.0e-30, -2.0, f32::MIN];
        assert!(scores.windows(2).all(|pair| descending(pair[0]) < descending(pair[1])));
        assert!(scores.iter().all(|&score| ascend(descending(score)).to_bits() == score.to_bits()));
        assert_eq!(descending(-0.0), descending(0.0));
        assert_eq!(descending(f32::INFINITY), u32::MAX);
        assert!(ascend(u32::MAX).is_nan());
    }
}

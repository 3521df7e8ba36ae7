//! Items that merchandisers put at a position.

/// Place (from 0) of each pin in a slate of `k`: where it belongs, or next after the pin before it; `None` beyond `k`.
///
/// Positions count from 1 and ascend.
pub fn places(positions: impl IntoIterator<Item = usize>, k: usize) -> Vec<Option<usize>> {
    let mut next = 0;
    let place = |position: usize| {
        let place = (position - 1).max(next);
        (place < k).then(|| {
            next = place + 1;
            place
        })
    };
    positions.into_iter().map(place).collect()
}

/// Puts values at their places, which ascend, of a slate that does not hold them and has room for them.
pub fn insert<T: Copy>(slate: &mut Vec<T>, pins: &[(usize, T)]) {
    for &(place, value) in pins {
        slate.insert(place.min(slate.len()), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_stand_where_they_belong() {
        assert_eq!(places([1, 3, 9], 4), [Some(0), Some(2), None]);
        assert_eq!(places([2, 2, 2], 3), [Some(1), Some(2), None]);
        let mut slate = vec![1, 2];
        insert(&mut slate, &[(0, 10), (2, 30)]);
        assert_eq!(slate, [10, 1, 30, 2]);
        let mut short = vec![1];
        insert(&mut short, &[(3, 40)]);
        assert_eq!(short, [1, 40]);
    }
}

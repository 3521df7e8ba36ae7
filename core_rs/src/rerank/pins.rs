//! Items that merchandisers put at a position.

/// Puts each pinned value at its position (from 1) of a slate of at most `k`; later ones move on if the place is taken.
///
/// `slate` must not hold the pinned values. Positions beyond `k` are left out. Pins come in order of position.
pub fn insert<T: Copy>(slate: &mut Vec<T>, pins: &[(usize, T)], k: usize) {
    let mut next = 0;
    for &(position, value) in pins {
        let place = (position - 1).max(next);
        if place >= k {
            continue;
        }
        let place = place.min(slate.len());
        slate.insert(place, value);
        next = place + 1;
    }
    slate.truncate(k);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_stand_where_they_belong() {
        let mut slate = vec![1, 2, 3, 4];
        insert(&mut slate, &[(1, 10), (3, 30), (9, 90)], 4);
        assert_eq!(slate, [10, 1, 30, 2]);
        let mut short = vec![1];
        insert(&mut short, &[(4, 40)], 5);
        assert_eq!(short, [1, 40]);
    }
}

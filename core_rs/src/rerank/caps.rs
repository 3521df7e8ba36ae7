//! Limits on how many items of one category or brand a slate shows.

use super::Traits;
use crate::ids::NONE;
use hashbrown::HashMap;

/// Limits of one slate; 0 means none.
#[derive(Clone, Copy, Default)]
pub struct Caps {
    /// Most items of one category.
    pub category: usize,
    /// Most items of one brand.
    pub brand: usize,
}

impl Caps {
    /// Whether there is a limit.
    pub fn bind(self) -> bool {
        self.category > 0 || self.brand > 0
    }
}

/// Takes `k` of the ordered indexes within the caps; where that leaves places empty, the best of the rest fill them.
///
/// Returns the taken indexes and whether a cap had to give way.
pub fn take(ordered: &[u32], traits: &[Traits], caps: Caps, k: usize) -> (Vec<u32>, bool) {
    if !caps.bind() {
        return (ordered[..k.min(ordered.len())].to_vec(), false);
    }
    let (mut categories, mut brands) = (HashMap::new(), HashMap::new());
    let (mut taken, mut rest) = (Vec::with_capacity(k), Vec::new());
    for &index in ordered {
        if taken.len() == k {
            break;
        }
        let item = &traits[index as usize];
        if full(&categories, item.category, caps.category) || full(&brands, item.brand, caps.brand) {
            rest.push(index);
        } else {
            *categories.entry(item.category).or_insert(0) += 1;
            *brands.entry(item.brand).or_insert(0) += 1;
            taken.push(index);
        }
    }
    let missing = (k - taken.len()).min(rest.len());
    taken.extend_from_slice(&rest[..missing]);
    (taken, missing > 0)
}

fn full(counts: &HashMap<u32, usize>, key: u32, cap: usize) -> bool {
    cap > 0 && key != NONE && counts.get(&key).is_some_and(|&count| count >= cap)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traits(categories: &[u32]) -> Vec<Traits> {
        let item = |(item, &category)| Traits { item: item as u32, category, department: 0, brand: NONE };
        categories.iter().enumerate().map(item).collect()
    }

    #[test]
    fn a_cap_skips_and_gives_way_only_when_places_stay_empty() {
        let traits = traits(&[1, 1, 1, 2]);
        let caps = Caps { category: 2, brand: 0 };
        assert_eq!(take(&[0, 1, 2, 3], &traits, caps, 3), (vec![0, 1, 3], false));
        assert_eq!(take(&[0, 1, 2, 3], &traits, caps, 4), (vec![0, 1, 3, 2], true));
    }
}

//! Fading interest of a visitor in categories and brands, a few of each.

use crate::{decay, ids::NONE, params::AFFINITIES};

/// Fading interest in one category or brand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affinity {
    /// Category or brand; [`NONE`] in an empty slot.
    pub key: u32,
    /// Decayed weight, kept as by [`decay`].
    pub weight: f32,
}

/// Empty slot.
pub(crate) const NO_AFFINITY: Affinity = Affinity { key: NONE, weight: f32::NEG_INFINITY };

/// Adds `gain` to `key`; a key that is not kept replaces the weakest one when it is stronger.
pub(crate) fn strengthen(slots: &mut [Affinity; AFFINITIES], key: u32, gain: f32) {
    if key == NONE {
        return;
    }
    if let Some(slot) = slots.iter_mut().find(|slot| slot.key == key) {
        slot.weight = decay::add(f64::from(slot.weight), f64::from(gain)) as f32;
        return;
    }
    if let Some(weakest) = slots.iter_mut().min_by(|a, b| a.weight.total_cmp(&b.weight))
        && (weakest.key == NONE || gain > weakest.weight)
    {
        *weakest = Affinity { key, weight: gain };
    }
}

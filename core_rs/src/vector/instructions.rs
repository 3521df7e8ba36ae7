//! Which instructions scan: the widest that the processor has, or a narrower set by wish. All give the same bits.

#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use super::{
    blocks::{Query, Tile},
    scalar,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

/// A set of instructions that this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instructions(Set);

impl Instructions {
    /// The sets that this processor has, the widest last.
    pub fn available() -> Vec<Self> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "nothing wider is known there"))]
        let mut sets = vec![Self(Set::Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                sets.push(Self(Set::Avx2));
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
                sets.push(Self(Set::Avx512Vnni));
            }
        }
        sets
    }

    /// The widest set that this processor has.
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self(Set::Scalar))
    }

    /// The set of a name, if this processor has it.
    pub fn named(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|set| set.name() == name)
    }

    /// Name of the set: `scalar`, `avx2` or `avx512vnni`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Vnni => "avx512vnni",
        }
    }

    /// Adds the key of every allowed item of the tile whose score is at least `threshold`.
    ///
    /// A score is the quantised product times the item's scale; the query's scale is left to the caller.
    pub fn scan(self, tile: &Tile, query: &Query, threshold: f32, keys: &mut Vec<u64>) {
        match self.0 {
            Set::Scalar => scalar::scan(tile, query, threshold, keys),
            // SAFETY: only `available` makes a set, after asking the processor.
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => unsafe { avx2::scan(tile, query, threshold, keys) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Vnni => unsafe { avx512::scan(tile, query, threshold, keys) },
        }
    }
}

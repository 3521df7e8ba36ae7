//! From scores to a slate: a total order, variety, caps, pins.

mod caps;
mod mmr;
mod order;
mod pins;

pub use caps::{Caps, take};
pub use mmr::{POOL, diversify};
pub use order::best_first;
pub use pins::{insert, places};

/// What re-ranking knows of an item besides its score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// Item.
    pub item: u32,
    /// Last level of the category path.
    pub category: u32,
    /// First level of the category path.
    pub department: u32,
    /// Brand.
    pub brand: u32,
}

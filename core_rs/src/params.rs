//! Limits and tunables of the core, each with its meaning. Nothing else in the core is a knob.

/// Most events of one request.
pub const MAX_EVENTS: usize = 1_000;
/// Most lines of one event.
pub const MAX_EVENT_ITEMS: usize = 500;
/// Most bytes of an external id.
pub const MAX_ID_BYTES: usize = 256;
/// Most bytes of an attribution token.
pub const MAX_TOKEN_BYTES: usize = 1_024;
/// Greatest weight of a source, and greatest value of an action to either side.
pub const MAX_WEIGHT: f64 = 1_000.0;
/// Greatest price, currency units.
pub const MAX_PRICE: i64 = 1_000_000_000;
/// Most placements of one request.
pub const MAX_PLACEMENTS: usize = 20;
/// Most items of one slate.
pub const MAX_PAGE: usize = 500;
/// Most anchors or cart lines of one request.
pub const MAX_ANCHORS: usize = 200;
/// Most ids a request may exclude or a filter may name.
pub const MAX_LISTED_IDS: usize = 2_000;
/// Most candidates of one source, and of one slate.
pub const MAX_CANDIDATES: usize = 2_000;
/// Candidates of a source whose use names no limit.
pub const DEFAULT_SOURCE_LIMIT: usize = 200;
/// Items of a slate whose placement and request name no number.
pub const DEFAULT_PAGE: usize = 10;

/// Most spans of time that an item says it is advertised in.
pub const MAX_PROMOTION_INTERVALS: usize = 400;

/// One day, milliseconds.
pub const DAY_MS: i64 = 86_400_000;
/// Oldest live event before now, milliseconds.
pub const MAX_EVENT_AGE_MS: i64 = 730 * DAY_MS;
/// Farthest live event after now, milliseconds.
pub const MAX_EVENT_AHEAD_MS: i64 = DAY_MS;

/// Interactions a visitor's ring remembers.
pub const RING: usize = 16;
/// Categories, and brands, whose affinity a visitor keeps.
pub const AFFINITIES: usize = 6;
/// Bought items a visitor keeps; the weakest is dropped beyond.
pub const MAX_PERSONAL: usize = 2_048;

/// Visitors that wait for a sequence vector at most; about 100 bytes each.
pub const MAX_WAITING: usize = 100_000;
/// Time after which an event that a visitor's sequence vector lacks makes an answer degraded, milliseconds.
pub const SEQUENCE_LATE_MS: i64 = 2_000;

/// Stores whose sales are told apart.
pub const MAX_STORES: usize = 4_096;
/// Pairs of a store and an item whose sales are counted; about 32 bytes each.
pub const MAX_STORE_ITEMS: usize = 2_000_000;

/// Half-life of popularity, days.
pub const POPULAR_HALF_LIFE_DAYS: f64 = 28.0;
/// Half-life of the short popularity behind trends, days.
pub const TREND_HALF_LIFE_DAYS: f64 = 3.0;
/// Half-life of a visitor's purchases and affinities, days.
pub const PERSONAL_HALF_LIFE_DAYS: f64 = 60.0;
/// Half-life of a visitor's latest purchases, days.
pub const LATELY_HALF_LIFE_DAYS: f64 = 15.0;
/// Factor of a bought item's basket weight with each further basket of the visitor.
pub const BASKET_DECAY: f32 = 0.95;
/// Half-life of the recovery of an item bought before under `BOUGHT_RULE_DECAY`, days.
pub const BOUGHT_RECOVERY_DAYS: f64 = 30.0;
/// Anchors whose categories `same_category` searches.
pub const ALIKE_ANCHORS: usize = 8;
/// Items of one category that are compared with an anchor, the newest of the catalogue.
pub const MAX_ALIKE: usize = 4_096;
/// Items of a category below which the wider one is searched.
pub const FEW_ALIKE: usize = 64;
/// Likeness of an item of the wider category, where one of the same category has 1.
pub const ALIKE_PARENT: f32 = 0.5;
/// What the same brand adds to a likeness.
pub const ALIKE_BRAND: f32 = 0.3;
/// What the same price adds to a likeness; less by the ratio of prices.
pub const ALIKE_PRICE: f32 = 0.3;
/// What popularity adds to a likeness at most.
pub const ALIKE_POPULARITY: f32 = 0.3;
/// Decayed count at which popularity adds half of its most.
pub const ALIKE_HALF_POPULAR: f32 = 10.0;
/// Days that an item counts as a new arrival.
pub const NEW_ARRIVAL_DAYS: i64 = 60;
/// Share of its usual interval after which an item is due again.
pub const DUE_SHARE: f32 = 0.7;
/// Share of its usual interval after which the visitor has stopped buying an item.
pub const GIVEN_UP_SHARE: f32 = 4.0;
/// Score in `recently_viewed` of each view beside the next newer one.
pub const VIEWED_DECAY: f32 = 0.9;

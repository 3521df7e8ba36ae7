//! The feature table: one row a candidate, the same code for serving and training.
//!
//! A row reads only what is known at `now_ms` and never the other candidates, so a score can be cached and explained.
//! Counts that fade are given as base-2 logarithms; a feature that does not apply has the default of its group, 0.

mod interest;

use crate::{
    catalog::Row,
    decay,
    gather::Candidate,
    ids::NONE,
    params::{DAY_MS, LATELY_HALF_LIFE_DAYS, PERSONAL_HALF_LIFE_DAYS, POPULAR_HALF_LIFE_DAYS, TREND_HALF_LIFE_DAYS},
    popularity::Counts,
    promotion,
    proto::{Context, Device, EventType},
    query::Query,
    source::{self, buy_again::due_share},
    visitor::{Visitor, seconds},
};
use interest::{Interest, Key};
use std::sync::LazyLock;

/// Least base-2 logarithm of a faded count.
const FLOOR: f32 = -8.0;
/// Buyers without a repeat that every item is taken to have had.
const REPEAT_PRIOR: f32 = 5.0;
/// Rows that are computed while the memory fetches what another one needs.
const FETCH_AHEAD: usize = 16;

const BOUGHT: [&str; 12] = [
    "bought_weight",
    "bought_lately",
    "bought_by_basket",
    "bought_baskets",
    "bought_share",
    "bought_recency",
    "baskets_since_bought",
    "bought_last_time",
    "bought_interval_days",
    "bought_due",
    "bought_rate_excess",
    "bought_first_days",
];
const SEEN: [&str; 3] = ["viewed_recency", "carted", "disliked"];
const ITEM: [&str; 9] =
    ["popular", "recent", "trend", "purchases", "repeat_rate", "price", "discount", "age_days", "catalog_price_known"];
const VISITOR: [&str; 6] =
    ["baskets", "repeat_share", "basket_lines", "days_since_purchase", "purchase_interval_days", "known"];
const INTEREST: [&str; 9] = [
    "category_interest",
    "category_share",
    "category_recency",
    "parent_interest",
    "parent_share",
    "parent_recency",
    "brand_interest",
    "brand_share",
    "brand_recency",
];
const CROSS: [&str; 3] = ["price_to_usual", "anchor_same_category", "anchor_same_brand"];
const PROMOTION: [&str; promotion::KINDS.len()] = ["promoted_by_mailer", "promoted_by_display"];
const PLACE: [&str; 2] = ["store_sales", "store_lift"];
const CONTEXT: [&str; 6] = ["hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "on_phone", "in_email"];

/// Number of columns.
pub const WIDTH: usize = source::COUNT
    + BOUGHT.len()
    + SEEN.len()
    + ITEM.len()
    + VISITOR.len()
    + INTEREST.len()
    + CROSS.len()
    + PROMOTION.len()
    + PLACE.len()
    + CONTEXT.len();

/// Names of the columns, in order.
pub fn names() -> Vec<String> {
    let sources = source::SOURCES.iter().map(|source| format!("source_{}", source.name()));
    let rest = BOUGHT.iter().chain(&SEEN).chain(&ITEM).chain(&VISITOR).chain(&INTEREST).chain(&CROSS);
    sources.chain(rest.chain(&PROMOTION).chain(&PLACE).chain(&CONTEXT).map(ToString::to_string)).collect()
}

/// Hash of the table: names in order and their number of computation.
pub fn schema_hash() -> String {
    const COMPUTATION: &str = "2";
    blake3::hash(format!("{COMPUTATION}:{}", names().join(",")).as_bytes()).to_hex()[..16].to_owned()
}

/// What all rows of one query share, computed once.
pub struct Shared<'a> {
    query: &'a Query<'a>,
    visitor: [f32; VISITOR.len()],
    context: [f32; CONTEXT.len()],
    usual_price: f32,
    basket_interval_days: f32,
    popular_age: f32,
    recent_age: f32,
    personal_age: f32,
    lately_age: f32,
    interest: Interest,
    /// Bit `item % 64` of every item seen last: most candidates are none of them.
    seen_mask: u64,
    store: u32,
}

impl<'a> Shared<'a> {
    /// Computes the shared part.
    pub fn new(query: &'a Query<'a>) -> Self {
        let now_ms = query.now_ms;
        let unknown = Visitor::default();
        let visitor = query.visitor.unwrap_or(&unknown);
        let age = |half_life| -decay::at(0.0, now_ms, half_life).log2() as f32;
        Self {
            query,
            visitor: visitor_part(visitor, query.visitor.is_some(), now_ms),
            context: context_part(query.context, query.wall_ms),
            usual_price: if visitor.lines > 0 { visitor.spent / visitor.lines as f32 } else { 0.0 },
            basket_interval_days: basket_interval(visitor, now_ms),
            popular_age: age(POPULAR_HALF_LIFE_DAYS),
            recent_age: age(TREND_HALF_LIFE_DAYS),
            personal_age: age(PERSONAL_HALF_LIFE_DAYS),
            lately_age: age(LATELY_HALF_LIFE_DAYS),
            interest: Interest::new(query),
            seen_mask: visitor.recent().fold(0, |mask, seen| mask | 1 << (seen.item % u64::BITS)),
            store: query.state.places.stores.get(&query.context.store_id).unwrap_or(visitor.store),
        }
    }

    /// Appends the rows of candidates to `out`.
    pub fn push_rows(&self, candidates: &[Candidate], out: &mut Vec<f32>) {
        out.reserve(candidates.len() * WIDTH);
        let state = self.query.state;
        for (place, candidate) in candidates.iter().enumerate() {
            if let Some(soon) = candidates.get(place + FETCH_AHEAD) {
                state.catalog.prefetch_row(soon.item);
                state.popularity.prefetch_counts(soon.item);
            }
            self.push_row(candidate, out);
        }
    }

    fn push_row(&self, candidate: &Candidate, out: &mut Vec<f32>) {
        let state = self.query.state;
        let (row, counts) = (state.catalog.row(candidate.item), state.popularity.counts(candidate.item));
        out.extend_from_slice(&candidate.source_scores.map(|score| if score > 0.0 { (1.0 + score).ln() } else { 0.0 }));
        out.extend_from_slice(&self.bought_part(candidate.item));
        out.extend_from_slice(&self.seen_part(candidate.item));
        out.extend_from_slice(&self.item_part(row, &counts));
        out.extend_from_slice(&self.visitor);
        out.extend_from_slice(&self.interest.of(Key::Category, row.category));
        out.extend_from_slice(&self.interest.of(Key::Parent, row.parent));
        out.extend_from_slice(&self.interest.of(Key::Brand, row.brand));
        out.extend_from_slice(&self.cross_part(row));
        out.extend_from_slice(&self.promotion_part(candidate.item));
        out.extend_from_slice(&state.places.sales(self.store, candidate.item));
        out.extend_from_slice(&self.context);
    }

    fn bought_part(&self, item: u32) -> [f32; BOUGHT.len()] {
        let bought = self.query.visitor.and_then(|visitor| visitor.bought(item).map(|bought| (visitor, bought)));
        let Some((visitor, bought)) = bought else { return [0.0; BOUGHT.len()] };
        let now_ms = self.query.now_ms;
        let baskets = f32::from(bought.baskets);
        let since = seconds(now_ms).saturating_sub(bought.last_s) as f32 / 86_400.0;
        let owned_days = seconds(now_ms).saturating_sub(bought.first_s) as f32 / 86_400.0;
        let interval = if bought.baskets > 1 { (owned_days - since) / (baskets - 1.0) } else { 0.0 };
        let since_baskets = visitor.baskets.saturating_sub(u32::from(bought.last_basket)) as f32;
        let expected = owned_days / self.basket_interval_days.max(0.1);
        [
            (bought.weight - self.personal_age).exp2(),
            (bought.weight_lately - self.lately_age).exp2(),
            bought.faded(visitor.baskets) / visitor.baskets.clamp(1, 20) as f32,
            baskets.ln_1p(),
            baskets / visitor.baskets.max(1) as f32,
            (-since / 30.0).exp(),
            1.0 / (1.0 + since_baskets),
            if since_baskets < 0.5 { 1.0 } else { 0.0 },
            interval.ln_1p(),
            due_share(bought, now_ms).map_or(0.0, |due| due.min(4.0)),
            baskets / (1.0 + expected),
            owned_days.ln_1p(),
        ]
    }

    fn seen_part(&self, item: u32) -> [f32; SEEN.len()] {
        let mut part = [0.0; SEEN.len()];
        let visitor = self.query.visitor.filter(|_| self.seen_mask >> (item % u64::BITS) & 1 == 1);
        let Some(visitor) = visitor else { return part };
        for (rank, interaction) in visitor.recent().enumerate().filter(|(_, interaction)| interaction.item == item) {
            match EventType::try_from(i32::from(interaction.kind)) {
                Ok(EventType::View | EventType::Click) => part[0] += 1.0 / (1.0 + rank as f32),
                Ok(EventType::AddToCart | EventType::AddToWishlist) => part[1] = 1.0,
                Ok(EventType::Dislike) => part[2] = 1.0,
                _ => {}
            }
        }
        part
    }

    fn item_part(&self, row: &Row, counts: &Counts) -> [f32; ITEM.len()] {
        let popular = (counts.long as f32 - self.popular_age).max(FLOOR);
        let recent = (counts.short as f32 - self.recent_age).max(FLOOR);
        let age_days = (self.query.now_ms - row.release_ms) as f32 / DAY_MS as f32;
        [
            popular,
            recent,
            recent - popular,
            log_of_count(counts.purchases),
            counts.repeaters as f32 / (REPEAT_PRIOR + counts.buyers as f32),
            row.price_ln,
            discount(row),
            if row.release_ms > 0 { (1.0 + age_days.max(0.0)).ln() } else { 0.0 },
            if row.is_priced() { 1.0 } else { 0.0 },
        ]
    }

    fn promotion_part(&self, item: u32) -> [f32; PROMOTION.len()] {
        let promotions = self.query.state.catalog.promotions(item);
        promotions.map_or([0.0; PROMOTION.len()], |promotions| promotions.at(seconds(self.query.now_ms)))
    }

    fn cross_part(&self, row: &Row) -> [f32; CROSS.len()] {
        let catalog = &self.query.state.catalog;
        let anchors = &self.query.anchors;
        let matches = |same: &dyn Fn(&Row) -> bool| {
            let count = anchors.iter().filter(|&&anchor| same(catalog.row(anchor))).count();
            count as f32 / anchors.len().max(1) as f32
        };
        let priced = self.usual_price > 0.0 && row.price > 0.0;
        [
            if priced { (row.price / self.usual_price).ln() } else { 0.0 },
            matches(&|anchor| row.category != NONE && anchor.category == row.category),
            matches(&|anchor| row.brand != NONE && anchor.brand == row.brand),
        ]
    }
}

/// Logarithm of a count and one; most counts are small, and their logarithms are kept.
fn log_of_count(count: u32) -> f32 {
    static KEPT: LazyLock<[f32; 256]> = LazyLock::new(|| std::array::from_fn(|count| (1.0 + count as f32).ln()));
    KEPT.get(count as usize).copied().unwrap_or_else(|| (1.0 + count as f32).ln())
}

/// Share of the regular price that is taken off now.
fn discount(row: &Row) -> f32 {
    if row.list_price > 0.0 && row.price < row.list_price { 1.0 - row.price / row.list_price } else { 0.0 }
}

/// Mean days between purchases of a visitor; 0 below two.
fn basket_interval(visitor: &Visitor, now_ms: i64) -> f32 {
    if visitor.baskets < 2 {
        return 0.0;
    }
    (now_ms - visitor.first_purchase_ms).max(0) as f32 / DAY_MS as f32 / visitor.baskets as f32
}

fn visitor_part(visitor: &Visitor, known: bool, now_ms: i64) -> [f32; VISITOR.len()] {
    let baskets = visitor.baskets as f32;
    let last_s = visitor.bought.iter().map(|bought| bought.last_s).max();
    let since = last_s.map_or(0.0, |last_s| seconds(now_ms).saturating_sub(last_s) as f32 / 86_400.0);
    let lines = visitor.lines as f32;
    [
        baskets.ln_1p(),
        if lines > 0.0 { 1.0 - visitor.bought.len() as f32 / lines } else { 0.0 },
        if baskets > 0.0 { (lines / baskets).ln_1p() } else { 0.0 },
        since.ln_1p(),
        basket_interval(visitor, now_ms).ln_1p(),
        if known { 1.0 } else { 0.0 },
    ]
}

fn context_part(context: &Context, wall_ms: i64) -> [f32; CONTEXT.len()] {
    let day = wall_ms.rem_euclid(DAY_MS) as f32 / DAY_MS as f32 * std::f32::consts::TAU;
    let week = wall_ms.div_euclid(DAY_MS).rem_euclid(7) as f32 / 7.0 * std::f32::consts::TAU;
    let on = |device: Device| if context.device() == device { 1.0 } else { 0.0 };
    [day.sin(), day.cos(), week.sin(), week.cos(), on(Device::Phone), on(Device::Email)]
}

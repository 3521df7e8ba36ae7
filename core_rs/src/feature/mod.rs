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
    visitor::{Visitor, days, seconds},
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
const CONTEXT: [&str; 7] =
    ["hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "on_phone", "in_email", "from_campaign"];

const AT_BOUGHT: usize = source::COUNT;
const AT_SEEN: usize = AT_BOUGHT + BOUGHT.len();
const AT_ITEM: usize = AT_SEEN + SEEN.len();
const AT_VISITOR: usize = AT_ITEM + ITEM.len();
const AT_INTEREST: usize = AT_VISITOR + VISITOR.len();
const AT_CROSS: usize = AT_INTEREST + INTEREST.len();
const AT_PROMOTION: usize = AT_CROSS + CROSS.len();
const AT_PLACE: usize = AT_PROMOTION + PROMOTION.len();
const AT_CONTEXT: usize = AT_PLACE + PLACE.len();

/// Number of columns.
pub const WIDTH: usize = AT_CONTEXT + CONTEXT.len();

/// Names of the columns, in order.
pub fn names() -> Vec<String> {
    let sources = source::SOURCES.iter().map(|source| format!("source_{}", source.name()));
    let rest = BOUGHT.iter().chain(&SEEN).chain(&ITEM).chain(&VISITOR).chain(&INTEREST).chain(&CROSS);
    sources.chain(rest.chain(&PROMOTION).chain(&PLACE).chain(&CONTEXT).map(ToString::to_string)).collect()
}

/// Hash of the table: names in order and their number of computation.
pub fn schema_hash() -> String {
    const COMPUTATION: &str = "3";
    blake3::hash(format!("{COMPUTATION}:{}", names().join(",")).as_bytes()).to_hex()[..16].to_owned()
}

/// Columns of one row.
type Features = [f32; WIDTH];

/// What all rows of one query share, computed once.
pub struct Shared<'a> {
    query: &'a Query<'a>,
    /// Row of a candidate that nothing is known of.
    blank: Features,
    /// Logarithm of the usual price; `None` where it is not known.
    usual_price_ln: Option<f32>,
    basket_interval_days: f32,
    popular_age: f32,
    recent_age: f32,
    personal_age: f32,
    lately_age: f32,
    interest: Interest,
    /// Bit `item % 64` of every item bought or seen last: most candidates are none of them.
    known_mask: u64,
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
            blank: blank(query, visitor),
            usual_price_ln: (visitor.lines > 0 && visitor.spent > 0.0)
                .then(|| (visitor.spent / visitor.lines as f32).ln()),
            basket_interval_days: basket_interval(visitor, now_ms),
            popular_age: age(POPULAR_HALF_LIFE_DAYS),
            recent_age: age(TREND_HALF_LIFE_DAYS),
            personal_age: age(PERSONAL_HALF_LIFE_DAYS),
            lately_age: age(LATELY_HALF_LIFE_DAYS),
            interest: Interest::new(query),
            known_mask: known_items(visitor).fold(0, |mask, item| mask | 1 << (item % u64::BITS)),
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
            out.extend_from_slice(&self.blank);
            if let Some(row) = out.last_chunk_mut() {
                self.write(candidate, row);
            }
        }
    }

    /// Writes what a blank row lacks, number by number: what is read again in one piece right after it was written in
    /// many stops the processor.
    fn write(&self, candidate: &Candidate, out: &mut Features) {
        let (state, item) = (self.query.state, candidate.item);
        let (row, counts) = (state.catalog.row(item), state.popularity.counts(item));
        let proposed = (0..source::COUNT).filter(|number| candidate.sources >> number & 1 == 1);
        for (number, score) in proposed.map(|number| (number, candidate.source_scores[number])) {
            out[number] = if score > 0.0 { ln(1.0 + score) } else { 0.0 };
        }
        if self.known_mask >> (item % u64::BITS) & 1 == 1 {
            put(out, AT_BOUGHT, &self.bought_part(item));
            put(out, AT_SEEN, &self.seen_part(item));
        }
        self.write_item(row, &counts, out);
        for (kind, key) in [(Key::Category, row.category), (Key::Parent, row.parent), (Key::Brand, row.brand)] {
            if let Some(part) = self.interest.of(kind, key) {
                put(out, AT_INTEREST + kind as usize * interest::WIDTH, part);
            }
        }
        self.write_cross(row, out);
        if let Some(promotions) = state.catalog.promotions(item) {
            put(out, AT_PROMOTION, &promotions.at(seconds(self.query.now_ms)));
        }
        if self.store != NONE {
            put(out, AT_PLACE, &state.places.sales(self.store, item));
        }
    }

    fn bought_part(&self, item: u32) -> [f32; BOUGHT.len()] {
        let bought = self.query.visitor.and_then(|visitor| visitor.bought(item).map(|bought| (visitor, bought)));
        let Some((visitor, bought)) = bought else { return [0.0; BOUGHT.len()] };
        let now_ms = self.query.now_ms;
        let baskets = f32::from(bought.baskets);
        let since = days(bought.last_s, seconds(now_ms));
        let owned_days = days(bought.first_s, seconds(now_ms));
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
        let Some(visitor) = self.query.visitor else { return part };
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

    fn write_item(&self, row: &Row, counts: &Counts, out: &mut Features) {
        let popular = (counts.long as f32 - self.popular_age).max(FLOOR);
        let recent = (counts.short as f32 - self.recent_age).max(FLOOR);
        let age_days = (self.query.now_ms - row.release_ms) as f32 / DAY_MS as f32;
        out[AT_ITEM] = popular;
        out[AT_ITEM + 1] = recent;
        out[AT_ITEM + 2] = recent - popular;
        out[AT_ITEM + 3] = log_of_count(counts.purchases);
        out[AT_ITEM + 4] = counts.repeaters as f32 / (REPEAT_PRIOR + counts.buyers as f32);
        out[AT_ITEM + 5] = row.price_ln;
        out[AT_ITEM + 6] = discount(row);
        out[AT_ITEM + 7] = if row.release_ms > 0 { ln(1.0 + age_days.max(0.0)) } else { 0.0 };
        out[AT_ITEM + 8] = if row.is_priced() { 1.0 } else { 0.0 };
    }

    fn write_cross(&self, row: &Row, out: &mut Features) {
        if let Some(usual_price_ln) = self.usual_price_ln.filter(|_| row.is_priced()) {
            out[AT_CROSS] = row.price_ln - usual_price_ln;
        }
        let anchors = &self.query.anchors;
        if anchors.is_empty() {
            return;
        }
        let share = |same: &dyn Fn(&Row) -> bool| {
            let rows = anchors.iter().map(|&anchor| self.query.state.catalog.row(anchor));
            rows.filter(|anchor| same(anchor)).count() as f32 / anchors.len() as f32
        };
        out[AT_CROSS + 1] = share(&|anchor| row.category != NONE && anchor.category == row.category);
        out[AT_CROSS + 2] = share(&|anchor| row.brand != NONE && anchor.brand == row.brand);
    }
}

fn put<const N: usize>(out: &mut Features, at: usize, part: &[f32; N]) {
    out[at..at + N].copy_from_slice(part);
}

fn blank(query: &Query, visitor: &Visitor) -> Features {
    let mut features = [0.0; WIDTH];
    put(&mut features, AT_VISITOR, &visitor_part(visitor, query.visitor.is_some(), query.now_ms));
    put(&mut features, AT_CONTEXT, &context_part(query.context, query.wall_ms));
    features
}

/// Items that the visitor bought or met last.
fn known_items(visitor: &Visitor) -> impl Iterator<Item = u32> {
    let bought = visitor.bought.iter().map(|bought| bought.item);
    bought.chain(visitor.recent().map(|seen| seen.item))
}

/// Natural logarithm of a number of 1 or more, by the series of the inverse hyperbolic tangent; a thousand rows
/// ask for two thousand of them.
fn ln(value: f32) -> f32 {
    /// Bits of the root of one half: the mantissa is taken from there to the root of two.
    const LEAST: u32 = 0x3f35_04f3;
    let bits = value.to_bits() - LEAST;
    let mantissa = f32::from_bits((bits & 0x007f_ffff) + LEAST);
    let part = (mantissa - 1.0) / (mantissa + 1.0);
    let square = part * part;
    let series = 1.0 + square * (1.0 / 3.0 + square * (0.2 + square * (1.0 / 7.0 + square / 9.0)));
    (bits >> 23) as f32 * std::f32::consts::LN_2 + 2.0 * part * series
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
    let since = last_s.map_or(0.0, |last_s| days(last_s, seconds(now_ms)));
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
    let from_campaign = if context.campaign_id.is_empty() { 0.0 } else { 1.0 };
    [day.sin(), day.cos(), week.sin(), week.cos(), on(Device::Phone), on(Device::Email), from_campaign]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_those_of_mathematics() {
        for step in 0..100_000_u32 {
            let value = 1.0 + step as f32 * step as f32 * 1e-5;
            let exact = f64::from(value).ln();
            assert!((f64::from(ln(value)) - exact).abs() <= 2e-7 * exact.max(1.0), "at {value}");
        }
        assert!((f64::from(ln(f32::MAX)) - f64::from(f32::MAX).ln()).abs() < 1e-5);
    }
}

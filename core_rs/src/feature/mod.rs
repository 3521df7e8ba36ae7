//! The feature table: one row a candidate, the same code for serving and training.
//!
//! A row reads only what is known at `now_ms` and never the other candidates, so a score can be cached and explained.
//! A feature that does not apply is 0.

mod columns;
mod interest;

pub use columns::{Column, Group, WIDTH, names, schema_hash, table};

use crate::{
    catalog, decay,
    gather::Candidate,
    ids::NONE,
    params::{
        DAY_MS, GIVEN_UP_SHARE, LATELY_HALF_LIFE_DAYS, PERSONAL_HALF_LIFE_DAYS, POPULAR_HALF_LIFE_DAYS,
        TREND_HALF_LIFE_DAYS,
    },
    popularity::Counts,
    proto::{Context, Device, EventType},
    query::Query,
    source::{self, buy_again::due_share},
    visitor::{Visitor, days, seconds},
};
use columns::{At, Row};
use interest::{Interest, Key};
use std::sync::LazyLock;

/// Least base-2 logarithm of a faded count.
const FLOOR_LOG2: f32 = -8.0;
/// Buyers without a repeat that every item is taken to have had.
const REPEAT_PRIOR: f32 = 5.0;
/// Days in which the nearness of a purchase falls to 1 / e.
const RECENCY_DAYS: f32 = 30.0;
/// What the weights of endless baskets with an item add up to: 1 / (1 - `BASKET_DECAY`).
const MOST_BASKETS: u32 = 20;
/// Least mean time between baskets that a rate is told by.
const LEAST_INTERVAL_DAYS: f32 = 0.1;
/// Rows that are computed while the memory fetches what another one needs.
const FETCH_AHEAD: usize = 16;

/// What all rows of one query share, computed once.
pub struct Shared<'a> {
    query: &'a Query<'a>,
    /// Row of a candidate that nothing is known of.
    blank: [f32; WIDTH],
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
            basket_interval_days: basket_interval_days(visitor, now_ms),
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
                self.write(candidate, &mut Row(row));
            }
        }
    }

    /// Writes what a blank row lacks, number by number: what is read again in one piece right after it was written in
    /// many stops the processor.
    fn write(&self, candidate: &Candidate, out: &mut Row) {
        let (state, item) = (self.query.state, candidate.item);
        let (row, counts) = (state.catalog.row(item), state.popularity.counts(item));
        let proposed = (0..source::COUNT).filter(|number| candidate.sources >> number & 1 == 1);
        for (number, score) in proposed.map(|number| (number, candidate.source_scores[number])) {
            *out.score_of(number) = if score > 0.0 { ln(1.0 + score) } else { 0.0 };
        }
        if self.known_mask >> (item % u64::BITS) & 1 == 1 {
            self.write_bought(item, out);
            self.write_seen(item, out);
        }
        self.write_item(row, &counts, out);
        for (kind, key) in [(Key::Category, row.category), (Key::Parent, row.parent), (Key::Brand, row.brand)] {
            if let Some(told) = self.interest.of(kind, key) {
                let columns = kind.columns();
                out[columns.sum_ln] = told.sum_ln;
                out[columns.share_root] = told.share_root;
                out[columns.recency] = told.recency;
            }
        }
        self.write_cross(row, out);
        if let Some(promotions) = state.catalog.promotions(item) {
            let [mailer, display] = promotions.at(seconds(self.query.now_ms));
            out[At::promoted_by_mailer] = mailer;
            out[At::promoted_by_display] = display;
        }
        if self.store != NONE {
            let sales = state.places.sales(self.store, item);
            out[At::store_sales_ln] = sales.lines_ln;
            out[At::store_lift_ln] = sales.lift_ln;
        }
    }

    fn write_bought(&self, item: u32, out: &mut Row) {
        let bought = self.query.visitor.and_then(|visitor| visitor.bought(item).map(|bought| (visitor, bought)));
        let Some((visitor, bought)) = bought else { return };
        let now_ms = self.query.now_ms;
        let baskets = f32::from(bought.baskets);
        let since_days = days(bought.last_s, seconds(now_ms));
        let first_days = days(bought.first_s, seconds(now_ms));
        let interval_days = if bought.baskets > 1 { (first_days - since_days) / (baskets - 1.0) } else { 0.0 };
        let since_baskets = visitor.baskets.saturating_sub(u32::from(bought.last_basket));
        let expected = first_days / self.basket_interval_days.max(LEAST_INTERVAL_DAYS);
        out[At::bought_weight] = (bought.weight - self.personal_age).exp2();
        out[At::bought_lately] = (bought.weight_lately - self.lately_age).exp2();
        out[At::bought_by_basket] = bought.faded(visitor.baskets) / visitor.baskets.clamp(1, MOST_BASKETS) as f32;
        out[At::bought_baskets_ln] = baskets.ln_1p();
        out[At::bought_share] = baskets / visitor.baskets.max(1) as f32;
        out[At::bought_recency] = (-since_days / RECENCY_DAYS).exp();
        out[At::bought_basket_recency] = 1.0 / (1.0 + since_baskets as f32);
        out[At::bought_last_time] = f32::from(since_baskets == 0);
        out[At::bought_interval_days_ln] = interval_days.ln_1p();
        out[At::bought_due] = due_share(bought, now_ms).map_or(0.0, |due| due.min(GIVEN_UP_SHARE));
        out[At::bought_rate] = baskets / (1.0 + expected);
        out[At::bought_first_days_ln] = first_days.ln_1p();
    }

    fn write_seen(&self, item: u32, out: &mut Row) {
        let Some(visitor) = self.query.visitor else { return };
        for (rank, interaction) in visitor.recent().enumerate().filter(|(_, interaction)| interaction.item == item) {
            match EventType::try_from(i32::from(interaction.kind)) {
                Ok(EventType::View | EventType::Click) => out[At::viewed_recency] += 1.0 / (1.0 + rank as f32),
                Ok(EventType::AddToCart | EventType::AddToWishlist) => out[At::carted] = 1.0,
                Ok(EventType::Dislike) => out[At::disliked] = 1.0,
                _ => {}
            }
        }
    }

    fn write_item(&self, row: &catalog::Row, counts: &Counts, out: &mut Row) {
        let popular_log2 = (counts.long as f32 - self.popular_age).max(FLOOR_LOG2);
        let recent_log2 = (counts.short as f32 - self.recent_age).max(FLOOR_LOG2);
        let age_days = (self.query.now_ms - row.release_ms) as f32 / DAY_MS as f32;
        out[At::popular_log2] = popular_log2;
        out[At::recent_log2] = recent_log2;
        out[At::trend_log2] = recent_log2 - popular_log2;
        out[At::purchases_ln] = log_of_count(counts.purchases);
        out[At::repeat_rate] = counts.repeaters as f32 / (REPEAT_PRIOR + counts.buyers as f32);
        out[At::price_ln] = row.price_ln;
        out[At::discount] = discount(row);
        out[At::age_days_ln] = if row.release_ms > 0 { ln(1.0 + age_days.max(0.0)) } else { 0.0 };
        out[At::catalog_price_known] = f32::from(row.is_priced());
    }

    fn write_cross(&self, row: &catalog::Row, out: &mut Row) {
        if let Some(usual_price_ln) = self.usual_price_ln.filter(|_| row.is_priced()) {
            out[At::price_to_usual_ln] = row.price_ln - usual_price_ln;
        }
        let anchors = &self.query.anchors;
        if anchors.is_empty() {
            return;
        }
        let share = |same: &dyn Fn(&catalog::Row) -> bool| {
            let rows = anchors.iter().map(|&anchor| self.query.state.catalog.row(anchor));
            rows.filter(|anchor| same(anchor)).count() as f32 / anchors.len() as f32
        };
        out[At::anchor_same_category] = share(&|anchor| row.category != NONE && anchor.category == row.category);
        out[At::anchor_same_brand] = share(&|anchor| row.brand != NONE && anchor.brand == row.brand);
    }
}

/// Row of a candidate that nothing is known of.
fn blank(query: &Query, visitor: &Visitor) -> [f32; WIDTH] {
    let mut features = [0.0; WIDTH];
    let mut row = Row(&mut features);
    write_visitor(visitor, query.visitor.is_some(), query.now_ms, &mut row);
    write_context(query.context, query.wall_ms, &mut row);
    features
}

/// Items that the visitor bought or met last.
fn known_items(visitor: &Visitor) -> impl Iterator<Item = u32> {
    let bought = visitor.bought.iter().map(|bought| bought.item);
    bought.chain(visitor.recent().map(|seen| seen.item))
}

/// Natural logarithm of a number of 1 or more, by the series of the inverse hyperbolic tangent; a thousand rows
/// ask for two thousand of them.
///
/// Source: `logf` of FreeBSD's msun, after fdlibm (Sun Microsystems 1993), which takes the mantissa from the same span;
/// its polynomial is fitted, this one are the first terms of the series.
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
fn discount(row: &catalog::Row) -> f32 {
    if row.list_price > 0.0 && row.price < row.list_price { 1.0 - row.price / row.list_price } else { 0.0 }
}

/// Days since the first basket of a visitor for each basket; 0 below two.
fn basket_interval_days(visitor: &Visitor, now_ms: i64) -> f32 {
    if visitor.baskets < 2 {
        return 0.0;
    }
    (now_ms - visitor.first_purchase_ms).max(0) as f32 / DAY_MS as f32 / visitor.baskets as f32
}

fn write_visitor(visitor: &Visitor, known: bool, now_ms: i64, out: &mut Row) {
    let (baskets, lines) = (visitor.baskets as f32, visitor.lines as f32);
    let last_s = visitor.bought.iter().map(|bought| bought.last_s).max();
    let since_days = last_s.map_or(0.0, |last_s| days(last_s, seconds(now_ms)));
    out[At::baskets_ln] = baskets.ln_1p();
    out[At::repeat_share] = if lines > 0.0 { 1.0 - visitor.bought.len() as f32 / lines } else { 0.0 };
    out[At::basket_lines_ln] = if baskets > 0.0 { (lines / baskets).ln_1p() } else { 0.0 };
    out[At::days_since_purchase_ln] = since_days.ln_1p();
    out[At::purchase_interval_days_ln] = basket_interval_days(visitor, now_ms).ln_1p();
    out[At::known] = f32::from(known);
}

fn write_context(context: &Context, wall_ms: i64, out: &mut Row) {
    let day = wall_ms.rem_euclid(DAY_MS) as f32 / DAY_MS as f32 * std::f32::consts::TAU;
    let week = wall_ms.div_euclid(DAY_MS).rem_euclid(7) as f32 / 7.0 * std::f32::consts::TAU;
    out[At::hour_sin] = day.sin();
    out[At::hour_cos] = day.cos();
    out[At::weekday_sin] = week.sin();
    out[At::weekday_cos] = week.cos();
    out[At::on_phone] = f32::from(context.device() == Device::Phone);
    out[At::in_email] = f32::from(context.device() == Device::Email);
    out[At::from_campaign] = f32::from(!context.campaign_id.is_empty());
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

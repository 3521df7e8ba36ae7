//! The columns of the feature table: one row a column, with its group, its unit and what it means.
//!
//! A logarithm says so at the end of its name, `_ln` or `_log2`; the unit says of what it is.

use crate::source;
use std::{
    borrow::Cow,
    ops::{Index, IndexMut},
};

/// Number of what the columns hold: raise it where the value of a column changes and its name does not.
const COMPUTATION: u32 = 4;

/// What a column tells of; an ablation takes a group away as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Score of a source that proposed the item.
    Source,
    /// What the visitor did with the item, however long ago.
    History,
    /// What all visitors did with the item.
    Item,
    /// What the visitor did, whatever the item.
    Visitor,
    /// What the visitor did with items of the same category or brand.
    Interest,
    /// What the item has in common with the items that the slate belongs to.
    Anchor,
    /// What the item costs.
    Price,
    /// How long ago, how often, how new.
    Time,
    /// Where the item is advertised.
    Promotion,
    /// The store of the visit.
    Place,
    /// Hour and weekday of the shop.
    Clock,
    /// The device of the visit.
    Device,
    /// The campaign of the visit.
    Campaign,
}

impl Group {
    /// Name of the group.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::History => "history",
            Self::Item => "item",
            Self::Visitor => "visitor",
            Self::Interest => "interest",
            Self::Anchor => "anchor",
            Self::Price => "price",
            Self::Time => "time",
            Self::Promotion => "promotion",
            Self::Place => "place",
            Self::Clock => "clock",
            Self::Device => "device",
            Self::Campaign => "campaign",
        }
    }
}

/// One column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Name, unique in the table.
    pub name: Cow<'static, str>,
    /// What it tells of.
    pub group: Group,
    /// Unit of its values.
    pub unit: &'static str,
    /// What it means, in one line.
    pub meaning: Cow<'static, str>,
}

macro_rules! columns {
    ($($name:ident: $group:ident, $unit:literal, $meaning:literal;)*) => {
        /// Columns behind those of the sources, in order.
        #[derive(Clone, Copy, Debug)]
        #[expect(non_camel_case_types, reason = "a column has one name, here and in Python")]
        pub enum At {
            $(#[doc = $meaning] $name,)*
        }

        static BEHIND_SOURCES: [Column; [$(At::$name),*].len()] = [$(Column {
            name: Cow::Borrowed(stringify!($name)),
            group: Group::$group,
            unit: $unit,
            meaning: Cow::Borrowed($meaning),
        }),*];
    };
}

columns! {
    bought_weight: History, "baskets", "Baskets with the item, halved every `PERSONAL_HALF_LIFE_DAYS`";
    bought_lately: Time, "baskets", "Baskets with the item, halved every `LATELY_HALF_LIFE_DAYS`";
    bought_by_basket: History, "share", "Share of baskets with the item, older ones faded by `BASKET_DECAY`";
    bought_baskets_ln: History, "ln(1 + baskets)", "Baskets with the item";
    bought_share: History, "share", "Share of the visitor's baskets with the item";
    bought_recency: Time, "exp(-days / RECENCY_DAYS)", "Nearness of the last purchase of the item, by time";
    bought_basket_recency: History, "1 / (1 + baskets)", "Nearness of the last basket with the item, by those since";
    bought_last_time: History, "0 or 1", "Whether the last basket held the item";
    bought_interval_days_ln: Time, "ln(1 + days)", "Mean time between baskets with the item; 0 below two";
    bought_due: Time, "intervals", "Mean intervals since the last basket with the item, at most `GIVEN_UP_SHARE`";
    bought_rate: Time, "ratio", "Baskets with the item over 1 + what the visitor usually has since the first";
    bought_first_days_ln: Time, "ln(1 + days)", "Time since the first basket with the item";
    viewed_recency: History, "sum of 1 / (1 + rank)", "Views and clicks of the item in the last `RING` interactions";
    carted: History, "0 or 1", "Whether the last `RING` interactions put the item into a cart or wish list";
    disliked: History, "0 or 1", "Whether a dislike of the item is in the last `RING` interactions";
    popular_log2: Item, "log2(purchases)", "Purchases, less for views and carts, halved every `POPULAR_HALF_LIFE_DAYS`";
    recent_log2: Time, "log2(purchases)", "The same, halved every `TREND_HALF_LIFE_DAYS`";
    trend_log2: Time, "log2(ratio)", "`recent_log2` less `popular_log2`";
    purchases_ln: Item, "ln(1 + lines)", "Lines bought of the item ever";
    repeat_rate: Item, "share", "Share of the item's buyers, and `REPEAT_PRIOR` more, who bought it again";
    price_ln: Price, "ln(currency units)", "Price now; 0 where it is not known";
    discount: Price, "share", "Share of the regular price that is taken off now";
    age_days_ln: Time, "ln(1 + days)", "Time since the item was first offered; 0 where that is not known";
    catalog_price_known: Price, "0 or 1", "Whether the catalogue has a price above 0";
    baskets_ln: Visitor, "ln(1 + baskets)", "Baskets of the visitor";
    repeat_share: Visitor, "share", "Share of the visitor's lines that are of items bought before";
    basket_lines_ln: Visitor, "ln(1 + lines)", "Mean lines of a basket of the visitor";
    days_since_purchase_ln: Time, "ln(1 + days)", "Time since the visitor's last basket";
    purchase_interval_days_ln: Time, "ln(1 + days)", "Time since the visitor's first basket for each basket; 0 below two";
    known: Visitor, "0 or 1", "Whether the engine knows the visitor";
    category_interest_ln: Interest, "ln(1 + purchases)", "The visitor's faded purchases and views in the category";
    category_share_root: Interest, "√share", "Share of the category in that sum over all categories";
    category_recency: Time, "1 / (1 + weeks)", "Nearness of the visitor's last interaction with the category";
    parent_interest_ln: Interest, "ln(1 + purchases)", "As `category_interest_ln`, of the category above";
    parent_share_root: Interest, "√share", "As `category_share_root`, of the category above";
    parent_recency: Time, "1 / (1 + weeks)", "As `category_recency`, of the category above";
    brand_interest_ln: Interest, "ln(1 + purchases)", "As `category_interest_ln`, of the brand";
    brand_share_root: Interest, "√share", "As `category_share_root`, of the brand";
    brand_recency: Time, "1 / (1 + weeks)", "As `category_recency`, of the brand";
    price_to_usual_ln: Price, "ln(ratio)", "Price over the mean price of the visitor's lines; 0 where one is not known";
    anchor_same_category: Anchor, "share", "Share of the anchors in the item's category";
    anchor_same_brand: Anchor, "share", "Share of the anchors of the item's brand";
    promoted_by_mailer: Promotion, "share", "Share of the shop whose mailer shows the item now";
    promoted_by_display: Promotion, "share", "Share of the shop that displays the item now";
    store_sales_ln: Place, "ln(1 + lines)", "Lines bought of the item in the store";
    store_lift_ln: Place, "ln(ratio)", "Those over the lines that the whole shop lets expect, `PRIOR` added to both";
    hour_sin: Clock, "-1 to 1", "Sine of the time of day, of the shop's time zone";
    hour_cos: Clock, "-1 to 1", "Cosine of the time of day";
    weekday_sin: Clock, "-1 to 1", "Sine of the weekday";
    weekday_cos: Clock, "-1 to 1", "Cosine of the weekday";
    on_phone: Device, "0 or 1", "Whether the visitor asks from a phone";
    in_email: Device, "0 or 1", "Whether the slate is for a mail";
    from_campaign: Campaign, "0 or 1", "Whether a campaign brought the visitor";
}

/// Number of columns.
pub const WIDTH: usize = source::COUNT + BEHIND_SOURCES.len();

/// The columns, in order.
pub fn table() -> Vec<Column> {
    let scores = source::names().into_iter().map(|source| Column {
        name: format!("source_{source}_ln").into(),
        group: Group::Source,
        unit: "ln(1 + score)",
        meaning: format!("Score by which `{source}` proposed the item; 0 where it did not").into(),
    });
    scores.chain(BEHIND_SOURCES.iter().cloned()).collect()
}

/// Names of the columns, in order.
pub fn names() -> Vec<String> {
    table().into_iter().map(|column| column.name.into_owned()).collect()
}

/// Hash of the table: the names in order and [`COMPUTATION`].
pub fn schema_hash() -> String {
    blake3::hash(format!("{COMPUTATION}:{}", names().join(",")).as_bytes()).to_hex()[..16].to_owned()
}

/// A row while it is written.
pub struct Row<'a>(pub &'a mut [f32; WIDTH]);

impl Row<'_> {
    /// Column of the score of a source.
    pub fn score_of(&mut self, source: usize) -> &mut f32 {
        &mut self.0[..source::COUNT][source]
    }
}

impl Index<At> for Row<'_> {
    type Output = f32;

    fn index(&self, column: At) -> &f32 {
        &self.0[source::COUNT + column as usize]
    }
}

impl IndexMut<At> for Row<'_> {
    fn index_mut(&mut self, column: At) -> &mut f32 {
        &mut self.0[source::COUNT + column as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashbrown::HashSet;

    #[test]
    fn names_are_unique_and_say_which_are_logarithms() {
        let table = table();
        assert_eq!((table.len(), names().iter().collect::<HashSet<_>>().len()), (WIDTH, WIDTH));
        for Column { name, unit, meaning, .. } in &table {
            for (ending, function) in [("_ln", "ln("), ("_log2", "log2(")] {
                assert_eq!(name.ends_with(ending), unit.starts_with(function), "{name} in {unit}");
            }
            assert!(!meaning.is_empty() && !unit.contains('|') && !meaning.contains(['|', '\n']), "{name}");
        }
    }
}

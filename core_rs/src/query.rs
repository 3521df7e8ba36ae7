//! One placement of one request, joined to the state: what sources, filters and features read.

use crate::{
    bundle::ActiveBundle,
    catalog::Catalog,
    decay,
    ids::Interner,
    params::{PERSONAL_HALF_LIFE_DAYS, RING},
    popularity::event_weight,
    proto::{Context, Control, EventType, ItemFilter, Placement},
    state::State,
    time::millis,
    visitor::Visitor,
};
use hashbrown::HashSet;

/// Most items that item-to-item sources start from.
const MAX_SEEDS: usize = 250;
/// Factor from one recent interaction to the one before it.
const RECENT_STEP: f32 = 0.85;

/// Item that item-to-item sources start from.
#[derive(Clone, Copy)]
pub struct Seed {
    /// Item.
    pub item: u32,
    /// Strength, positive.
    pub weight: f32,
}

/// One placement of one request with everything it reads.
pub struct Query<'a> {
    /// State of the replica.
    pub state: &'a State,
    /// Time the decision is for, Unix milliseconds.
    pub now_ms: i64,
    /// The same moment on the wall of the shop, as by [`wall_millis`](crate::time::wall_millis).
    pub wall_ms: i64,
    /// Who asks.
    pub context: &'a Context,
    /// Key of the visitor; empty where personal data must not be read.
    pub key: &'a str,
    /// State of the visitor; `None` if unknown or not allowed.
    pub visitor: Option<&'a Visitor>,
    /// Placement to fill.
    pub placement: &'a Placement,
    /// Items the slate belongs to.
    pub anchors: Vec<u32>,
    /// Items in the cart.
    pub cart: Vec<u32>,
    /// Items that item-to-item sources start from.
    pub seeds: Vec<Seed>,
    /// Bundle that serves.
    pub bundle: Option<&'a ActiveBundle>,
}

impl Query<'_> {
    /// Derives the seeds: anchors, else the cart, else what the visitor did.
    pub fn seed(&mut self) {
        let given = if self.anchors.is_empty() { &self.cart } else { &self.anchors };
        self.seeds = if given.is_empty() {
            self.visitor.map_or_else(Vec::new, |visitor| history_seeds(visitor, self.now_ms))
        } else {
            given.iter().map(|&item| Seed { item, weight: 1.0 }).collect()
        };
    }
}

/// Recent interactions that tell of interest by position, and bought items by decayed weight; strongest first, ties by
/// item. The last word on an item counts: what was viewed and then disliked is no seed.
fn history_seeds(visitor: &Visitor, now_ms: i64) -> Vec<Seed> {
    let mut seeds: Vec<Seed> = Vec::with_capacity(visitor.bought.len() + RING);
    let mut weight = 1.0;
    for (rank, interaction) in visitor.recent().enumerate() {
        let kind = EventType::try_from(i32::from(interaction.kind)).unwrap_or_default();
        let is_last_word = visitor.recent().take(rank).all(|later| later.item != interaction.item);
        if event_weight(kind) > 0.0 && is_last_word && visitor.bought(interaction.item).is_none() {
            seeds.push(Seed { item: interaction.item, weight });
            weight *= RECENT_STEP;
        }
    }
    seeds.extend(visitor.bought.iter().map(|bought| {
        let weight = decay::at(f64::from(bought.weight), now_ms, PERSONAL_HALF_LIFE_DAYS) as f32;
        Seed { item: bought.item, weight }
    }));
    let order = |a: &Seed, b: &Seed| b.weight.total_cmp(&a.weight).then(a.item.cmp(&b.item));
    if seeds.len() > MAX_SEEDS {
        seeds.select_nth_unstable_by(MAX_SEEDS, order);
        seeds.truncate(MAX_SEEDS);
    }
    seeds.sort_unstable_by(order);
    seeds
}

/// Item ids of texts that the engine knows; the others are added to `missing`.
pub fn known(items: &Interner, texts: &[String], missing: &mut Vec<String>) -> Vec<u32> {
    let mut ids = Vec::with_capacity(texts.len());
    for text in texts {
        match items.get(text) {
            Some(id) => ids.push(id),
            None => missing.push(text.clone()),
        }
    }
    ids
}

/// An [`ItemFilter`] in the engine's ids.
pub struct Condition {
    categories: Option<Vec<u32>>,
    brands: Option<Vec<u32>>,
    items: Option<HashSet<u32>>,
    min_price: f32,
    max_price: f32,
}

impl Condition {
    /// Compiles a filter; names that the catalogue does not know match nothing.
    pub fn new(filter: &ItemFilter, state: &State) -> Self {
        let lookup = |names: &[String], table: &Interner| {
            (!names.is_empty()).then(|| names.iter().filter_map(|name| table.get(name)).collect::<Vec<u32>>())
        };
        let items = lookup(&filter.item_ids, &state.items).map(|ids| ids.into_iter().collect());
        Self {
            categories: lookup(&filter.categories, &state.catalog.categories),
            brands: lookup(&filter.brands, &state.catalog.brands),
            items,
            min_price: filter.min_price.map_or(f32::NEG_INFINITY, |price| price as f32),
            max_price: filter.max_price.map_or(f32::INFINITY, |price| price as f32),
        }
    }

    /// Whether an item passes every part that is set; an item without a price fails a bound on price.
    pub fn passes(&self, catalog: &Catalog, item: u32) -> bool {
        let row = catalog.row(item);
        let bounded = self.min_price > f32::NEG_INFINITY || self.max_price < f32::INFINITY;
        (!bounded || (row.price >= self.min_price && row.price <= self.max_price))
            && self.items.as_ref().is_none_or(|items| items.contains(&item))
            && self.brands.as_ref().is_none_or(|brands| brands.contains(&row.brand))
            && self
                .categories
                .as_ref()
                .is_none_or(|categories| catalog.path(item).iter().any(|category| categories.contains(category)))
    }

    /// Shortest list of items that can pass; `None` if the filter names neither items, categories nor brands.
    pub fn narrow(&self, catalog: &Catalog) -> Option<Vec<u32>> {
        let mut lists: Vec<Vec<u32>> = Vec::new();
        lists.extend(self.items.as_ref().map(|items| items.iter().copied().collect()));
        lists.extend(self.categories.as_ref().map(|keys| joined(keys, |key| catalog.in_category(key))));
        lists.extend(self.brands.as_ref().map(|keys| joined(keys, |key| catalog.of_brand(key))));
        let mut list = lists.into_iter().min_by_key(Vec::len)?;
        list.sort_unstable();
        list.dedup();
        Some(list)
    }
}

fn joined<'a>(keys: &[u32], list: impl Fn(u32) -> &'a [u32]) -> Vec<u32> {
    keys.iter().flat_map(|&key| list(key)).copied().collect()
}

/// Whether a control applies to this placement, moment and context.
pub fn applies(control: &Control, placement_id: &str, context: &Context, now_ms: i64) -> bool {
    let placed = control.placement_ids.is_empty() || control.placement_ids.iter().any(|id| id == placement_id);
    let on_device = control.devices.is_empty() || control.devices.contains(&context.device);
    let in_country = control.country_codes.is_empty() || control.country_codes.contains(&context.country_code);
    let active = control.active.as_ref().is_none_or(|active| {
        active.start_time.as_ref().is_none_or(|start| millis(start) <= now_ms)
            && active.end_time.as_ref().is_none_or(|end| now_ms < millis(end))
    });
    placed && on_device && in_country && active && !control.paused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NONE;

    const NOW: i64 = 1_700_000_000_000;

    /// Seeds of a visitor who did `done` a second apart.
    fn seeds(done: &[(u32, EventType)]) -> Vec<u32> {
        let mut visitor = Visitor::default();
        for (&(item, kind), time_ms) in done.iter().zip((NOW..).step_by(1000)) {
            visitor.begin_event(kind, time_ms);
            visitor.record(item, kind, time_ms, NONE, NONE);
        }
        history_seeds(&visitor, NOW + 100_000).iter().map(|seed| seed.item).collect()
    }

    #[test]
    fn seeds_are_what_the_visitor_wants_and_not_what_was_shown_or_refused() {
        use EventType::{AddToCart, Dislike, Impression, RemoveFromCart, Return, View};
        let viewed = [(1, View), (2, View), (3, AddToCart)];
        let shown: Vec<_> = viewed.into_iter().chain((10..30).map(|item| (item, Impression))).collect();
        assert_eq!(seeds(&shown), [3, 2, 1]);
        let refused = [(4, Dislike), (5, Return), (2, Dislike), (3, RemoveFromCart)];
        assert_eq!(seeds(&[&viewed[..], &refused].concat()), [1]);
        assert_eq!(seeds(&[(1, Dislike), (1, View)]), [1]);
    }
}

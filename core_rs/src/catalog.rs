//! What the shop offers, as a structure of arrays with inverted lists.

use crate::{
    ids::{Interner, NONE},
    prefetch::prefetch,
    promotion::Promotions,
    proto::{Item, ItemChange, Money, PromotionInterval, item::Availability},
};
use prost::Message;
use std::collections::BTreeSet;

/// Catalogue of the shop. Rows are item ids of the engine; an id without a row in the catalogue is not `present`.
#[derive(Default)]
pub struct Catalog {
    /// Category names of all levels.
    pub categories: Interner,
    /// Brand names.
    pub brands: Interner,
    rows: Vec<Row>,
    /// [`SHOWN`] and [`STOCKED`] of each row, apart from it: filters ask for many items, and these stay in the cache.
    flags: Vec<u8>,
    raw: Vec<Box<[u8]>>,
    paths: Vec<Box<[u32]>>,
    /// Advertising of items that have any; no longer than the greatest of their ids needs.
    promotions: Vec<Option<Box<Promotions>>>,
    by_category: Vec<Vec<u32>>,
    by_brand: Vec<Vec<u32>>,
    by_release: BTreeSet<(i64, u32)>,
    present_count: usize,
}

/// Numbers of one item that filters and features read.
#[derive(Clone, Copy)]
pub struct Row {
    /// Price now, in currency units; NaN if not known.
    pub price: f32,
    /// Regular price, in currency units; NaN if not known.
    pub list_price: f32,
    /// Natural logarithm of the price; 0 if it is not known.
    pub price_ln: f32,
    /// Last level of the category path; [`NONE`] if there is none.
    pub category: u32,
    /// Level of the category path above the last; [`NONE`] if there is none.
    pub parent: u32,
    /// First level of the category path; [`NONE`] if there is none.
    pub department: u32,
    /// Brand; [`NONE`] if there is none.
    pub brand: u32,
    /// First offered, Unix milliseconds; 0 if not known.
    pub release_ms: i64,
    /// Latest time of the changes that won, Unix milliseconds.
    pub set_ms: i64,
    /// Whether the catalogue holds the item.
    pub present: bool,
}

impl Row {
    /// Whether the item has a price above zero.
    pub fn is_priced(&self) -> bool {
        is_price(self.price)
    }
}

const SHOWN: u8 = 1;
const STOCKED: u8 = 2;

const ABSENT: Row = Row {
    price: f32::NAN,
    list_price: f32::NAN,
    price_ln: 0.0,
    category: NONE,
    parent: NONE,
    department: NONE,
    brand: NONE,
    release_ms: 0,
    set_ms: i64::MIN,
    present: false,
};

impl Catalog {
    /// Applies a change to item `id`; one with a time older than the last one loses. Returns whether it won.
    pub fn apply(&mut self, id: u32, change: &ItemChange, time_ms: i64) -> bool {
        self.grow(id);
        let last_ms = self.rows[id as usize].set_ms;
        let set_ms = change.set_time.as_ref().map_or(time_ms.max(last_ms), crate::time::millis);
        if set_ms < last_ms {
            return false;
        }
        let Some(new) = &change.item else { return false };
        let old = self.item(id).unwrap_or_else(|| Item { item_id: new.item_id.clone(), ..Item::default() });
        self.unlist(id);
        if change.deleted {
            self.rows[id as usize] = Row { set_ms, ..ABSENT };
            self.raw[id as usize] = Box::default();
            return true;
        }
        let item = if change.update_paths.is_empty() { new.clone() } else { merged(old, new, &change.update_paths) };
        self.list(id, &item, set_ms);
        true
    }

    /// Numbers of an item; those of an absent one if the catalogue does not hold it.
    pub fn row(&self, id: u32) -> &Row {
        self.rows.get(id as usize).unwrap_or(&ABSENT)
    }

    /// Fetches what [`Self::is_shown`] and [`Self::is_stocked`] will read.
    pub fn prefetch_flags(&self, id: u32) {
        prefetch(self.flags.get(id as usize));
    }

    /// Fetches what [`Self::row`] will return.
    pub fn prefetch_row(&self, id: u32) {
        let row = self.rows.get(id as usize);
        prefetch(row.map(|row| &row.release_ms));
        prefetch(row.map(|row| &row.present)); // a row may lie on two lines
    }

    /// Whether the catalogue holds an item and the shop offers it.
    pub fn is_shown(&self, id: u32) -> bool {
        self.flags.get(id as usize).is_some_and(|flags| flags & SHOWN != 0)
    }

    /// Whether there is stock of an item, or its stock is not counted.
    pub fn is_stocked(&self, id: u32) -> bool {
        self.flags.get(id as usize).is_some_and(|flags| flags & STOCKED != 0)
    }

    /// Category ids of an item, widest first.
    pub fn path(&self, id: u32) -> &[u32] {
        self.paths.get(id as usize).map_or(&[], |path| path)
    }

    /// Advertising of an item; `None` if there never is any.
    pub fn promotions(&self, id: u32) -> Option<&Promotions> {
        self.promotions.get(id as usize)?.as_deref()
    }

    /// The item as the shop sent it.
    pub fn item(&self, id: u32) -> Option<Item> {
        self.raw(id).and_then(|bytes| Item::decode(bytes).ok())
    }

    /// Bytes of the item as the shop sent it.
    pub fn raw(&self, id: u32) -> Option<&[u8]> {
        self.raw.get(id as usize).filter(|_| self.row(id).present).map(|bytes| &**bytes)
    }

    /// Items that carry a category at any level, in order of id.
    pub fn in_category(&self, category: u32) -> &[u32] {
        self.by_category.get(category as usize).map_or(&[], |items| items)
    }

    /// Items of a brand, in order of id.
    pub fn of_brand(&self, brand: u32) -> &[u32] {
        self.by_brand.get(brand as usize).map_or(&[], |items| items)
    }

    /// Items released after `since_ms`, newest first.
    pub fn released_since(&self, since_ms: i64) -> impl Iterator<Item = u32> {
        self.by_release.range((since_ms, 0)..).rev().map(|&(_, item)| item)
    }

    /// Number of items held.
    pub fn len(&self) -> usize {
        self.present_count
    }

    /// Whether the catalogue holds no item.
    pub fn is_empty(&self) -> bool {
        self.present_count == 0
    }

    /// One past the greatest id with a row.
    pub fn end(&self) -> u32 {
        self.rows.len() as u32
    }

    /// Bytes held, without the allocator's overhead.
    pub fn bytes(&self) -> usize {
        let raw: usize = self.raw.iter().map(|bytes| bytes.len() + size_of::<Box<[u8]>>()).sum();
        let paths: usize = self.paths.iter().map(|path| path.len() * 4 + size_of::<Box<[u32]>>()).sum();
        let lists: usize = self.by_category.iter().chain(&self.by_brand).map(|list| list.capacity() * 4 + 24).sum();
        let released = self.by_release.len() * size_of::<(i64, u32)>();
        let promoted: usize = self.promotions.iter().flatten().map(|promotions| promotions.bytes()).sum();
        let promotions = self.promotions.len() * size_of::<Option<Box<Promotions>>>() + promoted;
        self.rows.len() * (size_of::<Row>() + 1) + raw + paths + lists + released + promotions
    }

    fn grow(&mut self, id: u32) {
        let len = id as usize + 1;
        if self.rows.len() < len {
            self.rows.resize(len, ABSENT);
            self.flags.resize(len, 0);
            self.raw.resize_with(len, Box::default);
            self.paths.resize_with(len, Box::default);
        }
    }

    fn list(&mut self, id: u32, item: &Item, set_ms: i64) {
        let path: Box<[u32]> = item.category_path.iter().map(|name| self.categories.intern(name)).collect();
        let brand = if item.brand.is_empty() { NONE } else { self.brands.intern(&item.brand) };
        let list_price = item.price.as_ref().map_or(f32::NAN, money);
        let release_ms = item.release_time.as_ref().map_or(0, crate::time::millis);
        let price = item.sale_price.as_ref().map_or(list_price, money);
        let row = Row {
            price,
            list_price,
            price_ln: if is_price(price) { price.ln() } else { 0.0 },
            category: path.last().copied().unwrap_or(NONE),
            parent: path.len().checked_sub(2).map_or(NONE, |level| path[level]),
            department: path.first().copied().unwrap_or(NONE),
            brand,
            release_ms,
            set_ms,
            present: true,
        };
        let shown = item.availability() != Availability::Unavailable;
        let stocked = item.stock_quantity != Some(0);
        self.flags[id as usize] = (u8::from(shown) * SHOWN) | (u8::from(stocked) * STOCKED);
        for &category in &path {
            insert(&mut self.by_category, category, id);
        }
        if brand != NONE {
            insert(&mut self.by_brand, brand, id);
        }
        if release_ms > 0 {
            self.by_release.insert((release_ms, id));
        }
        self.promote(id, &item.promotion_intervals);
        self.rows[id as usize] = row;
        self.raw[id as usize] = item.encode_to_vec().into();
        self.paths[id as usize] = path;
        self.present_count += 1;
    }

    fn promote(&mut self, id: u32, intervals: &[PromotionInterval]) {
        let id = id as usize;
        if !intervals.is_empty() {
            self.promotions.resize_with(self.promotions.len().max(id + 1), || None);
            self.promotions[id] = Some(Box::new(Promotions::new(intervals)));
        }
    }

    fn unlist(&mut self, id: u32) {
        let row = self.rows[id as usize];
        if !row.present {
            return;
        }
        for category in std::mem::take(&mut self.paths[id as usize]) {
            remove(&mut self.by_category, category, id);
        }
        if row.brand != NONE {
            remove(&mut self.by_brand, row.brand, id);
        }
        self.by_release.remove(&(row.release_ms, id));
        if let Some(promotions) = self.promotions.get_mut(id as usize) {
            *promotions = None;
        }
        self.rows[id as usize].present = false;
        self.flags[id as usize] = 0;
        self.present_count -= 1;
    }
}

fn is_price(price: f32) -> bool {
    price.is_finite() && price > 0.0
}

/// Amount in currency units, as precise as `f32` is.
pub fn money(amount: &Money) -> f32 {
    (amount.units as f64 + f64::from(amount.nanos) / 1e9) as f32
}

fn insert(lists: &mut Vec<Vec<u32>>, key: u32, id: u32) {
    if lists.len() <= key as usize {
        lists.resize_with(key as usize + 1, Vec::new);
    }
    let list = &mut lists[key as usize];
    if let Err(position) = list.binary_search(&id) {
        list.insert(position, id);
    }
}

fn remove(lists: &mut [Vec<u32>], key: u32, id: u32) {
    let list = &mut lists[key as usize];
    if let Ok(position) = list.binary_search(&id) {
        list.remove(position);
    }
}

/// The old item with the fields named by `paths` of the new one.
fn merged(mut item: Item, new: &Item, paths: &[String]) -> Item {
    for path in paths {
        match path.as_str() {
            "title" => item.title.clone_from(&new.title),
            "category_path" => item.category_path.clone_from(&new.category_path),
            "brand" => item.brand.clone_from(&new.brand),
            "price" => item.price.clone_from(&new.price),
            "sale_price" => item.sale_price.clone_from(&new.sale_price),
            "availability" => item.availability = new.availability,
            "stock_quantity" => item.stock_quantity = new.stock_quantity,
            "release_time" => item.release_time = new.release_time,
            "attributes" => item.attributes.clone_from(&new.attributes),
            "image_uri" => item.image_uri.clone_from(&new.image_uri),
            "uri" => item.uri.clone_from(&new.uri),
            "promotion_intervals" => item.promotion_intervals.clone_from(&new.promotion_intervals),
            _ => {}
        }
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &[&str], brand: &str) -> ItemChange {
        let item = Item {
            item_id: "a".into(),
            category_path: path.iter().map(ToString::to_string).collect(),
            brand: brand.into(),
            ..Item::default()
        };
        ItemChange { item: Some(item), ..ItemChange::default() }
    }

    #[test]
    fn inverted_lists_follow_changes_and_deletes() {
        let mut catalog = Catalog::default();
        assert!(catalog.apply(0, &item(&["food", "cheese"], "acme"), 1));
        assert!(catalog.apply(0, &item(&["food", "milk"], ""), 2));
        let cheese = catalog.categories.get("cheese").expect("interned");
        let food = catalog.categories.get("food").expect("interned");
        assert!(catalog.in_category(cheese).is_empty());
        assert_eq!(catalog.in_category(food), [0]);
        assert!(catalog.of_brand(0).is_empty());
        assert!(catalog.apply(0, &ItemChange { deleted: true, ..item(&[], "") }, 3));
        assert!(catalog.in_category(food).is_empty() && catalog.is_empty() && catalog.raw(0).is_none());
    }

    #[test]
    fn a_late_message_loses_and_a_mask_changes_only_its_fields() {
        let mut catalog = Catalog::default();
        catalog.apply(0, &item(&["food"], "acme"), 10);
        let late = ItemChange { set_time: Some(crate::time::timestamp(9)), ..item(&["toys"], "late") };
        assert!(!catalog.apply(0, &late, 12));
        let stock = Item { stock_quantity: Some(0), ..Item::default() };
        let change =
            ItemChange { item: Some(stock), update_paths: vec!["stock_quantity".into()], ..Default::default() };
        assert!(catalog.apply(0, &change, 11));
        assert!(catalog.is_shown(0) && !catalog.is_stocked(0));
        assert_eq!(catalog.item(0).expect("present").brand, "acme");
    }

    #[test]
    fn a_change_that_gives_no_time_never_loses_nor_makes_a_later_one_forgotten() {
        let mut catalog = Catalog::default();
        let timed = |ms| ItemChange { set_time: Some(crate::time::timestamp(ms)), ..item(&[], "timed") };
        assert!(catalog.apply(0, &timed(10), 1));
        assert!(catalog.apply(0, &item(&[], "lagged behind"), 5));
        assert_eq!((catalog.item(0).expect("present").brand.as_str(), catalog.row(0).set_ms), ("lagged behind", 10));
        assert!(!catalog.apply(0, &timed(9), 11));
    }
}

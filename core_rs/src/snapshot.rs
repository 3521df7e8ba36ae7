//! The whole state in one file, so that a replica starts from it and not from the first record of the log.
//!
//! The file is a head and frames: length, checksum over length and content, content. Contents are [`Part`]s, applied in
//! order; the last one says that it is the last, so that a file cut between frames is found out too. Equal states give
//! equal bytes. Bundles are not in it.

use crate::{
    error::{Error, Result},
    ids::Interner,
    params::{AFFINITIES, RING},
    proto::{Control, Item, ItemChange, Placement, Profile},
    state::State,
    visitor::{Affinity, Bought, Interaction, Visitor},
};
use prost::Message;
use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// First bytes of every snapshot.
const MAGIC: [u8; 8] = *b"shopkeep";
/// Number of the format; another one is refused.
const FORMAT: u32 = 1;
/// Most rows of one part.
const PART_ROWS: usize = 8_192;

/// Snapshot beside its place, not yet published.
pub struct Draft {
    file: File,
    beside: PathBuf,
    path: PathBuf,
}

impl Draft {
    /// Opens a file beside `path`.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut beside = path.to_path_buf().into_os_string();
        beside.push(".partial");
        let beside = PathBuf::from(beside);
        Ok(Self { file: File::create(&beside)?, beside, path: path.to_path_buf() })
    }

    /// Writes the state.
    ///
    /// # Errors
    /// Where the file system refuses, e.g. because the disk is full.
    pub fn write(mut self, state: &State) -> io::Result<Self> {
        write(state, &mut BufWriter::new(&mut self.file))?;
        Ok(self)
    }

    /// Puts the file into its place; after this it outlives a loss of power.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn publish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.beside, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// State of a snapshot, without bundles.
///
/// # Errors
/// Corrupt where the file cannot be read or is damaged at any byte.
pub fn load(path: &Path) -> Result<State> {
    let fault = |what: String| Error::corrupt(format!("snapshot {}: {what}; use an older one or the log", path.display()));
    let file = File::open(path).map_err(|cause| fault(cause.to_string()))?;
    read(BufReader::new(file)).map_err(fault)
}

/// Some of a state; what comes first is needed by what comes after.
#[derive(Clone, PartialEq, Message)]
struct Part {
    #[prost(message, optional, tag = "1")]
    head: Option<Head>,
    #[prost(string, repeated, tag = "2")]
    items: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    categories: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    brands: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    catalog: Vec<CatalogRow>,
    #[prost(message, repeated, tag = "6")]
    popularity: Vec<PopularityRow>,
    #[prost(message, repeated, tag = "7")]
    visitors: Vec<VisitorRow>,
    #[prost(message, repeated, tag = "8")]
    erased: Vec<ErasedRow>,
    #[prost(message, repeated, tag = "9")]
    placements: Vec<Placement>,
    #[prost(message, repeated, tag = "10")]
    controls: Vec<Control>,
    #[prost(bool, tag = "11")]
    is_last: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Head {
    #[prost(int64, tag = "1")]
    offset: i64,
    #[prost(uint64, tag = "2")]
    events: u64,
    #[prost(string, tag = "3")]
    active_version: String,
    #[prost(string, tag = "4")]
    previous_version: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct CatalogRow {
    #[prost(uint32, tag = "1")]
    item: u32,
    #[prost(sint64, tag = "2")]
    set_ms: i64,
    /// Unset for an item that was removed.
    #[prost(bytes = "vec", optional, tag = "3")]
    raw: Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct PopularityRow {
    #[prost(uint32, tag = "1")]
    item: u32,
    #[prost(double, tag = "2")]
    long: f64,
    #[prost(double, tag = "3")]
    short: f64,
    #[prost(uint32, tag = "4")]
    purchases: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct ErasedRow {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(sint64, tag = "2")]
    time_ms: i64,
}

/// A visitor with lists as columns, which is smaller and faster than messages in messages.
#[derive(Clone, PartialEq, Message)]
struct VisitorRow {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(uint32, repeated, tag = "2")]
    recent_items: Vec<u32>,
    #[prost(fixed32, repeated, tag = "3")]
    recent_times: Vec<u32>,
    #[prost(bytes = "vec", tag = "4")]
    recent_kinds: Vec<u8>,
    #[prost(uint32, repeated, tag = "5")]
    category_keys: Vec<u32>,
    #[prost(float, repeated, tag = "6")]
    category_weights: Vec<f32>,
    #[prost(uint32, repeated, tag = "7")]
    brand_keys: Vec<u32>,
    #[prost(float, repeated, tag = "8")]
    brand_weights: Vec<f32>,
    #[prost(uint32, repeated, tag = "9")]
    bought_items: Vec<u32>,
    #[prost(float, repeated, tag = "10")]
    bought_weights: Vec<f32>,
    #[prost(fixed32, repeated, tag = "11")]
    bought_firsts: Vec<u32>,
    #[prost(fixed32, repeated, tag = "12")]
    bought_lasts: Vec<u32>,
    #[prost(uint32, repeated, tag = "13")]
    bought_baskets: Vec<u32>,
    #[prost(uint32, repeated, tag = "14")]
    bought_last_baskets: Vec<u32>,
    #[prost(message, optional, tag = "15")]
    profile: Option<Profile>,
    #[prost(uint32, tag = "16")]
    events: u32,
    #[prost(uint32, tag = "17")]
    baskets: u32,
    #[prost(uint32, tag = "18")]
    lines: u32,
    #[prost(float, tag = "19")]
    spent: f32,
    #[prost(sint64, tag = "20")]
    first_purchase_ms: i64,
    #[prost(sint64, tag = "21")]
    last_ms: i64,
}

fn write(state: &State, out: &mut impl Write) -> io::Result<()> {
    out.write_all(&MAGIC)?;
    out.write_all(&FORMAT.to_le_bytes())?;
    write_part(out, &first_part(state))?;
    let catalog: Vec<u32> = (0..state.catalog.end()).filter(|&item| state.catalog.row(item).set_ms > i64::MIN).collect();
    for items in catalog.chunks(PART_ROWS) {
        let catalog = items.iter().map(|&item| catalog_row(state, item)).collect();
        write_part(out, &Part { catalog, ..Part::default() })?;
    }
    let items: Vec<u32> = (0..state.popularity.len() as u32).collect();
    for items in items.chunks(PART_ROWS) {
        let popularity = items.iter().map(|&item| popularity_row(state, item)).collect();
        write_part(out, &Part { popularity, ..Part::default() })?;
    }
    let mut visitors: Vec<(&str, &Visitor)> = state.visitors.iter().map(|(key, visitor)| (&**key, &**visitor)).collect();
    visitors.sort_unstable_by_key(|&(key, _)| key);
    for visitors in visitors.chunks(PART_ROWS) {
        let visitors = visitors.iter().map(|&(key, visitor)| VisitorRow::new(key, visitor)).collect();
        write_part(out, &Part { visitors, ..Part::default() })?;
    }
    write_part(out, &Part { is_last: true, ..Part::default() })?;
    out.flush()
}

fn write_part(out: &mut impl Write, part: &Part) -> io::Result<()> {
    let content = part.encode_to_vec();
    let length = (content.len() as u64).to_le_bytes();
    out.write_all(&length)?;
    out.write_all(&checksum(&length, &content).to_le_bytes())?;
    out.write_all(&content)
}

fn checksum(length: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(content);
    hasher.finalize()
}

fn first_part(state: &State) -> Part {
    let texts = |table: &Interner| table.names().map(str::to_owned).collect();
    let erased = state.erased.iter();
    Part {
        head: Some(Head {
            offset: state.offset,
            events: state.events,
            active_version: state.active_version.clone(),
            previous_version: state.previous_version.clone(),
        }),
        items: texts(&state.items),
        categories: texts(&state.catalog.categories),
        brands: texts(&state.catalog.brands),
        erased: erased.map(|(key, &time_ms)| ErasedRow { key: key.to_string(), time_ms }).collect(),
        placements: state.documents.placements.values().map(|placement| (**placement).clone()).collect(),
        controls: state.documents.controls.values().map(|control| (**control).clone()).collect(),
        ..Part::default()
    }
}

fn catalog_row(state: &State, item: u32) -> CatalogRow {
    CatalogRow { item, set_ms: state.catalog.row(item).set_ms, raw: state.catalog.raw(item).map(<[u8]>::to_vec) }
}

fn popularity_row(state: &State, item: u32) -> PopularityRow {
    let (long, short, purchases) = state.popularity.kept(item);
    PopularityRow { item, long, short, purchases }
}

/// What is wrong with a file.
type Damage = String;

fn read(mut file: impl Read) -> std::result::Result<State, Damage> {
    let head = read_bytes(&mut file, MAGIC.len() + 4)?;
    if head[..MAGIC.len()] != MAGIC {
        return Err("is not a snapshot".to_owned());
    }
    if head[MAGIC.len()..] != FORMAT.to_le_bytes() {
        return Err(format!("has another format than {FORMAT}, the one this version reads"));
    }
    let mut state = State::default();
    loop {
        let part = read_part(&mut file)?;
        if part.is_last {
            break;
        }
        apply(&mut state, part)?;
    }
    match file.read(&mut [0]) {
        Ok(0) => Ok(state),
        _ => Err("has bytes after its end".to_owned()),
    }
}

fn read_part(file: &mut impl Read) -> std::result::Result<Part, Damage> {
    let head = read_bytes(file, 12)?;
    let (length, expected) = head.split_at(8);
    let bytes = length.iter().rev().fold(0_u64, |all, &byte| all << 8 | u64::from(byte));
    let content = read_bytes(file, usize::try_from(bytes).map_err(|_| "has a frame of impossible length")?)?;
    if checksum(length, &content).to_le_bytes() != expected {
        return Err("has a wrong checksum".to_owned());
    }
    Part::decode(&*content).map_err(|cause| format!("cannot be decoded: {cause}"))
}

/// Reads exactly `count` bytes; a damaged count costs no more memory than the file has bytes.
fn read_bytes(file: &mut impl Read, count: usize) -> std::result::Result<Vec<u8>, Damage> {
    let mut bytes = Vec::new();
    let found = file.take(count as u64).read_to_end(&mut bytes).map_err(|cause| cause.to_string())?;
    if found == count { Ok(bytes) } else { Err("ends too early".to_owned()) }
}

fn apply(state: &mut State, part: Part) -> std::result::Result<(), Damage> {
    if let Some(head) = part.head {
        (state.offset, state.events) = (head.offset, head.events);
        (state.active_version, state.previous_version) = (head.active_version, head.previous_version);
    }
    restore_names(&mut state.items, &part.items)?;
    restore_names(&mut state.catalog.categories, &part.categories)?;
    restore_names(&mut state.catalog.brands, &part.brands)?;
    for row in part.catalog {
        check_ids(&[row.item], state.items.len())?;
        let (item, deleted) = match &row.raw {
            Some(raw) => (Item::decode(&**raw).map_err(|cause| format!("holds no item: {cause}"))?, false),
            None => (Item::default(), true),
        };
        state.catalog.apply(row.item, &ItemChange { item: Some(item), deleted, ..ItemChange::default() }, row.set_ms);
    }
    for row in part.popularity {
        check_ids(&[row.item], state.items.len())?;
        state.popularity.restore(row.item, row.long, row.short, row.purchases);
    }
    state.visitors.reserve(part.visitors.len());
    for row in part.visitors {
        check_ids(&row.recent_items, state.items.len())?;
        check_ids(&row.bought_items, state.items.len())?;
        let visitor = row.visitor()?;
        state.visitors.insert(row.key.into(), Box::new(visitor));
    }
    state.erased.extend(part.erased.into_iter().map(|row| (row.key.into(), row.time_ms)));
    let documents = Arc::make_mut(&mut state.documents);
    documents.placements.extend(part.placements.into_iter().map(|one| (one.placement_id.clone(), Arc::new(one))));
    documents.controls.extend(part.controls.into_iter().map(|one| (one.control_id.clone(), Arc::new(one))));
    Ok(())
}

fn restore_names(table: &mut Interner, names: &[String]) -> std::result::Result<(), Damage> {
    let before = table.len();
    names.iter().for_each(|name| drop(table.intern(name)));
    if table.len() == before + names.len() { Ok(()) } else { Err("has one id twice".to_owned()) }
}

fn check_ids(ids: &[u32], end: usize) -> std::result::Result<(), Damage> {
    if ids.iter().all(|&id| (id as usize) < end) { Ok(()) } else { Err("names an item it does not hold".to_owned()) }
}

impl VisitorRow {
    fn new(key: &str, visitor: &Visitor) -> Self {
        let bought = &visitor.bought;
        let keys = |slots: &[Affinity]| slots.iter().map(|slot| slot.key).collect();
        let weights = |slots: &[Affinity]| slots.iter().map(|slot| slot.weight).collect();
        let (categories, brands) = (used(&visitor.categories), used(&visitor.brands));
        Self {
            key: key.to_owned(),
            recent_items: visitor.recent().map(|recent| recent.item).collect(),
            recent_times: visitor.recent().map(|recent| recent.time_s).collect(),
            recent_kinds: visitor.recent().map(|recent| recent.kind).collect(),
            category_keys: keys(categories),
            category_weights: weights(categories),
            brand_keys: keys(brands),
            brand_weights: weights(brands),
            bought_items: bought.iter().map(|bought| bought.item).collect(),
            bought_weights: bought.iter().map(|bought| bought.weight).collect(),
            bought_firsts: bought.iter().map(|bought| bought.first_s).collect(),
            bought_lasts: bought.iter().map(|bought| bought.last_s).collect(),
            bought_baskets: bought.iter().map(|bought| u32::from(bought.baskets)).collect(),
            bought_last_baskets: bought.iter().map(|bought| u32::from(bought.last_basket)).collect(),
            profile: visitor.profile.as_deref().cloned(),
            events: visitor.events,
            baskets: visitor.baskets,
            lines: visitor.lines,
            spent: visitor.spent,
            first_purchase_ms: visitor.first_purchase_ms,
            last_ms: visitor.last_ms,
        }
    }

    fn visitor(&self) -> std::result::Result<Visitor, Damage> {
        let mut visitor = Visitor {
            bought: self.bought()?,
            profile: self.profile.clone().map(Box::new),
            events: self.events,
            baskets: self.baskets,
            lines: self.lines,
            spent: self.spent,
            first_purchase_ms: self.first_purchase_ms,
            last_ms: self.last_ms,
            ..Visitor::default()
        };
        restore_slots(&mut visitor.categories, &self.category_keys, &self.category_weights)?;
        restore_slots(&mut visitor.brands, &self.brand_keys, &self.brand_weights)?;
        let count = self.recent_items.len();
        if count > RING || count != self.recent_times.len() || count != self.recent_kinds.len() {
            return Err("has a visitor whose interactions do not fit".to_owned());
        }
        let recent = self.recent_items.iter().zip(&self.recent_times).zip(&self.recent_kinds);
        let recent = recent.map(|((&item, &time_s), &kind)| Interaction { item, time_s, kind });
        visitor.restore_recent(recent);
        Ok(visitor)
    }

    fn bought(&self) -> std::result::Result<Vec<Bought>, Damage> {
        let count = self.bought_items.len();
        let columns = [
            self.bought_weights.len(),
            self.bought_firsts.len(),
            self.bought_lasts.len(),
            self.bought_baskets.len(),
            self.bought_last_baskets.len(),
        ];
        if columns.iter().any(|&len| len != count) || !self.bought_items.is_sorted() {
            return Err("has a visitor whose purchases do not fit".to_owned());
        }
        let bought = |index: usize| Bought {
            item: self.bought_items[index],
            weight: self.bought_weights[index],
            first_s: self.bought_firsts[index],
            last_s: self.bought_lasts[index],
            baskets: self.bought_baskets[index] as u16,
            last_basket: self.bought_last_baskets[index] as u16,
        };
        Ok((0..count).map(bought).collect())
    }
}

/// Slots up to the last one in use; slots fill from the front.
fn used(slots: &[Affinity; AFFINITIES]) -> &[Affinity] {
    let end = slots.iter().rposition(|slot| slot.key != crate::ids::NONE).map_or(0, |last| last + 1);
    &slots[..end]
}

fn restore_slots(
    slots: &mut [Affinity; AFFINITIES],
    keys: &[u32],
    weights: &[f32],
) -> std::result::Result<(), Damage> {
    if keys.len() > AFFINITIES || keys.len() != weights.len() {
        return Err("has a visitor whose affinities do not fit".to_owned());
    }
    for ((slot, &key), &weight) in slots.iter_mut().zip(keys).zip(weights) {
        *slot = Affinity { key, weight };
    }
    Ok(())
}
